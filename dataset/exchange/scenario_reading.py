"""Reading DeepMIMO v4 scenarios without the package: their links, matrices and objects."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.exchange.deepmimo_paths import from_deepmimo
from wavecity.dataset.exchange.deepmimo_v4 import reference_of, suffix
from wavecity.dataset.exchange.importing import Frame, PathSettings
from wavecity.dataset.exchange.selection import needed
from wavecity.dataset.files import read_json, sha256_of
from wavecity.dataset.records import Content
from wavecity.dataset.schema import Arrays, Values
from wavecity.geo.errors import InputError

MATRICES = ("power", "phase", "delay", "aoa_el", "aoa_az", "aod_el", "aod_az", "inter")
# DeepMIMO's name of the ray tracer whose paths it converts without their carrier phase.
SIONNA = "Sionna Ray Tracing"
# Labels of objects that are on the ground, and the files of objects.
FLAT = ("terrain", "floorplans")
OBJECTS = ("objects.json", "vertices.npz", "faces.npz")


@dataclass(frozen=True)
class Link:
    """A transmitter of a scenario and a set of receivers.

    Attributes
    ----------
    folder : Path
        Where the matrices lie.
    params : Path
        The scenario's `params.json`.
    scenario : str
        Name of the folder.
    place : str
        Name of a scene of all transmitters with this set of receivers.
    name : str
        Of a scene of this transmitter alone.
    tx_set, tx, rx_set : int
    """

    folder: Path
    params: Path
    scenario: str
    place: str
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

    @property
    def frequency(self) -> float:
        """Carrier in Hz."""
        return float(self.content["rt_params"]["frequency"])

    @property
    def number(self) -> int | None:
        """Number of its base station in the store that it was exported from; None for a scenario of another origin."""
        origin = self.origin
        if origin is None:
            return None
        return int(origin["base_stations"]["transmitters"][self.tx]["number"]) if "base_stations" in origin else 0

    @property
    def azimuth(self) -> float | None:
        """Where its panel faces in the store that it was exported from, degrees from east."""
        origin = self.origin
        return None if origin is None else reference_of(origin, self.frequency, self.tx).azimuth

    @property
    def frame(self) -> Frame | None:
        """The map of the store that it was exported from; None where the base station is not the first of its scene."""
        origin = self.origin
        if origin is None or self.number != 0:
            return None
        x, y, z = origin["bs_position_m"]
        return Frame(origin["tile_size_m"], (x, y, z))

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
        stem = f"{key}_{suffix(self.tx_set, self.tx, self.rx_set)}"
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
                start = scenario.name if folder == scenario else f"{scenario.name}-{folder.name}"
                end = f"-rx{rx_set}" * (len(receivers) > 1)
                name = start + f"-tx{number}" * (len(senders) > 1) + end
                links.append(Link(folder, params, scenario.name, start + end, name, tx_set, tx, rx_set))
    return links


def checksum_of(link: Link, positions: bool) -> str:
    """SHA-256 over all files of a link and the scene's objects; `positions` counts those of interactions, too."""
    keys = (*MATRICES, "rx_pos", "tx_pos", *(["inter_pos"] if positions else []))
    files = [link.params, *(link.path(key) for key in keys)]
    files += [path for path in (link.folder / name for name in OBJECTS) if path.exists()]
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def paths_of(link: Link, settings: PathSettings) -> Arrays:
    """Paths of a link, as of `from_deepmimo`.

    Raises
    ------
    InputError
        Its matrices do not fit together, or interactions have no position.
    """
    matrices = {key: link.matrix(key) for key in MATRICES}
    shapes = {matrix.shape for matrix in matrices.values()}
    users, origin = link.users(), link.origin
    if len(shapes) > 1 or next(iter(shapes))[:1] != users.shape[:1]:
        listed = ", ".join(f"{key} {matrix.shape}" for key, matrix in {**matrices, "rx_pos": users}.items())
        msg = f"{link}: matrices of {link.name} do not fit together: {listed}"
        raise InputError(msg)
    without = settings.carrier_phase == "missing" or (
        settings.carrier_phase == "auto"
        and origin is None
        and link.content["rt_params"].get("raytracer_name") == SIONNA
    )
    reference = None if origin is None else reference_of(origin, settings.frequency, link.tx)
    if settings.positions:
        matrices["inter_pos"] = _places(link) - link.base()
    try:
        return from_deepmimo(matrices, reference, settings.max_paths, settings.frequency if without else None)
    except InputError as error:
        msg = f"{link}: {error}"
        raise InputError(msg) from error


def _places(link: Link) -> NDArray[np.float64]:
    """Positions of interactions (U, P, B, 3) in m, the scenario's frame."""
    place, power = link.matrix("inter_pos"), link.matrix("power")
    if place.ndim != 4 or place.shape[:2] != power.shape or place.shape[-1] != 3:
        msg = f"{link}: inter_pos of {link.name} has shape {place.shape}, expected {(*power.shape, 'bounces', 3)}"
        raise InputError(msg)
    return place.astype(np.float64)


def triangles_of(folder: Path) -> NDArray[np.float64]:
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
