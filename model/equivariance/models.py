"""Both backbones as maps from channels to channels, to be measured and wrapped (see `wavecity.model.equivariance.group`).

Papers: those of `wavecity.model.multimodal.network` and `wavecity.model.temporal.network`; the wrapper is ours, for what
"Physics Equivariance for Robust Generalization in Wireless Foundation Model" (arXiv 2606.28847) asks for.
"""

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import delay_window, from_angle_delay, to_angle_delay
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics, complex_entries, patchify, unpatchify
from wavecity.model.multimodal.inputs import masked_on_grid, normalise
from wavecity.model.multimodal.masking import Mask, masked_count, split_random
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.network import TemporalModel

# Axes of shifts of the estimator's channels (B, x, y), and of the forecaster's (B, T, F, X).
SPACE: tuple[int, ...] = (-2, -1)
TIME_FREQUENCY_SPACE: tuple[int, ...] = (1, 2, 3)


class CsiEstimator(nn.Module):
    """The multi-modal model's CSI branch alone: the whole channel from some antennas, without scene and location.

    The model is in float32, or for profile `paper` in float64; channels may be complex128 with either. In training, the
    recovery of profile `wavecity` amplifies the rounding of float32 to some -45 dB.
    """

    def __init__(self, model: FoundationModel, settings: TrainingSettings, statistics: Statistics) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.statistics = statistics

    def forward(self, csi: Tensor, visible: Tensor) -> Tensor:
        """Estimate the hidden antennas of complex (B, x, y), in the dataset's unit; the visible ones stay as they are.

        `visible`, bool (B, x, y), are whole patches, equally many in every sample; see `draw_visible`. The output is in
        the precision of `csi`; the model computes in its own. In training, profile `wavecity` refuses more visible
        antennas than it goes through the recovery with.
        """
        mask = self._mask(visible)  # (B, v) and (B, m) patches
        if not mask.csi_masked.shape[1]:
            return csi
        prepared = normalise(csi, None, None, mask, self.settings, self.statistics, self.model.physc.dtype)
        predicted = self.model(prepared.inputs, mask).csi  # (B, m, 2 * patch^2)
        if predicted is None:
            bound, count = self.model.settings.recovery_antennas, int(visible[0].sum())
            msg = f"training.model.recovery_antennas {bound}: {count} antennas are visible in training; raise it, or mask more"
            raise InputError(msg)
        entries = complex_entries(predicted) * prepared.scale[:, None, None]  # complex128 (B, m, patch^2)
        grid = masked_on_grid(entries, mask, self.model.settings, self.model.geometry)  # (B, x, y)
        return torch.where(visible, csi, grid.to(csi.dtype))

    @property
    def rms(self) -> float:
        """RMS of a channel of the training users' mean level, which a wrapper keeps to: new levels say nothing."""
        return 10 ** (self.statistics.csi_rms_db_mean / 20)

    def _mask(self, visible: Tensor) -> Mask:
        """Positions of visible and masked patches; refuses parts of patches, and numbers that differ between samples."""
        cells = patchify(visible, self.model.settings.csi_patch)
        seen, counts = cells.all(-1), cells.all(-1).sum(1)
        if not torch.equal(seen, cells.any(-1)) or bool((counts != counts[0]).any()):
            raise ValueError("visible antennas must be whole patches, equally many in every sample; see draw_visible")
        positions = [part.nonzero()[:, 1].view(len(visible), -1) for part in (seen, ~seen)]
        return Mask(positions[0], positions[1], None, None, location_visible=False)


class CsiForecaster(nn.Module):
    """The temporal model as a map from the snapshots seen to the `horizon` to come, over time, frequency and space.

    It sees the model's bins of delay: the most energetic ones of the past, or, without `align`, the first. What it
    forecasts has no energy beyond them. The model is in float32, its only precision; channels may be complex128.
    """

    def __init__(self, model: TemporalModel, horizon: int, align: bool = True) -> None:
        super().__init__()
        self.model = model
        self.horizon = horizon
        self.align = align

    def forward(self, past: Tensor, visible: Tensor | None = None) -> Tensor:
        """Forecast: complex (B, T, F, X) to (B, horizon, F, X), in the same precision.

        `visible`, bool (B, T, F, X), are whole snapshots (of one that is visible in part nothing is, in angle and
        delay), all by default. The model forecasts without a first guess if one is hidden.
        """
        hidden = torch.zeros(past.shape[:2], dtype=torch.bool, device=past.device)
        if visible is not None:
            hidden = ~visible.flatten(2).all(-1)
            if bool((visible.flatten(2).any(-1) & hidden).any()):
                raise ValueError("visible must be whole snapshots: the model sees angles and delays")
            past = past.masked_fill(~visible, 0)
        seen = past.to(torch.complex64)  # (B, T, F, X)
        delays = self.model.grid[2]
        first = delay_window(seen, delays) if self.align else 0
        bins = to_angle_delay(seen, delays, first)  # (B, T, angle, delay)
        tokens = torch.cat((bins, bins.new_zeros(len(bins), self.horizon, *bins.shape[2:])), 1)
        asked = hidden.new_ones(len(bins), self.horizon)
        masked = torch.cat((hidden, asked), 1)[..., None, None].expand(tokens.shape)
        forecast = self.model(tokens, masked)[:, past.shape[1] :]  # (B, horizon, angle, delay)
        return from_angle_delay(forecast, past.shape[2], first).to(past.dtype)


def draw_visible(batch: int, geometry: Geometry, patch: int, ratio: float, rng: np.random.Generator) -> Tensor:
    """Draw visible antennas in whole patches, bool (B, x, y); a share `ratio` is masked, as many in every sample."""
    patches = geometry.columns // patch * (geometry.rows // patch)
    shown, _ = split_random(batch, patches, masked_count(ratio, patches), rng)
    seen = torch.zeros(batch, patches, dtype=torch.bool).scatter(1, shown, value=True)
    return unpatchify(seen[..., None].expand(-1, -1, patch**2), patch, geometry.columns, geometry.rows)
