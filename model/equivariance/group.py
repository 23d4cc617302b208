"""Wave equivariance: a channel modulated along time, frequency or space is a channel again, and outputs must follow.

    (M_g H)[t, k, n] = exp(j 2 pi (nu t dt - tau k df + u . n)) H[t, k, n],    g = (nu, tau, u)

shifts every path of H by g in Doppler, delay and direction ("Physics Equivariance for Robust Generalization in Wireless
Foundation Model", arXiv 2606.28847; only its abstract is at hand, so the definitions are ours). A map f on channels is
equivariant if f(M_g H) = M_g f(H), and f(c H) = c f(H) for complex c. `epsilon` measures how far a map is from that;
`Wrapped` makes any map so, by taking the channel to a canonical form before it and back after it.

A shift is given as `turns`, cycles from one entry to the next along every axis, whatever the layout of the tensor:
nu dt along time, -tau df along frequency, u along the array (the spacing in wavelengths times the direction cosine). A
whole bin of an axis of N entries is 1 / N. Shifts add up, and the negative one is the inverse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wavecity.model.data.tokens import squared

# Below this share of what it could be, a sum of phasors counts as vanished: what is left of it may be rounding.
VANISHED = {torch.complex64: 1e-5, torch.complex128: 1e-9}


@dataclass(frozen=True)
class Canonical:
    """A channel in canonical form, and what takes it back."""

    # complex (B, ...); zero where hidden. Of lag-1 phase 0 along every defined axis; the sum of its visible entries is
    # real and positive.
    csi: Tensor
    turns: Tensor  # float64 (B, axes); cycles per step that were taken out along every axis
    factor: Tensor  # complex128 (B,); that the channel was divided by: level and phase
    defined: Tensor  # bool (B, axes); axes along which there was a shift to be found; elsewhere it is 0


def modulate(csi: Tensor, turns: Tensor, dims: Sequence[int], origin: int | Sequence[int] = 0) -> Tensor:
    """Apply M_g to complex (B, ...), in its precision; phases are computed in float64, modulo a turn.

    `turns`, (B, axes), are cycles per step along each of `dims` (not the first): positive along time for a positive
    Doppler, negative along frequency for a positive delay, positive along the array for a positive direction cosine.
    `origin` is the index of the first entry along each: a forecast after T snapshots begins at T.
    """
    firsts = [origin] * len(dims) if isinstance(origin, int) else origin
    for column, dim, first in zip(turns.double().unbind(-1), dims, firsts, strict=True):
        steps = torch.arange(first, first + csi.shape[dim], dtype=torch.float64, device=csi.device)
        angle = 2 * torch.pi * torch.remainder(torch.remainder(column, 1)[:, None] * steps, 1)
        shape = [1] * csi.ndim
        shape[0], shape[dim] = angle.shape
        csi = csi * torch.polar(torch.ones_like(angle), angle).to(csi.dtype).view(shape)
    return csi


def lag_one(csi: Tensor, visible: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean shift of complex (B, ...), the angle of sum x[i + 1] conj(x[i]) over the pairs of visible neighbours.

    A modulation by g adds g to it, whatever the channel and the mask. The sum may vanish: no two neighbours are visible
    (a comb of snapshots), or as much of the channel turns one way as the other. The shift then counts as 0, and
    whatever is built on it is not equivariant along that axis, for that sample. For the comb nothing can be: modulated
    by half a turn per step, what is visible of every other snapshot stays the same, while what is hidden changes its
    sign.

    Returns cycles per step within half a turn, float64 (B, axes), and where they are defined, bool (B, axes).
    """
    entries, _ = _over_peak(csi.masked_fill(~visible, 0))
    turns, defined = [], []
    for dim in dims:
        count = max(csi.shape[dim] - 1, 0)
        (after, before), (seen_after, seen_before) = (
            (part.narrow(dim, csi.shape[dim] - count, count), part.narrow(dim, 0, count)) for part in (entries, visible)
        )
        total = (after * before.conj()).flatten(1).sum(1)
        # Not over the sum of |.|, which may itself be rounding: where every other entry is zero.
        power = (squared(after) + squared(before)) / 2 * (seen_after & seen_before)
        stands = total.abs() > VANISHED[csi.dtype] * power.flatten(1).sum(1)
        turns.append(torch.where(stands, total.angle() / (2 * torch.pi), 0))
        defined.append(stands)
    return torch.stack(turns, -1), torch.stack(defined, -1)


def canonicalise(csi: Tensor, visible: Tensor, dims: Sequence[int], rms: float = 1.0) -> Canonical:
    """Take out shift along `dims`, phase and level: one form for all M_g H and c H of a channel H, complex (B, ...).

    What is visible is demodulated by its lag-1 phase and divided by its RMS and by the phase of its sum; if that sum
    vanishes, by the phase of the loudest entry. Shift and factor are taken as constants: no gradient flows through
    them. Hidden entries have no influence; `rms` is that of the form's visible ones. A channel without any energy stays
    zero.
    """
    turns, defined = lag_one(csi, visible, dims)
    # In float64 up to the end: what comes next may amplify every rounding, as the recovery of plane waves does.
    steady = modulate(csi.masked_fill(~visible, 0).to(torch.complex128), -turns, dims)
    with torch.no_grad():
        entries, peak = _over_peak(steady)
        flat, count = entries.flatten(1), visible.flatten(1).sum(1).clamp_min(1)
        powers, total = squared(flat), flat.sum(1)
        loudest = flat.gather(1, powers.argmax(1, keepdim=True))[:, 0]
        power = powers.sum(1) / count
        stands = total.abs() > VANISHED[csi.dtype] * count * power.sqrt()
        level = torch.where(power > 0, power.sqrt() * peak / rms, 1)
        factor = torch.polar(level, torch.where(stands, total, loudest).angle())
    return Canonical((steady * _column(1 / factor, csi)).to(csi.dtype), turns, factor, defined)


def restore(output: Tensor, canonical: Canonical, dims: Sequence[int], origin: int | Sequence[int] = 0) -> Tensor:
    """Take an output for the canonical form to the coordinates of the input, complex (B, ...) in its precision.

    `dims` are the output's, in the order of `canonicalise`'s; `origin` as `modulate` has it.
    """
    whole = modulate(output.to(torch.complex128) * _column(canonical.factor, output), canonical.turns, dims, origin)
    return whole.to(canonical.csi.dtype)


class Wrapped(nn.Module):
    """Any map on channels, made equivariant to shifts, phase and level: canonical form, map, and back.

    Exact up to rounding wherever the lag-1 sums stand (see `lag_one`), with nothing trained. Gradients flow through the
    inner map. Under autocast only the inner map runs in low precision, and its rounding is that of one and the same
    input.

    Parameters
    ----------
    inner : nn.Module
        (csi, visible) to a complex tensor with the same dimensions; lengths may differ.
    origin : int or sequence of int
        Index of the output's first entry along each of `dims`, the axes of shifts, counted from the input's.
    rms : float
        Of what the inner map is given: the level that it was trained at.
    """

    def __init__(
        self, inner: nn.Module, dims: Sequence[int], origin: int | Sequence[int] = 0, rms: float = 1.0
    ) -> None:
        super().__init__()
        self.inner = inner
        self.dims = tuple(dims)
        self.origin = origin
        self.rms = rms

    def forward(self, csi: Tensor, visible: Tensor | None = None) -> Tensor:
        """Complex (B, ...) and bool of its shape (all visible by default) to the inner map's output, equivariant."""
        shown = torch.ones_like(csi, dtype=torch.bool) if visible is None else visible.expand(csi.shape)
        canonical = canonicalise(csi, shown, self.dims, self.rms)
        output = self.inner(canonical.csi, shown)  # complex (B, ...), lengths may differ from csi's
        return restore(output, canonical, self.dims, self.origin)


def epsilon(shifted_output: Tensor, output_shifted: Tensor) -> Tensor:
    """Equivariance error: E |f(M_g H) - M_g f(H)|^2 over E |M_g f(H)|^2, a ratio of powers (0 dB is 1).

    Of complex (B, ...) f(M_g H) and M_g f(H), a float64 scalar; differentiable, not-a-number if the output is zero.
    """
    error, power = (energies(part) for part in (shifted_output - output_shifted, output_shifted))
    return error.sum() / power.sum()


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) to (B, 1, ...)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _over_peak(csi: Tensor) -> tuple[Tensor, Tensor]:
    """Entries over their sample's largest part, complex128, and that, float64 (B,): squares of -200 dB underflow."""
    exact = csi.detach().to(torch.complex128)
    peak = torch.view_as_real(exact).abs().flatten(1).amax(1)
    return exact / _column(torch.where(peak > 0, peak, 1), exact), peak


def energies(values: Tensor) -> Tensor:
    """Energy of every sample, float64 (B,): gains reach -200 dB, and their squares would underflow in float32."""
    return torch.view_as_real(values).double().square().flatten(1).sum(1)
