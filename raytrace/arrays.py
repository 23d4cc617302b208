"""Array geometry, steering vectors, DFT spectrum and beams of a UPA: NumPy only, one convention for all packages.

Convention. A channel is `csi[..., x, y]`: x runs along the panel's horizontal axis, y along its vertical one, flattened
in C order (`j = x * rows + y`, paper eq. 14). With the paper's downlink `y = h^H w` (eq. 10), `csi` is h.

Seen from in front of the panel, x counts columns from left to right and y rows from top to bottom: a panel that faces
south has x = 0 in the west. That is the element order of Sionna's `PlanarArray`, so one user's `csi.reshape(-1)` is the
antenna axis of its `cfr`. The phase of a path grows along the axis towards which it leaves: with x for paths that leave
eastward from a panel facing south, with y for paths that leave downward.
"""

import numpy as np
from numpy.typing import NDArray

SPEED_OF_LIGHT = 299_792_458.0


def spectrum(csi: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Spatial spectrum S = |F h|^2 (paper eq. 5, unnormalised 2-D DFT, not shifted).

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    float32 (..., kx, ky)
        Power per DFT bin. Parseval: its sum is x*y times the sum of |csi|^2.

    Examples
    --------
    >>> spectrum(np.ones((4, 2), np.complex64)).tolist()  # all power in bin (0, 0)
    [[64.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    transformed = np.fft.fft2(csi)
    return (transformed.real**2 + transformed.imag**2).astype(np.float32)


def beam_gain(csi: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """Power |h^H a_k|^2 that each DFT beam of eq. 15 delivers (beams have norm sqrt(x*y)).

    The beam's index is the spectrum's, negated: |h^H a_k|^2 = S[(-kx) mod Nx, (-ky) mod Ny]. A beam label read off the
    spectrum's argmax without negating is that of the mirrored beam.

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    float32 (..., kx, ky)
    """
    return np.roll(np.flip(spectrum(csi), axis=(-2, -1)), 1, axis=(-2, -1))


def best_beam(csi: NDArray[np.complexfloating]) -> NDArray[np.int16]:
    """Codebook index j = kx * Ny + ky (eq. 14) of the strongest DFT beam.

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    int16 (...,)

    Examples
    --------
    >>> int(best_beam(dft_codebook(4, 2)[5]))  # the channel along beam 5
    5
    """
    gain = beam_gain(csi)
    best: NDArray[np.int16] = gain.reshape(*gain.shape[:-2], -1).argmax(-1).astype(np.int16)
    return best


def dft_codebook(columns: int, rows: int) -> NDArray[np.complex128]:
    """All DFT beams, as eq. 15 defines them.

    Returns
    -------
    complex128 (columns * rows, columns, rows)
        Entry [j, n, m] = exp(-j 2 pi (kx n / columns + ky m / rows)) with j = kx * rows + ky.

    Examples
    --------
    >>> dft_codebook(32, 32).shape
    (1024, 32, 32)
    """
    x = np.exp(-2j * np.pi * np.outer(np.arange(columns), np.arange(columns)) / columns)
    y = np.exp(-2j * np.pi * np.outer(np.arange(rows), np.arange(rows)) / rows)
    codebook: NDArray[np.complex128] = np.einsum("an,bm->abnm", x, y).reshape(columns * rows, columns, rows)
    return codebook


def panel_axes(azimuth: float, downtilt: float) -> NDArray[np.float64]:
    """Directions of the panel's axes in the scene frame.

    Rotation of 3GPP TR 38.901 eq. 7.1-4 (as in Sionna) with bearing `azimuth` and downtilt; no slant.

    Parameters
    ----------
    azimuth : float
        Boresight, degrees from east towards north.
    downtilt : float
        Degrees below the horizon.

    Returns
    -------
    float64 (3, 3)
        Rows: boresight, x axis (direction of growing x), y axis (direction of growing y: downwards on an upright
        panel).

    Examples
    --------
    >>> panel_axes(-90.0, 0.0).round(3) + 0.0  # faces south: x grows eastward, y downward
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0., -1.]])
    """
    a, b = np.deg2rad(azimuth), np.deg2rad(downtilt)
    boresight = [np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), -np.sin(b)]
    along_x = [-np.sin(a), np.cos(a), 0.0]
    along_y = [-np.cos(a) * np.sin(b), -np.sin(a) * np.sin(b), -np.cos(b)]
    return np.array([boresight, along_x, along_y])


def element_offsets(count: int, spacing: float) -> NDArray[np.float64]:
    """Positions of elements along one axis, in wavelengths, centred on the panel.

    Returns
    -------
    float64 (count,)

    Examples
    --------
    >>> element_offsets(4, 0.5)
    array([-0.75, -0.25,  0.25,  0.75])
    """
    return np.asarray(spacing * (np.arange(count) - (count - 1) / 2), np.float64)


def element_positions(columns: int, rows: int, spacing: float, azimuth: float, downtilt: float) -> NDArray[np.float64]:
    """Element positions of the UPA relative to its centre.

    Returns
    -------
    float64 (columns, rows, 3)
        In wavelengths, scene frame.
    """
    _, along_x, along_y = panel_axes(azimuth, downtilt)
    x = element_offsets(columns, spacing)[:, None, None] * along_x
    y = element_offsets(rows, spacing)[None, :, None] * along_y
    positions: NDArray[np.float64] = x + y
    return positions


def direction(zenith: NDArray[np.floating], azimuth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit vectors of zenith and azimuth angles.

    Parameters
    ----------
    zenith, azimuth : float (...)
        Radians, from +z; from +x towards +y.

    Returns
    -------
    float64 (..., 3)

    Examples
    --------
    >>> direction(np.array(np.pi / 2), np.array(0.0)).round(3)
    array([1., 0., 0.])
    """
    zenith, azimuth = np.asarray(zenith, np.float64), np.asarray(azimuth, np.float64)
    sine = np.sin(zenith)
    return np.stack([sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(zenith)], axis=-1)


def axis_steering(
    zenith: NDArray[np.floating],
    azimuth: NDArray[np.floating],
    columns: int,
    rows: int,
    spacing: float,
    panel_azimuth: float,
    downtilt: float,
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Plane-wave response of the UPA, factored: the response of element (x, y) is `first[x] * second[y]`.

    Phase +2 pi k . r / wavelength, k the unit vector from the panel to the path's first vertex (as Sionna's
    synthetic arrays have it).

    Parameters
    ----------
    zenith, azimuth : float (...)
        Departure (or, for a receiving panel, arrival) angles in radians.

    Returns
    -------
    complex128 (..., columns), complex128 (..., rows)
    """
    _, along_x, along_y = panel_axes(panel_azimuth, downtilt)
    k = direction(zenith, azimuth)
    x = np.exp(2j * np.pi * (k @ along_x)[..., None] * element_offsets(columns, spacing))
    y = np.exp(2j * np.pi * (k @ along_y)[..., None] * element_offsets(rows, spacing))
    return x, y


def steering(
    zenith: NDArray[np.floating],
    azimuth: NDArray[np.floating],
    columns: int,
    rows: int,
    spacing: float,
    panel_azimuth: float,
    downtilt: float,
) -> NDArray[np.complex128]:
    """Steering vectors of the UPA (see `axis_steering`).

    Returns
    -------
    complex128 (..., columns, rows)
    """
    x, y = axis_steering(zenith, azimuth, columns, rows, spacing, panel_azimuth, downtilt)
    return x[..., :, None] * y[..., None, :]
