"""`csi` on torch tensors: on their device, and differentiable. The only module of this package that imports torch.

For training that derives its arrays, bands or times from stored paths, or optimises through the channel.
"""

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wavecity.raytrace.arrays import element_offsets, panel_axes
from wavecity.raytrace.channels import ReceiverSettings, csi_axes
from wavecity.raytrace.settings import RadioSettings


class TensorPaths(Protocol):
    """What `csi` always reads: paths (..., P), as `wavecity.raytrace.channels.DeparturePaths` but of tensors."""

    @property
    def gain(self) -> Tensor:
        """Complex (..., P)."""

    @property
    def aod_zenith(self) -> Tensor:
        """Radians (..., P)."""

    @property
    def aod_azimuth(self) -> Tensor:
        """Radians (..., P)."""


def csi(
    paths: TensorPaths,
    radio: RadioSettings,
    columns: int | None = None,
    rows: int | None = None,
    batch: int = 4096,
    *,
    receiver: ReceiverSettings | None = None,
    times: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    normalize_delays: bool = False,
) -> Tensor:
    """Channel of the base station's UPA; see `wavecity.raytrace.channels.csi` for the definition and the arguments.

    Parameters
    ----------
    paths : object
        With the attributes that `wavecity.raytrace.channels.csi` reads, as tensors on one device (which must support
        float64). Gradients flow to those that require them. With gradients, each batch is computed again in the
        backward pass, so that memory stays bounded by `batch` there too.

    Returns
    -------
    Tensor (..., [rx], [time], [subcarrier], columns, rows)
        On the device of the gain and of its dtype: complex64, or complex128 for a complex128 gain.

    Raises
    ------
    InputError
        `times` or `frequencies` is not a 1-D array of finite numbers.
    """
    columns, rows = columns or radio.columns, rows or radio.rows
    axes = csi_axes(receiver, times, frequencies)
    gain = torch.as_tensor(paths.gain)
    lead, count, users = gain.shape[:-1], gain.shape[-1], math.prod(gain.shape[:-1])
    gain = gain.reshape(users, count)

    def table(name: str) -> Tensor:
        return torch.as_tensor(getattr(paths, name)).reshape(users, count).to(gain.device, torch.float64)

    def constant(values: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64, device=gain.device)

    def phase(turns: Tensor) -> Tensor:
        return torch.polar(torch.ones_like(turns), 2 * math.pi * turns).to(gain.dtype)

    departure = _direction(table("aod_zenith"), table("aod_azimuth"))
    arrival = None if receiver is None else _direction(table("aoa_zenith"), table("aoa_azimuth"))
    doppler = None if times is None else table("doppler")
    delay = table("delay") if normalize_delays or frequencies is not None else None
    first_delay = constant(np.zeros(users))
    if normalize_delays and delay is not None and count:
        first_delay = torch.where(gain != 0, delay, torch.inf).amin(dim=1)
        first_delay = torch.where(first_delay.isinf(), 0.0, first_delay)

    _, along_x, along_y = map(constant, panel_axes(radio.azimuth, radio.downtilt))
    offsets_x, offsets_y = (
        constant(element_offsets(columns, radio.spacing)),
        constant(element_offsets(rows, radio.spacing)),
    )
    positions, moments, bands = constant(axes.positions), constant(axes.times), constant(axes.frequencies)
    each = math.prod(axes.sizes)
    total = users * each

    def matrices(low: int) -> Tensor:
        high = min(low + batch, total)
        part = torch.arange(low, high, device=gain.device)
        user, antenna, time, subcarrier = torch.unravel_index(part, (users, *axes.sizes))
        first = low // each
        own, user_here = slice(first, (high - 1) // each + 1), user - first
        frequency = bands[subcarrier, None]
        # Turns in float64, as in the NumPy version; results have the dtype of the gain.
        turns = first_delay[user, None] * (radio.frequency + frequency)
        if arrival is not None:
            turns = turns + (arrival[user] @ positions[antenna, :, None])[..., 0]
        if doppler is not None:
            turns = turns + doppler[user] * moments[time, None]
        if delay is not None:
            turns = turns - delay[user] * frequency
        x = phase((departure[own] @ along_x)[..., None] * offsets_x)[user_here]
        y = phase((departure[own] @ along_y)[..., None] * offsets_y)[user_here]
        weight = gain[user] * phase(turns)
        return (weight[..., None] * x).transpose(1, 2) @ y

    parts = [gain.new_empty(0, columns, rows)]
    for low in range(0, total, batch):
        parts.append(checkpoint(matrices, low, use_reentrant=False, preserve_rng_state=False))
    return torch.cat(parts).reshape(*lead, *axes.shape, columns, rows)


def _direction(zenith: Tensor, azimuth: Tensor) -> Tensor:
    """Unit vectors (..., 3) of zenith and azimuth in radians."""
    sine = torch.sin(zenith)
    return torch.stack([sine * torch.cos(azimuth), sine * torch.sin(azimuth), torch.cos(zenith)], dim=-1)
