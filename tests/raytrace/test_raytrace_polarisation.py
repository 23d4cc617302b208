"""Polarisations at both ends: fields equal to those of Sionna's own solver with its arrays."""

from dataclasses import fields

import numpy as np
import pytest
from raytrace_helpers import BLOCKS, SOURCE, mesh_of, scene_of, users_around

from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import Channels
from wavecity.raytrace.device import rt
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import ONE_AT_A_TIME, panel_orientation, simulate, simulate_bands, simulate_csi
from wavecity.raytrace.world import build_world

USERS = users_around(BLOCKS, 8)
SOLVER = SolverSettings(max_depth=1, rays=20_000)


def stock_gains(radio: RadioSettings) -> tuple[np.ndarray, np.ndarray]:
    """Fields (user, its port, port of the base station, path) and delays (user, path) of Sionna's solver with its arrays."""
    with ONE_AT_A_TIME:
        scene = build_world(mesh_of(BLOCKS), 200.0, radio).scene
        one = {"num_rows": 1, "num_cols": 1}
        scene.tx_array = rt.PlanarArray(**one, pattern=radio.pattern, polarization=radio.polarisation)
        scene.rx_array = rt.PlanarArray(**one, pattern="iso", polarization=radio.user_polarisation)
        turned = [float(angle) for angle in panel_orientation(radio)]
        scene.add(rt.Transmitter("bs", [float(x) for x in SOURCE], orientation=turned))
        for number, user in enumerate(USERS):
            scene.add(rt.Receiver(f"user-{number}", [float(x) for x in user]))
        paths = rt.path_solvers.path_solver.PathSolver()(scene, max_depth=1, samples_per_src=20_000, refraction=False)
        field = paths.a[0].numpy() + 1j * paths.a[1].numpy()
        return field[:, :, 0], paths.tau.numpy()[:, 0]


@pytest.mark.parametrize(
    ("bs", "user", "downtilt"), [("VH", "VH", 0.0), ("cross", "cross", 0.0), ("H", "V", 10.0), ("cross", "H", 10.0)]
)
def test_fields_between_all_ports_are_those_of_sionna(bs: str, user: str, downtilt: float) -> None:
    radio = RadioSettings(polarisation=bs, user_polarisation=user, downtilt=downtilt, columns=2, rows=2)
    stock, delays = stock_gains(radio)
    found = simulate_bands(scene_of(BLOCKS, USERS), radio, SOLVER, 0)
    assert len(found) == len(radio.ports) == stock.shape[1] * stock.shape[2]
    compared = 0
    for (port, bs_port), (channels, _) in zip(radio.ports, found, strict=True):
        for number in range(len(USERS)):
            pairs = zip(delays[number], stock[number, port, bs_port], strict=True)
            theirs = {round(float(delay) * 1e11): field for delay, field in pairs if delay >= 0}
            for gain, delay in zip(channels.gain[number], channels.delay[number], strict=True):
                near = [field for at, field in theirs.items() if abs(at - float(delay) * 1e11) <= 1]
                if gain == 0 or len(near) != 1:
                    continue
                compared += 1
                assert abs(gain) == pytest.approx(abs(near[0]), rel=1e-3, abs=1e-9), number
    assert compared > 5


def test_two_ports_are_runs_of_their_own() -> None:
    scene, solver = scene_of(BLOCKS, USERS), SolverSettings(max_depth=2, rays=20_000, diffraction=True, tolerance=0.0)
    radio = RadioSettings(polarisation="VH", user_polarisation="VH", columns=2, rows=2)
    ends = [("V", "V"), ("V", "H"), ("H", "V"), ("H", "H")]
    for (user, bs), (channels, panel) in zip(ends, simulate_bands(scene, radio, solver, 0), strict=True):
        one = RadioSettings(polarisation=bs, user_polarisation=user, columns=2, rows=2)
        own, own_panel = simulate_csi(scene, one, solver, 0)
        for field in fields(Channels):
            np.testing.assert_array_equal(getattr(channels, field.name), getattr(own, field.name), field.name)
        np.testing.assert_array_equal(panel, own_panel)


def test_slanted_ports_follow_from_vertical_and_horizontal() -> None:
    """The matrix of a path in a base turned by 45 degrees at both ends."""
    scene, solver = scene_of(BLOCKS, USERS), SolverSettings(max_depth=0)
    straight, slanted = (
        simulate_bands(scene, RadioSettings(polarisation=name, user_polarisation=name), solver, 0)
        for name in ("VH", "cross")
    )
    # The direct path of users in sight, the only one: of V/H and H/V nothing arrives.
    seen = straight[0][0].los
    matrix, turned = (
        np.array([channels.gain[seen, 0] for channels, _ in found]).reshape(2, 2, -1) for found in (straight, slanted)
    )
    base = np.array([[1, -1], [1, 1]]) / np.sqrt(2)  # fields of -45 and +45 degrees in V and H
    np.testing.assert_allclose(
        turned, np.einsum("ua,abn,vb->uvn", base, matrix, base), rtol=0, atol=1e-5 * np.abs(turned).max()
    )
    assert seen.sum() >= 3


def test_diffuse_paths_have_ports() -> None:
    scene = scene_of(BLOCKS, USERS[:4])
    for method in ("patches", "rays"):
        solver = SolverSettings(max_depth=1, rays=5000, diffuse=True, diffuse_method=method, diffuse_rays=200)
        radio = RadioSettings(scattering=0.4, user_polarisation="VH", columns=1, rows=1)
        for user, (channels, _) in zip("VH", simulate_bands(scene, radio, solver, 0), strict=True):
            own = simulate(scene, radio.model_copy(update={"user_polarisation": user}), solver, 0)
            np.testing.assert_array_equal(channels.gain, own.gain)


def test_vertical_polarisation_is_not_written() -> None:
    assert not {"polarisation", "user_polarisation"} & RadioSettings().model_dump().keys()
    radio = RadioSettings(polarisation="cross")
    assert radio.model_dump()["polarisation"] == "cross"
    assert radio.ports == [(0, 0), (0, 1)]
    assert RadioSettings(**radio.model_dump(mode="json")) == radio


def test_what_knows_one_pair_refuses_several() -> None:
    with pytest.raises(InputError, match=r"V of users and VH of the base station are 2 pairs.*simulate_bands"):
        simulate(scene_of(BLOCKS, USERS), RadioSettings(polarisation="VH"), SOLVER, 0)
