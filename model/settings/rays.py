"""What a recipe says about the path model and its pretraining (unit, bounds and meaning of every field)."""

from typing import Literal

from pydantic import Field, model_validator

from wavecity.dataset.settings import Settings
from wavecity.model.settings.bounds import Count, Natural, Part


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
