"""Pictures of wave equivariance: the error against the shift, errors by set and method, both over sizes and numbers of users."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from wavecity.model.equivariance.measures import EVERY_AXIS, MODULATED, OWN, OWN_WRAPPED, UNSEEN, sized
from wavecity.model.equivariance.training import Metrics, Size
from wavecity.model.figures.drawing import Handle, draw_line, drawing, panels, style
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Condition
from wavecity.model.results.words import size_of, test_set_of

Values = NDArray[np.float64]
# As they are drawn, one above the other.
METHODS = (Method.WRAPPED, OWN_WRAPPED, Method.VANILLA, Method.AUGMENTED, Method.PENALISED, OWN)
# Ratio of two places below which their numbers would overlap.
CLOSE = 1.2


def draw_shifts(outcome: Outcome) -> str:
    """Equivariance error over the shift: a panel for each axis of the run's model, and one of the models that were trained."""
    every = "all axes"
    names = {**{axis: axis for axis in outcome.facts["bins"]}, EVERY_AXIS: every}
    drawn: list[tuple[str, Metric, str, Sequence[str | None]]] = [
        (f"the run's model, {name}", Metric.EQUIVARIANCE_ERROR, axis, ("float32", "float64"))
        for axis, name in names.items()
    ]
    if outcome.conditions(Metric.TRAINED_EQUIVARIANCE_ERROR):
        drawn.append((f"same training, {every}", Metric.TRAINED_EQUIVARIANCE_ERROR, EVERY_AXIS, (None,)))
    figure, grid = panels(len(drawn), 3, lambda lines: (10.5, 3.1 * lines + 0.4), sharey=True)
    handles: dict[str, Handle] = {}
    for axes, (title, metric, axis, precisions) in zip(grid, drawn, strict=True):
        seen: set[float] = set()
        for precision in precisions:
            for method in METHODS:
                x, mean, spread, whole = _over_shift(outcome, metric, axis, method, precision)
                if not len(x):
                    continue
                seen |= set(x)
                label = f"{outcome.name(method)}, {precision}" if precision else outcome.name(method)
                dash = ":" if precision == "float64" else "-"
                handles[label] = draw_line(
                    axes, x, mean, spread, method, label, marker="", capsize=2, elinewidth=1, linestyle=dash
                )
                look = style(method)
                for chosen, face in ((whole, look["color"]), (~whole, "white")):
                    axes.plot(x[chosen], mean[chosen], look["marker"], color=look["color"], markerfacecolor=face,
                              markersize=5, zorder=6)  # fmt: skip
        axes.set_xscale("log", base=2)
        _ticks(axes, sorted(seen))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("shift in bins, filled: on the grid", fontsize=8.5)
    for axes in grid[::3]:
        axes.set_ylabel("equivariance error, dB", fontsize=9)
    return drawing(figure, handles.values(), 4)


def _over_shift(
    outcome: Outcome, metric: Metric, axis: str, method: Method, precision: str | None
) -> tuple[Values, Values, Values, NDArray[np.bool_]]:
    """Shifts in ascending order, mean and deviation of the error, and which are on the grid."""
    points = []
    for on_grid in (True, False):
        condition = Condition(shift_axis=axis, on_grid=on_grid, precision=precision)
        if (curve := outcome.curve(metric, condition, method)) is not None:
            points += [(x, *_mean(values), on_grid) for x, values in zip(curve.x, curve.values, strict=True)]
    points.sort()
    x, mean, spread, whole = (np.array([point[place] for point in points]) for place in range(4))
    return x, mean, spread, whole.astype(bool)


def draw_sets(outcome: Outcome, metrics: Metrics) -> str:
    """Error by set of test users, a point for each method: means with one standard deviation over the seeds."""
    metric = metrics.trained
    conditions = outcome.conditions(metric)
    figure = Figure(figsize=(10, 0.62 * len(conditions) + 1.3), layout="constrained")
    axes = figure.subplots()
    methods = [method for method in METHODS if method in outcome.methods(metric)]
    for number, method in enumerate(methods):
        places = np.arange(len(conditions)) + 0.16 * (number - (len(methods) - 1) / 2)
        points = np.array([_point(outcome, metric, one, method) for one in conditions])
        draw_line(axes, points[:, 0], places, None, method, outcome.name(method), xerr=points[:, 1], linestyle="none")
    axes.set_yticks(range(len(conditions)), [test_set_of(one) for one in conditions], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xlabel(f"{metric.label}, dB (left is better)", fontsize=9)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return drawing(figure)


def draw_scale(outcome: Outcome, metrics: Metrics) -> str:
    """Errors over the number of training users and over the size: in unseen scenes, there modulated, and of equivariance."""
    random_shifts = Condition(shift_axis=EVERY_AXIS)
    rows: list[tuple[Metric, Condition, str]] = [
        (metrics.scale, UNSEEN, f"NMSE, {test_set_of(UNSEEN)}"),
        (metrics.scale, MODULATED, "NMSE, modulated at random"),
        (Metric.SCALE_EQUIVARIANCE_ERROR, random_shifts, "equivariance error"),
    ]
    sizes = _sizes(outcome)
    x = [outcome.facts["parameters"][size_of(*size)] / 1e3 for size in sizes]
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    grid = figure.subplots(2, len(rows), squeeze=False)
    handles: dict[Method, Handle] = {}
    for column, (metric, condition, title) in enumerate(rows):
        for method in METHODS:
            curve = outcome.curve(metric, sized(condition, sizes[-1]), method)
            if curve is None:
                continue
            over_users = np.array([_mean(values) for values in curve.values])
            over_sizes = np.array([_point(outcome, metric, sized(condition, size), method) for size in sizes])
            for axes, place, points in ((grid[0, column], curve.x, over_users), (grid[1, column], x, over_sizes)):
                handles[method] = draw_line(axes, place, points[:, 0], points[:, 1], method, outcome.name(method))
                axes.set_xscale("log")
                _ticks(axes, list(place))
        grid[0, column].set_title(title, fontsize=10)
        grid[0, column].set_xlabel(f"training users, {size_of(*sizes[-1])}", fontsize=8.5)
        grid[1, column].set_xlabel("thousand parameters, most users", fontsize=8.5)
        for axes in grid[:, column]:
            axes.set_ylabel("dB", fontsize=9)
    return drawing(figure, handles.values(), 4)


def _sizes(outcome: Outcome) -> list[Size]:
    """Sizes that were trained, by number of parameters."""
    found = {
        (one.width, one.layers)
        for one in outcome.conditions(Metric.SCALE_EQUIVARIANCE_ERROR)
        if one.width is not None and one.layers is not None
    }
    return sorted(found, key=lambda size: float(outcome.facts["parameters"][size_of(*size)]))


def _ticks(axes: Axes, places: list[float]) -> None:
    """Mark the places of a logarithmic axis; of two that stand too close for their numbers, the first has one."""
    labels, last = [], 0.0
    for place in places:
        close = place < CLOSE * last
        labels.append("" if close else f"{place:.3g}")
        last = last if close else place
    axes.set_xticks(places, labels)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)


def _point(outcome: Outcome, metric: Metric, condition: Condition, method: Method) -> tuple[float, float]:
    """Mean and deviation over the seeds with the most users; not-a-number where a method was not run."""
    curve = outcome.curve(metric, condition, method)
    return (np.nan, np.nan) if curve is None else _mean(curve.values[-1])


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, 0.0
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
