"""A recipe with several carriers: what is built of it, and what refuses it."""

from pathlib import Path

import numpy as np
import pytest
from builds import build_version, recipe_with
from command import wavecity as command

import wavecity
from wavecity.flows import publishing
from wavecity.flows.drafts import published
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import load_recipe
from wavecity.flows.scenes import scene_of
from wavecity.geo.errors import InputError
from wavecity.raytrace.simulate import simulate_csi

ONE_SCENE = {
    "area.scenes": 1,
    "seed": 3,
    "solver.rays": 5_000,
    "solver.max_depth": 2,
    "radio.columns": 4,
    "radio.rows": 4,
    "radio.carriers": "[28.5e9,3.5e9]",
    "users.minimum": 8,
    "users.maximum": 12,
}


def test_a_recipe_without_carriers_is_written_as_before() -> None:
    recipe = load_recipe("quickstart")
    for content in (recipe.model_dump(mode="json"), recipe.data_parts()):
        assert "carriers" not in content["radio"]
        assert content["radio"]["frequency"] == 28.5e9
    several = load_recipe("quickstart", ("radio.carriers=[28.5e9,3.5e9]",))
    assert several.data_parts()["radio"]["carriers"] == [28.5e9, 3.5e9]
    assert load_recipe("quickstart", ("radio.carriers=[28.5e9]",)) == recipe


def test_a_store_of_two_carriers_has_the_channels_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "write_card", lambda *_: None)
    recipe = recipe_with("quickstart", ONE_SCENE)
    version = build_version(recipe, tmp_path / "store", tmp_path)
    assert version is not None
    every = wavecity.open_store(tmp_path / "store", carrier="all")
    assert every.csi.sizes["carrier"] == 2
    name = str(every.scene.values[0])
    scene = scene_of(recipe, name, tmp_path)
    for radio in recipe.radio.each:
        data = wavecity.open_store(tmp_path / "store", carrier=radio.frequency)
        channels, csi = simulate_csi(scene, radio, recipe.solver, recipe.seed)
        np.testing.assert_array_equal(data.csi.values[0, : len(csi)], csi)
        np.testing.assert_array_equal(data.path_gain.values[0, : len(csi)], channels.path_gain)
        paths = wavecity.open_store(tmp_path / "store", "paths", carrier=radio.frequency)
        np.testing.assert_array_equal(paths.gain.values[0, : len(csi)], channels.gain)
    # The same recipe again: nothing is traced, and nothing published.
    assert published(recipe, plan_scenes(recipe, tmp_path), tmp_path / "store") == version


def test_a_run_of_several_carriers_is_refused_before_it_begins(tmp_path: Path) -> None:
    done = command("run", "quickstart", "--out", tmp_path / "run", "--set", "radio.carriers=[28.5e9,3.5e9]")
    assert done.returncode == 2
    assert "models are trained on one carrier" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_vertical_polarisation_is_written_as_before() -> None:
    for content in (load_recipe("quickstart").model_dump(mode="json"), load_recipe("quickstart").data_parts()):
        assert not {"polarisation", "user_polarisation"} & content["radio"].keys()
    slanted = load_recipe("quickstart", ("radio.polarisation=cross",))
    assert slanted.data_parts()["radio"]["polarisation"] == "cross"


def test_a_store_of_two_ports_has_the_channels_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "write_card", lambda *_: None)
    changes = {"radio.carriers": "null", "radio.user_polarisation": "VH", "solver.max_depth": 1}
    recipe = recipe_with("quickstart", ONE_SCENE | changes)
    assert build_version(recipe, tmp_path / "store", tmp_path) is not None
    every = wavecity.open_store(tmp_path / "store", port="all")
    scene = scene_of(recipe, str(every.scene.values[0]), tmp_path)
    for polarisation in ("V", "H"):
        radio = recipe.radio.model_copy(update={"user_polarisation": polarisation})
        data = wavecity.open_store(tmp_path / "store", port=f"{polarisation}/V")
        channels, csi = simulate_csi(scene, radio, recipe.solver, recipe.seed)
        np.testing.assert_array_equal(data.csi.values[0, : len(csi)], csi)
        np.testing.assert_array_equal(data.path_gain.values[0, : len(csi)], channels.path_gain)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("radio.polarisation=VH", "radio.carriers=[28.5e9,3.5e9]"), "with two ports there is one carrier"),
        (("radio.polarisation=VH", "mobility={steps: 4}"), "mobility goes with one port at each end"),
        (
            ("radio.polarisation=VH", "features.radio_map={spacing: 2}"),
            "features.radio_map goes with one port at each end",
        ),
        (
            ("radio.carriers=[28.5e9,3.5e9]", "mobility={subcarriers: 1000}"),
            "subcarrier_spacing is 480 MHz, above 10% of the lowest of radio.carriers",
        ),
        (("radio.polarisation=X",), "radio.polarisation = 'X'"),
    ],
)
def test_what_carriers_and_ports_do_not_go_with_is_refused(changes: tuple[str, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_recipe("quickstart", changes)
