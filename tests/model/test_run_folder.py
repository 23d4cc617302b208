"""A run folder belongs to one training, and its results to that training's checkpoint."""

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from synthetic import make_data, stored

from wavecity.dataset import InputError
from wavecity.model.figures.parts import Rebuilt
from wavecity.model.report.page import store_of, write_report
from wavecity.model.results.outcomes import missing_tasks, not_of_this_run, read_outcomes
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import NotPossible, evaluate, note_not_possible
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.run_folder import CHECKPOINT, pretrain_fingerprint, refuse_other, start_of, weights_sha256


def changed(settings, **fields):
    return TrainingSettings.model_validate(settings.model_dump() | fields)


def leave_training(run, settings, version="v1", seed=0, finished=True):
    """What a training leaves that tells which one it is, without weights."""
    card = {
        "fingerprint": pretrain_fingerprint(settings, version, seed), "settings": settings.model_dump(mode="json"),
        "dataset_version": version, "seed": seed,
    }  # fmt: skip
    (run / CHECKPOINT).parent.mkdir(parents=True)
    torch.save({"wavecity": card, "state_dict": {}, "ChannelDataModule": {}}, run / CHECKPOINT)
    if finished:
        (run / "pretrain.json").write_text(json.dumps(card))
    return card


@pytest.mark.parametrize("finished", [True, False])
def test_what_differs_is_named_in_one_line(tiny, tmp_path, finished):
    leave_training(tmp_path, tiny, finished=finished)
    refuse_other(tmp_path, tiny, 0, "v1")
    for settings, seed, version, words in (
        (changed(tiny, epochs=5), 0, "v1", "training.epochs: 3 -> 5;"),
        (tiny, 4, "v1", "seed: 0 -> 4;"),
        (tiny, 0, "v2", "dataset version: v1 -> v2;"),
        (changed(tiny, model={"width": 32}), 0, "v1", "training.model.width: 16 -> 32"),
        (changed(tiny, backbone="temporal"), 0, "v1", "training.backbone: multimodal -> temporal;"),
    ):
        with pytest.raises(InputError) as error:
            refuse_other(tmp_path, settings, seed, version)
        assert words in str(error.value)
        assert str(tmp_path) in str(error.value)
        assert "--overwrite" in str(error.value)
        assert "\n" not in str(error.value)


def test_settings_that_change_no_weight_are_the_same_training(tiny, tmp_path):
    leave_training(tmp_path, tiny)
    refuse_other(
        tmp_path, changed(tiny, evaluation={"batch_size": 3}, checkpoint_minutes=99, temporal={"delays": 3}), 0, "v1"
    )


def test_before_the_dataset_is_there_its_version_is_not_compared(tiny, tmp_path):
    refuse_other(tmp_path / "nothing there", tiny, 0)
    leave_training(tmp_path, tiny)
    refuse_other(tmp_path, tiny, 0)
    with pytest.raises(InputError, match=r"training\.epochs: 3 -> 4"):
        refuse_other(tmp_path, changed(tiny, epochs=4), 0)


def test_only_another_training_takes_the_results_with_it(tiny, tmp_path):
    card = leave_training(tmp_path, tiny)
    (tmp_path / "results").mkdir()
    (tmp_path / "report.html").write_text("old")
    assert start_of(tmp_path, card["fingerprint"]) == tmp_path / CHECKPOINT
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    assert start_of(tmp_path, card["fingerprint"]) is None
    assert (tmp_path / "results").exists()
    leave_training(tmp_path, tiny)
    assert start_of(tmp_path, "another") is None
    assert {path.name for path in tmp_path.iterdir()} == set()


def test_the_hash_of_weights_is_that_of_values_names_and_types():
    one = {"a": torch.arange(3.0), "b": torch.tensor(1, dtype=torch.bfloat16)}
    assert weights_sha256(one) == weights_sha256({name: one[name].clone() for name in ("b", "a")})
    for other in (
        one | {"a": torch.tensor([0.0, 1.0, 2.1])},
        one | {"a": torch.arange(3)},
        {"c": one["a"], "b": one["b"]},
    ):
        assert weights_sha256(other) != weights_sha256(one)


@pytest.fixture(scope="module")
def run(data, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    pretrain(stored(data), changed(tiny, epochs=1), folder, seed=1)
    return folder


@pytest.fixture
def quick(tiny):
    evaluation = tiny.evaluation.model_dump() | {"max_users": 8, "masks": [0.5]}
    return changed(tiny, evaluation=evaluation)


def test_results_with_other_settings_are_kept_with_the_runs_own(run, data, quick):
    other = changed(quick, evaluation=quick.evaluation.model_dump() | {"max_users": 6})
    own = evaluate(run, "synthetic", "reconstruction", quick, 1, data=data, own=(quick, 1))
    before = (run / "results" / "reconstruction.json").read_bytes()
    other_result = evaluate(run, "synthetic", "reconstruction", other, 1, data=data, own=(quick, 1))
    seeded = evaluate(run, "synthetic", "reconstruction", quick, 2, data=data, own=(quick, 1))
    assert (run / "results" / "reconstruction.json").read_bytes() == before
    assert own["changed"] == []
    assert other_result["changed"] == ["training.evaluation.max_users: 8 -> 6"]
    assert seeded["changed"] == ["seed: 1 -> 2"]
    assert len({result["table"] for result in (own, other_result, seeded)}) == 3
    for result, users in ((own, 8), (other_result, 6), (seeded, 8)):
        assert set(pd.read_parquet(run / result["table"])["n"]) <= {0, users, *range(users)}
        assert result["facts"]["test_users"] == users
    # The report shows the run's own, and another only where there are none.
    assert read_outcomes(run)["reconstruction"].facts["test_users"] == 8
    for path in (run / "results").glob("reconstruction.*"):
        path.rename(path.with_name(f"kept{path.suffix}"))
    assert read_outcomes(run)["reconstruction"].result["changed"]
    for path in (run / "results").glob("kept.*"):
        path.rename(path.with_name(f"reconstruction{path.suffix}"))


def test_results_of_an_unfinished_training_are_made_anew_once_it_is_finished(run, data, quick):
    """Same settings, so the same fingerprint; but the weights have changed since."""
    first = evaluate(run, "synthetic", "reconstruction", quick, 1, data=data)
    values = (run / first["table"]).read_bytes()
    assert first["weights_sha256"] == json.loads((run / "pretrain.json").read_text())["weights_sha256"]
    state = torch.load(run / CHECKPOINT, weights_only=True)
    kept = (run / CHECKPOINT).read_bytes()
    for value in state["state_dict"].values():
        value.mul_(0.5)
    torch.save(state, run / CHECKPOINT)
    second = evaluate(run, "synthetic", "reconstruction", quick, 1, data=data)
    assert second["fingerprint"] == first["fingerprint"]
    assert second["weights_sha256"] != first["weights_sha256"]
    assert (run / second["table"]).read_bytes() != values
    summary = json.loads((run / "pretrain.json").read_text())
    assert "other weights of this training" in not_of_this_run(second, summary)
    (run / CHECKPOINT).write_bytes(kept)


@pytest.fixture
def without_pictures(monkeypatch):
    """Drawing takes seconds, and these tests read text."""
    monkeypatch.setattr("wavecity.model.report.page.draw_scene", lambda *_: "data:,")
    monkeypatch.setattr("wavecity.model.report.page.rebuild", lambda figure, *_: Rebuilt(figure.number, figure.title))


@pytest.mark.usefixtures("without_pictures")
def test_the_report_leaves_out_what_is_not_of_this_runs_checkpoint_and_says_so(run, data, quick):
    result = evaluate(run, "synthetic", "reconstruction", quick, 1, data=data)
    path = run / "results" / "reconstruction.json"
    page = write_report(run, "synthetic", data=data).read_text(encoding="utf-8")
    assert 'id="results-reconstruction"' in page
    path.write_text(json.dumps(result | {"checkpoint": "0123456789abcdef"}))
    page = write_report(run, "synthetic", data=data).read_text(encoding="utf-8")
    assert 'id="results-reconstruction"' not in page
    assert "left out: its results are of another training (0123456789ab, not" in page
    assert "wavecity evaluate RUN --task reconstruction --data STORE" in page
    path.write_text(json.dumps(result))


@pytest.mark.usefixtures("without_pictures")
def test_a_task_that_is_not_possible_is_told_with_the_key_in_full(run, data, tiny):
    few = changed(tiny, evaluation=tiny.evaluation.model_dump() | {"localization": {"labels": [50]}})
    with pytest.raises(NotPossible) as error:
        evaluate(run, "synthetic", "localization", few, 1, data=data)
    assert str(error.value).startswith("localization is not possible: ")
    assert "training.evaluation.localization.labels asks for 50 labelled users" in str(error.value)
    note_not_possible(run, "localization", str(error.value))
    summary = json.loads((run / "pretrain.json").read_text())
    missing = missing_tasks(run, summary, ("localization", "mu-mimo"), {})
    assert str(missing["localization"]).startswith("not possible: synthetic: training.evaluation.localization.labels")
    assert missing["mu-mimo"].why == "not run"
    page = write_report(run, "synthetic", data=data).read_text(encoding="utf-8")
    assert "not possible: synthetic: training.evaluation.localization.labels asks for 50" in page
    # A note on another training says nothing about this one.
    assert missing_tasks(run, summary | {"fingerprint": "x"}, ("localization",), {})["localization"].why == "not run"


def test_tasks_stand_on_few_users_without_pictures_that_need_more(run, tiny):
    """t-SNE takes five users; the medians of three are no reason to end."""
    settings = changed(tiny, evaluation=tiny.evaluation.model_dump() | {"localization": {"labels": [1, 2]}})
    small = make_data((("train", 1), ("validation", 1), ("test", 1)), users=3)
    result = evaluate(run, "synthetic", "localization", settings, 1, data=small)
    assert result["facts"]["tsne_users"] == 3
    assert (
        not (run / "results" / "localization.npz").exists()
        or "tsne_raw" not in read_outcomes(run)["localization"].arrays
    )


def test_the_report_is_of_the_version_that_was_trained_on(tmp_path):
    """A store that was built anew since still holds it."""
    for number, fingerprint in ((1, "first"), (2, "second")):
        folder = tmp_path / "store" / "versions" / f"v{number}"
        folder.mkdir(parents=True)
        (folder / "draft.json").write_text(json.dumps({"fingerprint": fingerprint}))
    for trained_on, place in (("first", "versions/v1/data.zarr"), ("second", "versions/v2/data.zarr"), ("gone", "")):
        assert store_of(tmp_path, None, {"dataset_version": trained_on}) == str(tmp_path / "store" / place).rstrip("/")
    assert store_of(tmp_path / "nowhere", None, {"dataset_version": "first", "dataset": "s3"}) == "s3"


@pytest.mark.usefixtures("without_pictures")
def test_scenes_of_another_version_are_marked_as_such(run, data):
    summary = json.loads((run / "pretrain.json").read_text())
    assert "which is not at hand" not in write_report(run, "synthetic", data=data).read_text(encoding="utf-8")
    other = replace(data, attributes=data.attributes | {"fingerprint": "another-version"})
    page = write_report(run, "synthetic", data=other).read_text(encoding="utf-8")
    assert (
        f"those of dataset version another-vers; the model was pretrained on {summary['dataset_version'][:12]}" in page
    )
