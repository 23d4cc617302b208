"""Pictures of the downstream tasks: Figures 5, 6, 7, 12, 13, 14 and 15 of the paper from a run's results."""

import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from wavecity.model.data.users import SceneTable
from wavecity.model.figures.drawing import (
    FEWEST_POINTS,
    PHYSC,
    Handle,
    credit,
    draw_line,
    drawing,
    ground,
    metres,
    panels,
    picture,
    style,
)
from wavecity.model.results.names import Method, Metric, Regime
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import WHOLE, Condition
from wavecity.model.results.words import axis_label_of, condition_of, count, place_of

Panel = tuple[Metric, Condition, str]
LABELS, RATIO = "labelled users", "training ratio"
# Methods of these learn from labels: drawn as lines, the others dashed.
LEARNED = (Regime.FROZEN, Regime.FINE_TUNED, Regime.FROM_SCRATCH, Regime.RANDOM, Regime.SUPERVISED)
DASHES = ("-", "--", ":", "-.")


def draw_curves(outcome: Outcome, drawn: Sequence[Panel], x_label: str, columns: int | None = None) -> str:
    """Draw (metric, condition, title) against the labels: means, one standard deviation over seeds, one legend."""
    names = list(dict.fromkeys(name for metric, where, _ in drawn for name in outcome.methods(metric, where)))
    names.sort(key=lambda name: (name not in PHYSC, not name.ours))
    legend = 0.22 * -(-len(names) // 3)
    figure, grid = panels(len(drawn), columns or len(drawn), lambda lines: (10, 3.5 * lines + legend + 0.2))
    handles: dict[Method, Handle] = {}
    for axes, (metric, condition, title) in zip(grid, drawn, strict=True):
        for name in names:
            if (handle := _draw_method(axes, outcome, metric, condition, name)) is not None:
                handles[name] = handle
        _label_x(axes, outcome, metric, condition, x_label)
        axes.set_ylabel(axis_label_of(metric), fontsize=9)
        points = len(outcome.places(metric, condition))
        few = f" · {count(points, 'point')} only" if 0 < points < FEWEST_POINTS else ""
        axes.set_title(title + few, fontsize=10)
    return drawing(figure, [handles[name] for name in names if name in handles])


def _draw_method(axes: Axes, outcome: Outcome, metric: Metric, condition: Condition, method: Method) -> Handle | None:
    """Draw one method; returns its entry for the legend, None if it was not measured here."""
    curve, name = outcome.curve(metric, condition, method), outcome.name(method)
    if curve is None:
        return None
    if not curve.swept:
        look = style(method)
        colour, width = look["color"], min(look["linewidth"], 1.8)
        axes.axhline(float(curve.mean[0]), color=colour, linewidth=width, linestyle="--", zorder=2)
        return Line2D([], [], color=colour, linewidth=width, linestyle="--", label=name)
    return draw_line(axes, curve.x, curve.mean, curve.spread, method, name)


def _label_x(axes: Axes, outcome: Outcome, metric: Metric, condition: Condition, label: str) -> None:
    """Logarithmic labels, 0 included where there is a value without any; shares in per cent."""
    x = outcome.places(metric, condition)
    if len(x) and x[0] == 0:
        axes.set_xscale("symlog", linthresh=x[1] if len(x) > 1 else 1, linscale=0.6)
    else:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: place_of(metric, value)))
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.grid(alpha=0.3)


def draw_clusters(outcome: Outcome, what: str) -> str:
    """Figures 5a, 6a and 6b: t-SNE of raw CSI and of [PHYSC], coloured by cluster."""
    figure = Figure(figsize=(8.4, 4.1), layout="constrained")
    cluster = outcome.arrays["tsne_cluster"]
    for axes, name, label in zip(figure.subplots(1, 2), ("raw", "physc"), ("raw CSI", "[PHYSC]"), strict=True):
        plane, score = outcome.arrays[f"tsne_{name}"], outcome.facts.get(f"silhouette_{name}")
        axes.scatter(*plane.T, c=cluster, cmap="tab10" if cluster.max() < 10 else "turbo", s=9, linewidths=0)
        axes.set_title(label if score is None else f"{label} (silhouette {float(score):.2f})", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.supxlabel(f"t-SNE of {len(cluster):,} users; colour: {what}", fontsize=9)
    return drawing(figure)


# Figure 5b: median error within a scene against the labels, over all scenes.
draw_local = partial(
    draw_curves, drawn=[(Metric.LOCATION_ERROR, WHOLE, "scene-specific, all scenes")], x_label=LABELS + " a scene"
)
# Figure 5c: median error in unseen scenes against their labels.
draw_cross = partial(
    draw_curves,
    drawn=[(Metric.CROSS_LOCATION_ERROR, WHOLE, "cross-scene, unseen scenes")],
    x_label=LABELS + " of the unseen scene",
)
# Figures 6c and 6d, and 7, against the training ratio.
_MU = [(Metric.BEAM_TOP5, WHOLE, "(c) top-5 accuracy"), (Metric.MU_RATE, WHOLE, "(d) sum-rate")]
_SU = [
    (Metric.RECEIVE_TOP2, WHOLE, "(a) receive beams, top 2"),
    (Metric.TRANSMIT_TOP2, WHOLE, "(b) transmit beams, top 2"),
    (Metric.BEAM_PAIR, WHOLE, "(c) dominant pair"),
    (Metric.SU_RATE, WHOLE, "(d) sum-rate"),
]
draw_mu, draw_su = (
    partial(draw_curves, drawn=_MU, x_label=RATIO),
    partial(draw_curves, drawn=_SU, x_label=RATIO, columns=2),
)


def draw_local_scenes(outcome: Outcome) -> str:
    """Figure 5b scene by scene."""
    metric = Metric.LOCATION_ERROR
    scenes = [one for one in outcome.conditions(metric) if one != WHOLE]
    return draw_curves(outcome, [(metric, one, condition_of(metric, one)) for one in scenes], LABELS, 2)


def draw_layouts(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 12: scenes with true locations and those predicted by each method."""
    arrays = outcome.arrays
    rows, true, methods = arrays["layout_scene"], arrays["layout_true"], map(Method, arrays["layout_methods"])
    places = dict(zip(methods, arrays["layout_places"], strict=True))
    figure, grid = panels(len(rows), 2, lambda lines: (5 * min(len(rows), 2), 4.9 * lines + 0.4))
    handles: list[Handle] = []
    for number, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        ground(axes, scenes, int(row))
        station = scenes.bs[int(row)].numpy()
        place = true[number] + station
        handles = [
            *axes.plot(*place.T, "o", color="black", markersize=6, markerfacecolor="white", zorder=5, label="true")
        ]
        for name, found in places.items():
            look, predicted = style(name), found[number] + station
            axes.plot(*np.stack((place, predicted)).transpose(2, 0, 1), color=look["color"], linewidth=0.9, zorder=3)
            handles += axes.plot(*predicted.T, look["marker"], color=look["color"], markeredgecolor="white", markersize=6.5,
                                 zorder=4, label=outcome.name(name))  # fmt: skip
        errors = [metres(float(np.median(np.linalg.norm(p[number] - true[number], axis=1)))) for p in places.values()]
        axes.set_title(f"{scenes.names[int(row)]}: median {' / '.join(errors)}", fontsize=10, pad=10)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("east in m", fontsize=8)
        axes.set_ylabel("north in m", fontsize=8)
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)
    credit(figure)
    return picture(figure)


def draw_ecdf(outcome: Outcome) -> str:
    """Figure 13: share of the clusters whose sum-rate is not above a value, a panel for each training ratio."""
    ratios, rates = outcome.arrays["ecdf_ratios"], outcome.arrays["ecdf_rates"]
    methods = [Method(name) for name in outcome.arrays["ecdf_methods"]]
    legend = 0.22 * -(-len(methods) // 3)
    figure, grid = panels(len(ratios), 3, lambda lines: (10, 3.0 * lines + legend + 0.3), sharex=True, sharey=True)
    handles: dict[Method, Handle] = {}
    for number, (axes, ratio) in enumerate(zip(grid, ratios, strict=True)):
        for name, values in zip(methods, rates[number], strict=True):
            look = style(name)
            line = "-" if name.regime in LEARNED else "--"
            handles[name] = axes.ecdf(values[np.isfinite(values)], label=outcome.name(name), linestyle=line, color=look["color"],
                                        linewidth=look["linewidth"], zorder=look["zorder"])  # fmt: skip
        axes.set_title(f"training ratio {100 * float(ratio):g} %", fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8.5, labelbottom=True)
        axes.set_xlabel("sum-rate, bit/s/Hz", fontsize=9)
    for axes in grid[::3]:
        axes.set_ylabel("share of the clusters", fontsize=9)
    return drawing(figure, handles.values())


def draw_heads(outcome: Outcome, rate: float) -> str:
    """Figures 14 and 15: top-5 accuracy and sum-rate by the head's hidden layers, at one learning rate."""
    conditions = outcome.conditions(Metric.BEAM_TOP5, learning_rate=rate)
    figure, grid = panels(2, 2, lambda _: (10, 4.2))
    metrics = {Metric.BEAM_TOP5: "(a) top-5 accuracy, %", Metric.MU_RATE: "(b) sum-rate, bit/s/Hz"}
    for axes, (metric, title) in zip(grid, metrics.items(), strict=True):
        handles: list[Handle] = []
        for name in (Method.PHYSC_HEAD, Method.RAW_HEAD):
            for condition, dash in zip(conditions, itertools.cycle(DASHES)):
                if (curve := outcome.curve(metric, condition, name)) is not None:
                    label = f"{outcome.name(name)}, hidden {condition.hidden_layers}"
                    handles.append(draw_line(axes, curve.x, curve.mean, curve.spread, name, label, linestyle=dash))
        _label_x(axes, outcome, metric, conditions[0], RATIO)
        axes.set_title(title, fontsize=10)
    return drawing(figure, handles, 2)
