"""Beams and their labels against eqs 13-17 entry by entry, and what multi- and single-user precoding have in common."""

import numpy as np
import pytest
import torch
from literal_precoding import LINK, channels, flat, literal_beams

from wavecity.model.multimodal.inference import beams_of_spectrum
from wavecity.model.multimodal.losses import spectrum
from wavecity.model.tasks.beams.link import Link, beam_power, beam_response, best_beams, dft_beams
from wavecity.model.tasks.beams.mu_precoding import mu_bound, mu_digital_rate, mu_sum_rate
from wavecity.model.tasks.beams.su_precoding import Pairs, su_bound, su_labels, su_rate
from wavecity.raytrace.arrays import best_beam, dft_codebook

SIZES = [(4, 4), (5, 3), (2, 8), (1, 6), (32, 32)]


@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (5, 3), (1, 6)])
def test_codebook_is_eq_15_and_that_of_the_array_geometry(columns, rows):
    beams = dft_beams(columns, rows)
    assert beams.shape == (columns * rows, columns, rows)
    np.testing.assert_allclose(beams.flatten(1), literal_beams(columns, rows), atol=1e-12)
    np.testing.assert_allclose(beams, dft_codebook(columns, rows), atol=1e-12)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_beams_are_orthogonal_with_norm_root_of_antennas(columns, rows):
    """Eq. 16, and the trap that beams of eq. 15 are not of unit norm."""
    beams = dft_beams(columns, rows).flatten(1)
    expected = columns * rows * torch.eye(columns * rows, dtype=beams.dtype)
    torch.testing.assert_close(beams.conj() @ beams.T, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("paths", [None, 3])
def test_best_beams_equal_brute_force(columns, rows, paths):
    csi = channels(1, 6, 5, columns, rows, paths=paths)
    codebook = dft_codebook(columns, rows).reshape(columns * rows, -1)
    response = np.einsum("cka,ja->ckj", flat(csi).conj(), codebook)
    assert best_beams(csi).dtype == torch.int64
    np.testing.assert_array_equal(best_beams(csi), (abs(response) ** 2).argmax(-1))
    scale = abs(response).max()
    np.testing.assert_allclose(beam_response(csi) / scale, response / scale, atol=1e-12)
    np.testing.assert_allclose(beam_power(csi) / scale**2, abs(response / scale) ** 2, atol=1e-12)


@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (5, 3), (8, 2)])
def test_every_beam_is_the_best_of_the_channel_that_equals_it(columns, rows):
    """A channel h = a_j has h^H a_j = N_t and nothing on the others."""
    csi = dft_beams(columns, rows)
    assert torch.equal(best_beams(csi), torch.arange(columns * rows))
    expected = columns * rows * torch.eye(columns * rows, dtype=csi.dtype)
    torch.testing.assert_close(beam_response(csi), expected, atol=1e-9, rtol=0)


def test_equal_beams_give_the_lowest_index():
    csi = torch.zeros(2, 4, 4, 4, dtype=torch.complex64)
    assert (best_beams(csi) == 0).all()
    pairs = su_labels(csi, (2, 2), LINK)
    assert pairs.tx.tolist() == pairs.rx.tolist() == [[0, 1], [0, 1]]


def test_trap_label_is_the_spectrum_argmax_negated():
    csi = channels(2, 40, 8, 4)
    power = spectrum(csi.to(torch.complex128))
    np.testing.assert_allclose(beam_power(csi), beams_of_spectrum(power), rtol=1e-9)
    label = best_beams(csi)
    np.testing.assert_array_equal(label, best_beam(csi.numpy()))
    kx, ky = power.flatten(1).argmax(1) // 4, power.flatten(1).argmax(1) % 4
    assert torch.equal(label, (-kx) % 8 * 4 + (-ky) % 4)
    assert (label != kx * 4 + ky).float().mean() > 0.5


def test_trap_flattening_is_column_times_rows_plus_row():
    """A wave whose phase turns along x only, on an array of 6 columns and 4 rows."""
    x = torch.exp(-2j * torch.pi * 2 * torch.arange(6) / 6)
    assert int(best_beams(x[:, None].expand(6, 4))) == 2 * 4
    y = torch.exp(-2j * torch.pi * 3 * torch.arange(4) / 4)
    assert int(best_beams(y[None, :].expand(6, 4))) == 3


def test_pieces_of_a_large_batch_are_put_together_in_order(monkeypatch):
    csi, single = channels(20, 9, 4, 4, 3), channels(21, 9, 4, 4, 3)
    beams, pairs = best_beams(csi), su_labels(single, (2, 2), LINK)
    whole = (
        mu_sum_rate(csi, beams, LINK),
        mu_bound(csi, LINK),
        mu_digital_rate(csi, LINK),
        su_rate(single, pairs, (2, 2), LINK),
        su_bound(single, LINK),
    )
    monkeypatch.setattr("wavecity.model.tasks.beams.link.CHUNK", 8)
    assert torch.equal(best_beams(csi), beams)
    again = su_labels(single, (2, 2), LINK)
    assert torch.equal(again.tx, pairs.tx)
    assert torch.equal(again.rx, pairs.rx)
    pieces = (
        mu_sum_rate(csi, beams, LINK),
        mu_bound(csi, LINK),
        mu_digital_rate(csi, LINK),
        su_rate(single, pairs, (2, 2), LINK),
        su_bound(single, LINK),
    )
    for expected, found in zip(whole, pieces, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_no_clusters_and_no_links_are_no_error():
    csi = channels(22, 0, 4, 4, 4)
    beams, pairs = best_beams(csi), su_labels(csi, (2, 2), LINK)
    assert beams.shape == (0, 4)
    assert mu_sum_rate(csi, beams, LINK).shape == (0,)
    assert mu_bound(csi, LINK).shape == (0,)
    assert pairs.tx.shape == pairs.rx.shape == (0, 2)
    assert su_rate(csi, pairs, (2, 2), LINK).shape == (0,)
    assert su_bound(csi, LINK).shape == (0,)


def test_link_in_engineering_units():
    link = Link.of(power_dbm=23, bandwidth_hz=100e6, noise_figure_db=7)
    assert link.power == pytest.approx(0.1995262)
    assert link.noise == pytest.approx(1.995262e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Link(0.0, 1e-12), "link power is 0.0 W"),
        (lambda: Link(1.0, float("inf")), "link noise is inf W"),
        (lambda: Link.of(30, 0, 7), "bandwidth is 0 Hz"),
        (lambda: mu_bound(channels(0, 4, 4, 4), LINK), r"csi is torch.complex64 \(4, 4, 4\)"),
        (lambda: mu_bound(torch.zeros(2, 4, 4, 4), LINK), "give a complex tensor"),
        (lambda: mu(torch.zeros(2, 3, dtype=torch.long)), r"give integers \(2, 4\)"),
        (lambda: mu(torch.zeros(2, 4)), "beams is torch.float32"),
        (lambda: mu(torch.full((2, 4), 16)), "holds beam 16; the codebook has beams 0 to 15"),
        (lambda: mu(torch.full((2, 4), -1)), "holds beam -1"),
        (lambda: mu(torch.zeros(2, 4, dtype=torch.long), -1.0), "alpha is -1.0"),
        (lambda: su_labels(channels(0, 2, 4, 4, 4), (3, 2), LINK), "receive_shape 3 x 2 does not fit"),
        (lambda: su_labels(channels(0, 2, 1, 4, 4), (1, 1), LINK), "one antenna at an end"),
        (lambda: su_labels(channels(0, 2, 4, 1, 1), (2, 2), LINK), "one antenna at an end"),
        (lambda: su(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)), "pairs.tx"),
        (lambda: su(torch.zeros(2, 2, dtype=torch.long), torch.full((2, 2), 4)), "pairs.rx holds beam 4"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def mu(beams, alpha=None):
    return mu_sum_rate(channels(0, 2, 4, 4, 4), beams, LINK, alpha)


def su(tx, rx):
    return su_rate(channels(0, 2, 4, 4, 4), Pairs(tx, rx), (2, 2), LINK)
