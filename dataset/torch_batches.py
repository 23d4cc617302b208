"""The dataset for torch: shuffled batches, for training on any size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch.utils.data import IterableDataset, get_worker_info

from wavecity.dataset.arrays import is_per_user
from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.epochs import EpochCounter
from wavecity.dataset.files import StorePath
from wavecity.dataset.loader import TIMEOUT, BatchReader, Order
from wavecity.dataset.reprs import field_text, plain, table
from wavecity.dataset.torch_data import FIELDS
from wavecity.dataset.users import find_users
from wavecity.geo.errors import InputError

# Position of a reader, for a checkpoint.
State: TypeAlias = dict[str, Any]
# A batch after its transform, which may make anything of it.
Made: TypeAlias = Any
BatchTransform = Callable[[dict[str, torch.Tensor]], Made]


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
    users : wavecity.dataset.users.Users
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


def _distributed() -> tuple[int, int]:
    """Rank and world of the process group, where there is one."""
    group = torch.distributed
    if group.is_available() and group.is_initialized():
        return group.get_rank(), group.get_world_size()
    return 0, 1
