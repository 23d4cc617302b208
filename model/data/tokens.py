"""From channels, height maps and positions to normalised patches and back, without a look at what is masked."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

# Visible patches may lie in a fade; 1e-30 (-300 dB) only keeps an all-zero channel finite.
TINY = 1e-30
# Least spread of levels in dB: visible patches differ by that much even where all whole channels have the same level.
LEAST_SPREAD = 1.0


@dataclass(frozen=True)
class Statistics:
    """Scales of the training split that the model's inputs are divided by; a checkpoint carries them."""

    csi_rms: float  # RMS of |csi| over all users
    csi_rms_db_mean: float  # Mean and standard deviation over users of a channel's RMS in dB
    csi_rms_db_std: float
    height_scale: float = 50.0  # Metres
    position_scale: float = 100.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Statistics":
        """Take the fields of this class from a dataset's statistics, ignoring others."""
        return cls(**{name: float(values[name]) for name in cls.__dataclass_fields__ if name in values})

    def to_dict(self) -> dict[str, float]:
        """Return plain numbers for a checkpoint."""
        return asdict(self)


def patchify(grid: Tensor, patch: int) -> Tensor:
    """Cut (..., R, C), multiples of `patch`, into (..., R/patch * C/patch, patch * patch), both in C order."""
    *lead, rows, columns = grid.shape
    cut = grid.reshape(*lead, rows // patch, patch, columns // patch, patch)
    return cut.transpose(-3, -2).reshape(*lead, (rows // patch) * (columns // patch), patch * patch)


def unpatchify(patches: Tensor, patch: int, rows: int, columns: int) -> Tensor:
    """Inverse of `patchify`: (..., patches, patch * patch) to (..., rows, columns)."""
    lead = patches.shape[:-2]
    cut = patches.reshape(*lead, rows // patch, columns // patch, patch, patch)
    return cut.transpose(-3, -2).reshape(*lead, rows, columns)


def visible_antennas(visible: Tensor, columns: int, rows: int, patch: int) -> Tensor:
    """Antennas of visible CSI patches int64 (v,), bool (columns, rows)."""
    seen = torch.zeros(columns * rows // patch**2, dtype=torch.bool)
    seen[visible] = True
    return unpatchify(seen[:, None].expand(-1, patch**2), patch, columns, rows)


def squared(values: Tensor) -> Tensor:
    """|values|^2 of complex values, without the square root of their magnitude."""
    return values.real.square() + values.imag.square()


def csi_patches(csi: Tensor, patch: int) -> Tensor:
    """Complex channel (..., x, y) to real patches (..., P, 2 * patch * patch): real parts, then imaginary parts."""
    return torch.cat((patchify(csi.real, patch), patchify(csi.imag, patch)), -1)


def complex_entries(patches: Tensor) -> Tensor:
    """Real patches (..., 2 * n) of `csi_patches` to complex entries (..., n)."""
    real, imaginary = patches.float().chunk(2, -1)
    return torch.complex(real, imaginary)


def take(values: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: values (B, N, F) at index (B, n) gives (B, n, F)."""
    return values.gather(1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def visible_rms(patches: Tensor, visible: Tensor) -> Tensor:
    """RMS (B,) of |csi| over visible patches, int64 (B, v), of the unscaled ones (B, P, 2 n) of `csi_patches`.

    Masked patches have no influence, so the scale and the level derived from it reveal nothing about them.
    """
    # Gains reach -200 dB: the squares are summed in float64, where they do not underflow.
    power = take(patches, visible).double().square().sum((-2, -1)) / (visible.shape[1] * patches.shape[-1] / 2)
    return (power + TINY).sqrt()


def level(rms: Tensor, statistics: Statistics) -> Tensor:
    """Standardised level of a channel, (20 log10 rms - mean) / std, shape (B,) to float32 (B, 1)."""
    decibel = 20 * torch.log10(rms.double())
    return ((decibel - statistics.csi_rms_db_mean) / max(statistics.csi_rms_db_std, LEAST_SPREAD)).float().unsqueeze(-1)


def patch_centres(rows: int, columns: int, size: float) -> Tensor:
    """Centres of a map's patches in the scene's frame, m: x (east), y (north), float32 (rows * columns, 2).

    Rows run from north to south, columns from west to east; the origin is the centre of the tile, `size` m wide.
    """
    north = size / 2 - (torch.arange(rows) + 0.5) * size / rows
    east = -size / 2 + (torch.arange(columns) + 0.5) * size / columns
    return torch.stack((east.repeat(rows), north.repeat_interleave(columns)), -1)
