"""The dataset for torch: one sample per user, or shuffled batches."""

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import psutil
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from wavecity.dataset.arrays import is_per_user, read_scenes
from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.epochs import EpochCounter
from wavecity.dataset.files import StorePath
from wavecity.dataset.impairments import Sample
from wavecity.dataset.loader import TIMEOUT, BatchReader, Order, find_users
from wavecity.dataset.reprs import field_text, plain, table
from wavecity.dataset.schema import Values
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    from wavecity.dataset.lightning_data import ChannelDataModule

FIELDS = ("csi", "height", "user_position")
# Share of the memory available now that samples may take by default.
MEMORY_SHARE = 0.4
# Bytes decoded at a time while samples are brought into memory, but one scene at least.
BLOCK = 2**28
# Chunks of every field that a lazy dataset keeps decoded.
CACHED_CHUNKS = 32

# Position of a reader, for a checkpoint.
State: TypeAlias = dict[str, Any]
# A batch after its transform, which may make anything of it.
Made: TypeAlias = Any
Transform = Callable[[Sample], Sample]
BatchTransform = Callable[[dict[str, torch.Tensor]], Made]


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


class ShuffledChannels(IterableDataset[Made]):
    """Shuffled batches of one split, decoded shard by shard; give it to `DataLoader(batch_size=None)`.

    Memory does not grow with the store: two windows of shards per worker (`wavecity.dataset.loader`). The order depends
    on seed, epoch, rank, world and the number of workers alone. Every user occurs once per epoch, and all ranks get the
    same number of batches (see `loader.Order`). Every iterator, of the dataset or of a DataLoader of it, reads the next
    epoch; `set_epoch` names it.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    split : str
    fields : sequence of str
        Arrays of the schema; those of scenes are repeated for every user.
    batch_size : int
        Of one rank.
    seed : int
    window : int
        Units mixed with each other.
    drop_last : bool
        Full batches only.
    include_outage : bool
        Whether users without a path count.
    rank, world : int, optional
        By default those of `torch.distributed`, where it is initialised.
    shared : bool
        Ranks share every batch of `batch_size * world` users: rank r gets its rows r, r + world, ... So the users of a
        step do not depend on the number of ranks, but every rank decodes all units. By default units are divided.
        Needs `drop_last`.
    limit : int, optional
        Largest number of users, evenly spread over the split; all by default.
    transform : callable, optional
        Batch (dict of tensors (B, ...), with `scene` and `user`) to batch, which may be anything.
    timeout : float
        Seconds after which the decoding of a window is given up (`wavecity.dataset.loader.Stalled`).
    verify : bool
        Whether every byte of the store is compared with its manifest before anything is read.
    scenes_once : bool
        Arrays of scenes come once for every scene of a batch, (S, ...), and `scene_row` (B,) says which row is a user's.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        As of `ChannelDataset`; batches have `bs`, int64 (B,).
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all, of which samples have an axis.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Attributes
    ----------
    users : wavecity.dataset.loader.Users
    statistics, attrs : dict
        Train-split statistics and attributes of the store.

    Raises
    ------
    InputError
        Not a store, files of it are missing or damaged, no such version, scene, city or carrier, a split without
        scenes, or no such array.

    Examples
    --------
    >>> train = ShuffledChannels("STORE", "train", batch_size=256)
    >>> loader = DataLoader(train, batch_size=None, num_workers=2)
    >>> for epoch in range(10):
    ...     train.set_epoch(epoch)  # may be left out: the epochs follow each other by themselves
    ...     for batch in loader:
    ...         step(batch["csi"])
    """

    def __init__(
        self,
        store: str | StorePath,
        split: str = "train",
        fields: Sequence[str] = FIELDS,
        batch_size: int = 256,
        seed: int = 0,
        window: int = 4,
        drop_last: bool = False,
        include_outage: bool = False,
        rank: int | None = None,
        world: int | None = None,
        transform: BatchTransform | None = None,
        timeout: float = TIMEOUT,
        verify: bool = False,
        shared: bool = False,
        limit: int | None = None,
        scenes_once: bool = False,
        scenes: Sequence[str] | None = None,
        cities: Sequence[str] | None = None,
        version: int | None = None,
        bs: Links | None = None,
        carrier: Carrier = None,
        port: Port = None,
    ) -> None:
        if (rank is None) != (world is None):
            msg = f"rank {rank}, world {world}: give both or none"
            raise InputError(msg)
        if shared and not drop_last:
            msg = "shared: ranks have equal shares of full batches only; set drop_last=True"
            raise InputError(msg)
        users = find_users(store, split, include_outage, verify, scenes, cities, version, bs, carrier, port)
        self.users = users.spread(limit)
        self.attrs = self.users.attrs
        self.statistics: dict[str, float] = dict(self.attrs["statistics"])
        self.fields = tuple(fields)
        self.transform = transform
        self._settings = {"batch_size": batch_size, "seed": seed, "window": window, "drop_last": drop_last}
        self._include_outage = include_outage
        self._shared = shared
        self._limit = limit
        self._scenes_once = scenes_once
        self._chosen = {
            "scenes": _as_list(scenes), "cities": _as_list(cities), "bs": bs, "carrier": carrier, "port": port,
        }  # fmt: skip
        self._timeout = timeout
        self._place = None if rank is None or world is None else (rank, world)
        self._epochs = EpochCounter()
        self._reader: BatchReader | None = None
        # Wrong arguments are found here, not in a worker.
        arrays = BatchReader(self.users, self.fields, self.order()).arrays
        self._fields_text = "\n".join(field_text(name, array) for name, array in arrays.items())

    def order(self) -> Order:
        """What the order of the batches depends on, apart from epoch and workers."""
        rank, world = self._place or _distributed()
        return Order(**self._settings, rank=rank, world=world)  # type: ignore[arg-type]

    def _facts(self) -> list[tuple[str, str]]:
        """What it shows of itself."""
        order = self.order()
        ranks = f", rank {order.rank} of {order.world}" if order.world > 1 else ""
        return [
            *self.users.facts(),
            ("fields", self._fields_text),
            ("batches", f"{len(self):,} of {order.batch_size} users{ranks}"),
            ("order", f"seed {order.seed}, windows of {order.window} units, epoch {self.epoch} is next"),
            ("transform", repr(self.transform) if self.transform else "none"),
        ]

    def __repr__(self) -> str:
        return plain("ShuffledChannels", self._facts())

    def _repr_html_(self) -> str:
        return table("ShuffledChannels", self._facts())

    def __getstate__(self) -> dict[str, object]:
        # A spawned worker has no process group to ask.
        return {**self.__dict__, "_place": self._place or _distributed(), "_reader": None}

    def __len__(self) -> int:
        """Batches of a whole epoch, for every rank."""
        return self.order().batches(len(self.users))

    @property
    def epoch(self) -> int:
        """Epoch that the next iterator reads."""
        return self._epochs.following()[0]

    def set_epoch(self, epoch: int, batch: int = 0) -> None:
        """The next iterator reads this epoch, from this batch on, and those after it the epochs after it.

        Without it the first iterator reads epoch 0. Call it where the order must not depend on what was read before,
        e.g. at the beginning of every epoch of a training that may be resumed.
        """
        self._epochs.move_to(epoch, batch)

    def state_dict(self, epoch: int, batches: int, workers: int = 0) -> State:
        """Position of the reader, with what the order depends on.

        Parameters
        ----------
        epoch : int
        batches : int
            Batches of this epoch that this rank has used. What workers have prefetched does not count, which is why
            the dataset cannot know it.
        workers : int
            `num_workers` of the DataLoader.
        """
        epoch, batch = (epoch + 1, 0) if batches >= len(self) else (epoch, batches)
        return {**self._identity(workers), "epoch": epoch, "batch": batch}

    def load_state_dict(self, state: State, workers: int = 0) -> None:
        """Resume where `state_dict` was taken: the next iterator yields exactly the remaining batches.

        Raises
        ------
        InputError
            Other data, or other settings that change the order.
        """
        for name, value in self._identity(workers).items():
            if state.get(name) != value:
                saved = state.get(name)
                msg = f"{self.users.path}: {name} is {value!r}, but {saved!r} in the saved state; resume with that"
                raise InputError(msg)
        self.set_epoch(state["epoch"], state["batch"])

    def _identity(self, workers: int) -> State:
        """What the order of the batches depends on."""
        identity = {"fingerprint": self.attrs["fingerprint"], "split": self.users.split, "world": self.order().world}
        chosen = {
            "include_outage": self._include_outage,
            # States of before these options have no such entries.
            "shared": self._shared or None,
            "limit": self._limit,
            **self._chosen,
        }
        return {**identity, **self._settings, **chosen, "workers": workers}

    def __iter__(self) -> Iterator[Made]:
        """Batches of the next epoch; with workers those of this worker."""
        info = get_worker_info()
        if info is None:
            return self._read(*self._epochs.take(), 0, 1)
        # torch adds the worker's number to the seed of the iterator.
        return self._read(*self._epochs.take(info.seed - info.id, info.id), info.id, info.num_workers)

    def _read(self, epoch: int, batch: int, worker: int, workers: int) -> Iterator[Made]:
        """Batches of one worker, from a batch of the rank on."""
        # A DataLoader takes batches from its workers in turn, from worker 0 on: that one gets the stream that is next.
        stream = (worker + batch) % workers
        start = len(range(stream, batch, workers))
        order = self.order()
        rank, world = (order.rank, order.world) if self._shared else (0, 1)
        read = replace(order, batch_size=order.batch_size * world, rank=0, world=1) if self._shared else order
        if self._reader is None or self._reader.order != read:
            # Kept from epoch to epoch: to open the arrays takes as long as some steps of a small model.
            self._reader = BatchReader(self.users, self.fields, read, self._timeout, self._scenes_once)
        whole = {name for name, array in self._reader.arrays.items() if self._scenes_once and not is_per_user(array)}
        for arrays in self._reader.batches(epoch, start, stream, workers):
            tensors = {
                name: torch.from_numpy(value) if name in whole else torch.from_numpy(value)[rank::world]
                for name, value in arrays.items()
            }
            yield self.transform(tensors) if self.transform else tensors


def _as_list(names: Sequence[str] | None) -> list[str] | None:
    """Names as a state holds them."""
    return [names] if isinstance(names, str) else None if names is None else sorted(map(str, names))


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


def _distributed() -> tuple[int, int]:
    """Rank and world of the process group, where there is one."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1


def __getattr__(name: str) -> "type[ChannelDataModule]":
    # Lightning is needed by users of the data module only.
    if name == "ChannelDataModule":
        from wavecity.dataset.lightning_data import ChannelDataModule

        return ChannelDataModule
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
