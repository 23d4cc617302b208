"""Pictures of channel prediction: error over horizon by kind of user, error over labels, loss curves of the temporal model."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from wavecity.model.figures.curves import draw_curves
from wavecity.model.figures.drawing import Handle, draw_line, drawing, panels, picture
from wavecity.model.figures.pictures import Curves, draw_smoothed, label_losses
from wavecity.model.results.names import Method, Metric, Regime
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Condition

SHARE = "labelled share of the training users"
# As they are drawn, one above the other.
METHODS = (Method.MODEL_FINE_TUNED, Method.MODEL_ZERO_SHOT, Method.TWIN, Method.DENSE_TWIN, Method.GRU, Method.RIDGE,
           Method.PERSISTENCE, Method.FIRST_GUESS)  # fmt: skip


def kinds_of(outcome: Outcome, metric: Metric) -> list[str]:
    """Kinds of users that were tested, in the order of the records: from slow to fast."""
    return list(dict.fromkeys(one.user_kind for one in outcome.conditions(metric) if one.user_kind))


def horizons_of(outcome: Outcome, metric: Metric) -> list[int]:
    """Horizons that were tested, ascending."""
    return sorted({one.horizon for one in outcome.conditions(metric) if one.horizon is not None})


def draw_horizons(outcome: Outcome, metric: Metric = Metric.PREDICTION_NMSE) -> str:
    """Error over horizon with all labels, a panel for each kind of user: means with one standard deviation over the seeds."""
    kinds, horizons = kinds_of(outcome, metric), horizons_of(outcome, metric)
    figure, grid = panels(len(kinds), len(kinds), lambda _: (10.5, 4.2), sharey=True)
    handles: dict[Method, Handle] = {}
    for axes, kind in zip(grid, kinds, strict=True):
        for method in METHODS:
            # Only the most labels that anything was trained with.
            points = [_last(outcome, metric, Condition(user_kind=kind, horizon=one), method) for one in horizons]
            mean, spread = np.array(points).T
            if np.isnan(mean).all():
                continue
            line = "--" if method.regime in (Regime.PRETRAINED, Regime.UNTRAINED) else "-"
            name = outcome.name(method)
            handles[method] = draw_line(axes, horizons, mean, np.nan_to_num(spread), method, name, linestyle=line)
        axes.axhline(0, color="#999999", linewidth=0.8, linestyle=":", zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(horizons))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"snapshots ahead, {outcome.facts['interval_ms']:g} ms each", fontsize=9)
        axes.set_title(f"{kind}s, {outcome.facts['test_users'][kind]['mean_m_s']:.1f} m/s in the mean", fontsize=10)
        axes.tick_params(labelsize=8.5)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("NMSE, dB", fontsize=9)
    return drawing(figure, handles.values(), 4)


def _last(outcome: Outcome, metric: Metric, condition: Condition, method: Method) -> tuple[float, float]:
    """Mean and deviation of a method with the most labels it was trained with; not-a-number where it was not run."""
    curve = outcome.curve(metric, condition, method)
    if curve is None:
        return np.nan, np.nan
    return float(curve.mean[-1]), 0.0 if curve.spread is None else float(curve.spread[-1])


def draw_labels(outcome: Outcome) -> str:
    """Error over labels at the shortest and the longest horizon, a panel for each kind of user."""
    metric = Metric.PREDICTION_NMSE
    kinds, horizons = kinds_of(outcome, metric), horizons_of(outcome, metric)
    drawn = [
        (metric, Condition(user_kind=kind, horizon=horizon), f"{kind}s, {horizon} ahead")
        for horizon in sorted({horizons[0], horizons[-1]})
        for kind in kinds
    ]
    return draw_curves(outcome, drawn, SHARE, len(kinds))


def draw_temporal_losses(curves: Curves) -> str:
    """Training loss, smoothed, and the validation losses by kind of mask."""
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, values = curves["train"].get("total", ([], []))
    if values:
        draw_smoothed(left, steps, values)
        left.legend(fontsize=8)
    for term, (steps, values) in curves["validation"].items():
        width = 2.4 if term == "total" else 1.3
        right.plot(steps, values, "o-", markersize=3, linewidth=width, label="all kinds" if term == "total" else term)
    if curves["validation"]:
        right.legend(fontsize=8, ncols=2)
    label_losses(left, "train, masked NMSE")
    label_losses(right, "validation, masked NMSE")
    return picture(figure)
