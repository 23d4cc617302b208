"""What the two DeepMIMO formats share: names, the scene's description, and a page that says how to load it."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from wavecity.dataset.exchange.selection import Scene, Selection, Station
from wavecity.dataset.records import Content
from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import RadioSettings

if TYPE_CHECKING:
    from wavecity.dataset.exchange.exporter import Item


def scenario_items(selection: Selection, names: dict[str, str]) -> "list[Item]":
    """One folder for each scene; `names` are the folders by scene id."""
    from wavecity.dataset.exchange.exporter import Item

    none = next((scene.id for scene in selection.scenes if not selection.stations(scene)), None)
    if none is not None:
        numbers = list(map(str, selection.numbers))
        msg = f"--bs {','.join(numbers)}: scene {none!r} has no base station {' or '.join(numbers)}; choose others with --scenes"
        raise InputError(msg)
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        ids = [scene for scene, name in names.items() if name == twice[0]]
        msg = f"{selection.store}: scenes {' and '.join(map(repr, ids))} would both be scenario {twice[0]!r}; export them apart"
        raise InputError(msg)
    return [Item(names[scene.id], (scene,)) for scene in selection.scenes]


def plain_name(text: str) -> str:
    """A name of lower-case letters, digits, `-` and `_`: DeepMIMO looks folders up in lower case."""
    return re.sub(r"[^\w-]", "-", text.lower(), flags=re.ASCII)


def radio_of(radio: RadioSettings, station: Station) -> RadioSettings:
    """The array of an export as it stands at a base station."""
    return radio if station.azimuth is None else radio.model_copy(update={"azimuth": station.azimuth})


def about(selection: Selection, scene: Scene, radio: RadioSettings, links: Sequence[tuple[Station, Arrays]]) -> Content:
    """What a scenario says of its origin: licence, the scene, and the array that its phases belong to.

    Of several base stations each has an array of its own, which faces its azimuth.
    """
    attributes = selection.attributes
    several = {"settings": attributes["base_stations"], "transmitters": [station.facts() for station, _ in links]} if (
        selection.has_several
    ) else None  # fmt: skip
    values = links[0][1]
    return {
        "attribution": attributes["attribution"],
        "licence": attributes["licence"],
        "dataset": selection.identity,
        "scene": scene.facts(),
        "tile_size_m": attributes["tile_size_m"],
        "bs_position_m": list(attributes["bs_position_m"]),
        "height_cells": len(values["height"]),
        "los_traced": attributes["los_traced"],
        "element_pattern": attributes["element_pattern"],
        "element_gain_max_db": attributes["element_gain_max_db"],
        "polarisation_matched": attributes["polarisation_matched"],
        "phase_reference": {
            "antenna": "(0, 0): lowest of the first column",
            "columns": radio.columns,
            "rows": radio.rows,
            "spacing_wavelengths": radio.spacing,
            "azimuth_deg": radio.azimuth,
            "downtilt_deg": radio.downtilt,
        },
        "largest_power_cut": max(float(np.max(arrays["paths/power_cut"], initial=0)) for _, arrays in links),
        **({"base_stations": several} if several else {}),
    }


def several_lines(selection: Selection) -> list[str]:
    """What a page says of the transmitters of a store with several base stations."""
    if not selection.has_several:
        return []
    numbers = ", ".join(map(str, selection.numbers))
    return [
        f"Transmitters are base stations {numbers} of the dataset in this order, without those that found no place in a "
        "scene. Each has an array of its own, which faces its azimuth.",
        "",
    ]


def scene_lines(items: "Sequence[Item]") -> list[str]:
    """Lines of a table: scenarios, cities, splits, users."""
    head = ["| scenario | city | split | users |", "|---|---|---|---|"]
    return head + [
        f"| {item.name} | {scene.city} | {scene.split} | {scene.users} |" for item in items for scene in item.scenes
    ]
