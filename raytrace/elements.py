"""Chains as input of Sionna's image method: interaction types, faces and wedges of their elements."""

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.device import PathsBuffer
from wavecity.raytrace.geometry import oriented_edges
from wavecity.raytrace.surfaces import Surfaces
from wavecity.raytrace.world import World


def chain_buffer(
    world: World, elements: NDArray[np.int32], swapped: NDArray[np.bool_], diffraction: bool
) -> PathsBuffer:
    """One entry per chain for the image method: types, a face and a point of each plane, the wedge.

    Parameters
    ----------
    world : World
    elements : int32 (C, D)
        Numbers as in `chains.Chains`.
    swapped : bool (C,)
        Chains whose edge has its faces exchanged.
    diffraction : bool
        Whether any chain may have an edge.
    """
    surfaces = world.surfaces
    faces = element_faces(surfaces, elements, swapped)
    points = surfaces.vertices[surfaces.faces[faces, 0]]
    wedges = element_wedges(surfaces, elements, swapped) if diffraction else None
    return sionna.make_buffer(world, element_types(surfaces, elements), faces, points, wedges=wedges)


def are_edges(surfaces: Surfaces, elements: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Which elements of chains are edges."""
    edges: NDArray[np.bool_] = (elements >= surfaces.planes) & (elements != surfaces.through)
    return edges


def element_types(surfaces: Surfaces, elements: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Sionna's `InteractionType` of each element of chains."""
    kind = np.where(elements >= surfaces.planes, sionna.DIFFRACTION, sionna.SPECULAR)
    kind = np.where(elements == surfaces.through, sionna.REFRACTION, kind)
    types: NDArray[np.uint8] = np.where(elements >= 0, kind, sionna.NONE).astype(np.uint8)
    return types


def element_faces(surfaces: Surfaces, elements: NDArray[np.int32], swapped: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A face of each element: the plane's largest, the edge's illuminated one; any where there is neither."""
    is_edge = are_edges(surfaces, elements)
    is_plane = (elements >= 0) & (elements < surfaces.planes)
    plane_face = surfaces.plane_face[np.where(is_plane, elements, 0)]
    if not surfaces.edges:
        return plane_face
    sides = surfaces.edge_faces[np.where(is_edge, elements - surfaces.planes, 0)]
    lit = np.where(swapped[:, None], sides[..., 1], sides[..., 0])
    return np.where(is_edge, lit, plane_face).astype(np.int32)


def element_wedges(surfaces: Surfaces, elements: NDArray[np.int32], swapped: NDArray[np.bool_]) -> sionna.WedgeRows:
    """Wedge geometry of each row as Sionna has it, the 0-face the illuminated one; zeros without an edge."""
    count = len(elements)
    wedge: sionna.WedgeRows = {
        "origin": np.zeros((count, 3)),
        "along": np.zeros((count, 3)),
        "length": np.zeros(count),
        "normals": np.zeros((count, 2, 3)),
        "faces": np.zeros((count, 2), np.int32),
    }
    row, position = np.nonzero(are_edges(surfaces, elements))
    edge = elements[row, position] - surfaces.planes
    wedge["origin"][row], wedge["along"][row], wedge["normals"][row] = oriented_edges(surfaces, edge, swapped[row])
    wedge["length"][row] = surfaces.edge_length[edge]
    sides = surfaces.edge_faces[edge]
    wedge["faces"][row] = np.where(swapped[row, None], sides[:, ::-1], sides)
    return wedge
