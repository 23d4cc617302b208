"""What both ends know of the link: carrier, array, heights of base station and user, material of the ground."""

import cmath
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SPEED_OF_LIGHT = 299_792_458.0
VACUUM_PERMITTIVITY = 8.8541878128e-12
# ITU-R P.2040-3, table 3: permittivity a f^b, conductivity c f^d in S/m, f in GHz.
MATERIALS = {
    "concrete": (5.24, 0.0, 0.0462, 0.7822),
    "brick": (3.91, 0.0, 0.0238, 0.16),
    "wood": (1.99, 0.0, 0.0047, 1.0718),
    "glass": (6.31, 0.0, 0.0036, 1.3394),
    "marble": (7.074, 0.0, 0.0055, 0.9262),
    "asphalt_concrete": (4.83, 0.0, 0.0108, 1.3969),
    "metal": (1.0, 0.0, 1e7, 0.0),
}


@dataclass(frozen=True)
class Radio:
    """The link between an upright panel and a user on flat ground.

    Attributes
    ----------
    frequency : float
        Of the carrier, Hz.
    spacing : float
        Of the antennas, wavelengths.
    bs_height, user_height : float
        Above the ground, m.
    permittivity : complex
        Of the ground, relative, with a negative imaginary part; see `permittivity`.
    azimuth : float
        Of the panel's boresight, radians from east towards north; by default it faces south.

    Examples
    --------
    >>> radio = Radio(28.5e9, 0.5, 15.0, 1.5, permittivity("concrete", 28.5e9))
    >>> round(radio.wavelength, 5)
    0.01052
    """

    frequency: float
    spacing: float
    bs_height: float
    user_height: float
    permittivity: complex
    azimuth: float = -math.pi / 2

    def to_dict(self) -> dict[str, float | list[float]]:
        """As JSON has it."""
        parts = [self.permittivity.real, self.permittivity.imag]
        return {**vars(self), "permittivity": parts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Radio":
        """From `to_dict`."""
        return cls(**{**values, "permittivity": complex(*values["permittivity"])})

    @property
    def wavelength(self) -> float:
        """In m."""
        return SPEED_OF_LIGHT / self.frequency

    @property
    def drop(self) -> float:
        """How far a wave falls before it is at the user's height, m."""
        return self.bs_height - self.user_height

    def distance(self, down: Tensor) -> Tensor:
        """Way in plan view until a wave with direction cosine `down` is at the user's height, m; infinite for one that rises."""
        way = self.drop * (1 - down.square()).clamp_min(0).sqrt() / down.clamp_min(1e-6)
        return torch.where(down > 1e-6, way, torch.inf)

    def heading(self, direction: Tensor) -> Tensor:
        """Unit vectors (..., 2) in plan view, east and north, of direction cosines (..., 2) in front of the panel."""
        ahead = (1 - direction.square().sum(-1)).clamp_min(0).sqrt()
        sine, cosine = math.sin(self.azimuth), math.cos(self.azimuth)
        side = direction[..., 0]
        plan = torch.stack((cosine * ahead - sine * side, sine * ahead + cosine * side), -1)
        return plan / plan.norm(dim=-1, keepdim=True).clamp_min(1e-12)

    def ground_bounce(self, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same wave's companion that reaches the user by way of the ground: the two-ray model.

        Parameters
        ----------
        down : float64 (...)
            Direction cosine towards the ground of the wave without the bounce.

        Returns
        -------
        ratio : complex128 (...)
            Amplitude over that of the wave without the bounce, at the array's centre: Fresnel's coefficient for vertical
            polarisation, the longer way, and its phase.
        shrunk : float64 (...)
            Factor of the horizontal direction cosines.
        down : float64 (...)
            Direction cosine towards the ground.
        """
        way = self.distance(down)
        direct = torch.hypot(way, torch.full_like(way, self.drop))
        bounced = torch.hypot(way, torch.full_like(way, self.bs_height + self.user_height))
        sine = (self.bs_height + self.user_height) / bounced
        shrunk = direct / bounced
        root = (self.permittivity - 1 + sine.square()).to(torch.complex128).sqrt()
        fresnel = (self.permittivity * sine - root) / (self.permittivity * sine + root)
        turns = (bounced - direct) / self.wavelength
        return fresnel * shrunk * torch.exp(-2j * math.pi * turns), shrunk, sine

    def friis(self, length: Tensor) -> Tensor:
        """Power gain of a direct path of isotropic antennas, dB, for lengths in m."""
        return 20 * torch.log10(self.wavelength / (4 * math.pi * length))


def permittivity(material: str, frequency: float) -> complex:
    """Complex relative permittivity of a material of ITU-R P.2040 at a frequency in Hz.

    Examples
    --------
    >>> round(permittivity("concrete", 28.5e9).real, 2)
    5.24
    """
    a, b, c, d = MATERIALS[material]
    gigahertz = frequency / 1e9
    conductivity = c * gigahertz**d
    return complex(a * gigahertz**b, -conductivity / (2 * cmath.pi * frequency * VACUUM_PERMITTIVITY))
