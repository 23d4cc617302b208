"""Which sequences of planes and edges a wave can follow from the base station: found once, for all receivers.

A *chain* is an ordered sequence of mirrors (planes) and at most one wedge (edge). It does not depend on who receives,
so rays are shot and bounced without looking at receivers, and every prefix of a ray's sequence is a chain. Single
reflections and single diffractions need no rays: every plane and every edge that the source sees from outside is one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace.device import dr, load, load_rows, mi, rt
from raytrace.geometry import images, oriented_edges
from raytrace.surfaces import Surfaces
from raytrace.world import World

# Above this many possible (chain, element) pairs new chains are numbered by sorting instead of by a table.
TABLE_LIMIT = 50_000_000

# Rays leave an edge this far outside it, as in Sionna's image method.
EDGE_OFFSET = 1e-3

# Rays that leave the edges which the source sees, for each ray that leaves the source. Small far planes are the hard ones
# to find: with 1 some 1 % of Sionna's (faint) paths by diffraction and then reflection were missed, with 4 none or one.
FIRST_EDGE_RAYS = 4

# Rays in flight at once, some 100 bytes each.
RAY_BATCH = 1_000_000

# Steps of the R2 sequence (Roberts 2018): evenly spread points of the unit square, whatever their number.
R2_STEPS = (0.7548776662466927, 0.5698402909980532)


@dataclass(frozen=True)
class Chains:
    """All chains of a source (C chains of up to D elements), shortest first.

    Attributes
    ----------
    elements : int32 (C, D)
        A plane k as k, an edge e as K + e (K planes), -1 past the end. With D = 0 elements there is no chain.
    wedge : int32 (C,)
        Position of the edge in the sequence, -1 without.
    swapped : bool (C,)
        The source sees the edge's n-face and not its 0-face, so that the two change roles.
    """

    elements: NDArray[np.int32]
    wedge: NDArray[np.int32]
    swapped: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.elements)


@dataclass
class _Rays:
    """Rays in flight: origins, directions, and the row of their chain in the current level."""

    origin: Any
    direction: Any
    row: Any


def find_chains(
    world: World,
    source: NDArray[np.float64],
    max_depth: int,
    rays: int,
    specular: bool = True,
    diffraction: bool = False,
    seed: int = 0,
) -> Chains:
    """Chains of up to `max_depth` interactions, with at most one diffraction.

    Parameters
    ----------
    world : World
    source : float64 (3,)
        Metres.
    max_depth : int
    rays : int
        Rays shot from the source (the lattice of Sionna's solver) and, with diffraction, as many again from the edges.
    specular, diffraction : bool
    seed : int
        Shifts the points and directions of the rays that leave edges. Those from the source are a fixed lattice.
    """
    surfaces = world.surfaces
    levels: list[NDArray[np.int32]] = []
    if max_depth > 0 and specular:
        first = _Rays(load_rows(mi.Point3f, source), _lattice(rays), dr.zeros(mi.UInt, rays))
        levels, hits = _bounce(world, first, np.empty((1, 0), np.int32), max_depth)
        # What rays met first is among these, but for grazing hits that carry nothing.
        levels[:1] = [_planes_seen(surfaces, source)]
    else:
        hits = []
    if max_depth > 0 and diffraction:
        every = np.column_stack([np.zeros(surfaces.edges, np.int64), np.arange(surfaces.edges)])
        prefixes = [np.empty((1, 0), np.int32)] + [prefix for prefix, _ in hits]
        reached = [every] + [_edges_of_hits(surfaces, pairs) for _, pairs in hits]
        random = np.random.default_rng(seed)
        for depth, (prefix, pairs) in enumerate(zip(prefixes, reached, strict=True), start=1):
            levels += _diffract(world, source, prefix, pairs, max_depth - depth, specular, rays, random)
    return _assemble(surfaces, source, levels, max_depth)


def _lattice(count: int) -> Any:
    """Directions of Sionna's solver: a Fibonacci lattice on the sphere."""
    return mi.warp.square_to_uniform_sphere(rt.utils.fibonacci_lattice(count))


def _planes_seen(surfaces: Surfaces, source: NDArray[np.float64]) -> NDArray[np.int32]:
    """Chains of one plane with a face whose outside the source is on."""
    triangles = surfaces.vertices[surfaces.faces]
    outward = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    front = np.einsum("fi,fi->f", outward, source - triangles[:, 0]) > 0
    return np.unique(surfaces.plane_of_face[front])[:, None]


def _bounce(
    world: World, rays: _Rays, prefix: NDArray[np.int32], depth: int
) -> tuple[list[NDArray[np.int32]], list[tuple[NDArray[np.int32], NDArray[np.int64]]]]:
    """Reflect rays up to `depth` times and collect the sequences of planes they meet.

    Parameters
    ----------
    world : World
    rays : _Rays
    prefix : int32 (rows, elements)
        Sequences that the rays have behind them.
    depth : int

    Returns
    -------
    list of int32 (chains, elements)
        New sequences, one array a bounce.
    list of (prefix, int64 (pairs, 2))
        For each bounce the new sequences and, of the bounce after it, the (row of sequence, face) pairs that rays met.
    """
    surfaces = world.surfaces
    plane_of_face = load(mi.UInt, surfaces.plane_of_face)
    levels, hits = [], []
    for bounce in range(depth):
        ray = mi.Ray3f(rays.origin, rays.direction)
        ray.time = dr.zeros(mi.Float, dr.width(rays.direction))
        met = world.scene.mi_scene.ray_intersect(ray, ray_flags=mi.RayFlags.Minimal, coherent=bounce == 0)
        valid = met.is_valid()
        plane = dr.gather(mi.UInt, plane_of_face, met.prim_index, valid)
        reflected = rays.direction - 2 * dr.dot(rays.direction, met.n) * met.n
        onward = met.spawn_ray(reflected)
        face, origin, direction = met.prim_index, onward.o, onward.d
        dr.eval(valid, plane, face, origin, direction)
        alive = dr.compress(valid)
        if dr.width(alive) == 0:
            break
        row = dr.gather(mi.UInt, rays.row, alive).numpy()
        plane = dr.gather(mi.UInt, plane, alive).numpy()
        face = dr.gather(mi.UInt, face, alive).numpy()
        if bounce > 0:
            met_faces, _ = _number(row, face, len(prefix), len(surfaces.faces))
            hits.append((prefix, met_faces))
        pairs, new_row = _number(row, plane, len(prefix), surfaces.planes)
        prefix = np.column_stack([prefix[pairs[:, 0]], pairs[:, 1]]).astype(np.int32)
        levels.append(prefix)
        rays = _Rays(
            dr.gather(mi.Point3f, origin, alive),
            dr.gather(mi.Vector3f, direction, alive),
            load(mi.UInt, new_row),
        )
    return levels, hits


def _number(
    row: NDArray[np.uint32], element: NDArray[np.uint32], rows: int, elements: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (row, element) pairs in ascending order, and which of them each ray has."""
    key = row.astype(np.int64) * elements + element
    if rows * elements <= TABLE_LIMIT:
        present = np.zeros(rows * elements, bool)
        present[key] = True
        distinct = np.flatnonzero(present)
        rank = np.empty(rows * elements, np.int32)
        rank[distinct] = np.arange(len(distinct), dtype=np.int32)
        which = rank[key].astype(np.int64)
    else:
        distinct, which = np.unique(key, return_inverse=True)
    return np.column_stack([distinct // elements, distinct % elements]), which.reshape(-1)


def _edges_of_hits(surfaces: Surfaces, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(row, edge) pairs: the convex edges of the faces in (row, face) pairs."""
    sides = surfaces.edge_faces.reshape(-1)
    order = np.argsort(sides, kind="stable")
    edge = order // 2
    begin = np.searchsorted(sides[order], pairs[:, 1])
    count = np.searchsorted(sides[order], pairs[:, 1], side="right") - begin
    row = np.repeat(pairs[:, 0], count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    found = np.column_stack([row, edge[np.repeat(begin, count) + within]])
    return np.unique(found, axis=0) if len(found) else found


def _diffract(
    world: World,
    source: NDArray[np.float64],
    prefix: NDArray[np.int32],
    pairs: NDArray[np.int64],
    remaining: int,
    specular: bool,
    rays: int,
    random: np.random.Generator,
) -> list[NDArray[np.int32]]:
    """Chains that reach an edge after `prefix`, and those that go on from it by reflection."""
    surfaces = world.surfaces
    elements = np.column_stack([prefix[pairs[:, 0]], surfaces.planes + pairs[:, 1]]).astype(np.int32)
    image = images(surfaces, source, elements)[:, -1]
    edge = pairs[:, 1]
    sees = np.einsum("pfi,pi->pf", surfaces.edge_normals[edge], image - surfaces.edge_origin[edge]) > 0
    lit = sees.any(axis=1)
    elements, image, edge, swapped = elements[lit], image[lit], edge[lit], ~sees[lit, 0]
    if not len(elements) or remaining == 0 or not specular:
        return [elements]
    # Each edge gets the same number of rays, which cover its length and the Keller cone's open angles.
    share = max(16, int(rays * (1 if prefix.shape[1] else FIRST_EDGE_RAYS)) // len(elements))
    step = max(1, RAY_BATCH // share)
    found = [elements]
    for low in range(0, len(elements), step):
        part = slice(low, low + step)
        leaving = _keller_rays(surfaces, edge[part], image[part], swapped[part], share, random)
        found += _bounce(world, leaving, elements[part], remaining)[0]
    return found


def _keller_rays(
    surfaces: Surfaces,
    edge: NDArray[np.int64],
    image: NDArray[np.float64],
    swapped: NDArray[np.bool_],
    share: int,
    random: np.random.Generator,
) -> _Rays:
    """`share` rays on the Keller cones of each edge, as lit from a source image."""
    origin, along, normals = oriented_edges(surfaces, edge, swapped)
    open_angle = 2 * np.pi - np.arccos(np.clip(-np.einsum("ei,ei->e", normals[:, 0], normals[:, 1]), -1, 1))
    away = normals.sum(axis=1)
    away /= np.maximum(np.linalg.norm(away, axis=1), 1e-9)[:, None]
    tables = [origin, along, normals[:, 0], np.cross(normals[:, 0], along), away, image]
    at = [load_rows(mi.Vector3f, table) for table in tables]
    length, angle = load(mi.Float, surfaces.edge_length[edge]), load(mi.Float, open_angle)

    shift = dr.opaque(mi.Float, random.random()), dr.opaque(mi.Float, random.random())
    index = dr.arange(mi.UInt, len(edge) * share)
    row = index // dr.opaque(mi.UInt, share)
    point, turn = (
        (f := shift[axis] + mi.Float(mi.Float64(index) * step - dr.floor(mi.Float64(index) * step))) - dr.floor(f)
        for axis, step in enumerate(R2_STEPS)
    )
    start, zeta, normal, tangent, outside, lamp = (dr.gather(mi.Vector3f, table, row) for table in at)
    # Evenly in the angle under which the image sees the edge: near ones are sampled as densely as far ones.
    foot = dr.dot(lamp - start, zeta)
    height = dr.maximum(dr.norm(lamp - start - foot * zeta), EDGE_OFFSET)
    low, high = dr.atan(-foot / height), dr.atan((dr.gather(mi.Float, length, row) - foot) / height)
    place = start + (foot + height * dr.tan(dr.lerp(low, high, point))) * zeta
    cosine = dr.dot(dr.normalize(place - lamp), zeta)
    sine = dr.safe_sqrt(1 - cosine * cosine)
    sin_turn, cos_turn = dr.sincos(turn * dr.gather(mi.Float, angle, row))
    leaving = cosine * zeta + sine * (cos_turn * tangent + sin_turn * normal)
    rays = _Rays(mi.Point3f(place + EDGE_OFFSET * outside), leaving, row)
    dr.eval(rays.origin, rays.direction, rays.row)
    return rays


def _assemble(
    surfaces: Surfaces, source: NDArray[np.float64], levels: list[NDArray[np.int32]], max_depth: int
) -> Chains:
    """One table of all chains, each once, in an order that depends on nothing but the chains."""
    depth = max(1, max_depth)
    padded = [np.pad(level, ((0, 0), (0, depth - level.shape[1])), constant_values=-1) for level in levels]
    elements = np.concatenate([*padded, np.empty((0, depth), np.int32)]).astype(np.int32)
    length = (elements >= 0).sum(axis=1)
    elements = elements[np.lexsort((*elements.T[::-1], length))]
    is_edge = elements >= surfaces.planes
    wedge = np.where(is_edge.any(axis=1), is_edge.argmax(axis=1), -1).astype(np.int32)
    swapped = np.zeros(len(elements), bool)
    some = np.flatnonzero(wedge >= 0)
    edge = elements[some, wedge[some]] - surfaces.planes
    image = images(surfaces, source, elements[some])[np.arange(len(some)), wedge[some]]
    swapped[some] = np.einsum("ei,ei->e", surfaces.edge_normals[edge, 0], image - surfaces.edge_origin[edge]) <= 0
    return Chains(elements, wedge, swapped)
