"""Edges that the source lights, directly or by way of mirrors.

No ray needs to find them: the image of the source in the mirrors looks through the last one's outline, and an edge that
is not behind it is not lit. Of the others some points are tried.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.bounce import Search
from wavecity.raytrace.clearance import Clearance
from wavecity.raytrace.device import Numbers, divided, dr, load, load_rows, load_table, mi, positions, rt
from wavecity.raytrace.edges import EDGE_OFFSET, Wedges
from wavecity.raytrace.elements import chain_buffer
from wavecity.raytrace.geometry import images, mirror, unfold
from wavecity.raytrace.pairs import PairFinder
from wavecity.raytrace.rows import row_keys
from wavecity.raytrace.surfaces import Surfaces
from wavecity.raytrace.world import World

# Points of an edge from which the path back to the source is tried.
EDGE_POINTS = 16

# Metres: how far beyond a mirror's outline an edge may be seen, how near the mirror's plane, and the least that must be
# seen of it in a mirror: of edges that touch the mirror's corners it is a few millimetres, of which nothing comes.
SLACK, NEAR, LEAST = 2e-3, 1e-3, 0.01


@dataclass(frozen=True)
class Lit:
    """Edges that the source may light after the same number of elements.

    Attributes
    ----------
    elements : int32 (N, E)
        The elements before it, and last the edge, numbered as in `chains.Chains`.
    wedges : Wedges (N)
    span : float64 (N, 2)
        Distances in m from the edge's origin between which the source may see it.
    """

    elements: NDArray[np.int32]
    wedges: Wedges
    span: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.elements)

    def select(self, index: NDArray[np.bool_]) -> "Lit":
        """Those under a mask."""
        return Lit(self.elements[index], self.wedges.select(index), self.span[index])


def facing_edges(search: Search, source: NDArray[np.float64], prefix: NDArray[np.int32]) -> Lit:
    """Edges of which the source sees a face after elements, if nothing is in the way.

    Parameters
    ----------
    search : Search
    source : float64 (3,)
        Metres.
    prefix : int32 (rows, elements)
        Sequences of mirrors and faces passed through.

    Returns
    -------
    Lit
        By row, then by edge.
    """
    surfaces = search.world.surfaces
    image = images(surfaces, source, prefix)[:, -1] if prefix.shape[1] else np.broadcast_to(source, (len(prefix), 3))
    row, edge, span = _Views(surfaces, image, prefix).find(search.limit)
    image = image[row]
    sees = np.einsum("pfi,pi->pf", surfaces.edge_normals[edge], image - surfaces.edge_origin[edge]) > 0
    elements = np.column_stack([prefix[row], surfaces.planes + edge]).astype(np.int32)
    return Lit(elements, Wedges(surfaces, edge, image, ~sees[:, 0]), span).select(sees.any(axis=1))


class _Views:
    """What images of the source see of edges through the outlines of the mirrors, one behind another when unfolded."""

    def __init__(self, surfaces: Surfaces, image: NDArray[np.float64], prefix: NDArray[np.int32]) -> None:
        self.rows, self.mirrors = prefix.shape
        self.edges = surfaces.edges
        self._image = load_table(mi.Vector3f, image)
        self._edge = load_table(mi.Vector3f, surfaces.edge_origin), load_table(mi.Vector3f, surfaces.edge_direction)
        self._length = load_table(mi.Float, surfaces.edge_length)
        self._tables = []
        for position in range(self.mirrors):
            plane = np.where(prefix[:, position] < surfaces.planes, prefix[:, position], 0)
            axes = [surfaces.normal[plane], *surfaces.frame[plane].swapaxes(0, 1)]
            base = surfaces.offset[plane, None] * axes[0]
            bounds = surfaces.bounds[plane] - np.repeat([(axis * base).sum(axis=1) for axis in axes[1:]], 2, axis=0).T
            for later in prefix.T[position + 1 :]:
                axes = [mirror(surfaces, later, axis, affine=False) for axis in axes]
                base = mirror(surfaces, later, base)
            vectors = [load_table(mi.Vector3f, values) for values in (base, *axes)]
            is_mirror = load_table(mi.Bool, prefix[:, position] < surfaces.planes)
            self._tables.append((vectors, load_table(mi.Vector4f, bounds), is_mirror))

    def find(self, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Row and edge (N,) of the pairs of which something is seen, and between which distances (N, 2) along the edge."""
        rows, edges, spans = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty((0, 2))]
        step = max(1, limit // max(1, self.edges))
        for low in range(0, self.rows if self.edges else 0, step):
            number = dr.arange(mi.UInt, (min(low + step, self.rows) - low) * self.edges)
            row = divided(number, self.edges)
            row, edge = row + dr.opaque(mi.UInt, low), number - row * dr.opaque(mi.UInt, self.edges)
            # Most edges are out of view in the last mirror.
            for positions_tried in (range(self.mirrors)[-1:], range(self.mirrors)):
                near, far = self._span(row, edge, positions_tried)
                dr.eval(near, far, row, edge)
                keep = positions(far - near > (LEAST if self.mirrors else 0))
                row, edge, near, far = (
                    dr.gather(kind, values, keep)
                    for kind, values in ((mi.UInt, row), (mi.UInt, edge), (mi.Float, near), (mi.Float, far))
                )
                dr.eval(row, edge, near, far)
                if not dr.width(keep):
                    break
            rows.append(row.numpy().astype(np.int64))
            edges.append(edge.numpy().astype(np.int64))
            spans.append(np.column_stack([near.numpy(), far.numpy()]))
        return np.concatenate(rows), np.concatenate(edges), np.concatenate(spans)

    def _span(self, row: Numbers, edge: Numbers, mirrors: range) -> tuple[Numbers, Numbers]:
        """Between which distances along edges points are seen through the outlines of some mirrors; none if it is empty."""
        image, length = dr.gather(mi.Vector3f, self._image, row), dr.gather(mi.Float, self._length, edge)
        origin, along = (dr.gather(mi.Vector3f, table, edge) for table in self._edge)
        near, far = dr.zeros(mi.Float, dr.width(length)), length
        for position in mirrors:
            vectors, table, is_mirror = self._tables[position]
            base, normal, *axes = (dr.gather(mi.Vector3f, vector, row) for vector in vectors)
            bounds, reflects = dr.gather(mi.Vector4f, table, row), dr.gather(mi.Bool, is_mirror, row)
            depth = dr.dot(normal, image - base)
            side, depth = -dr.sign(depth), dr.abs(depth)
            # Where the way from the image crosses the mirror's plane, its coordinates are quotients of linear functions of
            # the distance along the edge, and all conditions linear: value + slope * distance > 0.
            height, rise = side * dr.dot(normal, origin - base), side * dr.dot(normal, along)
            conditions = [(height - NEAR, rise)]
            for axis, low, high in ((axes[0], bounds.x, bounds.y), (axes[1], bounds.z, bounds.w)):
                start = dr.dot(axis, image - base)
                value, slope = depth * dr.dot(axis, origin - image), depth * dr.dot(axis, along)
                for bound, sign in ((low - SLACK, 1), (high + SLACK, -1)):
                    beyond = bound - start
                    conditions.append((sign * (value - beyond * (depth + height)), sign * (slope - beyond * rise)))
            for value, slope in conditions:
                root = -value / slope
                near = dr.select(reflects & (slope > 0), dr.maximum(near, root), near)
                far = dr.select(reflects & (slope < 0), dr.minimum(far, root), far)
                far = dr.select(reflects & (slope == 0) & (value < 0), -1, far)
        return near, far


def are_lit(search: Search, source: NDArray[np.float64], facing: Lit) -> NDArray[np.bool_]:
    """Whether the source reaches any of some points of each edge by the elements before it.

    Parameters
    ----------
    search : Search
    source : float64 (3,)
        Metres.
    facing : Lit
    """
    _, first, row = np.unique(row_keys(facing.elements[:, :-1]), return_index=True, return_inverse=True)
    prefix = facing.elements[first, :-1]
    lit = np.zeros(len(facing), bool)
    step = max(1, search.limit // (EDGE_POINTS * (1 + prefix.shape[1])))
    for low in range(0, len(facing), step):
        part = slice(low, low + step)
        points = _points_of_edges(facing.wedges.select(part), facing.span[part]).reshape(-1, 3)
        if prefix.shape[1]:
            reached = _reached_by(search.world, source, prefix, np.repeat(row.reshape(-1)[part], EDGE_POINTS), points)
        else:
            origins = dr.gather(mi.Point3f, load_rows(mi.Point3f, source), dr.zeros(mi.UInt, len(points)))
            way = rt.utils.spawn_ray_to(origins, load_rows(mi.Point3f, points))
            reached = ~search.world.scene.mi_scene.ray_test(way).numpy()
        lit[part] = reached.reshape(-1, EDGE_POINTS).any(axis=1)
    return lit


def _reached_by(
    world: World,
    source: NDArray[np.float64],
    prefix: NDArray[np.int32],
    row: NDArray[np.int64],
    points: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether the source reaches points (N) by way of the elements in rows (N)."""
    straight = np.zeros(len(prefix), bool)
    unfolded = unfold(world.surfaces, source, prefix, straight)
    finder = PairFinder(world.surfaces, unfolded, points, diffraction=False)
    chain, point = load(mi.UInt, row), dr.arange(mi.UInt, len(points))
    fits, _ = finder.plausible(chain, point)
    dr.eval(fits)
    keep = positions(fits)
    reached = np.zeros(len(points), bool)
    if not dr.width(keep):
        return reached
    chain, point = dr.gather(mi.UInt, chain, keep), dr.gather(mi.UInt, point, keep)
    if unfolded.passes.any():
        before, ends = chain_buffer(world, prefix, straight, diffraction=False), load_rows(mi.Point3f, source)
        _, found, _ = sionna.validate(world, before, chain, point, ends, load_table(mi.Point3f, points), False)
    else:
        _, clear, _ = Clearance(world, finder, source).clear(chain, point, dr.zeros(mi.UInt, dr.width(point)))
        found = clear.numpy()
    reached[found] = True
    return reached


def _points_of_edges(wedges: Wedges, span: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, EDGE_POINTS, 3) just outside edges, across the angles under which the images see their spans.

    They are closer together towards the ends, as the zeros of a Chebyshev polynomial: what is in the way mostly leaves the
    ends free, as lower roofs do with the tops of vertical edges.
    """
    away = wedges.oriented()[3]
    origin, along = wedges.surfaces.edge_origin[wedges.edge], wedges.surfaces.edge_direction[wedges.edge]
    foot = np.einsum("ei,ei->e", wedges.image - origin, along)
    height = np.linalg.norm(wedges.image - origin - foot[:, None] * along, axis=1)
    height = np.maximum(height, EDGE_OFFSET)
    low, high = np.arctan((span.T - foot) / height)
    share = (1 - np.cos(np.pi * (np.arange(EDGE_POINTS) + 0.5) / EDGE_POINTS)) / 2
    angle = low[:, None] + (high - low)[:, None] * share
    place = foot[:, None] + height[:, None] * np.tan(angle)
    points: NDArray[np.float64] = origin[:, None] + place[..., None] * along[:, None] + EDGE_OFFSET * away[:, None]
    return points
