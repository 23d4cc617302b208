"""Faces divided into triangular patches, small where an end of the path is near. NumPy, float64."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# The longest side of a patch over its distance from the nearer end, and its limits in m.
SIZE_PER_DISTANCE = 0.7
LARGEST, SMALLEST = 14.0, 0.01

# Barycentric coordinates of the three equally weighted nodes that integrate polynomials of degree 2 exactly.
NODES = np.array([[4, 1, 1], [1, 4, 1], [1, 1, 4]]) / 6


@dataclass
class Patches:
    """A forest of triangles: each is a face, or half of another triangle (N triangles, growing).

    Attributes
    ----------
    corners : float64 (N, 3, 3)
        Metres.
    face : int32 (N,)
        Mesh face of each.
    code : uint64 (N,)
        Pseudo-random number that depends on the face and the place of the triangle in it, and on nothing else.
    half : int64 (N,)
        The first of the triangle's two halves, the other one follows; -1 where it has not been divided.
    centre, normal : float64 (N, 3)
        Centroid, and unit normal.
    area, longest : float64 (N,)
        Square metres, and the longest side in m.
    nodes : float64 (N, 3, 3)
        Points of the quadrature: triangle, node, coordinate.
    """

    corners: NDArray[np.float64]
    face: NDArray[np.int32]
    code: NDArray[np.uint64]
    half: NDArray[np.int64]
    centre: NDArray[np.float64]
    normal: NDArray[np.float64]
    area: NDArray[np.float64]
    longest: NDArray[np.float64]
    nodes: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.face)

    def halves(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Both halves (2 M) of these triangles, the second ones last; divides those that have none."""
        new = np.unique(index[self.half[index] < 0])
        if len(new):
            self.half[new] = len(self) + 2 * np.arange(len(new))
            # Across the longest side.
            order = (_sides(self.corners[new]).argmax(axis=1)[:, None] + np.arange(3)) % 3
            a, b, c = np.moveaxis(np.take_along_axis(self.corners[new], order[..., None], axis=1), 1, 0)
            middle = (a + b) / 2
            pairs = np.stack([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)], axis=1)
            doubled = self.code[new] << np.uint64(1)
            codes = np.stack([_mixed(doubled), _mixed(doubled + np.uint64(1))], axis=1)
            grown = _measured(pairs.reshape(-1, 3, 3), np.repeat(self.face[new], 2), codes.ravel())
            for field in fields(self):
                setattr(self, field.name, np.concatenate([getattr(self, field.name), getattr(grown, field.name)]))
        first = self.half[index]
        return np.concatenate([first, first + 1])

    def too_large(self, index: NDArray[np.int64], point: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether triangles (M,) must be divided for an end at a point, (3,) or (M, 3)."""
        way = self.centre[index] - point
        distance = np.sqrt(np.einsum("md,md->m", way, way))
        large: NDArray[np.bool_] = self.longest[index] > np.clip(SIZE_PER_DISTANCE * distance, SMALLEST, LARGEST)
        return large

    def phase(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Pseudo-random phases in [0, 2 pi) of triangles (M,)."""
        phase: NDArray[np.float64] = self.code[index].astype(np.float64) * (2 * np.pi / 2.0**64)
        return phase


def patches_of(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> Patches:
    """The faces of a mesh, undivided; those without an area are left out.

    Parameters
    ----------
    vertices : float64 (V, 3)
    faces : int32 (F, 3)
    """
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    kept = np.flatnonzero(np.linalg.norm(np.cross(b - a, c - a), axis=1) > 0)
    return _measured(vertices[faces[kept]], kept.astype(np.int32), _mixed(kept.astype(np.uint64)))


def _measured(corners: NDArray[np.float64], face: NDArray[np.int32], code: NDArray[np.uint64]) -> Patches:
    """Undivided triangles, with everything that follows from their corners."""
    outward = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(outward, axis=1)
    return Patches(
        corners,
        face,
        code,
        half=np.full(len(face), -1),
        centre=corners.mean(axis=1),
        normal=outward / length[:, None],
        area=length / 2,
        longest=_sides(corners).max(axis=1),
        nodes=np.einsum("nk,mkd->mnd", NODES, corners),
    )


def _sides(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths (M, 3) of the sides from each corner to the next."""
    sides: NDArray[np.float64] = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    return sides


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's pseudo-random one (the finaliser of SplitMix64)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
