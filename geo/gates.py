"""Quality gates: requirements on a scene, measured on the finished mesh, rasters and positions.

Everything is measured by other means than it was built with (rays, triangles, windings), so that an error of a building
step is found. All numbers go to the receipts.
"""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from wavecity.geo.errors import SceneError
from wavecity.geo.footprints import TOUCH
from wavecity.geo.mesh import VOLUME_TOLERANCE, check_mesh
from wavecity.geo.polygons import GRID
from wavecity.geo.rasters import cell_centres
from wavecity.geo.scene import Mesh, Surface
from wavecity.geo.seeding import generator
from wavecity.geo.settings import SceneSettings, UserSettings
from wavecity.geo.users import front_sector, head_room

# Cells of the height map that are compared with the mesh in every build.
SAMPLED_CELLS = 400
# Nearer than this (m) to an edge of a triangle the result of a ray depends on rounding.
EDGE = 0.01
# Share of the tile; the union of the footprints has its corners on the grid, that of the triangles has not.
COVERAGE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Gate:
    """Range of a measured number in which a scene passes."""

    least: float = -np.inf
    most: float = np.inf


def limits(scene: SceneSettings, users: UserSettings) -> dict[str, Gate]:
    """Every gate and its range.

    Returns
    -------
    dict
        open_edges: edges of the mesh that are not shared by exactly two faces in opposite directions.
        volume_error_max: largest relative difference of a building's volume from area times height.
        inward_solids: connected solids that enclose a negative volume, and roofs or floors that face the wrong way.
        overlap_volume: m3 that two buildings share, without slivers of up to 2 mm.
        coverage_error: share of the tile by which roofs, seen from above, and footprints differ.
        overhang: m by which a vertex, a user or the base station lies outside the tile or below the ground.
        height_map_agreement: share of sampled cells where a ray cast down meets the height of the map.
        bs_clearance: m from the base station to the nearest building, in plan.
        bs_front: m from the panel to the nearest wall in front of it, at most the tile's size.
        user_clearance: m from a user to the nearest building without head room, in plan.
        users_outdoors: share of users in no solid, by the winding of the faces above them.
    """
    return {
        "open_edges": Gate(most=0),
        "volume_error_max": Gate(most=VOLUME_TOLERANCE),
        "inward_solids": Gate(most=0),
        "overlap_volume": Gate(most=0),
        "coverage_error": Gate(most=COVERAGE_TOLERANCE),
        "overhang": Gate(most=0),
        "height_map_agreement": Gate(least=1),
        # A millimetre for the rounding of footprints and positions.
        "bs_clearance": Gate(least=scene.bs_clearance - GRID),
        "bs_front": Gate(least=scene.bs_front - GRID),
        "user_clearance": Gate(least=users.clearance - 2 * GRID),
        "users_outdoors": Gate(least=1),
    }


def measure(
    mesh: Mesh,
    buildings: gpd.GeoDataFrame,
    union: BaseGeometry,
    heights: NDArray[np.float32],
    bs_position: NDArray[np.float64],
    positions: NDArray[np.float32],
    size: float,
    scene_id: str,
    user_settings: UserSettings,
    seed: int,
) -> dict[str, float | int | bool]:
    """Measure every gate, the size of the mesh, and how many users stand under a raised building.

    Parameters
    ----------
    mesh : Mesh
    buildings : geopandas.GeoDataFrame
        Columns height, base (m) and geometry (local metres), one row per `mesh.building`.
    union : shapely geometry
        Everything built on, seen from above.
    heights : float32 (rows, columns)
    bs_position : float64 (3,)
    positions : float32 (U, 3)
        Users.
    size : float
        Edge of the tile in m.
    scene_id : str
    user_settings : UserSettings
    seed : int
        With `scene_id` decides which cells are sampled.

    Raises
    ------
    SceneError
        A building's solid leaks or has a wrong volume (the message names the building).
    """
    roof = mesh.surface == Surface.ROOF
    triangles = shapely.polygons(mesh.vertices[mesh.faces[roof]][:, :, :2])
    inside, under = overhead(mesh, positions)
    standing = buildings["base"].to_numpy()[mesh.building[roof]] < head_room(user_settings)
    return {
        **check_mesh(mesh, buildings),
        "inward_solids": inward_solids(mesh),
        "overlap_volume": overlap_volume(buildings),
        "coverage_error": coverage_error(triangles, union, size),
        "overhang": overhang(mesh, bs_position, positions, size),
        "height_map_agreement": height_map_agreement(mesh, heights, size, scene_id, seed),
        "bs_clearance": _nearest(triangles, bs_position[None, :2], size),
        "bs_front": front_clearance(mesh, bs_position, size),
        "user_clearance": _nearest(triangles[standing], positions[:, :2], size),
        "users_outdoors": 1 - float(inside.mean()),
        "users_under_cover": int(under.sum()),
    }


def check(numbers: dict[str, float | int | bool], ranges: dict[str, Gate]) -> None:
    """Refuse a scene that misses a gate.

    Raises
    ------
    SceneError
        Naming the gate, its value and its limit.
    """
    for name, gate in ranges.items():
        value = numbers[name]
        if not gate.least <= value <= gate.most:
            limit = f"at most {gate.most:g}" if value > gate.most else f"at least {gate.least:g}"
            msg = f"gate {name}: {value:g}, {limit} wanted"
            raise SceneError(msg)


def inward_solids(mesh: Mesh) -> int:
    """Connected solids of negative volume, and roofs, floors and walls whose normal does not fit their kind."""
    if len(mesh.faces) == 0:
        return 0
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    links = coo_array(
        (np.ones(2 * len(mesh.faces)), (np.tile(mesh.faces[:, 0], 2), mesh.faces[:, 1:].T.ravel())),
        shape=(len(mesh.vertices), len(mesh.vertices)),
    )
    _, solid = connected_components(links, directed=False)
    volumes = np.bincount(solid[mesh.faces[:, 0]], weights=np.einsum("fi,fi->f", a, np.cross(b, c)))
    used = np.unique(solid[mesh.faces[:, 0]])
    upward = np.cross(b - a, c - a)[:, 2]
    wrong = (upward <= 0) & (mesh.surface == Surface.ROOF) | (upward >= 0) & (mesh.surface == Surface.FLOOR)
    leaning = (upward != 0) & (mesh.surface == Surface.WALL)
    return int((volumes[used] <= 0).sum() + wrong.sum() + leaning.sum())


def overlap_volume(buildings: gpd.GeoDataFrame) -> float:
    """Volume in m3 that two rows share, summed over all pairs, without slivers of up to 2 mm.

    Corners lie on a 1 mm grid, those of one outline not on the edges of the other: where two cross at a slant they
    share such slivers, which no ray resolves.
    """
    footprints = buildings.geometry.to_numpy()
    base, top = buildings["base"].to_numpy(), buildings["height"].to_numpy()
    left, right = shapely.STRtree(footprints).query(footprints, predicate="intersects")
    depth = np.minimum(top[left], top[right]) - np.maximum(base[left], base[right])
    pairs = (left < right) & (depth > 0)
    common = shapely.intersection(footprints[left[pairs]], footprints[right[pairs]], grid_size=GRID)
    area = shapely.area(common)
    wide = area >= TOUCH
    # Opening: what a disc of 2 mm fits into, at its full width.
    opened = shapely.buffer(shapely.buffer(common[wide], -GRID), GRID)
    return float(shapely.area(opened) @ depth[pairs][wide])


def coverage_error(roofs: NDArray[np.object_], union: BaseGeometry, size: float) -> float:
    """Share of the tile by which the area under the roofs' triangles differs from that of the footprints."""
    error = abs(shapely.union_all(roofs).area - union.area) / size**2
    if error > COVERAGE_TOLERANCE:
        # Without a grid the overlay is three times as fast, and sometimes wrong: repeat it with one before refusing a
        # scene.
        error = abs(shapely.union_all(roofs, grid_size=GRID).area - union.area) / size**2
    return float(error)


def overhang(mesh: Mesh, bs_position: NDArray[np.float64], positions: NDArray[np.float32], size: float) -> float:
    """Largest distance in m of a vertex, a user or the base station outside of the tile or below the ground, or 0."""
    points = np.concatenate([mesh.vertices, bs_position[None], positions.astype(np.float64)])
    return float(max(0.0, np.abs(points[:, :2]).max() - size / 2, -points[:, 2].min()))


def height_map_agreement(mesh: Mesh, heights: NDArray[np.float32], size: float, scene_id: str, seed: int) -> float:
    """Share of sampled cells where a ray cast down on the mesh's roofs meets the height of the map (within 1 cm).

    Cells whose centre lies within 1 cm of a triangle's edge are left out: there the result depends on rounding.
    """
    count = len(heights)
    rng = generator(seed, scene_id, "gates")
    cells = rng.choice(count * count, size=min(SAMPLED_CELLS, count * count), replace=False)
    x, y = cell_centres(size, count)
    points = np.column_stack([x[cells % count], y[cells // count]])
    ray, face, near = cast_down(mesh, points)
    top = np.zeros(len(points))
    up = mesh.surface[face] == Surface.ROOF
    np.maximum.at(top, ray[up], mesh.vertices[mesh.faces[face[up], 0], 2])
    agree = np.abs(top - heights.ravel()[cells]) < EDGE
    return float(agree[~near].mean()) if not near.all() else 1.0


def overhead(mesh: Mesh, points: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each point (N, 3) lies in a solid, and whether it lies under one.

    By the winding number of prisms: in one are more roofs than floors above the point, under one as many.
    """
    ray, face, _ = cast_down(mesh, points[:, :2].astype(np.float64))
    above = mesh.vertices[mesh.faces[face, 0], 2] > points[ray, 2]
    roof = mesh.surface[face] == Surface.ROOF
    roofs = np.bincount(ray[above & roof], minlength=len(points))
    floors = np.bincount(ray[above & ~roof], minlength=len(points))
    return roofs > floors, (floors > 0) & (roofs <= floors)


def front_clearance(mesh: Mesh, bs_position: NDArray[np.float64], size: float) -> float:
    """Distance in m from the panel to the nearest wall in the 90 degrees in front of it; `size` when there is none."""
    corners = mesh.vertices[mesh.faces[mesh.surface == Surface.WALL]]
    level = bs_position[2]
    crossing = (corners[:, :, 2].min(1) < level) & (corners[:, :, 2].max(1) > level)
    # A wall's triangle seen from above is a line: the whole edge of the footprint.
    walls = shapely.linestrings(corners[crossing][:, :, :2])
    sector = front_sector(bs_position[0], bs_position[1], size)
    shapely.prepare(sector)
    seen = shapely.intersection(walls[shapely.intersects(sector, walls)], sector)
    return float(np.nanmin(shapely.distance(seen, shapely.Point(bs_position[:2])), initial=size))


def cast_down(
    mesh: Mesh, points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Vertical lines through `points` (N, 2) against all roofs and floors.

    Returns
    -------
    ray, face : int64 (H,)
        Every hit: number of the point, number of the mesh's face.
    near : bool (N,)
        The line passes within 1 cm of a triangle's edge.
    """
    level = np.flatnonzero(mesh.surface != Surface.WALL)
    triangles = shapely.polygons(mesh.vertices[mesh.faces[level]][:, :, :2])
    targets = shapely.points(points)
    ray, hit = shapely.STRtree(triangles).query(targets, predicate="intersects")
    near = np.zeros(len(points), dtype=bool)
    near[shapely.STRtree(shapely.boundary(triangles)).query(targets, predicate="dwithin", distance=EDGE)[0]] = True
    return ray, level[hit], near


def _nearest(shapes: NDArray[np.object_], points: NDArray[np.floating], size: float) -> float:
    """Least distance in m between any of the points (N, 2) and any shape, at most the tile's size."""
    if len(shapes) == 0:
        return size
    tree = shapely.STRtree(shapes)
    _, distance = tree.query_nearest(shapely.points(points.astype(np.float64)), return_distance=True, all_matches=False)
    return float(min(size, distance.min()))
