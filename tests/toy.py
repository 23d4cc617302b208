"""A small store from a cheap generator: real schema, real writer, channels of a few plane waves."""

import numpy as np

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import Draft, open_draft
from wavecity.dataset.files import StorePath, atomic_path
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.publish import Version, publish
from wavecity.dataset.writer import write_unit
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

FREQUENCY = 28.5e9
BASE = np.array([0.0, 100.0, 15.0])
ATTRIBUTES = {
    "frequency_hz": FREQUENCY,
    "element_pattern": "iso",
    "element_gain_max_db": 0.0,
    "los_traced": True,
    "polarisation_matched": True,
    "array": {"columns": 32, "rows": 32, "spacing_wavelengths": 0.5},
    "bs_position_m": BASE.tolist(),
    "tile_size_m": 200.0,
    "occupancy_threshold": 0.6,
    "split_by": "scene",
}


def make_layout(scenes: int = 6, unit: int = 2, users: int = 12) -> Layout:
    return Layout(scenes, users, 32, 32, 3, 2, 200, 20, unit, 5, True, True, -200.0)


def make_arrays(rng: np.random.Generator, n_users: int) -> dict[str, np.ndarray]:
    """Free-space channels of users on open ground beside one block: LoS path only, or outage for the last user."""
    height = np.zeros((200, 200), np.float32)
    height[40:75, 20:60] = 12.0
    occupancy = (height.reshape(20, 10, 20, 10) > 0).mean((1, 3)) > 0.6
    position = np.stack([rng.uniform(0, 90, n_users), rng.uniform(-90, 0, n_users), np.full(n_users, 1.5)], -1)
    position[-1, :2] = -90, 20  # behind the block
    position = (position - BASE).astype(np.float32)
    distance = np.linalg.norm(position.astype(np.float64), axis=-1)
    gain = (
        SPEED_OF_LIGHT
        / (4 * np.pi * FREQUENCY * distance)
        * np.exp(-2j * np.pi * FREQUENCY * distance / SPEED_OF_LIGHT)
    )
    outage = np.arange(n_users) == n_users - 1
    gain[outage] = 0
    kx, ky = -0.5 * position[:, 0] / distance, -0.5 * position[:, 2] / distance
    phase = kx[:, None, None] * np.arange(32)[:, None] + ky[:, None, None] * np.arange(32)
    csi = (gain[:, None, None] * np.exp(2j * np.pi * phase)).astype(np.complex64)
    power = np.abs(np.fft.fft2(csi)) ** 2
    # Literal eq. 15 beam powers: |sum conj(h) a_k|^2 is the inverse transform's power.
    beams = (np.abs(np.fft.ifft2(csi)) ** 2).reshape(n_users, -1).argmax(-1).astype(np.int16)
    beams[outage] = -1
    paths = np.zeros((n_users, 3))
    arrays = {
        "csi": csi,
        "spectrum": power.astype(np.float32),
        "height": height,
        "occupancy": occupancy.astype(np.uint8),
        "user_position": position,
        "path_gain": np.where(outage, -200, 20 * np.log10(np.abs(gain) + 1e-30)).astype(np.float32),
        "los": ~outage,
        "outage": outage,
        "best_beam": beams,
        "paths/interactions": np.zeros((n_users, 3, 1), np.int8),
        "paths/n_paths": (~outage).astype(np.int32),
        "paths/power_cut": np.zeros(n_users, np.float32),
    }
    for name in ("gain", "delay", "aod_zenith", "aod_azimuth", "aoa_zenith", "aoa_azimuth", "doppler"):
        arrays[f"paths/{name}"] = paths.astype(np.complex64 if name == "gain" else np.float32)
    arrays["paths/gain"][:, 0] = gain
    arrays["paths/delay"][:, 0] = np.where(outage, 0, distance / SPEED_OF_LIGHT)
    return arrays


def write_synthetic_unit(draft: Draft, unit: int) -> dict:
    """Write one unit; scene 3 is quarantined."""
    scenes, outcomes = [], []
    for scene in draft.layout.scenes_of(unit):
        rng = np.random.default_rng(scene)
        n_users = 8 + scene % 4
        split = ("train", "train", "validation", "train", "test", "test")[scene % 6]
        outcome = {"scene_id": f"toy-{scene:04d}", "city": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0}
        outcome |= {"split": split, "n_users": n_users, "status": "done", "bs_shift": 0.0}
        if scene == 3:
            outcome |= {"status": "quarantined", "n_users": 0, "stage": "scene", "reason": "SceneError: toy"}
            scenes.append(None)
        else:
            scenes.append(make_arrays(rng, n_users))
        outcomes.append(outcome)
    write_buildings(draft.buildings_path(unit), outcomes)
    return write_unit(draft, unit, scenes, outcomes, {"seed": 0})


def write_buildings(path: StorePath, outcomes: list[dict]) -> None:
    """The block of `make_arrays`' height map, for every scene that is done."""
    import geopandas as gpd
    from shapely import MultiPolygon, box

    ids = [outcome["scene_id"] for outcome in outcomes if outcome["status"] == "done"]
    block = MultiPolygon([box(-80, 25, -40, 60)])
    columns = {"osm_type": "way", "osm_id": 1, "height": 12.0, "base": 0.0, "height_source": "tag", "confidence": 1.0}
    table = gpd.GeoDataFrame({"scene_id": ids, **columns}, geometry=[block] * len(ids))
    with atomic_path(path) as temporary:
        table.to_parquet(temporary)


def build_store(
    store: str | StorePath, layout: Layout | None = None, fingerprint: str = "0123456789abcdef0123"
) -> Version:
    draft = open_draft(store, fingerprint, layout or make_layout())
    for unit in draft.missing():
        write_synthetic_unit(draft, unit)
    finish_draft(draft, ATTRIBUTES, {"map": {"name": "toy"}})
    seal(draft)
    result = validate(draft.folder)
    assert result.ok, result.findings
    return publish(store, draft.folder, keep=2)
