"""Hybrid precoding against literal second forms of the paper's equations (numpy loops, mpmath) and analytic results."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import precoding
from model.inference import beams_of_spectrum
from model.losses import spectrum
from model.precoding import Link, Pairs
from raytrace.arrays import best_beam, dft_codebook

LINK = Link.of(power_dbm=30, bandwidth_hz=100e6, noise_figure_db=7)
SIZES = [(4, 4), (5, 3), (2, 8), (1, 6), (32, 32)]


def channels(seed, *shape, gain=1e-12, paths=None):
    """complex64 channels of mean power `gain`: white, or of a few plane waves."""
    rng = np.random.default_rng(seed)

    def normal(*size):
        return (rng.normal(size=size) + 1j * rng.normal(size=size)) / np.sqrt(2)

    if paths is None:
        csi = normal(*shape)
    else:
        columns, rows = shape[-2:]
        turns = rng.uniform(size=(2, *shape[:-2], paths))
        x = np.exp(2j * np.pi * turns[0][..., None] * np.arange(columns))
        y = np.exp(2j * np.pi * turns[1][..., None] * np.arange(rows))
        csi = np.einsum("...p,...px,...py->...xy", normal(*shape[:-2], paths) / np.sqrt(paths), x, y)
    return torch.from_numpy((np.sqrt(gain) * csi).astype(np.complex64))


def flat(csi):
    return csi.numpy().astype(np.complex128).reshape(*csi.shape[:-2], -1)


def literal_beams(columns, rows):
    """Eq. 15, entry by entry: (columns * rows beams, antennas)."""
    beams = np.zeros((columns * rows, columns * rows), complex)
    for kx, ky, n, m in itertools.product(range(columns), range(rows), range(columns), range(rows)):
        beams[kx * rows + ky, n * rows + m] = np.exp(-2j * np.pi * (kx * n / columns + ky * m / rows))
    return beams


def water_filling(gains, power):
    """By bisection on the water level."""
    gains = np.asarray([gain for gain in gains if gain > 0])
    if len(gains) == 0:
        return 0.0
    low, high = 0.0, power + 1 / gains.max()
    for _ in range(300):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(level - 1 / gains, 0).sum() < power else (low, level)
    return np.log2(1 + np.maximum(low - 1 / gains, 0) * gains).sum()


def literal_sum_rate(h, analog, digital, noise):
    """Eqs 10-12 in loops: h (K, N_t), F_RF (N_t, K), F_BB (K, K)."""
    rate = 0.0
    for k in range(len(h)):
        power = [abs(h[k].conj() @ analog @ digital[:, j]) ** 2 for j in range(len(h))]
        rate += np.log2(1 + power[k] / (sum(power[:k] + power[k + 1 :]) + noise))
    return rate


def random_link(rng):
    return Link(10 ** rng.uniform(-3, 2), 10 ** rng.uniform(-14, -10))


# Codebook and labels, eqs 13-17


@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (5, 3), (1, 6)])
def test_codebook_is_eq_15_and_that_of_the_array_geometry(columns, rows):
    beams = precoding.dft_beams(columns, rows)
    assert beams.shape == (columns * rows, columns, rows)
    np.testing.assert_allclose(beams.flatten(1), literal_beams(columns, rows), atol=1e-12)
    np.testing.assert_allclose(beams, dft_codebook(columns, rows), atol=1e-12)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_beams_are_orthogonal_with_norm_root_of_antennas(columns, rows):
    """Eq. 16, and the trap that beams of eq. 15 are not of unit norm."""
    beams = precoding.dft_beams(columns, rows).flatten(1)
    expected = columns * rows * torch.eye(columns * rows, dtype=beams.dtype)
    torch.testing.assert_close(beams.conj() @ beams.T, expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize("paths", [None, 3])
def test_best_beams_equal_brute_force(columns, rows, paths):
    csi = channels(1, 6, 5, columns, rows, paths=paths)
    codebook = dft_codebook(columns, rows).reshape(columns * rows, -1)
    response = np.einsum("cka,ja->ckj", flat(csi).conj(), codebook)
    assert precoding.best_beams(csi).dtype == torch.int64
    np.testing.assert_array_equal(precoding.best_beams(csi), (abs(response) ** 2).argmax(-1))
    scale = abs(response).max()
    np.testing.assert_allclose(precoding.beam_response(csi) / scale, response / scale, atol=1e-12)
    np.testing.assert_allclose(precoding.beam_power(csi) / scale**2, abs(response / scale) ** 2, atol=1e-12)


@pytest.mark.parametrize(("columns", "rows"), [(4, 4), (5, 3), (8, 2)])
def test_every_beam_is_the_best_of_the_channel_that_equals_it(columns, rows):
    """A channel h = a_j has h^H a_j = N_t and nothing on the others."""
    csi = precoding.dft_beams(columns, rows)
    assert torch.equal(precoding.best_beams(csi), torch.arange(columns * rows))
    expected = columns * rows * torch.eye(columns * rows, dtype=csi.dtype)
    torch.testing.assert_close(precoding.beam_response(csi), expected, atol=1e-9, rtol=0)


def test_equal_beams_give_the_lowest_index():
    csi = torch.zeros(2, 4, 4, 4, dtype=torch.complex64)
    assert (precoding.best_beams(csi) == 0).all()
    pairs = precoding.su_labels(csi, (2, 2), LINK)
    assert pairs.tx.tolist() == pairs.rx.tolist() == [[0, 1], [0, 1]]


def test_trap_label_is_the_spectrum_argmax_negated():
    csi = channels(2, 40, 8, 4)
    power = spectrum(csi.to(torch.complex128))
    np.testing.assert_allclose(precoding.beam_power(csi), beams_of_spectrum(power), rtol=1e-9)
    label = precoding.best_beams(csi)
    np.testing.assert_array_equal(label, best_beam(csi.numpy()))
    kx, ky = power.flatten(1).argmax(1) // 4, power.flatten(1).argmax(1) % 4
    assert torch.equal(label, (-kx) % 8 * 4 + (-ky) % 4)
    assert (label != kx * 4 + ky).float().mean() > 0.5


def test_trap_flattening_is_column_times_rows_plus_row():
    """A wave whose phase turns along x only, on an array of 6 columns and 4 rows."""
    x = torch.exp(-2j * torch.pi * 2 * torch.arange(6) / 6)
    assert int(precoding.best_beams(x[:, None].expand(6, 4))) == 2 * 4
    y = torch.exp(-2j * torch.pi * 3 * torch.arange(4) / 4)
    assert int(precoding.best_beams(y[None, :].expand(6, 4))) == 3


# Multi-user, eqs 8-12 and 18-21


@pytest.mark.parametrize("alpha", [None, 0.0, 1e-13])
@pytest.mark.parametrize(("users", "columns", "rows"), [(4, 5, 3), (8, 32, 32), (1, 2, 8), (3, 4, 4)])
def test_sum_rate_is_the_literal_form(users, columns, rows, alpha):
    csi = channels(3, 5, users, columns, rows)
    rng = np.random.default_rng(4)
    beams = np.stack([rng.permutation(columns * rows)[:users] for _ in range(5)])
    beams[0] = precoding.best_beams(csi)[0]
    found = precoding.mu_sum_rate(csi, torch.from_numpy(beams), LINK, alpha)
    analog, digital = precoding.mu_precoder(csi, torch.from_numpy(beams), LINK, alpha)
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
    found = precoding.mu_sum_rate(csi, torch.from_numpy(beams)[None], link)
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)


def test_interference_far_below_the_signal_is_not_lost_in_it():
    """About 1e-15 of the signal here, and next to no noise."""
    link, beams = Link(1.0, 1e-30), [7, 2, 11, 0]
    csi = channels(5, 1, 4, 4, 3, gain=1e-9)
    expected = exact_sum_rate(flat(csi)[0], ExactBeams(4, 3), [divmod(beam, 3) for beam in beams], link, 1e-16)
    found = precoding.mu_sum_rate(csi, torch.tensor([beams]), link, alpha=1e-16)
    assert float(found[0]) == pytest.approx(expected, rel=1e-7)


def test_default_regularisation_has_the_least_mean_square_error():
    """Eq. 20's alpha for beams of norm sqrt(N_t): any other, the textbook's K sigma^2 / P among them, errs more."""
    link = Link(1.0, 1e-13)
    csi = channels(6, 30, 4, 4, 4, gain=1e-13)
    beams = torch.from_numpy(np.stack([np.random.default_rng(s).permutation(16)[:4] for s in range(30)]))

    def error(alpha):
        analog, digital = precoding.mu_precoder(csi, beams, link, alpha)
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
    beams = precoding.best_beams(csi)
    distinct = torch.tensor([len(row.unique()) == 4 for row in beams])
    analog, digital = (part[distinct] for part in precoding.mu_precoder(csi, beams, LINK, alpha=0.0))
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
    analog, digital = precoding.mu_precoder(csi, beams, LINK)
    power = (analog @ digital).abs().square().sum((1, 2))
    torch.testing.assert_close(power, torch.full((3,), LINK.power, dtype=torch.double), rtol=1e-9, atol=0)
    torch.testing.assert_close(64 * digital.abs().square().sum((1, 2)), power)


def test_one_user_on_its_own_beam_has_the_array_gain():
    csi = (1e-6 * precoding.dft_beams(4, 3)[7]).to(torch.complex64)[None, None]
    expected = np.log2(1 + LINK.power * 12 * 1e-12 / LINK.noise)
    assert float(precoding.mu_sum_rate(csi, torch.tensor([[7]]), LINK)) == pytest.approx(expected, rel=1e-6)
    assert float(precoding.mu_bound(csi, LINK)) == pytest.approx(expected, rel=1e-6)
    assert float(precoding.mu_digital_rate(csi, LINK)) == pytest.approx(expected, rel=1e-6)


def test_bound_is_water_filling_and_reached_by_orthogonal_users():
    csi = channels(9, 10, 5, 4, 3) * 10 ** torch.linspace(0, -4, 5)[:, None, None]
    csi[3, 1:4] = 0
    csi[4] = 0
    found = precoding.mu_bound(csi, LINK)
    for c in range(10):
        gains = (abs(flat(csi)[c]) ** 2).sum(-1) / LINK.noise
        assert float(found[c]) == pytest.approx(water_filling(gains, LINK.power), rel=1e-9)
    assert found[4] == 0
    orthogonal = (1e-6 * precoding.dft_beams(4, 4)[:4]).to(torch.complex64)[None]
    rate = precoding.mu_sum_rate(orthogonal, torch.arange(4)[None], LINK)
    torch.testing.assert_close(rate, precoding.mu_bound(orthogonal, LINK), rtol=1e-6, atol=0)


def test_bound_of_weak_links_is_their_strongest_user():
    """At low SNR all power goes to the strongest, and log2(1 + x) = x / ln 2: nothing is lost to rounding."""
    csi = channels(10, 4, 3, 4, 4, gain=1e-30)
    strongest = (abs(flat(csi)) ** 2).sum(-1).max(-1)
    np.testing.assert_allclose(
        precoding.mu_bound(csi, LINK), strongest * LINK.power / LINK.noise / np.log(2), rtol=1e-9
    )


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_digital_rate_is_the_literal_form(alpha):
    csi = channels(11, 4, 3, 5, 4) * torch.tensor([1, 0.1, 0.01])[:, None, None]
    found = precoding.mu_digital_rate(csi, LINK, alpha)
    regularisation = 3 * LINK.noise / LINK.power if alpha is None else alpha
    for c in range(4):
        h = flat(csi)[c]
        w = h.T @ np.linalg.inv(h.conj() @ h.T + regularisation * np.eye(3))
        w *= np.sqrt(LINK.power) / np.linalg.norm(w)
        assert literal_sum_rate(h, np.eye(20), w, LINK.noise) == pytest.approx(float(found[c]), rel=1e-8)
    assert (found <= precoding.mu_bound(csi, LINK)).all()


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
    rate, bound = precoding.mu_sum_rate(csi, beams, link, alpha), precoding.mu_bound(csi, link)
    assert torch.isfinite(rate).all()
    assert (rate >= 0).all()
    assert (rate <= bound * (1 + 1e-9)).all()
    assert (precoding.mu_digital_rate(csi, link, alpha) <= bound * (1 + 1e-9)).all()
    analog, digital = precoding.mu_precoder(csi, beams, link, alpha)
    power = (analog @ digital).abs().square().sum((1, 2)) / link.power
    heard = (precoding.beam_power(csi).gather(2, beams[:, None].expand(-1, users, -1)) > 0).flatten(1).any(1)
    np.testing.assert_allclose(power, heard.double(), atol=1e-6)
    for c in range(3):
        literal = literal_sum_rate(flat(csi)[c], analog[c].numpy(), digital[c].numpy(), link.noise)
        assert literal == pytest.approx(float(rate[c]), rel=1e-9, abs=1e-12)
    # 1024 times the amplitude and as much noise is the same link.
    same = precoding.mu_sum_rate(csi * 1024, beams, Link(link.power, link.noise * 1024**2), alpha and alpha * 1024**2)
    torch.testing.assert_close(same, rate, rtol=1e-9, atol=1e-12)


# Single user, eqs 22-29


def literal_objective(h, f_rf, w_rf, snr, streams):
    """Eq. 25 (natural logarithm), with the inverses written out."""
    inner = w_rf.conj().T @ h @ f_rf @ np.linalg.inv(f_rf.conj().T @ f_rf) @ f_rf.conj().T @ h.conj().T
    inner = inner @ w_rf @ np.linalg.inv(w_rf.conj().T @ w_rf)
    return np.linalg.slogdet(np.eye(f_rf.shape[1]) + snr / streams * inner)[1]


def greedy(h, tx, rx, snr):
    """Brute force over the literal codebooks, one beam a row."""
    first = max(
        itertools.product(range(len(rx)), range(len(tx))),
        key=lambda pair: literal_objective(h, tx[[pair[1]]].T, rx[[pair[0]]].T, snr, 1),
    )
    rest = itertools.product(set(range(len(rx))) - {first[0]}, set(range(len(tx))) - {first[1]})
    second = max(
        rest,
        key=lambda pair: literal_objective(h, tx[[first[1], pair[1]]].T, rx[[first[0], pair[0]]].T, snr, 2),
    )
    return [first[1], second[1]], [first[0], second[0]]


def su_exhaustive(h, tx, rx, snr):
    """Joint optimum of eq. 25 over every two transmit and two receive beams."""
    return max(
        literal_objective(h, tx[list(f)].T, rx[list(w)].T, snr, 2)
        for f in itertools.combinations(range(len(tx)), 2)
        for w in itertools.combinations(range(len(rx)), 2)
    )


def receive_channels(csi):
    """H[r] = h_r^H, complex128 (B, R, N_t)."""
    return flat(csi).conj()


@pytest.mark.parametrize(
    ("columns", "rows", "receive_shape"),
    [(4, 4, (2, 2)), (5, 3, (4, 1)), (2, 6, (1, 2)), (3, 4, (2, 3))],
)
@pytest.mark.parametrize("gain", [1e-9, 1e-12, 1e-15])
def test_su_labels_equal_brute_force(columns, rows, receive_shape, gain):
    csi = channels(12, 6, int(np.prod(receive_shape)), columns, rows, gain=gain)
    pairs = precoding.su_labels(csi, receive_shape, LINK)
    tx = dft_codebook(columns, rows).reshape(columns * rows, -1)
    rx = dft_codebook(*receive_shape).reshape(len(csi[0]), -1)
    for b, h in enumerate(receive_channels(csi)):
        assert (pairs.tx[b].tolist(), pairs.rx[b].tolist()) == greedy(h, tx, rx, LINK.power / LINK.noise)


def test_su_labels_equal_brute_force_on_the_paper_s_arrays():
    csi = channels(13, 1, 4, 32, 32, paths=5)
    pairs = precoding.su_labels(csi, (2, 2), LINK)
    tx, rx = dft_codebook(32, 32).reshape(1024, -1), dft_codebook(2, 2).reshape(4, -1)
    h, snr = receive_channels(csi)[0], LINK.power / LINK.noise
    # Eq. 25 needs only W^H H F and the beams' Gram matrices: reduced to those, 4096 + 3069 literal evaluations are quick.
    gains = rx.conj() @ h @ tx.T
    single = abs(gains) ** 2 / 4096
    first = np.unravel_index(single.argmax(), single.shape)
    assert (int(pairs.rx[0, 0]), int(pairs.tx[0, 0])) == first
    best, second = -np.inf, None
    for i, j in itertools.product(range(4), range(1024)):
        if i != first[0] and j != first[1]:
            a = gains[np.ix_([first[0], i], [first[1], j])]
            value = np.linalg.slogdet(np.eye(2) + snr / 2 / 4096 * a @ a.conj().T)[1]
            best, second = max((best, second), (value, (i, j)))
    assert (int(pairs.rx[0, 1]), int(pairs.tx[0, 1])) == second
    literal = literal_objective(h, tx[pairs.tx[0]].T, rx[pairs.rx[0]].T, snr, 2)
    assert literal == pytest.approx(best, rel=1e-9)


def test_greedy_is_near_the_joint_optimum_and_never_above_it():
    csi = channels(14, 12, 4, 3, 3, paths=3)
    pairs = precoding.su_labels(csi, (2, 2), LINK)
    rate = precoding.su_rate(csi, pairs, (2, 2), LINK)
    tx, rx = dft_codebook(3, 3).reshape(9, -1), dft_codebook(2, 2).reshape(4, -1)
    joint = [su_exhaustive(h, tx, rx, LINK.power / LINK.noise) / np.log(2) for h in receive_channels(csi)]
    share = rate.numpy() / joint
    assert (share <= 1 + 1e-9).all()
    assert share.min() > 0.7
    assert share.mean() > 0.9


def inverse_root(gram):
    values, vectors = np.linalg.eigh(gram)
    return vectors @ np.diag([value**-0.5 if value > 1e-9 * values.max() else 0 for value in values]) @ vectors.conj().T


def literal_su_rate(h, f_rf, w_rf, link):
    """Eqs 23-24 and 27-29 with the whole matrices, streams decoded from noise of covariance R_n."""
    u, _, vh = np.linalg.svd(w_rf.conj().T @ h @ f_rf)
    f_bb = inverse_root(f_rf.conj().T @ f_rf) @ vh.conj().T
    f_bb *= np.sqrt(link.power) / np.linalg.norm(f_rf @ f_bb)
    w = w_rf @ inverse_root(w_rf.conj().T @ w_rf) @ u
    t = w.conj().T @ h @ f_rf @ f_bb
    keep = np.linalg.norm(w, axis=0) > 1e-6
    w, t = w[:, keep], t[keep]
    covariance = link.noise * w.conj().T @ w
    return np.log2(np.linalg.det(np.eye(len(t)) + np.linalg.inv(covariance) @ t @ t.conj().T).real)


@pytest.mark.parametrize(("tx", "rx"), [([3, 7], [0, 2]), ([7, 7], [1, 3]), ([2, 9], [2, 2]), ([5, 5], [1, 1])])
def test_su_rate_is_the_literal_form(tx, rx):
    csi = channels(15, 5, 4, 5, 3)
    pairs = Pairs(torch.tensor([tx] * 5), torch.tensor([rx] * 5))
    found = precoding.su_rate(csi, pairs, (2, 2), LINK)
    f_rf = dft_codebook(5, 3).reshape(15, -1)[tx].T
    w_rf = dft_codebook(2, 2).reshape(4, -1)[rx].T
    for b, h in enumerate(receive_channels(csi)):
        assert literal_su_rate(h, f_rf, w_rf, LINK) == pytest.approx(float(found[b]), rel=1e-9)


def test_su_rate_of_different_beams_is_eq_25():
    """For orthogonal beams the digital stage changes nothing of the log-determinant at equal power."""
    csi = channels(16, 6, 4, 4, 4)
    pairs = precoding.su_labels(csi, (2, 2), LINK)
    found = precoding.su_rate(csi, pairs, (2, 2), LINK)
    tx, rx = dft_codebook(4, 4).reshape(16, -1), dft_codebook(2, 2).reshape(4, -1)
    for b, h in enumerate(receive_channels(csi)):
        value = literal_objective(h, tx[pairs.tx[b]].T, rx[pairs.rx[b]].T, LINK.power / LINK.noise, 2)
        assert value / np.log(2) == pytest.approx(float(found[b]), rel=1e-9)


def test_same_beams_twice_are_one_stream_with_all_the_power():
    csi = channels(17, 4, 4, 4, 4)
    pairs = Pairs(torch.full((4, 2), 6), torch.full((4, 2), 1))
    h, f, w = receive_channels(csi), literal_beams(4, 4)[6], literal_beams(2, 2)[1]
    expected = [np.log2(1 + LINK.power / LINK.noise * abs(w.conj() @ matrix @ f) ** 2 / (16 * 4)) for matrix in h]
    np.testing.assert_allclose(precoding.su_rate(csi, pairs, (2, 2), LINK), expected, rtol=1e-9)


def test_trap_inverses_of_eq_29_are_inverse_square_roots_of_the_gram_matrix():
    """They make precoder and combiner semi-unitary, up to the power."""
    csi = channels(18, 5, 4, 6, 3)
    pairs = precoding.su_labels(csi, (4, 1), LINK)
    f_rf, f_bb, w_rf, w_bb = precoding.su_precoder(csi, pairs, (4, 1), LINK)
    precoder, combiner = f_rf @ f_bb, w_rf @ w_bb
    identity = torch.eye(2, dtype=precoder.dtype).expand(5, 2, 2)
    torch.testing.assert_close(precoder.mH @ precoder, LINK.power / 2 * identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(combiner.mH @ combiner, identity, rtol=0, atol=1e-9)
    # A beam held twice: one column of norm 1, or all of the power, and nothing else.
    twice = Pairs(pairs.tx[:, :1].expand(5, 2), pairs.rx[:, :1].expand(5, 2))
    single = precoding.su_precoder(csi, twice, (4, 1), LINK)
    for values, top in ((single[0] @ single[1], LINK.power**0.5), (single[2] @ single[3], 1.0)):
        expected = torch.tensor([top, 0.0], dtype=torch.double).expand(5, 2)
        torch.testing.assert_close(torch.linalg.svdvals(values), expected, rtol=0, atol=1e-9)
    # Eq. 28: the streams do not mix, and the first is the stronger one.
    received = (combiner.mH @ torch.from_numpy(receive_channels(csi)) @ precoder).abs()
    assert (received[:, 0, 1] + received[:, 1, 0] < 1e-9 * received[:, 1, 1]).all()
    assert (received[:, 0, 0] >= received[:, 1, 1]).all()


def test_su_bound_is_water_filling_over_singular_values():
    csi = channels(19, 6, 4, 4, 3, paths=2)
    csi[4] = 0
    csi[5, 1:] = csi[5, :1]
    found = precoding.su_bound(csi, LINK)
    for b, h in enumerate(receive_channels(csi)):
        gains = np.linalg.svd(h, compute_uv=False) ** 2 / LINK.noise
        assert float(found[b]) == pytest.approx(water_filling(gains, LINK.power), rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    columns=st.integers(1, 4),
    rows=st.integers(2, 4),
    receive_shape=st.sampled_from([(2, 2), (2, 1), (1, 3), (4, 1)]),
    paths=st.sampled_from([None, 1, 3]),
    decibel=st.floats(-170, -80),
)
def test_su_power_and_bounds_hold_for_any_beams(seed, columns, rows, receive_shape, paths, decibel):
    rng = np.random.default_rng(seed)
    antennas = receive_shape[0] * receive_shape[1]
    csi = channels(seed, 4, antennas, columns, rows, gain=10 ** (decibel / 10), paths=paths)
    csi[0] = 0
    csi[1, 0] = 0
    link = random_link(rng)
    labels = precoding.su_labels(csi, receive_shape, link)
    assert (labels.tx[:, 0] != labels.tx[:, 1]).all()
    assert (labels.rx[:, 0] != labels.rx[:, 1]).all()
    anything = Pairs(
        torch.from_numpy(rng.integers(0, columns * rows, (4, 2))), torch.from_numpy(rng.integers(0, antennas, (4, 2)))
    )
    bound = precoding.su_bound(csi, link)
    for pairs in (labels, anything):
        rate = precoding.su_rate(csi, pairs, receive_shape, link)
        assert torch.isfinite(rate).all()
        assert (rate >= 0).all()
        assert (rate <= bound * (1 + 1e-9)).all()
        f_rf, f_bb, _, _ = precoding.su_precoder(csi, pairs, receive_shape, link)
        power = (f_rf @ f_bb).abs().square().sum((1, 2)) / link.power
        np.testing.assert_allclose(power, 1, atol=1e-6)


def test_pieces_of_a_large_batch_are_put_together_in_order(monkeypatch):
    csi, single = channels(20, 9, 4, 4, 3), channels(21, 9, 4, 4, 3)
    beams, pairs = precoding.best_beams(csi), precoding.su_labels(single, (2, 2), LINK)
    whole = (
        precoding.mu_sum_rate(csi, beams, LINK),
        precoding.mu_bound(csi, LINK),
        precoding.mu_digital_rate(csi, LINK),
        precoding.su_rate(single, pairs, (2, 2), LINK),
        precoding.su_bound(single, LINK),
    )
    monkeypatch.setattr(precoding, "CHUNK", 8)
    assert torch.equal(precoding.best_beams(csi), beams)
    again = precoding.su_labels(single, (2, 2), LINK)
    assert torch.equal(again.tx, pairs.tx)
    assert torch.equal(again.rx, pairs.rx)
    pieces = (
        precoding.mu_sum_rate(csi, beams, LINK),
        precoding.mu_bound(csi, LINK),
        precoding.mu_digital_rate(csi, LINK),
        precoding.su_rate(single, pairs, (2, 2), LINK),
        precoding.su_bound(single, LINK),
    )
    for expected, found in zip(whole, pieces, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_no_clusters_and_no_links_are_no_error():
    csi = channels(22, 0, 4, 4, 4)
    beams, pairs = precoding.best_beams(csi), precoding.su_labels(csi, (2, 2), LINK)
    assert beams.shape == (0, 4)
    assert precoding.mu_sum_rate(csi, beams, LINK).shape == (0,)
    assert precoding.mu_bound(csi, LINK).shape == (0,)
    assert pairs.tx.shape == pairs.rx.shape == (0, 2)
    assert precoding.su_rate(csi, pairs, (2, 2), LINK).shape == (0,)
    assert precoding.su_bound(csi, LINK).shape == (0,)


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
        (lambda: precoding.mu_bound(channels(0, 4, 4, 4), LINK), r"csi is torch.complex64 \(4, 4, 4\)"),
        (lambda: precoding.mu_bound(torch.zeros(2, 4, 4, 4), LINK), "give a complex tensor"),
        (lambda: mu(torch.zeros(2, 3, dtype=torch.long)), r"give integers \(2, 4\)"),
        (lambda: mu(torch.zeros(2, 4)), "beams is torch.float32"),
        (lambda: mu(torch.full((2, 4), 16)), "holds beam 16; the codebook has beams 0 to 15"),
        (lambda: mu(torch.full((2, 4), -1)), "holds beam -1"),
        (lambda: mu(torch.zeros(2, 4, dtype=torch.long), -1.0), "alpha is -1.0"),
        (lambda: precoding.su_labels(channels(0, 2, 4, 4, 4), (3, 2), LINK), "receive_shape 3 x 2 does not fit"),
        (lambda: precoding.su_labels(channels(0, 2, 1, 4, 4), (1, 1), LINK), "one antenna at an end"),
        (lambda: precoding.su_labels(channels(0, 2, 4, 1, 1), (2, 2), LINK), "one antenna at an end"),
        (lambda: su(torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, 2, dtype=torch.long)), "pairs.tx"),
        (lambda: su(torch.zeros(2, 2, dtype=torch.long), torch.full((2, 2), 4)), "pairs.rx holds beam 4"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def mu(beams, alpha=None):
    return precoding.mu_sum_rate(channels(0, 2, 4, 4, 4), beams, LINK, alpha)


def su(tx, rx):
    return precoding.su_rate(channels(0, 2, 4, 4, 4), Pairs(tx, rx), (2, 2), LINK)
