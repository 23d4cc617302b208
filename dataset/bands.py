"""Several carriers, or pairs of ports, in one store: which arrays have values at each, and the choice of one.

Along dimension `carrier` or `port`, which comes after scene and user (in radio maps after the scene), an array has what a
store of that carrier, or of those two ports, alone would have. A store has one of these dimensions at most; an entry along
it is called a band.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from wavecity.dataset.records import StoreAttributes, cf_attributes
from wavecity.dataset.schema import Arrays, ArraySpec, Values
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import SLANTS, RadioSettings

CARRIER: Literal["carrier"] = "carrier"
PORT: Literal["port"] = "port"
DIMS = (CARRIER, PORT)
# What a reader may be asked for: a frequency in Hz or names of two ports; all; or nothing, which is enough where there is
# one.
Carrier: TypeAlias = float | Literal["all"] | None
Port: TypeAlias = str | None

CONVENTIONS = {
    CARRIER: (
        "Dimension carrier, with the frequencies in Hz as its coordinate: each entry is what a store of that carrier alone "
        "would have, csi of a panel whose spacing is in wavelengths of that carrier. Paths are ordered by their power at "
        "each carrier, so that the same path may have different places; its delay and angles are the same to the bit. What "
        "is counted once (statistics, card, gates) is at the first carrier."
    ),
    PORT: (
        "Dimension port, with names such as H/V as its coordinate: port H of the user, port V of the base station (-45 and "
        "+45 for slanted ones). Each entry is what a store of these two alone would have; csi is the channel between them. "
        "Paths are ordered by their power at each, so that the same path may have different places; its delay and angles "
        "are the same to the bit. What is counted once (statistics, card, gates) is at the first pair."
    ),
}
# Relative difference of two frequencies that are the same.
SAME = 1e-6
# Groups of which all arrays follow from fields, but for the geometry in them; and the arrays that do in the others.
OF_FIELDS = ("paths/", "radio_map/")
GEOMETRY = ("radio_map/los",)
SINGLE = (
    "csi", "spectrum", "path_gain", "outage", "best_beam", "trajectory/csi",
    "bs/serving", "bs/sinr", "bs/serving_along", "bs/handovers",
)  # fmt: skip


def per_band(name: str) -> bool:
    """Whether an array has values at every band: all that follows from fields, of any base station.

    Examples
    --------
    >>> per_band("paths/delay"), per_band("bs/1/csi"), per_band("los"), per_band("bs/position")
    (True, True, False, False)
    """
    of_link = re.sub(r"^bs/\d+/", "", name)
    return of_link in SINGLE or (of_link.startswith(OF_FIELDS) and of_link not in GEOMETRY)


def with_bands(specs: Sequence[ArraySpec], dim: str) -> list[ArraySpec]:
    """Arrays of a store with several bands along a dimension, from those of a store with one."""
    found = []
    for spec in specs:
        first = 2 if spec.dims[1] == "user" else 1
        dims = (*spec.dims[:first], dim, *spec.dims[first:])
        found.append(replace(spec, dims=dims) if per_band(spec.name) else spec)
    return found


def stack_bands(each: Sequence[Arrays]) -> Arrays:
    """Arrays of a scene with several bands from those at each of them.

    Parameters
    ----------
    each : sequence of dict
        Of `features.scene_arrays`, or radio maps, in the order of the bands.

    Returns
    -------
    dict
        (user, band, ...) where an array depends on it; of radio maps (band, ...).
    """
    return {
        name: np.stack([arrays[name] for arrays in each], axis=_axis(name)) if per_band(name) else values
        for name, values in each[0].items()
    }


def at_band(arrays: Mapping[str, Values], index: int) -> Arrays:
    """Arrays of a scene at one of its bands; the reverse of `stack_bands`."""
    return {
        name: np.moveaxis(values, _axis(name), 0)[index] if per_band(name) else values
        for name, values in arrays.items()
    }


def _axis(name: str) -> int:
    """Axis of the bands in an array of a scene."""
    return 0 if name.startswith("radio_map/") else 1


def at_first(values: Values) -> Values:
    """Values (user,) of users that are counted once: with several bands (user, band) those at the first one."""
    return values if values.ndim == 1 else values[:, 0]


def at_first_band(data: xr.Dataset) -> xr.Dataset:
    """A group of a store at the first of its bands, where it has several."""
    first: xr.Dataset = data.isel(dict.fromkeys(DIMS, 0), missing_dims="ignore")
    return first


def port_names(radio: RadioSettings) -> list[str]:
    """Names of the pairs of ports, user / base station.

    Examples
    --------
    >>> port_names(RadioSettings(polarisation="VH", user_polarisation="cross"))
    ['-45/V', '-45/H', '+45/V', '+45/H']
    """
    slants = [[_slant(slant) for slant in SLANTS[name]] for name in (radio.user_polarisation, radio.polarisation)]
    return [f"{slants[0][user]}/{slants[1][bs]}" for user, bs in radio.ports]


def bands_of(radio: RadioSettings) -> StoreAttributes:
    """Attributes that say which bands a store of these settings has; none at one carrier with vertical polarisation.

    Examples
    --------
    >>> bands_of(RadioSettings(carriers=[3.5e9, 28.5e9]))
    {'carriers': {'frequencies_hz': [3500000000.0, 28500000000.0]}}
    """
    found: StoreAttributes = {}
    names = port_names(radio)
    if radio.carriers:
        found["carriers"] = {"frequencies_hz": list(radio.carriers)}
    if len(names) > 1:
        found["ports"] = {"names": names}
    elif names != ["V/V"]:
        found["polarisations"] = names[0]
    return found


def dim_of(attributes: StoreAttributes) -> Literal["carrier", "port"] | None:
    """The dimension of a store's bands; None where there is one."""
    return CARRIER if "carriers" in attributes else PORT if "ports" in attributes else None


def frequencies_of(attributes: StoreAttributes) -> list[float]:
    """Frequencies in Hz of a store's carriers, in their order."""
    return list(attributes["carriers"]["frequencies_hz"]) if "carriers" in attributes else [attributes["frequency_hz"]]


def statistics_of(attributes: StoreAttributes) -> dict[str, dict[str, float]]:
    """Statistics of the train split at every band, by its name; of the store as `value` where there is one."""
    names = band_names(attributes)
    if "carriers" in attributes:
        return dict(zip(names, attributes["carriers"]["statistics"], strict=True))
    if "ports" in attributes:
        return dict(zip(names, attributes["ports"]["statistics"], strict=True))
    return {"value": attributes["statistics"]}


def band_names(attributes: StoreAttributes) -> list[str]:
    """Names of a store's bands for people, `3.5 GHz` or `H/V`; none where there is one."""
    if "carriers" in attributes:
        return [f"{frequency / 1e9:g} GHz" for frequency in frequencies_of(attributes)]
    return list(attributes["ports"]["names"]) if "ports" in attributes else []


def carriers_text(frequencies: Sequence[float]) -> str:
    """`28.5 GHz`, or `3.5, 28.5 and 60 GHz`."""
    names = [f"{frequency / 1e9:g}" for frequency in frequencies]
    return _listed(names) + " GHz"


def radio_text(attributes: StoreAttributes) -> str:
    """Carriers of a store, and its ports where there are several: `28.5 GHz, ports V/V and V/H`."""
    ports = f", ports {_listed(band_names(attributes))} (user/base station)" if "ports" in attributes else ""
    return carriers_text(frequencies_of(attributes)) + ports


def attributes_at(attributes: StoreAttributes, index: int) -> StoreAttributes:
    """Attributes of a store at one of its bands: those of a store of that alone."""
    alone: StoreAttributes = {**attributes}
    statistics = list(statistics_of(attributes).values()) if _has_statistics(attributes) else []
    if statistics:
        alone["statistics"] = statistics[index]
    if "carriers" in alone:
        carriers = alone.pop("carriers")
        alone["frequency_hz"] = carriers["frequencies_hz"][index]
        if "vegetation" in carriers:
            alone["vegetation"] = carriers["vegetation"][index]
        if "radio" in alone.get("recipe", {}):
            radio = {name: value for name, value in alone["recipe"]["radio"].items() if name != "carriers"}
            alone["recipe"] = {**alone["recipe"], "radio": {**radio, "frequency": alone["frequency_hz"]}}
    else:
        user, bs = alone.pop("ports")["names"][index].split("/")
        alone["polarisation_matched"] = attributes["polarisation_matched"] and user == bs
        alone["polarisations"] = f"{user}/{bs}"
    alone["conventions"] = {name: text for name, text in alone.get("conventions", {}).items() if name not in DIMS}
    return alone


def index_of(store: object, attributes: StoreAttributes, carrier: Carrier, port: Port = None) -> int | None:
    """Number of the band that a reader asks for; None where there is nothing to choose.

    Parameters
    ----------
    store : object
        For the message.
    attributes : StoreAttributes
    carrier : float, "all" or None
        Hz; all carriers; or, where the store has one, that.
    port : str or None
        Names of two ports, user/base station; `all`; or, where the store has one pair, that.

    Raises
    ------
    InputError
        The store does not have this carrier or port, or several, of which none is named.
    """
    found = _carrier_of(store, attributes, carrier)
    if "ports" not in attributes:
        if port not in (None, "all", attributes.get("polarisations", "V/V")):
            msg = f"{store}: port {port!r} is not in it; it has one pair, {attributes.get('polarisations', 'V/V')}"
            raise InputError(msg)
        return found
    names = attributes["ports"]["names"]
    if port == "all":
        return None
    if port is None:
        msg = (
            f"{store}: has channels of the ports {_listed(names)} (user/base station), and one pair is needed: name it, "
            f"port={names[0]!r}, or make a store of it, `wavecity subset STORE --port {names[0]} --out OUT`"
        )
        raise InputError(msg)
    if port not in names:
        msg = f"{store}: port {port!r} is not in it; it has {', '.join(names)} (user/base station)"
        raise InputError(msg)
    return names.index(port)


def choose_band(
    store: object, data: xr.Dataset, attributes: StoreAttributes, carrier: Carrier, port: Port
) -> xr.Dataset:
    """A group of a store at one band, as `index_of` finds it; the root group gets the attributes of it alone.

    Parameters
    ----------
    store : object
        For the message.
    data : xarray.Dataset
    attributes : StoreAttributes
        Of the store's root group.
    carrier, port
        As of `index_of`.
    """
    index = index_of(store, attributes, carrier, port)
    if index is None:
        return data
    chosen: xr.Dataset = data.isel({dim_of(attributes): index}, missing_dims="ignore")
    if "statistics" in chosen.attrs:
        chosen.attrs = cf_attributes(attributes_at(attributes, index))
    return chosen


def _carrier_of(store: object, attributes: StoreAttributes, carrier: Carrier) -> int | None:
    """Number of the carrier that a reader asks for; None where there is one, or all are."""
    if carrier == "all" or (carrier is None and "carriers" not in attributes):
        return None
    there = frequencies_of(attributes) if "carriers" in attributes or "frequency_hz" in attributes else []
    if carrier is None:
        msg = (
            f"{store}: has channels at {carriers_text(there)}, and one carrier is needed: name it, carrier={there[0]:g}, or "
            f"make a store of it, `wavecity subset STORE --carrier {there[0]:g} --out OUT`"
        )
        raise InputError(msg)
    known = [number for number, frequency in enumerate(there) if abs(frequency - carrier) <= SAME * frequency]
    if not known:
        msg = f"{store}: carrier {carrier:g} Hz is not in it; it has {', '.join(f'{frequency:g}' for frequency in there)} Hz"
        raise InputError(msg)
    return known[0] if "carriers" in attributes else None


def _has_statistics(attributes: StoreAttributes) -> bool:
    """Whether the finishing step has written the statistics of the bands."""
    bands = attributes["carriers"] if "carriers" in attributes else attributes["ports"]
    return "statistics" in bands


def _slant(degrees: float) -> str:
    """`V`, `H`, `-45`, `+45`."""
    return {0.0: "V", 90.0: "H"}.get(degrees, f"{degrees:+g}")


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
