"""What a recipe says about more base stations than the one at the top centre of a tile. Nothing heavy is imported.

Apart from `wavecity.geo.settings`, which every dataset depends on: a dataset with one base station is what it was before
there were more (`wavecity.flows.fingerprint`).
"""

from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from wavecity.geo import settings
from wavecity.geo.settings import Settings


class BaseStationSettings(Settings):
    """Base stations besides the first one, which stands at the top centre of every tile; and what a cell is.

    Their panels face the middle of the tile. One that finds no place in a scene is missing there.
    """

    corners: bool = Field(
        False,
        description="One at each corner of the tile, `scene.bs_height` high, moved along the edges by up to "
        "`scene.bs_max_shift` where it cannot stand there.",
    )
    rooftops: int = Field(0, ge=0, le=16, description="Number on roofs, far from each other and from the first.")
    street: int = Field(0, ge=0, le=16, description="Number on lamp posts at the roadside, far from each other.")
    positions: tuple[tuple[float, float, float], ...] = Field(
        (),
        max_length=16,
        description="At these places: east, north of the tile's centre and height in m; not in walls.",
    )
    mast: float = Field(3.0, gt=0, le=50, description="Height above its roof of a base station on a roof in m.")
    street_height: float = Field(6.0, gt=0, le=50, description="Height of a base station at the roadside in m.")
    power_dbm: float = Field(30.0, ge=-30, le=80, description="Transmit power of every base station in dBm.")
    bandwidth: float = Field(100e6, gt=0, le=1e10, description="Bandwidth of the noise in Hz.")
    noise_figure: float = Field(7.0, ge=0, le=50, description="Noise figure of a user's receiver in dB.")
    hysteresis: float = Field(
        3.0, ge=0, le=30, description="A moving user leaves its cell for one that is stronger by more than this in dB."
    )

    @property
    def count(self) -> int:
        """Number of base stations, the first one included."""
        return 1 + 4 * self.corners + self.rooftops + self.street + len(self.positions)

    @field_validator("positions")
    @classmethod
    def _places_differ(
        cls, positions: tuple[tuple[float, float, float], ...]
    ) -> tuple[tuple[float, float, float], ...]:
        """Refuse a place that is there twice: no user of the second would have a cell, and the SINR be at most 0 dB."""
        for place in positions:
            if positions.count(place) > 1:
                msg = f"{', '.join(f'{value:g}' for value in place)} is there twice; leave one out"
                raise ValueError(msg)
        return positions

    @model_validator(mode="after")
    def _there_are_some(self) -> "BaseStationSettings":
        """Refuse a section that names none."""
        if self.count == 1:
            msg = "names no base station; give corners, rooftops, street or positions, or null for the first one alone"
            raise ValueError(msg)
        return self


class SceneSettings(settings.SceneSettings):
    """How a tile becomes a scene: heights, mesh, rasters, base stations."""

    base_stations: BaseStationSettings | None = Field(
        None,
        description="Base stations besides the one at the top centre: `corners`, or rooftops, street, positions; null or "
        "`top-centre`: none.",
    )

    @field_validator("base_stations", mode="before")
    @classmethod
    def _rule(cls, value: object) -> object:
        """A rule by its name alone."""
        named: dict[str, object] = {"top-centre": None, "corners": {"corners": True}}
        if isinstance(value, str):
            if value not in named:
                msg = f"{value!r} is no rule; write {' or '.join(named)}, or set rooftops, street or positions"
                raise ValueError(msg)
            return named[value]
        return value

    OPTIONAL: ClassVar[tuple[str, ...]] = (*settings.SceneSettings.OPTIONAL, "base_stations")
