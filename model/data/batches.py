"""Batches of a pretraining: the published loader, set up so that a step's users depend on seed and settings alone."""

from collections.abc import Sequence

from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.loader import find_users, units_within
from wavecity.dataset.torch_data import BatchTransform
from wavecity.model.settings.training import TrainingSettings

# Decoded bytes that users are shuffled within; two windows are in memory at a time. A small store is shuffled as a whole.
WINDOW_BYTES = 2**27
# Mixed even where they take more: trajectories of the temporal recipe are 140 MB a unit.
FEWEST_UNITS = 4


def training_batches(
    store: str, fields: Sequence[str], transform: BatchTransform, settings: TrainingSettings, seed: int
) -> ChannelDataModule:
    """Batches of the train split, and of at most `validation_users` of the validation split.

    Order and exact resumption are those of `wavecity.dataset`. All devices together train on what one would train on.
    `fields` are arrays of the store; `transform` makes the model's batch of the loader's dict of tensors.
    """
    users = find_users(store, "train")
    return ChannelDataModule(
        store,
        fields,
        batch_size=step_users(settings, len(users)) // settings.devices,
        workers=settings.loader_workers,
        seed=seed,
        window=max(units_within(users, fields, WINDOW_BYTES), FEWEST_UNITS),
        drop_last=True,
        shared=True,
        validation_users=settings.validation_users,
        evaluation_batch_size=settings.evaluation.batch_size,
        scenes_once=True,
        transform=transform,
    )


def step_users(settings: TrainingSettings, train_users: int) -> int:
    """Users of a step, over all devices."""
    return min(settings.batch_size, train_users)


def steps_per_epoch(settings: TrainingSettings, train_users: int) -> int:
    """Full batches of an epoch; what is left over takes part in other epochs."""
    return train_users // step_users(settings, train_users)
