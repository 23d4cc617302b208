"""Loss of paths in crowns, by ITU-R P.833: A_m (1 - exp(-gamma d / A_m)) over d metres of vegetation.

A path keeps its way, its polarisation and its phase: crowns neither scatter nor reflect. Its metres are those of its straight
segments inside crowns; where crowns overlap they count once.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import shapely
from numpy.typing import NDArray

from wavecity.geo.scene import Vegetation

if TYPE_CHECKING:  # a build that only finishes needs no tracer
    from wavecity.raytrace.solver import Paths


class Constants(Protocol):
    """A recipe's or a scene's constants."""

    @property
    def attenuation(self) -> float | None:
        """dB/m."""

    @property
    def largest_loss(self) -> float | None:
        """DB."""


# Segments that are compared with crowns at a time.
AT_ONCE = 50_000


def specific_attenuation(frequency: float) -> float:
    """Attenuation in woodland in dB/m: P.833's Figure 2, a straight line of logarithms, 0.2 at 1 GHz and 6 at 30 GHz.

    Parameters
    ----------
    frequency : float
        Hz, from 1 GHz on; above 30 GHz the line is continued.

    Examples
    --------
    >>> round(specific_attenuation(28.5e9), 2)
    5.7
    """
    return 0.2 * frequency / 1e9


def largest_loss(frequency: float) -> float:
    """Largest loss A_m in dB, 1.15 f^0.43 with f in MHz: fitted at Mulhouse between 0.9 and 2.2 GHz, continued above.

    Parameters
    ----------
    frequency : float
        Hz.

    Examples
    --------
    >>> round(largest_loss(28.5e9), 1)
    94.7
    """
    return float(1.15 * (frequency / 1e6) ** 0.43)


def excess_loss(depth: NDArray[np.float64], attenuation: float, most: float) -> NDArray[np.float64]:
    """Loss in dB over `depth` m of vegetation, of `attenuation` dB/m where it begins and of `most` dB at last."""
    return np.asarray(-most * np.expm1(-attenuation * depth / most), np.float64)


def constants_of(given: Constants, frequency: float) -> tuple[float, float]:
    """Specific attenuation in dB/m and largest loss in dB: those given, or those at the carrier."""
    return (
        specific_attenuation(frequency) if given.attenuation is None else given.attenuation,
        largest_loss(frequency) if given.largest_loss is None else given.largest_loss,
    )


def weakened(
    vegetation: Vegetation | None,
    source: NDArray[np.float64],
    receivers: NDArray[np.floating],
    paths: "Paths",
    frequency: float,
) -> tuple["Paths", NDArray[np.float64] | None]:
    """Paths behind vegetation, and the loss of each in dB (N,); without vegetation the paths as they are, and None.

    Parameters
    ----------
    vegetation : Vegetation, optional
    source : float64 (3,)
        m.
    receivers : float (R, 3)
        m.
    paths : Paths
        As traced.
    frequency : float
        Hz.
    """
    loss = path_losses(vegetation, source, receivers, paths, frequency)
    if loss is None:
        return paths, None
    coefficient = (paths.coefficient * 10 ** (-loss / 20)).astype(np.complex64)
    return replace(paths, coefficient=coefficient), loss


def path_losses(
    vegetation: Vegetation | None,
    source: NDArray[np.float64],
    receivers: NDArray[np.floating],
    paths: "Paths",
    frequency: float,
) -> NDArray[np.float64] | None:
    """Loss of each path in dB (N,), None without vegetation; parameters as of `weakened`."""
    if vegetation is None:
        return None
    ends = np.asarray(receivers, np.float64)[paths.receiver]
    # After its last vertex a path stays at its receiver: segments without length.
    inner = np.where(paths.types[..., None] != 0, paths.vertices, ends[:, None])
    start = np.broadcast_to(np.asarray(source, np.float64), (len(paths), 1, 3))
    depth = depth_in_crowns(vegetation, np.concatenate([start, inner, ends[:, None]], axis=1))
    return excess_loss(depth, *constants_of(vegetation, frequency))


def depth_in_crowns(vegetation: Vegetation, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length in m of polylines (N, K, 3) inside crowns (N,)."""
    count, corners = points.shape[:2]
    start, end = points[:, :-1].reshape(-1, 3), points[:, 1:].reshape(-1, 3)
    depth = np.zeros(len(start))
    is_wood = vegetation.crowns["radius"].isna().to_numpy()
    parts = ((~is_wood, _in_cylinders), (is_wood, _in_prisms))
    known = [(inside, _crowns_of(vegetation, chosen)) for chosen, inside in parts if chosen.any()]
    for low in range(0, len(start), AT_ONCE):
        one, other = start[low : low + AT_ONCE], end[low : low + AT_ONCE]
        found = [inside(one, other, crowns) for inside, crowns in known]
        if found:
            segment, first, last = (np.concatenate(column) for column in zip(*found, strict=True))
            share = union_of(segment, first, last, len(one))
            depth[low : low + AT_ONCE] = share * np.linalg.norm(other - one, axis=1)
    return np.asarray(depth.reshape(count, corners - 1).sum(axis=1), np.float64)


# Segments, and where on each (0 to 1) it enters and leaves a crown.
Stays = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class _Crowns:
    """Crowns of one kind: trees, points with a radius; or woods, areas whose radius is nan."""

    shape: NDArray[np.object_]
    radius: NDArray[np.float64]
    base: NDArray[np.float64]
    top: NDArray[np.float64]
    # Of what is seen from above: squares around trees, areas of woods.
    index: shapely.STRtree


def _crowns_of(vegetation: Vegetation, chosen: NDArray[np.bool_]) -> _Crowns:
    """The chosen crowns, with their index."""
    crowns = vegetation.crowns[chosen]
    shape = crowns.geometry.to_numpy()
    base, top, radius = (crowns[name].to_numpy(np.float64) for name in ("base", "top", "radius"))
    west, south, east, north = shapely.bounds(shape).T
    around = np.nan_to_num(radius)
    squares = shapely.box(west - around, south - around, east + around, north + around)
    return _Crowns(shape, radius, base, top, shapely.STRtree(np.where(np.isnan(radius), shape, squares)))


def _in_cylinders(start: NDArray[np.float64], end: NDArray[np.float64], trees: _Crowns) -> Stays:
    """Where segments are in the crowns of trees."""
    segment, tree = trees.index.query(_seen_from_above(start, end), predicate="intersects")
    way = (end - start)[segment]
    off = start[segment, :2] - shapely.get_coordinates(trees.shape)[tree]
    # |off + t way|^2 = radius^2
    square = (way[:, :2] ** 2).sum(axis=1)
    half = (off * way[:, :2]).sum(axis=1)
    rest = (off**2).sum(axis=1) - trees.radius[tree] ** 2
    root = np.sqrt(np.maximum(half**2 - square * rest, 0))
    moves = square > 0
    divisor = np.where(moves, square, 1)
    # A vertical segment is inside all along its way, or not at all.
    enter = np.where(moves, (-half - root) / divisor, np.where(rest < 0, 0, 1))
    leave = np.where(moves, (-half + root) / divisor, np.where(rest < 0, 1, 0))
    return _between_heights((segment, enter, leave), start, end, trees.base[tree], trees.top[tree])


def _in_prisms(start: NDArray[np.float64], end: NDArray[np.float64], woods: _Crowns) -> Stays:
    """Where segments are in woods."""
    lines = _seen_from_above(start, end)
    segment, wood = woods.index.query(lines, predicate="intersects")
    way = (end - start)[segment, :2]
    square = (way**2).sum(axis=1)
    moves = square > 0
    upright = np.flatnonzero(~moves)
    segment, wood = np.concatenate([segment[moves], segment[upright]]), np.concatenate([wood[moves], wood[upright]])
    crossing = int(moves.sum())
    pieces, of = shapely.get_parts(
        shapely.intersection(lines[segment[:crossing]], woods.shape[wood[:crossing]]), return_index=True
    )
    places, piece = shapely.get_coordinates(pieces, return_index=True)
    along = ((places - start[segment[of[piece]], :2]) * way[moves][of[piece]]).sum(axis=1) / square[moves][of[piece]]
    enter, leave = np.full(len(pieces), np.inf), np.full(len(pieces), -np.inf)
    np.minimum.at(enter, piece, along)
    np.maximum.at(leave, piece, along)
    row = np.concatenate([of, np.arange(crossing, len(segment))])
    enter, leave = np.concatenate([enter, np.zeros(len(upright))]), np.concatenate([leave, np.ones(len(upright))])
    return _between_heights((segment[row], enter, leave), start, end, woods.base[wood[row]], woods.top[wood[row]])


def _seen_from_above(start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.object_]:
    """Segments as lines in the plane."""
    lines: NDArray[np.object_] = shapely.linestrings(np.stack([start[:, :2], end[:, :2]], axis=1))
    return lines


def _between_heights(
    stays: Stays,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    base: NDArray[np.float64],
    top: NDArray[np.float64],
) -> Stays:
    """The part of stays that is between the base and top of their crowns, and on the segment."""
    segment, enter, leave = stays
    below, rise = start[segment, 2], (end - start)[segment, 2]
    climbs = rise != 0
    divisor = np.where(climbs, rise, 1)
    at_base, at_top = (base - below) / divisor, (top - below) / divisor
    level = (base <= below) & (below <= top)
    low = np.where(climbs, np.minimum(at_base, at_top), np.where(level, 0, 1))
    high = np.where(climbs, np.maximum(at_base, at_top), np.where(level, 1, 0))
    enter = np.clip(np.maximum(enter, low), 0, 1)
    leave = np.clip(np.minimum(leave, high), 0, 1)
    inside = leave > enter
    return segment[inside], enter[inside], leave[inside]


def union_of(
    segment: NDArray[np.int64], enter: NDArray[np.float64], leave: NDArray[np.float64], count: int
) -> NDArray[np.float64]:
    """Share of each of `count` segments that lies in any of its stays.

    Examples
    --------
    >>> union_of(np.array([1, 1, 1]), np.array([0.1, 0.2, 0.8]), np.array([0.4, 0.5, 0.9]), 2)
    array([0. , 0.5])
    """
    order = np.lexsort((enter, segment))
    segment = segment[order]
    # Laid out one after the other with gaps, so that one running maximum serves all segments.
    start, end = enter[order] + 2 * segment, leave[order] + 2 * segment
    reached = np.maximum.accumulate(np.concatenate([[-np.inf], end]))[:-1] if len(end) else end
    new = np.maximum(end - np.maximum(start, reached), 0)
    return np.bincount(segment, new, count).astype(np.float64)
