"""A tiny published store of random paths: three cities, channels of a panel that is neither square nor level."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from toy import ATTRIBUTES, write_buildings

from wavecity.dataset.base_stations import attributes_for, with_links
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.publish import publish
from wavecity.dataset.writer import write_unit
from wavecity.geo.base_station_settings import BaseStationSettings
from wavecity.raytrace.arrays import SPEED_OF_LIGHT, best_beam
from wavecity.raytrace.channels import csi
from wavecity.raytrace.settings import RadioSettings

RADIO = RadioSettings(columns=8, rows=4, azimuth=-70.0, downtilt=9.0)
BASE = np.array([0.0, 100.0, 15.0])
PATHS, BOUNCES = 6, 3
SCENES = (
    ("alba-0001", "Alba", "train"),
    ("alba-0002", "Alba", "train"),
    # Its name has what DeepMIMO v3 takes for a scenario that moves.
    ("gdynia-0001", "Gdynia", "validation"),
    ("lost-0001", "Lost", "train"),
    ("Zug-0001", "Zug", "test"),
)
QUARANTINED = "lost-0001"
# Of the store with several base stations; where they stand is in `stations_of`.
SETTINGS = BaseStationSettings(positions=((98.0, 98.0, 21.0), (60.0, -95.0, 6.0)), power_dbm=24.0)


def random_paths(rng: np.random.Generator, users: int, position: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """Path arrays of users: the last one has none, of the others the line of sight is not always the strongest path."""
    if position is None:
        position = np.stack([rng.uniform(0, 90, users), rng.uniform(-90, 40, users), np.full(users, 1.5)], -1) - BASE
    distance = np.linalg.norm(position, axis=1)
    count = rng.integers(1, PATHS + 1, users)
    count[-1] = 0
    level = np.sort(rng.uniform(0.05, 0.9, (users, PATHS)), 1)[:, ::-1]
    friis = SPEED_OF_LIGHT / (4 * np.pi * RADIO.frequency * distance)
    gain = friis[:, None] * level * np.exp(2j * np.pi * rng.random((users, PATHS)))
    kinds = rng.choice([1, 2, 4, 8], (users, PATHS, BOUNCES))
    depth = rng.integers(1, BOUNCES + 1, (users, PATHS))
    kinds = np.where(np.arange(BOUNCES) < depth[..., None], kinds, 0)
    direct = rng.integers(0, 2, users)
    kinds[np.arange(users)[count > direct], direct[count > direct]] = 0
    there = np.arange(PATHS) < count[:, None]
    columns = {
        "gain": gain,
        "delay": distance[:, None] / SPEED_OF_LIGHT * rng.uniform(1.01, 3, (users, PATHS)),
        "aod_zenith": rng.uniform(0, np.pi, (users, PATHS)),
        "aod_azimuth": rng.uniform(-np.pi, np.pi, (users, PATHS)),
        "aoa_zenith": rng.uniform(0, np.pi, (users, PATHS)),
        "aoa_azimuth": rng.uniform(-np.pi, np.pi, (users, PATHS)),
        "doppler": np.zeros((users, PATHS)),
    }
    arrays = {
        f"paths/{name}": np.where(there, values, 0).astype(np.complex64 if name == "gain" else np.float32)
        for name, values in columns.items()
    }
    arrays["paths/interactions"] = np.where(there[..., None], kinds, 0).astype(np.int8)
    arrays["paths/n_paths"] = count.astype(np.int32)
    arrays["paths/power_cut"] = np.zeros(users, np.float32)
    arrays["user_position"] = position.astype(np.float32)
    # By geometry, which the block west of them does not hide.
    arrays["los"] = np.ones(users, bool)
    return arrays


def scene_values(seed: int, users: int) -> dict[str, np.ndarray]:
    """All arrays of a scene; its map is that of the toy store's block."""
    return with_channels(random_paths(np.random.default_rng(seed), users), RADIO)


def with_channels(arrays: dict[str, np.ndarray], radio: RadioSettings) -> dict[str, np.ndarray]:
    """Paths with the channels of a panel, and the map."""
    gain = arrays["paths/gain"]
    table = SimpleNamespace(**{name.removeprefix("paths/"): values for name, values in arrays.items()})
    arrays["csi"] = csi(table, radio)
    with np.errstate(divide="ignore"):
        level = 10 * np.log10((np.abs(gain.astype(np.complex128)) ** 2).sum(1))
    arrays["outage"] = np.isneginf(level)
    arrays["path_gain"] = np.maximum(level, -200).astype(np.float32)
    arrays["best_beam"] = best_beam(arrays["csi"])
    arrays["best_beam"][arrays["outage"]] = -1
    arrays["height"] = np.zeros((200, 200), np.float32)
    arrays["height"][40:75, 20:60] = 12.0
    arrays["occupancy"] = ((arrays["height"].reshape(20, 10, 20, 10) > 0).mean((1, 3)) > 0.6).astype(np.uint8)
    return arrays


def put_vertices(arrays: dict[str, np.ndarray], seed: int) -> None:
    """Random places of interactions, and the delays of the ways over them."""
    there = arrays["paths/interactions"] != 0
    place = np.random.default_rng(seed).uniform(-60, 60, (*there.shape, 3))
    arrays["paths/vertices"] = np.where(there[..., None], place, 0).astype(np.float32)
    for user, path in np.argwhere(arrays["paths/gain"] != 0):
        stops = arrays["paths/vertices"][user, path][there[user, path]]
        way = np.stack([np.zeros(3), *stops, arrays["user_position"][user]]).astype(np.float64)
        length = sum(float(np.linalg.norm(end - start)) for start, end in pairwise(way))
        arrays["paths/delay"][user, path] = length / SPEED_OF_LIGHT


def stations_of(row: int) -> list[tuple[np.ndarray, float] | None]:
    """Position and azimuth of the base stations of a scene of the store with several; the last is missing in odd ones."""
    first = BASE + np.array([2.0 * (row % 2), 0, 0])
    last = None if row % 2 else (np.array([60.0, -95.0, 6.0]), 123.0)
    return [(first, RADIO.azimuth), (np.array([98.0, 98.0, 21.0]), -135.0), last]


def link_values(row: int, number: int) -> dict[str, np.ndarray]:
    """Arrays of the links of a base station after the first."""
    users = scene_values(row, 5 + row)["user_position"].astype(float) + stations_of(row)[0][0]
    position, azimuth = stations_of(row)[number]
    paths = random_paths(np.random.default_rng([row, number]), 5 + row, users - position)
    return with_channels(paths, RADIO.model_copy(update={"azimuth": azimuth}))


def values_of(row: int, several: bool) -> dict[str, np.ndarray]:
    """Arrays of a scene, of several base stations those of all links."""
    first = scene_values(row, 5 + row)
    if not several:
        return first
    stations = stations_of(row)
    others = [station and link_values(row, number) for number, station in enumerate(stations[1:], 1)]
    return with_links(first, others, stations, SETTINGS, -200.0)


def build_paths_store(store: Path, with_paths: bool = True, vertices: bool = False, several: bool = False) -> None:
    """Publish the store; two scenes are a unit."""
    sizes = (5, 9, 8, 4, PATHS * with_paths, BOUNCES * with_paths, 200, 20, 2, 4)
    stations = 3 if several else 1
    layout = Layout(*sizes, False, with_paths, -200.0, with_vertices=vertices, base_stations=stations)
    draft = open_draft(store, "0123456789abcdef0123", layout)
    for unit in range(layout.units):
        outcomes, scenes = [], []
        for row in layout.scenes_of(unit):
            name, city, split = SCENES[row]
            done = name != QUARANTINED
            outcomes.append(
                {
                    "scene_id": name,
                    "city": city,
                    "country": "XX",
                    "latitude": 40.0 + row,
                    "longitude": 20.0,
                    "split": split,
                    "status": "done" if done else "quarantined",
                    "n_users": 5 + row if done else 0,
                    "bs_shift": 2.0 * (row % 2),
                    "reason": "toy",
                }
            )
            scenes.append(values_of(row, several) if done else None)
            if done and vertices:
                put_vertices(scenes[-1], row)
        write_buildings(draft.buildings_path(unit), outcomes)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    array = {"columns": RADIO.columns, "rows": RADIO.rows, "spacing_wavelengths": RADIO.spacing}
    attributes = {**ATTRIBUTES, "array": array, "element_pattern": "unknown", "los_traced": False}
    if several:
        attributes["base_stations"] = attributes_for(SETTINGS)
    finish_draft(draft, {**attributes, "recipe": {"radio": RADIO.model_dump(mode="json")}}, {"map": {"name": "toy"}})
    seal(draft)
    result = validate(draft.folder)
    assert result.ok, result.findings
    publish(store, draft.folder, keep=2)
