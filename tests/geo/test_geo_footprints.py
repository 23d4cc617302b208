from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pytest
import shapely
import shapely.ops
from geo_maps import LATITUDE, LONGITUDE, Building, box
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon

from wavecity.geo.errors import SceneError
from wavecity.geo.footprints import Footprints, Solid, _clean, _without_overlaps, tile_footprints
from wavecity.geo.mesh import build_mesh
from wavecity.geo.polygons import polygons, repair, simplify_together
from wavecity.geo.projection import project
from wavecity.geo.settings import SceneSettings
from wavecity.geo.sources import Source

SETTINGS = SceneSettings()


def prints(source: Source, **changes: float | str) -> Footprints:
    return tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SETTINGS.model_copy(update=changes), 0)


def house(x: float, y: float, **tags: str) -> Building:
    """20 m x 20 m, 10 m high unless the tags say otherwise."""
    return box(x, y, x + 20, y + 20), {"building": "yes", "height": "10", **tags}


def test_building_is_where_the_map_has_it(town: Callable[..., Source]) -> None:
    found = prints(town([house(10, 20)])).buildings
    assert found["osm_id"].tolist() == [1000]
    assert found["height_source"].tolist() == ["tag"]
    assert np.allclose(found.geometry.iloc[0].bounds, (10, 20, 30, 40), atol=0.02)


def test_clipped_to_the_tile(town: Callable[..., Source]) -> None:
    found = prints(town([house(90, -10), house(99.99, 50), house(110, 0)]))
    assert found.buildings["osm_id"].tolist() == [1000]
    assert np.allclose(found.buildings.geometry.iloc[0].bounds, (90, -10, 100, 10), atol=0.02)
    assert found.ledger == {"clipped away at the tile's edge": 1, "used": 1}


def test_courtyard_stays_open(town: Callable[..., Source]) -> None:
    outer, inner = box(-30, -30, 30, 30)[0], box(-10, -10, 10, 10)[0]
    open_court = prints(town([([outer, inner], {"building": "yes", "height": "12"})]))
    assert open_court.union.area == pytest.approx(60 * 60 - 20 * 20, rel=1e-3)
    assert not open_court.union.contains(shapely.Point(0, 0))


def test_helsinki_has_courtyards_that_a_doubled_outline_would_fill(helsinki: Source) -> None:
    whole = helsinki.buildings(helsinki.bounds)
    doubled = whole[whole["outline_of"] > 0]
    assert len(doubled) == 2
    for _, way in doubled.iterrows():
        relation = whole[(whole["osm_type"] == "relation") & (whole["osm_id"] == way["outline_of"])].geometry.iloc[0]
        assert way.geometry.area > relation.area
        court = shapely.difference(way.geometry, relation).representative_point()
        found = tile_footprints(court.y, court.x, 200.0, helsinki, SETTINGS, 0)
        assert not found.union.contains(shapely.Point(0, 0))
        assert found.ledger["repeats the outer ring of its relation"] >= 1


def test_parts_replace_their_building(town: Callable[..., Source]) -> None:
    parts = [
        (box(0, 0, 20, 40), {"building:part": "yes", "height": "30"}),
        (box(20, 0, 40, 40), {"building:part": "yes", "min_height": "5"}),
    ]
    found = prints(town([(box(0, 0, 40, 40), {"building": "yes", "height": "20"}), *parts]))
    rows = found.buildings.set_index("osm_id")
    assert sorted(rows.index) == [1001, 1002]
    assert (rows.loc[1001, "height"], rows.loc[1001, "height_source"]) == (30, "part")
    # No height of its own: up to its building's top, from its own min_height.
    assert (rows.loc[1002, "base"], rows.loc[1002, "height"], rows.loc[1002, "height_source"]) == (5, 20, "tag")
    assert found.ledger == {"replaced by its parts": 1, "used": 2}


def test_tower_tagged_as_building_and_part_stands_in_its_church(town: Callable[..., Source]) -> None:
    nave = (box(0, 0, 20, 40), {"building:part": "yes", "height": "20"})
    both = {"building": "church", "building:part": "yes"}
    tower = (box(6, 16, 14, 24), {**both, "height": "38"})
    ring = (box(5, 15, 15, 25), both)
    church = (box(-10, 0, 30, 40), {"building": "church", "height": "13"})
    found = prints(town([church, nave, tower, ring]))
    rows = found.buildings.set_index("osm_id")
    assert rows["height"].to_dict() == {1000: 13, 1001: 20, 1002: 38}
    assert rows["height_source"].to_dict() == {1000: "tag", 1001: "part", 1002: "part"}
    assert found.ledger == {"inside a taller building": 1, "used": 3}
    # Alone it is a building.
    alone = prints(town([tower])).buildings
    assert alone["height_source"].tolist() == ["tag"]


def test_building_keeps_what_its_parts_leave(town: Callable[..., Source]) -> None:
    tower = (box(0, 0, 10, 10), {"building:part": "yes", "height": "50"})
    found = prints(town([(box(0, 0, 40, 40), {"building": "yes", "height": "20"}), tower]))
    areas = dict(zip(found.buildings["osm_id"], found.buildings.area, strict=True))
    assert areas[1000] == pytest.approx(1500, abs=0.5)
    assert areas[1001] == pytest.approx(100, abs=0.1)


def test_overlaps_are_resolved_in_volume(town: Callable[..., Source]) -> None:
    found = prints(
        town(
            [
                house(0, 0, height="10"),
                house(10, 0, height="20"),
                (box(0, 40, 20, 60), {"building": "yes", "height": "20", "min_height": "10"}),
                (box(0, 40, 40, 60), {"building": "yes", "height": "15"}),
            ]
        )
    )
    rows = found.buildings
    solids = [(row.base, row.height, round(row.geometry.area)) for row in rows.itertuples()]
    assert solids == [
        (0, 10, 200),  # the lower house ends at the taller one's wall
        (0, 20, 400),
        (10, 20, 400),
        (0, 10, 400),  # and under a raised building at its underside,
        (0, 15, 400),  # beside which it keeps its height
    ]
    volume = (rows.area * (rows["height"] - rows["base"])).sum()
    assert volume == pytest.approx(200 * 10 + 400 * 20 + 400 * 20 + 400 * 15, rel=1e-3)


def test_unusable_features_are_accounted_for(town: Callable[..., Source]) -> None:
    found = prints(
        town(
            [
                house(0, 0),
                house(40, 0, location="underground"),
                house(40, 40, layer="-1"),
                house(0, 40, building="no"),
                (box(-20, -20, -19, -19), {"building": "kiosk"}),
                (box(5, 5, 10, 10), {"building": "yes"}),
            ]
        )
    )
    assert found.ledger == {
        "inside a taller building": 1,
        "smaller than scene.min_area": 1,
        "tagged as no building": 1,
        "underground": 2,
        "used": 1,
    }


def test_pieces_of_one_building_at_one_height_are_joined(town: Callable[..., Source]) -> None:
    """Under two bridges side by side a house must not get a wall where one bridge ends and the other begins."""
    bridges = [(box(x, 0, x + 20, 20), {"building": "yes", "height": "12", "min_height": "6"}) for x in (0, 20)]
    found = prints(town([*bridges, (box(0, 0, 40, 20), {"building": "yes", "height": "9"})])).buildings
    below = found[found["osm_id"] == 1002]
    assert below[["base", "height"]].to_numpy().tolist() == [[0, 6]]
    assert len(polygons(below.geometry.iloc[0])) == 1
    assert below.geometry.iloc[0].is_valid


def test_table_names_the_outcome_of_every_feature(town: Callable[..., Source]) -> None:
    thread = (box(-60, -60, -59.9, 0), {"building": "yes"})
    found = prints(town([house(0, 0), house(95, 0), house(99.99, 50), thread, house(0, 0, height="5")]))
    assert found.outcomes["osm_id"].tolist() == [1000, 1001, 1002, 1003, 1004]
    assert found.outcomes["osm_type"].tolist() == ["way"] * 5
    assert found.outcomes["outcome"].tolist() == [
        "used",
        "used",
        "clipped away at the tile's edge",
        "thinner than scene.simplify_tolerance",
        "inside a taller building",
    ]


def test_simplification_is_in_metres_and_opens_no_gap() -> None:
    wavy = [(0, 0), (5, 0.1), (10, 0), (10, 10), (0, 10)]
    left = Polygon([*wavy[:3], (10, 5), (10.1, 7.5), (10, 10), (0, 10)])
    right = Polygon([(10, 0), (20, 0), (20, 10), (10, 10), (10.1, 7.5), (10, 5)])
    one, two = simplify_together([MultiPolygon([left]), MultiPolygon([right])], 0.2)
    assert not any(np.allclose(xy, (5, 0.1)) for xy in shapely.get_coordinates(one))
    # The party wall keeps its bend in both, or neither could say where the other ends.
    assert shapely.intersection(one, two).length == pytest.approx(shapely.intersection(left, right).length)
    assert shapely.union(one, two).area == pytest.approx(one.area + two.area)
    kept = simplify_together([MultiPolygon([left])], 0.05)[0]
    assert any(np.allclose(xy, (5, 0.1)) for xy in shapely.get_coordinates(kept))


def test_simplification_never_moves_an_outline_beyond_its_tolerance(helsinki: Source) -> None:
    whole = helsinki.buildings(helsinki.bounds)
    west, south, east, north = helsinki.bounds
    local = list(repair(project(whole.geometry.to_numpy(), (south + north) / 2, (west + east) / 2)))
    simple = simplify_together(local, 0.2)
    moved = [shapely.hausdorff_distance(before, after) for before, after in zip(local, simple, strict=True)]
    assert max(moved) <= 0.2 + 1e-9
    before, after = (shapely.get_num_coordinates(shapely.geometrycollections(some)) for some in (local, simple))
    assert after < 0.95 * before


@pytest.mark.parametrize(
    ("ring", "area"),
    [
        ([(0, 0), (10, 10), (10, 0), (0, 10)], 50),  # bow tie
        ([(0, 0), (10, 0), (10, 0), (10, 10), (0, 10)], 100),  # doubled vertex
        ([(0, 0), (10, 0), (10, 10), (5, 10), (5, 15), (5, 10), (0, 10)], 100),  # spike
        ([(0, 0), (10, 0), (5, 0)], 0),  # flat
    ],
)
def test_rings_are_repaired(ring: list[tuple[float, float]], area: float) -> None:
    repaired = repair(np.array([Polygon(ring)], dtype=object))[0]
    assert repaired.is_valid
    assert repaired.area == pytest.approx(area)


RINGS = st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), min_size=3, max_size=9)


@settings(deadline=None, derandomize=True, max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(RINGS, st.integers(0, 10), st.integers(1, 20)), min_size=1, max_size=5))
def test_any_rings_become_closed_solids_without_shared_volume(
    drawn: list[tuple[list[tuple[int, int]], int, int]],
) -> None:
    rings = np.array([Polygon(ring) for ring, _, _ in drawn], dtype=object)
    outlines = [_clean(outline, SETTINGS) for outline in repair(rings)]
    solids = [
        Solid(outline, float(base), float(base + thickness), index)
        for index, (outline, (_, base, thickness)) in enumerate(zip(outlines, drawn, strict=True))
        if not outline.is_empty
    ]
    apart = _without_overlaps(solids, SETTINGS)
    frame = gpd.GeoDataFrame(
        {
            "osm_type": "way",
            "osm_id": [one.feature for one in apart],
            "height": [one.top for one in apart],
            "base": [one.base for one in apart],
        },
        geometry=[one.footprint for one in apart],
    )
    mesh = build_mesh(frame)  # raises when a solid leaks or its volume is off
    assert np.isfinite(mesh.vertices).all()
    for index, one in enumerate(apart):
        for other in apart[index + 1 :]:
            depth = min(one.top, other.top) - max(one.base, other.base)
            if depth > 0:
                assert shapely.intersection(one.footprint, other.footprint, grid_size=1e-6).area < 0.05
    assert all(piece.is_valid for one in apart for piece in polygons(one.footprint))


def test_high_line_is_clipped_and_raised(extract: Callable[[str], Source]) -> None:
    source = extract("nyc-west-village.osm.pbf")
    whole = source.buildings(source.bounds)
    lines = whole[[tags.get("min_height") == "5.5" and tags.get("height") == "7.5" for tags in whole["tags"]]]
    west, south, east, north = source.bounds
    local = project(lines.geometry.to_numpy(), (south + north) / 2, (west + east) / 2)
    extent = shapely.bounds(local)
    lengths = np.hypot(extent[:, 2] - extent[:, 0], extent[:, 3] - extent[:, 1])
    assert lengths.max() > 1000
    line = lines.iloc[lengths.argmax()]
    middle = shapely.ops.nearest_points(line.geometry, line.geometry.centroid)[0]
    found = tile_footprints(middle.y, middle.x, 200.0, source, SETTINGS, 0)
    rows = found.buildings[found.buildings["osm_id"] == line["osm_id"]]
    assert rows["height"].max() == 7.5
    assert rows["base"].min() == 5.5
    x0, y0, x1, y1 = rows.total_bounds
    assert min(x0, y0) >= -100
    assert max(x1, y1) <= 100
    assert max(x1 - x0, y1 - y0) > 150


def test_sofia_imputes_most_heights(extract: Callable[[str], Source]) -> None:
    source = extract("sofia-centre.osm")
    tags = source.buildings(source.bounds)["tags"]
    said = sum("building:levels" in one or "height" in one for one in tags if "building" in one)
    assert said / sum("building" in one for one in tags) == pytest.approx(0.34, abs=0.1)
    west, south, east, north = source.bounds
    found = tile_footprints((south + north) / 2, (west + east) / 2, 200.0, source, SETTINGS, 0).buildings
    imputed = found[found["height_source"] == "imputed"]
    assert 0.1 < len(imputed) / len(found) < 0.9
    tagged = found[found["height_source"] != "imputed"]["height"]
    assert imputed["height"].between(3.5, 100).all()
    assert abs(imputed["height"].median() - tagged.median()) < 10


def test_imputed_height_is_the_same_in_two_tiles(helsinki: Source) -> None:
    west, south, east, north = helsinki.bounds
    latitude, longitude = (south + north) / 2, (west + east) / 2
    one = tile_footprints(latitude, longitude, 200.0, helsinki, SETTINGS, 0).buildings
    two = tile_footprints(latitude + 80 / 111_000, longitude, 200.0, helsinki, SETTINGS, 0).buildings
    keys = ["osm_type", "osm_id"]
    both = one[one["height_source"] == "imputed"].merge(two, on=keys, suffixes=("", "_other"))
    assert len(both) >= 3
    assert (both["height"] == both["height_other"]).all()


@pytest.mark.parametrize("name", ["berlin-prenzlauer-berg.osm", "los-angeles-ucla.osm"])
def test_holes_of_real_buildings_stay_open(extract: Callable[[str], Source], name: str) -> None:
    source = extract(name)
    whole = source.buildings(source.bounds)
    hollow = whole[["building" in tags for tags in whole["tags"]]]
    hollow = hollow[[sum(len(piece.interiors) for piece in polygons(one)) > 0 for one in hollow.geometry]]
    assert len(hollow) >= (10 if "ucla" in name else 1)
    for geometry in hollow.geometry[:6]:
        holes = [Polygon(ring) for piece in polygons(geometry) for ring in piece.interiors]
        hole = max(holes, key=lambda one: one.area)
        free = shapely.difference(hole, shapely.union_all(whole.geometry.to_numpy()))
        if free.area < 0.5 * hole.area:
            continue  # something else is built in this court
        centre = free.representative_point()
        found = tile_footprints(centre.y, centre.x, 200.0, source, SETTINGS, 0)
        assert not found.union.contains(shapely.Point(0, 0))


def test_rings_thinner_than_the_grid_do_not_stop_the_repair() -> None:
    """Found by fuzzing: GEOS 3.14 raises "side location conflict" when it snaps this one."""
    shell = [
        (3.0624999996788573, 0.500000000294609),
        (3.0625000016506223, 0.49999999864593),
        (3.0625000026107094, 1.499999998544257),
        (3.0624999996422115, 1.4999999985749157),
    ]
    hole = [
        (3.0624999996788573, 0.500000000294609),
        (3.062499999770785, 0.5000000002807915),
        (3.0625000004127285, 0.7000000003344375),
        (3.0624999996886926, 0.7000000003278024),
    ]
    thin = MultiPolygon([Polygon(shell, [hole])])
    sound = MultiPolygon([shapely.box(0, 0, 2, 2)])
    repaired = repair(np.array([thin, sound], dtype=object))
    assert shapely.is_valid(repaired).all()
    assert repaired[0].area < 2e-3
    assert repaired[1].area == 4


def test_what_geos_cannot_overlay_is_an_error_of_the_scene(
    town: Callable[..., Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = town([(box(0, 0, 20, 20), {"building": "yes"})])

    def fail(*_: object, **__: object) -> None:
        msg = "TopologyException: side location conflict at 1 2"
        raise shapely.errors.GEOSException(msg)

    monkeypatch.setattr(shapely, "union_all", fail)
    with pytest.raises(SceneError, match="geometry that GEOS cannot overlay: TopologyException"):
        tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SETTINGS, 0)
