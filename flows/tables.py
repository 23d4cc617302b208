"""What the command line prints: plans, validations, stores."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dataset.files import read_json
from dataset.publish import Version, latest, point_latest, publish
from dataset.reader import open_store, resolve
from dataset.schema import ATTRIBUTION
from dataset.validate import Validation
from geo.errors import InputError

# Tables stay readable when piped to a file, where rich would assume 80 columns.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def print_plan(plan: Any, every: bool = False) -> None:
    """Cities of a plan, and of one city (or if `every` is asked for) the tiles with their outcomes."""
    tiles = plan.tiles
    if every or len(plan.cities) == 1:
        _print_tiles([tile for tile in tiles if tile.reason != "not needed"] if len(plan.cities) > 1 else tiles)
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
    if reasons:
        console.print("rejected: " + ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()))
    short = [city for city in plan.cities if city.short > 0]
    if short:
        lacking = sum(city.short for city in short)
        console.print(f"{len(short)} of {len(plan.cities)} cities are {lacking} scenes short.")


def _print_tiles(tiles: list[Any]) -> None:
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


def _print_cities(plan: Any) -> None:
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
    for finding in validation.findings:
        console.print(f"{finding.check}: {finding.where}: {finding.message}", soft_wrap=True)
    console.print("valid" if validation.ok else f"{len(validation.findings)} findings")


def print_store(store: Path) -> None:
    """Sizes, scenes by split and outcome, statistics, lineage."""
    data = open_store(store)
    folder = resolve(store).parent
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    lineage = read_json(folder / "lineage.json") or {}
    table = Table("what", "value", show_header=False)
    table.add_row("version", f"{folder.name}, {size / 1e6:.1f} MB")
    table.add_row("dimensions", ", ".join(f"{name} {length}" for name, length in data.sizes.items()))
    table.add_row("scenes by split", _counts(data["split"].values))
    table.add_row("scenes by outcome", _counts(data["status"].values))
    table.add_row("users", f"{int(data['n_users'].sum())}, {int(data['los'].sum())} with line of sight")
    for name, value in data.attrs["statistics"].items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    cities = lineage.get("cities", [])
    table.add_row("cities", f"{sum(city['scenes'] > 0 for city in cities)} of {len(cities)}")
    table.add_row("maps", _maps(lineage.get("maps", {})))
    table.add_row("versions", ", ".join(f"{name} {value}" for name, value in lineage.get("versions", {}).items()))
    table.add_row("licence", f"{data.attrs['licence']}. {data.attrs['attribution']}")
    console.print(table)
    for city in cities:
        if city["scenes"] < city["wanted"]:
            problem = city["problem"] or ", ".join(f"{reason} {n}" for reason, n in city["rejected"].items())
            console.print(f"{city['name']}: {city['scenes']} of {city['wanted']} scenes: {problem}", soft_wrap=True)
    for entry in read_json(folder / "ledger.json") or []:
        console.print(f"{entry['scene_id']}: {entry['stage']}: {entry['reason']}", soft_wrap=True)


def publish_newest(store: Path) -> Version:
    """Publish the newest validated draft, or point `latest.zarr` at the newest version again.

    Raises
    ------
    InputError
        Neither a validated draft nor a version is there.
    """
    drafts = sorted(
        (path.parent for path in (store / ".staging").glob("*/validation.json")), key=lambda path: path.stat().st_mtime
    )
    if drafts:
        keep = open_store(drafts[-1]).attrs["recipe"]["store"]["keep"]
        return publish(store, drafts[-1], keep)
    version = latest(store)
    if version is None:
        msg = f"{store}: nothing to publish; build a store there first: wavecity build RECIPE --out {store}"
        raise InputError(msg)
    point_latest(version)
    return version


def _maps(maps: dict[str, Any]) -> str:
    some = [
        f"{name}: {of['file']} {of['sha256'][:12]} of {of['map_date'] or 'unknown date'}" for name, of in maps.items()
    ]
    return "\n".join([*some[:8], f"and {len(some) - 8} more"] if len(some) > 8 else some)


def _counts(values: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(map(str, values)).items()))
