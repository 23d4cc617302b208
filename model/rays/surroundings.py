"""What locating users needs to know of a scene of a store: its walls and the constants of the link."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset import InputError
from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.draft import load_draft
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of
from wavecity.model.rays.radio import MATERIALS, Radio, permittivity
from wavecity.model.rays.walls import Walls

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True)
class Surroundings:
    """A scene as `locate` needs it.

    Attributes
    ----------
    walls : Walls
        Relative to the base station.
    radio : Radio
    box : (float, float, float, float)
        West, south, east and north limit of where users can be, relative to the base station, m.
    heights : tuple of float
        Heights above the ground, m, of which it is unknown which one is a user's: a range in steps, or those of floors.
        Empty where it is `radio.user_height`.
    """

    walls: Walls
    radio: Radio
    box: tuple[float, float, float, float]
    heights: tuple[float, ...] = ()

    def at_height(self, height: float) -> "Surroundings":
        """The same for users who are known to be at one height."""
        return replace(self, radio=replace(self.radio, user_height=height), heights=())


def surroundings(
    store: str,
    scene: int,
    edit: "Callable[[gpd.GeoDataFrame], gpd.GeoDataFrame] | None" = None,
    heights: Sequence[float] = (),
) -> Surroundings:
    """Walls and radio constants of one scene of a store.

    Parameters
    ----------
    store : str
        Folder or URL of a build or a version.
    scene : int
        Row of the store's arrays.
    edit : callable, optional
        From the scene's buildings to those that walls are taken from; see `walls_of`.
    heights : sequence of float, optional
        Heights in m, of which it is unknown which one is a user's; by default that of the store's users is known.

    Raises
    ------
    InputError
        The store lacks the buildings or a constant, or its panel is one that waves cannot be followed from; or a height is
        not between ground and base station.

    Examples
    --------
    >>> surroundings("runs/quickstart/store", 0).radio.drop  # doctest: +SKIP
    13.5
    """
    buildings, data = buildings_of(store, scene), open_store(store)
    bs = np.array(data.attrs["bs_position_m"][:2], np.float64)
    bs[0] += float(data["bs_shift"].values[scene])
    half = float(data.attrs["tile_size_m"]) / 2
    west, south, east, north = (limit - at for limit, at in zip((-half, -half, half, half), (*bs, *bs), strict=True))
    walls = walls_of(edit(buildings) if edit else buildings, bs)
    radio = radio_of({**attributes_of(data.attrs)}, store)
    for height in heights:
        if not 0 < height < radio.bs_height:
            raise InputError(
                f"heights: {height:g} m is not between the ground and the base station at {radio.bs_height:g} m"
            )
    return Surroundings(walls, radio, (west, south, east, north), tuple(heights))


def buildings_of(store: str, scene: int) -> "gpd.GeoDataFrame":
    """Buildings of one scene of a store: `geometry` in the scene's metres, `base` and `height` in m.

    `scene` is a row of the store's arrays; a row that is not there, or a store without buildings, raises InputError.
    """
    data = open_store(store)
    if not 0 <= scene < data.sizes["scene"]:
        raise InputError(f"{store}: no scene {scene}; its rows are 0 to {data.sizes['scene'] - 1}")
    name = str(data["scene_id"].values[scene])
    draft = load_draft(resolve(store).parent)
    path = draft.buildings_path(scene // draft.layout.unit)
    try:
        buildings = read_buildings(path)
    except (OSError, ValueError) as error:
        msg = (
            f"{path}: cannot be read ({str(error).splitlines()[0]}), so waves cannot be followed; build the store again"
        )
        raise InputError(msg) from error
    return buildings[buildings["scene_id"] == name]


def walls_of(buildings: "gpd.GeoDataFrame", bs: NDArray[np.float64]) -> Walls:
    """Walls of the footprints of a scene, relative to its base station.

    Parameters
    ----------
    buildings : GeoDataFrame
        `geometry` in the scene's metres, `base` and `height` above the ground.
    bs : float (2,)
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


def radio_of(attributes: dict[str, Any], store: str) -> Radio:
    """Constants of the link from a store's attributes.

    Raises
    ------
    InputError
        The panel is tilted, does not face south into the tile, is not of isotropic elements or wider apart than half a
        wavelength; users are not below it; or the store does not say how it was made.
    """
    recipe = attributes.get("recipe") or {}
    radio, users = recipe.get("radio") or {}, recipe.get("users") or {}
    if "ground_material" not in radio or "height" not in users:
        raise InputError(
            f"{store}: no recipe with radio.ground_material and users.height, which waves are followed with"
        )
    for field, wanted in (("pattern", "iso"), ("downtilt", 0.0), ("azimuth", -90.0)):
        if radio.get(field, wanted) != wanted:
            msg = f"{store}: radio.{field} is {radio[field]!r}; waves can be followed from a panel with {wanted!r} only"
            raise InputError(msg)
    if radio["ground_material"] not in MATERIALS:
        raise InputError(
            f"{store}: radio.ground_material {radio['ground_material']!r} is none of {', '.join(MATERIALS)}"
        )
    spacing = float(attributes["array"]["spacing_wavelengths"])
    if spacing > 0.5:
        raise InputError(f"{store}: antennas are {spacing:g} wavelengths apart; beyond 0.5 directions are ambiguous")
    if users["height"] >= attributes["bs_position_m"][2]:
        raise InputError(
            f"{store}: users.height {users['height']:g} m is not below the base station; no wave comes down"
        )
    frequency = float(attributes["frequency_hz"])
    return Radio(
        frequency=frequency,
        spacing=spacing,
        bs_height=float(attributes["bs_position_m"][2]),
        user_height=float(users["height"]),
        permittivity=permittivity(radio["ground_material"], frequency),
    )
