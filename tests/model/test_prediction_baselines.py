"""Predictors that need no pretraining, against analytic results and a second implementation in numpy."""

import numpy as np
import pytest
import torch
from scipy.linalg import lstsq

from wavecity.model.learning.predictors import GROUPS, GruPredictor, _coefficients, persistence, ridge

HORIZONS = (1, 2, 4, 8)
ORDERS, PENALTIES = (1, 2, 4, 6), (1e-12, 1e-6, 1e-2)


def rotations(cycles, rng, samples=6, steps=24, bins=(4, 3)):
    """Sums of undamped exponentials of `cycles` (samples, K) a step, random amplitudes in every bin: (B, T, A, D)."""
    cycles = np.asarray(cycles, float) * np.ones((samples, 1))
    amplitude = rng.normal(size=(samples, cycles.shape[1], *bins, 2)) @ [1, 1j]
    turns = np.exp(2j * np.pi * cycles[:, :, None] * np.arange(steps))
    return torch.from_numpy(np.einsum("bkt,bkad->btad", turns, amplitude))


def nmse(predicted, channel, seen=16):
    """Ratio by sample and horizon, (B, H)."""
    truth = channel[:, [seen - 1 + horizon for horizon in HORIZONS]]
    power = truth.abs().square().sum((2, 3))
    return ((predicted - truth).abs().square().sum((2, 3)) / power).numpy()


@pytest.mark.parametrize("cycles", [0.01, 0.11, -0.3])
def test_persistence_of_one_path_has_the_analytic_error(cycles):
    channel = rotations([[cycles]], np.random.default_rng(0))
    found = nmse(persistence(channel[:, :16], HORIZONS), channel)
    np.testing.assert_allclose(found, [2 * (1 - np.cos(2 * np.pi * cycles * np.array(HORIZONS)))] * 6, rtol=1e-9)


def test_autoregression_of_few_paths_is_nearly_exact_and_of_too_low_an_order_is_not():
    """K undamped exponentials obey a recursion of order K exactly, whatever their amplitudes."""
    rng = np.random.default_rng(1)
    channel = rotations([[0.04, -0.13, 0.31]], rng)
    exact = ridge(channel[:, :16], HORIZONS, ORDERS, PENALTIES)
    assert nmse(exact.values, channel).max() < 1e-12
    assert set(exact.summary(HORIZONS)["4"]["order"]) <= {"4", "6"}
    # An order of one is right only where a bin, or an angle, holds one path.
    assert nmse(ridge(channel[:, :16], HORIZONS, (1,), PENALTIES).values, channel).mean() > 0.05
    one = rotations([[0.04]], rng)
    assert nmse(ridge(one[:, :16], HORIZONS, (1,), PENALTIES).values, one).max() < 1e-12


def test_paths_of_their_own_in_each_bin_take_coefficients_of_their_own():
    """Twelve Dopplers in twelve bins: too many for a recursion of order two that all bins share, not for one a bin."""
    rng = np.random.default_rng(2)
    cycles = np.linspace(-0.4, 0.4, 12).reshape(4, 3)
    turns = np.exp(2j * np.pi * cycles * np.arange(24)[:, None, None])
    channel = torch.from_numpy(turns * rng.uniform(0.5, 1, (5, 1, 4, 3)))
    found = ridge(channel[:, :16], HORIZONS, (2,), (1e-12,))
    assert nmse(found.values, channel).max() < 1e-12
    assert set(found.summary(HORIZONS)["8"]["group"]) <= {"bin, near the sample", "bin, near zero"}


@pytest.mark.parametrize(("order", "step", "penalty"), [(1, 1, 1e-3), (3, 1, 1e-2), (2, 4, 1e-1)])
def test_coefficients_are_those_of_penalised_least_squares(order, step, penalty):
    """The same by stacking equations, the penalty as further ones, and scipy's least squares."""
    rng = np.random.default_rng(3)
    seen = rng.normal(size=(2, 14, 3, 2, 2)) @ [1, 1j]
    found = _coefficients(torch.from_numpy(seen), order, step, (penalty,))
    assert set(found) == set(GROUPS)

    def equations(series):
        rows, right = [], []
        for way in (series, series[::-1].conj()):
            for t in range(order - 1, len(way) - step):
                rows.append(way[t - order + 1 : t + 1][::-1])
                right.append(way[t + step])
        return np.array(rows), np.array(right)

    def solved(bins, power, towards):
        matrix, right = (np.concatenate(parts) for parts in zip(*map(equations, bins), strict=True))
        matrix = np.concatenate((matrix, np.sqrt(penalty * power) * np.eye(order)))
        return lstsq(matrix, np.concatenate((right, np.sqrt(penalty * power) * towards)))[0]

    def power_of(bins):
        """Energy of the regressors, mean over the coefficients."""
        return sum(np.square(np.abs(equations(series)[0])).sum() for series in bins) / order

    for sample in range(2):
        bins = {(a, d): seen[sample, :, a, d] for a in range(3) for d in range(2)}
        every = list(bins.values())
        whole = solved(every, power_of(every), np.eye(order)[0])
        np.testing.assert_allclose(found["sample"][0, sample, 0, 0], whole, rtol=1e-9)
        for a in range(3):
            mine = [bins[a, 0], bins[a, 1]]
            near = solved(mine, power_of(mine), whole)
            np.testing.assert_allclose(found["angle, near the sample"][0, sample, a, 0], near, rtol=1e-9)
            near = solved(mine, power_of(every) / 3, np.zeros(order))
            np.testing.assert_allclose(found["angle, near zero"][0, sample, a, 0], near, rtol=1e-9)
        near = solved([bins[2, 1]], power_of([bins[2, 1]]), whole)
        np.testing.assert_allclose(found["bin, near the sample"][0, sample, 2, 1], near, rtol=1e-9)
        near = solved([bins[2, 1]], power_of(every) / 6, np.zeros(order))
        np.testing.assert_allclose(found["bin, near zero"][0, sample, 2, 1], near, rtol=1e-9)


def test_of_noise_alone_next_to_nothing_is_predicted():
    rng = np.random.default_rng(4)
    channel = torch.from_numpy(rng.normal(size=(40, 24, 4, 3, 2)) @ [1, 1j])
    # Persistence of white noise is wrong by twice its power, silence by its power.
    assert nmse(persistence(channel[:, :16], HORIZONS), channel).mean() == pytest.approx(2, rel=0.2)
    assert nmse(ridge(channel[:, :16], HORIZONS, ORDERS, PENALTIES).values, channel).mean() < 1.4


def test_noise_in_empty_bins_is_not_predicted():
    """One path in one bin of sixteen, noise of the same power as the path over all of them."""
    rng = np.random.default_rng(5)
    channel = torch.zeros(30, 24, 4, 4, dtype=torch.complex128)
    channel[:, :, 1, 2] = rotations([[0.07]], rng, 30)[:, :, 0, 0]
    channel /= channel.abs().square().sum((2, 3), keepdim=True).mean(1, keepdim=True).sqrt()
    noise = torch.from_numpy(rng.normal(size=(30, 16, 4, 4, 2)) @ [1, 1j]) / 32**0.5 / 10**0.5
    noisy = channel[:, :16] + noise
    found = nmse(ridge(noisy, HORIZONS, ORDERS, (1e-3, 1e-2, 1e-1)).values, channel).mean(0)
    kept = nmse(persistence(noisy, HORIZONS), channel).mean(0)
    # 10 dB: persistence keeps the noise of all sixteen bins.
    assert kept[0] > 0.1
    assert found[0] < 0.06
    assert (found < kept).all()


def test_a_growing_sample_does_not_explode():
    channel = torch.from_numpy(1.5 ** np.arange(24.0) * np.ones((1, 4, 3, 1))).permute(0, 3, 1, 2).to(torch.complex64)
    values = ridge(channel[:, :16], HORIZONS, ORDERS, PENALTIES).values
    assert float(values.abs().max()) <= 2 * float(channel[:, 15].abs().max()) * (1 + 1e-6)


def test_a_history_too_short_to_fit_leaves_persistence_and_silence_stays_silent():
    channel = rotations([[0.1]], np.random.default_rng(6)).to(torch.complex64)
    short = ridge(channel[:, :2], HORIZONS, (2, 4), PENALTIES)
    torch.testing.assert_close(short.values, persistence(channel[:, :2], HORIZONS))
    assert short.summary(HORIZONS)["1"]["order"] == {"0": 1.0}
    assert (ridge(torch.zeros(2, 16, 4, 3, dtype=torch.complex64), HORIZONS, ORDERS, PENALTIES).values == 0).all()


def test_samples_do_not_touch_each_other_and_scale_and_phase_go_through():
    channel = rotations([[0.04, 0.2, -0.33]], np.random.default_rng(7), samples=40)[:, :16]
    channel = channel + 0.05 * torch.randn(
        channel.shape, dtype=channel.dtype, generator=torch.Generator().manual_seed(0)
    )
    together = ridge(channel, HORIZONS, ORDERS, PENALTIES).values
    alone = ridge(channel[35:36] * 1e-7j, HORIZONS, ORDERS, PENALTIES).values
    torch.testing.assert_close(alone / 1e-7j, together[35:36], rtol=1e-6, atol=1e-9)


def test_the_gru_begins_near_the_last_snapshot_and_learns_a_rotation():
    torch.manual_seed(0)
    channel = rotations([[0.06]], np.random.default_rng(8), samples=32).to(torch.complex64)
    past, future = channel[:, :16], channel[:, 16:20]
    model = GruPredictor((4, 3), 4, 32)
    torch.testing.assert_close(model(past * 1e-6), model(past) * 1e-6, rtol=1e-4, atol=1e-9)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-2)

    def loss():
        return (model(past) - future).abs().square().sum() / future.abs().square().sum()

    for _ in range(80):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    held = (past[:, -1:] - future).abs().square().sum() / future.abs().square().sum()
    assert loss().item() < 0.2 * held.item()
