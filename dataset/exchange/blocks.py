"""Buildings as triangles, for the scene of a DeepMIMO scenario, and triangles as a height map."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import shapely

WALL, ROOF, GROUND = 0, 1, 2


@dataclass(frozen=True)
class Block:
    """An object of a scene as triangles.

    Attributes
    ----------
    name, label : str
        DeepMIMO's labels: `buildings`, `terrain`.
    vertices : float64 (V, 3)
        Metres, scene frame.
    faces : int64 (F, 3)
    materials : int64 (F,)
        `WALL`, `ROOF` or `GROUND`.
    """

    name: str
    label: str
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    materials: NDArray[np.int64]


def prism(name: str, footprint: "shapely.Geometry", base: float, top: float) -> Block | None:
    """A building from its footprint, closed: walls, roof and floor; None where the footprint has no area.

    Parameters
    ----------
    name : str
    footprint : shapely.Polygon or MultiPolygon
        Metres, scene frame.
    base, top : float
        Metres above the ground.
    """
    import shapely

    parts = [part for part in shapely.get_parts(footprint) if part.geom_type == "Polygon" and part.area > 0]
    corners: list[NDArray[np.float64]] = []
    materials: list[int] = []
    for part in parts:
        for ring in (part.exterior, *part.interiors):
            plan = np.asarray(ring.coords)[:, :2]
            low, high = (np.column_stack([plan, np.full(len(plan), z)]) for z in (base, top))
            corners += [np.stack([low[:-1], low[1:], high[1:]], 1), np.stack([low[:-1], high[1:], high[:-1]], 1)]
            materials += [WALL] * (2 * (len(plan) - 1))
        cover = np.stack(
            [
                np.asarray(triangle.exterior.coords)[:3, :2]
                for triangle in shapely.get_parts(shapely.constrained_delaunay_triangles(part))
            ]
        )
        for z in (top, base):
            corners.append(np.concatenate([cover, np.full((*cover.shape[:2], 1), z)], -1))
            materials += [ROOF] * len(cover)
    if not corners:
        return None
    return _welded(name, "buildings", np.concatenate(corners), np.array(materials))


def ground(size: float) -> Block:
    """The ground of a tile: a square around the origin."""
    half = size / 2
    square = np.array([[-half, -half, 0.0], [half, -half, 0.0], [half, half, 0.0], [-half, half, 0.0]])
    return _welded("ground", "terrain", square[[[0, 1, 2], [0, 2, 3]]], np.full(2, GROUND))


def height_map(triangles: NDArray[np.floating], size: float, cells: int) -> NDArray[np.float32]:
    """Height of the highest surface at the centre of each cell of a tile.

    Parameters
    ----------
    triangles : float (F, 3, 3)
        Metres, scene frame.
    size : float
        Edge of the tile in m, centred at the origin.
    cells : int
        Along an edge.

    Returns
    -------
    float32 (cells, cells)
        Metres, row 0 = north; 0 where nothing is above the ground.
    """
    height = np.zeros((cells, cells))
    # In cells: column from the west edge, row from the north edge, at cell centres integers.
    corners = np.asarray(triangles, np.float64).copy()
    corners[..., 0] = (corners[..., 0] + size / 2) / size * cells - 0.5
    corners[..., 1] = (size / 2 - corners[..., 1]) / size * cells - 0.5
    side = corners[:, 1:, :2] - corners[:, :1, :2]
    area = side[:, 0, 0] * side[:, 1, 1] - side[:, 0, 1] * side[:, 1, 0]
    for corner, twice in zip(corners[np.abs(area) > 1e-9], area[np.abs(area) > 1e-9], strict=True):
        low = np.clip(np.ceil(corner[:, :2].min(0) - 1e-9), 0, cells).astype(int)
        high = np.clip(np.floor(corner[:, :2].max(0) + 1e-9) + 1, 0, cells).astype(int)
        if (low >= high).any():
            continue
        column, row = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        away = np.stack([column - corner[0, 0], row - corner[0, 1]])
        first, second = corner[1:, :2] - corner[0, :2]
        a = (away[0] * second[1] - away[1] * second[0]) / twice
        b = (away[1] * first[0] - away[0] * first[1]) / twice
        inside = (a >= -1e-9) & (b >= -1e-9) & (a + b <= 1 + 1e-9)
        surface = corner[0, 2] + a * (corner[1, 2] - corner[0, 2]) + b * (corner[2, 2] - corner[0, 2])
        window = height[low[1] : high[1], low[0] : high[0]]
        np.maximum(window, np.where(inside, surface, 0), out=window)
    return height.astype(np.float32)


def _welded(name: str, label: str, corners: NDArray[np.float64], materials: NDArray[np.int64]) -> Block:
    """Triangles (F, 3, 3) with equal vertices made one."""
    vertices, faces = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return Block(name, label, vertices, faces.reshape(-1, 3), materials)
