"""Materials by building in a store: its table, checks, card, and how it is built."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builds import build_version, recipe_with
from geo_maps import box, osm_xml

from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.card.croissant import describe as croissant
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import load_draft
from wavecity.dataset.materials import COLUMNS, MATERIALS, MOST_GLASS, SOURCES, has_materials, wrong_materials
from wavecity.dataset.publish import latest
from wavecity.flows.recipe import load_recipe
from wavecity.geo.materials import GLASS_OF, HOTELS, MATERIAL_OF, MATERIAL_SOURCES, OFFICES

TOWN = [
    (box(-70, 20, -30, 60), {"building": "office", "height": "20", "building:material": "brick"}),
    (box(-70, -60, -30, -20), {"building": "yes", "height": "9", "roof:material": "metal"}),
    (box(30, -60, 70, -20), {"building": "warehouse", "height": "9"}),
    (box(30, 20, 70, 60), {"building": "yes", "height": "12", "building:material": "glass"}),
]
SMALL = {
    "area.scenes": 1, "area.split.by": "scene", "area.split.validation": 0, "area.split.test": 0, "users.minimum": 20,
    "users.maximum": 20, "radio.columns": 4, "radio.rows": 4, "solver.rays": 20_000, "solver.max_depth": 1,
    "scene.materials": "{glass: true}",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(shared) -> Path:
    def build(folder: Path) -> None:
        (folder / "town.osm").write_text(osm_xml(TOWN, half=110.0), encoding="utf-8")
        place = {"area.source": folder / "town.osm", "area.city": "Town", "area.country": "FI"}
        build_version(recipe_with("quickstart", SMALL | place), folder / "store", folder / "maps")

    return shared("materials", build) / "store"


def test_the_table_says_what_buildings_are_made_of(store: Path) -> None:
    draft = load_draft(latest(store).folder)
    assert set(COLUMNS) <= set(pq.read_schema(draft.buildings_path(0)).names)
    rows = read_buildings(draft.buildings_path(0)).set_index("osm_id")[list(COLUMNS)]
    assert rows.loc[1000].tolist() == ["brick", "tag", "", "recipe", 0.4, "type"]
    assert rows.loc[1001].tolist() == ["", "recipe", "metal", "tag", 0.0, "none"]
    assert rows.loc[1002].tolist() == ["", "recipe", "", "recipe", 0.06, "type"]
    assert rows.loc[1003].tolist() == ["glass", "tag", "", "recipe", 0.0, "none"]


def test_it_is_valid_and_the_card_shows_them(store: Path) -> None:
    result = validate(store)
    assert result.ok, result.findings
    assert result.checks["materials"] == 1
    card = (latest(store).folder / "card.md").read_text(encoding="utf-8")
    assert "## What buildings are made of" in card
    lines = {
        tuple(cell.strip() for cell in line.split("|")[1:-1]) for line in card.splitlines() if line.startswith("|")
    }
    assert ("wall", "brick", SOURCES["tag"], "1", "25%") in lines
    assert ("wall", "concrete", SOURCES["recipe"], "2", "50%") in lines
    assert ("window", "glass", "by building type (ASHRAE 90.1-2019, table G3.1.1-1)", "2", "50%") in lines
    assert "What buildings are made of" in (latest(store).folder / "card.html").read_text(encoding="utf-8")
    (buildings,) = [part for part in croissant(latest(store).folder)["recordSet"] if part["name"] == "buildings"]
    assert {field["name"] for field in buildings["field"]} >= set(COLUMNS)


ROW = {
    "osm_type": "way", "osm_id": 7, "wall_material": "brick", "wall_material_source": "tag", "roof_material": "",
    "roof_material_source": "recipe", "glass_share": 0.31, "glass_share_source": "type",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"wall_material": "straw"}, "wall of way 7: material 'straw' of source 'tag'"),
        ({"wall_material": ""}, "wall of way 7"),
        ({"roof_material": "metal"}, "roof of way 7"),
        ({"wall_material_source": "hearsay"}, "wall of way 7"),
        ({"wall_material": "metal"}, "windows of way 7"),
        ({"glass_share": 0.7}, "windows of way 7"),
        ({"glass_share": -0.1}, "windows of way 7"),
        ({"glass_share": np.nan}, "windows of way 7"),
        ({"glass_share": 0.0}, "windows of way 7"),
    ],
)
def test_contradictions_are_found(change: dict[str, object], words: str) -> None:
    found = wrong_materials([ROW | change])
    assert words in found
    assert bool(found) == bool(words)


def test_the_check_knows_what_the_map_stage_gives() -> None:
    assert set(MATERIALS) == set(MATERIAL_OF.values())
    assert set(SOURCES) == set(MATERIAL_SOURCES)
    assert max([*GLASS_OF.values(), *(share for _, share in (*OFFICES, *HOTELS))]) == MOST_GLASS


def test_a_store_that_does_not_ask_has_none(toy_store: Path) -> None:
    plain = load_recipe("quickstart")
    assert "materials" not in plain.data_parts()["scene"]
    assert load_recipe("quickstart", ("scene.materials={}",)).data_parts()["scene"]["materials"] == {
        "tags": True,
        "glass": False,
    }
    assert "materials" not in validate(toy_store).checks
    assert not has_materials(pq.read_schema(load_draft(latest(toy_store).folder).buildings_path(0)).names)
