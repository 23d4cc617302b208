"""What Sionna documents of `Paths.cir`, `cfr`, `taps` and `doppler`, on the paths of our solver and of its own."""

from typing import Any

import numpy as np
import pytest

from wavecity.raytrace.device import mi, rt
from wavecity.raytrace.path_solver import ChainPathSolver

SOLVERS = {"ours": ChainPathSolver, "stock": rt.PathSolver}
VELOCITIES = {"tx-0": (-20.0, 5.0, 1.0), "rx-1": (3.0, -8.0, 2.0), "reflector": (0.0, 0.0, 4.0)}
RATE, STEPS = 1e4, 4
TIMES: dict[str, Any] = {"sampling_frequency": RATE, "num_time_steps": STEPS}


def reflector() -> Any:
    """Two transmitters and two receivers over one plate, of which one link has no reflected path; things move."""
    scene = rt.load_scene(rt.scene.simple_reflector, merge_shapes=False)
    scene.tx_array = rt.PlanarArray(num_rows=2, num_cols=1, pattern="iso", polarization="V")
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="VH")
    scene.add(rt.Transmitter("tx-0", [-6.0, 0.1, 7.0]))
    scene.add(rt.Transmitter("tx-1", [-5.0, 0.4, 6.0]))
    scene.add(rt.Receiver("rx-0", [6.0, 0.2, 7.0]))
    scene.add(rt.Receiver("rx-1", [9.0, -9.0, 7.0]))
    for name, velocity in VELOCITIES.items():
        scene.get(name).velocity = velocity
    return scene


@pytest.fixture(scope="module", params=[(name, array) for name in SOLVERS for array in (True, False)], ids=str)
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Paths of a solver, and their arrays with the axes receiver, antenna, transmitter, antenna, path."""
    name, synthetic = request.param
    scene = reflector()
    options = {"max_depth": 1, "refraction": False, "samples_per_src": 10_000}
    paths = SOLVERS[name]()(scene, synthetic_array=synthetic, **options)
    each = (slice(None), None, slice(None), None) if synthetic else ()
    tau, doppler, valid = (getattr(paths, field).numpy()[each] for field in ("tau", "doppler", "valid"))
    assert sorted(valid.any(axis=(1, 3)).sum(axis=-1).ravel()) == [1, 1, 2, 2]
    a = (paths.a[0].numpy() + 1j * paths.a[1].numpy()) * valid
    turn = np.exp(2j * np.pi * doppler[..., None] * np.arange(STEPS) / RATE)
    carrier = float(scene.frequency[0])
    return {
        "paths": paths, "synthetic": synthetic, "tau": tau, "valid": valid, "a": a[..., None] * turn, "carrier": carrier
    }  # fmt: skip


def baseband(case: dict[str, Any], tau: np.ndarray) -> np.ndarray:
    """Coefficients at all times (last axis), turned by the carrier during the delay."""
    return case["a"] * np.exp(-2j * np.pi * case["carrier"] * tau.astype(float))[..., None]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def first_at_zero(case: dict[str, Any]) -> np.ndarray:
    """Delays of which the smallest of each link is 0."""
    tau = np.where(case["valid"], case["tau"], np.inf)
    return tau - tau.min(axis=(1, 3, 4), keepdims=True)


def test_cir_is_the_paths_with_carrier_and_doppler(case: dict[str, Any]) -> None:
    a, tau = case["paths"].cir(**TIMES, normalize_delays=False, out_type="numpy")
    assert relative(a, baseband(case, case["tau"])) < 1e-3
    np.testing.assert_array_equal(tau.reshape(case["tau"].shape), case["tau"])


def test_delays_begin_at_zero_for_each_link(case: dict[str, Any]) -> None:
    _, tau = case["paths"].cir(normalize_delays=True, out_type="numpy")
    expected = np.where(case["valid"], first_at_zero(case), -1.0)
    np.testing.assert_allclose(tau.reshape(expected.shape), expected, atol=1e-14)


def test_reverse_direction_exchanges_the_ends(case: dict[str, Any]) -> None:
    forth, delay = case["paths"].cir(**TIMES, out_type="numpy")
    back, same = case["paths"].cir(**TIMES, reverse_direction=True, out_type="numpy")
    np.testing.assert_allclose(back, np.transpose(forth, (2, 3, 0, 1, 4, 5)), rtol=1e-5)
    np.testing.assert_array_equal(same, np.transpose(delay, (1, 0, 2) if case["synthetic"] else (2, 3, 0, 1, 4)))


@pytest.mark.parametrize("normalize", [False, True])
def test_cfr_is_the_sum_over_paths(case: dict[str, Any], normalize: bool) -> None:
    frequencies = rt.subcarrier_frequencies(16, 1e6)
    found = case["paths"].cfr(frequencies, **TIMES, normalize_delays=False, normalize=normalize, out_type="numpy")
    phase = np.exp(-2j * np.pi * case["tau"][..., None].astype(float) * frequencies.numpy())
    expected = np.einsum("...pt,...pf->...tf", baseband(case, case["tau"]), phase * case["valid"][..., None])
    if normalize:
        power = (np.abs(found) ** 2).mean(axis=(1, 3, 4, 5))
        np.testing.assert_allclose(power, 1.0, rtol=1e-3)
        expected /= np.sqrt((np.abs(expected) ** 2).mean(axis=(1, 3, 4, 5), keepdims=True))
    assert relative(found, expected) < 1e-3


@pytest.mark.parametrize(("normalize", "from_zero"), [(False, False), (True, False), (False, True)])
def test_taps_are_samples_of_the_band_limited_channel(case: dict[str, Any], normalize: bool, from_zero: bool) -> None:
    bandwidth, first, last = 1e8, -3, 12
    found = case["paths"].taps(
        bandwidth, first, last, **TIMES, normalize=normalize, normalize_delays=from_zero, out_type="numpy"
    )
    tau = np.where(case["valid"], first_at_zero(case), 0) if from_zero else case["tau"]
    pulses = np.sinc(np.arange(first, last + 1) - bandwidth * tau[..., None].astype(float))
    expected = np.einsum("...pt,...pl->...tl", baseband(case, tau), pulses * case["valid"][..., None])
    if normalize:
        energy = (np.abs(expected) ** 2).sum(axis=-1).mean(axis=(1, 3, 4))
        expected /= np.sqrt(energy)[:, None, :, None, None, None]
    assert relative(found, expected) < 2e-3


@pytest.mark.parametrize("name", SOLVERS)
def test_doppler_is_the_rate_of_the_length(name: str) -> None:
    """Against the lengths of the same paths a moment later, with ends and reflector moved."""
    scene = reflector()
    options = {"max_depth": 1, "refraction": False, "samples_per_src": 10_000}

    def delays() -> dict[tuple[int, ...], tuple[float, float]]:
        paths = SOLVERS[name]()(scene, **options)
        delay, types, doppler = (getattr(paths, field).numpy() for field in ("tau", "interactions", "doppler"))
        link = zip(*np.nonzero(paths.valid.numpy()), strict=True)
        return {(r, t, int(types[0, r, t, p])): (float(delay[r, t, p]), float(doppler[r, t, p])) for r, t, p in link}

    step = 0.02
    before = delays()
    for thing, velocity in VELOCITIES.items():
        scene.get(thing).position += mi.Point3f(*(step * speed for speed in velocity))
    after = delays()
    assert len(before) == 6
    for key, (delay, doppler) in before.items():
        later, doppler_later = after[key]
        rate = -(later - delay) / step * float(scene.frequency[0])
        assert (doppler + doppler_later) / 2 == pytest.approx(rate, abs=1.5), key


def test_both_solvers_have_one_frequency_response() -> None:
    scene = reflector()
    options = {"max_depth": 1, "refraction": False, "samples_per_src": 10_000}
    frequencies = rt.subcarrier_frequencies(16, 1e6)
    ours, stock = (
        solver()(scene, **options).cfr(frequencies, **TIMES, out_type="numpy") for solver in SOLVERS.values()
    )
    assert relative(ours, stock) < 1e-3
