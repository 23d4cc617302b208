"""Geometry of the paths of chains: images, and paths traced back from receivers to the source. NumPy, float64.

The image method of Sionna works in float32: at 28.5 GHz every 10 um of length are 0.3 degrees of phase. It decides
which paths exist; their vertices, lengths and angles come from here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.surfaces import Surfaces


@dataclass(frozen=True)
class Unfolded:
    """Chains with everything mirrored that a receiver needs to find its path (C chains, D elements).

    A path runs from the receiver towards `aim + parameter * slide` of the last element, meets that element's plane
    there, and goes on towards the one before. `parameter` is where on the edge the wave diffracts; `slide` is 0 before
    the edge (the way back to the source's images) and on chains without one.

    Attributes
    ----------
    plane : int32 (C, D)
        The mirror; -1 for edges, faces passed through, and past the end.
    is_edge, passes : bool (C, D)
        Whether the element is an edge; whether it stands for any face passed through.
    aim, slide : float64 (C, D, 3)
    lamp : float64 (C, 3)
        Image of the source in all planes.
    lit : float64 (C, 3)
        Image of the source in the planes before the edge.
    origin, along : float64 (C, 3)
        Image of the edge in the planes after it; along is 0 without an edge.
    length : float64 (C,)
        The edge's.
    facing : float64 (C, 3)
        Normal of the edge's 0-face where the source sees both faces, else 0.
    """

    plane: NDArray[np.int32]
    is_edge: NDArray[np.bool_]
    passes: NDArray[np.bool_]
    aim: NDArray[np.float64]
    slide: NDArray[np.float64]
    lamp: NDArray[np.float64]
    lit: NDArray[np.float64]
    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    length: NDArray[np.float64]
    facing: NDArray[np.float64]


def mirror(
    surfaces: Surfaces, element: NDArray[np.integer], points: NDArray[np.float64], affine: bool = True
) -> NDArray[np.float64]:
    """Mirror one point (or, not affine, one direction) in each element's plane; other elements leave it as it is."""
    is_plane = (element >= 0) & (element < surfaces.planes)
    plane = np.where(is_plane, element, 0)
    normal = surfaces.normal[plane]
    height = np.einsum("ci,ci->c", points, normal) - (surfaces.offset[plane] if affine else 0.0)
    return points - 2 * np.where(is_plane, height, 0.0)[:, None] * normal


def images(surfaces: Surfaces, source: NDArray[np.float64], elements: NDArray[np.int32]) -> NDArray[np.float64]:
    """Images of the source after each element of chains.

    Parameters
    ----------
    surfaces : Surfaces
    source : float64 (3,)
    elements : int32 (C, D)
        Numbers as in `chains.Chains`.

    Returns
    -------
    float64 (C, D, 3)
    """
    image = np.broadcast_to(source, (len(elements), 3)).astype(np.float64)
    steps = np.empty((*elements.shape, 3))
    for position in range(elements.shape[1]):
        image = mirror(surfaces, elements[:, position], image)
        steps[:, position] = image
    return steps


def oriented_edges(
    surfaces: Surfaces, edge: NDArray[np.integer], swapped: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Origin, direction (N, 3), normals of 0-face and n-face (N, 2, 3) of edges whose faces may have changed roles."""
    flip = swapped[:, None]
    along = surfaces.edge_direction[edge]
    far = surfaces.edge_origin[edge] + surfaces.edge_length[edge, None] * along
    normals = surfaces.edge_normals[edge]
    return (
        np.where(flip, far, surfaces.edge_origin[edge]),
        np.where(flip, -along, along),
        np.where(flip[..., None], normals[:, ::-1], normals),
    )


def unfold(
    surfaces: Surfaces, source: NDArray[np.float64], elements: NDArray[np.int32], swapped: NDArray[np.bool_]
) -> Unfolded:
    """Mirror source and edges of chains.

    Parameters
    ----------
    surfaces : Surfaces
    source : float64 (3,)
    elements : int32 (C, D)
    swapped : bool (C,)
        Chains whose edge has its faces exchanged.
    """
    count, depth = elements.shape
    passes = elements == surfaces.through
    is_edge = (elements >= surfaces.planes) & ~passes
    aim = images(surfaces, source, elements)
    lamp = aim[:, -1].copy()
    lit = np.zeros((count, 3))
    slide = np.zeros((count, depth, 3))
    origin, along, length = np.zeros((count, 3)), np.zeros((count, 3)), np.zeros(count)
    facing = np.zeros((count, 3))
    for position in range(depth):
        element = elements[:, position]
        here = np.flatnonzero(is_edge[:, position])
        edge = element[here] - surfaces.planes
        lit[here] = aim[here, position]
        origin = mirror(surfaces, element, origin)
        along = mirror(surfaces, element, along, affine=False)
        origin[here], along[here], normals = oriented_edges(surfaces, edge, swapped[here])
        length[here] = surfaces.edge_length[edge]
        sees = np.einsum("efi,ei->ef", normals, aim[here, position] - origin[here]) > 0
        facing[here] = np.where(sees.all(axis=1)[:, None], normals[:, 0], 0.0)
        after = is_edge[:, : position + 1].any(axis=1)
        aim[after, position] = origin[after]
        slide[after, position] = along[after]
    # Without an edge the mirrored zeros mean nothing.
    origin[~is_edge.any(axis=1)] = 0
    plane = np.where((elements >= 0) & (elements < surfaces.planes), elements, -1).astype(np.int32)
    return Unfolded(plane, is_edge, passes, aim, slide, lamp, lit, origin, along, length, facing)


def trace_back(
    surfaces: Surfaces,
    unfolded: Unfolded,
    chain: NDArray[np.int64],
    receivers: NDArray[np.float64],
    faces: NDArray[np.int32],
) -> NDArray[np.float64]:
    """Vertices of paths.

    Parameters
    ----------
    surfaces : Surfaces
    unfolded : Unfolded
    chain : int64 (N,)
        Row of each path's chain.
    receivers : float64 (N, 3)
    faces : int32 (N, D)
        Faces that were hit; they say where a path passes through one.

    Returns
    -------
    float64 (N, D, 3)
        From the source on; 0 past the end of a path.
    """
    parameter = edge_parameter(unfolded.lamp[chain], receivers, unfolded.origin[chain], unfolded.along[chain])
    depth = unfolded.plane.shape[1]
    vertices = np.zeros((len(chain), depth, 3))
    at = receivers.astype(np.float64)
    for position in reversed(range(depth)):
        crossed = surfaces.plane_of_face[faces[:, position]]
        plane = np.where(unfolded.passes[chain, position], crossed, unfolded.plane[chain, position])
        target = unfolded.aim[chain, position] + parameter[:, None] * unfolded.slide[chain, position]
        normal, offset = surfaces.normal[plane], surfaces.offset[plane]
        ahead = target - at
        meets, diffracts = plane >= 0, unfolded.is_edge[chain, position]
        speed = np.where(meets, np.einsum("ni,ni->n", normal, ahead), 1.0)
        time = (offset - np.einsum("ni,ni->n", normal, at)) / speed
        met = np.where(diffracts[:, None], target, at + time[:, None] * ahead)
        here = meets | diffracts
        at = np.where(here[:, None], met, at)
        vertices[here, position] = met[here]
    return vertices


def edge_parameter(
    lamp: NDArray[np.float64], receiver: NDArray[np.float64], origin: NDArray[np.float64], along: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distance from an edge's origin to the point where the shortest path from lamp to receiver touches its line.

    Unrolled around the edge the path is straight, so the point divides the projections in the ratio of the distances
    (Keller's law). All (N, 3), returns (N,); 0 for `along` = 0.
    """
    (along_s, away_s), (along_t, away_t) = (edge_coordinates(point, origin, along) for point in (lamp, receiver))
    parameter: NDArray[np.float64] = (along_s * away_t + along_t * away_s) / np.maximum(away_s + away_t, 1e-12)
    return parameter


def edge_coordinates(
    points: NDArray[np.float64], origin: NDArray[np.float64], along: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances (N,) of points (N, 3) along edges from their origins, and from the edges' lines."""
    ahead = points - origin
    foot = np.einsum("ni,ni->n", ahead, along)
    return foot, np.linalg.norm(ahead - foot[:, None] * along, axis=1)


def path_lengths(
    source: NDArray[np.float64],
    vertices: NDArray[np.float64],
    present: NDArray[np.bool_],
    receivers: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lengths and end directions of paths.

    Parameters
    ----------
    source : float64 (3,)
    vertices : float64 (N, D, 3)
    present : bool (N, D)
        Which vertices exist.
    receivers : float64 (N, 3)

    Returns
    -------
    length : float64 (N,)
    departure, arrival : float64 (N, 3)
        Unit vectors from the source to the first vertex, and from the receiver to the last.
    """
    at = np.broadcast_to(source, receivers.shape)
    length = np.zeros(len(receivers))
    first, last = receivers.astype(np.float64), np.array(at)
    for position in range(vertices.shape[1]):
        here = present[:, position]
        length += np.where(here, np.linalg.norm(vertices[:, position] - at, axis=1), 0.0)
        at = np.where(here[:, None], vertices[:, position], at)
        last = at
    if vertices.shape[1]:
        first = np.where(present[:, :1], vertices[:, 0], receivers)
    length += np.linalg.norm(receivers - at, axis=1)
    return length, _unit(first - source), _unit(last - receivers)


def shortest_step(vertices: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Least distance in m of two successive vertices (N, D, 3) of each path; infinite with fewer than two."""
    steps = np.linalg.norm(np.diff(vertices, axis=1), axis=2)
    # Vertices come first in a row, so a step is there where its second end is.
    shortest: NDArray[np.float64] = np.where(present[:, 1:], steps, np.inf).min(axis=1, initial=np.inf)
    return shortest


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (N, 3) of length 1."""
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    return unit
