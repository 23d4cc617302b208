"""Chains of an edge and reflections after it, found from the receivers' side.

Rays that leave an edge rarely meet a wall far away and small, yet the wall may be the one in front of a receiver, which
sees it large. So a few rays from each receiver tell which sequences of mirrors it looks into, and the image of the
receiver in each of them is joined with every edge that the source lights: Keller's law gives the point on the edge, the
image method the points on the mirrors. A chain is kept if its path is clear all the way. The work grows with what
receivers see times the edges that are lit, not with the size of the scene.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.bounce import Rays, Search, merge
from wavecity.raytrace.device import (
    Numbers,
    Vectors,
    crossed,
    dr,
    load_packets,
    load_rows,
    load_table,
    mi,
    packets,
    positions,
    rt,
)
from wavecity.raytrace.edges import EDGE_OFFSET, Wedges, spread
from wavecity.raytrace.geometry import edge_coordinates, mirror
from wavecity.raytrace.lit import Lit
from wavecity.raytrace.rows import row_keys, unique_rows

# Metres: by how much a path may pass a mirror's bounds, and how far from faces its ways are tested.
SLACK = 0.02
OFF_FACE = 1e-3

# Rays that leave the receivers, for each ray of the source: this many; where the source lights more edges, and there is
# more to see, as many as the edges divided by the second number. And the fewest that leave one.
LEAST_RAYS, MANY_EDGES = 0.25, 400
RECEIVER_LEAST = 100

# Most mirrors after an edge that are sought from the receivers. (Rays from edges find longer sequences.)
MIRRORS = 2

# (Sequence, edge) pairs that are tested at once, for each ray in flight.
PAIRS_PER_RAY = 2

# Edges near to one another that are sorted out together: 2 to the power of this. And metres by which a group's sphere is
# larger than its edges, for the slack of the tests and rounding.
GROUP_BITS, MARGIN = 4, 0.1


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
        Of the same number of elements each.
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
    if not any(len(group) for group in lit):
        return []
    edges = sum(len(group) for group in lit if group.elements.shape[1] == 1)
    rays = max(RECEIVER_LEAST * len(receivers), int(rays * max(LEAST_RAYS, edges / MANY_EDGES)))
    everyone = np.arange(len(receivers), dtype=np.int32)[:, None]
    mirrors = Search(search.world, specular=True, refraction=False, limit=search.limit)
    parts = []
    for low in range(0, rays, search.limit):
        leaving = _rays_of(receivers, rays, low, min(low + search.limit, rays), shift)
        # Each sequence begins with the receiver's number.
        parts.append(mirrors.bounce(leaving, everyone, min(MIRRORS, max_depth - 1)))
    found = []
    for after, seen in enumerate(merge(parts), start=1):
        for group in lit:
            before = group.elements.shape[1] - 1
            if len(group) and before + 1 + after <= max_depth:
                sequence, edge = _Joint(search, None if before else source, receivers, group.wedges, seen).clear()
                _, first, kind = np.unique(row_keys(seen[:, 1:]), return_index=True, return_inverse=True)
                pairs = unique_rows(np.column_stack([edge, kind.reshape(-1)[sequence]]).astype(np.int32))
                found.append(np.column_stack([group.elements[pairs[:, 0]], seen[first[pairs[:, 1]], :0:-1]]))
    return found


def _rays_of(points: NDArray[np.float64], every: int, low: int, high: int, shift: tuple[float, float]) -> Rays:
    """Rays from points in all directions: of `every`, the same number from each point, those from `low` to `high`."""
    number = dr.arange(mi.Float64, high - low) + dr.opaque(mi.Float64, low)
    point = mi.UInt(dr.floor((number + 0.5) * dr.opaque(mi.Float64, len(points) / every)))
    u, v = spread(number, shift)
    origin = dr.gather(mi.Point3f, load_table(mi.Point3f, points), point)
    # Twice as many within 15 degrees of the horizon as evenly spread: there most walls are.
    height = (2 * v - 1) * dr.abs(2 * v - 1)
    level = dr.safe_sqrt(1 - height * height)
    sine, cosine = dr.sincos(2 * dr.pi * u)
    rays = Rays(origin, mi.Vector3f(level * cosine, level * sine, height), point)
    dr.eval(rays.origin, rays.direction, rays.row)
    return rays


def grouped(
    starts: NDArray[np.float64], ends: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Groups of edges near to one another, and spheres around them.

    Parameters
    ----------
    starts, ends : float64 (N, 3)
        Metres.
    size : int
        Edges of a group.

    Returns
    -------
    order : int64 (G * size,)
        Edges, group by group; the last group is filled up with its last edge.
    centre : float64 (G, 3)
    radius : float64 (G,)
    """
    middle = (starts + ends) / 2
    # In a plan, along a curve that fills the square (Morton's): what is near on it is near on the ground.
    cells = np.clip((middle[:, :2] - middle[:, :2].min(0)) / 4.0, 0, 1023).astype(np.int64)
    code = sum(((cells[:, axis] >> bit & 1) << (2 * bit + axis)) for axis in range(2) for bit in range(10))
    order = np.argsort(code, kind="stable")
    order = np.concatenate([order, np.repeat(order[-1:], -len(order) % size)])
    points = np.concatenate([starts[order].reshape(-1, size, 3), ends[order].reshape(-1, size, 3)], axis=1)
    centre = (points.min(1) + points.max(1)) / 2
    return order, centre, np.linalg.norm(points - centre[:, None], axis=2).max(1)


def _those_that(test: Callable[[Numbers, Numbers], Numbers], one: Numbers, other: Numbers) -> tuple[Numbers, Numbers]:
    """Pairs that pass a test."""
    fits = test(one, other)
    dr.eval(fits)
    keep = positions(fits)
    one, other = dr.gather(mi.UInt, one, keep), dr.gather(mi.UInt, other, keep)
    dr.eval(one, other)
    return one, other


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
        self._image, self._plane = [load_packets(image)], []
        for position in range(self.mirrors):
            plane = seen[:, 1 + position]
            image = mirror(surfaces, plane, image)
            self._image.append(load_packets(image))
            self._plane.append(load_table(mi.UInt, plane))
        self._mirror = load_packets(surfaces.normal, surfaces.offset)
        self._axes = [load_packets(surfaces.frame[:, axis]) for axis in range(2)]
        self._bounds = load_packets(surfaces.bounds[:, :3], surfaces.bounds[:, 3])
        origin, along, normals, away = wedges.oriented()
        # The source, or its image, in the coordinates of the edge.
        foot, height = edge_coordinates(wedges.image, origin, along)
        self._source = None if source is None else load_rows(mi.Point3f, source)
        self._origin, self._along = load_packets(origin, foot), load_packets(along, height)
        self._away = load_packets(away, surfaces.edge_length[wedges.edge])
        self._normals = [load_packets(normals[:, side]) for side in range(2)]
        ends = origin, origin + surfaces.edge_length[wedges.edge][:, None] * along
        order, centre, radius = grouped(*ends, 1 << GROUP_BITS)
        self._order, self._groups = load_table(mi.UInt, order), len(centre)
        self._sphere = load_packets(centre, radius + MARGIN)

    def clear(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sequence and edge of the pairs whose path nothing blocks."""
        sequences, edges = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for sequence, edge in self._pairs_in_place():
            for test in (self._meets_mirrors, self._is_clear):
                if not dr.width(edge):
                    break
                sequence, edge = _those_that(test, sequence, edge)
            sequences.append(sequence.numpy().astype(np.int64))
            edges.append(edge.numpy().astype(np.int64))
        return np.concatenate(sequences), np.concatenate(edges)

    def _pairs_in_place(self) -> Iterator[tuple[Numbers, Numbers]]:
        """Sequences, and edges that may be seen in them and have a place for the path: first by groups, then one by one."""
        step, size = max(1, self.limit // self._groups), 1 << GROUP_BITS
        for low in range(0, self.sequences, step):

            def views(row: Numbers, low: int = low) -> Callable[[Numbers], Numbers]:
                return self._may_see(row + dr.opaque(mi.UInt, low))

            row, group = crossed(min(low + step, self.sequences) - low, self._groups, views)
            for first in range(0, dr.width(group), max(1, self.limit // size)):
                pair = dr.arange(mi.UInt, min(self.limit // size, dr.width(group) - first)) + dr.opaque(mi.UInt, first)
                sequence = dr.gather(mi.UInt, row, pair) + dr.opaque(mi.UInt, low)
                members = dr.gather(mi.UInt, group, pair) << GROUP_BITS
                dr.eval(sequence, members)

                def places(
                    at: Numbers, sequence: Numbers = sequence, members: Numbers = members
                ) -> Callable[[Numbers], Numbers]:
                    return self._has_place(dr.gather(mi.UInt, sequence, at), dr.gather(mi.UInt, members, at))

                at, member = crossed(dr.width(pair), size, places)
                edge = dr.gather(mi.UInt, self._order, dr.gather(mi.UInt, members, at) + member)
                sequence = dr.gather(mi.UInt, sequence, at)
                dr.eval(sequence, edge)
                yield sequence, edge

    def _may_see(self, sequence: Numbers) -> Callable[[Numbers], Numbers]:
        """Test of groups: whether their spheres reach into what receivers' images see through the mirror next to the edge."""
        eye = packets(self._image[-1], sequence)[0]
        plane = dr.gather(mi.UInt, self._plane[-1], sequence)
        normal, offset = packets(self._mirror, plane)
        across, up = (packets(axis, plane)[0] for axis in self._axes)
        bounds = dr.gather(mi.Vector4f, self._bounds, plane)
        corners = [
            u * across + v * up + offset * normal - eye
            for u, v in (
                (bounds.x - SLACK, bounds.z - SLACK),
                (bounds.y + SLACK, bounds.z - SLACK),
                (bounds.y + SLACK, bounds.w + SLACK),
                (bounds.x - SLACK, bounds.w + SLACK),
            )
        ]
        middle, beyond = corners[0] + corners[2], dr.sign(dr.dot(normal, eye) - offset)
        sides = [dr.cross(one, next_one) for one, next_one in itertools.pairwise([*corners, corners[0]])]
        # A mirror seen edge-on has sides without a direction: nothing is sorted out by them.
        sides = [(side * dr.sign(dr.dot(side, middle)), dr.norm(side)) for side in sides]

        def test(group: Numbers) -> Numbers:
            centre, radius = packets(self._sphere, group)
            ahead = centre - eye
            # Beyond the mirror's plane, as seen from the image; and inside the four sides of the pyramid.
            sees = beyond * (dr.dot(normal, centre) - offset) < radius
            for inwards, length in sides:
                sees &= dr.dot(inwards, ahead) > -radius * length
            return sees

        return test

    def _place(self, image: Vectors, edge: Numbers) -> tuple[Numbers, Vectors, Vectors, Numbers]:
        """Where on the edge paths diffract; the way on to the receiver's image; its distance from the edge's line."""
        (origin, foot), (along, height) = packets(self._origin, edge), packets(self._along, edge)
        # Unrolled around the edge the way from source to image is straight (see `geometry.edge_parameter`).
        ahead = image - origin
        along_t = dr.dot(ahead, along)
        away_t = dr.norm(ahead - along_t * along)
        place = (foot * away_t + along_t * height) / dr.maximum(height + away_t, 1e-6)
        return place, origin + place * along, ahead - place * along, away_t

    def _has_place(self, sequence: Numbers, members: Numbers) -> Callable[[Numbers], Numbers]:
        """Test of a group's members: whether that is between the edge's ends, and the path goes on outside the wedge."""
        image, _ = packets(self._image[-1], sequence)

        def test(member: Numbers) -> Numbers:
            edge = dr.gather(mi.UInt, self._order, members + member)
            place, _, leaving, away = self._place(image, edge)
            length = packets(self._away, edge)[1]
            normal_0, normal_n = (packets(table, edge)[0] for table in self._normals)
            fits = (place > 0) & (place < length) & (away > EDGE_OFFSET)
            return fits & ((dr.dot(leaving, normal_0) > 0) | (dr.dot(leaving, normal_n) > 0))

        return test

    def _meets_mirrors(self, sequence: Numbers, edge: Numbers) -> Numbers:
        """Whether the path meets its mirrors."""
        return self._path(sequence, edge)[0]

    def _path(self, sequence: Numbers, edge: Numbers) -> tuple[Numbers, list[Vectors]]:
        """Whether the path meets its mirrors, and where: from the edge to the receiver, just off the faces."""
        fits = mi.Bool(True)
        _, at, _, _ = self._place(packets(self._image[-1], sequence)[0], edge)
        at += EDGE_OFFSET * packets(self._away, edge)[0]
        stops = [at]
        for position in reversed(range(self.mirrors)):
            plane = dr.gather(mi.UInt, self._plane[position], sequence, fits)
            target, _ = packets(self._image[position + 1], sequence, fits)
            normal, offset = packets(self._mirror, plane, fits)
            ahead = target - at
            height = offset - dr.dot(normal, at)
            time = height / dr.dot(normal, ahead)
            met = at + time * ahead
            u, v = (dr.dot(met, packets(axis, plane, fits)[0]) for axis in self._axes)
            bounds = dr.gather(mi.Vector4f, self._bounds, plane, fits)
            fits &= (u > bounds.x - SLACK) & (u < bounds.y + SLACK) & (v > bounds.z - SLACK) & (v < bounds.w + SLACK)
            fits &= (time > 0) & (time < 1)
            at = met
            stops.append(met - dr.sign(height) * OFF_FACE * normal)
        stops.append(packets(self._image[0], sequence)[0])
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
