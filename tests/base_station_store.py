"""A small store with several base stations from a cheap generator: free space next to the block of `toy`, users that move."""

from collections.abc import Sequence
from dataclasses import replace

import geopandas as gpd
import numpy as np
import toy
from shapely import box

from wavecity.dataset.bands import stack_bands
from wavecity.dataset.base_stations import attributes_for, with_links
from wavecity.dataset.checks.line_of_sight import blocked_users
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.files import StorePath
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import Version, publish
from wavecity.dataset.vegetation import vegetation_attributes
from wavecity.dataset.writer import write_unit
from wavecity.geo.base_station_settings import BaseStationSettings
from wavecity.raytrace.arrays import SPEED_OF_LIGHT, best_beam, spectrum

SETTINGS = BaseStationSettings(positions=((98.0, 98.0, 15.0), (-30.0, -90.0, 6.0)), power_dbm=20.0)
# The last finds no place in scenes of an odd number.
STATIONS = [(toy.BASE, -90.0), (np.array([98.0, 98.0, 15.0]), -135.0), (np.array([-30.0, -90.0, 6.0]), 71.6)]
BLOCK = gpd.GeoDataFrame(
    {"osm_type": ["way"], "osm_id": [1], "height": [12.0], "base": [0.0]}, geometry=[box(-80, 25, -40, 60)]
)
STEPS, INTERVAL, SPACING, SUBCARRIERS, SIDE = 5, 0.1, 1e6, 2, 4
TRAJECTORY = {
    "interval_s": INTERVAL, "steps": STEPS, "subcarriers": SUBCARRIERS, "subcarrier_spacing_hz": SPACING,
    "fastest_mps": [2.0, 15.0, 7.0],
}  # fmt: skip
# Three trees and a wood with a clearing, on open ground; what they take is not traced.
SHAPES = {
    "trees": "[[60.0,-60.0,4.0,3.0,10.0],[40.0,-60.0,6.0,4.0,14.0],[-60.0,-40.0,3.0,2.0,8.0]]",
    "woods": "[[0.0,12.0,[[[-60,-90],[-20,-90],[-20,-50],[-60,-50],[-60,-90]],"
    "[[-50,-80],[-50,-60],[-30,-60],[-30,-80],[-50,-80]]]]]",
}
CROWN_LOSS = 6.0
ATTRIBUTES = toy.ATTRIBUTES | {
    "array": {"columns": SIDE, "rows": SIDE, "spacing_wavelengths": 0.5},
    "base_stations": attributes_for(SETTINGS),
}


def channels(way: np.ndarray, azimuth: float, carrier: float, offset: float = 0.0) -> np.ndarray:
    """Free-space channels (..., x, y) of users `way` (..., 3) from the base station, of a panel that faces `azimuth`."""
    distance = np.linalg.norm(way, axis=-1)
    gain = SPEED_OF_LIGHT / (4 * np.pi * carrier * distance)
    gain = gain * np.exp(-2j * np.pi * (carrier + offset) * distance / SPEED_OF_LIGHT)
    # Along the panel's horizontal axis, and along its vertical one.
    across = np.array([-np.sin(np.deg2rad(azimuth)), np.cos(np.deg2rad(azimuth)), 0])
    kx, ky = 0.5 * (way @ across) / distance, -0.5 * way[..., 2] / distance
    phase = kx[..., None, None] * np.arange(SIDE)[:, None] + ky[..., None, None] * np.arange(SIDE)
    return gain[..., None, None] * np.exp(2j * np.pi * phase)


def link(
    users: np.ndarray,
    velocity: np.ndarray,
    station: np.ndarray,
    azimuth: float,
    moving: bool,
    carrier: float = toy.FREQUENCY,
    crowns: bool = False,
) -> dict:
    """Arrays of the links from one base station to users (U, 3) in the scene's frame; with `crowns` in those of even users."""
    way = (users - station).astype(np.float32)
    hidden = blocked_users(BLOCK, users, station).blocked
    lost = np.where((np.arange(len(users)) % 2 == 0) & crowns & ~hidden, CROWN_LOSS, 0.0)
    weaker = 10 ** (-lost / 20)[:, None, None]
    csi = channels(way.astype(float), azimuth, carrier) * ~hidden[:, None, None] * weaker
    csi = csi.astype(np.complex64)
    count = len(users)
    distance = np.linalg.norm(way.astype(float), axis=-1)
    gain = np.where(hidden, 0, csi[:, 0, 0].astype(complex))
    beams = best_beam(csi)
    beams[hidden] = -1
    arrays = {
        "csi": csi, "spectrum": spectrum(csi), "user_position": way, "los": ~hidden, "outage": hidden,
        "path_gain": np.where(hidden, -200, 20 * np.log10(np.abs(gain) + 1e-30)).astype(np.float32), "best_beam": beams,
        "paths/interactions": np.zeros((count, 3, 1), np.int8), "paths/vertices": np.zeros((count, 3, 1, 3), np.float32),
        "paths/n_paths": (~hidden).astype(np.int32), "paths/power_cut": np.zeros(count, np.float32),
    }  # fmt: skip
    for name in ("gain", "delay", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth", "doppler"):
        arrays[f"paths/{name}"] = np.zeros((count, 3), np.complex64 if name == "gain" else np.float32)
    arrays["paths/gain"][:, 0] = gain
    arrays["paths/delay"][:, 0] = np.where(hidden, 0, distance / SPEED_OF_LIGHT)
    if crowns:
        arrays["paths/vegetation_loss"] = np.stack([lost, 0 * lost, 0 * lost], axis=1).astype(np.float32)
    if moving:
        time = INTERVAL * np.arange(STEPS)
        ways = way[:, None] + velocity[:, None] * time[:, None]
        band = [channels(ways, azimuth, carrier, offset) for offset in (-SPACING, 0.0)]
        along = np.stack(band, axis=2) * ~hidden[:, None, None, None, None] * weaker[:, None, None]
        arrays |= {
            "trajectory/csi": along.astype(np.complex64),
            "trajectory/position": ways.astype(np.float32),
            "trajectory/velocity": np.repeat(velocity[:, None], STEPS, axis=1).astype(np.float32),
            "trajectory/kind": (np.arange(count) % 3).astype(np.uint8),
        }
    return arrays


def station_of(scene: int, number: int) -> tuple[np.ndarray, float] | None:
    return None if number == 2 and scene % 2 else STATIONS[number]


def make_links(
    scene: int, n_users: int, moving: bool = False, carrier: float = toy.FREQUENCY, crowns: bool = False
) -> list[dict | None]:
    """Arrays of the links of all base stations of a scene at a carrier, with the maps; None where one found no place."""
    random = np.random.default_rng(scene)
    first = toy.make_arrays(random, n_users)
    users = first["user_position"].astype(float) + toy.BASE
    users[:, 2] = 1.5
    angle = random.uniform(0, 2 * np.pi, n_users)
    speed = random.uniform(0.5, 1, n_users) * np.array(TRAJECTORY["fastest_mps"])[np.arange(n_users) % 3]
    velocity = speed[:, None] * np.column_stack([np.cos(angle), np.sin(angle), 0 * angle])
    maps = {name: first[name] for name in ("height", "occupancy")}
    stations = (station_of(scene, number) for number in range(3))
    return [station and maps | link(users, velocity, *station, moving, carrier, crowns) for station in stations]


def make_scene(
    scene: int,
    n_users: int,
    moving: bool = False,
    carriers: Sequence[float] = (toy.FREQUENCY,),
    crowns: bool = False,
) -> dict[str, np.ndarray]:
    """Arrays of a scene with all base stations, at one carrier or several."""
    each = zip(*(make_links(scene, n_users, moving, carrier, crowns) for carrier in carriers), strict=True)
    links = [of[0] if len(of) == 1 or of[0] is None else stack_bands(of) for of in each]
    stations = [station_of(scene, number) for number in range(3)]
    return with_links(links[0], links[1:], stations, SETTINGS, -200.0)


def make_links_draft(
    store: StorePath, moving: bool = False, carriers: Sequence[float] = (toy.FREQUENCY,), crowns: bool = False
) -> Draft:
    """Four scenes in two units, as a draft; with `crowns` those of three trees and a wood in each."""
    several = len(carriers) if len(carriers) > 1 else 0
    layout = replace(
        toy.make_layout(scenes=4), columns=SIDE, rows=SIDE, base_stations=3, steps=STEPS if moving else 0,
        subcarriers=SUBCARRIERS if moving else 0, carriers=several, with_vegetation=crowns,
    )  # fmt: skip
    draft = open_draft(store, f"abcdef01234567890{several:d}{crowns:d}{moving:d}", layout)
    for unit in draft.missing():
        scenes, outcomes = [], []
        for scene in draft.layout.scenes_of(unit):
            outcome = {"scene_id": f"toy-{scene:04d}", "city": "Toy", "country": "FI", "latitude": 60.0}
            outcome |= {"longitude": 25.0, "split": ("train", "train", "validation", "test")[scene]}
            outcome |= {"n_users": 8 + scene, "status": "done", "bs_shift": 0.0}
            if crowns:
                outcome["provenance"] = {"vegetation": {"crowns": {"tree": 3, "row": 0, "wood": 1}, "shapes": SHAPES}}
            scenes.append(make_scene(scene, 8 + scene, moving, carriers, crowns))
            outcomes.append(outcome)
        toy.write_buildings(draft.buildings_path(unit), outcomes)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    attributes = ATTRIBUTES | ({"trajectory": TRAJECTORY} if moving else {})
    if several:
        attributes |= {"frequency_hz": carriers[0], "carriers": {"frequencies_hz": list(carriers)}}
    attributes |= {"vegetation": vegetation_attributes(5.7, 94.7)} if crowns else {}
    finish_draft(draft, attributes, {"map": {"name": "toy"}})
    seal(draft)
    return draft


def build_links_store(
    store: StorePath, moving: bool = False, carriers: Sequence[float] = (toy.FREQUENCY,), crowns: bool = False
) -> Version:
    """The same, published."""
    draft = make_links_draft(store, moving, carriers, crowns)
    result = validate(draft.folder)
    assert result.ok, result.findings
    return publish(store, draft.folder, keep=2)
