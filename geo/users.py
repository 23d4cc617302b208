"""Positions of the base station and the users."""

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wavecity.geo.errors import SceneError
from wavecity.geo.polygons import GRID
from wavecity.geo.seeding import generator
from wavecity.geo.settings import SceneSettings, UserSettings

SLIDE_STEP = 1.0
# The panel looks into the tile through this half-angle (degrees); a wall inside it within `bs_front` blocks it.
FRONT_HALF_ANGLE = 45.0
FRONT_CHORDS = 12
# Chords of a quarter circle around corners.
QUARTER = 8
# Less open ground than this share of the tile is no street scene; sampling users there would crowd a few courtyards.
MIN_OPEN = 0.05


def place_base_station(
    buildings: gpd.GeoDataFrame, size: float, settings: SceneSettings, beyond: BaseGeometry | None = None
) -> tuple[NDArray[np.float64], float]:
    """Base station at the top centre of the tile, shifted along the top edge where it cannot stand there.

    A position is good if no footprint (of whatever height: the mast needs ground) lies within `bs_clearance`, and no
    wall as high as the panel stands right in front of it. The nearest good position is chosen, east before west.

    Parameters
    ----------
    buildings : geopandas.GeoDataFrame
        Columns height, base (m) and geometry (local metres).
    size : float
        Edge of the tile in m.
    settings : SceneSettings
    beyond : shapely geometry, optional
        What is built outside the tile around its edge (`Footprints.beyond`).

    Returns
    -------
    position : float64 (3,)
        Metres in the scene's frame.
    shift : float
        Metres shifted east (negative: west).

    Raises
    ------
    SceneError
        No good position within `bs_max_shift`.
    """
    footprints = buildings.geometry.to_numpy()
    facing = ((buildings["height"] > settings.bs_height) & (buildings["base"] < settings.bs_height)).to_numpy()
    reach = min(settings.bs_max_shift, size / 2)
    steps = np.arange(0.0, reach + 1e-9, SLIDE_STEP)
    for shift in [0.0, *(sign * step for step in steps[1:] for sign in (1.0, -1.0))]:
        point = shapely.Point(shift, size / 2)
        if len(footprints) and shapely.distance(footprints, point).min() < settings.bs_clearance:
            continue
        if beyond is not None and beyond.distance(point) < settings.bs_clearance:
            continue
        if shapely.intersects(footprints[facing], front_sector(shift, size / 2, settings.bs_front)).any():
            continue
        return np.array([shift, size / 2, settings.bs_height]), float(shift)
    msg = f"no clear base station position within {settings.bs_max_shift:g} m of the top centre"
    raise SceneError(msg)


def front_sector(x: float, y: float, radius: float) -> BaseGeometry:
    """Ground in front of a panel at (x, y) that faces south: 90 degrees wide, `radius` m deep."""
    if radius <= 0:
        return Polygon()
    angle = np.radians(-90 + np.linspace(-FRONT_HALF_ANGLE, FRONT_HALF_ANGLE, FRONT_CHORDS + 1))
    # The chords lie outside of the circle, so that all of it is in the polygon.
    radius = radius / np.cos(np.radians(FRONT_HALF_ANGLE / FRONT_CHORDS))
    arc = np.column_stack([x + radius * np.cos(angle), y + radius * np.sin(angle)])
    return Polygon([(x, y), *arc])


def head_room(settings: UserSettings) -> float:
    """Height in m below which nothing may hang over a user: antenna and clearance."""
    return settings.height + settings.clearance


def open_ground(built: BaseGeometry, size: float, clearance: float) -> BaseGeometry:
    """Where a user may stand: the tile without everything built on and `clearance` m around it. Courtyards are open."""
    square = shapely.box(-size / 2, -size / 2, size / 2, size / 2)
    if clearance > 0:
        # Around a corner the buffer has chords; they must not cut into the clearance.
        built = shapely.buffer(built, clearance / np.cos(np.pi / (4 * QUARTER)), quad_segs=QUARTER)
    return shapely.difference(square, built, grid_size=GRID)


def place_users(
    built: BaseGeometry, size: float, settings: UserSettings, scene_id: str, seed: int, split: str = ""
) -> NDArray[np.float32]:
    """Users spread uniformly over the open ground, their number drawn from the recipe's range.

    Parameters
    ----------
    built : shapely geometry
        Union in local metres of all footprints without `head_room`: under a bridge or an overhang is open ground.
    size : float
        Edge of the tile in m.
    settings : UserSettings
    scene_id : str
        With `seed` decides every draw.
    seed : int
    split : str
        Scenes of the test split may have another number of users.

    Returns
    -------
    float32 (U, 3)
        Antenna positions in m in the scene's frame.

    Raises
    ------
    SceneError
        There is too little open ground.

    Examples
    --------
    >>> place_users(prints.union, 200.0, UserSettings(minimum=80, maximum=100), "helsinki-0003", seed=7).shape
    (83, 3)
    """
    ground = open_ground(built, size, settings.clearance)
    share = ground.area / size**2
    if share < MIN_OPEN:
        msg = f"open ground {100 * share:.1f} % below {100 * MIN_OPEN:g} %"
        raise SceneError(msg)
    random = generator(seed, scene_id, "users")
    count = int(random.integers(*settings.counts(split), endpoint=True))
    shapely.prepare(ground)
    chosen = np.empty((0, 2), dtype=np.float32)
    while len(chosen) < count:
        # Tested after rounding to float32, so that what is stored is what was tested.
        drawn = random.uniform(-size / 2, size / 2, (2 * count, 2)).astype(np.float32)
        inside = shapely.contains_xy(ground, drawn.astype(np.float64))
        chosen = np.concatenate([chosen, drawn[inside]])
    return np.column_stack([chosen[:count], np.full(count, settings.height, dtype=np.float32)])
