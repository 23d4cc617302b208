"""Channels and waves of known geometry, from which the ray methods must find it again."""

import numpy as np
import torch

from wavecity.model.rays.radio import SPEED_OF_LIGHT, Radio, permittivity
from wavecity.model.rays.waves import Waves

RADIO = Radio(28.5e9, 0.5, 15.0, 1.5, permittivity("concrete", 28.5e9))


def cosines(place: np.ndarray, bs_height: float = 15.0) -> np.ndarray:
    """Direction cosines east and down towards points (N, 3) of a base station above the origin."""
    way = place - [0, 0, bs_height]
    return np.stack((way[:, 0], -way[:, 2]), 1) / np.linalg.norm(way, axis=1, keepdims=True)


def plane(direction: np.ndarray, size: int = 16) -> np.ndarray:
    """Steering vectors (N, x, y) of a centred half-wavelength array."""
    index = np.arange(size) - (size - 1) / 2
    return np.exp(1j * np.pi * (index[:, None] * direction[:, 0, None, None] + index * direction[:, 1, None, None]))


def two_rays(place: np.ndarray, size: int = 16) -> np.ndarray:
    """Channels (N, x, y) of users at (N, 3): the direct ray and the one off the ground, by the image of the user."""
    wavelength = SPEED_OF_LIGHT / 28.5e9
    channel = np.zeros((len(place), size, size), complex)
    for sign in (1.0, -1.0):
        image = place * [1, 1, sign]
        length = np.linalg.norm(image - [0, 0, 15], axis=1)
        gain = wavelength / (4 * np.pi * length) * np.exp(-2j * np.pi * length / wavelength)
        if sign < 0:  # Fresnel for the electric field in the plane of incidence, from the two media's wave impedances
            incidence = np.arccos((15 - image[:, 2]) / length)
            index = np.sqrt(RADIO.permittivity)
            refracted = np.sqrt(1 - (np.sin(incidence) / index) ** 2)
            gain = gain * (index * np.cos(incidence) - refracted) / (index * np.cos(incidence) + refracted)
        channel += gain[:, None, None] * plane(cosines(image), size)
    return channel


def known(direction: np.ndarray, loss: list[float], sigma: float = 1e-4) -> Waves:
    """One user's waves with known directions (K, 2), and levels over Friis at their landing in dB."""
    towards = torch.from_numpy(direction)[None]
    length = torch.from_numpy(13.5 / np.maximum(direction[:, 1], 0.02))[None]
    gain = (10 ** ((RADIO.friis(length) + torch.tensor(loss)) / 20)).to(torch.complex128)
    single = torch.ones(1, len(direction), 1, dtype=torch.bool)
    covariance = torch.eye(2, dtype=torch.float64).mul(sigma**2).repeat(1, len(direction), 1, 1)
    return Waves(towards, single[..., 0], gain, covariance, torch.zeros(1), towards[:, :, None], 0.0 * single.double())
