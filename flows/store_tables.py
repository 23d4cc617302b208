"""What the command line prints of stores: validation, versions, scenes and where they come from."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from wavecity.dataset.bands import at_first_band, dim_of, radio_text
from wavecity.dataset.base_stations import cells_text, stations_text
from wavecity.dataset.card.facts import trajectory_text
from wavecity.dataset.card.maps import state_lines
from wavecity.dataset.card.source import add_up, percent
from wavecity.dataset.checks.findings import Validation
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, folder_size, read_json, write_text
from wavecity.dataset.fingerprints import read_sealed
from wavecity.dataset.publish import Version, versions
from wavecity.dataset.radio_maps import radio_map_text
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of
from wavecity.flows.console import console
from wavecity.geo.errors import InputError

# What the statistics of a store are, and their units.
STATISTICS = {
    "n_samples": ("train users with a path", ""),
    "csi_rms": ("RMS of |csi| (train)", ""),
    "csi_rms_db_mean": ("RMS of a user, mean", " dB"),
    "csi_rms_db_std": ("RMS of a user, deviation", " dB"),
    "occupied_share": ("share of patches built", ""),
    "height_scale": ("scale of heights", " m"),
    "position_scale": ("scale of positions", " m"),
}


def print_validation(validation: Validation) -> None:
    """Checks with how often they ran and what they found."""
    found = Counter(finding.check for finding in validation.findings)
    table = Table("check", "ran", "findings")
    for check, count in validation.checks.items():
        table.add_row(check, str(count), str(found[check]))
    console.print(table)
    for text in validation.left_out:
        console.print(f"not checked: {text}", soft_wrap=True)
    for finding in validation.findings:
        console.print(f"{finding.check}: {finding.where}: {finding.message}", soft_wrap=True)
    console.print("valid" if validation.ok else validation.found)


def print_store(store: str) -> None:
    """Sizes, scenes by split and outcome, height provenance, statistics, lineage, versions."""
    data = open_store(store, carrier="all", port="all")
    attributes = attributes_of(data.attrs)
    folder = resolve(store).parent
    lineage = read_json(folder / "lineage.json") or {}
    published = read_sealed(folder / "published.json") or {}
    when = f", published {published['published']}" if published else ", not published"
    table = Table("what", "value", show_header=False)
    table.add_row("version", f"{folder.name}, {folder_size(folder) / 1e6:.1f} MB{when}")
    others = [_with_date(version) for version in versions(store) if version.folder.name != folder.name]
    table.add_row("other versions", ", ".join(others) or "none")
    table.add_row("dimensions", ", ".join(f"{name} {length}" for name, length in data.sizes.items()))
    table.add_row("scenes by split", _counts(data["split"].values))
    table.add_row("scenes by outcome", _counts(data["status"].values))
    table.add_row("users", f"{int(data['n_users'].sum())}, {int(data['los'].sum())} with line of sight")
    if dim := dim_of(attributes):
        table.add_row(f"{dim}s", f"{radio_text(attributes)}; what follows is at the first")
    table.add_row("heights from", _height_sources(folder))
    for name, value in attributes["statistics"].items():
        label, unit = STATISTICS.get(name, (name.replace("_", " "), ""))
        table.add_row(label, f"{value:.4g}{unit}" if isinstance(value, float) else f"{value:,}{unit}")
    if "trajectory" in data.attrs:
        table.add_row("trajectories", trajectory_text(attributes))
    if "radio_map" in data.attrs:
        metrics = [str(name) for name in open_store(store, "radio_map", carrier="all", port="all").data_vars]
        table.add_row("radio maps", radio_map_text(attributes["radio_map"], metrics))
    if "base_stations" in data.attrs:
        cells = at_first_band(open_store(store, "bs", carrier="all", port="all"))
        table.add_row("base stations", stations_text(attributes["base_stations"]))
        count = attributes["base_stations"]["count"]
        table.add_row("cells", cells_text(cells["serving"].values, cells["sinr"].values, count))
    cities = lineage.get("cities", [])
    if "imported" in data.attrs:
        table.add_row("imported", attributes["conventions"]["imported"])
    else:
        table.add_row("cities", f"{sum(city['scenes'] > 0 for city in cities)} of {len(cities)}")
        table.add_row("maps", _maps(lineage.get("maps", {})))
        table.add_row(
            "state of the maps", "\n".join(state_lines(lineage.get("maps", {}))) or "nothing lost or repaired"
        )
    table.add_row("scenes from", "\n".join(f"{count} {origin}" for origin, count in _origins(folder)))
    table.add_row("made with", ", ".join(f"{name} {value}" for name, value in lineage.get("versions", {}).items()))
    cards = [name for name in ("card.html", "card.md", "croissant.json") if (folder / name).exists()]
    table.add_row("card", ", ".join(str(folder / name) for name in cards) or "none")
    table.add_row("licence", f"{data.attrs['licence']}. {data.attrs['attribution']}")
    console.print(table)
    print_shortfalls(folder)
    for entry in read_json(folder / "ledger.json") or []:
        console.print(f"{entry['scene_id']}: {entry['stage']}: {entry['reason']}", soft_wrap=True)


def print_shortfalls(folder: StorePath) -> None:
    """A line for every city that gave fewer scenes than asked and why, and for scenes where hardly anybody is served."""
    lineage = read_json(folder / "lineage.json") or {}
    untried: list[str] = []
    lost = Counter(entry["city"] for entry in read_json(folder / "ledger.json") or [] if "city" in entry)
    for city in lineage.get("cities", []):
        done = city["scenes"] - lost[city["name"]]
        if city["problem"].startswith("not tried"):
            untried.append(city["name"])
        elif done < city["wanted"]:
            reasons = [f"{reason} {n}" for reason, n in city["rejected"].items() if reason != "not needed"]
            reasons += [f"quarantined {lost[city['name']]}"] if lost[city["name"]] else []
            problem = city["problem"] or ", ".join(reasons) or "the map has no more tiles"
            console.print(f"{city['name']}: {done} of {city['wanted']} scenes: {problem}", soft_wrap=True)
    if untried:
        reason = next(city["problem"] for city in lineage["cities"] if city["name"] == untried[0])
        console.print(f"{len(untried)} more cities ({', '.join(untried)}): 0 scenes: {reason}", soft_wrap=True)
    least = lineage.get("inputs", {}).get("recipe", {}).get("scene", {}).get("min_served", 0.0)
    for receipt in load_draft(folder).receipts():
        for scene in receipt["scenes"]:
            served = scene["n_users"] - scene.get("n_outage", 0)
            if scene["status"] == "done" and served < least * scene["n_users"]:
                share = f"{served} of {scene['n_users']} users are served, below scene.min_served {least:.0%}"
                console.print(f"warning: {scene['scene_id']}: {share}", soft_wrap=True)


def print_scenes(store: str) -> None:
    """Every scene of a store with its outcome, and where it comes from."""
    table = Table("scene", "city", "split", "outcome", "users", "line of sight", "outage", "from")
    for receipt in load_draft(resolve(store).parent).receipts():
        for scene in receipt["scenes"]:
            counts = [str(scene.get(name, "")) for name in ("n_users", "n_los", "n_outage")]
            status = scene["status"] if scene["status"] == "done" else f"{scene['stage']}: {scene['reason']}"
            table.add_row(
                scene["scene_id"], scene["city"], scene["split"], status, *counts, str(scene.get("origin", ""))
            )
    console.print(table)


def print_origins(folder: StorePath) -> None:
    """How many scenes of a version were kept from the one before, how many traced, and why."""
    for origin, count in _origins(folder):
        console.print(f"{count} scenes {origin}", soft_wrap=True)


def copy_card(store: str, target: Path) -> Path:
    """Copy what of the card has the target's suffix: page, Markdown or Croissant.

    Raises
    ------
    InputError
        Another suffix, or the version has no card.
    """
    names = {".html": "card.html", ".md": "card.md", ".json": "croissant.json"}
    if target.suffix not in names:
        msg = f"--card {target}: name a file that ends in {', '.join(names)}"
        raise InputError(msg)
    card = resolve(store).parent / names[target.suffix]
    if not card.exists():
        imported = "imported" in open_store(store, carrier="all", port="all").attrs
        msg = f"{store}: its version has no {card.name}; " + (
            "imported channels have none" if imported else "build the store again"
        )
        raise InputError(msg)
    write_text(target, card.read_bytes().decode())
    return target


def _origins(folder: StorePath) -> list[tuple[str, int]]:
    """Origins of the scenes of a version with their numbers, most frequent first."""
    lineage = read_json(folder / "lineage.json") or {}
    return sorted(lineage.get("origins", {}).items(), key=lambda item: -item[1])


def _height_sources(folder: StorePath) -> str:
    """Share of the buildings of all scenes by source of their height, as on the card."""
    scenes = [scene for receipt in load_draft(folder).receipts() for scene in receipt["scenes"]]
    counts = add_up(Counter(scene.get("heights_from", {})) for scene in scenes)
    if not counts:
        return "see the card"  # older versions do not count buildings in their receipts
    shares = ", ".join(f"{source} {percent(count, counts.total())}" for source, count in sorted(counts.items()))
    return f"{shares} (of {counts.total():,} buildings)"


def _maps(maps: Mapping[str, Mapping[str, str | None]]) -> str:
    """A line for each of the first maps: file, start of its SHA-256, date."""
    some = [
        f"{name}: {of['file']} {str(of['sha256'])[:12]} of {of['map_date'] or 'unknown date'}"
        for name, of in maps.items()
    ]
    return "\n".join([*some[:8], f"and {len(some) - 8} more"] if len(some) > 8 else some)


def _with_date(version: Version) -> str:
    """A version with the dates of its maps, `v1 (map of 2019-03-28)`: of several the first and the last."""
    dates = sorted({date[:10] for date in version.map_dates.values()})
    span = " to ".join(dict.fromkeys((*dates[:1], *dates[-1:])))
    return f"{version.folder.name} (map{'s' * (len(dates) > 1)} of {span})" if dates else version.folder.name


def _counts(values: Iterable[object]) -> str:
    """`test 2, train 12`: how often each value is there."""
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(map(str, values)).items()))
