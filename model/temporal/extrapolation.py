"""Guesses of the snapshots to come, from each sample's own past and judged on its own past [ours].

A sum of few paths with steady Dopplers can be predicted without a network: it obeys a linear recurrence, and its Dopplers can
be found. The temporal model starts from these guesses and learns how to combine them. The autoregressions are quicker
relatives of `wavecity.model.learning.predictors.ridge`, the baseline: one recurrence per sample for all horizons.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wavecity.model.temporal import doppler
from wavecity.model.temporal.autoregression import advance, limited, normal_equations, normalised, windows

ORDERS = (1, 2, 3, 4, 6, 8)
# Over the mean power of the regressors.
PENALTIES = (1e-12, 1e-8, 1e-4, 1e-2)
# Axes over which coefficients are shared: by all bins of a sample, by those of an angle, by none.
GROUPS: tuple[tuple[int, ...], ...] = ((1, 2), (2,), ())
# Guesses of a sample: persistence, the best autoregression of each group, and that by Dopplers.
WAYS = 2 + len(GROUPS)
# Undamped waves cannot explode behind the snapshots that judge, a recurrence can.
TRUSTED = 4.0
# Share of the past, its end, that judges.
JUDGED = 0.25


@dataclass(frozen=True)
class Guesses:
    """Forecasts of a batch by several ways, and how each did on the end of the past."""

    values: Tensor  # complex (B, WAYS, H, A, D)
    # float64 (B, WAYS, A, D); mean squared error in a bin, over the mean power of the sample's bins: the end of the
    # past predicted from the rest
    errors: Tensor
    # int64 (B,); the way with the least error over all bins; any other must be TRUSTED times better than the Dopplers
    chosen: Tensor

    def best(self) -> Tensor:
        """Forecast of the chosen way, complex (B, H, A, D)."""
        return self.values[torch.arange(len(self.values), device=self.values.device), self.chosen]


@torch.no_grad()
def extrapolate(past: Tensor, horizon: int) -> Guesses:
    """Guess the next snapshots: by persistence, by autoregressions, and by Dopplers
    (`wavecity.model.temporal.doppler`).

    An autoregression is x(t) = sum over k of c(k) x(t - 1 - k), with c by penalised least squares, forwards and
    backwards in time, with coefficients shared by all bins, by those of an angle, or by none. For each of these three
    each sample takes the order and penalty that predict the end of its past best from the rest, and fits them anew to
    all of its past: complex (B, T, A, D), T of at least 2. Computed in double precision, returned in that of the past.
    """
    seen, scale = normalised(past)
    steps = past.shape[1]
    judged = max(round(JUDGED * steps), 1)
    known, end = seen[:, : steps - judged], seen[:, steps - judged :]
    orders = [order for order in ORDERS if order <= 2 * (steps - judged) // 3] or [1]
    longest = orders[-1]

    def error_of(coefficients: Tensor) -> Tensor:
        return (_forecast(known, coefficients, judged) - end).abs().square().mean(1)

    hold = seen.new_zeros(len(seen), *seen.shape[2:], longest)
    hold[..., 0] = 1
    # Persistence and the autoregressions.
    chosen, errors = [hold] * (WAYS - 1), [error_of(hold)] * WAYS
    for order in orders if steps > 2 else []:
        pairs = zip(_fits(known, order, longest), _fits(seen, order, longest), strict=True)
        for (group, fitted_before), (_, fitted_on_all) in pairs:
            error = error_of(fitted_before)
            better = (error.sum((1, 2)) < errors[1 + group].sum((1, 2)))[:, None, None]
            errors[1 + group] = torch.where(better, error, errors[1 + group])
            chosen[1 + group] = torch.where(better[..., None], fitted_on_all, chosen[1 + group])
    guesses = [_forecast(seen, way, horizon) for way in chosen]
    # Where the past is too short for a Doppler: persistence.
    by_doppler = guesses[0]
    if steps - judged > 1:
        most = min(doppler.MOST, max(2 * (steps - judged) // 3, 1))
        tried = doppler.forecasts(known, judged, most)
        weights = doppler.weights((tried - end[:, None]).abs().square().sum((2, 3, 4)))[..., None, None, None]
        errors[-1] = ((tried * weights).sum(1) - end).abs().square().mean(1)
        by_doppler = (doppler.forecasts(seen, horizon, most) * weights).sum(1)
    values = torch.stack([limited(guess, seen) for guess in (*guesses, by_doppler)], 1)
    judged_errors = torch.stack(errors, 1)
    totals = judged_errors.sum((2, 3)).nan_to_num(torch.inf)
    totals[:, -1] /= TRUSTED
    return Guesses((values * scale[:, None]).to(past.dtype), judged_errors, totals.argmin(1))


def _fits(seen: Tensor, order: int, longest: int) -> Iterator[tuple[int, Tensor]]:
    """Group and coefficients (B, A, D, longest) for every penalty and group; beyond the order they are zero."""
    gram, moment = normal_equations(seen, order)
    unit = torch.eye(order, dtype=gram.dtype, device=gram.device)
    mean = gram.diagonal(dim1=-2, dim2=-1).real.mean((1, 2, 3))[:, None, None, None, None]
    for penalty in PENALTIES:
        for group, axes in enumerate(GROUPS):
            matrix, right = (part.mean(axes, keepdim=True) if axes else part for part in (gram, moment))
            # One penalty for the whole sample: bins that hold noise only are silenced.
            found = torch.linalg.solve(matrix + (penalty * mean).clamp_min(1e-30) * unit, right)[..., 0]
            padded = torch.cat((found, found.new_zeros(*found.shape[:-1], longest - order)), -1)
            yield group, padded.expand(len(seen), *seen.shape[2:], longest)


def _forecast(seen: Tensor, coefficients: Tensor, steps: int) -> Tensor:
    """Forecast by coefficients (B, A, D, order), of an order that may be longer than the past: (B, steps, A, D)."""
    window = windows(seen, min(coefficients.shape[-1], seen.shape[1]))[:, -1]
    window = F.pad(torch.view_as_real(window), (0, 0, 0, coefficients.shape[-1] - window.shape[-1]))
    return torch.stack(advance(torch.view_as_complex(window), coefficients, steps), 1)
