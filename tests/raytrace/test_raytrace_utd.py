"""Diffraction against the theory: an own UTD in NumPy, continuity, reciprocity, the knife edge."""

import numpy as np
import pytest
from numpy.typing import NDArray
from raytrace_helpers import BLOCKS, SPEED_OF_LIGHT, box, users_around, world_of
from scipy.special import fresnel
from utd import Wedge, coefficient, dyad, point_on_edge, wedge_of_block

from wavecity.geo.errors import InputError
from wavecity.raytrace import sionna_private
from wavecity.raytrace.device import dr, load, load_rows, mi, rt
from wavecity.raytrace.diffuse import diffuse_paths
from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.stock import place_link, trace_link
from wavecity.raytrace.utd import diffraction_matrix
from wavecity.raytrace.world import material_properties

WAVELENGTH = SPEED_OF_LIGHT / 28.5e9
# Relative permittivity: of a conductor so good that it is perfect, of concrete at 28.5 GHz, of dry wood.
MATERIALS = {"conductor": 1 - 1e7j, "concrete": 5.24 - 0.4j, "wood": 1.99 - 0.3j}
THICK = 1.0


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def cases(count: int, seed: int) -> list[tuple[Wedge, NDArray[np.float64], NDArray[np.float64]]]:
    """Wedges of 30 to 170 degrees turned anyhow, sources that light face 0, receivers anywhere outside, oblique ways."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        interior = rng.uniform(np.radians(30), np.radians(170))
        turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        # Face 0 along x, its normal z, the outside from 0 to 2 pi - interior about -y.
        angles = rng.uniform([0.03, 0.03], [np.pi - 0.03, 2 * np.pi - interior - 0.03])
        radii, heights = rng.uniform(3, 60, 2), rng.uniform(-25, 25, 2)
        ends = np.stack([radii * np.cos(angles), heights, radii * np.sin(angles)], axis=1) @ turn.T
        behind = 2 * np.pi - interior
        normal_n = np.array([np.sin(behind), 0, -np.cos(behind)])
        wedge = Wedge(np.zeros(3), turn @ [0, 1.0, 0], turn @ [0, 0, 1.0], turn @ normal_n)
        found.append((wedge, *ends))
    return found


def jones_of(
    some: list[tuple[Wedge, NDArray[np.float64], NDArray[np.float64]]], permittivity: complex
) -> NDArray[np.complex128]:
    """Ours for many cases (N, 2, 2): from (theta, phi) at the edge to (theta, phi) beyond it."""
    material = rt.RadioMaterial("of the test", thickness=THICK, relative_permittivity=2.0, conductivity=0.0)
    points = np.stack([point_on_edge(*case) for case in some])
    before, after = (np.stack([case[1] for case in some]), np.stack([case[2] for case in some]))
    s_source, s = np.linalg.norm(points - before, axis=1), np.linalg.norm(after - points, axis=1)
    incident, outgoing = unit(points - before), unit(after - points)
    # Sionna's frame: z is the normal of face 0, x and y anyhow.
    z = np.stack([case[0].normal_0 for case in some])
    x = unit(np.cross(z, np.tile([0.3, -0.5, 0.8], (len(some), 1))))
    frame = np.stack([x, np.cross(z, x), z], axis=1)
    # Sionna's orientation of an edge: normal x edge points along face 0.
    edges = np.stack([np.cross(np.cross(case[0].normal_0, case[0].axis), case[0].normal_0) for case in some])

    def local(vectors: NDArray[np.float64]) -> mi.Vector3f:
        return load_rows(mi.Vector3f, np.einsum("nij,nj->ni", frame, vectors))

    interaction = dr.zeros(mi.SurfaceInteraction3f, len(some))
    interaction.dn_du = local(edges)
    interaction.dn_dv = local(np.stack([case[0].normal_n for case in some]))
    interaction.dp_du = mi.Vector3f(load(mi.Float, s), load(mi.Float, s_source), 0)
    columns = [load_rows(mi.Vector3f, frame[:, axis]) for axis in range(3)]
    to_world = mi.Matrix3f(*[[columns[j][i] for j in range(3)] for i in range(3)])
    matrix = diffraction_matrix(
        material,
        to_world,
        local(incident),
        local(outgoing),
        interaction,
        mi.Complex2f(permittivity.real, permittivity.imag),
        mi.Float(2 * np.pi / WAVELENGTH),
    )
    blocks = np.moveaxis(np.array(matrix), -1, 0)
    return blocks[:, :2, :2] + 1j * blocks[:, 2:, :2]


def bases(direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """Theta and phi of a direction of propagation, as rows."""
    azimuth = direction[:2] / np.hypot(*direction[:2])
    phi = np.array([-azimuth[1], azimuth[0], 0])
    return np.stack([np.cross(phi, direction), phi])


@pytest.mark.parametrize("material", MATERIALS)
def test_coefficient_is_that_of_the_papers(material: str) -> None:
    """All four polarisations, wedges of any angle, oblique incidence: 0.1 dB and 0.02 rad."""
    some = cases(400, 1)
    found = jones_of(some, MATERIALS[material])
    permittivity = None if material == "conductor" else MATERIALS[material]
    expected = []
    for wedge, source, receiver in some:
        point = point_on_edge(wedge, source, receiver)
        whole = dyad(wedge, source, receiver, WAVELENGTH, permittivity)
        expected.append(bases(unit(receiver - point)) @ whole @ bases(unit(point - source)).T)
    # What a polarisation lacks is compared with what the ray carries in all.
    size = np.linalg.norm(expected, axis=(1, 2))
    error = np.linalg.norm(found - np.array(expected), axis=(1, 2)) / size
    assert np.quantile(error, 0.99) < 10 ** (0.1 / 20) - 1
    assert np.median(error) < 1e-3


@pytest.mark.parametrize("material", ["concrete", "metal"])
def test_paths_of_a_block_have_it(material: str) -> None:
    """Source and receivers around a block, V to V, through the whole solver."""
    radio = RadioSettings(wall_material=material, roof_material=material)
    source, rng = np.array([45.0, 30.0, 12.0]), np.random.default_rng(0)
    receivers = rng.uniform([-70, -70, 1.5], [70, 70, 40], (300, 3))
    receivers = receivers[(np.abs(receivers[:, :2]) > 22).any(axis=1)]
    paths = ChainSolver(1, 20_000, diffraction=True)(world_of([(box(0, 0, 40, 40), 30.0)], radio), source, receivers)
    real, conductivity = material_properties("wall_material", material, radio.frequency)
    permittivity = real - 1j * conductivity / (2 * np.pi * radio.frequency * 8.8541878128e-12)
    ratios = []
    for row in np.flatnonzero(paths.types[:, 0] == rt.InteractionType.DIFFRACTION):
        wedge = wedge_of_block(paths.vertices[row, 0], 20, 30, source)
        expected = coefficient(wedge, source, receivers[paths.receiver[row]], WAVELENGTH, permittivity)
        ratios.append(paths.coefficient[row] / expected)
    assert len(ratios) > 300
    error = np.abs(20 * np.log10(np.abs(ratios)))
    assert np.median(error) < 0.01
    # Along a face the field vanishes, and what is left of it is rounding.
    assert np.quantile(error, 0.98) < 0.1
    assert np.quantile(np.abs(np.angle(ratios)), 0.98) < 0.02


def total(paths: Paths, count: int) -> NDArray[np.complex128]:
    """Sum of the paths of each receiver, with their phases."""
    phases = np.exp(-2j * np.pi * paths.length / WAVELENGTH)
    values = paths.coefficient * phases
    return np.bincount(paths.receiver, values.real, count) + 1j * np.bincount(paths.receiver, values.imag, count)


@pytest.mark.parametrize("material", ["concrete", "metal"])
@pytest.mark.parametrize("height", [20.0, 26.0])
def test_the_total_field_is_continuous_across_every_boundary(material: str, height: float) -> None:
    """Receivers on a circle about an edge: direct, reflected and diffracted rays come and go, their sum does not jump.

    Sionna RT 2.2.0 jumps by two where the reflected ray ends.
    """
    radio = RadioSettings(wall_material=material, roof_material=material)
    world = world_of([(box(-50, -50, 100, 100), 400.0)], radio)  # one edge, at the origin, far from roof and ground
    # Where the direct ray is shadowed, and where the reflected one begins: 80 places 30 to 40 um apart about each.
    boundary = np.degrees(np.arctan2([-3.0, 3.0], 6.0))[:, None]
    angles = np.radians(boundary + 2.3e-4 * (np.arange(-40, 40) + 0.37)).ravel()
    receivers = np.stack([9 * np.cos(angles), 9 * np.sin(angles), np.full(len(angles), 220.0)], axis=1)
    source = np.array([-6.0, 3.0, 200.0 + height])
    paths = ChainSolver(1, 20_000, diffraction=True)(world, source, receivers)
    # The ground is 200 m away, and its reflection another wave: none of this edge.
    # Sionna's image method takes points up to 2 mm beyond the end of a face for reflections.
    beyond = (paths.types[:, 0] == rt.InteractionType.SPECULAR) & (paths.vertices[:, 0, 0] > 0)
    kept = paths.select((paths.length < 60) & ~beyond)
    field = total(kept, len(receivers))
    # Relative to the direct wave, and of steps within each group. A missing or doubled ray would be a jump of the size of
    # the direct or of the reflected field.
    distance = np.linalg.norm(receivers - source, axis=1)
    relative = field * np.exp(2j * np.pi * distance / WAVELENGTH) / (WAVELENGTH / (4 * np.pi * distance))
    jumps = np.abs(np.diff(relative.reshape(2, -1), axis=1))
    lit = np.bincount(kept.receiver, minlength=len(receivers)).reshape(2, -1)
    assert (lit[:, 0] != lit[:, -1]).all()  # a ray does end there
    assert jumps.max() < 0.03


def test_diffraction_loss_is_near_that_of_the_knife_edge() -> None:
    """ITU-R P.526-15, eq. (31): 6 dB where the edge is grazed; a wedge of 90 degrees departs from it deeper in the shadow."""
    world = world_of([(box(-50, -50, 100, 100), 400.0)])
    across, outward = np.array([-1.0, 1.0, 0.0]) / np.sqrt(2), np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    up = np.array([0.0, 0.0, 200.0])
    solver = ChainSolver(1, 20_000, diffraction=True)
    losses, knife = [], []
    for depth in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2):
        source, receiver = 60 * across - depth * outward + up, -60 * across - depth * outward + up
        paths = solver(world, source, receiver[None])
        edge = paths.select((paths.types[:, 0] == rt.InteractionType.DIFFRACTION) & (paths.length < 125))
        assert len(edge) == 1
        free = WAVELENGTH / (4 * np.pi * np.linalg.norm(source - receiver))
        losses.append(-20 * np.log10(np.abs(edge.coefficient[0]) / free))
        nu = depth * np.sqrt(2 / WAVELENGTH * (2 / 60))
        sine, cosine = fresnel(nu)
        knife.append(-20 * np.log10(np.abs((1 + 1j) / 2 * ((0.5 - cosine) - 1j * (0.5 - sine)))))
    difference = np.array(losses) - knife
    assert abs(losses[0] - 6.02) < 0.1
    assert (np.diff(losses) > 0).all()
    assert np.abs(difference).max() < 0.5


def test_reciprocity_of_diffracted_paths() -> None:
    """Swapping the ends changes a diffracted amplitude by little, in the median by less than a percent."""
    world = world_of(BLOCKS)
    solver = ChainSolver(1, 20_000, diffraction=True)
    source = np.array([0.0, 100.0, 15.0])
    ratios = []
    for user in users_around(BLOCKS, 20, seed=4).astype(np.float64):
        there, back = solver(world, source, user[None]), solver(world, user, source[None])
        gap = np.abs(there.length[:, None] - back.length)
        gap[(there.types[:, None] != back.types).any(-1)] = np.inf
        pair = gap.argmin(axis=1)
        edges = there.types[:, 0] == rt.InteractionType.DIFFRACTION
        ratios += list(np.abs(back.coefficient[pair] / there.coefficient)[edges])
    assert len(ratios) > 50
    assert np.median(np.abs(np.log(ratios))) < 0.01


def test_an_unknown_release_is_refused_where_diffraction_is_wanted() -> None:
    with (
        pytest.raises(InputError, match=r"^sionna-rt 2\.2\.9: its diffraction coefficient has not been checked"),
        sionna_private.right_diffraction("2.2.9"),
    ):
        pass
    before = rt.RadioMaterial._diffraction_matrix
    with sionna_private.right_diffraction():
        assert rt.RadioMaterial._diffraction_matrix is diffraction_matrix
    assert rt.RadioMaterial._diffraction_matrix is before


def test_nothing_of_ours_uses_the_coefficient_of_sionna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not our solver, and not the stock solver either where calls or diffuse paths are left to it."""

    def refused(*_: object) -> None:
        msg = "Sionna's own diffraction coefficient was used"
        raise RuntimeError(msg)

    world = world_of(BLOCKS, RadioSettings(scattering=0.3))
    source, users = np.array([0.0, 100.0, 25.0]), users_around(BLOCKS, 4)
    solver = ChainSolver(2, 2000, diffraction=True)
    monkeypatch.setattr(rt.RadioMaterial, "_diffraction_matrix", refused)
    assert (solver(world, source, users).types == rt.InteractionType.DIFFRACTION).any()
    diffuse_paths(world, source, users, solver, 2000)
    place_link(world, source, users)
    options = {"max_depth": 2, "samples_per_src": 2000, "diffraction": True}
    ChainPathSolver()(world.scene, **options, diffuse_reflection=True)
    # Dr.Jit passes it on from within a loop as one of its own.
    with pytest.raises(RuntimeError):
        trace_link(world, corrected=False, **options)
