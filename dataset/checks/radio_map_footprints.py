"""Radio maps and the buildings' footprints: a second opinion on which cells are open, and which see the base station.

Shapely and NumPy only, as `wavecity.dataset.checks.line_of_sight`.
"""

from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import NDArray

from wavecity.dataset.checks.line_of_sight import TOLERANCE, blocked_users
from wavecity.dataset.checks.radio_maps import base_station, middles
from wavecity.dataset.radio_maps import GROUP
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays

if TYPE_CHECKING:
    import geopandas as gpd

# Cells whose line of sight is looked at, evenly spread: each takes some 50 us.
SIGHTS = 400


def check_footprints(buildings: "gpd.GeoDataFrame", arrays: Arrays, attrs: StoreAttributes) -> str:
    """Compare a scene's empty cells with its footprints, and its line of sight with what these hide.

    Cells whose middle lies within the tolerance of a building's surface may be either.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Of this scene (see `line_of_sight.blocked_users`).
    arrays : dict
        Of the scene.
    attrs : dict
        Of the store.

    Returns
    -------
    str
        One line, or nothing where all cells hold.
    """
    some = next(values for name, values in arrays.items() if name.startswith(f"{GROUP}/"))
    points = middles(some, attrs).reshape(-1, 3)
    empty = np.isnan(some).ravel()
    larger, smaller = (_within(buildings, points, tolerance) for tolerance in (TOLERANCE, -TOLERANCE))
    findings = []
    if (empty & ~larger).any():
        findings.append(f"{int((empty & ~larger).sum())} cells on open ground are empty")
    if (~empty & smaller).any():
        findings.append(f"{int((~empty & smaller).sum())} cells inside buildings are not empty")
    if f"{GROUP}/los" in arrays:
        ground = np.flatnonzero(~empty)
        ground = ground[:: max(1, len(ground) // SIGHTS)]
        sight = blocked_users(buildings, points[ground], base_station(arrays, attrs))
        seen = arrays[f"{GROUP}/los"].ravel()[ground] == 1
        wrong = sight.certain & (seen == sight.blocked)
        if wrong.any():
            findings.append(
                f"line of sight of {int(wrong.sum())} of {len(ground)} cells is not what the footprints say"
            )
    return "; ".join(findings)


def _within(buildings: "gpd.GeoDataFrame", points: NDArray[np.float64], tolerance: float) -> NDArray[np.bool_]:
    """Which points (N, 3) of one height are in a building that is larger by the tolerance on all sides, or smaller."""
    base, top = (buildings[name].to_numpy(np.float64) for name in ("base", "height"))
    height = points[:, 2].max(initial=0.0)
    standing = (base - tolerance <= height) & (height <= top + tolerance)
    shapes = shapely.buffer(buildings.geometry.to_numpy()[standing], tolerance, join_style="mitre")
    _, found = shapely.STRtree(shapely.points(points[:, :2])).query(shapes, predicate="contains")
    within = np.zeros(len(points), bool)
    within[found] = True
    return within
