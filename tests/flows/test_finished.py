"""A run or a build that is done is found done, without Prefect or torch; anything that changed is seen."""

import json
import os
from pathlib import Path
from unittest import mock

import pytest
import yaml
from click.testing import CliRunner, Result
from geo_maps import box, osm_xml
from toy import build_store, make_layout

from wavecity.dataset.publish import Version
from wavecity.flows import finished
from wavecity.flows.cli import cli
from wavecity.flows.drafts import dataset_fingerprint
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Record, write_records

HOUSES = [(box(x, y, x + 40, y + 30), {"building": "yes", "height": "12"}) for x in (-80, 20) for y in (-90, -20, 40)]
RESULT = {"task": "localization"}
RECORDS = [
    Record(Metric.LOCATION_ERROR, method, value, seed=0, n=9, x=x)
    for x, error in ((6, 40.0), (12, 20.0))
    for method, value in ((Method.PHYSC_MLP, error), (Method.KNN, 3 * error))
]


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Recipe, Version]:
    """A finished run of a recipe on a small town: its folder, with `recipe.yaml` next to it."""
    (tmp_path / "town.osm").write_text(osm_xml(HOUSES))
    area = {
        "source": str(tmp_path / "town.osm"),
        "city": "Town",
        "country": "FI",
        "scenes": 1,
        "split": {"by": "scene"},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "town", "area": area}))
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    folder = tmp_path / "run"
    plan = plan_scenes(recipe, folder / "store" / "maps")
    layout = make_layout(scenes=2, unit=2, users=12)
    version = build_store(folder / "store", layout, dataset_fingerprint(recipe, plan))
    for name in ("recipe.json", "pretrain.json", "report.html", "checkpoints/last.ckpt", "results/localization.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(RESULT))
    write_records(folder / "results" / "localization.parquet", RECORDS, "localization", "c", "v")
    card = {
        "fingerprint": "of a training",
        "dataset_version": version.fingerprint,
        "seed": recipe.seed,
        "settings": recipe.training.model_dump(mode="json"),
    }
    (folder / "pretrain.json").write_text(json.dumps(card))
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    finished.record(recipe, version, folder)
    return folder, recipe, version


def invoke(*arguments: object) -> Result:
    """Run a command in this process, in which the flows cannot be imported."""
    with mock.patch.dict(os.environ), mock.patch.dict("sys.modules", {"wavecity.flows.pipeline": None}):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_a_finished_run_is_found(run: tuple[Path, Recipe, Version]) -> None:
    folder, recipe, version = run
    assert finished.find(recipe, folder, None) == version
    result = invoke("run", folder.parent / "recipe.yaml", "--out", folder)
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    # toy-0000 and toy-0001 have 8 and 9 users.
    assert lines["run"] == f"{folder} (2 scenes, 17 users, dataset v1)"
    assert lines["results"].startswith("Localisation, median error 20 m (60)")
    assert lines["report"] == str(folder / "report.html")
    assert lines["store"] == str(folder / "store")
    assert list(lines) == ["run", "results", "report", "store", "next"]
    assert f"wavecity explore {folder / 'store'};" in lines["next"]
    # A task that was not possible is a line more.
    why = "mu-mimo is not possible: too few users"
    (folder / "results" / "mu-mimo.json").write_text(json.dumps({"task": "mu-mimo", "not_possible": why}))
    finished.record(recipe, version, folder)
    assert invoke("run", folder.parent / "recipe.yaml", "--out", folder).stdout.splitlines()[-1] == why


def test_a_finished_build_is_found(run: tuple[Path, Recipe, Version]) -> None:
    folder, _, version = run
    result = invoke("build", folder.parent / "recipe.yaml", "--out", folder / "store")
    assert result.exit_code == 0, result.output
    assert f"published v1: {version.data}" in result.stdout
    # Another recipe is another dataset: that is for the flow to build.
    other = invoke("build", folder.parent / "recipe.yaml", "--out", folder / "store", "--set", "seed=5")
    assert isinstance(other.exception, ImportError)


@pytest.mark.parametrize(
    "changed", ["pretrain.json", "report.html", "checkpoints/last.ckpt", "results/localization.json"]
)
def test_a_file_of_the_run_that_changed_or_is_gone_is_seen(run: tuple[Path, Recipe, Version], changed: str) -> None:
    folder, recipe, _ = run
    before = (folder / changed).read_bytes()
    (folder / changed).write_bytes(before + b" ")
    assert finished.find(recipe, folder, None) is None
    (folder / changed).unlink()
    assert finished.find(recipe, folder, None) is None
    (folder / changed).write_bytes(before)
    assert finished.find(recipe, folder, None) is not None
    (folder / "results" / "mu-mimo.json").write_text("{}")
    assert finished.find(recipe, folder, None) is None


def test_another_recipe_map_code_or_version_is_seen(
    run: tuple[Path, Recipe, Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, recipe, _ = run
    path = str(folder.parent / "recipe.yaml")
    for change in ("seed=3", "solver.max_depth=1", "training.epochs=7", "training.evaluation.heads.seeds=4"):
        assert finished.find(load_recipe(path, (change,)), folder, None) is None
    # Planned elsewhere, so not known here: the flow has to look.
    assert finished.find(recipe, folder, folder.parent / "maps") is None
    with monkeypatch.context() as patch:
        patch.setattr(finished, "_code", lambda: "other")
        assert finished.find(recipe, folder, None) is None
    (folder / "store" / "latest.zarr").rename(folder / "store" / "away")
    assert finished.find(recipe, folder, None) is None
    (folder / "store" / "away").rename(folder / "store" / "latest.zarr")
    assert finished.find(recipe, folder, None) is not None
    (folder.parent / "town.osm").write_text(osm_xml(HOUSES[:-1]))
    assert finished.find(recipe, folder, None) is None


def test_results_with_other_settings_leave_the_run_finished(run: tuple[Path, Recipe, Version]) -> None:
    folder, recipe, version = run
    # As `wavecity evaluate RUN --task localization --set training.evaluation.visible_csi=0.5` names them.
    for suffix in (".json", ".npz", ".parquet"):
        (folder / "results" / f"localization-1a2b3c4d{suffix}").write_text(json.dumps(RESULT))
    assert finished.find(recipe, folder, None) == version
    # Of the run's own settings every file counts.
    (folder / "results" / "localization.npz").write_text("{}")
    assert finished.find(recipe, folder, None) is None
