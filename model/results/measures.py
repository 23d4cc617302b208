"""How a claim is turned into numbers: gains of a method over another, seed by seed, from the records that it selects."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavecity.model.results.names import Axis, Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Condition
from wavecity.model.results.words import condition_of, count, digits_of, place_of

Values = NDArray[np.float64]
At = float | Literal["all", "fewest", "most"]
Measure = Literal["gain", "level", "change", "few_less_most", "fewer_labels", "loss", "fall", "values"]


@dataclass(frozen=True)
class Select:
    """Records that a claim is measured from."""

    metric: Metric
    own: tuple[Method, ...] = ()  # The first that was run stands for the model
    rivals: tuple[Method, ...] = ()  # The best of those that were run counts
    where: Mapping[str, object] = field(default_factory=dict)  # Values of fields of `Condition`; of a tuple, any
    at: At = "all"  # A number or share of labels, the mean over all, or one end
    # In the metric's unit, per cent of the rival's value, or value over the rival's in per cent
    kind: Literal["absolute", "relative", "share"] = "relative"
    # The mean over all conditions, or the one (or the kind of user) where the gain is smallest
    over: Literal["mean", "worst", "worst kind"] = "mean"
    longest: bool = False  # The longest horizon alone
    better: bool = True  # Whether the claim is that the values are good; false: that they are bad
    base: Mapping[str, object] = field(default_factory=dict)  # As `where`: conditions that a loss is counted from
    factor: float = 1.0  # How many times the labels a rival has

    @property
    def sign(self) -> float:
        """What a difference is multiplied by to be positive where the claim holds."""
        return float(self.metric.sign if self.better else -self.metric.sign)

    def conditions(self, outcome: Outcome, where: Mapping[str, object] | None = None) -> list[Condition]:
        """Conditions that are selected, in the order of the records."""
        found = outcome.conditions(self.metric, **(self.where if where is None else where))
        if self.longest:
            last = max((one.horizon or 0 for one in found), default=0)
            found = [one for one in found if (one.horizon or 0) == last]
        return found


@dataclass(frozen=True)
class Measured:
    """What a claim stands or falls with."""

    gains: Values  # float (K,); one for each seed, positive where the claim's direction holds
    text: str  # The numbers, with their spread
    samples: str
    users: int = 0  # Users that were tested; of a rate over clusters, all users of these


def deviation(values: Values) -> float:
    """Standard deviation over seeds, 0 of a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def plus_minus(values: Values, unit: str = "%") -> str:
    """Mean and standard deviation over seeds, with the digits of a unit; the mean alone of one seed."""
    values = values[np.isfinite(values)]
    digits = digits_of(unit, float(np.abs(values).max(initial=0)))
    if not len(values):
        return "-"
    mean = f"{values.mean():.{digits}f}"
    return f"{mean} ± {deviation(values):.{digits}f}" if len(values) > 1 else mean


def amount(values: Values, unit: str) -> str:
    """`plus_minus` with its unit."""
    return f"{plus_minus(values, unit)} {unit}".rstrip()


@dataclass(frozen=True)
class Pair:
    """Two methods under the same conditions, labels and seeds."""

    conditions: list[Condition]
    x: Values  # float (X,); labels; empty where neither method takes any
    own: Values  # float (C, X, K); values by condition, labels and seed
    other: Values
    n: int  # Users or clusters; of several kinds of user, of all together

    def at(self, rows: slice | int) -> "Pair":
        """Some of the labels."""
        rows = slice(rows, rows + 1 or None) if isinstance(rows, int) else rows
        return Pair(self.conditions, self.x[rows], self.own[:, rows], self.other[:, rows], self.n)


def pair_of(
    outcome: Outcome, metric: Metric, conditions: Iterable[Condition], own: Method, other: Method, at: At = "all"
) -> Pair | None:
    """Values of two methods where both were measured; what takes no labels stands at all, one seed for every seed.

    At one end of the labels they are compared only if it is the end of the first method's own: the other may not have been
    run there.
    """
    found = [(one, outcome.curve(metric, one, own), outcome.curve(metric, one, other)) for one in conditions]
    known = [(one, first, second) for one, first, second in found if first is not None and second is not None]
    if not known:
        return None
    curves = [curve for _, *two in known for curve in two]
    swept = [set(curve.x) for curve in curves if curve.swept]
    x = np.array(sorted(set.intersection(*swept))) if swept else np.array([])
    several = [set(curve.seeds) for curve in curves if len(curve.seeds) > 1] or [set(curves[0].seeds)]
    seeds = np.array(sorted(set.intersection(*several)), dtype=np.int64)
    if (swept and not len(x)) or not len(seeds):
        return None
    kinds: dict[str | None, int] = {}
    for one, first, second in known:
        kinds[one.user_kind] = max(kinds.get(one.user_kind, 0), first.n, second.n)
    ours, theirs = (
        np.stack([curve.on(x, seeds) for curve in side]) for side in zip(*(two for _, *two in known), strict=True)
    )
    pair = Pair([one for one, *_ in known], x, ours, theirs, sum(kinds.values()))
    if at == "all":
        return pair
    if isinstance(at, str):
        end, own_curve = (0 if at == "fewest" else -1), known[0][1]
        return None if own_curve.swept and x[end] != own_curve.x[end] else pair.at(end)
    row = row_at(x, at)
    return None if row is None else pair.at(row)


def row_at(x: Values, wanted: float) -> int | None:
    """Row of the x nearest to one that the paper names, no farther than a factor of two; of 0 itself for 0."""
    if not len(x) or (wanted == 0 and x[0] > 0):
        return None
    if wanted == 0:
        return 0
    distance = np.abs(np.log(np.maximum(x, 1e-12) / wanted))
    row = int(distance.argmin())
    return row if distance[row] <= np.log(2) + 1e-9 else None


def gain(select: Select, outcome: Outcome) -> Measured | None:
    """Measure how much better one method is than another, seed by seed with the same labels."""
    conditions = select.conditions(outcome)
    groups = [conditions]
    if select.over == "worst":
        groups = [[one] for one in conditions]
    elif select.over == "worst kind":
        kinds = dict.fromkeys(one.user_kind for one in conditions)
        groups = [[one for one in conditions if one.user_kind == kind] for kind in kinds]
    found = [_gain(select, outcome, group, rival, len(groups) > 1) for group in groups for rival in select.rivals]
    return min((one for one in found if one is not None), key=lambda one: float(np.nanmean(one.gains)), default=None)


def _gain(select: Select, outcome: Outcome, conditions: list[Condition], rival: Method, least: bool) -> Measured | None:
    # The first of the model's methods that was run.
    run = [method for condition in conditions for method in outcome.methods(select.metric, condition)]
    own = next((method for method in select.own if method in run), None)
    pair = None if own is None else pair_of(outcome, select.metric, conditions, own, rival, select.at)
    if own is None or pair is None:
        return None
    unit = select.metric.unit
    ours, theirs = (values.mean((0, 1)) for values in (pair.own, pair.other))
    if select.kind == "share":
        gains = (100 * pair.own / pair.other).mean((0, 1))
        text = f"{amount(gains, '%')} of the bound ({plus_minus(ours, unit)} of {amount(theirs, unit)})"
    else:
        differences = select.sign * (pair.own - pair.other)
        if select.kind == "relative":
            differences = 100 * differences / np.abs(pair.other)
        gains = differences.mean((0, 1))
        number = amount(gains, "%" if select.kind == "relative" else unit)
        if select.kind == "absolute" and unit == "%":
            number = f"{plus_minus(gains)} points"
        both = f"{outcome.name(own)} {plus_minus(ours, unit)}, {outcome.name(rival)} {amount(theirs, unit)}"
        text = f"{'smallest gain' if least else 'gain'} {number} ({both})"
    return _measured(outcome, select.metric, gains, text, pair)


def _measured(outcome: Outcome, metric: Metric, gains: Values, text: str, pair: Pair) -> Measured:
    """Gains with what they rest on: users or clusters, conditions, labels, seeds."""
    labels = [f"labels {', '.join(place_of(metric, x) for x in pair.x)}"] if len(pair.x) else []
    seeds = int(np.isfinite(pair.own - pair.other).all((0, 1)).sum())
    samples = [f"{pair.n:,} {metric.counted}", *_conditions(metric, pair.conditions), *labels]
    users_each = int(outcome.facts.get("users_a_cluster", 1)) if metric.counted == "clusters" else 1
    return Measured(gains, text, " · ".join([*samples, count(seeds, "seed")]), pair.n * users_each)


def _conditions(metric: Metric, conditions: Sequence[Condition]) -> list[str]:
    """Conditions in words: kinds of users and horizons of several, nothing where nothing is held fixed."""
    kinds = dict.fromkeys(one.user_kind for one in conditions if one.user_kind)
    horizons = sorted({one.horizon for one in conditions if one.horizon is not None})
    if kinds:
        ahead = f"horizon{'s' if len(horizons) > 1 else ''} {', '.join(map(str, horizons))}"
        return [", ".join(kinds), *([ahead] if horizons else [])]
    return [condition_of(metric, conditions[0])] if len(conditions) == 1 and conditions[0] != Condition() else []


def level(select: Select, outcome: Outcome) -> Measured | None:
    """Measure the worst value over conditions and x, seed by seed, of the best of the methods."""
    conditions, lower = select.conditions(outcome), select.metric.better == "lower"

    def worst(method: Method) -> tuple[Values, int, int] | None:
        curves = [curve for one in conditions if (curve := outcome.curve(select.metric, one, method)) is not None]
        if not curves:
            return None
        values = np.concatenate([curve.values for curve in curves])
        return (np.nanmax if lower else np.nanmin)(values, axis=0), len(values), max(curve.n for curve in curves)

    known = {method: found for method in select.own if (found := worst(method)) is not None}
    if not known:
        return None
    best = (min if lower else max)(known, key=lambda method: float(known[method][0].mean()))
    values, places, n = known[best]
    unit = select.metric.unit
    rivals = [
        f"; {outcome.name(rival)} {amount(found[0], unit)}"
        for rival in select.rivals
        if (found := worst(rival)) is not None
    ]
    extreme = ("largest " if lower else "smallest ") if places > 1 else ""
    where = [f" ({text})" for text in _conditions(select.metric, conditions)]
    text = f"{extreme}{amount(values, unit)} by {outcome.name(best)}{''.join(where + rivals)}"
    shifts = [count(places, "shift")] if select.metric.axis is Axis.SHIFT else []
    samples = [f"{n:,} {select.metric.counted}", *shifts]
    gains = values * select.sign
    return Measured(gains, text, " · ".join([*samples, count(len(values), "seed")]), n)


def few_less_most(select: Select, outcome: Outcome) -> Measured | None:
    """Measure how much larger the gain is with the fewest labels than with the most, in the unit."""
    pair = pair_of(outcome, select.metric, select.conditions(outcome), select.own[0], select.rivals[0])
    if pair is None or len(pair.x) < 2:
        return None
    unit = select.metric.unit
    gains = select.sign * (pair.own - pair.other).mean(0)
    few, many = (amount(gains[end], unit) for end in (0, -1))
    first, last = (place_of(select.metric, pair.x[end]) for end in (0, -1))
    text = f"gain {few} with {first} labels, {many} with {last}"
    return _measured(outcome, select.metric, gains[0] - gains[-1], text, pair.at(slice(None, None, len(pair.x) - 1)))


def change(select: Select, outcome: Outcome) -> Measured | None:
    """Measure how much a method gains, or loses, from no labels to the fewest or the most, in per cent."""
    method = select.own[0]
    conditions = select.conditions(outcome)
    curve = outcome.curve(select.metric, conditions[0], method) if conditions else None
    if curve is None or len(curve.x) < 2 or curve.x[0] > 0:
        return None
    unit, last = select.metric.unit, 1 if select.at == "fewest" else len(curve.x) - 1
    first, then = curve.values[0], curve.values[last]
    text = (
        f"{outcome.name(method)}: {amount(first, unit)} with no labels, {amount(then, unit)} with "
        f"{place_of(select.metric, curve.x[last])}"
    )
    x = ", ".join(place_of(select.metric, curve.x[row]) for row in (0, last))
    samples = f"{curve.n:,} users · labels {x} · {count(len(curve.seeds), 'seed')}"
    return Measured(select.sign * 100 * (then - first) / first, text, samples, curve.n)


def fewer_labels(select: Select, outcome: Outcome) -> Measured | None:
    """Measure a method with a share of the labels against another with `factor` times as many, in per cent."""
    own, rival = select.own[0], select.rivals[0]
    pair = pair_of(outcome, select.metric, select.conditions(outcome), own, rival)
    if pair is None:
        return None
    rows = [
        (few, int(match[0]))
        for few, x in enumerate(pair.x)
        if len(match := np.flatnonzero(np.isclose(pair.x, select.factor * x)))
    ]
    if not rows:
        return None
    unit, (few, many) = select.metric.unit, rows[-1]
    ours, theirs = pair.own[:, few].mean(0), pair.other[:, many].mean(0)
    text = (
        f"{outcome.name(own)} {plus_minus(ours, unit)} with {place_of(select.metric, pair.x[few])}, {outcome.name(rival)} "
        f"{amount(theirs, unit)} with {place_of(select.metric, pair.x[many])}"
    )
    gains = select.sign * 100 * (ours - theirs) / np.abs(theirs)
    return _measured(outcome, select.metric, gains, text, pair.at(slice(few, many + 1, many - few)))


def loss(select: Select, outcome: Outcome) -> Measured | None:
    """Measure by how much less a method loses from the conditions `base` to those of `where` than another, in the unit."""
    ends = [select.conditions(outcome, where) for where in (select.where, select.base)]
    if not all(ends):
        return None
    there, base = (found[0] for found in ends)
    lost = {}
    for method in (select.rivals[0], select.own[0]):
        curves = [outcome.curve(select.metric, where, method) for where in (there, base)]
        if curves[0] is None or curves[1] is None:
            return None
        lost[method], n = curves[0].values[-1] - curves[1].values[-1], curves[0].n
    unit = select.metric.unit
    both = ", ".join(f"{outcome.name(method)} {amount(values, unit)}" for method, values in lost.items())
    text = f"{condition_of(select.metric, there)} less {condition_of(select.metric, base)}: {both}"
    rival, own = lost.values()
    samples = f"{n:,} users · {condition_of(select.metric, there)} · {count(len(own), 'seed')}"
    return Measured(select.sign * (own - rival), text, samples, n)


def fall(select: Select, outcome: Outcome) -> Measured | None:
    """Measure how little a method's value falls from the smallest to the largest model, and from few users to many."""
    method = select.own[0]
    sizes = [
        curve
        for one in sorted(select.conditions(outcome), key=lambda one: (one.width or 0) ** 2 * (one.layers or 0))
        if (curve := outcome.curve(select.metric, one, method)) is not None
    ]
    if not sizes:
        return None
    largest = sizes[-1].values
    drops = {"users": largest[0] - largest[-1]} if len(largest) > 1 else {}
    if len(sizes) > 1:
        drops["sizes"] = sizes[0].values[-1] - largest[-1]
    if not drops:
        return None
    unit = select.metric.unit
    best = max(drops.values(), key=lambda drop: float(drop.mean()))
    text = f"falls by {' and '.join(plus_minus(drop, unit) for drop in drops.values())} {unit}"
    return Measured(-best, text, f"over {' and '.join(drops)} · {count(len(best), 'seed')}")


def values(select: Select, outcome: Outcome) -> Measured | None:
    """Name a metric's values, the model's before the others', under its last condition: the one that is drawn."""
    conditions = select.conditions(outcome)
    if not conditions:
        return None
    last, unit = conditions[-1], select.metric.unit
    names = sorted(outcome.methods(select.metric, last), key=lambda name: not name.ours)
    known = {name: curve for name in names if (curve := outcome.curve(select.metric, last, name)) is not None}
    if not known:
        return None
    first = next(iter(known.values()))
    listed = ", ".join(
        f"{outcome.name(name)} {plus_minus(curve.values.ravel(), unit)}" for name, curve in known.items()
    )
    title = select.metric.label + (f", {unit}" if unit else "")
    samples = f"{first.n:,} users · {count(len(first.seeds), 'seed')}"
    return Measured(np.array([]), f"{title} ({condition_of(select.metric, last)}): {listed}", samples)


MEASURES: dict[str, Callable[[Select, Outcome], Measured | None]] = {
    measure.__name__: measure for measure in (gain, level, change, few_less_most, fewer_labels, loss, fall, values)
}
