"""Paths of `ChainPathSolver` and of the stock solver, path by path, and why they differ.

Partners meet the same planes in the same order, at the same point of an edge; they must agree in length and coefficient.
Every difference is put into a class by evidence: the same solver with more rays, the stock solver at another depth, the
same case with the receivers moved by millimetres, and an image method of its own in float64, on the planes and edges of
`world_of`. What is left is "unexplained".
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from raytrace_helpers import hits

from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.stock import EDGE, EDGE_TOLERANCE, THROUGH, place_link, stock_table, trace_link
from wavecity.raytrace.world import World

# Rays: few, then more where a path is missing.
RAYS, MORE_RAYS, MOST_RAYS = 10_000, 100_000, 1_000_000
# Partners agree in length (m, and relative) and in coefficient (relative) within these.
LENGTH, COEFFICIENT = (5e-4, 2e-6), 0.02
# Metres by which receivers are moved to see whether rounding decides, and in which directions.
NUDGE = 2e-3
WAYS = np.concatenate([np.eye(3), -np.eye(3)])
# Metres within which edges are one place, and below which a section may be too short for Sionna (1 cm).
PLACE, SHORT = 0.01, 0.02


def solve(world: World, case: dict[str, Any], solver: str, nudge: Any = 0.0, **changes: Any) -> dict[str, np.ndarray]:
    """Paths of a case as columns (see `stock.stock_table`)."""
    options = {"samples_per_src": RAYS, "seed": 1} | case["options"] | changes
    place_link(world, case["source"], case["receivers"] + nudge)
    paths = ChainPathSolver()(world.scene, **options) if solver == "ours" else trace_link(world, **options)
    return stock_table(paths, world)


def pairs(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> np.ndarray:
    """All (i, j) of paths that met the same planes and the same point of an edge."""
    depth = max(one["met"].shape[1], other["met"].shape[1])

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        width = [(0, 0), (0, depth - values.shape[1])] + [(0, 0)] * (values.ndim - 2)
        return np.pad(values, width, constant_values=fill)

    found = []
    met, vertices = padded(other["met"], -1), padded(other["vertices"], 0)
    for i, (receiver, mine, places) in enumerate(
        zip(one["receiver"], padded(one["met"], -1), padded(one["vertices"], 0), strict=True)
    ):
        same = np.flatnonzero((other["receiver"] == receiver) & (met == mine).all(axis=1))
        gap = np.where(mine == EDGE, np.linalg.norm(vertices[same] - places, axis=2), 0).max(axis=1, initial=0)
        found += [(i, j) for j in same[gap < EDGE_TOLERANCE]]
    return np.array(found, int).reshape(-1, 2)


def disagreement(one: dict[str, np.ndarray], other: dict[str, np.ndarray], pair: np.ndarray) -> np.ndarray:
    """Relative difference of coefficients of pairs, and 9 where the lengths differ."""
    i, j = pair.T
    a, b = one["coefficient"][i, 0], other["coefficient"][j, 0]
    off = np.abs(a - b) / np.maximum(np.abs(a), np.abs(b))
    length = np.abs(one["length"][i] - other["length"][j]) > LENGTH[0] + LENGTH[1] * one["length"][i]
    return np.where(length, 9.0, off)


def compare(world: World, case: dict[str, Any]) -> dict[str, Any]:
    """Number of paths in each class, and what is unexplained."""
    start = time.perf_counter()
    ours = solve(world, case, "ours")
    middle = time.perf_counter()
    stock = solve(world, case, "stock")
    end = time.perf_counter()
    classes: Counter[str] = Counter()
    unexplained: list[str] = []
    pair = pairs(stock, ours)
    off = disagreement(stock, ours, pair)
    best = np.full(len(ours["receiver"]), np.inf)
    np.minimum.at(best, pair[:, 1], off)
    matched = np.isfinite(best)
    classes["the same"] = int((best <= COEFFICIENT).sum())
    # More partners than one: the stock solver has a path twice, or one for each of several edges in one place.
    partners = np.unique(pair[:, 0])
    doubled = len(partners) - int(matched.sum())
    at_edge = (stock["met"][partners] == EDGE).any(axis=1)
    twice = at_edge.sum() - (ours["met"][matched] == EDGE).any(axis=1).sum()
    classes["several edges in one place"] += int(twice)
    classes["doubled by the stock solver"] += doubled - int(twice)

    def note(name: str, table: dict[str, np.ndarray], rows: np.ndarray, what: str) -> None:
        classes[name] += len(rows)
        if name == "unexplained":
            unexplained.extend(f"{what}: {describe(table, row)}" for row in rows)

    for name, rows in explain_values(world, case, stock, ours, np.flatnonzero(matched & (best > COEFFICIENT))):
        note(name, ours, rows, f"values differ by {best[rows].max(initial=0):.3f}")
    missing = np.setdiff1d(np.arange(len(stock["receiver"])), partners)
    for name, rows in explain_one_sided(world, case, stock, missing, "ours"):
        note(name, stock, rows, "only stock")
    for name, rows in explain_one_sided(world, case, ours, np.flatnonzero(~matched), "stock"):
        note(name, ours, rows, "only ours")
    return {
        "ours": len(ours["receiver"]),
        "stock": len(stock["receiver"]),
        "classes": {name: count for name, count in classes.items() if count},
        "unexplained": unexplained,
        "seconds": [round(middle - start, 2), round(end - middle, 2)],
    }


def describe(table: dict[str, np.ndarray], row: int) -> str:
    """A path in words."""
    level = 20 * np.log10(np.abs(table["coefficient"][row, 0]))
    vertices = np.round(table["vertices"][row], 3).tolist()
    return f"receiver {table['receiver'][row]}, types {table['types'][row].tolist()}, {level:.1f} dB, {vertices}"


def explain_values(
    world: World, case: dict[str, Any], stock: dict[str, np.ndarray], ours: dict[str, np.ndarray], rows: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Classes of partners that do not agree (rows of `ours`)."""
    pair = pairs(stock, ours)
    places = np.array([edges_at(world, ours, row) for row in rows], int)
    yield "another of several edges in one place", rows[places > 1]
    rows = rows[places <= 1]

    length = (ours["types"] > 0).sum(axis=1)
    for depth in np.unique(length[rows]):
        if depth < case["options"]["max_depth"]:
            again = solve(world, case, "stock", max_depth=int(depth))
            equal = pairs(again, ours)
            agree = equal[disagreement(again, ours, equal) <= COEFFICIENT, 1]
            right = np.intersect1d(rows[length[rows] == depth], agree)
            yield "the stock solver's field changes with max_depth", right
            rows = np.setdiff1d(rows, right)

    def apart(row: int) -> bool:
        """Whether our vertices are those of the image method in float64, and the stock solver's are off."""
        receiver = case["receivers"][ours["receiver"][row]]
        exact = trace(world, case["source"], receiver, elements(world, ours, row))
        here = np.isin(ours["met"][row], (THROUGH, -1), invert=True)
        if exact is None or not here.any():
            return False
        gap = [
            np.linalg.norm(table["vertices"][place][: len(here)][here] - exact, axis=1).max()
            for table, place in ((ours, row), (stock, pair[pair[:, 1] == row, 0][0]))
        ]
        return bool(gap[1] > 5e-5 and gap[1] > 3 * gap[0])

    off = np.array([apart(row) for row in rows], bool)
    yield "the stock solver's vertices are off (float32)", rows[off]
    rows = rows[~off]
    difference = np.full(len(ours["receiver"]), np.inf)
    np.minimum.at(difference, pair[:, 1], disagreement(stock, ours, pair))
    for way in NUDGE * WAYS:
        if len(rows):
            moved = solve(world, case, "ours", way)
            equal = pairs(ours, moved)
            change = np.abs(ours["coefficient"][equal[:, 0], 0] / moved["coefficient"][equal[:, 1], 0] - 1)
            unstable = np.intersect1d(rows, equal[change > difference[equal[:, 0]] / 3, 0])
            yield "the coefficient turns within millimetres", unstable
            rows = np.setdiff1d(rows, unstable)
    yield "unexplained", rows


def edges_at(world: World, table: dict[str, np.ndarray], row: int) -> int:
    """How many parallel edges of the scene there are where a path is diffracted; 0 without diffraction."""
    surfaces = world.surfaces
    points = table["vertices"][row][table["met"][row] == EDGE]
    if not len(points):
        return 0
    near = edge_gaps(world, points[0])
    direction = surfaces.edge_direction[near.argmin()]
    return int(((near < PLACE) & (np.abs(surfaces.edge_direction @ direction) > 0.999)).sum())


def explain_one_sided(
    world: World, case: dict[str, Any], table: dict[str, np.ndarray], rows: np.ndarray, lacking: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Classes of paths that one solver lacks."""
    if lacking == "stock":
        verdict = np.array([judge(world, case, table, row) for row in rows], "<U10")
        yield "only ours: the image method confirms it", rows[verdict == "valid"]
        rows = rows[verdict != "valid"]
    for rays in (MORE_RAYS, MOST_RAYS) if lacking == "ours" else (MORE_RAYS,):
        if len(rows):
            more = pairs(table, solve(world, case, lacking, samples_per_src=rays))[:, 0]
            found = np.intersect1d(rows, more)
            yield f"{lacking} finds it with {rays:,} rays", found
            rows = np.setdiff1d(rows, found)
    have = "stock" if lacking == "ours" else "ours"
    short = np.array([shortest_section(case, table, row) < SHORT for row in rows], bool)
    yield f"only {have}: a section of about 1 cm, the shortest that Sionna admits", rows[short]
    rows = rows[~short]
    verdict = np.array([judge(world, case, table, row) for row in rows], "<U10")
    yield f"only {have}: rounding decides", rows[verdict == "marginal"]
    if have == "stock":
        yield "only stock: the image method refutes it", rows[verdict == "invalid"]
        verdict[verdict == "invalid"] = "marginal"
    rows = rows[verdict != "marginal"]
    places = np.array([edges_at(world, table, row) for row in rows], int)
    yield "another of several edges in one place", rows[places > 1]
    rows = rows[places <= 1]
    for way in NUDGE * WAYS:
        if len(rows):
            moved = pairs(table, solve(world, case, lacking, way, samples_per_src=MORE_RAYS))[:, 0]
            yield f"only {have}: rounding decides", np.intersect1d(rows, moved)
            rows = np.setdiff1d(rows, moved)
    yield "unexplained", rows


class Obstacles:
    """Triangles (F, 3, 3) of a scene."""

    def __init__(self, triangles: np.ndarray) -> None:
        self.triangles = triangles
        self.low, self.high = triangles.min(axis=1), triangles.max(axis=1)

    def near(self, one: np.ndarray, two: np.ndarray) -> np.ndarray:
        """Mask of those in the box around two points."""
        low, high = np.minimum(one, two) - 0.1, np.maximum(one, two) + 0.1
        return ((self.high > low) & (self.low < high)).all(axis=1)

    def along(self, stops: np.ndarray) -> "Obstacles":
        """Those in the boxes around the sections of a path."""
        masks = [self.near(one, two) for one, two in itertools.pairwise(stops)]
        return Obstacles(self.triangles[np.any(masks, axis=0)])

    def crossings(self, one: np.ndarray, two: np.ndarray) -> int:
        """Walls between two points, those within a millimetre of either aside."""
        slack = 1e-3 / max(float(np.linalg.norm(two - one)), 1e-6)
        with np.errstate(invalid="ignore"):
            share = hits(one[None], two[None], self.triangles[self.near(one, two)])[0]
        share = np.sort(share[(share > slack) & (share < 1 - slack)])
        # Triangles of one wall that have an edge on the ray are hit together.
        return int(len(share) > 0) + int((np.diff(share) > slack / 10).sum())


def shortest_section(case: dict[str, Any], table: dict[str, np.ndarray], row: int) -> float:
    """Length in m of a path's shortest section."""
    vertices = table["vertices"][row][table["types"][row] > 0]
    stops = np.array([case["source"], *vertices, case["receivers"][table["receiver"][row]]])
    return float(np.linalg.norm(np.diff(stops, axis=0), axis=1).min())


def judge(world: World, case: dict[str, Any], table: dict[str, np.ndarray], row: int) -> str:
    """Whether a path exists: for receivers all around its own ("valid"), for none of them, or for some ("marginal")."""
    source, receiver = case["source"], case["receivers"][table["receiver"][row]]
    vertices = table["vertices"][row][table["types"][row] > 0]
    obstacles = case["obstacles"].along(np.array([source, *vertices, receiver]))
    nudges = NUDGE * np.concatenate([np.zeros((1, 3)), WAYS])
    steps = elements(world, table, row)
    walls = [0]
    for kind in table["met"][row]:
        if kind == THROUGH:
            walls[-1] += 1
        elif kind >= 0 or kind == EDGE:
            walls.append(0)
    answers = [exists(world, obstacles, source, receiver + nudge, steps, walls) for nudge in nudges]
    return "valid" if all(answers) else "marginal" if any(answers) else "invalid"


def elements(world: World, table: dict[str, np.ndarray], row: int) -> list[tuple[int, int]]:
    """Mirrors and edges of a path in their order: what was met, and the number of the plane or edge."""
    met = zip(table["met"][row], table["vertices"][row], strict=True)
    return [
        (int(kind), nearest_edge(world, vertex) if kind == EDGE else int(kind))
        for kind, vertex in met
        if kind >= 0 or kind == EDGE
    ]


def trace(world: World, source: np.ndarray, receiver: np.ndarray, steps: list[tuple[int, int]]) -> np.ndarray | None:
    """Vertices of a path's mirrors and edge by images in float64; none if a mirror or the edge is missed."""
    surfaces = world.surfaces
    edge = next((place for place, (kind, _) in enumerate(steps) if kind == EDGE), None)

    def mirrored(point: np.ndarray, planes: list[int]) -> np.ndarray:
        for plane in planes:
            normal = surfaces.normal[plane]
            point = point - 2 * (point @ normal - surfaces.offset[plane]) * normal
        return point

    def reflections(start: np.ndarray, end: np.ndarray, planes: list[int]) -> list[np.ndarray] | None:
        points: list[np.ndarray] = []
        for place in reversed(range(len(planes))):
            image = mirrored(start, planes[: place + 1])
            normal, offset = surfaces.normal[planes[place]], surfaces.offset[planes[place]]
            speed = normal @ (image - end)
            share = (offset - normal @ end) / speed if abs(speed) > 1e-12 else -1.0
            if not 0 < share < 1:
                return None
            end = end + share * (image - end)
            points.insert(0, end)
        return points

    if edge is None:
        points = reflections(source, receiver, [kind for kind, _ in steps])
    else:
        before, after = ([kind for kind, _ in part] for part in (steps[:edge], steps[edge + 1 :]))
        lamp, target = mirrored(source, before), mirrored(receiver, after[::-1])
        corner = keller_point(world, steps[edge][1], lamp, target)
        if corner is None:
            return None
        first, last = reflections(source, corner, before), reflections(corner, receiver, after)
        points = None if first is None or last is None else [*first, corner, *last]
    return None if points is None else np.array(points).reshape(-1, 3)


def exists(
    world: World,
    obstacles: Obstacles,
    source: np.ndarray,
    receiver: np.ndarray,
    steps: list[tuple[int, int]],
    walls: list[int],
) -> bool:
    """Whether a path's mirrors are met on their faces, with as many walls in between as it passes through."""
    surfaces = world.surfaces
    points = trace(world, source, receiver, steps)
    if points is None:
        return False
    for (kind, _), point in zip(steps, points, strict=True):
        faces = surfaces.faces[surfaces.plane_of_face == kind]
        if kind != EDGE and not on_faces(surfaces.vertices[faces], point, surfaces.normal[kind]):
            return False
    stops = np.array([source, *points, receiver])
    return all(
        obstacles.crossings(one, two) == count for one, two, count in zip(stops[:-1], stops[1:], walls, strict=True)
    )


def edge_gaps(world: World, point: np.ndarray) -> np.ndarray:
    """Distance of a point to each edge."""
    surfaces = world.surfaces
    along = np.einsum("ei,ei->e", point - surfaces.edge_origin, surfaces.edge_direction)
    foot = surfaces.edge_origin + np.clip(along, 0, surfaces.edge_length)[:, None] * surfaces.edge_direction
    return np.linalg.norm(foot - point, axis=1)


def nearest_edge(world: World, point: np.ndarray) -> int:
    """Number of the edge at a point."""
    return int(edge_gaps(world, point).argmin())


def keller_point(world: World, edge: int, lamp: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """The point of an edge that makes the way from lamp to target shortest; nothing beyond the edge's ends."""
    surfaces = world.surfaces
    origin, direction = surfaces.edge_origin[edge], surfaces.edge_direction[edge]
    ends = np.array([lamp, target]) - origin
    height = ends @ direction
    away = np.linalg.norm(ends - height[:, None] * direction, axis=1)
    place = (height[0] * away[1] + height[1] * away[0]) / max(away.sum(), 1e-12)
    return origin + place * direction if 0 < place < surfaces.edge_length[edge] else None


def on_faces(triangles: np.ndarray, point: np.ndarray, normal: np.ndarray) -> bool:
    """Whether a point of their plane is on any of these triangles (seen along the normal)."""
    with np.errstate(invalid="ignore"):
        met = hits((point + normal)[None], (point - normal)[None], triangles)
    return bool((~np.isnan(met)).any())
