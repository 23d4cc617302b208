"""Stores of any number of scenes in seconds: real plan, schema and writer, channels of two paths a user.

Every scene is one block in the west and open ground in the east, a pure function of its number: users in the east have
the line of sight and its reflection by the ground, the last one stands behind the block and hears nothing.
"""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from wavecity.dataset.draft import Draft
from wavecity.dataset.features import best_beam, spectrum
from wavecity.dataset.files import StorePath, atomic_path
from wavecity.dataset.fingerprints import fingerprint_of
from wavecity.dataset.layout import Layout
from wavecity.dataset.writer import write_unit
from wavecity.geo.cities import cities_of
from wavecity.geo.plan import Plan, join_plans, plan_one
from wavecity.geo.settings import AreaSettings, CitySettings, SceneSettings
from wavecity.geo.tiles import Tile
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.channels import Channels, csi
from wavecity.raytrace.settings import RadioSettings

FREQUENCY = 28.5e9
BASE = np.array([0.0, 100.0, 15.0])
BLOCK = (-80, 20, -40, 60)  # west, south, east, north in m
CELLS, PATCHES = 20, 10  # of 10 m and 20 m: the block's edges are theirs
COUNTRIES = ("FI", "SE", "DE", "BR", "JP")


@dataclass(frozen=True)
class Scale:
    """Size of a store."""

    scenes: int
    cities: int
    users: int
    columns: int
    rows: int
    unit: int = 16

    @property
    def radio(self) -> RadioSettings:
        return RadioSettings(frequency=FREQUENCY, columns=self.columns, rows=self.rows)

    @property
    def layout(self) -> Layout:
        sizes = (self.scenes, self.users, self.columns, self.rows)
        return Layout(*sizes, 2, 1, CELLS, PATCHES, self.unit, 64, True, True, -200.0)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(vars(self))

    @property
    def attributes(self) -> dict:
        array = {"columns": self.columns, "rows": self.rows, "spacing_wavelengths": self.radio.spacing}
        return {
            "frequency_hz": FREQUENCY,
            "element_pattern": "iso",
            "element_gain_max_db": 0.0,
            "los_traced": True,
            "polarisation_matched": True,
            "array": array,
            "bs_position_m": BASE.tolist(),
            "tile_size_m": 200.0,
            "occupancy_threshold": 0.6,
            "split_by": "city",
        }


def make_plan(scale: Scale, seed: int = 7) -> Plan:
    """The plan as if every city had a map on which all tiles are usable; whole cities are held out."""
    cities = tuple(
        CitySettings(
            name=f"City {number:03d}",
            country=COUNTRIES[number % len(COUNTRIES)],
            latitude=-60.0 + 120.0 * (number // 20) / (scale.cities // 20 + 1),
            longitude=-170.0 + 17.0 * (number % 20),
        )
        for number in range(scale.cities)
    )
    area = AreaSettings(cities=cities, scenes=scale.scenes, radius=1500.0)
    planned = [plan_one(city, lambda _: None, area, SceneSettings(), seed) for city in cities_of(area)]
    accepted = [
        replace(plan, tiles=[replace(tile, status="accepted") for tile in plan.tiles if tile.status == "planned"])
        for plan in planned
    ]
    return join_plans(accepted, area, seed)


def block_height(scene: int) -> float:
    return 10.0 + scene % 23


def make_arrays(scale: Scale, scene: int) -> dict[str, np.ndarray]:
    """Arrays of a scene, as `features.scene_arrays` gives them."""
    random = np.random.default_rng(scene)
    count = int(random.integers(2, scale.users + 1))
    users = np.column_stack([random.uniform(0, 90, count), random.uniform(-90, 0, count), np.full(count, 1.5)])
    users[-1, :2] = -90, 0  # the line from the base station crosses the block 8 m above the ground
    position = (users - BASE).astype(np.float32)
    outage = np.arange(count) == count - 1

    # The direct path, and the one from the base station's mirror image below the ground.
    straight = position.astype(np.float64)
    ways = np.stack([straight, straight - [0, 0, 2 * 1.5]], axis=1)
    length = np.linalg.norm(ways, axis=-1)
    unit = ways / length[..., None]
    amplitude = SPEED_OF_LIGHT / (4 * np.pi * FREQUENCY * length) * [1.0, -0.5]
    gain = amplitude * np.exp(-2j * np.pi * (FREQUENCY * length / SPEED_OF_LIGHT % 1))
    heard = ~outage[:, None]

    def kept(values: np.ndarray, dtype: type = np.float32) -> np.ndarray:
        return np.where(heard, values, 0).astype(dtype)

    azimuth = np.arctan2(unit[..., 1], unit[..., 0])
    back = unit * [-1, -1, 1]
    back[:, 0, 2] *= -1  # seen from the user the direct path comes from above, the other one from the ground
    power = np.where(outage, 0, (np.abs(gain) ** 2).sum(1))
    channels = Channels(
        gain=kept(gain, np.complex64),
        delay=kept(length / SPEED_OF_LIGHT),
        aod_zenith=kept(np.arccos(unit[..., 2])),
        aod_azimuth=kept(azimuth),
        aoa_zenith=kept(np.arccos(back[..., 2])),
        aoa_azimuth=kept(np.arctan2(back[..., 1], back[..., 0])),
        doppler=np.zeros((count, 2), np.float32),
        interactions=kept(np.array([[0, 1]]), np.int8)[..., None],
        n_paths=np.where(outage, 0, 2).astype(np.int32),
        power_cut=np.zeros(count, np.float32),
        path_gain=np.where(outage, -200.0, 10 * np.log10(np.maximum(power, 1e-30))).astype(np.float32),
        los=~outage,
        outage=outage,
        vertices=np.zeros((count, 2, 1, 3), np.float32),
    )
    antennas = csi(channels, scale.radio)
    beams = best_beam(antennas)
    beams[outage] = -1
    height, occupancy = np.zeros((CELLS, CELLS), np.float32), np.zeros((PATCHES, PATCHES), np.uint8)
    west, south, east, north = BLOCK
    for raster, edge, value in ((height, 10, block_height(scene)), (occupancy, 20, 1)):
        raster[(100 - north) // edge : (100 - south) // edge, (west + 100) // edge : (east + 100) // edge] = value
    arrays = {
        "csi": antennas,
        "spectrum": spectrum(antennas),
        "height": height,
        "occupancy": occupancy,
        "user_position": position,
        "path_gain": channels.path_gain,
        "los": channels.los,
        "outage": outage,
        "best_beam": beams,
    }
    paths = ("gain", "delay", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth", "doppler", "interactions")
    return arrays | {f"paths/{name}": getattr(channels, name) for name in (*paths, "n_paths", "power_cut")}


def build_unit(draft: Draft, scale: Scale, unit: int, tiles: list[Tile]) -> int:
    """Write one unit with its buildings; runs in any process."""
    numbers = draft.layout.scenes_of(unit)
    scenes = [make_arrays(scale, scene) for scene in numbers]
    outcomes = [
        {
            "scene_id": tile.id,
            "city": tile.city,
            "country": tile.country,
            "latitude": tile.latitude,
            "longitude": tile.longitude,
            "split": tile.split,
            "status": "done",
            "n_users": len(arrays["los"]),
            "bs_shift": 0.0,
        }
        for tile, arrays in zip(tiles, scenes, strict=True)
    ]
    _write_buildings(draft.buildings_path(unit), [tile.id for tile in tiles], [block_height(n) for n in numbers])
    write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    return unit


def build_units(draft: Draft, scale: Scale, plan: Plan, units: list[int], each=map) -> list[int]:
    """Write units, each with its own tiles; `each` as in `wavecity.dataset.checks.validate`."""
    accepted = plan.accepted
    tiles = [[accepted[scene] for scene in draft.layout.scenes_of(unit)] for unit in units]
    return list(each(partial(_build_one, draft, scale), list(zip(units, tiles, strict=True))))


def _build_one(draft: Draft, scale: Scale, work: tuple[int, list[Tile]]) -> int:
    return build_unit(draft, scale, *work)


def _write_buildings(path: StorePath, ids: list[str], heights: list[float]) -> None:
    import geopandas as gpd
    from shapely import box

    columns = {
        "osm_type": "way",
        "osm_id": 1,
        "height": heights,
        "base": 0.0,
        "height_source": "tag",
        "confidence": 1.0,
    }
    table = gpd.GeoDataFrame({"scene_id": ids, **columns}, geometry=[box(*BLOCK)] * len(ids))
    with atomic_path(path) as temporary:
        table.to_parquet(temporary)
