"""A pretraining that starts from the weights of another one (`training.init_from`)."""

import json

import pytest
import torch
from click.testing import CliRunner
from synthetic import make_data, stored
from synthetic_temporal import make_temporal

import wavecity.model.training.pretrain as module
from wavecity.dataset import InputError
from wavecity.flows.cli import cli
from wavecity.model.report.page import write_report
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.run_folder import CHECKPOINT, pretrain_fingerprint


def changed(settings, **fields):
    return type(settings).model_validate({**settings.model_dump(), **fields})


def weights(run):
    return torch.load(run / CHECKPOINT, weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def source(data, tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("source")
    pretrain(stored(data), changed(tiny, epochs=1), run, seed=3)
    return run


@pytest.fixture
def standing_still(tiny, source):
    """Settings with which training changes nothing: the weights at the end are those at the start."""
    optimiser = {**tiny.optimiser.model_dump(), "learning_rate": 1e-30, "weight_decay": 0.0}
    return changed(tiny, epochs=1, optimiser=optimiser, init_from=str(source))


def test_training_starts_from_the_weights_and_says_so(source, standing_still, tmp_path):
    other = make_data(seed=7, users=8)
    pretrain(stored(other), standing_still, tmp_path, seed=11)
    before, after = weights(source), weights(tmp_path)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["global_step"] == 2  # of its own 32 users in batches of 16
    summary = json.loads((tmp_path / "pretrain.json").read_text())
    assert summary["init_from"]["path"] == str(source)
    assert summary["init_from"]["fingerprint"] == json.loads((source / "pretrain.json").read_text())["fingerprint"]
    assert summary["init_from"]["dataset_version"] == "synthetic-0"
    assert load_model(tmp_path).card["init_from"] == summary["init_from"]
    report = write_report(tmp_path, data=other).read_text()
    assert f"{source}, pretraining {summary['init_from']['fingerprint']}" in report
    # The scales are those of its own data.
    assert load_model(tmp_path).statistics == other.statistics


def test_it_is_not_repeated_and_the_place_of_the_weights_does_not_matter(
    source, standing_still, data, tmp_path, monkeypatch
):
    pretrain(stored(data), standing_still, tmp_path / "run", seed=1)
    (tmp_path / "copy.ckpt").write_bytes((source / CHECKPOINT).read_bytes())
    monkeypatch.setattr(module, "make_trainer", lambda *_: pytest.fail("trained again"))
    moved = changed(standing_still, init_from=str(tmp_path / "copy.ckpt"))
    pretrain(stored(data), moved, tmp_path / "run", seed=1)


def test_weights_count_in_the_fingerprint_and_nothing_else_changes_it(tiny, source, tmp_path):
    plain = pretrain_fingerprint(tiny, "v", 1)
    started = changed(tiny, init_from=str(source))
    initial = module.initial_of(started, tmp_path)
    assert pretrain_fingerprint(started, "v", 1, initial.digest) != plain
    assert pretrain_fingerprint(started, "v", 1) == plain


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"width": 32}, r"training\.model\.width 16 \(here 32\); set them"),
        ({"encoder_layers": 2, "heads": 4}, r"model\.encoder_layers 1 \(here 2\), training\.model\.heads 2 \(here 4\)"),
        (
            {"profile": "wavecity", "width": 32, "encoder_layers": 2, "heads": 4},
            r"training\.model\.profile paper \(here wavecity\), .*width .*, .*encoder_layers 1 \(here 2\) and 1 more;",
        ),
    ],
)
def test_another_architecture_is_refused_before_anything_is_removed(source, tiny, data, tmp_path, model, words):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / CHECKPOINT).write_bytes(b"of another run")
    settings = changed(tiny, model={**tiny.model.model_dump(), **model}, init_from=str(source))
    with pytest.raises(InputError, match=words) as caught:
        pretrain(stored(data), settings, tmp_path, seed=3)
    assert "\n" not in str(caught.value)
    assert (tmp_path / CHECKPOINT).read_bytes() == b"of another run"


def test_what_limits_the_cost_of_training_alone_may_differ(source, standing_still, data, tmp_path):
    model = {**standing_still.model.model_dump(), "recovery_antennas": 64}
    pretrain(stored(data), changed(standing_still, model=model), tmp_path, seed=3)


def test_what_is_no_checkpoint_or_the_run_itself_is_refused(source, tiny, data, tmp_path):
    with pytest.raises(InputError, match="no readable checkpoint"):
        pretrain(stored(data), changed(tiny, init_from=str(tmp_path / "nowhere")), tmp_path / "run", seed=3)
    with pytest.raises(InputError, match=r"the run to be trained, .*; name another --out"):
        pretrain(stored(data), changed(tiny, init_from=str(source / "checkpoints")), source, seed=3)
    assert (source / "pretrain.json").exists()


def test_the_temporal_model_starts_from_a_temporal_one_alone(source, tmp_path):
    waves = make_temporal(users=4, steps=8, subcarriers=8, antennas=6)
    settings = TrainingSettings.model_validate(
        {
            "backbone": "temporal",
            "temporal": {"model": {"width": 8, "layers": 1, "heads": 2}, "snapshots": 6, "delays": 4},
            "optimiser": {"learning_rate": 1e-30, "weight_decay": 0.0},
            "epochs": 1,
            "batch_size": 8,
            "accelerator": "cpu",
        }
    )
    pretrain(stored(waves), settings, tmp_path / "first", seed=3)
    # Another number of snapshots changes no weight.
    temporal = {**settings.temporal.model_dump(), "snapshots": 5}
    second = changed(settings, init_from=str(tmp_path / "first"), temporal=temporal)
    pretrain(stored(waves), second, tmp_path / "second", seed=4)
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.allclose(before[name], after[name], atol=1e-12) for name in before)

    delays = changed(second, temporal={**temporal, "delays": 8})
    with pytest.raises(InputError, match=r"training\.temporal\.delays 4 \(here 8\)"):
        pretrain(stored(waves), delays, tmp_path / "third", seed=4)
    with pytest.raises(InputError, match=r"training\.backbone multimodal \(here temporal\)"):
        pretrain(stored(waves), changed(settings, init_from=str(source)), tmp_path / "third", 4)


def test_the_command_takes_it_as_an_option_and_keeps_it_in_the_recipe(toy_store, tmp_path, tiny):
    (tmp_path / "small.yaml").write_text(
        json.dumps({"name": "small", "training": {**tiny.model_dump(mode="json"), "epochs": 1}})
    )
    arguments = ["pretrain", str(tmp_path / "small.yaml"), "--data", str(toy_store), "--out"]
    runner = CliRunner()
    first = runner.invoke(cli, [*arguments, str(tmp_path / "a: first")], standalone_mode=False)
    assert first.exception is None
    second = [*arguments, str(tmp_path / "second"), "--init-from", str(tmp_path / "a: first")]
    assert runner.invoke(cli, second, standalone_mode=False).exception is None
    recipe = json.loads((tmp_path / "second" / "recipe.json").read_text())
    assert recipe["training"]["init_from"] == str(tmp_path / "a: first")
    assert load_model(tmp_path / "second").card["init_from"]["path"] == str(tmp_path / "a: first")
    wide = runner.invoke(cli, [*arguments, str(tmp_path / "third"), *second[-2:], "--set", "training.model.width=32"])
    assert isinstance(wide.exception, InputError)
    assert "training.model.width 16 (here 32)" in str(wide.exception)
