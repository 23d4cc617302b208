"""Radio maps for torch: a scene's height map, its base station, and what a receiver has on its open ground."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from wavecity.dataset.arrays import open_arrays, read_scenes
from wavecity.dataset.files import StorePath
from wavecity.dataset.impairments import Sample
from wavecity.dataset.radio_maps import GROUP
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of
from wavecity.dataset.reprs import field_text, plain, table
from wavecity.dataset.selection import rows_of
from wavecity.dataset.torch_data import Transform
from wavecity.geo.errors import InputError


class RadioMapDataset(Dataset[Sample]):
    """Scenes of one split with their radio maps, map-style, decoded when asked for.

    A sample has `height` (float32 (rows, columns), m), `bs_position` (float32 (3,), m in the scene's frame), `radio_map`
    (float32 (metrics, map rows, map columns), NaN inside buildings) and `scene` (its number in the store). Row 0 of both maps
    is north, column 0 is west; their cells may differ in size.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`; built with `features.radio_map`.
    split : str
        `train`, `validation` or `test`.
    metrics : sequence of str, optional
        Those of `radio_map`, in this order; all that the store has by default.
    transform : callable, optional
        Sample (dict) to sample.
    verify : bool
        Whether every byte of the store is compared with its manifest before anything is read.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    carrier : float, optional
        Of a store with several: the one with this frequency in Hz.

    Attributes
    ----------
    scene_index : int64 (N,)
        Scene of every sample, as in the store.
    scenes, cities : list of str
        Id and city of every sample.
    metrics : tuple of str
    attrs : dict
        Attributes of the store; `radio_map` has the edge of a cell and the height of the receivers.

    Raises
    ------
    InputError
        Not a store or one without radio maps, files of it are missing or damaged, no such version, scene, city, metric or
        carrier, or a split without scenes.

    Examples
    --------
    >>> maps = RadioMapDataset("STORE", "train", metrics=("path_gain", "los"))
    >>> maps[0]["radio_map"].shape
    torch.Size([2, 200, 200])
    """

    def __init__(
        self,
        store: str | StorePath,
        split: str = "train",
        metrics: Sequence[str] | None = None,
        transform: Transform | None = None,
        verify: bool = False,
        scenes: Sequence[str] | None = None,
        cities: Sequence[str] | None = None,
        version: int | None = None,
        carrier: float | None = None,
    ) -> None:
        path = resolve(store, version)
        root = open_store(path, verify=verify, carrier=carrier)
        known = [str(name) for name in open_store(path, GROUP, carrier=carrier).data_vars]
        self.metrics = tuple(known if metrics is None else metrics)
        for name in self.metrics:
            if name not in known:
                msg = f"{store}: no radio map of {name!r}; it has {', '.join(known)}"
                raise InputError(msg)
        ids, places, splits = (root[name].values.astype(str) for name in ("scene_id", "city", "split"))
        wanted = rows_of(store, ids, places, scenes, cities) & (root["status"].values.astype(str) == "done")
        self.scene_index = np.flatnonzero(wanted & (splits == split))
        if not len(self.scene_index):
            msg = (
                f"{store}: no chosen scene is in split {split!r}; they are in {', '.join(sorted(set(splits[wanted])))}"
            )
            raise InputError(msg)
        self.scenes, self.cities = ids[self.scene_index].tolist(), places[self.scene_index].tolist()
        self.attrs = attributes_of(root.attrs)
        self.split, self.transform = split, transform
        shift = root["bs_shift"].values[self.scene_index].astype(np.float64)
        place = np.asarray(self.attrs["bs_position_m"], np.float64) + np.outer(shift, [1.0, 0.0, 0.0])
        self._bs_position = torch.from_numpy(place.astype(np.float32))
        self._path, self._carrier = path, carrier
        self._open()

    def _open(self) -> None:
        """Open the arrays in this process: connections do not survive a fork."""
        self._process = os.getpid()
        fields = ("height", *(f"{GROUP}/{name}" for name in self.metrics))
        self._arrays = open_arrays(self._path, fields, carrier=self._carrier)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_arrays"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.scene_index)

    def __getitem__(self, index: int) -> Sample:
        if self._process != os.getpid():
            self._open()
        scene = int(self.scene_index[index])
        read = read_scenes(self._arrays, np.array([scene]))
        item: Sample = {
            "height": torch.from_numpy(read["height"][0]),
            "bs_position": self._bs_position[index].clone(),
            "radio_map": torch.from_numpy(np.stack([read[f"{GROUP}/{name}"][0] for name in self.metrics])),
            "scene": scene,
        }
        return self.transform(item) if self.transform else item

    def _facts(self) -> list[tuple[str, str]]:
        """What it shows of itself."""
        grid, places = self.attrs["radio_map"], sorted(set(self.cities))
        return [
            ("store", f"{self._path}, fingerprint {str(self.attrs.get('fingerprint', ''))[:16]}"),
            ("split", self.split),
            ("scenes", f"{len(self):,} in {', '.join(places[:4])}{f' and {len(places) - 4} more' * (len(places) > 4)}"),
            ("cells", f"{grid['spacing_m']:g} m, {grid['receiver_height_m']:g} m above ground"),
            ("fields", "\n".join(field_text(name, array) for name, array in self._arrays.items())),
            ("transform", repr(self.transform) if self.transform else "none"),
        ]

    def __repr__(self) -> str:
        return plain("RadioMapDataset", self._facts())

    def _repr_html_(self) -> str:
        return table("RadioMapDataset", self._facts())
