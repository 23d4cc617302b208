"""Line of sight from the buildings' footprints: a second opinion, independent of the ray tracer and its mesh.

The line from base station to user is cut with every footprint in the plane; where it runs over one, its height is
compared with the building's. Shapely and NumPy only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import geopandas as gpd

# Metres by which a line must miss, or enter, a building to be decided: footprints and the tracer's float32 mesh differ
# by far less, but a line along a wall or over the edge of a roof may fall either way.
TOLERANCE = 0.02
# A user this near to the base station, seen from above, is straight below it: its line has no direction in the plane.
BELOW = 1e-3


@dataclass(frozen=True)
class Sight:
    """What the footprints say about the lines from the base station to U users.

    Attributes
    ----------
    blocked : bool (U,)
        The line runs through a building, at least `tolerance` below its surface.
    certain : bool (U,)
        Blocked, or clear of every building by `tolerance`; the others graze one.
    building : int64 (U,)
        Row of the first table row that blocks the line; -1 where none does.
    """

    blocked: NDArray[np.bool_]
    certain: NDArray[np.bool_]
    building: NDArray[np.int64]


def blocked_users(
    buildings: "gpd.GeoDataFrame", users: ArrayLike, bs_position: ArrayLike, tolerance: float = TOLERANCE
) -> Sight:
    """Decide which users a building hides from the base station.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Of one scene: `geometry` (Polygon or MultiPolygon, metres in the scene frame), `base` and `height` (m above the
        ground). A building fills its footprint, holes left out, from `base` up to `height`.
    users : float (U, 3)
        Metres in the scene frame.
    bs_position : float (3,)
        Metres in the scene frame.
    tolerance : float
        Metres.

    Examples
    --------
    >>> sight = blocked_users(buildings, users, [0.0, 100.0, 15.0])
    >>> np.flatnonzero(sight.blocked & sight.certain)
    """
    users, source = np.asarray(users, np.float64).reshape(-1, 3), np.asarray(bs_position, np.float64)
    footprints = np.asarray(buildings.geometry.to_numpy(), dtype=object)
    base, top = (buildings[name].to_numpy(np.float64) for name in ("base", "height"))
    lines, below = _lines(users, source)

    # Mitred corners, so that the larger solid holds every point within the tolerance.
    larger = shapely.buffer(footprints, tolerance, join_style="mitre")
    user, row = shapely.STRtree(larger).query(lines, predicate="intersects")
    met = _meets(
        lines[user], below[user], larger[row], base[row] - tolerance, top[row] + tolerance, users[user], source
    )
    user, row = user[met], row[met]
    grazed = np.zeros(len(users), bool)
    grazed[user] = True

    near = np.unique(row)
    smaller = np.empty(len(footprints), dtype=object)
    smaller[near] = shapely.buffer(footprints[near], -tolerance, join_style="mitre")
    met = _meets(
        lines[user], below[user], smaller[row], base[row] + tolerance, top[row] - tolerance, users[user], source
    )
    building = np.full(len(users), len(footprints))
    np.minimum.at(building, user[met], row[met])
    blocked = building < len(footprints)
    return Sight(blocked, blocked | ~grazed, np.where(blocked, building, -1))


def check_line_of_sight(
    buildings: "gpd.GeoDataFrame",
    user_position: ArrayLike,
    bs_position_m: ArrayLike,
    bs_shift: float,
    los: NDArray[np.bool_],
) -> str:
    """Compare a scene's labels with its footprints; users whose line grazes a building may have either label.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Of this scene (see `blocked_users`), with `osm_type` and `osm_id`.
    user_position : float (U, 3)
        Real users as stored: metres, relative to the base station where it stands.
    bs_position_m : float (3,)
        The base station before it was slid, metres in the scene frame: an attribute of the store.
    bs_shift : float
        Metres it was slid east.
    los : bool (U,)
        Labels.

    Returns
    -------
    str
        One line, or nothing where all labels hold.
    """
    source = np.asarray(bs_position_m, np.float64) + np.array([float(bs_shift), 0.0, 0.0])
    sight = blocked_users(buildings, np.asarray(user_position, np.float64) + source, source)
    los = np.asarray(los, bool)
    findings = []
    hidden = np.flatnonzero(los & sight.certain & sight.blocked)
    if len(hidden):
        blocker = buildings.iloc[sight.building[hidden[0]]]
        name = f"{blocker['osm_type']}/{blocker['osm_id']}"
        findings.append(f"{len(hidden)} users labelled LoS whose line is blocked, e.g. user {hidden[0]} by {name}")
    seen = np.flatnonzero(~los & sight.certain & ~sight.blocked)
    if len(seen):
        findings.append(f"{len(seen)} users labelled NLoS whose line is free, e.g. user {seen[0]}")
    return "; ".join(findings)


def _lines(users: NDArray[np.float64], source: NDArray[np.float64]) -> tuple[NDArray[np.object_], NDArray[np.bool_]]:
    """Lines (U,) in the plane, and which of them belong to users straight below the base station."""
    ends = np.stack([np.broadcast_to(source[:2], (len(users), 2)), users[:, :2]], axis=1)
    below = np.hypot(*(ends[:, 1] - ends[:, 0]).T) < BELOW
    # A line needs some length: 1 mm, far less than the tolerance.
    ends[below, 1] = ends[below, 0] + [BELOW, 0.0]
    return np.asarray(shapely.linestrings(ends), dtype=object), below


def _meets(
    lines: NDArray[np.object_],
    below: NDArray[np.bool_],
    footprints: NDArray[np.object_],
    base: NDArray[np.float64],
    top: NDArray[np.float64],
    users: NDArray[np.float64],
    source: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether each line passes through the solid paired with it: the footprint from `base` to `top`."""
    meets = np.zeros(len(lines), bool)
    parts, pair = shapely.get_parts(shapely.intersection(lines, footprints), return_index=True)
    # A line that misses leaves an empty part.
    there = ~shapely.is_empty(parts)
    parts, pair = parts[there], pair[there]
    points, part = shapely.get_coordinates(parts, return_index=True)
    if not len(parts):
        return meets
    # Share of the distance from base station to user, 0 to 1, at both ends of every section over the footprint.
    way = users[pair] - source
    along = ((points - source[:2]) * way[part, :2]).sum(-1) / np.maximum((way[part, :2] ** 2).sum(-1), BELOW**2)
    near, far = np.ones(len(parts)), np.zeros(len(parts))
    np.minimum.at(near, part, along)
    np.maximum.at(far, part, along)
    near[below[pair]], far[below[pair]] = 0.0, 1.0
    heights = source[2] + np.stack([near, far]) * way[:, 2]
    # The height runs evenly from one end to the other, so it takes every value between the two.
    passes = (heights.min(0) <= top[pair]) & (heights.max(0) >= base[pair])
    meets[pair[passes]] = True
    return meets
