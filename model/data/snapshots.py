"""What the pretraining of the multi-modal model reads: batches of single snapshots with the maps of their scenes.

Memory does not grow with the dataset: maps come with the batches, and the checks look at some scenes at a time.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.dataset.arrays import open_arrays, read_scenes
from wavecity.dataset.base_stations import Links
from wavecity.dataset.records import attributes_of
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.json_types import Json
from wavecity.model.data.tokens import LEAST_SPREAD, TINY, Statistics
from wavecity.model.data.users import Samples, Users, gather, geometry_from, manifest_of, open_splits, open_wireless
from wavecity.model.settings.training import ModelSettings

FIELDS = ("csi", "user_position", "height", "occupancy", "bs_shift")
# What else the links of several base stations need.
STATION = ("bs/position", "bs/azimuth")
# Users of a split that are looked at before training.
CHECKED = 256
# Bytes of maps that are looked at together.
BLOCK = 2**26


class Snapshots(NamedTuple):
    """Users of a training step."""

    csi: Tensor  # complex64 (B, x, y)
    position: Tensor  # float32 (B, 2); relative to the base station, m
    scene: Tensor  # int64 (B,); rows of the arrays below, which hold the scenes of the batch, each once or twice
    height: Tensor  # float32 (S, rows, columns); m, row 0 = north
    occupancy: Tensor  # uint8 (S, patch_rows, patch_columns)
    bs_shift: Tensor  # float32 (S,); how far the base station was slid east, m
    # float32 (S, 3); of several base stations where each stands, east and north in m, and its panel's azimuth in degrees
    station: Tensor | None = None


def snapshots(batch: dict[str, Tensor]) -> Snapshots:
    """Batch of the loader with `scenes_once` as the model takes it."""
    return Snapshots(
        batch["csi"],
        batch["user_position"][:, :2].float(),
        batch["scene_row"],
        batch["height"],
        batch["occupancy"],
        batch["bs_shift"].float().nan_to_num(),
        torch.cat([batch["bs/position"][:, :2], batch["bs/azimuth"][:, None]], 1).float()
        if STATION[0] in batch
        else None,
    )


def before_panel(position: Tensor, azimuth: Tensor) -> Tensor:
    """Positions (B, 2) relative to base stations whose panels face `azimuth` (B,), as if all faced south, like the first."""
    turn = torch.deg2rad(-90.0 - azimuth)
    east, north = position.unbind(-1)
    return torch.stack((east * turn.cos() - north * turn.sin(), east * turn.sin() + north * turn.cos()), -1)


@dataclass(frozen=True)
class SnapshotData:
    """A dataset as the pretraining of the multi-modal model sees it."""

    splits: Mapping[str, Samples]  # `train` and `validation` -> users by index, read when they are asked for
    statistics: Statistics
    geometry: Geometry  # What the model is built for
    attributes: Json  # Of the store, and `manifest`, the SHA-256 of the version's manifest
    name: str  # What error messages call it
    path: str  # The Zarr group, with the `latest` pointer followed

    @property
    def tile_size(self) -> float:
        """Edge of a tile in m."""
        return float(self.attributes["tile_size_m"])

    @property
    def bs(self) -> tuple[float, float]:
        """Base station in the frame of a scene without shift, m."""
        east, north = self.attributes["bs_position_m"][:2]
        return float(east), float(north)


def load_snapshots(store: str, settings: ModelSettings, bs: Links | None = None) -> SnapshotData:
    """Open a dataset for pretraining; refuses one without train or validation users, or that does not fit the model.

    With `bs="all"` the links of all base stations are the samples.
    """
    path, opened, statistics = open_wireless(store, trains=True)
    splits = open_splits(store, path, ("train", "validation"), ("csi", "user_position"), preload=False, bs=bs)
    antennas, cells, patches = (opened[name].shape[-2:] for name in ("csi", "height", "occupancy"))
    geometry = geometry_from(store, antennas, cells, patches, settings)
    attributes = {**attributes_of(opened.attrs), "manifest": manifest_of(path)}
    return SnapshotData(splits, statistics, geometry, attributes, store, path)


def check_snapshots(data: SnapshotData) -> None:
    """Refuse, before training, data on which it would fail: looks at statistics, all scenes, and users of every split."""
    for why in _faults(data):
        raise InputError(f"{data.name}: {why}; rebuild the store")


def _faults(data: SnapshotData) -> Iterator[str]:
    for name, value in data.statistics.to_dict().items():
        # Normalised channels all have one level.
        least = {"csi_rms_db_mean": -math.inf, "csi_rms_db_std": 0.0}.get(name, sys.float_info.min)
        if not math.isfinite(value) or value < least:
            yield f"statistics say {name} = {value:g}, it must be finite and positive"
    if not all(map(math.isfinite, data.bs)):
        yield "attribute 'bs_position_m' is not finite"
    maps = open_arrays(data.path, ("height", "occupancy"))
    scenes = np.arange(maps["height"].shape[0])
    for start in range(0, len(scenes), step := max(BLOCK // (4 * math.prod(maps["height"].shape[1:])), 1)):
        read = read_scenes(maps, scenes[start : start + step])
        if not np.isfinite(read["height"]).all():
            yield "array 'height' is not finite"
        if read["occupancy"].max() > 1:
            yield f"array 'occupancy' holds {read['occupancy'].max()}, it must be 0 or 1"
    looked_at = {split: gather(samples, CHECKED) for split, samples in data.splits.items()}
    for split, users in looked_at.items():
        for name, values in (("csi", torch.view_as_real(users.csi)), ("user_position", users.position)):
            if not bool(torch.isfinite(values).all()):
                yield f"array {name!r} of split {split!r} is not finite"
    yield from _wrong_level(looked_at["train"], data.statistics)


def _wrong_level(users: Users, statistics: Statistics) -> Iterator[str]:
    """Statistics that are those of other channels: training would go on with inputs far from order one."""
    power = users.csi.to(torch.complex128).abs().square().mean((-2, -1))
    found = float((10 * torch.log10(power + TINY)).mean())
    said, spread = statistics.csi_rms_db_mean, max(statistics.csi_rms_db_std, LEAST_SPREAD)
    if abs(found - said) > 2 * spread:
        yield (
            f"statistics say the train users' mean level is {said:.1f} dB with a deviation of {spread:.1f} dB, "
            f"it is about {found:.1f} dB"
        )
