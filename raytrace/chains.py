"""Sequences of planes and edges that a wave can follow from the base station: found once, for all receivers.

A *chain* is an ordered sequence of mirrors (planes), at most one wedge (edge), and faces passed through. It does not
depend on who receives, so rays are shot and bounced without looking at receivers, and every prefix of a ray's sequence
is a chain. Single reflections and single diffractions need no rays: every plane and every edge that the source sees
from outside is one. What follows an edge is also sought from the receivers' side (`returning`). A face passed through
bends nothing, so a chain does not hold which one it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.bounce import Rays, Search, merge
from wavecity.raytrace.device import Vectors, divided, dr, load_rows, mi
from wavecity.raytrace.edges import keller_rays
from wavecity.raytrace.elements import are_edges
from wavecity.raytrace.geometry import images
from wavecity.raytrace.lit import Lit, are_lit, facing_edges
from wavecity.raytrace.returning import returning_chains
from wavecity.raytrace.rows import unique_rows
from wavecity.raytrace.surfaces import Surfaces
from wavecity.raytrace.world import World

# Arms of the spiral on which the source's rays are taken one after another. It is a Fibonacci number, so that neighbours
# on an arm are neighbours on the sphere.
ARMS = 987

# Metres by which rays may pass above what they are to reach.
ABOVE = 0.01

# Rays that leave edges, for each ray of the source; and the fewest that leave one.
EDGE_RAYS, EDGE_LEAST = 0.5, 1000

# Bytes of working memory for a ray in flight.
RAY_BYTES = 320


@dataclass(frozen=True)
class Chains:
    """All chains of a source (C chains of up to D elements), shortest first.

    Attributes
    ----------
    elements : int32 (C, D)
        A plane k as k, an edge e as K + e (K planes), any face passed through as K + E (E edges), -1 past the end. With
        D = 0 elements there is no chain.
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


def find_chains(
    world: World,
    source: NDArray[np.float64],
    max_depth: int,
    rays: int,
    specular: bool = True,
    diffraction: bool = False,
    refraction: bool = False,
    seed: int = 0,
    memory: int = 512,
    receivers: NDArray[np.float64] | None = None,
) -> Chains:
    """Chains of up to `max_depth` interactions, with at most one diffraction.

    Parameters
    ----------
    world : World
    source : float64 (3,)
        Metres.
    max_depth : int
    rays : int
        Rays shot from the source (the lattice of Sionna's solver) and, with diffraction, some more from the edges.
    specular, diffraction, refraction : bool
    seed : int
        Shifts the points and directions of the rays that leave edges. Those from the source are a fixed lattice.
    memory : int
        Working memory in MB, which bounds the rays in flight.
    receivers : float64 (R, 3), optional
        Metres. Where they are, with diffraction, rays from them find walls that rays from edges hardly ever meet.
    """
    surfaces = world.surfaces
    if not len(surfaces.faces):
        return _assemble(surfaces, source, [], max_depth)
    search = Search(world, specular, refraction, max(1, memory * 1_000_000 // RAY_BYTES))
    levels, sequences = [], [np.empty((1, 0), np.int32)]
    users = np.inf if receivers is None else receivers[:, 2].max(initial=-np.inf)
    ceiling = max(users, surfaces.overhang) + ABOVE
    if max_depth > 0 and (specular or refraction):
        step = search.rays_at_once(max_depth)
        found = []
        for low in range(0, rays, step):
            directions = _lattice(rays, low, min(low + step, rays))
            count = dr.width(directions)
            first = Rays(load_rows(mi.Point3f, source), directions, dr.zeros(mi.UInt, count))
            found.append(
                search.bounce(first, sequences[0], max_depth, True, max(ceiling, surfaces.top if diffraction else 0))
            )
        sequences += merge(found)
        # These include what rays met first, except grazing hits that carry nothing.
        levels = [_single_elements(surfaces, source, specular, refraction), *sequences[2:]]
    if max_depth > 0 and diffraction:
        levels += _diffracted(search, source, sequences[:max_depth], max_depth, rays, receivers, ceiling, seed)
    return _assemble(surfaces, source, levels, max_depth)


def _lattice(count: int, low: int, high: int) -> Vectors:
    """Directions of the Fibonacci lattice on the sphere that Sionna's solver shoots: in the order of arms, low to high."""
    number = dr.arange(mi.UInt, high - low) + dr.opaque(mi.UInt, low)
    # Every ARMS-th point is on one arm; the first `longer` arms have a point more.
    points, longer = count // ARMS, count % ARMS
    split = dr.opaque(mi.UInt, longer * (points + 1))
    is_long = number < split
    within = dr.select(is_long, number, number - split)
    arm = dr.select(is_long, divided(within, points + 1), divided(within, max(1, points)))
    step = within - arm * dr.select(is_long, dr.opaque(mi.UInt, points + 1), dr.opaque(mi.UInt, points))
    arm = dr.select(is_long, arm, arm + dr.opaque(mi.UInt, longer))
    index = mi.Float64(arm + step * ARMS)
    turn = index / ((1 + dr.sqrt(mi.ScalarFloat64(5))) / 2)
    place = index / dr.opaque(mi.Float64, max(count - 1, 1))
    return mi.warp.square_to_uniform_sphere(mi.Point2f(turn - dr.floor(turn), place))


def _single_elements(
    surfaces: Surfaces, source: NDArray[np.float64], specular: bool, refraction: bool
) -> NDArray[np.int32]:
    """Chains of one element: planes that the source sees, and any face passed through."""
    planes = _planes_seen(surfaces, source) if specular else np.empty((0, 1), np.int32)
    return np.concatenate([planes, np.full((int(refraction), 1), surfaces.through, np.int32)])


def _planes_seen(surfaces: Surfaces, source: NDArray[np.float64]) -> NDArray[np.int32]:
    """Chains of one plane with a face whose outside the source is on (of open meshes: whose plane it is not on)."""
    triangles = surfaces.vertices[surfaces.faces]
    outward = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    height = np.einsum("fi,fi->f", outward, source - triangles[:, 0])
    front = height > 0 if surfaces.closed else height != 0
    return np.unique(surfaces.plane_of_face[front])[:, None]


def _diffracted(
    search: Search,
    source: NDArray[np.float64],
    sequences: list[NDArray[np.int32]],
    max_depth: int,
    rays: int,
    receivers: NDArray[np.float64] | None,
    ceiling: float,
    seed: int,
) -> list[NDArray[np.int32]]:
    """Chains that reach an edge after sequences of 0, 1, ... elements, and those that go on from it."""
    groups = [facing_edges(search, source, prefix) for prefix in sequences]
    lit = [group.select(are_lit(search, source, group)) for group in groups]
    # Of edges that the source may see directly also those that it does not seem to light: in case it does so between the
    # points tried.
    found = [group.elements for group in [groups[0], *lit[1:]]]
    random = np.random.default_rng(seed)
    for group in lit if receivers is None or search.refraction else lit[:1]:
        found += _leaving_chains(search, group, max_depth, int(EDGE_RAYS * rays), ceiling, random)
    if receivers is not None and len(receivers) and search.specular:
        found += returning_chains(search, source, receivers, lit, max_depth, rays, (random.random(), random.random()))
    return found


def _leaving_chains(
    search: Search, lit: Lit, max_depth: int, rays: int, ceiling: float, random: np.random.Generator
) -> list[NDArray[np.int32]]:
    """Chains of an edge and what rays that leave it meet: the same number from each, over its length and Keller's cone."""
    remaining = max_depth - lit.elements.shape[1]
    if not len(lit) or remaining == 0 or not (search.specular or search.refraction):
        return []
    share, step = max(EDGE_LEAST, rays // len(lit)), search.rays_at_once(remaining)
    shift = random.random(), random.random()
    found = []
    for low in range(0, len(lit) * share, step):
        leaving = keller_rays(lit.wedges, share, low, min(low + step, len(lit) * share), shift, ceiling)
        found += search.bounce(leaving, lit.elements, remaining, True, ceiling)
    return found


def _assemble(
    surfaces: Surfaces, source: NDArray[np.float64], levels: list[NDArray[np.int32]], max_depth: int
) -> Chains:
    """One table of all chains, each once, in an order that depends on the chains alone."""
    depth = max(1, max_depth)
    padded = [np.pad(level, ((0, 0), (0, depth - level.shape[1])), constant_values=-1) for level in levels]
    elements = np.concatenate([*padded, np.empty((0, depth), np.int32)]).astype(np.int32)
    length = (elements >= 0).sum(axis=1)
    elements = unique_rows(np.column_stack([length, elements]).astype(np.int32))[:, 1:]
    is_edge = are_edges(surfaces, elements)
    wedge = np.where(is_edge.any(axis=1), is_edge.argmax(axis=1), -1).astype(np.int32)
    swapped = np.zeros(len(elements), bool)
    some = np.flatnonzero(wedge >= 0)
    edge = elements[some, wedge[some]] - surfaces.planes
    image = images(surfaces, source, elements[some])[np.arange(len(some)), wedge[some]]
    swapped[some] = np.einsum("ei,ei->e", surfaces.edge_normals[edge, 0], image - surfaces.edge_origin[edge]) <= 0
    return Chains(elements, wedge, swapped)
