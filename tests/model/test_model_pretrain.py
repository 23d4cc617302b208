"""Training: determinism, resuming, running once, refusing what does not fit."""

import itertools
import json
import math
import shutil

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from synthetic import make_data

import wavecity.model.training.pretrain as module
from wavecity.dataset import InputError
from wavecity.model.data.batches import StepSampler
from wavecity.model.data.users import Users, gather, geometry_of, load_data
from wavecity.model.multimodal.module import augment, schedule
from wavecity.model.settings.training import AugmentSettings, TrainingSettings
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import CHECKPOINT, pretrain


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def finished(data, tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    pretrain("synthetic", tiny, run, seed=3, data=data)
    return run


def test_a_run_leaves_checkpoint_metrics_and_summary(finished, data, tiny):
    summary = json.loads((finished / "pretrain.json").read_text())
    assert summary["steps"] == 3 * (96 // 16)
    assert summary["samples"] == 18 * 16
    assert summary["train_scenes"] == 4
    assert summary["validation_users"] == 48
    assert summary["dataset_version"] == "synthetic-0"
    assert summary["seconds"] > 0
    model, settings, statistics, card = load_model(finished)
    assert settings == tiny
    assert statistics == data.statistics
    assert card["dataset_version"] == "synthetic-0"
    assert card["versions"]["torch"]
    assert not model.training
    curves = (finished / "logs" / "version_0" / "metrics.csv").read_text()
    for name in ("train/csi", "train/spectrum", "validation/location", "validation/occupancy", "learning_rate"):
        assert name in curves.splitlines()[0]


def test_a_finished_run_is_not_repeated(finished, data, tiny, monkeypatch):
    before = (finished / CHECKPOINT).stat().st_mtime_ns
    monkeypatch.setattr(module, "make_trainer", lambda *_: pytest.fail("trained again"))
    assert pretrain("synthetic", tiny, finished, seed=3, data=data) == finished / CHECKPOINT
    # What is only evaluated does not change the weights.
    evaluated = tiny.model_copy(update={"evaluation": tiny.evaluation.model_copy(update={"max_users": 5})})
    pretrain("synthetic", evaluated, finished, seed=3, data=data)
    assert (finished / CHECKPOINT).stat().st_mtime_ns == before


def test_same_seed_same_weights_other_seed_others(finished, data, tiny, tmp_path):
    torch.manual_seed(99)  # global state must not matter
    again = pretrain("synthetic", tiny, tmp_path / "again", seed=3, data=data)
    other = pretrain("synthetic", tiny, tmp_path / "other", seed=4, data=data)
    assert same(weights(again), weights(finished / CHECKPOINT))
    assert not same(weights(other), weights(finished / CHECKPOINT))


class Killed(Exception):
    pass


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(("step", "minutes"), [(6, 10.0), (9, 1e-7), (12, 1e-7), (1, 10.0)])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(finished, data, tiny, tmp_path, monkeypatch, step, minutes):
    """Killed between epochs, within one (checkpoints every step), at its end, and before any checkpoint."""
    settings = tiny.model_copy(update={"checkpoint_minutes": minutes})
    make = module.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt(step))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(module, "make_trainer", killing)
        with pytest.raises(Killed):
            pretrain("synthetic", settings, tmp_path, seed=3, data=data)
    assert not (tmp_path / "pretrain.json").exists()
    resumed = pretrain("synthetic", settings, tmp_path, seed=3, data=data)
    assert same(weights(resumed), weights(finished / CHECKPOINT))
    state = torch.load(resumed, weights_only=True)
    assert state["global_step"] == 18


def test_a_broken_checkpoint_starts_anew(finished, data, tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    checkpoint = pretrain("synthetic", tiny, tmp_path, seed=3, data=data)
    assert same(weights(checkpoint), weights(finished / CHECKPOINT))


def test_another_training_in_the_folder_is_refused_and_replaced_on_request(finished, data, tiny, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "results").mkdir()
    (run / "results" / "mu-mimo.json").write_text("{}")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    shorter = tiny.model_copy(update={"epochs": 1})
    with pytest.raises(
        InputError, match=r"run holds another training; what differs: training\.epochs: 3 -> 1, seed: 3 -> 4"
    ):
        pretrain("synthetic", shorter, run, seed=4, data=data)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    checkpoint = pretrain("synthetic", shorter, run, seed=4, data=data, overwrite=True)
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 6
    assert json.loads((run / "pretrain.json").read_text())["epochs"] == 1
    # They were of the training that is gone.
    assert not (run / "results").exists()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"height_patch": 30}, "model.height_patch 30 must divide the map"),
        ({"height_patch": 5}, "be a multiple of 10 cells"),
        ({"csi_patch": 5}, "model.csi_patch 5 must divide"),
        ({"spectrum_size": 64}, "model.spectrum_size 64 must not exceed"),
    ],
)
def test_data_that_does_not_fit_is_refused_early(data, tiny, tmp_path, model, words):
    settings = tiny.model_copy(update={"model": tiny.model.model_copy(update=model)})
    with pytest.raises(InputError, match=words):
        pretrain("synthetic", settings, tmp_path / "run", seed=0, data=data)
    assert not (tmp_path / "run").exists()


def test_no_mirror_for_a_panel_that_faces_elsewhere(tiny, tmp_path):
    data = make_data(users=4)
    data.attributes["recipe"] = {"radio": {"azimuth": -45.0}}
    with pytest.raises(InputError, match=r"augment\.mirror"):
        pretrain("synthetic", tiny, tmp_path, seed=0, data=data)


def test_a_store_is_opened_through_its_readers(toy_store):
    data = load_data(str(toy_store))
    assert data.version == "0123456789abcdef0123"
    assert {split: len(samples) for split, samples in data.splits.items()} == {
        "train": 15,
        "validation": 9,
        "test": 15,
    }
    np.testing.assert_allclose(data.scenes.bs, [[0, 100]] * 6)
    users = gather(data.splits["train"])
    assert users.csi.dtype == torch.complex64
    assert users.position.shape == (15, 2)
    assert geometry_of(data, TrainingSettings().model).occupancy_patches == 20
    with pytest.raises(InputError, match="no such store"):
        load_data(str(toy_store / "nowhere"))
    with pytest.raises(InputError, match="split 'holdout' has no scene"):
        load_data(str(toy_store), ("holdout",))


def test_no_checkpoint_is_wrong_input(tmp_path):
    with pytest.raises(InputError, match="run `wavecity pretrain` first"):
        load_model(tmp_path)


def test_step_sampler_covers_every_epoch_and_starts_anywhere():
    sampler = StepSampler(23, 5, seed=1)
    whole = list(sampler)
    flat = [index for batch in whole for index in batch]
    assert len(sampler) == 4
    assert len(flat) == len(set(flat)) == 20
    sampler.step = lambda: 2
    assert list(sampler) == whole[2:]
    sampler.step = lambda: 4
    assert list(sampler) != whole
    assert len(list(sampler)) == 4
    # Two ranks share the same global batches.
    ranks = [list(StepSampler(23, 4, seed=1, rank=rank, world=2)) for rank in (0, 1)]
    together = [sorted(a + b) for a, b in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in StepSampler(23, 4, seed=1)]


def test_learning_rate_rises_then_falls():
    factors = [schedule(step, 100, 10, 0.01) for step in range(101)]
    np.testing.assert_allclose(factors[:10], np.arange(1, 11) / 10)
    assert factors[100] == pytest.approx(0.01)
    assert factors[55] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert all(later <= earlier for earlier, later in itertools.pairwise(factors[10:]))


def test_mirroring_users_is_mirroring_the_world():
    """The channel of a mirrored plane wave is the mirrored channel, up to one phase."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    direction = rng.uniform(-0.5, 0.5, (6, 2))

    def channel(sign):
        phase = sign * direction[:, :1, None] * x + direction[:, 1:, None] * y
        return torch.from_numpy(np.exp(2j * np.pi * phase).astype(np.complex64))

    zeros = torch.zeros(6)
    users = Users(channel(1), torch.from_numpy(direction).float(), zeros.long(), zeros.bool(), zeros, zeros.long())
    mirrored, mirror = augment(users, AugmentSettings(global_phase=False), np.random.default_rng(1))
    assert 0 < mirror.sum() < 6
    expected = torch.where(mirror[:, None, None], channel(-1), channel(1))
    turn = mirrored.csi[:, :1, :1] / expected[:, :1, :1]
    torch.testing.assert_close(mirrored.csi, expected * turn, atol=1e-4, rtol=1e-4)
    sign = torch.where(mirror, -1.0, 1.0)
    torch.testing.assert_close(mirrored.position, users.position * torch.stack((sign, torch.ones(6)), -1))


def test_phase_augmentation_keeps_the_spectrum(data):
    users = gather(data.splits["train"], 5)
    turned, mirror = augment(users, AugmentSettings(mirror=False), np.random.default_rng(2))
    assert mirror is None
    torch.testing.assert_close(turned.csi.abs(), users.csi.abs())
    ratio = turned.csi / users.csi
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert len(ratio[:, 0, 0].angle().round(decimals=3).unique()) == 5
