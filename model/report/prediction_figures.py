"""Pictures of channel prediction: error over horizon by kind of user, error over labels, loss curves of the temporal model."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from wavecity.model.report.drawing import drawing, picture, style
from wavecity.model.report.prediction_claims import condition_of, horizons_of, regimes_of
from wavecity.model.report.task_figures import draw_curves
from wavecity.model.results.outcomes import Outcome
from wavecity.model.tasks.prediction import (
    DENSE,
    FINE_TUNED,
    GRU,
    PERSISTENCE,
    QUANTITY,
    RIDGE,
    SPEEDS,
    START,
    TWIN,
    ZERO_SHOT,
)

SHARE = "labelled share of the training users"
# Okabe and Ito's colours, as in `wavecity.model.report.drawing`.
LOOKS = {
    FINE_TUNED: ("#0072B2", "o"),
    ZERO_SHOT: ("#56B4E9", "P"),
    TWIN: ("#CC79A7", "^"),
    DENSE: ("#E69F00", "s"),
    GRU: ("#009E73", "X"),
    RIDGE: ("#D55E00", "D"),
    PERSISTENCE: ("#555555", "v"),
    START: ("#8C5A00", "<"),
}


def look_of(method: str) -> dict[str, Any]:
    """Colour, marker and line width of a method; the fine-tuned model is the thickest."""
    if method not in LOOKS:
        return style(method)
    colour, marker = LOOKS[method]
    width = 3.0 if method == FINE_TUNED else 1.5
    return {"color": colour, "marker": marker, "linewidth": width, "zorder": 5 if width > 2 else 3}


def draw_horizons(outcome: Outcome, quantity: str = QUANTITY) -> str:
    """Error over horizon with all labels, a panel a kind of user: means with one standard deviation over the seeds."""
    kinds, horizons = regimes_of(outcome, quantity), horizons_of(outcome, quantity)
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    grid = figure.subplots(1, len(kinds), squeeze=False, sharey=True)[0]
    handles: dict[str, Any] = {}
    for axes, kind in zip(grid, kinds, strict=True):
        for method in LOOKS:
            # Only the most labels that anything was trained with.
            points = [_last(outcome, quantity, condition_of(kind, horizon), method) for horizon in horizons]
            mean = np.array([np.nan if point is None else point[0] for point in points])
            spread = np.array([np.nan if point is None else point[1] for point in points])
            if np.isnan(mean).all():
                continue
            line = "--" if method in (ZERO_SHOT, RIDGE, PERSISTENCE, START) else "-"
            look = look_of(method) | {"linestyle": line, "markersize": 6, "capsize": 3, "elinewidth": 1.2}
            handles[method] = axes.errorbar(horizons, mean, np.nan_to_num(spread), label=method, **look)
        axes.axhline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(horizons))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"snapshots ahead, {outcome.facts['interval_ms']:g} ms each", fontsize=9)
        speed = outcome.facts["test_users"].get(kind, {}).get("mean_m_s", SPEEDS[kind])
        axes.set_title(f"{kind}s, {speed:.1f} m/s in the mean", fontsize=10)
        axes.tick_params(labelsize=8.5)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("NMSE, dB", fontsize=9)
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=4, fontsize=8.5, frameon=False)
    return drawing(figure)


def _last(outcome: Outcome, quantity: str, condition: str, method: str) -> tuple[float, float] | None:
    """Mean and deviation of a method with the most labels it was trained with."""
    curve = outcome.curve(quantity, condition, method)
    if curve is None:
        return None
    values = curve.values[-1]
    return float(np.nanmean(values)), float(np.nanstd(values, ddof=1)) if len(curve.seeds) > 1 else 0.0


def draw_labels(outcome: Outcome) -> str:
    """Error over labels at the shortest and the longest horizon, a panel a kind of user."""
    horizons = sorted({horizons_of(outcome)[0], horizons_of(outcome)[-1]})
    panels = [
        (QUANTITY, condition_of(kind, horizon), f"{kind}s, {horizon} ahead")
        for horizon in horizons
        for kind in regimes_of(outcome)
    ]
    return draw_curves(outcome, panels, SHARE, len(regimes_of(outcome)), look_of)


def draw_temporal_losses(curves: dict[str, dict[str, tuple[list[int], list[float]]]]) -> str:
    """Training loss, smoothed, beside the validation losses by kind of mask."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, values = curves["train"].get("total", ([], []))
    if values:
        window = max(1, len(values) // 20)
        smooth = np.convolve(np.pad(values, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
        left.plot(steps, values, color="#9ecae1", linewidth=0.7)
        left.plot(steps, smooth, color="#08519c", linewidth=1.6, label="train, running mean")
        left.legend(fontsize=8)
    for term, (steps, values) in curves["validation"].items():
        width = 2.4 if term == "total" else 1.3
        right.plot(steps, values, "o-", markersize=3, linewidth=width, label="all kinds" if term == "total" else term)
    if curves["validation"]:
        right.legend(fontsize=8, ncols=2)
    for axes, title in ((left, "train"), (right, "validation")):
        axes.set_title(f"{title}, masked NMSE", fontsize=9)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    return picture(figure)
