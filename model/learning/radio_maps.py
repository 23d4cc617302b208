"""What predicts a radio map: a U-Net from height map and base station, interpolation of some cells, distance alone.

All give the path gain in dB. Gains below `FLOOR` count as that: what is so weak is noise to any receiver, and how far below it
a shadow lies says more about the ray tracer's settings than about the place.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from torch import Tensor, nn

from wavecity.model.data.json_types import Json

FLOOR = -160.0
# Units of the network: dB, and m of heights and of places.
GAIN_SCALE, HEIGHT_SCALE, PLACE_SCALE = 20.0, 50.0, 100.0
# Channels of the network at full, half, quarter and eighth resolution.
WIDTHS = (16, 32, 64, 64)
# Neighbours that an interpolated cell is made of, by radial basis functions.
NEIGHBOURS = 50
# Correlation lengths of kriging in m: where the search starts, and its bounds.
LENGTH, LENGTHS = 15.0, (1.0, 500.0)


@dataclass(frozen=True)
class Cells:
    """Radio maps of S scenes on one grid."""

    gain: Tensor  # float32 (S, rows, columns); dB, at least `FLOOR`, NaN inside buildings
    place: Tensor  # float32 (S, rows, columns, 2); m from the base station, east and north
    distance: Tensor  # float32 (S, rows, columns); m to the base station, in space
    height: Tensor  # float32 (S, rows, columns); m of the buildings above ground
    bs_height: Tensor  # float32 (S,); m above ground

    @property
    def open(self) -> Tensor:
        """Cells that are not inside buildings, bool (S, rows, columns)."""
        return ~self.gain.isnan()


def cells_of(samples: Sequence[Json], spacing: float, receiver_height: float) -> Cells:
    """Cells of samples of `RadioMapDataset` whose first metric is the path gain, m.

    Height maps are averaged over the cells of the grid.
    """
    gain = torch.stack([sample["radio_map"][0] for sample in samples])
    count = gain.shape[-1]
    source = torch.stack([sample["bs_position"] for sample in samples])
    east = (torch.arange(count) + 0.5 - count / 2) * spacing
    grid = torch.stack(torch.meshgrid(east, -east, indexing="xy"), -1)
    place = grid - source[:, None, None, :2]
    above = (receiver_height - source[:, 2])[:, None, None]
    heights = torch.stack([sample["height"] for sample in samples])[:, None]
    return Cells(
        gain.clamp_min(FLOOR),
        place,
        (place.square().sum(-1) + above.square()).sqrt(),
        F.interpolate(heights, size=(count, count), mode="area")[:, 0],
        source[:, 2],
    )


@dataclass(frozen=True)
class DistanceFit:
    """Path gain in dB as `intercept` + `slope` log10(distance in m): a path loss exponent of -`slope` / 10."""

    intercept: float
    slope: float

    def __call__(self, distance: Tensor) -> Tensor:
        """Path gain at distances in m."""
        return (self.intercept + self.slope * distance.log10()).clamp_min(FLOOR)

    @classmethod
    def of(cls, distance: NDArray[np.floating], gain: NDArray[np.floating]) -> "DistanceFit":
        """Least squares over cells (N,)."""
        logarithm = np.log10(distance.astype(np.float64))
        # Cells at one distance have no slope; then it is that of free space.
        if np.ptp(logarithm) < 1e-6:
            return cls(float(gain.mean() + 20 * logarithm.mean()), -20.0)
        slope, intercept = np.polyfit(logarithm, gain.astype(np.float64), 1)
        return cls(float(intercept), float(slope))


class UNet(nn.Module):
    """Path gain from height map and base station: a U-Net (arXiv 1505.04597) of four resolutions on a fit by distance.

    Parameters
    ----------
    fit : DistanceFit
        What its output is added to.
    widths : sequence of int
        Channels at each resolution.
    """

    def __init__(self, fit: DistanceFit, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        self.fit = fit
        before = (6, *widths)
        self.down = nn.ModuleList(_block(one, other) for one, other in zip(before, widths, strict=False))
        self.up = nn.ModuleList(
            _block(below + here, here) for here, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.last = nn.Conv2d(widths[0], 1, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def forward(self, cells: Cells) -> Tensor:
        """Path gain float32 (S, rows, columns), dB, of all cells, those inside buildings too."""
        start = self.fit(cells.distance)
        # The edges of a resolution are those of the next: rows and columns are filled up.
        rows, columns = start.shape[1:]
        unit = 2 ** (len(self.down) - 1)
        features = F.pad(_features(cells, start), (0, -columns % unit, 0, -rows % unit), mode="replicate")
        levels = []
        for level, block in enumerate(self.down):
            features = block(F.avg_pool2d(features, 2) if level else features)
            levels.append(features)
        for block, skipped in zip(self.up, levels[-2::-1], strict=True):
            features = block(torch.cat([F.interpolate(features, scale_factor=2.0), skipped], 1))
        added: Tensor = GAIN_SCALE * self.last(features)[:, 0, :rows, :columns]
        return start + added


def _features(cells: Cells, start: Tensor) -> Tensor:
    """Inputs of the network (S, 6, rows, columns)."""
    below = (cells.bs_height[:, None, None] - cells.height) / HEIGHT_SCALE
    parts = [
        cells.height / HEIGHT_SCALE,
        below,
        cells.open.float(),
        start / GAIN_SCALE + 5,
        cells.place[..., 0] / PLACE_SCALE,
        cells.place[..., 1] / PLACE_SCALE,
    ]
    return torch.stack(parts, 1)


def _block(before: int, after: int) -> nn.Sequential:
    """Two convolutions; normalised over groups, for batches are small."""
    groups = math.gcd(after, 4)
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [nn.Conv2d(channels, after, 3, padding=1), nn.GroupNorm(groups, after), nn.ReLU()]
    return nn.Sequential(*layers)


def squared_error(found: Tensor, cells: Cells) -> Tensor:
    """Mean squared error over the open cells, in squares of `GAIN_SCALE`; what is trained with."""
    error = (found - cells.gain)[cells.open] / GAIN_SCALE
    return error.square().mean()


def radial_basis(
    known: NDArray[np.float64], values: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate by linear radial basis functions, each cell from its nearest neighbours.

    Parameters
    ----------
    known : float64 (K, 2)
        m.
    values : float64 (K,)
    wanted : float64 (N, 2)
        m.

    Returns
    -------
    float64 (N,)
    """
    found = RBFInterpolator(known, values, neighbors=min(NEIGHBOURS, len(known)), kernel="linear", degree=0)(wanted)
    return np.asarray(found, np.float64)


def kriging(
    known: NDArray[np.float64], values: NDArray[np.float64], wanted: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolate by a Gaussian process with a Matern covariance of exponent 1.5 and a nugget, fitted to what is known.

    Parameters and returns as of `radial_basis`.
    """
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(LENGTH, LENGTHS, nu=1.5) + WhiteKernel(0.1, (1e-4, 1e1))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        # A length or the nugget at its bound, where there is hardly any shadow.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(known, values)
    return np.asarray(process.predict(wanted), np.float64)
