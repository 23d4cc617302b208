"""Paths of `ChainPathSolver` and of the stock solver, path by path, and why they differ.

Partners meet the same planes in the same order, at the same point of an edge; they must agree in length and coefficient.
Every difference is put into a class by evidence: the same solver with more rays, the stock solver at another depth, ours
with every building's own edges, the same case with the receivers moved by millimetres, and an image method of its own in
float64 (`image_method`), on the planes and edges of `world_of`. What is left is "unexplained".
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
from image_method import NUDGE, WAYS, ImageMethod

from wavecity.raytrace import path_solver, surfaces
from wavecity.raytrace.chains import Chains
from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.solver import ChainSolver
from wavecity.raytrace.stock import EDGE, EDGE_TOLERANCE, THROUGH, at_no_edge, place_link, stock_table, trace_link
from wavecity.raytrace.world import World, world_of

# Rays: few, then more where a path is missing.
RAYS, MORE_RAYS, MOST_RAYS = 10_000, 100_000, 1_000_000
# Partners agree in length (m, and relative) and in coefficient (relative) within these.
LENGTH, COEFFICIENT = (5e-4, 2e-6), 0.02
# Metres within which edges are one place, and below which a section may be too short for Sionna (1 cm).
PLACE, SHORT = 0.01, 0.02


def aids(world: World) -> dict[str, Any]:
    """What cases of a scene have in common: the image method, and the same scene with every building's own edges."""
    with mock.patch.object(surfaces, "merge_touching", lambda edges, *_: edges):
        alone = world_of(world.scene)
    return {"images": ImageMethod(world), "alone": alone, "own edges": ImageMethod(alone)}


def solve(world: World, case: dict[str, Any], solver: str, nudge: Any = 0.0, **changes: Any) -> dict[str, np.ndarray]:
    """Paths of a case as columns (see `stock.stock_table`)."""
    options = {"samples_per_src": RAYS, "seed": 1} | case["options"] | changes
    place_link(world, case["source"], case["receivers"] + nudge)
    if solver == "stock":
        return stock_table(trace_link(world, **options), world)
    # The survey of a large scene takes longer than its paths.
    with mock.patch.object(path_solver, "world_of", return_value=world):
        return stock_table(ChainPathSolver()(world.scene, **options), world)


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
    classes["several edges in one place"] += max(0, int(twice))
    classes["doubled by the stock solver"] += max(0, doubled - int(twice))
    # Two of ours may be nearest to one of the stock solver's where an edge is met within `EDGE_TOLERANCE`.
    classes["two of ours for one of the stock solver's"] += max(0, -int(twice)) + max(0, int(twice) - doubled)

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
    images: ImageMethod = case["images"]
    places = np.array([edges_at(images, ours, row) for row in rows], int)
    yield "another of several edges in one place", rows[places > 1]
    rows = rows[places <= 1]
    touched = np.array([buildings_touch(case, ours, row) for row in rows], bool)
    if touched.any():
        again = solve(case["alone"], case, "ours")
        equal = pairs(stock, again)
        agree = np.unique(equal[disagreement(stock, again, equal) <= COEFFICIENT, 0])
        # Where each of two buildings has an edge, either solver may keep the one or the other.
        several = np.array([edges_at(case["own edges"], ours, row) > 1 for row in rows], bool)
        touching = rows[touched & (several | np.isin(rows, pair[np.isin(pair[:, 0], agree), 1]))]
        yield "another wedge where buildings touch", touching
        rows = np.setdiff1d(rows, touching)

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
        """Whether our vertices are those of the image method in float64, and the stock solver's are off.

        Where a path passes through a wall they are on the line between the others.
        """
        receiver = case["receivers"][ours["receiver"][row]]
        exact = images.trace(case["source"], receiver, images.steps(ours["met"][row], ours["vertices"][row]))
        if exact is None:
            return False
        stops = np.array([case["source"], *exact, receiver])
        gap = [
            np.max(offsets(stops, ours["met"][row], table["vertices"][place]), initial=0)
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


def buildings_touch(case: dict[str, Any], table: dict[str, np.ndarray], row: int) -> bool:
    """Whether a path is diffracted where the edge is not that of one building alone."""
    points = table["vertices"][row][table["met"][row] == EDGE]
    if not len(points):
        return False
    images, own = case["images"], case["own edges"]
    if edges_at(own, table, row) != 1:
        return True
    faces = (some.surfaces.edge_faces[some.nearest_edge(points[0])] for some in (images, own))
    return set(next(faces)) != set(next(faces))


def confirmed_of_chain(world: World, case: dict[str, Any], table: dict[str, np.ndarray], row: int) -> bool:
    """Whether our solver has a path if it is given the chain."""
    images, surfaces = case["images"], world.surfaces
    numbers = [
        surfaces.through if kind == THROUGH else surfaces.planes + images.nearest_edge(vertex) if kind == EDGE else kind
        for kind, vertex in zip(table["met"][row], table["vertices"][row], strict=True)
    ]
    wedge = np.array([list(table["met"][row]).index(EDGE)], np.int32)
    ends = case["receivers"][[table["receiver"][row]] * 2]
    options = case["options"]
    solver = ChainSolver(
        options["max_depth"], diffraction=True, refraction=options["refraction"], los=False,
        lit_region=options.get("diffraction_lit_region", True),
    )  # fmt: skip
    return any(
        len(
            solver(
                world, case["source"], ends, chains=Chains(np.array([numbers], np.int32), wedge, np.array([swapped]))
            )
        )
        for swapped in (False, True)
    )


def edges_at(images: ImageMethod, table: dict[str, np.ndarray], row: int) -> int:
    """How many parallel edges of the scene there are where a path is diffracted; 0 without diffraction."""
    points = table["vertices"][row][table["met"][row] == EDGE]
    if not len(points):
        return 0
    near = images.edge_gaps(points[0])
    direction = images.surfaces.edge_direction[near.argmin()]
    return int(((near < PLACE) & (np.abs(images.surfaces.edge_direction @ direction) > 0.999)).sum())


def offsets(stops: np.ndarray, met: np.ndarray, vertices: np.ndarray) -> list[float]:
    """Metres of a path's vertices from where they ought to be: its exact stops, and the lines between these."""
    found, section = [], 0
    for kind, vertex in zip(met, vertices, strict=False):
        if kind == THROUGH:
            way = stops[section + 1] - stops[section]
            found.append(float(np.linalg.norm(np.cross(vertex - stops[section], way)) / np.linalg.norm(way)))
        elif kind != -1:
            section += 1
            found.append(float(np.linalg.norm(vertex - stops[section])))
    return found


def explain_one_sided(
    world: World, case: dict[str, Any], table: dict[str, np.ndarray], rows: np.ndarray, lacking: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Classes of paths that one solver lacks."""
    images: ImageMethod = case["images"]

    def judge(row: int) -> str:
        return images.judge(
            case["source"], case["receivers"][table["receiver"][row]], table["met"][row], table["vertices"][row]
        )

    if lacking == "ours":
        nowhere = at_no_edge({name: column[rows] for name, column in table.items()}, world)
        yield "only stock: no edge there, where buildings touch", rows[nowhere]
        rows = rows[~nowhere]
        touched = rows[np.array([buildings_touch(case, table, row) for row in rows], bool)]
        if len(touched):
            touching = np.intersect1d(touched, pairs(table, solve(case["alone"], case, "ours"))[:, 0])
            yield "only stock: another wedge where buildings touch", touching
            rows = np.setdiff1d(rows, touching)
    else:
        verdict = np.array([judge(row) for row in rows], "<U10")
        yield "only ours: the image method confirms it", rows[verdict == "valid"]
        rows = rows[verdict != "valid"]
    for rays in (MORE_RAYS, MOST_RAYS) if lacking == "ours" else (MORE_RAYS,):
        if len(rows):
            more = pairs(table, solve(world, case, lacking, samples_per_src=rays))[:, 0]
            found = np.intersect1d(rows, more)
            yield f"{lacking} finds it with {rays:,} rays", found
            rows = np.setdiff1d(rows, found)
    have = "stock" if lacking == "ours" else "ours"
    if lacking == "ours":
        refused = [
            buildings_touch(case, table, row) and not confirmed_of_chain(world, case, table, row) for row in rows
        ]
        yield (
            "only stock: Sionna's image method refuses it at the blunter wedge of two buildings",
            rows[np.array(refused, bool)],
        )
        rows = rows[~np.array(refused, bool)]
    short = np.array([shortest_section(case, table, row) < SHORT for row in rows], bool)
    yield f"only {have}: a section of about 1 cm, the shortest that Sionna admits", rows[short]
    rows = rows[~short]
    verdict = np.array([judge(row) for row in rows], "<U10")
    yield f"only {have}: rounding decides", rows[verdict == "marginal"]
    if have == "stock":
        yield "only stock: the image method refutes it", rows[verdict == "invalid"]
        verdict[verdict == "invalid"] = "marginal"
    rows = rows[verdict != "marginal"]
    places = np.array([edges_at(images, table, row) for row in rows], int)
    yield "another of several edges in one place", rows[places > 1]
    rows = rows[places <= 1]
    for way in NUDGE * WAYS:
        if len(rows):
            moved = pairs(table, solve(world, case, lacking, way, samples_per_src=MORE_RAYS))[:, 0]
            yield f"only {have}: rounding decides", np.intersect1d(rows, moved)
            rows = np.setdiff1d(rows, moved)
    yield "unexplained", rows


def shortest_section(case: dict[str, Any], table: dict[str, np.ndarray], row: int) -> float:
    """Length in m of a path's shortest section."""
    vertices = table["vertices"][row][table["types"][row] > 0]
    stops = np.array([case["source"], *vertices, case["receivers"][table["receiver"][row]]])
    return float(np.linalg.norm(np.diff(stops, axis=0), axis=1).min())
