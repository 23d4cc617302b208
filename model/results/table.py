"""Measured values of every task: one table of records, and the rows of it that a reader looks at."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from wavecity.model.settings.tasks import BOUND, is_ours

# Values as near as this are level, whatever their spread: no figure here is good to two parts in a hundred.
LEVEL = 0.02
COLUMNS = ("task", "quantity", "condition", "x", "method", "seed", "value", "unit", "better", "n")


@dataclass(frozen=True)
class Record:
    """One measured value: a line of `results/<task>.parquet`.

    Attributes
    ----------
    quantity : str
        E.g. `Localisation, median error`.
    condition : str
        What was held fixed.
    method : str
        Those that are the pretrained model or a head on it begin with `model` or `[PHYSC]`.
    value : float
    unit : str
    better : {"lower", "higher"}
    seed : int
    n : int
        Users, clusters or scenes that the value is over.
    x : float
        What is swept (labels, training ratio); not-a-number where nothing is, or where the method takes no labels.
    """

    quantity: str
    condition: str
    method: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    seed: int
    n: int
    x: float = math.nan


@dataclass(frozen=True)
class Findings:
    """What a task gives.

    Attributes
    ----------
    records : list of Record
    facts : dict
        Sample sizes, checks, chosen settings; JSON-ready.
    arrays : dict
        What only the figures need.
    """

    records: list[Record]
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One quantity under one condition, for the model and everything it stands beside.

    Attributes
    ----------
    quantity, condition : str
    unit : str
    better : {"lower", "higher"}
    values : dict
        Predictor -> mean over the seeds.
    x : float
        As in `Record`.
    spread : dict
        Predictor -> standard deviation over the seeds; those of one seed are not in it.
    """

    quantity: str
    condition: str
    unit: str
    better: Literal["lower", "higher"]
    values: dict[str, float]
    x: float = math.nan
    spread: dict[str, float] = field(default_factory=dict)

    def verdict(self) -> str:
        """Say in plain words how the model stands against the best other predictor, an upper bound not counted."""
        own = {name: value for name, value in self.values.items() if is_ours(name)}
        others = {name: value for name, value in self.values.items() if not is_ours(name) and name != BOUND}
        if not own or not others:
            return "not compared"
        sign = 1 if self.better == "higher" else -1
        best = max(own, key=lambda name: sign * own[name])
        rival = max(others, key=lambda name: sign * others[name])
        if math.isnan(own[best]) or math.isnan(others[rival]):
            return "not measured"
        gap = sign * (own[best] - others[rival])
        if abs(gap) <= max(LEVEL * max(abs(own[best]), abs(others[rival])), self.noise(best, rival)):
            return f"level with {rival}"
        return f"ahead of {rival}" if gap > 0 else f"behind {rival}"

    def noise(self, first: str, second: str) -> float:
        """Standard deviation of the difference of two predictors' values, by their spread over seeds."""
        return math.hypot(self.spread.get(first, 0.0), self.spread.get(second, 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the verdict included; x is None where nothing is swept."""
        return {**asdict(self), "x": None if math.isnan(self.x) else self.x, "verdict": self.verdict()}


def to_frame(records: Iterable[Record], task: str) -> pd.DataFrame:
    """Table of records, columns `COLUMNS`."""
    return pd.DataFrame([{"task": task, **asdict(record)} for record in records], columns=list(COLUMNS))


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """Means and spreads over the seeds, one row for each quantity, condition and x, in the order of the table.

    Methods that take no labels (x is not a number) stand in every row of their quantity and condition.
    """
    rows: list[Row] = []
    keys = ["quantity", "condition", "unit", "better"]
    for key, group in frame.groupby(keys, sort=False):
        quantity, condition, unit, better = map(str, key)
        swept = sorted(group["x"].dropna().unique())
        for x in swept or [math.nan]:
            here = group[(group["x"] == x) | group["x"].isna()]
            by_method = here.groupby("method", sort=False)["value"]
            values = {str(name): float(value) for name, value in by_method.mean().items()}
            spread = {str(name): float(sd) for name, sd in by_method.std().items() if np.isfinite(sd)}
            rows.append(Row(quantity, condition, unit, better, values, float(x), spread))  # type: ignore[arg-type]
    return rows


def records_of(rows: Sequence[Row], seed: int, n: int) -> list[Record]:
    """Records of rows that were measured with one seed over n users."""
    return [
        Record(row.quantity, row.condition, method, value, row.unit, row.better, seed, n, row.x)
        for row in rows
        for method, value in row.values.items()
    ]


def decibel(ratio: float) -> float:
    """10 log10 of a power ratio."""
    return 10 * math.log10(max(ratio, 1e-300))


def median_error(predicted: Tensor, truth: Tensor) -> float:
    """Median distance of positions (N, 2), in their unit."""
    return float((predicted - truth).norm(dim=-1).median())
