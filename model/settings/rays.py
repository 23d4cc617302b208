"""What a recipe says about the path model and its pretraining (unit, bounds and meaning of every field)."""

from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Counts, Natural, Part, Probability
from wavecity.model.settings.disturbance import STANDARD, TRAINED, Cases, CaseSettings, DisturbanceSettings


class RaysModelSettings(Settings):
    """Architecture of the path model. The defaults give 0.74 M parameters.

    With 8 layers, mlp_ratio 4 and scene_channels 64 it has 2.4 M, as the model of the paper.
    """

    width: int = Field(128, ge=8, le=4096, description="Token dimension d, and that of [PHYSC].")
    layers: int = Field(3, ge=1, le=64, description="Blocks over waves, places and map.")
    heads: int = Field(4, ge=1, le=64, description="Attention heads.")
    mlp_ratio: float = Field(2.0, gt=0, le=16, description="Hidden width of a block's MLP over d.")
    scene_channels: int = Field(32, ge=4, le=512, description="Channels of the convolutions over the map.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "RaysModelSettings":
        if self.width % self.heads:
            msg = f"training.rays.model.width {self.width} must be a multiple of training.rays.model.heads {self.heads}"
            raise ValueError(msg)
        return self


class RaysLossSettings(Settings):
    """Weights of the four objectives."""

    location: float = Field(1.0, ge=0, description="Negative log-likelihood of the location, nats.")
    occupancy: float = Field(2.0, ge=0, description="Cross-entropy of masked occupancy.")
    spectrum: float = Field(1.0, ge=0, description="Kullback-Leibler divergence of the spectrum.")
    csi: float = Field(0.5, ge=0, description="Normalised squared error of masked CSI, at most 1 a user.")


class RaysSettings(Settings):
    """Path model: waves recovered and followed through the scene before any network sees them."""

    model: RaysModelSettings = RaysModelSettings()
    losses: RaysLossSettings = RaysLossSettings()
    draws: int = Field(
        3,
        ge=1,
        le=1000,
        description="Draws of visible patches (3 to all) and noise (0 to 30 dB, or none) for each scene, among which every "
        "step takes one; waves are recovered once for each.",
    )
    scene_masked: tuple[Part, Part] = Field(
        (0.05, 0.3), description="Share of the height patches along the link that is masked for occupancy."
    )
    occupancy_share: float = Field(0.5, gt=0, le=1, description="Share of a step's users that occupancy is trained on.")
    mirror: bool = Field(True, description="Mirror every other step's world east-west; needs a panel facing south.")
    workers: Natural = Field(
        0, description="Processes that recover waves before the training; 0 for one a core. No result depends on it."
    )
    disturbed_share: Probability = Field(
        0.0,
        description="Share of the draws of scenes in which map, panel and heights are not as they are believed to be: at "
        "most as in `disturbance`, each by a random part of it.",
    )
    disturbance: DisturbanceSettings = TRAINED
    draw_seed: Natural | None = Field(
        None,
        description="Seed of what the draws see, their noise and what is wrong in them; null: that of the training. Trainings of "
        "several seeds that have it in common recover the waves once.",
    )

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is not asked for: what is written of such settings is as it was before."""
        content: dict[str, object] = handler(self)
        if not self.disturbed_share:
            content.pop("disturbed_share", None)
            content.pop("disturbance", None)
        if self.draw_seed is None:
            content.pop("draw_seed", None)
        return content


class ZeroShotSettings(Settings):
    """The path model on users of unseen scenes, without a label."""

    splits: tuple[Literal["train", "validation", "test"], ...] = Field(
        ("test",),
        min_length=1,
        description="Splits whose users are tested; all of them on a store of cities that the model was not trained on.",
    )
    users: int = Field(4000, ge=1, description="Largest number of users of a split, spread over the scenes.")
    patches: Count = Field(16, description="CSI patches seen for location and masked CSI [paper: a quarter].")
    beam_patches: Count = Field(3, description="CSI patches seen for beams [paper: 5 %].")
    snr: float = Field(10.0, description="Signal-to-noise ratio of what is seen, dB [paper: 10].")
    confidence: float = Field(0.9, gt=0, lt=1, description="Share of the mixture that a stated region holds.")
    neighbours: int = Field(
        4000, ge=1, description="Largest number of labelled training users of the nearest neighbours."
    )
    disturbed: Cases = Field(
        {},
        description="What location is tested with besides: `standard`, each usual error of map, panel, heights and noise alone, "
        "and a sum of them; or name -> what is wrong, see `training.rays.disturbance`, with `snr` and `patches`.",
    )
    disturbed_users: int = Field(
        1000,
        ge=1,
        description="Largest number of users that this is tested on, all of the scenes that they stand in; at least one scene.",
    )

    @property
    def cases(self) -> dict[str, CaseSettings]:
        """What is wrong, by name."""
        return STANDARD if self.disturbed == "standard" else self.disturbed

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out disturbances where there are none: what is written of such settings is as it was before."""
        content: dict[str, object] = handler(self)
        if not self.disturbed:
            content.pop("disturbed", None)
            content.pop("disturbed_users", None)
        return content


class FewLabelsSettings(Settings):
    """Does pretraining pay: heads and whole networks trained on few labelled users of the training scenes [ours]."""

    labels: Counts = Field((20, 100, 400, 1000, 6400), description="Numbers of labelled users.")
    test_users: int = Field(2000, ge=10, description="Largest number of users of test scenes.")
    patches: Count = Field(16, description="CSI patches seen.")
    snr: float = Field(10.0, description="Signal-to-noise ratio of what is seen, dB.")
