"""Buildings that touch: the same edges, paths and fields as of one mesh of their outer surface."""

import itertools

import numpy as np
import pytest
from raytrace_helpers import SOURCE, box, mesh_of, users_around

from wavecity.geo.scene import Mesh, Surface
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.stock import at_no_edge, compare, place_link, stock_repeats, stock_table, trace_link
from wavecity.raytrace.surfaces import Surfaces, analyse, survey
from wavecity.raytrace.world import build_world

# Least and largest x, y, z of solids.
Boxes = list[tuple[float, float, float, float, float, float]]

SIZE = 200.0
FLUSH: Boxes = [(-20, 0, 0, 30, 0, 20), (0, 25, 0, 30, 0, 20)]
HIGHER: Boxes = [(-20, 0, 0, 30, 0, 12), (0, 25, 0, 30, 0, 20)]
CORNER: Boxes = [(-20, 0, 0, 30, 0, 12), (0, 25, -25, 0, 0, 20)]
OFFSET: Boxes = [(-20, 0, 0, 30, 0, 12), (0, 25, -10, 18, 0, 12)]
ON_TOP: Boxes = [(-30, 30, 0, 40, 0, 8), (-30, 0, 10, 30, 8, 20)]
CROSS: Boxes = [(0, 20, 0, 20, 0, 10), (-20, 0, 0, 20, 0, 10), (-20, 0, -20, 0, 0, 10), (0, 20, -20, 0, 0, 10)]


def one_by_one(boxes: Boxes, turn: float = 0.0) -> Mesh:
    """Each box a closed solid of its own, as buildings are."""
    blocks = [(box((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), z1 - z0) for x0, x1, y0, y1, z0, z1 in boxes]
    mesh = mesh_of(blocks)
    base = np.array([z0 for *_, z0, _ in boxes])
    owner = np.empty(len(mesh.vertices), int)
    owner[mesh.faces] = mesh.building[:, None]
    lifted = mesh.vertices + base[owner, None] * [0.0, 0.0, 1.0]
    return Mesh(turned(lifted, turn), mesh.faces, mesh.building, mesh.surface)


def outer_surface(boxes: Boxes, turn: float = 0.0) -> Mesh:
    """One welded mesh of the faces between the inside and the outside of all boxes, cut along all their coordinates."""
    cuts = [np.unique([row[2 * axis : 2 * axis + 2] for row in boxes]) for axis in range(3)]
    middle = np.stack(np.meshgrid(*((cut[1:] + cut[:-1]) / 2 for cut in cuts), indexing="ij"), axis=-1)
    solid = np.zeros([len(cut) + 1 for cut in cuts], bool)
    for row in np.array(boxes).reshape(-1, 3, 2):
        solid[1:-1, 1:-1, 1:-1] |= ((middle > row[:, 0]) & (middle < row[:, 1])).all(axis=-1)
    numbers: dict[tuple[int, ...], int] = {}
    faces, kinds = [], []
    for axis, cell in itertools.product(range(3), np.ndindex(*solid.shape)):
        after = tuple(index + (number == axis) for number, index in enumerate(cell))
        if after[axis] == solid.shape[axis] or solid[cell] == solid[after]:
            continue
        u, v = (axis + 1) % 3, (axis + 2) % 3
        corner = [index - 1 for index in after]
        ring = [(0, 0), (1, 0), (1, 1), (0, 1)]
        quad = []
        for a, b in ring if solid[cell] else ring[::-1]:
            at = list(corner)
            at[u] += a
            at[v] += b
            quad.append(numbers.setdefault(tuple(at), len(numbers)))
        faces += [quad[:3], [quad[0], *quad[2:]]]
        kinds += 2 * [Surface.WALL if axis < 2 else Surface.ROOF if solid[cell] else Surface.FLOOR]
    vertices = np.array([[cut[index] for cut, index in zip(cuts, at, strict=True)] for at in numbers], float)
    building = np.zeros(len(faces), np.int32)
    return Mesh(turned(vertices, turn), np.array(faces, np.int32), building, np.array(kinds, np.uint8))


def turned(vertices: np.ndarray, angle: float) -> np.ndarray:
    """Around z, by radians."""
    sine, cosine = np.sin(angle), np.cos(angle)
    return vertices @ np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])


def spots(surfaces: Surfaces, step: float = 1.0) -> set[tuple[float, ...]]:
    """Where edges are, every metre, with the two normals there: however the edges are divided."""
    found = set()
    for number in range(surfaces.edges):
        along = surfaces.edge_direction[number]
        fixed = surfaces.edge_origin[number] @ along
        length = surfaces.edge_length[number]
        first = np.ceil((fixed - step / 2) / step) * step + step / 2
        normals = sorted(tuple(row) for row in np.round(surfaces.edge_normals[number], 3) + 0.0)
        for at in np.arange(first, fixed + length, step):
            place = surfaces.edge_origin[number] + (at - fixed) * along
            found.add((*(np.round(place, 3) + 0.0), *normals[0], *normals[1]))
    return found


def random_boxes(seed: int) -> Boxes:
    """Boxes of a grid of 20 m that touch along walls, edges and corners, some of them on top of others."""
    random = np.random.default_rng(seed)
    found: Boxes = []
    for x, y in itertools.product((-30.0, -10.0, 10.0), repeat=2):
        if random.random() < 0.7:
            low, high = sorted(random.choice([6.0, 10.0, 14.0], 2))
            found.append((x, x + 20, y, y + 20, 0, low))
            if high > low:
                found.append((x, x + random.choice([10, 20]), y, y + random.choice([12, 20]), low, high))
    return found


def paths_of(mesh: Mesh, users: np.ndarray, depth: int) -> Paths:
    return ChainSolver(depth, 200_000, diffraction=True)(build_world(mesh, SIZE, RadioSettings()), SOURCE, users)


def assert_the_same(one: Paths, other: Paths) -> None:
    """Each path of either is one of the other, with the same field."""
    assert len(one) == len(other)
    left = list(range(len(other)))
    for row in range(len(one)):
        near = [at for at in left if other.receiver[at] == one.receiver[row]]
        gaps = [np.abs(other.vertices[at] - one.vertices[row]).max() for at in near]
        match = near[int(np.argmin(gaps))]
        assert min(gaps) < 1e-3
        assert abs(other.coefficient[match] - one.coefficient[row]) < 2e-3 * abs(one.coefficient[row]) + 1e-9
        left.remove(match)


CASES = {
    "flush": FLUSH,
    "higher": HIGHER,
    "corner": CORNER,
    "offset": OFFSET,
    "on top": ON_TOP,
    "cross": CROSS,
}


@pytest.mark.parametrize(("name", "edges"), zip(CASES, (10, 13, 15, 14, 17, 12), strict=True))
def test_edges_are_those_of_the_outer_surface(name: str, edges: int) -> None:
    ours = survey(one_by_one(CASES[name]), SIZE)
    assert ours.edges == edges
    assert spots(ours) == spots(survey(outer_surface(CASES[name]), SIZE))


@pytest.mark.parametrize("seed", range(5))
def test_edges_of_random_blocks_in_any_direction(seed: int) -> None:
    boxes, turn = random_boxes(seed), 0.37 * seed
    ours, merged = (survey(mesh(boxes, turn), SIZE) for mesh in (one_by_one, outer_surface))
    assert ours.edge_length.sum() == pytest.approx(merged.edge_length.sum(), abs=0.05)
    if turn == 0:
        assert spots(ours) == spots(merged)


@pytest.mark.parametrize("name", CASES)
def test_paths_and_fields_are_those_of_the_outer_surface(name: str) -> None:
    users = users_around([], 60)
    users = users[(np.abs(users[:, :2]) > 41).any(axis=1)]
    apart, merged = (paths_of(mesh(CASES[name]), users, 2) for mesh in (one_by_one, outer_surface))
    assert (merged.types == 8).any(axis=1).sum() > 30
    assert_the_same(apart, merged)


def test_paths_of_random_blocks() -> None:
    users = users_around([], 60)
    users = users[(np.abs(users[:, :2]) > 41).any(axis=1)]
    apart, merged = (paths_of(mesh(random_boxes(7), 0.3), users, 1) for mesh in (one_by_one, outer_surface))
    assert_the_same(apart, merged)


def test_faces_without_an_inside_touch_as_solids_do() -> None:
    """Scenes whose meshes may be open: there, too, a seam is no wedge, and an edge in one place twice is one."""
    mesh = one_by_one(FLUSH)
    kinds = np.zeros(len(mesh.faces), np.uint8)
    flush = analyse(mesh.vertices, mesh.faces, kinds, mesh.building, closed=False)
    one = one_by_one(FLUSH[:1])
    faces = np.concatenate([one.faces, one.faces + len(one.vertices)])
    part = np.repeat(np.arange(2, dtype=np.int32), len(one.faces))
    twice = analyse(np.tile(one.vertices, (2, 1)), faces, np.zeros(len(faces), np.uint8), part, closed=False)
    assert (flush.edges, twice.edges) == (16, 12)


def test_the_comparison_knows_the_stock_solvers_paths_at_seams() -> None:
    """Both fronts are one plane, and the stock solver diffracts at the two edges of the seam in it."""
    users = users_around([], 12)
    world = build_world(one_by_one(FLUSH), SIZE, RadioSettings())
    place_link(world, SOURCE, users)
    options = {"max_depth": 1, "samples_per_src": 200_000, "los": False, "diffraction": True}
    theirs = stock_table(trace_link(world, **options), world)
    ours = ChainSolver(1, 200_000, los=False, diffraction=True)(world, SOURCE, users)
    stray = at_no_edge(theirs, world)
    places = theirs["vertices"][stray, 0]
    # The seam: x = 0, along the fronts at y = 0 and 30 and across the roofs.
    assert (np.abs(places[:, 0]) < 0.01).all()
    assert ((np.abs(places[:, 1] - 15) > 14.99) | (places[:, 2] > 19.99)).all()
    result = compare(theirs, ours, world, len(users))
    assert (result.missing, result.no_edge) == (0, (stray & ~stock_repeats(theirs)).sum())
    assert result.no_edge > 0
