"""Paths as DeepMIMO counts them, and back. NumPy only.

Where its conventions differ from a store's:

- the phase of a path is that of antenna (0, 0), the lowest of the first column; in a store it is that of the panel's
  centre. So the phases of a scenario belong to one array; `rereferenced` turns them to another's;
- the vertical axis counts upwards, in a store downwards;
- angles are in degrees; its "elevation" is the zenith angle, 0 to 180;
- interactions are decimal digits: 1 reflection, 2 diffraction, 3 scattering, 4 transmission;
- the first path tells whether a user has line of sight; a store has the strongest first;
- paths that are not there are NaN;
- OFDM channels are divided by the square root of the number of subcarriers.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError
from wavecity.raytrace.arrays import direction, panel_axes
from wavecity.raytrace.settings import RadioSettings

# Interaction in a store -> DeepMIMO's digit.
DIGITS = {1: 1, 8: 2, 2: 3, 4: 4}
# Digits that a float32 holds exactly.
EXACT_DIGITS = 7
ANGLES = {
    "aod_el": "paths/aod_zenith",
    "aod_az": "paths/aod_azimuth",
    "aoa_el": "paths/aoa_zenith",
    "aoa_az": "paths/aoa_azimuth",
}


def reference_phase(
    zenith: NDArray[np.floating], azimuth: NDArray[np.floating], radio: RadioSettings
) -> NDArray[np.float64]:
    """Phase at DeepMIMO's antenna (0, 0) relative to the panel's centre; radians, as the angles of departure."""
    _, along_x, along_y = panel_axes(radio.azimuth, radio.downtilt)
    corner = radio.spacing / 2 * ((1 - radio.columns) * along_x + (radio.rows - 1) * along_y)
    phase: NDArray[np.float64] = 2 * np.pi * (direction(zenith, azimuth) @ corner)
    return phase


def to_deepmimo(paths: Mapping[str, NDArray[np.generic]], radio: RadioSettings) -> Arrays:
    """Path matrices of a DeepMIMO scenario from those of a scene.

    Parameters
    ----------
    paths : mapping
        `paths/gain` (U, P) and the other path arrays of a store, users without padding; `paths/vertices` where it has them.
    radio : RadioSettings
        The panel whose antenna (0, 0) the phases are of.

    Returns
    -------
    dict
        `power` (dB), `phase` (degrees), `delay` (s), `aod_el`, `aod_az`, `aoa_el`, `aoa_az` (degrees) and `inter`, all
        float64 (U, P'), NaN where there is no path; P' is the largest number of paths of a user, at least 1. And
        `inter_pos` (U, P', B, 3) in m, relative to the base station; NaN where there is no interaction, and everywhere
        without `paths/vertices`.
    """
    gain = np.asarray(paths["paths/gain"]).astype(np.complex128)
    bounces = np.asarray(paths["paths/interactions"]).astype(np.int64)
    there = gain != 0
    # The line of sight first, then as they are, the strongest first.
    order = np.argsort(np.where(there, bounces.any(-1), 2), axis=1, kind="stable")
    order = order[:, : max(int(there.sum(1).max(initial=0)), 1)]

    def sorted_paths(values: NDArray[np.generic]) -> NDArray[np.float64]:
        taken = np.take_along_axis(np.asarray(values), order, axis=1).astype(np.float64)
        return np.where(np.take_along_axis(there, order, axis=1), taken, np.nan)

    angles = {name: np.asarray(paths[field]).astype(np.float64) for name, field in ANGLES.items()}
    phase = np.angle(gain) + reference_phase(angles["aod_el"], angles["aod_az"], radio)
    code = np.zeros(gain.shape, np.int64)
    for bounce in np.moveaxis(bounces, -1, 0):
        digit = _digits(bounce)
        code = np.where(digit > 0, 10 * code + digit, code)
    with np.errstate(divide="ignore"):
        power = 20 * np.log10(np.abs(gain))
    place = np.full((*bounces.shape[:2], max(bounces.shape[2], 1), 3), np.nan)
    if "paths/vertices" in paths:
        place = np.where(bounces[..., None] != 0, np.asarray(paths["paths/vertices"]), np.nan)
    return {
        "power": sorted_paths(power),
        "phase": sorted_paths(np.rad2deg(_wrapped(phase))),
        "delay": sorted_paths(np.asarray(paths["paths/delay"])),
        **{name: sorted_paths(np.rad2deg(values)) for name, values in angles.items()},
        "inter": sorted_paths(code),
        "inter_pos": np.take_along_axis(place, order[..., None, None], axis=1),
    }


def from_deepmimo(
    matrices: Mapping[str, NDArray[np.floating]], radio: RadioSettings | None, max_paths: int, carrier: float | None
) -> Arrays:
    """Path arrays of a store from the matrices of a DeepMIMO scenario.

    Parameters
    ----------
    matrices : mapping
        As `to_deepmimo` returns them, any float dtype; `inter_pos` may be missing.
    radio : RadioSettings, optional
        The panel whose antenna (0, 0) the phases are of; None where they are those of the transmitter's position.
    max_paths : int
        Strongest paths kept.
    carrier : float, optional
        Hz; given where the phases lack exp(-j 2 pi carrier delay).

    Returns
    -------
    dict
        The `paths/` arrays of the schema, strongest path first, and `path_gain` (U,) in dB, -inf without a path;
        `paths/vertices` where there is `inter_pos`.

    Raises
    ------
    InputError
        Interactions without a position.
    """
    values = {name: np.asarray(array, np.float64) for name, array in matrices.items()}
    there = np.isfinite(values["power"]) & np.isfinite(values["phase"]) & np.isfinite(values["delay"])
    angles = {field: np.deg2rad(values[name]) for name, field in ANGLES.items()}
    phase = np.deg2rad(values["phase"])
    if radio is not None:
        phase -= reference_phase(angles["paths/aod_zenith"], angles["paths/aod_azimuth"], radio)
    if carrier is not None:
        phase -= 2 * np.pi * carrier * values["delay"]
    code = np.where(there, np.nan_to_num(values["inter"]), 0).astype(np.int64)
    columns: Arrays = {
        "paths/gain": np.where(there, 10 ** (values["power"] / 20) * np.exp(1j * phase), 0),
        "paths/delay": values["delay"],
        **angles,
        "paths/doppler": np.zeros(there.shape),
        "paths/interactions": _bounces(code),
    }
    if "inter_pos" in values:
        columns["paths/vertices"] = places_of(columns["paths/interactions"], values["inter_pos"])
    return strongest(columns, there, max_paths)


def places_of(bounces: NDArray[np.int8], place: NDArray[np.floating]) -> NDArray[np.float64]:
    """Positions (U, P, B', 3) of the interactions (U, P, B) of paths, cut or filled up to B, 0 where there is none.

    Raises
    ------
    InputError
        Interactions without a position.
    """
    result = np.full((*bounces.shape, 3), np.nan)
    depth = min(bounces.shape[-1], place.shape[2])
    result[:, :, :depth] = place[:, :, :depth]
    there = bounces != 0
    lost = int((there & ~np.isfinite(result).all(-1)).sum())
    if lost:
        msg = f"{lost:,} of {int(there.sum()):,} interactions have no position; import without --interactions positions"
        raise InputError(msg)
    return np.where(there[..., None], result, 0)


def strongest(columns: Mapping[str, NDArray[np.generic]], there: NDArray[np.bool_], max_paths: int) -> Arrays:
    """Sort paths by power, cut them to `max_paths`, and count what that costs; absent ones become 0.

    Parameters
    ----------
    columns : mapping
        The `paths/` arrays (U, P, ...) by their names in a store.
    there : bool (U, P)
    max_paths : int

    Returns
    -------
    dict
        The `paths/` arrays with `n_paths` and `power_cut`, and `path_gain` (U,) in dB, -inf without a path.
    """
    power = np.where(there, np.abs(np.where(there, columns["paths/gain"], 0)) ** 2, 0)
    there = there & (power > 0)
    count = there.sum(1)
    keep = min(max(int(count.max(initial=0)), 1), max_paths)
    order = np.argsort(-power, axis=1, kind="stable")[:, :keep]
    kept = np.take_along_axis(there, order, axis=1)
    result: Arrays = {}
    for name, values in columns.items():
        lead = order.reshape(*order.shape, *(1,) * (values.ndim - 2))
        taken = np.take_along_axis(values, lead, axis=1)
        dtype = {"c": np.complex64, "i": np.int8}.get(values.dtype.kind, np.float32)
        result[name] = np.where(kept.reshape(lead.shape), taken, 0).astype(dtype)
    total, held = power.sum(1), np.take_along_axis(power, order, axis=1).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = np.where(total > 0, 1 - held / total, 0)
        gain = 10 * np.log10(total)
    result["paths/n_paths"] = count.astype(np.int32)
    result["paths/power_cut"] = np.clip(np.where(count > keep, cut, 0), 0, 1).astype(np.float32)
    result["path_gain"] = gain
    return result


def rereferenced(
    phase: ArrayLike, aod_el: ArrayLike, aod_az: ArrayLike, radio: RadioSettings, other: RadioSettings
) -> NDArray[np.float64]:
    """Phases of a scenario for another array than the one it was exported for.

    Parameters
    ----------
    phase, aod_el, aod_az : float (U, P)
        Degrees, as DeepMIMO loads them.
    radio, other : RadioSettings
        Panels whose antenna (0, 0) the phases are of, and are to be of.

    Returns
    -------
    float64 (U, P)
        Degrees.
    """
    zenith, azimuth = (np.deg2rad(np.asarray(angle, np.float64)) for angle in (aod_el, aod_az))
    turn = reference_phase(zenith, azimuth, other) - reference_phase(zenith, azimuth, radio)
    return np.rad2deg(_wrapped(np.deg2rad(np.asarray(phase, np.float64)) + turn))


def csi_of(channel: NDArray[np.complexfloating], columns: int, rows: int, subcarriers: int) -> NDArray[np.complex64]:
    """A store's channels from those that DeepMIMO (v3 or v4) computes for a single-antenna user.

    Parameters
    ----------
    channel : complex (user, 1, columns * rows, K)
        OFDM channel of K selected subcarriers.
    columns, rows : int
        Array, DeepMIMO's `shape`.
    subcarriers : int
        All of DeepMIMO's setting, by whose square root it divides.

    Returns
    -------
    complex64 (user, K, x, y)
        sqrt(power gain). Subcarrier k is k times the spacing above the carrier.

    Examples
    --------
    >>> csi_of(np.ones((7, 1, 8 * 4, 1), np.complex64), 8, 4, 512).shape
    (7, 1, 8, 4)
    """
    users, _, _, selected = channel.shape
    grid = np.asarray(channel)[:, 0].reshape(users, rows, columns, selected)[:, ::-1]
    return (np.transpose(grid, (0, 3, 2, 1)) * math.sqrt(subcarriers)).astype(np.complex64)


def rotation(radio: RadioSettings) -> list[float]:
    """DeepMIMO's `rotation` of a panel: degrees about x, y and z."""
    return [0.0, radio.downtilt, radio.azimuth]


def _digits(kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    """DeepMIMO's digits of a store's interactions; 0 for none."""
    table = np.zeros(max(DIGITS) + 1, np.int64)
    for ours, theirs in DIGITS.items():
        table[ours] = theirs
    return table[kinds]


def _bounces(code: NDArray[np.int64]) -> NDArray[np.int8]:
    """A store's interactions (..., bounces) from decimal digits, the transmitter's end first."""
    length = len(str(int(code.max(initial=0))))
    ours = np.zeros(10, np.int8)
    for kind, digit in DIGITS.items():
        ours[digit] = kind
    result = np.zeros((*code.shape, length), np.int8)
    # Of a code with n digits, digit i from the left is bounce i.
    digits = np.where(code > 0, np.floor(np.log10(np.maximum(code, 1))) + 1, 0).astype(np.int64)
    for position in range(length):
        right = digits - 1 - position
        there = np.where(right >= 0, code // 10 ** np.maximum(right, 0) % 10, 0)
        result[..., position] = ours[there]
    return result


def _wrapped(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles between -pi and pi."""
    wrapped: NDArray[np.float64] = phase - 2 * np.pi * np.round(phase / (2 * np.pi))
    return wrapped
