"""The multi-modal model as its pretraining sees it: settings and dataset in; batches, Lightning module and card out."""

from dataclasses import dataclass
from typing import Any

from wavecity.dataset import InputError
from wavecity.model.data.batches import PretrainBatches
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.users import WirelessData, check_data, collate, geometry_of, load_data
from wavecity.model.multimodal.module import PretrainModule
from wavecity.model.settings.training import TrainingSettings


@dataclass(frozen=True)
class Multimodal:
    """Masked pretraining on the single snapshots of one dataset; a `wavecity.model.training.pretrain.Backbone`.

    Attributes
    ----------
    data : WirelessData
    settings : TrainingSettings
    geometry : Geometry
        What the model is built for.
    """

    data: WirelessData
    settings: TrainingSettings
    geometry: Geometry

    @classmethod
    def load(cls, store: str, settings: TrainingSettings, data: WirelessData | None = None) -> "Multimodal":
        """Open a dataset; `data` is taken instead of `store` where it is given.

        Raises
        ------
        InputError
            It lacks train or validation scenes, an array or statistics, or does not fit the model.
        """
        data = data or load_data(store, ("train", "validation"))
        return cls(data, settings, geometry_of(data, settings.model))

    def check(self) -> None:
        """Refuse data that would train nonsense.

        Raises
        ------
        InputError
            See `check_data`; or a panel that does not face along the axis of the mirror.
        """
        check_data(self.data, self.geometry)
        _check_mirror(self.data, self.settings)

    def card(self) -> dict[str, Any]:
        """What a checkpoint says that the model is rebuilt from."""
        return {"statistics": self.data.statistics.to_dict(), "geometry": vars(self.geometry)}

    def batches(self, seed: int) -> PretrainBatches:
        """Batches of the train and validation splits."""
        return PretrainBatches(self.data.splits, collate, self.settings, seed)

    def module(self, steps_per_epoch: int, seed: int, card: dict[str, Any]) -> PretrainModule:
        """Network, losses and optimiser for Lightning."""
        data = self.data
        return PretrainModule(self.settings, self.geometry, data.statistics, data.scenes, steps_per_epoch, seed, card)


def _check_mirror(data: WirelessData, settings: TrainingSettings) -> None:
    """Refuse to mirror a world whose panel does not face along the axis of the mirror."""
    of_recipe = data.attributes.get("recipe", {}).get("radio", {}).get("azimuth", -90.0)
    azimuth = data.attributes.get("array", {}).get("azimuth_deg", of_recipe)
    if settings.augment.mirror and abs(azimuth) != 90.0:
        msg = f"{data.name}: the panel's azimuth is {azimuth:g}, mirroring needs -90; set training.augment.mirror to false"
        raise InputError(msg)
