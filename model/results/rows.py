"""Records as tables: means and spreads over the seeds, and how the model stands against the others in each row."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, cast

import pandas as pd

from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Record

# Values as near as this are level, whatever their spread: no figure here is good to two parts in a hundred.
LEVEL = 0.02


@dataclass(frozen=True)
class Comparison:
    """How the model's best value stands against the best other one."""

    place: Literal["ahead", "level", "behind", "not compared", "not measured"]
    rival: Method | None = None  # The best other one, where the two are compared


@dataclass(frozen=True)
class Row:
    """One metric under one condition, for the model and all that it is compared with."""

    metric: Metric
    condition: Condition
    values: dict[Method, float]  # Method -> mean over the seeds
    x: float = math.nan  # As in `Record`
    # Method -> standard deviation over the seeds; those of one seed are not in it
    spread: dict[Method, float] = field(default_factory=dict)
    paths: int | None = None  # As in `Record`

    def best(self, ours: bool) -> Method | None:
        """Method with the best value, of the model's own or of its rivals; None if none was measured."""
        chosen = [name for name in self.values if (name.ours if ours else name.rival)]
        known = [name for name in chosen if not math.isnan(self.values[name])]
        return max(known, key=lambda name: self.metric.sign * self.values[name], default=None)

    def winners(self) -> set[Method]:
        """Methods with the best value; an upper bound is no competitor."""
        best = {self.values[name] for name in (self.best(True), self.best(False)) if name is not None}
        top = max(best, key=lambda value: self.metric.sign * value, default=math.nan)
        return {name for name, value in self.values.items() if value == top and (name.ours or name.rival)}

    def compare(self) -> Comparison:
        """Compare the model with its best rival: level within 2 % or the spread over the seeds.

        Examples
        --------
        >>> Row(Metric.LATENCY, Condition(), {Method.MODEL: 4.0, Method.GRU: 9.0}).compare().place
        'ahead'
        """
        if not any(name.ours for name in self.values) or not any(name.rival for name in self.values):
            return Comparison("not compared")
        own, rival = self.best(True), self.best(False)
        if own is None or rival is None:
            return Comparison("not measured")
        first, second = self.values[own], self.values[rival]
        gap = (first - second) * self.metric.sign
        noise = math.hypot(self.spread.get(own, 0.0), self.spread.get(rival, 0.0))
        if abs(gap) <= max(LEVEL * max(abs(first), abs(second)), noise):
            return Comparison("level", rival)
        return Comparison("ahead" if gap > 0 else "behind", rival)


def frame_of(records: Iterable[Record]) -> pd.DataFrame:
    """Table with a column for each field of `Record`; names and conditions stay what they are."""
    kinds = {"metric": object, "condition": object, "x": float, "method": object, "seed": int, "value": float, "n": int,
             "paths": object}  # fmt: skip
    records = list(records)
    return pd.DataFrame(
        {name: pd.Series([getattr(record, name) for record in records], dtype=kind) for name, kind in kinds.items()}
    )


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Means and spreads over the seeds, one row for each metric, condition and x, in the order of the records.

    Methods that take no labels (x is not a number) stand in every row of their metric and condition. Metrics that no
    table lists are left out.
    """
    rows = []
    for key, group in frame.groupby(["metric", "condition"], sort=False):
        # pandas makes plain strings of names that it groups by.
        name, condition = cast("tuple[str, Condition]", key)
        metric = Metric(name)
        if metric.table == "none":
            continue
        paths = next((int(value) for value in group["paths"] if value is not None), None)
        swept = sorted(group["x"].dropna().unique())
        for x in swept or [math.nan]:
            here = group[(group["x"] == x) | group["x"].isna()].groupby("method", sort=False)["value"]
            means, spreads = here.mean(), here.std().dropna()
            values, spread = ({Method(name): float(value) for name, value in of.items()} for of in (means, spreads))
            rows.append(Row(metric, condition, values, float(x), spread, paths))
    return rows
