"""Half-hidden patches of diffuse scattering: closed forms, dense quadrature with a ray tracer of its own, and independence."""

from dataclasses import fields

import numpy as np
import pytest
from numpy.typing import NDArray
from raytrace_helpers import (
    BLOCKS,
    SOURCE,
    SPEED_OF_LIGHT,
    blocked,
    mesh_of,
    stock_paths,
    users_around,
    world_of,
)
from scipy.integrate import dblquad
from shapely import box

from wavecity.raytrace.scattering import scattered_paths
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.shadows import POINTS, unsettled, visible_part
from wavecity.raytrace.solver import Paths
from wavecity.raytrace.world import build_world

# Reflects everything, so that closed forms need no Fresnel coefficients.
SCATTERING = 0.6
METAL = RadioSettings(wall_material="metal", roof_material="metal", ground_material="metal", scattering=SCATTERING)
WAVELENGTH = SPEED_OF_LIGHT / 28.5e9
SCALE = (WAVELENGTH / (4 * np.pi)) ** 2 * SCATTERING**2


def power(paths: Paths, receivers: int) -> NDArray[np.float64]:
    return np.bincount(paths.receiver, np.abs(paths.coefficient.astype(np.complex128)) ** 2, receivers)


def lambertian(
    place: NDArray[np.float64], normal: NDArray[np.float64], *ends: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Power per square metre of metal at places, between two ends."""
    product = np.full(len(place), SCALE / np.pi)
    for end in ends:
        way = end - place
        distance = np.linalg.norm(way, axis=1)
        product *= np.maximum((way * normal).sum(axis=1), 0) / distance**3
    return product


# The obstacle's near edge, and where the visible part of the wall ends: behind the user's line past its far or near corner.
@pytest.mark.parametrize(
    ("edge", "limit"), [(4.0, 2 + 2 * 38 / 14), (2.5, 2 + 0.5 * 38 / 14), (1.0, 2 - 38 / 10), (0.0, 2 - 2 * 38 / 10)]
)
def test_a_half_hidden_wall(edge: float, limit: float) -> None:
    wall, obstacle = (box(-10, 38, 10, 42), 12.0), (box(edge, 10, 40, 14), 6.0)
    source, user = np.array([-10.0, 0.0, 30.0]), np.array([2.0, 0.0, 1.5])
    world = build_world(mesh_of([wall, obstacle]), 100.0, METAL)
    paths = scattered_paths(world, source, user[None])
    front = np.isclose(paths.vertices[:, 0, 1], 38.0)
    assert (paths.vertices[front, 0, 0] < limit).mean() > 0.9
    south = np.array([[0.0, -1.0, 0.0]])

    def integrand(z: float, x: float) -> float:
        return float(lambertian(np.array([[x, 38.0, z]]), south, source, user)[0])

    expected = dblquad(integrand, -10, limit, 0, 12, epsrel=1e-4)[0]
    assert power(paths.select(np.flatnonzero(front)), 1)[0] == pytest.approx(expected, rel=0.02)


def test_a_user_in_a_courtyard_with_a_slit() -> None:
    """The source lights a stripe of the courtyard through a slit of 40 cm, and the user sees a little of the street."""
    high, low = 10.2, 9.8
    blocks = [
        (box(-12, -12, 12, -10), 30.0),
        (box(-12, -10, -10, 12), 30.0),
        (box(10, -10, 12, 12), 30.0),
        (box(-10, 10, 1.0, 12), 30.0),
        (box(1.0 + high - low, 10, 10, 12), 30.0),
    ]
    source, user = np.array([3.0, 28.0, 12.0]), np.array([-4.0, -3.0, 1.5])
    mesh = mesh_of(blocks)
    world = build_world(mesh, 30.0, METAL)
    found = power(scattered_paths(world, source, user[None]), 1)[0]

    step, expected = 0.1, 0.0
    triangles = world.surfaces.vertices[world.surfaces.faces]
    random = np.random.default_rng(0)
    for number, (a, b, c) in enumerate(triangles):
        cross = np.cross(b - a, c - a)
        area = np.linalg.norm(cross) / 2
        count = int(area / step**2)
        # Jittered strata of the square, folded into the triangle.
        side = max(1, int(np.sqrt(count)))
        u, v = ((np.indices((side, side)).reshape(2, -1) + random.random((2, side**2))) / side).tolist()
        u, v = np.array(u), np.array(v)
        over = u + v > 1
        u, v = np.where(over, 1 - u, u), np.where(over, 1 - v, v)
        place = a + u[:, None] * (b - a) + v[:, None] * (c - a)
        each = lambertian(place, np.broadcast_to(cross / (2 * area), place.shape), source, user) * area / side**2
        others = np.delete(triangles, number, axis=0)
        lit = np.flatnonzero(each > 0)
        for end in (user, source):
            for part in np.array_split(lit, max(1, len(lit) // 20_000)):
                hidden = blocked(np.broadcast_to(end, (len(part), 3)), place[part], others)
                each[part[hidden]] = 0
            lit = lit[each[lit] > 0]
        expected += each.sum()
    assert expected > 0
    assert abs(10 * np.log10(found / expected)) < 0.25


def test_a_user_has_the_same_paths_alone_and_in_any_company() -> None:
    users, world = users_around(BLOCKS, 9), world_of(BLOCKS, METAL)
    together, turned = scattered_paths(world, SOURCE, users), scattered_paths(world, SOURCE, users[::-1], memory=3)
    for number in range(len(users)):
        alone = scattered_paths(world, SOURCE, users[number : number + 1])
        for every, position in ((together, number), (turned, len(users) - 1 - number)):
            mine = every.select(np.flatnonzero(every.receiver == position))
            for field in fields(Paths):
                if field.name != "receiver":
                    np.testing.assert_array_equal(getattr(mine, field.name), getattr(alone, field.name))


def test_the_energy_of_all_users_is_the_stock_solvers_mean() -> None:
    users = users_around(BLOCKS, 60)
    world = world_of(BLOCKS, RadioSettings(scattering=0.5))
    found = power(scattered_paths(world, SOURCE, users), len(users)).sum()
    # With reflection, so that its rays are drawn at random.
    kinds = {"los": False, "specular_reflection": True, "diffuse_reflection": True, "max_depth": 1}
    sums = []
    for seed in range(8):
        many = {"samples_per_src": 40_000, "max_num_paths_per_src": 3 * 10**6, "seed": seed}
        paths = stock_paths(world, SOURCE, users, **kinds, **many)
        amplitude = np.abs(paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0, 0].astype(np.float64)
        diffuse = paths.valid.numpy()[:, 0] & (paths.interactions.numpy()[0, :, 0] == 2)
        sums.append((amplitude**2 * diffuse).sum())
    error = np.std(sums, ddof=1) / np.sqrt(len(sums))
    assert error < 0.05 * np.mean(sums)
    assert abs(found - np.mean(sums)) < 3 * error


@pytest.mark.parametrize("count", [64, 256])
def test_nodes_of_a_visible_part_integrate_polynomials_of_degree_two(count: int) -> None:
    """Of the corner of a triangle beyond a line: a smaller triangle, whose integrals are known."""
    cut = 0.4
    seen = POINTS[None, :count, 0] > cut
    share, nodes = visible_part(seen)
    size = 1 - cut
    assert share[0] == pytest.approx(size**2, abs=0.6 / np.sqrt(count))
    u, v, w = nodes[0].T
    assert u + v + w == pytest.approx(1.0)
    # Mean of u, v, u^2 and u v over that corner, with u = cut + size u' of a whole triangle.
    whole_u, whole_uu, whole_uv = 1 / 3, 1 / 6, 1 / 12
    near = pytest.approx
    slack = 0.3 / np.sqrt(count)
    assert u.mean() == near(cut + size * whole_u, abs=slack)
    assert v.mean() == near(size * whole_u, abs=slack)
    assert (u * u).mean() == near(cut**2 + 2 * cut * size * whole_u + size**2 * whole_uu, abs=slack)
    assert (u * v).mean() == near(cut * size * whole_u + size**2 * whole_uv, abs=slack)


def test_nodes_stay_within_the_triangle() -> None:
    random = np.random.default_rng(1)
    seen = random.random((200, 16)) < random.random((200, 1))
    share, nodes = visible_part(seen)
    np.testing.assert_array_equal(share, seen.mean(axis=1))
    assert nodes.min() >= 0
    np.testing.assert_allclose(nodes.sum(axis=2), 1)


def test_patches_that_decide_are_looked_at_again() -> None:
    # One half-hidden patch is most of the first user's power and little of the second's; the third sees nothing.
    weight = np.array([1.0, 1e-6, 1.0, 1e-4, 1.0, 1.0])
    share = np.array([2 / 3, 2 / 3, 1.0, 1 / 3, 0.0, 0.0])
    count, receiver = np.full(6, 256), np.array([0, 0, 1, 1, 2, 2])
    count[[0, 4, 5]] = 3
    found = unsettled(weight, share, count, receiver, 3)
    assert found.tolist() == [0, 4, 5]
    order = np.array([5, 0, 3, 2, 4, 1])
    turned = unsettled(weight[order], share[order], count[order], receiver[order], 3)
    assert sorted(order[turned].tolist()) == [0, 4, 5]
