"""Diffuse scattering from patches: closed forms, energy, reciprocity, and the stock solver's mean."""

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from raytrace_helpers import BLOCKS, SOURCE, SPEED_OF_LIGHT, mesh_of, scene_of, stock_paths, users_around, world_of
from scipy.integrate import dblquad

from wavecity.raytrace.channels import csi
from wavecity.raytrace.diffuse import no_paths
from wavecity.raytrace.patches import patches_of
from wavecity.raytrace.scattering import scattered_paths
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate, simulate_csi
from wavecity.raytrace.solver import Paths
from wavecity.raytrace.world import build_world

# Reflects everything, so that closed forms need no Fresnel coefficients.
METAL = {"wall_material": "metal", "roof_material": "metal", "ground_material": "metal"}
LOBES: list[dict[str, object]] = [
    {"scattering_pattern": "lambertian"},
    {"scattering_pattern": "directive", "scattering_alpha_r": 8},
    {
        "scattering_pattern": "backscattering",
        "scattering_alpha_r": 6,
        "scattering_alpha_i": 12,
        "scattering_lambda": 0.6,
    },
]
WAVELENGTH = SPEED_OF_LIGHT / 28.5e9


def radio(**changes: object) -> RadioSettings:
    return RadioSettings.model_validate({**METAL, "scattering": 0.6, **changes})


def power(paths: Paths, receivers: int) -> NDArray[np.float64]:
    return np.bincount(paths.receiver, np.abs(paths.coefficient.astype(np.complex128)) ** 2, receivers)


@pytest.mark.parametrize("receiver", [(12.0, -7.0, 1.5), (1.0, 2.0, 0.2), (-40.0, 30.0, 12.0)])
def test_a_lambertian_plate(receiver: tuple[float, float, float]) -> None:
    source, target, half = np.array([0.0, 0.0, 15.0]), np.array(receiver), 50.0
    world = build_world(mesh_of([]), half, radio())
    found = power(scattered_paths(world, source, target[None]), 1)

    def integrand(y: float, x: float) -> float:
        r1 = np.sqrt((x - source[0]) ** 2 + (y - source[1]) ** 2 + source[2] ** 2)
        r2 = np.sqrt((x - target[0]) ** 2 + (y - target[1]) ** 2 + target[2] ** 2)
        return float(source[2] / r1 * target[2] / r2 / np.pi / (r1 * r2) ** 2)

    # Cut where the integrand is steep.
    cuts = [sorted({-half, half, target[axis] - 2.0, target[axis] + 2.0}) for axis in (0, 1)]
    integral = sum(
        dblquad(integrand, x0, x1, y0, y1, epsrel=1e-4)[0]
        for x0, x1 in zip(cuts[0], cuts[0][1:], strict=False)
        for y0, y1 in zip(cuts[1], cuts[1][1:], strict=False)
    )
    expected = (WAVELENGTH / (4 * np.pi)) ** 2 * 0.6**2 * integral
    assert abs(10 * np.log10(found[0] / expected)) < 0.03


@pytest.mark.parametrize("lobe", LOBES, ids=lambda lobe: lobe["scattering_pattern"])
@pytest.mark.parametrize("xpd", [0.0, 0.25])
def test_a_lobe_scatters_the_share_of_the_power_that_falls_on_the_plate(lobe: dict[str, object], xpd: float) -> None:
    """Receivers on a far hemisphere: their sum is S^2 times the plate's share of the source's sphere."""
    half, height, far = 2.0, 1.5, 1000.0
    world = build_world(mesh_of([]), half, radio(scattering_xpd=xpd, **lobe))
    node, weight = np.polynomial.legendre.leggauss(10)
    zenith, azimuth = np.arccos((node + 1) / 2), np.arange(20) * 2 * np.pi / 20
    receivers = far * np.array(
        [[np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)] for t in zenith for p in azimuth]
    )
    solid_angle = np.repeat(weight / 2, 20) * 2 * np.pi / 20
    found = power(scattered_paths(world, np.array([0.0, 0.0, height]), receivers), len(receivers))
    scattered = (found * solid_angle).sum() * (4 * np.pi * far / WAVELENGTH) ** 2 / (4 * np.pi)
    hit = 4 * np.arcsin(half**2 / (half**2 + height**2)) / (4 * np.pi)
    # Receivers take the vertical polarisation alone.
    assert scattered == pytest.approx(0.6**2 * (1 - xpd) * hit, rel=0.01)


def test_the_ends_can_change_places() -> None:
    # Not exactly the same: a conductor absorbs some vertical polarisation at grazing incidence, and only the first leg's counts.
    source, receiver = np.array([0.0, 30.0, 12.0]), np.array([-5.0, -15.0, 1.5])
    world = world_of([], radio())
    there, back = scattered_paths(world, source, receiver[None]), scattered_paths(world, receiver, source[None])
    assert len(there) == len(back) > 200
    # Two nodes of a patch that mirror each other may change places.
    np.testing.assert_allclose(there.length, back.length, rtol=0.01)
    np.testing.assert_allclose(there.coefficient / back.coefficient, 1, atol=0.15)
    assert power(there, 1) == pytest.approx(power(back, 1), rel=0.01)

    # Edges of shadows of the first end are resolved better.
    world, users = world_of(BLOCKS, radio()), users_around(BLOCKS, 6)
    there = power(scattered_paths(world, SOURCE, users), 6)
    back = [power(scattered_paths(world, user.astype(np.float64), SOURCE[None]), 1)[0] for user in users]
    difference = np.abs(10 * np.log10(there / back))
    assert np.median(difference) < 0.1
    assert difference.max() < 0.5


@pytest.mark.parametrize("lobe", LOBES, ids=lambda lobe: lobe["scattering_pattern"])
def test_the_stock_solver_in_the_mean(lobe: dict[str, object]) -> None:
    """Concrete blocks, shadows, a tilted directive panel, and some power in the other polarisation."""
    users = users_around(BLOCKS, 10)
    world = world_of(BLOCKS, RadioSettings.model_validate({"scattering": 0.5, "scattering_xpd": 0.2, **lobe}))
    panel = (-np.pi / 2, 0.2, 0.0)
    found = power(scattered_paths(world, SOURCE, users, panel, "tr38901"), len(users))
    only_diffuse = {"los": False, "specular_reflection": False, "diffuse_reflection": True, "max_depth": 1}
    many = {"samples_per_src": 300_000, "max_num_paths_per_src": 10**7}
    paths = stock_paths(world, SOURCE, users, orientation=panel, pattern="tr38901", **only_diffuse, **many)
    amplitude = np.abs(paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0, 0]
    stock = (amplitude**2 * paths.valid.numpy()[:, 0]).sum(axis=1)
    np.testing.assert_array_equal(found > 0, stock > 0)
    difference = np.abs(10 * np.log10(found[stock > 0] / stock[stock > 0]))
    assert len(difference) > 5
    assert np.median(difference) < 0.1
    # Where a few rays carry most of a user's power, the stock solver is off by decibels: twenty times the rays mend that.
    assert (difference < 0.3).mean() >= 0.8


def test_memory_changes_no_result() -> None:
    users = users_around(BLOCKS, 12)
    world = world_of(BLOCKS, radio())
    results = [scattered_paths(world, SOURCE, users, memory=memory) for memory in (512, 2)]
    for field in fields(Paths):
        np.testing.assert_array_equal(*(getattr(paths, field.name) for paths in results))


def test_nobody_and_nothing_to_see() -> None:
    world = world_of(BLOCKS, radio())
    assert len(scattered_paths(world, SOURCE, np.empty((0, 3)), depth=2)) == 0
    inside = scattered_paths(world, np.array([-20.0, 20.0, 5.0]), users_around(BLOCKS, 5), depth=2)
    assert inside.types.shape == (0, 2)


def test_patches_cover_the_face_and_are_the_same_in_any_order() -> None:
    corners = np.array([[0.0, 0.0, 0.0], [40.0, 0.0, 0.0], [0.0, 3.0, 0.0], [40.0, 3.0, 0.0]])
    faces = np.array([[0, 1, 2], [2, 1, 3], [1, 1, 2]], np.int32)

    def divided(points: NDArray[np.float64]) -> set[tuple[float, int]]:
        patches = patches_of(corners, faces)
        index, small = np.arange(len(patches)), []
        while len(index):
            large = np.any([patches.too_large(index, point) for point in points], axis=0)
            small.append(index[~large])
            index = patches.halves(index[large])
        kept = np.concatenate(small)
        assert patches.area[kept].sum() == pytest.approx(120.0)
        assert patches.nodes[kept].mean(axis=1) == pytest.approx(patches.centre[kept])
        return {(float(area), int(code)) for area, code in zip(patches.area[kept], patches.code[kept], strict=True)}

    ends = np.array([[3.0, 1.0, 0.5], [30.0, 2.0, 2.0]])
    assert len(divided(ends)) > 100
    assert divided(ends) == divided(ends[::-1])


def test_channels_of_the_panel_hold_all_paths() -> None:
    """The strongest are stored, and the share of the others."""
    scene, settings = scene_of([], users_around([], 4)), RadioSettings(scattering=0.6, rows=4, columns=4)
    scene = replace(scene, size=20.0, bs_position=np.array([0.0, 8.0, 6.0]), users=scene.users * [0.1, 0.1, 1.0])
    solver = SolverSettings(max_depth=2, rays=2_000, diffuse=True, max_paths=4)
    channels, panel = simulate_csi(scene, settings, solver, 0)
    for field in fields(channels):
        np.testing.assert_array_equal(
            getattr(channels, field.name), getattr(simulate(scene, settings, solver, 0), field.name)
        )
    assert (channels.n_paths > 50).all()
    assert (channels.power_cut > 0).all()
    assert (channels.interactions[:, 2:, 0] == 2).all()

    everything = simulate(scene, settings, solver.model_copy(update={"max_paths": 1024}), 0)
    assert (everything.n_paths <= 1024).all()
    scale = np.abs(panel).max()
    np.testing.assert_allclose(panel, csi(everything, settings), atol=1e-5 * scale)
    assert np.abs(panel - csi(channels, settings)).max() > 0.01 * scale


def test_what_is_scattered_is_missing_from_the_reflection() -> None:
    scene, solver = scene_of([], users_around([], 3)), SolverSettings(max_depth=1, rays=2_000, los=False)
    whole = simulate(scene, RadioSettings(), solver, 0)
    rough = simulate(scene, RadioSettings(scattering=0.6), solver.model_copy(update={"diffuse": True}), 0)
    reflected = (rough.interactions[..., 0] == 1) & (rough.gain != 0)
    assert (reflected.sum(axis=1) == 1).all()
    np.testing.assert_allclose(rough.gain[reflected], 0.8 * whole.gain[:, 0], rtol=1e-4)


def test_nothing_is_compiled_from_scene_to_scene() -> None:
    from wavecity.raytrace.device import dr

    names: list[set[str]] = []
    for number in range(4):
        world, users = world_of(BLOCKS[: 1 + number % 3], radio()), users_around(BLOCKS, 3 + number)
        with dr.scoped_set_flag(dr.JitFlag.KernelHistory):
            dr.kernel_history_clear()
            scattered_paths(world, SOURCE, users)
            history = dr.kernel_history()
        names.append({kernel["hash"] for kernel in history if kernel["type"] == dr.KernelType.JIT})
    assert names[2] | names[3] <= names[0] | names[1]


def test_no_paths_are_none_in_every_field() -> None:
    nothing = no_paths(3)
    assert {field.name: len(getattr(nothing, field.name)) for field in fields(nothing)} == {
        field.name: 0 for field in fields(nothing)
    }
    assert nothing.types.shape == (0, 3)
