"""`ChainPathSolver` in place of `sionna.rt.PathSolver`, on Sionna's own scenes: many shapes, open meshes, arrays."""

from typing import Any

import numpy as np
import pytest

from wavecity.raytrace import surfaces
from wavecity.raytrace.device import dr, mi, rt
from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.sionna_private import right_diffraction

ENDS = {
    "simple_street_canyon": ((-30.0, 0.0, 20.0), (20.0, 5.0, 1.5), 8.0),
    "box": ((0.0, 0.0, 1.0), (1.0, 1.0, 2.0), 0.8),
    "munich": ((8.5, 21.0, 27.0), (45.0, 90.0, 1.5), 30.0),
}


def link(name: str, receivers: int = 6, transmitters: int = 2, single: bool = False) -> Any:
    """A scene with arrays of two polarisations, turned panels and moving receivers."""
    scene = rt.load_scene(getattr(rt.scene, name))
    scene.frequency = 28e9
    scene.tx_array = rt.PlanarArray(num_rows=2, num_cols=2, pattern="tr38901", polarization="VH")
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=2, pattern="dipole", polarization="cross")
    if single:
        scene.tx_array = scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    source, centre, spread = ENDS[name]
    random = np.random.default_rng(0)
    for number in range(transmitters):
        place = [source[0] + 0.3 * number, source[1] - 0.2 * number, source[2] - 0.2 * number]
        scene.add(rt.Transmitter(f"tx-{number}", place, orientation=[0.3, 0.1, 0.0]))
    for number in range(receivers):
        x, y = random.uniform(-spread, spread, 2).tolist()
        place = [centre[0] + x, centre[1] + y, centre[2]]
        scene.add(rt.Receiver(f"rx-{number}", place, velocity=[3.0, 1.0, 0.0]))
    return scene


def table(paths: Any) -> dict[str, Any]:
    """Valid paths of synthetic arrays, one row each."""
    row = np.nonzero(paths.valid.numpy())
    types = np.moveaxis(paths.interactions.numpy(), 0, -1)[row]
    vertices = np.moveaxis(paths.vertices.numpy(), 0, -2)[row] * (types > 0)[..., None]
    coefficients = np.moveaxis(paths.a[0].numpy() + 1j * paths.a[1].numpy(), (1, 3), (3, 4))[row]
    angles = (paths.theta_t, paths.phi_t, paths.theta_r, paths.phi_r)
    return {
        "ends": np.stack(row[:2], axis=1),
        "types": types,
        "vertices": vertices,
        "coefficient": coefficients,
        "delay": paths.tau.numpy()[row],
        "doppler": paths.doppler.numpy()[row],
        "angles": np.stack([angle.numpy()[row] for angle in angles], axis=1),
    }


def partner(one: dict[str, Any], other: dict[str, Any]) -> np.ndarray:
    """For each path of one the path of the other with the same ends, types and vertices (5 cm), or -1."""
    result = np.full(len(one["ends"]), -1)
    for row in range(len(result)):
        same = (other["ends"] == one["ends"][row]).all(axis=1) & (other["types"] == one["types"][row]).all(axis=1)
        candidates = np.flatnonzero(same)
        gap = np.linalg.norm(other["vertices"][candidates] - one["vertices"][row], axis=-1).max(axis=-1)
        # Walls of two buildings may meet in one place, each with an edge of its own there.
        near = candidates[gap < 0.05]
        if len(near):
            off = np.abs(other["coefficient"][near] - one["coefficient"][row]).max(axis=(1, 2))
            result[row] = near[off.argmin()]
    return result


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("simple_street_canyon", {"refraction": False}),
        ("simple_street_canyon", {"refraction": True}),
        ("simple_street_canyon", {"refraction": False, "diffraction": True, "max_depth": 1}),
        ("simple_street_canyon", {"refraction": True, "specular_reflection": False, "los": False}),
        ("box", {"max_depth": 4, "refraction": False}),
        ("munich", {"samples_per_src": 100_000, "refraction": True, "max_depth": 2}),
        ("munich", {"samples_per_src": 100_000, "refraction": False, "diffraction": True, "max_depth": 1}),
    ],
)
def test_same_paths_as_the_stock_solver(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # The stock solver takes the edges of every building by itself, also where two touch.
    monkeypatch.setattr(surfaces, "merge_touching", lambda edges, *_: edges)
    scene, options = link(name), {"samples_per_src": 50_000} | options
    # With its coefficient of diffraction corrected: test_raytrace_utd.py says why.
    with right_diffraction():
        theirs = table(rt.PathSolver()(scene, **options))
    ours = table(ChainPathSolver()(scene, **options))
    match = partner(theirs, ours)
    assert len(match) >= 4
    assert (match >= 0).all()
    matched = {key: values[match] for key, values in ours.items()}
    np.testing.assert_allclose(matched["delay"], theirs["delay"], rtol=2e-6)
    np.testing.assert_allclose(matched["doppler"], theirs["doppler"], atol=0.5)
    turned = np.angle(np.exp(1j * (matched["angles"] - theirs["angles"])))
    assert np.quantile(np.abs(turned), 0.9) < 1e-4
    size = np.linalg.norm(theirs["coefficient"].reshape(len(match), -1), axis=1)
    error = np.linalg.norm((matched["coefficient"] - theirs["coefficient"]).reshape(len(match), -1), axis=1) / size
    # Where walls of two buildings meet the stock solver counts the path once for each edge: the one that ours is stands
    # for both.
    nearest = np.full(len(ours["delay"]), np.inf)
    np.minimum.at(nearest, match, error)
    alike = error == nearest[match]
    # The stock solver's vertices are float32: where fields change quickly with them (grazing incidence, a shadow's edge)
    # a few paths differ by more. And a wall's 10 cm are many wavelengths, so that what passes turns with the angle.
    assert np.median(error[alike]) < (1e-3 if options["refraction"] else 1e-4)
    assert np.quantile(error[alike], 0.9) < 2e-2
    stock = {key: values[alike] for key, values in theirs.items()}
    power = [np.bincount(t["ends"][:, 0], (np.abs(t["coefficient"]) ** 2).sum(axis=(1, 2)), 6) for t in (stock, ours)]
    reached = power[0] > 0
    assert (10 * np.log10(power[1][reached] / power[0][reached]) > -0.02).all()


def test_antennas_as_ends_of_their_own() -> None:
    scene = link("simple_street_canyon", receivers=3, transmitters=1)
    options = {"refraction": False, "synthetic_array": False, "samples_per_src": 100_000, "max_depth": 2}
    theirs, ours = rt.PathSolver()(scene, **options), ChainPathSolver()(scene, **options)
    assert ours.a[0].shape[:-1] == theirs.a[0].shape[:-1]
    frequencies = [-1e8, 0.0, 1e8]
    expected = theirs.cfr(frequencies=frequencies, normalize_delays=False, out_type="numpy")
    found = ours.cfr(frequencies=frequencies, normalize_delays=False, out_type="numpy")
    # Delays of both are float32: some hundredths of a radian.
    assert np.linalg.norm(found - expected) < 3e-2 * np.linalg.norm(expected)


def test_what_sionna_offers_on_paths_works() -> None:
    paths = ChainPathSolver()(link("simple_street_canyon"), samples_per_src=100_000)
    assert isinstance(paths, rt.Paths)
    coefficients, delays = paths.cir(num_time_steps=3, sampling_frequency=1e3, out_type="numpy")
    assert coefficients.shape[:5] == (6, 4, 2, 8, delays.shape[-1])
    assert paths.taps(bandwidth=1e8, l_min=0, l_max=9, out_type="numpy").shape[-1] == 10
    assert paths.concat(paths).valid.numpy().sum() == 2 * paths.valid.numpy().sum()


def test_strongest_first_and_the_same_every_time() -> None:
    scene = link("simple_street_canyon", receivers=12, single=True)
    options = {"samples_per_src": 50_000, "refraction": False, "diffraction": True, "max_depth": 2}
    first, second = (ChainPathSolver(memory=memory)(scene, **options) for memory in (512, 2))
    for name in ("a", "tau", "theta_r", "vertices"):
        one, two = (getattr(paths, name) for paths in (first, second))
        one, two = (one[0], two[0]) if name == "a" else (one, two)
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    power = first.a[0].numpy() ** 2 + first.a[1].numpy() ** 2
    assert (np.diff(power[:, 0, :, 0], axis=-1) <= 0).all()
    few = ChainPathSolver()(scene, max_num_paths_per_src=50, **options)
    assert few.valid.numpy().sum(axis=(0, 2)).tolist() == [50, 50]
    least = (few.a[0].numpy() ** 2 + few.a[1].numpy() ** 2)[:, 0, 0, 0]
    assert least[least > 0].min() >= np.sort(power[:, 0, 0, 0].ravel())[-50] * (1 - 1e-6)


def test_diffuse_and_free_edges_go_to_the_stock_solver() -> None:
    scene = link("simple_street_canyon", receivers=2, single=True)
    for material in scene.radio_materials.values():
        material.scattering_coefficient = 0.4
    options = {"samples_per_src": 2_000, "diffuse_reflection": True, "refraction": False, "seed": 3}
    ours, stock = (solver(deterministic=True)(scene, **options) for solver in (ChainPathSolver, rt.PathSolver))
    assert (ours.interactions.numpy() == 2).any()
    np.testing.assert_array_equal(ours.valid.numpy().sum(), stock.valid.numpy().sum())


def test_gradients_of_materials_are_kept() -> None:
    scene = link("simple_street_canyon", receivers=4, transmitters=1, single=True)

    def slope(solver: Any) -> float:
        material = next(iter(scene.radio_materials.values()))
        value = dr.detach(mi.Float(material.conductivity))
        dr.enable_grad(value)
        material.conductivity = value
        paths = solver(scene, refraction=False, los=False, max_depth=1, samples_per_src=100_000)
        real, imaginary = paths.a
        dr.backward(dr.sum(real.array**2 + imaginary.array**2) * 1e9)
        return float(dr.grad(value)[0])

    ours, stock = ChainPathSolver(), rt.PathSolver()
    ours.loop_mode = stock.loop_mode = "evaluated"
    assert abs(slope(ours)) > 0
    assert slope(ours) == pytest.approx(slope(stock), rel=1e-3)


def test_nothing_to_find() -> None:
    scene = link("box", receivers=2)
    assert ChainPathSolver()(scene, los=False, max_depth=0).a[0].shape[-1] == 0
    assert ChainPathSolver()(scene, los=False, specular_reflection=False, refraction=False).a[0].shape[-1] == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_depth": -1}, ValueError, "`max_depth` must be at least 0, not -1"),
        ({"samples_per_src": 1.5}, TypeError, "`samples_per_src` must be an integer, not 1.5"),
        ({"seed": True}, TypeError, "`seed` must be an integer, not True"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ChainPathSolver()(link("box", 1, 1), **options)
    with pytest.raises(TypeError, match=r"`scene` must be an instance of sionna.rt.Scene, not str"):
        ChainPathSolver()("munich")
