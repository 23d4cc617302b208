"""What the command line prints of recipes and their plans."""

import json
from collections import Counter
from typing import TYPE_CHECKING, cast

from rich.table import Table

from wavecity.dataset.card.maps import state_lines
from wavecity.dataset.records import MapRecord
from wavecity.dataset.schema import ATTRIBUTION
from wavecity.flows.console import console
from wavecity.flows.help import keys_of
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    from wavecity.flows.recipe import Recipe
    from wavecity.geo.plan import Plan
    from wavecity.geo.tiles import Tile

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
