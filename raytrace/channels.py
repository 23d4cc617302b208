"""`Channels`: the ray tracer's result for one scene, path level. Channels of any array, band and time follow from it
without re-tracing.

NumPy only: it also works on stored paths, on a machine without Sionna.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from wavecity.geo.errors import InputError
from wavecity.geo.settings import Settings
from wavecity.raytrace.arrays import axis_steering, direction, element_positions
from wavecity.raytrace.settings import RadioSettings


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
        Hz, positive where the user moves towards the path's last vertex (Sionna's sign); 0 for static users.
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
    vertices : float32 (U, P, D, 3)
        Place of every interaction in m, scene frame; 0 where there is none.
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
    vertices: NDArray[np.float32]


@dataclass(frozen=True)
class WeakenedChannels(Channels):
    """Channels of a scene with vegetation: gains, and all that follows from them, are those behind it.

    Attributes
    ----------
    vegetation_loss : float32 (U, P)
        Loss of every path in crowns in dB; 0 where there is no path.
    """

    vegetation_loss: NDArray[np.float32]


class DeparturePaths(Protocol):
    """Paths as `csi` reads them: `Channels`, or any object with these arrays (any leading dimensions, P paths)."""

    @property
    def gain(self) -> NDArray[np.complexfloating]:
        """Complex (..., P)."""

    @property
    def aod_zenith(self) -> NDArray[np.floating]:
        """Radians (..., P)."""

    @property
    def aod_azimuth(self) -> NDArray[np.floating]:
        """Radians (..., P)."""


class ReceiverSettings(Settings):
    """A user's receiving panel: isotropic elements, upright, with the polarisation that was traced.

    That is the element whose response the path gains hold, whichever way the panel looks: azimuth and downtilt move the
    elements and turn nothing else. (Sionna turns the polarisation of a tilted receiver too.)
    """

    columns: int = Field(4, ge=1, le=256, description="Antennas along the panel's horizontal axis.")
    rows: int = Field(1, ge=1, le=256, description="Antennas along the panel's vertical axis.")
    spacing: float = Field(0.5, gt=0, le=10, description="Antenna spacing in wavelengths, both axes.")
    azimuth: float = Field(0.0, ge=-180, le=180, description="Boresight azimuth in degrees from east towards north.")
    downtilt: float = Field(0.0, ge=-90, le=90, description="Degrees below the horizon.")


@dataclass(frozen=True)
class Axes:
    """Axes of a channel between its users and the base station's array: receive antennas, times, subcarriers.

    Attributes
    ----------
    positions : float64 (rx, 3)
        Receive antennas in wavelengths, scene frame; the origin alone unless there is a panel.
    times : float64 (time,)
        Seconds; 0 alone unless given.
    frequencies : float64 (subcarrier,)
        Hz from the carrier; 0 alone unless given.
    shape : tuple of int
        Sizes of the axes that were given.
    """

    positions: NDArray[np.float64]
    times: NDArray[np.float64]
    frequencies: NDArray[np.float64]
    shape: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes of all three axes."""
        return len(self.positions), len(self.times), len(self.frequencies)


def csi_axes(receiver: ReceiverSettings | None, times: ArrayLike | None, frequencies: ArrayLike | None) -> Axes:
    """Axes for the arguments of `csi`.

    Raises
    ------
    InputError
        `times` or `frequencies` is not a 1-D array of finite numbers.
    """
    given = {"times": times, "frequencies": frequencies}
    values = {name: np.zeros(1) if value is None else np.asarray(value, np.float64) for name, value in given.items()}
    for name, value in values.items():
        if value.ndim != 1 or not np.isfinite(value).all():
            msg = f"csi: {name} has shape {value.shape}; a 1-D array of finite numbers is needed"
            raise InputError(msg)
    positions = np.zeros((1, 3))
    if receiver is not None:
        panel = element_positions(
            receiver.columns, receiver.rows, receiver.spacing, receiver.azimuth, receiver.downtilt
        )
        # C order over (column, row) is Sionna's order of antennas.
        positions = panel.reshape(-1, 3)
    axes = ((receiver, positions), (times, values["times"]), (frequencies, values["frequencies"]))
    shape = tuple(len(array) for asked, array in axes if asked is not None)
    return Axes(positions, values["times"], values["frequencies"], shape)


def subcarrier_frequencies(count: int, spacing: float) -> NDArray[np.float64]:
    """Offsets of OFDM subcarriers from the carrier, as Sionna's function of this name.

    Parameters
    ----------
    count : int
        Number of subcarriers; an even one has one more below the carrier than above.
    spacing : float
        Hz.

    Returns
    -------
    float64 (count,)
        Hz, ascending.

    Examples
    --------
    >>> subcarrier_frequencies(4, 30e3)
    array([-60000., -30000.,      0.,  30000.])
    """
    return np.asarray((np.arange(count) - count // 2) * spacing, np.float64)


def csi(
    paths: DeparturePaths,
    radio: RadioSettings,
    columns: int | None = None,
    rows: int | None = None,
    batch: int = 4096,
    *,
    receiver: ReceiverSettings | None = None,
    times: ArrayLike | None = None,
    frequencies: ArrayLike | None = None,
    normalize_delays: bool = False,
) -> NDArray[np.complex64]:
    """Channel of the base station's UPA: the sum over paths of gain times steering vector.

    Plane waves over the panel (paper eq. 1), as Sionna's synthetic arrays. The gain carries the element pattern and the
    carrier phase already. See `wavecity.raytrace.arrays` for the directions of x and y. With no keyword it is the
    narrowband channel at the carrier, of one antenna, at time 0. Each of `receiver`, `times` and `frequencies` adds its
    axis.

    It equals Sionna RT's `Paths.cfr` and, fed with these paths, `cir_to_ofdm_channel` of Sionna PHY. As in both, paths
    keep gain, angles and delay over the times; only their Doppler phases turn.

    Parameters
    ----------
    paths : DeparturePaths
        `Channels` or stored path arrays. `receiver` reads `aoa_zenith` and `aoa_azimuth` too, `times` reads `doppler`,
        `frequencies` and `normalize_delays` read `delay`.
    radio : RadioSettings
        Spacing and orientation of the panel, and its size unless given; the carrier, for `normalize_delays`.
    columns, rows : int, optional
        Size of the panel; the recipe's by default.
    batch : int
        Matrices (x, y) at a time; at 32 paths each takes some 60 kB of working memory in addition to the result.
    receiver : ReceiverSettings, optional
        The users' panel. Antenna (column, row) is at `column * receiver.rows + row` of the axis.
    times : float (T,), optional
        Seconds. A path's phase is exp(+j 2 pi doppler time).
    frequencies : float (F,), optional
        Hz from the carrier (see `subcarrier_frequencies`). A path's phase is exp(-j 2 pi frequency delay).
    normalize_delays : bool
        Count delays from each user's first path, and the carrier phase too, as `Paths.cfr` does **by default**: the
        channel is multiplied by exp(+j 2 pi (carrier + frequency) first delay). Delays are stored in float32, so the
        carrier's part of that phase, one per user, is exact to a hundredth of a radian (at 28.5 GHz and 1 us).

    Returns
    -------
    complex64 (..., [rx], [time], [subcarrier], columns, rows)
        `csi[..., x, y]`, sqrt(power gain).

    Raises
    ------
    InputError
        `times` or `frequencies` is not a 1-D array of finite numbers.

    Examples
    --------
    >>> channels = simulate(scene, radio, solver, seed=0)
    >>> csi(channels, radio).shape  # (user, x, y)
    (83, 32, 32)
    >>> csi(channels, radio, frequencies=subcarrier_frequencies(64, 480e3)).shape
    (83, 64, 32, 32)
    """
    columns, rows = columns or radio.columns, rows or radio.rows
    axes = csi_axes(receiver, times, frequencies)
    lead, count = paths.gain.shape[:-1], paths.gain.shape[-1]
    users = math.prod(lead)

    def table(name: str) -> NDArray[Any]:
        return np.asarray(getattr(paths, name)).reshape(users, count)

    gain, zenith, azimuth = table("gain"), table("aod_zenith"), table("aod_azimuth")
    arrival_angles = None if receiver is None else (table("aoa_zenith"), table("aoa_azimuth"))
    doppler = None if times is None else table("doppler")
    delay = table("delay") if normalize_delays or frequencies is not None else None
    first_delay = np.zeros(users)
    if normalize_delays and delay is not None:
        first_delay = np.where(gain != 0, delay, np.inf).min(axis=1, initial=np.inf)
        first_delay[np.isinf(first_delay)] = 0

    total = users * math.prod(axes.sizes)
    result = np.empty((total, columns, rows), np.complex64)
    for low in range(0, total, batch):
        part = np.arange(low, min(low + batch, total))
        user, antenna, time, subcarrier = np.unravel_index(part, (users, *axes.sizes))
        own, user_here = slice(user[0], user[-1] + 1), user - user[0]
        frequency = axes.frequencies[subcarrier, None]
        # Phase of each path (matrix, path) in turns, in float64: 1 us at the carrier are 28,500 of them.
        turns = first_delay[user, None] * (radio.frequency + frequency)
        if arrival_angles is not None:
            arrival = direction(*(angles[own] for angles in arrival_angles))
            turns = turns + (arrival[user_here] @ axes.positions[antenna, :, None])[..., 0]
        if doppler is not None:
            turns = turns + doppler[user] * axes.times[time, None]
        if delay is not None:
            turns = turns - delay[user] * frequency
        weight = gain[user] * np.exp(2j * np.pi * turns)
        x, y = axis_steering(zenith[own], azimuth[own], columns, rows, radio.spacing, radio.azimuth, radio.downtilt)
        result[part[0] : part[-1] + 1] = np.swapaxes(weight[..., None] * x[user_here], 1, 2) @ y[user_here]
    return result.reshape(*lead, *axes.shape, columns, rows)
