"""Paths of an edge and then small walls far from it, next to the receiver: few rays from the edge meet these."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from raytrace_helpers import box, world_of

from wavecity.raytrace.chains import Chains
from wavecity.raytrace.device import Numbers, dr, mi
from wavecity.raytrace.returning import _Joint, grouped
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.world import World

# A tower that hides the source, and 200 m on a low and a high wall with receivers between them. Huts around the source
# have so many edges that few rays are left for each.
PLACES = [(box(0, 0, 30, 30), 40.0), (box(190, 0, 2, 6), 2.0), (box(196, 0, 2, 6), 5.0)]
HUTS = [(box(x, y, 1, 1), 1.0) for x in range(-100, -64, 4) for y in range(10, 50, 4)]
SOURCE = np.array([-60.0, 30.0, 20.0])
RECEIVERS = np.array([[x, y, 1.6] for x in (192.0, 193.0, 194.0) for y in (-1.5, 0.5, 2.0)])


def every_chain(world: World, reflections: int) -> Chains:
    """All edges of the tower, each followed by all sequences of so many planes of the two walls."""
    surfaces = world.surfaces
    walls = np.unique(surfaces.plane_of_face[surfaces.vertices[surfaces.faces, 0].min(axis=1) > 180])
    rows = [
        (surfaces.planes + edge, *planes)
        for edge in np.flatnonzero(np.abs(surfaces.edge_origin[:, 0]) < 20)
        for planes in itertools.product(walls, repeat=reflections)
        if all(one != two for one, two in itertools.pairwise(planes))
    ]
    elements = np.array(rows, np.int32)
    edge = elements[:, 0] - surfaces.planes
    height = np.einsum("ni,ni->n", surfaces.edge_normals[edge, 0], SOURCE - surfaces.edge_origin[edge])
    return Chains(elements, np.zeros(len(rows), np.int32), height <= 0)


def after_an_edge(paths: Paths, reflections: int) -> set[tuple[int, ...]]:
    """Receiver and elements of the paths of an edge and so many reflections."""
    kept = (paths.types[:, 0] == 8) & ((paths.types[:, 1:] == 1).sum(axis=1) == reflections)
    return set(map(tuple, np.column_stack([paths.receiver, paths.elements])[kept].tolist()))


@pytest.mark.parametrize("reflections", [1, 2])
def test_all_paths_from_edges_to_walls_near_the_receiver(reflections: int) -> None:
    world, solver = world_of([*PLACES, *HUTS]), ChainSolver(1 + reflections, 2_000, diffraction=True)
    expected = after_an_edge(solver(world, SOURCE, RECEIVERS, chains=every_chain(world, reflections)), reflections)
    found = after_an_edge(solver(world, SOURCE, RECEIVERS), reflections)

    assert len(expected) > 5
    assert found >= expected


@pytest.mark.parametrize("count", [1, 15, 16, 33])
def test_groups_hold_every_edge_and_spheres_hold_their_edges(count: int) -> None:
    rng = np.random.default_rng(count)
    starts = rng.uniform(-100, 100, (count, 3))
    ends = starts + rng.uniform(-30, 30, (count, 3))
    order, centre, radius = grouped(starts, ends, 16)
    assert sorted(set(order.tolist())) == list(range(count))
    assert len(order) == 16 * len(centre)
    for group, members in enumerate(order.reshape(-1, 16)):
        for points in (starts[members], ends[members]):
            assert (np.linalg.norm(points - centre[group], axis=1) <= radius[group] + 1e-9).all()


def test_only_edges_that_cannot_be_seen_are_sorted_out_with_their_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the test of every edge; the groups' test must have sorted out most of them to be worth anything."""
    world = world_of([*PLACES, *HUTS])
    pairs: dict[str, int] = {}

    def chains(name: str) -> set[tuple[int, ...]]:
        def counted(self: _Joint, sequence: Numbers, members: Numbers) -> Callable[[Numbers], Numbers]:
            pairs[name] = pairs.get(name, 0) + dr.width(sequence)
            return has_place(self, sequence, members)

        has_place = _Joint._has_place
        with monkeypatch.context() as patch:
            patch.setattr(_Joint, "_has_place", counted)
            if name == "all":
                patch.setattr(_Joint, "_may_see", lambda _, sequence: lambda group: mi.Bool(True))
            found = ChainSolver(3, 2_000, diffraction=True)(world, SOURCE, RECEIVERS)
        return set(map(tuple, np.column_stack([found.receiver, found.elements]).tolist()))

    assert chains("in view") == chains("all")
    assert pairs["in view"] < 0.6 * pairs["all"]
