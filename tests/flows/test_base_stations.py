"""Several base stations of real scenes: each link is what a scene with that base station alone gives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from builds import build_version, recipe_with

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.derived import DerivedCsi
from wavecity.dataset.draft import load_draft
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.dataset.torch_batches import ShuffledChannels
from wavecity.dataset.torch_data import ChannelDataset
from wavecity.dataset.views import derived_csi
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe
from wavecity.flows.scenes import scene_of
from wavecity.geo.base_stations import place_others
from wavecity.geo.errors import InputError
from wavecity.raytrace.simulate import simulate_csi

SMALL = {
    "area.scenes": 1, "area.split.validation": 0, "area.split.test": 0, "users.minimum": 15, "users.maximum": 20,
    "radio.columns": 4, "radio.rows": 4, "solver.rays": 20_000, "solver.max_depth": 1, "store.unit": 1,
    "radio.pattern": "tr38901", "radio.downtilt": 5,
}  # fmt: skip
SEVERAL = {"scene.base_stations": "{rooftops: 1, positions: [[60, -60, 40]]}"}


def small(**more: object) -> Recipe:
    return recipe_with("quickstart", SMALL | more)


@pytest.fixture(scope="module")
def store(shared, maps):
    return shared("links", lambda folder: build_version(small(**SEVERAL), folder / "store", maps)) / "store"


def test_each_link_is_a_build_with_that_base_station_alone(store: Path, maps: Path) -> None:
    """Traced by itself, with a panel turned to where the store says that it faces."""
    recipe, every = small(**SEVERAL), open_store(store, bs="all")
    scene_id = str(every["scene"].values[0])
    scene = scene_of(recipe, scene_id, maps)
    source = plan_scenes(recipe, maps).sources["Helsinki"]
    others = place_others(scene, source, recipe.scene)
    assert [other is None for other in others] == [False, False]
    for number, other in enumerate([None, *others]):
        position, azimuth = (other.position, other.azimuth) if other else (scene.bs_position, -90.0)
        here = every.sel(bs=number).isel(scene=0, user=slice(len(scene.users)))
        np.testing.assert_array_equal(here["bs_position"], position)
        assert float(here["bs_azimuth"]) == np.float32(azimuth)
        radio = recipe.radio.model_copy(update={"azimuth": azimuth})
        channels, csi = simulate_csi(replace(scene, bs_position=position), radio, recipe.solver, recipe.seed)
        np.testing.assert_array_equal(here["csi"], csi)
        np.testing.assert_array_equal(here["path_gain"], channels.path_gain)
        np.testing.assert_array_equal(here["los"], channels.los)
        paths = open_store(store, "paths", bs=number).isel(scene=0, user=slice(len(scene.users)))
        for name in ("gain", "delay", "aod_azimuth", "interactions"):
            np.testing.assert_array_equal(paths[name], getattr(channels, name))
    assert every["los"].isel(scene=0).any("user").values.sum() >= 2
    assert len(np.unique(every["serving"])) > 1
    result = validate(store)
    assert result.ok, result.findings


def test_the_first_links_and_all_else_are_those_of_a_store_of_one(store: Path, maps: Path, tmp_path: Path) -> None:
    """Byte by byte: users and base station 0 do not depend on how many others there are."""
    alone = build_version(small(), tmp_path / "one", maps)
    several = latest(store)
    (one,), (more,) = (load_draft(version.folder).receipts() for version in (alone, several))
    assert {name: digest for name, digest in more["files"].items() if "/bs/" not in name} == one["files"]
    assert one["statistics"] == more["statistics"]
    with xr.open_zarr(alone.data) as data:
        assert "bs" not in data.dims
    assert not (alone.data / "bs").exists()
    assert "base_stations" not in (alone.data / "zarr.json").read_text()


def test_other_powers_trace_anew_and_a_longer_list_keeps(store: Path, maps: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store", symlinks=True)
    origins = []
    for more in (
        {"area.scenes": 2},
        {"scene.base_stations": "{rooftops: 1, positions: [[60, -60, 40]], power_dbm: 10}"},
    ):
        version = build_version(small(**SEVERAL | more), copy, maps)
        origins.append([scene["origin"] for unit in load_draft(version.folder).receipts() for scene in unit["scenes"]])
    assert sum(origin.startswith("kept from v1") for origin in origins[0]) == 1
    assert "scene.base_stations.power_dbm" in origins[1][0]
    assert open_store(copy, "bs")["sinr"].values[0, 0] < open_store(store, "bs")["sinr"].values[0, 0]
    attributes = json.loads(open_store(copy).attrs["base_stations"])
    assert attributes["transmit_power_dbm"] == 10


def test_other_arrays_of_any_link_follow_from_its_paths(store: Path) -> None:
    """By the panel's own size they are the stored channels, of which each base station's panel faces elsewhere."""
    stored, derived = open_store(store, bs="all")["csi"], derived_csi(store, bs="all")
    assert derived.dims == stored.dims
    scale = np.abs(stored).max().compute()
    np.testing.assert_allclose(derived.values, stored.values, atol=1e-5 * scale)
    np.testing.assert_allclose(derived_csi(store, bs=2).values, stored.sel(bs=2).values, atol=1e-5 * scale)
    np.testing.assert_allclose(derived_csi(store).values, stored.sel(bs=0).values, atol=1e-5 * scale)
    view = DerivedCsi(store)
    links = ChannelDataset(
        store, "train", (*view.fields, "csi", "bs/azimuth"), bs="all", transform=lambda sample: sample
    )
    for index in range(0, len(links), 5):
        sample = links[index]
        np.testing.assert_allclose(view(sample)["csi"], sample["csi"], atol=1e-5 * scale)
    with pytest.raises(InputError, match="has no bs/azimuth, where its base station faces"):
        view({name: value for name, value in sample.items() if name != "bs/azimuth"})
    batch = next(iter(ShuffledChannels(store, "train", links.fields, batch_size=30, bs="all", scenes_once=True)))
    np.testing.assert_allclose(view(batch)["csi"], batch["csi"], atol=1e-5 * scale)
