"""What must hold whatever solves it: Friis, two-ray, reciprocity, materials, diffraction, occlusion."""

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError
from raytrace_helpers import BLOCKS, SOURCE, SPEED_OF_LIGHT, blocked, box, stock_paths, users_around, world_of

from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import Material, RadioSettings
from wavecity.raytrace.solver import ChainSolver, line_of_sight
from wavecity.raytrace.stock import partners, stock_table
from wavecity.raytrace.world import material_properties

FREQUENCY = 28.5e9
WAVELENGTH = SPEED_OF_LIGHT / FREQUENCY
# ITU-R P.2040 table 3: eps = a f^b, sigma = c f^d, f in GHz.
ITU = {
    "concrete": (5.24, 0.0, 0.0462, 0.7822),
    "brick": (3.91, 0.0, 0.0238, 0.16),
    "metal": (1.0, 0.0, 1e7, 0.0),
    "glass": (6.31, 0.0, 0.0036, 1.3394),
}


def slab_reflection(material: str, cosine: np.ndarray, thickness: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """TE and TM reflection of a slab in air (ITU-R P.2040 eqs. 37, 41-43)."""
    a, b, c, d = ITU[material]
    gigahertz = FREQUENCY / 1e9
    permittivity = a * gigahertz**b - 17.98j * c * gigahertz**d / gigahertz
    root = np.sqrt(permittivity - (1 - cosine**2))
    te = (cosine - root) / (cosine + root)
    tm = (permittivity * cosine - root) / (permittivity * cosine + root)
    turn = np.exp(-2j * 2 * np.pi * thickness / WAVELENGTH * root)
    return te * (1 - turn) / (1 - te**2 * turn), tm * (1 - turn) / (1 - tm**2 * turn)


def test_free_space_is_friis_and_delay_is_distance_over_c() -> None:
    world = world_of([])
    users = SOURCE + np.array([[0, -d, 0] for d in (1.0, 10.0, 20.0, 40.0, 80.0)])
    paths = ChainSolver(0, 1000)(world, SOURCE, users)
    assert (paths.types == 0).all()
    distance = np.linalg.norm(users - SOURCE, axis=1)
    np.testing.assert_allclose(paths.length, distance, rtol=1e-12)
    np.testing.assert_allclose(np.abs(paths.coefficient), WAVELENGTH / (4 * np.pi * distance), rtol=1e-5)
    decibels = 20 * np.log10(np.abs(paths.coefficient))
    np.testing.assert_allclose(np.diff(decibels[1:]), -20 * np.log10(2), atol=1e-4)


@pytest.mark.parametrize("material", ["concrete", "metal", "glass"])
def test_open_ground_is_the_two_ray_model(material: str) -> None:
    world = world_of([], RadioSettings(ground_material=material))
    users = np.array([[0.0, 100 - d, 1.5] for d in (5, 20, 50, 100, 180)])
    paths = ChainSolver(1, 10_000)(world, SOURCE, users)
    assert np.bincount(paths.receiver).tolist() == [2] * 5
    horizontal = 100 - users[:, 1]
    direct, bounced = np.hypot(horizontal, 13.5), np.hypot(horizontal, 16.5)
    _, tm = slab_reflection(material, 16.5 / bounced)
    wave = 2 * np.pi / WAVELENGTH
    expected = WAVELENGTH / (4 * np.pi) * np.stack([1 / direct, tm / bounced])
    total = np.abs((expected * np.exp(-1j * wave * np.stack([direct, bounced]))).sum(axis=0))
    # Grazing angles magnify the rounding of Sionna's float32 directions; the phases are exact.
    ours = paths.coefficient.reshape(5, 2)
    np.testing.assert_allclose(np.abs(ours[:, 1]), np.abs(expected[1]), rtol=2e-3)
    phased = (ours * np.exp(-1j * wave * paths.length.reshape(5, 2))).sum(axis=1)
    np.testing.assert_allclose(np.abs(phased), total, rtol=5e-3)


def test_each_surface_has_its_own_material() -> None:
    """One mesh, three materials: a wall, a roof and the ground reflect by their own Fresnel coefficients."""
    radio = RadioSettings(wall_material="metal", roof_material="glass", ground_material="brick")
    world = world_of([(box(0, 0, 40, 40), 10.0)], radio)
    source = np.array([0.0, 60.0, 30.0])
    users = np.array([[1.0, 30.0, 2.0], [0.5, 0.0, 14.0], [30.0, 70.0, 2.0]])
    paths = ChainSolver(1, 10_000, los=False)(world, source, users)
    normal = {"wall": [0, 1, 0], "roof": [0, 0, 1], "ground": [0, 0, 1]}
    materials = {"wall": "metal", "roof": "glass", "ground": "brick"}
    seen = set()
    for row in range(len(paths)):
        point = paths.vertices[row, 0]
        name = "ground" if point[2] < 0.01 else "roof" if point[2] > 9.99 else "wall"
        into = (point - source) / np.linalg.norm(point - source)
        te, tm = slab_reflection(materials[name], np.abs(np.dot(normal[name], into)))
        size = np.abs(paths.coefficient[row]) / (WAVELENGTH / (4 * np.pi * paths.length[row]))
        if name == "wall":
            # Near-vertical field at a wall is mostly TE: between the two in any case.
            assert min(abs(te), abs(tm)) * 0.9 < size < max(abs(te), abs(tm)) * 1.001
        else:
            # A vertical plane of incidence: pure TM.
            np.testing.assert_allclose(size, abs(tm), rtol=2e-3)
        seen.add(name)
    assert seen == {"wall", "roof", "ground"}


def test_material_without_a_model_at_the_frequency_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"radio\.ground_material: asphalt_concrete .* 60 GHz"):
        material_properties("ground_material", "asphalt_concrete", 60e9)


@pytest.mark.parametrize("material", get_args(Material))
def test_the_recipe_refuses_the_frequencies_for_which_sionna_has_no_model(material: str) -> None:
    for frequency in (1.5e9, 28.5e9, 39.9e9, 40.1e9, 59.9e9, 60.1e9, 99e9):
        try:
            material_properties("ground_material", material, frequency)
        except InputError:
            with pytest.raises(ValidationError, match=material):
                RadioSettings(frequency=frequency, ground_material=material)
        else:
            RadioSettings(frequency=frequency, ground_material=material)


@pytest.mark.parametrize("diffraction", [False, True])
def test_reciprocity(diffraction: bool) -> None:
    """Swapping the ends leaves delays and gains as they are; those of diffracted paths nearly.

    At oblique incidence the heuristic for finite conductivity turns polarisations by the way that the ray is followed.
    """
    world = world_of(BLOCKS)
    solver = ChainSolver(2, 100_000, diffraction=diffraction)
    compared, changes = 0, [0.0]
    for user in users_around(BLOCKS, 8, seed=4).astype(np.float64):
        there, back = solver(world, SOURCE, user[None]), solver(world, user, SOURCE[None])
        assert len(there) == len(back)
        if not len(there):
            continue
        gap = np.abs(there.length[:, None] - back.length)
        gap[(np.sort(there.types, axis=1)[:, None] != np.sort(back.types, axis=1)).any(-1)] = np.inf
        partner = gap.argmin(axis=1)
        assert (gap[np.arange(len(there)), partner] < 1e-9).all()
        pure = (there.types != 8).all(axis=1)
        np.testing.assert_allclose(np.abs(back.coefficient[partner])[pure], np.abs(there.coefficient)[pure], rtol=1e-3)
        ratio = np.abs(back.coefficient[partner] / there.coefficient)[~pure]
        changes += list(np.abs(20 * np.log10(ratio)))
        compared += len(there)
    assert compared > (60 if diffraction else 10)
    assert np.quantile(changes, 0.9) < 1


def test_diffraction_needs_welded_meshes() -> None:
    users = users_around(BLOCKS, 20)
    solver = ChainSolver(1, 20_000, diffraction=True)
    welded = solver(world_of(BLOCKS), SOURCE, users)
    unwelded = solver(world_of(BLOCKS, welded=False), SOURCE, users)
    assert (welded.types == 8).sum() > 50
    assert (unwelded.types == 8).sum() == 0


def test_materials_that_differ_do_not_cost_edges() -> None:
    users = users_around(BLOCKS, 20)
    solver = ChainSolver(1, 20_000, diffraction=True)
    one = solver(world_of(BLOCKS), SOURCE, users)
    two = solver(world_of(BLOCKS, RadioSettings(roof_material="metal")), SOURCE, users)
    assert (two.types == 8).sum() == (one.types == 8).sum()
    np.testing.assert_allclose(np.sort(two.length), np.sort(one.length))


def test_diffraction_point_obeys_keller() -> None:
    paths = ChainSolver(1, 20_000, diffraction=True)(world_of(BLOCKS), SOURCE, users_around(BLOCKS, 20))
    world = world_of(BLOCKS)
    rows = np.flatnonzero(paths.types[:, 0] == 8)
    along = world.surfaces.edge_direction[paths.elements[rows, 0] - world.surfaces.planes]
    into, out = paths.departure[rows], -paths.arrival[rows]
    np.testing.assert_allclose((into * along).sum(1), (out * along).sum(1), atol=1e-9)


def test_line_of_sight_equals_an_independent_occlusion_test() -> None:
    world, users = world_of(BLOCKS), users_around(BLOCKS, 300)
    surfaces = world.surfaces
    expected = ~blocked(np.tile(SOURCE, (300, 1)), users.astype(np.float64), surfaces.vertices[surfaces.faces])
    assert 0.2 < expected.mean() < 0.95
    assert (line_of_sight(world, SOURCE, users) == expected).all()


@pytest.mark.parametrize("material", ["glass", "brick", "concrete"])
def test_refraction_through_a_building_is_two_slabs(material: str) -> None:
    """Straight through two parallel walls: twice the slab's transmission at normal incidence, none of its reflections."""
    radio = RadioSettings(wall_material=material)  # type: ignore[arg-type]
    world = world_of([(box(0, 0, 40, 10), 30.0)], radio)
    source, user = np.array([0.0, 60.0, 10.0]), np.array([[0.0, -40.0, 10.0]])
    paths = ChainSolver(2, 10_000, specular=False, refraction=True)(world, source, user)
    assert paths.types.tolist() == [[4, 4]]
    np.testing.assert_allclose(paths.vertices[0, :, 1], [5.0, -5.0], atol=1e-9)
    assert paths.length[0] == pytest.approx(100.0, abs=1e-9)

    # ITU-R P.2040 eq. 43: a slab of 10 cm with Fresnel coefficient r and electrical thickness q.
    a, b, c, d = ITU[material]
    eta = a * (FREQUENCY / 1e9) ** b - 17.98j * c * (FREQUENCY / 1e9) ** (d - 1)
    r = (1 - np.sqrt(eta)) / (1 + np.sqrt(eta))
    q = 2 * np.pi / WAVELENGTH * 0.1 * np.sqrt(eta)
    slab = (1 - r**2) * np.exp(-1j * q) / (1 - r**2 * np.exp(-2j * q))
    friis = WAVELENGTH / (4 * np.pi * 100.0)
    assert abs(paths.coefficient[0]) == pytest.approx(friis * abs(slab) ** 2, rel=2e-3)


def test_paths_through_walls_come_with_reflections() -> None:
    """Every order of reflections and walls passed, as the stock solver finds them."""
    # The stock solver sends rays through a wall as often as power goes: through concrete hardly ever.
    world = world_of(BLOCKS, RadioSettings(wall_material="brick", roof_material="brick"))
    users = users_around(BLOCKS, 25)
    theirs = stock_table(stock_paths(world, SOURCE, users, max_depth=3, refraction=True), world)
    ours = ChainSolver(3, 100_000, refraction=True)(world, SOURCE, users)
    partner = partners(theirs, ours, world)
    assert (partner >= 0).all()
    through = (theirs["types"] == 4).any(axis=1)
    assert through.sum() > 20
    assert ((theirs["types"] == 4).any(axis=1) & (theirs["types"] == 1).any(axis=1)).sum() > 5
    matched = ours.select(partner)
    np.testing.assert_allclose(matched.length, theirs["length"], atol=2e-4)
    size = np.abs(theirs["coefficient"][:, 0])
    difference = np.abs(matched.coefficient - theirs["coefficient"][:, 0]) / size
    assert np.median(difference) < 1e-3


@pytest.mark.filterwarnings("error")
def test_a_receiver_at_the_source_has_no_direct_path_and_keeps_its_reflections() -> None:
    users = SOURCE + np.array([[0.0, 0.0, 0.0], [0.0, -10.0, 0.0]])
    direct = ChainSolver(0, 1000)(world_of([]), SOURCE, users)
    assert direct.receiver.tolist() == [1]
    paths = ChainSolver(1, 1000)(world_of([]), SOURCE, users)
    here = paths.receiver == 0
    # Straight down to the ground, 15 m below, and back.
    assert paths.length[here].tolist() == [30.0]
    np.testing.assert_allclose(paths.departure[here], [[0, 0, -1]], atol=1e-12)
    assert np.isfinite(paths.coefficient).all()
    expected = WAVELENGTH / (4 * np.pi * 30) * np.abs(slab_reflection("concrete", np.array(1.0))[0])
    np.testing.assert_allclose(np.abs(paths.coefficient[here]), expected, rtol=1e-4)
