"""Forecasts by the Dopplers of a sample's paths, found in its own past [ours].

Over some milliseconds a path changes by its Doppler alone: it is a plane wave in time, with one angle and one delay. So
the past (time x bins) is of low rank, in time, angle and delay. Its Dopplers are found by ESPRIT (Roy and Kailath, IEEE
Trans. ASSP 37(7), 1989) on the covariance of the snapshots, forwards and backwards in time; their amplitudes in the bins by least
squares; and of these only the angles and delays are kept that stand out of the noise (a truncated higher-order SVD).
"""

import torch
from torch import Tensor

# Numbers of Dopplers that are tried.
MOST = 8
# A direction of the angles or delays is kept if its energy is so many times what noise would have there.
STANDS_OUT = 3.0
# Numbers of Dopplers weigh exp(-SHARPNESS e / least e), e their errors on the judged snapshots.
SHARPNESS = 20.0


def forecasts(past: Tensor, horizon: int, most: int) -> Tensor:
    """Forecast with 1 to `most` < T Dopplers, (B, most, horizon, A, D), from complex128 (B, T, A, D) of power one."""
    bins = past.flatten(2)
    covariance = bins @ bins.mH
    # Undamped waves, conjugated and turned around in time, are the same waves. The strongest come last.
    basis = torch.linalg.eigh(covariance + covariance.flip(1, 2).conj())[1]  # (B, T, T)
    return torch.stack([_forecast(past, horizon, basis[..., -count:]) for count in range(1, most + 1)], 1)


def weights(errors: Tensor) -> Tensor:
    """Weight of each number of Dopplers, from errors float64 (B, most) on snapshots it had not seen; sums of one."""
    least = errors.amin(1, keepdim=True).clamp_min(1e-300)
    return torch.softmax(-SHARPNESS * (errors / least).clamp_max(1e6), 1)


def _forecast(past: Tensor, horizon: int, basis: Tensor) -> Tensor:
    """As many Dopplers as `basis` (B, T, n) has columns: (B, horizon, A, D)."""
    steps, count = basis.shape[1:]
    rotations = _rotations(basis)
    time = torch.arange(steps + horizon, dtype=torch.float64, device=past.device)
    waves = rotations[:, None] ** time[:, None]
    seen = waves[:, :steps]
    unit = torch.eye(count, dtype=waves.dtype, device=past.device)
    bins = past.flatten(2)
    amplitudes = torch.linalg.solve(seen.mH @ seen + 1e-9 * steps * unit, seen.mH @ bins)
    fitted = seen @ amplitudes
    # The fit leaves T - n of T parts of the noise, and keeps n.
    noise = (bins - fitted).abs().square().sum((1, 2)) / (steps - count) * count
    fitted, ahead = (part.unflatten(2, past.shape[2:]) for part in (fitted, waves[:, steps:] @ amplitudes))
    for axis in (2, 3):
        size = past.shape[axis]
        rows = fitted.movedim(axis, 1).flatten(2)
        energy, directions = torch.linalg.eigh(rows @ rows.mH)
        kept = directions * (energy > STANDS_OUT * noise[:, None] / size)[:, None]
        project = kept @ kept.mH
        fitted, ahead = (
            (project @ part.movedim(axis, 1).flatten(2)).unflatten(2, part.movedim(axis, 1).shape[2:]).movedim(1, axis)
            for part in (fitted, ahead)
        )
    return ahead


def _rotations(basis: Tensor) -> Tensor:
    """Turns of each wave from one snapshot to the next, on the unit circle: complex (B, n)."""
    early, late = basis[:, :-1], basis[:, 1:]
    unit = 1e-12 * torch.eye(basis.shape[2], dtype=basis.dtype, device=basis.device)
    shift = torch.linalg.solve(early.mH @ early + unit, early.mH @ late)
    turns = torch.linalg.eigvals(shift).angle()
    return torch.polar(torch.ones_like(turns), turns)
