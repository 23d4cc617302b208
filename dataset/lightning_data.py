"""`ChannelDataModule`: the dataset for Lightning, which resumes exactly, also in the middle of an epoch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from wavecity.dataset.bands import Carrier, Port
from wavecity.dataset.base_stations import Links
from wavecity.dataset.files import StorePath
from wavecity.dataset.reprs import plain, table
from wavecity.dataset.torch_batches import BatchTransform, Made, ShuffledChannels, State
from wavecity.dataset.torch_data import FIELDS

# Arguments of a reader or a loader by name.
Options: TypeAlias = dict[str, Any]


class ChannelDataModule(LightningDataModule):
    """Batches of the three splits for `Trainer.fit`, `validate` and `test`.

    Training batches are shuffled anew every epoch. A checkpoint, also one of the middle of an epoch, holds the position
    by the batches that were trained on; `fit(ckpt_path=...)` resumes with exactly the remaining ones. The order of
    validation and test batches is the same in every epoch.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    fields : sequence of str
        Arrays of the schema.
    batch_size : int
        Of one rank.
    workers : int
        Worker processes of every loader; 0 reads in this process, with a thread that decodes ahead.
    seed : int
    window : int
        Units mixed with each other (`wavecity.dataset.loader.Order`).
    drop_last : bool
        Full training batches only.
    include_outage : bool
        Whether users without a path count.
    transform : callable, optional
        Batch (dict of tensors) to batch, which may be anything that Lightning moves to a device.
    verify : bool
        Whether every byte of the store is compared with its manifest, once, before anything is read.
    shared : bool
        What is trained on does not depend on the number of ranks: they share every batch of `batch_size * world` users,
        and each validates and tests on all users (`ShuffledChannels`). By default all are divided. Needs `drop_last`.
    validation_users : int, optional
        Largest number of validation users, evenly spread over the split.
    evaluation_batch_size : int, optional
        Of validation and test; `batch_size` by default.
    scenes_once : bool
        Arrays of scenes once for every scene of a batch (`ShuffledChannels`).
    loader_options : dict, optional
        More arguments of `DataLoader`, e.g. `pin_memory`, `persistent_workers`, `multiprocessing_context`.
    scenes, cities : sequence of str, optional
        Only these scenes, by id or a pattern such as `helsinki-*`, and only those of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        Of several base stations the one whose links are the samples, or all of them (`ShuffledChannels`).
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all, of which samples have an axis.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, or `all`.

    Raises
    ------
    InputError
        In `train_dataloader`: not a store, no such array, or a checkpoint of other data, another seed, other numbers of
        workers or ranks, or other settings that change the order.
    """

    def __init__(
        self,
        store: str | StorePath,
        fields: Sequence[str] = FIELDS,
        batch_size: int = 256,
        workers: int = 0,
        seed: int = 0,
        window: int = 4,
        drop_last: bool = False,
        include_outage: bool = False,
        transform: BatchTransform | None = None,
        loader_options: Options | None = None,
        verify: bool = False,
        shared: bool = False,
        validation_users: int | None = None,
        evaluation_batch_size: int | None = None,
        scenes_once: bool = False,
        scenes: Sequence[str] | None = None,
        cities: Sequence[str] | None = None,
        version: int | None = None,
        bs: Links | None = None,
        carrier: Carrier = None,
        port: Port = None,
    ) -> None:
        super().__init__()
        self.store = store
        self.workers = workers
        self._options: Options = {
            "fields": fields,
            "seed": seed,
            "window": window,
            "include_outage": include_outage,
            "transform": transform,
            "scenes_once": scenes_once,
            "scenes": scenes,
            "cities": cities,
            "version": version,
            "bs": bs,
            "carrier": carrier,
            "port": port,
        }
        self._train_options = {"batch_size": batch_size, "drop_last": drop_last, "shared": shared}
        self._shared = shared
        self._validation_users = validation_users
        self._evaluation_batch_size = evaluation_batch_size or batch_size
        self._loader_options = loader_options or {}
        self._verify = verify
        self._train: ShuffledChannels | None = None
        self._position = (0, 0)

    def _facts(self) -> list[tuple[str, str]]:
        """What it shows of itself; nothing is opened for it."""
        chosen = [
            f"{name}={self._options[name]!r}"
            for name in ("scenes", "cities", "version", "bs", "carrier", "port")
            if self._options[name]
        ]
        return [
            ("store", str(self.store)),
            ("fields", ", ".join(self._options["fields"])),
            ("batches", f"of {self._train_options['batch_size']} users, {self.workers} workers"),
            ("order", f"seed {self._options['seed']}, windows of {self._options['window']} units"),
            ("chosen", ", ".join(chosen) or "all scenes of the published version"),
            ("transform", repr(self._options["transform"]) if self._options["transform"] else "none"),
        ]

    def __repr__(self) -> str:
        return plain("ChannelDataModule", self._facts())

    def _repr_html_(self) -> str:
        return table("ChannelDataModule", self._facts())

    def train_dataloader(self) -> DataLoader[Made]:
        """Shuffled batches, from the position on that a checkpoint or `set_epoch` set."""
        return _ResumableLoader(self, self._training(), self.position, num_workers=self.workers, **self._loader_options)

    def val_dataloader(self) -> DataLoader[Made]:
        """Every user of the validation split once, or `validation_users` of them."""
        return self._plain("validation", self._validation_users)

    def test_dataloader(self) -> DataLoader[Made]:
        """Every user of the test split once."""
        return self._plain("test")

    def set_epoch(self, epoch: int, batch: int = 0) -> None:
        """For loops other than Lightning's: the next training iterator reads this epoch, from this batch on."""
        self._position = (epoch, batch)

    def position(self) -> tuple[int, int]:
        """Epoch and first batch of the next training iterator."""
        if self.trainer is None:
            return self._position
        # A position from a checkpoint holds until Lightning's count of epochs is beyond it.
        return max(self._position, (self.trainer.current_epoch, 0))

    def state_dict(self) -> State:
        """Position by the batches trained on, with what the order depends on."""
        train = self._training()
        if self.trainer is None:
            return train.state_dict(*self._position, self.workers)
        loop: Any = self.trainer.fit_loop
        epochs, batches = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
        # Between two epochs the batches counted are still those of the one before.
        done = batches.processed if epochs.ready > epochs.processed else 0
        # `limit_train_batches` ends epochs earlier.
        return train.state_dict(epochs.processed, len(train) if done >= loop.max_batches else done, self.workers)

    def load_state_dict(self, state_dict: State) -> None:
        """Resume where `state_dict` was taken.

        Raises
        ------
        InputError
            Other data, or other settings that change the order.
        """
        self._training().load_state_dict(state_dict, self.workers)
        self._position = (state_dict["epoch"], state_dict["batch"])

    def _training(self) -> ShuffledChannels:
        """Reader of the training split, opened once."""
        if self._train is None:
            self._train = self._open("train", **self._train_options, **self._place())
        return self._train

    def __getstate__(self) -> dict[str, object]:
        # A process that Lightning starts has a rank of its own.
        return {**self.__dict__, "_train": None}

    def _plain(self, split: str, limit: int | None = None) -> DataLoader[Made]:
        """Loader of a split in the same order every time."""
        place = {"rank": 0, "world": 1} if self._shared else self._place()
        dataset = self._open(split, batch_size=self._evaluation_batch_size, limit=limit, **place)
        return _PositionedLoader(dataset, lambda: (0, 0), num_workers=self.workers, **self._loader_options)

    def _open(self, split: str, **options: Any) -> ShuffledChannels:
        """Open a reader; the store is verified once."""
        verify, self._verify = self._verify, False
        return ShuffledChannels(self.store, split, verify=verify, **self._options, **options)

    def _place(self) -> dict[str, int]:
        """Rank and number of ranks, where there is a trainer."""
        if self.trainer is None:
            return {}
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}


class _PositionedLoader(DataLoader[Made]):
    """A loader whose every iterator starts where `position` says: epoch and first batch."""

    def __init__(self, dataset: ShuffledChannels, position: Callable[[], tuple[int, int]], **options: Any) -> None:
        super().__init__(dataset, batch_size=None, **options)
        self._set_epoch: Callable[..., None] = dataset.set_epoch
        self._position = position

    def __iter__(self) -> Iterator[Made]:  # type: ignore[override]
        self._set_epoch(*self._position())
        return super().__iter__()


class _ResumableLoader(_PositionedLoader):
    """A loader that Lightning can resume, by `state_dict` and `load_state_dict`."""

    def __init__(self, module: ChannelDataModule, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._module = module

    def state_dict(self) -> State:
        """Position of the data module."""
        return self._module.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Resume where the state was taken."""
        self._module.load_state_dict(state)
