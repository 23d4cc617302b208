"""Where more base stations than the first stand: on synthetic blocks, and on real tiles."""

from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import shapely

from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.scenes import scene_of
from wavecity.geo.base_station_settings import SceneSettings
from wavecity.geo.base_stations import APART, BaseStation, place_others, turned_sector
from wavecity.geo.errors import InputError

FIRST = np.array([0.0, 100.0, 15.0])


def placed(shapes: list[shapely.Polygon], heights: list[float], bases: list[float] | None = None, **rules: object):
    """Base stations of a tile of 200 m with these buildings and no streets."""
    columns = {"height": heights, "base": bases or [0.0] * len(shapes)}
    scene = SimpleNamespace(buildings=gpd.GeoDataFrame(columns, geometry=shapes), size=200.0, bs_position=FIRST)
    return place_others(scene, None, SceneSettings(base_stations=rules))


def where(stations: list[BaseStation | None]) -> list[list[float] | None]:
    return [station and [*station.position.tolist(), station.azimuth] for station in stations]


def test_corners_face_the_middle_clockwise_from_north_west() -> None:
    far = [shapely.box(-5, -5, 5, 5)]
    assert where(placed(far, [10.0], corners=True)) == [
        [-98, 98, 15, -45], [98, 98, 15, -135], [98, -98, 15, 135], [-98, -98, 15, 45],
    ]  # fmt: skip


def test_a_corner_moves_along_its_edges_or_is_missing() -> None:
    # 2 m clear of the first block along the northern edge; the second fills its corner and more than 20 m around it.
    blocks = [shapely.box(-100, 60, -90, 100), shapely.box(60, -100, 100, -60)]
    found = placed(blocks, [8.0, 8.0], corners=True)
    assert found[0].position.tolist() == [-88, 98, 15]
    assert found[0].azimuth == pytest.approx(np.degrees(np.arctan2(-98, 88)))
    assert found[2] is None
    assert [station.position.tolist() for station in (found[1], found[3])] == [[98, 98, 15], [-98, -98, 15]]


@pytest.mark.parametrize(("height", "moved"), [(20.0, True), (14.0, False)])
def test_a_high_wall_in_front_of_a_corner_moves_it(height: float, moved: bool) -> None:
    wall = [shapely.box(90, 90, 93, 93)]
    corner = placed(wall, [height], corners=True)[1]
    assert (corner.position.tolist() != [98, 98, 15]) == moved
    front = turned_sector(*corner.position[:2], 10.0, corner.azimuth)
    assert moved == (not front.intersects(wall[0]) and corner.position[:2].tolist() != [98, 98])


def test_the_sector_is_in_front_of_the_panel() -> None:
    east = turned_sector(0, 0, 10.0, 0.0)
    assert [east.contains(shapely.Point(*at)) for at in ((9, 0), (0, 9), (-9, 0), (6, 5), (5, 6))] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_roofs_far_from_each_other_at_the_edge_that_faces_the_middle() -> None:
    """The farthest from the first is in the south, then the one farthest from both; the shed is too small."""
    blocks = [shapely.box(40, 20, 70, 50), shapely.box(-60, -80, -40, -60), shapely.box(-52, -70, -45, -60),
              shapely.box(90, -90, 93, -87)]  # fmt: skip
    # A tower stands on a part of the second block, from its roof up, where the edge is that faces the middle.
    found = placed(blocks, [12.0, 20.0, 26.0, 5.0], [0.0, 0.0, 20.0, 0.0], rooftops=2)
    south, north = found
    assert south.position.tolist() == [-46, -61, 29]
    assert south.azimuth == pytest.approx(np.degrees(np.arctan2(61, 46)))
    assert north.position.tolist() == [41, 21, 15]
    assert where(placed(blocks[:1], [12.0], rooftops=2)) == [where([north])[0], None]
    assert placed(blocks[:1], [12.0], rooftops=1, mast=5.0)[0].position[2] == 17


def test_given_places_but_not_in_walls() -> None:
    blocks = [shapely.box(-10, -10, 10, 10), shapely.box(20, 20, 40, 40)]
    places = [[0, 0, 5], [0, 0, 12], [30, 30, 3], [-50, 0, 4]]
    found = placed(blocks, [10.0, 20.0], [0.0, 4.0], positions=places)
    assert where(found) == [None, [0, 0, 12, -90], [30, 30, 3, -135], [-50, 0, 4, 0]]


def recipe(*changes: str) -> Recipe:
    return load_recipe("quickstart", changes)


def test_real_tiles(maps: Path) -> None:
    """All rules at once: in the tile, clear of walls, apart; users, buildings and the first where they are without."""
    asked = recipe("scene.base_stations={corners: true, rooftops: 3, street: 3}")
    plan, missing = plan_scenes(asked, maps), 0
    for tile in plan.accepted[:3]:
        alone = scene_of(recipe(), tile.id, maps)
        scene = scene_of(asked, tile.id, maps)
        np.testing.assert_array_equal(scene.users, alone.users)
        np.testing.assert_array_equal(scene.bs_position, alone.bs_position)
        assert scene.mesh.checksum == alone.mesh.checksum
        source = plan.sources[tile.city]
        found = place_others(scene, source, asked.scene)
        assert len(found) == asked.base_stations - 1 == 10
        assert where(found) == where(place_others(scene, source, asked.scene))
        missing += found.count(None)
        union = shapely.union_all(scene.buildings.geometry)
        for number, station in enumerate(found):
            if station is None:
                continue
            x, y, z = station.position
            at = shapely.Point(x, y)
            assert max(abs(x), abs(y)) <= (99 if 4 <= number < 7 else 98)
            front = turned_sector(x, y, 10.0, station.azimuth)
            walls = scene.buildings[(scene.buildings["height"] > z) & (scene.buildings["base"] < z)]
            assert not walls.intersects(front).any()
            if 4 <= number < 7:
                under = scene.buildings[scene.buildings.intersects(at)]
                assert z == pytest.approx(under["height"].max() + 3)
            else:
                assert union.distance(at) >= 2 - 1e-2
                assert z == (15 if number < 4 else 6)
        apart = [station.position[:2] for station in [*found[4:], None] if station]
        distances = [np.hypot(*(a - b)) for i, a in enumerate(apart) for b in apart[:i]]
        assert min(distances) >= APART
    assert missing < 6


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "roofs",
            "scene.base_stations: 'roofs' is no rule; write top-centre or corners, or set rooftops, street or pos",
        ),
        (
            "{mast: 3}",
            "scene.base_stations: names no base station; give corners, rooftops, street or positions, or null",
        ),
        ("{positions: [[101, 0, 5]]}", "positions: 101, 0, 5: must lie in the tile, at most 100 m east and north"),
        ("{positions: [[0, 0, .inf]]}", "positions: 0, 0, inf: must lie in the tile"),
        ("{positions: [[0, 0, 1001]]}", "above the ground and at most 1000 m high"),
        ("{positions: [[0, 0, 0]]}", "positions: 0, 0, 0: must lie in the tile, .* above the ground"),
        ("{rooftops: 17}", "scene.base_stations.rooftops = 17: input should be less than or equal to 16"),
        ("{roofs: 2}", "unknown key 'scene.base_stations.roofs'"),
        ("{rooftops: 16, street: 16}", r"store.unit is 16: channels .* take .* more than 1,000; set store.unit to"),
    ],
)
def test_wrong_recipes_are_one_line(value: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        recipe(f"scene.base_stations={value}", "store.unit=16", "users.maximum=300")


def test_a_rule_by_its_name() -> None:
    assert recipe("scene.base_stations=top-centre") == recipe()
    assert recipe("scene.base_stations=corners") == recipe("scene.base_stations.corners=true")
    asked = recipe("scene.base_stations=corners")
    assert Recipe.model_validate(asked.model_dump(mode="json")) == asked
