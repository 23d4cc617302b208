"""Results of a run as the report reads them: every task's table of records, facts and arrays."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wavecity.dataset.files import read_json

TITLES = {
    "reconstruction": "Reconstruction of what is masked",
    "localization": "Localisation in one scene",
    "cross-localization": "Localisation in unseen scenes",
    "mu-mimo": "Beams and sum-rate of several users",
    "su-mimo": "Beam pairs and rate of one user with several antennas",
    "latency": "Time of one inference",
    "equivariance": "Wave equivariance",
}
TEMPORAL_TITLES = {"prediction": "Channel prediction under mobility", "equivariance": "Wave equivariance"}


@dataclass(frozen=True)
class Curve:
    """One method's values of a quantity under a condition.

    Attributes
    ----------
    x : float (X,)
        What is swept, ascending; empty for a method that takes no labels.
    seeds : int (K,)
    values : float (X, K), or (1, K) for a method that takes no labels
        Not-a-number where it was not measured.
    n : int
        Users or clusters that a value is over.
    unit : str
    better : str
        `lower` or `higher`.
    """

    x: NDArray[np.float64]
    seeds: NDArray[np.int64]
    values: NDArray[np.float64]
    n: int
    unit: str
    better: str

    @property
    def swept(self) -> bool:
        """Whether the method takes labels."""
        return len(self.x) > 0

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
    """What an evaluation of one task left.

    Attributes
    ----------
    task : str
    result : dict
        `facts`, `rows` and provenance.
    frame : pandas.DataFrame
        Records, columns of `wavecity.model.results.table.COLUMNS`.
    arrays : dict
    """

    task: str
    result: dict[str, Any]
    frame: pd.DataFrame
    arrays: dict[str, NDArray[Any]]

    @property
    def facts(self) -> dict[str, Any]:
        """Sample sizes, checks, chosen settings."""
        return dict(self.result["facts"])

    @property
    def swept(self) -> dict[str, str]:
        """What x is for quantities that are not swept over labels."""
        return dict(self.facts.get("swept", {}))

    def conditions(self, quantity: str) -> list[str]:
        """Conditions under which a quantity was measured, in the order of the table."""
        return [str(name) for name in self.frame.loc[self.frame["quantity"] == quantity, "condition"].unique()]

    def methods(self, quantity: str, condition: str) -> list[str]:
        """Methods that a quantity was measured with, in the order of the table."""
        frame = self.frame
        here = frame[(frame["quantity"] == quantity) & (frame["condition"] == condition)]
        return [str(name) for name in here["method"].unique()]

    def curve(self, quantity: str, condition: str, method: str) -> Curve | None:
        """Read one method's values, None if there is none."""
        frame = self.frame
        here = frame[
            (frame["quantity"] == quantity)
            & (frame["condition"] == condition)
            & (frame["method"] == method)
            & frame["value"].notna()
        ]
        if here.empty:
            return None
        swept = here[here["x"].notna()]
        x = np.sort(swept["x"].unique()).astype(np.float64)
        here = swept if len(x) else here
        seeds = np.sort(here["seed"].unique()).astype(np.int64)
        values = np.full((max(len(x), 1), len(seeds)), np.nan)
        rows = np.searchsorted(x, here["x"].to_numpy()) if len(x) else np.zeros(len(here), int)
        values[rows, np.searchsorted(seeds, here["seed"].to_numpy())] = here["value"].to_numpy()
        # At some x nothing may depend on the seed (neighbours without labels): that value stands at every seed.
        once = np.isfinite(values).sum(1) == 1
        values[once] = np.nanmax(values[once], axis=1, keepdims=True) if once.any() else values[once]
        first = here.iloc[0]
        return Curve(x, seeds, values, int(here["n"].max()), str(first["unit"]), str(first["better"]))

    def points(self, quantity: str, condition: str | None = None) -> int:
        """How many x a quantity was measured at, under one condition or any."""
        here = self.frame[self.frame["quantity"] == quantity]
        if condition is not None:
            here = here[here["condition"] == condition]
        return int(here["x"].dropna().nunique())

    def sizes(self) -> str:
        """Say what the results rest on: users or clusters tested, what was swept, seeds, dataset."""
        frame = self.frame
        parts = []
        if scenes := self.facts.get("test_scenes", self.facts.get("scenes")):
            parts.append(count(scenes if isinstance(scenes, int) else len(scenes), "test scene"))
        if len(frame):
            counts = frame["n"][frame["n"] > 0]
            if len(counts):
                low, high = int(counts.min()), int(counts.max())
                parts.append(f"n = {low:,} a value" if low == high else f"n = {low:,} to {high:,} a value")
            swept = sorted(frame.loc[~frame["quantity"].isin(self.swept), "x"].dropna().unique())
            if swept:
                parts.append("labels " + ", ".join(in_words(value) for value in swept))
            parts.append(count(frame["seed"].nunique(), "seed"))
        parts.append(f"dataset {str(self.result['dataset_version'])[:12]}")
        return " · ".join(parts)


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
    """
    outcomes: dict[str, Outcome] = {}
    for task in TITLES | TEMPORAL_TITLES:
        path = next((path for path in _result_files(run, task) if path.with_suffix(".parquet").is_file()), None)
        result = None if path is None else read_json(path)
        if path is None or result is None:
            continue
        table = path.with_suffix(".parquet")
        arrays: dict[str, NDArray[Any]] = {}
        if path.with_suffix(".npz").is_file():
            with np.load(path.with_suffix(".npz")) as stored:
                arrays = {name: stored[name] for name in stored.files}
        outcomes[task] = Outcome(task, dict(result), pd.read_parquet(table), arrays)
    return outcomes


def _result_files(run: Path, task: str) -> list[Path]:
    """Results of a task: first those with the run's own settings, then the others, the latest before."""
    own = run / "results" / f"{task}.json"
    others = [path for path in own.parent.glob(f"{task}-*.json") if re.fullmatch(f"{task}-[0-9a-f]{{8}}", path.stem)]
    others.sort(key=lambda path: (-path.stat().st_mtime_ns, path.name))
    return [own] * own.is_file() + others


def missing_tasks(
    run: Path, summary: Mapping[str, Any], titles: Iterable[str], outcomes: Mapping[str, Outcome]
) -> dict[str, Missing]:
    """Tasks that a report has no results for, each with the reason.

    Parameters
    ----------
    run : Path
    summary : dict
        Its `pretrain.json`.
    titles : iterable of str
        Tasks that the report is about.
    outcomes : dict
        As `read_outcomes` gives them; those that are not of this run's checkpoint are missing too.
    """
    missing = {}
    for task in titles:
        note = read_json(run / "results" / f"{task}.json") or {}
        if task in outcomes:
            if why := not_of_this_run(outcomes[task].result, summary):
                missing[task] = Missing(f"left out: {why}", command(task))
        elif note.get("not_possible") and not not_of_this_run(note, summary):
            missing[task] = Missing(f"not possible: {note['not_possible'].removeprefix(f'{task} is not possible: ')}")
        else:
            missing[task] = Missing("not run", command(task))
    return missing


def not_of_this_run(result: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """Say that a result is of another checkpoint than the one of a run's `pretrain.json`, if so."""
    if result["checkpoint"] != summary["fingerprint"]:
        return f"its results are of another training ({result['checkpoint'][:12]}, not {summary['fingerprint'][:12]})"
    # Results and runs of before the hashes were kept have none.
    weights, own = result.get("weights_sha256"), summary.get("weights_sha256")
    if weights and own and weights != own:
        return f"its results are of other weights of this training ({weights[:12]}, not {own[:12]})"
    return ""


def in_words(x: float) -> str:
    """Write what is swept: a count of labels as it is, a share in per cent."""
    return f"{x:,.0f}" if x == 0 or x > 1 else f"{100 * x:g} %"


def count(number: int, noun: str) -> str:
    """Number and noun, in the plural where it is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def command(task: str) -> str:
    """The command that runs a task."""
    return f"wavecity evaluate RUN --task {task} --data STORE"
