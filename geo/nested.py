"""Buildings that are mapped inside another building (domes, naves, towers over a hall): both stand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import MultiPolygon

from wavecity.geo.guess import SLABS, is_low
from wavecity.geo.heights import Height
from wavecity.geo.polygons import GRID, polygons

# Inside: this much of it lies within the other; and it is smaller by as much, or it is the same building drawn twice.
INSIDE = 0.9


def holders(local: NDArray[np.object_], kinds: NDArray[np.str_], wanted: NDArray[np.bool_]) -> dict[int, int]:
    """For every wanted building inside a larger one the smallest such; larger buildings first.

    Parameters
    ----------
    local : Polygon (N,)
        Footprints in local metres.
    kinds : str (N,)
        `building`, `part`, or why a feature is neither.
    wanted : bool (N,)

    Returns
    -------
    dict
        Row -> row of the building around it.
    """
    area = shapely.area(local)
    buildings = np.flatnonzero((kinds == "building") & (area > 0))
    inner = buildings[wanted[buildings]]
    if len(inner) == 0:
        return {}
    which, around = shapely.STRtree(local[buildings]).query(shapely.point_on_surface(local[inner]), predicate="within")
    rows, outer = inner[which], buildings[around]
    larger = area[rows] < INSIDE * area[outer]
    rows, outer = rows[larger], outer[larger]
    within = shapely.area(shapely.intersection(local[rows], local[outer])) >= INSIDE * area[rows]
    found: dict[int, int] = {}
    for row, holder in sorted(
        zip(rows[within].tolist(), outer[within].tolist(), strict=True), key=lambda pair: area[pair[1]]
    ):
        found.setdefault(row, holder)
    return dict(sorted(found.items(), key=lambda item: -area[item[0]]))


def let_both_stand(
    inside: Mapping[int, int],
    outlines: NDArray[np.object_],
    heights: dict[int, Height],
    tags: Sequence[Mapping[str, str]],
    local: NDArray[np.object_],
    storey: float,
) -> None:
    """Change outlines and heights so that a building inside another does not vanish in it.

    One whose height the map states, and which stands on the ground, takes its place of the building around it. One of
    unknown height rises a storey above it (three of four tagged ones are higher than what is around them), unless it
    is of a low kind, such as a kiosk in a shopping mall.

    Parameters
    ----------
    inside : mapping
        See `holders`.
    outlines : Polygon (N,)
        Footprints in local metres.
    heights : dict
        Row -> height.
    tags : sequence of mappings
    local : Polygon (N,)
        Footprints as mapped.
    storey : float
        Metres per storey.
    """
    for row, holder in inside.items():
        inner, outer = heights.get(row), heights.get(holder)
        if inner is None or outer is None or inner.top > outer.top or outer.base > 0:
            continue
        kind = tags[row].get("building", "")
        if inner.source in ("tag", "levels", "external"):
            if inner.base == 0 and kind not in SLABS:
                rest = shapely.difference(outlines[holder], local[row], grid_size=GRID)
                outlines[holder] = MultiPolygon(polygons(rest))
        elif kind not in SLABS and not is_low(kind, float(shapely.area(local[row]))):
            heights[row] = replace(inner, top=outer.top + storey)
