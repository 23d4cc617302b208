"""The strongest paths of users as lines.

A store keeps a path's directions, delay and interactions, and its vertices only with `features.interactions: positions`.
`rebuild_path` finds them again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.preview.solids import Array
from wavecity.dataset.schema import Values
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

# What users are by their paths, in the order of `View.status`.
STATUSES = ("line of sight", "reflected or diffracted only", "outage")
# Codes of `paths/interactions`, see `schema.CONVENTIONS`.
NOTHING, SPECULAR, REFRACTION, DIFFRACTION = 0, 1, 4, 8
# A path counts as rebuilt when its two ends meet, and its length equals delay times c, within this many m. Angles and
# delays are float32: some 0.1 mm over the length of a path.
TOLERANCE = 0.05
# Length in m of what is drawn of a ray that leads to no wall (a diffraction edge is easily missed).
STUB = 15.0


@dataclass(frozen=True)
class DrawnPath:
    """The strongest path of one user.

    Attributes
    ----------
    user : int
    gain : float
        Of this path alone, dB.
    kind : str
        `line of sight`, `1 bounce`, `2 bounces, 1 diffraction`, ...
    whole : bool
        Whether `lines` is the entire path, checked against its delay; else only what leads away from both its ends.
    lines : list of float64 (P, 3)
        One polyline, or one from each end; metres in the scene frame.
    loss : float
        What crowns take from it, in dB; 0 where it goes through none.
    """

    user: int
    gain: float
    kind: str
    whole: bool
    lines: list[Array]
    loss: float = 0.0


def strongest_paths(
    table: Mapping[str, Values],
    base: Array,
    users: Array,
    status: NDArray[np.int64],
    triangles: Array,
    max_paths: int,
) -> list[DrawnPath]:
    """Strongest path of every n-th user that has one, half of them to users without line of sight if there are enough.

    Parameters
    ----------
    table : dict
        The store's `paths/*` arrays of one scene, strongest path first.
    base : float64 (3,)
    users : float64 (U, 3)
    status : int (U,)
    triangles : float64 (T, 3, 3)
    max_paths : int
    """
    direct, hidden = (np.flatnonzero((status == kind) & (table["gain"][:, 0] != 0)) for kind in (0, 1))
    chosen = _every_nth(hidden, max(max_paths // 2, max_paths - len(direct)))
    chosen += _every_nth(direct, max_paths - len(chosen))
    paths = []
    for user in sorted(chosen):
        departure, arrival = (
            direction(table[f"{end}_zenith"][user, 0], table[f"{end}_azimuth"][user, 0]) for end in ("aod", "aoa")
        )
        there = table["interactions"][user, 0] != NOTHING
        interactions = table["interactions"][user, 0][there].tolist()
        if "vertices" in table:
            whole, lines = True, [np.stack([base, *(base + table["vertices"][user, 0][there]), users[user]])]
        else:
            length = float(table["delay"][user, 0]) * SPEED_OF_LIGHT
            whole, lines = rebuild_path(base, departure, users[user], arrival, interactions, length, triangles)
        gain = 20 * np.log10(abs(table["gain"][user, 0]))
        loss = float(table["vegetation_loss"][user, 0]) if "vegetation_loss" in table else 0.0
        paths.append(DrawnPath(user, float(gain), describe(interactions), whole, lines, loss))
    return paths


def _every_nth(users: NDArray[np.int64], most: int) -> list[int]:
    """Pick at most so many users, evenly."""
    picked: list[int] = users[:: max(1, -(-len(users) // max(most, 1)))].tolist()
    return picked


def direction(zenith: float, azimuth: float) -> Array:
    """Unit vector (3,) of stored angles in rad."""
    zenith, azimuth = float(zenith), float(azimuth)
    return np.array([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)])


def describe(interactions: Sequence[int]) -> str:
    """A path's interactions in words."""
    bounces = sum(kind not in (REFRACTION, DIFFRACTION) for kind in interactions)
    counts = [(bounces, "bounce"), (interactions.count(DIFFRACTION), "diffraction")]
    counts.append((interactions.count(REFRACTION), "refraction"))
    words = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count]
    return ", ".join(words) or STATUSES[0]


def rebuild_path(
    base: Array,
    departure: Array,
    user: Array,
    arrival: Array,
    interactions: Sequence[int],
    length: float,
    triangles: Array,
) -> tuple[bool, list[Array]]:
    """Vertices of a path from its directions.

    Where one vertex is unknown it is the point where the rays from both ends meet. Reflections before and after it are
    traced: the ray from either end, mirrored at what it hits. The result counts only if the rays do meet and its length
    equals the delay; a path bent by two edges, for example, is left open.

    Parameters
    ----------
    base, user : float64 (3,)
    departure, arrival : float64 (3,)
        Unit vectors away from base and user.
    interactions : sequence of int
        From the base station on, without 0.
    length : float
        m.
    triangles : float64 (T, 3, 3)
        Buildings; the ground is the plane z = 0.

    Returns
    -------
    whole : bool
    lines : list of float64 (P, 3)
        The path from base to user; or, where it is not whole, the known part from the base and the one from the user.
    """
    bends = [index for index, kind in enumerate(interactions) if kind != REFRACTION]
    if not bends:
        line = np.stack([base, user])
        return abs(_length(line) - length) < TOLERANCE, [line]
    # The vertex where both rays meet: one that mirrors nothing, else the last one.
    pivot = next((index for index in bends if interactions[index] != SPECULAR), bends[-1])
    ahead, ray_ahead = _mirror_along(base, departure, interactions[:pivot], triangles)
    behind, ray_behind = _mirror_along(user, arrival, interactions[:pivot:-1], triangles)
    if ray_ahead is not None and ray_behind is not None:
        meeting, gap = nearest_point(ahead[-1], ray_ahead, behind[-1], ray_behind)
        line = np.stack([*ahead, meeting, *reversed(behind)])
        if gap < TOLERANCE and abs(_length(line) - length) < TOLERANCE:
            return True, [line]
    open_ends = []
    for points, ray in ((ahead, ray_ahead), (behind, ray_behind)):
        if ray is not None:
            distance, _ = first_hit(points[-1], ray, triangles)
            points.append(points[-1] + ray * (distance if distance < length else STUB))
        open_ends.append(np.stack(points))
    return False, open_ends


def _mirror_along(
    origin: Array, ray: Array, interactions: Sequence[int], triangles: Array
) -> tuple[list[Array], Array | None]:
    """Follow a ray through reflections and refractions: its vertices, and where it goes next (None: not known)."""
    points = [origin]
    for kind in interactions:
        distance, normal = first_hit(points[-1], ray, triangles)
        if kind not in (SPECULAR, REFRACTION) or not np.isfinite(distance):
            return points, None if len(points) > 1 else ray
        points.append(points[-1] + distance * ray)
        if kind == SPECULAR:
            ray = ray - 2 * (ray @ normal) * normal
    return points, ray


def nearest_point(first: Array, ray: Array, second: Array, other_ray: Array) -> tuple[Array, float]:
    """Point (3,) nearest to both half-lines in the least-squares sense, and their distance there in m (inf: behind)."""
    matrix = np.column_stack([ray, -other_ray])
    (along, other_along), *_ = np.linalg.lstsq(matrix, second - first, rcond=None)
    if along < 0 or other_along < 0:
        return (first + second) / 2, np.inf
    ends = first + along * ray, second + other_along * other_ray
    return (ends[0] + ends[1]) / 2, float(np.linalg.norm(ends[0] - ends[1]))


def first_hit(origin: Array, ray: Array, triangles: Array) -> tuple[float, Array]:
    """Distance in m to the first triangle or the ground along a ray (inf: none), and the unit normal (3,) there."""
    # Möller and Trumbore; 1 mm ahead, so that a ray does not hit the wall that it leaves.
    corner = triangles[:, 0]
    first, second = triangles[:, 1] - corner, triangles[:, 2] - corner
    across = np.cross(ray, second)
    determinant = (first * across).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = origin - corner
        u = (offset * across).sum(-1) / determinant
        turned = np.cross(offset, first)
        v = (turned @ ray) / determinant
        distance = (second * turned).sum(-1) / determinant
        hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (distance > 1e-3)
    distance = np.where(hit, distance, np.inf)
    ground = -origin[2] / ray[2] if ray[2] < 0 else np.inf
    nearest = int(distance.argmin()) if len(distance) else 0
    if len(distance) == 0 or (1e-3 < ground < distance[nearest]):
        return float(ground), np.array([0.0, 0.0, 1.0])
    normal = np.cross(first[nearest], second[nearest])
    return float(distance[nearest]), normal / np.linalg.norm(normal)


def _length(line: Array) -> float:
    """Length of a polyline in m."""
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
