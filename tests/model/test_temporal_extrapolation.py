"""The guesses of forecasts: exact where the physics is a linear recurrence, and never worse than it must be."""

import numpy as np
import pytest
import torch
from synthetic_temporal import complex_normal

from wavecity.model.temporal.autoregression import LOUDEST
from wavecity.model.temporal.extrapolation import WAYS, extrapolate


def tones(frequencies, steps, bins=(3, 2), seed=0):
    """Each bin a sum of the same undamped exponentials, `frequencies` in turns a step, with amplitudes of its own."""
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=(len(frequencies), *bins)) + 1j * rng.normal(size=(len(frequencies), *bins))
    waves = np.exp(2j * np.pi * np.outer(np.arange(steps), frequencies))
    return torch.from_numpy(np.einsum("tk,kad->tad", waves, amplitudes))[None]


def nmse(guess, truth):
    return float((guess - truth).abs().square().sum() / truth.abs().square().sum())


@pytest.mark.parametrize("frequencies", [[0.1], [0.1, -0.23], [0.05, 0.12, -0.3, 0.41]])
def test_few_steady_paths_are_foretold_exactly(frequencies):
    whole = tones(frequencies, 24)
    guess = extrapolate(whole[:, :16], 8).best()
    assert guess.dtype == torch.complex128
    assert nmse(guess, whole[:, 16:]) < 1e-8
    single = extrapolate(whole[:, :16].to(torch.complex64) * 1e-6, 8).best()
    assert single.dtype == torch.complex64
    assert nmse(single * 1e6, whole[:, 16:]) < 1e-4


def test_bins_with_paths_of_their_own_are_foretold_too():
    """More paths than any order has, but one a bin."""
    rng = np.random.default_rng(1)
    frequency = rng.uniform(-0.4, 0.4, (6, 5))
    whole = torch.from_numpy(np.exp(2j * np.pi * frequency * np.arange(24)[:, None, None]))[None]
    assert nmse(extrapolate(whole[:, :16], 8).best(), whole[:, 16:]) < 1e-3


def test_samples_do_not_mix_and_noise_does_not_explode():
    whole = torch.cat((tones([0.1], 24), 100 * complex_normal((1, 24, 3, 2)), torch.zeros(1, 24, 3, 2)))
    guess = extrapolate(whole[:, :16], 8).best()
    torch.testing.assert_close(guess[:1], extrapolate(whole[:1, :16], 8).best())
    assert nmse(guess[:1], whole[:1, 16:]) < 1e-8
    assert (guess[2] == 0).all()
    loudest = whole[1, :16].abs().square().mean((1, 2)).max()
    assert guess[1].abs().square().mean((1, 2)).max() <= 1.001 * LOUDEST**2 * loudest


@pytest.mark.parametrize("steps", [2, 3, 4, 7])
def test_any_past_from_two_snapshots_on(steps):
    """What stands still stays."""
    still = complex_normal((2, 1, 3, 2)).expand(2, steps, 3, 2)
    torch.testing.assert_close(extrapolate(still, 3).best(), still[:, :1].expand(2, 3, 3, 2), atol=1e-3, rtol=1e-3)


def test_each_way_tells_how_it_did_on_the_end_of_the_past():
    """Errors against a forecast of those snapshots by persistence, written out; the chosen way has the least."""
    whole = tones([0.03, -0.02], 16) + 0.05 * complex_normal((1, 16, 3, 2))
    guesses = extrapolate(whole, 4)
    end, power = whole[:, 12:], whole.abs().square().mean()
    held = (whole[:, 11:12] - end).abs().square().mean(1) / power
    torch.testing.assert_close(guesses.errors[:, 0], held.double())
    assert guesses.values.shape == (1, WAYS, 4, 3, 2)
    torch.testing.assert_close(guesses.values[:, 0], whole[:, -1:].expand(1, 4, 3, 2))
    totals = guesses.errors.sum((2, 3))[0]
    assert guesses.chosen[0] == totals.argmin()
    assert totals[1:].min() < totals[0]
