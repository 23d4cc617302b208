"""Several carriers at once: each has what a run of its own gives."""

from dataclasses import fields, replace

import numpy as np
import pytest
from pydantic import ValidationError
from raytrace_helpers import BLOCKS, scene_of, users_around
from test_raytrace_bounded import random_blocks

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Materials, Scene
from wavecity.raytrace.bounds import Queue, Queues
from wavecity.raytrace.channels import Channels
from wavecity.raytrace.radio_map import radio_map
from wavecity.raytrace.radio_map_settings import RadioMapSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate, simulate_bands, simulate_csi

# Glass and concrete change with the frequency, each in its own way.
RADIO = RadioSettings(carriers=(3.5e9, 28.5e9, 60e9), columns=4, rows=2, wall_material="glass")


@pytest.fixture(scope="module")
def scene() -> Scene:
    blocks = random_blocks(1)
    return scene_of(blocks, users_around(blocks, 20))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"diffraction": True, "tolerance": 0.0},
        {"refraction": True},
        {"diffuse": True, "max_depth": 1},
        {"diffuse": True, "max_depth": 1, "diffuse_method": "rays", "diffuse_rays": 200},
    ],
    ids=["specular", "diffraction", "refraction", "patches", "rays"],
)
def test_every_carrier_equals_a_run_of_its_own(change: dict[str, object]) -> None:
    scene = scene_of(BLOCKS, users_around(BLOCKS, 12))
    solver = SolverSettings(rays=20_000, max_depth=2).model_copy(update=change)
    radio = RADIO.model_copy(update={"scattering": 0.3}) if solver.diffuse else RADIO
    found = simulate_bands(scene, radio, solver, 0)
    assert len(found) == 3
    for one, (channels, panel) in zip(radio.each, found, strict=True):
        own, own_panel = simulate_csi(scene, one, solver, 0)
        for field in fields(Channels):
            np.testing.assert_array_equal(getattr(channels, field.name), getattr(own, field.name), field.name)
        np.testing.assert_array_equal(panel, own_panel)
    gains = [channels.path_gain for channels, _ in found]
    assert (gains[0] > gains[1]).any()
    assert (gains[1] != gains[2]).any()


def test_the_tolerance_holds_at_every_carrier(scene: Scene) -> None:
    """No path is missing that a search of its own would have found; there may be more."""
    solver = SolverSettings(rays=30_000, diffraction=True, tolerance=20.0, max_paths=4)
    more = 0
    for one, (channels, _) in zip(RADIO.each, simulate_bands(scene, RADIO, solver, 0), strict=True):
        own = simulate(scene, one, solver, 0)
        every = simulate(scene, one, solver.model_copy(update={"tolerance": 0.0}), 0)
        assert (own.n_paths <= channels.n_paths).all()
        assert (channels.n_paths <= every.n_paths).all()
        more += int((channels.n_paths - own.n_paths).sum())
        # What is left out of a user's power lies 20 dB below it, and its strongest paths are all there.
        assert (every.path_gain - channels.path_gain < 10 * np.log10(1 + 10**-2)).all()
        np.testing.assert_array_equal(channels.gain, every.gain)
    assert more > 0


def test_queues_of_one_carrier_are_its_queue() -> None:
    random = np.random.default_rng(0)
    receiver, power = random.integers(0, 5, 200), random.random(200) ** 8
    one, several = Queue(receiver, power, 5, 2, 10.0), Queues(receiver, power, 5, 2, 10.0)
    found = np.empty(0, np.int64)
    while True:
        wanted, same = one.take(receiver[found], power[found]), several.take(receiver[found], power[found])
        np.testing.assert_array_equal(wanted, same)
        if not len(wanted):
            break
        found = np.concatenate([found, wanted])


def test_queues_of_several_carriers_leave_nothing_out_that_matters_at_one() -> None:
    random = np.random.default_rng(1)
    receiver, power = random.integers(0, 6, 300), random.random((300, 3)) ** 8
    queues, found = Queues(receiver, power, 6, 2, 10.0), np.empty(0, np.int64)
    while len(wanted := queues.take(receiver[found], power[found])):
        assert not np.isin(wanted, found).any()
        found = np.concatenate([found, wanted])
    assert len(found) < 300
    left = np.setdiff1d(np.arange(300), found)
    for user in range(6):
        mine, rest = power[found[receiver[found] == user]], power[left[receiver[left] == user]]
        assert (rest.sum(axis=0) <= 0.1 * mine.sum(axis=0)).all()
        assert (rest.max(axis=0, initial=0) <= np.sort(mine, axis=0)[-2]).all()


def test_the_first_carrier_is_the_frequency_and_one_alone_is_no_list() -> None:
    assert RADIO.frequency == 3.5e9
    assert [one.frequency for one in RADIO.each] == [3.5e9, 28.5e9, 60e9]
    assert all(one.carriers is None for one in RADIO.each)
    alone = RadioSettings(carriers=[60e9])
    assert alone == RadioSettings(frequency=60e9)
    assert "carriers" not in alone.model_dump()
    assert RadioSettings(**RADIO.model_dump(mode="json")) == RADIO


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"carriers": [28.5e9, 60e9], "wall_material": "brick"}, "up to 40 GHz, and frequency is 60 GHz"),
        ({"carriers": [28.5e9, 28.5e9]}, "one is there twice"),
        ({"carriers": [28.5e9, 1e5]}, "greater than"),
        ({"carriers": []}, "at least 1"),
    ],
)
def test_wrong_carriers_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RadioSettings(**settings)


def test_what_knows_one_carrier_refuses_several(scene: Scene) -> None:
    solver = SolverSettings(rays=1000)
    for run in (simulate, simulate_csi):
        with pytest.raises(InputError, match=r"3.5, 28.5, 60 GHz.*simulate_bands"):
            run(scene, RADIO, solver, 0)
    with pytest.raises(InputError, match="one carrier is needed"):
        radio_map(scene, RADIO, solver, RadioMapSettings(), 0)


def test_materials_of_buildings_are_those_at_each_carrier() -> None:
    """Brick has a model up to 40 GHz: above it the recipe's material takes its place, at that carrier only."""
    walls = Materials(wall=("brick",) * len(BLOCKS), roof=("",) * len(BLOCKS), glass=(0.3,) * len(BLOCKS))
    scene = scene_of(BLOCKS, users_around(BLOCKS, 12))
    scene = replace(scene, mesh=replace(scene.mesh, materials=walls))
    solver = SolverSettings(rays=20_000, max_depth=1)
    radio = RADIO.model_copy(update={"wall_material": "concrete"})
    for one, (channels, _) in zip(radio.each, simulate_bands(scene, radio, solver, 0), strict=True):
        np.testing.assert_array_equal(channels.gain, simulate(scene, one, solver, 0).gain)
    bare = replace(scene, mesh=replace(scene.mesh, materials=None))
    assert (channels.gain != simulate(bare, one, solver, 0).gain).any()  # windows are there
