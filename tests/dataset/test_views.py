"""Derived views against double-precision sums over the tracer's paths, closed forms, and their own definitions."""

from dataclasses import replace
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import xarray as xr
from toy import ATTRIBUTES, build_store, make_layout

from wavecity.dataset import InputError
from wavecity.dataset.derived import DerivedCsi
from wavecity.dataset.draft import open_draft
from wavecity.dataset.features import scene_arrays
from wavecity.dataset.finish import finish_draft
from wavecity.dataset.layout import Layout
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.dataset.views import Chain, Noise, Observe, add_noise, derived_csi, stored_csi
from wavecity.dataset.writer import write_unit
from wavecity.raytrace.channels import Channels, ReceiverSettings
from wavecity.raytrace.channels import csi as channel_of
from wavecity.raytrace.settings import RadioSettings, SolverSettings

C = 299_792_458.0
CARRIER = 28.5e9
EPSILON = 2.0**-24  # relative rounding error of float32


def write_store(folder, scenes, radio):
    """A finished draft of (scene, channels) pairs; returns what `open_store` opens."""
    users = max(len(channels.los) for _, channels in scenes)
    paths, bounces = scenes[0][1].gain.shape[1], scenes[0][1].interactions.shape[2]
    size = (radio.columns, radio.rows)
    layout = Layout(len(scenes), users, *size, paths, bounces, 200, 20, 1, 8, False, True, -200.0)
    draft = open_draft(folder, "0123456789abcdef0123", layout)
    for unit, (scene, channels) in enumerate(scenes):
        outcome = {"scene_id": f"s-{unit}", "split": "train", "n_users": len(channels.los), "status": "done"}
        write_unit(draft, unit, [scene_arrays(scene, channels, channel_of(channels, radio))], [outcome], {})
    array = {"columns": radio.columns, "rows": radio.rows, "spacing_wavelengths": radio.spacing}
    recipe = {"radio": radio.model_dump(mode="json")}
    finish_draft(draft, {**ATTRIBUTES, "array": array, "recipe": recipe}, {"map": {"name": "test"}})
    return draft.folder


# --- Derived channels -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A Helsinki scene: the tracer's paths in float64, and a store written from its float32 channels."""
    from wavecity.geo.build import build_scene
    from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
    from wavecity.geo.sources import open_source
    from wavecity.geo.tiles import plan_tiles
    from wavecity.raytrace.simulate import simulate
    from wavecity.raytrace.solver import ChainSolver
    from wavecity.raytrace.world import build_world

    folder = tmp_path_factory.mktemp("views")
    area = AreaSettings(split=SplitSettings(by="scene"))
    source = open_source(area, folder)
    accepted = [tile for tile in plan_tiles(source, area, SceneSettings(), 0) if tile.status == "accepted"]
    tile = min(accepted, key=lambda tile: tile.coverage)  # an open one, where most users have paths
    scene = build_scene(tile, source, SceneSettings(), UserSettings(minimum=30, maximum=30), 0)
    radio = RadioSettings(columns=8, rows=4)
    solver = SolverSettings(rays=20_000, max_depth=2, max_paths=256)
    channels = simulate(scene, radio, solver, 0)
    assert channels.n_paths.max() <= solver.max_paths
    world = build_world(scene.mesh, scene.size, radio)
    trace = ChainSolver(
        solver.max_depth, solver.rays, solver.los, solver.specular, solver.diffraction, solver.refraction
    )
    paths = trace(world, scene.bs_position, scene.users, (np.deg2rad(radio.azimuth), 0.0, 0.0), radio.pattern)
    store = write_store(folder / "store", [(scene, channels)], radio)
    return SimpleNamespace(store=store, paths=paths, channels=channels, users=len(scene.users))


def reference(paths, users, columns, rows, spacing, frequencies):
    """Channels (user, subcarrier, x, y) of a panel that faces south, in float64 from lengths and unit vectors."""
    x, y = np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2
    result = np.zeros((users, len(frequencies), columns, rows), np.complex128)
    for user, length, way, coefficient in zip(
        paths.receiver, paths.length, paths.departure, paths.coefficient.astype(np.complex128), strict=True
    ):
        # x grows eastward, y downward.
        panel = spacing * (x[:, None] * way[0] - y * way[2])
        for number, frequency in enumerate(frequencies):
            delay = length / C
            carrier = (CARRIER * delay) % 1
            result[user, number] += coefficient * np.exp(2j * np.pi * (panel - carrier - frequency * delay))
    return result


@pytest.mark.parametrize(("columns", "rows", "spacing"), [(8, 4, 0.5), (16, 8, 0.5), (3, 5, 0.7)])
def test_any_array_and_band_equals_the_traced_paths_within_float32(traced, columns, rows, spacing):
    frequencies = np.array([-200e6, -1e6, 0.0, 77e6, 200e6])
    view = derived_csi(traced.store, columns=columns, rows=rows, spacing=spacing, frequencies=frequencies)
    assert view.dims == ("scene", "user", "subcarrier", "x", "y")
    assert view.dtype == np.complex64
    expected = reference(traced.paths, traced.users, columns, rows, spacing, frequencies)
    expected[traced.channels.outage] = 0
    # What float32 costs a path of gain g, to first order. The delay's rounding turns its phase by 2 pi f delay 2^-24.
    # An angle below pi is off by 2^-23 at most, two of them move the direction by sqrt(2) times that, and the phase at
    # a corner element by 2 pi times its distance in wavelengths as much. Gain, product and sum round three times more.
    corner = spacing * np.hypot((columns - 1) / 2, (rows - 1) / 2)
    late = traced.paths.length.max() / C
    each = 2 * np.pi * (np.abs(frequencies) * late * EPSILON + corner * np.sqrt(2) * 2 * EPSILON) + 4 * EPSILON
    strength = np.bincount(traced.paths.receiver, np.abs(traced.paths.coefficient), traced.users)
    error = np.abs(view.isel(scene=0).values - expected).max(axis=(2, 3))
    bound = strength[:, None] * each
    assert (error <= bound).all()
    # The bound means something: it is below a ten-thousandth, and at 200 MHz the delay is most of it.
    assert each.max() < 1.2e-4
    assert 2 * np.pi * 200e6 * late * EPSILON > 0.7 * each.max()
    assert (np.abs(expected).max(axis=(1, 2, 3)) > 0).sum() >= 20


def test_the_stored_array_is_the_narrowband_view(traced):
    view, stored = derived_csi(traced.store), stored_csi(traced.store)
    np.testing.assert_array_equal(view.values, open_store(traced.store)["csi"].values)
    np.testing.assert_array_equal(view.values, stored.values)
    xr.testing.assert_equal(view["scene_id"], stored["scene_id"])
    assert view.attrs["units"] == "1"
    assert attributes_of(view.attrs)["array"] == {"columns": 8, "rows": 4, "spacing_wavelengths": 0.5}


def plane_waves(paths):
    """`Channels` of users with the paths given: dicts of gain, delay, aod, aoa (zenith, azimuth in degrees), doppler."""
    most = max(map(len, paths))
    table = {name: np.zeros((len(paths), most)) for name in ("delay", "doppler")}
    table |= {
        f"{end}_{angle}": np.zeros((len(paths), most)) for end in ("aod", "aoa") for angle in ("zenith", "azimuth")
    }
    gain = np.zeros((len(paths), most), np.complex64)
    for user, own in enumerate(paths):
        for number, path in enumerate(own):
            gain[user, number] = path["gain"]
            for name in ("delay", "doppler"):
                table[name][user, number] = path.get(name, 0.0)
            for end in ("aod", "aoa"):
                zenith, azimuth = np.deg2rad(path.get(end, (90, 0)))
                table[f"{end}_zenith"][user, number], table[f"{end}_azimuth"][user, number] = zenith, azimuth
    power = (np.abs(gain) ** 2).sum(1)
    return Channels(
        gain=gain,
        **{name: values.astype(np.float32) for name, values in table.items()},
        interactions=np.zeros((len(paths), most, 1), np.int8),
        vertices=np.zeros((len(paths), most, 1, 3), np.float32),
        n_paths=(gain != 0).sum(1).astype(np.int32),
        power_cut=np.zeros(len(paths), np.float32),
        path_gain=np.where(power > 0, 10 * np.log10(np.maximum(power, 1e-30)), -200).astype(np.float32),
        los=power > 0,
        outage=power == 0,
    )


@pytest.fixture(scope="module")
def waves(tmp_path_factory):
    """One user 30 degrees east and 0 down; one straight ahead and 30 degrees down, of two paths; one in outage."""
    east = {"gain": 1e-4, "aod": (90, -60), "aoa": (90, 90), "delay": 0.5e-6, "doppler": 1000.0}
    down = {"gain": 1e-4j, "aod": (120, -90), "aoa": (90, 0), "delay": 0.2e-6, "doppler": -500.0}
    late = {"gain": 5e-5, "aod": (90, -90), "aoa": (90, 180), "delay": 0.7e-6}
    channels = plane_waves([[east], [down, late], []])
    scene = SimpleNamespace(
        height=np.zeros((200, 200), np.float32),
        occupancy=np.zeros((20, 20), np.uint8),
        users=np.tile([10.0, 0.0, 1.5], (3, 1)),
        bs_position=np.array([0.0, 100.0, 15.0]),
    )
    folder = tmp_path_factory.mktemp("waves")
    return write_store(folder / "store", [(scene, channels)], RadioSettings(columns=4, rows=4))


def user(view, number):
    return view.isel(scene=0, user=number).values


def steps(values, axis):
    """Ratio of neighbours along an axis."""
    here = np.moveaxis(values, axis, 0)
    return here[1:] / here[:-1]


def test_phase_grows_eastward_along_x_and_downward_along_y(waves):
    # Half a wavelength times sin 30 degrees is a quarter turn.
    values = user(derived_csi(waves, columns=6, rows=3), 0)
    assert values.shape == (6, 3)
    np.testing.assert_allclose(steps(values, 0), 1j, atol=1e-5)
    np.testing.assert_allclose(steps(values, 1), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(values), 1e-4, rtol=1e-5)
    # Twice the spacing is half a turn.
    np.testing.assert_allclose(steps(user(derived_csi(waves, spacing=1.0), 0), 0), -1, atol=1e-5)
    # Two paths: one a quarter turn a row, one none; the sum of both at the panel's centre rows is known.
    rows = np.arange(5) - 2
    expected = 1e-4j * np.exp(0.5j * np.pi * rows) + 5e-5
    np.testing.assert_allclose(user(derived_csi(waves, columns=1, rows=5), 1)[0], expected, atol=1e-9)


def test_subcarriers_turn_by_the_delay(waves):
    view = derived_csi(waves, subcarriers=8, bandwidth=8e6)
    np.testing.assert_array_equal(view["frequency"].values, np.arange(-4, 4) * 1e6)
    # 1 MHz times 0.5 us is half a turn.
    np.testing.assert_allclose(steps(user(view, 0), 0), -1, atol=1e-5)
    given = derived_csi(waves, frequencies=[-1e6, 3e6])
    np.testing.assert_array_equal(user(given, 1), user(view, 1)[[3, 7]])
    # From the first path on, only the second one turns: by 2 pi f 0.5 us.
    first = user(derived_csi(waves, columns=1, rows=1, frequencies=[0.0, 1e6], normalize_delays=True), 1)[:, 0, 0]
    np.testing.assert_allclose(np.abs(np.diff(first)), 2 * 5e-5, rtol=1e-4)


def test_times_turn_by_the_doppler_and_receivers_by_the_arrival(waves):
    panel = ReceiverSettings(columns=2, rows=1, azimuth=0.0)
    view = derived_csi(waves, receiver=panel, times=[0.0, 250e-6], subcarriers=2, bandwidth=2e6)
    assert view.dims == ("scene", "user", "rx", "time", "subcarrier", "x", "y")
    assert view.shape == (1, 3, 2, 2, 2, 4, 4)
    values = user(view, 0)
    # 1 kHz times 250 us: a quarter turn. A panel facing east has its columns along north, where the path comes from.
    np.testing.assert_allclose(steps(values, 1), 1j, atol=1e-5)
    np.testing.assert_allclose(steps(values, 0), -1, atol=1e-5)
    np.testing.assert_array_equal(view["time"], [0.0, 250e-6])
    np.testing.assert_array_equal(view["rx_column"], [0, 1])
    np.testing.assert_array_equal(view["rx_row"], [0, 0])


def test_users_in_outage_stay_zero(waves):
    view = derived_csi(waves, subcarriers=4, bandwidth=1e6)
    assert not user(view, 2).any()
    assert not user(Noise(0.0)(view), 2).any()


def test_a_view_reads_nothing_until_asked_and_a_chunk_at_a_time(toy_store):
    view = derived_csi(toy_store, columns=2, rows=2)
    assert view.chunks[:2] == open_store(toy_store, "paths")["gain"].chunks[:2]
    noisy = Observe()(add_noise(view, 10.0))
    assert dask.is_dask_collection(noisy.data)
    assert noisy.chunks[:2] == view.chunks[:2]


def test_blocks_of_a_large_view_hold_few_users(toy_store):
    # 16 MiB a user: two in a block of 32 MiB.
    view = derived_csi(toy_store, columns=128, rows=128, subcarriers=128, bandwidth=100e6)
    assert view.data.chunksize == (1, 2, 128, 128, 128)
    # 64 MiB a user.
    view = derived_csi(toy_store, columns=256, rows=256, subcarriers=128, bandwidth=100e6)
    assert view.data.chunksize == (1, 1, 128, 256, 256)
    small = derived_csi(toy_store, columns=4, rows=4, frequencies=[0.0])
    large = derived_csi(toy_store, columns=128, rows=128, frequencies=np.linspace(-64e6, 63e6, 128))
    here = {"scene": 4, "user": slice(3, 6)}
    rows = large.isel(here)[..., 62:66, 62:66].values
    # The same centre elements, and the carrier is subcarrier 64 of 128 steps of 1 MHz.
    np.testing.assert_allclose(rows[:, 64], small.isel(here).values[:, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows"),
        ({"columns": -3}, "columns"),
        ({"columns": 2.5}, "columns"),
        ({"spacing": 0.0}, "spacing"),
        ({"subcarriers": 0, "bandwidth": 1e6}, "subcarriers 0"),
        ({"subcarriers": 4}, "give both"),
        ({"subcarriers": 4, "bandwidth": float("nan")}, "bandwidth nan"),
        ({"subcarriers": 4, "bandwidth": 1e6, "frequencies": [0.0]}, "not both"),
        ({"subcarriers": 4, "bandwidth": 20e9}, "off the carrier"),
        ({"frequencies": [0.0, 28.5e9]}, "2.85e\\+10 Hz off the carrier"),
        ({"frequencies": [np.inf]}, "finite"),
        ({"frequencies": []}, "frequencies"),
        ({"frequencies": 1e6}, "1-D"),
        ({"times": [np.nan]}, "times"),
    ],
)
def test_wrong_arguments_give_one_line(toy_store, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        derived_csi(toy_store, **arguments)
    assert "\n" not in str(caught.value)


def test_a_store_without_paths_says_so(tmp_path):
    build_store(tmp_path / "store", replace(make_layout(2), with_paths=False))
    with pytest.raises(InputError, match=r"stores no paths.*features.paths"):
        derived_csi(tmp_path / "store")
    assert stored_csi(tmp_path / "store").sizes["x"] == 32


# --- In the torch readers ---------------------------------------------------------------------------------------------


def readers(folder, view, **options):
    """Samples of the map-style reader and of the stream, by scene and user."""
    torch_data = pytest.importorskip("wavecity.dataset.torch_data")
    torch_batches = pytest.importorskip("wavecity.dataset.torch_batches")
    users = torch_data.ChannelDataset(folder, "train", fields=view.fields, transform=view, **options)
    yield {(sample["scene"], sample["user"]): sample for sample in users}
    streamed = {}
    for batch in torch_batches.ShuffledChannels(folder, "train", fields=view.fields, batch_size=7, transform=view):
        for row, place in enumerate(zip(batch["scene"].tolist(), batch["user"].tolist(), strict=True)):
            streamed[place] = {name: value[row] for name, value in batch.items()}
    yield streamed


@pytest.mark.parametrize(("columns", "rows", "spacing"), [(16, 8, 0.5), (3, 5, 0.7)])
def test_the_readers_derive_any_array_and_band_from_the_traced_paths(traced, columns, rows, spacing):
    frequencies = np.array([-200e6, 0.0, 77e6])
    view = DerivedCsi(traced.store, columns=columns, rows=rows, spacing=spacing, frequencies=frequencies)
    assert view.fields == ("paths/gain", "paths/aod_zenith", "paths/aod_azimuth", "paths/delay")
    expected = reference(traced.paths, traced.users, columns, rows, spacing, frequencies)
    strongest = np.abs(expected).max(axis=(1, 2, 3))
    lazy = derived_csi(traced.store, columns=columns, rows=rows, spacing=spacing, frequencies=frequencies).values
    for samples in readers(traced.store, view):
        assert {user for _, user in samples} == set(np.flatnonzero(~traced.channels.outage).tolist())
        for (scene, user), sample in samples.items():
            assert set(sample) == {"scene", "user", "csi"}
            assert sample["csi"].shape == view.shape == (3, columns, rows)
            # float32 costs a path at most 1.2e-4 of its gain, see above.
            assert np.abs(sample["csi"].numpy() - expected[user]).max() <= 1e-3 * strongest[user]
            np.testing.assert_array_equal(sample["csi"].numpy(), lazy[scene, user])


def test_the_readers_turn_phases_as_delay_doppler_and_arrival_say(waves):
    """One path: every axis is a closed form."""
    times, receiver = np.array([0.0, 0.25e-3]), ReceiverSettings(columns=2, rows=1, azimuth=0.0)
    view = DerivedCsi(waves, columns=1, rows=1, times=times, receiver=receiver, subcarriers=4, bandwidth=2e6)
    for samples in readers(waves, view):
        csi = samples[0, 0]["csi"].numpy()[..., 0, 0]
        assert csi.shape == (2, 2, 4)
        # 1 kHz over a quarter of a millisecond is a quarter turn.
        np.testing.assert_allclose(csi[:, 1] / csi[:, 0], 1j, atol=1e-5)
        # Half a microsecond over 500 kHz is a quarter turn back.
        np.testing.assert_allclose(csi[..., 1:] / csi[..., :-1], -1j, atol=1e-5)
        # Waves that come along a panel of half a wavelength: half a turn.
        np.testing.assert_allclose(csi[1] / csi[0], -1, atol=1e-5)


def test_noise_and_masks_follow_a_derived_channel(waves):
    torch_data = pytest.importorskip("wavecity.dataset.torch_data")
    derived = DerivedCsi(waves, columns=8, rows=8, keep_paths=True)
    view = Chain((derived, Noise(10.0, 3), Observe(0.25, "random", 3)))
    expected = Observe(0.25, "random", 3)(Noise(10.0, 3)(derived_csi(waves, columns=8, rows=8))).load()
    for sample in torch_data.ChannelDataset(waves, "train", fields=derived.fields, transform=view):
        target = expected.isel(scene=sample["scene"], user=sample["user"])
        np.testing.assert_array_equal(sample["csi"].numpy(), target.values)
        assert set(derived.fields) < set(sample)


def test_a_reader_without_the_paths_says_which(waves, toy_store):
    torch_data = pytest.importorskip("wavecity.dataset.torch_data")
    view = DerivedCsi(waves, subcarriers=4, bandwidth=1e6)
    with pytest.raises(InputError, match=r"has no paths/aod_zenith, .*give the reader fields="):
        torch_data.ChannelDataset(waves, "train", fields=("paths/gain",), transform=view)[0]
    assert repr(view) == "DerivedCsi(4 x 4 antennas 0.5 wavelengths apart, 4 subcarriers from -500000 to +250000 Hz)"
