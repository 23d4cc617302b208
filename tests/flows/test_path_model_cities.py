"""scripts/path_model_cities.py: what it asks for, how long it says that takes, and the table of several runs."""

import runpy
import statistics
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from processes import finished

from wavecity.flows.recipe import load_recipe
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Record

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "path_model_cities.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


def options(**changed: object) -> Namespace:
    usual = {"recipe": "cities-39", "scenes_a_city": 30, "users": 40, "draws": 3, "epochs": 5, "seeds": 5, "processes": 2,
             "disturbed": False, "disturbed_share": 0.0, "overrides": []}  # fmt: skip
    return Namespace(**{**usual, **changed})


def test_the_recipe_keeps_its_cities_and_their_splits(script):
    asked = options(disturbed=True, disturbed_share=0.5, overrides=["solver.rays=20000"])
    recipe, shipped = load_recipe("cities-39", script["overrides_of"](asked)), load_recipe("cities-39")
    assert recipe.area.model_copy(update={"scenes": shipped.area.scenes}) == shipped.area
    assert recipe.area.scenes == 30 * len(shipped.area.cities) == 1230
    assert recipe.seed == shipped.seed
    rays = recipe.training.rays
    assert (rays.draws, rays.draw_seed, rays.disturbed_share) == (3, 0, 0.5)
    assert recipe.training.evaluation.zero_shot.disturbed == "standard"
    assert recipe.solver.rays == 20_000


def test_the_plan_adds_up_and_fits_into_three_hours(script):
    asked = options()
    text = script["plan"](load_recipe("cities-39", script["overrides_of"](asked)), asked)
    lines = [line.split(":") for line in text.splitlines()[1:]]
    minutes = {name.strip(): float(value.split("(")[0]) for name, value in lines}
    assert sum(value for name, value in minutes.items() if name != "in all") == pytest.approx(minutes["in all"], abs=3)
    assert 120 <= minutes["in all"] <= 180
    # 35,916 users three times and 4,920 once, 49 ms each, on two cores.
    assert minutes["recover waves of training"] == pytest.approx((3 * 35_916 + 4_920) * 0.049 / 120, abs=0.5)


def test_the_table_has_means_and_deviations_over_the_runs(script):
    def run(values: tuple[float, float]) -> list[Record]:
        where = Condition(csi_masked=0.75, disturbed="footprints 1 m off")
        return [
            Record(Metric.HIDDEN_LOCATION_ERROR, Method.MODEL, values[0], 0, 80, condition=where),
            Record(Metric.HIDDEN_LOCATION_ERROR, Method.PHYSICS, values[1], 0, 80, condition=where),
        ]

    runs = [run((1.0, 2.0)), run((1.5, 2.0)), run((3.5, 2.0))]
    facts = {"test_users": 80, "test_scenes": 2, "test_cities": ["Quito", "Sofia"]}
    lines = script["table"](runs, facts).splitlines()
    assert lines[0] == "80 users of 2 scenes of Quito, Sofia."
    model, physics = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:])
    assert model[1] == "0.75 of the CSI masked, wrong: footprints 1 m off"
    assert model[3:] == ["2.00", f"{statistics.stdev([1.0, 1.5, 3.5]):.2f}", "80"]
    assert physics[2:] == ["physics localiser, no labels", "2.00", "", "80"]


@pytest.mark.heavy
def test_everything_from_maps_to_the_table(tmp_path):
    small = ["solver.rays=20000", "radio.columns=8", "radio.rows=8", "area.split.validation=0.25", "area.split.test=0.25",
             "training.model.spectrum_size=8", "training.evaluation.zero_shot.patches=3",
             "training.evaluation.zero_shot.beam_patches=2", "training.evaluation.zero_shot.disturbed={tilt: {downtilt: 1}}",
             "training.evaluation.mu_mimo.cluster=2",
             "training.rays.model={width: 16, layers: 1, heads: 2, scene_channels: 4}"]  # fmt: skip
    sets = [part for text in small for part in ("--set", text)]
    asked = [
        "--recipe",
        "quickstart",
        "--scenes-a-city",
        "8",
        "--users",
        "12",
        "--draws",
        "1",
        "--epochs",
        "1",
        "--seeds",
        "2",
    ]
    command = [sys.executable, SCRIPT, tmp_path / "out", *asked, *sets]
    first = finished(command, seconds=900)
    assert first.returncode == 0, first.stderr
    written = (tmp_path / "out" / "table.md").read_text()
    assert "wrong: tilt" in written
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"store", "seed-0", "seed-1", "table.md"}
    again = finished(command, seconds=900)
    assert (tmp_path / "out" / "table.md").read_text() == written
    assert again.returncode == 0
