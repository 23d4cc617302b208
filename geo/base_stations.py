"""Where more base stations than the one at the top centre of a tile stand.

Apart from `wavecity.geo.build`, which every dataset depends on (`wavecity.geo.base_station_settings`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
import shapely.ops
from numpy.typing import NDArray
from shapely import affinity
from shapely.geometry.base import BaseGeometry

from wavecity.geo.base_station_settings import SceneSettings
from wavecity.geo.polygons import GRID
from wavecity.geo.scene import Scene
from wavecity.geo.sources import Source
from wavecity.geo.streets import LANE, PAVEMENT, road_network, tile_streets
from wavecity.geo.users import SLIDE_STEP, front_sector, open_ground

# Metres between places at the roadside that are looked at, and between any two base stations on roofs or streets.
ALONG, APART = 5.0, 20.0
# A mast stands this far (m) inside the edge of a roof, of no less than so many m2.
FROM_EDGE, LEAST_ROOF = 1.0, 30.0


@dataclass(frozen=True)
class BaseStation:
    """A base station: float64 (3,) in m in the scene's frame, and where its panel faces in degrees from east."""

    position: NDArray[np.float64]
    azimuth: float


def place_others(scene: Scene, source: Source, wanted: SceneSettings) -> list[BaseStation | None]:
    """Base stations of a scene besides its first: at the corners, on roofs, at the roadside, then at given places.

    Nothing is random. Users are where they are with one base station.

    Parameters
    ----------
    scene : Scene
    source : Source
        Its map, for the streets.
    wanted : SceneSettings
        With `base_stations`.

    Returns
    -------
    list
        As many as the recipe wants; None where one finds no place.

    Examples
    --------
    >>> others = place_others(scene, source, SceneSettings(base_stations={"rooftops": 2}))
    >>> [round(other.position[2], 1) for other in others if other]
    [24.0, 31.5]
    """
    rules = wanted.base_stations
    if rules is None:
        return []
    site = _Site(scene.buildings, scene.size, wanted)
    found: list[BaseStation | None] = []
    if rules.corners:
        # Clockwise from north-west, the corner of row and column 0 of the maps.
        found += [next(site.standing(site.corner(*sign)), None) for sign in ((-1, 1), (1, 1), (1, -1), (-1, -1))]

    def taken() -> list[NDArray[np.float64]]:
        return [scene.bs_position, *(other.position for other in found if other)]

    found += _far_apart(site.on_roofs(rules.mast), rules.rooftops, taken())
    if rules.street:
        streets = tile_streets(scene.latitude, scene.longitude, scene.size, source)
        along = site.roadside(streets, rules.street_height)
        found += _far_apart(list(along), rules.street, taken())
    found += [site.at(np.array(position, np.float64)) for position in rules.positions]
    return found


class _Site:
    """A tile with its buildings, and where base stations may stand."""

    def __init__(self, buildings: gpd.GeoDataFrame, size: float, wanted: SceneSettings) -> None:
        self.footprints = buildings.geometry.to_numpy()
        self.base, self.top = (buildings[name].to_numpy(np.float64) for name in ("base", "height"))
        self.size, self.wanted = size, wanted
        self.tree = shapely.STRtree(self.footprints)

    def corner(self, east: int, north: int) -> Iterator[tuple[float, float]]:
        """Places at a corner, and along both of its edges from there.

        As far inside as base stations keep from walls: beyond the edge may be buildings that the scene does not have.
        """
        half = self.size / 2 - self.wanted.bs_clearance
        for step in np.arange(0.0, min(self.wanted.bs_max_shift, half / 2) + 1e-9, SLIDE_STEP).tolist():
            yield east * (half - step), north * half
            yield east * half, north * (half - step)

    def standing(self, places: Iterable[tuple[float, float]]) -> Iterator[BaseStation]:
        """Base stations on masts that stand on the ground and keep clear of buildings, of whatever height."""
        for x, y in places:
            near = self.tree.query(shapely.Point(x, y), predicate="dwithin", distance=self.wanted.bs_clearance - GRID)
            if not len(near) and (station := self._facing(x, y, self.wanted.bs_height)):
                yield station

    def on_roofs(self, mast: float) -> list[BaseStation]:
        """Base stations at the edges of roofs that face the middle of the tile."""
        found = []
        for footprint in self.footprints[shapely.area(self.footprints) >= LEAST_ROOF]:
            inside = shapely.buffer(footprint, -FROM_EDGE)
            if inside.is_empty:
                continue
            edge = shapely.ops.nearest_points(inside, shapely.Point(0, 0))[0]
            # Of buildings one above the other, on the highest.
            top = self.top[self.tree.query(edge, predicate="intersects")].max()
            if station := self._facing(edge.x, edge.y, float(top) + mast):
                found.append(station)
        return found

    def roadside(self, streets: gpd.GeoDataFrame, height: float) -> Iterator[BaseStation]:
        """Base stations along the kerbs of streets for vehicles, on open ground."""
        built = shapely.union_all(self.footprints, grid_size=GRID)
        ground = open_ground(built, self.size, self.wanted.bs_clearance)
        roads = road_network(streets, ground)
        shapely.prepare(ground)
        for start, way, length in zip(
            roads.node[roads.tail], roads.node[roads.head] - roads.node[roads.tail], roads.lengths, strict=True
        ):
            kerb = np.array([way[1], -way[0]]) / length * (LANE + PAVEMENT)
            for share in np.arange(0.0, length, ALONG) / length:
                x, y = (start + share * way + kerb).tolist()
                inside = max(abs(x), abs(y)) <= self.size / 2 - self.wanted.bs_clearance
                if inside and shapely.contains_xy(ground, x, y) and (station := self._facing(x, y, height)):
                    yield station

    def at(self, position: NDArray[np.float64]) -> BaseStation | None:
        """The base station at a place, unless that is inside a building."""
        x, y, z = position.tolist()
        here = self.tree.query(shapely.Point(x, y), predicate="dwithin", distance=GRID)
        if ((self.base[here] <= z) & (z <= self.top[here])).any():
            return None
        return BaseStation(position, _towards_the_middle(x, y))

    def _facing(self, x: float, y: float, z: float) -> BaseStation | None:
        """A base station there, unless a wall as high as it stands right in front of its panel."""
        azimuth = _towards_the_middle(x, y)
        front = turned_sector(x, y, self.wanted.bs_front, azimuth)
        facing = self.footprints[(self.top > z) & (self.base < z)]
        if shapely.intersects(facing, front).any():
            return None
        return BaseStation(np.array([x, y, z]), azimuth)


def turned_sector(x: float, y: float, radius: float, azimuth: float) -> BaseGeometry:
    """Ground in front of a panel at (x, y) that faces `azimuth` degrees from east: 90 degrees wide, `radius` m deep."""
    return affinity.rotate(front_sector(x, y, radius), azimuth + 90, origin=(x, y))


def _towards_the_middle(x: float, y: float) -> float:
    """Azimuth in degrees from (x, y) to the middle of the tile; in the middle itself, south."""
    return float(np.degrees(np.arctan2(-y, -x))) if np.hypot(x, y) > GRID else -90.0


def _far_apart(candidates: list[BaseStation], count: int, taken: list[NDArray[np.float64]]) -> list[BaseStation | None]:
    """Choose the candidate that is farthest from all base stations in plan, so many times, while one is `APART` away."""
    chosen: list[BaseStation | None] = []
    if not candidates:
        return [None] * count
    places = np.array([candidate.position[:2] for candidate in candidates])
    distance = np.min([np.hypot(*(places - other[:2]).T) for other in taken], axis=0)
    for _ in range(count):
        # Rounded, so that the order does not hang on the last bit: of equals the first.
        best = int(np.round(distance, 3).argmax())
        if distance[best] < APART:
            chosen.append(None)
            continue
        chosen.append(candidates[best])
        distance = np.minimum(distance, np.hypot(*(places - places[best]).T))
    return chosen
