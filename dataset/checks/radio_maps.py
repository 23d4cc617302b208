"""Checks of radio maps, for `validate`: their values, and the users that stand in them."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wavecity.dataset.checks.physics import SceneCheck
from wavecity.dataset.radio_maps import GROUP, radio_map_axes
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

# dB by which all paths together may exceed the direct one in free space: ten paths as strong as it.
ABOVE_FRIIS = 10.0
# dB that a cell in line of sight may lie below it, as users may.
BELOW_FRIIS = 0.5
# Users whose antenna is this near to the receivers' height, m, are compared with the cells around them; a scene with fewer
# such users than this is not.
SAME_HEIGHT, FEWEST = 0.05, 10
# A user may lie outside the range of the 3 x 3 cells around it where the border of a shadow or of a reflection runs between
# it and their middles. Most users have no such border near: dB of half of them, and of nine tenths.
HALF, NINE_TENTHS = 0.5, 6.0
# Share of the users that may see the base station where none of the cells around does, or the other way round.
OTHER_SIGHT = 0.1


def _values(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """All metrics have the same empty cells, values within their ranges, and path gains below those of free space."""
    maps = {name.removeprefix(f"{GROUP}/"): values for name, values in arrays.items() if name.startswith(f"{GROUP}/")}
    there = ~np.isnan(next(iter(maps.values())))
    for name, values in maps.items():
        if (np.isnan(values) == there).any():
            return f"{name} is empty in other cells than {next(iter(maps))}"
        low, high, whole = _range(name, attrs)
        known = values[there]
        wrong = (known < low) | (known > high) | ~np.isfinite(known) | (whole & (np.rint(known) != known))
        if wrong.any():
            return f"{name} of {int(wrong.sum())} cells is not {'a whole number ' * whole}between {low:g} and {high:g}"
    if "path_gain" not in maps:
        return ""
    distance = np.linalg.norm(middles(maps["path_gain"], attrs) - base_station(arrays, attrs), axis=-1)
    with np.errstate(divide="ignore"):
        friis = 20 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * attrs["frequency_hz"] * distance))
    above = np.nan_to_num(maps["path_gain"] - friis, nan=-np.inf, neginf=-np.inf) - attrs["element_gain_max_db"]
    if above.max() > ABOVE_FRIIS:
        return f"path gain {above.max():.1f} dB above that of free space"
    floor = _floor(attrs)
    heard = maps["path_gain"] > floor
    for name, none in (("n_paths", 0), ("best_beam", -1)):
        if name in maps and (heard[there] & (maps[name][there] == none)).any():
            return f"cells with a path gain above the floor, but {name} {none}"
    seen = maps.get("los", np.zeros_like(friis)) == 1
    isotropic = attrs["element_pattern"] == "iso" and attrs["polarisation_matched"]
    if attrs["los_traced"] and isotropic and seen.any() and above[seen].min() < -BELOW_FRIIS:
        return f"path gain {-above[seen].min():.1f} dB below that of free space, in line of sight"
    return ""


def _users(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Users have the path gain, and the line of sight, of the cells around them.

    The gain of free space at a user lies between those of the 3 x 3 cells around it; so does that of all paths where the
    same paths reach the user and the cells.
    """
    some = next((values for name, values in arrays.items() if name.startswith(f"{GROUP}/")), None)
    if some is None or len(some) < 3:
        return ""
    grid = attrs["radio_map"]
    position = arrays["user_position"][:n_users].astype(np.float64) + base_station(arrays, attrs)
    half = attrs["tile_size_m"] / 2
    column = np.floor((position[:, 0] + half) / grid["spacing_m"]).astype(int)
    row = np.floor((half - position[:, 1]) / grid["spacing_m"]).astype(int)
    compared = np.abs(position[:, 2] - grid["receiver_height_m"]) <= SAME_HEIGHT
    compared &= (np.minimum(row, column) >= 1) & (np.maximum(row, column) <= len(some) - 2)
    compared[compared] &= np.isfinite(_around(some, row[compared], column[compared])).all(1)
    users = np.flatnonzero(compared)
    if f"{GROUP}/los" in arrays and len(users) >= FEWEST:
        los = _around(arrays[f"{GROUP}/los"], row[users], column[users])
        other = (los == ~arrays["los"][users, None]).all(1)
        if other.mean() > OTHER_SIGHT:
            return f"{int(other.sum())} of {len(users)} users have another line of sight than all cells around them"
    if f"{GROUP}/path_gain" not in arrays:
        return ""
    users = users[~arrays["outage"][users]]
    around = _around(arrays[f"{GROUP}/path_gain"], row[users], column[users])
    heard = (around > _floor(attrs)).all(1)
    around, gain = around[heard], arrays["path_gain"][users][heard]
    if len(gain) < FEWEST:
        return ""
    off = np.maximum(np.maximum(around.min(1) - gain, gain - around.max(1)), 0)
    middle, most = np.quantile(off, [0.5, 0.9])
    if middle > HALF or most > NINE_TENTHS:
        return (
            f"path gain of {len(gain)} users lies outside that of the cells around them by {middle:.1f} dB in the median and "
            f"by {most:.1f} dB at the 90th percentile"
        )
    return ""


def _range(name: str, attrs: StoreAttributes) -> tuple[float, float, bool]:
    """Lowest and highest value of a metric, and whether it is a whole number."""
    beams = attrs["array"]["columns"] * attrs["array"]["rows"]
    return {
        "path_gain": (_floor(attrs), np.inf, False),
        "los": (0.0, 1.0, True),
        "n_paths": (0.0, np.inf, True),
        "best_beam": (-1.0, beams - 1.0, True),
    }.get(name, (0.0, np.inf, False))


def _floor(attrs: StoreAttributes) -> float:
    """Path gain in dB of a cell that no path reaches."""
    return float(np.float32(attrs.get("recipe", {}).get("solver", {}).get("gain_floor", -200.0)))


def base_station(arrays: Arrays, attrs: StoreAttributes) -> NDArray[np.float64]:
    """Where the base station stands, m in the scene frame."""
    place: NDArray[np.float64] = np.array(attrs["bs_position_m"], np.float64)
    place[0] += float(arrays["bs_shift"])
    return place


def middles(values: NDArray[np.float32], attrs: StoreAttributes) -> NDArray[np.float64]:
    """Receivers (rows, columns, 3) in the middle of the cells of a map, m in the scene frame."""
    axes = radio_map_axes(len(values), attrs["radio_map"]["spacing_m"])
    east, north = np.meshgrid(axes["east"], axes["north"])
    above = np.full_like(east, attrs["radio_map"]["receiver_height_m"])
    receivers: NDArray[np.float64] = np.stack([east, north, above], axis=-1)
    return receivers


def _around(values: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float32]:
    """The 3 x 3 cells around each of N cells, (N, 9), none of them at the edge."""
    around: NDArray[np.float32] = sliding_window_view(values, (3, 3))[row - 1, column - 1].reshape(-1, 9)
    return around


RADIO_MAP_CHECKS: dict[str, SceneCheck] = {
    "radio map": _values,
    "radio map users": _users,
}
