"""What a recipe says about the store, the precomputed features, and when a dataset is good enough."""

from typing import Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from wavecity.geo.settings import Settings
from wavecity.raytrace.radio_map_settings import RadioMapSettings

__all__ = ["FeatureSettings", "GateSettings", "Settings", "StoreSettings"]


class FeatureSettings(Settings):
    """What is precomputed and stored along with the channels."""

    spectrum: bool = Field(True, description="Store the DFT spatial spectrum |F h|^2 of every user.")
    paths: bool = Field(
        True, description="Store the paths themselves: any other array, band or time can be derived without re-tracing."
    )
    interactions: Literal["kinds", "positions"] = Field(
        "kinds",
        description="What is stored of a path's interactions; positions: where they are, as well as their kinds.",
    )
    radio_map: RadioMapSettings | None = Field(
        None,
        description="Store a radio map of every scene: what a receiver has anywhere on its open ground; null: none.",
    )

    @model_validator(mode="after")
    def _positions_belong_to_paths(self) -> "FeatureSettings":
        """Refuse positions of paths that are not stored."""
        if self.interactions == "positions" and not self.paths:
            msg = "features.interactions is positions, but features.paths is false; set it to true, or interactions to kinds"
            raise ValueError(msg)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Leave out what is off: what is written of such a recipe is as it was before there was the option."""
        content: dict[str, object] = handler(self)
        if self.radio_map is None:
            content.pop("radio_map", None)
        if self.interactions == "kinds":
            content.pop("interactions", None)
        return content


class StoreSettings(Settings):
    """Layout of the Zarr store."""

    unit: int = Field(16, ge=1, le=1024, description="Scenes of one unit = one shard of every array = one task.")
    users_per_chunk: int = Field(
        64, ge=1, le=4096, description="Users of one chunk of the channels, the smallest piece a reader decompresses."
    )
    keep: int = Field(
        3, ge=1, description="Published versions kept; older ones are removed when a new one is published."
    )
    grace: float = Field(
        24.0,
        ge=0,
        description="Hours that a version beyond `keep` stays after its successor came, for readers that have it open.",
    )


class GateSettings(Settings):
    """Limits that stop publication: a finished dataset beyond one of them does not become a version."""

    outage: float | None = Field(None, ge=0, le=1, description="Largest share of users without a path; null: any.")
    imputed: float | None = Field(
        None, ge=0, le=1, description="Largest share of buildings whose height nobody states; null: any."
    )
    quarantined: float | None = Field(None, ge=0, le=1, description="Largest share of quarantined scenes; null: any.")
    drift: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest change since the last version: Kolmogorov-Smirnov distance of path gains or building heights, "
        "or difference of the share of users with line of sight; null: any.",
    )
