"""Multi-user precoding against literal second forms of the paper's equations (numpy loops, mpmath) and analytic results."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_precoding import LINK, channels, flat, mu_precoder, random_link, water_filling

from wavecity.model.tasks.beams.link import Link, beam_power, best_beams, dft_beams
from wavecity.model.tasks.beams.mu_precoding import mu_bound, mu_digital_rate, mu_sum_rate
from wavecity.raytrace.arrays import dft_codebook


def literal_sum_rate(h, analog, digital, noise):
    """Eqs 10-12 in loops: h (K, N_t), F_RF (N_t, K), F_BB (K, K)."""
    rate = 0.0
    for k in range(len(h)):
        power = [abs(h[k].conj() @ analog @ digital[:, j]) ** 2 for j in range(len(h))]
        rate += np.log2(1 + power[k] / (sum(power[:k] + power[k + 1 :]) + noise))
    return rate


@pytest.mark.parametrize("alpha", [None, 0.0, 1e-13])
@pytest.mark.parametrize(("users", "columns", "rows"), [(4, 5, 3), (8, 32, 32), (1, 2, 8), (3, 4, 4)])
def test_sum_rate_is_the_literal_form(users, columns, rows, alpha):
    csi = channels(3, 5, users, columns, rows)
    rng = np.random.default_rng(4)
    beams = np.stack([rng.permutation(columns * rows)[:users] for _ in range(5)])
    beams[0] = best_beams(csi)[0]
    found = mu_sum_rate(csi, torch.from_numpy(beams), LINK, alpha)
    analog, digital = mu_precoder(csi, torch.from_numpy(beams), LINK, alpha)
    codebook = dft_codebook(columns, rows).reshape(columns * rows, -1)
    regularisation = columns * rows * users * LINK.noise / LINK.power if alpha is None else alpha
    for c in range(5):
        h = flat(csi)[c]
        f_rf = codebook[beams[c]].T
        np.testing.assert_allclose(analog[c], f_rf, atol=1e-9)
        assert literal_sum_rate(h, analog[c].numpy(), digital[c].numpy(), LINK.noise) == pytest.approx(
            float(found[c]), rel=1e-9
        )
        if len(set(beams[c])) < users:
            continue
        h_eff = np.array([[h[k].conj() @ f_rf[:, j] for j in range(users)] for k in range(users)])
        f_bb = h_eff.conj().T @ np.linalg.inv(h_eff @ h_eff.conj().T + regularisation * np.eye(users))
        f_bb *= np.sqrt(LINK.power) / np.linalg.norm(f_rf @ f_bb)
        np.testing.assert_allclose(digital[c], f_bb, rtol=1e-6, atol=1e-8 * abs(f_bb).max())
        assert literal_sum_rate(h, f_rf, f_bb, LINK.noise) == pytest.approx(float(found[c]), rel=1e-7)


def exact_sum_rate(h, codebook, beams, link, alpha):
    """Eqs 10-12 and 18-21 with 80 digits."""
    users = len(h)
    with mpmath.workdps(80):
        rows = mpmath.matrix([[mpmath.mpc(value.real, -value.imag) for value in row] for row in h])
        f_rf = mpmath.matrix(len(codebook), users)
        for k, (kx, ky) in enumerate(beams):
            for antenna, value in enumerate(codebook(kx, ky)):
                f_rf[antenna, k] = value
        h_eff = rows * f_rf
        f_bb = h_eff.H * (h_eff * h_eff.H + mpmath.mpf(alpha) * mpmath.eye(users)) ** -1
        beta = mpmath.sqrt(mpmath.mpf(link.power)) / mpmath.mnorm(f_rf * f_bb, "f")
        received = beta * (h_eff * f_bb)
        rate = mpmath.mpf(0)
        for k in range(users):
            power = [abs(received[k, j]) ** 2 for j in range(users)]
            rate += mpmath.log(1 + power[k] / (sum(power) - power[k] + mpmath.mpf(link.noise)), 2)
        return float(rate)


class ExactBeams:
    """Beams of eq. 15 with 80 digits."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows

    def __len__(self):
        return self.columns * self.rows

    def __call__(self, kx, ky):
        with mpmath.workdps(80):
            return [
                mpmath.expjpi(-2 * (mpmath.mpf(kx * n) / self.columns + mpmath.mpf(ky * m) / self.rows))
                for n in range(self.columns)
                for m in range(self.rows)
            ]


@pytest.mark.parametrize("power_dbm", [-20, 30, 60, 200])
@pytest.mark.parametrize(
    "case", ["equal strength", "80 dB apart", "shared beam", "shared by all", "one zero", "twin users"]
)
def test_sum_rate_is_right_to_nine_digits(case, power_dbm):
    link = Link.of(power_dbm, 100e6, 7)
    csi = channels(5, 1, 4, 4, 3, gain=1e-9)
    beams = np.array([7, 2, 11, 0])
    if case in ("80 dB apart", "shared beam"):
        csi *= torch.tensor([1, 1e-4, 1e-2, 1e-3])[:, None, None]
    if case == "shared beam":
        beams[1] = beams[0]
    if case == "shared by all":
        beams[:] = 5
    if case == "one zero":
        csi[0, 2] = 0
    if case == "twin users":
        csi[0, 3], beams[3] = csi[0, 0], beams[0]
    alpha = 12 * 4 * link.noise / link.power
    pairs = [divmod(int(beam), 3) for beam in beams]
    expected = exact_sum_rate(flat(csi)[0], ExactBeams(4, 3), pairs, link, alpha)
    found = mu_sum_rate(csi, torch.from_numpy(beams)[None], link)
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)


def test_interference_far_below_the_signal_is_not_lost_in_it():
    """About 1e-15 of the signal here, and next to no noise."""
    link, beams = Link(1.0, 1e-30), [7, 2, 11, 0]
    csi = channels(5, 1, 4, 4, 3, gain=1e-9)
    expected = exact_sum_rate(flat(csi)[0], ExactBeams(4, 3), [divmod(beam, 3) for beam in beams], link, 1e-16)
    found = mu_sum_rate(csi, torch.tensor([beams]), link, alpha=1e-16)
    assert float(found[0]) == pytest.approx(expected, rel=1e-7)


def test_default_regularisation_has_the_least_mean_square_error():
    """Eq. 20's alpha for beams of norm sqrt(N_t): any other, the textbook's K sigma^2 / P among them, errs more."""
    link = Link(1.0, 1e-13)
    csi = channels(6, 30, 4, 4, 4, gain=1e-13)
    beams = torch.from_numpy(np.stack([np.random.default_rng(s).permutation(16)[:4] for s in range(30)]))

    def error(alpha):
        analog, digital = mu_precoder(csi, beams, link, alpha)
        received = torch.from_numpy(flat(csi).conj()) @ analog @ digital
        # Receivers share one scaling, the best one: min over c of E|c y - s|^2.
        gain = received.diagonal(dim1=1, dim2=2).sum(1)
        total = received.abs().square().sum((1, 2)) + 4 * link.noise
        return 4 - gain.abs().square() / total

    least = error(None)
    for factor in (1 / 16, 0.5, 0.9, 1.1, 2, 16):
        assert (error(factor * 16 * 4 * link.noise / link.power) > least).all()
    torch.testing.assert_close(error(16 * 4 * link.noise / link.power), least)


def test_alpha_zero_is_zero_forcing():
    """No user hears another's stream; with h_k^H as rows (trap: eqs 8 and 19 define H transposed to each other)."""
    csi = channels(7, 20, 4, 6, 4)
    beams = best_beams(csi)
    distinct = torch.tensor([len(row.unique()) == 4 for row in beams])
    analog, digital = (part[distinct] for part in mu_precoder(csi, beams, LINK, alpha=0.0))
    assert len(analog) > 5
    h = torch.from_numpy(flat(csi))[distinct]
    received = h.conj() @ analog @ digital
    diagonal = torch.diag_embed(received.diagonal(dim1=1, dim2=2))
    assert ((received - diagonal).abs().amax((1, 2)) < 1e-9 * received.abs().amax((1, 2))).all()
    # The other readings of H do leave interference.
    for wrong in (h @ analog @ digital, (h.conj() @ analog).mT @ digital):
        rest = wrong - torch.diag_embed(wrong.diagonal(dim1=1, dim2=2))
        assert (rest.abs().amax((1, 2)) > 1e-2 * wrong.abs().amax((1, 2))).all()


def test_trap_beam_norm_counts_in_the_power():
    csi = channels(8, 3, 4, 8, 8)
    beams = torch.arange(12).reshape(3, 4)
    analog, digital = mu_precoder(csi, beams, LINK)
    power = (analog @ digital).abs().square().sum((1, 2))
    torch.testing.assert_close(power, torch.full((3,), LINK.power, dtype=torch.double), rtol=1e-9, atol=0)
    torch.testing.assert_close(64 * digital.abs().square().sum((1, 2)), power)


def test_one_user_on_its_own_beam_has_the_array_gain():
    csi = (1e-6 * dft_beams(4, 3)[7]).to(torch.complex64)[None, None]
    expected = np.log2(1 + LINK.power * 12 * 1e-12 / LINK.noise)
    assert float(mu_sum_rate(csi, torch.tensor([[7]]), LINK)) == pytest.approx(expected, rel=1e-6)
    assert float(mu_bound(csi, LINK)) == pytest.approx(expected, rel=1e-6)
    assert float(mu_digital_rate(csi, LINK)) == pytest.approx(expected, rel=1e-6)


def test_bound_is_water_filling_and_reached_by_orthogonal_users():
    csi = channels(9, 10, 5, 4, 3) * 10 ** torch.linspace(0, -4, 5)[:, None, None]
    csi[3, 1:4] = 0
    csi[4] = 0
    found = mu_bound(csi, LINK)
    for c in range(10):
        gains = (abs(flat(csi)[c]) ** 2).sum(-1) / LINK.noise
        assert float(found[c]) == pytest.approx(water_filling(gains, LINK.power), rel=1e-9)
    assert found[4] == 0
    orthogonal = (1e-6 * dft_beams(4, 4)[:4]).to(torch.complex64)[None]
    rate = mu_sum_rate(orthogonal, torch.arange(4)[None], LINK)
    torch.testing.assert_close(rate, mu_bound(orthogonal, LINK), rtol=1e-6, atol=0)


def test_bound_of_weak_links_is_their_strongest_user():
    """At low SNR all power goes to the strongest, and log2(1 + x) = x / ln 2: nothing is lost to rounding."""
    csi = channels(10, 4, 3, 4, 4, gain=1e-30)
    strongest = (abs(flat(csi)) ** 2).sum(-1).max(-1)
    np.testing.assert_allclose(mu_bound(csi, LINK), strongest * LINK.power / LINK.noise / np.log(2), rtol=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_digital_rate_is_the_literal_form(alpha):
    csi = channels(11, 4, 3, 5, 4) * torch.tensor([1, 0.1, 0.01])[:, None, None]
    found = mu_digital_rate(csi, LINK, alpha)
    regularisation = 3 * LINK.noise / LINK.power if alpha is None else alpha
    for c in range(4):
        h = flat(csi)[c]
        w = h.T @ np.linalg.inv(h.conj() @ h.T + regularisation * np.eye(3))
        w *= np.sqrt(LINK.power) / np.linalg.norm(w)
        assert literal_sum_rate(h, np.eye(20), w, LINK.noise) == pytest.approx(float(found[c]), rel=1e-8)
    assert (found <= mu_bound(csi, LINK)).all()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 5),
    rows=st.integers(1, 5),
    users=st.integers(1, 6),
    span=st.floats(0, 80),
    zero=st.booleans(),
    alpha=st.sampled_from([None, 0.0, 1e-20, 1e-6]),
)
def test_power_constraint_and_bound_hold_for_any_beams(seed, columns, rows, users, span, zero, alpha):
    rng = np.random.default_rng(seed)
    gain = 10 ** (-rng.uniform(0, span, (3, users)) / 20)
    csi = channels(seed, 3, users, columns, rows, gain=1e-9) * torch.from_numpy(gain)[..., None, None].float()
    if zero:
        csi[0] = 0
        csi[1, 0] = 0
    beams = torch.from_numpy(rng.integers(0, columns * rows, (3, users)))
    link = random_link(rng)
    rate, bound = mu_sum_rate(csi, beams, link, alpha), mu_bound(csi, link)
    assert torch.isfinite(rate).all()
    assert (rate >= 0).all()
    assert (rate <= bound * (1 + 1e-9)).all()
    assert (mu_digital_rate(csi, link, alpha) <= bound * (1 + 1e-9)).all()
    analog, digital = mu_precoder(csi, beams, link, alpha)
    power = (analog @ digital).abs().square().sum((1, 2)) / link.power
    heard = (beam_power(csi).gather(2, beams[:, None].expand(-1, users, -1)) > 0).flatten(1).any(1)
    np.testing.assert_allclose(power, heard.double(), atol=1e-6)
    for c in range(3):
        literal = literal_sum_rate(flat(csi)[c], analog[c].numpy(), digital[c].numpy(), link.noise)
        assert literal == pytest.approx(float(rate[c]), rel=1e-9, abs=1e-12)
    # 1024 times the amplitude and as much noise is the same link.
    same = mu_sum_rate(csi * 1024, beams, Link(link.power, link.noise * 1024**2), alpha and alpha * 1024**2)
    torch.testing.assert_close(same, rate, rtol=1e-9, atol=1e-12)
