"""The report of a run: one HTML file that needs nothing else, honest about its size and about the paper's claims."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2
import numpy as np
import torch

from wavecity.dataset import InputError
from wavecity.dataset.files import atomic_path, read_json
from wavecity.dataset.publish import versions
from wavecity.model.data.users import SPLITS, SceneTable, WirelessData, collate, load_data
from wavecity.model.figures.parts import rebuild
from wavecity.model.figures.pictures import draw_scene, draw_total_loss, few_points, read_curves
from wavecity.model.report.equivariance import Section, section_of
from wavecity.model.report.papers import Paper, paper_of
from wavecity.model.report.summary import first_screen, glossary_of, small_pretraining
from wavecity.model.results import words
from wavecity.model.results.claims import Judged, judge
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Missing, Outcome, Summary, missing_tasks, read_outcomes
from wavecity.model.results.records import Condition
from wavecity.model.results.rows import Row

SCENES_SHOWN = 6


def write_report(run: Path, store: str | None = None, data: WirelessData | None = None) -> Path:
    """Write `report.html` from a run's pretraining and whatever results it has.

    Parameters
    ----------
    run : Path
        Folder of a pretraining.
    store : str, optional
        The dataset it was pretrained on, if it lies elsewhere now; scenes are drawn from it. Those of tasks that were
        evaluated on another dataset are drawn from that one, if it still lies where it was.
    data : WirelessData, optional
        Instead of opening `store`.

    Raises
    ------
    InputError
        The run has no finished pretraining, its dataset is gone, or its results are in the form of another version.
    """
    summary = read_json(run / "pretrain.json")
    if summary is None:
        raise InputError(f"{run}: no pretrain.json, so no finished pretraining; run `wavecity pretrain` first")
    data = data or load_data(store_of(run, store, summary))
    paper = paper_of(summary)
    specs = paper.specs
    found = {task: outcome for task, outcome in read_outcomes(run).items() if task in specs}
    missing = missing_tasks(run, summary, specs, found)
    outcomes = {task: outcome for task, outcome in found.items() if task not in missing}
    tables = _Tables(data)
    small = small_pretraining(summary)
    judged = [judge(claim, outcomes, missing, small) for claim in paper.claims]
    sections = [section_of(specs[task], outcomes[task]) for task in outcomes if specs[task].own_section]
    physics: Section | None = sections[0] if sections else None
    curves = read_curves(run / "logs")
    cities, size = _size(summary, data, outcomes, paper)
    scenes = _scenes(data)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    for name in ("axis_of", "condition_of", "name_of", "place_of", "test_set_of", "value_of", "verdict_of"):
        environment.globals[name] = getattr(words, name)
    environment.globals.update(compared=_compared, ranked=_ranked)
    template = environment.from_string(
        resources.files("wavecity.model.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    )
    content = {
        "first": first_screen(
            summary, cities, outcomes, missing, [*judged, *(physics.judged if physics else ())], paper
        ),
        "other_data": _other_data(summary, data),
        "words": paper.words,
        "size": {"rows": size},
        "rule": paper.rule,
        "judged": judged,
        "plain": paper.standings(outcomes),
        "figures": [rebuild(figure, outcomes, tables.of, missing) for figure in paper.figures],
        "physics": physics,
        "ran": [_ran(task, spec.title, outcomes.get(task), summary, missing.get(task)) for task, spec in specs.items()],
        "tasks": [_task(outcome, specs[task].title) for task, outcome in outcomes.items()],
        "scenes": scenes,
        "loss": draw_total_loss(curves) if curves["train"] else None,
        "few_points": few_points(curves),
        "losses": paper.losses(curves) if curves["train"] else None,
        "not_shown": _not_shown(summary, outcomes, judged, paper),
        "provenance": _provenance(summary, data, outcomes),
        "attribution": data.attributes.get("attribution", "© OpenStreetMap contributors, ODbL"),
        "licence": data.attributes.get("licence", "ODbL-1.0"),
    }
    html = template.render(content, glossary=glossary_of(template.render(content, glossary=[])))
    path = run / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def store_of(run: Path, store: str | None, summary: Summary) -> str:
    """Where the dataset of the pretraining lies, in the version that was trained on if the store still has it."""
    # `wavecity run` keeps both in one folder, which may have been moved.
    place = store or (str(run / "store") if (run / "store").exists() else str(summary.get("dataset") or ""))
    if not place:
        raise InputError(f"{run}: pretrain.json names no dataset; name that of the pretraining with --data")
    trained_on = [version for version in versions(place) if version.fingerprint == summary["dataset_version"]]
    return str(trained_on[-1].data) if trained_on else place


def _other_data(summary: Summary, data: WirelessData) -> str:
    """Say that scenes and sizes are not those of the pretraining, if so."""
    if data.version == summary["dataset_version"]:
        return ""
    return (
        f"Scenes and their numbers here are those of dataset version {data.version[:12]}; the model was pretrained on "
        f"{summary['dataset_version'][:12]}, which is not at hand."
    )


class _Tables:
    """Scene tables of the datasets that the tasks were evaluated on, by version."""

    def __init__(self, data: WirelessData) -> None:
        self.known: dict[str, SceneTable | None] = {data.version: data.scenes}

    def of(self, outcome: Outcome) -> SceneTable | None:
        """Scenes of a task's dataset; None if it is gone or has been published anew since."""
        version = str(outcome.result["dataset_version"])
        if version not in self.known:
            self.known[version] = None
            if store := outcome.result.get("dataset"):
                try:
                    other = load_data(str(store), splits=("test",))
                except InputError:
                    return None
                self.known[version] = other.scenes if other.version == version else None
        return self.known[version]


def _size(
    summary: Summary, data: WirelessData, outcomes: Mapping[str, Outcome], paper: Paper
) -> tuple[str, list[tuple[str, str, str]]]:
    """Cities of the dataset, and what this run had compared with the paper."""
    scenes = {split: len(np.unique(data.splits[split].scene_index)) for split in SPLITS}
    users = {split: len(data.splits[split]) for split in SPLITS}
    evaluation = sum(outcome.result["seconds"] for outcome in outcomes.values())
    cities = sorted({city for city in data.scenes.cities if city})
    heads = max((outcome.frame["seed"].nunique() for outcome in outcomes.values()), default=0)
    rows = [
        ("scenes (train / validation / test)", " / ".join(str(scenes[split]) for split in SPLITS),
         paper.sizes["scenes"]),
        ("users with a path (train / validation / test)", " / ".join(f"{users[split]:,}" for split in SPLITS),
         paper.sizes["users"]),
        ("model", paper.model(summary), paper.sizes["model"]),
        ("pretraining", f"{summary['epochs']} epochs, {summary['steps']:,} steps, {summary['samples']:,} samples seen",
         paper.sizes["pretraining"]),
        ("time", f"pretraining {_minutes(summary['seconds'])} ({summary['samples_per_second']:.0f} samples/s on "
         f"{summary['device']}), evaluation {_minutes(evaluation)}", paper.sizes["time"]),
        ("seeds", f"1 of pretraining (seed {summary['seed']}), " + (f"up to {heads} of a task's heads" if heads else
         "no task run"), "not stated"),
    ]  # fmt: skip
    return ", ".join(cities[:8]) + (" and others" if len(cities) > 8 else ""), rows


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _scenes(data: WirelessData) -> list[dict[str, object]]:
    """Draw a few scenes: the held-out ones first, then from the other splits."""
    quota = {"test": 3, "validation": 1, "train": SCENES_SHOWN}
    picked: list[tuple[str, int]] = []
    for split, limit in quota.items():
        rows = [int(row) for row in np.unique(data.splits[split].scene_index)]
        picked += [(split, row) for row in rows[: min(limit, SCENES_SHOWN - len(picked))]]
    groups = []
    for split, row in picked:
        samples = data.splits[split]
        index = np.flatnonzero(np.asarray(samples.scene_index) == row)
        groups.append(collate(samples.__getitems__([int(number) for number in index])))
    gains = torch.cat([group.path_gain for group in groups])
    # Percentiles: one deep fade must not take the whole colour scale.
    low, high = (float(np.nanpercentile(gains.numpy(), share)) for share in (5, 100))
    drawn = []
    for (split, row), users in zip(picked, groups, strict=True):
        image = draw_scene(data.scenes, row, users, split, (low, max(high, low + 1)))
        drawn.append({"image": image, "name": data.scenes.names[row], "users": len(users), "split": split})
    return drawn


def _ran(
    task: str, title: str, outcome: Outcome | None, summary: Summary, missing: Missing | None
) -> dict[str, object]:
    """Say which dataset a task ran on, how long, with which seeds; or why it has no results, and how to run it."""
    if outcome is None:
        return {"title": title, "task": task, "missing": missing}
    result = outcome.result
    version = str(result["dataset_version"])
    name = Path(str(result.get("dataset", ""))).name
    same = "that of pretraining" if version == summary["dataset_version"] else "another than that of pretraining"
    here, trained = (str(part.get("dataset_sha256") or "") for part in (result, summary))
    if version == summary["dataset_version"] and here and trained and here != trained:
        same = f"that of pretraining, but with other bytes ({here[:12]}, not {trained[:12]})"
    return {
        "title": title,
        "task": task,
        "dataset": f"{name} {version[:12]}, {same}".strip(),
        "seeds": f"{outcome.result['seed']} · {words.count(outcome.frame['seed'].nunique(), 'seed')} of heads",
        "time": _minutes(outcome.result["seconds"]),
        "changed": result.get("changed", []),
        "missing": None,
    }


def _task(outcome: Outcome, title: str) -> dict[str, object]:
    """Tables of all quantities: those without labels in one, the others one a quantity and condition."""
    facts = outcome.facts
    note = outcome.sizes()
    if leak := facts.get("mask_leak_check"):
        note += (
            f". Mask leak check: location error {leak['true_link_m']:.1f} m with the scene masked along the true link, "
            f"{leak['decoy_link_m']:.1f} m along a decoy's (a model that reads the location off the mask would differ)"
        )
    if changed := outcome.result.get("changed"):
        note += f". With settings other than the run's own: {', '.join(changed)}"
    groups: dict[tuple[Metric, Condition], list[Row]] = {}
    for row in outcome.rows:
        groups.setdefault((row.metric, row.condition), []).append(row)
    plain = [rows[0] for rows in groups.values() if math.isnan(rows[0].x)]
    swept = {key: rows for key, rows in groups.items() if not math.isnan(rows[0].x)}
    return {
        "task": outcome.task,
        "title": title,
        "note": note + ".",
        "plain": sorted(plain, key=lambda row: row.metric.label),
        "swept": [table for key, table in swept.items() if not _is_folded(*key)],
        "folded": [table for key, table in swept.items() if _is_folded(*key)],
        "folded_as": "by size and number of users" if outcome.task == "equivariance" else "",
        "facts": json.dumps(facts, indent=1, ensure_ascii=False),
    }


def _is_folded(metric: Metric, condition: Condition) -> bool:
    """Whether there are many tables like it, or it goes with a better known one."""
    return metric.table == "folded" or condition.scene is not None or condition.hidden_layers is not None


def _ranked(row: Row) -> list[Method]:
    """Methods of a metric without labels: ours first, then the others, the better ones before."""

    def place(name: Method) -> tuple[bool, float]:
        value = row.values[name]
        return not name.ours, math.inf if math.isnan(value) else -row.metric.sign * value

    return sorted(row.values, key=place)


def _compared(rows: list[Row]) -> list[Method]:
    """Methods of a metric against the labels, or what else is swept: ours first."""
    return sorted(dict.fromkeys(name for row in rows for name in row.values), key=lambda name: not name.ours)


def _not_shown(summary: Summary, outcomes: Mapping[str, Outcome], judged: list[Judged], paper: Paper) -> list[str]:
    counts = Counter(item.verdict for item in judged)
    lines = [
        f"Of {len(judged)} claims and questions: " + ", ".join(f"{number} {name}" for name, number in counts.items()) + ".",
        f"How the paper's own numbers would come out: {paper.words['numbers']}. A verdict here is about this run.",
        "How much another pretraining, or other test scenes, would change: there is one pretraining, and the test scenes are "
        "few. The spread shown is over seeds of the heads only.",
    ]  # fmt: skip
    rows = [row for outcome in outcomes.values() for row in outcome.rows]
    behind = [row for row in rows if row.compare().place == "behind"]
    if behind:
        quantities = sorted({row.metric.label for row in behind})
        lines.append(
            f"An advantage in {len(behind)} of {len(rows)} comparisons, where another method does better: "
            + "; ".join(quantities) + "."
        )  # fmt: skip
    if any(row.metric is Metric.CSI_NMSE for row in rows):
        lines.append(
            "That masked CSI is learned, unless its error is well below 0 dB (what zeros give) and below OMP and LMMSE."
        )
    if paper.small(summary):
        lines.append("The paper's model size: this is a small profile of the same architecture.")
    lacking = [task for task in paper.specs if task not in outcomes]
    if lacking:
        lines.append("Not evaluated in this run: " + ", ".join(lacking) + ".")
    return lines


def _provenance(summary: Summary, data: WirelessData, outcomes: Mapping[str, Outcome]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    rows = [
        ("dataset version", data.version),
        ("pretraining fingerprint", summary["fingerprint"]),
        ("trained with", versions),
        ("carrier", f"{float(data.attributes.get('frequency_hz', 28.5e9)) / 1e9:g} GHz"),
    ]
    if start := summary.get("init_from"):
        rows.insert(2, ("started from the weights of", f"{start['path']}, pretraining {start['fingerprint']}"))
    return rows + [(f"results of {task}", outcome.result["fingerprint"]) for task, outcome in outcomes.items()]
