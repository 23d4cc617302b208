"""What a scene's channels look like, and that they are the same everywhere."""

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from processes import python
from raytrace_helpers import (
    BLOCKS,
    SOURCE,
    SPEED_OF_LIGHT,
    box,
    real_scenes,
    scene_of,
    stock_paths,
    users_around,
    world_of,
)

from wavecity.dataset.features import scene_arrays
from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import Channels, csi
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate
from wavecity.raytrace.solver import ChainSolver, Paths

RADIO = RadioSettings()


def digest(channels: Channels) -> str:
    content = hashlib.sha256()
    for field in fields(Channels):
        content.update(np.ascontiguousarray(getattr(channels, field.name)).tobytes())
    return content.hexdigest()


@pytest.fixture(scope="module")
def channels() -> Channels:
    return simulate(scene_of(BLOCKS, users_around(BLOCKS, 80)), RADIO, SolverSettings(rays=50_000), 0)


def test_shapes_and_dtypes(channels: Channels) -> None:
    assert channels.gain.shape == (80, 32)
    assert channels.interactions.shape == (80, 32, 3)
    kinds = {"gain": np.complex64, "interactions": np.int8, "n_paths": np.int32, "los": np.bool_, "outage": np.bool_}
    for field in fields(Channels):
        assert getattr(channels, field.name).dtype == kinds.get(field.name, np.float32), field.name


def test_strongest_first_then_zeros(channels: Channels) -> None:
    power = np.abs(channels.gain) ** 2
    assert (np.diff(power, axis=1) <= 0).all()
    for array in (channels.delay, channels.aod_zenith, channels.interactions.any(axis=2)):
        assert (array[power == 0] == 0).all()
    assert ((power > 0).sum(axis=1) == np.minimum(channels.n_paths, 32)).all()
    assert (channels.n_paths == 0).sum() == channels.outage.sum() > 0
    assert (channels.path_gain[channels.outage] == -200).all()
    served = ~channels.outage
    np.testing.assert_allclose(channels.path_gain[served], 10 * np.log10(power.sum(axis=1)[served]), atol=1e-3)


def test_line_of_sight_path_has_the_exact_phase_and_direction(channels: Channels) -> None:
    users = users_around(BLOCKS, 80).astype(np.float64)
    row, place = np.nonzero((channels.interactions == 0).all(axis=2) & (channels.gain != 0))
    assert (np.flatnonzero(channels.los) == row).all()
    way = users[row] - SOURCE
    distance = np.linalg.norm(way, axis=1)
    phase = -2 * np.pi * distance * 28.5e9 / SPEED_OF_LIGHT
    # Sionna's amplitude of the direct path between upright antennas is positive.
    np.testing.assert_allclose(np.angle(channels.gain[row, place] * np.exp(-1j * phase)), 0, atol=1e-5)
    np.testing.assert_allclose(channels.delay[row, place], distance / SPEED_OF_LIGHT, rtol=1e-6)
    np.testing.assert_allclose(channels.aod_azimuth[row, place], np.arctan2(way[:, 1], way[:, 0]), atol=1e-6)
    np.testing.assert_allclose(channels.aod_zenith[row, place], np.arccos(way[:, 2] / distance), atol=1e-6)
    np.testing.assert_allclose(channels.aoa_zenith[row, place], np.arccos(-way[:, 2] / distance), atol=1e-6)


def test_cut_paths_are_accounted_for(channels: Channels) -> None:
    scene = scene_of(BLOCKS, users_around(BLOCKS, 80))
    short = simulate(scene, RADIO, SolverSettings(rays=50_000, max_paths=2), 0)
    np.testing.assert_array_equal(short.gain, channels.gain[:, :2])
    np.testing.assert_array_equal(short.path_gain, channels.path_gain)
    power = np.abs(channels.gain.astype(np.complex128)) ** 2
    total = power.sum(axis=1)
    lost = np.divide(power[:, 2:].sum(axis=1), total, out=np.zeros(80), where=total > 0)
    np.testing.assert_allclose(short.power_cut, lost, atol=1e-6)
    assert short.power_cut.max() > 0
    np.testing.assert_array_equal(short.power_cut == 0, short.n_paths <= 2)


def test_below_the_floor_is_outage() -> None:
    users = users_around(BLOCKS, 80)
    result = simulate(scene_of(BLOCKS, users), RADIO, SolverSettings(rays=50_000, gain_floor=-100.0), 0)
    assert result.outage.sum() > (result.n_paths == 0).sum()
    assert (result.path_gain >= -100).all()
    assert (result.gain[result.outage] == 0).all()
    assert (csi(result, RADIO)[result.outage] == 0).all()


def test_no_users_no_buildings_no_depth() -> None:
    nobody = simulate(scene_of(BLOCKS, np.empty((0, 3))), RADIO, SolverSettings(rays=1000, diffraction=True), 0)
    assert nobody.gain.shape == (0, 32)
    open_field = simulate(scene_of([], users_around([], 5)), RADIO, SolverSettings(rays=1000, diffraction=True), 0)
    assert open_field.n_paths.tolist() == [2] * 5
    nothing = simulate(scene_of(BLOCKS, users_around(BLOCKS, 5)), RADIO, SolverSettings(max_depth=0, los=False), 0)
    assert nothing.outage.all()
    assert nothing.interactions.shape == (5, 32, 1)


CODE = """
import sys; sys.path[:0] = [{folder!r}, {folder!r} + "/.."]
from wavecity.raytrace.backend import prepare; prepare({threads})
from raytrace_helpers import BLOCKS, scene_of, users_around
from test_raytrace_simulate import RADIO, digest
from wavecity.raytrace.settings import SolverSettings
from wavecity.raytrace.simulate import simulate
solver = SolverSettings(rays=50_000, max_depth=2, diffraction=True)
print(digest(simulate(scene_of(BLOCKS, users_around(BLOCKS, 40)), RADIO, solver, 7)))
"""


def test_two_processes_give_the_same_bytes() -> None:
    folder = str(Path(__file__).parent)
    first, second = (python(CODE.format(folder=folder, threads=threads)).splitlines()[-1] for threads in (1, 2))
    assert len(first) == 64
    assert first == second


def test_nothing_is_compiled_from_scene_to_scene() -> None:
    """Kernels are named by their content: later scenes, other meshes and numbers of users, bring no new names."""
    from wavecity.raytrace.device import dr

    names: list[set[str]] = []
    solver = SolverSettings(rays=50_000, diffraction=True)
    for number in range(4):
        blocks = [*BLOCKS, *((box(70, -80 + 20 * k, 8, 8 + number), 6.0 + k) for k in range(number))]
        scene = scene_of(blocks, users_around(blocks, 60 + 7 * number, seed=number))
        with dr.scoped_set_flag(dr.JitFlag.KernelHistory):
            dr.kernel_history_clear()
            simulate(scene, RADIO, solver, 0)
            history = dr.kernel_history()
        names.append({kernel["hash"] for kernel in history if kernel["type"] == dr.KernelType.JIT})
    assert len(names[0]) > 20
    assert names[2] | names[3] <= names[0] | names[1]


@pytest.mark.heavy
@pytest.mark.parametrize("diffraction", [False, True])
def test_nothing_is_compiled_in_fifty_real_scenes(tmp_path: Path, diffraction: bool) -> None:
    """Helsinki tiles of 120 m, each with another number of users: nothing new after the second."""
    from wavecity.raytrace.device import dr

    solver = SolverSettings(rays=200_000, diffraction=diffraction)
    known: set[str] = set()
    new = []
    for number, scene in enumerate(real_scenes("helsinki", tmp_path, 50, 200, tile_size=120.0)):
        scene = replace(scene, users=scene.users[: 150 + number])
        with dr.scoped_set_flag(dr.JitFlag.KernelHistory):
            dr.kernel_history_clear()
            simulate(scene, RADIO, solver, 0)
            names = {kernel["hash"] for kernel in dr.kernel_history() if kernel["type"] == dr.KernelType.JIT}
        new.append(len(names - known))
        known |= names
    print(f"kernels: {new[:2]} new in the first two scenes, {sum(new[2:])} in the next {len(new) - 2}")
    assert len(new) == 50
    assert sum(new[2:]) == 0


@pytest.mark.parametrize("refraction", [False, True])
def test_memory_changes_no_result(refraction: bool) -> None:
    """With 2 MB rays, pairs and candidates go in many batches."""
    users = users_around(BLOCKS, 60)
    results = []
    for memory in (512, 2):
        solver = ChainSolver(2, 30_000, diffraction=True, refraction=refraction, memory=memory)
        results.append(solver(world_of(BLOCKS), SOURCE, users))
    for field in fields(Paths):
        np.testing.assert_array_equal(*(getattr(paths, field.name) for paths in results))


def test_diffuse_paths_are_those_of_the_stock_solver() -> None:
    users = users_around(BLOCKS, 12)
    radio = RadioSettings(scattering=0.5)
    solver = SolverSettings(
        max_depth=2, rays=50_000, diffuse=True, diffuse_method="rays", diffuse_rays=20_000, max_paths=1024
    )
    result = simulate(scene_of(BLOCKS, users), radio, solver, 5)
    scattered = (result.interactions == 2).any(axis=2)
    assert scattered.any(axis=1).sum() > 8

    paths = stock_paths(
        world_of(BLOCKS, radio),
        SOURCE,
        users,
        orientation=(-np.pi / 2, 0, 0),
        max_depth=2,
        samples_per_src=20_000,
        diffuse_reflection=True,
        los=False,
        max_num_paths_per_src=1_000_000,
        seed=5,
    )
    amplitude = np.abs(paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0, 0]
    diffuse = (paths.interactions.numpy()[:, :, 0] == 2).any(axis=0) & paths.valid.numpy()[:, 0]
    expected = (amplitude**2 * diffuse).sum(axis=1)
    plain = simulate(scene_of(BLOCKS, users), radio, SolverSettings(max_depth=2, rays=50_000), 5)
    total = 10 ** (result.path_gain / 10) - np.where(plain.outage, 0, 10 ** (plain.path_gain / 10))
    np.testing.assert_allclose(total, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_diffuse_power_does_not_depend_on_the_rays() -> None:
    users = users_around(BLOCKS, 12)
    gains = []
    for rays in (20_000, 100_000):
        solver = SolverSettings(
            max_depth=1, specular=False, los=False, diffuse=True, diffuse_method="rays", diffuse_rays=rays
        )
        gains.append(simulate(scene_of(BLOCKS, users), RadioSettings(scattering=0.5), solver, 5).path_gain)
    # Rays that happen to fall close to a user weigh much: a sample, not the field itself.
    assert np.median(np.abs(np.diff(gains, axis=0))) < 1.0


def test_another_sionna_is_refused() -> None:
    from wavecity.raytrace.sionna_private import check_version

    check_version("2.2.7")
    for other in ("2.1.0", "2.3.0", "3.0"):
        with pytest.raises(InputError, match=rf"sionna-rt {other} is installed.*pip install"):
            check_version(other)


def test_stored_paths_are_read_without_sionna() -> None:
    heavy = ("drjit", "mitsuba", "sionna")
    code = f"import wavecity.raytrace.channels, wavecity.raytrace.arrays, sys; print([m for m in {heavy} if m in sys.modules])"
    assert python(code) == "[]"


def test_vertices_make_up_length_and_directions_of_their_paths() -> None:
    """Those of edges too: from base station to user they are the stored delay, and start and end as the stored angles."""
    users = users_around(BLOCKS, 40)
    scene = scene_of(BLOCKS, users)
    found = simulate(scene, RADIO, SolverSettings(rays=20_000, diffraction=True, max_depth=2), 0)
    assert (found.interactions == 8).any()
    for user, path in np.argwhere(found.gain != 0):
        stops = found.vertices[user, path][found.interactions[user, path] != 0].astype(np.float64)
        way = np.diff(np.stack([SOURCE, *stops, users[user]]), axis=0)
        length = np.linalg.norm(way, axis=1)
        assert length.sum() / SPEED_OF_LIGHT == pytest.approx(float(found.delay[user, path]), rel=1e-5)
        for (x, y, z), end in ((way[0] / length[0], "aod"), (-way[-1] / length[-1], "aoa")):
            zenith, azimuth = (float(getattr(found, f"{end}_{name}")[user, path]) for name in ("zenith", "azimuth"))
            wave = np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)
            np.testing.assert_allclose(wave, (x, y, z), atol=1e-3)
    assert not found.vertices[found.interactions == 0].any()
    stored = scene_arrays(scene, found, csi(found, RADIO))["paths/vertices"]
    there = found.interactions != 0
    np.testing.assert_allclose(stored[there] + scene.bs_position, found.vertices[there], atol=1e-4)
    assert not stored[~there].any()
