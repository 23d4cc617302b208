"""Several carriers in one store: which arrays have values at each of them, and the choice of one.

Along dimension `carrier`, the third after scene and user, an array has what a store of that carrier alone would have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import xarray as xr

from wavecity.dataset.records import StoreAttributes, cf_attributes
from wavecity.dataset.schema import Arrays, ArraySpec, Values
from wavecity.geo.errors import InputError

DIM = "carrier"
# What a reader may be asked for: a frequency in Hz, all carriers, or nothing, which is enough where there is one.
Carrier: TypeAlias = float | Literal["all"] | None

CARRIER_CONVENTION = (
    "Dimension carrier, with the frequencies in Hz as its coordinate: each entry is what a store of that carrier alone "
    "would have, csi of a panel whose spacing is in wavelengths of that carrier. Paths are ordered by their power at each "
    "carrier, so that the same path may have different places; its delay and angles are the same to the bit. What is "
    "counted once (statistics, card, gates) is at the first carrier."
)
# Relative difference of two frequencies that are the same.
SAME = 1e-6


def per_carrier(name: str) -> bool:
    """Whether an array has values at every carrier: all that follows from fields.

    Examples
    --------
    >>> per_carrier("paths/delay"), per_carrier("los")
    (True, False)
    """
    return name.startswith("paths/") or name in ("csi", "spectrum", "path_gain", "outage", "best_beam")


def with_carriers(specs: Sequence[ArraySpec]) -> list[ArraySpec]:
    """Arrays of a store with several carriers, from those of a store with one."""
    return [
        replace(spec, dims=(*spec.dims[:2], DIM, *spec.dims[2:])) if per_carrier(spec.name) else spec for spec in specs
    ]


def stack_carriers(each: Sequence[Arrays]) -> Arrays:
    """Arrays of a scene with several carriers from those at each of them.

    Parameters
    ----------
    each : sequence of dict
        Of `features.scene_arrays`, in the order of the carriers.

    Returns
    -------
    dict
        (user, carrier, ...) where an array depends on the carrier.
    """
    return {
        name: np.stack([arrays[name] for arrays in each], axis=1) if per_carrier(name) else values
        for name, values in each[0].items()
    }


def at_carrier(arrays: Mapping[str, Values], index: int) -> Arrays:
    """Arrays of a scene at one of its carriers; the reverse of `stack_carriers`."""
    return {name: values[:, index] if per_carrier(name) else values for name, values in arrays.items()}


def at_first(values: Values) -> Values:
    """Values (user,) of users that are counted once: with several carriers (user, carrier) those at the first one."""
    return values if values.ndim == 1 else values[:, 0]


def frequencies_of(attributes: StoreAttributes) -> list[float]:
    """Frequencies in Hz of a store's carriers, in their order."""
    return list(attributes["carriers"]["frequencies_hz"]) if "carriers" in attributes else [attributes["frequency_hz"]]


def carriers_text(frequencies: Sequence[float]) -> str:
    """`28.5 GHz`, or `3.5, 28.5 and 60 GHz`."""
    names = [f"{frequency / 1e9:g}" for frequency in frequencies]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) + " GHz"


def attributes_at(attributes: StoreAttributes, index: int) -> StoreAttributes:
    """Attributes of a store at one of its carriers: those of a store of that carrier alone."""
    carriers = attributes["carriers"]
    frequency = carriers["frequencies_hz"][index]
    alone: StoreAttributes = {**attributes, "frequency_hz": frequency}
    if "statistics" in carriers:
        alone["statistics"] = carriers["statistics"][index]
    del alone["carriers"]
    alone["conventions"] = {name: text for name, text in alone.get("conventions", {}).items() if name != DIM}
    if "radio" in alone.get("recipe", {}):
        radio = {name: value for name, value in alone["recipe"]["radio"].items() if name != "carriers"}
        alone["recipe"] = {**alone["recipe"], "radio": {**radio, "frequency": frequency}}
    return alone


def index_of(store: object, attributes: StoreAttributes, carrier: Carrier) -> int | None:
    """Number of the carrier that a reader asks for; None where there is nothing to choose.

    Parameters
    ----------
    store : object
        For the message.
    attributes : StoreAttributes
    carrier : float, "all" or None
        Hz; all carriers; or, where the store has one, that.

    Raises
    ------
    InputError
        The store does not have this carrier, or several, of which none is named.
    """
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


def choose_carrier(store: object, data: xr.Dataset, attributes: StoreAttributes, carrier: Carrier) -> xr.Dataset:
    """A group of a store at one carrier, as `index_of` finds it; the root group gets the attributes of it alone.

    Parameters
    ----------
    store : object
        For the message.
    data : xarray.Dataset
    attributes : StoreAttributes
        Of the store's root group.
    carrier : float, "all" or None
    """
    index = index_of(store, attributes, carrier)
    if index is None:
        return data
    chosen: xr.Dataset = data.isel({DIM: index}) if DIM in data.dims else data
    if "carriers" in chosen.attrs:
        chosen.attrs = cf_attributes(attributes_at(attributes, index))
    return chosen
