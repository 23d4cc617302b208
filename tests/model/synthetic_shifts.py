"""Channels that can be modulated, and shifts to modulate them by."""

import numpy as np
import torch

from wavecity.model.equivariance.group import epsilon, modulate
from wavecity.model.equivariance.models import TIME_FREQUENCY_SPACE

PAST, HORIZON = 6, 3
SHAPE = (3, PAST, 8, 5)
DIMS = TIME_FREQUENCY_SPACE


def decibel(ratio):
    return 10 * np.log10(max(float(torch.as_tensor(ratio).detach()), 1e-40))


def channels(shape=SHAPE, seed=0, paths=4):
    """Sums of plane waves over all axes but the first, complex128, of gains around -100 dB, each sample its own."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*map(np.arange, shape[1:]), indexing="ij")
    turns = rng.uniform(-0.3, 0.3, (shape[0], paths, len(axes)))
    gain = 10 ** rng.uniform(-5.5, -4.5, (shape[0], paths)) * np.exp(2j * np.pi * rng.random((shape[0], paths)))
    waves = np.exp(2j * np.pi * np.einsum("bpa,a...->bp...", turns, np.stack(axes)))
    return torch.from_numpy(np.einsum("bp,bp...->b...", gain, waves))


def shifts(batch, axes, seed=1, size=None):
    """Turns of every sample: anywhere off the grid, or whole bins of axes of `size`."""
    rng = np.random.default_rng(seed)
    if size is None:
        return torch.from_numpy(rng.uniform(-0.5, 0.5, (batch, axes)))
    return torch.from_numpy(rng.integers(1, np.asarray(size), (batch, axes)) / np.asarray(size))


def random_visible(shape=SHAPE, seed=2, share=0.7):
    return torch.from_numpy(np.random.default_rng(seed).random(shape) < share)


@torch.no_grad()
def equivariance_error(network, csi, visible, turns, dims, origin=0, where=None):
    """Epsilon of a map (csi, visible) -> complex for shifts `turns`, over the entries `where`."""
    moved = network(modulate(csi, turns, dims), visible)
    expected = modulate(network(csi, visible), turns, dims, origin)
    if where is not None:
        moved, expected = (part.masked_fill(~where, 0) for part in (moved, expected))
    return float(epsilon(moved, expected))
