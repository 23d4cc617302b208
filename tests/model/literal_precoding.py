"""Channels and literal second forms that the tests of precoding share."""

import itertools

import numpy as np
import torch

from wavecity.model.tasks.beams import mu_precoding, su_precoding
from wavecity.model.tasks.beams.link import Link, as_columns, effective_channel

LINK = Link.of(power_dbm=30, bandwidth_hz=100e6, noise_figure_db=7)


def channels(seed, *shape, gain=1e-12, paths=None):
    """complex64 channels of mean power `gain`: white, or of a few plane waves."""
    rng = np.random.default_rng(seed)

    def normal(*size):
        return (rng.normal(size=size) + 1j * rng.normal(size=size)) / np.sqrt(2)

    if paths is None:
        csi = normal(*shape)
    else:
        columns, rows = shape[-2:]
        turns = rng.uniform(size=(2, *shape[:-2], paths))
        x = np.exp(2j * np.pi * turns[0][..., None] * np.arange(columns))
        y = np.exp(2j * np.pi * turns[1][..., None] * np.arange(rows))
        csi = np.einsum("...p,...px,...py->...xy", normal(*shape[:-2], paths) / np.sqrt(paths), x, y)
    return torch.from_numpy((np.sqrt(gain) * csi).astype(np.complex64))


def flat(csi):
    return csi.numpy().astype(np.complex128).reshape(*csi.shape[:-2], -1)


def literal_beams(columns, rows):
    """Eq. 15, entry by entry: (columns * rows beams, antennas)."""
    beams = np.zeros((columns * rows, columns * rows), complex)
    for kx, ky, n, m in itertools.product(range(columns), range(rows), range(columns), range(rows)):
        beams[kx * rows + ky, n * rows + m] = np.exp(-2j * np.pi * (kx * n / columns + ky * m / rows))
    return beams


def water_filling(gains, power):
    """By bisection on the water level."""
    gains = np.asarray([gain for gain in gains if gain > 0])
    if len(gains) == 0:
        return 0.0
    low, high = 0.0, power + 1 / gains.max()
    for _ in range(300):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(level - 1 / gains, 0).sum() < power else (low, level)
    return np.log2(1 + np.maximum(low - 1 / gains, 0) * gains).sum()


def random_link(rng):
    return Link(10 ** rng.uniform(-3, 2), 10 ** rng.uniform(-14, -10))


def receive_channels(csi):
    """H[r] = h_r^H, complex128 (B, R, N_t)."""
    return flat(csi).conj()


def mu_precoder(csi, beams, link, alpha=None):
    """The precoder behind `mu_sum_rate`: F_RF (C, N_t, K) and F_BB (C, K, K)."""
    beams = mu_precoding._checked_clusters(csi, beams)
    effective = effective_channel(csi, beams)
    return as_columns(beams, *csi.shape[-2:]), mu_precoding._baseband(effective, beams, csi, link, alpha)


def su_precoder(csi, pairs, receive_shape, link):
    """Precoder and combiner behind `su_rate`: F_RF (B, N_t, 2), F_BB (B, 2, 2), W_RF (B, R, 2), W_BB (B, 2, 2)."""
    pairs = su_precoding._checked_pairs(csi, pairs, receive_shape)
    _, precoder, combiner = su_precoding._su_baseband(csi, pairs, receive_shape, link)
    return as_columns(pairs.tx, *csi.shape[-2:]), precoder, as_columns(pairs.rx, *receive_shape), combiner
