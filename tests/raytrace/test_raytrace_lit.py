"""Edges that the source lights in mirrors, against points of all edges tried one by one in NumPy; and rows as numbers."""

import itertools

import numpy as np
import pytest
from raytrace_helpers import SOURCE, blocked, box, hits, world_of

from wavecity.raytrace.bounce import Search
from wavecity.raytrace.chains import find_chains
from wavecity.raytrace.lit import are_lit, facing_edges
from wavecity.raytrace.rows import row_keys, unique_rows
from wavecity.raytrace.world import World

POINTS = 51
# No two walls lie in one plane: between two of one plane a mirror's outline has a gap.
PLACES = [
    (box(-20, 20, 30, 20, 10), 20.0),
    (box(33, 11, 20, 40), 12.0),
    (box(3, 131, 40, 2, 5), 30.0),
    (box(61, 62, 2, 60, 3), 16.0),
]


def lit_points(world: World, sequence: tuple[int, ...]) -> np.ndarray:
    """Whether the source reaches points (edges, POINTS) by way of a sequence of planes."""
    surfaces = world.surfaces
    triangles = surfaces.vertices[surfaces.faces]
    place = surfaces.edge_length[:, None] * (np.arange(POINTS) + 0.5) / POINTS
    away = surfaces.edge_normals.sum(axis=1)
    away /= np.linalg.norm(away, axis=1)[:, None]
    points = surfaces.edge_origin[:, None] + place[..., None] * surfaces.edge_direction[:, None] + 1e-3 * away[:, None]
    at = points.reshape(-1, 3)
    images = [SOURCE]
    for plane in sequence:
        normal, offset = surfaces.normal[plane], surfaces.offset[plane]
        images.append(images[-1] - 2 * (images[-1] @ normal - offset) * normal)
    faces = np.einsum("efi,ei->ef", surfaces.edge_normals, images[-1] - surfaces.edge_origin)
    left = np.flatnonzero(np.repeat((faces > 0).any(axis=1), POINTS))
    at = at[left]
    for plane, image in zip(reversed(sequence), reversed(images[1:]), strict=True):
        t = hits(at, np.broadcast_to(image, at.shape), triangles[surfaces.plane_of_face == plane])
        t = np.where(np.isnan(t), np.inf, t).min(axis=1)
        on_mirror = (t > 1e-9) & (t < 1 - 1e-9)
        left, at, t = left[on_mirror], at[on_mirror], t[on_mirror, None]
        met = at + t * (image - at)
        clear = ~blocked(at, met, triangles)
        left, at = left[clear], met[clear]
    left = left[~blocked(at, np.broadcast_to(SOURCE, at.shape), triangles)]
    return np.bincount(left, minlength=surfaces.edges * POINTS).reshape(-1, POINTS) > 0


@pytest.mark.parametrize("length", [1, 2])
def test_edges_in_mirrors_are_those_whose_points_are_reached(length: int) -> None:
    world = world_of(PLACES)
    surfaces = world.surfaces
    front = np.unique(surfaces.plane_of_face)[: surfaces.planes]
    sequences = [
        row for row in itertools.product(front, repeat=length) if all(a != b for a, b in itertools.pairwise(row))
    ]
    search = Search(world, specular=True, refraction=False, limit=1_000_000)
    facing = facing_edges(search, SOURCE, np.array(sequences, np.int32))
    lit = facing.select(are_lit(search, SOURCE, facing))
    spans = {tuple(row): span for row, span in zip(facing.elements.tolist(), facing.span, strict=True)}
    found = set(map(tuple, lit.elements.tolist()))
    expected = nearly = 0
    for sequence in sequences:
        reached = lit_points(world, sequence)
        for edge in np.flatnonzero(reached.sum(axis=1)):
            row, places = (*map(int, sequence), surfaces.planes + int(edge)), np.flatnonzero(reached[edge])
            distance = surfaces.edge_length[edge] * (places[[0, -1]] + 0.5) / POINTS
            low, high = spans[row]
            assert low - 1e-3 <= distance[0]
            assert distance[1] <= high + 1e-3
            # Some points of the span are tried; what is lit less than between two of them may be missed.
            if len(places) > POINTS / 8:
                expected += 1
                assert row in found
        dark = np.flatnonzero(~reached.any(axis=1))
        nearly += len({(*map(int, sequence), surfaces.planes + int(edge)) for edge in dark} & found)
    assert expected > (20 if length == 1 else 5)
    # Edges that touch a corner of the mirror may count as lit, for little is lost by that.
    assert nearly < len(found) / 2


@pytest.mark.parametrize(("roof", "seen"), [(29.85, True), (30.2, False)])
def test_an_edge_that_rises_30_cm_above_a_shadow_is_lit(roof: float, seen: bool) -> None:
    """A tower of 30 m, 100 m away from a source that is as high, behind a wide house half way: it shades up to 29.7 m."""
    source = np.array([0.0, 0.0, 30.0])
    world = world_of([(box(105, 0, 10, 10), 30.0), (box(50, 0, 2, 80), roof)])
    surfaces = world.surfaces
    search = Search(world, specular=True, refraction=False, limit=1_000_000)
    facing = facing_edges(search, source, np.empty((1, 0), np.int32))
    lit = facing.wedges.edge[are_lit(search, source, facing)]
    upright = np.abs(surfaces.edge_direction[:, 2]) > 0.99
    front = upright & (np.abs(surfaces.edge_origin[:, 0] - 100) < 0.01)
    assert front.sum() == 2
    assert np.isin(np.flatnonzero(front), lit).all() == seen


def test_chains_to_edges_in_mirrors_need_no_ray_near_them() -> None:
    """With hardly any rays from the source all edges seen in the mirrors that these meet are there."""
    world = world_of(PLACES)
    few, many = (find_chains(world, SOURCE, 2, rays, diffraction=True) for rays in (500, 200_000))
    mirrors = set(few.elements[(few.wedge < 0) & (few.elements[:, 1] >= 0), 0].tolist())
    wanted = {tuple(row) for row in many.elements[many.wedge == 1].tolist() if row[0] in mirrors}
    assert len(wanted) > 30
    assert wanted <= {tuple(row) for row in few.elements[few.wedge == 1].tolist()}


@pytest.mark.parametrize("highest", [9, 2**31 - 1])
def test_rows_as_numbers(highest: int) -> None:
    """With few and with too many possible rows for a number of 64 bits."""
    random = np.random.default_rng(3)
    table = random.choice([-1, 0, 5, highest], (200, 4)).astype(np.int32)
    _, number = np.unique(table, axis=0, return_inverse=True)
    keys = row_keys(table)
    np.testing.assert_array_equal(np.unique(keys, return_inverse=True)[1], number.reshape(-1))
    np.testing.assert_array_equal(unique_rows(table), np.unique(table, axis=0))
    assert len(row_keys(table[:0])) == 0
