"""Which scenes of a store are exported, and their values, one scene in memory at a time."""

import importlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from types import ModuleType

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from zarr.types import ArrayV3

from wavecity.dataset.arrays import is_per_user, open_arrays, read_scenes
from wavecity.dataset.base_stations import GROUP as BASE_STATIONS
from wavecity.dataset.base_stations import SHARED, name_of
from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import Content, StoreAttributes, attributes_of
from wavecity.dataset.schema import Arrays
from wavecity.geo.errors import InputError

SPLITS = ("train", "validation", "test")
# Arrays of DeepMIMO scenarios.
PATH_FIELDS = (
    "paths/gain",
    "paths/delay",
    "paths/aod_zenith",
    "paths/aod_azimuth",
    "paths/aoa_zenith",
    "paths/aoa_azimuth",
    "paths/interactions",
)


@dataclass(frozen=True)
class Scene:
    """A scene that is exported: its row in the store, and its coordinates."""

    row: int
    id: str
    city: str
    country: str
    split: str
    users: int
    latitude: float
    longitude: float
    bs_shift: float

    def facts(self) -> Content:
        """Coordinates by their names in the store, for JSON; places that are not known are left out."""
        facts: Content = {"scene_id": self.id, "city": self.city, "country": self.country}
        facts |= {"split": self.split, "n_users": self.users, "bs_shift": self.bs_shift}
        if np.isfinite([self.latitude, self.longitude]).all():
            facts |= {"latitude": self.latitude, "longitude": self.longitude}
        return facts


@dataclass(frozen=True, eq=False)
class Station:
    """A base station of a scene.

    Attributes
    ----------
    number : int
        In the store.
    position : float64 (3,)
        In m in the scene's frame.
    azimuth : float, optional
        Where its panel faces, degrees from east; None in a store with one base station, whose attributes say it.
    """

    number: int
    position: NDArray[np.float64]
    azimuth: float | None = None

    def facts(self) -> Content:
        """For JSON."""
        return {"number": self.number, "position_m": self.position.tolist(), "azimuth_deg": self.azimuth}


@dataclass(frozen=True)
class Selection:
    """Scenes of a store in its order, and the arrays that are exported of each.

    Attributes
    ----------
    store : str
        As it was named.
    folder : StorePath
        Of the version: buildings and manifest lie there.
    identity : str
        Changes with every byte of the version.
    attributes : dict
        Of the store's root group.
    scenes : list of Scene
    fields : tuple of str
        Names as in a store with one base station, and those of group `bs`.
    numbers : tuple of int
        Of the base stations whose links are exported.
    """

    store: str
    folder: StorePath
    identity: str
    attributes: StoreAttributes
    scenes: list[Scene]
    fields: tuple[str, ...]
    numbers: tuple[int, ...] = (0,)

    @property
    def has_several(self) -> bool:
        """Whether the store has several base stations."""
        return "base_stations" in self.attributes

    @cached_property
    def arrays(self) -> dict[str, ArrayV3]:
        """The exported arrays by their names in the store, opened for fast reading."""
        first = open_arrays(self.store, self.fields)
        if not self.has_several:
            return first
        names = [[name_of(number, field) for number in self.numbers] if _is_of_link(field, first[field]) else [field]
                 for field in self.fields]  # fmt: skip
        return open_arrays(self.store, [name for each in names for name in each])

    def link_arrays(self, number: int) -> dict[str, ArrayV3]:
        """Arrays of the links of a base station, by the names that a store of one has; radio maps are of the first alone."""
        fields = [field for field in self.fields if not number or not field.startswith("radio_map/")]
        names = {field: name_of(number, field) for field in fields}
        return {field: self.arrays[name if name in self.arrays else field] for field, name in names.items()}

    def read(self, scene: Scene, number: int | None = None) -> Arrays:
        """Values of a scene by array, users without padding; of one base station as of `link_arrays`."""
        arrays = self.arrays if number is None else self.link_arrays(number)
        values = read_scenes(arrays, np.array([scene.row]))
        return {
            name: array[0, : scene.users] if is_per_user(arrays[name]) else array[0] for name, array in values.items()
        }

    def stations(self, scene: Scene) -> list[Station]:
        """The exported base stations of a scene, without those that found no place in it."""
        x, y, z = self.attributes["bs_position_m"]
        first = np.array([x + scene.bs_shift, y, z], np.float64)
        if not self.has_several:
            return [Station(0, first)]
        position, azimuth = self._places
        return [
            Station(number, position[scene.row, number] if number else first, float(azimuth[scene.row, number]))
            for number in self.numbers
            if np.isfinite(position[scene.row, number]).all()
        ]

    @cached_property
    def _places(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Positions and azimuths of the base stations of all scenes of the store."""
        group = open_store(self.store, BASE_STATIONS)
        return group["position"].values, group["azimuth"].values


def select(
    store: str,
    fields: Sequence[str] | None = None,
    cities: Iterable[str] = (),
    splits: Iterable[str] = (),
    scenes: Iterable[str] = (),
    bs: Sequence[int] = (),
) -> Selection:
    """Choose scenes, base stations and arrays of a store; quarantined scenes are left out.

    Parameters
    ----------
    store : str
        Folder or URL.
    fields : sequence of str, optional
        Names of arrays; all numeric ones but the spectra by default, which follow from the channels.
    cities, splits, scenes : iterables of str
        Names; empty for all. A scene must be in all three.
    bs : sequence of int
        Numbers of base stations; empty for all.

    Raises
    ------
    InputError
        A name that the store does not have, or nothing left.

    Examples
    --------
    >>> [scene.id for scene in select("helsinki", ("csi",), splits=["test"]).scenes]
    ['helsinki-0003', 'helsinki-0011']
    """
    data = open_store(store)
    numbers = _numbers(store, attributes_of(data.attrs), bs)
    listed = _scenes(data)
    done = [scene for scene in listed if str(data["status"].values[scene.row]) == "done"]
    wanted = {
        "city": _known(store, "city", cities, [scene.city for scene in done]),
        "split": _known(store, "split", splits, [scene.split for scene in done]),
        "scene": _known_scenes(store, scenes, listed, done),
    }
    chosen = [
        scene
        for scene in done
        if all(
            not names or name in names
            for names, name in zip(wanted.values(), (scene.city, scene.split, scene.id), strict=True)
        )
    ]
    if not chosen:
        asked = ", ".join(f"{kind} {' or '.join(sorted(names))}" for kind, names in wanted.items() if names)
        msg = f"{store}: no scene is of {asked}" if asked else f"{store}: no scene of it is done, nothing to export"
        raise InputError(msg)
    path = resolve(store)
    manifest = read_json(path.parent / "manifest.json")
    attributes = attributes_of(data.attrs)
    identity = manifest["sha256"] if isinstance(manifest, dict) and "sha256" in manifest else data.attrs["fingerprint"]
    names = _fields(store, data, fields)
    return Selection(store, path.parent, str(identity), attributes, chosen, names, numbers)


def _numbers(store: str, attributes: StoreAttributes, asked: Sequence[int]) -> tuple[int, ...]:
    """Numbers of the base stations that are exported, in their order; all unless some are asked for."""
    count = attributes["base_stations"]["count"] if "base_stations" in attributes else 1
    for number in asked:
        if not 0 <= number < count:
            few = "has one base station, 0" if count == 1 else f"has base stations 0 to {count - 1}"
            msg = f"--bs {number}: {store} {few}"
            raise InputError(msg)
    return tuple(sorted(set(asked))) or tuple(range(count))


def with_paths(store: str) -> None:
    """Refuse a store without path arrays, from which nothing but its own channels can be made."""
    try:
        open_store(store, "paths")
    except InputError as error:
        if "has no group" not in str(error):
            raise
        msg = f"{store}: stores no paths, of which DeepMIMO scenarios consist; build it with features.paths: true"
        raise InputError(msg) from error


def needed(module: str, extra: str, what: str) -> ModuleType:
    """Import a package that only one format needs; without it say which extra brings it.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        msg = f"{what} needs {error.name}: pip install 'wavecity[{extra}]'"
        raise InputError(msg) from error


def _scenes(data: xr.Dataset) -> list[Scene]:
    """All scenes of a store."""
    text = {name: data[name].values.astype(str).tolist() for name in ("scene_id", "city", "country", "split")}
    number = {name: data[name].values.tolist() for name in ("n_users", "latitude", "longitude", "bs_shift")}
    columns = (text["scene_id"], text["city"], text["country"], text["split"], *number.values())
    return [Scene(row, *values) for row, values in enumerate(zip(*columns, strict=True))]


def _known(store: str, kind: str, names: Iterable[str], there: Sequence[str]) -> set[str]:
    """Names as the store writes them; those that it does not have are refused with the nearest ones."""
    by_key = {name.casefold(): name for name in there}
    found = set()
    for name in names:
        if name.casefold() not in by_key:
            near = [by_key[key] for key in get_close_matches(name.casefold(), by_key, 3, 0.6)]
            few = sorted(by_key.values())
            hint = f"meant {' or '.join(near)}?" if near else f"it has {', '.join(few[:8])}{', ...' * (len(few) > 8)}"
            msg = f"{store}: no {kind} {name!r}; {hint}"
            raise InputError(msg)
        found.add(by_key[name.casefold()])
    return found


def _known_scenes(store: str, names: Iterable[str], listed: Sequence[Scene], done: Sequence[Scene]) -> set[str]:
    """Ids of scenes, none of them quarantined."""
    names = list(names)
    lost = {scene.id.casefold() for scene in listed} - {scene.id.casefold() for scene in done}
    for name in names:
        if name.casefold() in lost:
            msg = f"{store}: scene {name!r} is quarantined and has no channels; `wavecity inspect --scenes` lists those that do"
            raise InputError(msg)
    return _known(store, "scene", names, [scene.id for scene in done])


def _fields(store: str, data: xr.Dataset, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Arrays that are exported: those asked for, else all numeric ones but the spectra, which follow from the channels."""
    there = [str(name) for name in data.data_vars if data[name].dtype.kind in "biufc"]
    for group in ("paths", "trajectory", "radio_map", BASE_STATIONS):
        with suppress(InputError):
            there += [f"{group}/{name}" for name in open_store(store, group).data_vars]
    if asked is None:
        return tuple(name for name in there if name != "spectrum")
    for name in asked:
        if name not in there:
            near = get_close_matches(name, there, 1, 0.6)
            hint = f"meant {near[0]}?" if near else f"it has {', '.join(there)}"
            msg = f"{store}: no array {name!r}; {hint}"
            raise InputError(msg)
    return tuple(asked)


def _is_of_link(field: str, array: ArrayV3) -> bool:
    """Whether each base station has an array of its own by this name."""
    return is_per_user(array) and field not in SHARED and not field.startswith(f"{BASE_STATIONS}/")
