"""Rows of similar buildings, of one type and about one size, that share walls: one height where the map states none."""

import numpy as np
import shapely
from numpy.typing import NDArray

# Buildings farther apart than this (m) do not decide on each other; rows may be longer.
ROW_REACH = 50.0
# Walls closer than this (m) are shared.
SHARED = 0.2
# Largest ratio of the footprints of two like buildings.
LIKE = 1.5


def row_leaders(
    local: NDArray[np.object_],
    kinds: NDArray[np.str_],
    areas: NDArray[np.float64],
    centres: NDArray[np.float64],
    numbers: NDArray[np.int64],
    untagged: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
) -> dict[int, int]:
    """For every wanted building in a row, the building of median footprint within reach, whose height it takes.

    Parameters
    ----------
    local : Polygon (N,)
        Footprints in local metres.
    kinds : str (N,)
        Values of the tag `building`.
    areas : float64 (N,)
        Footprints in m2.
    centres : float64 (N, 2)
        Centroids in m; nan for empty footprints.
    numbers : int64 (N,)
        OSM ids, which decide between equal footprints.
    untagged, wanted : bool (N,)
        Buildings without a height, and those of them whose height is wanted.

    Returns
    -------
    dict
        Row -> row of its leader; buildings that are in no row are left out.
    """
    if not (wanted & untagged).any():
        return {}
    here = centres[wanted & untagged]
    inside = ((centres >= here.min(axis=0) - ROW_REACH) & (centres <= here.max(axis=0) + ROW_REACH)).all(axis=1)
    rows = np.flatnonzero(untagged & inside)
    left, right = (rows[side] for side in shapely.STRtree(local[rows]).query(local[rows]))
    like = (left < right) & (kinds[left] == kinds[right])
    like &= np.maximum(areas[left], areas[right]) <= LIKE * np.minimum(areas[left], areas[right])
    left, right = left[like], right[like]
    shared = shapely.dwithin(local[left], local[right], SHARED)
    joined: dict[int, list[int]] = {}
    for one, other in zip(left[shared].tolist(), right[shared].tolist(), strict=True):
        joined.setdefault(one, []).append(other)
        joined.setdefault(other, []).append(one)
    leaders = {}
    for row in joined:
        if wanted[row]:
            members = _within_reach(row, joined, centres)
            # In tenths of a m2: the last bits differ from tile to tile.
            members.sort(key=lambda member: (round(float(areas[member]), 1), int(numbers[member])))
            leaders[row] = members[(len(members) - 1) // 2]
    return leaders


def _within_reach(row: int, joined: dict[int, list[int]], centres: NDArray[np.float64]) -> list[int]:
    """Buildings of a row that are joined to one of them by others within reach."""
    x, y = centres[row].tolist()
    found, ahead = {row}, [row]
    while ahead:
        for other in joined[ahead.pop()]:
            if other not in found and (centres[other, 0] - x) ** 2 + (centres[other, 1] - y) ** 2 <= ROW_REACH**2:
                found.add(other)
                ahead.append(other)
    return list(found)
