"""Paths of one user from one traced snapshot to the next: which of them are the same, their state in between, and their
sum.

NumPy, lengths in float64: 10 um are 0.3 degrees of phase at 28.5 GHz.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.arrays import SPEED_OF_LIGHT

# Bytes of the factors of a channel at a time.
WORKING = 2**25


@dataclass(frozen=True)
class Bundle:
    """Paths of one user at one snapshot (M paths).

    Attributes
    ----------
    number : int64 (M,)
        Of the path's sequence of planes and edges; ascending, each once.
    length : float64 (M,)
        m.
    arrival : float64 (M, 3)
        Unit vectors from the user to the last vertex: minus the gradient of the length.
    cosine : float64 (M, 2)
        Of the angles between departure and the panel's x and y axes.
    coefficient : complex128 (M,)
        sqrt(power gain), without the carrier phase.
    """

    number: NDArray[np.int64]
    length: NDArray[np.float64]
    arrival: NDArray[np.float64]
    cosine: NDArray[np.float64]
    coefficient: NDArray[np.complex128]

    @property
    def power(self) -> float:
        """Sum over the paths."""
        return float((np.abs(self.coefficient) ** 2).sum())

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Bundle":
        """The paths at these positions (or under this mask)."""
        return Bundle(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class Evolved:
    """M paths at K snapshots, fields as in `Bundle`: (K, M), `cosine` (K, M, 2)."""

    length: NDArray[np.float64]
    cosine: NDArray[np.float64]
    coefficient: NDArray[np.complex128]


def common(before: Bundle, after: Bundle) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions, in each of two bundles, of the paths that both have."""
    _, first, second = np.intersect1d(before.number, after.number, assume_unique=True, return_indices=True)
    return first, second


def unshared_power(before: Bundle, after: Bundle) -> float:
    """Share of the power in paths that the other bundle does not have, the larger of the two."""
    shares = [0.0]
    for bundle, index in zip((before, after), common(before, after), strict=True):
        if bundle.power > 0:
            shares.append(max(0.0, 1 - bundle.select(index).power / bundle.power))
    return max(shares)


def between(
    before: Bundle, after: Bundle, start: NDArray[np.float64], end: NDArray[np.float64], points: NDArray[np.float64]
) -> Evolved:
    """The same paths between two traced snapshots.

    The length is the cubic Hermite polynomial along the straight line between both, corrected to first order for points
    off it; coefficient and cosines are linear.

    Parameters
    ----------
    one, two : Bundle
        With the same numbers.
    start, end : float64 (3,)
        Where they were traced, m.
    points : float64 (K, 3)
        Where they are wanted.
    """
    way = end - start
    square = float(way @ way)
    u = np.clip((points - start) @ way / square, 0, 1) if square > 0 else np.zeros(len(points))
    offset = points - start - u[:, None] * way
    u = u[:, None]
    slope, slope_end = -before.arrival @ way, -after.arrival @ way
    length = (
        (1 + 2 * u) * (1 - u) ** 2 * before.length
        + u * (1 - u) ** 2 * slope
        + u**2 * (3 - 2 * u) * after.length
        + u**2 * (u - 1) * slope_end
    )
    length -= (1 - u) * (offset @ before.arrival.T) + u * (offset @ after.arrival.T)
    # Not `one + u (two - one)`: at the ends there must be no rounding error.
    coefficient = (1 - u) * before.coefficient + u * after.coefficient
    u = u[..., None]
    return Evolved(length, (1 - u) * before.cosine + u * after.cosine, coefficient)


def beyond(bundle: Bundle, place: NDArray[np.float64], points: NDArray[np.float64]) -> Evolved:
    """Paths near the only snapshot (at `place`) that has them: length to first order, all else as it is there."""
    length = bundle.length - (points - place) @ bundle.arrival.T
    shape = length.shape
    return Evolved(
        length, np.broadcast_to(bundle.cosine, (*shape, 2)), np.broadcast_to(bundle.coefficient, shape).copy()
    )


@dataclass(frozen=True)
class Wave:
    """Band, and panel of plane waves, for which paths are summed to a channel.

    Attributes
    ----------
    carrier : float
        Hz.
    first, step : float
        Hz from the carrier: first subcarrier, and distance to the next.
    subcarriers, columns, rows : int
    spacing : float
        Of the panel's antennas in wavelengths.
    """

    carrier: float
    first: float
    step: float
    subcarriers: int
    columns: int
    rows: int
    spacing: float

    def difference(self, truth: Bundle, guess: Evolved) -> float:
        """Power of the error of a guess at one snapshot (K = 1), summed over the paths, on average per antenna.

        It counts amplitudes and phases at the carrier, and phases over the panel.
        """
        turns = (guess.length[0] - truth.length) * (self.carrier / SPEED_OF_LIGHT)
        centre = np.abs(guess.coefficient[0] * np.exp(-2j * np.pi * turns) - truth.coefficient) ** 2
        spread = [(2 * np.pi * self.spacing) ** 2 * (count**2 - 1) / 12 for count in (self.columns, self.rows)]
        panel = np.abs(truth.coefficient) ** 2 * ((guess.cosine[0] - truth.cosine) ** 2 @ spread)
        return float((centre + panel).sum())

    def add(self, csi: NDArray[np.complex64], steps: NDArray[np.int64], paths: Evolved) -> None:
        """Add paths at some snapshots to a user's channel, complex64 (T, F, X, Y)."""
        count = paths.length.shape[1]
        if not count:
            return
        antennas = self.columns * self.rows
        at_once = max(1, WORKING // (8 * count * (self.subcarriers + antennas)))
        for low in range(0, len(steps), at_once):
            part = slice(low, low + at_once)
            delay = paths.length[part] / SPEED_OF_LIGHT
            # Whole turns are taken off in float64.
            weight = paths.coefficient[part] * np.exp(-2j * np.pi * ((delay * self.carrier) % 1))
            band = progression(-delay * self.first, -delay * self.step, self.subcarriers)
            band *= weight.astype(np.complex64)[:, None]
            x, y = (
                progression(-cosine * self.spacing * (number - 1) / 2, cosine * self.spacing, number)
                for cosine, number in zip(np.moveaxis(paths.cosine[part], 2, 0), (self.columns, self.rows), strict=True)
            )
            panel = (x[:, :, None] * y[:, None]).reshape(len(delay), antennas, count)
            shape = (len(delay), self.subcarriers, self.columns, self.rows)
            csi[steps[part]] += (band @ np.swapaxes(panel, 1, 2)).reshape(shape)


def progression(first: NDArray[np.float64], step: NDArray[np.float64], count: int) -> NDArray[np.complex64]:
    """Phasors exp(+j 2 pi (first + n step)) for n < `count`, n along axis 1; turns `first` and `step` are (K, M).

    Two short progressions, multiplied: of 64 phasors 16 are computed.
    """
    fine = math.isqrt(count - 1) + 1
    coarse = -(-count // fine)
    near = np.exp(2j * np.pi * ((step[:, None] * np.arange(fine)[:, None]) % 1)).astype(np.complex64)
    far = first[:, None] + step[:, None] * (fine * np.arange(coarse)[:, None])
    far_phasors = np.exp(2j * np.pi * (far % 1)).astype(np.complex64)
    phasors: NDArray[np.complex64] = far_phasors[:, :, None] * near[:, None]
    return phasors.reshape(len(first), coarse * fine, -1)[:, :count]
