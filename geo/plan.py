"""The plan of a recipe: its cities, and every candidate tile of each with its outcome."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from wavecity.geo.cities import City, placed
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.settings import AreaSettings, SceneSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile, assign_splits, plan_city


@dataclass(frozen=True)
class CityPlan:
    """A city and its tiles.

    Attributes
    ----------
    city : City
        With its name and country filled in.
    tiles : list of Tile
    source : Source or None
        None where the map is not there.
    problem : str
        Why the map cannot be had; empty when it is there or only has not been fetched.
    """

    city: City
    tiles: list[Tile]
    source: Source | None = None
    problem: str = ""

    @property
    def found(self) -> int:
        """Scenes that the city gives, or will give once its map is there."""
        return sum(tile.status != "rejected" for tile in self.tiles)

    @property
    def short(self) -> int:
        """Scenes wanted from the city that it does not give."""
        return self.city.scenes - self.found

    @property
    def state(self) -> str:
        """`ready`, `short`, `planned` (its map was not fetched) or `missing` (its map cannot be had)."""
        if self.source is None:
            return "missing" if self.problem else "planned"
        return "short" if self.short else "ready"

    def reasons(self) -> Counter[str]:
        """Number of tiles by the reason for their rejection, without the numbers in the reasons."""
        return Counter(_kind(tile.reason) for tile in self.tiles if tile.status == "rejected")


@dataclass(frozen=True)
class Plan:
    """All cities of a recipe."""

    cities: list[CityPlan]

    @property
    def tiles(self) -> list[Tile]:
        """Every candidate of every city."""
        return [tile for city in self.cities for tile in city.tiles]

    @property
    def accepted(self) -> list[Tile]:
        """Tiles that become scenes, in the store's order."""
        return [tile for tile in self.tiles if tile.status == "accepted"]

    @property
    def sources(self) -> dict[str, Source]:
        """Map of each city that has one, by the city's name."""
        return {plan.city.name: plan.source for plan in self.cities if plan.source is not None}

    @property
    def short(self) -> list[CityPlan]:
        """Cities that give fewer scenes than wanted, or none."""
        return [plan for plan in self.cities if plan.short > 0]


def plan_one(
    city: City,
    open_map: Callable[[City], Source | None],
    area: AreaSettings,
    scene: SceneSettings,
    seed: int,
) -> CityPlan:
    """Tiles of one city, without splits; a map that cannot be had is a problem of this city alone.

    Parameters
    ----------
    city : City
    open_map : callable
        Gives the city's map, or None when it is not to be fetched now; raises MapError.
    area : AreaSettings
    scene : SceneSettings
    seed : int
    """
    try:
        source = open_map(city)
        if source is not None:
            city = placed(city, source.bounds)
        return CityPlan(city, plan_city(city, source, area, scene, seed), source)
    except MapError as error:
        return CityPlan(city, [], None, str(error))


def join_plans(plans: Iterable[CityPlan], area: AreaSettings, seed: int) -> Plan:
    """Join the plans of cities to that of a recipe, with splits.

    Raises
    ------
    InputError
        No map can be had, or a split by city is asked of one city.
    """
    cities = list(plans)
    if all(plan.problem for plan in cities):
        more = f" (and none of the other {len(cities) - 1} cities)" if len(cities) > 1 else ""
        raise InputError(cities[0].problem + more)
    tiles = [tile for plan in cities for tile in plan.tiles]
    splits = assign_splits(tiles, [plan.city for plan in cities], area.split, seed)
    # Most tiles of a large map are rejected, and have no split.
    divided = [
        [replace(tile, split=splits[tile.id]) if tile.id in splits else tile for tile in plan.tiles] for plan in cities
    ]
    return Plan([replace(plan, tiles=tiles) for plan, tiles in zip(cities, divided, strict=True)])


def _kind(reason: str) -> str:
    """A reason without its numbers: `coverage 5.1 % below 10 %` -> `coverage below 10 %`."""
    if reason.startswith("coverage "):
        return "coverage " + reason.split(" % ", 1)[1]
    if " building" in reason and "wanted" in reason:
        return "too few buildings"
    if reason.startswith("geometry "):
        return "geometry"
    return reason
