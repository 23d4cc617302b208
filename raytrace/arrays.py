"""Array geometry, steering vectors, DFT spectrum and beams of a UPA: numpy only, one convention for everyone.

Convention. A channel is `csi[..., x, y]`: x runs along the panel's horizontal axis, y along its vertical one, flattened
in C order (`j = x * rows + y`, paper eq. 14). With the paper's downlink `y = h^H w` (eq. 10), `csi` is h.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SPEED_OF_LIGHT = 299_792_458.0


def spectrum(csi: NDArray[Any]) -> NDArray[np.float32]:
    """Spatial spectrum S = |F h|^2 (paper eq. 5, unnormalised 2-D DFT, not shifted).

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    float32 (..., kx, ky)
        Power per DFT bin. Parseval: its sum is x*y times the sum of |csi|^2.
    """
    transformed = np.fft.fft2(csi)
    return (transformed.real**2 + transformed.imag**2).astype(np.float32)


def beam_gain(csi: NDArray[Any]) -> NDArray[np.float32]:
    """Power |h^H a_k|^2 that each DFT beam of eq. 15 delivers (beams have norm sqrt(x*y)).

    The beam's index is the spectrum's, negated: |h^H a_k|^2 = S[(-kx) mod Nx, (-ky) mod Ny]. Whoever reads a beam label
    off the spectrum's argmax without negating gets the mirrored beam.

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    float32 (..., kx, ky)
    """
    return np.roll(np.flip(spectrum(csi), axis=(-2, -1)), 1, axis=(-2, -1))


def best_beam(csi: NDArray[Any]) -> NDArray[np.int16]:
    """Codebook index j = kx * Ny + ky (eq. 14) of the strongest DFT beam.

    Parameters
    ----------
    csi : complex (..., x, y)

    Returns
    -------
    int16 (...,)
    """
    gain = beam_gain(csi)
    return gain.reshape(*gain.shape[:-2], -1).argmax(-1).astype(np.int16)


def dft_codebook(columns: int, rows: int) -> NDArray[np.complex128]:
    """All DFT beams of eq. 15, literally.

    Returns
    -------
    complex128 (columns * rows, columns, rows)
        Entry [j, n, m] = exp(-j 2 pi (kx n / columns + ky m / rows)) with j = kx * rows + ky.
    """
    x = np.exp(-2j * np.pi * np.outer(np.arange(columns), np.arange(columns)) / columns)
    y = np.exp(-2j * np.pi * np.outer(np.arange(rows), np.arange(rows)) / rows)
    return np.einsum("an,bm->abnm", x, y).reshape(columns * rows, columns, rows)
