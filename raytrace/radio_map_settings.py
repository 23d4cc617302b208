"""What a recipe says about radio maps: the grid of receivers, and what each cell has. Nothing heavy is imported."""

from typing import Literal

from pydantic import Field, field_validator

from wavecity.geo.settings import Settings

Metric = Literal["path_gain", "los", "delay_spread", "angle_spread", "n_paths", "best_beam"]

# Unit and description of each metric.
METRICS: dict[str, tuple[str, str]] = {
    "path_gain": ("dB", "power of all paths together"),
    "los": ("1", "1 in line of sight of the base station, 0 elsewhere"),
    "delay_spread": ("ns", "RMS delay spread over all paths, weighted by power (3GPP TR 25.996)"),
    "angle_spread": ("degree", "circular spread of the azimuth of departure, weighted by power (3GPP TR 38.901, A.1)"),
    "n_paths": ("1", "paths"),
    "best_beam": ("1", "index of the strongest beam of the DFT codebook; -1 without a path"),
}


class RadioMapSettings(Settings):
    """A grid of receivers."""

    spacing: float = Field(1.0, gt=0, le=100, description="Edge of a cell in m; divides the tile's.")
    height: float = Field(1.5, gt=0, le=200, description="Of the receivers above ground, m.")
    metrics: list[Metric] = Field(["path_gain"], min_length=1, description="What each cell has.")

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: list[Metric]) -> list[Metric]:
        """Refuse a metric that is named twice."""
        twice = sorted({name for name in metrics if metrics.count(name) > 1})
        if twice:
            msg = f"{', '.join(twice)}: name each metric once"
            raise ValueError(msg)
        return metrics

    def cells(self, size: float) -> int:
        """Cells along the edge of a tile of `size` m.

        Raises
        ------
        ValueError
            The spacing does not divide the tile.
        """
        count = round(size / self.spacing)
        if count < 1 or abs(count * self.spacing - size) > 1e-6 * size:
            msg = f"spacing: {self.spacing:g} m does not divide the tile of {size:g} m; choose a divisor"
            raise ValueError(msg)
        return count
