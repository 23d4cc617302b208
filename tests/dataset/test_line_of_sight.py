"""The line of sight from footprints, against hand-made cases, sampled lines and the ray tracer's labels."""

from itertools import pairwise

import geopandas as gpd
import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, Point, Polygon, box

from wavecity.dataset.checks.line_of_sight import TOLERANCE, blocked_users, check_line_of_sight

BASE = np.array([0.0, 100.0, 15.0])


def table(*buildings):
    """Buildings from (footprint, base, height)."""
    footprints, base, height = zip(*buildings, strict=True)
    columns = {"osm_type": "way", "osm_id": np.arange(101, 101 + len(buildings)), "base": base, "height": height}
    return gpd.GeoDataFrame(columns, geometry=list(footprints))


def sight(buildings, *users):
    result = blocked_users(buildings, np.array(users), BASE)
    return result.blocked.tolist(), result.certain.tolist(), result.building.tolist()


def test_a_wall_hides_who_is_low_enough_behind_it():
    # The line to (0, 0, 1.5) passes y = 50 at 8.25 m; at the far side, y = 40, at 6.9 m.
    for height, hidden in ((6.8, False), (7.0, True), (20.0, True)):
        assert sight(table((box(-10, 40, 10, 50), 0.0, height)), [0, 0, 1.5]) == (
            [hidden],
            [True],
            [0 if hidden else -1],
        )


def test_a_raised_building_is_passed_below_and_above_and_not_through():
    wall = table((box(-10, 40, 10, 50), 5.0, 7.0))
    # Heights of the line where it enters and leaves the footprint, seen from the user:
    assert sight(wall, [0, 0, 1.5])[0] == [True]  # 6.9 m and 8.3 m: in through the back, out through the roof
    assert sight(wall, [0, 0, 7.0])[0] == [False]  # 10.2 m and 11 m
    assert sight(wall, [0, 30, 1.5])[0] == [True]  # 3.4 m and 5.4 m: in through the floor
    assert sight(wall, [0, 39, 1.5])[0] == [False]  # 1.7 m and 3.9 m
    assert sight(table((box(-10, 40, 10, 50), 12.0, 20.0)), [0, 0, 1.5])[0] == [False]


def test_a_user_below_a_raised_building_sees_out_from_under_it():
    bridge = table((box(-10, 20, 10, 50), 5.0, 30.0))
    # At y = 50 the line to (0, 49, 1.5) is 1.8 m high, that to (0, 21, 1.5) 6.5 m: through the front.
    assert sight(bridge, [0, 49, 1.5], [0, 21, 1.5])[0] == [False, True]


def test_a_courtyard_is_open_above_and_its_walls_are_not():
    yard = Polygon(box(-20, 20, 20, 60).exterior, [box(-10, 30, 10, 50).exterior.coords])
    # From the yard's south end the line passes over the north wing (y from 50 to 60) 5.2 m to 7.2 m high.
    assert sight(table((yard, 0.0, 5.0)), [0, 31, 1.5])[0] == [False]
    assert sight(table((yard, 0.0, 6.0)), [0, 31, 1.5])[0] == [True]
    # At 5 m across the yard: below the roofs, yet only the wings count.
    flat = blocked_users(table((yard, 0.0, 6.0)), np.array([[0.0, 31.0, 5.0]]), np.array([0.0, 49.0, 5.0]))
    assert not flat.blocked[0]
    assert flat.certain[0]


def test_a_multipolygon_blocks_with_each_part_and_not_between():
    pair = table((MultiPolygon([box(-30, 40, -5, 50), box(5, 40, 30, 50)]), 0.0, 20.0))
    assert sight(pair, [0, 0, 1.5], [-30, 0, 1.5], [30, 0, 1.5])[0] == [False, True, True]


def test_the_first_blocking_row_is_named():
    rows = table((box(50, 0, 60, 10), 0.0, 9.0), (box(-5, 20, 5, 30), 0.0, 9.0), (box(-5, 40, 5, 50), 0.0, 9.0))
    assert sight(rows, [0, 0, 1.5])[2] == [1]


@pytest.mark.parametrize("gap", [-3.0, -0.5, 0.5, 3.0])
def test_within_the_tolerance_of_a_wall_or_a_roof_nothing_is_decided(gap):
    inside = gap < 0
    # A line due south along a wall, `gap` tolerances beside it.
    along = table((box(gap * TOLERANCE, 40, 10, 50), 0.0, 20.0))
    # A level line over a roof.
    level = table((box(-10, 40, 10, 50), 0.0, 15.0 - gap * TOLERANCE))
    for result in (sight(along, [0, 0, 1.5]), sight(level, [0, 0, 15.0])):
        assert result[1] == [abs(gap) > 1]
        assert result[0] == [inside and abs(gap) > 1]


def test_users_straight_below_the_base_station():
    slab = table((box(-5, 95, 5, 105), 5.0, 7.0))
    assert sight(slab, [0, 100, 1.5], [0, 100, 8.0], [20, 100, 1.5])[0] == [True, False, False]


def test_no_users_and_no_buildings():
    assert blocked_users(table((box(0, 0, 1, 1), 0.0, 5.0)), np.empty((0, 3)), BASE).blocked.shape == (0,)
    empty = table((box(0, 0, 1, 1), 0.0, 5.0)).iloc[:0]
    assert sight(empty, [0, 0, 1.5]) == ([False], [True], [-1])


def test_forged_labels_are_found_and_named():
    buildings = table((box(-10, 40, 10, 50), 0.0, 20.0))
    shift = 4.0
    users = np.array([[0.0, 0, 1.5], [60, 0, 1.5], [-60, 0, 1.5], [1, 10, 1.5]])
    position = (users - BASE - [shift, 0, 0]).astype(np.float32)
    truth = np.array([False, True, True, False])
    assert check_line_of_sight(buildings, position, BASE.tolist(), shift, truth) == ""
    lie = truth.copy()
    lie[[0, 3]] = True
    found = check_line_of_sight(buildings, position, BASE.tolist(), shift, lie)
    assert found == "2 users labelled LoS whose line is blocked, e.g. user 0 by way/101"
    lie[1] = False
    found = check_line_of_sight(buildings, position, BASE.tolist(), shift, lie)
    assert found.endswith("; 1 users labelled NLoS whose line is free, e.g. user 1")
    assert "\n" not in found


def test_the_shift_of_the_base_station_counts():
    # Only from 15 m further east is the line to the user clear of the wall.
    buildings = table((box(-10, 40, 10, 50), 0.0, 20.0))
    user = np.array([[30.0, 0.0, 1.5]])
    for shift, seen in ((-20.0, False), (15.0, True)):
        position = user - BASE - [shift, 0, 0]
        assert check_line_of_sight(buildings, position, BASE, shift, np.array([seen])) == ""
        assert check_line_of_sight(buildings, position, BASE, shift, np.array([not seen])) != ""


def inside(rings, points):
    """Even-odd rule, without shapely: whether each point (N, 2) is inside a list of closed rings."""
    odd = np.zeros(len(points), bool)
    x, y = points.T
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if y0 != y1:
                odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def sampled(buildings, users, source, step):
    """Whether any of the points every `step` m along each line is inside a building."""
    result = np.zeros(len(users), bool)
    for number, user in enumerate(users):
        count = int(np.linalg.norm(user - source) / step) + 2
        points = source + np.linspace(0, 1, count)[:, None] * (user - source)
        for footprint, base, top in zip(buildings.geometry, buildings["base"], buildings["height"], strict=True):
            level = points[(points[:, 2] >= base) & (points[:, 2] <= top)]
            for polygon in shapely.get_parts(footprint):
                rings = [np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
                result[number] |= inside(rings, level[:, :2]).any()
    return result


def random_town(random):
    """Convex blocks, rings with courtyards and pairs of towers, a third of them raised."""
    buildings = []
    for number in range(12):
        x, y = random.uniform(-90, 90), random.uniform(-90, 85)
        turn, size = random.uniform(0, 90), random.uniform(6, 25)
        shape = shapely.affinity.rotate(box(x - size / 2, y - size / 3, x + size / 2, y + size / 3), turn)
        if number % 3 == 1:
            shape = shape.difference(shapely.affinity.scale(shape, 0.5, 0.5))
        elif number % 3 == 2:
            shape = MultiPolygon([shape, Point(x + 1.5 * size, y).buffer(4, quad_segs=2)])
        base = random.uniform(2, 8) if random.random() < 1 / 3 else 0.0
        buildings.append((shape, base, base + random.uniform(3, 25)))
    return table(*buildings)


@pytest.mark.parametrize("seed", range(6))
def test_sampled_lines_agree_wherever_it_is_certain(seed):
    random = np.random.default_rng(seed)
    buildings = random_town(random)
    users = np.column_stack([random.uniform(-100, 100, (40, 2)), random.choice([0.5, 1.5, 6.0, 30.0], 40)])
    result = blocked_users(buildings, users, BASE)
    # A line that is one tolerance deep in a solid has two tolerances of its length in it, so no sample is missed.
    expected = sampled(buildings, users, BASE, TOLERANCE)
    np.testing.assert_array_equal(result.blocked[result.certain], expected[result.certain])
    assert result.certain.sum() >= 38
    assert 5 <= expected.sum() <= 35


def test_labels_of_traced_scenes_hold(tmp_path):
    """The tracer works on float32 triangles; this check never sees them."""
    from wavecity.raytrace.settings import RadioSettings, SolverSettings
    from wavecity.raytrace.simulate import simulate

    users = undecided = hidden = 0
    for scene in helsinki(tmp_path, 2):
        los = simulate(scene, RadioSettings(), SolverSettings(rays=1000, max_depth=0), 0).los
        bs_position_m = scene.bs_position - [scene.bs_shift, 0, 0]
        position = (scene.users - scene.bs_position).astype(np.float32)
        assert check_line_of_sight(scene.buildings, position, bs_position_m, scene.bs_shift, los) == ""
        undecided += (~blocked_users(scene.buildings, scene.users, scene.bs_position).certain).sum()
        users, hidden = users + len(los), hidden + (~los).sum()
    assert undecided <= 0.01 * users
    assert 0.1 * users < hidden < 0.9 * users


def helsinki(cache, count):
    from wavecity.geo.build import build_scene
    from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
    from wavecity.geo.sources import open_source
    from wavecity.geo.tiles import plan_tiles

    area = AreaSettings(scenes=count, split=SplitSettings(by="scene"))
    source = open_source(area, cache)
    tiles = [tile for tile in plan_tiles(source, area, SceneSettings(), 0) if tile.status == "accepted"][:count]
    people = UserSettings(minimum=300, maximum=300)
    return [build_scene(tile, source, SceneSettings(), people, 0) for tile in tiles]
