"""What pretraining of the temporal model hides, and how it disturbs the rest: a curriculum of masks that emulates pilot
sparsity, occlusion, forecasting and imperfect measurements ("LWM-Temporal", arXiv 2603.10024, abstract; the forms are ours).

Randomness comes from generators keyed by (seed, step), as in `wavecity.model.multimodal.masking`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.data.noise import add_noise
from wavecity.model.multimodal.masking import Draws, masked_count
from wavecity.model.settings.temporal import TemporalMaskingSettings
from wavecity.model.temporal.neighbourhood import Grid

Hidden = NDArray[np.bool_]


@dataclass(frozen=True)
class TemporalPlan:
    """What one step hides."""

    kind: str  # One of `KINDS`
    ratio: float  # Share of the tokens


def draw_plan(settings: TemporalMaskingSettings, epoch: int, epochs: int, rng: np.random.Generator) -> TemporalPlan:
    """Draw kind and ratio of a step.

    Kinds enter one by one, evenly over the epochs, all by the last one. The newest has a share of the steps of its own,
    the earlier ones are equally likely. The ratio is uniform between its start and a bound that rises linearly to its end.
    """
    progress = min(epoch / (epochs - 1), 1.0) if epochs > 1 else 1.0
    stage = int(progress * (len(settings.kinds) - 1) + 0.5)
    newest = stage == 0 or rng.random() < settings.newest
    kind = settings.kinds[stage if newest else rng.integers(stage)]
    bound = settings.ratio_start + (settings.ratio_end - settings.ratio_start) * progress
    return TemporalPlan(kind, float(rng.uniform(settings.ratio_start, bound)))


def draw_hidden(plan: TemporalPlan, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """Tokens that are hidden, bool (B, T, a, d), drawn for each sample."""
    return KINDS[plan.kind](plan.ratio, grid, batch, rng)


def _random(ratio: float, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """Single tokens."""
    tokens = int(np.prod(grid))
    return _smallest(rng.random((batch, tokens)), masked_count(ratio, tokens)).reshape(batch, *grid)


def _tube(ratio: float, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """Bins of angle and delay, at all times."""
    bins = grid[1] * grid[2]
    hidden = _smallest(rng.random((batch, bins)), masked_count(ratio, bins))
    return np.repeat(hidden.reshape(batch, 1, *grid[1:]), grid[0], 1)


def _comb(ratio: float, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """Whole snapshots, as evenly spaced as whole numbers allow: at a half, every other one."""
    count = masked_count(ratio, grid[0])
    steps = ((np.arange(count) + rng.random((batch, 1))) * grid[0] / count).astype(int)
    return _snapshots(np.eye(grid[0], dtype=bool)[np.minimum(steps, grid[0] - 1)].any(1), grid)


def _occlusion(ratio: float, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """An ellipse of bins, circular in angle, for a while: between (1 + ratio) / 2 of the snapshots and all of them."""
    snapshots, angles, delays = grid
    draws = rng.random((batch, 5))
    shortest = int(np.ceil((1 + ratio) / 2 * snapshots))
    span = shortest + (draws[:, 0] * (snapshots - shortest + 1)).astype(int)
    start = (draws[:, 1] * (snapshots - span + 1)).astype(int)
    time = np.arange(snapshots)
    during = (time >= start[:, None]) & (time < (start + span)[:, None])
    along_angle = np.abs(np.arange(angles) - draws[:, 2, None] * angles)
    along_angle = np.minimum(along_angle, angles - along_angle) / angles
    along_delay = np.abs(np.arange(delays) - draws[:, 3, None] * (delays - 1)) / delays
    # Up to twice as long along one axis as along the other, in shares of the axes.
    stretch = 2.0 ** (draws[:, 4, None, None] - 0.5)
    distance = np.hypot(along_angle[:, :, None] * stretch, along_delay[:, None] / stretch).reshape(batch, -1)
    wanted = np.rint(masked_count(ratio, snapshots * angles * delays) / span)
    rank = distance.argsort(1, kind="stable").argsort(1, kind="stable")
    blob = (rank < wanted[:, None]).reshape(batch, 1, angles, delays)
    return during[:, :, None, None] & blob


def _tail(ratio: float, grid: Grid, batch: int, rng: Draws) -> Hidden:
    """All snapshots from some time on: forecasting."""
    future = np.arange(grid[0]) >= grid[0] - masked_count(ratio, grid[0])
    return _snapshots(np.repeat(future[None], batch, 0), grid)


Hide = Callable[[float, Grid, int, Draws], Hidden]
KINDS: dict[str, Hide] = {"random": _random, "tube": _tube, "comb": _comb, "occlusion": _occlusion, "tail": _tail}


def _smallest(values: NDArray[np.float64], count: int) -> Hidden:
    """Mark the `count` smallest values of every row."""
    return values.argsort(1).argsort(1) < count


def _snapshots(hidden: Hidden, grid: Grid) -> Hidden:
    """(B, T) to (B, T, a, d)."""
    return np.broadcast_to(hidden[:, :, None, None], (len(hidden), *grid)).copy()


def impair(csi: Tensor, settings: TemporalMaskingSettings, rng: Draws) -> Tensor:
    """Add noise (per subcarrier and antenna), and rotate each snapshot by a random phase, in a share of (B, T, F, X)."""
    batch, snapshots = csi.shape[:2]
    draws = rng.random((batch, 2))
    snr = settings.snr[0] + draws[:, 1] * (settings.snr[1] - settings.snr[0])
    turn = np.deg2rad(settings.phase_noise) * _normal(rng, (batch, snapshots)).real * np.sqrt(2)
    chosen = _like(draws[:, 0] < settings.impaired, csi)[:, None, None, None]
    turned = csi * torch.polar(torch.ones_like(chosen, dtype=torch.float32), _like(turn, csi)[..., None, None])
    noise = torch.from_numpy(_normal(rng, tuple(csi.shape)).astype(np.complex64)).to(csi.device)
    return torch.where(chosen, add_noise(turned, _like(snr, csi), noise), csi)


def _normal(rng: Draws, shape: tuple[int, ...]) -> NDArray[np.complex128]:
    """Complex Gaussian numbers of power 1, from uniform ones (Box and Muller): all that `RankDraws` deals out."""
    radius, turn = np.moveaxis(rng.random((*shape, 2)), -1, 0)
    values: NDArray[np.complex128] = np.sqrt(-np.log1p(-radius)) * np.exp(2j * np.pi * turn)
    return values


def _like(values: NDArray[np.generic], csi: Tensor) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(csi.device)
    return tensor if tensor.dtype == torch.bool else tensor.float()
