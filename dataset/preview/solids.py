"""Buildings as closed solids of triangles."""

from typing import TypeAlias

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wavecity.dataset.vegetation import Crown

Array: TypeAlias = NDArray[np.float64]


def surface(buildings: gpd.GeoDataFrame) -> tuple[Array, NDArray[np.int64]]:
    """Triangles (T, 3, 3) of all buildings, and the row (T,) each belongs to."""
    solids, rows = [], []
    columns = zip(buildings.geometry, buildings["base"], buildings["height"], strict=True)
    for row, (footprint, base, top) in enumerate(columns):
        for polygon in shapely.get_parts(footprint):
            solids.append(prism(polygon, base, top))
            rows.append(np.full(len(solids[-1]), row))
    return np.concatenate(solids), np.concatenate(rows)


def crown_area(crown: Crown) -> Polygon:
    """Area of a crown seen from above; a tree's is a polygon of 24 corners."""
    if np.isnan(crown.radius):
        return Polygon(crown.rings[0], crown.rings[1:])
    area: Polygon = shapely.buffer(shapely.Point(crown.rings[0][0]), crown.radius, quad_segs=6)
    return area


def crown_surface(crown: Crown) -> Array:
    """Triangles (T, 3, 3) of a crown."""
    return prism(crown_area(crown), crown.base, crown.top)


def prism(polygon: Polygon, base: float, top: float) -> Array:
    """A polygon, holes kept, as a closed prism from `base` to `top` m.

    Returns
    -------
    float64 (T, 3, 3)
        Triangles, counter-clockwise from outside: roof, floor, then two for every edge of the footprint.
    """
    flat = shapely.get_coordinates(shapely.get_parts(shapely.constrained_delaunay_triangles(polygon)))
    flat = flat.reshape(-1, 4, 2)[:, :3]
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    clockwise = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    flat[clockwise] = flat[clockwise, ::-1]
    oriented = shapely.orient_polygons(polygon)
    rings = [shapely.get_coordinates(ring) for ring in (oriented.exterior, *oriented.interiors)]
    start = np.concatenate([ring[:-1] for ring in rings])
    end = np.concatenate([ring[1:] for ring in rings])

    def at(points: Array, z: float) -> Array:
        return np.concatenate([points, np.full((*points.shape[:-1], 1), z)], axis=-1)

    low, low_end, high, high_end = at(start, base), at(end, base), at(start, top), at(end, top)
    walls = [np.stack([low, low_end, high_end], axis=1), np.stack([low, high_end, high], axis=1)]
    return np.concatenate([at(flat, top), at(flat[:, ::-1], base), *walls])
