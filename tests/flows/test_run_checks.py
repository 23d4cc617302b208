"""A run folder with another training is refused at once; tasks that cannot be are said before, and do not end a run."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import zarr

from wavecity.dataset.publish import latest
from wavecity.flows import pipeline, training
from wavecity.flows.announce import Published
from wavecity.flows.cli import cli
from wavecity.flows.pipeline import train_and_evaluate
from wavecity.flows.recipe import load_recipe
from wavecity.flows.run_checks import planned_sizes, refuse_other_run, warnings_of
from wavecity.geo.errors import InputError
from wavecity.model.data.feasible import NotPossible, Sizes, obstacle, sizes_of
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.run_folder import pretrain_fingerprint

TINY = ("training.epochs=1", "training.batch_size=4")


def run_command(*arguments):
    cli.main(list(map(str, arguments)), standalone_mode=False)


def with_sets(*changes):
    return [word for change in changes for word in ("--set", change)]


@pytest.fixture
def run(tmp_path):
    """A folder of a finished run of the quickstart, as far as it tells which one it is."""
    recipe = load_recipe("quickstart", TINY)
    card = {
        "fingerprint": pretrain_fingerprint(recipe.training, "v1", recipe.seed), "dataset_version": "v1", "seed": recipe.seed,
        "settings": recipe.training.model_dump(mode="json"),
    }  # fmt: skip
    (tmp_path / "pretrain.json").write_text(json.dumps(card))
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    return tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.epochs=2", "training.epochs: 1 -> 2"),
        ("area.scenes=20", "area.scenes: 16 -> 20"),
        ("seed=8", "seed: 7 -> 8"),
    ],
)
def test_run_refuses_a_folder_of_another_run_before_anything_starts(run, monkeypatch, change, words):
    monkeypatch.setattr(pipeline, "run_recipe", lambda *_: pytest.fail("started"))
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(InputError) as error:
        run_command("run", "quickstart", "--out", run, *with_sets(*TINY, change))
    assert words in str(error.value)
    assert "--overwrite" in str(error.value)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_run_goes_on_in_a_folder_of_its_own_or_with_overwrite(run, monkeypatch, capsys):
    calls = []

    def started(recipe, out, workers, dask, maps, overwrite, pass_gates):
        calls.append((recipe.training.epochs, overwrite))

    monkeypatch.setattr(pipeline, "run_recipe", started)
    monkeypatch.setattr("wavecity.flows.commands.prefect_start.wait_for_server", lambda: None)
    monkeypatch.setattr("wavecity.flows.result_tables.print_run", lambda out: print("done", out))
    # Evaluation is no part of the training, retention none of the data.
    same = with_sets(*TINY, "training.evaluation.heads.seeds=5", "store.keep=2")
    run_command("run", "quickstart", "--out", run, *same)
    run_command("run", "quickstart", "--out", run, *with_sets(*TINY, "training.epochs=9"), "--overwrite")
    assert calls == [(1, False), (9, True)]
    assert capsys.readouterr().out.splitlines() == [f"done {run}"] * 2


def test_a_recipe_of_another_version_of_the_code_leaves_the_check_to_the_training(run):
    (run / "recipe.json").write_text('{"name": "old", "gone": 1}')
    refuse_other_run(load_recipe("quickstart", (*TINY, "area.scenes=20")), run)


def test_pretrain_refuses_another_dataset_and_keeps_the_recipe(run, toy_store):
    before = (run / "recipe.json").read_bytes()
    with pytest.raises(InputError, match=r"dataset version: v1 -> 0123456789ab"):
        run_command("pretrain", "quickstart", "--data", toy_store, "--out", run, *with_sets(*TINY))
    assert (run / "recipe.json").read_bytes() == before


def test_sizes_are_the_users_with_a_path(toy_store):
    data = zarr.open_group(
        str(toy_store / "latest.zarr") if (toy_store / "latest.zarr").exists() else str(toy_store), mode="r"
    )
    n_users, outage, split = (np.asarray(data[name][:]) for name in ("n_users", "outage", "split"))
    expected = [int((~outage[row, : n_users[row]].astype(bool)).sum()) for row in range(len(n_users))]
    sizes = sizes_of(str(toy_store))
    assert sizes.train == sum(count for count, name in zip(expected, split, strict=True) if name == "train")
    assert list(sizes.test) == [count for count, name in zip(expected, split, strict=True) if name == "test"]
    assert sizes.steps is None


@pytest.mark.parametrize(
    ("task", "changes", "sizes", "words"),
    [
        ("localization", {"localization": {"labels": [17, 40]}}, Sizes(100, np.array([20, 9]), None, True),
         "training.evaluation.localization.labels asks for 17 labelled users of a scene at least, but the largest test scene "
         "has 20 users with a path, 16"),
        ("localization", {"localization": {"labels": [16]}}, Sizes(100, np.array([20]), None, True), ""),
        ("localization", {"localization": {"labels": [16], "users": 10}}, Sizes(100, np.array([20]), None, True), "labels"),
        ("cross-localization", {"cross_scene": {"labels": [11]}}, Sizes(100, np.array([20]), None, True),
         "training.evaluation.cross_scene.labels asks for 11"),
        ("cross-localization", {"cross_scene": {"labels": [0, 11]}}, Sizes(100, np.array([20]), None, True), ""),
        ("mu-mimo", {"mu_mimo": {"cluster": 21}}, Sizes(100, np.array([20]), None, True, True),
         "training.evaluation.mu_mimo.cluster is 21, but a test scene has 20 users at most"),
        ("mu-mimo", {"mu_mimo": {"ratios": [0.1, 0.5]}}, Sizes(18, np.array([20]), None, True),
         "training.evaluation.mu_mimo.ratios: the largest, 0.5, gives 9 labels of 18 training users"),
        ("su-mimo", {}, Sizes(100, np.array([20]), None, False), "features.paths is false"),
        ("prediction", {}, Sizes(100, np.array([20]), None, True), "needs a temporal model (training.backbone)"),
        ("reconstruction", {}, Sizes(1, np.array([1]), None, False), ""),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_known_from_the_numbers_of_users(task, changes, sizes, words):
    why = obstacle(task, TrainingSettings.model_validate({"evaluation": changes}), sizes)
    assert words in why if words else not why


def test_trajectories_too_short_are_known_from_the_recipe():
    recipe = load_recipe("temporal", ("mobility.steps=20",))
    (warning,) = warnings_of(recipe)
    assert "training.evaluation.prediction.past 16" in warning
    assert "build the dataset with mobility.steps 24" in warning
    assert warnings_of(load_recipe("temporal")) == []


def test_plan_warns_of_tasks_that_no_dataset_of_the_recipe_allows(capsys):
    run_command("plan", "quickstart", *with_sets("users.minimum=10", "users.maximum=12", "area.scenes=2"))
    warning = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: "))
    assert "localization will not be possible: training.evaluation.localization.labels asks for 20" in warning


def test_the_users_test_scenes_may_have_more(capsys):
    sizes = planned_sizes(load_recipe("quickstart", ("users.test=300",)))
    assert sizes.test.max() == 300
    assert warnings_of(load_recipe("quickstart")) == []


def test_a_task_that_is_not_possible_does_not_end_the_run(monkeypatch, tmp_path):
    notes = []

    def impossible(run, store, name, training, seed):
        if name == "localization":
            raise NotPossible("localization is not possible: too few")
        return {"task": name}

    monkeypatch.setattr("wavecity.model.tasks.evaluate.evaluate", impossible)
    monkeypatch.setattr(
        "wavecity.model.tasks.evaluate.note_not_possible", lambda run, name, why: notes.append((name, why))
    )
    monkeypatch.setattr(training, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(training, "evaluate", training.evaluate.fn)
    left_out = training.evaluate_all(tmp_path, tmp_path, ["localization", "mu-mimo"], load_recipe("quickstart"))
    assert notes == [("localization", "localization is not possible: too few")]
    assert left_out == {"not_possible": "localization is not possible: too few"}


def test_a_training_refuses_another_version_than_announced(toy_store: Path, tmp_path: Path) -> None:
    version = latest(toy_store)
    assert version is not None
    announced = {
        "store": str(toy_store),
        "version": "v1",
        "data": str(version.data),
        "fingerprint": "",
        "manifest": "0" * 64,
    }
    with pytest.raises(InputError, match=r"v1: manifest [0-9a-f]{12} is not that announced, 000000000000$"):
        train_and_evaluate.fn(load_recipe("quickstart"), Published.model_validate(announced), tmp_path / "run")
    assert not (tmp_path / "run").exists()
