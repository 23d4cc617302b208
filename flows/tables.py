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


def print_plan(plan: Any) -> None:
    """Tiles of a plan with their outcomes, then the count of every outcome."""
    table = Table("tile", "latitude", "longitude", "buildings", "coverage", "split", "outcome")
    for tile in plan.tiles:
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
    console.print(f"{len(plan.accepted)} of {len(plan.tiles)} tiles accepted. {ATTRIBUTION}")


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
    table.add_row("map", str(lineage.get("map", {})))
    table.add_row("versions", ", ".join(f"{name} {value}" for name, value in lineage.get("versions", {}).items()))
    table.add_row("licence", f"{data.attrs['licence']}. {data.attrs['attribution']}")
    console.print(table)
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


def _counts(values: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(Counter(map(str, values)).items()))
