"""Edges where solids touch: wedges are those of the outer surface of all solids together.

A mesh lists each building as a solid of its own. Where two touch, their edges are not those of what a wave meets: flush
side by side they have no edge at the seam, the roof of the lower meets the wall of the taller in a corner, and corner to
corner there are two re-entrant corners. So all faces that lie against an edge divide its surroundings into sectors. A
free sector of more than 180 degrees is a wedge, between the two faces that bound it, and there is at most one; without
it there is nothing to diffract. An edge is divided where faces begin and end along it, and two edges that bound the same
sector are one.

Only edges of the mesh are considered, not lines in which solids that overlap pierce each other: the free sector there is
always less than 180 degrees.
"""

from dataclasses import dataclass, fields

import numpy as np
import shapely
from numpy.typing import NDArray

# Metres. A face within the first of an edge touches it, on the sides on which it lies at the second from it. Pieces of
# edges that are shorter than the third are left out.
CONTACT = 1e-3
PROBE = 5e-3
SHORTEST = 1e-2

# Radians: sectors of 180 degrees and this are flat.
FLAT = 1e-4


@dataclass(frozen=True)
class Edges:
    """Wedges (N), each between two faces, with less than half of space inside.

    Attributes
    ----------
    origin, along : float64 (N, 3)
        The 0-face lies on the left of the direction as seen from outside.
    length : float64 (N,)
    faces : int32 (N, 2)
        0-face and n-face.
    normals : float64 (N, 2, 3)
        Their normals, on the outside of the wedge.
    """

    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    length: NDArray[np.float64]
    faces: NDArray[np.int32]
    normals: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.length)

    def select(self, index: NDArray[np.integer] | NDArray[np.bool_]) -> "Edges":
        """The edges at these positions (or under this mask)."""
        return Edges(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class Contacts:
    """Faces that lie against edges (N), each on one side of one edge.

    Attributes
    ----------
    edge, face : int64 (N,)
    angle : float64 (N,)
        Of the face around the edge, from the 0-face through the outside of the wedge; radians in [0, 2 pi).
    start, end : float64 (N,)
        Where along the edge in m.
    """

    edge: NDArray[np.int64]
    face: NDArray[np.int64]
    angle: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]


def merge_touching(
    edges: Edges,
    triangles: NDArray[np.float64],
    outward: NDArray[np.float64],
    plane_of_face: NDArray[np.int32],
    closed: bool,
) -> Edges:
    """Wedges of the outer surface.

    Parameters
    ----------
    edges : Edges
        Of each solid by itself.
    triangles : float64 (F, 3, 3)
    outward : float64 (F, 3)
        Unit normals.
    plane_of_face : int32 (F,)
    closed : bool
        The normals point out of solids: a sector behind a face is not free.

    Returns
    -------
    Edges
        Those that nothing touches as they are, then the others.

    Examples
    --------
    >>> len(edges), len(merge_touching(edges, triangles, outward, plane_of_face, closed=True))  # two boxes, flush
    (24, 16)
    """
    contacts = _contacts(edges, triangles, outward) if len(edges) else None
    if contacts is None or not len(contacts.edge):
        return edges
    whole = np.ones(len(edges), bool)
    whole[contacts.edge] = False
    untouched, pieces = edges.select(whole), _pieces(edges, contacts)
    free = _free_sectors(edges, contacts, pieces, outward, closed)
    joined = _join(free, plane_of_face, outward)
    return Edges(*(np.concatenate([getattr(part, f.name) for part in (untouched, joined)]) for f in fields(Edges)))


def _contacts(edges: Edges, triangles: NDArray[np.float64], outward: NDArray[np.float64]) -> Contacts:
    """All faces, other than its own two, that lie against each edge."""
    edge, face = _near(edges, triangles)
    other = (edges.faces[edge] != face[:, None]).all(axis=1)
    edge, face = edge[other], face[other]
    ends = np.stack([edges.origin[edge], edges.origin[edge] + edges.length[edge, None] * edges.along[edge]], axis=1)
    height = np.einsum("nei,ni->ne", ends - triangles[face, :1], outward[face])
    flat = (np.abs(height) < CONTACT).all(axis=1)
    edge, face = np.tile(edge[flat], 2), np.tile(face[flat], 2)
    # A face lies on that side of the edge where a line at a small distance along it crosses the face.
    origin, along, normals = edges.origin[edge], edges.along[edge], edges.normals[edge]
    aside = np.cross(outward[face], along) * np.repeat([1.0, -1.0], flat.sum())[:, None]
    aside /= np.maximum(np.linalg.norm(aside, axis=1), 1e-9)[:, None]
    start, end = _crossing(origin + PROBE * aside, along, triangles[face], outward[face])
    start, end = np.maximum(start, 0.0), np.minimum(end, edges.length[edge])
    across = np.cross(normals[:, 0], along)
    angle = np.arctan2(np.einsum("ni,ni->n", aside, normals[:, 0]), np.einsum("ni,ni->n", aside, across))
    touches = end > start
    found = Contacts(edge, face, np.mod(angle, 2 * np.pi), start, end)
    return Contacts(**{field.name: getattr(found, field.name)[touches] for field in fields(found)})


def _near(edges: Edges, triangles: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (edge, face) pairs whose boxes meet."""
    ends = np.stack([edges.origin, edges.origin + edges.length[:, None] * edges.along], axis=1)
    low, high = ends.min(axis=1) - CONTACT, ends.max(axis=1) + CONTACT
    least, most = triangles.min(axis=1), triangles.max(axis=1)
    tree = shapely.STRtree(shapely.box(*least[:, :2].T, *most[:, :2].T))
    edge, face = tree.query(shapely.box(*low[:, :2].T, *high[:, :2].T))
    level = (low[edge, 2] <= most[face, 2]) & (high[edge, 2] >= least[face, 2])
    return edge[level], face[level]


def _crossing(
    origin: NDArray[np.float64],
    along: NDArray[np.float64],
    triangle: NDArray[np.float64],
    normal: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where lines in the planes of triangles (N, 3, 3) enter and leave these, in m from their origins (N, 3)."""
    start, end = np.full(len(origin), -np.inf), np.full(len(origin), np.inf)
    for corner in range(3):
        inward = np.cross(normal, triangle[:, (corner + 1) % 3] - triangle[:, corner])
        inward /= np.maximum(np.linalg.norm(inward, axis=1), 1e-12)[:, None]
        depth = np.einsum("ni,ni->n", origin - triangle[:, corner], inward)
        speed = np.einsum("ni,ni->n", along, inward)
        level = np.abs(speed) < 1e-9
        met = -depth / np.where(level, 1.0, speed)
        start = np.where(~level & (speed > 0), np.maximum(start, met), start)
        end = np.where(~level & (speed < 0), np.minimum(end, met), end)
        end = np.where(level & (depth < 0), -np.inf, end)
    return start, end


def _pieces(edges: Edges, contacts: Contacts) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Pieces of touched edges between the points at which faces begin and end: edge, start and end of each."""
    touched = np.unique(contacts.edge)
    edge = np.concatenate([touched, contacts.edge, contacts.edge, touched])
    at = np.concatenate([np.zeros(len(touched)), contacts.start, contacts.end, edges.length[touched]])
    order = np.lexsort((at, edge))
    edge, at = edge[order], at[order]
    # Points close together are one: the first of them, or the end of the edge.
    first = np.flatnonzero((np.diff(edge, prepend=-1) > 0) | (np.diff(at, prepend=0.0) > SHORTEST))
    edge, at = edge[first], at[first]
    last = np.diff(edge, append=-1) != 0
    at = np.where(last, edges.length[edge], at)
    return edge[:-1][~last[:-1]], at[:-1][~last[:-1]], at[1:][~last[:-1]]


def _free_sectors(
    edges: Edges,
    contacts: Contacts,
    pieces: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]],
    outward: NDArray[np.float64],
    closed: bool,
) -> Edges:
    """The wedges of pieces of edges, in the order of the edges and along them."""
    owner, start, end = pieces
    # All (piece, contact) pairs of one edge, where the contact is there on the piece and outside the edge's own wedge.
    by_edge = np.argsort(contacts.edge, kind="stable")
    first = np.searchsorted(contacts.edge[by_edge], owner)
    count = np.searchsorted(contacts.edge[by_edge], owner, side="right") - first
    piece = np.repeat(np.arange(len(owner)), count)
    contact = by_edge[np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)]
    middle = (start + end)[piece] / 2
    normals = edges.normals[owner]
    open_angle = 2 * np.pi - np.arccos(np.clip(-np.einsum("ni,ni->n", normals[:, 0], normals[:, 1]), -1, 1))
    angle = contacts.angle[contact]
    there = (contacts.start[contact] < middle) & (middle < contacts.end[contact])
    there &= (angle > FLAT) & (angle < open_angle[piece] - FLAT)
    piece, angle, face = piece[there], angle[there], contacts.face[contact[there]]

    # With the edge's own two faces, in their order around each piece: is one of the gaps wide enough?
    piece = np.concatenate([piece, *2 * [np.arange(len(owner))]])
    angle = np.concatenate([angle, np.zeros(len(owner)), open_angle])
    face = np.concatenate([face, *edges.faces[owner].T])
    order = np.lexsort((face, angle, piece))
    piece, angle, face = piece[order], angle[order], face[order]
    gap = np.flatnonzero((np.diff(piece) == 0) & (np.diff(angle) > np.pi + FLAT))
    piece, sides, bounds = piece[gap], np.stack([face[gap], face[gap + 1]], axis=1), (angle[gap], angle[gap + 1])

    # The sides of both faces that look into the gap.
    along, up = edges.along[owner[piece]], edges.normals[owner[piece], 0]
    across = np.cross(up, along)
    (sine_0, cosine_0), (sine_n, cosine_n) = ((np.sin(bound)[:, None], np.cos(bound)[:, None]) for bound in bounds)
    into = np.stack([cosine_0 * up - sine_0 * across, sine_n * across - cosine_n * up], axis=1)
    looks = np.einsum("nsi,nsi->ns", outward[sides], into) > 0
    faced = np.where(looks[..., None], outward[sides], -outward[sides])
    origin = edges.origin[owner[piece]] + start[piece, None] * along
    found = Edges(origin, along, (end - start)[piece], sides.astype(np.int32), faced)
    return found.select(looks.all(axis=1) | (not closed))


def _join(pieces: Edges, plane_of_face: NDArray[np.int32], outward: NDArray[np.float64]) -> Edges:
    """Each place once, where pieces lie upon one another; and one edge of pieces that follow one another."""
    if not len(pieces):
        return pieces
    # Two planes meet in one line, around which they bound four sectors.
    planes = plane_of_face[pieces.faces]
    reference = outward[np.unique(plane_of_face, return_index=True)[1]]
    side = np.einsum("nsi,nsi->ns", pieces.normals, reference[planes]) > 0
    order = np.argsort(planes, axis=1)
    key = np.take_along_axis(np.stack([planes, side], axis=2), order[..., None], axis=1)
    _, first, sector = np.unique(key.reshape(-1, 4), axis=0, return_index=True, return_inverse=True)
    sector = sector.reshape(-1)
    line = pieces.along[first][sector]
    begin = np.einsum("ni,ni->n", pieces.origin, line)
    ahead = np.einsum("ni,ni->n", pieces.along, line) > 0
    start = np.where(ahead, begin, begin - pieces.length)
    end = start + pieces.length

    kept: list[int] = []
    last = -1
    faces = np.sort(pieces.faces, axis=1)
    for piece in np.lexsort((start, sector)):
        same = last >= 0 and sector[piece] == sector[last]
        if same:
            start[piece] = max(start[piece], end[last])
        if end[piece] - start[piece] < SHORTEST:
            continue
        if same and start[piece] - end[last] < SHORTEST and (faces[piece] == faces[last]).all():
            end[last] = end[piece]
            continue
        kept.append(piece)
        last = piece
    moved = np.where(ahead, start - begin, begin - end)
    origin = pieces.origin + moved[:, None] * pieces.along
    return Edges(origin, pieces.along, end - start, pieces.faces, pieces.normals).select(np.array(kept))
