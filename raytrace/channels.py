"""`Channels`: the ray tracer's result for one scene, path level. From it any array, band or time, without re-tracing.

NumPy only: it works on stored paths as well, on a machine without Sionna.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raytrace.arrays import axis_steering
from raytrace.settings import RadioSettings


@dataclass(frozen=True)
class Channels:
    """Paths of every user of a scene, strongest first, padded with gain 0.

    U users, P = `max_paths`, D = `max_depth` (at least 1).

    Attributes
    ----------
    gain : complex64 (U, P)
        Path coefficient at the carrier between single elements, sqrt(power gain), **with** the carrier phase
        exp(-j 2 pi f delay) (path length in float64); 0 where there is no path.
    delay : float32 (U, P)
        Absolute delay in s.
    aod_zenith, aod_azimuth, aoa_zenith, aoa_azimuth : float32 (U, P)
        Radians, scene frame: zenith from +z, azimuth from +x (east) towards +y (north).
    doppler : float32 (U, P)
        Hz; 0 for static users.
    interactions : int8 (U, P, D)
        Per bounce: 0 none, 1 specular, 2 diffuse, 4 refraction, 8 diffraction (Sionna's `InteractionType`);
        a path without any interaction is the line of sight.
    n_paths : int32 (U,)
        Paths found, before the cut to P.
    power_cut : float32 (U,)
        Share of the power in the paths that were cut.
    path_gain : float32 (U,)
        10 log10 of the summed power of **all** paths in dB; `gain_floor` in outage.
    los : bool (U,)
        Nothing stands between base station and user.
    outage : bool (U,)
        No path, or a path gain below `gain_floor`; such a user's path arrays are 0.
    """

    gain: NDArray[np.complex64]
    delay: NDArray[np.float32]
    aod_zenith: NDArray[np.float32]
    aod_azimuth: NDArray[np.float32]
    aoa_zenith: NDArray[np.float32]
    aoa_azimuth: NDArray[np.float32]
    doppler: NDArray[np.float32]
    interactions: NDArray[np.int8]
    n_paths: NDArray[np.int32]
    power_cut: NDArray[np.float32]
    path_gain: NDArray[np.float32]
    los: NDArray[np.bool_]
    outage: NDArray[np.bool_]


class DeparturePaths(Protocol):
    """What `csi` reads: `Channels`, or any object with these arrays (`...` any leading dimensions, P paths)."""

    @property
    def gain(self) -> NDArray[Any]:
        """Complex (..., P)."""

    @property
    def aod_zenith(self) -> NDArray[Any]:
        """Radians (..., P)."""

    @property
    def aod_azimuth(self) -> NDArray[Any]:
        """Radians (..., P)."""


def csi(
    paths: DeparturePaths, radio: RadioSettings, columns: int | None = None, rows: int | None = None, batch: int = 4096
) -> NDArray[np.complex64]:
    """Narrowband channel of the base station's UPA at the carrier: the sum over paths of gain times steering vector.

    Plane waves over the panel (paper eq. 1), as Sionna's synthetic arrays. The gain carries the element pattern and the
    carrier phase already. See `raytrace.arrays` for the directions of x and y.

    Parameters
    ----------
    paths : DeparturePaths
        `Channels` or stored path arrays.
    radio : RadioSettings
        Spacing and orientation of the panel, and its size unless given.
    columns, rows : int, optional
        Another size than the recipe's.
    batch : int
        Users at a time; at 32 paths each takes some 60 kB of working memory beside the result.

    Returns
    -------
    complex64 (..., columns, rows)
        `csi[..., x, y]`, sqrt(power gain).
    """
    columns, rows = columns or radio.columns, rows or radio.rows
    lead, count = paths.gain.shape[:-1], paths.gain.shape[-1]
    gain = np.asarray(paths.gain).reshape(-1, count)
    zenith = np.asarray(paths.aod_zenith).reshape(-1, count)
    azimuth = np.asarray(paths.aod_azimuth).reshape(-1, count)
    result = np.empty((len(gain), columns, rows), np.complex64)
    for low in range(0, len(gain), batch):
        part = slice(low, low + batch)
        x, y = axis_steering(zenith[part], azimuth[part], columns, rows, radio.spacing, radio.azimuth, radio.downtilt)
        result[part] = np.swapaxes(gain[part, :, None] * x, 1, 2) @ y
    return result.reshape(*lead, columns, rows)
