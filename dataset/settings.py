"""What a recipe says about the store and the precomputed features."""

from pydantic import Field

from wavecity.geo.settings import Settings

__all__ = ["FeatureSettings", "Settings", "StoreSettings"]


class FeatureSettings(Settings):
    """What is precomputed and stored along with the channels."""

    spectrum: bool = Field(True, description="Store the DFT spatial spectrum |F h|^2 of every user.")
    paths: bool = Field(
        True, description="Store the paths themselves: any other array, band or time can be derived without re-tracing."
    )


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
