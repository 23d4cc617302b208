"""Single-user precoding against literal second forms of the paper's equations (numpy loops) and analytic results."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from literal_precoding import LINK, channels, literal_beams, random_link, receive_channels, su_precoder, water_filling

from wavecity.model.tasks.beams.su_precoding import Pairs, su_bound, su_labels, su_rate
from wavecity.raytrace.arrays import dft_codebook


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


@pytest.mark.parametrize(
    ("columns", "rows", "receive_shape"),
    [(4, 4, (2, 2)), (5, 3, (4, 1)), (2, 6, (1, 2)), (3, 4, (2, 3))],
)
@pytest.mark.parametrize("gain", [1e-9, 1e-12, 1e-15])
def test_su_labels_equal_brute_force(columns, rows, receive_shape, gain):
    csi = channels(12, 6, int(np.prod(receive_shape)), columns, rows, gain=gain)
    pairs = su_labels(csi, receive_shape, LINK)
    tx = dft_codebook(columns, rows).reshape(columns * rows, -1)
    rx = dft_codebook(*receive_shape).reshape(len(csi[0]), -1)
    for b, h in enumerate(receive_channels(csi)):
        assert (pairs.tx[b].tolist(), pairs.rx[b].tolist()) == greedy(h, tx, rx, LINK.power / LINK.noise)


def test_su_labels_equal_brute_force_on_the_paper_s_arrays():
    csi = channels(13, 1, 4, 32, 32, paths=5)
    pairs = su_labels(csi, (2, 2), LINK)
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
    pairs = su_labels(csi, (2, 2), LINK)
    rate = su_rate(csi, pairs, (2, 2), LINK)
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
    found = su_rate(csi, pairs, (2, 2), LINK)
    f_rf = dft_codebook(5, 3).reshape(15, -1)[tx].T
    w_rf = dft_codebook(2, 2).reshape(4, -1)[rx].T
    for b, h in enumerate(receive_channels(csi)):
        assert literal_su_rate(h, f_rf, w_rf, LINK) == pytest.approx(float(found[b]), rel=1e-9)


def test_su_rate_of_different_beams_is_eq_25():
    """For orthogonal beams the digital stage changes nothing of the log-determinant at equal power."""
    csi = channels(16, 6, 4, 4, 4)
    pairs = su_labels(csi, (2, 2), LINK)
    found = su_rate(csi, pairs, (2, 2), LINK)
    tx, rx = dft_codebook(4, 4).reshape(16, -1), dft_codebook(2, 2).reshape(4, -1)
    for b, h in enumerate(receive_channels(csi)):
        value = literal_objective(h, tx[pairs.tx[b]].T, rx[pairs.rx[b]].T, LINK.power / LINK.noise, 2)
        assert value / np.log(2) == pytest.approx(float(found[b]), rel=1e-9)


def test_same_beams_twice_are_one_stream_with_all_the_power():
    csi = channels(17, 4, 4, 4, 4)
    pairs = Pairs(torch.full((4, 2), 6), torch.full((4, 2), 1))
    h, f, w = receive_channels(csi), literal_beams(4, 4)[6], literal_beams(2, 2)[1]
    expected = [np.log2(1 + LINK.power / LINK.noise * abs(w.conj() @ matrix @ f) ** 2 / (16 * 4)) for matrix in h]
    np.testing.assert_allclose(su_rate(csi, pairs, (2, 2), LINK), expected, rtol=1e-9)


def test_trap_inverses_of_eq_29_are_inverse_square_roots_of_the_gram_matrix():
    """They make precoder and combiner semi-unitary, up to the power."""
    csi = channels(18, 5, 4, 6, 3)
    pairs = su_labels(csi, (4, 1), LINK)
    f_rf, f_bb, w_rf, w_bb = su_precoder(csi, pairs, (4, 1), LINK)
    precoder, combiner = f_rf @ f_bb, w_rf @ w_bb
    identity = torch.eye(2, dtype=precoder.dtype).expand(5, 2, 2)
    torch.testing.assert_close(precoder.mH @ precoder, LINK.power / 2 * identity, rtol=0, atol=1e-9)
    torch.testing.assert_close(combiner.mH @ combiner, identity, rtol=0, atol=1e-9)
    # A beam held twice: one column of norm 1, or all of the power, and nothing else.
    twice = Pairs(pairs.tx[:, :1].expand(5, 2), pairs.rx[:, :1].expand(5, 2))
    single = su_precoder(csi, twice, (4, 1), LINK)
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
    found = su_bound(csi, LINK)
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
    labels = su_labels(csi, receive_shape, link)
    assert (labels.tx[:, 0] != labels.tx[:, 1]).all()
    assert (labels.rx[:, 0] != labels.rx[:, 1]).all()
    anything = Pairs(
        torch.from_numpy(rng.integers(0, columns * rows, (4, 2))), torch.from_numpy(rng.integers(0, antennas, (4, 2)))
    )
    bound = su_bound(csi, link)
    for pairs in (labels, anything):
        rate = su_rate(csi, pairs, receive_shape, link)
        assert torch.isfinite(rate).all()
        assert (rate >= 0).all()
        assert (rate <= bound * (1 + 1e-9)).all()
        f_rf, f_bb, _, _ = su_precoder(csi, pairs, receive_shape, link)
        power = (f_rf @ f_bb).abs().square().sum((1, 2)) / link.power
        np.testing.assert_allclose(power, 1, atol=1e-6)
