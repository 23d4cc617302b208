"""Results of a run as the report reads them: every task's table of records, facts and arrays."""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wavecity.dataset.files import read_json
from wavecity.model.results.names import Axis, Method, Metric
from wavecity.model.results.records import Arrays, Condition, Facts, read_records
from wavecity.model.results.rows import Row, frame_of, rows_of
from wavecity.model.results.words import count, name_of, place_of
from wavecity.model.settings.tasks import TASKS

# Content of a run's `pretrain.json`.
Summary = Mapping[str, Any]


@dataclass(frozen=True)
class Curve:
    """One method's values of a metric under a condition."""

    x: NDArray[np.float64]  # float (X,); what is swept, ascending; empty for a method that takes no labels
    seeds: NDArray[np.int64]  # int (K,)
    # float (X, K), or (1, K) for a method that takes no labels; not-a-number where it was not measured
    values: NDArray[np.float64]
    n: int  # Users or clusters that a value is over

    @property
    def swept(self) -> bool:
        """Whether the method takes labels."""
        return len(self.x) > 0

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over the seeds, (X,) or (1,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of places that were not measured
            return np.asarray(np.nanmean(self.values, axis=1))

    @property
    def spread(self) -> NDArray[np.float64] | None:
        """Standard deviation over the seeds, (X,) or (1,); None of a single one."""
        return np.asarray(np.nanstd(self.values, axis=1, ddof=1)) if len(self.seeds) > 1 else None

    def on(self, x: NDArray[np.float64], seeds: NDArray[np.int64]) -> NDArray[np.float64]:
        """Values (len(x), len(seeds)): what takes no labels stands at every x, what was measured once at every seed."""
        values = self.values if self.swept else np.repeat(self.values, max(len(x), 1), axis=0)
        if self.swept:
            values = values[np.searchsorted(self.x, x)]
        if len(self.seeds) == 1:
            return np.repeat(values, len(seeds), axis=1)
        return values[:, np.searchsorted(self.seeds, seeds)]


@dataclass(frozen=True)
class Outcome:
    """What an evaluation of one task left."""

    task: str
    result: Facts  # `facts` and provenance
    frame: pd.DataFrame  # Records, as `wavecity.model.results.rows.frame_of` makes it
    arrays: Arrays

    @property
    def facts(self) -> Facts:
        """Sample sizes, checks, chosen settings."""
        return dict(self.result["facts"])

    @cached_property
    def rows(self) -> list[Row]:
        """Means and spreads over the seeds."""
        return rows_of(self.frame)

    @property
    def listed(self) -> pd.DataFrame:
        """Records of the metrics that tables list."""
        return self.frame[[metric.table != "none" for metric in self.frame["metric"]]]

    def conditions(self, metric: Metric, **fixed: object) -> list[Condition]:
        """Conditions under which a metric was measured, in the order of the records; only those with such fields."""
        return [condition for of, condition in self._tables if of == metric and condition.fits(**fixed)]

    def methods(self, metric: Metric, condition: Condition | None = None) -> list[Method]:
        """Methods that a metric was measured with, under one condition or any, in the order of the records."""
        return list(self._of(metric, condition)["method"].unique())

    def curve(self, metric: Metric, condition: Condition, method: Method) -> Curve | None:
        """Read one method's values, None if there is none."""
        here = self._of(metric, condition)
        here = here[(here["method"] == method) & here["value"].notna()]
        if here.empty:
            return None
        n = int(here["n"].max())
        if not here["x"].notna().any():
            here = here.drop_duplicates("seed").sort_values("seed")
            return Curve(np.array([]), here["seed"].to_numpy(), here["value"].to_numpy()[None], n)
        table = here[here["x"].notna()].pivot(index="x", columns="seed", values="value")
        # At some x nothing may depend on the seed (neighbours without labels): that value stands at every seed.
        once = table.notna().sum(axis=1) == 1
        table[once] = table[once].bfill(axis=1).ffill(axis=1)
        return Curve(table.index.to_numpy(float), table.columns.to_numpy(), table.to_numpy(), n)

    def places(self, metric: Metric, condition: Condition | None = None) -> NDArray[np.float64]:
        """All x that a metric was measured at, ascending, under one condition or any."""
        return np.sort(self._of(metric, condition)["x"].dropna().unique())

    def name(self, method: Method) -> str:
        """Name of a method in words."""
        paths = self.frame.loc[self.frame["method"] == method, "paths"]
        return name_of(method, None if paths.empty else paths.iloc[0])

    def sizes(self) -> str:
        """Say what the results rest on: users or clusters tested, what was swept, seeds, dataset."""
        frame = self.listed
        parts = []
        if scenes := self.facts.get("test_scenes", self.facts.get("scenes")):
            parts.append(count(scenes if isinstance(scenes, int) else len(scenes), "test scene"))
        if len(frame):
            counts = frame["n"][frame["n"] > 0]
            if len(counts):
                low, high = int(counts.min()), int(counts.max())
                parts.append(f"n = {low:,} a value" if low == high else f"n = {low:,} to {high:,} a value")
            labels = [metric.axis in (Axis.LABELS, Axis.LABEL_SHARE) for metric in frame["metric"]]
            swept = frame[labels].dropna(subset="x").sort_values("x")
            if len(swept):
                places = [place_of(metric, x) for metric, x in zip(swept["metric"], swept["x"], strict=True)]
                parts.append("labels " + ", ".join(dict.fromkeys(places)))
            parts.append(count(frame["seed"].nunique(), "seed"))
        parts.append(f"dataset {str(self.result['dataset_version'])[:12]}")
        return " · ".join(parts)

    @cached_property
    def _tables(self) -> dict[tuple[Metric, Condition], pd.DataFrame]:
        """Records by metric and condition."""
        groups = self.frame.groupby(["metric", "condition"], sort=False)
        return {cast("tuple[Metric, Condition]", key): group for key, group in groups}

    def _of(self, metric: Metric, condition: Condition | None) -> pd.DataFrame:
        """Records of a metric, under one condition or any."""
        if condition is None:
            return self.frame[self.frame["metric"] == metric]
        return self._tables.get((metric, condition), self.frame.iloc[:0])


@dataclass(frozen=True)
class Missing:
    """Why a report has no results of a task, and the command that makes some, if there is one."""

    why: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.why}: {self.remedy}" if self.remedy else self.why


def read_outcomes(run: Path) -> dict[str, Outcome]:
    """Read what `wavecity evaluate` left in a run folder; a task without its table of records counts as not run.

    Where a task was only run with other settings than the run's own, the latest of these results are read.

    Raises
    ------
    InputError
        Records in the form of another version.

    Examples
    --------
    >>> outcome = read_outcomes(Path("runs/quickstart"))["localization"]
    >>> curve = outcome.curve(Metric.LOCATION_ERROR, Condition(), Method.PHYSC_MLP)  # x labels, values in m by seed
    """
    outcomes: dict[str, Outcome] = {}
    for task in TASKS:
        path = next((path for path in _result_files(run, task) if path.with_suffix(".parquet").is_file()), None)
        result = None if path is None else read_json(path)
        if path is None or result is None:
            continue
        frame = frame_of(read_records(path.with_suffix(".parquet"), task))
        arrays: Arrays = {}
        if path.with_suffix(".npz").is_file():
            with np.load(path.with_suffix(".npz")) as stored:
                arrays = {name: stored[name] for name in stored.files}
        outcomes[task] = Outcome(task, dict(result), frame, arrays)
    return outcomes


def _result_files(run: Path, task: str) -> list[Path]:
    """Results of a task: first those with the run's own settings, then the others, the latest before."""
    own = run / "results" / f"{task}.json"
    others = [path for path in own.parent.glob(f"{task}-*.json") if re.fullmatch(f"{task}-[0-9a-f]{{8}}", path.stem)]
    others.sort(key=lambda path: (-path.stat().st_mtime_ns, path.name))
    return [own] * own.is_file() + others


def missing_tasks(
    run: Path, summary: Summary, tasks: Iterable[str], outcomes: Mapping[str, Outcome]
) -> dict[str, Missing]:
    """Tasks that a report has no results for, each with the reason.

    `summary` is the run's `pretrain.json`; `outcomes` that are not of this run's checkpoint are missing too.
    """
    missing = {}
    for task in tasks:
        note = read_json(run / "results" / f"{task}.json") or {}
        if task in outcomes:
            if why := not_of_this_run(outcomes[task].result, summary):
                missing[task] = Missing(f"left out: {why}", command(task))
        elif note.get("not_possible") and not not_of_this_run(note, summary):
            missing[task] = Missing(f"not possible: {note['not_possible'].removeprefix(f'{task} is not possible: ')}")
        else:
            missing[task] = Missing("not run", command(task))
    return missing


def not_of_this_run(result: Summary, summary: Summary) -> str:
    """Say that a result is of another checkpoint than the one of a run's `pretrain.json`, if so."""
    if result["checkpoint"] != summary["fingerprint"]:
        return f"its results are of another training ({result['checkpoint'][:12]}, not {summary['fingerprint'][:12]})"
    # Results and runs of before the hashes were kept have none.
    weights, own = result.get("weights_sha256"), summary.get("weights_sha256")
    if weights and own and weights != own:
        return f"its results are of other weights of this training ({weights[:12]}, not {own[:12]})"
    return ""


def command(task: str) -> str:
    """The command that runs a task."""
    return f"wavecity evaluate RUN --task {task} --data STORE"
