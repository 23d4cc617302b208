"""Radio maps in a store: arrays, axes and conventions of the group `radio_map`.

Apart from `wavecity.dataset.schema`, which every dataset depends on: a store without radio maps is what it was before there
were any (`wavecity.flows.fingerprint`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.records import RadioMapAttributes
from wavecity.dataset.schema import ArraySpec, TrajectoryAxis
from wavecity.raytrace.radio_map_settings import METRICS

GROUP = "radio_map"

RADIO_MAP_CONVENTION = (
    "Group radio_map: what a receiver has at the middle of each cell of a grid over the tile, receiver_height_m above the "
    "ground, from all paths. Row 0 is north, column 0 is west; north and east are the cells' middles in the scene frame. NaN "
    "where that middle is inside a building. Where no path arrives path_gain is at the floor, the spreads are 0 and best_beam "
    "is -1."
)

# Coordinates of the group, float64; written by the finishing step.
RADIO_MAP_AXES = [
    TrajectoryAxis("north", "map_row", "m", "middle of the cells, north of the tile's centre"),
    TrajectoryAxis("east", "map_column", "m", "middle of the cells, east of the tile's centre"),
]


def radio_map_specs(metrics: Sequence[str]) -> list[ArraySpec]:
    """Arrays of a store with these metrics.

    Examples
    --------
    >>> [spec.name for spec in radio_map_specs(["path_gain", "los"])]
    ['radio_map/path_gain', 'radio_map/los']
    """
    dims = ("scene", "map_row", "map_column")
    return [ArraySpec(f"{GROUP}/{name}", dims, "float32", np.nan, *METRICS[name]) for name in metrics]


def radio_map_axes(cells: int, spacing: float) -> dict[str, NDArray[np.float64]]:
    """Coordinates of the group: middles of the cells in m from the tile's centre, by the names of `RADIO_MAP_AXES`.

    Parameters
    ----------
    cells : int
        Along an edge.
    spacing : float
        Edge of a cell in m.

    Examples
    --------
    >>> radio_map_axes(2, 100.0)
    {'north': array([ 50., -50.]), 'east': array([-50.,  50.])}
    """
    east: NDArray[np.float64] = (np.arange(cells, dtype=np.float64) + 0.5 - cells / 2) * spacing
    return {"north": np.negative(east), "east": east}


def radio_map_text(attributes: RadioMapAttributes, metrics: Sequence[str]) -> str:
    """Grid and metrics in a line.

    Examples
    --------
    >>> radio_map_text({"spacing_m": 1.0, "receiver_height_m": 1.5}, ["path_gain", "los"])
    'path_gain, los in cells of 1 m, 1.5 m above ground'
    """
    return f"{', '.join(metrics)} in cells of {attributes['spacing_m']:g} m, {attributes['receiver_height_m']:g} m above ground"
