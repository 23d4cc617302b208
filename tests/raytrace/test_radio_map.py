"""Radio maps: against theory, the path solver at the cells' centres, and Sionna's `RadioMapSolver`."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from raytrace_helpers import box, scene_of

from wavecity.dataset.distributions import delay_spread
from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.device import rt
from wavecity.raytrace.radio_map import RadioMap, radio_map
from wavecity.raytrace.radio_map_settings import METRICS, RadioMapSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import panel_orientation, simulate
from wavecity.raytrace.world import build_world

BLOCKS = [(box(-20, 10, 30, 14), 12.0), (box(25, -30, 16, 40), 20.0), (box(-50, -50, 20, 20, 20.0), 9.0)]
SOLVER = SolverSettings(max_depth=2, rays=100_000, diffraction=False)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return scene_of(BLOCKS, np.zeros((1, 3), np.float32))


@pytest.fixture(scope="module")
def found(scene: Scene) -> RadioMap:
    settings = RadioMapSettings(spacing=5.0, metrics=list(METRICS))
    return radio_map(scene, RadioSettings(), SOLVER, settings, seed=0)


def centres(scene: Scene, count: int) -> np.ndarray:
    """Points (count, count, 3) in the middle of cells, row 0 north."""
    middle = (np.arange(count) + 0.5) * scene.size / count - scene.size / 2
    x, y = np.meshgrid(middle, -middle)
    return np.stack([x, y, np.full_like(x, 1.5)], axis=-1)


def test_line_of_sight_alone_is_friis(scene: Scene) -> None:
    radio = RadioSettings(pattern="iso")
    settings = RadioMapSettings(spacing=10.0, metrics=["path_gain", "los"])
    found = radio_map(scene, radio, SOLVER.model_copy(update={"max_depth": 0}), settings, 0)
    distance = np.linalg.norm(centres(scene, len(found.open)) - scene.bs_position, axis=-1)
    friis = 20 * np.log10(SPEED_OF_LIGHT / radio.frequency / (4 * np.pi * distance))
    seen = found.values["los"] == 1
    assert 0.3 < seen.mean() < 1
    np.testing.assert_allclose(found.values["path_gain"][seen], friis[seen], atol=0.002)
    assert (found.values["path_gain"][found.values["los"] == 0] == SOLVER.gain_floor).all()


def test_cells_in_buildings_are_empty_and_all_others_are_not(scene: Scene, found: RadioMap) -> None:
    points = shapely.points(centres(scene, len(found.open))[..., :2])
    built = shapely.union_all([footprint for footprint, _ in BLOCKS])
    np.testing.assert_array_equal(found.open, ~shapely.contains(built, points))
    for values in found.values.values():
        np.testing.assert_array_equal(np.isfinite(values), found.open)


def test_cells_have_what_the_path_solver_gives_at_their_centres(scene: Scene, found: RadioMap) -> None:
    points = centres(scene, len(found.open))[found.open]
    users = replace(scene, users=points.astype(np.float32))
    channels = simulate(users, RadioSettings(), SOLVER.model_copy(update={"max_paths": 64}), 0)
    here = {name: values[found.open] for name, values in found.values.items()}
    np.testing.assert_allclose(here["path_gain"], channels.path_gain, atol=1e-3)
    np.testing.assert_array_equal(here["los"], channels.los)
    np.testing.assert_array_equal(here["n_paths"], channels.n_paths)
    heard = ~channels.outage
    assert channels.n_paths.max() <= 64
    spread = 1e9 * delay_spread(channels.gain, channels.delay.astype(np.float64))
    np.testing.assert_allclose(here["delay_spread"][heard], spread[heard], atol=0.05)
    # By its definition in TR 38.901, from the stored angles.
    power = np.abs(channels.gain.astype(np.complex128)) ** 2
    phasor = (power * np.exp(1j * channels.aod_azimuth)).sum(1)[heard] / power.sum(1)[heard]
    circular = np.degrees(np.sqrt(-2 * np.log(np.minimum(np.abs(phasor), 1))))
    np.testing.assert_allclose(here["angle_spread"][heard], circular, atol=0.05)
    assert ((here["best_beam"] >= 0) == heard).all()


def test_with_diffraction_too(scene: Scene) -> None:
    solver = SolverSettings(max_depth=2, rays=100_000, diffraction=True)
    found = radio_map(scene, RadioSettings(), solver, RadioMapSettings(spacing=10.0), 0)
    points = centres(scene, len(found.open))[found.open]
    channels = simulate(replace(scene, users=points.astype(np.float32)), RadioSettings(), solver, 0)
    off = np.abs(found.values["path_gain"][found.open] - channels.path_gain)
    assert np.quantile(off, 0.95) < 0.05


def test_means_over_cells_are_those_of_sionnas_radio_map_solver(scene: Scene) -> None:
    """Its cells have the mean power over their area: 10 x 10 of our points each, all on open ground."""
    fine = radio_map(scene, RadioSettings(), SOLVER, RadioMapSettings(spacing=1.0), 0).values["path_gain"]
    power = np.where(
        fine > SOLVER.gain_floor, 10 ** (fine.astype(np.float64) / 10), np.where(np.isnan(fine), np.nan, 0)
    )
    count = round(scene.size / 10)
    ours = power.reshape(count, 10, count, 10).mean((1, 3))
    world = build_world(scene.mesh, scene.size, RadioSettings())
    sionna = world.scene
    sionna.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern=RadioSettings().pattern, polarization="V")
    sionna.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    place = [float(value) for value in scene.bs_position]
    sionna.add(rt.Transmitter("bs", place, orientation=list(panel_orientation(RadioSettings()))))
    found = rt.RadioMapSolver()(
        sionna,
        center=[0, 0, 1.5],
        orientation=[0, 0, 0],
        size=[scene.size, scene.size],
        cell_size=[10, 10],
        samples_per_tx=3_000_000,
        max_depth=2,
        refraction=False,
    )
    theirs = np.asarray(found.path_gain.numpy(), np.float64)[0, ::-1]
    cells = np.isfinite(ours) & (np.nan_to_num(ours) > 1e-13) & (theirs > 0)
    assert cells.sum() > 0.5 * cells.size
    assert abs(10 * np.log10(theirs[cells].mean() / ours[cells].mean())) < 0.1
    assert np.median(np.abs(10 * np.log10(theirs[cells] / ours[cells]))) < 0.2


def test_what_cannot_be_is_refused(scene: Scene) -> None:
    with pytest.raises(InputError, match=r"spacing: 7 m does not divide the tile of"):
        radio_map(scene, RadioSettings(), SOLVER, RadioMapSettings(spacing=7.0), 0)
    scattering = SolverSettings(diffuse=True)
    with pytest.raises(InputError, match=r"solver.diffuse is true"):
        radio_map(scene, RadioSettings(), scattering, RadioMapSettings(spacing=10.0), 0)


def test_storeys_that_are_solids_of_their_own_are_no_open_ground() -> None:
    """As parts of buildings are mapped: a roof in the next one's floor; and what hangs above leaves the ground open."""
    tower = box(0, 0, 40, 40)
    blocks = [(tower, 3.5), (tower, 7.0, 3.5), (tower, 21.0, 14.0), (box(60, 0, 40, 40), 20.0, 5.0)]
    settings = RadioMapSettings(spacing=10.0, metrics=["los"])
    solver = SOLVER.model_copy(update={"max_depth": 0})
    found = radio_map(scene_of(blocks, np.zeros((1, 3), np.float32)), RadioSettings(), solver, settings, 0)
    middles = centres(scene_of(blocks, np.zeros((1, 3), np.float32)), 20)
    np.testing.assert_array_equal(found.open, ~shapely.contains(tower, shapely.points(middles[..., :2])))
