"""What the two DeepMIMO formats share: names, the scene's description, and a page that says how to load it."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.exchange.selection import Scene, Selection
from wavecity.dataset.records import Content
from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import RadioSettings

if TYPE_CHECKING:
    from wavecity.dataset.exchange.exporter import Item


def scenario_items(selection: Selection, names: dict[str, str]) -> "list[Item]":
    """One folder for each scene; `names` are the folders by scene id."""
    from wavecity.dataset.exchange.exporter import Item

    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    if twice:
        ids = [scene for scene, name in names.items() if name == twice[0]]
        msg = f"{selection.store}: scenes {' and '.join(map(repr, ids))} would both be scenario {twice[0]!r}; export them apart"
        raise InputError(msg)
    return [Item(names[scene.id], (scene,)) for scene in selection.scenes]


def plain_name(text: str) -> str:
    """A name of lower-case letters, digits, `-` and `_`: DeepMIMO looks folders up in lower case."""
    return re.sub(r"[^\w-]", "-", text.lower(), flags=re.ASCII)


def base_station(selection: Selection, scene: Scene) -> NDArray[np.float64]:
    """Position of a scene's base station in m, scene frame."""
    x, y, z = selection.attributes["bs_position_m"]
    return np.array([x + scene.bs_shift, y, z], np.float64)


def about(selection: Selection, scene: Scene, radio: RadioSettings, values: Arrays) -> Content:
    """What a scenario says of its origin: licence, the scene, and the array that its phases belong to."""
    attributes = selection.attributes
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
        "largest_power_cut": float(np.max(values["paths/power_cut"], initial=0)),
    }


def scene_lines(items: "Sequence[Item]") -> list[str]:
    """Lines of a table: scenarios, cities, splits, users."""
    head = ["| scenario | city | split | users |", "|---|---|---|---|"]
    return head + [
        f"| {item.name} | {scene.city} | {scene.split} | {scene.users} |" for item in items for scene in item.scenes
    ]
