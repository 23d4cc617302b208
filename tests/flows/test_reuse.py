"""A new version keeps the scenes whose inputs have not changed, and says which and why not."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builds import build_version
from geo_maps import box, osm_xml

from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import files_below
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.flows import publishing, units
from wavecity.flows.recipe import Recipe, parse_recipe

# 4 x 4 tiles of 200 m with five tagged blocks each.
CORNERS = [(-300 + 200 * i, -300 + 200 * j) for i in range(4) for j in range(4)]
BLOCKS = [
    (box(x + dx, y + dy, x + dx + 55, y + dy + 40), {"building": "yes", "height": str(9 + (k + m) % 5)})
    for k, (x, y) in enumerate((x - 100, y - 100) for x, y in CORNERS)
    for m, (dx, dy) in enumerate([(10, 20), (80, 30), (20, 80), (110, 90), (40, 140)])
]


def town(path: Path, blocks: list = BLOCKS) -> Path:
    path.write_text(osm_xml(blocks, half=400.0))
    return path


def recipe_of(source: Path, **changes: object) -> Recipe:
    content: dict = {
        "name": "town",
        "seed": 3,
        "area": {"source": str(source), "city": "Town", "country": "FI", "scenes": 4, "tile_size": 200,
                 "min_coverage": 0.05, "split": {"by": "scene", "validation": 0.25, "test": 0.25}},
        "users": {"minimum": 10, "maximum": 12},
        "radio": {"columns": 4, "rows": 4},
        "solver": {"rays": 2000, "max_depth": 1, "max_paths": 4},
        "store": {"unit": 2, "grace": 0},
    }  # fmt: skip
    for key, value in changes.items():
        section, name = key.split("__")
        content[section][name] = value
    return parse_recipe(content, "test")


def origins(version) -> Counter[str]:
    receipts = load_draft(version.folder).receipts()
    return Counter(scene["origin"] for receipt in receipts for scene in receipt["scenes"])


def shards(version) -> dict[str, bytes]:
    names = [name for name in files_below(version.folder) if "/c/" in name or name.startswith("buildings")]
    return {name: (version.folder / name).read_bytes() for name in names}


@pytest.fixture(autouse=True)
def without_a_card(monkeypatch):
    """Its pictures take longer than all the rest; it has tests of its own."""
    monkeypatch.setattr(publishing, "write_card", lambda *_: None)


@pytest.fixture
def no_tracing(monkeypatch):
    """Counts what is traced from here on."""
    traced = []
    real = units.trace
    monkeypatch.setattr(units, "trace", lambda scene, *given: traced.append(scene.id) or real(scene, *given))
    return traced


def test_more_scenes_trace_only_the_new_ones_and_give_the_same_bytes(tmp_path, no_tracing):
    source = town(tmp_path / "town.osm")
    build_version(recipe_of(source), tmp_path / "store", tmp_path / "maps")
    assert len(no_tracing) == 4
    second = build_version(recipe_of(source, area__scenes=7), tmp_path / "store", tmp_path / "maps")
    assert len(no_tracing) == 7
    assert origins(second) == {"kept from v1: inputs unchanged": 4, "traced: not in v1": 3}
    fresh = build_version(recipe_of(source, area__scenes=7), tmp_path / "fresh", tmp_path / "maps")
    assert origins(fresh) == {"traced: no version before": 7}
    assert shards(second) == shards(fresh)


def test_a_changed_setting_traces_all_and_is_named(tmp_path):
    source = town(tmp_path / "town.osm")
    build_version(recipe_of(source), tmp_path / "store", tmp_path / "maps")
    second = build_version(recipe_of(source, solver__max_depth=2), tmp_path / "store", tmp_path / "maps")
    assert origins(second) == {"traced: changed: solver.max_depth": 4}


def test_what_only_puts_scenes_together_keeps_them(tmp_path, no_tracing):
    """Another split, another unit: the arrays stay, the statistics follow the new split."""
    source = town(tmp_path / "town.osm")
    first = build_version(recipe_of(source), tmp_path / "store", tmp_path / "maps")
    before = open_store(first.folder).load()
    changed = recipe_of(source, area__split={"by": "scene", "validation": 0.5, "test": 0.25}, store__unit=3)
    second = build_version(changed, tmp_path / "store", tmp_path / "maps")
    assert origins(second) == {"kept from v1: inputs unchanged": 4}
    assert len(no_tracing) == 4
    after = open_store(second.folder).load()
    np.testing.assert_array_equal(after["csi"].values, before["csi"].values)
    train = after["split"].values.astype(str) == "train"
    assert train.sum() == 1
    assert attributes_of(after.attrs)["statistics"]["n_samples"] == int((~after["outage"].values[train]).sum())


def test_a_scene_that_gets_another_number_of_users_with_its_split_is_traced_again(tmp_path):
    source = town(tmp_path / "town.osm")
    recipe = recipe_of(source, users__test=20)
    first = open_store(build_version(recipe, tmp_path / "store", tmp_path / "maps").folder).load()
    assert first.sizes["user"] == 20
    assert (first["n_users"].values == 20).tolist() == (first["split"].values == "test").tolist()
    more = recipe_of(source, users__test=20, area__split={"by": "scene", "validation": 0.25, "test": 0.5})
    second = build_version(more, tmp_path / "store", tmp_path / "maps")
    data = open_store(second.folder)
    assert (data["n_users"].values == 20).tolist() == (data["split"].values == "test").tolist()
    moved = int((data["split"].values != first["split"].values).sum())
    assert moved > 0
    assert origins(second)["kept from v1: inputs unchanged"] == 4 - moved


def test_a_new_map_traces_only_the_tiles_that_changed(tmp_path, no_tracing):
    source = town(tmp_path / "town.osm")
    recipe = recipe_of(source, area__scenes=16)
    build_version(recipe, tmp_path / "store", tmp_path / "maps")
    scenes = len(no_tracing)
    blocks = list(BLOCKS)
    blocks[25] = (blocks[25][0], {**blocks[25][1], "height": "16"})
    town(source, blocks)
    no_tracing.clear()
    second = build_version(recipe, tmp_path / "store", tmp_path / "maps")
    assert origins(second) == {
        "kept from v1: scene unchanged (changed: map of Town)": scenes - 1,
        "traced: changed: map of Town": 1,
    }
    changed = open_store(second.folder)["height"].max(("row", "column")).values
    assert len(no_tracing) == 1
    assert (changed == 16).sum() == 1
    # The provenance is that of the new map.
    receipts = load_draft(second.folder).receipts()
    assert len({s["provenance"]["map"]["sha256"] for receipt in receipts for s in receipt["scenes"]}) == 1


def test_damaged_scenes_are_not_kept(tmp_path):
    source = town(tmp_path / "town.osm")
    first = build_version(recipe_of(source), tmp_path / "store", tmp_path / "maps")
    shard = next(name for name in files_below(first.folder) if name.startswith("data.zarr/paths/delay/c/0"))
    content = bytearray((first.folder / shard).read_bytes())
    content[len(content) // 2] ^= 4
    (first.folder / shard).write_bytes(content)
    second = build_version(recipe_of(source, area__scenes=5), tmp_path / "store", tmp_path / "maps")
    counts = origins(second)
    assert counts["kept from v1: inputs unchanged"] == 2
    assert counts["traced: files of the version before are damaged"] == 2


def two_towns(folder: Path, other: list) -> Recipe:
    """Two maps; of the second one the blocks are given."""
    source = town(folder / "town.osm")
    (folder / "vik.osm").write_text(osm_xml(other, half=400.0))
    recipe = recipe_of(source)
    names = [("Town", "town.osm"), ("Vik", "vik.osm")]
    cities = [{"name": name, "country": "FI", "source": str(folder / file)} for name, file in names]
    area = {"source": str(source), "cities": cities, "scenes": 8, "tile_size": 200, "min_coverage": 0.05,
            "split": {"by": "city", "validation": 0, "test": 0.5}}  # fmt: skip
    return parse_recipe({**recipe.model_dump(mode="json"), "area": area}, "test")


def test_units_without_a_change_share_their_files_with_the_version_before(tmp_path, no_tracing):
    """As `make` and rsync's --link-dest do: a second name for the same bytes, and no second copy on the disk."""
    first = build_version(two_towns(tmp_path, BLOCKS), tmp_path / "store", tmp_path / "maps")
    higher = [(ring, {**tags, "height": "21"}) for ring, tags in BLOCKS]
    recipe = two_towns(tmp_path, higher)
    no_tracing.clear()
    second = build_version(recipe, tmp_path / "store", tmp_path / "maps")
    assert origins(second) == {"kept from v1: inputs unchanged": 4, "traced: changed: map of Vik": 4}
    assert all(scene.startswith("vik") for scene in no_tracing)
    for unit, receipt in enumerate(load_draft(second.folder).receipts()):
        shared = [(first.folder / name).samefile(second.folder / name) for name in receipt["files"]]
        assert all(shared) if unit < 2 else not any(shared)
    fresh = build_version(recipe, tmp_path / "fresh", tmp_path / "maps")
    assert shards(second) == shards(fresh)
    assert open_store(second.folder).attrs["statistics"] == open_store(fresh.folder).attrs["statistics"]


def test_a_shared_unit_may_have_another_number(tmp_path, no_tracing):
    """A city that comes before the others moves their units."""
    recipe = two_towns(tmp_path, BLOCKS)
    none = recipe.area.split.model_copy(update={"test": 0.0})

    def of(**area: object) -> Recipe:
        return recipe.model_copy(update={"area": recipe.area.model_copy(update={"split": none, **area})})

    one, both = of(cities=recipe.area.cities[1:], scenes=4), of()
    first = build_version(one, tmp_path / "store", tmp_path / "maps")
    no_tracing.clear()
    second = build_version(both, tmp_path / "store", tmp_path / "maps")
    assert len(no_tracing) == 4
    assert (first.folder / "data.zarr/csi/c/0/0/0/0").samefile(second.folder / "data.zarr/csi/c/2/0/0/0")
    assert (first.folder / "buildings/unit-00000.parquet").samefile(second.folder / "buildings/unit-00002.parquet")
    fresh = build_version(both, tmp_path / "fresh", tmp_path / "maps")
    assert shards(second) == shards(fresh)
