"""Predictors of the snapshots to come that need no pretraining: persistence, autoregression of each sample, a GRU.

All take snapshots complex (B, T, angle, delay) and give those `h` steps after the last one. What is fitted is fitted on a
sample's own snapshots alone, but for the GRU, which is trained on labelled users.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from wavecity.model.temporal.autoregression import advance, limited, normal_equations, normalised, windows

# Share of the history, its end, whose snapshots choose order, penalty, scheme and group.
JUDGED = 0.2
# Samples worked on at once: a few hundred MB.
SAMPLES = 32

Scheme = Literal["iterated", "direct"]
# Bins that share their coefficients, and what the penalty draws these towards.
Group = Literal["sample", "angle, near the sample", "bin, near the sample", "angle, near zero", "bin, near zero"]
GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class Candidate:
    """One way to predict a sample from itself."""

    order: int  # Number of snapshots a prediction is made of; 0 is persistence
    penalty: float  # Ridge penalty over the mean power of the regressors
    scheme: Scheme  # One step again and again, or coefficients of their own for each horizon
    # Bins with the same coefficients: all of a sample, those of an angle, or none; and what the penalty draws them
    # towards: persistence for a sample's, a sample's or zero for the others
    group: Group


@dataclass
class Forecast:
    """Predicted snapshots, and how often each way was chosen."""

    values: Tensor  # complex (B, H, angle, delay)
    chosen: list["Counter[Candidate]"] = field(default_factory=list)  # For each horizon: `Candidate` -> samples

    def summary(self, horizons: Sequence[int]) -> dict[str, dict[str, dict[str, float]]]:
        """Shares of schemes, groups and orders by horizon; JSON-ready."""
        summary = {}
        for horizon, counts in zip(horizons, self.chosen, strict=True):
            total = max(counts.total(), 1)
            shares: dict[str, Counter[str]] = {"scheme": Counter(), "group": Counter(), "order": Counter()}
            for candidate, number in counts.items():
                persisted = candidate.order == 0
                shares["scheme"]["persistence" if persisted else candidate.scheme] += number
                shares["group"]["persistence" if persisted else candidate.group] += number
                shares["order"][str(candidate.order)] += number
            summary[str(horizon)] = {
                name: {key: round(number / total, 3) for key, number in sorted(of.items())}
                for name, of in shares.items()
            }
        return summary


def persistence(past: Tensor, horizons: Sequence[int]) -> Tensor:
    """Last snapshot for every horizon, (B, H, angle, delay).

    Of a single path with Doppler nu its NMSE h steps of dt ahead is 2 (1 - cos(2 pi nu h dt)).
    """
    return past[:, -1:].expand(-1, len(horizons), *past.shape[2:])


def ridge(past: Tensor, horizons: Sequence[int], orders: Sequence[int], penalties: Sequence[float]) -> Forecast:
    """Autoregression of each sample complex (B, T, angle, delay), fitted and chosen on its own history, in float64.

    Complex coefficients c with x(t) = sum over k of c(k) x(t - s - k), s = 1 (iterated) or s = h (direct), by penalised
    least squares over the snapshots seen, forwards and backwards (`wavecity.model.temporal.autoregression`). They are
    shared by all bins of a sample (then they are the same in any unitary domain: antennas and subcarriers would give
    nothing else), by those of an angle, or by none. The penalty is over the mean power of the regressors; near zero it
    is one for the whole sample, which silences bins that hold noise only.

    For each sample and horizon the way with the least error on the last fifth of the history is taken, predicted from
    as far before, half the history at most, with coefficients fitted without that fifth; then it is fitted anew on all
    of it. Persistence is among the ways; an order that the history is too short for is left out. A forecast of more
    than twice the amplitude of the loudest snapshot seen is scaled down to that: no sample may explode.
    """
    parts = [_ridge(part, tuple(horizons), orders, penalties) for part in past.split(SAMPLES)]
    chosen = [sum((part.chosen[row] for part in parts), Counter()) for row in range(len(horizons))]
    return Forecast(torch.cat([part.values for part in parts]).to(past.dtype), chosen)


def _ridge(past: Tensor, horizons: tuple[int, ...], orders: Sequence[int], penalties: Sequence[float]) -> Forecast:
    samples, steps = past.shape[:2]
    # Of mean power one: penalties and floors are shares.
    seen, scale = normalised(past)
    judged = max(round(JUDGED * steps), 1)
    numbers: dict[Candidate, int] = {}
    least = torch.full((samples, len(horizons)), torch.inf, dtype=torch.float64)
    choice = torch.zeros(samples, len(horizons), dtype=torch.long)
    values = torch.zeros(samples, len(horizons), *past.shape[2:], dtype=torch.complex128)
    for candidate, row, error, forecast in _tries(seen, horizons, orders, penalties, judged):
        number = numbers.setdefault(candidate, len(numbers))
        better = error < least[:, row]
        least[:, row] = torch.where(better, error, least[:, row])
        choice[better, row] = number
        values[better, row] = forecast[better]
    candidates = list(numbers)
    chosen = [Counter(candidates[int(number)] for number in choice[:, row]) for row in range(len(horizons))]
    return Forecast(limited(values, seen) * scale, chosen)


# Candidate, row of the horizon, error (B,) on the judged snapshots, forecast (B, angle, delay).
Try = tuple[Candidate, int, Tensor, Tensor]


def _tries(
    seen: Tensor, horizons: tuple[int, ...], orders: Sequence[int], penalties: Sequence[float], judged: int
) -> Iterator[Try]:
    """All ways that the history is long enough for; persistence first, the only one that always is."""
    steps = seen.shape[1]
    # A horizon longer than half the history could hardly be judged: then its half.
    ahead = [max(min(horizon, steps // 2), 1) for horizon in horizons]
    hold = torch.ones(len(seen), 1, 1, 1, dtype=seen.dtype)
    for row in range(len(horizons)):
        error = _judge(seen, hold, 1, ahead[row], judged) if steps > 1 else torch.zeros(len(seen)).double()
        yield Candidate(0, 0.0, "iterated", "sample"), row, error, seen[:, -1]
    # One step again and again serves all horizons; with a step of h there is one horizon.
    schemes: list[tuple[Scheme, int, list[int]]] = [("iterated", 1, list(range(len(horizons))))]
    schemes += [("direct", horizon, [row]) for row, horizon in enumerate(horizons) if 1 < horizon == ahead[row]]
    for order, (scheme, step, rows) in itertools.product(orders, schemes):
        rows = [row for row in rows if ahead[row] + order <= steps]
        if not rows or steps - judged < step + order:
            continue
        window = windows(seen, order)[:, -1]
        judge = _coefficients(seen[:, : steps - judged], order, step, penalties)
        whole = _coefficients(seen, order, step, penalties)
        for group, (number, penalty), row in itertools.product(GROUPS, enumerate(penalties), rows):
            error = _judge(seen, judge[group][number], ahead[row] // step, ahead[row], judged)
            forecast = advance(window, whole[group][number], horizons[row] // step)[-1]
            yield Candidate(order, penalty, scheme, group), row, error, forecast


def _judge(seen: Tensor, coefficients: Tensor, repeats: int, horizon: int, judged: int) -> Tensor:
    """NMSE (B,) of predictions of the last `judged` snapshots from those `horizon` before them."""
    order, steps = coefficients.shape[-1], seen.shape[1]
    first = max(steps - judged, horizon + order - 1)
    before = windows(seen, order)[:, first - horizon - order + 1 : steps - horizon - order + 1]
    error = advance(before, coefficients[:, None], repeats)[-1] - seen[:, first:]
    power = seen[:, first:].abs().square().sum((1, 2, 3)).clamp_min(1e-30)
    return error.abs().square().sum((1, 2, 3)) / power


def _coefficients(seen: Tensor, order: int, step: int, penalties: Sequence[float]) -> dict[Group, Tensor]:
    """Coefficients (penalties, B, 1 or angle, 1 or delay, order) of a prediction `step` ahead, for each group."""
    share = torch.tensor(penalties, dtype=torch.float64).view(-1, 1, 1, 1, 1, 1)
    gram, moment = normal_equations(seen, order, step)
    power = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)[..., None, None]
    hold = torch.eye(order, 1, dtype=gram.dtype)

    def solve(axes: tuple[int, ...], towards: Tensor, everywhere: bool = False) -> Tensor:
        matrix, right, level = (part.sum(axes, keepdim=True) if axes else part for part in (gram, moment, power))
        if everywhere:
            level = level.mean((1, 2), keepdim=True)
        penalty = (share * level).clamp_min(1e-30) * torch.eye(order, dtype=gram.dtype)
        return towards + torch.linalg.solve(matrix + penalty, right - matrix @ towards)

    sample = solve((1, 2), hold)
    nothing = torch.zeros_like(sample)
    found: dict[Group, Tensor] = {
        "sample": sample,
        "angle, near the sample": solve((2,), sample),
        "bin, near the sample": solve((), sample),
        "angle, near zero": solve((2,), nothing, everywhere=True),
        "bin, near zero": solve((), nothing, everywhere=True),
    }
    return {group: coefficients[..., 0] for group, coefficients in found.items()}


class GruPredictor(nn.Module):
    """GRU of "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation" (arXiv
    1406.1078).

    Snapshots as real vectors of `bins` (angles, delays), a GRU of two layers over time, and all snapshots to come at
    once, as changes of the last one.
    """

    def __init__(self, bins: tuple[int, int], horizon: int, width: int) -> None:
        super().__init__()
        size = 2 * bins[0] * bins[1]
        self.bins, self.horizon = bins, horizon
        self.reduce = nn.Linear(size, width)
        self.gru = nn.GRU(width, width, num_layers=2, batch_first=True)
        self.change = nn.Linear(width, horizon * size)

    def forward(self, past: Tensor) -> Tensor:
        """Complex (B, T, angle, delay) to (B, horizon, angle, delay); of the scale and phase of the last snapshots."""
        scale = past.abs().square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30)  # (B, 1, 1, 1)
        frames = torch.view_as_real(past / scale).flatten(2)  # (B, T, 2 * angle * delay)
        states, _ = self.gru(self.reduce(frames))  # (B, T, width)
        change = self.change(states[:, -1]).view(len(past), self.horizon, *self.bins, 2)
        return past[:, -1:] + scale * torch.view_as_complex(change)
