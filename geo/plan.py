"""The plan of a recipe: its cities, and every candidate tile of each with its outcome."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

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
    unreachable : str
        The server of the map that did not answer; empty otherwise.
    """

    city: City
    tiles: list[Tile]
    source: Source | None = None
    problem: str = ""
    unreachable: str = ""

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
        """`ready`, `short`, `planned` (its map was not fetched), `missing` (its map cannot be had) or `not needed`."""
        if self.city.scenes == 0:
            return "not needed"
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

    Of a city that is to give no scene there are no tiles, and its map is not opened.

    Parameters
    ----------
    city : City
    open_map : callable
        Gives the city's map, or None when it is not to be fetched now; raises MapError.
    area : AreaSettings
    scene : SceneSettings
    seed : int
    """
    if city.scenes == 0:
        return CityPlan(city, [])
    try:
        source = open_map(city)
        if source is not None:
            city = placed(city, source.bounds)
        return CityPlan(city, plan_city(city, source, area, scene, seed), source)
    except MapError as error:
        return without_map(city, error)


def without_map(city: City, error: MapError) -> CityPlan:
    """Plan of a city whose map cannot be had."""
    return CityPlan(city, [], None, str(error), getattr(error, "server", ""))


class Servers:
    """Servers of maps, and how many cities in a row got no answer: the others do not wait for them in vain."""

    # Cities after which a server is not asked any more.
    ENOUGH = 3

    def __init__(self) -> None:
        self._silent: Counter[str] = Counter()
        self._failures: dict[str, str] = {}

    def note(self, city: City, unreachable: str, problem: str = "") -> None:
        """Remember whether the server of a city answered."""
        server = unreachable or server_of(city)
        self._silent[server] = self._silent[server] + 1 if unreachable else 0
        self._failures.setdefault(server, problem)

    def given_up(self, city: City) -> str:
        """Why a city's map is not even asked for; empty where it is."""
        server = server_of(city)
        if not server or self._silent[server] < self.ENOUGH:
            return ""
        return f"not tried, as {server} did not answer for {self.ENOUGH} cities ({self._failures[server]})"


def server_of(city: City) -> str:
    """Server of a city's map; empty for a file."""
    return "overpass" if city.source == "overpass" else urlsplit(city.source).netloc


def plan_cities(
    cities: list[City],
    job: Callable[[City], CityPlan],
    is_here: Callable[[City], bool],
    each: Callable[..., Iterable[CityPlan]] = map,
) -> list[CityPlan]:
    """Plan all cities; after a few whose server did not answer its others are not tried, unless their maps are here.

    Parameters
    ----------
    cities : list of City
    job : callable
        Plans one city.
    is_here : callable
        Whether a city's map needs no network.
    each : callable
        As `map`: takes cities one after the other, and gives plans in their order.
    """
    servers = Servers()
    plans: dict[str, CityPlan] = {}

    def tried() -> Iterator[City]:
        for city in cities:
            reason = servers.given_up(city)
            if not city.scenes:
                plans[city.slug] = CityPlan(city, [])
            elif reason and not is_here(city):
                plans[city.slug] = CityPlan(city, [], None, reason, server_of(city))
            else:
                yield city

    asked: list[CityPlan] = []
    for plan in each(job, tried()):
        servers.note(plan.city, plan.unreachable, plan.problem)
        asked.append(plan)
    names = [city.slug for city in cities if city.slug not in plans]
    plans |= dict(zip(names, asked, strict=True))
    return [plans[city.slug] for city in cities]


def join_plans(plans: Iterable[CityPlan], area: AreaSettings, seed: int) -> Plan:
    """Join the plans of cities to that of a recipe, with splits.

    Raises
    ------
    InputError
        No map can be had, or a split by city is asked of one city.
    """
    cities = list(plans)
    wanted = [plan for plan in cities if plan.city.scenes] or cities
    if all(plan.problem for plan in wanted):
        tried = sum(not plan.problem.startswith("not tried") for plan in wanted)
        more = f" (and none of the other {len(wanted) - 1} cities" if len(wanted) > 1 else ""
        more += f"; after {tried} of them no more were tried" if tried < len(wanted) else ""
        raise InputError(wanted[0].problem + more + ")" * bool(more))
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
