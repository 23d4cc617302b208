"""The report of a run: one HTML file that needs nothing else, honest about its size."""

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from dataset import InputError
from dataset.files import atomic_path, read_json
from model.data import SPLITS, WirelessData, collate, load_data
from model.figures import (
    draw_attention,
    draw_locations,
    draw_losses,
    draw_occupancy,
    draw_scene,
    draw_spectra,
    draw_spectrum_in_scene,
    read_curves,
)
from model.results import is_ours

TITLES = {
    "reconstruction": "Reconstruction of what is masked",
    "localization": "Localisation probe",
    "beams": "Beam prediction probe",
}
SCENES_SHOWN = 6


def write_report(run: Path, store: str, data: WirelessData | None = None) -> Path:
    """Write `report.html` from a run's pretraining and whatever results it has.

    Parameters
    ----------
    run : Path
        Folder of a pretraining.
    store : str
        The dataset it was made from; scenes are drawn from it.
    data : WirelessData, optional
        Instead of opening `store`.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        The run has no finished pretraining.
    """
    summary = read_json(run / "pretrain.json")
    if summary is None:
        msg = f"{run}: no pretrain.json, so no finished pretraining; run `wavecity pretrain` first"
        raise InputError(msg)
    data = data or load_data(store)
    results: dict[str, Any] = {}
    for task in TITLES:
        if result := read_json(run / "results" / f"{task}.json"):
            results[task] = result
    curves = read_curves(run / "logs")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("model").joinpath("report.html.j2").read_text(encoding="utf-8"))
    html = template.render(
        size=_size(summary, data, results),
        scenes=_scenes(data),
        tasks=[_task(task, result) for task, result in results.items()],
        figures=_figures(run, data),
        losses=draw_losses(curves) if curves["train"] else None,
        not_shown=_not_shown(summary, results),
        provenance=_provenance(summary, data, results),
        attribution=data.attributes.get("attribution", "© OpenStreetMap contributors, ODbL"),
        licence=data.attributes.get("licence", "ODbL-1.0"),
    )
    path = run / "report.html"
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _size(summary: dict[str, Any], data: WirelessData, results: dict[str, Any]) -> dict[str, Any]:
    model = summary["settings"]["model"]
    scenes = {split: len(np.unique(data.splits[split].scene_index)) for split in SPLITS}
    users = {split: len(data.splits[split]) for split in SPLITS}
    evaluation = sum(result["seconds"] for result in results.values())
    cities = sorted({city for city in data.scenes.cities if city})
    shape = (
        f"d {model['width']}, {model['encoder_layers']} + {model['decoder_layers']} layers, {summary['tokens']} tokens"
    )
    rows = [
        ("scenes (train / validation / test)", " / ".join(str(scenes[split]) for split in SPLITS), "about 10,000"),
        ("users with a path (train / validation / test)", " / ".join(f"{users[split]:,}" for split in SPLITS), "3.5 M"),
        ("model", f"{summary['parameters'] / 1e6:.2f} M parameters: {shape}", "2.4 M: d 128, 8 + 2 layers, 468 tokens"),
        ("pretraining", f"{summary['epochs']} epochs, {summary['steps']:,} steps, {summary['samples']:,} samples seen",
         "50 epochs, about 175 M samples seen"),
        ("time", f"pretraining {_minutes(summary['seconds'])} ({summary['samples_per_second']:.0f} samples/s on "
         f"{summary['device']}), evaluation {_minutes(evaluation)}", "4 × A100, time not stated"),
        ("seeds", f"1 (seed {summary['seed']})", "not stated"),
    ]  # fmt: skip
    return {"cities": ", ".join(cities[:8]) + (" and others" if len(cities) > 8 else ""), "rows": rows}


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


def _scenes(data: WirelessData) -> list[dict[str, Any]]:
    """Draw a few scenes: the held-out ones first, then from the other splits."""
    quota = {"test": 3, "validation": 1, "train": SCENES_SHOWN}
    picked: list[tuple[str, int]] = []
    for split, count in quota.items():
        rows = [int(row) for row in np.unique(data.splits[split].scene_index)]
        picked += [(split, row) for row in rows[: min(count, SCENES_SHOWN - len(picked))]]
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


def _figures(run: Path, data: WirelessData) -> list[dict[str, str]]:
    """Figures 3, 4, 9, 10 and 11 of the paper from this run's reconstructions, those that there is something for."""
    path = run / "results" / "reconstruction.npz"
    if not path.is_file():
        return []
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    # Results of an older version have no attention; `wavecity evaluate` makes them anew.
    if "attention" not in arrays or not len(arrays["spectrum_true"]):
        return []
    condition = str(arrays["spectrum_condition"])
    seen = "the blue dot is the user, the red triangle the base station"
    figures = [
        ("Attention of [PHYSC] to the scene", "Figure 3", draw_attention(arrays, data.scenes),
         f"Nothing masked, mean over the heads of each encoder layer; {seen}."),
        ("Spatial spectra in their scenes", "Figure 4", draw_spectrum_in_scene(arrays, data.scenes),
         f"True spectra over the direction cosines of departure, dB below the strongest bin from black to white; {seen}."),
        ("Spatial spectra of held-out users", "Figure 10", draw_spectra(arrays),
         f"{condition}; scene seen, location hidden. Each spectrum is scaled to its own strongest bin; the ring marks the "
         "true strongest one."),
        ("Masked occupancy of held-out scenes", "Figure 11", draw_occupancy(arrays, data.scenes),
         f"All of the CSI and the location seen, patches nearest to the link masked; grey was not masked; {seen}."),
    ]  # fmt: skip
    if len(arrays["location_model"]):
        caption = f"{condition}; scene seen, location hidden. A grey line joins a user's true and predicted position."
        locations = draw_locations(arrays, data.scenes)
        figures.insert(2, ("Locations of held-out users", "Figure 9", locations, caption))
    return [
        {"title": title, "number": number, "image": image, "caption": text} for title, number, image, text in figures
    ]


def _task(task: str, result: dict[str, Any]) -> dict[str, Any]:
    facts = result["facts"]
    note = f"{facts['test_users']:,} users of {facts['test_scenes']} test scenes, seed {result['seed']}"
    if "labels" in facts:
        note += f", {facts['labels']:,} labels"
    if leak := facts.get("mask_leak_check"):
        note += (
            f". Mask leak check: location error {leak['true_link_m']:.1f} m with the scene masked along the true link, "
            f"{leak['decoy_link_m']:.1f} m along a decoy's (a model that reads the location off the mask would differ)"
        )
    rows = []
    for row in result["rows"]:
        sign = 1 if row["better"] == "higher" else -1
        finite = [sign * value for value in row["values"].values() if value is not None and not math.isnan(value)]
        entries = [
            {
                "name": name,
                "text": _number(value, row["unit"]),
                "ours": is_ours(name),
                "rank": math.inf if value is None or math.isnan(value) else -sign * value,
                "best": bool(finite) and value is not None and sign * value == max(finite),
            }
            for name, value in row["values"].items()
        ]
        # Ours first, then the others, the better ones before.
        entries.sort(key=lambda entry: (not entry["ours"], entry["rank"]))
        rows.append({**row, "entries": entries})
    rows.sort(key=lambda row: row["quantity"])
    return {"title": TITLES[task], "note": note + ".", "rows": rows}


def _number(value: float | None, unit: str) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.1f}" if unit else f"{value:.2f}"


def _not_shown(summary: dict[str, Any], results: dict[str, Any]) -> list[str]:
    lines = [
        "The paper's claims themselves: its numbers come from hundreds of times more scenes, users and steps. Nothing "
        "here confirms or contradicts them.",
        "Any spread: there is one seed, and the test scenes are few. Differences of a few points, decibels or metres "
        "may be chance.",
    ]
    rows = [row for result in results.values() for row in result["rows"]]
    behind = [row for row in rows if row["verdict"].startswith("behind")]
    if behind:
        quantities = sorted({row["quantity"].lower() for row in behind})
        lines.append(
            f"An advantage in {len(behind)} of {len(rows)} comparisons, where a simple predictor does better: "
            + "; ".join(quantities) + "."
        )  # fmt: skip
    if any(row["quantity"].startswith("Masked CSI") for row in rows):
        lines.append(
            "That masked CSI is learned, unless its error is well below 0 dB (what zeros give) and below OMP and LMMSE."
        )
    if summary["settings"]["model"]["width"] < 128:
        lines.append("The paper's model size: this is a small profile of the same architecture.")
    lines.append("Sum-rates, multi-user and single-user MIMO precoding, cross-scene and few-shot localisation.")
    missing = [TITLES[task].lower() for task in TITLES if task not in results]
    if missing:
        lines.append("Not evaluated in this run: " + ", ".join(missing) + ".")
    return lines


def _provenance(summary: dict[str, Any], data: WirelessData, results: dict[str, Any]) -> list[tuple[str, str]]:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    rows = [
        ("dataset version", data.version),
        ("pretraining fingerprint", summary["fingerprint"]),
        ("trained with", versions),
        ("carrier", f"{float(data.attributes.get('frequency_hz', 28.5e9)) / 1e9:g} GHz"),
    ]
    return rows + [(f"results of {task}", result["fingerprint"]) for task, result in results.items()]
