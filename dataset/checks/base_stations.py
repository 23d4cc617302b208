"""Checks of several base stations, for `validate`: where they stand, which serves whom, and what the others disturb.

The links themselves pass the checks of a store with one base station, each with `link_of`.
"""

from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.base_stations import link_view
from wavecity.dataset.checks.physics import SceneCheck
from wavecity.dataset.records import StoreAttributes
from wavecity.dataset.schema import Arrays

if TYPE_CHECKING:
    import geopandas as gpd

# m by which the places of a user may differ that follow from two base stations: float32 at 300 m, rounded twice.
ROUNDING_M = 1e-4
# dB; gains are rounded to float32.
ROUNDING_DB = 1e-3
# Relative; powers are summed in another order.
ROUNDING = 1e-5


def link_of(arrays: Arrays, attrs: StoreAttributes, number: int) -> tuple[Arrays, StoreAttributes]:
    """Arrays and attributes of a scene as if base station `number` were its only one."""
    view = link_view(arrays, number)
    if not number:
        return view, attrs
    place = arrays["bs/position"][number].tolist()
    return view | {"bs_shift": np.zeros((), np.float32)}, cast(StoreAttributes, {**attrs, "bs_position_m": place})


def is_missing(arrays: Arrays, number: int) -> bool:
    """Whether a base station found no place in a scene."""
    return number > 0 and bool(np.isnan(arrays["bs/position"][number]).any())


def _missing(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Nobody hears a base station that found no place, and it faces nowhere."""
    for number in range(1, len(arrays["bs/position"])):
        view = link_view(arrays, number)
        there = np.isfinite(arrays["bs/azimuth"][number])
        if is_missing(arrays, number) == there:
            return f"base station {number} has a place or an azimuth, but not both"
        if not there and (view["csi"].any() or view["los"].any() or not view["outage"].all()):
            return f"base station {number} has no place, but users with paths"
    return ""


def _places(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """Base stations are in the tile, the first where attributes say, and users at one place for all of them."""
    position = arrays["bs/position"]
    first = np.array(attrs["bs_position_m"], np.float64)
    first[0] += float(arrays["bs_shift"])
    if np.abs(position[0] - first).max() > ROUNDING_M:
        return f"base station 0 is at {position[0].tolist()}, attributes say {first.tolist()}"
    if np.nanmax(np.abs(position[:, :2])) > attrs["tile_size_m"] / 2 or np.nanmin(position[:, 2]) <= 0:
        return "a base station is outside of the tile or under the ground"
    users = arrays["user_position"][:n_users] + position[0]
    for number in range(1, len(position)):
        if is_missing(arrays, number):
            continue
        off = np.abs(link_view(arrays, number)["user_position"][:n_users] + position[number] - users)
        if off.max(initial=0) > ROUNDING_M:
            return f"users are {off.max():.2g} m elsewhere for base station {number}"
    return ""


def _cells(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """The serving base station has the largest path gain, and SINR is what the path gains say."""
    serving, sinr = arrays["bs/serving"], arrays["bs/sinr"]
    if (serving[n_users:] != -1).any() or np.isfinite(sinr[n_users:]).any():
        return "padding users have a serving base station"
    settings = attrs["base_stations"]
    views = [link_view(arrays, number) for number in range(len(arrays["bs/position"]))]
    watts = np.array([np.where(view["outage"], 0, _watts(view["path_gain"])) for view in views])[:, :n_users]
    serving, sinr = serving[:n_users], sinr[:n_users]
    served = watts.any(0)
    if ((serving >= 0) != served).any() or (np.isfinite(sinr) != served).any():
        return "users with a path have no serving base station, or users without one have"
    users, own = np.arange(n_users)[served], serving[served]
    if (own >= len(watts)).any():
        return "users are served by base stations that are not there"
    strongest = watts[own, users]
    weaker = strongest < watts[:, users].max(0) * (1 - ROUNDING)
    if weaker.any():
        return f"{int(weaker.sum())} users are not served by the base station of the largest path gain"
    scale = _watts(settings["transmit_power_dbm"] - 30)
    rest = np.where(np.arange(len(watts))[:, None] == own, 0, watts[:, users]).sum(0) * scale
    noise = _watts(-174 - 30 + settings["noise_figure_db"]) * settings["bandwidth_hz"]
    off = np.abs(10 * np.log10(strongest * scale / (rest + noise)) - sinr[served])
    return f"SINR is off by {off.max():.2g} dB" if off.max(initial=0) > ROUNDING_DB else ""


def _handovers(arrays: Arrays, n_users: int, attrs: StoreAttributes) -> str:
    """A moving user stays in its cell until another is stronger by more than the hysteresis, and goes to the strongest."""
    if "bs/serving_along" not in arrays:
        return ""
    along, counts = arrays["bs/serving_along"].astype(int), arrays["bs/handovers"]
    if (along[n_users:] != -1).any() or counts[n_users:].any():
        return "padding users have a serving base station along their way"
    along = along[:n_users]
    views = [link_view(arrays, number) for number in range(len(arrays["bs/position"]))]
    csi = (view["trajectory/csi"][:n_users] for view in views)
    power = np.array([np.square(np.abs(values), dtype=np.float64).mean((2, 3, 4)) for values in csi])
    if ((along >= 0) != power.any(0)).any() or along.max(initial=0) >= len(power):
        return "the serving base station is not heard at a snapshot, or none serves where one is heard"
    slack = _watts(attrs["base_stations"]["hysteresis_db"])
    of = np.where(along >= 0, np.take_along_axis(power, np.maximum(along, 0)[None], 0)[0], 0)
    before = np.take_along_axis(power[:, :, 1:], np.maximum(along[:, :-1], 0)[None], 0)[0] * (along[:, :-1] >= 0)
    top = power.max(0)
    if (of * slack < top * (1 - ROUNDING)).any():
        return "a serving base station is weaker than another by more than the hysteresis"
    changed = along[:, 1:] != along[:, :-1]
    hasty = changed & (before > 0) & (before * slack > top[:, 1:] * (1 + ROUNDING))
    astray = changed & (of[:, 1:] < top[:, 1:] * (1 - ROUNDING))
    if (hasty | astray).any():
        return "a user changes its cell too early, or not to the strongest"
    expected = [int((np.diff(row[row >= 0]) != 0).sum()) for row in along]
    return "" if counts[:n_users].tolist() == expected else "handovers are not the changes of the serving base station"


def check_walls(buildings: "gpd.GeoDataFrame", position: NDArray[np.float64]) -> str:
    """No base station (B, 3), in m in the scene's frame, is inside a building."""
    import shapely

    footprints = buildings.geometry.to_numpy()
    base, top = (buildings[name].to_numpy(np.float64) for name in ("base", "height"))
    for number, place in enumerate(position):
        inside = shapely.contains_xy(footprints, *place[:2]) & (base < place[2]) & (place[2] < top)
        if inside.any():
            return f"base station {number} is inside a building"
    return ""


def _watts(decibels: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """10^(dB / 10)."""
    return np.power(10.0, np.asarray(decibels, np.float64) / 10)


BASE_STATION_CHECKS: dict[str, SceneCheck] = {
    "base stations": _places,
    "missing base stations": _missing,
    "cells": _cells,
    "handovers": _handovers,
}
