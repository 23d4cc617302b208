"""Pictures of the downstream tasks: Figures 5, 6, 7, 12, 13, 14 and 15 of the paper from a run's results."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from wavecity.model.data.users import SceneTable
from wavecity.model.report.drawing import FEWEST_POINTS, credit, drawing, ground, picture, style
from wavecity.model.results.measures import (
    BOUND,
    CROSS,
    EVERYWHERE,
    HEAD,
    LOCAL,
    MU_RATE,
    PAIR,
    PROBE,
    PROBES,
    RAW_HEAD,
    RECEIVE,
    SU_RATE,
    TOP5,
    TRANSMIT,
    UNSEEN,
    heads_at,
)
from wavecity.model.results.outcomes import Outcome

LABELS, RATIO = "labelled users", "training ratio"
DASHES = ("-", "--", ":", "-.")


def draw_curves(
    outcome: Outcome,
    panels: Sequence[tuple[str, str, str]],
    x_label: str,
    columns: int | None = None,
    look_of: Callable[[str], dict[str, Any]] = style,
) -> str:
    """Draw quantities against the labels: means with one standard deviation over seeds, one legend for all panels.

    Parameters
    ----------
    outcome : Outcome
    panels : sequence of (quantity, condition, title)
    x_label : str
    columns : int, optional
        Panels in a line.
    look_of : callable
        Colour, marker and line width of a method.
    """
    columns = columns or len(panels)
    lines = -(-len(panels) // columns)
    names = list(dict.fromkeys(name for quantity, where, _ in panels for name in outcome.methods(quantity, where)))
    names.sort(key=lambda name: (not name.startswith("[PHYSC]"), not name.startswith("model")))
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(10, 3.5 * lines + 0.22 * rows + 0.2), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for axes, (quantity, condition, title) in zip(grid, panels, strict=False):
        for name in names:
            if (handle := _draw_method(axes, outcome, quantity, condition, name, look_of(name))) is not None:
                handles[name] = handle
        _label_x(axes, outcome, quantity, condition, x_label)
        unit = str(outcome.frame.loc[outcome.frame["quantity"] == quantity, "unit"].iloc[0])
        axes.set_ylabel(f"{quantity.partition(', ')[2] or quantity}, {unit}", fontsize=9)
        points = outcome.points(quantity, condition)
        few = f" · {points} {'point' if points == 1 else 'points'} only" if 0 < points < FEWEST_POINTS else ""
        axes.set_title(title + few, fontsize=10)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    shown = [handles[name] for name in names if name in handles]
    figure.legend(handles=shown, loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    return drawing(figure)


def _draw_method(axes: Any, outcome: Outcome, quantity: str, condition: str, name: str, look: dict[str, Any]) -> Any:
    """Draw one method; returns its entry for the legend, None if it was not measured here."""
    curve = outcome.curve(quantity, condition, name)
    if curve is None:
        return None
    if not curve.swept:
        colour, width = look["color"], min(look["linewidth"], 1.8)
        axes.axhline(float(np.nanmean(curve.values)), color=colour, linewidth=width, linestyle="--", zorder=2)
        return Line2D([], [], color=colour, linewidth=width, linestyle="--", label=name)
    spread = np.nanstd(curve.values, axis=1, ddof=1) if len(curve.seeds) > 1 else None
    return axes.errorbar(
        curve.x, np.nanmean(curve.values, axis=1), spread, markersize=6, capsize=3, elinewidth=1.2, label=name, **look
    )


def _label_x(axes: Any, outcome: Outcome, quantity: str, condition: str, label: str) -> None:
    """Logarithmic labels, 0 included where there is a value without any; ratios in per cent."""
    frame = outcome.frame
    here = frame[(frame["quantity"] == quantity) & (frame["condition"] == condition)]["x"].dropna()
    x = np.sort(here.unique())
    if len(x) and x[0] == 0:
        axes.set_xscale("symlog", linthresh=x[1] if len(x) > 1 else 1, linscale=0.6)
    else:
        axes.set_xscale("log")
    share = len(x) > 0 and x[-1] <= 1
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %" if share else f"{value:,.0f}"))
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


def draw_local(outcome: Outcome) -> str:
    """Figure 5b: median error within a scene against the labels, over all scenes."""
    return draw_curves(outcome, [(LOCAL, EVERYWHERE, "scene-specific, all scenes")], LABELS + " a scene")


def draw_local_scenes(outcome: Outcome) -> str:
    """Figure 5b scene by scene."""
    scenes = [name for name in outcome.conditions(LOCAL) if name != EVERYWHERE]
    return draw_curves(outcome, [(LOCAL, name, name) for name in scenes], LABELS, 2)


def draw_cross(outcome: Outcome) -> str:
    """Figure 5c: median error in unseen scenes against their labels."""
    return draw_curves(outcome, [(CROSS, UNSEEN, "cross-scene, unseen scenes")], LABELS + " of the unseen scene")


def draw_mu(outcome: Outcome) -> str:
    """Figures 6c and 6d: top-5 accuracy and sum-rate against the training ratio."""
    return draw_curves(outcome, [(TOP5, PROBE, "(c) top-5 accuracy"), (MU_RATE, PROBE, "(d) sum-rate")], RATIO)


def draw_su(outcome: Outcome) -> str:
    """Figure 7: receive and transmit beams, dominant pair, sum-rate."""
    panels = [
        (RECEIVE, PROBES, "(a) receive beams, top 2"),
        (TRANSMIT, PROBES, "(b) transmit beams, top 2"),
        (PAIR, PROBES, "(c) dominant pair"),
        (SU_RATE, PROBES, "(d) sum-rate"),
    ]
    return draw_curves(outcome, panels, RATIO, 2)


def draw_layouts(outcome: Outcome, scenes: SceneTable) -> str:
    """Figure 12: scenes with true locations and those predicted by each method."""
    arrays = outcome.arrays
    rows, true, methods = (
        arrays["layout_scene"],
        arrays["layout_true"],
        [str(name) for name in arrays["layout_methods"]],
    )
    columns = min(len(rows), 2)
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(5 * columns, 4.9 * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    handles: list[Any] = []
    for number, (axes, row) in enumerate(zip(grid, rows, strict=False)):
        ground(axes, scenes, int(row))
        station = scenes.bs[int(row)].numpy()
        place = true[number] + station
        handles = axes.plot(*place.T, "o", color="black", markersize=6, markerfacecolor="white", zorder=5, label="true")
        for name, found in zip(methods, arrays["layout_places"][:, number], strict=True):
            look, ends = style(name), found + station
            axes.plot(*np.stack((place, ends)).transpose(2, 0, 1), color=look["color"], linewidth=0.9, zorder=3)
            marker = {"marker": look["marker"], "color": look["color"], "markeredgecolor": "white", "markersize": 6.5}
            handles += axes.plot(*ends.T, linestyle="none", zorder=4, label=name, **marker)
        errors = [f"{np.median(np.linalg.norm(p[number] - true[number], axis=1)):.0f}" for p in arrays["layout_places"]]
        axes.set_title(f"{scenes.names[int(row)]}: median {' / '.join(errors)} m", fontsize=10, pad=10)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("east in m", fontsize=8)
        axes.set_ylabel("north in m", fontsize=8)
    for axes in grid[len(rows) :]:
        axes.set_axis_off()
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=9, frameon=False)
    credit(figure)
    return picture(figure)


def draw_ecdf(outcome: Outcome) -> str:
    """Figure 13: share of the clusters whose sum-rate is not above a value, a panel a training ratio."""
    arrays = outcome.arrays
    ratios, rates, methods = arrays["ecdf_ratios"], arrays["ecdf_rates"], [str(name) for name in arrays["ecdf_methods"]]
    columns = min(len(ratios), 3)
    lines = -(-len(ratios) // columns)
    rows = -(-len(methods) // 3)
    figure = Figure(figsize=(10, 3.0 * lines + 0.22 * rows + 0.3), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    handles: dict[str, Any] = {}
    for number, (axes, ratio) in enumerate(zip(grid, ratios, strict=False)):
        for name, values in zip(methods, rates[number], strict=True):
            look = style(name)
            look.pop("marker")
            line = "--" if name == BOUND or name.endswith("no labels") else "-"
            handles[name] = axes.ecdf(values[np.isfinite(values)], label=name, linestyle=line, **look)
        axes.set_title(f"training ratio {100 * float(ratio):g} %", fontsize=10)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8.5, labelbottom=True)
        axes.set_xlabel("sum-rate, bit/s/Hz", fontsize=9)
    for axes in grid[:: max(columns, 1)]:
        axes.set_ylabel("share of the clusters", fontsize=9)
    for axes in grid[len(ratios) :]:
        axes.set_axis_off()
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)
    return drawing(figure)


def draw_heads(outcome: Outcome, rate: float) -> str:
    """Figures 14 and 15: top-5 accuracy and sum-rate by the head's hidden layers, at one learning rate."""
    conditions = heads_at(outcome, rate)
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    handles: list[Any] = []
    for axes, quantity, title in zip(
        figure.subplots(1, 2), (TOP5, MU_RATE), ("(a) top-5 accuracy, %", "(b) sum-rate, bit/s/Hz"), strict=True
    ):
        handles = []
        for name in (HEAD, RAW_HEAD):
            for number, condition in enumerate(conditions):
                curve = outcome.curve(quantity, condition, name)
                if curve is None:
                    continue
                look = style(name) | {"linestyle": DASHES[number % len(DASHES)], "capsize": 3}
                label = f"{name}, {condition.partition(', ')[0]}"
                spread = np.nanstd(curve.values, axis=1, ddof=1) if len(curve.seeds) > 1 else None
                handles.append(axes.errorbar(curve.x, np.nanmean(curve.values, axis=1), spread, label=label, **look))
        _label_x(axes, outcome, quantity, conditions[0], RATIO)
        axes.set_title(title, fontsize=10)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    return drawing(figure)
