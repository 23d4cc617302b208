"""CSI of any array, band and time against Sionna RT's `cfr`, Sionna PHY's `cir_to_ofdm_channel` and closed forms."""

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from processes import python
from raytrace_helpers import BLOCKS, SOURCE, SPEED_OF_LIGHT, scene_of, users_around, world_of

from wavecity.geo.errors import InputError
from wavecity.raytrace.arrays import direction
from wavecity.raytrace.channels import Channels, ReceiverSettings, csi, subcarrier_frequencies
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate
from wavecity.raytrace.torch_channels import csi as torch_csi

CARRIER = 28.5e9
RADIO = RadioSettings(columns=8, rows=4, pattern="tr38901", downtilt=7.0)
SOLVER = SolverSettings(rays=100_000)
USERS = users_around(BLOCKS, 24)
VELOCITIES = np.random.default_rng(8).normal(0, 15, (24, 3)) * [1, 1, 0]
# 400 MHz wide, unevenly spaced; and 4 slots of 125 us, in each of which a fast car's path turns by 1 rad or 2.
FREQUENCIES = np.array([-200e6, -15e6, 0.0, 120e3, 77e6, 200e6])
SAMPLING = 8000.0
TIMES = np.arange(4) / SAMPLING
PANELS = [ReceiverSettings(columns=4, rows=1, azimuth=-30.0), ReceiverSettings(columns=2, rows=2, azimuth=110.0)]


def sionna_paths(radio: RadioSettings, receiver: ReceiverSettings, bearings: Any = None) -> Any:
    """The stock solver's paths from the panel at `SOURCE` to moving users that hold receiving panels."""
    from wavecity.raytrace.device import rt

    def array(panel: Any, pattern: str) -> Any:
        spacings = {"vertical_spacing": panel.spacing, "horizontal_spacing": panel.spacing}
        return rt.PlanarArray(
            num_rows=panel.rows, num_cols=panel.columns, **spacings, pattern=pattern, polarization="V"
        )

    def orientation(panel: Any) -> list[float]:
        return [float(np.deg2rad(angle)) for angle in (panel.azimuth, panel.downtilt, 0.0)]

    scene = world_of(BLOCKS, radio).scene
    scene.tx_array, scene.rx_array = array(radio, radio.pattern), array(receiver, "iso")
    scene.add(rt.Transmitter("bs", SOURCE.tolist(), orientation=orientation(radio)))
    for number, (user, velocity) in enumerate(zip(USERS, VELOCITIES, strict=True)):
        place = {"position": [float(x) for x in user], "velocity": velocity.tolist()}
        scene.add(rt.Receiver(f"user-{number}", **place, orientation=orientation(receiver)))
    return rt.PathSolver()(scene, max_depth=3, samples_per_src=100_000, refraction=False, seed=1)


def stored(paths: Any, gain: Any) -> SimpleNamespace:
    """The stock solver's paths in the arrays that `csi` reads."""
    there = paths.valid.numpy()[:, 0]
    names = {
        "delay": paths.tau,
        "aod_zenith": paths.theta_t,
        "aod_azimuth": paths.phi_t,
        "aoa_zenith": paths.theta_r,
        "aoa_azimuth": paths.phi_r,
        "doppler": paths.doppler,
    }
    arrays = {name: np.where(there, values.numpy()[:, 0], 0) for name, values in names.items()}
    return SimpleNamespace(gain=np.where(there, gain, 0), **arrays)


def as_cfr(ours: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """User, rx, time, subcarrier, x, y in the order of `cfr`: user, rx, tx antenna, time, subcarrier."""
    return np.moveaxis(ours.reshape(*ours.shape[:4], -1), -1, 2)


def error(ours: Any, theirs: Any) -> float:
    """Largest error of a user's channel over the channel's norm."""
    axes = tuple(range(1, np.ndim(theirs)))
    size = np.sqrt((np.abs(theirs) ** 2).sum(axis=axes))
    assert (size > 0).sum() > 8
    gap = np.sqrt((np.abs(ours - theirs) ** 2).sum(axis=axes))
    assert (gap[size == 0] == 0).all()
    return float((gap[size > 0] / size[size > 0]).max())


@pytest.fixture(scope="module")
def single() -> Any:
    """The stock solver's paths between single antennas."""
    return sionna_paths(RADIO.model_copy(update={"columns": 1, "rows": 1}), ReceiverSettings(columns=1, rows=1))


@pytest.fixture(scope="module")
def channels() -> Channels:
    return simulate(scene_of(BLOCKS, USERS), RADIO, SOLVER, 0, velocities=VELOCITIES)


@pytest.mark.parametrize("receiver", PANELS)
def test_arrays_bands_and_times_of_the_same_paths_are_cfr(single: Any, receiver: ReceiverSettings) -> None:
    """Path gains with Sionna's own carrier phase in, so that only what `csi` does is compared."""
    real, imaginary = single.cir(normalize_delays=False, out_type="drjit")[0]
    paths = stored(single, (real.numpy() + 1j * imaginary.numpy())[:, 0, 0, 0, :, 0])
    ours = csi(paths, RADIO, receiver=receiver, times=TIMES, frequencies=FREQUENCIES)
    assert ours.shape == (24, 4, 4, 6, 8, 4)
    options = {"sampling_frequency": SAMPLING, "num_time_steps": 4, "normalize_delays": False, "out_type": "numpy"}
    cfr = sionna_paths(RADIO, receiver).cfr(frequencies=FREQUENCIES, **options)[:, :, 0]
    # Sionna's phases are float32: 200 MHz x 0.5 us are 650 rad, in steps of 6e-5.
    assert error(as_cfr(ours), cfr) < 1e-4


@pytest.mark.parametrize("receiver", PANELS)
def test_delays_from_the_first_path_are_cfrs_default(single: Any, receiver: ReceiverSettings) -> None:
    coefficient = (single.a[0].numpy() + 1j * single.a[1].numpy())[:, 0, 0, 0]
    delay = single.tau.numpy()[:, 0].astype(np.float64)
    paths = stored(single, coefficient * np.exp(-2j * np.pi * (CARRIER * delay % 1)))
    ours = csi(paths, RADIO, receiver=receiver, times=TIMES, frequencies=FREQUENCIES, normalize_delays=True)
    options = {"sampling_frequency": SAMPLING, "num_time_steps": 4, "out_type": "numpy"}
    cfr = sionna_paths(RADIO, receiver).cfr(frequencies=FREQUENCIES, **options)[:, :, 0]
    # Sionna's carrier phase is float32: 0.3 us after the first path it is 54,000 rad, in steps of 4e-3.
    assert error(as_cfr(ours), cfr) < 5e-3


@pytest.mark.parametrize("receiver", PANELS)
@pytest.mark.parametrize("normalize", [False, True])
def test_traced_channels_are_cfr(channels: Channels, receiver: ReceiverSettings, normalize: bool) -> None:
    """From the scene to the wideband, moving, multi-antenna channel, each side by itself."""
    options = {"times": TIMES, "frequencies": FREQUENCIES, "normalize_delays": normalize}
    ours = csi(channels, RADIO, receiver=receiver, **options)
    options = {"sampling_frequency": SAMPLING, "num_time_steps": 4, "normalize_delays": normalize, "out_type": "numpy"}
    cfr = sionna_paths(RADIO, receiver).cfr(frequencies=FREQUENCIES, **options)[:, :, 0]
    # The carrier phase of a float32 delay is good to some hundredths of a radian a path.
    assert error(as_cfr(ours), cfr) < 2e-2


def test_doppler_is_sionnas(channels: Channels, single: Any) -> None:
    theirs = stored(single, single.valid.numpy()[:, 0])
    compared = 0
    for user in range(len(USERS)):
        mine = channels.gain[user] != 0
        towards = direction(channels.aoa_zenith[user][mine], channels.aoa_azimuth[user][mine])
        for path in np.flatnonzero(theirs.gain[user]):
            arrival = direction(theirs.aoa_zenith[user, path], theirs.aoa_azimuth[user, path])
            length = (channels.delay[user][mine] - theirs.delay[user, path]) * SPEED_OF_LIGHT
            gap = np.hypot(np.linalg.norm(towards - arrival, axis=1), length)
            assert gap.min() < 2e-3
            # A difference of direction enters times speed over wavelength, at most 5 kHz (50 m/s) here.
            np.testing.assert_allclose(
                channels.doppler[user][mine][gap.argmin()], theirs.doppler[user, path], atol=0.1 + 5e3 * gap.min()
            )
            compared += 1
    assert compared > 30
    assert np.abs(channels.doppler).max() > 1000
    assert (channels.doppler[channels.gain == 0] == 0).all()


def test_doppler_of_a_user_who_walks_at_the_base_station() -> None:
    users = users_around([], 6).astype(np.float64)
    way = SOURCE - users
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    line_of_sight = SolverSettings(max_depth=0)
    scene = scene_of([], users)
    walking = simulate(scene, RADIO, line_of_sight, 0, velocities=1.5 * way).doppler[:, 0]
    np.testing.assert_allclose(walking, 1.5 * CARRIER / SPEED_OF_LIGHT, rtol=1e-5)
    leaving = simulate(scene, RADIO, line_of_sight, 0, velocities=-1.5 * way).doppler[:, 0]
    np.testing.assert_allclose(leaving, -1.5 * CARRIER / SPEED_OF_LIGHT, rtol=1e-5)


def test_doppler_is_the_phase_of_the_user_further_on() -> None:
    """Neither side's sign: trace the users where they are 50 us later, and look at the phase of their gain."""
    users, later = users_around([], 6).astype(np.float64), 50e-6
    velocities = np.random.default_rng(2).normal(0, 10, (6, 3))
    line_of_sight = SolverSettings(max_depth=0)

    def traced(moved: Any) -> Channels:
        # In float64: the step is half a millimetre.
        scene = replace(scene_of([], users), users=moved)
        return simulate(scene, RADIO, line_of_sight, 0, velocities=velocities)

    now, then = traced(users), traced(users + velocities * later)
    moved = csi(now, RADIO, columns=1, rows=1, times=[0.0, later])[:, 1, 0, 0]
    turned = np.angle(then.gain[:, 0] / moved)
    assert np.abs(np.angle(then.gain[:, 0] / now.gain[:, 0])).max() > 0.1
    np.testing.assert_allclose(turned, 0, atol=1e-3)


def test_no_velocity_no_doppler_and_the_same_paths(channels: Channels) -> None:
    still = simulate(scene_of(BLOCKS, USERS), RADIO, SOLVER, 0)
    assert (still.doppler == 0).all()
    for field in fields(Channels):
        if field.name != "doppler":
            np.testing.assert_array_equal(getattr(still, field.name), getattr(channels, field.name))


@pytest.mark.parametrize("velocities", [np.zeros(3), np.zeros((23, 3)), np.zeros((24, 2)), np.full((24, 3), np.nan)])
def test_velocities_of_another_shape_are_refused(velocities: Any) -> None:
    with pytest.raises(InputError, match=r"^velocities: shape .*\(24, 3\)") as refusal:
        simulate(scene_of(BLOCKS, USERS), RADIO, SOLVER, 0, velocities=velocities)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_subcarriers_are_sionnas(count: int) -> None:
    import sionna.phy.channel as phy

    from wavecity.raytrace.device import rt

    ours = subcarrier_frequencies(count, 120e3)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, phy.subcarrier_frequencies(count, 120e3, precision="double").cpu().numpy())
    np.testing.assert_allclose(ours, rt.subcarrier_frequencies(count, 120e3).numpy())


def test_wideband_is_cir_to_ofdm_channel(channels: Channels) -> None:
    """Our stored paths, spread over antennas and times by their definitions, through Sionna PHY."""
    from sionna.phy.channel import cir_to_ofdm_channel
    from sionna.phy.channel import subcarrier_frequencies as theirs

    from wavecity.raytrace.device import mi, rt

    receiver, base = ReceiverSettings(columns=2, rows=2, azimuth=50.0, downtilt=20.0), RADIO

    def spread(panel: Any, zenith: Any, azimuth: Any) -> Any:
        array = rt.PlanarArray(num_rows=panel.rows, num_cols=panel.columns, pattern="iso", polarization="V")
        turn = [float(np.deg2rad(angle)) for angle in (panel.azimuth, panel.downtilt, 0.0)]
        positions = array.rotate(1.0, mi.Point3f(*turn)).numpy()
        return np.exp(2j * np.pi * np.einsum("upc,ca->uap", direction(zenith, azimuth), positions))

    at_base = spread(base, channels.aod_zenith, channels.aod_azimuth)
    at_user = spread(receiver, channels.aoa_zenith, channels.aoa_azimuth)
    turning = np.exp(2j * np.pi * channels.doppler[..., None].astype(np.float64) * TIMES)
    a = np.einsum("up,urp,uap,upt->urapt", channels.gain, at_user, at_base, turning)
    response = cir_to_ofdm_channel(
        theirs(16, 4e6, precision="double", device="cpu"),
        torch.as_tensor(a)[:, None, :, None],
        torch.as_tensor(channels.delay.astype(np.float64))[:, None, None],
    )[:, 0, :, 0].numpy()
    ours = csi(channels, base, receiver=receiver, times=TIMES, frequencies=subcarrier_frequencies(16, 4e6))
    assert ours.shape == (24, 4, 4, 16, 8, 4)
    # Sionna keeps element positions in float32.
    assert error(as_cfr(ours), response) < 2e-6


def one_user(**changes: Any) -> SimpleNamespace:
    """Two paths of one user."""
    arrays: dict[str, Any] = {
        "gain": [1.0, 1.0],
        "delay": [100e-9, 150e-9],
        "aod_zenith": [1.7, 1.9],
        "aod_azimuth": [-1.2, -2.0],
        "aoa_zenith": [1.4, 1.3],
        "aoa_azimuth": [2.0, 0.7],
        "doppler": [100.0, -40.0],
    } | changes
    return SimpleNamespace(**{name: np.array(values)[None] for name, values in arrays.items()})


def test_one_path_turns_with_time_and_frequency() -> None:
    path = one_user(gain=[0.5j, 0.0])
    seconds, offsets = np.array([0.0, 1e-3, 7.7e-3]), np.array([-1e6, 0.0, 3e6])
    ours = csi(path, RADIO, columns=1, rows=1, times=seconds, frequencies=offsets)[0, ..., 0, 0]
    expected = 0.5j * np.exp(2j * np.pi * (100.0 * seconds[:, None] - 100e-9 * offsets))
    np.testing.assert_allclose(ours, expected, atol=1e-7)


def test_two_equal_paths_fade_where_they_are_half_a_turn_apart() -> None:
    ours = csi(one_user(), RADIO, columns=1, rows=1, frequencies=np.array([0.0, 10e6, 20e6, 30e6, 5e6]))
    # 50 ns: in phase every 20 MHz, opposed half way between (1 / (2 x 50 ns) = 10 MHz).
    np.testing.assert_allclose(np.abs(ours[0, :, 0, 0]), [2, 0, 2, 0, np.sqrt(2)], atol=1e-6)


def test_a_long_delay_costs_no_digits() -> None:
    """2 us at 2 GHz from the carrier are 4,000 turns."""
    path = one_user(gain=[1.0, 0.0], delay=np.array([2e-6, 0.0]))
    ours = csi(path, RADIO, columns=1, rows=1, frequencies=[2e9 + 125e3])[0, 0, 0, 0]
    np.testing.assert_allclose(ours, -1j, atol=1e-6)


def test_a_receiving_row_sees_its_delay_along_the_wave() -> None:
    """Four antennas in a row from north to south (looking east), a wave from 30 degrees south of east."""
    path = one_user(gain=[1.0, 0.0], aoa_zenith=[np.pi / 2, 0], aoa_azimuth=[-np.pi / 6, 0])
    ours = csi(path, RADIO, columns=1, rows=1, receiver=ReceiverSettings())[0, :, 0, 0]
    # Looked at from the front, left is south: x grows northward, away from where the wave comes from.
    np.testing.assert_allclose(np.angle(ours[1:] / ours[:-1]), -np.pi * np.sin(np.pi / 6), atol=1e-6)


def test_downtilt_moves_receive_antennas_only() -> None:
    path = one_user(gain=[1.0, 0.0], aoa_zenith=[np.pi / 2, 0], aoa_azimuth=[0.0, 0])
    lying = ReceiverSettings(columns=1, rows=2, downtilt=90.0)
    ours = csi(path, RADIO, columns=1, rows=1, receiver=lying)[0, :, 0, 0]
    # The panel looks down: its rows run from ahead (east, whence the wave comes) to behind, half a wavelength.
    np.testing.assert_allclose(np.abs(ours), 1, atol=1e-6)
    np.testing.assert_allclose(ours[0] / ours[1], -1, atol=1e-6)


def test_normalized_delays_count_from_the_first_path_with_power() -> None:
    path = one_user(delay=[150e-9, 100e-9], gain=[1.0, 0.0])
    ours = csi(path, RADIO, columns=1, rows=1, frequencies=[0.0, 33e6], normalize_delays=True)[0, :, 0, 0]
    np.testing.assert_allclose(ours, np.exp(2j * np.pi * (CARRIER * 150e-9 % 1)), atol=1e-5)
    nothing = one_user(gain=[0.0, 0.0])
    assert (csi(nothing, RADIO, frequencies=[1e6], normalize_delays=True) == 0).all()


@pytest.mark.parametrize("function", [csi, torch_csi])
def test_each_axis_comes_when_it_is_asked_for(channels: Channels, function: Any) -> None:
    panel = PANELS[0]
    assert function(channels, RADIO).shape == (24, 8, 4)
    assert function(channels, RADIO, 2, 3).shape == (24, 2, 3)
    assert function(channels, RADIO, receiver=panel).shape == (24, 4, 8, 4)
    assert function(channels, RADIO, times=[0.0]).shape == (24, 1, 8, 4)
    assert function(channels, RADIO, frequencies=[0.0, 1e6, 2e6]).shape == (24, 3, 8, 4)
    assert function(channels, RADIO, receiver=panel, frequencies=[0.0, 1e6, 2e6]).shape == (24, 4, 3, 8, 4)
    scenes = SimpleNamespace(**{field.name: getattr(channels, field.name)[None] for field in fields(Channels)})
    assert function(scenes, RADIO, receiver=panel, times=[0.0, 1e-3]).shape == (1, 24, 4, 2, 8, 4)
    nobody = SimpleNamespace(**{field.name: getattr(channels, field.name)[:0] for field in fields(Channels)})
    assert function(nobody, RADIO, times=[0.0, 1e-3]).shape == (0, 2, 8, 4)
    for wrong in (1e-3, [[0.0]], [np.nan]):
        with pytest.raises(InputError, match="csi: times has shape"):
            function(channels, RADIO, times=wrong)


def random_paths(users: int, paths: int, kind: type = np.complex64) -> SimpleNamespace:
    random = np.random.default_rng(4)
    real = np.empty(0, kind).real.dtype
    shape = (users, paths)
    gain = (random.normal(size=shape) + 1j * random.normal(size=shape)).astype(kind)
    gain[:, -1] = 0
    arrays = {
        "delay": random.uniform(1e-7, 1e-6, shape),
        "aod_zenith": random.uniform(0, np.pi, shape),
        "aod_azimuth": random.uniform(-np.pi, np.pi, shape),
        "aoa_zenith": random.uniform(0, np.pi, shape),
        "aoa_azimuth": random.uniform(-np.pi, np.pi, shape),
        "doppler": random.normal(0, 1000, shape),
    }
    return SimpleNamespace(gain=gain, **{name: values.astype(real) for name, values in arrays.items()})


EVERYTHING = {"receiver": PANELS[1], "times": TIMES, "frequencies": FREQUENCIES, "normalize_delays": True}


def tensors(paths: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(**{name: torch.as_tensor(values) for name, values in vars(paths).items()})


@pytest.mark.parametrize("batch", [1, 5, 96, 97, 100_000])
def test_batches_do_not_change_the_result(batch: int) -> None:
    """96 matrices a user: batches within a user, of one user, across users, of all."""
    paths = random_paths(3, 6)
    whole = csi(paths, RADIO, **EVERYTHING)
    np.testing.assert_array_equal(csi(paths, RADIO, batch=batch, **EVERYTHING), whole)
    torch.testing.assert_close(
        torch_csi(tensors(paths), RADIO, batch=batch, **EVERYTHING), torch.as_tensor(whole), atol=2e-5, rtol=0
    )


def test_working_memory_is_that_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is computed at a time has the size of the batch, whatever the axes."""
    sizes: list[int] = []
    from wavecity.raytrace import channels as module

    steer = module.axis_steering

    def counted(zenith: Any, *arguments: Any) -> Any:
        sizes.append(len(zenith))
        return steer(zenith, *arguments)

    monkeypatch.setattr(module, "axis_steering", counted)
    paths = random_paths(50, 6)
    csi(paths, RADIO, batch=8)
    assert sizes == [8] * 6 + [2]
    sizes.clear()
    csi(paths, RADIO, batch=8, receiver=PANELS[0], frequencies=FREQUENCIES)
    # 24 matrices a user.
    assert sizes == [1] * 150


def test_peak_memory_follows_the_batch() -> None:
    import tracemalloc

    paths, peak = random_paths(4, 32), {}
    for batch in (16, 256):
        tracemalloc.start()
        result = csi(paths, RadioSettings(), batch=batch, receiver=PANELS[0], frequencies=np.arange(64) * 1e6)
        peak[batch] = tracemalloc.get_traced_memory()[1] - result.nbytes
        tracemalloc.stop()
    # 1,024 matrices in all: 60 kB each at a time, as `csi` says.
    assert peak[16] < 16 * 80e3
    assert peak[256] < 256 * 80e3


@pytest.mark.parametrize("kind", [np.complex64, np.complex128])
def test_torch_is_numpy(kind: type) -> None:
    paths = random_paths(5, 7, kind)
    for options in ({}, {"columns": 3, "rows": 2}, {"receiver": PANELS[0]}, {"times": TIMES}, EVERYTHING):
        ours = torch_csi(tensors(paths), RADIO, **options)
        assert ours.dtype == (torch.complex64 if kind == np.complex64 else torch.complex128)
        np.testing.assert_allclose(ours.numpy(), csi(paths, RADIO, **options), atol=1e-5)


def test_torch_takes_scattered_paths() -> None:
    """Hundreds for a user, in place of some tens."""
    solver = SolverSettings(max_depth=1, rays=2_000, diffuse=True, max_paths=1024)
    paths = simulate(scene_of([], USERS[:2]), RadioSettings(scattering=0.5), solver, 0)
    assert (paths.interactions[:, -1, 0] == 2).all()
    ours = torch_csi(tensors(SimpleNamespace(**vars(paths))), RADIO, frequencies=FREQUENCIES)
    expected = csi(paths, RADIO, frequencies=FREQUENCIES)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-5 * np.abs(expected).max())


def test_torch_stays_on_the_device_of_the_paths() -> None:
    meta = SimpleNamespace(**{name: values.to("meta") for name, values in vars(tensors(random_paths(3, 4))).items()})
    assert torch_csi(meta, RADIO, **EVERYTHING).device.type == "meta"


@pytest.mark.parametrize("batch", [4096, 5])
def test_gradients_are_right(batch: int) -> None:
    """With respect to the gain and the angles, in one batch and in several."""
    paths = tensors(random_paths(2, 3, np.complex128))
    names = ["gain", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth"]
    options = {"receiver": PANELS[1], "times": TIMES[:2], "frequencies": FREQUENCIES[:2], "normalize_delays": True}

    def channel(*values: Any) -> Any:
        arrays = vars(paths) | dict(zip(names, values, strict=True))
        return torch_csi(SimpleNamespace(**arrays), RADIO, 2, 2, batch, **options)

    inputs = [getattr(paths, name).requires_grad_() for name in names]
    assert torch.autograd.gradcheck(channel, inputs)


def test_torch_is_loaded_by_its_own_module_only() -> None:
    code = "import wavecity.raytrace.channels, wavecity.raytrace.arrays, sys; print('torch' in sys.modules)"
    assert python(code) == "False"
