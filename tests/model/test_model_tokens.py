"""Patches there and back, and normalisation by what is visible."""

import numpy as np
import pytest
import torch

from wavecity.model.data import tokens


def test_patches_are_the_literal_blocks_and_come_back():
    grid = torch.arange(2 * 8 * 12, dtype=torch.float32).reshape(2, 8, 12)
    patches = tokens.patchify(grid, 4)
    assert patches.shape == (2, 6, 16)
    for row in range(2):
        for column in range(3):
            block = grid[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(2, 16)
            assert torch.equal(patches[:, 3 * row + column], block)
    assert torch.equal(tokens.unpatchify(patches, 4, 8, 12), grid)


def test_complex_patches_hold_real_then_imaginary_parts():
    csi = torch.randn(2, 8, 8, dtype=torch.complex64)
    entries = tokens.complex_entries(tokens.csi_patches(csi, 4))
    assert torch.equal(tokens.unpatchify(entries, 4, 8, 8), csi)


def test_visible_rms_is_that_of_the_visible_entries_alone_even_at_minus_200_decibels():
    csi = 1e-10 * torch.randn(3, 8, 8, dtype=torch.complex64)
    patches = tokens.csi_patches(csi, 4)
    visible = torch.tensor([[0, 3], [1, 2], [0, 1]])
    rms = tokens.visible_rms(patches, visible)
    entries = tokens.unpatchify(tokens.complex_entries(patches), 4, 8, 8).to(torch.complex128)
    for sample in range(3):
        blocks = [entries[sample, 4 * (p // 2) : 4 * (p // 2) + 4, 4 * (p % 2) : 4 * (p % 2) + 4]
                  for p in visible[sample].tolist()]  # fmt: skip
        slow = np.sqrt(np.mean([np.mean(np.abs(block.numpy()) ** 2) for block in blocks]))
        assert rms[sample].item() == pytest.approx(slow, rel=1e-6)


def test_level_is_the_standardised_decibel_value():
    statistics = tokens.Statistics(csi_rms=1.0, csi_rms_db_mean=-120.0, csi_rms_db_std=20.0)
    level = tokens.level(torch.tensor([1e-7, 1e-5], dtype=torch.float64), statistics)
    np.testing.assert_allclose(level[:, 0], [(-140 + 120) / 20, (-100 + 120) / 20], rtol=1e-6)


def test_statistics_survive_a_checkpoint():
    values = {"csi_rms": 1e-6, "csi_rms_db_mean": -110, "csi_rms_db_std": 12, "n_samples": 7, "height_scale": 40}
    statistics = tokens.Statistics.from_dict(values)
    assert statistics.height_scale == 40
    assert statistics.position_scale == 100
    assert tokens.Statistics.from_dict(statistics.to_dict()) == statistics
