"""Windows of trajectories: snapshots seen and those to come."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import delay_window, to_angle_delay
from wavecity.model.data.feasible import NotPossible, too_few_trained, too_short
from wavecity.model.data.noise import add_noise
from wavecity.model.data.trajectories import TemporalData
from wavecity.model.data.users import Rows
from wavecity.model.settings.prediction import PredictionSettings


@dataclass(frozen=True)
class Windows(Rows):
    """Snapshots seen and those to come, in angle and delay."""

    past: Tensor  # complex64 (N, T, angle, delay); with noise, where there is any
    future: Tensor  # complex64 (N, H, angle, delay); without noise


@dataclass(frozen=True)
class Cutter:
    """Cuts windows out of trajectories."""

    past: int  # Snapshots seen and predicted
    future: int
    delays: int  # Bins of delay
    # Keep the bins with the most energy among the snapshots seen (the future has no say), or the first ones
    align: bool
    snr: float | None  # Of the snapshots seen, dB; over all subcarriers and antennas

    def cut(self, csi: Tensor, rng: np.random.Generator, turn: bool = False) -> Windows:
        """One window at a random place of each trajectory complex64 (N, T, F, X); `rng` draws places and noise.

        `turn` also rotates each window by a random phase: more of the same physics, for training.
        """
        start = torch.from_numpy(rng.integers(0, csi.shape[1] - self.past - self.future + 1, len(csi)))
        steps = start[:, None] + torch.arange(self.past + self.future)
        window = csi[torch.arange(len(csi))[:, None], steps]
        seen = window[:, : self.past]
        level = seen.abs().square().mean((1, 2, 3), keepdim=True).sqrt()
        if turn:
            angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, (len(csi), 1, 1, 1))).float()
            level = level * torch.polar(torch.ones_like(angle), -angle)
        # Of mean power one: squares of channels as weak as they come would leave float32. What was never heard stays out.
        window = torch.where(level.abs() > 0, window / level, 0)
        seen = window[:, : self.past]
        if self.snr is not None:
            parts = rng.standard_normal((*seen.shape, 2), dtype=np.float32)
            # Its real and imaginary parts have a variance of one each.
            seen = add_noise(seen, self.snr, torch.view_as_complex(torch.from_numpy(parts)), power=0.5)
        first = delay_window(seen, self.delays) if self.align else 0
        return Windows(
            to_angle_delay(seen, self.delays, first), to_angle_delay(window[:, self.past :], self.delays, first)
        )

    def lost(self, csi: Tensor) -> float:
        """Share of the energy of some trajectories that lies in bins of delay that are dropped."""
        first = delay_window(csi, self.delays) if self.align else 0
        kept = to_angle_delay(csi, self.delays, first).abs().square().sum()
        return max(1 - float(kept / csi.abs().square().sum()), 0.0)


def check_windows(data: TemporalData, config: PredictionSettings, antennas: int) -> None:
    """Refuse a dataset of other antennas than the model's, shorter than a window, or of fewer than two training users."""
    steps, _, found = data.shape
    if found != antennas:
        msg = f"{data.name}: {found} antennas, but the model was trained on {antennas}; evaluate on such a dataset"
        raise InputError(msg)
    if why := too_short(config, steps) or too_few_trained("prediction", len(data.splits["train"])):
        raise NotPossible(f"{data.name}: {why}")
