"""The height map of changed buildings, in the layout of a store's `height`."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.rasters import height_map

if TYPE_CHECKING:
    import geopandas as gpd


def height_map_of(buildings: "gpd.GeoDataFrame", size: float, cells: int) -> NDArray[np.float32]:
    """Height of the highest building at the centre of each cell, float32 (cells, cells); row 0 = north.

    Parameters
    ----------
    buildings : GeoDataFrame
        `geometry` in the scene's metres and `height` above the ground.
    size : float
        Edge of the tile, m.
    cells : int
        Along the edge.

    Examples
    --------
    >>> height_map_of(buildings_of("runs/quickstart/store", 0), 200.0, 200).shape  # doctest: +SKIP
    (200, 200)
    """
    return height_map(buildings, size, cells)
