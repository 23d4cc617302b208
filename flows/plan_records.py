"""Plans, cities and tiles as JSON: in the cache of plans, in a version's lineage, for `wavecity plan --json`."""

from collections.abc import Mapping
from typing import Any

from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.tiles import Tile


def plan_record(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """A plan, JSON-ready."""
    return {
        "cities": [city_record(city) for city in plan.cities],
        "tiles": [tile_record(tile) for tile in plan.tiles if tile.reason != "not needed"],
    }


def city_record(plan: CityPlan) -> dict[str, object]:
    """Scenes wanted from a city and found, JSON-ready."""
    return {
        "name": plan.city.name,
        "country": plan.city.country,
        "state": plan.state,
        "wanted": plan.city.scenes,
        "scenes": sum(tile.status == "accepted" for tile in plan.tiles),
        "candidates": len(plan.tiles),
        "rejected": dict(plan.reasons()),
        "problem": plan.problem,
    }


def tile_of(record: Mapping[str, Any]) -> Tile:
    """A tile from its record (`tile_record`)."""
    return Tile(**{**record, "coverage": float("nan") if record["coverage"] is None else record["coverage"]})


def tile_record(tile: Tile) -> dict[str, object]:
    """A tile's outcome, JSON-ready: what was not computed, as for tiles that were not needed, is null."""
    return {name: None if value != value else value for name, value in vars(tile).items()}
