"""Pretraining of the temporal model: it learns, resumes exactly, runs once, and refuses what does not fit."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from synthetic import FakeSamples, make_data, stored
from synthetic_temporal import complex_normal, make_temporal, users_of

import wavecity.model.training.pretrain as module
from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import window_of
from wavecity.model.data.trajectories import check_temporal, gather_temporal, load_temporal
from wavecity.model.settings.temporal import TemporalAugmentSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.module import TemporalModule, augment_temporal, masked_nmse
from wavecity.model.training.backbones import temporal_grid
from wavecity.model.training.load import load_model, load_temporal_model
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.run_folder import pretrain_fingerprint
from wavecity.model.training.trainer import CHECKPOINT

WAVES = {"steps": 8, "subcarriers": 8, "antennas": 6}


@pytest.fixture(scope="module")
def waves():
    return make_temporal(users=8, **WAVES)


@pytest.fixture(scope="module")
def settings():
    return TrainingSettings.model_validate(
        {
            "backbone": "temporal",
            "temporal": {
                "model": {"width": 8, "layers": 2, "heads": 2, "mixing": 4},
                "snapshots": 6,
                "delays": 4,
            },
            "optimiser": {"warmup_steps": 2},
            "epochs": 3,
            "batch_size": 8,
            "accelerator": "cpu",
            "threads": 1,
        }
    )


def changed(settings, **fields):
    return type(settings).model_validate({**settings.model_dump(), **fields})


def weights(run):
    return torch.load(run / CHECKPOINT, weights_only=True)["state_dict"]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def curve(run, name):
    with (run / "logs" / "version_0" / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        return [float(line[name]) for line in csv.DictReader(stream) if line.get(name)]


@pytest.fixture(scope="module")
def finished(waves, settings, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    pretrain(stored(waves), settings, run, seed=3)
    return run


def test_a_run_leaves_checkpoint_curves_and_summary(finished, settings):
    summary = json.loads((finished / "pretrain.json").read_text())
    assert summary["steps"] == 3 * (32 // 8)
    assert summary["tokens"] == 6 * 6 * 4
    assert summary["train_scenes"] == 4
    assert summary["validation_users"] == 16
    assert summary["trajectory"]["interval_s"] == 0.35e-3
    model, loaded, card = load_temporal_model(finished)
    assert loaded == settings
    assert card["grid"] == [6, 6, 4]
    assert card["dataset_version"] == "temporal-0"
    assert not model.training
    past = complex_normal((2, 5, 6, 4))
    assert model.predict_tail(past, 2).shape == (2, 2, 6, 4)
    for name in ("train/total", "validation/total", "validation/tail", "validation/comb", "learning_rate"):
        assert len(curve(finished, name)) >= 3
    kinds = [curve(finished, f"validation/{kind}") for kind in settings.temporal.masking.kinds]
    counts = [4, 3, 3, 3, 3]  # of 16 users, in turn
    np.testing.assert_allclose(
        np.average(kinds, axis=0, weights=counts), curve(finished, "validation/total"), rtol=1e-4
    )


def test_a_finished_run_is_not_repeated(finished, waves, settings, monkeypatch):
    before = (finished / CHECKPOINT).stat().st_mtime_ns
    monkeypatch.setattr(module, "make_trainer", lambda *_: pytest.fail("trained again"))
    assert pretrain(stored(waves), settings, finished, seed=3) == finished / CHECKPOINT
    # What only the other backbone reads does not change the weights.
    other = changed(settings, model={**settings.model.model_dump(), "width": 64}, logger="tensorboard")
    pretrain(stored(waves), other, finished, seed=3)
    assert (finished / CHECKPOINT).stat().st_mtime_ns == before


def test_fingerprints_hold_what_decides_the_weights(settings):
    def of(**fields):
        return pretrain_fingerprint(changed(settings, **fields), "v", 0)

    temporal = settings.temporal.model_dump()
    assert of() == of(normalisation="dataset") != of(temporal={**temporal, "snapshots": 5})
    assert of() != of(backbone="multimodal")
    assert of(backbone="multimodal") == of(backbone="multimodal", temporal={**temporal, "snapshots": 5})


def test_same_seed_same_weights_other_seed_others(finished, waves, settings, tmp_path):
    torch.manual_seed(99)  # global state must not matter
    pretrain(stored(waves), settings, tmp_path / "again", seed=3)
    pretrain(stored(waves), settings, tmp_path / "other", seed=4)
    assert same(weights(tmp_path / "again"), weights(finished))
    assert not same(weights(tmp_path / "other"), weights(finished))


class Killed(Exception):
    pass


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(("step", "minutes"), [(4, 10.0), (6, 1e-7), (1, 10.0)])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(
    finished, waves, settings, tmp_path, monkeypatch, step, minutes
):
    """Killed between epochs, within one (checkpoints every step), and before any checkpoint."""
    often = changed(settings, checkpoint_minutes=minutes)
    make = module.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt(step))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(module, "make_trainer", killing)
        with pytest.raises(Killed):
            pretrain(stored(waves), often, tmp_path, seed=3)
    assert not (tmp_path / "pretrain.json").exists()
    pretrain(stored(waves), often, tmp_path, seed=3)
    assert same(weights(tmp_path), weights(finished))
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["global_step"] == 12


@pytest.mark.system
def test_two_processes_train_as_one(finished, waves, settings, tmp_path):
    """Two gloo processes, the same global batch: the same losses, nearly the same weights."""
    pretrain(stored(waves), changed(settings, devices=2), tmp_path, seed=3)
    for name in ("train/total", "validation/total", "validation/tail"):
        np.testing.assert_allclose(curve(tmp_path, name), curve(finished, name), rtol=1e-3, err_msg=name)
    one, two = (torch.cat([value.flatten() for value in weights(run).values()]) for run in (finished, tmp_path))
    assert (one - two).norm() < 1e-2 * one.norm()


def test_compiled_blocks_train_alike(finished, waves, settings, tmp_path, monkeypatch):
    """Traced as for the compiler, run without it; sparse attention is left as it is."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled(self, backend="eager"))
    monkeypatch.setattr("wavecity.model.training.trainer._check_compiler", lambda device: None)
    torch._dynamo.reset()
    pretrain(stored(waves), changed(settings, compile=True), tmp_path, seed=3)
    np.testing.assert_allclose(curve(tmp_path, "train/total"), curve(finished, "train/total"), rtol=1e-3)
    load_temporal_model(tmp_path)


def test_the_loss_falls_on_a_batch_seen_again_and_again(waves, settings):
    """From interpolation, better than nothing, to less than a third of its error."""
    learner = TemporalModule(
        changed(settings, temporal={**settings.temporal.model_dump(), "model": {"width": 16, "layers": 2, "heads": 4}}),
        temporal_grid(waves, settings.temporal), 1000, 0, {},
    )  # fmt: skip
    csi = users_of(waves, "train", 8).csi
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    losses = []
    for _ in range(90):
        loss = learner.step_nmse(csi, 0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[0] < 0.5
    assert losses[-1] < 0.33 * losses[0]


def test_masked_nmse_is_the_ratio_over_the_hidden_entries():
    target, predicted = complex_normal((2, 3, 4, 5)), complex_normal((2, 3, 4, 5), seed=1)
    hidden = torch.rand((2, 3, 4, 5), generator=torch.Generator().manual_seed(0)) < 0.5
    found = masked_nmse(predicted, target, hidden).numpy()
    for number in range(2):
        h, x, y = (part[number].numpy() for part in (hidden, target, predicted))
        assert found[number] == pytest.approx((np.abs(x - y)[h] ** 2).sum() / (np.abs(x)[h] ** 2).sum(), rel=1e-5)
    # Nothing there to be predicted: the energy counts as 1 % of what the mean would give.
    empty = torch.where(hidden, 0, target)
    error = (predicted.abs().square() * hidden).sum((1, 2, 3))
    least = 0.01 * empty.abs().square().mean((1, 2, 3)) * hidden.sum((1, 2, 3))
    torch.testing.assert_close(masked_nmse(predicted, empty, hidden), error / least)
    assert torch.isfinite(masked_nmse(predicted, torch.zeros_like(target), torch.zeros_like(hidden))).all()


def test_augmentation_turns_mirrors_and_reverses():
    csi = complex_normal((200, 4, 3, 5))
    plain = {"global_phase": False, "mirror": False, "reverse": False}
    for name, axis in (("mirror", -1), ("reverse", 1)):
        settings = TemporalAugmentSettings(**{**plain, name: True})
        out = augment_temporal(csi, settings, np.random.default_rng(0))
        flipped = (out == csi.flip(axis)).flatten(1).all(1)
        untouched = (out == csi).flatten(1).all(1)
        assert (flipped ^ untouched).all()
        assert 60 < flipped.sum() < 140
    turn = (
        augment_temporal(csi, TemporalAugmentSettings(**{**plain, "global_phase": True}), np.random.default_rng(0))
        / csi
    )
    torch.testing.assert_close(turn, turn[:, :1, :1, :1].expand_as(turn), atol=1e-4, rtol=1e-4)
    assert len(turn[:, 0, 0, 0].angle().round(decimals=3).unique()) > 150
    assert torch.equal(augment_temporal(csi, TemporalAugmentSettings(**plain), np.random.default_rng(0)), csi)


def test_users_are_gathered_with_speed_and_kind(waves):
    users = gather_temporal(waves.splits["train"])
    assert users.csi.shape == (32, 8, 8, 6)
    assert users.csi.dtype == torch.complex64
    velocity = waves.splits["train"].arrays["trajectory/velocity"]
    np.testing.assert_allclose(users.speed, np.linalg.norm(velocity, axis=-1).mean(1), rtol=1e-5)
    np.testing.assert_array_equal(users.kind, waves.splits["train"].arrays["trajectory/kind"])
    assert len(gather_temporal(waves.splits["train"], 5)) == 5
    assert waves.shape == (8, 8, 6)
    assert waves.interval == 0.35e-3


@pytest.mark.parametrize(
    ("temporal", "words"),
    [
        ({"snapshots": 9}, r"8 snapshots; training\.temporal\.snapshots 9 must not exceed"),
        ({"delays": 9}, r"8 subcarriers; training\.temporal\.delays 9 must not exceed"),
        ({"model": {"patch": (4, 1)}}, r"6 antennas; training\.temporal\.model\.patch \[4, 1\] must divide"),
        ({"model": {"patch": (1, 3)}}, r"4 bins of delay; training\.temporal\.model\.patch \[1, 3\] must divide"),
    ],
)
def test_settings_that_do_not_fit_are_refused_early(waves, settings, tmp_path, temporal, words):
    wrong = changed(settings, temporal={"snapshots": 6, "delays": 4, **temporal})
    with pytest.raises(InputError, match=words) as error:
        pretrain(stored(waves), wrong, tmp_path / "run", seed=0)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def with_csi(data, split, csi):
    samples = data.splits[split]
    other = FakeSamples({**samples.arrays, "trajectory/csi": csi}, samples.scene_index, samples.user_index)
    return dataclasses.replace(data, splits={**data.splits, split: other})


def test_data_that_would_train_nonsense_are_refused(waves, settings, tmp_path):
    check_temporal(waves)
    csi = waves.splits["validation"].arrays["trajectory/csi"]
    hole = csi.copy()
    hole[:, 2, 1, 3] = np.nan
    for wrong, words in (
        (hole, "of split 'validation' is not finite"),
        (0 * csi, "of split 'validation' is zero everywhere"),
    ):
        with pytest.raises(InputError, match=words):
            pretrain(stored(with_csi(waves, "validation", wrong)), settings, tmp_path / "run", seed=0)
    planar = waves
    for split, samples in waves.splits.items():
        planar = with_csi(planar, split, np.repeat(samples.arrays["trajectory/csi"], 2, -1))
    with pytest.raises(InputError, match=r"radio\.rows is 2; the temporal model takes a linear array"):
        pretrain(stored(planar), settings, tmp_path / "run", seed=0)
    assert not (tmp_path / "run").exists()


def test_a_store_without_trajectories_is_refused_in_one_line(toy_store, settings, tmp_path):
    with pytest.raises(
        InputError, match="no array 'trajectory/csi'; the temporal model needs a recipe with `mobility`"
    ) as e:
        load_temporal(str(toy_store))
    assert "\n" not in str(e.value)
    # Through the function that the command calls.
    with pytest.raises(InputError, match="no array 'trajectory/csi'"):
        pretrain(str(toy_store), settings, tmp_path / "run", seed=0)


def test_a_run_of_the_other_model_is_refused(finished, tiny, tmp_path):
    with pytest.raises(InputError, match=r"a temporal model; a run with training\.backbone multimodal is needed"):
        load_model(finished)
    pretrain(stored(make_data(users=4)), changed(tiny, epochs=1), tmp_path, seed=0)
    with pytest.raises(InputError, match=r"a multimodal model; a run with training\.backbone temporal is needed"):
        load_temporal_model(tmp_path)
    with pytest.raises(InputError, match="run `wavecity pretrain` first"):
        load_temporal_model(tmp_path / "nowhere")


def test_weights_of_another_version_of_the_model_are_refused_in_one_line(finished, tmp_path):
    """A part that the model has now is missing, or has another shape."""
    state = torch.load(finished / CHECKPOINT, weights_only=True)
    weights = state["state_dict"]
    for change in ({"model.mixing.fall": None}, {"model.mixing.fall": torch.zeros(2, 2)}):
        changed_weights = {name: value for name, value in (weights | change).items() if value is not None}
        torch.save(state | {"state_dict": changed_weights}, tmp_path / "old.ckpt")
        with pytest.raises(
            InputError, match=r"old\.ckpt: weights of another version of the model \(.*mixing\.fall"
        ) as e:
            load_temporal_model(tmp_path / "old.ckpt")
        assert "\n" not in str(e.value)


def test_the_window_of_delays_follows_the_energy_where_wanted(settings):
    frequency = (np.arange(8) - 4) / 8
    csi = torch.from_numpy(np.exp(-2j * np.pi * 5 * frequency).astype(np.complex64))[None, None, :, None]
    assert 2 <= int(window_of(csi, settings.temporal)) <= 5
    fixed = settings.temporal.model_copy(update={"align": False})
    assert int(window_of(csi, fixed)) == 0
