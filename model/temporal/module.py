"""Masked prediction in the angle-delay-time domain, for Lightning: window, augmentation, impairments, masks, loss."""

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.angle_delay import to_angle_delay, window_of
from wavecity.model.data.json_types import Json
from wavecity.model.multimodal.masking import Draws, RankDraws
from wavecity.model.multimodal.module import SHARED, TRAINING, VALIDATION, MaskedPretraining
from wavecity.model.settings.temporal import TemporalAugmentSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.masking import Hidden, TemporalPlan, draw_hidden, draw_plan, impair
from wavecity.model.temporal.neighbourhood import Grid
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.transformer import seeded_weights

# Hidden entries of nothing must not blow the loss up: their energy counts as 1 % of what the sample's mean would be.
FLOOR = 0.01


class TemporalModule(MaskedPretraining):
    """Masked prediction for Lightning: window, augmentation, impairments, masks, loss, optimiser, checkpoint's card."""

    def __init__(self, settings: TrainingSettings, grid: Grid, steps_per_epoch: int, seed: int, card: Json) -> None:
        super().__init__(settings, steps_per_epoch, seed, card)
        with seeded_weights(seed):
            self.model: TemporalModel = TemporalModel(settings.temporal.model, grid)
        self.tokens = self.model.tokens

    def setup(self, stage: str) -> None:
        """Compile the blocks in place; sparse attention stays as it is."""
        if self.settings.compile:
            for block in self.model.blocks:
                block.compile()

    def training_step(self, csi: Tensor, batch_idx: int) -> Tensor:
        """Masked NMSE of channels (B, T, F, X) under this step's plan."""
        total = self.step_nmse(csi, self.global_step, self.global_rank, self.trainer.world_size).mean()
        self.log_step({"total": total}, len(csi))
        return total

    def step_nmse(self, csi: Tensor, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """Loss of each sample in a training step, (B,); random numbers depend on seed and step only."""
        temporal = self.settings.temporal
        shared = np.random.default_rng([self.seed, SHARED, step])
        plan = draw_plan(temporal.masking, step // self.steps_per_epoch, self.settings.epochs, shared)
        own = RankDraws(np.random.default_rng([self.seed, TRAINING, step]), rank, world)
        csi = augment_temporal(_cut(csi, self.model.grid[0], own), temporal.augment, own)
        seen = impair(csi, temporal.masking, own)
        return self._nmse(csi, seen, draw_hidden(plan, self.model.token_grid, len(csi), own))

    def validation_step(self, csi: Tensor, batch_idx: int) -> None:
        """NMSE without impairments, the kinds of masks in turn over the samples, halfway between the ratios."""
        masking, batch = self.settings.temporal.masking, len(csi)
        rng = np.random.default_rng([self.seed, VALIDATION, batch_idx])
        csi = csi[:, : self.model.grid[0]]
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

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """By the names of the layers' weights."""
        return name.endswith("weight") and parameter.ndim > 1


def masked_nmse(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Squared error over energy of the hidden entries, complex64 and bool (B, T, A, D), for each sample: float32 (B,).

    The energy is at least `FLOOR` of that of as many entries of the sample's mean power.
    """
    counted = hidden.float()
    error = ((predicted - target).abs().square() * counted).sum((1, 2, 3))
    power = target.abs().square()
    least = FLOOR * power.mean((1, 2, 3)) * counted.sum((1, 2, 3))
    energy = torch.maximum((power * counted).sum((1, 2, 3)), least)
    return error / energy.clamp_min(torch.finfo(torch.float32).tiny)


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
