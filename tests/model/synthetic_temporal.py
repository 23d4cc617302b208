"""Trajectories without a store: a few plane waves with Doppler, delay and angle for every user."""

import numpy as np
import torch
from synthetic import FakeSamples

from wavecity.model.data.trajectories import TemporalData

WAVELENGTH = 0.0105
SPACING = 480e3
# Nominal m/s of `wavecity.model.data.trajectories.KINDS`: walker, vehicle, cyclist.
SPEEDS = (1.4, 15.0, 5.0)


def plane_waves(rng, speed, steps=24, subcarriers=32, antennas=16, paths=3, interval=0.35e-3, longest=500e-9):
    """Channels of users who move at `speed` (N,) m/s: complex64 (N, T, F, X), and their velocities (N, T, 3).

    A path has an angle (its phase turns by `sine / 2` of a circle an antenna), a delay in s up to `longest`, a Doppler
    in Hz and a power that falls with its delay.
    """
    speed = np.asarray(speed, float)
    users = len(speed)
    sine = rng.uniform(-0.9, 0.9, (users, paths))
    delay = np.sort(rng.uniform(20e-9, longest, (users, paths)), axis=1)
    doppler = speed[:, None] / WAVELENGTH * np.cos(rng.uniform(0, 2 * np.pi, (users, paths)))
    gain = np.exp(2j * np.pi * rng.random((users, paths))) * np.exp(-(delay - delay[:, :1]) / 150e-9)
    turns = (
        doppler[..., None, None, None] * (np.arange(steps) * interval)[:, None, None]
        - delay[..., None, None, None] * ((np.arange(subcarriers) - subcarriers // 2) * SPACING)[:, None]
        + sine[..., None, None, None] / 2 * np.arange(antennas)
    )
    csi = 1e-5 * (gain[..., None, None, None] * np.exp(2j * np.pi * turns)).sum(1)
    heading = rng.uniform(0, 2 * np.pi, users)
    velocity = speed[:, None] * np.stack((np.cos(heading), np.sin(heading), np.zeros(users)), -1)
    return csi.astype(np.complex64), np.repeat(velocity[:, None], steps, 1).astype(np.float32)


def make_temporal(splits=(("train", 4), ("validation", 2), ("test", 2)), users=12, seed=0, **waves):
    """A `TemporalData` without a store: scenes of a split, `users` in each, kinds in turn; `waves` as `plane_waves`."""
    rng = np.random.default_rng(seed)
    samples, first = {}, 0
    for split, count in splits:
        kind = np.arange(users * count) % 3
        speed = np.take(SPEEDS, kind) * rng.uniform(0.8, 1.1, len(kind))
        csi, velocity = plane_waves(rng, speed, **waves)
        arrays = {
            "trajectory/csi": csi[..., None],
            "trajectory/velocity": velocity,
            "trajectory/kind": kind.astype(np.uint8),
        }
        samples[split] = FakeSamples(
            arrays, np.repeat(np.arange(first, first + count), users), np.tile(np.arange(users), count)
        )
        first += count
    steps, subcarriers = csi.shape[1:3]
    attributes = {
        "fingerprint": f"temporal-{seed}",
        "attribution": "© OpenStreetMap contributors",
        "licence": "ODbL-1.0",
        "trajectory": {
            "interval_s": waves.get("interval", 0.35e-3),
            "steps": steps,
            "subcarriers": subcarriers,
            "subcarrier_spacing_hz": SPACING,
        },
    }
    cities = [split.title() for split, count in splits for _ in range(count)]
    return TemporalData(samples, attributes, cities, "synthetic")


def users_of(data, split, count=None):
    """Users of a split in tensors."""
    from wavecity.model.data.trajectories import gather_temporal

    return gather_temporal(data.splits[split], count)


def complex_normal(shape, seed=0):
    """Complex64 noise of unit power."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex64, generator=generator)
