"""The bounded search: its bounds, what it leaves out, and that nothing else of it shows in the result."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from raytrace_helpers import SOURCE, scene_of, users_around

from wavecity.raytrace import backend
from wavecity.raytrace.bounds import CELLS, FieldBounds, Queue, reflectance
from wavecity.raytrace.confirm import PairTest
from wavecity.raytrace.device import mi
from wavecity.raytrace.geometry import unfold
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import panel_orientation, simulate
from wavecity.raytrace.solver import ChainSolver
from wavecity.raytrace.world import build_world, material_properties

backend.prepare()

MATERIALS = RadioSettings(wall_material="brick", roof_material="metal", ground_material="concrete")


def random_blocks(seed: int) -> list[tuple[shapely.Polygon, float]]:
    """A loose grid of houses of random sizes, turned at random, around the source."""
    random = np.random.default_rng(seed)
    blocks = []
    for x in (-60.0, -20.0, 25.0, 65.0):
        for y in (-65.0, -25.0, 20.0, 60.0):
            wide, deep = random.uniform(8, 24, 2)
            house = shapely.affinity.rotate(shapely.box(x, y, x + wide, y + deep), random.uniform(0, 90))
            if not house.buffer(3).contains(shapely.Point(SOURCE[:2])):
                blocks.append((house, float(random.uniform(6, 25))))
    return blocks


@pytest.fixture(scope="module")
def blocks() -> list[tuple[shapely.Polygon, float]]:
    return random_blocks(1)


@pytest.mark.parametrize("pattern", ["iso", "tr38901"])
@pytest.mark.parametrize("seed", [2, 3])
def test_no_field_exceeds_its_bound(seed: int, pattern: str) -> None:
    blocks = random_blocks(seed)
    users = np.asarray(users_around(blocks, 40, seed), np.float64)
    radio = MATERIALS.model_copy(update={"pattern": pattern})
    world = build_world(scene_of(blocks, users).mesh, 200.0, radio)
    solver = ChainSolver(max_depth=3, rays=50_000, los=False, diffraction=True)
    panel = panel_orientation(radio), pattern
    chains = solver.chains(world, SOURCE, users)
    paths = solver(world, SOURCE, users, *panel, chains=chains)
    test = PairTest(
        world, chains, unfold(world.surfaces, SOURCE, chains.elements, chains.swapped), SOURCE, users, True, True, 512
    )
    pairs = test.bounded(unfold(world.surfaces, SOURCE, chains.elements, chains.swapped), SOURCE, *panel)

    row = {tuple(elements): number for number, elements in enumerate(chains.elements.tolist())}
    bound = {(chain, user): power for chain, user, power in zip(pairs.chain, pairs.receiver, pairs.power, strict=True)}
    found = [
        (row[tuple(elements)], user) for elements, user in zip(paths.elements.tolist(), paths.receiver, strict=True)
    ]
    # None of the paths is lost before the image method, either.
    limit = np.array([bound[pair] for pair in found])
    power = np.abs(paths.coefficient.astype(np.complex128)) ** 2
    assert len(paths) > 500
    assert (power <= limit).all()
    # And they are worth something: half of them are within 12 dB of the field.
    assert np.median(limit / power) < 16


def test_reflectances_are_those_of_the_papers_or_more() -> None:
    """Fresnel's coefficients of a slab of 10 cm (ITU-R P.2040-3, eqs. 43 and 44), here in NumPy."""
    scene = scene_of(random_blocks(1), np.zeros((0, 3)))
    radio = RadioSettings(wall_material="glass", roof_material="metal", ground_material="wood")
    world = build_world(scene.mesh, 200.0, radio)
    material, table = reflectance(world, radio.frequency)
    assert world.constants is not None
    cosine = np.random.default_rng(0).random(2000)
    for name in ("glass", "metal", "wood"):
        permittivity, conductivity = material_properties("wall_material", name, radio.frequency)
        number = material[np.flatnonzero(np.isclose(world.constants, (permittivity, conductivity)).all(axis=1))[0]]
        exact = slab(
            cosine, permittivity - 1j * conductivity / (2 * np.pi * radio.frequency * 8.8541878e-12), radio.frequency
        )
        bound = table[number][np.minimum((cosine * CELLS).astype(int), CELLS - 1)]
        assert (exact <= 1.005 * bound).all()
        assert np.median(bound / exact) < 1.05


def slab(cosine: NDArray[np.float64], eta: complex, frequency: float) -> NDArray[np.float64]:
    """The larger magnitude of both reflection coefficients."""
    inside = np.sqrt(eta - (1 - cosine**2))
    turn = np.exp(-2j * 2 * np.pi * 0.1 * frequency / 299_792_458 * inside)
    both = [(cosine - inside) / (cosine + inside), (eta * cosine - inside) / (eta * cosine + inside)]
    magnitudes: NDArray[np.float64] = np.max([np.abs(r * (1 - turn) / (1 - r**2 * turn)) for r in both], axis=0)
    return magnitudes


def test_unknown_materials_reflect_everything(blocks: list[tuple[shapely.Polygon, float]]) -> None:
    world = build_world(scene_of(blocks, np.zeros((0, 3))).mesh, 200.0, RadioSettings())
    material, table = reflectance(replace(world, constants=None), 28.5e9)
    assert len(material) == len(world.shape)
    assert (table[material] == 1).all()


@pytest.mark.parametrize(("diffraction", "refraction"), [(True, False), (False, False), (True, True)])
def test_kept_paths_are_those_of_the_exhaustive_search(
    blocks: list[tuple[shapely.Polygon, float]], diffraction: bool, refraction: bool
) -> None:
    scene = scene_of(blocks, users_around(blocks, 60))
    settings = SolverSettings(max_depth=3, rays=30_000, diffraction=diffraction, refraction=refraction, max_paths=4)
    few = simulate(scene, MATERIALS, settings, 0)
    every = simulate(scene, MATERIALS, settings.model_copy(update={"tolerance": 0.0}), 0)
    np.testing.assert_array_equal(few.gain, every.gain)
    np.testing.assert_array_equal(few.delay, every.delay)
    np.testing.assert_array_equal(few.interactions, every.interactions)
    np.testing.assert_allclose(few.path_gain, every.path_gain, atol=1e-3)
    np.testing.assert_allclose(few.power_cut, every.power_cut, atol=2e-4)
    # The reflections of a user are too few to leave any out.
    assert not diffraction or few.n_paths.sum() < 0.9 * every.n_paths.sum()


def test_a_large_tolerance_finds_every_path(blocks: list[tuple[shapely.Polygon, float]]) -> None:
    scene = scene_of(blocks, users_around(blocks, 30))
    settings = SolverSettings(max_depth=3, rays=30_000, diffraction=True, max_paths=1, tolerance=200.0)
    few = simulate(scene, RadioSettings(), settings, 0)
    every = simulate(scene, RadioSettings(), settings.model_copy(update={"tolerance": 0.0}), 0)
    np.testing.assert_array_equal(few.n_paths, every.n_paths)


def test_memory_changes_nothing(blocks: list[tuple[shapely.Polygon, float]]) -> None:
    users = np.asarray(users_around(blocks, 50), np.float64)
    world = build_world(scene_of(blocks, users).mesh, 200.0, RadioSettings())
    one, other = (
        ChainSolver(max_depth=3, rays=30_000, diffraction=True, memory=memory, tolerance=40.0)(world, SOURCE, users)
        for memory in (512, 1)
    )
    np.testing.assert_array_equal(one.elements, other.elements)
    np.testing.assert_array_equal(one.coefficient, other.coefficient)


def test_nobody_and_nothing(blocks: list[tuple[shapely.Polygon, float]]) -> None:
    solver = ChainSolver(max_depth=2, rays=1000, diffraction=True, tolerance=40.0)
    world = build_world(scene_of(blocks, np.zeros((0, 3))).mesh, 200.0, RadioSettings())
    assert not len(solver(world, SOURCE, np.zeros((0, 3))))
    # A receiver below the ground.
    assert not len(solver(world, SOURCE, np.array([[5.0, 5.0, -3.0]])))


def test_queue_takes_the_largest_bounds_until_the_rest_cannot_matter() -> None:
    receiver = np.array([0, 0, 0, 0, 1, 1, 0, 0])
    power = np.array([1.0, 0.5, 4.0, 2.0, 3.0, 7.0, 1e-9, 0.3])
    queue = Queue(receiver, power, receivers=3, kept=1, tolerance=20.0)
    nothing = np.empty(0, np.int64), np.empty(0)
    # Two of each at first.
    assert queue.take(*nothing).tolist() == [2, 3, 4, 5]
    # Receiver 0 has a path that no other can exceed, but what is left is not 20 dB below it; 1 has no pair left.
    assert queue.take(np.array([0]), np.array([3.0])).tolist() == [0, 1, 6, 7]
    assert queue.take(np.array([0]), np.array([3.0])).tolist() == []


def test_queue_stops_when_both_conditions_hold() -> None:
    receiver, power = np.zeros(6, np.int64), np.array([9.0, 8.0, 0.02, 0.01, 0.01, 0.01])

    def second(kept: int, tolerance: float, found: list[float]) -> list[int]:
        queue = Queue(receiver, power, 1, kept, tolerance)
        queue.take(np.empty(0, np.int64), np.empty(0))
        return queue.take(np.zeros(len(found), np.int64), np.array(found)).tolist()

    assert second(1, 20.0, [9.0]) == []  # 0.05 in all, of 9
    assert second(1, 30.0, [9.0]) == [2, 3, 4, 5]  # more than a thousandth
    # Four of them at first; 0.02 in all are left.
    assert second(2, 20.0, [9.0, 0.05]) == []
    assert second(2, 20.0, [9.0, 0.005]) == [4, 5]  # one might be the second strongest


def test_bounds_depend_on_the_pattern(blocks: list[tuple[shapely.Polygon, float]]) -> None:
    """Behind a panel nothing may be expected, in front of it 8 dBi."""
    users = np.array([[SOURCE[0], SOURCE[1] - 40.0, 1.5], [SOURCE[0], SOURCE[1] + 40.0, 1.5]])
    world = build_world(scene_of([], users).mesh, 200.0, RadioSettings())
    solver = ChainSolver(max_depth=1, rays=1000)
    chains = solver.chains(world, SOURCE)
    unfolded = unfold(world.surfaces, SOURCE, chains.elements, chains.swapped)
    test = PairTest(world, chains, unfolded, SOURCE, users, False, True, 512)
    orientation = float(np.deg2rad(-90)), 0.0, 0.0
    level = [
        FieldBounds(world, test.finder, unfolded, chains, SOURCE, orientation, pattern)(
            mi.UInt([0, 0]), mi.UInt([0, 1])
        )
        for pattern in ("iso", "tr38901")
    ]
    gain = 10 * np.log10(level[1] / level[0])
    assert -4 < gain[0] < 8
    assert gain[1] < gain[0] - 15
