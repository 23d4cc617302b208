"""DeepMIMO v4 scenarios -> a published store, without the package: its files are JSON and matrices."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from wavecity.dataset.exchange.blocks import height_map
from wavecity.dataset.exchange.deepmimo_paths import from_deepmimo
from wavecity.dataset.exchange.deepmimo_v4 import reference_of
from wavecity.dataset.exchange.importing import Frame, PathSettings, frame_around, import_path_sources, scene_arrays
from wavecity.dataset.exchange.selection import needed
from wavecity.dataset.files import read_json, sha256_of
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version
from wavecity.dataset.records import Content, Outcome, StoreAttributes
from wavecity.dataset.schema import Arrays, Values
from wavecity.geo.errors import InputError

MATRICES = ("power", "phase", "delay", "aoa_el", "aoa_az", "aod_el", "aod_az", "inter")
# DeepMIMO's name of the ray tracer whose paths it converts without their carrier phase.
SIONNA = "Sionna Ray Tracing"
# Labels of objects that are on the ground.
FLAT = ("terrain", "floorplans")


@dataclass(frozen=True)
class Link:
    """A transmitter of a scenario and a set of receivers: a scene of the store.

    Attributes
    ----------
    folder : Path
        Where the matrices lie.
    params : Path
        The scenario's `params.json`.
    scenario : str
        Name of the folder.
    name : str
        Of the scene.
    tx_set, tx, rx_set : int
    """

    folder: Path
    params: Path
    scenario: str
    name: str
    tx_set: int
    tx: int
    rx_set: int

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def content(self) -> Content:
        """Content of `params.json`."""
        content: Content = read_json(self.params)
        return content

    @property
    def origin(self) -> Content | None:
        """What the export of a store says of the scenario; None for one of another origin."""
        raw = self.content["rt_params"].get("raw_params") or {}
        origin: Content | None = raw.get("wavecity")
        return origin

    def matrix(self, key: str) -> Values:
        """One of its matrices, in any of DeepMIMO's three formats.

        Raises
        ------
        InputError
            It is not there, or cannot be read.
        """
        path = self.path(key)
        try:
            if path.suffix == ".mat":
                return np.asarray(needed("scipy.io", "exchange", path.name).loadmat(path)[key])
            loaded = np.load(path, allow_pickle=False)
            if path.suffix == ".npy":
                return np.asarray(loaded)
            with loaded as archive:
                return np.asarray(archive[key])
        except InputError:
            raise
        except (OSError, ValueError, KeyError, EOFError) as error:
            msg = f"{path}: cannot be read ({str(error).splitlines()[0]})"
            raise InputError(msg) from error

    def path(self, key: str) -> Path:
        """File of a matrix."""
        stem = f"{key}_t{self.tx_set:03}_tx{self.tx:03}_r{self.rx_set:03}"
        for ending in (".npz", ".mat", ".npy"):
            if (self.folder / (stem + ending)).exists():
                return self.folder / (stem + ending)
        msg = f"{self.folder}: no {stem}.npz; a DeepMIMO v4 scenario has it: download or convert it again"
        raise InputError(msg)

    def base(self) -> NDArray[np.float64]:
        """Position of the transmitter in m, the scenario's frame."""
        return np.reshape(self.matrix("tx_pos"), -1)[:3].astype(np.float64)

    def users(self) -> NDArray[np.float64]:
        """Positions of the receivers (U, 3) in m, the scenario's frame."""
        return self.matrix("rx_pos").astype(np.float64)


@dataclass(frozen=True)
class LinkSource:
    """A link as a source of channels."""

    link: Link
    settings: PathSettings
    frame: Frame

    def __str__(self) -> str:
        return str(self.link)

    @property
    def name(self) -> str:
        """Name of the scene."""
        return self.link.name

    @property
    def stem(self) -> str:
        """Name of the scene."""
        return self.link.name

    def load(self) -> Arrays:
        """Channels, paths and map; the last one is kept."""
        return _load(self)

    def checksum(self) -> str:
        """SHA-256 over all files of the link and the scene's objects."""
        keys = (*MATRICES, "rx_pos", "tx_pos", *(["inter_pos"] if self.settings.positions else []))
        files = [self.link.params, *(self.link.path(key) for key in keys)]
        files += [path for path in (self.link.folder / name for name in _OBJECTS) if path.exists()]
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return digest.hexdigest()

    def facts(self) -> Outcome:
        """City and place of scenarios that were exported from a store; else the scenario stands for a city."""
        origin = self.link.origin
        if origin is None:
            return {"city": self.link.scenario}
        scene = origin["scene"]
        facts: Outcome = {"city": scene["city"], "country": scene["country"]}
        if "latitude" in scene:
            facts |= {"latitude": scene["latitude"], "longitude": scene["longitude"]}
        if self.frame == _frame(origin):
            facts["bs_shift"] = scene["bs_shift"]
        return facts


_OBJECTS = ("objects.json", "vertices.npz", "faces.npz")


def import_scenarios(
    folders: Sequence[Path],
    store: str,
    options: Content,
    *,
    transmitters: Sequence[int] = (),
    progress: Tracker = iter,
) -> Version:
    """Write DeepMIMO v4 scenarios into a store as its next version, validate and publish it.

    Every pair of a transmitter and a set of receivers is a scene. Of scenarios that `export-dataset` wrote, array, map,
    cities, splits and licence are those of the store unless given.

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
    links = [link for folder in folders for link in find_links(folder, transmitters)]
    if not links:
        msg = f"no scenario in {', '.join(map(str, folders))} has transmitter {', '.join(map(str, transmitters))}"
        raise InputError(msg)
    origins = [link.origin for link in links]
    settings = _settings(links, origins, options)
    frames = {_frame(origin) for origin in origins}
    fixed = frames.pop() if len(frames) == 1 and None not in frames and "tile_size" not in options else None
    frame = frame_around([(link.name, link.base(), link.users()) for link in links], settings, fixed)
    known: StoreAttributes = {}
    first = origins[0]
    if first is not None and all(origin is not None and _facts(origin) == _facts(first) for origin in origins):
        known = _facts(first)
    sources = [LinkSource(link, settings, frame) for link in links]
    return import_path_sources(sources, store, settings, frame, progress, known)


def find_links(folder: Path, transmitters: Sequence[int] = ()) -> list[Link]:
    """Links of a scenario, or of all scenarios in a folder.

    Raises
    ------
    InputError
        There is no DeepMIMO v4 scenario.
    """
    scenarios = [folder] if (folder / "params.json").exists() else sorted(
        path.parent for path in folder.glob("*/params.json")
    )  # fmt: skip
    if not scenarios:
        if any(folder.glob("**/params.mat")):
            msg = f"{folder}: a scenario of DeepMIMO v3; DeepMIMO 4 has the same ones, and `wavecity` reads those of version 4"
        elif not folder.exists():
            msg = f"{folder}: no such folder; name a DeepMIMO v4 scenario, or a folder of them"
        else:
            msg = f"{folder}: no DeepMIMO v4 scenario; expected params.json, or folders with one"
        raise InputError(msg)
    return [link for scenario in scenarios for link in _links(scenario, transmitters)]


def _links(scenario: Path, transmitters: Sequence[int]) -> list[Link]:
    """Links of a scenario; each snapshot of a dynamic one has its own."""
    params = scenario / "params.json"
    content = read_json(params)
    try:
        sets = sorted(content["txrx_sets"].values(), key=lambda points: int(points["id"]))
        snapshots = int(content["scene"].get("num_scenes", 1))
        float(content["rt_params"]["frequency"])
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        msg = f"{params}: not of a DeepMIMO v4 scenario (no readable txrx_sets, scene.num_scenes, rt_params.frequency)"
        raise InputError(msg) from error
    # The parameters of a dynamic scenario lie next to its snapshots, or in each of them.
    inner = sorted(path for path in scenario.iterdir() if path.is_dir())[:snapshots] if snapshots > 1 else []
    folders = inner or [scenario]
    senders = [(int(points["id"]), tx) for points in sets if points["is_tx"] for tx in range(int(points["num_points"]))]
    chosen = [(number, *sender) for number, sender in enumerate(senders) if not transmitters or number in transmitters]
    receivers = [int(points["id"]) for points in sets if points["is_rx"] and not points["is_tx"]]
    links = []
    for folder in folders:
        for number, tx_set, tx in chosen:
            for rx_set in receivers:
                name = scenario.name if folder == scenario else f"{scenario.name}-{folder.name}"
                name += f"-tx{number}" * (len(senders) > 1) + f"-rx{rx_set}" * (len(receivers) > 1)
                links.append(Link(folder, params, scenario.name, name, tx_set, tx, rx_set))
    return links


def _settings(links: Sequence[Link], origins: Sequence[Content | None], options: Content) -> PathSettings:
    """Settings of an import: what is given, then what the scenarios say, then the defaults."""
    carriers = {link.name: float(link.content["rt_params"]["frequency"]) for link in links}
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
        said = {
            **{name: array[name] for name in ("columns", "rows")},
            **{
                "spacing": array["spacing_wavelengths"],
                "azimuth": array["azimuth_deg"],
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


def _frame(origin: Content | None) -> Frame | None:
    """The map of the store that a scenario was exported from."""
    if origin is None:
        return None
    x, y, z = origin["bs_position_m"]
    return Frame(origin["tile_size_m"], (x, y, z))


def _facts(origin: Content) -> StoreAttributes:
    """What the export of a store says of its elements."""
    return {
        "element_pattern": origin["element_pattern"],
        "element_gain_max_db": origin["element_gain_max_db"],
        "polarisation_matched": origin["polarisation_matched"],
    }


@lru_cache(1)
def _load(source: LinkSource) -> Arrays:
    """Channels, paths and map of a link."""
    link, settings = source.link, source.settings
    origin = link.origin
    matrices = {key: link.matrix(key) for key in MATRICES}
    shapes = {matrix.shape for matrix in matrices.values()}
    users = link.users()
    if len(shapes) > 1 or next(iter(shapes))[:1] != users.shape[:1]:
        listed = ", ".join(f"{key} {matrix.shape}" for key, matrix in {**matrices, "rx_pos": users}.items())
        msg = f"{link}: matrices of {link.name} do not fit together: {listed}"
        raise InputError(msg)
    without = settings.carrier_phase == "missing" or (
        settings.carrier_phase == "auto"
        and origin is None
        and link.content["rt_params"].get("raytracer_name") == SIONNA
    )
    reference = None if origin is None else reference_of(origin["phase_reference"], settings.frequency)
    base = link.base()
    if settings.positions:
        matrices["inter_pos"] = _places(link) - base
    try:
        paths = from_deepmimo(matrices, reference, settings.max_paths, settings.frequency if without else None)
    except InputError as error:
        msg = f"{link}: {error}"
        raise InputError(msg) from error
    arrays = scene_arrays(link.name, paths, users - base, settings)
    shift = source.facts().get("bs_shift", 0.0)
    place = np.array(source.frame.bs_position) + np.array([shift, 0.0, 0.0])
    arrays["height"] = height_map(_triangles(link.folder) + (place - base), source.frame.tile_size, settings.cells)
    if origin is None:
        return arrays
    scene = origin["scene"]
    return {**arrays, "split": np.array([scene["split"]]), "scene_id": np.array([scene["scene_id"]])}


def _places(link: Link) -> NDArray[np.float64]:
    """Positions of interactions (U, P, B, 3) in m, the scenario's frame."""
    place, power = link.matrix("inter_pos"), link.matrix("power")
    if place.ndim != 4 or place.shape[:2] != power.shape or place.shape[-1] != 3:
        msg = f"{link}: inter_pos of {link.name} has shape {place.shape}, expected {(*power.shape, 'bounces', 3)}"
        raise InputError(msg)
    return place.astype(np.float64)


def _triangles(folder: Path) -> NDArray[np.float64]:
    """Surfaces (F, 3, 3) of a scenario's objects in m, those on the ground left out; convex faces are cut into fans."""
    objects = read_json(folder / "objects.json")
    if not objects or not (folder / "vertices.npz").exists():
        return np.zeros((0, 3, 3))
    with np.load(folder / "vertices.npz") as archive:
        vertices = np.asarray(archive["vertices"], np.float64)
    standing = [one for one in objects if one.get("label") not in FLAT]
    faces: list[Values] = []
    if (folder / "faces.npz").exists():
        with np.load(folder / "faces.npz") as archive:
            faces = [np.asarray(archive[one["mesh_key"]]) for one in standing if "mesh_key" in one]
    for one in standing:
        for corners in one.get("face_vertex_idxs", ()):
            faces.append(np.array([[corners[0], *pair] for pair in pairwise(corners[1:])]))
    indices = np.concatenate([np.zeros((0, 3), np.int64), *(face.reshape(-1, 3) for face in faces)]).astype(np.int64)
    triangles: NDArray[np.float64] = vertices.reshape(-1, 3)[indices]
    return triangles
