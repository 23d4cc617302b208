"""Angle-delay-time domain: where a channel under mobility is sparse, and a path stays in its bin while its phase turns.

A path of delay tau has phase exp(-j 2 pi f tau) over frequency, and a phase that grows along the array: the unitary DFT
over the antennas and the unitary inverse DFT over the subcarriers turn it into one bin, where both are on the grid.
"""

import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.settings.temporal import TemporalSettings


def single_row(csi: Tensor) -> Tensor:
    """Leave out the vertical axis of a linear array, (..., T, F, X, 1) to (..., T, F, X); refuses several rows."""
    if csi.shape[-1] != 1:
        raise InputError(f"radio.rows is {csi.shape[-1]}; the temporal model takes a linear array, rows: 1")
    return csi[..., 0]


def to_angle_delay(csi: Tensor, delays: int | None = None, first: Tensor | int = 0) -> Tensor:
    """Unitary transform over antennas and subcarriers: complex64 (..., T, F, X) to (..., T, X, delays).

    F subcarriers are of equal spacing, ascending. In bin a of X the phase turns by a / X of a circle per antenna
    (unshifted: above X / 2 backwards); bin n has the delay (first + n) / (F * spacing), modulo 1 / spacing. All F bins
    of delay are kept, or `delays` of them from `first` on, int or int64 (...) per sample; the axis is circular: -2
    keeps two bins before delay 0.
    """
    subcarriers = csi.shape[-2]
    bins = torch.fft.ifft(torch.fft.fft(csi, dim=-1, norm="ortho"), dim=-2, norm="ortho").transpose(-1, -2)
    kept = subcarriers if delays is None else delays
    if kept > subcarriers:
        msg = f"training.temporal.delays {kept}: the dataset has {subcarriers} subcarriers; set at most that many"
        raise InputError(msg)
    index = _window(first, kept, subcarriers, csi)
    return bins.gather(-1, index.expand(*bins.shape[:-1], kept))


def from_angle_delay(bins: Tensor, subcarriers: int, first: Tensor | int = 0) -> Tensor:
    """Inverse of `to_angle_delay`, complex64 (..., T, X, delays) to (..., T, F, X); cropped bins count as zero."""
    index = _window(first, bins.shape[-1], subcarriers, bins)
    whole = bins.new_zeros(*bins.shape[:-1], subcarriers).scatter(-1, index.expand_as(bins), bins)
    return torch.fft.ifft(torch.fft.fft(whole.transpose(-1, -2), dim=-2, norm="ortho"), dim=-1, norm="ortho")


def delay_window(csi: Tensor, delays: int) -> Tensor:
    """First bin, int64 (...) in [0, F), of the `delays` successive ones with the most energy: a receiver's timing.

    `csi`, complex64 (..., T, F, X), are the snapshots that may be looked at: for prediction, those of the past.
    """
    power = torch.fft.ifft(csi, dim=-2, norm="ortho").abs().square().sum((-3, -1))
    wrapped = torch.cat((power, power[..., : delays - 1]), -1)
    return wrapped.unfold(-1, delays, 1).sum(-1).argmax(-1)


def window_of(csi: Tensor, settings: TemporalSettings) -> Tensor:
    """First bin of delay that is kept, int64 (B,), from the snapshots that may be looked at, (B, T, F, X)."""
    if settings.align:
        return delay_window(csi, settings.delays)
    return torch.zeros(len(csi), dtype=torch.int64, device=csi.device)


def _window(first: Tensor | int, kept: int, whole: int, like: Tensor) -> Tensor:
    """Bins of delay kept, int64 (..., 1, 1, kept): to gather from (..., T, X, whole)."""
    start = torch.as_tensor(first, device=like.device)
    steps = torch.arange(kept, device=like.device)
    return ((start[..., None] + steps) % whole)[..., None, None, :]
