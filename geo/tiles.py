"""Tiles of a city: a grid of candidates, and the outcome of each with its reason."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from wavecity.geo.cities import City, cities_of, placed
from wavecity.geo.errors import InputError, MapError, SceneError
from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.projection import project, turned, unproject
from wavecity.geo.reading import Bounds
from wavecity.geo.seeding import generator
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings
from wavecity.geo.sources import Source
from wavecity.geo.users import place_base_station

# More candidates than this are not a city; building them all would take days.
MAX_CANDIDATES = 4_000_000
METRES_PER_DEGREE = 111_320.0  # of latitude


@dataclass(frozen=True)
class Tile:
    """A candidate tile and what became of it.

    Attributes
    ----------
    id : str
        `helsinki-0007`: city and place in the grid, the same for every seed.
    city, country : str
    latitude, longitude : float
        Centre, WGS84 degrees.
    size : float
        Edge in m.
    split : str
        `train`, `validation`, `test`; empty when rejected.
    status : str
        `accepted`, `rejected`, or `planned` while the map is not there.
    reason : str
        Why rejected; empty otherwise.
    coverage : float
        Share of the tile built on; nan when not computed.
    n_buildings : int
        Buildings (OSM elements) in the tile; -1 when not computed.
    """

    id: str
    city: str
    country: str
    latitude: float
    longitude: float
    size: float
    split: str = ""
    status: Literal["accepted", "rejected", "planned"] = "accepted"
    reason: str = ""
    coverage: float = math.nan
    n_buildings: int = -1


def plan_tiles(source: Source, area: AreaSettings, scene: SceneSettings, seed: int) -> list[Tile]:
    """Every candidate tile of a recipe of one city, with its outcome and split (see `plan_city`).

    Raises
    ------
    InputError
        The map is smaller than a tile, or a split by city is asked of one city.

    Examples
    --------
    >>> area = AreaSettings(scenes=16)
    >>> tiles = plan_tiles(open_source(area, Path("maps")), area, SceneSettings(), seed=7)
    >>> [tile.id for tile in tiles if tile.status == "accepted"][:2]
    ['helsinki-0003', 'helsinki-0006']
    """
    city = placed(cities_of(area)[0], source.bounds)
    tiles = plan_city(city, source, area, scene, seed)
    splits = assign_splits(tiles, [city], area.split, seed)
    return [replace(tile, split=splits.get(tile.id, "")) for tile in tiles]


def plan_city(city: City, source: Source | None, area: AreaSettings, scene: SceneSettings, seed: int) -> list[Tile]:
    """Every candidate tile of a city with its outcome, in the order of the grid (rows from the north, then west).

    Candidates are examined in a seeded random order until enough are accepted; the rest is `not needed`. The grid and
    the order of a city with a centre do not depend on its map: without one the first are `planned`.

    Parameters
    ----------
    city : City
    source : Source or None
        None: the map is not there yet.
    area : AreaSettings
    scene : SceneSettings
    seed : int

    Raises
    ------
    MapError
        The map is smaller than a tile, or larger than a city.
    """
    candidates = _grid(city, source, area)
    if not candidates:
        return []
    order = generator(seed, city.name, "tiles").permutation(len(candidates))
    # A grid of the map's own lies inside it.
    inside = _inside(candidates, source if city.latitude is not None else None)
    occupied = _has_buildings(candidates, source)
    tiles: dict[int, Tile] = {}
    wanted = city.scenes
    for index in order.tolist():
        candidate = candidates[index]
        if not inside[index]:
            tiles[index] = replace(candidate, status="rejected", reason="outside the map")
        elif not occupied[index]:
            tiles[index] = replace(candidate, status="rejected", reason="no buildings", coverage=0.0, n_buildings=0)
        elif wanted == 0:
            tiles[index] = replace(candidate, status="rejected", reason="not needed")
        elif source is None:
            tiles[index] = replace(candidate, status="planned", reason="waits for the map")
            wanted -= 1
        else:
            tiles[index] = qualify(candidate, source, area, scene, seed)
            wanted -= tiles[index].status == "accepted"
    return [tiles[index] for index in range(len(candidates))]


def _grid(city: City, source: Source | None, area: AreaSettings) -> list[Tile]:
    """Candidate tiles of a city, around its centre or over its map."""
    if city.latitude is not None and city.longitude is not None:
        return city_grid(city, city.latitude, city.longitude, area.tile_size, area.stride)
    return grid(source, area, city) if source else []


def city_grid(city: City, latitude: float, longitude: float, size: float, stride: float | None = None) -> list[Tile]:
    """Candidate tiles: those of a grid around the city's centre that lie wholly within its radius.

    Lengths in m; `stride`, from centre to centre, is the tiles' `size` if it is not given.
    """
    stride = stride or size
    reach = int(city.radius // stride)
    places = np.arange(-reach, reach + 1) * stride
    x, y = np.tile(places, len(places)), np.repeat(places[::-1], len(places))
    within = np.hypot(np.abs(x) + size / 2, np.abs(y) + size / 2) <= city.radius
    if within.sum() > MAX_CANDIDATES:
        msg = f"area.radius: {city.name}: {within.sum()} candidate tiles are too many; make the radius smaller"
        raise InputError(msg)
    return _tiles_at(np.column_stack([x, y])[within], latitude, longitude, city, size)


def grid(source: Source, area: AreaSettings, city: City | None = None) -> list[Tile]:
    """Candidate tiles: a grid in the local projection around the map's middle, wholly inside the map's bounds."""
    city = city or placed(cities_of(area)[0], source.bounds)
    stride = area.stride or area.tile_size
    latitude, longitude, width, depth = _extent(source.bounds)
    if (width // stride) * (depth // stride) > MAX_CANDIDATES:
        # Of a country, say, with the buildings of a town: tiles where these are.
        boxes = source.boxes()
        # So far around them that a few houses come to lie in one tile, the middle one of three.
        around = 1.5 * area.tile_size / METRES_PER_DEGREE
        wide = around / math.cos(math.radians(boxes[0, 1]))
        west, south = boxes[:, :2].min(0).tolist()
        east, north = boxes[:, 2:].max(0).tolist()
        latitude, longitude, width, depth = _extent((west - wide, south - around, east + wide, north + around))
    columns, rows = (int((length - area.tile_size) // stride) + 1 for length in (width, depth))
    if columns < 1 or rows < 1:
        msg = (
            f"area.source: {source.provenance['file']}: the map of {width:.0f} m x {depth:.0f} m is smaller "
            f"than a tile (area.tile_size {area.tile_size:g} m); give a larger extract"
        )
        raise MapError(msg)
    if columns * rows > MAX_CANDIDATES:
        msg = (
            f"area.source: {source.provenance['file']}: {columns * rows} candidate tiles are too many; "
            f"give the city a latitude, longitude and radius, or extracts of cities instead of {width / 1000:.0f} km x "
            f"{depth / 1000:.0f} km"
        )
        raise MapError(msg)
    x = (np.arange(columns) - (columns - 1) / 2) * stride
    y = ((rows - 1) / 2 - np.arange(rows)) * stride
    places = np.column_stack([np.tile(x, rows), np.repeat(y, columns)])
    return _tiles_at(places, latitude, longitude, city, area.tile_size)


def _extent(bounds: Bounds) -> tuple[float, float, float, float]:
    """Middle of a box (latitude, longitude in degrees), and its width and depth in m."""
    west, south, east, north = bounds
    latitude, longitude = (south + north) / 2, turned((west + east) / 2, 0.0)
    # The map's box in metres: its narrower side in the north or south decides, so that every tile lies inside.
    corners = shapely.points([[west, south], [east, south], [west, north], [east, north]])
    (x_sw, y_sw), (x_se, y_se), (x_nw, y_nw), (x_ne, y_ne) = shapely.get_coordinates(
        project(corners, latitude, longitude)
    ).tolist()
    return latitude, longitude, min(x_se, x_ne) - max(x_sw, x_nw), min(y_nw, y_ne) - max(y_sw, y_se)


def _tiles_at(places: NDArray[np.float64], latitude: float, longitude: float, city: City, size: float) -> list[Tile]:
    """Tiles around points in m from a centre; numbered, the same for every seed."""
    start = city.slug
    return [
        Tile(f"{start}-{number:04d}", city.name, city.country, float(lat), float(lon), size)
        for number, (lon, lat) in enumerate(np.round(unproject(places, latitude, longitude), 9))
    ]


def qualify(tile: Tile, source: Source, area: AreaSettings, scene: SceneSettings, seed: int) -> Tile:
    """The tile with its outcome: accepted where enough but not too much is built, with a place for the base station."""
    try:
        prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, scene, seed)
    except SceneError as error:
        return replace(tile, status="rejected", reason=str(error))
    reason = _rejection(prints, tile, area, scene)
    return replace(
        tile,
        status="rejected" if reason else "accepted",
        reason=reason,
        coverage=prints.coverage,
        n_buildings=count_buildings(prints),
    )


def count_buildings(prints: Footprints) -> int:
    """Different OSM elements among the solids of a tile."""
    return len(set(zip(prints.buildings["osm_type"], prints.buildings["osm_id"], strict=True)))


def assign_splits(tiles: list[Tile], cities: list[City], split: SplitSettings, seed: int) -> dict[str, str]:
    """Split of every accepted or planned tile: shares rounded to whole cities or scenes.

    With `by: city` all cities of the recipe are divided, with or without a map, so that a map that arrives later moves
    no city to another split. A share above 0 gets at least one, given three.

    Parameters
    ----------
    tiles : list of Tile
        Of all cities.
    cities : list of City
    split : SplitSettings
    seed : int

    Returns
    -------
    dict
        Tile id -> `train`, `validation` or `test`.

    Raises
    ------
    InputError
        A split by city is asked of one city.
    """
    kept = [tile for tile in tiles if tile.status != "rejected"]
    if split.by == "scene":
        return divide([tile.id for tile in kept], split, seed)
    if len(cities) == 1 and split.validation + split.test > 0:
        msg = (
            f"area.split.by: city: a recipe of one city ({cities[0].name}) cannot hold cities out; "
            "use `by: scene`, or set validation and test to 0"
        )
        raise InputError(msg)
    of_city = divide([city.name for city in cities], split, seed)
    return {tile.id: of_city[tile.city] for tile in kept}


def divide(names: list[str], split: SplitSettings, seed: int) -> dict[str, str]:
    """Divide names into `train`, `validation` and `test`, independent of their order.

    Examples
    --------
    >>> divide(["a", "b", "c"], SplitSettings(validation=0.1, test=0.1), seed=7)["a"] in ("train", "validation", "test")
    True
    """
    names = sorted(names)
    shuffled = [names[index] for index in generator(seed, "split").permutation(len(names))]
    counts = []
    for share in (split.validation, split.test):
        least = 1 if share > 0 and len(names) >= 3 else 0
        counts.append(max(least, round(share * len(names))))
    n_validation, n_test = counts
    labels = ["validation"] * n_validation + ["test"] * n_test
    labels = labels[: len(names)] + ["train"] * max(0, len(names) - len(labels))
    return dict(zip(shuffled, labels, strict=True))


def _rejection(prints: Footprints, tile: Tile, area: AreaSettings, scene: SceneSettings) -> str:
    """Why a tile cannot become a scene; empty where it can."""
    count = count_buildings(prints)
    if count == 0:
        return "no buildings"
    if count < area.min_buildings:
        return f"{count} building{'s' if count > 1 else ''}, at least {area.min_buildings} wanted"
    if prints.coverage < area.min_coverage:
        return f"coverage {100 * prints.coverage:.1f} % below {100 * area.min_coverage:g} %"
    if prints.coverage > area.max_coverage:
        return f"coverage {100 * prints.coverage:.1f} % above {100 * area.max_coverage:g} %"
    try:
        place_base_station(prints.buildings, tile.size, scene, prints.beyond)
    except SceneError as error:
        return str(error)
    return ""


def _inside(candidates: list[Tile], source: Source | None) -> NDArray[np.bool_]:
    """Candidates that lie wholly within the map's bounds (all of them without a map)."""
    if source is None:
        return np.ones(len(candidates), bool)
    squares = shapely.bounds(_squares(candidates, 1.0, source))
    west, south, east, north = source.bounds
    inside: NDArray[np.bool_] = (squares[:, :2] >= (west, south)).all(axis=1) & (squares[:, 2:] <= (east, north)).all(
        axis=1
    )
    return inside


def _has_buildings(candidates: list[Tile], source: Source | None) -> NDArray[np.bool_]:
    """Candidates with any map feature in their box: one read of the map sorts out the empty tiles."""
    if source is None:
        return np.ones(len(candidates), bool)
    boxes = shapely.box(*source.boxes().T)
    found = np.zeros(len(candidates), dtype=bool)
    found[shapely.STRtree(boxes).query(_squares(candidates, 1.1, source), predicate="intersects")[0]] = True
    return found


def _squares(candidates: list[Tile], scale: float, source: Source) -> NDArray[np.object_]:
    """Boxes in degrees about the tiles, a scaled edge wide, with longitudes as in the map."""
    middle = (source.bounds[0] + source.bounds[2]) / 2
    points = np.array([[turned(tile.longitude, middle), tile.latitude] for tile in candidates])
    # 111 km is less than a degree of latitude anywhere but at the equator.
    reach = scale * candidates[0].size / 2 / 110_500
    wide = reach / np.maximum(np.cos(np.radians(points[:, 1])), 0.01)
    west, east = points[:, 0] - wide, points[:, 0] + wide
    squares: NDArray[np.object_] = shapely.box(west, points[:, 1] - reach, east, points[:, 1] + reach)
    return squares
