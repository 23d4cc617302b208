"""Losses in crowns: lengths against sampled points, the formula, and a user behind a tree."""

from dataclasses import fields, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from raytrace_helpers import box, scene_of

from wavecity.geo.scene import Trajectories, Vegetation
from wavecity.geo.settings import MobilitySettings
from wavecity.raytrace.channels import Channels, WeakenedChannels, csi
from wavecity.raytrace.moving import simulate_moving
from wavecity.raytrace.radio_map import radio_map
from wavecity.raytrace.radio_map_settings import RadioMapSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate, simulate_bands, simulate_csi
from wavecity.raytrace.vegetation import depth_in_crowns, excess_loss, largest_loss, specific_attenuation

Crown = tuple[Any, float, float, float]


def vegetation(*crowns: Crown, **constants: float) -> Vegetation:
    """Of (shape, radius, base, top)."""
    shape, radius, base, top = zip(*crowns, strict=True) if crowns else ((), (), (), ())
    columns = {name: np.array(values, float) for name, values in (("radius", radius), ("base", base), ("top", top))}
    return Vegetation(gpd.GeoDataFrame(columns, geometry=list(shape)), **constants)


def tree(x: float, y: float, radius: float, base: float, top: float) -> Crown:
    return shapely.Point(x, y), radius, base, top


def wood(shape: Any, base: float, top: float) -> Crown:
    return shape, np.nan, base, top


def sampled(crowns: tuple[Crown, ...], points: np.ndarray, count: int = 20_001) -> np.ndarray:
    """Length of polylines (N, K, 3) in crowns, by points along them."""
    found = np.zeros(len(points))
    share = (np.arange(count) + 0.5) / count
    for start, end in zip(points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1), strict=True):
        for row, (one, other) in enumerate(zip(start, end, strict=True)):
            x, y, z = (one + share[:, None] * (other - one)).T
            inside = np.zeros(count, bool)
            for shape, radius, base, top in crowns:
                here = (
                    shapely.contains_xy(shape, x, y)
                    if np.isnan(radius)
                    else np.hypot(x - shape.x, y - shape.y) < radius
                )
                inside |= here & (z >= base) & (z <= top)
            found[row] += inside.mean() * np.linalg.norm(other - one)
    return found


RING = shapely.Polygon([(-30, -20), (25, -25), (10, 5), (30, 28), (-25, 22)], [[(-12, -8), (6, -9), (4, 9), (-11, 6)]])
CROWNS = (
    tree(0, 0, 6, 3, 10),
    tree(5, 2, 5, 2, 14),  # overlaps the first
    tree(-20, 15, 4, 0, 8),
    tree(40, 40, 3, 4, 9),
    wood(RING, 0, 12),  # overlaps most of them
)


@pytest.mark.parametrize("chosen", [CROWNS[:1], CROWNS[4:], CROWNS[:2], CROWNS])
def test_length_inside_crowns(chosen: tuple[Crown, ...]) -> None:
    rng = np.random.default_rng(3)
    points = rng.uniform((-50, -50, 0), (50, 50, 20), (40, 3, 3))
    found = depth_in_crowns(vegetation(*chosen), points)
    assert (found > 1).sum() > 5
    np.testing.assert_allclose(found, sampled(chosen, points), atol=0.02)


def test_upright_and_level_segments_and_those_that_end_inside() -> None:
    points = np.array(
        [
            [[0, 0, 0], [0, 0, 30]],  # up through a crown of 7 m
            [[0, 0, 5], [0, 0, 5]],  # of no length
            [[-10, 0, 5], [10, 0, 5]],  # across it
            [[-10, 0, 2], [10, 0, 2]],  # below it
            [[0, 0, 5], [10, 0, 5]],  # from its middle
            [[-10, 6.1, 5], [10, 6.1, 5]],  # past it
        ],
        float,
    )
    found = depth_in_crowns(vegetation(CROWNS[0]), points)
    np.testing.assert_allclose(found, [7, 0, 12, 0, 6, 0], atol=1e-9)
    square = wood(shapely.box(-6, -6, 6, 6), 3, 10)
    np.testing.assert_allclose(depth_in_crowns(vegetation(square), points[:5]), [7, 0, 12, 0, 6], atol=1e-9)


def test_what_overlaps_counts_once() -> None:
    line = np.array([[[-50.0, 0, 5], [50, 0, 5]]])
    two = vegetation(tree(0, 0, 6, 3, 10), tree(4, 0, 6, 3, 10), wood(shapely.box(8, -5, 20, 5), 0, 10))
    np.testing.assert_allclose(depth_in_crowns(two, line), [26])
    # The same tree twice.
    np.testing.assert_allclose(depth_in_crowns(vegetation(CROWNS[0], CROWNS[0]), line), [12])
    assert depth_in_crowns(vegetation(), line).tolist() == [0]


def test_the_formula() -> None:
    """P.833: A_m (1 - exp(-d gamma / A_m)), with the points and values read from its figures and tables."""
    depth = np.array([0.0, 0.001, 10.0, 1e6])
    loss = excess_loss(depth, 5.7, 94.7)
    np.testing.assert_allclose(loss, 94.7 * (1 - np.exp(-depth * 5.7 / 94.7)), rtol=1e-9, atol=1e-12)
    assert loss[1] == pytest.approx(0.0057, rel=1e-4)
    assert specific_attenuation(1e9) == pytest.approx(0.2)
    assert specific_attenuation(30e9) == pytest.approx(6.0)
    assert specific_attenuation(28.5e9) == pytest.approx(0.19 * 28.5**1.02, rel=0.03)
    # P.833-9's table for woodland: frequency in MHz, dB/m, dB.
    for frequency, gamma, most in ((949e6, 0.17, 26.5), (1852.2e6, 0.30, 29.0), (2117.5e6, 0.34, 34.1)):
        assert specific_attenuation(frequency) == pytest.approx(gamma, rel=0.27)
        assert largest_loss(frequency) == pytest.approx(most, rel=0.2)


SOLVER = SolverSettings(max_depth=1, rays=20_000, max_paths=8)
USERS = [[0.0, -40.0, 1.5], [20.0, -40.0, 1.5]]
SHADE = tree(0, -35, 3, 1, 9)


def scenes() -> Any:
    """A house out of the way, a base station, a user behind a tree and one in the open."""
    plain = scene_of([(box(-60, -10, 20, 20), 12.0)], np.array(USERS))
    return plain, replace(plain, vegetation=vegetation(SHADE, attenuation=1.5, largest_loss=20.0))


def test_a_user_behind_a_tree() -> None:
    plain, green = scenes()
    radio = RadioSettings(columns=4, rows=4)
    (before, bare), (after, channels) = (simulate_csi(scene, radio, SOLVER, 0) for scene in (plain, green))
    assert isinstance(after, WeakenedChannels)
    assert not isinstance(before, WeakenedChannels)
    line = np.array([[plain.bs_position, USERS[0]]])
    expected = 20.0 * (1 - np.exp(-1.5 * sampled((SHADE,), line) / 20.0))[0]
    assert expected > 3
    direct_before, direct_after = (
        np.flatnonzero((channels.gain[0] != 0) & ~channels.interactions[0].any(-1))[0] for channels in (before, after)
    )
    assert after.vegetation_loss[0, direct_after] == pytest.approx(expected, abs=0.02)
    ratio = after.gain[0, direct_after] / before.gain[0, direct_before]
    assert -20 * np.log10(abs(ratio)) == pytest.approx(expected, abs=0.02)
    assert abs(np.angle(ratio)) < 1e-5  # the phase is the same
    # All paths of the user behind it, from their gains; the one in the open has lost nothing.
    power = (np.abs(after.gain.astype(complex)) ** 2).sum(axis=1)
    np.testing.assert_allclose(after.path_gain, 10 * np.log10(power), atol=1e-4)
    assert after.path_gain[0] < before.path_gain[0] - 1
    assert not after.vegetation_loss[1].any()
    for field in fields(Channels):
        np.testing.assert_array_equal(getattr(after, field.name)[1], getattr(before, field.name)[1])
    np.testing.assert_array_equal(channels, csi(after, radio))
    np.testing.assert_array_equal(channels[1], bare[1])
    assert after.los.tolist() == [True, True]


def test_losses_stay_with_their_paths_where_the_order_changes() -> None:
    """The direct path, the strongest in the open, behind more than the reflection at the ground."""
    plain, green = scenes()
    bare = simulate(plain, RadioSettings(), SOLVER, 0)
    found = simulate(
        replace(green, vegetation=vegetation(SHADE, attenuation=9.0, largest_loss=60.0)), RadioSettings(), SOLVER, 0
    )
    assert isinstance(found, WeakenedChannels)
    there = found.gain[0] != 0
    assert (np.diff(np.abs(found.gain[0][there])) <= 0).all()
    assert (np.diff(found.delay[0][there]) < 0).any()
    assert (np.diff(bare.delay[0][there]) > 0).all()
    order = np.argsort(found.delay[0][there])
    expected = np.abs(bare.gain[0][there]) * 10 ** (-found.vegetation_loss[0][there][order] / 20)
    np.testing.assert_allclose(np.abs(found.gain[0][there][order]), expected, rtol=1e-5)


def test_without_constants_they_are_those_at_the_carrier() -> None:
    plain, _ = scenes()
    green = replace(plain, vegetation=vegetation(SHADE))
    found = simulate(green, RadioSettings(frequency=3.5e9), SOLVER, 0)
    assert isinstance(found, WeakenedChannels)
    most, depth = 1.15 * 3500**0.43, sampled((SHADE,), np.array([[plain.bs_position, USERS[0]]]))[0]
    assert found.vegetation_loss[0].max() >= most * (1 - np.exp(-0.7 * depth / most)) - 0.02
    assert found.vegetation_loss[0, 0] == pytest.approx(most * (1 - np.exp(-0.7 * depth / most)), abs=0.02)


def test_each_carrier_loses_what_it_would_alone() -> None:
    plain, _ = scenes()
    green = replace(plain, vegetation=vegetation(SHADE))
    bands = simulate_bands(green, RadioSettings(carriers=[3.5e9, 28.5e9], columns=2, rows=2), SOLVER, 0)
    for carrier, (found, _) in zip((3.5e9, 28.5e9), bands, strict=True):
        alone, _ = simulate_csi(green, RadioSettings(frequency=carrier, columns=2, rows=2), SOLVER, 0)
        assert isinstance(found, WeakenedChannels)
        assert isinstance(alone, WeakenedChannels)
        np.testing.assert_array_equal(found.vegetation_loss, alone.vegetation_loss)
        np.testing.assert_allclose(found.path_gain, alone.path_gain, atol=1e-4)


def test_users_that_move_past_a_tree() -> None:
    """Line of sight alone: at every snapshot the channel is that of a user who stands there."""
    _, green = scenes()
    steps = np.linspace(-8, 8, 33)
    way = np.stack([steps, np.full(33, -45.0), np.full(33, 1.5)], axis=1)[None].astype(np.float32)
    velocity = np.broadcast_to(np.float32([10, 0, 0]), way.shape)
    tracks = Trajectories(way, velocity, np.zeros(1, np.uint8), 0.05 * np.arange(33))
    moving_scene = replace(green, users=way[:, 0], tracks=tracks)
    radio, mobility = RadioSettings(columns=2, rows=2), MobilitySettings(steps=33, interval=0.05, subcarriers=2)
    solver = SolverSettings(specular=False, rays=1000)
    moving = simulate_moving(moving_scene, radio, solver, mobility, 0)
    standing = simulate(replace(green, users=way[0]), radio, solver, 0)
    assert isinstance(standing, WeakenedChannels)
    assert isinstance(moving.channels, WeakenedChannels)
    assert (standing.vegetation_loss[:, 0] > 0).sum() in range(5, 28)
    gain = 10 * np.log10((np.abs(moving.csi[0].astype(complex)) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(gain, standing.path_gain, atol=0.1)
    np.testing.assert_array_equal(moving.channels.vegetation_loss[0], standing.vegetation_loss[0])
    behind = replace(
        moving_scene, users=way[:, 16], tracks=replace(tracks, position=way[:, 16:], velocity=velocity[:, 16:])
    )
    first = simulate_moving(behind, radio, solver, mobility, 0).channels
    np.testing.assert_array_equal(first.gain[0], standing.gain[16])
    assert first.vegetation_loss[0, 0] == standing.vegetation_loss[16, 0] > 3


def test_radio_maps_are_behind_crowns_too() -> None:
    plain, green = scenes()
    settings = RadioMapSettings(spacing=plain.size / 40, metrics=("path_gain", "los", "best_beam"))
    radio = RadioSettings(columns=4, rows=4)
    one, other = (radio_map(scene, radio, SOLVER, settings, 0) for scene in (plain, green))
    lost = one.values["path_gain"] - other.values["path_gain"]
    assert np.nanmin(lost) > -1e-3
    assert 0 < (lost > 1).sum() < 0.3 * lost.size
    np.testing.assert_array_equal(one.values["los"], other.values["los"])
