"""Recipes: what is shipped is valid, what is wrong gets one line."""

import pytest
import yaml
from pydantic_core import to_jsonable_python

from wavecity.flows.recipe import RECIPES, Recipe, load_recipe, parse_recipe, shipped_recipes
from wavecity.geo.errors import InputError
from wavecity.model.settings.training import TrainingSettings


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_are_named_after_their_file(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", ["quickstart", "quickstart-paper"])
def test_every_key_of_the_quickstart_has_a_reader(name):
    keys = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    keys.pop("base", None)

    def compare(given, parsed):
        for key, value in given.items():
            if isinstance(value, dict):
                compare(value, getattr(parsed, key))
            else:
                assert to_jsonable_python(getattr(parsed, key)) == value

    compare(keys, load_recipe(name))


def test_every_field_says_what_it_is():
    def walk(model):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                walk(field.annotation)
            else:
                assert field.description, f"{model.__name__}.{name}"

    walk(Recipe)


def test_data_parts_leave_training_and_retention_out():
    recipe = load_recipe("quickstart")
    other = load_recipe("quickstart", ("training.epochs=2", "store.keep=9", "solver.memory=2048"))
    assert recipe.data_parts() == other.data_parts()
    assert recipe.data_parts() != load_recipe("quickstart", ("solver.rays=100000",)).data_parts()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("radio.colums=16", "unknown key 'radio.colums'; did you mean radio.columns?"),
        ("radio.size=16", "unknown key 'radio.size'; known there: frequency, carriers, columns"),
        (
            "localization.labels=[20]",
            "unknown key 'localization.labels'; did you mean training.evaluation.localization.labels?",
        ),
        ("training.localization.labels=[20]", "did you mean training.evaluation.localization.labels?"),
        ("epochs=3", "unknown key 'epochs'; did you mean training.epochs?"),
        (
            "labels=[20]",
            "did you mean training.evaluation.localization.labels or training.evaluation.cross_scene.labels",
        ),
        ("area.cities=[{name: A, contry: DE}]", "unknown key 'area.cities.0.contry'; known there: name, country"),
        ("training.evaluation.localization.labels=20,30", "labels = '20,30': a list is needed, write [20,30]"),
        ("training.evaluation.heads.learning_rates=0.01", "a list is needed, write [0.01]"),
        ("area.cities={a: 1}", "area.cities = {'a': 1}: a list is needed"),
        ("training.model=5", "training.model = 5: this is a section, set one of its keys, e.g. training.model.profile"),
        ("radio.columns=0", "radio.columns = 0: input should be greater than or equal to 1"),
        ("radio.wall_material=wet_ground", "radio.wall_material = 'wet_ground'"),
        ("users.minimum=1000", "users.minimum 1000 must not exceed users.maximum 100"),
        ("area.min_coverage=0.7", "min_coverage 0.7 must be below max_coverage 0.6"),
        ("solver.rays=many", "solver.rays = 'many'"),
        ("solver", "write KEY=VALUE"),
        ("seed.x=1", "seed is a value, not a section"),
    ],
)
def test_wrong_values_get_one_line_with_field_value_and_remedy(override, words):
    with pytest.raises(InputError) as error:
        load_recipe("quickstart", (override,))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("a: [1", "not valid YAML"), ("- 1", "a recipe is a mapping"), ("seed: 1", "name"), ("", "a recipe is a mapping")],
)
def test_broken_files_get_one_line(tmp_path, text, words):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_recipe(str(path))
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(InputError, match="quickstart"):
        load_recipe("quikstart")


@pytest.mark.parametrize("change", ["solver.diffuse=true", "radio.scattering=0.3"])
def test_diffuse_scattering_needs_a_coefficient_and_a_solver(change: str) -> None:
    load_recipe("quickstart", ("solver.diffuse=true", "radio.scattering=0.3"))
    with pytest.raises(InputError, match=r"recipe quickstart: recipe: solver.diffuse is (true|false), but radio.scatt"):
        load_recipe("quickstart", (change,))


def test_a_base_is_changed_section_by_section_and_the_result_stands_by_itself():
    changed = parse_recipe({"name": "mine", "base": "quickstart", "radio": {"rows": 16}}, "test")
    shipped = load_recipe("quickstart")
    assert changed.radio.rows == 16
    assert changed.base is None
    assert changed.model_copy(update={"name": "quickstart", "radio": shipped.radio}) == shipped
    with pytest.raises(InputError, match=r"base is 'quickstrt'; shipped recipes: .*quickstart"):
        parse_recipe({"name": "mine", "base": "quickstrt"}, "test")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_that_changes_nothing_of_its_base_is_its_base(name):
    """Also where the base has a base itself, as the deployments of the downstream datasets have."""
    assert parse_recipe({"name": name, "base": name}, "test") == load_recipe(name)


# Of the quickstart before it trained the path model.
PAPER = """
model: {width: 64, encoder_layers: 4, decoder_layers: 2, heads: 4, height_patch: 20}
masking: {csi_only: 0.6}
losses: {csi: 1.0, location: 2.0, occupancy: 0.5, spectrum: 0.5, csi_form: nmse, spectrum_form: kl}
optimiser: {learning_rate: 1.0e-3, warmup_steps: 50}
epochs: 12
batch_size: 16
threads: 2
evaluation:
  max_users: 200
  heads: {seeds: 3, steps: 60, learning_rates: [3.0e-3], finetune_steps: 4, finetune_batch: 16, finetune_rates: [1.0e-3]}
  localization: {scenes: 2, labels: [20, 60]}
  cross_scene: {scenes: 2, labels: [0, 10, 40], adapt_rates: [1.0e-3]}
  mu_mimo: {ratios: [0.1, 0.8], hidden: [[], [32]]}
  su_mimo: {users: 250, test_users: 100, ratios: [0.1, 0.8]}
"""


def test_the_papers_quickstart_differs_from_the_quickstart_in_its_training_alone():
    """What the quickstart says about the path model must not get into the recipe that changes it."""
    paper, quickstart = load_recipe("quickstart-paper"), load_recipe("quickstart")
    assert paper.training == TrainingSettings.model_validate(yaml.safe_load(PAPER))
    assert paper.data_parts() == quickstart.data_parts()
    assert paper.training.backbone == "multimodal"
    assert quickstart.training.backbone == "rays"
    assert paper.model_copy(update={"name": "quickstart", "training": quickstart.training}) == quickstart


def test_units_of_more_channels_than_a_worker_holds_are_refused_with_what_fits() -> None:
    """10,000 users, 64 x 64 antennas, complex64 and a float32 spectrum: 491.5 MB a scene."""
    large = ("users.minimum=10000", "users.maximum=10000", "radio.columns=64", "radio.rows=64")
    with pytest.raises(
        InputError, match=r"store.unit is 16: .* 7,864 MB, more than 1,000; set store.unit to 2 or less"
    ):
        load_recipe("quickstart", (*large, "store.unit=16"))
    assert load_recipe("quickstart", (*large, "store.unit=2")).store.unit == 2
    with pytest.raises(InputError, match=r"make users.maximum, radio.rows or radio.columns smaller"):
        load_recipe("quickstart", (*large[:2], "radio.columns=256", "radio.rows=256", "store.unit=1"))
