"""Lightning's options: processes, precision, clipping, averaged weights, compilation, loggers; and what is refused early."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from synthetic import FakeSamples, make_data, stored

import wavecity.model.training.pretrain as pretraining
from wavecity.dataset import InputError
from wavecity.model.data.snapshots import SnapshotData, check_snapshots, load_snapshots
from wavecity.model.data.users import geometry_of
from wavecity.model.multimodal.masking import RankDraws
from wavecity.model.training import trainer as training
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain
from wavecity.model.training.run_folder import CHECKPOINT, pretrain_fingerprint


def changed(tiny, **fields):
    return type(tiny).model_validate({**tiny.model_dump(), **fields})


def state_of(run):
    return torch.load(run / CHECKPOINT, weights_only=True)


def curve(run, name):
    with (run / "logs" / "version_0" / "metrics.csv").open(newline="", encoding="utf-8") as stream:
        return [float(line[name]) for line in csv.DictReader(stream) if line.get(name)]


class Watch(Callback):
    """Keeps what a training does at every step."""

    def __init__(self):
        self.norms, self.weights = [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.weights.append(pl_module.model.embed_csi.weight.detach().clone())


def watched(settings, run, data, monkeypatch, seed=3):
    """Pretrain, and return what `Watch` saw."""
    watch, make = Watch(), pretraining.make_trainer

    def with_watch(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(watch)
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "make_trainer", with_watch)
        pretrain(stored(data), settings, run, seed=seed)
    return watch


def test_ranks_draw_together_what_one_process_draws():
    whole = np.random.default_rng(1)
    parts = [RankDraws(np.random.default_rng(1), rank, 3) for rank in range(3)]
    for draw in (lambda rng, n: rng.random((n, 5)), lambda rng, n: rng.uniform(-2, 3, (n, 2))):
        together = np.empty((12, draw(np.random.default_rng(0), 1).shape[1]))
        for rank, part in enumerate(parts):
            together[rank::3] = draw(part, 4)
        np.testing.assert_array_equal(together, draw(whole, 12))


@pytest.mark.system
def test_two_processes_train_as_one(data, tiny, tmp_path):
    """Two gloo processes, the same global batch: the same losses at every step, the same weights at the end."""
    losses, states = [], []
    for devices in (1, 2):
        run = tmp_path / str(devices)
        pretrain(stored(data), changed(tiny, devices=devices, threads=1), run, seed=3)
        losses.append({name: curve(run, name) for name in ("train/total", "train/csi", "validation/total")})
        states.append(state_of(run))
        assert states[-1]["global_step"] == 18
    for name, values in losses[0].items():
        assert len(values) >= 3
        np.testing.assert_allclose(losses[1][name], values, rtol=1e-4, err_msg=name)
    first = torch.cat([value.flatten() for value in states[0]["state_dict"].values()])
    second = torch.cat([value.flatten() for value in states[1]["state_dict"].values()])
    start = torch.cat([p.detach().flatten() for p in untrained(data, tiny).parameters()])
    moved = (first - start).norm()
    # Summed in another order; Adam makes whole steps of slopes that are all rounding.
    assert (first - second).norm() < 2e-3 * moved
    model, _, _, _ = load_model(tmp_path / "2")
    assert not model.training


def untrained(data, tiny):
    from wavecity.model.multimodal.module import PretrainModule

    geometry = geometry_of(data, tiny.model)
    attributes = {"tile_size_m": 200.0, "bs_position_m": [0.0, 100.0, 25.0]}
    snapshots = SnapshotData(data.splits, data.statistics, geometry, attributes, "synthetic", "")
    return PretrainModule(tiny, snapshots, 6, 3, {}).model


def test_bfloat16_trains_with_finite_losses_near_those_of_float32(data, tiny, tmp_path):
    totals = []
    for precision in ("32-true", "bf16-mixed"):
        run = tmp_path / precision
        pretrain(stored(data), changed(tiny, precision=precision, epochs=1), run, seed=3)
        totals.append(curve(run, "train/total"))
    assert np.isfinite(totals[1]).all()
    np.testing.assert_allclose(totals[1], totals[0], rtol=0.05)
    assert totals[1] != totals[0]
    assert all(value.dtype == torch.float32 for value in state_of(tmp_path / "bf16-mixed")["state_dict"].values())


def test_gradients_are_clipped_to_the_norm(data, tiny, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step
    for limit in (0.0, 0.05):
        used = []

        def recording(self, closure=None, *, used=used):
            def with_norm():
                loss = closure()
                grads = [p.grad.norm() for group in self.param_groups for p in group["params"] if p.grad is not None]
                used.append(float(torch.stack(grads).norm()))
                return loss

            return step(self, with_norm)

        monkeypatch.setattr(torch.optim.AdamW, "step", recording)
        settings = changed(tiny, epochs=1, optimiser={**tiny.optimiser.model_dump(), "gradient_clip": limit})
        before = watched(settings, tmp_path / str(limit), data, monkeypatch).norms
        assert min(before) > 0.05
        np.testing.assert_allclose(used, before if limit == 0 else [0.05] * len(before), rtol=1e-3)


def test_averaged_weights_are_the_recurrence_and_are_what_is_evaluated(data, tiny, tmp_path, monkeypatch):
    settings = changed(tiny, ema_decay=0.9)
    watch = watched(settings, tmp_path, data, monkeypatch)
    expected = watch.weights[0].double()
    for value in watch.weights[1:]:
        expected = 0.9 * expected + 0.1 * value.double()
    state = state_of(tmp_path)
    torch.testing.assert_close(state["state_dict"]["model.embed_csi.weight"].double(), expected, atol=1e-6, rtol=1e-5)
    assert torch.equal(state["current_model_state"]["model.embed_csi.weight"], watch.weights[-1])
    model, loaded, _, _ = load_model(tmp_path)
    assert loaded.ema_decay == 0.9
    torch.testing.assert_close(model.embed_csi.weight.double(), expected, atol=1e-6, rtol=1e-5)
    # The averages do not feed back into training.
    plain = watched(tiny, tmp_path / "plain", data, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(plain.weights, watch.weights, strict=True))


class Killed(Exception):
    pass


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(("step", "minutes"), [(6, 10.0), (9, 1e-7)])
def test_resuming_with_averaged_weights_is_exact(data, tiny, tmp_path, monkeypatch, step, minutes):
    settings = changed(tiny, ema_decay=0.8, checkpoint_minutes=minutes)
    pretrain(stored(data), settings, tmp_path / "whole", seed=3)
    make = pretraining.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt(step))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "make_trainer", killing)
        with pytest.raises(Killed):
            pretrain(stored(data), settings, tmp_path / "killed", seed=3)
    pretrain(stored(data), settings, tmp_path / "killed", seed=3)
    whole, resumed = state_of(tmp_path / "whole"), state_of(tmp_path / "killed")
    for part in ("state_dict", "current_model_state"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), (part, name)


def train_compiled(data, tiny, tmp_path):
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    runs = {}
    for compiled in (False, True):
        run = tmp_path / str(compiled)
        pretrain(stored(data), changed(tiny, compile=compiled, epochs=1), run, seed=3)
        runs[compiled] = (curve(run, "train/total"), state_of(run)["state_dict"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    np.testing.assert_allclose(runs[True][0], runs[False][0], rtol=1e-3)
    assert runs[True][1].keys() == runs[False][1].keys()
    load_model(tmp_path / "True")


def test_compiled_blocks_train_alike_and_leave_the_names_alone(data, tiny, tmp_path, monkeypatch):
    """Traced as for the compiler, run without it: that takes minutes."""
    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled(self, dynamic=True, backend="eager"))
    monkeypatch.setattr(training, "_check_compiler", lambda device: None)
    train_compiled(data, tiny, tmp_path)


@pytest.mark.heavy
def test_blocks_of_the_real_compiler_train_alike(data, tiny, tmp_path):
    try:
        training._check_compiler("cpu")
    except InputError as error:
        pytest.skip(str(error))
    train_compiled(data, tiny, tmp_path)


def test_without_a_compiler_it_is_said_before_training(data, tiny, tmp_path, monkeypatch):
    def broken(*_, **__):
        msg = "InvalidCxxCompiler: No working C++ compiler found\nand more"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(InputError, match=r"No working C\+\+ compiler found\); install g\+\+") as error:
        pretrain(stored(data), changed(tiny, compile=True), tmp_path / "run", seed=3)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_curves_go_to_tensorboard_and_to_csv(data, tiny, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pretrain(stored(data), changed(tiny, logger="tensorboard", epochs=2), tmp_path, seed=3)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "version_0"))
    events.Reload()
    written = [point.value for point in events.Scalars("train/total")]
    np.testing.assert_allclose(written, curve(tmp_path, "train/total"), rtol=1e-6)
    assert len(events.Scalars("samples_per_second")) == 2


def test_curves_go_to_weights_and_biases_offline(data, tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    pretrain(stored(data), changed(tiny, logger="wandb", epochs=1), tmp_path, seed=3)
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert curve(tmp_path, "train/total")


def test_a_logger_that_is_not_installed_is_named_with_its_command(data, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(training.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"training\.logger wandb needs a package: pip install wandb"):
        pretrain(stored(data), changed(tiny, logger="wandb"), tmp_path / "run", seed=3)
    assert not (tmp_path / "run").exists()


def test_a_logger_does_not_decide_the_weights_but_averaging_and_compilation_do(tiny):
    prints = {
        name: pretrain_fingerprint(changed(tiny, **{name: value}), "v", 0)
        for name, value in {"epochs": 3, "logger": "wandb", "threads": 2, "ema_decay": 0.9, "compile": True}.items()
    }
    assert prints["epochs"] == prints["logger"] == prints["threads"]
    assert len(set(prints.values())) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"devices": 3}, "training.devices 3 must divide the batch of 16 users"),
        ({"accelerator": "gpu"}, "training.accelerator gpu: torch sees none"),
    ],
)
def test_machines_that_do_not_fit_are_refused_early(data, tiny, tmp_path, monkeypatch, fields, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=words):
        pretrain(stored(data), changed(tiny, **fields), tmp_path / "run", seed=3)
    assert not (tmp_path / "run").exists()


def with_arrays(data, split, **arrays):
    """The same data with some arrays of a split replaced."""
    samples = data.splits[split]
    other = FakeSamples({**samples.arrays, **arrays}, samples.scene_index, samples.user_index)
    return dataclasses.replace(data, splits={**data.splits, split: other})


def broken(data):
    """Data that do not fit, and the words that say so."""
    statistics, scenes = data.statistics, data.scenes
    csi = data.splits["validation"].arrays["csi"]
    hole, spot = csi.copy(), scenes.height.clone()
    hole[:, 3, 4], spot[1, 5, 5] = np.nan, math.inf
    yield (
        dataclasses.replace(data, statistics=dataclasses.replace(statistics, csi_rms=-1.0)),
        "csi_rms = -1, it must be",
    )
    yield (
        dataclasses.replace(data, statistics=dataclasses.replace(statistics, csi_rms_db_std=math.nan)),
        "csi_rms_db_std = nan",
    )
    shifted = dataclasses.replace(statistics, csi_rms_db_mean=statistics.csi_rms_db_mean + 40)
    yield dataclasses.replace(data, statistics=shifted), "statistics say the train users' mean level is"
    yield with_arrays(data, "validation", csi=hole), "array 'csi' of split 'validation' is not finite"
    yield dataclasses.replace(data, scenes=dataclasses.replace(scenes, height=spot)), "array 'height' is not finite"
    full = dataclasses.replace(scenes, occupancy=3 * scenes.occupancy)
    yield dataclasses.replace(data, scenes=full), "array 'occupancy' holds 3, it must be 0 or 1"


@pytest.mark.parametrize("number", range(6))
def test_data_that_would_train_nonsense_is_refused_before_training(tiny, tmp_path, number):
    data = make_data(users=6)
    check_snapshots(load_snapshots(stored(data), tiny.model))
    wrong, words = list(broken(data))[number]
    with pytest.raises(InputError, match=words) as error:
        pretrain(stored(wrong), tiny, tmp_path / "run", seed=0)
    assert str(error.value).startswith(f"{stored(wrong)}: ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
