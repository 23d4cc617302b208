"""The angle-delay domain against NumPy, plane waves and energy."""

import numpy as np
import pytest
import torch
from synthetic_temporal import SPACING, complex_normal

from wavecity.dataset import InputError
from wavecity.model.data.angle_delay import delay_window, from_angle_delay, single_row, to_angle_delay


def wave(angle, delay, subcarriers=16, antennas=8):
    """A plane wave: phase turns by `angle` / X of a circle an antenna, delay in bins of 1 / (F * spacing)."""
    tau = delay / (subcarriers * SPACING)
    frequency = (np.arange(subcarriers) - subcarriers // 2) * SPACING
    turns = angle / antennas * np.arange(antennas) - frequency[:, None] * tau
    return torch.from_numpy(np.exp(2j * np.pi * turns).astype(np.complex64))


@pytest.mark.parametrize(("angle", "delay"), [(0, 0), (3, 5), (7, 15), (-2, 1)])
def test_a_plane_wave_on_the_grid_is_one_bin(angle, delay):
    bins = to_angle_delay(wave(angle, delay)[None])[0]
    power = bins.abs().square().numpy()
    assert power[angle % 8, delay] == pytest.approx(16 * 8, rel=1e-4)
    assert power.sum() == pytest.approx(16 * 8, rel=1e-4)


def test_it_is_the_double_sum():
    csi = complex_normal((2, 3, 6, 5))
    f, x = np.arange(6), np.arange(5)
    along_delay = np.exp(2j * np.pi * np.outer(f, f) / 6) / np.sqrt(6)
    along_angle = np.exp(-2j * np.pi * np.outer(x, x) / 5) / np.sqrt(5)
    expected = np.einsum("btfx,nf,ax->btan", csi.numpy(), along_delay, along_angle)
    np.testing.assert_allclose(to_angle_delay(csi).numpy(), expected, atol=1e-5)


def test_it_is_unitary_and_has_an_inverse():
    csi = complex_normal((2, 3, 6, 5))
    bins = to_angle_delay(csi)
    assert bins.shape == (2, 3, 5, 6)
    torch.testing.assert_close(bins.abs().square().sum(), csi.abs().square().sum())
    torch.testing.assert_close(from_angle_delay(bins, 6), csi)
    first = torch.tensor([4, 1])
    torch.testing.assert_close(from_angle_delay(to_angle_delay(csi, 6, first), 6, first), csi)


def test_a_crop_keeps_successive_bins_around_the_circle():
    csi = complex_normal((2, 3, 6, 5))
    whole = to_angle_delay(csi).numpy()
    np.testing.assert_allclose(to_angle_delay(csi, 2).numpy(), whole[..., :2], atol=1e-6)
    np.testing.assert_allclose(to_angle_delay(csi, 3, -1).numpy(), whole[..., [5, 0, 1]], atol=1e-6)
    cropped = to_angle_delay(csi, 3, torch.tensor([4, 1]))
    np.testing.assert_allclose(cropped[0].numpy(), whole[0][..., [4, 5, 0]], atol=1e-6)
    np.testing.assert_allclose(cropped[1].numpy(), whole[1][..., [1, 2, 3]], atol=1e-6)
    # What is cropped is lost, and nothing else.
    back = to_angle_delay(from_angle_delay(cropped, 6, torch.tensor([4, 1]))).numpy()
    np.testing.assert_allclose(back[1][..., 1:4], whole[1][..., 1:4], atol=1e-6)
    np.testing.assert_allclose(back[1][..., [0, 4, 5]], 0, atol=1e-6)


def test_the_window_has_the_most_energy():
    csi = torch.stack([wave(1, 5) + 0.5 * wave(2, 7), wave(0, 15) + 0.9 * wave(3, 0), wave(1, 2) * 1e-9])[:, None]
    first = delay_window(csi, 3)
    power = to_angle_delay(csi).abs().square().sum((1, 2)).numpy()
    best = [max(range(16), key=lambda n: row[np.arange(n, n + 3) % 16].sum()) for row in power]
    np.testing.assert_array_equal(first.numpy(), best)
    kept = to_angle_delay(csi, 3, first).abs().square().sum((1, 2, 3))
    torch.testing.assert_close(kept, csi.abs().square().sum((1, 2, 3)))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match=r"radio\.rows is 4; the temporal model takes a linear array, rows: 1"):
        single_row(torch.zeros(2, 3, 6, 5, 4))
    assert single_row(torch.zeros(2, 3, 6, 5, 1)).shape == (2, 3, 6, 5)
    with pytest.raises(InputError, match=r"training\.temporal\.delays 7: the dataset has 6 subcarriers"):
        to_angle_delay(complex_normal((1, 6, 5)), 7)
