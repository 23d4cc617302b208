"""Chains of an edge and reflections after it, found from the receivers' side.

Rays that leave an edge rarely meet a wall far away and small, yet the wall may be the one in front of a receiver, which
sees it large. So a few rays from each receiver tell which sequences of mirrors it looks into, and the image of the
receiver in each of them is joined with every edge that the source lights: Keller's law gives the point on the edge, the
image method the points on the mirrors. A chain is kept if its path is clear all the way. The work grows with what
receivers see times the edges that are lit, not with the size of the scene.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.bounce import Rays, Search, merge
from wavecity.raytrace.device import Numbers, Vectors, divided, dr, load_rows, load_table, mi, positions, rt
from wavecity.raytrace.edges import EDGE_OFFSET, Wedges, spread
from wavecity.raytrace.geometry import mirror

# Metres: by how much a path may pass a mirror's bounds, and how far from faces its ways are tested.
SLACK = 0.02
OFF_FACE = 1e-3

# Where the source lights so many edges, as many rays leave the receivers as the source; where it lights more, more, since
# there is more to see; but never fewer than half as many.
MANY_EDGES = 200

# (Sequence, edge) pairs that are tested at once, for each ray in flight.
PAIRS_PER_RAY = 2


@dataclass(frozen=True)
class Lit:
    """Edges that the source lights after the same number of mirrors.

    Attributes
    ----------
    elements : int32 (N, E)
        The mirrors, and last the edge, numbered as in `chains.Chains`.
    wedges : Wedges (N)
    """

    elements: NDArray[np.int32]
    wedges: Wedges


def returning_chains(
    search: Search,
    source: NDArray[np.float64],
    receivers: NDArray[np.float64],
    lit: list[Lit],
    max_depth: int,
    rays: int,
    shift: tuple[float, float],
) -> list[NDArray[np.int32]]:
    """Chains of an edge that the source lights, then mirrors, that carry a path to one of the receivers.

    Parameters
    ----------
    search : Search
    source : float64 (3,)
        Metres.
    receivers : float64 (R, 3)
        Metres.
    lit : list of Lit
        Edges lit directly; and others, which at most one mirror follows, to keep the pairs few.
    max_depth : int
        Largest number of interactions.
    rays : int
        That the source shoots.
    shift : tuple of float
        In [0, 1), of the sequence of directions.

    Returns
    -------
    list of int32 (chains, elements)
        Faces passed through are not in them.
    """
    if not any(len(group.wedges) for group in lit):
        return []
    edges = sum(len(group.wedges) for group in lit if group.elements.shape[1] == 1)
    rays = max(len(receivers), int(rays * max(0.5, edges / MANY_EDGES)))
    everyone = np.arange(len(receivers), dtype=np.int32)[:, None]
    mirrors = Search(search.world, specular=True, refraction=False, limit=search.limit)
    parts = []
    for low in range(0, rays, search.limit):
        leaving = _rays_of(receivers, rays, low, min(low + search.limit, rays), shift)
        # Each sequence begins with the receiver's number.
        parts.append(mirrors.bounce(leaving, everyone, max_depth - 1))
    found = []
    for after, level in enumerate(merge(parts)[0], start=1):
        seen = np.unique(level, axis=0) if len(parts) > 1 else level
        for group in lit:
            before = group.elements.shape[1] - 1
            if len(group.wedges) and after <= (max_depth - 1 if before == 0 else 1) and before + 1 + after <= max_depth:
                sequence, edge = _Joint(search, None if before else source, receivers, group.wedges, seen).clear()
                chain = np.column_stack([group.elements[edge], seen[sequence, :0:-1]]).astype(np.int32)
                found.append(np.unique(chain, axis=0))
    return found


def _rays_of(points: NDArray[np.float64], every: int, low: int, high: int, shift: tuple[float, float]) -> Rays:
    """Rays from points in all directions: of `every`, the same number from each point, those from `low` to `high`."""
    number = dr.arange(mi.Float64, high - low) + dr.opaque(mi.Float64, low)
    point = mi.UInt(dr.floor((number + 0.5) * dr.opaque(mi.Float64, len(points) / every)))
    u, v = spread(number, shift)
    origin = dr.gather(mi.Point3f, load_table(mi.Point3f, points), point)
    rays = Rays(origin, mi.warp.square_to_uniform_sphere(mi.Point2f(u, v)), point)
    dr.eval(rays.origin, rays.direction, rays.row)
    return rays


class _Joint:
    """Tables of what receivers see and of edges, and the test of pairs of both."""

    def __init__(
        self,
        search: Search,
        source: NDArray[np.float64] | None,
        receivers: NDArray[np.float64],
        wedges: Wedges,
        seen: NDArray[np.int32],
    ) -> None:
        surfaces = search.world.surfaces
        self.scene, self.limit = search.world.scene.mi_scene, PAIRS_PER_RAY * search.limit
        self.sequences, self.mirrors, self.edges = len(seen), seen.shape[1] - 1, len(wedges)
        image = receivers[seen[:, 0]]
        self._image, self._plane = [load_table(mi.Vector3f, image)], []
        for position in range(self.mirrors):
            plane = seen[:, 1 + position]
            image = mirror(surfaces, plane, image)
            self._image.append(load_table(mi.Vector3f, image))
            self._plane.append(load_table(mi.UInt, plane))
        self._normal, self._offset = load_table(mi.Vector3f, surfaces.normal), load_table(mi.Float, surfaces.offset)
        self._u, self._v = load_table(mi.Vector3f, surfaces.frame[:, 0]), load_table(mi.Vector3f, surfaces.frame[:, 1])
        self._bounds = load_table(mi.Vector4f, surfaces.bounds)
        origin, along, normals, away = wedges.oriented()
        self._source = None if source is None else load_rows(mi.Point3f, source)
        self._lamp = load_table(mi.Vector3f, wedges.image)
        self._edge = [load_table(mi.Vector3f, v) for v in (origin, along, away, normals[:, 0], normals[:, 1])]
        self._length = load_table(mi.Float, surfaces.edge_length[wedges.edge])

    def clear(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sequence and edge of the pairs whose path nothing blocks."""
        sequences, edges = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        step = max(1, self.limit // self.edges)
        for low in range(0, self.sequences, step):
            index = dr.arange(mi.UInt, (min(low + step, self.sequences) - low) * self.edges)
            row = divided(index, self.edges)
            sequence, edge = row + dr.opaque(mi.UInt, low), index - row * dr.opaque(mi.UInt, self.edges)
            for test in (self._has_place, self._meets_mirrors, self._is_clear):
                fits = test(sequence, edge)
                dr.eval(fits)
                keep = positions(fits)
                sequence, edge = dr.gather(mi.UInt, sequence, keep), dr.gather(mi.UInt, edge, keep)
                dr.eval(sequence, edge)
                if not dr.width(keep):
                    break
            sequences.append(sequence.numpy().astype(np.int64))
            edges.append(edge.numpy().astype(np.int64))
        return np.concatenate(sequences), np.concatenate(edges)

    def _place(self, sequence: Numbers, edge: Numbers) -> tuple[Numbers, Vectors, Vectors, Numbers]:
        """Where on the edge paths diffract; the way on to the receiver's image; its distance from the edge's line."""
        origin, along = (dr.gather(mi.Vector3f, table, edge) for table in self._edge[:2])
        image = dr.gather(mi.Vector3f, self._image[-1], sequence)
        # Unrolled around the edge the way from source to image is straight (see `geometry.edge_parameter`).
        s, t = dr.gather(mi.Vector3f, self._lamp, edge) - origin, image - origin
        along_s, along_t = dr.dot(s, along), dr.dot(t, along)
        away_s, away_t = dr.norm(s - along_s * along), dr.norm(t - along_t * along)
        place = (along_s * away_t + along_t * away_s) / dr.maximum(away_s + away_t, 1e-6)
        return place, origin + place * along, t - place * along, away_t

    def _has_place(self, sequence: Numbers, edge: Numbers) -> Numbers:
        """Whether that is between the edge's ends, and the path goes on outside the wedge."""
        place, _, leaving, away = self._place(sequence, edge)
        fits = (place > 0) & (place < dr.gather(mi.Float, self._length, edge)) & (away > EDGE_OFFSET)
        normal_0, normal_n = (dr.gather(mi.Vector3f, table, edge) for table in self._edge[3:])
        return fits & ((dr.dot(leaving, normal_0) > 0) | (dr.dot(leaving, normal_n) > 0))

    def _meets_mirrors(self, sequence: Numbers, edge: Numbers) -> Numbers:
        """Whether the path meets its mirrors."""
        return self._path(sequence, edge)[0]

    def _path(self, sequence: Numbers, edge: Numbers) -> tuple[Numbers, list[Vectors]]:
        """Whether the path meets its mirrors, and where: from the edge to the receiver, just off the faces."""
        fits = mi.Bool(True)
        _, at, _, _ = self._place(sequence, edge)
        at += EDGE_OFFSET * dr.gather(mi.Vector3f, self._edge[2], edge)
        stops = [at]
        for position in reversed(range(self.mirrors)):
            plane = dr.gather(mi.UInt, self._plane[position], sequence, fits)
            target = dr.gather(mi.Vector3f, self._image[position + 1], sequence, fits)
            normal = dr.gather(mi.Vector3f, self._normal, plane, fits)
            ahead = target - at
            height = dr.gather(mi.Float, self._offset, plane, fits) - dr.dot(normal, at)
            time = height / dr.dot(normal, ahead)
            met = at + time * ahead
            u = dr.dot(met, dr.gather(mi.Vector3f, self._u, plane, fits))
            v = dr.dot(met, dr.gather(mi.Vector3f, self._v, plane, fits))
            bounds = dr.gather(mi.Vector4f, self._bounds, plane, fits)
            fits &= (u > bounds.x - SLACK) & (u < bounds.y + SLACK) & (v > bounds.z - SLACK) & (v < bounds.w + SLACK)
            fits &= (time > 0) & (time < 1)
            at = met
            stops.append(met - dr.sign(height) * OFF_FACE * normal)
        stops.append(dr.gather(mi.Vector3f, self._image[0], sequence))
        return fits, stops

    def _is_clear(self, sequence: Numbers, edge: Numbers) -> Numbers:
        """Whether nothing stands between the points of paths, and before the edge if the source lights it directly."""
        _, stops = self._path(sequence, edge)
        clear = mi.Bool(True)
        if self._source is not None:
            start = dr.gather(mi.Point3f, self._source, dr.zeros(mi.UInt, dr.width(stops[0])))
            clear &= ~self.scene.ray_test(rt.utils.spawn_ray_to(start, mi.Point3f(stops[0])))
        for before, here in itertools.pairwise(map(mi.Point3f, stops)):
            clear &= ~self.scene.ray_test(rt.utils.spawn_ray_to(before, here), clear)
        return clear
