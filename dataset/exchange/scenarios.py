"""DeepMIMO v4 scenarios -> a published store, without the package: its files are JSON and matrices."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wavecity.dataset.base_stations import attributes_for, name_of
from wavecity.dataset.exchange.blocks import height_map
from wavecity.dataset.exchange.importing import (
    Frame,
    PathSettings,
    chosen_users,
    frame_around,
    import_path_sources,
    scene_arrays,
)
from wavecity.dataset.exchange.scenario_reading import Link, checksum_of, find_links, paths_of, triangles_of
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version
from wavecity.dataset.records import BaseStationAttributes, Content, Outcome, StoreAttributes
from wavecity.dataset.schema import Arrays
from wavecity.geo.base_station_settings import BaseStationSettings
from wavecity.geo.errors import InputError

# m by which the places of a user may differ between links: they are float32.
SAME_PLACE = 1e-3
# Numbers of base stations are int8.
MOST = 127


@dataclass(frozen=True)
class ScenarioSource:
    """A link as a source of channels, or the links of several base stations to the same users.

    Attributes
    ----------
    links : tuple of Link
        Base station 0 first.
    numbers : tuple of int
        Of their base stations in the store.
    settings : PathSettings
    frame : Frame
    turned : bool
        Whether panels face where they did in the store that they were exported from, and not where the settings say.
    """

    links: tuple[Link, ...]
    numbers: tuple[int, ...]
    settings: PathSettings
    frame: Frame
    turned: bool = False

    def __str__(self) -> str:
        return str(self.links[0])

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.links[0].name if len(self.links) == 1 else self.links[0].place

    @property
    def stem(self) -> str:
        """Name of the scene."""
        return self.name

    def load(self) -> Arrays:
        """Channels, paths and map; the last one is kept."""
        return _load(self)

    def checksum(self) -> str:
        """SHA-256 over all files of the links and the scene's objects."""
        sums = [checksum_of(link, self.settings.positions) for link in self.links]
        return sums[0] if len(sums) == 1 else hashlib.sha256(repr((self.numbers, sums)).encode()).hexdigest()

    def facts(self) -> Outcome:
        """City and place of scenarios that were exported from a store; else the scenario stands for a city."""
        first = self.links[0]
        origin = first.origin
        if origin is None:
            return {"city": first.scenario}
        scene = origin["scene"]
        facts: Outcome = {"city": scene["city"], "country": scene["country"]}
        if "latitude" in scene:
            facts |= {"latitude": scene["latitude"], "longitude": scene["longitude"]}
        if self.frame == first.frame:
            facts["bs_shift"] = scene["bs_shift"]
        return facts


def import_scenarios(
    folders: Sequence[Path],
    store: str,
    options: Content,
    *,
    transmitters: Sequence[int] = (),
    links: bool = False,
    progress: Tracker = iter,
) -> Version:
    """Write DeepMIMO v4 scenarios into a store as its next version, validate and publish it.

    Every pair of a transmitter and a set of receivers is a scene; with `links`, and of datasets with several base stations
    that `export-dataset` wrote, all transmitters are base stations of one scene. Of scenarios that `export-dataset` wrote,
    array, map, cities, splits and licence are those of the store unless given.

    Parameters
    ----------
    folders : sequence of Path
        Scenarios, or folders of scenarios.
    store : str
        Folder or URL; a new one, or one of imports.
    options : dict
        Fields of `importing.PathSettings` that are given; `frequency` is the scenarios'.
    transmitters : sequence of int
        Numbers of transmitters, counted over all sets; empty for all.
    links : bool
        Whether transmitters of a scenario are base stations of one scene.
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.

    Raises
    ------
    InputError
        No scenario, one that lacks a file, or scenarios that do not fit together; nothing is published then.

    Examples
    --------
    >>> import_scenarios([Path("deepmimo_scenarios/asu_campus_3p5")], "stores/asu", {"columns": 8, "rows": 8})
    """
    _load.cache_clear()
    found = [link for folder in folders for link in find_links(folder, transmitters)]
    if not found:
        msg = f"no scenario in {', '.join(map(str, folders))} has transmitter {', '.join(map(str, transmitters))}"
        raise InputError(msg)
    groups: dict[object, list[Link]] = {}
    for link in found:
        together = links or "base_stations" in (link.origin or {})
        groups.setdefault((link.folder, link.rx_set) if together else link, []).append(link)
    numbers = _numbers(list(groups.values()))
    firsts = [group[0] for group in groups.values()]
    origins = [link.origin for link in firsts]
    settings = _settings(firsts, origins, options)
    frames = {link.frame for link in firsts}
    fixed = frames.pop() if len(frames) == 1 and None not in frames and "tile_size" not in options else None
    frame = frame_around([_site(group) for group in groups.values()], settings, fixed)
    known: StoreAttributes = {}
    first = origins[0]
    if first is not None and all(origin is not None and _facts(origin) == _facts(first) for origin in origins):
        known = _facts(first)
    count = 1 + max(number for each in numbers for number in each)
    if count > 1:
        known["base_stations"] = {**_cells(origins), "count": count}
    turned = "azimuth" not in options
    sources = [
        ScenarioSource(tuple(group), tuple(each), settings, frame, turned)
        for group, each in zip(groups.values(), numbers, strict=True)
    ]
    return import_path_sources(sources, store, settings, frame, progress, known)


def _numbers(groups: Sequence[Sequence[Link]]) -> list[list[int]]:
    """Numbers of the base stations of every group: those of the store that all come from, if it has the first one; else
    their order.
    """
    known = [[link.number for link in group] for group in groups]
    if any(len(group) > 1 + MOST for group in groups):
        link = next(group[0] for group in groups if len(group) > 1 + MOST)
        msg = f"{link}: more than {1 + MOST} transmitters; choose some with --transmitters"
        raise InputError(msg)
    if all(group[0] == 0 and None not in group for group in known):
        return [[number for number in group if number is not None] for group in known]
    return [list(range(len(group))) for group in groups]


def _site(links: Sequence[Link]) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """Name of a scene, its first base station, and what else has to be on the map: users and other base stations."""
    others = [link.base()[None] for link in links[1:]]
    return links[0].name, links[0].base(), np.concatenate([links[0].users(), *others])


def _cells(origins: Sequence[Content | None]) -> BaseStationAttributes:
    """Powers of base stations: those of the store that all scenarios come from, else the defaults of recipes."""
    said = [None if origin is None else origin.get("base_stations", {}).get("settings") for origin in origins]
    if said[0] is not None and all(one == said[0] for one in said):
        found: BaseStationAttributes = said[0]
        return found
    return attributes_for(BaseStationSettings(corners=True))


def _settings(links: Sequence[Link], origins: Sequence[Content | None], options: Content) -> PathSettings:
    """Settings of an import: what is given, then what the scenarios say, then the defaults."""
    carriers = {link.name: link.frequency for link in links}
    if len(set(carriers.values())) > 1:
        (name, carrier), *_ = carriers.items()
        other = next(key for key, value in carriers.items() if value != carrier)
        msg = (
            f"{other}: {carriers[other] / 1e9:g} GHz, {name} is {carrier / 1e9:g} GHz; import them into separate stores"
        )
        raise InputError(msg)
    said: Content = {}
    if all(
        origin is not None and origin["phase_reference"] == (origins[0] or {})["phase_reference"] for origin in origins
    ):
        array = (origins[0] or {})["phase_reference"]
        azimuths = {link.azimuth for link in links}
        said = {
            **{name: array[name] for name in ("columns", "rows")},
            **{
                "spacing": array["spacing_wavelengths"],
                "azimuth": azimuths.pop() if len(azimuths) == 1 else array["azimuth_deg"],
                "downtilt": array["downtilt_deg"],
            },
            **{name: (origins[0] or {})[name] for name in ("licence", "attribution")},
            "cells": (origins[0] or {})["height_cells"],
        }
    try:
        return PathSettings.model_validate({**said, **options, "frequency": next(iter(carriers.values()))})
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        msg = f"{option} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise InputError(msg) from error


def _facts(origin: Content) -> StoreAttributes:
    """What the export of a store says of its elements."""
    return {
        "element_pattern": origin["element_pattern"],
        "element_gain_max_db": origin["element_gain_max_db"],
        "polarisation_matched": origin["polarisation_matched"],
    }


@lru_cache(1)
def _load(source: ScenarioSource) -> Arrays:
    """Channels, paths and map of a source."""
    settings, first = source.settings, source.links[0]
    origin, users = first.origin, first.users()
    shift = source.facts().get("bs_shift", 0.0)
    place = np.array(source.frame.bs_position) + np.array([shift, 0.0, 0.0])
    paths = [paths_of(link, settings) for link in source.links]
    heard = np.any([np.isfinite(each["path_gain"]) for each in paths], axis=0)
    chosen = chosen_users(source.name, heard, settings)
    several = len(source.links) > 1
    arrays: Arrays = {}
    position, azimuths = np.full((1 + max(source.numbers), 3), np.nan), np.full(1 + max(source.numbers), np.nan)
    for link, number, each in zip(source.links, source.numbers, paths, strict=True):
        theirs = link.users()
        if theirs.shape != users.shape or np.abs(theirs - users).max(initial=0) > SAME_PLACE:
            msg = f"{link}: users of transmitter {link.tx} of set {link.tx_set} are not where those of {first.name} are"
            raise InputError(msg)
        azimuth = link.azimuth if several and source.turned else None
        own = scene_arrays(source.name, each, theirs - link.base(), settings, chosen, azimuth)
        arrays |= {name_of(number, name): values for name, values in own.items()}
        position[number] = place + link.base() - first.base()
        azimuths[number] = settings.azimuth if azimuth is None else azimuth
    arrays |= {"bs/position": position, "bs/azimuth": azimuths}
    surface = triangles_of(first.folder) + (place - first.base())
    arrays["height"] = height_map(surface, source.frame.tile_size, settings.cells)
    if origin is None:
        return arrays
    scene = origin["scene"]
    # Of several transmitters each may be a scene.
    name = scene["scene_id"] + ("" if several else first.name.removeprefix(first.place))
    return {**arrays, "split": np.array([scene["split"]]), "scene_id": np.array([name])}
