"""Training: determinism, resuming, running once, refusing what does not fit."""

import itertools
import json
import math
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from synthetic import make_data, stored

import wavecity.model.training.pretrain as module
from wavecity.dataset import InputError
from wavecity.model.data.snapshots import FIELDS, snapshots
from wavecity.model.data.users import gather, geometry_of, load_data
from wavecity.model.multimodal.module import augment, schedule
from wavecity.model.settings.training import AugmentSettings, TrainingSettings
from wavecity.model.training.backbones import step_users, steps_per_epoch, training_batches
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.run_folder import CHECKPOINT, decisive, pretrain_fingerprint


def weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)["state_dict"]


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def finished(data, tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    pretrain(stored(data), tiny, run, seed=3)
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
    assert pretrain(stored(data), tiny, finished, seed=3) == finished / CHECKPOINT
    # What is only evaluated does not change the weights.
    evaluated = tiny.model_copy(update={"evaluation": tiny.evaluation.model_copy(update={"max_users": 5})})
    pretrain(stored(data), evaluated, finished, seed=3)
    assert (finished / CHECKPOINT).stat().st_mtime_ns == before


def test_same_seed_same_weights_other_seed_others(finished, data, tiny, tmp_path):
    torch.manual_seed(99)  # global state must not matter
    again = pretrain(stored(data), tiny, tmp_path / "again", seed=3)
    other = pretrain(stored(data), tiny, tmp_path / "other", seed=4)
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
            pretrain(stored(data), settings, tmp_path, seed=3)
    assert not (tmp_path / "pretrain.json").exists()
    resumed = pretrain(stored(data), settings, tmp_path, seed=3)
    assert same(weights(resumed), weights(finished / CHECKPOINT))
    state = torch.load(resumed, weights_only=True)
    assert state["global_step"] == 18


class SpoilAt(Callback):
    """Not-a-number in the weights before a step, or after it."""

    def __init__(self, step, after):
        self.step, self.after = step, after

    def spoil(self, trainer, module):
        if trainer.global_step == self.step + self.after:
            next(module.model.parameters()).data.fill_(float("nan"))

    def on_train_batch_start(self, trainer, pl_module, *_):
        if not self.after:
            self.spoil(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.after:
            self.spoil(trainer, pl_module)


@pytest.mark.parametrize(("step", "after"), [(8, False), (11, True)])
def test_a_loss_that_is_not_a_number_ends_the_training_and_keeps_the_checkpoint(
    data, tiny, tmp_path, monkeypatch, step, after
):
    """Within an epoch; and at an epoch's last step, whose loss is still finite when the checkpoint is due."""
    make = module.make_trainer

    def spoiling(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.insert(0, SpoilAt(step, after))
        return trainer

    monkeypatch.setattr(module, "make_trainer", spoiling)
    with pytest.raises(InputError, match=f"not finite any more after {9 if not after else 12} steps"):
        pretrain(stored(data), tiny, tmp_path, seed=3)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["global_step"] == 6
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_a_checkpoint_of_another_order_starts_anew(finished, data, tiny, tmp_path, monkeypatch):
    """Half trained by a version that had its own sampler: going on would mix the two orders."""
    settings = tiny.model_copy(update={"checkpoint_minutes": 1e-7})
    make = module.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt(9))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(module, "make_trainer", killing)
        with pytest.raises(Killed):
            pretrain(stored(data), settings, tmp_path, seed=3)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    del state["ChannelDataModule"]
    torch.save(state, tmp_path / CHECKPOINT)
    assert same(weights(pretrain(stored(data), settings, tmp_path, seed=3)), weights(finished / CHECKPOINT))


def test_the_number_of_workers_decides_the_order(tiny):
    def of(workers):
        return pretrain_fingerprint(tiny.model_copy(update={"loader_workers": workers}), "v", 0)

    assert len({of(0), of(1), of(2)}) == 3
    assert "loader_workers" not in decisive(tiny.model_dump())


def test_a_broken_checkpoint_starts_anew(finished, data, tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    checkpoint = pretrain(stored(data), tiny, tmp_path, seed=3)
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
        pretrain(stored(data), shorter, run, seed=4)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    checkpoint = pretrain(stored(data), shorter, run, seed=4, overwrite=True)
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
        pretrain(stored(data), settings, tmp_path / "run", seed=0)
    assert not (tmp_path / "run").exists()


def test_no_mirror_for_a_panel_that_faces_elsewhere(tiny, tmp_path):
    data = make_data(users=4)
    data.attributes["recipe"] = {"radio": {"azimuth": -45.0}}
    with pytest.raises(InputError, match=r"augment\.mirror"):
        pretrain(stored(data), tiny, tmp_path, seed=0)


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


def as_given(batch):
    return batch


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_together_train_on_what_one_process_trains_on(data, tiny, world):
    """Whole batches, no user twice in an epoch, in another order in every epoch."""

    def epoch(number, devices, rank):
        settings = tiny.model_copy(update={"batch_size": 20, "devices": devices})
        batches = training_batches(stored(data), ("user_position",), as_given, settings, seed=1)
        batches.trainer = SimpleNamespace(global_rank=rank, world_size=devices, current_epoch=number)
        return [np.stack([batch["scene"], batch["user"]], -1).tolist() for batch in batches.train_dataloader()]

    whole = epoch(0, 1, 0)
    seen = [tuple(user) for batch in whole for user in batch]
    assert [len(batch) for batch in whole] == [20] * (96 // 20)
    assert len(set(seen)) == len(seen)
    assert epoch(1, 1, 0) != whole
    ranks = [epoch(0, world, rank) for rank in range(world)]
    for number, batch in enumerate(whole):
        for rank in range(world):
            assert ranks[rank][number] == batch[rank::world]


def test_a_dataset_smaller_than_a_batch_is_one_batch(tiny):
    assert step_users(tiny, 7) == 7
    assert steps_per_epoch(tiny, 7) == 1
    assert steps_per_epoch(tiny, 35) == 2


def test_a_batch_holds_the_users_and_every_map_once(data, tiny):
    (batch, *_) = training_batches(stored(data), FIELDS, snapshots, tiny, seed=5).train_dataloader()
    train = gather(data.splits["train"])
    found = [int((train.position == place).all(1).nonzero()[0, 0]) for place in batch.position]
    assert len(set(found)) == 16
    torch.testing.assert_close(batch.csi, train.csi[found], rtol=0, atol=0)
    scenes = train.scene[found]
    assert len(batch.height) == len(scenes.unique())
    for rows, table in ((batch.height, data.scenes.height), (batch.occupancy, data.scenes.occupancy)):
        assert torch.equal(rows[batch.scene], table[scenes])
    assert not batch.bs_shift.any()


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

    position = torch.from_numpy(direction).float()
    csi, mirrored, mirror = augment(channel(1), position, AugmentSettings(global_phase=False), np.random.default_rng(1))
    assert 0 < mirror.sum() < 6
    expected = torch.where(mirror[:, None, None], channel(-1), channel(1))
    turn = csi[:, :1, :1] / expected[:, :1, :1]
    torch.testing.assert_close(csi, expected * turn, atol=1e-4, rtol=1e-4)
    sign = torch.where(mirror, -1.0, 1.0)
    torch.testing.assert_close(mirrored, position * torch.stack((sign, torch.ones(6)), -1))


def test_phase_augmentation_keeps_the_spectrum(data):
    users = gather(data.splits["train"], 5)
    turned, _, mirror = augment(users.csi, users.position, AugmentSettings(mirror=False), np.random.default_rng(2))
    assert mirror is None
    torch.testing.assert_close(turned.abs(), users.csi.abs())
    ratio = turned / users.csi
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert len(ratio[:, 0, 0].angle().round(decimals=3).unique()) == 5
