"""Batches for Lightning: their order is a pure function of seed and step, whatever the number of processes."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, Subset

from wavecity.model.data.users import Samples
from wavecity.model.settings.training import TrainingSettings


class StepSampler(Sampler[list[int]]):
    """Batches of a step number: the order is a pure function of (seed, epoch), so training resumes at any step.

    Every rank takes its slice of each global batch. The last, incomplete batch of an epoch is dropped unless it is the
    only one.

    Parameters
    ----------
    count : int
        Samples.
    batch_size : int
        Over all ranks.
    seed : int
    rank, world : int
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.seed = seed
        self.rank = rank
        self.world = world
        # Where training stands; asked at the start of every epoch.
        self.step: Callable[[], int] = lambda: 0

    def __len__(self) -> int:
        return self.count // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Batches from the current step to the end of its epoch."""
        epoch, first = divmod(self.step(), len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(self.count)
        for number in range(first, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [int(index) for index in batch[self.rank :: self.world]]


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning that resuming within an epoch is exact: the sampler starts from the trainer's step."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the order follows from seed and step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class PretrainBatches(lightning.LightningDataModule):
    """Loaders of the train and validation splits, made in the process that reads them.

    Parameters
    ----------
    splits : mapping of str to Samples
        `train` and `validation`.
    collate : callable
        Samples to a batch.
    settings : TrainingSettings
    seed : int
    """

    def __init__(
        self,
        splits: Mapping[str, Samples],
        collate: Callable[[list[dict[str, Any]]], Any],
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        super().__init__()
        self._splits = splits
        self._collate = collate
        self._settings = settings
        self._seed = seed

    def samples(self, split: str) -> Samples:
        """Users of a split."""
        return self._splits[split]

    def sampler(self, rank: int = 0, world: int = 1) -> StepSampler:
        """Order of the training batches, a rank's share of each."""
        return StepSampler(len(self._splits["train"]), self._settings.batch_size, self._seed, rank, world)

    def train_dataloader(self) -> ResumableLoader:
        """Training batches from the trainer's step on."""
        trainer = self.trainer
        assert trainer is not None
        sampler = self.sampler(trainer.global_rank, trainer.world_size)
        sampler.step = lambda: trainer.global_step
        samples: Any = self._splits["train"]
        return ResumableLoader(
            samples, batch_sampler=sampler, collate_fn=self._collate, num_workers=self._settings.loader_workers
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Validation users, at most `validation_users` and evenly spread; every rank goes through all of them.

        They are few, and so the losses are the same numbers for any number of processes.
        """
        samples: Any = self._splits["validation"]
        count, limit = len(samples), self._settings.validation_users
        if count > limit:
            samples = Subset(samples, [index * count // limit for index in range(limit)])
        return DataLoader(samples, self._settings.evaluation.batch_size, collate_fn=self._collate)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch; Lightning does not know frozen dataclasses."""
        return batch.to(device)
