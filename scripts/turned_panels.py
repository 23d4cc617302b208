"""What becomes of recovered waves when the panel turns: directions in the world, before and after.

    python scripts/turned_panels.py STORE [--users 100] [--snr 10]

STORE has paths (`features.paths`). Channels of its test users in line of sight at a panel of 32 x 32 antennas, upright, turned
about the vertical, and tilted, follow from the stored paths. `wavecity.model.rays.waves` recovers waves from every fourth
antenna, with its atom of a wave and its bounce off the ground, and with single waves alone. Printed are, for the strongest
wave turned back into the world by what is known of the panel, the angle to the stored direct path (median and 90 % of the
users) and the distance to the user of the place where it is down at user height; and the angle to what the upright panel gave.
"""

import argparse
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import wavecity
from wavecity.dataset.records import attributes_of
from wavecity.model.data.noise import add_noise, gaussian, noise_power
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import radio_of
from wavecity.model.rays.waves import recover

SIZE = (32, 32)
# Azimuth and downtilt in degrees.
PANELS = ((0.0, 0.0), (20.0, 0.0), (-40.0, 0.0), (0.0, 1.0), (0.0, 5.0), (0.0, 10.0), (0.0, 20.0))
Array = NDArray[np.float64]


def axes(azimuth: float, downtilt: float) -> Array:
    """Unit vectors (3, 3) of a panel that faces south but for these, degrees: its x axis, its y axis (down), ahead."""
    turn, tilt = math.radians(azimuth), math.radians(downtilt)
    side = np.array([math.cos(turn), math.sin(turn), 0.0])
    level = np.array([math.sin(turn), -math.cos(turn), 0.0])
    below = np.array([0.0, 0.0, -1.0])
    return np.stack(
        (side, math.cos(tilt) * below - math.sin(tilt) * level, math.cos(tilt) * level + math.sin(tilt) * below)
    )


def to_world(direction: Array, azimuth: float, downtilt: float) -> Array:
    """Direction cosines (..., 2) of a panel to unit vectors (..., 3), east, north and up."""
    ahead = np.sqrt(np.clip(1 - np.square(direction).sum(-1, keepdims=True), 0, None))
    return np.concatenate((direction, ahead), -1) @ axes(azimuth, downtilt)


def angle(one: Array, other: Array) -> Array:
    """Degrees between unit vectors; by the chord, for the arc cosine loses small angles."""
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(one - other, axis=-1) / 2, 0, 1)))


def strongest(csi: Tensor, radio: Radio, snr: float, seed: int) -> Array:
    """Direction cosines (B, 2) of the strongest wave of channels (B, x, y), of which every fourth antenna is seen in noise."""
    rng = np.random.default_rng(seed)
    shown = torch.zeros(SIZE, dtype=torch.bool)
    shown.view(-1)[torch.from_numpy(rng.permutation(shown.numel())[: shown.numel() // 4])] = True
    noisy = add_noise(csi, snr, gaussian(rng, tuple(csi.shape)))
    return recover(noisy, shown, noise_power(csi, snr), radio).direction[:, 0].numpy()


def landing(direction: Array, drop: float) -> Array:
    """Where unit vectors (..., 3) are down at the user's height, m east and north of the panel; nan if they never are."""
    falling = np.where(direction[..., 2] < 0, -direction[..., 2], np.nan)
    return direction[..., :2] * (drop / falling)[..., None]


def main() -> None:
    """Recover and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--users", type=int, default=100, help="at most so many")
    parser.add_argument("--snr", type=float, default=10.0, help="dB")
    options = parser.parse_args()
    torch.set_num_threads(1)

    data, paths = wavecity.open_store(options.store), wavecity.open_store(options.store, "paths")
    radio = radio_of(dict(attributes_of(data.attrs)), options.store)
    # Users in line of sight in front of every panel here, 15 degrees and more from its plane.
    direct = data["user_position"].values.astype(float)
    direct[..., 2] = -radio.drop
    far = np.linalg.norm(direct, axis=-1, keepdims=True)
    ahead = np.stack([direct / far @ axes(*panel)[2] for panel in PANELS]).min(0) > math.sin(math.radians(15))
    test = (data["split"].values == "test")[:, None]
    rows = np.argwhere(data["los"].values & test & ahead)
    rows = rows[np.linspace(0, len(rows) - 1, min(options.users, len(rows))).round().astype(int)]
    scene, user = rows.T
    at = direct[scene, user]
    true = at / np.linalg.norm(at, axis=-1, keepdims=True)
    gain, zenith, azimuth = (paths[name].values[scene, user] for name in ("gain", "aod_zenith", "aod_azimuth"))
    print(
        f"{len(rows)} users in line of sight, {options.snr:g} dB, {SIZE[0] * SIZE[1] // 4} of {SIZE[0]} x {SIZE[1]} antennas\\n"
    )
    print(
        "| azimuth, downtilt | atom | to the direct path, ° (90 %) | landing off, m (90 %) | to the upright panel's, ° (90 %) |"
    )
    print("|---|---|---|---|---|")
    upright: dict[str, Array] = {}
    for panel in PANELS:
        turned = Disturbance(azimuth=panel[0], downtilt=panel[1])
        csi = turned.turned(gain.astype(complex), zenith.astype(float), azimuth.astype(float), SIZE)
        for name, model in (("with bounce", radio), ("single wave", replace(radio, permittivity=1 + 0j))):
            world = to_world(strongest(csi, model, options.snr, 0), *panel)
            upright.setdefault(name, world)
            off = np.linalg.norm(landing(world, radio.drop) - at[:, :2], axis=-1)
            cells = (angle(world, true), np.where(np.isnan(off), np.inf, off), angle(world, upright[name]))
            texts = [f"{np.median(values):.3f} ({np.quantile(values, 0.9):.2f})" for values in cells]
            print(f"| {panel[0]:g}°, {panel[1]:g}° | {name} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
