"""First guess of the snapshots to come: autoregression of each sample on its own past, chosen by its own past [ours].

A sum of few paths with steady Dopplers obeys a linear recurrence, which no network needs to learn. The temporal model
starts from this guess and corrects it. It is a quicker relative of `model.predictors.ridge`, the baseline: one recurrence
a sample for all horizons.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

ORDERS = (1, 2, 3, 4, 6, 8)
# Over the mean power of the regressors.
PENALTIES = (1e-12, 1e-8, 1e-4, 1e-2)
# Share of the past, its end, that chooses.
JUDGED = 0.25
# A guess louder than this, over the loudest snapshot seen, is scaled down to it.
LOUDEST = 2.0


@torch.no_grad()
def extrapolate(past: Tensor, horizon: int) -> Tensor:
    """Guess the next snapshots.

    x(t) = sum over k of c(k) x(t - 1 - k), with c by penalised least squares, forwards and backwards in time, for some
    orders and penalties, with coefficients shared by all bins, by those of an angle, or by none. Each sample takes what
    predicts the end of its past best from the rest, then fits that to all of its past.

    Parameters
    ----------
    past : complex (B, T, A, D)
        T of at least 2.
    horizon : int

    Returns
    -------
    complex (B, horizon, A, D)
        In the precision of `past`; computed in double precision.
    """
    exact = past.to(torch.complex128)
    scale = exact.abs().square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-150)
    seen = exact / scale
    steps = past.shape[1]
    judged = max(round(JUDGED * steps), 1)
    orders = [order for order in ORDERS if order <= 2 * (steps - judged) // 3] or [1]
    longest = orders[-1]
    end = seen[:, steps - judged :]
    least = torch.full((len(past),), torch.inf, dtype=torch.float64, device=past.device)
    chosen = seen.new_zeros(len(past), *past.shape[2:], longest)
    # Persistence is among the ways: all weight on the last snapshot.
    ways = [(_persistence(seen, longest), _persistence(seen, longest))]
    for order in orders if steps > 2 else []:
        ways += zip(_fits(seen[:, : steps - judged], order, longest), _fits(seen, order, longest), strict=True)
    for fitted_before, fitted_on_all in ways:
        error = (_advance(seen[:, : steps - judged], fitted_before, judged) - end).abs().square().sum((1, 2, 3))
        better = error < least
        least = torch.where(better, error, least)
        chosen = torch.where(better[:, None, None, None], fitted_on_all, chosen)
    guess = _advance(seen, chosen, horizon)
    power, loudest = guess.abs().square().mean((2, 3)), seen.abs().square().mean((2, 3)).amax(1, keepdim=True)
    guess = guess * (LOUDEST * loudest.sqrt() / power.clamp_min(1e-300).sqrt()).clamp_max(1)[..., None, None]
    return (torch.view_as_complex(torch.nan_to_num(torch.view_as_real(guess))) * scale).to(past.dtype)


def _persistence(seen: Tensor, longest: int) -> Tensor:
    coefficients = seen.new_zeros(len(seen), *seen.shape[2:], longest)
    coefficients[..., 0] = 1
    return coefficients


def _fits(seen: Tensor, order: int, longest: int) -> Iterator[Tensor]:
    """Coefficients (B, A, D, longest) for every penalty and group; beyond the order they are zero."""
    known, target = [], []
    for way in (seen, seen.flip(1).conj()):
        known.append(way[:, :-1].unfold(1, order, 1).flip(-1).permute(0, 2, 3, 1, 4))
        target.append(way[:, order:].permute(0, 2, 3, 1))
    inputs = torch.cat(known, 3)
    gram, moment = inputs.mH @ inputs, inputs.mH @ torch.cat(target, 3)[..., None]
    unit = torch.eye(order, dtype=gram.dtype, device=gram.device)
    mean = gram.diagonal(dim1=-2, dim2=-1).real.mean((1, 2, 3))[:, None, None, None, None]
    for penalty in PENALTIES:
        for axes in ((1, 2), (2,), ()):
            matrix, right = (part.mean(axes, keepdim=True) if axes else part for part in (gram, moment))
            # One penalty for the whole sample: bins that hold noise only are silenced.
            found = torch.linalg.solve(matrix + (penalty * mean).clamp_min(1e-30) * unit, right)[..., 0]
            padded = torch.cat((found, found.new_zeros(*found.shape[:-1], longest - order)), -1)
            yield padded.expand(len(seen), *seen.shape[2:], longest)


def _advance(seen: Tensor, coefficients: Tensor, steps: int) -> Tensor:
    """Feed predictions back: (B, steps, A, D)."""
    order = coefficients.shape[-1]
    window = seen[:, -order:].flip(1).permute(0, 2, 3, 1)
    if window.shape[-1] < order:
        window = torch.cat((window, window.new_zeros(*window.shape[:-1], order - window.shape[-1])), -1)
    out = []
    for _ in range(steps):
        new = (window * coefficients).sum(-1)
        window = torch.cat((new[..., None], window[..., :-1]), -1)
        out.append(new)
    return torch.stack(out, 1)
