"""Directions of departure as a channel or a spectrum shows them, and the angle between two of them."""

import torch
from torch import Tensor

# Bins of the transform for one of eq. 5.
OVERSAMPLING = 8


def strongest_direction(csi: Tensor, spacing: float) -> Tensor:
    """Direction float32 (B, 3) of a channel's strongest plane wave, complex (B, x, y): its spectrum's peak (eq. 5).

    Unit vectors in the panel's frame: along its x and y axis, boresight. `spacing` of the elements is in wavelengths.
    """
    size = (OVERSAMPLING * csi.shape[-2], OVERSAMPLING * csi.shape[-1])
    scale = csi.abs().amax((-2, -1), keepdim=True).clamp_min(1e-30)
    # A few at a time: an oversampled spectrum takes half a megabyte.
    spectra = (torch.fft.fft2(part, s=size).abs() for part in (csi / scale).split(128))
    return torch.cat([direction_of_bin(spectrum, spacing) for spectrum in spectra])


def direction_of_bin(spectrum: Tensor, spacing: float) -> Tensor:
    """Direction of a spectrum's strongest bin, (B, kx, ky) unshifted to unit vectors (B, 3); see `strongest_direction`.

    A wave towards the direction cosine u turns the phase by 2 pi spacing u from element to element, so it lies at the
    frequency spacing * u. Bins beyond the visible region (cosines of norm above 1) count as the nearest visible ones.
    """
    columns, rows = spectrum.shape[-2:]
    peak = spectrum.flatten(1).argmax(1)
    frequencies = (torch.fft.fftfreq(columns)[peak // rows], torch.fft.fftfreq(rows)[peak % rows])
    along = torch.stack(frequencies, -1) / spacing
    along = along / along.norm(dim=-1, keepdim=True).clamp_min(1)
    boresight = (1 - along.square().sum(-1, keepdim=True)).clamp_min(0).sqrt()
    return torch.cat((along, boresight), -1)


def angle_between(one: Tensor, other: Tensor) -> Tensor:
    """Angle between unit vectors (B, 3) in degrees, (B,), exact for small ones as well."""
    chord = (one - other).norm(dim=-1)
    return torch.rad2deg(2 * torch.asin((chord / 2).clamp_max(1)))
