"""Materials of buildings from hand-made maps."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from geo_maps import LATITUDE, LONGITUDE, Building, box

from wavecity.geo.build import build_scene
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.materials import (
    GLASS_SOURCES,
    MATERIAL_OF,
    MATERIAL_SOURCES,
    ROOF_KEYS,
    WALL_KEYS,
    glass_share,
    tagged_material,
)
from wavecity.geo.settings import MaterialSettings, SceneSettings, UserSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile

SQUARE_FOOT = 0.3048**2


@pytest.mark.parametrize(
    ("tags", "wall"),
    [
        ({"building:material": "brick"}, "brick"),
        ({"building:material": "steel", "building:facade:material": "glass"}, "glass"),
        ({"building:material": "wood", "building:facade:material": "stucco"}, "wood"),
        ({"building:material": "Reinforced Concrete"}, "concrete"),
        ({"building:material": "plaster; brick"}, "brick"),
        ({"building:material": "plaster"}, ""),
        ({"building:material": ""}, ""),
        ({"roof:material": "metal"}, ""),
        ({}, ""),
    ],
)
def test_walls(tags: dict[str, str], wall: str) -> None:
    assert tagged_material(tags, WALL_KEYS) == wall


@pytest.mark.parametrize(
    ("value", "roof"), [("roof_tiles", "brick"), ("copper", "metal"), ("thatch", ""), ("slate", ""), ("glass", "glass")]
)
def test_roofs(value: str, roof: str) -> None:
    assert tagged_material({"roof:material": value, "building:material": "wood"}, ROOF_KEYS) == roof


def test_every_material_is_one_that_a_recipe_may_name() -> None:
    from typing import get_args

    from wavecity.raytrace.settings import Material

    assert set(MATERIAL_OF.values()) <= set(get_args(Material))


def test_windows_of_ashrae_by_type_and_size() -> None:
    """Limits of offices are 5,000 and 50,000 square feet, of hotels 75 rooms."""
    assert glass_share("office", 4_999 * SQUARE_FOOT) == 0.19
    assert glass_share("office", 5_002 * SQUARE_FOOT) == 0.31
    assert glass_share("office", 49_990 * SQUARE_FOOT) == 0.31
    assert glass_share("office", 50_010 * SQUARE_FOOT) == 0.40
    assert (glass_share("hotel", 1e4, "75"), glass_share("hotel", 10.0, "76"), glass_share("hotel", 10.0)) == (
        0.24,
        0.34,
        0.24,
    )
    assert glass_share("hotel", 1e4, "many") == 0.24
    assert glass_share("warehouse", 1e5) == 0.06
    assert glass_share("apartments", 1e5) == 0


TOWN: list[Building] = [
    (box(-60, -60, -30, -30), {"building": "yes", "height": "10", "building:material": "brick"}),
    (box(30, -60, 60, -30), {"building": "office", "height": "14", "roof:material": "metal"}),
    (
        box(-60, 10, -30, 40),
        {"building": "office", "height": "14", "building:material": "wood", "roof:material": "copper"},
    ),
    (box(-55, 15, -45, 25), {"building:part": "yes", "height": "30", "building:material": "glass"}),
    (box(-43, 15, -33, 25), {"building:part": "yes", "height": "20"}),
    (box(30, 10, 60, 40), {"building": "warehouse", "height": "9", "building:facade:material": "metal"}),
    (box(0, 0, 15, 15), {"building": "house", "height": "6", "building:material": "stone"}),
]


def table(source: Source, materials: MaterialSettings | None) -> dict[int, dict[str, object]]:
    settings = SceneSettings(materials=materials)
    frame = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, settings, 0).buildings
    columns = [name for name in frame if "material" in name or "glass" in name]
    return {number: dict(zip(columns, row, strict=True)) for number, *row in frame[["osm_id", *columns]].to_numpy()}


def test_each_building_has_its_materials_and_their_sources(town: Callable[..., Source]) -> None:
    found = table(town(TOWN), MaterialSettings(glass=True))

    def expect(number: int, wall: tuple[str, str], roof: tuple[str, str], glass: float) -> None:
        assert tuple(found[number].values()) == (*wall, *roof, glass, "type" if glass else "none")

    none = ("", "recipe")
    expect(1000, ("brick", "tag"), none, 0.0)
    expect(1001, none, ("metal", "tag"), 0.31)  # 900 m2 on four storeys
    expect(1002, ("wood", "tag"), ("metal", "tag"), 0.31)
    # Parts have what their building has, but a wall of glass or metal has no windows of its own.
    expect(1003, ("glass", "tag"), ("metal", "building"), 0.0)
    expect(1004, ("wood", "building"), ("metal", "building"), 0.4)  # 900 m2 on six storeys
    expect(1005, ("metal", "tag"), none, 0.0)
    expect(1006, none, none, 0.0)  # stone has no model in P.2040
    assert {row["wall_material_source"] for row in found.values()} == set(MATERIAL_SOURCES)
    assert {row["glass_share_source"] for row in found.values()} == set(GLASS_SOURCES)


def test_tags_and_windows_are_chosen_by_the_recipe(town: Callable[..., Source]) -> None:
    source = town(TOWN)
    assert {row["glass_share"] for row in table(source, MaterialSettings()).values()} == {0.0}
    windows = table(source, MaterialSettings(tags=False, glass=True))
    assert {row["wall_material"] for row in windows.values()} == {""}
    assert windows[1005]["glass_share"] == 0.06
    assert set(table(source, None)[1000]) == set()


def test_a_scene_without_them_is_as_it_was(town: Callable[..., Source], middle: Tile) -> None:
    source, users = town(TOWN), UserSettings(minimum=5, maximum=5)
    plain = build_scene(middle, source, SceneSettings(), users, 0)
    asked = build_scene(middle, source, SceneSettings(materials=MaterialSettings(glass=True)), users, 0)
    assert plain.mesh.materials is None
    assert "materials" not in SceneSettings().model_dump()
    assert SceneSettings.model_validate(SceneSettings(materials=MaterialSettings()).model_dump()).materials is not None
    assert asked.mesh.materials is not None
    numbers = asked.buildings["osm_id"].tolist()
    assert asked.mesh.materials.wall[numbers.index(1000)] == "brick"
    assert asked.mesh.materials.glass[numbers.index(1001)] == 0.31
    # Channels are kept for the same checksum: it is the geometry's own without materials, and another one with them.
    assert replace(asked.mesh, materials=None).checksum == plain.mesh.checksum != asked.mesh.checksum
