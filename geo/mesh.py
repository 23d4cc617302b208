"""Closed prisms from footprints: Steiner-free triangulation, welded vertices, outward faces, and their checks."""

from collections import Counter

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wavecity.geo.errors import SceneError
from wavecity.geo.polygons import polygons
from wavecity.geo.scene import Mesh, Surface

VOLUME_TOLERANCE = 1e-6


def build_mesh(buildings: gpd.GeoDataFrame) -> Mesh:
    """Mesh of all buildings: one closed solid for every polygon.

    Roof, walls and floor of a solid share their vertices (diffraction finds edges only there); different solids
    never share any, so that two buildings that touch along a wall, an edge or a corner stay two manifolds.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Columns height, base (m) and geometry: valid Polygons or MultiPolygons without rings that meet in a point.

    Raises
    ------
    SceneError
        A solid is not closed, or its volume is not area times height.

    Examples
    --------
    >>> mesh = build_mesh(prints.buildings)
    >>> check_mesh(mesh, prints.buildings)["watertight"]
    True
    """
    vertices, faces, owners, surfaces = [], [], [], []
    count = 0
    columns = zip(buildings.geometry, buildings["base"], buildings["height"], strict=True)
    for row, (footprint, base, top) in enumerate(columns):
        for polygon in polygons(footprint):
            xyz, triangles, surface = extrude(polygon, base, top)
            vertices.append(xyz)
            faces.append(triangles + count)
            owners.append(np.full(len(triangles), row, dtype=np.int32))
            surfaces.append(surface)
            count += len(xyz)
    mesh = Mesh(
        vertices=np.concatenate(vertices) if vertices else np.empty((0, 3)),
        faces=np.concatenate(faces).astype(np.int32) if faces else np.empty((0, 3), dtype=np.int32),
        building=np.concatenate(owners) if owners else np.empty(0, dtype=np.int32),
        surface=np.concatenate(surfaces) if surfaces else np.empty(0, dtype=np.uint8),
    )
    check_mesh(mesh, buildings)
    return mesh


def extrude(
    polygon: Polygon, base: float, top: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.uint8]]:
    """One polygon as a closed prism.

    Returns
    -------
    vertices : float64 (2 N, 3)
        The N corners of the footprint at `base`, then the same corners at `top`.
    faces : int64 (F, 3)
        Counter-clockwise from outside: roof, floor, two triangles for every edge of the footprint.
    surface : uint8 (F,)
    """
    corners, edges = _rings(polygon)
    flat = triangulate(polygon, corners, edges)
    n = len(corners)
    vertices = np.column_stack([np.tile(corners, (2, 1)), np.repeat([base, top], n)])
    start, end = edges.T
    walls = np.concatenate([np.column_stack([start, end, end + n]), np.column_stack([start, end + n, start + n])])
    faces = np.concatenate([flat + n, flat[:, ::-1], walls])
    surface = np.repeat([Surface.ROOF, Surface.FLOOR, Surface.WALL], [len(flat), len(flat), len(walls)])
    return vertices, faces, surface.astype(np.uint8)


def triangulate(polygon: Polygon, corners: NDArray[np.float64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Constrained Delaunay triangulation whose outline is exactly the polygon's edges.

    Parameters
    ----------
    polygon : Polygon
    corners : float64 (N, 2)
    edges : int64 (E, 2)
        Directed: the interior lies to the left.

    Returns
    -------
    int64 (T, 3)
        Corners of every triangle, counter-clockwise. No new vertices.

    Raises
    ------
    SceneError
        The triangulation splits or skips an edge; the solid would leak there.
    """
    index = {(x, y): row for row, (x, y) in enumerate(corners.tolist())}
    found = shapely.get_coordinates(shapely.get_parts(shapely.constrained_delaunay_triangles(polygon)))
    points = found.reshape(-1, 4, 2)[:, :3]
    try:
        flat = np.array([index[x, y] for x, y in points.reshape(-1, 2).tolist()], dtype=np.int64).reshape(-1, 3)
    except KeyError as error:
        msg = f"roof triangulation invents the vertex {error}"
        raise SceneError(msg) from error
    a, b, c = (points[:, k] for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    flat[area < 0] = flat[area < 0][:, ::-1]
    if _open_edges(flat, len(corners)) != sorted((edges[:, 0] * len(corners) + edges[:, 1]).tolist()):
        msg = f"roof triangulation does not follow the outline at {polygon.representative_point().wkt}"
        raise SceneError(msg)
    return flat


def check_mesh(mesh: Mesh, buildings: gpd.GeoDataFrame) -> dict[str, float | int | bool]:
    """Check every building: closed, consistently outward, volume equal to area times height within 1e-6.

    Returns
    -------
    dict
        watertight (bool), open_edges, volume_error_max (relative), n_vertices, n_faces.

    Raises
    ------
    SceneError
        Naming the building that fails.
    """
    volumes = signed_volumes(mesh, len(buildings))
    expected = shapely.area(buildings.geometry.to_numpy()) * (buildings["height"] - buildings["base"]).to_numpy()
    error = np.abs(volumes - expected) / np.maximum(expected, 1e-9)
    leaks = _leaks(mesh.faces)
    leaking = set(mesh.building[leaks].tolist())
    for row in range(len(buildings)):
        if row in leaking or error[row] > VOLUME_TOLERANCE:
            reason = "is not closed" if row in leaking else f"has a volume off by {error[row]:.2g}"
            msg = f"mesh of {buildings['osm_type'].iloc[row]} {buildings['osm_id'].iloc[row]} {reason}"
            raise SceneError(msg)
    return {
        "watertight": True,
        "open_edges": int(leaks.sum()),
        "volume_error_max": float(error.max(initial=0.0)),
        "n_vertices": len(mesh.vertices),
        "n_faces": len(mesh.faces),
    }


def signed_volumes(mesh: Mesh, n_buildings: int) -> NDArray[np.float64]:
    """Volume (n_buildings,) in m3 that each building's faces enclose (divergence theorem); negative when inside out."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    six = np.einsum("fi,fi->f", a, np.cross(b, c))
    return np.bincount(mesh.building, weights=six, minlength=n_buildings) / 6


def _rings(polygon: Polygon) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Corners (N, 2) of all rings, and their edges (N, 2) with the interior to the left."""
    oriented = shapely.orient_polygons(polygon)
    rings = [shapely.get_coordinates(ring)[:-1] for ring in (oriented.exterior, *oriented.interiors)]
    edges: list[NDArray[np.int64]] = []
    count = 0
    for ring in rings:
        numbers = np.arange(count, count + len(ring))
        edges.append(np.column_stack([numbers, np.roll(numbers, -1)]))
        count += len(ring)
    return np.concatenate(rings), np.concatenate(edges)


def _open_edges(faces: NDArray[np.int64], n: int) -> list[int]:
    """Directed edges, as start * n + end, that no other face runs through in the opposite direction; listed twice if
    run through twice.
    """
    start, end = faces, faces[:, [1, 2, 0]]
    counts = Counter((start * n + end).ravel().tolist())
    backward = set((end * n + start).ravel().tolist())
    return sorted([key for key in counts if key not in backward] + [key for key, count in counts.items() if count > 1])


def _leaks(faces: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Faces (F,) with an edge that is not shared by exactly two faces running through it in opposite directions."""
    n = int(faces.max(initial=0)) + 1
    start = faces.astype(np.int64)
    end = np.roll(start, -1, axis=1)
    forward, backward = start * n + end, end * n + start
    keys, counts = np.unique(forward, return_counts=True)
    place = np.minimum(np.searchsorted(keys, backward), max(len(keys) - 1, 0))
    mirrored = keys[place] == backward if len(keys) else np.zeros_like(backward, dtype=bool)
    doubled = counts[np.searchsorted(keys, forward)] > 1
    leaks: NDArray[np.bool_] = (~mirrored | doubled).any(axis=1)
    return leaks
