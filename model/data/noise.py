"""Complex white Gaussian noise at a given signal-to-noise ratio."""

import math

import numpy as np
import torch
from torch import Tensor


def add_noise(csi: Tensor, snr: Tensor | float, noise: Tensor, power: float | None = None) -> Tensor:
    """Add noise `snr` dB below each channel's mean power: complex64 (B, ...); `snr` is one for all, or float32 (B,).

    `noise` is white, complex as `csi`, and its precision is that of the computation. `power` is the mean power of all
    channels over that of `noise`; by default that of each channel is measured, and `noise` has one.

    Examples
    --------
    >>> noise = gaussian(np.random.default_rng(0), (4, 32, 32))
    >>> add_noise(torch.ones(4, 32, 32, dtype=torch.complex64), 20.0, noise).shape
    torch.Size([4, 32, 32])
    """
    if power is None:
        signal = csi.to(noise.dtype).abs().square().flatten(1).mean(1)  # (B,)
    else:
        signal = torch.full((len(csi),), power, dtype=torch.float64, device=csi.device)
    level = (signal * 10 ** (-snr / 10)).sqrt().to(noise.real.dtype)
    return (csi + level.view(-1, *[1] * (csi.ndim - 1)) * noise).to(csi.dtype)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw white noise of mean power one, complex128 of `shape`."""
    parts = rng.standard_normal((*shape, 2)) / math.sqrt(2)
    return torch.view_as_complex(torch.from_numpy(parts))
