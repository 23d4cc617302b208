"""Tiles of a map: a grid of candidates, and for each of them an outcome with its reason."""

import math
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import shapely
from numpy.typing import NDArray

from geo.errors import InputError, SceneError
from geo.footprints import Footprints, tile_footprints
from geo.projection import project, unproject
from geo.seeding import generator
from geo.settings import AreaSettings, SceneSettings, SplitSettings
from geo.sources import Source
from geo.users import place_base_station

# More candidates than this are not a city; building them all would take days.
MAX_CANDIDATES = 4_000_000


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
        `accepted` or `rejected`.
    reason : str
        Why rejected; empty otherwise.
    coverage : float
        Share of the tile built on; nan when that was not worked out.
    n_buildings : int
        Buildings (OSM elements) in the tile; -1 when not worked out.
    """

    id: str
    city: str
    country: str
    latitude: float
    longitude: float
    size: float
    split: str = ""
    status: Literal["accepted", "rejected"] = "accepted"
    reason: str = ""
    coverage: float = math.nan
    n_buildings: int = -1


def plan_tiles(source: Source, area: AreaSettings, scene: SceneSettings, seed: int) -> list[Tile]:
    """Every candidate tile with its outcome, in the order of the grid (rows from the north, then from the west).

    Candidates are examined in a seeded random order until `area.scenes` are accepted; the rest is `not needed`.

    Parameters
    ----------
    source : Source
    area : AreaSettings
    scene : SceneSettings
    seed : int

    Raises
    ------
    InputError
        The map is smaller than a tile, or a split by city is asked of one city.
    """
    if area.split.by == "city" and area.split.validation + area.split.test > 0:
        msg = (
            f"area.split.by: city: a recipe of one city ({area.city}) cannot hold cities out; "
            "use `by: scene`, or set validation and test to 0"
        )
        raise InputError(msg)
    candidates = grid(source, area)
    order = generator(seed, area.city, "tiles").permutation(len(candidates))
    occupied = _has_buildings(candidates, source)
    tiles: dict[int, Tile] = {}
    wanted = area.scenes
    for index in order.tolist():
        candidate = candidates[index]
        if not occupied[index]:
            tiles[index] = replace(candidate, status="rejected", reason="no buildings", coverage=0.0, n_buildings=0)
        elif wanted == 0:
            tiles[index] = replace(candidate, status="rejected", reason="not needed")
        else:
            tiles[index] = qualify(candidate, source, area, scene, seed)
            wanted -= tiles[index].status == "accepted"
    splits = assign_splits([tile.id for tile in tiles.values() if tile.status == "accepted"], area.split, seed)
    return [replace(tiles[index], split=splits.get(tiles[index].id, "")) for index in range(len(candidates))]


def grid(source: Source, area: AreaSettings) -> list[Tile]:
    """Candidate tiles: a grid in the local projection around the map's middle, wholly inside the map's bounds."""
    west, south, east, north = source.bounds
    latitude, longitude = (south + north) / 2, (west + east) / 2
    # The map's box in metres: its narrower side in the north or south decides, so that every tile lies inside.
    corners = shapely.points([[west, south], [east, south], [west, north], [east, north]])
    (x_sw, y_sw), (x_se, y_se), (x_nw, y_nw), (x_ne, y_ne) = shapely.get_coordinates(
        project(corners, latitude, longitude)
    ).tolist()
    width = min(x_se, x_ne) - max(x_sw, x_nw)
    depth = min(y_nw, y_ne) - max(y_sw, y_se)
    columns, rows = int(width // area.tile_size), int(depth // area.tile_size)
    if columns < 1 or rows < 1:
        msg = (
            f"area.source: {source.provenance['file']}: the map of {width:.0f} m x {depth:.0f} m is smaller "
            f"than a tile (area.tile_size {area.tile_size:g} m); give a larger extract"
        )
        raise InputError(msg)
    if columns * rows > MAX_CANDIDATES:
        msg = (
            f"area.source: {source.provenance['file']}: {columns * rows} candidate tiles are too many; "
            f"give extracts of cities instead of {width / 1000:.0f} km x {depth / 1000:.0f} km"
        )
        raise InputError(msg)
    x = (np.arange(columns) - (columns - 1) / 2) * area.tile_size
    y = ((rows - 1) / 2 - np.arange(rows)) * area.tile_size
    centres = unproject(np.column_stack([np.tile(x, rows), np.repeat(y, columns)]), latitude, longitude)
    name = _slug(area.city)
    return [
        Tile(f"{name}-{number:04d}", area.city, area.country, float(lat), float(lon), area.tile_size)
        for number, (lon, lat) in enumerate(np.round(centres, 9))
    ]


def qualify(tile: Tile, source: Source, area: AreaSettings, scene: SceneSettings, seed: int) -> Tile:
    """The tile with its outcome: enough and not too much built, and a place for the base station."""
    prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, scene, seed)
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
    return len(prints.buildings[["osm_type", "osm_id"]].drop_duplicates())


def assign_splits(ids: list[str], split: SplitSettings, seed: int) -> dict[str, str]:
    """Split of every scene: shares rounded to whole scenes, at least one for a share above 0 given three scenes.

    Parameters
    ----------
    ids : list of str
    split : SplitSettings
    seed : int

    Returns
    -------
    dict
        Scene id -> `train`, `validation` or `test`.
    """
    names = sorted(ids)
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
        place_base_station(prints.buildings, tile.size, scene)
    except SceneError as error:
        return str(error)
    return ""


def _has_buildings(candidates: list[Tile], source: Source) -> NDArray[np.bool_]:
    """Candidates with any map feature in their box: one read of the map spares the empty tiles a closer look."""
    boxes = source.buildings(source.bounds).geometry.to_numpy()
    half = candidates[0].size / 2
    points = np.array([[tile.longitude, tile.latitude] for tile in candidates])
    # Degrees for half an edge, a little generous; 111 km is less than a degree of latitude anywhere but at the equator.
    reach = 1.1 * half / 110_500
    wide = reach / np.maximum(np.cos(np.radians(points[:, 1])), 0.01)
    squares = shapely.box(points[:, 0] - wide, points[:, 1] - reach, points[:, 0] + wide, points[:, 1] + reach)
    found = np.zeros(len(candidates), dtype=bool)
    found[shapely.STRtree(boxes).query(squares, predicate="intersects")[0]] = True
    return found


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "city"
