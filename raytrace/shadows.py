"""Parts of patches that are visible, from points spread over them: how large, where, and how sure that is. NumPy."""

import numpy as np
from numpy.typing import NDArray

# Points of each patch that are tested, level by level: each level has those of the one before.
LEVELS = (16, 64, 256, 1024)
# With more than that only patches are looked at of which something was visible.
SEARCHED = 256
# For the source's shadows alone: as many as one for this solid angle, seen from there, in steradians.
LIT_LEVELS, LIT_ANGLE = (32, 128, 512), 3e-5
# Of a visible share after that many points: as of n trials in a row whose errors cancel (quasi-Monte Carlo), n to this power;
# and the trials, of either outcome, that are added, so that a patch none of whose points is visible may still be.
RATE, ADDED = 0.75, 0.1
# Error of a user's power, as a share of it, at which its patches are settled; and as a share of what would reach it if nothing
# were in the way, which ends the search where there is nothing to find.
TOLERANCE, NEGLIGIBLE = 0.01, 3e-5


def _points(count: int) -> NDArray[np.float64]:
    """Barycentric coordinates (N, 3) of the first points of a sequence that fills a triangle evenly.

    The additive recurrence of M. Roberts in two dimensions, folded along the diagonal of the square. Unlike a lattice of small
    triangles none of its lines is parallel to a side, as edges of shadows often are.
    """
    golden = 1.32471795724474602596  # the real root of x^3 = x + 1
    u, v = np.modf(0.5 + np.arange(1, count + 1)[:, None] / golden ** np.arange(1, 3))[0].T
    over = u + v > 1
    u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
    # With so few digits their moments add up without rounding, in any order.
    u, v = np.round(u * 2.0**20) / 2.0**20, np.round(v * 2.0**20) / 2.0**20
    return np.stack([u, v, 1 - u - v], axis=1)


POINTS = _points(1024)
# Of a whole triangle: variance of a barycentric coordinate, and covariance of two.
_VARIANCE, _COVARIANCE = 1 / 18, -1 / 36
# Three points on the unit circle, scaled so that their covariance is 1.
_CIRCLE = np.sqrt(2) * np.stack([f(np.arange(3) * 2 * np.pi / 3) for f in (np.cos, np.sin)], axis=1)


def visible_part(seen: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share and nodes of the visible parts of triangles.

    The nodes have equal weights, and area, centroid and second moments of the part, as `patches.NODES` have of a triangle: they
    integrate polynomials of degree 2 over it.

    Parameters
    ----------
    seen : bool (M, N)
        Whether each of the first N points of `POINTS` is visible.

    Returns
    -------
    share : float64 (M,)
    nodes : float64 (M, 3, 3)
        Barycentric coordinates within the triangle: triangle, node, corner.
    """
    count = seen.shape[1]
    u, v = POINTS[:count, 0], POINTS[:count, 1]
    sums = seen.astype(np.float64) @ np.stack([np.ones(count), u, v, u * u, v * v, u * v], axis=1)
    hits = sums[:, 0]
    mean_u, mean_v, uu, vv, uv = (sums[:, 1:] / np.maximum(hits, 1)[:, None]).T
    # A point stands for its surroundings, which are as wide as the triangle over the root of their number.
    uu = np.maximum(uu - mean_u**2, 0) + _VARIANCE / count
    vv = np.maximum(vv - mean_v**2, 0) + _VARIANCE / count
    uv = uv - mean_u * mean_v + _COVARIANCE / count
    # Cholesky's factor of the covariance.
    a = np.sqrt(uu)
    b = uv / a
    c = np.sqrt(np.maximum(vv - b**2, 0))
    node_u = mean_u[:, None] + a[:, None] * _CIRCLE[:, 0]
    node_v = mean_v[:, None] + b[:, None] * _CIRCLE[:, 0] + c[:, None] * _CIRCLE[:, 1]
    # Of a part that is not convex they may be outside the triangle.
    nodes = np.maximum(np.stack([node_u, node_v, 1 - node_u - node_v], axis=2), 0)
    return hits / count, nodes / nodes.sum(axis=2, keepdims=True)


def uncertainty(share: NDArray[np.float64], count: NDArray[np.integer]) -> NDArray[np.float64]:
    """Standard error of the visible shares (M,) of patches of which so many points were tested."""
    likely = (share * count + ADDED) / (count + 2 * ADDED)
    error: NDArray[np.float64] = np.sqrt(likely * (1 - likely)) / count.astype(np.float64) ** RATE
    return error


def unsettled(
    weight: NDArray[np.float64],
    share: NDArray[np.float64],
    count: NDArray[np.integer],
    receiver: NDArray[np.int64],
    receivers: int,
) -> NDArray[np.int64]:
    """Pairs of patches and receivers whose shares must be known better: the fewest without which a receiver's power is not.

    Parameters
    ----------
    weight : float64 (N,)
        Power through the whole patch.
    share : float64 (N,)
        Of it that is visible.
    count : int (N,)
        Points that were tested.
    receiver : int64 (N,)
    receivers : int
        Their number.

    Returns
    -------
    int64 (M,)
        In their order.
    """
    largest = np.zeros(receivers)
    np.maximum.at(largest, receiver, weight)
    # Multiples of a small number add up to the same in any order, and so with any other receivers.
    weight = _rounded(weight / np.where(largest > 0, largest, 1)[receiver])
    allowed = np.maximum(
        TOLERANCE * np.bincount(receiver, _rounded(weight * share), receivers),
        NEGLIGIBLE * np.bincount(receiver, weight, receivers),
    )
    variance = (weight * uncertainty(share, count)) ** 2
    # What is small even if every patch had it stays as it is.
    level = 0.01 * allowed**2 / np.maximum(np.bincount(receiver, minlength=receivers), 1)
    kept = np.flatnonzero(variance > level[receiver])
    variance, receiver = _rounded(variance[kept]), receiver[kept]
    # And so do the smallest of the others, as long as they are together below what is allowed.
    order = np.lexsort((variance, receiver))
    total = np.concatenate([[0.0], np.cumsum(variance[order])])
    before = total[np.searchsorted(receiver[order], np.arange(receivers))]
    large = total[1:] - before[receiver[order]] > 0.99 * allowed[receiver[order]] ** 2
    least = np.full(receivers, np.inf)
    np.minimum.at(least, receiver[order[large]], variance[order[large]])
    found: NDArray[np.int64] = kept[variance >= least[receiver]]
    return found


def _rounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiples of 2^-36, whose sums are exact below 100,000."""
    rounded: NDArray[np.float64] = np.round(values * 2.0**36) / 2.0**36
    return rounded
