"""First-order diffuse scattering from patches of the surfaces that the source sees: one path per patch and receiver.

The power of a path is the integral over the part of its patch that both ends see. Sionna's field calculator gives the
integrand at three nodes, so that materials, patterns and polarisation are those of the stock solver, and the sum over
patches is what that solver's rays give in the mean. (Rays that leave the source evenly are rare where a receiver is near:
there a few of them carry most of the power, and patches are small.)

The phase of a path is that of its length, plus a pseudo-random one of the patch: else the patches around a mirror point,
whose lengths are stationary, would add up to a reflection that depends on their size.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.raytrace import shadows
from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.device import dr, load, load_rows, load_table, mi
from wavecity.raytrace.diffuse import no_paths
from wavecity.raytrace.geometry import path_lengths
from wavecity.raytrace.patches import NODES, Patches, patches_of
from wavecity.raytrace.recording import recording
from wavecity.raytrace.solver import Paths
from wavecity.raytrace.world import World

# Bytes of working memory for a (patch, receiver) pair, its nodes and their fields.
PAIR_BYTES = 1200
# And for a point of a patch that is tested.
POINT_BYTES = 100


@recording
def scattered_paths(
    world: World,
    source: NDArray[np.float64],
    receivers: ArrayLike,
    orientation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pattern: str = "iso",
    depth: int = 1,
    memory: int = 512,
) -> Paths:
    """Paths with one diffuse reflection and nothing else. Nothing is random.

    In four tiles of maps a receiver's power was within 0.06 dB (RMS, 0.5 dB at most) of that with patches of a third of the
    size (docs/physics.md); what is left comes from narrow lit or visible parts that are not found.

    Parameters
    ----------
    world : World
    source : float64 (3,)
        Metres.
    receivers : float (R, 3)
        Metres. Isotropic, with the polarisation of the world.
    orientation : tuple
        Of the source's element, radians (azimuth, downtilt, slant).
    pattern : str
        Sionna's name of the source's element pattern, with the polarisation of the world.
    depth : int
        Width of the result's tables, at least 1.
    memory : int
        Working memory in MB; changes no result.

    Returns
    -------
    Paths
        The vertex is the node of the patch that carries most.

    Examples
    --------
    >>> world = build_world(scene.mesh, scene.size, RadioSettings(scattering=0.4))
    >>> paths = scattered_paths(world, scene.bs_position, scene.users)
    """
    source, receivers = np.asarray(source, np.float64), np.asarray(receivers, np.float64).reshape(-1, 3)
    patches = patches_of(world.surfaces.vertices, world.surfaces.faces)
    lit = _lit_patches(world, patches, source)
    normal = patches.normal[lit]
    offset = np.einsum("pd,pd->p", normal, patches.centre[lit])
    above = normal @ source > offset
    found = [no_paths(depth)]
    step = max(1, memory * 1_000_000 // (PAIR_BYTES * (len(lit) + 500)))
    for low in range(0, len(receivers), step):
        some = receivers[low : low + step]
        same_side = np.where(above[:, None], normal @ some.T > offset[:, None], normal @ some.T < offset[:, None])
        row, receiver = np.nonzero(same_side)
        patch, receiver = _divided(patches, lit[row], receiver, source, some)
        link = _Link(world, patches, source, some, orientation, pattern)
        visible = _visible_parts(link, patch, receiver, memory)
        found.append(_paths(link, visible, low, depth))
    return Paths(
        **{field.name: np.concatenate([getattr(part, field.name) for part in found]) for field in fields(Paths)}
    )


@dataclass(frozen=True)
class _Link:
    """A source and receivers, and the patches between them."""

    world: World
    patches: Patches
    source: NDArray[np.float64]
    receivers: NDArray[np.float64]
    orientation: tuple[float, float, float]
    pattern: str


@dataclass(frozen=True)
class _Parts:
    """Patches, each with a receiver (N), of which both ends see a part: its nodes and the power through each of them."""

    patch: NDArray[np.int64]
    receiver: NDArray[np.int64]
    nodes: NDArray[np.float64]
    power: NDArray[np.float64]


def _lit_patches(world: World, patches: Patches, source: NDArray[np.float64]) -> NDArray[np.int64]:
    """Patches of which the source sees something, as small as it wants them."""
    index, small = np.arange(len(patches)), [np.empty(0, np.int64)]
    while len(index):
        large = patches.too_large(index, source)
        small.append(index[~large])
        index = patches.halves(index[large])
    every = np.sort(np.concatenate(small))
    return every[_lit_parts(world, patches, every, source)[0] > 0]


def _divided(
    patches: Patches,
    patch: NDArray[np.int64],
    receiver: NDArray[np.int64],
    source: NDArray[np.float64],
    receivers: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of patches and receivers, divided until each patch is small enough for both ends."""
    done = [(patch[:0], receiver[:0])]
    # The first ones are small enough for the source.
    large = patches.too_large(patch, receivers[receiver])
    while len(patch):
        done.append((patch[~large], receiver[~large]))
        patch, receiver = patches.halves(patch[large]), np.tile(receiver[large], 2)
        large = patches.too_large(patch, receivers[receiver]) | patches.too_large(patch, source)
    patch, receiver = (np.concatenate(parts) for parts in zip(*done, strict=True))
    return patch, receiver


def _visible_parts(link: _Link, patch: NDArray[np.int64], receiver: NDArray[np.int64], memory: int) -> _Parts:
    """The parts of patches that both ends see, with more points where these decide a receiver's power."""
    patches, receivers = link.patches, len(link.receivers)
    # Many receivers share a patch, and all of them the source's view of it.
    distinct, number = np.unique(patch, return_inverse=True)
    lit_share, lit_nodes = _lit_parts(link.world, patches, distinct, link.source)
    kept = lit_share[number] > 0
    patch, receiver, number = patch[kept], receiver[kept], number[kept]
    nodes = lit_nodes.reshape(-1, 3)
    faces = np.repeat(patches.face[distinct], len(NODES))
    pair, node = np.divmod(np.arange(len(patch) * len(NODES)), len(NODES))
    seen = _hits_first(link.world, link.receivers, receiver[pair], nodes, faces, len(NODES) * number[pair] + node)
    seen = seen.reshape(-1, len(NODES))

    # Through each node as if nothing were in the receiver's way; of patches that hide, one stands for all three.
    some = seen.any(axis=1)
    tried = np.ones(seen.shape, bool)
    tried[~some, 1:] = False
    at, node = np.nonzero(tried)
    power = np.zeros(seen.shape)
    power[tried] = _powers(link, patch[at], receiver[at], lit_nodes[number[at], node])
    power[~some] = power[~some, :1]
    power *= lit_share[number, None] / len(NODES)

    weight = power.sum(axis=1) / lit_share[number]
    share = lit_share[number] * seen.mean(axis=1)
    count = np.full(len(patch), len(NODES))
    chosen = np.empty(0, np.int64)
    part_nodes = np.empty((len(patch), len(NODES), 3))
    for points in shadows.LEVELS:
        chosen = shadows.unsettled(weight, share, count, receiver, receivers)
        if points > shadows.SEARCHED:
            chosen = chosen[share[chosen] > 0]
        step = max(1, memory * 1_000_000 // (POINT_BYTES * points))
        for low in range(0, len(chosen), step):
            some_chosen = chosen[low : low + step]
            visible = _seen_points(link, patch[some_chosen], receiver[some_chosen], points)
            share[some_chosen], part_nodes[some_chosen] = shadows.visible_part(visible)
        count[chosen] = points

    # Paths of patches that were looked at again, and of the others.
    again = np.flatnonzero((count > len(NODES)) & (share > 0))
    at, node = np.divmod(np.arange(len(again) * len(NODES)), len(NODES))
    places = _located(part_nodes[again], patches.corners[patch[again]])
    power[again] = _powers(link, patch[again][at], receiver[again][at], places.reshape(-1, 3)).reshape(-1, 3)
    power[again] *= share[again, None] / len(NODES)
    first = np.flatnonzero((count == len(NODES)) & some)
    power[first] *= seen[first]
    every = np.concatenate([again, first])
    node_places = np.concatenate([places, lit_nodes[number[first]]])
    # Numbers of patches depend on the batches, codes do not.
    order = np.lexsort((patches.code[patch[every]], receiver[every]))
    every, node_places = every[order], node_places[order]
    return _Parts(patch[every], receiver[every], node_places, power[every])


def _lit_parts(
    world: World, patches: Patches, index: NDArray[np.int64], source: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share (M,) of patches that the source sees, and nodes (M, 3, 3) of that part in m."""
    share, nodes = np.ones(len(index)), patches.nodes[index]
    way = patches.centre[index] - source
    square = np.einsum("md,md->m", way, way)
    towards = np.einsum("md,md->m", way, patches.normal[index])
    if world.surfaces.closed:
        # Seen from behind, which only the inside of a solid does.
        share[towards >= 0] = 0
    facing = np.flatnonzero(share)
    faces = np.repeat(patches.face[index[facing]], len(NODES))
    one = np.zeros(len(faces), np.int64)
    seen = _hits_first(world, source[None], one, nodes[facing].reshape(-1, 3), faces)
    partly = facing[~seen.reshape(-1, len(NODES)).all(axis=1)]
    wanted = patches.area[index] * np.abs(towards) / (square * np.sqrt(square)) / shadows.LIT_ANGLE
    level = np.minimum(np.searchsorted(shadows.LIT_LEVELS, wanted), len(shadows.LIT_LEVELS) - 1)
    for number, points in enumerate(shadows.LIT_LEVELS):
        some = partly[level[partly] == number]
        lit = _lit_points(world, patches, index[some], source, points)
        share[some], places = shadows.visible_part(lit)
        nodes[some] = _located(places, patches.corners[index[some]])
    return share, nodes


def _seen_points(link: _Link, patch: NDArray[np.int64], receiver: NDArray[np.int64], points: int) -> NDArray[np.bool_]:
    """Which of the first points (M, points) of patches both ends see."""
    distinct, number = np.unique(patch, return_inverse=True)
    lit = _lit_points(link.world, link.patches, distinct, link.source, points)
    seen = lit[number]
    pair, point = np.nonzero(seen)
    places = _places(link.patches, distinct, points)
    faces = np.repeat(link.patches.face[distinct], points)
    seen[seen] = _hits_first(link.world, link.receivers, receiver[pair], places, faces, points * number[pair] + point)
    return seen


def _lit_points(
    world: World, patches: Patches, index: NDArray[np.int64], source: NDArray[np.float64], points: int
) -> NDArray[np.bool_]:
    """Which of the first points (M, points) of patches the source sees."""
    places = _places(patches, index, points)
    faces = np.repeat(patches.face[index], points)
    seen = _hits_first(world, source[None], np.zeros(len(places), np.int64), places, faces)
    return seen.reshape(-1, points)


def _places(patches: Patches, index: NDArray[np.int64], points: int) -> NDArray[np.float64]:
    """The first points of patches, one patch after another, float64 (M * points, 3)."""
    return _located(shadows.POINTS[None, :points], patches.corners[index]).reshape(-1, 3)


def _located(points: NDArray[np.float64], corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in m (M, N, 3) of barycentric coordinates (M or 1, N, 3) in triangles (M, 3, 3)."""
    # Not a matrix product: its rounding may depend on the number of triangles.
    a, b, c = (points[..., corner, None] * corners[:, None, corner] for corner in range(3))
    located: NDArray[np.float64] = a + b + c
    return located


def _powers(
    link: _Link, patch: NDArray[np.int64], receiver: NDArray[np.int64], places: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Power gain (N,) through patches as if they were everywhere as at these places (N, 3), and nothing in the way."""
    if not len(patch):
        return np.zeros(0)
    buffer = sionna.scattering_buffer(link.world, link.patches.face[patch], places, receiver)
    ends = load_rows(mi.Point3f, link.source), load_table(mi.Point3f, link.receivers)
    field = sionna.coefficients(link.world, buffer, *ends, link.orientation, link.pattern, False)
    # Sionna's field is that of one ray for the whole sphere: a patch has the share that is its solid angle.
    way = places - link.source
    square = np.einsum("nd,nd->n", way, way)
    projected = np.abs(np.einsum("nd,nd->n", way, link.patches.normal[patch])) * link.patches.area[patch]
    power = (field.real.astype(np.float64) ** 2 + field.imag.astype(np.float64) ** 2) * projected
    # Rounding may make the sine of a normal incidence imaginary in Sionna's lobes.
    gain: NDArray[np.float64] = np.nan_to_num(power / (4 * np.pi * square * np.sqrt(square)), nan=0.0)
    return gain


def _paths(link: _Link, parts: _Parts, first: int, depth: int) -> Paths:
    """The path of each part that carries power; `first` is the number of the first receiver."""
    total = parts.power.sum(axis=1)
    carrying = np.flatnonzero(total > 0)
    patch, receiver, total = parts.patch[carrying], parts.receiver[carrying], total[carrying]
    count = len(carrying)
    types, elements = np.zeros((count, depth), np.uint8), np.full((count, depth), -1, np.int32)
    types[:, 0] = sionna.DIFFUSE
    vertices, faces = np.zeros((count, depth, 3)), elements.copy()
    vertices[:, 0] = parts.nodes[carrying, parts.power[carrying].argmax(axis=1)]
    faces[:, 0] = link.patches.face[patch]
    length, departure, arrival = path_lengths(link.source, vertices, types != sionna.NONE, link.receivers[receiver])
    coefficient = (np.sqrt(total) * np.exp(1j * link.patches.phase(patch))).astype(np.complex64)
    return Paths(receiver + first, types, vertices, faces, elements, length, departure, arrival, coefficient)


def _hits_first(
    world: World,
    origins: NDArray[np.float64],
    origin: NDArray[np.int64],
    targets: NDArray[np.float64],
    faces: NDArray[np.int32],
    target: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """Whether rays (N,) from some of the origins towards some of the targets, by default each, meet their faces first."""
    if not len(origin):
        return np.zeros(0, bool)
    number = load(mi.UInt, np.arange(len(targets)) if target is None else target)
    start = dr.gather(mi.Point3f, load_table(mi.Point3f, origins), load(mi.UInt, origin))
    place = dr.gather(mi.Point3f, load_table(mi.Point3f, targets), number)
    face = dr.gather(mi.UInt, load_table(mi.UInt, faces), number)
    ray = mi.Ray3f(start, dr.normalize(place - start))
    hit = world.scene.mi_scene.ray_intersect_preliminary(ray, coherent=False)
    same = hit.is_valid() & (hit.prim_index == dr.gather(mi.UInt, load_table(mi.UInt, world.primitive), face))
    same &= dr.reinterpret_array(mi.UInt, hit.shape) == dr.gather(mi.UInt, load_table(mi.UInt, world.shape), face)
    seen: NDArray[np.bool_] = same.numpy()
    return seen
