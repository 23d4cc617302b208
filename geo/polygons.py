"""Polygons on a grid: repair, simplification, and removal of points where rings meet."""

from collections import Counter
from itertools import pairwise

import numpy as np
import shapely
import shapely.errors
from numpy.typing import NDArray
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

# All coordinates lie on a 1 mm grid: equal corners are equal bits. Every overlay of this package names a grid, so that
# GEOS rounds robustly; without one the result is sometimes wrong (GEOS 3.14.1: an overlap of 10 m2 where there is
# none).
GRID = 0.001
# Half a channel of this width (m) opened where two rings of a polygon meet in one point.
PINCH = 0.01


def simplify_together(footprints: list[BaseGeometry], tolerance: float) -> list[BaseGeometry]:
    """Drop near-collinear vertices (Douglas-Peucker, tolerance in m) without opening gaps between neighbours.

    A vertex that several footprints share is kept in all of them; only the chains between such vertices are simplified.
    A footprint that simplification would break keeps its vertices.
    """
    if not footprints or tolerance <= 0:
        return footprints
    counts: Counter[int] = Counter()
    for footprint in footprints:
        counts.update(set(_grid_keys(shapely.get_coordinates(footprint))))
    shared = {key for key, count in counts.items() if count > 1}

    def simplify_ring(ring: NDArray[np.float64]) -> NDArray[np.float64]:
        ring = ring[:-1]
        fixed = [index for index, key in enumerate(_grid_keys(ring)) if key in shared]
        # Without shared vertices any two far-apart ones anchor the ring, so that it cannot start in a flat spot.
        if not fixed:
            first = int(np.lexsort((ring[:, 1], ring[:, 0]))[0])
            fixed = sorted({first, int(np.argmax(np.hypot(*(ring - ring[first]).T)))})
        if len(fixed) == len(ring):
            return np.concatenate([ring, ring[:1]])
        stops = [index - fixed[0] for index in fixed] + [len(ring)]
        closed = np.concatenate([ring[fixed[0] :], ring[: fixed[0] + 1]])
        chains = np.concatenate([closed[start : stop + 1] for start, stop in pairwise(stops)])
        number = np.repeat(np.arange(len(fixed)), np.diff(stops) + 1)
        lines = shapely.simplify(shapely.linestrings(chains, indices=number), tolerance)
        points, line = shapely.get_coordinates(lines, return_index=True)
        # Every chain ends where the next begins; the last where the first does.
        return np.concatenate([points[:-1][line[:-1] == line[1:]], closed[:1]])

    simplified = []
    for footprint in footprints:
        pieces = []
        for polygon in polygons(footprint):
            rings = [simplify_ring(shapely.get_coordinates(ring)) for ring in (polygon.exterior, *polygon.interiors)]
            # A ring of two points has lost its area; only the shell is needed for a polygon.
            if len(rings[0]) >= 4:
                pieces.append(Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 4]))
        result = MultiPolygon(pieces)
        simplified.append(result if pieces and result.is_valid else footprint)
    return simplified


def _grid_keys(points: NDArray[np.float64]) -> list[int]:
    """A number for every point (N, 2), equal for points in the same place of the grid."""
    x, y = np.round(points / GRID).astype(np.int64).T
    keys: list[int] = (x * 2**32 + y).tolist()
    return keys


def polygons(geometry: BaseGeometry) -> list[Polygon]:
    """Polygons of a geometry, with area; lines and points that overlays leave behind are dropped."""
    parts = shapely.get_parts(geometry, return_index=False)
    flat = [
        piece
        for part in parts
        for piece in (shapely.get_parts(part) if part.geom_type.startswith(("Multi", "Geom")) else [part])
    ]
    return [piece for piece in flat if piece.geom_type == "Polygon" and piece.area > 0]


def repair(geometry: NDArray[np.object_]) -> NDArray[np.object_]:
    """Valid polygons (N,) on the 1 mm grid, whatever the rings (N,) were: self-crossing, doubled, degenerate."""
    broken = ~shapely.is_valid(geometry)
    sound = geometry.copy()
    if broken.any():
        sound[broken] = shapely.make_valid(geometry[broken], method="structure", keep_collapsed=False)
    repaired = _on_grid(sound)
    # Lines and points that are left of collapsed rings.
    for index in np.flatnonzero(~np.isin(shapely.get_type_id(repaired), (3, 6))):
        repaired[index] = MultiPolygon(polygons(repaired[index]))
    return repaired


def _on_grid(sound: NDArray[np.object_]) -> NDArray[np.object_]:
    """Polygons rounded to the grid."""
    try:
        snapped: NDArray[np.object_] = shapely.set_precision(sound, GRID)
    except shapely.errors.GEOSException:
        snapped = np.array([_one_on_grid(geometry) for geometry in sound], dtype=object)
    return snapped


def _one_on_grid(geometry: BaseGeometry) -> BaseGeometry:
    """One polygon rounded to the grid; where GEOS fails, on rings much thinner than it, by rounding and repair."""
    try:
        return shapely.set_precision(geometry, GRID)
    except shapely.errors.GEOSException:
        rounded = shapely.set_precision(geometry, GRID, mode="pointwise")
        return shapely.set_precision(shapely.make_valid(rounded, method="structure", keep_collapsed=False), GRID)


def unpinch(polygon: Polygon) -> BaseGeometry:
    """A polygon whose rings share a point would become a solid with a vertical edge of four walls: open the point."""
    corners = [tuple(xy) for ring in (polygon.exterior, *polygon.interiors) for xy in ring.coords[:-1]]
    if len(set(corners)) == len(corners):
        return polygon
    return shapely.set_precision(polygon.buffer(-PINCH, join_style="mitre"), GRID)
