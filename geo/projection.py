"""The local metric projection of a tile or a map: azimuthal equidistant, centred where it is used."""

from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

WGS84 = "EPSG:4326"


def local_crs(latitude: float, longitude: float) -> str:
    """PROJ string of the azimuthal-equidistant projection centred on a point; metres, x east, y north."""
    return f"+proj=aeqd +lat_0={latitude:.9f} +lon_0={longitude:.9f} +datum=WGS84 +units=m +no_defs"


@lru_cache(maxsize=64)
def cached_crs(definition: str) -> CRS:
    """Parsed CRS; parsing takes some 8 ms, as long as the work on a small tile."""
    return CRS.from_user_input(definition)


@lru_cache(maxsize=64)
def _to_local(latitude: float, longitude: float) -> Transformer:
    """Degrees to local metres; the same numbers as `Transformer.from_crs` gives, which looks up for 6 ms how to."""
    return Transformer.from_pipeline(
        "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
        f"+step +proj=aeqd +lat_0={latitude:.9f} +lon_0={longitude:.9f} +ellps=WGS84"
    )


def project(geometry: NDArray[np.object_], latitude: float, longitude: float) -> NDArray[np.object_]:
    """WGS84 geometries in local metres around a centre.

    Parameters
    ----------
    geometry : shapely objects (N,)
        Coordinates are longitude, latitude in degrees.
    latitude, longitude : float
        Centre in degrees.

    Returns
    -------
    shapely objects (N,)
    """
    to_local = _to_local(latitude, longitude)
    projected: NDArray[np.object_] = shapely.transform(
        geometry, lambda xy: np.column_stack(to_local.transform(xy[:, 0], xy[:, 1]))
    )
    return projected


def unproject(points: NDArray[np.float64], latitude: float, longitude: float) -> NDArray[np.float64]:
    """Local metres (N, 2) around a centre as longitude, latitude in degrees (N, 2).

    Examples
    --------
    >>> unproject(np.array([[0.0, 0.0]]), 60.17, 24.94).round(6)
    array([[24.94, 60.17]])
    """
    to_world = _to_local(latitude, longitude)
    return np.column_stack(to_world.transform(points[:, 0], points[:, 1], direction="INVERSE"))


def turned(longitude: float, reference: float) -> float:
    """The longitude within half a turn of a reference, in degrees: next to the antimeridian it may be beyond ±180.

    Examples
    --------
    >>> turned(-177.5, 178.4)
    182.5
    """
    return longitude - 360.0 * round((longitude - reference) / 360.0)


def within_turn(box: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
    """A box (west, south, east, north) in degrees cut at the antimeridian, with longitudes from -180 to 180.

    Examples
    --------
    >>> within_turn((179.0, -19.0, 182.0, -18.0))
    [(179.0, -19.0, 180.0, -18.0), (-180.0, -19.0, -178.0, -18.0)]
    """
    west, south, east, north = box
    if west >= -180 and east <= 180:
        return [box]
    edge = 180.0 if east > 180 else -180.0
    pieces = [(west, south, min(east, edge), north), (max(west, edge), south, east, north)]
    parts = []
    for left, _, right, _ in pieces:
        if left < right:
            shift = turned((left + right) / 2, 0.0) - (left + right) / 2
            parts.append((round(left + shift, 9), south, round(right + shift, 9), north))
    return parts


def world_bounds(
    bounds: tuple[float, float, float, float], latitude: float, longitude: float
) -> tuple[float, float, float, float]:
    """WGS84 box (west, south, east, north) that holds a box (x0, y0, x1, y1) in local metres.

    West is below east also across the antimeridian, where one of them is beyond ±180.
    """
    x0, y0, x1, y1 = bounds
    # Straight local edges bow in degrees, so the edges are sampled, not only the corners.
    edge = np.linspace(0.0, 1.0, 9)
    x = x0 + (x1 - x0) * edge
    y = y0 + (y1 - y0) * edge
    outline = np.concatenate(
        [
            np.column_stack([x, np.full(9, y0)]),
            np.column_stack([x, np.full(9, y1)]),
            np.column_stack([np.full(9, x0), y]),
            np.column_stack([np.full(9, x1), y]),
        ]
    )
    world = unproject(outline, latitude, longitude)
    world[:, 0] -= 360.0 * np.round((world[:, 0] - longitude) / 360.0)
    west, south = world.min(0)
    east, north = world.max(0)
    return float(west), float(south), float(east), float(north)


def to_world(geometry: NDArray[np.object_], latitude: float, longitude: float) -> NDArray[np.object_]:
    """Geometries in local metres around a centre in WGS84: longitude, latitude in degrees.

    One that crosses the antimeridian is cut there, as GeoParquet and GeoJSON ask for.

    Parameters
    ----------
    geometry : shapely objects (N,)
    latitude, longitude : float
        Centre in degrees.

    Returns
    -------
    shapely objects (N,)
    """

    def degrees(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        world = unproject(xy, latitude, longitude)
        turns = np.round((world[:, 0] - longitude) / 360)
        world[turns != 0, 0] -= 360 * turns[turns != 0]
        return world

    world: NDArray[np.object_] = shapely.transform(geometry, degrees)
    west, _, east, _ = shapely.bounds(world).T
    for row in np.flatnonzero((west < -180) | (east > 180)).tolist():
        sides = [
            shapely.transform(
                shapely.intersection(world[row], shapely.box(x - 180, -90, x + 180, 90)), lambda xy, x=x: xy - [x, 0]
            )
            for x in (-360, 0, 360)
        ]
        world[row] = shapely.union_all(sides)
    return world
