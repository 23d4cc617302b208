"""Linear prediction of a channel's snapshots: x(t) = sum over k of c(k) x(t - s - k), with a step s of one or more.

Paths with steady Dopplers that are not damped obey such a recurrence, and the same one conjugated and reversed in time:
coefficients are fitted in both directions (S. L. Marple, "A New Autoregressive Spectrum Analysis Algorithm", IEEE Trans.
ASSP 28(4), 1980, the modified covariance method).
"""

import torch
from torch import Tensor

# A forecast is scaled down to so many times the amplitude of the loudest snapshot seen.
LOUDEST = 2.0


def normalised(past: Tensor) -> tuple[Tensor, Tensor]:
    """Snapshots (B, T, A, D) of mean power one, complex128, and the scale that was taken out, float64 (B, 1, 1, 1)."""
    exact = past.to(torch.complex128)
    scale = exact.abs().square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-150)
    return exact / scale, scale


def windows(seen: Tensor, order: int) -> Tensor:
    """Snapshots up to each, the newest first: (B, T, A, D) to (B, T - order + 1, A, D, order)."""
    return seen.unfold(1, order, 1).flip(-1)


def normal_equations(seen: Tensor, order: int, step: int = 1) -> tuple[Tensor, Tensor]:
    """Least squares of a bin's snapshots on the `order` ones from `step` before, forwards and backwards in time.

    Of complex (B, T, A, D), T >= `step + order`: Gram matrices (B, A, D, order, order), moments (B, A, D, order, 1).
    """
    count = seen.shape[1] - step - order + 1
    inputs, targets = [], []
    for way in (seen, seen.flip(1).conj()):
        inputs.append(windows(way, order)[:, :count].permute(0, 2, 3, 1, 4))
        targets.append(way[:, step + order - 1 :].permute(0, 2, 3, 1))
    known, target = torch.cat(inputs, 3), torch.cat(targets, 3)[..., None]
    return known.mH @ known, known.mH @ target


def advance(window: Tensor, coefficients: Tensor, steps: int) -> list[Tensor]:
    """Predict one snapshot after the other, complex (...) for each step, from those before it, predicted ones included.

    `window`, complex (..., order), has the newest snapshot first; coefficients are as it, or with dimensions of 1.
    """
    predicted = []
    for _ in range(steps):
        new = (window * coefficients).sum(-1)
        window = torch.cat((new[..., None], window[..., :-1]), -1)
        predicted.append(new)
    return predicted


def limited(forecast: Tensor, seen: Tensor) -> Tensor:
    """Forecasts (B, H, A, D), none louder than `LOUDEST` times the loudest snapshot seen (B, T, A, D), none infinite."""
    loudest = seen.abs().square().mean((2, 3)).amax(1)[:, None]  # (B, 1)
    power = forecast.abs().square().mean((2, 3))  # (B, H)
    forecast = forecast * (LOUDEST * loudest.sqrt() / power.clamp_min(1e-300).sqrt()).clamp_max(1)[..., None, None]
    return torch.view_as_complex(torch.nan_to_num(torch.view_as_real(forecast)))
