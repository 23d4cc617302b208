"""The temporal model as its pretraining sees it: settings and dataset in; batches, Lightning module and card out."""

from dataclasses import dataclass

from wavecity.dataset import InputError
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.model.data.batches import training_batches
from wavecity.model.data.json_types import Json
from wavecity.model.data.trajectories import CSI, TemporalData, channels, check_temporal, load_temporal
from wavecity.model.settings.temporal import TemporalSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.module import TemporalModule
from wavecity.model.temporal.neighbourhood import Grid


@dataclass(frozen=True)
class Temporal:
    """Masked prediction on the trajectories of one dataset; a `wavecity.model.training.pretrain.Backbone`."""

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
