"""The dataset for torch: one sample per user."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.utils.data import Dataset

from wavecity.dataset.arrays import is_per_user, read_scenes
from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.files import StorePath
from wavecity.dataset.impairments import Sample
from wavecity.dataset.reprs import field_text, plain, table
from wavecity.dataset.schema import Values
from wavecity.dataset.users import find_users

FIELDS = ("csi", "height", "user_position")
# Share of the memory available now that samples may take by default.
MEMORY_SHARE = 0.4
# Bytes decoded at a time while samples are brought into memory, but one scene at least.
BLOCK = 2**28
# Chunks of every field that a lazy dataset keeps decoded.
CACHED_CHUNKS = 32

Transform = Callable[[Sample], Sample]


class ChannelDataset(Dataset[Sample]):
    """Users of one split, map-style.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    split : str
        `train`, `validation` or `test`.
    fields : sequence of str
        Arrays of the schema, e.g. `csi` (complex64 (x, y)), `height` (float32 (200, 200)), `user_position` (3,),
        `paths/delay` (path,).
    include_outage : bool
        Whether users without a path count.
    preload : bool, optional
        Whether all samples are brought into memory; by default if they fit well. Otherwise chunks are decoded on
        demand: for any size, but slow in random order, for which there is `ShuffledChannels`.
    transform : callable, optional
        Sample (dict) to sample.
    verify : bool
        Whether every byte of the store is compared with its manifest before anything is read.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        Of several base stations the one whose links are the samples, or all of them, each link a sample; it says `bs`.
        Fields `bs/position` (3,) and `bs/azimuth` are of the sample's base station. By default base station 0.
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all, of which samples have an axis.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Attributes
    ----------
    scene_index, user_index : int64 (N,)
        Scene and user of every sample, as in the store.
    bs_index : int64 (N,)
        Base station of every sample.
    statistics, attrs : dict
        Train-split statistics and attributes of the store.
    preloaded : bool

    Raises
    ------
    InputError
        Not a store, files of it are missing or damaged, no such version, scene, city or carrier, a split without
        scenes, or no such array.
    """

    def __init__(
        self,
        store: str | StorePath,
        split: str = "train",
        fields: Sequence[str] = FIELDS,
        include_outage: bool = False,
        preload: bool | None = None,
        transform: Transform | None = None,
        verify: bool = False,
        scenes: Sequence[str] | None = None,
        cities: Sequence[str] | None = None,
        version: int | None = None,
        bs: Links | None = None,
        carrier: Carrier = None,
        port: Port = None,
    ) -> None:
        users = find_users(store, split, include_outage, verify, scenes, cities, version, bs, carrier, port)
        self._users = users
        identity = users.identity(users.scene_index)
        self.scene_index, self.user_index = identity["scene"], users.user_index
        self.bs_index = identity.get("bs", np.zeros_like(users.scene_index))
        self.fields = tuple(fields)
        self.attrs = users.attrs
        self.statistics: dict[str, float] = dict(users.attrs["statistics"])
        self.transform = transform
        self._path = users.path
        self._scenes, self._row = np.unique(users.scene_index, return_inverse=True)
        self._open()
        size = sum(math.prod(self._shape(name)) * array.dtype.itemsize for name, array in self._arrays.items())
        self.preloaded = size <= MEMORY_SHARE * available_memory() if preload is None else preload
        self._values: dict[str, torch.Tensor] = self._load() if self.preloaded else {}

    def _open(self) -> None:
        """Open the arrays in this process, with an empty cache."""
        self._process = os.getpid()
        self._arrays = self._users.open_arrays(self.fields)
        self._chunks: OrderedDict[tuple[str, int, int], Values] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        # Workers open the store themselves, and start with an empty cache.
        return {name: value for name, value in self.__dict__.items() if name not in ("_arrays", "_chunks")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._open()

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of all samples of a field in memory."""
        array = self._arrays[name]
        return (len(self), *array.shape[2:]) if is_per_user(array) else (len(self._scenes), *array.shape[1:])

    def _load(self) -> dict[str, torch.Tensor]:
        """All samples: a user's arrays gathered densely, a scene's once for all its users."""
        values = {}
        for name, array in self._arrays.items():
            values[name] = np.empty(self._shape(name), array.dtype)
        users = int(self.user_index.max(initial=0)) + 1
        scene_bytes = sum(
            array.dtype.itemsize
            * (users * math.prod(array.shape[2:]) if is_per_user(array) else math.prod(array.shape[1:]))
            for array in self._arrays.values()
        )
        step = max(BLOCK // scene_bytes, 1)
        for start in range(0, len(self._scenes), step):
            scenes = self._scenes[start : start + step]
            first, stop = np.searchsorted(self._row, [start, start + len(scenes)])
            read = read_scenes(self._arrays, scenes, users=users)
            for name, array in self._arrays.items():
                if is_per_user(array):
                    values[name][first:stop] = read[name][self._row[first:stop] - start, self.user_index[first:stop]]
                else:
                    values[name][start : start + len(scenes)] = read[name]
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def _read(self, name: str, index: int) -> torch.Tensor:
        """Value of one sample from its chunk, which is kept for the next ones."""
        if self._process != os.getpid():
            # A forked worker: connections do not survive that.
            self._open()
        array = self._arrays[name]
        scene, user = int(self._users.scene_index[index]), int(self.user_index[index])
        size = array.chunks[1] if is_per_user(array) else 0
        key = (name, scene, user // size if size else 0)
        if key not in self._chunks:
            part = slice(key[2] * size, (key[2] + 1) * size)
            self._chunks[key] = np.asarray(array[scene, part] if size else array[scene])
            if len(self._chunks) > CACHED_CHUNKS * len(self.fields):
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(key)
        chunk = self._chunks[key]
        # A copy: the sample may be changed, and must not keep the chunk alive.
        return torch.from_numpy(np.array(chunk[user % size] if size else chunk))

    def __len__(self) -> int:
        return len(self.scene_index)

    def __getitem__(self, index: int) -> Sample:
        item: Sample = {}
        for name, array in self._arrays.items():
            if self.preloaded:
                item[name] = self._values[name][index if is_per_user(array) else self._row[index]]
            else:
                item[name] = self._read(name, index)
        item["scene"] = int(self.scene_index[index])
        item["user"] = int(self.user_index[index])
        if self._users.links:
            item["bs"] = int(self.bs_index[index])
        return self.transform(item) if self.transform else item

    def _facts(self) -> list[tuple[str, str]]:
        """What it shows of itself."""
        return [
            *self._users.facts(),
            ("fields", "\n".join(field_text(name, array) for name, array in self._arrays.items())),
            ("in memory", "yes" if self.preloaded else "no, decoded when asked for"),
            ("transform", repr(self.transform) if self.transform else "none"),
        ]

    def __repr__(self) -> str:
        return plain("ChannelDataset", self._facts())

    def _repr_html_(self) -> str:
        return table("ChannelDataset", self._facts())

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        """Return several samples at once, as torch's fetcher requests them."""
        if self.preloaded:
            return [self[index] for index in indices]
        # Neighbours first: their chunk is decoded once.
        items = {index: self[index] for index in sorted(indices)}
        return [items[index] for index in indices]


def available_memory() -> int:
    """Bytes of memory available now, of the machine or within the container's limit."""
    limits: list[int] = [psutil.virtual_memory().available]
    used = _lines("/sys/fs/cgroup/memory.current")
    for line in _lines("/sys/fs/cgroup/memory.max"):
        if line.isdigit() and used:
            limits.append(max(int(line) - int(used[0]), 0))
    return min(limits)


def _lines(path: str) -> list[str]:
    """Lines of a file; none where it cannot be read."""
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []
