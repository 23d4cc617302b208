"""What the command line prints of runs and of the results of their tasks."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from wavecity.dataset.files import read_json
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.flows.console import console
from wavecity.flows.store_tables import print_shortfalls
from wavecity.model.results.names import Axis, Metric
from wavecity.model.settings.tasks import TASKS

# What stands for a task at the end of a run; of other tasks it is the metric of their first record.
HEADLINES = {"mu-mimo": Metric.MU_RATE, "su-mimo": Metric.SU_RATE}


def rows_of_result(run: Path, task: str, table: str | None = None) -> list[Any]:
    """Rows of a task's table of records (`wavecity.model.results.rows.Row`)."""
    # pandas takes a second that the other tables need not wait for.
    from wavecity.model.results.records import read_records
    from wavecity.model.results.rows import frame_of, rows_of

    return rows_of(frame_of(read_records(run / (table or f"results/{task}.parquet"), task)))


def print_result(result: dict[str, Any], run: Path) -> None:
    """A task's rows: this model's best method and the best other one, with their spread over seeds."""
    from wavecity.model.results.words import condition_of, name_of, verdict_of

    table = Table("quantity", "condition", "at", "model", "best other", "verdict", title=result["task"])
    for row in rows_of_result(run, result["task"], result["table"]):
        best = []
        for ours in (True, False):
            name = row.best(ours)
            spread = row.spread.get(name)
            around = "" if spread is None else f" ± {spread:.2g}"
            best.append(
                "" if name is None else f"{row.values[name]:.4g}{around} {row.metric.unit} ({name_of(name, row.paths)})"
            )
        where = condition_of(row.metric, row.condition)
        table.add_row(row.metric.label, where, _at(row), *best, verdict_of(row.compare(), row.paths))
    console.print(table)
    if changed := result.get("changed"):
        console.print(f"with {'; '.join(changed)} (the run's own -> used here)", soft_wrap=True)
    place = run / result["table"]
    console.print(f"{result['seeds']} seed(s), {result['seconds']:.0f} s; every value: {place}", soft_wrap=True)


def print_run(run: Path) -> None:
    """Print what a run gave, in five lines: its size, its numbers, its report and store, and what to do next.

    Lines more say why a task was not possible, and what cities and scenes lack (`print_shortfalls`).
    """
    version = latest(run / "store")
    assert version is not None
    data = open_store(version.data, carrier="all", port="all")
    done = int((data["status"] == "done").sum())
    size = f"{done:,} scenes, {int(data['n_users'].sum()):,} users, dataset v{version.number}"
    found = [headline(run, task) for task in TASKS]
    numbers = [text for text in found if text]
    store = run / "store"
    lines = {
        "run": f"{run} ({size})",
        "results": "; ".join(numbers) + " (in brackets the best other method)" * bool(numbers) or "none",
        "report": str(run / "report.html"),
        "store": str(store),
        "next": f"open the report; wavecity explore {store}; wavecity export-model {run} --out encoder.onnx",
    }
    for name, text in lines.items():
        print(f"{name:7} {text}")
    for task in TASKS:
        if reason := (read_json(run / "results" / f"{task}.json") or {}).get("not_possible"):
            print(reason)
    print_shortfalls(version.folder)


def _at(row: Any) -> str:
    """Where in a sweep a row stands: `6 labels`, `5 % of the labels`, `shift, bins: 3`."""
    from wavecity.model.results.words import axis_of, place_of

    if math.isnan(row.x):
        return ""
    axis, place = row.metric.axis, place_of(row.metric, row.x)
    if axis is Axis.LABELS:
        return f"{place} labels"
    return f"{place} of the labels" if axis is Axis.LABEL_SHARE else f"{axis_of(row.metric)}: {place}"


def headline(run: Path, task: str) -> str:
    """A task's main metric where most labels were given: the model's best value, and the best other in brackets."""
    rows = rows_of_result(run, task) if (run / "results" / f"{task}.parquet").is_file() else []
    if not rows:
        return ""
    first = next((row for row in rows if row.metric is HEADLINES.get(task)), rows[0])
    row = [one for one in rows if (one.metric, one.condition) == (first.metric, first.condition)][-1]
    ours, other = row.best(True), row.best(False)
    rival = "" if other is None else f" ({row.values[other]:.3g})"
    return "" if ours is None else f"{row.metric.label} {row.values[ours]:.3g} {row.metric.unit}{rival}"
