"""The multi-modal model as its pretraining sees it: settings and dataset in; batches, Lightning module and card out."""

from dataclasses import dataclass

from wavecity.dataset import InputError
from wavecity.dataset.lightning_data import ChannelDataModule
from wavecity.model.data.batches import training_batches
from wavecity.model.data.json_types import Json
from wavecity.model.data.snapshots import FIELDS, SnapshotData, check_snapshots, load_snapshots, snapshots
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.settings.training import TrainingSettings


@dataclass(frozen=True)
class Multimodal:
    """Masked pretraining on the single snapshots of one dataset; a `wavecity.model.training.pretrain.Backbone`."""

    data: SnapshotData
    settings: TrainingSettings

    @classmethod
    def load(cls, store: str, settings: TrainingSettings) -> "Multimodal":
        """Open a dataset; see `load_snapshots`."""
        return cls(load_snapshots(store, settings.model), settings)

    def check(self) -> None:
        """Refuse data that would train nonsense; see `check_snapshots`."""
        check_snapshots(self.data)
        _check_mirror(self.data, self.settings)

    def card(self) -> Json:
        """What a checkpoint says that the model is rebuilt from."""
        return {"statistics": self.data.statistics.to_dict(), "geometry": vars(self.data.geometry)}

    def batches(self, seed: int) -> ChannelDataModule:
        """Batches of the train and validation splits: `Snapshots`."""
        return training_batches(self.data.path, FIELDS, snapshots, self.settings, seed)

    def module(self, steps_per_epoch: int, seed: int, card: Json) -> PretrainModule:
        """Network, losses and optimiser for Lightning."""
        return PretrainModule(self.settings, self.data, steps_per_epoch, seed, card)


def _check_mirror(data: SnapshotData, settings: TrainingSettings) -> None:
    """Refuse to mirror a world whose panel does not face along the axis of the mirror."""
    of_recipe = data.attributes.get("recipe", {}).get("radio", {}).get("azimuth", -90.0)
    azimuth = data.attributes.get("array", {}).get("azimuth_deg", of_recipe)
    if settings.augment.mirror and abs(azimuth) != 90.0:
        msg = f"{data.name}: the panel's azimuth is {azimuth:g}, mirroring needs -90; set training.augment.mirror to false"
        raise InputError(msg)
