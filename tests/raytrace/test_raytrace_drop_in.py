"""`ChainPathSolver` where there is little or nothing to find, and in code that was written for the stock solver."""

from typing import Any

import numpy as np
import pytest
from raytrace_helpers import BLOCKS, SOURCE, SPEED_OF_LIGHT, users_around
from raytrace_helpers import world_of as blocks_world

from wavecity.raytrace.device import mi, rt
from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.sionna_private import right_diffraction
from wavecity.raytrace.solver import ChainSolver, Paths


def link(scene: Any, transmitter: tuple[float, ...], *receivers: tuple[float, ...]) -> Any:
    """The scene with single isotropic antennas at these places."""
    scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    scene.add(rt.Transmitter("tx", list(transmitter)))
    for number, place in enumerate(receivers):
        scene.add(rt.Receiver(f"rx-{number}", list(place)))
    return scene


def room_and_car() -> Any:
    """A closed room with both ends, and a car outside: a scene with wedges, none of which the transmitter lights."""
    scene = link(rt.load_scene(rt.scene.box), (0.0, 0.0, 1.0), (1.0, 1.3, 2.0))
    material = next(iter(scene.radio_materials.values()))
    car = rt.SceneObject(fname=rt.scene.low_poly_car, name="car", radio_material=material)
    scene.edit(add=car)
    car.position = mi.Point3f(40, 0, 0)
    return scene


def rows(paths: Any) -> np.ndarray:
    """Of single antennas: receiver, number of each type of interaction, delay in ns and |a|^2 in dB, sorted."""
    receiver, path = np.nonzero(paths.valid.numpy()[:, 0])
    types = paths.interactions.numpy()[:, :, 0][:, receiver, path]
    counts = [(types == kind).sum(axis=0) for kind in (1, 2, 4, 8)]
    amplitude = np.hypot(paths.a[0].numpy(), paths.a[1].numpy())[:, 0, 0, 0][receiver, path]
    delay = paths.tau.numpy()[:, 0][receiver, path]
    table = np.column_stack([receiver, *counts, 1e9 * delay, 20 * np.log10(amplitude)])
    return table[np.lexsort(table.T[::-1].round(2))]


@pytest.mark.parametrize("depth", [2, 3])
def test_source_that_lights_no_edge(depth: int) -> None:
    scene = room_and_car()
    options = {"diffraction": True, "refraction": False, "max_depth": depth, "samples_per_src": 10_000}
    found, expected = (rows(solver(scene, **options)) for solver in (ChainPathSolver(), rt.PathSolver()))
    assert len(found) > 10
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"refraction": False}, {"diffraction": True}, {"max_depth": 0}])
def test_empty_scene_has_the_line_of_sight(options: dict[str, Any]) -> None:
    scene = link(rt.load_scene(), (0.0, 0.0, 1.0), (3.0, 4.0, 1.0), (0.0, 0.01, 1.0))
    found = rows(ChainPathSolver()(scene, samples_per_src=1000, **options))
    distance = np.array([5.0, 0.01])
    np.testing.assert_array_equal(found[:, :5], [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    np.testing.assert_allclose(found[:, 5], 1e9 * distance / SPEED_OF_LIGHT, rtol=1e-5)
    friis = 20 * np.log10(SPEED_OF_LIGHT / scene.frequency.numpy()[0] / (4 * np.pi * distance))
    np.testing.assert_allclose(found[:, 6], friis, atol=1e-4)
    assert len(rows(ChainPathSolver()(scene, los=False, samples_per_src=1000, **options))) == 0


def test_receiver_at_the_transmitter() -> None:
    """No direct path, which has no direction; the others are those of the stock solver."""
    scene = link(rt.load_scene(rt.scene.box), (0.5, 0.3, 1.0), (0.5, 0.3, 1.0))
    options = {"max_depth": 2, "refraction": False, "samples_per_src": 10_000}
    found, expected = (rows(solver(scene, **options)) for solver in (ChainPathSolver(), rt.PathSolver()))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected[expected[:, 1] > 0], atol=1e-2)


@pytest.mark.parametrize(
    "options", [{}, {"diffraction": True}, {"refraction": True}, {"diffraction": True, "los": False}]
)
def test_plate_between_the_ends(options: dict[str, Any]) -> None:
    """No pair of a chain and a receiver is left when geometry has been asked."""
    scene = link(rt.load_scene(rt.scene.simple_reflector), (0.0, 0.0, 1.0), (0.2, 0.0, -1.0))
    options = {"refraction": False, "samples_per_src": 1000} | options
    assert len(rows(rt.PathSolver()(scene, **options))) == 0
    assert len(rows(ChainPathSolver()(scene, **options))) == 0


def test_batches_without_a_path_change_nothing() -> None:
    """So little memory that a batch is a few chains, some of which reach no receiver."""
    world, users = blocks_world(BLOCKS), np.repeat(users_around(BLOCKS, 5), 1000, axis=0)
    found, expected = (ChainSolver(2, 5_000, memory=memory)(world, SOURCE, users) for memory in (1, 512))
    assert len(found) > 5_000
    np.testing.assert_array_equal(found.elements, expected.elements)
    np.testing.assert_array_equal(found.length, expected.length)


@pytest.mark.parametrize("options", [{}, {"diffraction": True}, {"refraction": True}])
def test_no_receivers(options: dict[str, Any]) -> None:
    paths = ChainSolver(2, 1000, **options)(blocks_world(BLOCKS), SOURCE, np.empty((0, 3)))
    assert isinstance(paths, Paths)
    assert len(paths) == 0


def scattering() -> Any:
    """A street canyon whose walls scatter."""
    scene = link(rt.load_scene(rt.scene.simple_street_canyon), (-30.0, 0.0, 20.0), (20.0, 5.0, 1.5))
    for material in scene.radio_materials.values():
        material.scattering_coefficient = 0.4
    return scene


def test_in_place_of_the_stock_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own name may be ours when a call is passed on to it."""
    scene, stock = scattering(), rt.PathSolver(deterministic=True)
    options = {"max_depth": 1, "diffuse_reflection": True, "diffraction": True, "refraction": False}
    options |= {"samples_per_src": 1000, "max_num_paths_per_src": 5_000}
    with right_diffraction():
        expected = rows(stock(scene, **options))
    monkeypatch.setattr(rt, "PathSolver", ChainPathSolver)
    found = rows(rt.PathSolver(deterministic=True)(scene, **options))
    assert (found[:, 2] > 0).any()
    assert (found[:, 4] > 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-3)
    # The first argument by its place, and the same paths of its own either way.
    options |= {"diffuse_reflection": False}
    one, other = (rows(rt.PathSolver(deterministic)(scene, **options)) for deterministic in (False, True))
    np.testing.assert_array_equal(one, other)


def test_what_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every argument, and the mode of loops."""
    passed: list[Any] = []

    class Stock:
        def __init__(self, deterministic: bool) -> None:
            self.deterministic, self.loop_mode = deterministic, "symbolic"

        def __call__(self, scene: Any, **options: Any) -> str:
            passed.extend((self.deterministic, self.loop_mode, options))
            return "paths"

    monkeypatch.setattr("wavecity.raytrace.sionna_private.PathSolver", Stock)
    solver = ChainPathSolver(deterministic=True)
    solver.loop_mode = "evaluated"
    options = {
        "max_depth": 2, "max_num_paths_per_src": 10, "samples_per_src": 20, "synthetic_array": False, "los": False,
        "specular_reflection": False, "diffuse_reflection": True, "refraction": False, "diffraction": True,
        "edge_diffraction": True, "diffraction_lit_region": False, "seed": 7,
    }  # fmt: skip
    assert solver(scattering(), **options) == "paths"
    assert passed == [True, "evaluated", options]


def test_flags_are_flags() -> None:
    with pytest.raises(TypeError, match="`diffraction` must be a bool, not 1"):
        ChainPathSolver()(scattering(), diffraction=1)
