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


def noise_power(csi: Tensor, snr: float) -> Tensor:
    """Mean power of the noise of an entry that `add_noise` adds to channels complex (B, ...), float64 (B,).

    Examples
    --------
    >>> noise_power(torch.full((2, 3), 2.0, dtype=torch.complex64), 10.0)
    tensor([0.4000, 0.4000], dtype=torch.float64)
    """
    return csi.to(torch.complex128).abs().square().flatten(1).mean(1) * 10 ** (-snr / 10)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Draw white noise of mean power one, complex128 of `shape`."""
    parts = rng.standard_normal((*shape, 2)) / math.sqrt(2)
    return torch.view_as_complex(torch.from_numpy(parts))
