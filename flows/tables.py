"""What the command line prints: plans, validations, stores."""

import json
import math
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.table import Table

from wavecity.dataset.bands import at_first_band, dim_of, radio_text
from wavecity.dataset.base_stations import cells_text, stations_text
from wavecity.dataset.card.facts import trajectory_text
from wavecity.dataset.card.maps import state_lines
from wavecity.dataset.card.source import add_up, percent
from wavecity.dataset.checks.findings import CheckFailed, Validation
from wavecity.dataset.checks.validate import validate_bytes
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, children, folder_size, location, read_json, write_text
from wavecity.dataset.fingerprints import read_sealed
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.publish import Version, latest, point_latest, publish, versions
from wavecity.dataset.radio_maps import radio_map_text
from wavecity.dataset.reader import open_store, refuse_run_folder, resolve
from wavecity.dataset.records import MapRecord, attributes_of
from wavecity.dataset.schema import ATTRIBUTION
from wavecity.dataset.settings import StoreSettings
from wavecity.flows.gates import GateFailed, limits_of, measure
from wavecity.flows.help import keys_of
from wavecity.geo.errors import InputError
from wavecity.model.results.names import Axis, Metric
from wavecity.model.settings.tasks import TASKS

if TYPE_CHECKING:
    from wavecity.flows.recipe import Recipe
    from wavecity.geo.plan import Plan
    from wavecity.geo.tiles import Tile

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
# What stands for a task at the end of a run; of other tasks it is the metric of their first record.
HEADLINES = {"mu-mimo": Metric.MU_RATE, "su-mimo": Metric.SU_RATE}

# Tables stay readable when piped to a file, where rich would assume 80 columns.
console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


# Outcomes of tiles that nobody looked at; a city has thousands of them.
UNSEEN = ("not needed", "no buildings", "outside the map")


def print_plan(plan: "Plan", every: bool = False) -> None:
    """Cities of a plan, and of one city the tiles that were looked at with their outcomes; all tiles if `every`."""
    tiles = plan.tiles
    if every or len(plan.cities) == 1:
        shown = tiles if every else [tile for tile in tiles if tile.reason not in UNSEEN]
        if shown:
            _print_tiles(shown)
    if len(plan.cities) > 1:
        _print_cities(plan)
    given = sum(city.found for city in plan.cities)
    wanted = sum(city.city.scenes for city in plan.cities)
    planned = sum(tile.status == "planned" for tile in tiles)
    kind = "accepted" if not planned else f"accepted, {planned} planned by position (their maps are not here yet)"
    console.print(f"{given - planned} of {len(tiles)} tiles {kind}; {wanted} scenes wanted. {ATTRIBUTION}")
    reasons = Counter[str]()
    for city in plan.cities:
        reasons.update(city.reasons())
    # Tiles that were not looked at, as enough others had been accepted, are not rejected.
    spare = reasons.pop("not needed", 0)
    if reasons:
        console.print("rejected: " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    if spare:
        console.print(f"not needed, so not looked at: {spare}")
    for line in state_lines({name: cast(MapRecord, source.provenance) for name, source in plan.sources.items()}):
        console.print(line, soft_wrap=True)
    short = [city for city in plan.cities if city.short > 0]
    if short:
        lacking = sum(city.short for city in short)
        console.print(f"{len(short)} of {len(plan.cities)} cities are {lacking} scenes short.")


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


def print_keys(recipe: "Recipe", section: str) -> None:
    """Print the keys of a recipe, with their values and meanings.

    Raises
    ------
    InputError
        No key or section of that name.
    """
    rows = keys_of(recipe, section)
    if not rows:
        sections = dict.fromkeys(key.split(".")[0] for key, _, _ in keys_of(recipe) if "." in key)
        msg = f"section {section!r}: the recipe has no such key or section; its sections are {', '.join(sections)}"
        raise InputError(msg)
    table = Table("key", "value", "meaning")
    for key, value, meaning in rows:
        table.add_row(key, json.dumps(value, default=str, ensure_ascii=False), meaning)
    console.print(table)


def _print_tiles(tiles: "list[Tile]") -> None:
    """Print tiles with their outcomes."""
    table = Table("tile", "latitude", "longitude", "buildings", "coverage", "split", "outcome")
    for tile in tiles:
        table.add_row(
            tile.id,
            f"{tile.latitude:.5f}",
            f"{tile.longitude:.5f}",
            str(tile.n_buildings) if tile.n_buildings >= 0 else "",
            f"{tile.coverage:.0%}" if tile.coverage == tile.coverage else "",
            tile.split,
            tile.reason or tile.status,
        )
    console.print(table)


def _print_cities(plan: "Plan") -> None:
    """Print the cities of a plan with what they give and why tiles are rejected."""
    table = Table("city", "country", "split", "wanted", "given", "candidates", "map", "rejected, most often")
    for city in plan.cities:
        split = next((tile.split for tile in city.tiles if tile.split), "")
        looked_at = [(reason, count) for reason, count in city.reasons().most_common() if reason != "not needed"]
        table.add_row(
            city.city.name,
            city.city.country,
            split,
            str(city.city.scenes),
            str(city.found),
            str(len(city.tiles)),
            city.state,
            city.problem or ", ".join(f"{reason} {count}" for reason, count in looked_at[:2]),
        )
    console.print(table)


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


def publish_newest(store: str, passed: Collection[str] = ()) -> Version:
    """Publish the newest validated draft, or point at the newest version again; every byte is checked before.

    Parameters
    ----------
    store : str
    passed : collection of str
        Gates of the draft's recipe that do not stop publication this time.

    Raises
    ------
    CheckFailed
        A file has changed since it was written; nothing is published.
    GateFailed
        The draft exceeds a gate of its recipe; nothing is published.
    InputError
        Neither a validated draft nor a version is there, or a build is under way.
    """
    place = location(store)
    refuse_run_folder(place)
    found = [draft for draft in children(place / ".staging") if (draft / "validation.json").exists()]
    version = latest(place) or next(reversed(versions(place)), None)
    if version is None and not found:
        msg = f"{store}: nothing to publish; build a store there first: wavecity build RECIPE --out {store}"
        raise InputError(msg)
    with builder_lock(place):
        if found:
            draft = max(found, key=lambda folder: (folder / "validation.json").stat().st_mtime)
            _check_bytes(draft)
            _check_gates(draft, latest(place), passed)
            # Imported channels have no recipe.
            recipe = attributes_of(open_store(draft, carrier="all", port="all").attrs).get("recipe", {})
            settings = recipe.get("store") or StoreSettings().model_dump()
            return publish(place, draft, settings["keep"], settings["grace"])
        assert version is not None
        _check_bytes(version.folder)
        point_latest(version)
        return version


def _check_bytes(folder: StorePath) -> None:
    """Raise CheckFailed if a file of a version or draft has changed."""
    validation = validate_bytes(folder)
    if not validation.ok:
        raise CheckFailed(validation)


def _check_gates(draft: StorePath, last: Version | None, passed: Collection[str]) -> None:
    """Raise GateFailed if a draft exceeds a gate of its recipe, as a build would; say which ones are overridden."""
    measured = measure(draft, last.folder if last else None, limits_of(draft), passed)
    for gate in measured:
        if gate.verdict == "exceeded, overridden":
            console.print(f"gate {gate.name} is overridden: {gate.what} {gate.value:.3g}", soft_wrap=True)
    if any(gate.exceeded for gate in measured):
        raise GateFailed(measured, draft)


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
