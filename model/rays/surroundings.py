"""What a receiver is told of a scene of a store: its walls and the link's constants."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import xarray as xr

from wavecity.model.rays.radio import Radio, permittivity
from wavecity.model.rays.walls import Walls


@dataclass(frozen=True)
class Surroundings:
    """A scene as `locate` needs it.

    Attributes
    ----------
    walls : Walls
        Relative to the base station.
    radio : Radio
    """

    walls: Walls
    radio: Radio


def walls_of(buildings: gpd.GeoDataFrame, bs: tuple[float, float]) -> Walls:
    """Walls of the footprints of a scene, relative to its base station.

    Parameters
    ----------
    buildings : GeoDataFrame
        `geometry` in the scene's metres, `base` and `height` above the ground.
    bs : (float, float)
        The base station in the scene's frame, m.
    """
    rings, base, top = [], [], []
    for shape, low, high in zip(buildings.geometry, buildings["base"], buildings["height"], strict=True):
        for polygon in getattr(shape, "geoms", [shape]):
            for index, ring in enumerate((polygon.exterior, *polygon.interiors)):
                rings.append((np.asarray(ring.coords)[:, :2] - bs, index == 0))
                base.append(low)
                top.append(high)
    return Walls.of_rings(rings, base, top)


def radio_of(store: xr.Dataset) -> Radio:
    """Constants of the link from a store's attributes."""
    frequency = float(store.attrs["frequency_hz"])
    recipe = store.attrs["recipe"]
    return Radio(
        frequency=frequency,
        spacing=float(store.attrs["array"]["spacing_wavelengths"]),
        bs_height=float(store.attrs["bs_position_m"][2]),
        user_height=float(recipe["users"]["height"]),
        permittivity=permittivity(recipe["radio"]["ground_material"], frequency),
    )
