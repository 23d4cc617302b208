"""Materials by building, in the tracer: against Fresnel's coefficients of ITU-R P.2040's constants."""

from dataclasses import replace

import numpy as np
import pytest
from raytrace_helpers import SPEED_OF_LIGHT, box, mesh_of
from scipy.constants import epsilon_0

from wavecity.geo.scene import Materials, Mesh
from wavecity.raytrace.facades import with_windows
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.solver import ChainSolver
from wavecity.raytrace.world import World, build_world

FREQUENCY = 28.5e9
# ITU-R P.2040-3, table 3: a, b, c, d of permittivity a f^b and conductivity c f^d, f in GHz.
P2040 = {
    "concrete": (5.24, 0, 0.0462, 0.7822), "brick": (3.91, 0, 0.0238, 0.16), "glass": (6.31, 0, 0.0036, 1.3394),
    "wood": (1.99, 0, 0.0047, 1.0718), "marble": (7.074, 0, 0.0055, 0.9262), "metal": (1, 0, 1e7, 0),
}  # fmt: skip
# Two houses of one row: their fronts are one plane.
ROW = [(box(-20, -10, 40, 20), 20.0), (box(20, -10, 40, 20), 20.0)]
SOURCE = np.array([-10.0, 30.0, 10.0])


def constants(name: str) -> tuple[float, float]:
    a, b, c, d = P2040[name]
    return a * 28.5**b, c * 28.5**d


def permittivity(value: tuple[float, float]) -> complex:
    return complex(value[0], -value[1] / (2 * np.pi * FREQUENCY * epsilon_0))


def fresnel(eta: complex, angle: np.ndarray, polarisation: str = "TE") -> np.ndarray:
    """Of a half-space."""
    root = np.sqrt(eta - np.sin(angle) ** 2)
    weight = 1 if polarisation == "TE" else eta
    return (weight * np.cos(angle) - root) / (weight * np.cos(angle) + root)


def slab(eta: complex, angle: np.ndarray) -> np.ndarray:
    """TE, of a layer of 10 cm (P.2040-3, section 2.2.2)."""
    single = fresnel(eta, angle)
    turn = np.exp(-2j * 2 * np.pi * 0.1 * FREQUENCY / SPEED_OF_LIGHT * np.sqrt(eta - np.sin(angle) ** 2))
    return single * (1 - turn) / (1 - single**2 * turn)


def row_of(*walls: str, glass: tuple[float, float] = (0.0, 0.0)) -> Mesh:
    return replace(mesh_of(ROW), materials=Materials(wall=walls, roof=("", ""), glass=glass))


def reflections(world: World, users: np.ndarray) -> np.ndarray:
    """Gain of each user's reflection at the front, as a share of free space over the same length."""
    paths = ChainSolver(1, 20_000, los=False)(world, SOURCE, users)
    front = np.abs(paths.vertices[:, 0, 1]) < 1e-3
    order = np.argsort(paths.receiver[front])
    assert paths.receiver[front][order].tolist() == list(range(len(users)))
    free = SPEED_OF_LIGHT / FREQUENCY / (4 * np.pi * paths.length[front])
    return (np.abs(paths.coefficient[front]) / free)[order]


@pytest.mark.parametrize(("first", "second"), [("brick", "wood"), ("glass", "metal"), ("", "marble")])
def test_houses_of_a_row_reflect_as_their_own_walls_do(first: str, second: str) -> None:
    """At the height of the base station, so that both ends are polarised across the plane of incidence."""
    users = np.array([[x, 30.0, 10.0] for x in (-25, -15, -5, 2, 15, 25, 40, 60)], float)
    middle = (users[:, 0] + SOURCE[0]) / 2
    angle = np.arctan2(np.abs(users[:, 0] - SOURCE[0]) / 2, 30.0)
    names = np.where(middle < 0, first or "concrete", second)
    assert set(names) == {first or "concrete", second}
    expected = [np.abs(slab(permittivity(constants(name)), at)) for name, at in zip(names, angle, strict=True)]
    found = reflections(build_world(row_of(first, second), 200.0, RadioSettings()), users)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


def test_windows_reflect_as_the_mean_of_wall_and_glass() -> None:
    """The mean of the coefficients, which is exact head-on, holds for other angles of incidence nearly as well."""
    angle = np.deg2rad(np.arange(0, 81, 5))
    pane = permittivity(constants("glass"))
    for wall in ("concrete", "brick", "marble", "wood"):
        for share in (0.06, 0.22, 0.4):
            mixed = permittivity(with_windows(constants(wall), constants("glass"), share, FREQUENCY))
            most = 1.5 if wall == "wood" else 0.15
            for polarisation in ("TE", "TM"):
                solid = fresnel(permittivity(constants(wall)), angle, polarisation)
                mean = (1 - share) * solid + share * fresnel(pane, angle, polarisation)
                off = fresnel(mixed, angle, polarisation) - mean
                assert abs(off[0]) < 1e-9
                # dB, where what is reflected is not itself far below what is reflected head-on (near Brewster's angle).
                error = np.abs(20 * np.log10(np.abs(1 + off / mean)))
                strong = np.abs(mean) > 0.5 * np.abs(mean[0])
                assert error[strong].max() < most, (wall, share, polarisation, error.max())


def test_a_wall_with_windows_is_traced_as_the_mean() -> None:
    users = np.array([[-40.0, 30.0, 10.0], [30.0, 30.0, 10.0]])
    found = reflections(build_world(row_of("marble", "", glass=(0.0, 0.4)), 200.0, RadioSettings()), users)
    angle = np.arctan2(np.abs(users[:, 0] - SOURCE[0]) / 2, 30.0)
    marble, concrete, glass = (slab(permittivity(constants(name)), angle) for name in ("marble", "concrete", "glass"))
    np.testing.assert_allclose(found[0], np.abs(marble[0]), rtol=2e-3)
    np.testing.assert_allclose(found[1], np.abs(0.6 * concrete[1] + 0.4 * glass[1]), rtol=0.01)
    assert np.abs(glass[1] / concrete[1]) > 1.05


def test_edges_and_diffraction_remain() -> None:
    mixed = replace(mesh_of(ROW), materials=Materials(("brick", "wood"), ("metal", ""), (0.0, 0.3)))
    plain, own = (build_world(mesh, 200.0, RadioSettings()) for mesh in (mesh_of(ROW), mixed))
    assert own.surfaces.edges == plain.surfaces.edges > 0
    users = np.array([[0.0, -40.0, 1.5], [50.0, -25.0, 1.5]])
    solver = ChainSolver(2, 20_000, diffraction=True, tolerance=0.0)
    one, two = solver(plain, SOURCE, users), solver(own, SOURCE, users)
    np.testing.assert_array_equal(one.types, two.types)
    np.testing.assert_array_equal(one.vertices, two.vertices)
    assert (one.coefficient != two.coefficient).any()


def test_without_own_materials_all_is_the_recipes() -> None:
    radio = RadioSettings(wall_material="brick", roof_material="metal", ground_material="asphalt_concrete")
    plain = build_world(mesh_of(ROW), 200.0, radio).constants
    np.testing.assert_array_equal(build_world(row_of("", ""), 200.0, radio).constants, plain)


def test_a_material_without_a_model_at_the_carrier_is_the_recipes() -> None:
    """P.2040 describes brick up to 40 GHz, marble up to 60."""
    radio = RadioSettings(frequency=70e9, wall_material="wood")
    found, plain = (build_world(mesh, 200.0, radio).constants for mesh in (row_of("brick", "glass"), mesh_of(ROW)))
    assert plain is not None
    assert found is not None
    assert len(np.unique(found, axis=0)) == len(np.unique(plain, axis=0)) + 1
