"""Does a path exist? Images in NumPy and float64, with every triangle as an obstacle: apart from both solvers."""

import itertools

import numpy as np
import shapely
from raytrace_helpers import hits

from wavecity.raytrace.stock import EDGE, THROUGH
from wavecity.raytrace.world import World

# Metres by which receivers are moved to see whether rounding decides, and in which directions.
NUDGE = 2e-3
WAYS = np.concatenate([np.eye(3), -np.eye(3)])
# Metres outside an edge from which Sionna's image method looks (1 mm, and 6e-6 of the coordinates): corners that jut out
# less do not block it. By the first of them obstacles are moved, too.
OUTSIDE = (1e-3, 2e-3, 4e-3)
# Metres around sections of a path within which triangles count, and of the pieces in which they are looked up.
ASIDE, PIECE = 0.1, 20.0


class ImageMethod:
    """Planes, edges and triangles of a world, and the test of paths.

    A path is given by `met` (D,), what it meets as of `stock.planes_met`, and by its vertices (D, 3). Faces of one plane
    may be a millimetre off it: the mirrors are the faces at the vertices.
    """

    def __init__(self, world: World) -> None:
        self.surfaces = surfaces = world.surfaces
        self.triangles = surfaces.vertices[surfaces.faces]
        self._low, self._high = self.triangles.min(axis=1), self.triangles.max(axis=1)
        self._tree = shapely.STRtree(shapely.box(*self._low[:, :2].T, *self._high[:, :2].T))
        outward = np.cross(self.triangles[:, 1] - self.triangles[:, 0], self.triangles[:, 2] - self.triangles[:, 0])
        self._normal = outward / np.maximum(np.linalg.norm(outward, axis=1), 1e-30)[:, None]
        self._by_plane = np.argsort(surfaces.plane_of_face, kind="stable")
        self._first = np.searchsorted(surfaces.plane_of_face[self._by_plane], np.arange(surfaces.planes + 1))

    def judge(self, source: np.ndarray, receiver: np.ndarray, met: np.ndarray, vertices: np.ndarray) -> str:
        """Whether a path exists: for receivers all around its own ("valid"), for none of them, or some ("marginal").

        It is marginal, too, if it only exists by way of a point some millimetres outside its edge, past its mirrors by no
        more than that, or among obstacles that are moved by a millimetre.
        """
        here = met != -1
        obstacles = self.along(np.array([source, *vertices[here], receiver]))
        steps = self.steps(met, vertices)
        walls = [0]
        for kind in met[here]:
            if kind == THROUGH:
                walls[-1] += 1
            else:
                walls.append(0)
        nudges = NUDGE * np.concatenate([np.zeros((1, 3)), WAYS])
        answers = [self.exists(obstacles, source, receiver + nudge, steps, walls) for nudge in nudges]
        if all(answers):
            return "valid"
        answers += [self.exists(obstacles, source, receiver, steps, walls, outside) for outside in OUTSIDE]
        answers += [self.exists(obstacles + OUTSIDE[0] * way, source, receiver, steps, walls) for way in WAYS]
        return "marginal" if any(answers) else "invalid"

    def steps(self, met: np.ndarray, vertices: np.ndarray) -> list[tuple[int, int]]:
        """Mirrors and edges in their order: what was met, and the number of the face or edge."""
        return [
            (int(kind), self.nearest_edge(vertex) if kind == EDGE else self.face_at(int(kind), vertex))
            for kind, vertex in zip(met, vertices, strict=True)
            if kind >= 0 or kind == EDGE
        ]

    def trace(
        self, source: np.ndarray, receiver: np.ndarray, steps: list[tuple[int, int]], outside: float = 0.0
    ) -> np.ndarray | None:
        """Vertices on a path's mirrors and, so many m outside, its edge; none if a mirror or the edge is missed."""
        edge = next((place for place, (kind, _) in enumerate(steps) if kind == EDGE), None)
        if edge is None:
            points = self._reflections(source, receiver, [number for _, number in steps])
        else:
            before, after = ([number for _, number in part] for part in (steps[:edge], steps[edge + 1 :]))
            lamp, target = self._mirrored(source, before), self._mirrored(receiver, after[::-1])
            corner = self.keller_point(steps[edge][1], lamp, target)
            if corner is None:
                return None
            away = self.surfaces.edge_normals[steps[edge][1]].sum(axis=0)
            corner = corner + outside * away / np.linalg.norm(away)
            first, last = self._reflections(source, corner, before), self._reflections(corner, receiver, after)
            points = None if first is None or last is None else [*first, corner, *last]
        return None if points is None else np.array(points).reshape(-1, 3)

    def _mirrored(self, point: np.ndarray, faces: list[int]) -> np.ndarray:
        for face in faces:
            normal = self._normal[face]
            point = point - 2 * ((point - self.triangles[face, 0]) @ normal) * normal
        return point

    def _reflections(self, start: np.ndarray, end: np.ndarray, faces: list[int]) -> list[np.ndarray] | None:
        points: list[np.ndarray] = []
        for place in reversed(range(len(faces))):
            image = self._mirrored(start, faces[: place + 1])
            normal, corner = self._normal[faces[place]], self.triangles[faces[place], 0]
            speed = normal @ (image - end)
            share = normal @ (corner - end) / speed if abs(speed) > 1e-12 else -1.0
            if not 0 < share < 1:
                return None
            end = end + share * (image - end)
            points.insert(0, end)
        return points

    def exists(
        self,
        obstacles: np.ndarray,
        source: np.ndarray,
        receiver: np.ndarray,
        steps: list[tuple[int, int]],
        walls: list[int],
        outside: float = 0.0,
    ) -> bool:
        """Whether a path's mirrors are met on their faces, with as many walls in between as it passes through.

        `outside` is for the edge as in `trace`, and by so much a mirror's faces may be missed.
        """
        points = self.trace(source, receiver, steps, outside)
        if points is None:
            return False
        for (kind, _), point in zip(steps, points, strict=True):
            near = [point, *(point + outside * WAYS if outside else [])]
            if kind != EDGE and not any(len(self._faces_at(kind, place)) for place in near):
                return False
        stops = itertools.pairwise([source, *points, receiver])
        return all(crossings(one, two, obstacles) == count for (one, two), count in zip(stops, walls, strict=True))

    def face_at(self, plane: int, point: np.ndarray) -> int:
        """The face of a plane at a point; the largest one's if there is none."""
        return int([*self._faces_at(plane, point), self.surfaces.plane_face[plane]][0])

    def _faces_at(self, plane: int, point: np.ndarray) -> np.ndarray:
        """Faces of a plane at a point of it (seen along the normal)."""
        faces = self._by_plane[self._first[plane] : self._first[plane + 1]]
        near = faces[((self._high[faces] > point - ASIDE) & (self._low[faces] < point + ASIDE)).all(axis=1)]
        normal = self.surfaces.normal[plane]
        with np.errstate(invalid="ignore"):
            met = hits((point + normal)[None], (point - normal)[None], self.triangles[near])[0]
        found: np.ndarray = near[~np.isnan(met)]
        return found

    def along(self, stops: np.ndarray) -> np.ndarray:
        """Triangles near the sections of a path."""
        pieces = []
        for one, two in itertools.pairwise(stops):
            count = 1 + int(np.linalg.norm(two - one) / PIECE)
            pieces.append(
                np.stack([np.linspace(one, two, count + 1)[:-1], np.linspace(one, two, count + 1)[1:]], axis=1)
            )
        ends = np.concatenate(pieces)
        low, high = ends.min(axis=1) - ASIDE, ends.max(axis=1) + ASIDE
        piece, face = self._tree.query(shapely.box(*low[:, :2].T, *high[:, :2].T))
        level = (self._high[face, 2] > low[piece, 2]) & (self._low[face, 2] < high[piece, 2])
        found: np.ndarray = self.triangles[np.unique(face[level])]
        return found

    def edge_gaps(self, point: np.ndarray) -> np.ndarray:
        """Distance of a point to each edge."""
        surfaces = self.surfaces
        along = np.einsum("ei,ei->e", point - surfaces.edge_origin, surfaces.edge_direction)
        foot = surfaces.edge_origin + np.clip(along, 0, surfaces.edge_length)[:, None] * surfaces.edge_direction
        return np.linalg.norm(foot - point, axis=1)

    def nearest_edge(self, point: np.ndarray) -> int:
        """Number of the edge at a point."""
        return int(self.edge_gaps(point).argmin())

    def keller_point(self, edge: int, lamp: np.ndarray, target: np.ndarray) -> np.ndarray | None:
        """The point of an edge that makes the way from lamp to target shortest; nothing beyond the edge's ends."""
        surfaces = self.surfaces
        origin, direction = surfaces.edge_origin[edge], surfaces.edge_direction[edge]
        ends = np.array([lamp, target]) - origin
        height = ends @ direction
        away = np.linalg.norm(ends - height[:, None] * direction, axis=1)
        place = (height[0] * away[1] + height[1] * away[0]) / max(away.sum(), 1e-12)
        return origin + place * direction if 0 < place < surfaces.edge_length[edge] else None


def crossings(one: np.ndarray, two: np.ndarray, triangles: np.ndarray) -> int:
    """Walls between two points, those within a millimetre of either aside."""
    slack = 1e-3 / max(float(np.linalg.norm(two - one)), 1e-6)
    with np.errstate(invalid="ignore"):
        share = hits(one[None], two[None], triangles)[0]
    share = np.sort(share[(share > slack) & (share < 1 - slack)])
    # Triangles of one wall that have an edge on the ray are hit together.
    return int(len(share) > 0) + int((np.diff(share) > slack / 10).sum())
