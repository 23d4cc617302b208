"""The invented maps and recipes that once went wrong: what `wavecity plan` says of each, and where docs say it."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import shapely
from command import wavecity

from wavecity.geo.build import build_scene
from wavecity.geo.projection import project
from wavecity.geo.settings import AreaSettings, SceneSettings, UserSettings
from wavecity.geo.sources import open_source
from wavecity.geo.tiles import plan_tiles

ROOT = Path(__file__).resolve().parents[2]
B = "faults/b.yaml"
# Arguments of `plan`, exit code, and what it prints; a map is put into b.yaml as `area.source`.
CASES = [
    ("good.osm", 0, "1 of 1 tiles accepted"),
    ("self-crossing.osm", 0, "1 of 17 buildings in the map were repaired: ring crossed itself 1"),
    ("geometry.osm", 0, "3 of 20 buildings in the map cannot be built: ring that does not close 1, rings without area 1, "),
    ("heights.osm", 0, "7 height tags could not be read: height=five 1"),
    ("only-parts.osm", 0, "no height is stated by the map"),
    ("null-island.osm", 0, "1 of 1 tiles accepted"),
    ("near-antimeridian.osm", 0, "1 of 1 tiles accepted"),
    ("antimeridian.osm", 0, "1 of 1 tiles accepted"),
    ("fiji-bounds.osm", 0, "1 of 9 tiles accepted"),
    ("negative-ids.osm", 0, "1 of 1 tiles accepted"),
    ("bs-inside.osm", 0, "1 of 1 tiles accepted"),
    ("colon: name.osm", 0, "1 of 1 tiles accepted"),
    ("kanji", 0, "大阪"),
    ("one-kanji", 0, "dongjing-0000"),
    ("b.yaml", 0, "1 of 1 tiles accepted"),
    ("cjk.yaml", 0, "3 of 3 tiles accepted"),
    ("g.yaml", 0, "3 of 3 tiles accepted"),
    ("latin.yaml", 2, "line 2 is not UTF-8 (byte 0xfc)"),
    ("typo.yaml", 2, "area.cities: B: faults/tipo.osm: no such file"),
    pytest.param("wrong-bounds.osm", 0, "rejected: no buildings 301938", marks=pytest.mark.heavy),
]  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Path:
    """Folder above the faults, from which their recipes are run."""
    folder = Path(os.environ.get("WAVECITY_SHARED", ROOT.parent / "shared"))
    if not (folder / "faults").is_dir():
        pytest.skip("the shared faults are not here")
    return folder


@pytest.mark.parametrize(("name", "code", "expected"), CASES)
def test_plan_ends_well_or_in_one_line(shared: Path, tmp_path: Path, name: str, code: int, expected: str) -> None:
    city = ("--set", f"area.source=faults/{name}", "--set", 'area.city=""')
    recipe = (f"faults/{name}",) if name.endswith(".yaml") else (B, *city)
    done = wavecity("plan", *recipe, "--maps", tmp_path, cwd=shared, COLUMNS="200")
    assert done.returncode == code, done.stderr
    assert expected in " ".join((done.stdout + done.stderr).split())
    if code == 2:
        assert not list(tmp_path.iterdir())
        assert len([line for line in done.stderr.splitlines() if line.startswith("wavecity:")]) == 1


def test_a_tile_that_rasters_do_not_divide_is_refused_by_plan(shared: Path, tmp_path: Path) -> None:
    done = wavecity("plan", B, "--set", "area.tile_size=205", "--maps", tmp_path, cwd=shared)
    assert done.returncode == 2
    assert "scene.occupancy_patch: 10 m does not divide area.tile_size, 205 m" in done.stderr


def test_the_base_station_is_clear_of_the_building_that_is_clipped_away(shared: Path, tmp_path: Path) -> None:
    area = AreaSettings(source=str(shared / "faults" / "bs-inside.osm"), city="Bs", country="DE", scenes=1)
    area = area.model_copy(update={"split": area.split.model_copy(update={"by": "scene"})})
    source = open_source(area, tmp_path)
    tile = next(tile for tile in plan_tiles(source, area, SceneSettings(), 3) if tile.status == "accepted")
    scene = build_scene(tile, source, SceneSettings(), UserSettings(minimum=20, maximum=20), 3)
    walls = project(source.buildings(source.bounds).geometry.to_numpy(), tile.latitude, tile.longitude)
    base = shapely.points(scene.bs_position[:2])
    assert np.min(shapely.distance(walls, base)) >= SceneSettings().bs_clearance
    # At its usual place it would have been within one.
    assert np.min(shapely.distance(walls, shapely.Point(0, tile.size / 2))) < SceneSettings().bs_clearance


def test_docs_say_what_becomes_of_each(shared: Path) -> None:
    text = (ROOT / "docs" / "scenes.md").read_text(encoding="utf-8")
    table = text[text.index("## Maps that once went wrong") :]
    names = {path.name for path in (shared / "faults").iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}`" not in table} == set()
    assert {case.values[0] if hasattr(case, "values") else case[0] for case in CASES} == names


def test_plans_are_json(shared: Path, tmp_path: Path) -> None:
    """The outcomes of g.yaml, whose three maps lost a building each without a word."""
    wavecity("plan", "faults/g.yaml", "--maps", tmp_path / "maps", "--json", tmp_path / "plan.json", cwd=shared)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [tile["n_buildings"] for tile in plan["tiles"]] == [17, 16, 16]
