"""Radio maps as a feature of a dataset: what is stored, what `validate` finds, and a store without them as it was."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from builds import build_version, recipe_with
from command import wavecity as run
from radio_map_store import BLOCK, build_map_store, centres, make_maps
from toy import ATTRIBUTES, BASE, make_arrays

import wavecity
from wavecity.dataset.card.croissant import describe as croissant
from wavecity.dataset.checks.radio_map_footprints import check_footprints
from wavecity.dataset.checks.radio_maps import RADIO_MAP_CHECKS
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.describe import describe
from wavecity.dataset.draft import load_draft
from wavecity.dataset.importing.subset import subset
from wavecity.dataset.publish import latest
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.flows import fingerprint
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.fingerprint import FEATURES, code_fingerprint, code_of, fingerprint_below
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.scenes import scene_of
from wavecity.flows.units import jobs_of, run_unit
from wavecity.geo.errors import InputError
from wavecity.raytrace.radio_map_settings import METRICS
from wavecity.raytrace.simulate import simulate

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "area.scenes": 2, "area.split.validation": 0, "area.split.test": 0.5, "users.minimum": 40, "users.maximum": 50,
    "radio.columns": 4, "radio.rows": 4, "solver.rays": 20_000, "solver.max_depth": 1, "store.unit": 1,
}  # fmt: skip
GRID = {"features.radio_map": "{spacing: 5, metrics: [" + ", ".join(METRICS) + "]}"}


def small(**more: object) -> Recipe:
    return recipe_with("quickstart", SMALL | GRID | more)


@pytest.fixture(scope="module")
def store(shared, maps):
    return shared("radio-maps", lambda folder: build_version(small(), folder / "store", maps)) / "store"


@pytest.fixture(scope="module")
def toy(shared):
    return shared("toy-radio-maps", lambda folder: build_map_store(folder / "store")) / "store"


def test_cells_are_what_the_path_solver_gives_a_user_there(store: Path, maps: Path) -> None:
    stored, recipe = open_store(store, "radio_map").load(), small()
    scene = scene_of(recipe, str(stored["scene"].values[1]), maps)
    here = stored.isel(scene=1)
    ground = np.isfinite(here["path_gain"].values)
    users = centres(40)[ground]
    channels = simulate(replace(scene, users=users.astype(np.float32)), recipe.radio, recipe.solver, recipe.seed)
    np.testing.assert_allclose(here["path_gain"].values[ground], channels.path_gain, atol=1e-3)
    np.testing.assert_array_equal(here["los"].values[ground], channels.los)
    np.testing.assert_array_equal(here["n_paths"].values[ground], channels.n_paths)
    assert (here["best_beam"].values[ground] >= 0).tolist() == (~channels.outage).tolist()
    assert here["los"].values[ground].mean() > 0.05


def test_the_store_says_what_it_has(store: Path) -> None:
    found = open_store(store, "radio_map")
    assert set(found.data_vars) == set(METRICS)
    for name, array in found.data_vars.items():
        assert array.dims == ("scene", "map_row", "map_column")
        assert array.dtype == np.float32
        assert (array.attrs["units"], array.attrs["long_name"]) == METRICS[name]
        assert (array.attrs["spacing_m"], array.attrs["receiver_height_m"]) == (5.0, 1.5)
    np.testing.assert_array_equal(found["north"], centres(40)[:, 0, 1])
    np.testing.assert_array_equal(found["east"], centres(40)[0, :, 0])
    root = open_store(store)
    assert found["scene"].values.tolist() == root["scene_id"].values.tolist()
    attributes = attributes_of(root.attrs)
    assert attributes["radio_map"] == {"spacing_m": 5.0, "receiver_height_m": 1.5}
    assert "middle of each cell" in attributes["conventions"]["radio_map"]
    fields = {field["name"]: field for field in describe(store)["fields"]}
    assert fields["radio_map/delay_spread"]["units"] == "ns"
    assert fields["radio_map/delay_spread"]["bytes"] > 0
    card = (latest(store).folder / "card.md").read_text(encoding="utf-8")
    assert "in cells of 5 m, 1.5 m above ground" in card
    assert "radio\\_map/best\\_beam" in card or "`radio_map/best_beam`" in card
    inspected = run("inspect", store)
    assert "radio maps" in inspected.stdout
    names = [part["name"] for part in croissant(latest(store).folder)["recordSet"]]
    assert "radio_map-arrays" in names


def test_it_is_valid_and_each_check_has_run(store: Path) -> None:
    result = validate(store)
    assert result.ok, result.findings
    assert {name: result.checks[name] for name in result.checks if name.startswith("radio map")} == {
        "radio map": 2,
        "radio map users": 2,
        "radio map buildings": 2,
    }


def test_every_file_of_the_maps_counts_in_the_size(store: Path) -> None:
    """The forecast adds up the files of a store; receipts say what each unit wrote."""
    for receipt in load_draft(latest(store).folder).receipts():
        sizes = [size for name, size in receipt["sizes"].items() if name.startswith("data.zarr/radio_map/")]
        assert len(sizes) == len(METRICS)
        assert min(sizes) > 0


def scene_arrays(seed: int = 1, users: int = 40) -> dict[str, np.ndarray]:
    return make_arrays(np.random.default_rng(seed), users) | make_maps(100) | {"bs_shift": np.float32(0)}


def findings(arrays: dict[str, np.ndarray]) -> list[str]:
    attributes = ATTRIBUTES | {"radio_map": {"spacing_m": 2.0, "receiver_height_m": 1.5}}
    found = [name for name, check in RADIO_MAP_CHECKS.items() if check(arrays, 40, attributes)]
    return found + ["radio map buildings"] * bool(check_footprints(BLOCK, arrays, attributes))


def test_nothing_is_found_in_right_maps() -> None:
    assert findings(scene_arrays()) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda gain: gain[:, ::-1], "radio map buildings"),  # west is east
        (lambda gain: gain[::-1], "radio map users"),  # north is south
        (lambda gain: gain.T, "radio map users"),
        (lambda gain: np.where(gain > -200, gain - 2, gain), "radio map users"),  # of another transmitter
        (lambda gain: np.where(gain > -200, gain + 12, gain), "radio map"),
        (lambda gain: np.roll(gain, 2, axis=1), "radio map buildings"),
        (lambda gain: np.where(np.isnan(gain), -120, gain), "radio map"),
        (lambda gain: np.where(gain > -110, np.inf, gain), "radio map"),
    ],
)
def test_a_wrong_path_gain_is_found(change, check: str) -> None:
    arrays = scene_arrays()
    changed = change(arrays["radio_map/path_gain"]).astype(np.float32)
    maps = {name: values for name, values in arrays.items() if not name.startswith("radio_map/")}
    alone = maps | {"radio_map/path_gain": changed}
    found = findings(alone) + findings(arrays | {"radio_map/path_gain": changed})
    assert check in found


@pytest.mark.parametrize(
    ("name", "change", "check"),
    [
        ("los", lambda los: np.where(np.isnan(los), np.nan, 1 - los), "radio map users"),
        ("los", lambda los: np.where(np.isnan(los), np.nan, 1.0), "radio map buildings"),
        ("los", lambda los: los / 2, "radio map"),
        ("n_paths", lambda count: count * 0, "radio map"),
        ("best_beam", lambda beam: beam + 2000, "radio map"),
    ],
)
def test_other_wrong_metrics_are_found(name: str, change, check: str) -> None:
    arrays = scene_arrays()
    arrays[f"radio_map/{name}"] = change(arrays[f"radio_map/{name}"]).astype(np.float32)
    assert check in findings(arrays)


def test_users_at_another_height_are_not_compared() -> None:
    arrays = scene_arrays()
    arrays["radio_map/path_gain"] -= 3
    assert "radio map users" in findings(arrays)
    arrays["user_position"][:, 2] += 5
    assert "radio map users" not in findings(arrays)


def test_parts_of_a_store_keep_them_or_leave_them_out(toy: Path, tmp_path: Path) -> None:
    subset(toy, tmp_path / "with", scenes=["dd-4", "aa-0"])
    here, there = open_store(tmp_path / "with", "radio_map"), open_store(toy, "radio_map")
    np.testing.assert_array_equal(here["path_gain"], there["path_gain"].sel(scene=here["scene"].values))
    subset(toy, tmp_path / "without", scenes=["dd-4"], fields=["csi"])
    with pytest.raises(InputError, match=r"has no group 'radio_map'; build it with features.radio_map"):
        open_store(tmp_path / "without", "radio_map")
    attributes = wavecity.attributes_of(open_store(tmp_path / "without").attrs)
    assert "radio_map" not in attributes
    assert "radio_map" not in attributes["conventions"]
    assert validate(tmp_path / "without").ok


def units_of(recipe: Recipe, store: Path, maps: Path) -> tuple[dict[str, str], zarr.Group]:
    """Origins of the scenes of a draft with all its units, and its radio maps."""
    plan = plan_scenes(recipe, maps)
    reuse, draft = reuse_of(recipe, plan, store), draft_of(recipe, plan, store)
    for unit in draft.missing():
        run_unit(draft, unit, jobs_of(draft, unit, plan, reuse), plan.sources, recipe)
    scenes = [scene for receipt in draft.receipts() for scene in receipt["scenes"]]
    group = zarr.open_group(draft.folder / "data.zarr", mode="r")["radio_map"]
    return {scene["scene_id"]: scene["origin"] for scene in scenes}, group


def test_a_longer_list_keeps_maps(store: Path, maps: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store", symlinks=True)
    origins, longer = units_of(small(**{"area.scenes": 3}), copy, maps)
    before = open_store(store, "radio_map")["n_paths"].load()
    assert [origin.startswith("kept from v1") for origin in origins.values()].count(True) == 2
    for row, (scene, origin) in enumerate(origins.items()):
        if origin.startswith("kept from v1"):
            np.testing.assert_array_equal(longer["n_paths"][row], before.sel(scene=scene))
        assert np.isfinite(longer["n_paths"][row]).any()


def test_another_grid_traces_anew(store: Path, maps: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store", symlinks=True)
    recipe = small(**{"area.scenes": 1, "features.radio_map": "{spacing: 10, metrics: [los]}"})
    origins, coarse = units_of(recipe, copy, maps)
    (origin,) = origins.values()
    assert "changed: features.radio_map" in origin
    assert coarse["los"].shape == (1, 20, 20)


def test_without_them_nothing_has_changed(toy_store: Path) -> None:
    """Neither what is written of a recipe, nor a fingerprint, nor a store's files and metadata."""
    plain = load_recipe("quickstart")
    assert plain.model_dump(mode="json")["features"] == {"spectrum": True, "paths": True}
    assert code_of(plain) == code_fingerprint() == fingerprint_below(ROOT)
    draft = json.loads((latest(toy_store).folder / "draft.json").read_text())
    assert set(draft["layout"]) == {
        "scenes", "users", "columns", "rows", "paths", "bounces", "height_cells", "occupancy_patches", "unit",
        "users_per_chunk", "with_spectrum", "with_paths", "gain_floor", "steps", "subcarriers",
    }  # fmt: skip
    assert "radio_map" not in (latest(toy_store).folder / "data.zarr" / "zarr.json").read_text()
    asked = load_recipe("quickstart", ("features.radio_map={}",))
    assert asked.data_parts()["features"]["radio_map"] == {"spacing": 1.0, "height": 1.5, "metrics": ["path_gain"]}
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked


def test_the_code_of_radio_maps_counts_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load_recipe("quickstart", ("features.radio_map={}",))
    assert code_of(asked) == code_fingerprint(("radio_map",)) != code_fingerprint()
    # Of the modules that count everywhere one will do.
    monkeypatch.setattr(fingerprint, "DATA", {"geo": ("seeding",)})
    for folder in ("geo", "raytrace"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    before, without = fingerprint_below(tmp_path, ("radio_map",)), fingerprint_below(tmp_path)
    assert before != without
    for folder, names in FEATURES["radio_map"].items():
        for name in names:
            path = tmp_path / folder / f"{name}.py"
            path.write_text(path.read_text(encoding="utf-8") + "\nCHANGED = 1\n", encoding="utf-8")
            after = fingerprint_below(tmp_path, ("radio_map",))
            assert after != before
            before = after
    assert fingerprint_below(tmp_path) == without


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{spacing: 7}", "features.radio_map.spacing: 7 m does not divide the tile of 200 m; choose a divisor"),
        ("{spacing: 0}", "features.radio_map.spacing = 0: input should be greater than 0"),
        ("{metrics: [los, los]}", "features.radio_map.metrics: los: name each metric once"),
        ("{metrics: [rsrp]}", r"features.radio_map.metrics.0 = 'rsrp': input should be 'path_gain', 'los'"),
        ("{spacing: 0.05, metrics: [los]}", "radio maps of a unit would take 1,024 MB, more than 1,000"),
        ("{step: 2}", "unknown key 'features.radio_map.step'"),
    ],
)
def test_wrong_recipes_are_one_line(value: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_recipe(
            "quickstart", (f"features.radio_map={value}", "store.unit=16", "users.maximum=24", "users.minimum=8")
        )


def test_diffuse_scattering_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"radio maps have no diffuse paths; set it to false, or features.radio_map to"
    ):
        load_recipe("quickstart", ("features.radio_map={}", "solver.diffuse=true", "radio.scattering=0.3"))


def test_the_base_station_may_be_shifted() -> None:
    arrays = make_arrays(np.random.default_rng(1), 40) | make_maps(100, shift=4.0)
    # Users stay where they are in the tile; what is stored is relative to the base station.
    position = arrays["user_position"] + BASE
    moved = BASE + np.array([4.0, 0, 0])
    arrays["user_position"] = (position - moved).astype(np.float32)
    distance = np.linalg.norm(arrays["user_position"].astype(float), axis=-1)
    before = np.linalg.norm(position - BASE, axis=-1)
    arrays["path_gain"] = np.where(arrays["outage"], -200, arrays["path_gain"] + 20 * np.log10(before / distance))
    assert findings(arrays | {"bs_shift": np.float32(4.0)}) == []
    assert "radio map" in findings(arrays | {"bs_shift": np.float32(-20.0)})
