"""The simple predictors, against slow forms and cases with a known answer."""

import numpy as np
import pytest
import torch

from wavecity.model.data.tokens import visible_antennas
from wavecity.model.learning import baselines


@pytest.fixture
def shown():
    rng = np.random.default_rng(0)
    return visible_antennas(torch.from_numpy(rng.permutation(64)[:32]), 32, 32, 4)


def waves(directions, gains):
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    return sum(g * np.exp(2j * np.pi * (k[0] * x + k[1] * y)) for k, g in zip(directions, gains, strict=True))


def test_visible_antennas_are_those_of_the_patches():
    shown = visible_antennas(torch.tensor([0, 9]), 32, 32, 4)
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[:4, :4] = True
    expected[4:8, 4:8] = True
    assert torch.equal(shown, expected)


def test_omp_recovers_waves_of_its_dictionary_and_reads_only_what_is_shown(shown):
    csi = waves([(5 / 128, 40 / 128), (70 / 128, 99 / 128)], [1e-7, 3e-8j])
    csi = torch.from_numpy(csi.astype(np.complex64))[None]
    spoiled = torch.where(shown, csi, torch.full((), 1e3, dtype=csi.dtype))
    estimate, power = baselines.omp(spoiled, shown, atoms=2)
    assert baselines.nmse(estimate, csi, ~shown).item() < 1e-5
    expected = np.abs(np.fft.fft2(estimate[0].numpy().astype(np.complex128))) ** 2
    np.testing.assert_allclose(power[0].numpy(), expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_lmmse_is_the_textbook_estimate(shown):
    rng = np.random.default_rng(1)
    shape = (200, 32, 32)
    mixing = rng.normal(size=(6, 1024)) + 1j * rng.normal(size=(6, 1024))
    train = ((rng.normal(size=(200, 6)) + 1j * rng.normal(size=(200, 6))) @ mixing).reshape(shape)
    train = torch.from_numpy(train.astype(np.complex64))
    lmmse = baselines.Lmmse(train[:150], train[150:180])
    test = train[180:]
    filled = lmmse(test, shown)
    # Six-dimensional channels are known from half of their antennas.
    assert baselines.nmse(filled, test, ~shown).max() < 1e-2
    assert baselines.nmse(filled, test, shown).max() < 1e-9

    flat = train[:150].flatten(1).numpy().astype(complex)
    flat /= np.sqrt((np.abs(flat) ** 2).mean(1, keepdims=True))
    covariance = 0.8 * sum(np.outer(h, h.conj()) for h in flat) / 150 + 0.2 * np.eye(1024)
    seen = shown.flatten().numpy()
    target = test[0].flatten().numpy()
    expected = covariance[~seen][:, seen] @ np.linalg.solve(covariance[seen][:, seen], target[seen])
    found = lmmse._fill(test[:1], shown, 0.2).flatten().numpy()[~seen]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_neighbour_mean_is_the_weighted_mean_of_visible_patches():
    rng = np.random.default_rng(2)
    occupancy, visible = rng.random((1, 6, 6)) < 0.5, rng.random((1, 6, 6)) < 0.7
    found = baselines.neighbour_mean(torch.from_numpy(occupancy).float(), torch.from_numpy(visible))[0]
    for row in range(6):
        for column in range(6):
            total = norm = 0.0
            for r in range(6):
                for c in range(6):
                    weight = np.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * 1.5**2)) * visible[0, r, c]
                    total, norm = total + weight * occupancy[0, r, c], norm + weight
            assert found[row, column].item() == pytest.approx(total / norm, rel=1e-4)


def test_nearest_neighbours():
    train, labels = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[0.0, 0.0], [4.0, 8.0], [100.0, 100.0]])
    found = baselines.nearest_neighbours(train, labels, torch.tensor([[0.25]]), k=2)
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0]]))


def test_average_precision_and_f1():
    scores = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    positive = np.array([True, False, True, False, True])
    # Thresholds 0.9, 0.8, 0.3, 0.1: recall steps 1/3, 1/3, 0, 1/3 at precisions 1, 2/3, 1/2, 3/5.
    assert baselines.average_precision(scores, positive) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert baselines.average_precision(np.ones(5), positive) == pytest.approx(positive.mean())
    assert baselines.f1(scores >= 0.8, positive) == pytest.approx(2 * 2 / (3 + 3))
    threshold, best = baselines.best_f1(scores, positive)
    assert best == pytest.approx(0.75)
    assert baselines.f1(scores >= threshold, positive) == pytest.approx(best)
    assert np.isnan(baselines.average_precision(scores, np.zeros(5, bool)))
    assert baselines.best_f1(scores, np.zeros(5, bool)) == (0.1, 0.0)


def test_the_best_threshold_is_that_of_a_loop_over_percentiles():
    rng = np.random.default_rng(0)
    for rounding in (1, 3, 9):
        scores = rng.random(400).round(rounding)
        positive = rng.random(400) < 0.4 * scores
        thresholds = np.unique(np.quantile(scores, np.linspace(0, 1, 101)))
        found = [scores >= threshold for threshold in thresholds]
        f1 = [2 * (one & positive).sum() / (one.sum() + positive.sum()) for one in found]
        threshold, best = baselines.best_f1(scores, positive)
        assert threshold == thresholds[np.argmax(f1)]
        assert best == pytest.approx(max(f1))
