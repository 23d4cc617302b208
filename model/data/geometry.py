"""Sizes of the data that a model is built for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Sizes of the data that a model is built for."""

    columns: int  # Antennas along x and y
    rows: int
    height_cells: int  # Edge of the height map in cells
    occupancy_patches: int  # Edge of the occupancy grid; a height patch covers one or several of its cells
