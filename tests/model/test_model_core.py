"""Size, leaks and equations of the foundation model."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from model import losses
from model.foundation import FoundationModel, Geometry, Inputs, count_parameters
from model.masking import Mask, split_random
from model.settings import ModelSettings

GEOMETRY = Geometry(32, 32, 200, 20)


def batch(rng, size=3):
    def normal(*shape):
        return torch.from_numpy(rng.normal(size=shape).astype(np.float32))

    inputs = Inputs(normal(size, 64, 32), normal(size, 1), normal(size, 400, 100), normal(size, 2))
    mask = Mask(*split_random(size, 64, 32, rng), *split_random(size, 400, 80, rng), location_visible=False)
    return inputs, mask


def test_paper_size_has_468_tokens_and_2_4_million_parameters():
    model = FoundationModel(ModelSettings(), GEOMETRY)
    assert model.tokens == 468
    assert count_parameters(model) == pytest.approx(2.4e6, abs=0.05e6)


def test_masked_tokens_never_reach_the_encoder():
    inputs, mask = batch(np.random.default_rng(0))
    model = FoundationModel(ModelSettings(width=32, encoder_layers=2, decoder_layers=1), GEOMETRY).eval()
    csi, height = inputs.csi.clone(), inputs.height.clone()
    rows = torch.arange(3)[:, None]
    csi[rows, mask.csi_masked] += 7
    height[rows, mask.scene_masked] -= 5
    other = replace(inputs, csi=csi, height=height, location=inputs.location + 9)
    with torch.no_grad():
        first, second = model(inputs, mask), model(other, mask)
        torch.testing.assert_close(first.physc, second.physc, rtol=0, atol=0)
        torch.testing.assert_close(first.csi, second.csi, rtol=0, atol=0)
        torch.testing.assert_close(first.location, second.location, rtol=0, atol=0)
        seen = inputs.csi.clone()
        seen[rows, mask.csi_visible] += 7
        assert not torch.equal(model(replace(inputs, csi=seen), mask).physc, first.physc)


def test_random_masks_split_all_patches():
    visible, masked = split_random(5, 64, 45, np.random.default_rng(1))
    assert masked.shape == (5, 45)
    for one, two in zip(visible, masked, strict=True):
        assert sorted([*one.tolist(), *two.tolist()]) == list(range(64))


def test_equations_equal_their_slow_literal_forms():
    rng = np.random.default_rng(2)
    predicted, target = (rng.normal(size=(4, 10)) + 1j * rng.normal(size=(4, 10)) for _ in range(2))
    literal = [
        np.sqrt(np.mean((abs(p) - abs(t)) ** 2 + (np.angle(p) - np.angle(t)) ** 2))
        for p, t in zip(predicted, target, strict=True)
    ]
    found = losses.csi_literal(torch.from_numpy(predicted), torch.from_numpy(target))
    assert float(found) == pytest.approx(np.mean(literal), rel=1e-3)

    logits, occupied = rng.normal(size=(2, 5, 1)), rng.integers(0, 2, (2, 5, 1))
    chance = 1 / (1 + np.exp(-logits))
    bce = -np.mean(occupied * np.log(chance) + (1 - occupied) * np.log(1 - chance))
    found = losses.occupancy_bce(torch.from_numpy(logits), torch.from_numpy(occupied))
    assert float(found) == pytest.approx(bce, rel=1e-6)

    p, t = rng.random((2, 8, 8)), rng.random((2, 8, 8))
    both = 0.3 * np.sqrt(((p - t) ** 2).mean((1, 2))) + 0.7 * np.sqrt(
        ((np.log(p + 0.01) - np.log(t + 0.01)) ** 2).mean((1, 2))
    )
    found = losses.spectrum_rmse(torch.from_numpy(p), torch.from_numpy(t), 0.3, 0.01)
    assert float(found) == pytest.approx(both.mean(), rel=1e-4)

    q = np.exp(logits[:, :4].reshape(2, 2, 2))
    q, s = q / q.sum((1, 2), keepdims=True), t[:, :2, :2] / t[:, :2, :2].sum((1, 2), keepdims=True)
    found = losses.spectrum_kl(torch.from_numpy(np.log(q) + 3), torch.from_numpy(t[:, :2, :2].copy()))
    assert float(found) == pytest.approx((s * np.log(s / q)).sum((1, 2)).mean(), rel=1e-6)

    xy, true = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    found = losses.location_rmse(torch.from_numpy(xy), torch.from_numpy(true))
    assert float(found) == pytest.approx(np.linalg.norm(xy - true, axis=1).mean(), rel=1e-3)
