"""Records in words, for the report and the console: the one place that turns names into English."""

import math

from wavecity.model.results.names import Axis, Method, Metric, TestSet
from wavecity.model.results.records import Condition
from wavecity.model.results.rows import Comparison, Row

_AXES = {
    Axis.LABELS: "labels",
    Axis.LABEL_SHARE: "labels",
    Axis.SHIFT: "shift, bins",
    Axis.TRAINING_USERS: "training users",
}
_SETS = {
    TestSet.SEEN: "seen scenes, other users",
    TestSet.UNSEEN: "unseen scenes",
    TestSet.MODULATED: "unseen scenes, modulated at random",
    TestSet.VEHICLES: "unseen scenes, other speeds (vehicles)",
}

_PLACES = {"ahead": "ahead of", "level": "level with", "behind": "behind"}


def name_of(method: Method, paths: int | None = None) -> str:
    """Name of a method, with the number of paths of a pursuit.

    Examples
    --------
    >>> name_of(Method.OMP, 16), name_of(Method.PHYSC_MLP)
    ('OMP, 16 paths', '[PHYSC] + MLP')
    """
    return method.label.format(paths="" if paths is None else f", {paths} paths")


def condition_of(metric: Metric, condition: Condition) -> str:
    """What was held fixed.

    Examples
    --------
    >>> condition_of(Metric.PREDICTION_NMSE, Condition(user_kind="walker", horizon=4))
    'walker, horizon 4'
    >>> condition_of(Metric.LOCATION_ERROR, Condition())
    'all scenes'
    """
    at, parts = condition, []
    if at.threads is not None and at.csi_masked is not None:
        parts.append(f"encoder with {1 - at.csi_masked:.0%} of the CSI and the scene, {at.threads} thread(s)")
    elif at.csi_masked is not None and at.scene_masked is not None:
        parts.append(
            f"{at.csi_masked:g} of the CSI and {at.scene_masked:g} of the height patches masked, location hidden"
        )
    elif at.csi_masked is not None:
        parts.append(f"{at.csi_masked:g} of the CSI masked")
    elif at.scene_masked is not None:
        parts.append(f"{at.scene_masked:g} of the height patches masked, along the link")
    if at.scene is not None:
        parts.append(f"scene {at.scene}")
    if at.hidden_layers is not None:
        parts.append(f"hidden {at.hidden_layers}")
    if at.learning_rate is not None:
        parts.append(f"learning rate {at.learning_rate:g}")
    if at.user_kind is not None:
        parts.append(at.user_kind)
    if at.horizon is not None:
        parts.append(f"horizon {at.horizon}")
    if at.test_set is not None:
        parts.append(test_set_of(at))
    if at.shift_axis is not None:
        parts.append("all axes" if at.shift_axis == "all" else at.shift_axis)
        parts.append({True: "on the grid", False: "off the grid", None: "at random"}[at.on_grid])
    if at.width is not None and at.layers is not None:
        parts.append(size_of(at.width, at.layers))
    if at.batch is not None:
        parts.append(f"batch of {at.batch}")
    if at.precision is not None:
        parts.append(at.precision)
    if at.region is not None:
        parts.append(f"region of {share_of(at.region)}")
    if at.disturbed is not None:
        parts.append(f"wrong: {at.disturbed}")
    return ", ".join(parts) or metric.whole


def test_set_of(condition: Condition) -> str:
    """Name of a test set of `equivariance`."""
    if condition.test_set is None:
        return ""
    return _SETS.get(condition.test_set, f"unseen scenes, other {condition.shifted}")


def size_of(width: int, layers: int) -> str:
    """Size of a model."""
    return f"width {width}, {layers} layer{'s' if layers > 1 else ''}"


def axis_of(metric: Metric) -> str:
    """What is swept."""
    axis = metric.axis
    return _AXES[axis] if axis else ""


def axis_label_of(metric: Metric) -> str:
    """Label of an axis with a metric's values: the last part of its title, with the unit."""
    title = metric.label
    return f"{title.partition(', ')[2] or title}, {metric.unit}"


def place_of(metric: Metric, x: float) -> str:
    """Place on a metric's axis: a number of labels, a share of them in per cent, a shift or number as it is.

    Examples
    --------
    >>> place_of(Metric.LOCATION_ERROR, 1000), place_of(Metric.SU_RATE, 0.05), place_of(Metric.EQUIVARIANCE_ERROR, 0.5)
    ('1,000', '5 %', '0.5')
    """
    axis = metric.axis
    if axis is Axis.LABEL_SHARE:
        return share_of(x)
    return f"{x:,.0f}" if axis is Axis.LABELS else f"{x:g}"


def share_of(share: float) -> str:
    """Share in per cent."""
    return f"{100 * share:g} %"


def value_of(row: Row, method: Method) -> str:
    """Value of a method with its spread over the seeds, or a dash."""
    value, spread = row.values.get(method, math.nan), row.spread.get(method)
    digits = digits_of(row.metric.unit, value)
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def digits_of(unit: str, size: float = math.inf) -> int:
    """Digits behind the point of values in a unit, of which the largest is of some size; of less than a metre two."""
    return 1 if unit in ("%", "dB", "°") or (unit == "m" and abs(size) >= 1) else 2


def verdict_of(comparison: Comparison, paths: int | None = None) -> str:
    """How the model stands: `ahead of raw CSI + CNN`."""
    if comparison.rival is None:
        return comparison.place
    return f"{_PLACES[comparison.place]} {name_of(comparison.rival, paths)}"


def count(number: int, noun: str) -> str:
    """Number and noun, in the plural where it is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def in_words(row: Row) -> dict[str, object]:
    """Row in words, JSON-ready: quantity, condition, unit, better, x, over (what x is), values, spread, verdict."""
    return {
        "quantity": row.metric.label,
        "condition": condition_of(row.metric, row.condition),
        "unit": row.metric.unit,
        "better": row.metric.better,
        "x": None if math.isnan(row.x) else row.x,
        "over": "" if math.isnan(row.x) else axis_of(row.metric),
        "values": {name_of(name, row.paths): value for name, value in row.values.items()},
        "spread": {name_of(name, row.paths): value for name, value in row.spread.items()},
        "verdict": verdict_of(row.compare(), row.paths),
    }
