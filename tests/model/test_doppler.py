"""Forecasts by Dopplers: exact for plane waves in time, far below the noise, and following every shift of the channel."""

import numpy as np
import pytest
import torch
from synthetic_temporal import complex_normal

from wavecity.model.learning.predictors import ridge
from wavecity.model.temporal import doppler
from wavecity.model.temporal.extrapolation import TRUSTED, extrapolate

PAST, AHEAD, BINS = 16, 8, (8, 4)


def channel(turns, seed=0, bins=BINS):
    """Paths of one angle and one delay each, off the grid of both; `turns` a snapshot, complex128 (1, T, A, D)."""
    rng = np.random.default_rng(seed)
    time = np.exp(2j * np.pi * np.outer(np.arange(PAST + AHEAD), turns))
    places = [np.exp(2j * np.pi * np.outer(np.arange(size), rng.uniform(size=len(turns)))) for size in bins]
    gains = rng.uniform(0.5, 1, len(turns)) * np.exp(2j * np.pi * rng.uniform(size=len(turns)))
    antennas = np.einsum("k,tk,ak,dk->tad", gains, time, *places)
    return torch.from_numpy(np.fft.fft2(antennas, norm="ortho"))[None]


def unit_power(whole):
    return whole / whole[:, :PAST].abs().square().mean().sqrt()


def nmse(guess, truth):
    return float((guess - truth).abs().square().sum() / truth.abs().square().sum())


@pytest.mark.parametrize(
    "turns", [[0.07], [0.11, -0.24], [0.02, 0.05, -0.3, 0.44], [0.1, 0.18, 0.26, -0.05, -0.2, -0.41]]
)
def test_as_many_waves_as_paths_are_exact(turns):
    whole = unit_power(channel(turns))
    ahead = doppler.forecasts(whole[:, :PAST], AHEAD, 8)
    assert ahead.shape == (1, 8, AHEAD, *BINS)
    assert nmse(ahead[:, len(turns) - 1], whole[:, PAST:]) < 1e-10


def test_one_bin_alone_tells_two_paths_apart():
    """Its snapshots are one vector; turned around in time and conjugated they are a second one."""
    whole = unit_power(channel([0.1, 0.25], bins=(1, 1)))
    assert nmse(doppler.forecasts(whole[:, :PAST], AHEAD, 2)[:, 1], whole[:, PAST:]) < 1e-10


@pytest.mark.parametrize("paths", [1, 3])
def test_noise_is_left_behind(paths):
    """At 10 dB, paths a resolution cell apart in Doppler: ahead of ridge by 6 dB at every horizon, and near what is possible.

    A path has A + D - 1 free complex numbers to be found among T A D noisy ones.
    """
    turns = 0.09 * np.arange(paths) - 0.1
    bins = (16, 8)
    whole = unit_power(torch.cat([channel(turns, seed, bins) for seed in range(16)]))
    past = whole[:, :PAST] + 10**-0.5 * complex_normal((16, PAST, *bins))
    horizons = (1, 2, 4, 8)
    baseline = ridge(past, horizons, (1, 2, 4, 6, 8), (1e-8, 1e-4, 1e-2, 1e-1)).values
    guess = extrapolate(past, AHEAD)
    for row, horizon in enumerate(horizons):
        truth = whole[:, PAST + horizon - 1]
        mine, theirs = nmse(guess.best()[:, horizon - 1], truth), nmse(baseline[:, row], truth)
        assert mine < 0.25 * theirs
    possible = 0.1 * paths * (sum(bins) - 1) / (PAST * np.prod(bins))
    assert possible / 2 < nmse(guess.best()[:, 0], whole[:, PAST]) < 2 * possible


def test_forecasts_follow_the_channel():
    """Modulated in time, mixed by a unitary matrix in angle or delay, or scaled: the forecast is too."""
    whole = unit_power(channel([0.05, -0.12, 0.2]))
    past = whole[:, :PAST] + 0.1 * complex_normal((1, PAST, *BINS))
    plain = doppler.forecasts(past, AHEAD, 4)
    wave = torch.polar(torch.ones(PAST + AHEAD).double(), 2.3 * torch.arange(PAST + AHEAD).double())[:, None, None]
    torch.testing.assert_close(doppler.forecasts(past * wave[:PAST], AHEAD, 4), plain * wave[PAST:], atol=1e-8, rtol=0)
    for axis, size in zip((-2, -1), BINS, strict=True):
        mix = torch.linalg.qr(complex_normal((size, size)).to(torch.complex128))[0]

        def mixed(part, axis=axis, mix=mix):
            return (part.movedim(axis, -1) @ mix).movedim(-1, axis)

        torch.testing.assert_close(doppler.forecasts(mixed(past), AHEAD, 4), mixed(plain), atol=1e-8, rtol=0)


def test_nothing_explodes_or_rises_out_of_noise():
    """Undamped waves stay as loud as their fit; of noise alone most directions are dropped; silence stays silent."""
    noise = complex_normal((20, PAST, *BINS)).to(torch.complex128)
    ahead = doppler.forecasts(noise, 1000, 3)
    assert ahead.abs().square().mean() < 0.5 * 3 / PAST
    assert ahead[:, :, -100:].abs().square().mean() < 2 * ahead[:, :, :100].abs().square().mean()
    silent = torch.zeros(1, PAST, *BINS, dtype=torch.complex128)
    assert (doppler.forecasts(silent, 3, 8) == 0).all()


def test_weights_favour_what_did_well():
    """Within 5 % of the best a number of waves weighs 1/e of it, or more; twice its error is nothing."""
    weights = doppler.weights(torch.tensor([[1.0, 1.05, 2.0], [0.0, 0.0, 1e-9]], dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(2).double())
    assert weights[0, 1] / weights[0, 0] == pytest.approx(np.exp(-1))
    assert weights[0, 2] < 1e-8
    torch.testing.assert_close(weights[1], torch.tensor([0.5, 0.5, 0.0]).double())


def test_a_recurrence_must_be_far_better_than_waves():
    """Damped exponentials, which waves cannot follow, are left to an autoregression; undamped ones with noise are not."""
    damped = unit_power(channel([0.1, -0.2]) * torch.exp(-0.05 * torch.arange(PAST + AHEAD))[:, None, None])
    guess = extrapolate(damped[:, :PAST], AHEAD)
    totals = guess.errors.sum((2, 3))[0]
    assert totals[:-1].min() < totals[-1] / TRUSTED
    assert guess.chosen[0] == totals.argmin()
    assert nmse(guess.best(), damped[:, PAST:]) < 1e-4


def test_how_much_better_a_recurrence_must_be():
    """Damping between none and much, with a little noise: all three cases occur, and each goes by the rule."""
    fall = torch.linspace(0, 0.05, 40)[:, None, None, None] * torch.arange(PAST)[:, None, None]
    past = unit_power(channel([0.1, -0.2]))[:, :PAST] * torch.exp(-fall)
    guess = extrapolate(past + 1e-2 * complex_normal(past.shape), AHEAD)
    totals = guess.errors.sum((2, 3))
    others, waves, last = totals[:, :-1].amin(1), totals[:, -1], totals.shape[1] - 1
    cases = (others > waves, (others < waves) & (4 * others > waves), (4 * others < waves) & (1000 * others > waves))
    assert all(case.any() for case in cases)
    for case, by_waves in zip(cases, (True, True, False), strict=True):
        assert ((guess.chosen[case] == last) == by_waves).all()
