"""The recipe `temporal`, small, on the packaged map of Helsinki: built, stopped and resumed, kept, refused."""

import json

import numpy as np
import pytest
import yaml
from builds import build_version

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import files_below
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.geo.errors import InputError
from wavecity.raytrace.arrays import SPEED_OF_LIGHT

SMALL = (
    "area.source=helsinki", "area.cities=[]", "area.city=Helsinki", "area.country=FI", "area.scenes=2",
    "area.split.by=scene", "area.split.test=0.5", "area.split.validation=0", "users.minimum=9", "users.maximum=11",
    "solver.rays=5000", "solver.max_depth=1", "mobility.steps=8", "mobility.subcarriers=4", "store.unit=1",
)  # fmt: skip


def small(*more: str) -> Recipe:
    return load_recipe("temporal", (*SMALL, *more))


@pytest.fixture(scope="module")
def store(shared, maps):
    return shared("temporal", lambda folder: build_version(small(), folder / "store", maps)) / "store"


def test_it_is_valid_and_has_what_it_says(store):
    assert validate(store).ok
    data, moving = open_store(store), open_store(store, "trajectory")
    assert set(data["status"].values) == {"done"}
    assert dict(moving.sizes) == {"scene": 2, "user": 11, "time": 8, "axis": 3, "subcarrier": 4, "x": 16, "y": 1}
    assert attributes_of(data.attrs)["trajectory"]["kinds"] == {"0": "walker", "1": "vehicle", "2": "cyclist"}
    np.testing.assert_allclose(moving["time"], 0.35e-3 * np.arange(8))
    for scene in range(2):
        users = int(data["n_users"][scene])
        kind = moving["kind"][scene, :users].values
        assert set(kind) == {0, 1, 2}
        speed = np.linalg.norm(moving["velocity"][scene, :users].values, axis=-1).max(axis=1)
        assert (speed[kind == 0] <= 1.8 + 1e-5).all()
        assert (speed[kind == 2] >= 3.9).all()


def test_the_line_of_sight_turns_by_its_doppler(store):
    """Phase from snapshot to snapshot of users with (nearly) one path, from positions alone."""
    data, moving = open_store(store), open_store(store, "trajectory")
    gain = np.abs(open_store(store, "paths")["gain"].values) ** 2
    single = data["los"].values & (gain.max(-1) > 0.8 * gain.sum(-1)) & (gain.sum(-1) > 0)
    scene, user = np.nonzero(single)
    assert len(scene) >= 3
    csi, place = moving["csi"].values[scene, user, :, 2, 0, 0], moving["position"].values[scene, user].astype(float)
    shorter = -np.diff(np.linalg.norm(place, axis=-1), axis=1) / (SPEED_OF_LIGHT / 28.5e9)
    turned = np.angle(csi[:, 1:] * csi[:, :-1].conj() * np.exp(-2j * np.pi * shorter))
    assert np.median(np.abs(turned)) < 0.1


def test_stopped_and_resumed_it_is_the_same(store, maps, tmp_path):
    assert build_version(small(), tmp_path, maps, stop_after=1) is None
    version = build_version(small(), tmp_path, maps)
    there = (store / "latest.zarr").resolve().parent
    shards = [name for name in files_below(there) if name.startswith("data.zarr") and "/c/" in name]
    assert any(name.startswith("data.zarr/trajectory/csi/c/1") for name in shards)
    for name in shards:
        assert (version.folder / name).read_bytes() == (there / name).read_bytes(), name


def test_a_longer_list_keeps_scenes_and_other_ways_trace_anew(store, maps, tmp_path):
    import shutil

    copy = shutil.copytree(store, tmp_path / "store", symlinks=True)
    more = build_version(small("area.scenes=3"), copy, maps)
    origins = [scene["origin"] for receipt in load_draft(more.folder).receipts() for scene in receipt["scenes"]]
    assert sum(origin.startswith("kept from v1") for origin in origins) == 2
    assert validate(copy).ok
    slower = build_version(small("area.scenes=1", "mobility.interval=0.3e-3"), copy, maps)
    (receipt,) = load_draft(slower.folder).receipts()
    assert [scene["origin"] for scene in receipt["scenes"]] == ["traced: changed: mobility.interval"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mobility.cyclist=1", r"unknown key 'mobility.cyclist'; did you mean mobility.cyclists\?"),
        ("mobility.interval=0", r"mobility.interval = 0: input should be greater than 0"),
        ("mobility.cyclists=0.9", r"mobility: vehicles 0.33 and cyclists 0.9 .* together at most 1"),
        (
            "mobility.subcarrier_spacing=50e6",
            r"subcarriers x subcarrier_spacing is 3200 MHz, above 10% of radio.frequency",
        ),
        ("radio.rows=64", r"trajectories of a unit would take [0-9,]+ MB, .*store.unit"),
    ],
)
def test_wrong_recipes_are_one_line(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe("temporal", (override,))
    assert "\n" not in str(caught.value)


def test_diffuse_scattering_is_refused():
    with pytest.raises(InputError, match=r"solver.diffuse is true, but diffuse paths cannot be followed"):
        load_recipe("temporal", ("solver.diffuse=true", "radio.scattering=0.3"))


def test_a_file_may_change_it_and_a_recipe_without_mobility_is_as_before(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"base": "temporal", "name": "mine", "mobility": {"steps": 5}}))
    recipe = load_recipe(str(path))
    assert recipe.mobility is not None
    assert (recipe.mobility.steps, recipe.mobility.subcarriers, recipe.radio.rows) == (5, 64, 1)
    assert recipe.data_parts()["mobility"]["steps"] == 5
    still = load_recipe("temporal", ("mobility=null",))
    assert still.mobility is None
    assert json.dumps(still.data_parts())
