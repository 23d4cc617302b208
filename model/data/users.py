"""What training and evaluation take from a dataset: users' samples by index, and one table of the scenes they share."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.dataset.base_stations import Links
from wavecity.dataset.files import location, read_json
from wavecity.dataset.records import attributes_of
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.json_types import Json
from wavecity.model.data.tokens import Statistics, patch_centres, patchify
from wavecity.model.settings.training import ModelSettings, TrainingSettings

if TYPE_CHECKING:
    import xarray as xr

    from wavecity.dataset.torch_data import ChannelDataset

SPLITS = ("train", "validation", "test")
FIELDS = ("csi", "user_position", "los", "path_gain", "best_beam")
# Attributes of a dataset that a checkpoint carries.
CARRIED = ("manifest", "frequency_hz", "array", "element_pattern", "tile_size_m", "licence", "attribution")


class Samples(Protocol):
    """Users of one split; `wavecity.dataset.torch_data.ChannelDataset` is one."""

    scene_index: NDArray[np.int64]
    user_index: NDArray[np.int64]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Json: ...

    def __getitems__(self, indices: list[int]) -> list[Json]: ...


@dataclass(frozen=True)
class SceneTable:
    """Maps of all scenes, held once and shared by their users."""

    height: Tensor  # float32 (S, rows, columns); m, row 0 = north
    occupancy: Tensor  # uint8 (S, patch_rows, patch_columns)
    bs: Tensor  # float32 (S, 2); base station in the scene's frame, m
    size: float  # Edge of a tile in m
    names: list[str]  # Scene identifiers, and the cities they lie in
    cities: list[str]


@dataclass(frozen=True)
class WirelessData:
    """A dataset as the model sees it."""

    splits: Mapping[str, Samples]  # `train`, `validation`, `test` -> `Samples`
    scenes: SceneTable  # Rows as in the store: `scene_index` points into it
    statistics: Statistics
    # Of the store: `fingerprint` names the version, `attribution` and `licence` go into the report; and `manifest`, the
    # SHA-256 of the version's manifest, and `channels`, that of all scenes' channels
    attributes: Json
    name: str  # What error messages call it

    @property
    def version(self) -> str:
        """Fingerprint of the dataset version."""
        return str(self.attributes.get("fingerprint", ""))

    @property
    def channels_sha256(self) -> str:
        """SHA-256 of all scenes' channels: equal in every dataset that has the same, whatever version of the code made it."""
        return str(self.attributes.get("channels", ""))


class Rows:
    """Tensors with a row for each user; a mixin of dataclasses, whose fields may be None."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def at(self, index: Tensor) -> Self:
        """Pick some of them."""
        return type(self)(*(None if part is None else part[index] for part in vars(self).values()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))


@dataclass(frozen=True)
class Users(Rows):
    """Users gathered from a split."""

    csi: Tensor  # complex64 (N, x, y)
    position: Tensor  # float32 (N, 2); relative to the base station, m
    scene: Tensor  # int64 (N,); row of the scene table
    los: Tensor  # bool (N,)
    path_gain: Tensor  # float32 (N,); dB
    best_beam: Tensor  # int64 (N,)
    noise: Tensor | None = None  # float64 (N,); mean power of the noise of an entry of `csi`, where some was added


def load_data(store: str, splits: Sequence[str] = SPLITS) -> WirelessData:
    """Open a published dataset for evaluation, the maps of all scenes in memory.

    Without `train` among the splits, a dataset needs no training users, and its statistics are nan. Refused are splits
    without a scene, missing arrays, and missing statistics of training users where these are needed.
    """
    path, opened, statistics = open_wireless(store, "train" in splits)
    height = torch.from_numpy(opened["height"].values)
    # The base station stands at the top centre, slid east by the scene's shift.
    bs = np.asarray(opened.attrs["bs_position_m"], np.float32)[:2] + np.zeros((len(height), 1), np.float32)
    bs[:, 0] += np.nan_to_num(opened["bs_shift"].values.astype(np.float32))
    scenes = SceneTable(
        height=height,
        occupancy=torch.from_numpy(opened["occupancy"].values),
        bs=torch.from_numpy(bs),
        size=float(opened.attrs["tile_size_m"]),
        names=[str(name) for name in opened["scene_id"].values],
        cities=[str(city) for city in opened["city"].values],
    )
    samples = open_splits(store, path, splits, FIELDS)
    attributes = {**attributes_of(opened.attrs), "manifest": manifest_of(path), "channels": _channels_of(opened)}
    return WirelessData(samples, scenes, statistics, attributes, store)


def _channels_of(opened: "xr.Dataset") -> str:
    """SHA-256 of the scenes' ids and of their channels' checksums, in the order of the ids."""
    scenes = zip(opened["scene_id"].values.tolist(), opened["channel_checksum"].values.tolist(), strict=True)
    text = "".join(f"{scene} {checksum}\n" for scene, checksum in sorted(scenes) if checksum)
    return hashlib.sha256(text.encode()).hexdigest()


def open_wireless(store: str, trains: bool) -> "tuple[str, xr.Dataset, Statistics]":
    """Path, dataset and statistics (nan if nothing `trains`) of a store; refuses one without all that the model needs."""
    from wavecity.dataset.reader import open_store, resolve

    path = str(resolve(store))
    opened = open_store(path)
    for name in ("csi", "user_position", "height", "occupancy", "split", "bs_shift"):
        if name not in opened:
            raise InputError(f"{store}: no array {name!r}; the model needs it, rebuild the store")
    for name in ("bs_position_m", "tile_size_m", "statistics"):
        if name not in opened.attrs:
            raise InputError(f"{store}: no attribute {name!r}; the model needs it, rebuild the store")
    statistics = dict(attributes_of(opened.attrs)["statistics"])
    if not trains:
        statistics = {"csi_rms": math.nan, "csi_rms_db_mean": math.nan, "csi_rms_db_std": math.nan}
    elif not statistics.get("n_samples") or not statistics.get("csi_rms"):
        msg = f"{store}: statistics say that no train user has a path; the train split needs scenes with users"
        raise InputError(msg)
    return path, opened, Statistics.from_dict(statistics)


def open_splits(
    store: str,
    path: str,
    splits: Sequence[str],
    fields: Sequence[str],
    preload: bool | None = None,
    bs: Links | None = None,
) -> "dict[str, ChannelDataset]":
    """Users of some splits by index, `preload` and `bs` as `ChannelDataset` has them; refuses one without a user with a path."""
    from wavecity.dataset.torch_data import ChannelDataset

    samples = {split: ChannelDataset(path, split, fields, preload=preload, bs=bs) for split in splits}
    for split, users in samples.items():
        if not len(users):
            raise InputError(f"{store}: split {split!r} has scenes but no user with a path; build more scenes")
    return samples


def manifest_of(path: str) -> str:
    """SHA-256 of the manifest next to a version's Zarr group, and so of all its bytes; empty where there is none."""
    return str((read_json(location(path).parent / "manifest.json") or {}).get("sha256", ""))


def data_facts(attributes: Json) -> Json:
    """What a checkpoint carries of the dataset it was trained on, from a store's attributes."""
    facts = {name: attributes[name] for name in CARRIED if name in attributes}
    recipe = attributes.get("recipe", {}).get("name")
    return facts if recipe is None else {**facts, "recipe": recipe}


def dataset_version(store: str) -> str:
    """Fingerprint of the version that `store` means now."""
    from wavecity.dataset.reader import open_store

    return str(open_store(store).attrs.get("fingerprint", ""))


def dataset_sha256(store: str) -> str:
    """SHA-256 of all bytes of the version that `store` means now, from its manifest; empty where it has none."""
    from wavecity.dataset.reader import resolve

    return manifest_of(str(resolve(store)))


def geometry_of(data: WirelessData, settings: ModelSettings) -> Geometry:
    """Sizes of the dataset, checked against the model's patches; see `geometry_from`."""
    antennas = next(iter(data.splits.values()))[0]["csi"].shape
    return geometry_from(data.name, antennas, data.scenes.height.shape[1:], data.scenes.occupancy.shape[1:], settings)


def geometry_from(
    name: str, antennas: Sequence[int], cells: Sequence[int], patches: Sequence[int], settings: ModelSettings
) -> Geometry:
    """Sizes of a dataset from the edges of array and maps; refuses patches that do not divide them."""
    columns, rows = antennas
    height, width = cells
    occupancy = patches[-1]
    for what, edge in (("csi columns", columns), ("csi rows", rows)):
        if edge % settings.csi_patch:
            raise InputError(f"{name}: {edge} {what}, training.model.csi_patch {settings.csi_patch} must divide them")
    if height != width or patches[0] != occupancy:
        raise InputError(f"{name}: the height map is {height} x {width} cells, the model needs square scenes")
    if height % settings.height_patch or occupancy % max(height // settings.height_patch, 1):
        raise InputError(
            f"{name}: height map of {height} cells and {occupancy} occupancy patches; training.model.height_patch "
            f"{settings.height_patch} must divide the map and be a multiple of {height // occupancy} cells"
        )
    if settings.spectrum_size > min(columns, rows):
        size = settings.spectrum_size
        raise InputError(f"{name}: array of {columns} x {rows}; training.model.spectrum_size {size} must not exceed it")
    return Geometry(columns, rows, height, occupancy)


def with_antennas(users: Users, csi: Tensor) -> Users:
    """A user for each receive antenna of each user: (N, R, x, y) channels to N * R users, antennas of a user in a row."""
    antennas = csi.shape[1]
    spread = users.at(torch.arange(len(users)).repeat_interleave(antennas))
    return replace(spread, csi=csi.flatten(0, 1))


def gather(samples: Samples, limit: int | None = None) -> Users:
    """Bring users of a split into tensors; with a limit, evenly spread over the split."""
    return collate(picked(samples, limit))


def picked(samples: Samples, limit: int | None) -> list[Json]:
    """Samples of a split: all, or so many evenly spread over it."""
    return samples.__getitems__(evenly(len(samples), len(samples) if limit is None else limit).tolist())


def evenly(count: int, limit: int) -> Tensor:
    """Indices int64 (n,) of `limit` evenly spread ones of `count`, or of all where there are fewer."""
    return torch.from_numpy(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def collate(items: list[Json]) -> Users:
    """Samples to tensors."""

    def stack(name: str, default: float) -> Tensor:
        return torch.stack([torch.as_tensor(item.get(name, default)) for item in items])

    return Users(
        csi=torch.stack([item["csi"] for item in items]),
        position=torch.stack([item["user_position"] for item in items])[:, :2].float(),
        scene=torch.tensor([item["scene"] for item in items]),
        los=stack("los", 0).bool(),
        path_gain=stack("path_gain", float("nan")).float(),
        best_beam=stack("best_beam", -1).long(),
    )


class ScenePatches:
    """Height patches, occupancy targets and patch centres of all scenes on one device, as a model sees them."""

    def __init__(
        self, scenes: SceneTable, settings: TrainingSettings, statistics: Statistics, device: torch.device
    ) -> None:
        self.settings, self.statistics = settings, statistics
        # Divided once: training asks for the same maps again and again.
        self._height = (scenes.height / statistics.height_scale).to(device)
        self._occupancy = scenes.occupancy.to(device)
        self._patch = settings.model.height_patch
        grid = scenes.height.shape[-1] // self._patch
        self._occupancy_patch = scenes.occupancy.shape[-1] // grid
        self.centres = patch_centres(grid, grid, scenes.size).to(device)
        self.bs = scenes.bs.to(device)
        self.size = scenes.size

    def height(self, scene: Tensor, mirror: Tensor | None = None) -> Tensor:
        """Normalised height patches (B, Q, patch^2), mirrored east-west where `mirror` (B,) says so."""
        return patchify(_mirrored(self._height[scene], mirror), self._patch)

    def occupancy(self, scene: Tensor, mirror: Tensor | None = None) -> Tensor:
        """Occupancy cells of each height patch, uint8 (B, Q, c)."""
        return patchify(_mirrored(self._occupancy[scene], mirror), self._occupancy_patch)


def height_patches(height: Tensor, patch: int, statistics: Statistics) -> Tensor:
    """Normalised patches of height maps without a table of scenes: (B, rows, columns) in m to (B, Q, patch^2)."""
    return patchify(height / statistics.height_scale, patch)


def _mirrored(maps: Tensor, mirror: Tensor | None) -> Tensor:
    return maps if mirror is None else torch.where(mirror[:, None, None], maps.flip(-1), maps)
