"""Equations 2 to 7 against slow, literal forms written from the paper."""

import cmath
import math

import numpy as np
import pytest
import torch

from wavecity.model.multimodal import losses
from wavecity.model.multimodal.inference import beams_of_spectrum
from wavecity.model.settings.training import LossSettings
from wavecity.raytrace.arrays import best_beam


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def complex_pair(rng, shape):
    values = rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape))
    return values[0], values[1]


def test_equation_2_literal_and_wrapped(rng):
    predicted, truth = complex_pair(rng, (3, 7))
    literal, wrapped = [], []
    for row in range(3):
        plain = turned = 0.0
        for guess, true in zip(predicted[row], truth[row], strict=True):
            magnitude = (abs(guess) - abs(true)) ** 2
            difference = cmath.phase(guess) - cmath.phase(true)
            plain += magnitude + difference**2
            turned += magnitude + ((difference + math.pi) % (2 * math.pi) - math.pi) ** 2
        literal.append(math.sqrt(plain / 7))
        wrapped.append(math.sqrt(turned / 7))
    guess, true = torch.from_numpy(predicted), torch.from_numpy(truth)
    assert losses.csi_literal(guess, true).item() == pytest.approx(np.mean(literal), rel=1e-9)
    assert losses.csi_wrapped(guess, true).item() == pytest.approx(np.mean(wrapped), rel=1e-9)
    assert np.mean(wrapped) < np.mean(literal)


def test_wrapped_phase_has_no_jump_where_the_literal_one_has():
    truth = torch.polar(torch.ones(1, 1), torch.tensor([[math.pi - 0.01]]))
    guess = torch.polar(torch.ones(1, 1), torch.tensor([[-math.pi + 0.01]]))
    assert losses.csi_wrapped(guess, truth).item() == pytest.approx(0.02, abs=1e-4)
    assert losses.csi_literal(guess, truth).item() == pytest.approx(2 * math.pi - 0.02, abs=1e-4)


def test_normalised_error_is_one_for_zeros_and_ignores_scale(rng):
    predicted, truth = (torch.from_numpy(values) for values in complex_pair(rng, (4, 9)))
    assert losses.csi_nmse(torch.zeros_like(truth), truth).item() == pytest.approx(1)
    slow = np.mean([
        sum(abs(g - t) ** 2 for g, t in zip(guess, true, strict=True)) / sum(abs(t) ** 2 for t in true)
        for guess, true in zip(predicted.numpy(), truth.numpy(), strict=True)
    ])  # fmt: skip
    assert losses.csi_nmse(predicted, truth).item() == pytest.approx(slow)
    assert losses.csi_nmse(7 * predicted, 7 * truth).item() == pytest.approx(slow)


@pytest.mark.parametrize("form", ["nmse", "wrapped", "literal"])
def test_csi_losses_have_finite_slopes_at_zero_and_at_the_truth(form):
    truth = torch.tensor([[1 + 1j, -2j, 0j]], dtype=torch.complex64)
    for start in (torch.zeros(1, 3, dtype=torch.complex64), truth.clone()):
        guess = start.requires_grad_()
        losses.CSI_FORMS[form](guess, truth).backward()
        assert torch.isfinite(torch.view_as_real(guess.grad)).all()


def test_equation_3(rng):
    predicted, truth = rng.normal(size=(2, 5, 2))
    slow = np.mean([math.hypot(*(guess - true)) for guess, true in zip(predicted, truth, strict=True)])
    assert losses.location_rmse(torch.from_numpy(predicted), torch.from_numpy(truth)).item() == pytest.approx(slow)


def test_equation_4(rng):
    logits, occupied = rng.normal(size=(3, 6, 4)), rng.random((3, 6, 4)) < 0.4
    slow = 0.0
    for logit, truth in zip(logits.ravel(), occupied.ravel(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        slow -= (truth * math.log(probability) + (1 - truth) * math.log(1 - probability)) / logits.size
    assert losses.occupancy_bce(torch.from_numpy(logits), torch.from_numpy(occupied)).item() == pytest.approx(slow)


def test_equation_5_is_the_literal_transform(rng):
    channel = complex_pair(rng, (8, 8))[0]
    slow = np.zeros((8, 8))
    for k_x in range(8):
        for k_y in range(8):
            total = 0j
            for n in range(8):
                for m in range(8):
                    total += channel[n, m] * cmath.exp(-2j * math.pi * (k_x * n + k_y * m) / 8)
            slow[k_x, k_y] = abs(total) ** 2
    np.testing.assert_allclose(losses.spectrum(torch.from_numpy(channel)).numpy(), slow, rtol=1e-9)


def test_beams_read_off_a_spectrum_are_the_best_beams(rng):
    csi = complex_pair(rng, (20, 32, 32))[0]
    scores = beams_of_spectrum(losses.spectrum(torch.from_numpy(csi)))
    np.testing.assert_array_equal(scores.argmax(1).numpy(), best_beam(csi))


def test_equation_6(rng):
    predicted, truth = rng.random((2, 3, 4, 4)) * 5
    alpha, epsilon = 0.3, 1e-2
    slow = []
    for guess, true in zip(predicted, truth, strict=True):
        linear = sum((g - t) ** 2 for g, t in zip(guess.ravel(), true.ravel(), strict=True)) / 16
        logs = [math.log(g + epsilon) - math.log(t + epsilon) for g, t in zip(guess.ravel(), true.ravel(), strict=True)]
        slow.append(alpha * math.sqrt(linear) + (1 - alpha) * math.sqrt(sum(d * d for d in logs) / 16))
    found = losses.spectrum_rmse(torch.from_numpy(predicted), torch.from_numpy(truth), alpha, epsilon)
    assert found.item() == pytest.approx(np.mean(slow))


def test_kl_form(rng):
    logits, truth = rng.normal(size=(2, 4, 4)), rng.random((2, 4, 4))
    slow = []
    for guess, true in zip(logits, truth, strict=True):
        p, q = true / true.sum(), np.exp(guess) / np.exp(guess).sum()
        slow.append(float((p * np.log(p / q)).sum()))
    assert losses.spectrum_kl(torch.from_numpy(logits), torch.from_numpy(truth)).item() == pytest.approx(np.mean(slow))
    own = torch.from_numpy(truth).log()
    assert losses.spectrum_kl(own, torch.from_numpy(truth)).item() == pytest.approx(0, abs=1e-12)


def test_coarse_spectrum_has_mean_one_and_keeps_block_means(rng):
    full = torch.from_numpy(rng.random((2, 32, 32)))
    coarse = losses.coarse_spectrum(full, 8)
    blocks = full.numpy().reshape(2, 8, 4, 8, 4).mean((2, 4))
    np.testing.assert_allclose(coarse.numpy(), blocks / blocks.mean((1, 2), keepdims=True))


def test_equation_7():
    terms = {"csi": torch.tensor(2.0), "location": torch.tensor(3.0), "spectrum": torch.tensor(5.0)}
    settings = LossSettings(csi=0.5, location=2, occupancy=100, spectrum=0.1)
    assert losses.total(terms, settings).item() == pytest.approx(0.5 * 2 + 2 * 3 + 0.1 * 5)
