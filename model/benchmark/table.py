"""Tables of results files, in Markdown: one for each task, an encoder a line."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wavecity.dataset import InputError
from wavecity.dataset.files import read_json, write_text
from wavecity.model.benchmark.protocol import TASKS
from wavecity.model.benchmark.run import FORM
from wavecity.model.data.json_types import Json
from wavecity.model.results.measures import plus_minus
from wavecity.model.results.names import Axis, Method, Metric
from wavecity.model.results.words import name_of, place_of

# What is shown of each task, in this order; encoders are sorted by the last column.
SHOWN = {
    "localization": ("Localisation in a scene", (Metric.LOCATION_ERROR,)),
    "cross-localization": ("Localisation in unseen scenes, no labels there", (Metric.CROSS_LOCATION_ERROR,)),
    "mu-mimo": ("Beams and sum-rate of several users", (Metric.BEAM_TOP5, Metric.MU_RATE)),
    "su-mimo": ("Beam pairs and rate of a user with several antennas", (Metric.BEAM_PAIR, Metric.SU_RATE)),
}
# Between these lines of a page the tables stand.
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def read_results(path: Path) -> Json:
    """A results file.

    Raises
    ------
    InputError
        It is not there, or is no results file of this version.
    """
    content = read_json(path)
    if not isinstance(content, dict) or content.get("form") != FORM:
        raise InputError(f"{path}: no results file of `wavecity benchmark run` of this version")
    return content


def tables(paths: Sequence[Path]) -> str:
    """Markdown of all results, which must be of one benchmark and one dataset, each of another encoder.

    Values are means over the seeds of the heads with their standard deviation.
    """
    results = [read_results(path) for path in paths]
    for part, key in (("benchmark", "sha256"), ("dataset", "channels_sha256")):
        for path, one in zip(paths, results, strict=True):
            if one[part][key] != results[0][part][key]:
                raise InputError(
                    f"{path} is of another {part} than {paths[0]} ({key} {one[part][key][:12]}, there "
                    f"{results[0][part][key][:12]}); a table has one of them only"
                )
    names = [one["encoder"]["name"] for one in results]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is the name of several encoders; run one of them with another --name")
    return tables_of(results)


def tables_of(results: Sequence[Json]) -> str:
    """As `tables`, of results that were read."""
    first = results[0]
    head = (
        f"Benchmark {first['benchmark']['name']} {first['benchmark']['version']} ({first['benchmark']['sha256'][:12]}), dataset "
        f"{first['dataset']['channels_sha256'][:12]}. {first['dataset']['attribution']}."
    )
    parts = [head, _encoders(results), *(_task(task, results) for task in TASKS)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_tables(page: Path, text: str) -> None:
    """Put tables into a page, between its two marks, in place of those of before.

    Raises
    ------
    InputError
        The page cannot be read or lacks the marks.
    """
    try:
        before = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{page}: cannot be read as UTF-8 text ({error})") from error
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: no lines {BEGIN} and {END}, between which the tables go")
    write_text(page, f"{head}{BEGIN}\n\n{text}\n{END}{tail}")


def _encoders(results: Sequence[Json]) -> str:
    lines = ["| encoder | given as | d | parameters |", "|---|---|---|---|"]
    for one in results:
        of = one["encoder"]
        size = "-" if of["parameters"] is None else f"{of['parameters']:,}"
        widths = sorted({task["width"] for task in one["tasks"].values()})
        lines.append(f"| {of['name']} | `{of['given_as']}` | {' or '.join(f'{d:,}' for d in widths)} | {size} |")
    return "\n".join(lines)


# Metric, and number or share of labels.
Column = tuple[Metric, float | None]


def _task(task: str, results: Sequence[Json]) -> str:
    """Table of a task; empty where nobody has run it."""
    title, metrics = SHOWN[task]
    run = [one for one in results if task in one["tasks"]]
    rows: dict[str, dict[Column, Json]] = {}
    for one in run:
        for figure in one["tasks"][task]["figures"]:
            method = Method(figure["method"])
            name = one["encoder"]["name"] if method is Method.ENCODER else f"*{name_of(method)}*"
            rows.setdefault(name, {})[Metric(figure["metric"]), figure["labels"]] = figure
    columns = [
        (metric, x)
        for metric in metrics
        for x in sorted({x for row in rows.values() for kind, x in row if kind is metric and x is not None})
    ]
    if not columns:
        return ""
    last = columns[-1]

    def place(name: str) -> tuple[bool, float]:
        figure = _at(rows[name], last)
        return name.startswith("*"), math.inf if figure is None else -last[0].sign * figure["mean"]

    heads = [f"{metric.label} ({metric.unit}){_labels(metric, x)}" for metric, x in columns]
    lines = [f"| {title} | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in sorted(rows, key=place):
        cells = [_cell(_at(rows[name], column), column[0]) for column in columns]
        if set(cells) != {"-"}:
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    counted = {
        metric.counted: rows[name][metric, x]["n"] for name in rows for metric, x in rows[name] if metric in metrics
    }
    return "\n".join(lines) + "\n\nTested: " + ", ".join(f"{n:,} {what}" for what, n in counted.items()) + "."


def _labels(metric: Metric, x: float | None) -> str:
    of = " of the" if metric.axis is Axis.LABEL_SHARE else ""
    return f", {place_of(metric, x)}{of} labels" if x else ""


def _at(row: dict[Column, Json], column: Column) -> Json | None:
    """Figure of a column; of a method that takes no labels the one that it has."""
    return row.get(column, row.get((column[0], None)))


def _cell(figure: Json | None, metric: Metric) -> str:
    if figure is None:
        return "-"
    return plus_minus(np.array(list(figure["values"].values())), metric.unit)
