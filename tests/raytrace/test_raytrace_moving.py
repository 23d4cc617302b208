"""Channels along ways, against formulas and against tracing every snapshot."""

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from processes import python
from raytrace_helpers import BLOCKS, SOURCE, SPEED_OF_LIGHT, scene_of, users_around, world_of

from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError
from wavecity.geo.scene import Mover, Scene, Trajectories
from wavecity.geo.settings import AreaSettings, MobilitySettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import open_source
from wavecity.geo.tiles import plan_tiles
from wavecity.raytrace.channels import Channels, csi, subcarrier_frequencies
from wavecity.raytrace.evolve import Bundle, between, beyond, progression, unshared_power
from wavecity.raytrace.moving import first_waypoints, simulate_moving
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate
from wavecity.raytrace.solver import ChainSolver

RADIO = RadioSettings(columns=8, rows=2)
MOBILITY = MobilitySettings(steps=33, interval=0.01, subcarriers=6)


def moving_scene(blocks: list, position: NDArray[np.float64], velocity: NDArray[np.float64], interval: float) -> Scene:
    """Users on ways (U, T, 3) with velocities of the same shape."""
    time = interval * np.arange(position.shape[1])
    kind = np.zeros(len(position), np.uint8)
    tracks = Trajectories(position.astype(np.float32), velocity.astype(np.float32), kind, time)
    return replace(scene_of(blocks, tracks.position[:, 0]), tracks=tracks)


def straight(start: NDArray[np.float64], velocity: NDArray[np.float64], interval: float, steps: int) -> Scene:
    time = interval * np.arange(steps)
    position = start[:, None] + velocity[:, None] * time[:, None]
    return moving_scene(BLOCKS, position, np.broadcast_to(velocity[:, None], position.shape), interval)


def every_snapshot(scene: Scene, solver: SolverSettings, mobility: MobilitySettings, radio: RadioSettings = RADIO):
    """Channels (U, T, F, X, Y) of users who stand at every position, and their line of sight (U, T)."""
    solver = solver.model_copy(update={"max_paths": 300})
    frequencies = subcarrier_frequencies(mobility.subcarriers, mobility.subcarrier_spacing)
    found, seen = [], []
    for step in range(scene.tracks.position.shape[1]):
        channels = simulate(replace(scene, users=scene.tracks.position[:, step]), radio, solver, 0)
        assert channels.n_paths.max() <= 300
        found.append(csi(channels, radio, frequencies=frequencies))
        seen.append(channels.los)
    return np.stack(found, 1), np.stack(seen, 1)


def error_db(found: NDArray[np.complex64], truth: NDArray[np.complex64]) -> NDArray[np.float64]:
    """NMSE in dB of every user that hears anything."""
    power = (np.abs(truth.astype(np.complex128)) ** 2).reshape(len(truth), -1).sum(1)
    error = (np.abs(found.astype(np.complex128) - truth) ** 2).reshape(len(truth), -1).sum(1)
    assert (error[power == 0] == 0).all()
    return 10 * np.log10(error[power > 0] / power[power > 0] + 1e-20)


def test_line_of_sight_is_the_formula() -> None:
    """Straight, at rest, round a corner, back again, and on a circle; phases written out."""
    steps = np.arange(33)[:, None] * 0.15
    there = np.minimum(steps, 2.2)
    ways = np.zeros((5, 33, 3))
    ways[0] = [20, -30, 1.5] + steps * [0.6, -0.8, 0]
    ways[1] = [-40, 0, 1.5]
    ways[2] = [0, 50, 1.5] + there * [1, 0, 0] + (steps - there) * [0, 1, 0]
    ways[3] = [60, -10, 1.5] + (there - (steps - there)) * [0, 1, 0]
    ways[4] = [-30, -50, 1.5] + 3 * np.concatenate([np.cos(steps / 3), np.sin(steps / 3), 0 * steps], axis=1)
    scene = moving_scene([], ways, np.zeros_like(ways), MOBILITY.interval)
    moving = simulate_moving(scene, RADIO, SolverSettings(specular=False, rays=1000), MOBILITY, 0)

    way = scene.tracks.position.astype(np.float64) - SOURCE
    distance = np.linalg.norm(way, axis=2)
    frequency = 28.5e9 + np.array([-3, -2, -1, 0, 1, 2]) * 480e3
    friis = SPEED_OF_LIGHT / (4 * np.pi * 28.5e9 * distance)
    phase = -2 * np.pi * frequency * distance[..., None] / SPEED_OF_LIGHT
    # The panel faces south: columns from west to east, rows downwards, half a wavelength apart.
    east, down = way[..., 0] / distance, -way[..., 2] / distance
    x, y = np.arange(8) - 3.5, np.arange(2) - 0.5
    panel = np.pi * (east[..., None, None] * x[:, None] + down[..., None, None] * y)
    expected = (friis[..., None] * np.exp(1j * phase))[..., None, None] * np.exp(1j * panel)[:, :, None]
    assert error_db(moving.csi, expected).max() < -70
    assert moving.traced.sum(axis=1)[1] == 3
    # Twice as many as the largest way between two of them asks for (each interval is checked), and around corners.
    assert (moving.traced.sum(axis=1)[[0, 2, 3]] <= 33).all()
    assert moving.traced[0].sum() < 30


def test_at_the_start_it_is_the_standing_channel() -> None:
    users = users_around(BLOCKS, 20).astype(np.float64)
    velocity = np.random.default_rng(0).normal(0, 5, (20, 3)) * [1, 1, 0]
    scene = straight(users, velocity, 1e-3, 5)
    solver = SolverSettings(rays=30_000, max_depth=2, diffraction=True, max_paths=300)
    moving = simulate_moving(scene, RADIO, solver, MOBILITY, 3)
    standing = simulate(scene, RADIO, solver, 3, scene.tracks.velocity[:, 0])
    for field in fields(Channels):
        np.testing.assert_array_equal(getattr(moving.channels, field.name), getattr(standing, field.name))
    assert np.abs(standing.doppler).max() > 100
    first = moving.csi[:, 0, MOBILITY.subcarriers // 2]
    assert error_db(first, csi(standing, RADIO)).max() < -70
    assert (moving.csi[standing.outage] == 0).all()


def test_paths_come_and_go_at_their_snapshot() -> None:
    """Line of sight alone: what is heard is exactly what is seen, past the edges of three blocks."""
    users = np.column_stack([np.linspace(-90, 80, 18), np.full(18, -15.0), np.full(18, 1.5)])
    scene = straight(users, np.full((18, 3), [15.0, 0, 0]), 0.02, 33)
    solver = SolverSettings(specular=False, rays=1000)
    mobility = MOBILITY.model_copy(update={"waypoint": 3.0})
    moving = simulate_moving(scene, RADIO, solver, mobility, 0)
    heard = (moving.csi != 0).any(axis=(2, 3, 4))
    _, seen = every_snapshot(scene, solver, mobility)
    np.testing.assert_array_equal(heard, seen)
    changes = (seen[:, 1:] != seen[:, :-1]).sum()
    assert changes >= 4
    assert moving.traced.mean() < 0.5


@pytest.mark.parametrize("diffraction", [False, True])
def test_past_blocks_against_every_snapshot(diffraction: bool) -> None:
    users = np.column_stack([np.linspace(-90, 80, 18), np.full(18, -15.0), np.full(18, 1.5)])
    scene = straight(users, np.full((18, 3), [15.0, 3.0, 0]), 2e-3, 33)
    solver = SolverSettings(rays=20_000, max_depth=2, diffraction=diffraction)
    moving = simulate_moving(scene, RADIO, solver, MOBILITY, 0)
    truth, _ = every_snapshot(scene, solver, MOBILITY)
    error = error_db(moving.csi, truth)
    print(f"NMSE {np.median(error):.1f} dB, worst {error.max():.1f} dB, {moving.traced.mean():.0%} traced")
    assert np.median(error) < -45
    assert error.max() < -25
    assert moving.traced.mean() < 0.6


def test_helsinki_against_every_snapshot(tmp_path: Path) -> None:
    """Real tiles, all kinds of users, reflection and diffraction, as the recipe `temporal` has it but smaller."""
    area = AreaSettings(scenes=2, split=SplitSettings(by="scene"))
    source = open_source(area, tmp_path)
    tile = next(tile for tile in plan_tiles(source, area, SceneSettings(), 0) if tile.status == "accepted")
    mobility = MobilitySettings(steps=9, interval=1.2e-3, vehicles=0.34, cyclists=0.33, subcarriers=8)
    scene = build_scene(tile, source, SceneSettings(), UserSettings(minimum=24, maximum=24), 0, mobility)
    assert set(scene.tracks.kind) == set(Mover)
    solver = SolverSettings(rays=30_000, max_depth=2, diffraction=True)
    radio = RadioSettings(columns=16, rows=1)
    moving = simulate_moving(scene, radio, solver, mobility, 0)
    truth, _ = every_snapshot(scene, solver, mobility, radio)
    error = error_db(moving.csi, truth)
    print(f"NMSE {np.median(error):.1f} dB, worst {error.max():.1f} dB, {moving.traced.mean():.0%} traced")
    assert np.median(error) < -40
    assert error.max() < -20


def test_doppler_is_the_rate_of_the_delay() -> None:
    """-f d(delay)/dt by central differences of paths traced anew, for reflection and diffraction."""
    users = users_around(BLOCKS, 25).astype(np.float64)
    velocity = np.random.default_rng(1).normal(0, 8, (25, 3)) * [1, 1, 0]
    scene = straight(users, velocity, 1e-3, 2)
    settings = SolverSettings(rays=30_000, max_depth=2, diffraction=True, max_paths=300)
    doppler = simulate_moving(scene, RADIO, settings, MOBILITY, 0).channels.doppler
    solver = ChainSolver(2, 30_000, diffraction=True)
    place, speed = scene.tracks.position[:, 0].astype(np.float64), scene.tracks.velocity[:, 0].astype(np.float64)
    orientation = (-np.pi / 2, 0.0, 0.0)
    world, after = world_of(BLOCKS), 1e-4
    now, earlier, later = (solver(world, SOURCE, place + shift * speed, orientation) for shift in (0.0, -after, after))
    lengths = []
    for each in (earlier, later):
        keys = [(user, *elements) for user, elements in zip(each.receiver, each.elements.tolist(), strict=True)]
        lengths.append(dict(zip(keys, each.length, strict=True)))
    compared = 0
    for user in range(25):
        own = now.select(now.receiver == user)
        strongest = np.argsort(-(np.abs(own.coefficient.astype(np.complex128)) ** 2), kind="stable")
        for rank, path in enumerate(strongest):
            key = (user, *own.elements[path].tolist())
            if key in lengths[0] and key in lengths[1]:
                rate = (lengths[1][key] - lengths[0][key]) / (2 * after)
                assert doppler[user, rank] == pytest.approx(-28.5e9 * rate / SPEED_OF_LIGHT, abs=0.05)
                compared += 1
    assert compared > 200


CODE = """
import sys, hashlib; sys.path[:0] = [{folder!r}, {folder!r} + "/.."]
from wavecity.raytrace.backend import prepare; prepare({threads})
from test_raytrace_moving import digest
print(digest())
"""


def digest() -> str:
    users = users_around(BLOCKS, 12).astype(np.float64)
    scene = straight(users, np.full((12, 3), [9.0, -4.0, 0]), 1e-3, 17)
    moving = simulate_moving(scene, RADIO, SolverSettings(rays=20_000, max_depth=2, diffraction=True), MOBILITY, 5)
    return hashlib.sha256(moving.csi.tobytes() + moving.traced.tobytes()).hexdigest()


def test_another_process_gives_the_same_bytes() -> None:
    folder = str(Path(__file__).parent)
    assert python(CODE.format(folder=folder, threads=1)).split()[-1] == digest()


def test_what_cannot_be_followed_is_refused() -> None:
    still = scene_of(BLOCKS, users_around(BLOCKS, 2))
    with pytest.raises(InputError, match=r"toy-0000: its users do not move"):
        simulate_moving(still, RADIO, SolverSettings(), MOBILITY, 0)
    with pytest.raises(InputError, match=r"diffuse paths cannot be followed"):
        simulate_moving(still, RADIO, SolverSettings(diffuse=True), MOBILITY, 0)


def test_below_the_floor_a_snapshot_is_silent() -> None:
    way = np.array([20.0, -40, 1.5]) + 0.75 * np.arange(9)[:, None] * [1, 0, 0]
    scene = moving_scene([], way[None], np.zeros((1, 9, 3)), 0.05)
    solver = SolverSettings(specular=False, rays=1000)
    heard = simulate_moving(scene, RADIO, solver, MOBILITY, 0).csi
    gain = 20 * np.log10(np.abs(heard[0, :, 0, 0, 0]))
    floor = float(gain[4] + gain[5]) / 2
    cut = simulate_moving(scene, RADIO, solver.model_copy(update={"gain_floor": floor}), MOBILITY, 0).csi
    np.testing.assert_array_equal((cut != 0).any(axis=(2, 3, 4))[0], gain > floor)
    np.testing.assert_array_equal(cut[0, gain > floor], heard[0, gain > floor])


def bundle(image: NDArray[np.float64], place: NDArray[np.float64]) -> Bundle:
    """Paths from images at (M, 3) to one place: straight lines."""
    way = image - place
    length = np.linalg.norm(way, axis=1)
    count = np.arange(len(image))
    return Bundle(count, length, way / length[:, None], np.zeros((len(image), 2)), 1 / length + 0j)


def test_lengths_between_waypoints() -> None:
    """Images 5 m and more away; the error of the cubic is at most h^4 / 384 times the fourth derivative, 3 / R^3."""
    random = np.random.default_rng(0)
    image = random.normal(size=(50, 3))
    image *= random.uniform(5, 80, (50, 1)) / np.linalg.norm(image, axis=1, keepdims=True)
    start, end = np.array([-0.2, -0.1, 0.1]), np.array([0.2, 0.2, 0.1])
    u = np.linspace(0, 1, 21)[:, None]
    for beside in (0.0, 1e-3):
        points = start + u * (end - start) + beside * np.array([0, 0, 1])
        found = between(bundle(image, start), bundle(image, end), start, end, points)
        truth = np.linalg.norm(points[:, None] - image, axis=2)
        reach = np.linalg.norm(image, axis=1) - 0.3
        bound = 0.5**4 / 384 * 3 / reach**3 + beside**2 / reach + 1e-12
        assert (np.abs(found.length - truth) <= bound).all()
    ends = between(bundle(image, start), bundle(image, end), start, end, np.stack([start, end]))
    np.testing.assert_array_equal(ends.length, [bundle(image, start).length, bundle(image, end).length])
    np.testing.assert_array_equal(ends.coefficient[1], bundle(image, end).coefficient)
    near_by = start + np.array([0.01, 0, 0])
    near = beyond(bundle(image, start), start, near_by[None])
    truth = np.linalg.norm(near_by - image, axis=1)
    assert np.abs(near.length[0] - truth).max() < 0.01**2 / 2 / 4


def test_share_of_paths_without_partner() -> None:
    one = Bundle(np.array([1, 4, 7]), np.ones(3), np.ones((3, 3)), np.ones((3, 2)), np.array([2, 1j, 1]))
    two = one.select(np.array([0, 2]))
    assert unshared_power(one, two) == unshared_power(two, one) == pytest.approx(1 / 6)
    assert unshared_power(one, one) == 0
    nothing = one.select(np.zeros(3, bool))
    assert unshared_power(one, nothing) == unshared_power(nothing, one) == 1
    assert unshared_power(nothing, nothing) == 0


@pytest.mark.parametrize("count", [1, 2, 7, 16, 64, 65])
def test_progressions(count: int) -> None:
    random = np.random.default_rng(count)
    first, step = random.uniform(-900, 900, (3, 5)), random.uniform(-3, 3, (3, 5))
    expected = np.exp(2j * np.pi * (first[:, None] + np.arange(count)[:, None] * step[:, None]))
    np.testing.assert_allclose(progression(first, step, count), expected, atol=1e-5)


def test_first_waypoints() -> None:
    line = np.linspace([0, 0, 0], [8, 0, 0], 81)
    way = first_waypoints(line, 1.0)
    assert (way[0], way[-1]) == (0, 80)
    assert np.diff(line[way, 0]).max() <= 1.0 + 1e-9
    assert first_waypoints(line, 10.0) == [0, 80]
    assert first_waypoints(np.zeros((9, 3)), 1.0) == [0, 8]
    # A corner between two snapshots: both are waypoints; and a turn on the spot.
    north = np.column_stack([np.full(39, 3.93), 0.07 + 0.1 * np.arange(39), np.zeros(39)])
    assert {39, 40} <= set(first_waypoints(np.concatenate([line[:40], north]), 100.0))
    back = np.concatenate([line[:30], line[28::-1]])
    assert 29 in first_waypoints(back, 100.0)
