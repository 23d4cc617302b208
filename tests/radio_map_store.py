"""A small store with radio maps from a cheap generator: free space, and the shadow of one block."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
from shapely import box, points
from toy import ATTRIBUTES, BASE, FREQUENCY, make_arrays, make_layout, write_buildings

from wavecity.dataset.checks.line_of_sight import blocked_users
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import StorePath
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.publish import Version, publish
from wavecity.dataset.writer import write_unit
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

# The block of `toy`, as its store's table of buildings has it.
BLOCK = gpd.GeoDataFrame(
    {"osm_type": ["way"], "osm_id": [1], "height": [12.0], "base": [0.0]}, geometry=[box(-80, 25, -40, 60)]
)
CITIES = (("Aa", "train"), ("Aa", "train"), ("Bb", "train"), ("Cc", "validation"), ("Dd", "test"), ("Ee", "test"))


def centres(cells: int, size: float = 200.0, height: float = 1.5) -> np.ndarray:
    """Points (cells, cells, 3) in the middle of cells, row 0 north."""
    middle = (np.arange(cells) + 0.5) * size / cells - size / 2
    east, north = np.meshgrid(middle, -middle)
    return np.stack([east, north, np.full_like(east, height)], axis=-1)


def make_maps(cells: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Radio maps of a scene whose base station stands `shift` m further east."""
    at, source = centres(cells), BASE + np.array([shift, 0, 0])
    friis = 20 * np.log10(SPEED_OF_LIGHT / (4 * np.pi * FREQUENCY * np.linalg.norm(at - source, axis=-1)))
    hidden = blocked_users(BLOCK, at.reshape(-1, 3), source).blocked.reshape(cells, cells)
    built = BLOCK.geometry[0].contains(points(at[..., :2]))
    values = {
        "path_gain": np.where(hidden, -200.0, friis),
        "los": ~hidden,
        "n_paths": ~hidden,
        "best_beam": np.where(hidden, -1, 0),
    }
    return {f"radio_map/{name}": np.where(built, np.nan, of).astype(np.float32) for name, of in values.items()}


def build_map_store(store: StorePath, cells: int = 40, users: int = 30) -> Version:
    """Six scenes of five cities, the last two of them for the test."""
    layout = make_layout(users=users)
    metrics = ("path_gain", "los", "n_paths", "best_beam")
    draft = open_draft(store, "fedcba98765432100123", replace(layout, map_metrics=metrics, map_cells=cells))
    for unit in draft.missing():
        scenes, outcomes = [], []
        for scene in draft.layout.scenes_of(unit):
            city, split = CITIES[scene]
            outcome = {"scene_id": f"{city.lower()}-{scene}", "city": city, "country": "FI", "split": split}
            outcome |= {"latitude": 60.0, "longitude": 25.0, "n_users": users, "status": "done", "bs_shift": 0.0}
            scenes.append(make_arrays(np.random.default_rng(scene), users) | make_maps(cells))
            outcomes.append(outcome)
        write_buildings(draft.buildings_path(unit), outcomes)
        write_unit(draft, unit, scenes, outcomes, {"seed": 0})
    grid = {"spacing_m": 200.0 / cells, "receiver_height_m": 1.5}
    finish_draft(draft, ATTRIBUTES | {"split_by": "city", "radio_map": grid}, {"map": {"name": "toy"}})
    seal(draft)
    result = validate(draft.folder)
    assert result.ok, result.findings
    return publish(store, draft.folder, keep=2)
