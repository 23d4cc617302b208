"""Pretraining of the temporal model: masked prediction in the angle-delay-time domain, with the guarantees of `pretrain`."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import to_angle_delay
from wavecity.model.data.batches import PretrainBatches, ResumableLoader
from wavecity.model.data.trajectories import (
    TemporalData,
    TemporalUsers,
    check_temporal,
    collate_temporal,
    load_temporal,
)
from wavecity.model.data.users import data_facts, dataset_sha256, dataset_version
from wavecity.model.multimodal.masking import Draws, RankDraws
from wavecity.model.multimodal.module import SHARED, TRAINING, VALIDATION, MaskedPretraining
from wavecity.model.settings.temporal import TemporalAugmentSettings, TemporalSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.attention import Grid
from wavecity.model.temporal.masking import Hidden, TemporalPlan, draw_hidden, draw_plan, impair
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.training.initial import sizes_of
from wavecity.model.training.load import PretrainedTemporal, window_of
from wavecity.model.training.pretrain import initial_of, load_weights, package_versions, run_training, weights_of
from wavecity.model.training.run_folder import CHECKPOINT, is_finished, pretrain_fingerprint, refuse_other, start_of
from wavecity.model.training.trainer import check_machine

# Hidden entries of nothing must not blow the loss up: their energy counts as 1 % of what the sample's mean would be.
FLOOR = 0.01


def pretrain_temporal(
    store: str,
    settings: TrainingSettings,
    out: Path,
    seed: int,
    overwrite: bool = False,
    data: TemporalData | None = None,
) -> Path:
    """Pretrain the temporal model on the train split's trajectories; see `wavecity.model.training.pretrain.pretrain`.

    Parameters
    ----------
    store : str
        Folder of a build, of a version, or a `.zarr`.
    settings : TrainingSettings
    out : Path
        Run folder.
    seed : int
    overwrite : bool
        Replace another training in the folder, and its results.
    data : TemporalData, optional
        Instead of opening `store`.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    InputError
        The folder holds another training; the dataset has no trajectories or does not fit the model, or lacks train or
        validation scenes; the machine has no such devices, or lacks a package or compiler that the settings ask for;
        `init_from` names no checkpoint, or one of another architecture.
    """
    version = data.version if data is not None else dataset_version(store)
    initial = initial_of(settings, out)
    digest = None if initial is None else initial.digest
    fingerprint = pretrain_fingerprint(settings, version, seed, digest)
    if is_finished(out, fingerprint):
        return out / CHECKPOINT
    if not overwrite:
        refuse_other(out, settings, seed, version, digest)

    manifest = "" if data is not None else dataset_sha256(store)
    data = data or load_temporal(store, ("train", "validation"))
    grid = temporal_grid(data, settings.temporal)
    check_temporal(data)
    if initial is not None:
        initial.check(settings, sizes_of({"grid": grid}))
    check_machine(settings, len(data.splits["train"]))
    start_from = start_of(out, fingerprint)
    card = {
        "fingerprint": fingerprint,
        "settings": settings.model_dump(mode="json"),
        "grid": list(grid),
        "trajectory": data.attributes["trajectory"],
        "dataset_version": version,
        "dataset_sha256": manifest,
        "data": data_facts(data.attributes),
        "seed": seed,
        "versions": package_versions(),
    }
    batches = TemporalBatches(data, settings, seed)
    module = TemporalModule(settings, grid, len(batches.sampler()), seed, card)
    if initial is not None:
        card["init_from"] = initial.record()
        load_weights(module.model, initial.weights, initial.path)
    return run_training(module, batches, settings, out, start_from, card, data.name)


def temporal_grid(data: TemporalData, settings: TemporalSettings) -> Grid:
    """Snapshots, bins of angle and bins of delay, checked against the dataset.

    Raises
    ------
    InputError
        The dataset has fewer snapshots or subcarriers, or a patch does not divide the bins.
    """
    snapshots, subcarriers, antennas = data.shape
    for name, wanted, there, what in (
        ("snapshots", settings.snapshots, snapshots, "snapshots"),
        ("delays", settings.delays, subcarriers, "subcarriers"),
    ):
        if wanted > there:
            msg = f"{data.name}: {there} {what}; training.temporal.{name} {wanted} must not exceed them"
            raise InputError(msg)
    for edge, bins, what in zip(
        settings.model.patch, (antennas, settings.delays), ("antennas", "bins of delay"), strict=True
    ):
        if bins % edge:
            msg = f"{data.name}: {bins} {what}; training.temporal.model.patch {list(settings.model.patch)} must divide them"
            raise InputError(msg)
    return settings.snapshots, antennas, settings.delays


def load_temporal_model(run: str | Path) -> PretrainedTemporal:
    """Rebuild the temporal model from a checkpoint alone.

    Parameters
    ----------
    run : str or Path
        A run folder, its folder `checkpoints`, or the file.

    Returns
    -------
    PretrainedTemporal
        Model (in evaluation mode, on the CPU), settings and card; its `embed` takes channels as they are.

    Raises
    ------
    InputError
        No checkpoint, one of another version of the model, or one of the multi-modal model
        (`wavecity.model.training.pretrain.load_model` loads that).
    """
    card, weights = weights_of(run)
    settings = TrainingSettings.model_validate(card["settings"])
    if settings.backbone != "temporal":
        msg = f"{run}: a multi-modal model; a run with training.backbone temporal is needed here"
        raise InputError(msg)
    snapshots, angles, delays = card["grid"]
    model = TemporalModel(settings.temporal.model, (snapshots, angles, delays))
    load_weights(model, weights, run)
    return PretrainedTemporal(model.eval(), settings, card)


def masked_nmse(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Squared error over energy of the hidden entries, for each sample.

    Parameters
    ----------
    predicted, target : complex64 (B, T, A, D)
    hidden : bool (B, T, A, D)

    Returns
    -------
    float32 (B,)
        The energy is at least `FLOOR` of that of as many entries of the sample's mean power.
    """
    counted = hidden.float()
    error = ((predicted - target).abs().square() * counted).sum((1, 2, 3))
    power = target.abs().square()
    least = FLOOR * power.mean((1, 2, 3)) * counted.sum((1, 2, 3))
    energy = torch.maximum((power * counted).sum((1, 2, 3)), least)
    return error / energy.clamp_min(torch.finfo(torch.float32).tiny)


class TemporalModule(MaskedPretraining):
    """Masked prediction for Lightning: window, augmentation, impairments, masks, loss, optimiser, checkpoint's card.

    Parameters
    ----------
    settings : TrainingSettings
    grid : (T, A, D)
    steps_per_epoch : int
    seed : int
    card : dict
        Goes into every checkpoint.
    """

    def __init__(
        self, settings: TrainingSettings, grid: Grid, steps_per_epoch: int, seed: int, card: dict[str, Any]
    ) -> None:
        super().__init__(settings, steps_per_epoch, seed, card)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = TemporalModel(settings.temporal.model, grid)

    def setup(self, stage: str) -> None:
        """Compile the blocks in place; sparse attention stays as it is."""
        if self.settings.compile:
            for block in self.model.blocks:
                block.compile()

    def training_step(self, users: TemporalUsers, batch_idx: int) -> Tensor:
        """Masked NMSE under this step's plan."""
        total = self.step_nmse(users, self.global_step, self.global_rank, self.trainer.world_size).mean()
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            value: Any = total.detach()
            if self.trainer.world_size > 1:
                value = self.trainer.strategy.reduce(value, reduce_op="mean")
            self.log("train/total", value, batch_size=len(users))
            self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        return total

    def step_nmse(self, users: TemporalUsers, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """Loss of each sample in a training step, (B,); random numbers depend on seed and step only."""
        temporal = self.settings.temporal
        shared = np.random.default_rng([self.seed, SHARED, step])
        plan = draw_plan(temporal.masking, step // self.steps_per_epoch, self.settings.epochs, shared)
        own = RankDraws(np.random.default_rng([self.seed, TRAINING, step]), rank, world)
        csi = augment_temporal(_cut(users.csi, self.model.grid[0], own), temporal.augment, own)
        seen = impair(csi, temporal.masking, own)
        return self._nmse(csi, seen, draw_hidden(plan, self.model.token_grid, len(users), own))

    def validation_step(self, users: TemporalUsers, batch_idx: int) -> None:
        """NMSE without impairments, the kinds of masks in turn over the samples, halfway between the ratios."""
        masking, batch = self.settings.temporal.masking, len(users)
        rng = np.random.default_rng([self.seed, VALIDATION, batch_idx])
        csi = users.csi[:, : self.model.grid[0]]
        turn = (np.arange(batch) + batch_idx) % len(masking.kinds)
        hidden = np.zeros((batch, *self.model.token_grid), bool)
        for number, kind in enumerate(masking.kinds):
            plan = TemporalPlan(kind, (masking.ratio_start + masking.ratio_end) / 2)
            hidden[turn == number] = draw_hidden(plan, self.model.token_grid, batch, rng)[turn == number]
        nmse = self._nmse(csi, csi, hidden)
        for number, kind in enumerate(masking.kinds):
            of_kind = torch.from_numpy(turn == number).to(nmse.device)
            if of_kind.any():
                count = int(of_kind.sum())
                self.log(f"validation/{kind}", nmse[of_kind].mean(), batch_size=count, sync_dist=True)
        self.log("validation/total", nmse.mean(), batch_size=batch, sync_dist=True)

    def _nmse(self, csi: Tensor, seen: Tensor, tokens_hidden: Hidden) -> Tensor:
        """Loss (B,) of predicting channels `csi` (B, T, F, X) from what is not hidden of `seen`, which is disturbed."""
        temporal = self.settings.temporal
        hidden = torch.from_numpy(tokens_hidden).to(self.device)
        # Timing from what a receiver has: no snapshot that is hidden whole.
        first = window_of(seen.masked_fill(hidden.all((2, 3))[..., None, None], 0), temporal)
        target, visible = (to_angle_delay(part, temporal.delays, first) for part in (csi, seen))
        high, wide = temporal.model.patch
        hidden = hidden.repeat_interleave(high, 2).repeat_interleave(wide, 3)
        return masked_nmse(self.model(visible, hidden), target, hidden)

    def configure_optimizers(self) -> Any:
        """No weight decay on vectors and embeddings."""
        groups: dict[bool, list[Any]] = {True: [], False: []}
        for name, parameter in self.model.named_parameters():
            groups[name.endswith("weight") and parameter.ndim > 1].append(parameter)
        return self.optimise(groups[True], groups[False])


class TemporalBatches(PretrainBatches):
    """Loaders of the train and validation splits of trajectories."""

    def __init__(self, data: TemporalData, settings: TrainingSettings, seed: int) -> None:
        # Of a dataset it takes nothing but the splits.
        super().__init__(cast(Any, data), settings, seed)

    def train_dataloader(self) -> ResumableLoader:
        """Training batches from the trainer's step on."""
        loader = super().train_dataloader()
        loader.collate_fn = collate_temporal
        return loader

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation users, at most `validation_users` and evenly spread."""
        loader = super().val_dataloader()
        loader.collate_fn = collate_temporal
        return loader


def augment_temporal(csi: Tensor, settings: TemporalAugmentSettings, rng: Draws) -> Tensor:
    """Rotate, mirror and reverse samples (B, T, F, X), each by draws of its own.

    Mirroring the world reverses the order of the antennas. Reversing a movement reverses the order of the snapshots.
    """
    draws = torch.from_numpy(rng.random((len(csi), 3)).astype(np.float32)).to(csi.device)[..., None, None, None]
    if settings.global_phase:
        csi = csi * torch.polar(torch.ones_like(draws[:, 0]), 2 * torch.pi * draws[:, 0])
    if settings.mirror:
        csi = torch.where(draws[:, 1] < 0.5, csi.flip(-1), csi)
    if settings.reverse:
        csi = torch.where(draws[:, 2] < 0.5, csi.flip(1), csi)
    return csi


def _cut(csi: Tensor, snapshots: int, rng: Draws) -> Tensor:
    """Successive snapshots from a place of its own for every sample, (B, T, F, X) to (B, snapshots, F, X)."""
    spare = csi.shape[1] - snapshots
    start = torch.from_numpy((rng.random((len(csi),)) * (spare + 1)).astype(np.int64)).to(csi.device)
    steps = start[:, None] + torch.arange(snapshots, device=csi.device)
    return csi.gather(1, steps[..., None, None].expand(-1, -1, *csi.shape[2:]))
