"""Rays that leave edges, over the whole Keller cones."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.bounce import Rays, leading_down
from wavecity.raytrace.device import Numbers, divided, dr, load_table, mi
from wavecity.raytrace.geometry import oriented_edges
from wavecity.raytrace.surfaces import Surfaces

# Rays leave an edge this far outside it, as in Sionna's image method.
EDGE_OFFSET = 1e-3

# Steps of the R2 sequence (Roberts 2018): evenly spread points of the unit square, whatever their number.
R2_STEPS = (0.7548776662466927, 0.5698402909980532)


# Each coordinate of a point is divided into two to this power cells to order points.
CELL_BITS = 8


@dataclass(frozen=True)
class Wedges:
    """Edges (N), each as lit from an image of the source.

    Attributes
    ----------
    surfaces : Surfaces
    edge : int64 (N,)
    image : float64 (N, 3)
    swapped : bool (N,)
        Whether the edge has its faces exchanged.
    """

    surfaces: Surfaces
    edge: NDArray[np.int64]
    image: NDArray[np.float64]
    swapped: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.edge)

    def select(self, index: NDArray[np.bool_] | slice) -> "Wedges":
        """The wedges at these positions (a mask or a slice)."""
        return Wedges(self.surfaces, self.edge[index], self.image[index], self.swapped[index])

    def oriented(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Origin, direction, normals (N, 2, 3) and the unit vector out of the wedge between them."""
        origin, along, normals = oriented_edges(self.surfaces, self.edge, self.swapped)
        away = normals.sum(axis=1)
        return origin, along, normals, away / np.maximum(np.linalg.norm(away, axis=1), 1e-9)[:, None]


def keller_rays(
    wedges: Wedges, share: int, low: int, high: int, shift: tuple[float, float], ceiling: float = np.inf
) -> Rays:
    """Rays on the Keller cones of edges, evenly over each edge and the cone's open angles.

    Parameters
    ----------
    wedges : Wedges
    share : int
        Rays of each edge.
    low, high : int
        Of all these rays, numbered edge by edge, the ones to make.
    shift : tuple of float
        In [0, 1), of the two sequences of points.

    Returns
    -------
    Rays
        Their row is the edge's.
    """
    origin, along, normals, away = wedges.oriented()
    tangent = np.cross(normals[:, 0], along)
    open_angle = 2 * np.pi - np.arccos(np.clip(-np.einsum("ei,ei->e", normals[:, 0], normals[:, 1]), -1, 1))
    tables = [load_table(mi.Vector3f, values) for values in (origin, along, normals[:, 0], tangent, away, wedges.image)]
    length = load_table(mi.Float, wedges.surfaces.edge_length[wedges.edge])
    angle = load_table(mi.Float, open_angle)

    # Numbers count from the first edge, in integers of 32 bit.
    first = low // share
    index = dr.arange(mi.UInt, high - low) + dr.opaque(mi.UInt, low - first * share)
    row = divided(index, share)
    start = row * dr.opaque(mi.UInt, share)
    # Those of one edge in an order in which neighbours have nearly the same direction.
    index = start + dr.gather(mi.UInt, load_table(mi.UInt, neighbours(share)), index - start)
    row += dr.opaque(mi.UInt, first)
    point, turn = spread(mi.Float64(index) + dr.opaque(mi.Float64, first * share), shift)
    start, zeta, normal, across, outside, lamp = (dr.gather(mi.Vector3f, table, row) for table in tables)
    # Evenly in the angle under which the image sees the edge: near ones are sampled as densely as far ones.
    foot = dr.dot(lamp - start, zeta)
    height = dr.maximum(dr.norm(lamp - start - foot * zeta), EDGE_OFFSET)
    least, most = dr.atan(-foot / height), dr.atan((dr.gather(mi.Float, length, row) - foot) / height)
    place = start + (foot + height * dr.tan(dr.lerp(least, most, point))) * zeta
    cosine = dr.dot(dr.normalize(place - lamp), zeta)
    sine = dr.safe_sqrt(1 - cosine * cosine)
    sin_turn, cos_turn = dr.sincos(turn * dr.gather(mi.Float, angle, row))
    leaving = cosine * zeta + sine * (cos_turn * across + sin_turn * normal)
    rays = leading_down(Rays(mi.Point3f(place + EDGE_OFFSET * outside), leaving, row), ceiling)
    dr.eval(rays.origin, rays.direction, rays.row)
    return rays


@lru_cache(maxsize=64)
def neighbours(count: int) -> NDArray[np.int64]:
    """The first points of the R2 sequence in an order along which successive ones are near each other.

    All runs of so many points of the sequence are translations of one another, so that it serves all of them.

    Parameters
    ----------
    count : int
    """
    cell = (np.arange(count)[:, None] * R2_STEPS % 1 * 2**CELL_BITS).astype(np.int64)
    # The bits of both coordinates in turn (Morton's order).
    place = np.zeros(count, np.int64)
    for bit in range(CELL_BITS):
        for axis in range(2):
            place |= (cell[:, axis] >> bit & 1) << (2 * bit + axis)
    return np.argsort(place, kind="stable")


def spread(number: Numbers, shift: tuple[float, float]) -> tuple[Numbers, Numbers]:
    """Points (two coordinates in [0, 1)) of the shifted R2 sequence."""
    moved = (
        dr.opaque(mi.Float, offset) + mi.Float(number * step - dr.floor(number * step))
        for offset, step in zip(shift, R2_STEPS, strict=True)
    )
    first, second = (value - dr.floor(value) for value in moved)
    return first, second
