"""Each model as its pretraining sees it: settings and dataset in; batches, Lightning module and card out."""

from collections.abc import Sequence
from dataclasses import dataclass

from wavecity.dataset import InputError
from wavecity.dataset.base_stations import Links
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.dataset.loader import units_within
from wavecity.dataset.torch_batches import BatchTransform
from wavecity.dataset.users import find_users
from wavecity.model.data.json_types import Json
from wavecity.model.data.snapshots import FIELDS, STATION, SnapshotData, check_snapshots, load_snapshots, snapshots
from wavecity.model.data.trajectories import CSI, TemporalData, channels, check_temporal, load_temporal
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.module import PathModule, links, training_draw
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import radio_of
from wavecity.model.settings.temporal import TemporalSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.module import TemporalModule
from wavecity.model.temporal.neighbourhood import Grid

# Decoded bytes that users are shuffled within; two windows are in memory at a time. A small store is shuffled as a whole.
WINDOW_BYTES = 2**27
# Mixed even where they take more: trajectories of the temporal recipe are 140 MB a unit.
FEWEST_UNITS = 4


def training_batches(
    store: str,
    fields: Sequence[str],
    transform: BatchTransform,
    settings: TrainingSettings,
    seed: int,
    bs: Links | None = None,
) -> ChannelDataModule:
    """Batches of the train split, and of at most `validation_users` of the validation split.

    Order and exact resumption are those of `wavecity.dataset`. All devices together train on what one would train on.
    `fields` are arrays of the store; `transform` makes the model's batch of the loader's dict of tensors; `bs` as of the
    readers.
    """
    users = find_users(store, "train", bs=bs)
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
        bs=bs,
    )


def step_users(settings: TrainingSettings, train_users: int) -> int:
    """Users of a step, over all devices."""
    return min(settings.batch_size, train_users)


def steps_per_epoch(settings: TrainingSettings, train_users: int) -> int:
    """Full batches of an epoch; what is left over takes part in other epochs."""
    return train_users // step_users(settings, train_users)


@dataclass(frozen=True)
class Multimodal:
    """Masked pretraining on the single snapshots of one dataset."""

    data: SnapshotData
    settings: TrainingSettings

    @classmethod
    def load(cls, store: str, settings: TrainingSettings) -> "Multimodal":
        """Open a dataset; see `load_snapshots`."""
        return cls(load_snapshots(store, settings.model, "all" if settings.links == "all" else None), settings)

    def check(self) -> None:
        """Refuse data that would train nonsense, and to mirror a world whose panel faces across the mirror's axis."""
        check_snapshots(self.data)
        of_recipe = self.data.attributes.get("recipe", {}).get("radio", {}).get("azimuth", -90.0)
        azimuth = self.data.attributes.get("array", {}).get("azimuth_deg", of_recipe)
        if self.settings.augment.mirror and abs(azimuth) != 90.0:
            why = f"the panel's azimuth is {azimuth:g}, mirroring needs -90; set training.augment.mirror to false"
            raise InputError(f"{self.data.name}: {why}")

    def card(self) -> Json:
        """What a checkpoint says that the model is rebuilt from."""
        return {"statistics": self.data.statistics.to_dict(), "geometry": vars(self.data.geometry)}

    def batches(self, seed: int) -> ChannelDataModule:
        """Batches of the train and validation splits: `Snapshots`."""
        if self.settings.links == "all":
            return training_batches(self.data.path, (*FIELDS, *STATION), snapshots, self.settings, seed, "all")
        return training_batches(self.data.path, FIELDS, snapshots, self.settings, seed)

    def module(self, steps_per_epoch: int, seed: int, card: Json) -> PretrainModule:
        """Network, losses and optimiser for Lightning."""
        return PretrainModule(self.settings, self.data, steps_per_epoch, seed, card)


@dataclass(frozen=True)
class Temporal:
    """Masked prediction on the trajectories of one dataset."""

    data: TemporalData
    settings: TrainingSettings
    grid: Grid  # (T, A, D); what the model is built for

    @classmethod
    def load(cls, store: str, settings: TrainingSettings) -> "Temporal":
        """Open a dataset; refuses one that does not fit the model, see `load_temporal` and `temporal_grid`."""
        data = load_temporal(store, ("train", "validation"), preload=False)
        return cls(data, settings, temporal_grid(data, settings.temporal))

    def check(self) -> None:
        """Refuse data that would train nonsense; see `check_temporal`."""
        check_temporal(self.data)

    def card(self) -> Json:
        """What a checkpoint says that the model is rebuilt from."""
        return {"grid": list(self.grid), "trajectory": self.data.attributes["trajectory"]}

    def batches(self, seed: int) -> ChannelDataModule:
        """Batches of the train and validation splits: channels (B, T, F, X)."""
        return training_batches(self.data.path, (CSI,), channels, self.settings, seed)

    def module(self, steps_per_epoch: int, seed: int, card: Json) -> TemporalModule:
        """Network, losses and optimiser for Lightning."""
        return TemporalModule(self.settings, self.grid, steps_per_epoch, seed, card)


@dataclass(frozen=True)
class Rays:
    """The path model, on the waves of single snapshots of one dataset."""

    data: SnapshotData
    settings: TrainingSettings
    radio: Radio

    @classmethod
    def load(cls, store: str, settings: TrainingSettings) -> "Rays":
        """Open a dataset; refuses one whose waves cannot be followed, see `load_snapshots` and `radio_of`."""
        data = load_snapshots(store, settings.model)
        return cls(data, settings, radio_of(data.attributes, store))

    def check(self) -> None:
        """Refuse data that would train nonsense; see `check_snapshots`."""
        check_snapshots(self.data)

    def card(self) -> Json:
        """What a checkpoint says that the model is rebuilt from."""
        return {"geometry": vars(self.data.geometry), "radio": self.radio.to_dict(), "tile_size": self.data.tile_size}

    def batches(self, seed: int) -> ChannelDataModule:
        """Batches of the train and validation splits: `Links`. Waves that have not been recovered yet are, before."""
        rays = self.settings.rays
        draws = [training_draw(rays, seed, number + 1) for number in range(rays.draws)]
        train, validation = (self.data.splits[split].scene_index.tolist() for split in ("train", "validation"))
        cache = self._cache()
        cache.fill(train, draws, rays.workers)
        cache.fill(validation, draws[:1], rays.workers)
        return training_batches(self.data.path, FIELDS, links, self.settings, seed)

    def module(self, steps_per_epoch: int, seed: int, card: Json) -> PathModule:
        """Network, losses and optimiser for Lightning."""
        data = self.data
        return PathModule(
            self.settings,
            data.geometry,
            self.radio,
            self._cache(),
            data.bs,
            data.tile_size,
            steps_per_epoch,
            seed,
            card,
        )

    def _cache(self) -> FrontCache:
        return FrontCache(self.data.path, self.settings.model.csi_patch)


def temporal_grid(data: TemporalData, settings: TemporalSettings) -> Grid:
    """Snapshots, bins of angle and of delay; refuses too few snapshots or subcarriers, or patches that do not divide."""
    snapshots, subcarriers, antennas = data.shape
    for name, wanted, there, what in (
        ("snapshots", settings.snapshots, snapshots, "snapshots"),
        ("delays", settings.delays, subcarriers, "subcarriers"),
    ):
        if wanted > there:
            raise InputError(f"{data.name}: {there} {what}; training.temporal.{name} {wanted} must not exceed them")
    for edge, bins, what in zip(
        settings.model.patch, (antennas, settings.delays), ("antennas", "bins of delay"), strict=True
    ):
        if bins % edge:
            msg = f"{data.name}: {bins} {what}; training.temporal.model.patch {list(settings.model.patch)} must divide them"
            raise InputError(msg)
    return settings.snapshots, antennas, settings.delays


Backbone = Multimodal | Temporal | Rays
# By `training.backbone`.
BACKBONES: dict[str, type[Backbone]] = {"multimodal": Multimodal, "temporal": Temporal, "rays": Rays}
