"""Real buildings with a difficulty each, against tags, rings and areas that are read from the extracts anew."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
import trimesh
from osm_reader import read_features
from pyproj import Geod, Transformer
from scipy.spatial import cKDTree
from shapely import Polygon
from shapely.geometry.base import BaseGeometry

from wavecity.geo.build import build_scene
from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.polygons import polygons
from wavecity.geo.projection import local_crs, unproject
from wavecity.geo.rasters import cell_centres
from wavecity.geo.scene import Scene, Surface
from wavecity.geo.settings import SceneSettings, UserSettings
from wavecity.geo.sources import Source, find_helsinki
from wavecity.geo.tiles import Tile

SETTINGS = SceneSettings()
# For scenes that are not planned tiles: wherever the base station finds a place.
ANYWHERE = SceneSettings(bs_max_shift=100.0, bs_front=0.0, bs_clearance=0.0)
# Faithful outlines, for comparisons of areas.
EXACT = SceneSettings(simplify_tolerance=0.0)
MANY_USERS = UserSettings(minimum=4000, maximum=4000)
GEOD = Geod(ellps="WGS84")


def tile_at(latitude: float, longitude: float, size: float = 200.0) -> Tile:
    return Tile("real-0000", "Real", "XX", latitude, longitude, size, split="train")


def scene_at(latitude: float, longitude: float, source: Source) -> Scene:
    return build_scene(tile_at(latitude, longitude), source, ANYWHERE, MANY_USERS, 3)


def prints_at(latitude: float, longitude: float, size: float, source: Source, settings: SceneSettings) -> Footprints:
    return tile_footprints(latitude, longitude, size, source, settings, 3)


def everything(source: Source) -> gpd.GeoDataFrame:
    return source.buildings((-180.0, -90.0, 180.0, 90.0))


def middle(source: Source) -> tuple[float, float]:
    west, south, east, north = source.bounds
    return (south + north) / 2, (west + east) / 2


def extent(source: Source) -> float:
    """Edge in m of a square around the middle that holds the whole map and what sticks out of it."""
    west, south, east, north = everything(source).total_bounds
    return float(
        1.2 * max(GEOD.line_length([west, east], [south, south]), GEOD.line_length([west, west], [south, north]))
    )


def to_local(geometry: BaseGeometry, latitude: float, longitude: float) -> BaseGeometry:
    transformer = Transformer.from_crs("EPSG:4326", local_crs(latitude, longitude), always_xy=True)
    return shapely.transform(geometry, transformer.transform, interleaved=False)


def square_in_degrees(latitude: float, longitude: float, size: float) -> Polygon:
    corners = shapely.get_coordinates(shapely.segmentize(shapely.box(-size / 2, -size / 2, size / 2, size / 2), 10))
    return Polygon(unproject(corners, latitude, longitude))


def geodesic_area(geometry: BaseGeometry) -> float:
    return sum(GEOD.geometry_area_perimeter(shapely.orient_polygons(one))[0] for one in polygons(geometry))


def cell_points(scene: Scene) -> np.ndarray:
    """Cell centres in the order of the raveled height map."""
    return shapely.points(*np.meshgrid(*cell_centres(scene.size, len(scene.height)))).ravel()


# --- New York: the High Line ---


@pytest.fixture(scope="module")
def high_line(extract: Callable[[str], Source]) -> tuple[Source, int, BaseGeometry]:
    source = extract("nyc-west-village.osm.pbf")
    whole = everything(source)
    raised = whole[[tags.get("min_height") == "5.5" and tags.get("height") == "7.5" for tags in whole["tags"]]]
    lengths = [GEOD.geometry_length(one.boundary) / 2 for one in raised.geometry]
    longest = int(np.argmax(lengths))
    assert lengths[longest] > 1500
    return source, int(raised["osm_id"].iloc[longest]), raised.geometry.iloc[longest]


def places_along(line: BaseGeometry, count: int) -> list[tuple[float, float]]:
    """Latitude and longitude of points of a long polygon, from its south to its north."""
    west, south, east, north = line.bounds
    bands = np.linspace(south, north, count + 2)
    strips = [line.intersection(shapely.box(west, low, east, high)) for low, high in pairwise(bands)]
    points = [strip.representative_point() for strip in strips[:count] if not strip.is_empty]
    return [(point.y, point.x) for point in points]


def test_high_line_is_clipped_to_every_tile_at_its_height(high_line: tuple[Source, int, BaseGeometry]) -> None:
    source, number, line = high_line
    places = places_along(line, 6)
    assert len(places) >= 5
    for place in places:
        found = prints_at(*place, 200.0, source, EXACT)
        rows = found.buildings[found.buildings["osm_id"] == number]
        assert len(rows) >= 1
        assert set(rows["height"]) == {7.5}
        assert set(rows["base"]) == {5.5}
        assert np.abs(rows.total_bounds).max() <= 100
        # Where a house stands through it the house wins, so its area in the tile is what no taller building covers.
        in_tile = line.intersection(square_in_degrees(*place, 200.0))
        others = found.buildings[(found.buildings["osm_id"] != number) & (found.buildings["height"] > 7.5)]
        expected = to_local(in_tile, *place).difference(others.union_all())
        assert rows.area.sum() == pytest.approx(expected.area, rel=2e-3, abs=0.5)
        assert rows.area.sum() <= geodesic_area(in_tile) + 0.5
        assert found.outcomes.set_index("osm_id").loc[number, "outcome"] == "used"


def test_high_line_floats_and_the_street_below_is_open(high_line: tuple[Source, int, BaseGeometry]) -> None:
    source, number, line = high_line
    place = places_along(line, 6)[2]
    scene = scene_at(*place, source)
    rows = np.flatnonzero(scene.buildings["osm_id"] == number)
    of_line = np.isin(scene.mesh.building, rows)
    corners = scene.mesh.vertices[scene.mesh.faces[of_line]]
    assert set(np.unique(corners[:, :, 2])) == {5.5, 7.5}
    solid = trimesh.Trimesh(scene.mesh.vertices, scene.mesh.faces[of_line], process=False)
    assert solid.is_watertight
    assert solid.volume == pytest.approx(2.0 * scene.buildings.geometry.iloc[rows].area.sum())
    assert (scene.mesh.surface[of_line] == Surface.FLOOR).any()

    # The map alone says where the line is; the other buildings of the map are kept out of the comparison.
    whole = everything(source)
    near = square_in_degrees(*place, 400.0)
    there = whole[(whole["osm_id"] != number) & whole.intersects(near)]
    others = shapely.union_all([to_local(one, *place) for one in there.geometry])
    alone = to_local(line.intersection(near), *place).difference(others.buffer(1.0)).buffer(-1.0)
    assert alone.intersection(shapely.box(-100, -100, 100, 100)).area > 500
    under = shapely.contains(alone, cell_points(scene))
    assert under.sum() > 300
    assert (scene.height.ravel()[under] == 7.5).all()
    users = shapely.points(scene.users[:, :2].astype(float))
    share = shapely.contains(alone, users).mean()
    free = 200.0**2 - scene.buildings[scene.buildings["base"] == 0].area.sum()
    assert share == pytest.approx(alone.intersection(shapely.box(-100, -100, 100, 100)).area / free, rel=0.4)


# --- Berlin: perimeter blocks ---


def test_courtyards_of_berlin_are_open(extract: Callable[[str], Source], shared_osm: Path) -> None:
    source = extract("berlin-prenzlauer-berg.osm")
    shapes = list(read_features(shared_osm / "berlin-prenzlauer-berg.osm").shapes.values())
    blocks = shapely.union_all(shapes)
    courts = [Polygon(ring) for block in polygons(blocks) for ring in block.interiors]
    courts = [court for court in courts if geodesic_area(court) > 300]
    assert len(courts) >= 10
    for court in courts[:4]:
        centre = court.difference(blocks).representative_point()
        scene = scene_at(centre.y, centre.x, source)
        # Party walls and simplification move the walls by decimetres.
        free = to_local(court.difference(blocks), centre.y, centre.x).buffer(-1.0)
        free = free.intersection(shapely.box(-100, -100, 100, 100))
        inside = shapely.contains(free, cell_points(scene))
        assert inside.sum() > 100
        assert (scene.height.ravel()[inside] == 0).all()
        users = shapely.contains(free, shapely.points(scene.users[:, :2].astype(float))).mean()
        built = to_local(blocks, centre.y, centre.x).intersection(shapely.box(-100, -100, 100, 100)).area
        assert users == pytest.approx(free.area / (200**2 - built), rel=0.4)


# --- Los Angeles: buildings with holes ---


def test_holes_of_ucla_stay_holes(extract: Callable[[str], Source], shared_osm: Path) -> None:
    source = extract("los-angeles-ucla.osm")
    shapes = read_features(shared_osm / "los-angeles-ucla.osm").shapes
    hollow = {
        name: shape
        for name, shape in shapes.items()
        if sum(len(piece.interiors) for piece in polygons(shape)) > 0 and name[0] == "relation"
    }
    assert len(hollow) >= 10
    place = middle(source)
    found = prints_at(*place, extent(source), source, EXACT)
    buildings = found.buildings.set_index(["osm_type", "osm_id"])
    compared = 0
    for name, shape in hollow.items():
        if name not in buildings.index:
            continue
        rows = buildings.loc[[name]]
        others = [other for other, one in shapes.items() if other != name and one.intersects(shape)]
        if others:
            continue  # where buildings overlap the taller one takes from the other
        holes = [Polygon(ring) for piece in polygons(shape) for ring in piece.interiors]
        # Kilometres from its centre the projection stretches by less than one part in a million.
        assert rows.area.sum() == pytest.approx(geodesic_area(shape), rel=1e-4)
        assert sum(len(piece.interiors) for one in rows.geometry for piece in polygons(one)) == len(holes)
        for hole in holes:
            inside = to_local(hole.representative_point(), *place)
            assert not found.union.contains(inside)
        compared += 1
    assert compared >= 8


# --- Sofia: most heights are missing ---


def test_heights_of_sofia(extract: Callable[[str], Source]) -> None:
    source = extract("sofia-centre.osm")
    place, size = middle(source), extent(source)
    found = prints_at(*place, size, source, SETTINGS)
    rows = found.buildings.drop_duplicates(["osm_type", "osm_id"])
    whole = everything(source).set_index(["osm_type", "osm_id"])
    number = re.compile(r"\d+(\.\d+)?")
    said = {
        name: any(number.fullmatch(tags.get(key, "")) for key in ("height", "building:levels"))
        for name, tags in whole["tags"].items()
    }
    names = list(zip(rows["osm_type"], rows["osm_id"], strict=True))
    imputed = (rows["height_source"] == "imputed").to_numpy()
    # Parts without a height of their own take their building's.
    plain = np.array(["building" in whole.loc[name, "tags"] for name in names])
    assert (imputed[plain] == ~np.array([said[name] for name in names])[plain]).mean() > 0.99
    assert imputed.mean() == pytest.approx(2 / 3, abs=0.06)

    # Reproducible: the same whatever the tile and the seed.
    again = prints_at(*place, size, source, SETTINGS).buildings
    assert again.equals(found.buildings)
    half = prints_at(*place, 300.0, source, SETTINGS).buildings.drop_duplicates(["osm_type", "osm_id"])
    both = half.merge(rows, on=["osm_type", "osm_id"], suffixes=("", "_large"))
    assert (both["height"] == both["height_large"]).mean() > 0.97
    other = tile_footprints(*place, size, source, SETTINGS, 4).buildings
    merged = found.buildings.merge(other, on=["osm_type", "osm_id"], suffixes=("", "_other"))
    assert (merged["height"] == merged["height_other"]).all()

    # Plausible: within what tagged buildings nearby have, and alike in distribution.
    centres = shapely.get_coordinates(shapely.centroid(rows.geometry.to_numpy()))
    tagged = rows["height_source"].isin(["tag", "levels"]).to_numpy()
    near = cKDTree(centres[tagged]).query_ball_point(centres[imputed], 170.0)
    heights = rows["height"].to_numpy()
    # Small ones, garages and the like have one storey, whatever stands around them.
    low = {"garage", "garages", "service", "shed", "kiosk", "roof", "entrance", "hut"}
    uses = [whole.loc[names[row], "tags"].get("building") for row in np.flatnonzero(imputed)]
    small = (rows.geometry[imputed].area.to_numpy() <= 30) | [use in low for use in uses]
    close = cKDTree(centres[tagged]).query_ball_point(centres[imputed], 90.0)
    surrounded = [row for row, others in enumerate(close) if len(others) >= 3 and not small[row]]
    assert len(surrounded) > 50
    plausible = [
        heights[tagged][near[row]].min() <= heights[imputed][row] <= heights[tagged][near[row]].max()
        for row in surrounded
    ]
    assert np.mean(plausible) > 0.97
    assert np.median(heights[imputed]) == pytest.approx(np.median(heights[tagged]), abs=4)


# --- Helsinki: building parts ---


def test_parts_of_helsinki_replace_their_building(helsinki: Source) -> None:
    place, size = middle(helsinki), extent(helsinki)
    whole = everything(helsinki)
    tags = whole["tags"].tolist()
    is_part = np.array([one.get("building:part", "no") != "no" for one in tags])
    shapes = whole.geometry.to_numpy()
    parents = {}
    for row in np.flatnonzero(~is_part):
        # Larger ones are parts of something else.
        inside = [
            part
            for part in np.flatnonzero(is_part)
            if shapes[row].contains(shapes[part].representative_point()) and shapes[part].area < 1.1 * shapes[row].area
        ]
        if inside:
            parents[row] = inside
    assert len(parents) >= 10
    found = prints_at(*place, size, helsinki, SETTINGS)
    outcome = found.outcomes.set_index(["osm_type", "osm_id"])["outcome"]
    names = list(zip(whole["osm_type"], whole["osm_id"], strict=True))
    replaced = 0
    for row, parts in parents.items():
        covered = shapely.union_all(shapes[parts]).intersection(shapes[row]).area / shapes[row].area
        if covered > 0.95:
            assert outcome[names[row]] in ("replaced by its parts", "repeats the outer ring of its relation")
            replaced += outcome[names[row]] == "replaced by its parts"
    assert replaced >= 5
    # What a part says of itself is where it stands and how high it is.
    buildings = found.buildings.set_index(["osm_type", "osm_id"])
    metres = re.compile(r"\d+(\.\d+)?")
    compared = 0
    for row in np.flatnonzero(is_part):
        if names[row] in buildings.index and metres.fullmatch(tags[row].get("height", "")):
            solid = buildings.loc[[names[row]]]
            assert solid["height"].max() == float(tags[row]["height"])
            assert set(solid["height_source"]) == {"part"}
            if metres.fullmatch(tags[row].get("min_height", "")):
                assert solid["base"].min() == float(tags[row]["min_height"])
            compared += 1
    assert compared >= 15
    # The cathedral's tower is tagged as building and as part; its nave is a larger part around the same middle.
    tower = buildings.loc[[("way", 234870674)]]
    assert (tower["height"].max(), tower["base"].min()) == (38, 0)
    assert tower.area.sum() == pytest.approx(147, abs=3)


def test_areas_of_helsinki_are_those_of_the_ellipsoid(helsinki: Source) -> None:
    """At 60 degrees north a footprint in Mercator metres is four times as large."""
    shapes = read_features(find_helsinki()).shapes
    place, size = middle(helsinki), extent(helsinki)
    found = prints_at(*place, size, helsinki, EXACT)
    rows = found.buildings.set_index(["osm_type", "osm_id"])
    tree = shapely.STRtree(list(shapes.values()))
    compared = 0
    for name, shape in shapes.items():
        if len(tree.query(shape, predicate="intersects")) > 1 or name not in rows.index:
            continue  # a neighbour may take from it
        assert rows.loc[[name]].area.sum() == pytest.approx(geodesic_area(shape), rel=2e-4, abs=0.01)
        compared += 1
    assert compared >= 50
