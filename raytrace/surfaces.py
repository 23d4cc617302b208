"""The mesh as the image method uses it: planes of coplanar faces and convex edges. NumPy, float64."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from wavecity.geo.scene import Mesh, Surface
from wavecity.raytrace.touching import Edges, merge_touching

# Faces on one plane within these are one mirror. Sionna's plane hash quantises to the same steps.
NORMAL_TOLERANCE = 1e-5
OFFSET_TOLERANCE = 1e-3

# The ground's own kind of surface, after those of `wavecity.geo.scene.Surface`.
GROUND = 1 + max(Surface)


@dataclass(frozen=True)
class Surfaces:
    """Faces, mirrors and wedges of a scene (K planes, E edges).

    Attributes
    ----------
    vertices : float64 (V, 3)
        Metres, scene frame.
    faces : int32 (F, 3)
        Buildings (without the floors that lie on the ground) and, last, two faces of the ground.
    kind : uint8 (F,)
        `Surface`, or `GROUND`.
    plane_of_face : int32 (F,)
    plane_face : int32 (K,)
        The largest face of each plane; its normal and first vertex are the plane's.
    normal : float64 (K, 3)
    offset : float64 (K,)
        normal . p of the plane's points.
    frame : float64 (K, 2, 3)
        Two axes in the plane.
    bounds : float64 (K, 4)
        Least and largest coordinate of the plane's faces along these axes: low u, high u, low v, high v.
    edge_origin, edge_direction : float64 (E, 3)
        Convex edges between two planes; the 0-face lies on the left of the direction seen from outside.
    edge_length : float64 (E,)
    edge_faces : int32 (E, 2)
        0-face and n-face.
    edge_normals : float64 (E, 2, 3)
        Their normals, on the outside of the wedge.
    closed : bool
        All faces look outward from solids, so that nothing outside meets one from behind.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    kind: NDArray[np.uint8]
    plane_of_face: NDArray[np.int32]
    plane_face: NDArray[np.int32]
    normal: NDArray[np.float64]
    offset: NDArray[np.float64]
    frame: NDArray[np.float64]
    bounds: NDArray[np.float64]
    edge_origin: NDArray[np.float64]
    edge_direction: NDArray[np.float64]
    edge_length: NDArray[np.float64]
    edge_faces: NDArray[np.int32]
    edge_normals: NDArray[np.float64]
    closed: bool

    @property
    def planes(self) -> int:
        """Number of planes."""
        return len(self.offset)

    @property
    def edges(self) -> int:
        """Number of convex edges."""
        return len(self.edge_length)

    @property
    def top(self) -> float:
        """Height in m below which all ends of edges lie."""
        ends = np.stack([self.edge_origin, self.edge_origin + self.edge_length[:, None] * self.edge_direction])
        return float(ends[..., 2].max(initial=-np.inf))

    @property
    def overhang(self) -> float:
        """Height in m below which all faces lie that look down, or may be met from below."""
        triangles = self.vertices[self.faces]
        outward = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        level = 1e-6 * np.linalg.norm(outward, axis=1)
        down = outward[:, 2] < -level if self.closed else np.abs(outward[:, 2]) > level
        return float(triangles[down, :, 2].max(initial=-np.inf))

    @property
    def through(self) -> int:
        """Number that stands for "through any face" in a chain, after those of planes and edges."""
        return self.planes + self.edges


def survey(mesh: Mesh, size: float) -> Surfaces:
    """Planes and edges of a scene's buildings and its ground.

    Floors on the ground are left out: nothing reaches them, and their lower edges would count as wedges. The ground is
    a square of twice the tile's edge.

    Parameters
    ----------
    mesh : Mesh
        Closed prisms, outward faces.
    size : float
        Edge of the tile in m.
    """
    keep = faces_that_count(mesh)
    corners = np.array([[-size, -size, 0], [size, -size, 0], [size, size, 0], [-size, size, 0]], np.float64)
    ground = np.array([[0, 1, 2], [0, 2, 3]], np.int32) + len(mesh.vertices)
    vertices = np.concatenate([mesh.vertices, corners])
    faces = np.concatenate([mesh.faces[keep], ground]).astype(np.int32)
    kind = np.concatenate([mesh.surface[keep], np.full(2, GROUND, np.uint8)])
    building = np.concatenate([mesh.building[keep], np.full(2, -1, np.int32)])

    return analyse(vertices, faces, kind, building, closed=True)


def faces_that_count(mesh: Mesh) -> NDArray[np.bool_]:
    """Which faces (F,) of a mesh `survey` keeps, in their order: neither floors on the ground nor faces without an area."""
    floor = (mesh.surface == Surface.FLOOR) & (mesh.vertices[mesh.faces, 2].max(axis=1) <= OFFSET_TOLERANCE)
    keep: NDArray[np.bool_] = ~floor & (_double_area(mesh.vertices, mesh.faces) > 0)
    return keep


def analyse(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    kind: NDArray[np.uint8],
    part: NDArray[np.int32],
    closed: bool,
) -> Surfaces:
    """Planes and edges of any faces.

    Parameters
    ----------
    vertices : float64 (V, 3)
    faces : int32 (F, 3)
    kind : uint8 (F,)
    part : int32 (F,)
        Faces of one part may share edges.
    closed : bool
        The faces of each part look outward from a solid; else every edge of two faces is a wedge.
    """
    triangles = vertices[faces]
    outward = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area = np.linalg.norm(outward, axis=1)
    # Nothing hits a face without an area; it only keeps its number.
    outward = np.where(area[:, None] > 0, outward / np.where(area > 0, area, 1.0)[:, None], [0.0, 0.0, 1.0])
    plane_of_face = _coplanar(outward, triangles[:, 0])
    planes = int(plane_of_face.max(initial=-1)) + 1
    # The largest face of each plane: the last of its plane when faces are sorted by plane, then by area.
    order = np.lexsort((area, plane_of_face))
    plane_face = order[np.searchsorted(plane_of_face[order], np.arange(planes), side="right") - 1].astype(np.int32)
    normal = outward[plane_face]
    frame = _plane_axes(normal)
    bounds = _plane_bounds(triangles, plane_of_face, frame)
    alone = Edges(*_wedges(vertices, faces, part, outward, plane_of_face, area, closed))
    edges = merge_touching(alone, triangles, outward, plane_of_face, closed)
    return Surfaces(
        vertices,
        faces,
        kind,
        plane_of_face,
        plane_face,
        normal,
        np.einsum("ki,ki->k", normal, triangles[plane_face, 0]),
        frame,
        bounds,
        edges.origin,
        edges.along,
        edges.length,
        edges.faces,
        edges.normals,
        closed,
    )


def _double_area(vertices: NDArray[np.float64], faces: NDArray[np.int32]) -> NDArray[np.float64]:
    """Twice the area (F,) of faces."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    area: NDArray[np.float64] = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    return area


def _coplanar(outward: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.int32]:
    """Number the planes of faces; the two sides of a sheet are one plane."""
    # One of n and -n, chosen by the first component that is clearly not zero.
    signs = np.sign(np.where(np.abs(outward) > 1e-4, outward, 0.0))
    lead = np.where(signs[:, 2] != 0, signs[:, 2], np.where(signs[:, 1] != 0, signs[:, 1], signs[:, 0]))
    normal = outward * lead[:, None]
    offset = np.einsum("fi,fi->f", normal, point)
    scaled = np.column_stack([normal / NORMAL_TOLERANCE, offset / OFFSET_TOLERANCE])
    # Most faces share their plane to the last bit or nearly so: bundle these first, to keep the pairs below few.
    bundles, bundle_of_face = np.unique(np.round(scaled, 2), axis=0, return_inverse=True)
    pairs = cKDTree(bundles).query_pairs(1.0, p=np.inf, output_type="ndarray")
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(bundles), len(bundles)))
    _, plane_of_bundle = connected_components(links, directed=False)
    plane: NDArray[np.int32] = plane_of_bundle[bundle_of_face.reshape(-1)].astype(np.int32)
    return plane


def _plane_axes(normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Horizontal axis first (so that the bounds of a wall are its corners), then the one across it."""
    level = np.cross([0.0, 0.0, 1.0], normal)
    length = np.linalg.norm(level, axis=1)
    u = np.where(length[:, None] > 1e-6, level / np.maximum(length, 1e-12)[:, None], [1.0, 0.0, 0.0])
    v = np.cross(normal, u)
    return np.stack([u, v / np.linalg.norm(v, axis=1)[:, None]], axis=1)


def _plane_bounds(
    triangles: NDArray[np.float64], plane_of_face: NDArray[np.int32], frame: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least and largest coordinates of each plane's faces along its axes."""
    along = np.einsum("fci,fai->fca", triangles, frame[plane_of_face])
    bounds = np.empty((len(frame), 4))
    for axis in range(2):
        low, high = np.full(len(frame), np.inf), np.full(len(frame), -np.inf)
        np.minimum.at(low, plane_of_face, along[:, :, axis].min(axis=1))
        np.maximum.at(high, plane_of_face, along[:, :, axis].max(axis=1))
        bounds[:, 2 * axis], bounds[:, 2 * axis + 1] = low, high
    return bounds


def _wedges(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32],
    part: NDArray[np.int32],
    outward: NDArray[np.float64],
    plane_of_face: NDArray[np.int32],
    area: NDArray[np.float64],
    closed: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Edges that exactly two faces of one part share, on different planes; of solids only the convex ones.

    Normals point away from the other face, as Sionna turns them: the wedge is less than half of space.
    """
    start = faces.reshape(-1)
    end = np.roll(faces, -1, axis=1).reshape(-1)
    face = np.repeat(np.arange(len(faces)), 3)
    opposite = np.roll(faces, -2, axis=1).reshape(-1)
    # Neighbours of a building may touch it along an edge: pairs are formed within each part.
    key = np.column_stack([part[face], np.minimum(start, end), np.maximum(start, end)])
    order = np.lexsort(key.T[::-1])
    first = np.flatnonzero(np.r_[True, np.any(np.diff(key[order], axis=0) != 0, axis=1)])
    paired = first[np.diff(np.r_[first, len(order)]) == 2]
    one, two = order[paired], order[paired + 1]
    origin = vertices[start[one]]
    along = vertices[end[one]] - origin
    length = np.linalg.norm(along, axis=1)
    sides = np.column_stack([face[one], face[two]]).astype(np.int32)
    # How far each face's far corner rises above the other's plane.
    height = np.column_stack(
        [
            np.einsum("ei,ei->e", outward[sides[:, 0]], vertices[opposite[two]] - origin),
            np.einsum("ei,ei->e", outward[sides[:, 1]], vertices[opposite[one]] - origin),
        ]
    )
    keep = (plane_of_face[sides[:, 0]] != plane_of_face[sides[:, 1]]) & (length > 0) & (area[sides] > 0).all(axis=1)
    keep &= height[:, 0] < -1e-6 if closed else np.abs(height[:, 0]) > 1e-6
    origin, along, length = origin[keep], along[keep], length[keep]
    sides, flip = sides[keep], height[keep] > 0
    along /= length[:, None]
    # The 0-face lies on the left of the direction as seen from where its normal points.
    turned = flip[:, :1]
    origin = np.where(turned, origin + length[:, None] * along, origin)
    along = np.where(turned, -along, along)
    normals = np.where(flip[..., None], -outward[sides], outward[sides])
    return origin, along, length, sides, normals
