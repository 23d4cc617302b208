"""Array geometry against Sionna's PlanarArray, beams against the literal codebook."""

import numpy as np
import pytest

from wavecity.raytrace.arrays import (
    beam_gain,
    best_beam,
    dft_codebook,
    direction,
    element_positions,
    panel_axes,
    spectrum,
    steering,
)
from wavecity.raytrace.channels import csi
from wavecity.raytrace.settings import RadioSettings


@pytest.mark.parametrize(("azimuth", "downtilt"), [(0.0, 0.0), (-90.0, 0.0), (-90.0, 12.0), (140.0, -30.0)])
def test_elements_are_where_sionna_puts_them(azimuth: float, downtilt: float) -> None:
    from wavecity.raytrace.device import mi, rt

    array = rt.PlanarArray(
        num_rows=3, num_cols=5, vertical_spacing=0.7, horizontal_spacing=0.7, pattern="iso", polarization="V"
    )
    angles = [float(np.deg2rad(angle)) for angle in (azimuth, downtilt, 0.0)]
    theirs = array.rotate(1.0, mi.Point3f(*angles)).numpy().T
    ours = element_positions(5, 3, 0.7, azimuth, downtilt)
    np.testing.assert_allclose(ours.reshape(-1, 3), theirs, atol=2e-6)


def test_a_panel_facing_south_counts_columns_eastward_and_rows_down() -> None:
    boresight, along_x, along_y = panel_axes(-90.0, 0.0)
    np.testing.assert_allclose(boresight, [0, -1, 0], atol=1e-12)
    np.testing.assert_allclose(along_x, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(along_y, [0, 0, -1], atol=1e-12)
    tilted, *_ = panel_axes(-90.0, 30.0)
    np.testing.assert_allclose(tilted, [0, -np.cos(np.pi / 6), -0.5], atol=1e-12)


def test_steering_is_the_phase_of_a_plane_wave() -> None:
    zenith, azimuth = np.array([1.8, 1.2]), np.array([-1.0, -2.0])
    vectors = steering(zenith, azimuth, 4, 3, 0.5, -90.0, 7.0)
    phase = element_positions(4, 3, 0.5, -90.0, 7.0) @ direction(zenith, azimuth).T
    np.testing.assert_allclose(vectors, np.moveaxis(np.exp(2j * np.pi * phase), -1, 0), atol=1e-12)


def test_best_beam_is_the_literal_argmax_and_not_the_spectrums() -> None:
    """Beam labels read straight off the spectrum are mirrored: the index trap."""
    random = np.random.default_rng(3)
    channel = random.normal(size=(200, 8, 4)) + 1j * random.normal(size=(200, 8, 4))
    book = dft_codebook(8, 4)
    literal = np.abs(np.einsum("uxy,kxy->uk", channel.conj(), book)) ** 2
    np.testing.assert_allclose(beam_gain(channel).reshape(200, -1), literal, rtol=1e-4)
    assert (best_beam(channel) == literal.argmax(axis=1)).all()
    naive = spectrum(channel).reshape(200, -1).argmax(axis=1)
    assert (naive != literal.argmax(axis=1)).mean() > 0.8


def test_best_beam_points_to_the_user() -> None:
    """A user 30 degrees east of a panel facing south is served by the beam whose phases follow that direction."""
    channel = steering(np.array(np.pi / 2), np.array(np.deg2rad(-60.0)), 32, 32, 0.5, -90.0, 0.0)
    # h grows by exp(+j pi sin 30) a column: beam exp(-j 2 pi kx n / 32) matches it with kx = -8 mod 32.
    assert best_beam(channel) == 24 * 32


class StoredPaths:
    def __init__(self, users: int) -> None:
        random = np.random.default_rng(5)
        self.gain = (random.normal(size=(2, users, 6)) + 1j * random.normal(size=(2, users, 6))).astype(np.complex64)
        self.aod_zenith = random.uniform(0, np.pi, (2, users, 6)).astype(np.float32)
        self.aod_azimuth = random.uniform(-np.pi, np.pi, (2, users, 6)).astype(np.float32)


def test_csi_sums_paths_whatever_the_batch() -> None:
    paths, radio = StoredPaths(7), RadioSettings(columns=5, rows=3, downtilt=4.0)
    vectors = steering(paths.aod_zenith, paths.aod_azimuth, 5, 3, 0.5, -90.0, 4.0)
    expected = np.einsum("sup,supxy->suxy", paths.gain, vectors)
    for batch in (1, 4, 1000):
        result = csi(paths, radio, batch=batch)
        assert result.dtype == np.complex64
        np.testing.assert_allclose(result, expected, atol=1e-5)
