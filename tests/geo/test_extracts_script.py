"""scripts/extracts.py notices a building that has no outcome."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from geo_maps import box, osm_xml

from wavecity.geo.footprints import tile_footprints
from wavecity.geo.settings import AreaSettings, SceneSettings
from wavecity.geo.sources import Source, open_source
from wavecity.geo.tiles import Tile

HOUSES = [
    (box(0, 0, 20, 20), {"building": "yes"}),
    ([box(30, 0, 60, 30)[0], box(40, 10, 50, 20)[0]], {"building": "yes"}),
    (box(-40, 0, -20, 20), {"building": "no"}),
    (box(0, 5, 5, 10), {"building:part": "yes"}),
]


@pytest.fixture(scope="module")
def extracts() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(Path(__file__).resolve().parents[2] / "scripts"), *sys.path])
        import extracts
    return extracts


@pytest.fixture
def town_map(tmp_path: Path) -> tuple[Path, Source]:
    path = tmp_path / "town.osm"
    path.write_text(osm_xml(HOUSES))
    return path, open_source(AreaSettings(source=str(path), city="Town"), tmp_path / "cache")


def compared(extracts: ModuleType, town_map: tuple[Path, Source], tile: Tile, spoil: Callable) -> dict:
    path, source = town_map
    prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, SceneSettings(), 0)
    found = {(tile.latitude, tile.longitude): spoil(prints)}
    return extracts.compare(extracts.read_raw(path), source, [replace(tile, status="accepted")], found)


def test_every_feature_is_explained(extracts: ModuleType, town_map: tuple[Path, Source], middle: Tile) -> None:
    result = compared(extracts, town_map, middle, lambda prints: prints)
    assert (result["raw"], result["absent"], result["uncounted"], result["unexplained"]) == (4, [], 0, {})
    assert result["outcomes"] == {"used": 3, "tagged as no building": 1}


@pytest.mark.parametrize("row", range(4))
def test_one_without_an_outcome_is_noticed(
    extracts: ModuleType, town_map: tuple[Path, Source], middle: Tile, row: int
) -> None:
    lost = tile_footprints(
        middle.latitude, middle.longitude, middle.size, town_map[1], SceneSettings(), 0
    ).outcomes.iloc[row]
    result = compared(
        extracts, town_map, middle, lambda prints: replace(prints, outcomes=prints.outcomes.drop(index=row))
    )
    (entries,) = result["unexplained"].values()
    assert f"{lost['osm_type']}/{lost['osm_id']}" in entries


def test_one_that_the_map_lacks_is_noticed(extracts: ModuleType, town_map: tuple[Path, Source], middle: Tile) -> None:
    path, source = town_map
    more = path.with_name("more.osm")
    more.write_text(osm_xml([*HOUSES, (box(-90, -90, -70, -70), {"building": "yes"})]))
    prints = tile_footprints(middle.latitude, middle.longitude, middle.size, source, SceneSettings(), 0)
    found = {(middle.latitude, middle.longitude): prints}
    result = extracts.compare(extracts.read_raw(more), source, [replace(middle, status="accepted")], found)
    assert result["absent"] == ["way/1004"]
    assert result["unexplained"] == {"town-0000": ["way/1004"]}
