"""The dataset for torch: one sample a user. The only module here that imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.reader import open_store
from geo.errors import InputError

SCENE_ARRAYS = ("height", "occupancy")


class ChannelDataset(Dataset[dict[str, Any]]):
    """Users of one split, map-style.

    Parameters
    ----------
    store : path
        Folder of a build, of a version, or a `.zarr`.
    split : str
        `train`, `validation` or `test`.
    fields : sequence of str
        Arrays of the schema, e.g. `csi` (complex64 (x, y)), `height` (float32 (200, 200)), `user_position` (3,).
    include_outage : bool
        Whether users without a path count.

    Attributes
    ----------
    scene_index, user_index : int64 (N,)
        Scene and user of every sample, as in the store.
    statistics, attrs : dict
        Train-split statistics and attributes of the store.
    """

    def __init__(
        self,
        store: str | Path,
        split: str = "train",
        fields: Sequence[str] = ("csi", "height", "user_position"),
        include_outage: bool = False,
    ) -> None:
        data = open_store(store)
        for field in fields:
            if field not in data:
                msg = f"{store}: no array {field!r}; it has {', '.join(sorted(map(str, data.data_vars)))}"
                raise InputError(msg)
        splits = data["split"].values.astype(str)
        scenes = np.flatnonzero((splits == split) & (data["n_users"].values > 0))
        if not len(scenes):
            msg = f"{store}: split {split!r} has no scene; it has {', '.join(sorted(set(splits)))}"
            raise InputError(msg)
        users = np.arange(data.sizes["user"])
        real = users[None] < data["n_users"].values[scenes, None]
        if not include_outage:
            real &= ~data["outage"].isel(scene=scenes).values
        row, self.user_index = np.nonzero(real)
        self._row = row
        self.scene_index = scenes[row]
        self.fields = tuple(fields)
        self.attrs = dict(data.attrs)
        self.statistics: dict[str, Any] = dict(data.attrs["statistics"])
        # A user's arrays are gathered densely once; a scene's are shared by its users.
        self._arrays: dict[str, torch.Tensor] = {}
        for field in fields:
            values = data[field].isel(scene=scenes).values
            self._arrays[field] = torch.from_numpy(
                np.ascontiguousarray(values if field in SCENE_ARRAYS else values[row, self.user_index])
            )

    def __len__(self) -> int:
        return len(self._row)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            field: values[self._row[index] if field in SCENE_ARRAYS else index]
            for field, values in self._arrays.items()
        }
        item["scene"] = int(self.scene_index[index])
        item["user"] = int(self.user_index[index])
        return item

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """Return several samples at once, as torch's fetcher asks for them."""
        return [self[index] for index in indices]
