"""The tracer against analytic results and Sionna's own stock solver."""

import numpy as np
import pytest

from flows.recipe import load_recipe
from geo.build import build_scene
from geo.scene import Mesh
from geo.sources import open_source
from geo.tiles import plan_tiles
from raytrace import backend
from raytrace.arrays import SPEED_OF_LIGHT, beam_gain, best_beam, dft_codebook, spectrum
from raytrace.channels import csi
from raytrace.settings import RadioSettings, SolverSettings

backend.prepare(threads=2)

FREQUENCY = 28.5e9


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    recipe = load_recipe("quickstart")
    source = open_source(recipe.area, tmp_path_factory.mktemp("maps"))
    tile = next(t for t in plan_tiles(source, recipe.area, recipe.scene, recipe.seed) if t.status == "accepted")
    return build_scene(tile, source, recipe.scene, recipe.users, recipe.seed)


def trace(scene, **settings):
    from raytrace.simulate import simulate

    return simulate(scene, RadioSettings(), SolverSettings(rays=50_000, **settings), seed=1)


def test_line_of_sight_is_friis_and_arrives_with_light(scene):
    channels = trace(scene, max_depth=1)
    distance = np.linalg.norm(scene.users.astype(float) - scene.bs_position, axis=1)
    direct = (channels.gain != 0) & ~channels.interactions.any(-1)
    assert (direct.any(1) == channels.los).all()
    assert channels.los.sum() > 10
    user, path = np.nonzero(direct)
    friis = SPEED_OF_LIGHT / (4 * np.pi * FREQUENCY * distance[user])
    np.testing.assert_allclose(np.abs(channels.gain[user, path]), friis, rtol=1e-4)
    np.testing.assert_allclose(channels.delay[user, path], distance[user] / SPEED_OF_LIGHT, rtol=1e-6)


def test_line_of_sight_label_equals_triangle_by_triangle_occlusion(scene):
    """Moeller-Trumbore against every face, in float64."""
    mesh: Mesh = scene.mesh
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    blocked = []
    for user in scene.users.astype(float):
        d = user - scene.bs_position
        h = np.cross(d, c - a)
        det = np.einsum("ij,ij->i", b - a, h)
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.einsum("ij,ij->i", scene.bs_position - a, h) / det
            q = np.cross(scene.bs_position - a, b - a)
            v = q @ d / det
            t = np.einsum("ij,ij->i", c - a, q) / det
            blocked.append(((u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0) & (t < 1)).any())
    assert (trace(scene, max_depth=1).los == ~np.array(blocked)).all()


def test_csi_is_the_literal_sum_over_paths(scene):
    channels = trace(scene, max_depth=2)
    radio = RadioSettings(columns=6, rows=5)
    found = csi(channels, radio)
    user = int(channels.n_paths.argmax())
    # Panel faces south: x grows towards the east or the west, y downwards; spacing half a wavelength.
    zenith, azimuth = channels.aod_zenith[user].astype(float), channels.aod_azimuth[user].astype(float)
    k = np.stack([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)], -1)
    literal = np.zeros((6, 5), complex)
    for x in range(6):
        for y in range(5):
            r = np.array([0.5 * (x - 2.5), 0.0, -0.5 * (y - 2)])
            literal[x, y] = (channels.gain[user] * np.exp(2j * np.pi * (k @ r))).sum()
    np.testing.assert_allclose(found[user], literal, atol=1e-5 * np.abs(literal).max())


def test_diffraction_finds_paths_on_welded_meshes(scene):
    without, with_edges = trace(scene, max_depth=1), trace(scene, max_depth=1, diffraction=True)
    assert (with_edges.interactions == 8).any()
    assert with_edges.n_paths.sum() > without.n_paths.sum()
    assert with_edges.outage.sum() <= without.outage.sum()


def test_same_seed_same_channels(scene):
    one, two = trace(scene, max_depth=2), trace(scene, max_depth=2)
    np.testing.assert_array_equal(one.gain, two.gain)


def test_beam_label_is_the_brute_force_maximum_not_the_spectrum_s():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(9, 8, 6)) + 1j * rng.normal(size=(9, 8, 6))
    power = np.abs(np.einsum("uxy,jxy->uj", h.conj(), dft_codebook(8, 6))) ** 2
    np.testing.assert_array_equal(best_beam(h), power.argmax(-1))
    np.testing.assert_allclose(beam_gain(h).reshape(9, -1), power, rtol=1e-5)
    assert (spectrum(h).reshape(9, -1).argmax(-1) != power.argmax(-1)).any()


def test_spectrum_keeps_parseval():
    h = np.random.default_rng(1).normal(size=(3, 8, 8)) + 0j
    np.testing.assert_allclose(spectrum(h).sum((-2, -1)), 64 * (np.abs(h) ** 2).sum((-2, -1)), rtol=1e-5)
