"""Several base stations in a store: the links of those after the first, and cells.

A store's own arrays are the links of base station 0, as in a store of one. Those of base station k are the same arrays
below the group `bs/k`, so that whatever reads one link reads any (`link_view`). The group `bs` itself has what concerns
all of them: where they stand, and which serves whom.

Apart from `wavecity.dataset.schema`, which every dataset depends on: a store with one base station is what it was before
there were more (`wavecity.flows.fingerprint`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.dataset.records import BaseStationAttributes, StoreAttributes
from wavecity.dataset.schema import Arrays, ArraySpec, array_specs
from wavecity.dataset.vegetation import LOSS, vegetation_specs
from wavecity.geo.base_station_settings import BaseStationSettings
from wavecity.geo.errors import InputError

Value = TypeVar("Value")
# Which base station's links are read: one by its number, or all.
Links: TypeAlias = int | Literal["all"]

GROUP = "bs"
# What is the user's, whichever base station it listens to.
SHARED = ("trajectory/velocity", "trajectory/kind")
# Thermal noise at 290 K.
THERMAL_NOISE_DBM_HZ = -174.0

CONVENTION = (
    "Group bs: several base stations. The arrays of the root are the links of base station 0, those of bs/k the links of "
    "base station k, positions relative to it and channels of its own panel, of the same size, which faces azimuth. One "
    "that found no place in a scene has position NaN, and all users there are in outage. serving is the base station of "
    "the largest path_gain (-1: none), sinr its power over that of all others and thermal noise, all transmitting at "
    "transmit_power_dbm with one antenna. Along trajectories power is the mean of |csi|^2 over antennas and "
    "subcarriers, and a user changes its cell when another is stronger by more than hysteresis_db, or its own is gone."
)


def base_station_specs(specs: Sequence[ArraySpec], count: int) -> list[ArraySpec]:
    """Arrays of a store with `count` base stations besides those of a store of one, `specs`.

    Examples
    --------
    >>> names = [spec.name for spec in base_station_specs(array_specs(), 2)]
    >>> names[:2], names[-4:]
    (['bs/1/csi', 'bs/1/spectrum'], ['bs/position', 'bs/azimuth', 'bs/serving', 'bs/sinr'])
    """
    if count == 1:
        return []
    links = [spec for spec in specs if is_of_link(spec)]
    found = [replace(spec, name=name_of(k, spec.name)) for k in range(1, count) for spec in links]
    user, station = ("scene", "user"), ("scene", "bs")
    found += [
        ArraySpec("bs/position", (*station, "axis"), "float64", np.nan, "m", "base station in the scene frame"),
        ArraySpec("bs/azimuth", station, "float32", np.nan, "degree", "azimuth of the panel from east towards north"),
        ArraySpec("bs/serving", user, "int8", -1, "1", "base station of the largest path gain, -1: none"),
        ArraySpec("bs/sinr", user, "float32", np.nan, "dB", "serving power over interference and noise"),
    ]
    if any(spec.name == "trajectory/csi" for spec in specs):
        along = "serving base station along the user's way, -1: none"
        found += [
            ArraySpec("bs/serving_along", (*user, "time"), "int8", -1, "1", along),
            ArraySpec("bs/handovers", user, "int16", 0, "1", "changes from one serving base station to another"),
        ]
    return found


def is_of_link(spec: ArraySpec) -> bool:
    """Whether an array is of the link between a user and the base station."""
    return spec.dims[1] == "user" and spec.name not in SHARED


def name_of(number: int, name: str) -> str:
    """Name in the store of an array of base station `number`."""
    return f"{GROUP}/{number}/{name}" if number else name


def link_view(values: Mapping[str, Value], number: int) -> dict[str, Value]:
    """What there is of a base station's links, by the names that a store of one has.

    What is not of the link (maps, velocities) is the store's. Radio maps are of base station 0 alone.

    Parameters
    ----------
    values : mapping
        By name in the store.
    number : int
        Of the base station.

    Examples
    --------
    >>> link_view({"csi": 1, "height": 2, "bs/1/csi": 3}, 1)
    {'csi': 3, 'height': 2}
    """
    prefix = name_of(number, "")
    shared = {name: value for name, value in values.items() if not name.startswith(f"{GROUP}/")}
    if not number:
        return shared
    kept = {name: value for name, value in shared.items() if not name.startswith("radio_map/")}
    return kept | {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def chosen(store: object, attributes: StoreAttributes, links: Links) -> list[int]:
    """Numbers of the base stations whose links are wanted.

    Raises
    ------
    InputError
        The store has no such base station, or only one.
    """
    count = attributes["base_stations"]["count"] if "base_stations" in attributes else 1
    if count == 1 and links != 0:
        msg = f"{store}: bs {links!r}: has one base station; build it with scene.base_stations for more"
        raise InputError(msg)
    numbers = list(range(count))
    if links == "all":
        return numbers
    if links not in numbers:
        msg = f"{store}: no base station {links!r}; give bs 0 to {count - 1}, or 'all'"
        raise InputError(msg)
    return [links]


def with_links(
    first: Arrays,
    others: Sequence[Arrays | None],
    stations: Sequence[tuple[ArrayLike, float] | None],
    settings: BaseStationSettings,
    gain_floor: float,
) -> Arrays:
    """Every per-unit array of a scene with several base stations; with several bands the cells are found at each.

    Parameters
    ----------
    first : dict
        Arrays of base station 0 (`features.scene_arrays`, or `bands.stack_bands` of these).
    others : sequence of dict
        Of the others; None for one that found no place.
    stations : sequence of (float (3,), float)
        Position in m in the scene's frame and azimuth in degrees of all, the first included.
    settings : BaseStationSettings
        Powers, for the cells.
    gain_floor : float
        Path gain in dB of users in outage.
    """
    moving = "trajectory/csi" in first
    known_specs = array_specs(True, True, gain_floor, moving, True) + vegetation_specs(LOSS in first)
    specs = [spec for spec in known_specs if is_of_link(spec) and spec.name in first]
    arrays = dict(first)
    for number, link in enumerate(others, 1):
        for spec in specs:
            there = first[spec.name]
            values = np.full(there.shape, spec.fill, there.dtype) if link is None else link[spec.name]
            arrays[name_of(number, spec.name)] = values
    known = [(np.full(3, np.nan), np.nan) if station is None else station for station in stations]
    arrays |= {
        "bs/position": np.array([position for position, _ in known], np.float64),
        "bs/azimuth": np.array([azimuth for _, azimuth in known], np.float32),
    }
    views = [link_view(arrays, number) for number in range(len(stations))]
    gain = np.array([np.where(view["outage"], -np.inf, view["path_gain"]) for view in views])
    arrays["bs/serving"] = serving_cell(gain)
    arrays["bs/sinr"] = sinr(gain, settings.power_dbm, settings.bandwidth, settings.noise_figure)
    if moving:
        along = (np.abs(view["trajectory/csi"]) ** 2 for view in views)
        power = np.array([np.mean(values, axis=(-3, -2, -1), dtype=float) for values in along])
        serving = cells_along(power, settings.hysteresis)
        arrays |= {"bs/serving_along": serving, "bs/handovers": handovers(serving)}
    return arrays


def serving_cell(gain: NDArray[np.float64]) -> NDArray[np.int8]:
    """Base station of the largest gain, the first of equals: (B, ...) in dB, -inf without a path; -1 without any.

    Examples
    --------
    >>> serving_cell(np.array([[-90.0, -np.inf], [-80.0, -np.inf]]))
    array([ 1, -1], dtype=int8)
    """
    return np.where(np.isneginf(gain).all(0), -1, gain.argmax(0)).astype(np.int8)


def sinr(gain: NDArray[np.float64], power_dbm: float, bandwidth: float, noise_figure: float) -> NDArray[np.float32]:
    """Power from the strongest base station over that from all others and thermal noise, in dB; NaN without any.

    All transmit all the time, at the same power, with one antenna.

    Parameters
    ----------
    gain : float64 (B, ...)
        Path gains in dB, -inf without a path.
    power_dbm, bandwidth, noise_figure : float
        dBm, Hz, dB.

    Examples
    --------
    >>> sinr(np.array([[-80.0], [-90.0]]), 30.0, 100e6, 7.0).round(2)
    array([10.], dtype=float32)
    """
    noise = 10 ** ((THERMAL_NOISE_DBM_HZ + 10 * np.log10(bandwidth) + noise_figure) / 10)
    received = 10 ** ((power_dbm + gain) / 10)
    best = received.max(0)
    # Summed without the strongest: subtracting it from the sum of all would lose interference far below it.
    others = np.where(np.arange(len(gain)).reshape(-1, *[1] * (gain.ndim - 1)) == gain.argmax(0), 0, received).sum(0)
    found = 10 * np.log10(np.where(best > 0, best, 1) / (others + noise))
    return np.where(best > 0, found, np.nan).astype(np.float32)


def cells_along(power: NDArray[np.float64], hysteresis: float) -> NDArray[np.int8]:
    """Serving base station of moving users at every snapshot, -1 where none is heard.

    Parameters
    ----------
    power : float64 (B, ..., T)
        0 where nothing is heard.
    hysteresis : float
        dB by which another must be stronger than the serving one.

    Returns
    -------
    int8 (..., T)
    """
    shape = power.shape[1:]
    power = power.reshape(len(power), -1, shape[-1])
    strongest = np.where(power.any(0), power.argmax(0), -1)
    serving = strongest.copy()
    user = np.arange(power.shape[1])
    for step in range(1, power.shape[2]):
        before = serving[:, step - 1]
        own = np.where(before >= 0, power[before, user, step], 0)
        stays = (own > 0) & (power[:, :, step].max(0) <= own * 10 ** (hysteresis / 10))
        serving[:, step] = np.where(stays, before, strongest[:, step])
    return serving.reshape(shape).astype(np.int8)


def handovers(serving: NDArray[np.int8]) -> NDArray[np.int16]:
    """How often the serving base station (..., T) changes to another; gaps without one do not count.

    Examples
    --------
    >>> handovers(np.array([[0, 0, 1, -1, 1, 0]], np.int8))
    array([2], dtype=int16)
    """
    counts = np.zeros(serving.shape[:-1], np.int16)
    last = serving[..., 0].copy()
    for step in range(1, serving.shape[-1]):
        now = serving[..., step]
        counts += (now >= 0) & (last >= 0) & (now != last)
        last = np.where(now >= 0, now, last)
    return counts


def stations_text(attributes: BaseStationAttributes) -> str:
    """Number and powers of base stations in a line.

    Examples
    --------
    >>> stations_text(attributes_for(BaseStationSettings(corners=True)))
    '5 in a scene, each 30 dBm; noise of 100 MHz, noise figure 7 dB'
    """
    return (
        f"{attributes['count']} in a scene, each {attributes['transmit_power_dbm']:g} dBm; noise of "
        f"{attributes['bandwidth_hz'] / 1e6:g} MHz, noise figure {attributes['noise_figure_db']:g} dB"
    )


def cells_text(serving: NDArray[np.int8], ratio: NDArray[np.float32], count: int) -> str:
    """Shares of the users that each of `count` base stations serves, and the spread of SINR, in a line.

    Examples
    --------
    >>> cells_text(np.array([[0, 1, 1, -1]], np.int8), np.array([[3, 7, 9, np.nan]], np.float32), 2)
    'users served by base stations 0 to 1: 33, 67 %; SINR 3.4, 7.0, 8.8 dB (5th, 50th, 95th percentile)'
    """
    served = serving[serving >= 0]
    if not served.size:
        return "no user is served"
    shares = 100 * np.bincount(served.ravel(), minlength=count) / served.size
    low, middle, high = np.nanpercentile(ratio, (5, 50, 95))
    return (
        f"users served by base stations 0 to {count - 1}: {', '.join(f'{share:.0f}' for share in shares)} %; "
        f"SINR {low:.1f}, {middle:.1f}, {high:.1f} dB (5th, 50th, 95th percentile)"
    )


def attributes_for(settings: BaseStationSettings) -> BaseStationAttributes:
    """What readers need to know of them, JSON-ready."""
    return {
        "count": settings.count,
        "transmit_power_dbm": settings.power_dbm,
        "bandwidth_hz": settings.bandwidth,
        "noise_figure_db": settings.noise_figure,
        "hysteresis_db": settings.hysteresis,
    }
