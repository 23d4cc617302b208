"""Pictures of wave equivariance: the error against the shift, errors by set and method, both over sizes and numbers of users."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from wavecity.model.equivariance.measures import (
    EPSILON,
    EVERY_AXIS,
    MODULATED,
    NAMES,
    OWN,
    SCALE_EPSILON,
    TRAINED_EPSILON,
    UNSEEN,
    WRAPPED,
    scale_name,
)
from wavecity.model.report.drawing import drawing
from wavecity.model.results.outcomes import Outcome

# Okabe and Ito's colours, as in `wavecity.model.report.drawing`.
LOOKS = {
    WRAPPED: ("#0072B2", "o"),
    NAMES["vanilla"]: ("#D55E00", "s"),
    NAMES["augmented"]: ("#E69F00", "^"),
    NAMES["penalised"]: ("#CC79A7", "D"),
    OWN: ("#D55E00", "s"),
}
ON, OFF = "on", "off"
# Ratio of two places below which their numbers would overlap.
CLOSE = 1.2


def look_of(method: str) -> dict[str, Any]:
    """Colour, marker and line width of a method; the wrapped model is the thickest."""
    colour, marker = LOOKS[method]
    width = 2.6 if method == WRAPPED else 1.5
    return {"color": colour, "marker": marker, "linewidth": width, "zorder": 5 if width > 2 else 3}


def draw_shifts(outcome: Outcome) -> str:
    """Equivariance error over the shift: a panel an axis of the run's model, and one of the models trained alike."""
    axes_of = [*outcome.facts["bins"], EVERY_AXIS]
    panels: list[tuple[str, str, str, Sequence[str]]] = [
        (f"the run's model, {axis}", EPSILON, axis, ("float32", "float64")) for axis in axes_of
    ]
    if outcome.conditions(TRAINED_EPSILON):
        panels.append((f"trained alike, {EVERY_AXIS}", TRAINED_EPSILON, EVERY_AXIS, ("",)))
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(10.5, 3.1 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    handles: dict[str, Any] = {}
    for axes, (title, quantity, axis, precisions) in zip(grid, panels, strict=False):
        seen: set[float] = set()
        for precision in precisions:
            for method in LOOKS:
                x, mean, spread, whole = _over_shift(outcome, quantity, axis, method, precision)
                if not len(x):
                    continue
                seen |= set(x)
                label = f"{method}, {precision}" if precision else method
                look = look_of(method) | {"linestyle": ":" if precision == "float64" else "-", "marker": ""}
                handles[label] = axes.errorbar(x, mean, spread, label=label, capsize=2, elinewidth=1, **look)
                for chosen, face in ((whole, look["color"]), (~whole, "white")):
                    axes.plot(x[chosen], mean[chosen], LOOKS[method][1], color=look["color"], markerfacecolor=face,
                              markersize=5, zorder=6)  # fmt: skip
        axes.set_xscale("log", base=2)
        _ticks(axes, sorted(seen))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("shift in bins, filled: on the grid", fontsize=8.5)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[::columns]:
        axes.set_ylabel("equivariance error, dB", fontsize=9)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return drawing(figure)


def _over_shift(
    outcome: Outcome, quantity: str, axis: str, method: str, precision: str
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Shifts in ascending order, mean and deviation of the error, and which are on the grid."""
    points = []
    for name in (ON, OFF):
        condition = f"{axis}, {name} the grid" + (f", {precision}" if precision else "")
        if (curve := outcome.curve(quantity, condition, method)) is not None:
            points += [(x, *_mean(values), name == ON) for x, values in zip(curve.x, curve.values, strict=True)]
    points.sort()
    x, mean, spread, whole = (np.array([point[place] for point in points]) for place in range(4))
    return x, mean, spread, whole.astype(bool)


def draw_sets(outcome: Outcome) -> str:
    """Error by set of test users, a point a method: means with one standard deviation over the seeds."""
    quantity = outcome.facts["quantity"]
    names = outcome.conditions(quantity)
    figure = Figure(figsize=(10, 0.62 * len(names) + 1.3), layout="constrained")
    axes = figure.subplots()
    methods = [method for method in LOOKS if any(outcome.curve(quantity, name, method) for name in names)]
    for number, method in enumerate(methods):
        places = np.arange(len(names)) + 0.16 * (number - (len(methods) - 1) / 2)
        points = np.array([_point(outcome, quantity, name, method) for name in names])
        look = look_of(method) | {"linestyle": "none"}
        axes.errorbar(
            points[:, 0], places, xerr=points[:, 1], label=method, capsize=3, elinewidth=1.4, markersize=6.5, **look
        )
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
    axes.set_xlabel(f"{quantity}, dB (left is better)", fontsize=9)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return drawing(figure)


def draw_scale(outcome: Outcome) -> str:
    """Errors over the number of training users and over the size: in unseen scenes, there modulated, and of equivariance."""
    nmse = scale_name(outcome.facts["quantity"])
    sizes = sorted(outcome.facts["parameters"], key=lambda name: outcome.facts["parameters"][name])
    rows: list[tuple[str, Callable[[str], str], str]] = [
        (nmse, lambda size: f"{UNSEEN}, {size}", f"NMSE, {UNSEEN}"),
        (nmse, lambda size: f"{MODULATED}, {size}", "NMSE, modulated at random"),
        (SCALE_EPSILON, lambda size: f"{EVERY_AXIS}, at random, {size}", "equivariance error"),
    ]
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    grid = figure.subplots(2, len(rows), squeeze=False)
    handles: dict[str, Any] = {}
    for column, (quantity, condition, title) in enumerate(rows):
        for method in LOOKS:
            curve = outcome.curve(quantity, condition(sizes[-1]), method)
            if curve is None:
                continue
            over_users = np.array([_mean(values) for values in curve.values])
            over_sizes = np.array([_point(outcome, quantity, condition(size), method) for size in sizes])
            x = [outcome.facts["parameters"][size] / 1e3 for size in sizes]
            for axes, place, points in ((grid[0, column], curve.x, over_users), (grid[1, column], x, over_sizes)):
                handles[method] = axes.errorbar(place, points[:, 0], points[:, 1], label=method, capsize=3, elinewidth=1.2,
                                                markersize=6, **look_of(method))  # fmt: skip
                axes.set_xscale("log")
                _ticks(axes, list(place))
        grid[0, column].set_title(title, fontsize=10)
        grid[0, column].set_xlabel(f"training users, {sizes[-1]}", fontsize=8.5)
        grid[1, column].set_xlabel("thousand parameters, most users", fontsize=8.5)
        for axes in grid[:, column]:
            axes.set_ylabel("dB", fontsize=9)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return drawing(figure)


def _ticks(axes: Any, places: list[float]) -> None:
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


def _point(outcome: Outcome, quantity: str, condition: str, method: str) -> tuple[float, float]:
    """Mean and deviation over the seeds with the most users; not-a-number where a method was not run."""
    curve = outcome.curve(quantity, condition, method)
    return (np.nan, np.nan) if curve is None else _mean(curve.values[-1])


def _mean(values: NDArray[np.float64]) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, 0.0
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


FIGURES: tuple[tuple[Callable[[Outcome], bool], Callable[[Outcome], str], str, str], ...] = (
    (lambda outcome: bool(outcome.conditions(EPSILON)), draw_shifts, "Equivariance error over the shift",
     "The lower, the more equivariant; the floors are the rounding of float32 and float64. Points of the trained models are "
     "means over the seeds, bars one standard deviation."),
    (lambda outcome: bool(outcome.conditions(outcome.facts["quantity"])), draw_sets, "Error by test set and method",
     "Same training users, steps and choice of rate for all; means over the seeds, bars one standard deviation."),
    (lambda outcome: bool(outcome.conditions(SCALE_EPSILON)), draw_scale, "What scale buys",
     "Above over the number of training users, below over the size of the model; the error of equivariance is that of random "
     "shifts along all axes at once."),
)  # fmt: skip


def pictures_of(outcome: Outcome) -> list[dict[str, str]]:
    """Draw what there are results for: image, caption and description of each."""
    return [
        {"image": draw(outcome), "caption": f"{title}. {caption} {outcome.sizes()}.", "alt": title}
        for there, draw, title, caption in FIGURES
        if there(outcome)
    ]
