"""What the claims are measured by: gains of a method over another, seed by seed, from a task's table of records."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.model.results.outcomes import Outcome, count, in_words
from wavecity.model.results.table import BOUND, is_ours

LOCAL, CROSS = "Localisation, median error", "Cross-scene localisation, median error"
EVERYWHERE, UNSEEN = "all scenes", "unseen scenes"
TOP5, MU_RATE, PROBE = "Beam, top-5 accuracy", "MU-MIMO sum-rate", "linear probe"
RECEIVE, TRANSMIT = "Receive beams, top-2 accuracy", "Transmit beams, top-2 accuracy"
PAIR, SU_RATE, PROBES = "Dominant beam pair, accuracy", "SU-MIMO sum-rate", "two linear probes"
LATENCY = "Latency, batch of 1"

MLP, CNN, KNN, TWIN = "[PHYSC] + MLP", "raw CSI + CNN", "kNN on |DFT|", "from-scratch twin"
BEAMS, TUNED, RAW = "[PHYSC], linear probe", "[PHYSC], fine-tuned", "raw CSI, linear probe"
# Methods whose name begins so: orthogonal matching pursuit carries its number of paths.
SIMPLE = ("|zero-filled DFT|, linear probe", "zero-filled DFT, no labels", "OMP")
HEAD, RAW_HEAD = "[PHYSC], head", "raw CSI, head"


@dataclass(frozen=True)
class Measured:
    """What a claim stands or falls with.

    Attributes
    ----------
    gains : float (K,)
        One a seed, positive where the claim's direction holds.
    text : str
        The numbers, with their spread.
    samples : str
    users : int
        Users that were tested; of a rate over clusters, all users of these.
    """

    gains: NDArray[np.float64]
    text: str
    samples: str
    users: int = 0


def deviation(values: NDArray[np.float64]) -> float:
    """Standard deviation over seeds, 0 of a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def plus_minus(values: NDArray[np.float64], digits: int = 1) -> str:
    """Mean and standard deviation over seeds; the mean alone of one seed."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    mean = f"{values.mean():.{digits}f}"
    return f"{mean} ± {deviation(values):.{digits}f}" if len(values) > 1 else mean


@dataclass(frozen=True)
class _Pair:
    """Two methods at the same x and seeds: values (X, K) each."""

    x: NDArray[np.float64]
    own: NDArray[np.float64]
    other: NDArray[np.float64]
    n: int
    unit: str
    sign: float

    def samples(self, noun: str, x: NDArray[np.float64]) -> str:
        """Users or clusters, labels, seeds."""
        seeds = count(int(np.isfinite(self.own - self.other).all(0).sum()), "seed")
        swept = f"labels {', '.join(in_words(value) for value in x)} · " if len(self.x) else ""
        return f"{self.n:,} {noun} · {swept}{seeds}"


def _pair(outcome: Outcome, quantity: str, condition: str, own: str, other: str) -> _Pair | None:
    first, second = outcome.curve(quantity, condition, own), outcome.curve(quantity, condition, other)
    if first is None or second is None:
        return None
    if first.swept and second.swept:
        x = np.intersect1d(first.x, second.x)
        if not len(x):
            return None
    else:
        x = first.x if first.swept else second.x
    if len(first.seeds) == 1 or len(second.seeds) == 1:
        seeds = first.seeds if len(first.seeds) > 1 else second.seeds
    else:
        seeds = np.intersect1d(first.seeds, second.seeds)
    sign = 1.0 if first.better == "higher" else -1.0
    return _Pair(x, first.on(x, seeds), second.on(x, seeds), max(first.n, second.n), first.unit, sign)


def _named(outcome: Outcome, quantity: str, condition: str, starts: Sequence[str]) -> list[str]:
    methods = outcome.methods(quantity, condition)
    return [name for start in starts for name in methods if name.startswith(start)]


def _row_at(x: NDArray[np.float64], wanted: float) -> int | None:
    """Row of the x nearest to one that the paper names, no farther than a factor of two; of 0 itself for 0."""
    if not len(x) or (wanted == 0 and x[0] > 0):
        return None
    if wanted == 0:
        return 0
    distance = np.abs(np.log(np.maximum(x, 1e-12) / wanted))
    row = int(distance.argmin())
    return row if distance[row] <= np.log(2) + 1e-9 else None


def gain(
    quantity: str,
    condition: str,
    own: Sequence[str],
    other: Sequence[str],
    at: float | Literal["all", "fewest"] = "all",
    kind: Literal["relative", "absolute"] = "relative",
    noun: str = "users",
) -> Callable[[Outcome], Measured | None]:
    """Measure how much better one method is than another, seed by seed with the same labels.

    Parameters
    ----------
    quantity, condition : str
    own : sequence of str
        Methods by the beginning of their names; the first that was run stands for the model.
    other : sequence of str
        Rivals; the best of those that were run counts.
    at : float, "all" or "fewest"
        A number of labels, the mean over all of them, or the smallest.
    kind : {"relative", "absolute"}
        Per cent of the rival's value, or in the unit.
    noun : str
        What is counted.
    """

    def measure(outcome: Outcome) -> Measured | None:
        names = _named(outcome, quantity, condition, own)
        best: tuple[float, Measured] | None = None
        for rival in _named(outcome, quantity, condition, other):
            pair = _pair(outcome, quantity, condition, names[0], rival) if names else None
            found = None if pair is None else _gain(pair, names[0], rival, at, kind, noun)
            if found is not None and (best is None or float(np.nanmean(found.gains)) < best[0]):
                best = float(np.nanmean(found.gains)), found
        return None if best is None else replace(best[1], users=best[1].users * _users_each(outcome, noun))

    return measure


def _users_each(outcome: Outcome, noun: str) -> int:
    """Users that one of what is counted stands for."""
    return int(outcome.facts.get("users_a_cluster", 1)) if noun == "clusters" else 1


def _gain(pair: _Pair, own: str, rival: str, at: float | str, kind: str, noun: str) -> Measured | None:
    rows: int | slice | None = slice(None) if at == "all" else 0 if at == "fewest" else _row_at(pair.x, float(at))
    if rows is None:
        return None
    a, b = np.atleast_2d(pair.own[rows]), np.atleast_2d(pair.other[rows])
    gains = pair.sign * (a - b)
    unit = "points" if pair.unit == "%" else pair.unit
    if kind == "relative":
        gains, unit = 100 * gains / np.abs(b), "%"
    values = gains.mean(0)
    ours, theirs = plus_minus(a.mean(0)), plus_minus(b.mean(0))
    text = f"gain {plus_minus(values)} {unit} ({own} {ours}, {rival} {theirs} {pair.unit})"
    x = np.atleast_1d(pair.x[rows]) if len(pair.x) else pair.x
    return Measured(values, text, pair.samples(noun, x), pair.n)


def more_with_few(quantity: str, condition: str, own: str, other: str) -> Callable[[Outcome], Measured | None]:
    """Measure how much larger the gain is with the fewest labels than with the most, in the unit."""

    def measure(outcome: Outcome) -> Measured | None:
        pair = _pair(outcome, quantity, condition, own, other)
        if pair is None or len(pair.x) < 2:
            return None
        gains = pair.sign * (pair.own - pair.other)
        few, many = gains[0], gains[-1]
        text = (
            f"gain {plus_minus(few)} {pair.unit} with {in_words(pair.x[0])} labels, {plus_minus(many)} {pair.unit} "
            f"with {in_words(pair.x[-1])}"
        )
        return Measured(few - many, text, pair.samples("users", pair.x[[0, -1]]), pair.n)

    return measure


def change(
    quantity: str, condition: str, method: str, last: int, worse: bool = False
) -> Callable[[Outcome], Measured | None]:
    """Measure how much a method gains, or loses, from no labels to the `last` number of them, in per cent."""

    def measure(outcome: Outcome) -> Measured | None:
        curve = outcome.curve(quantity, condition, method)
        if curve is None or len(curve.x) < 2 or curve.x[0] > 0:
            return None
        first, then = curve.values[0], curve.values[last]
        change = 100 * (then - first) / first * (1 if curve.better == "higher" else -1)
        text = (
            f"{method}: {plus_minus(first)} {curve.unit} with no labels, {plus_minus(then)} {curve.unit} with "
            f"{in_words(curve.x[last])}"
        )
        x = ", ".join(in_words(value) for value in curve.x[[0, last]])
        samples = f"{curve.n:,} users · labels {x} · {count(len(curve.seeds), 'seed')}"
        return Measured(-change if worse else change, text, samples, curve.n)

    return measure


def share_of_bound(at: float) -> Callable[[Outcome], Measured | None]:
    """Measure the sum-rate over that of the exhaustive search, in per cent."""

    def measure(outcome: Outcome) -> Measured | None:
        pair = _pair(outcome, MU_RATE, PROBE, BEAMS, BOUND)
        row = None if pair is None else _row_at(pair.x, at)
        if pair is None or row is None:
            return None
        shares = 100 * pair.own[row] / pair.other[row]
        text = (
            f"{plus_minus(shares)} % of the bound ({plus_minus(pair.own[row], 2)} of {plus_minus(pair.other[row], 2)} "
            f"{pair.unit})"
        )
        users = pair.n * _users_each(outcome, "clusters")
        return Measured(shares, text, pair.samples("clusters", pair.x[[row]]), users)

    return measure


def fewer_labels(factor: float) -> Callable[[Outcome], Measured | None]:
    """Measure the rate with a share of the labels against the raw baseline's with `factor` times as many, in per cent."""

    def measure(outcome: Outcome) -> Measured | None:
        pair = _pair(outcome, MU_RATE, PROBE, BEAMS, RAW)
        if pair is None:
            return None
        rows = [
            (few, int(match[0]))
            for few, x in enumerate(pair.x)
            if len(match := np.flatnonzero(np.isclose(pair.x, factor * x)))
        ]
        if not rows:
            return None
        few, many = rows[-1]
        ours, theirs = pair.own[few], pair.other[many]
        text = (
            f"{BEAMS} {plus_minus(ours, 2)} with {in_words(pair.x[few])}, {RAW} {plus_minus(theirs, 2)} {pair.unit} "
            f"with {in_words(pair.x[many])}"
        )
        users = pair.n * _users_each(outcome, "clusters")
        return Measured(100 * (ours - theirs) / theirs, text, pair.samples("clusters", pair.x[[few, many]]), users)

    return measure


def heads_at(outcome: Outcome, rate: float) -> list[str]:
    """Conditions of the head ablation at a learning rate, in the order of the table."""
    return [name for name in outcome.conditions(TOP5) if re.fullmatch(f"hidden .+, learning rate {rate:g}", name)]


def every_head(rate: float) -> Callable[[Outcome], Measured | None]:
    """Measure the gain of the head configuration with the smallest gain, at one learning rate of the ablation."""

    def measure(outcome: Outcome) -> Measured | None:
        heads: list[tuple[str, _Pair]] = []
        for condition in heads_at(outcome, rate):
            pair = _pair(outcome, TOP5, condition, HEAD, RAW_HEAD)
            if pair is not None:
                heads.append((condition, pair))
        if not heads:
            return None
        gains = [(pair.own - pair.other).mean(0) for _, pair in heads]
        least = int(np.argmin([np.nanmean(values) for values in gains]))
        condition, pair = heads[least]
        text = f"smallest gain {plus_minus(gains[least])} points ({condition}), {count(len(heads), 'head')} compared"
        return Measured(gains[least], text, pair.samples("users", pair.x), pair.n)

    return measure


def beside(quantity: str) -> Callable[[Outcome], Measured | None]:
    """Name a quantity's values, the model's before the others', under its last condition: the one that is drawn."""

    def measure(outcome: Outcome) -> Measured | None:
        conditions = outcome.conditions(quantity)
        if not conditions:
            return None
        names = sorted(outcome.methods(quantity, conditions[-1]), key=lambda name: not is_ours(name))
        curves = {name: outcome.curve(quantity, conditions[-1], name) for name in names}
        known = {name: curve for name, curve in curves.items() if curve is not None}
        if not known:
            return None
        first = next(iter(known.values()))
        digits = 1 if first.unit else 2
        values = ", ".join(f"{name} {plus_minus(curve.values.ravel(), digits)}" for name, curve in known.items())
        text = f"{quantity}{', ' if first.unit else ''}{first.unit} ({conditions[-1]}): {values}"
        return Measured(np.array([]), text, f"{first.n:,} users · {count(len(first.seeds), 'seed')}")

    return measure


def silhouettes(outcome: Outcome) -> Measured | None:
    """Measure how much better [PHYSC] separates the clusters than raw CSI does, by silhouette score."""
    facts = outcome.facts
    if facts.get("silhouette_raw") is None or facts.get("silhouette_physc") is None:
        return None
    raw, physc = float(facts["silhouette_raw"]), float(facts["silhouette_physc"])
    text = f"silhouette {physc:.2f} of [PHYSC], {raw:.2f} of raw CSI (-1 to 1)"
    clusters = np.asarray(outcome.arrays.get("tsne_cluster", ()))
    samples = f"{len(clusters):,} users · {count(len(np.unique(clusters)), 'cluster')} · one draw"
    return Measured(np.array([physc - raw]), text, samples, len(clusters))


def milliseconds(outcome: Outcome) -> Measured | None:
    """Measure the quickest way to run the slowest kind of inference, in ms, negated: less is better."""
    slowest: tuple[float, str, str, NDArray[np.float64], int] | None = None
    for condition in outcome.conditions(LATENCY):
        ways = []
        for method in outcome.methods(LATENCY, condition):
            if (curve := outcome.curve(LATENCY, condition, method)) is not None:
                ways.append((float(np.nanmean(curve.values)), condition, method, curve.values.ravel(), curve.n))
        if ways:
            quickest = min(ways, key=lambda way: way[0])
            slowest = quickest if slowest is None else max(slowest, quickest, key=lambda way: way[0])
    if slowest is None:
        return None
    _, condition, method, values, n = slowest
    return Measured(-values, f"{plus_minus(values, 2)} ms by {method} ({condition})", f"{n:,} inferences timed")
