"""What a recipe says about vegetation. Nothing heavy is imported.

Apart from `wavecity.geo.settings`, which every dataset depends on: a dataset without vegetation is what it was before there
was any (`wavecity.flows.fingerprint`).
"""

from typing import ClassVar

from pydantic import Field

from wavecity.geo import base_station_settings
from wavecity.geo.settings import Settings


def lacks_vegetation(source: str) -> bool:
    """Whether a map, by its name, holds buildings and streets alone.

    Examples
    --------
    >>> lacks_vegetation("overpass"), lacks_vegetation("overture.parquet"), lacks_vegetation("lyon.osm.pbf")
    (True, True, False)
    """
    return source == "overpass" or source.split("?")[0].endswith(".parquet")


class VegetationSettings(Settings):
    """Crowns of the map's trees and woods, and what paths lose in them (ITU-R P.833). Sizes are those of tags, if any."""

    trees: bool = Field(True, description="Crowns of `natural=tree`, and along `natural=tree_row`.")
    woods: bool = Field(True, description="Areas of `natural=wood` and `landuse=forest`, from the ground to the top.")
    tree_height: float = Field(10.0, ge=1, le=100, description="Height in m of a tree whose height is not tagged.")
    crown_diameter: float = Field(
        6.0,
        ge=0.5,
        le=50,
        description="Diameter in m of the crown of a tree `tree_height` high, where neither `diameter_crown` nor "
        "`circumference` is tagged; of a tagged height in proportion.",
    )
    crown_base: float = Field(0.3, ge=0, lt=1, description="Where a crown begins, as a share of the tree's height.")
    row_spacing: float = Field(8.0, ge=1, le=100, description="Distance in m between the trees of a row.")
    wood_height: float = Field(15.0, ge=1, le=100, description="Height in m of a wood whose height is not tagged.")
    attenuation: float | None = Field(
        None,
        gt=0,
        le=50,
        description="Specific attenuation in dB/m; null: 0.2 dB/m for each GHz of the carrier, after Figure 2 of P.833.",
    )
    largest_loss: float | None = Field(
        None,
        gt=0,
        le=300,
        description="Largest loss A_m of a path in dB; null: 1.15 dB x (carrier in MHz)^0.43, published up to 2.2 GHz.",
    )


class SceneSettings(base_station_settings.SceneSettings):
    """How a tile becomes a scene: heights, mesh, rasters, base stations, vegetation."""

    vegetation: VegetationSettings | None = Field(
        None, description="Trees and woods that weaken the paths through them; null: none."
    )

    OPTIONAL: ClassVar[tuple[str, ...]] = (*base_station_settings.SceneSettings.OPTIONAL, "vegetation")
