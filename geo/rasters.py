"""Rasters of the buildings: a height map and an occupancy grid. Row 0 is north, column 0 is west."""

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wavecity.geo.errors import InputError

# Finer than the footprints' grid, so that areas keep seven digits; see polygons.GRID for why there is one.
AREA_GRID = 1e-6


def grid_length(size: float, cell: float, field: str) -> int:
    """Number of cells along the tile's edge.

    Raises
    ------
    InputError
        The cell does not divide the tile.
    """
    count = round(size / cell)
    if count < 1 or abs(count * cell - size) > 1e-6 * size:
        msg = f"{field}: {cell:g} m does not divide the tile of {size:g} m; choose a divisor"
        raise InputError(msg)
    return count


def cell_centres(size: float, count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell centres in m: x of the columns, y of the rows, which falls from north to south.

    Examples
    --------
    >>> cell_centres(4.0, 2)
    (array([-1.,  1.]), array([ 1., -1.]))
    """
    offset = ((np.arange(count) + 0.5) * (size / count) - size / 2).astype(np.float64)
    return offset, -offset


def height_map(buildings: gpd.GeoDataFrame, size: float, count: int) -> NDArray[np.float32]:
    """Height of the highest building at each cell centre.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Columns height (m) and geometry (local metres).
    size : float
        Edge of the tile in m.
    count : int
        Cells along it.

    Returns
    -------
    float32 (count, count)
        Metres above ground, 0 on open ground.
    """
    x, y = cell_centres(size, count)
    heights = np.zeros((count, count), dtype=np.float32)
    for footprint, top in zip(buildings.geometry, buildings["height"], strict=True):
        x0, y0, x1, y1 = footprint.bounds
        columns = np.flatnonzero((x >= x0) & (x <= x1))
        rows = np.flatnonzero((y >= y0) & (y <= y1))
        if len(columns) == 0 or len(rows) == 0:
            continue
        window = heights[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        shapely.prepare(footprint)
        inside = shapely.intersects_xy(footprint, *np.meshgrid(x[columns], y[rows]))
        np.maximum(window, np.where(inside, np.float32(top), np.float32(0)), out=window)
    return heights


def occupancy_grid(built: BaseGeometry, size: float, count: int, threshold: float) -> NDArray[np.uint8]:
    """Patches of which more than `threshold` is built on.

    Parameters
    ----------
    built : shapely geometry
        Union of all footprints in local metres.
    size : float
        Edge of the tile in m.
    count : int
        Patches along it.
    threshold : float
        Share of a patch; exactly this share is not occupied.

    Returns
    -------
    uint8 (count, count)

    Examples
    --------
    >>> occupancy_grid(shapely.box(-10, 0, 0, 10), 20.0, 2, 0.6)
    array([[1, 0],
           [0, 0]], dtype=uint8)
    """
    share = patch_shares(built, size, count)
    # A share of exactly 60 % comes out of the overlay as 0.6 and some rounding.
    return (share > threshold + 1e-6).astype(np.uint8)


def patch_shares(built: BaseGeometry, size: float, count: int) -> NDArray[np.float64]:
    """Share (count, count) of every patch that is built on, from areas, same orientation as the rasters.

    Examples
    --------
    >>> patch_shares(shapely.box(-10, 0, 0, 5), 20.0, 2)
    array([[0.5, 0. ],
           [0. , 0. ]])
    """
    x, y = cell_centres(size, count)
    half = size / count / 2
    pieces = shapely.get_parts(built)
    areas = np.zeros((count, count))
    for column, centre in enumerate(x):
        strip = shapely.clip_by_rect(pieces, centre - half, -size / 2, centre + half, size / 2)
        strip = strip[~shapely.is_empty(strip)]
        _, south, _, north = shapely.bounds(strip).T
        for row, middle in enumerate(y):
            there = strip[(south < middle + half) & (north > middle - half)]
            if len(there):
                box = (centre - half, middle - half, centre + half, middle + half)
                areas[row, column] = shapely.area(shapely.clip_by_rect(there, *box)).sum()
    # Clipping is four times as fast as overlays but promises nothing for odd shapes: the areas must add up.
    if abs(areas.sum() - shapely.area(built)) > 1e-6 * size**2:
        areas = _patch_areas_by_overlay(pieces, x, y, half)
    return areas / (2 * half) ** 2


def _patch_areas_by_overlay(
    pieces: NDArray[np.object_], x: NDArray[np.float64], y: NDArray[np.float64], half: float
) -> NDArray[np.float64]:
    """Built area of the patches of some pieces, by overlays."""
    columns, rows = np.meshgrid(x, y)
    patches = shapely.box(columns - half, rows - half, columns + half, rows + half).ravel()
    piece, patch = shapely.STRtree(patches).query(pieces, predicate="intersects")
    areas = shapely.area(shapely.intersection(pieces[piece], patches[patch], grid_size=AREA_GRID))
    total: NDArray[np.float64] = np.bincount(patch, weights=areas, minlength=columns.size).astype(np.float64)
    return total.reshape(columns.shape)
