"""Maps across the antimeridian, in other packings and orders: the same buildings as of an ordinary file."""

import bz2
import gzip
import random
import re
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import overpass_server as overpass
import pytest
import shapely
from geo_maps import box, osm_xml
from shapely.affinity import translate

from wavecity.geo import rewriting
from wavecity.geo.build import build_scene
from wavecity.geo.cities import City
from wavecity.geo.errors import MapError
from wavecity.geo.overpass import boxes_of
from wavecity.geo.projection import within_turn, world_bounds
from wavecity.geo.reading import read_extract
from wavecity.geo.settings import AreaSettings, OverpassSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source, open_source
from wavecity.geo.tiles import plan_tiles

# A courtyard, a part and a street in the middle, where the antimeridian will be, and houses on both sides.
TOWN = [
    ([box(-20, -20, 20, 20)[0], box(-5, -5, 5, 5)[0]], {"building": "yes", "height": "12"}),
    *((box(x, y, x + 20, y + 20), {"building": "house", "height": "7"}) for x in (-80, 40) for y in (-80, -40, 0, 40)),
]
STREETS = [([(-90.0, -25.0), (90.0, -25.0)], {"highway": "residential"})]
XML = osm_xml(TOWN, streets=STREETS)


def moved(xml: str, to: float, header: str | None = None) -> str:
    """The town with its middle at another longitude, between -180 and 180 as OpenStreetMap has it."""
    east = to - 24.94

    def new(match: re.Match[str]) -> str:
        longitude = (float(match[2]) + east + 180) % 360 - 180
        return f'{match[1]}="{longitude:.9f}"'

    text = re.sub(r'(lon|minlon|maxlon)="([^"]+)"', new, xml)
    return text if header is None else re.sub(r"<bounds[^>]*/>", header, text)


def opened(folder: Path, text: str | bytes, name: str = "town.osm") -> Source:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_source(AreaSettings(source=str(path), city="Town"), folder / "cache")


def scenes_of(source: Source, **area: object) -> list[tuple[gpd.GeoDataFrame, float]]:
    """Buildings, in metres, and longitude of every scene of a map."""
    settings = AreaSettings.model_validate(
        {"city": "Town", "scenes": 9, "split": SplitSettings(by="scene", validation=0, test=0), **area}
    )
    users = UserSettings(minimum=20, maximum=20)
    tiles = [tile for tile in plan_tiles(source, settings, SceneSettings(), 7) if tile.status == "accepted"]
    return [(build_scene(tile, source, SceneSettings(), users, 7).buildings, tile.longitude) for tile in tiles]


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return opened(tmp_path_factory.mktemp("ordinary"), XML)


def same_buildings(found: Source, expected: Source, east: float = 0.0) -> None:
    """Both maps show the same polygons and streets, one of them so many degrees further east (modulo a turn)."""
    for of in ("buildings", "streets"):
        one, other = (getattr(source, of)(source.bounds) for source in (found, expected))
        assert one["osm_id"].tolist() == other["osm_id"].tolist()
        here = [translate(shape, east) for shape in other.geometry]
        apart = [shapely.hausdorff_distance(a, b) for a, b in zip(one.geometry, here, strict=True)]
        assert max(apart) < 2e-7


@pytest.mark.parametrize("middle", [180.0, 179.9997, -179.9997])
@pytest.mark.parametrize(
    "header", [None, "", '<bounds minlat="60.16" minlon="-180" maxlat="60.18" maxlon="180"/>'], ids=str
)
def test_a_map_across_the_antimeridian_gives_the_scene_of_any_other_place(
    tmp_path: Path, ordinary: Source, middle: float, header: str | None
) -> None:
    source = opened(tmp_path, moved(XML, middle, header))
    west, _, east, _ = source.bounds
    assert 0 < east - west < 0.01
    wanted = middle if middle > 0 else middle + 360
    same_buildings(source, ordinary, wanted - 24.94)
    # Without a header the map ends at its buildings: the tile is given by its centre.
    centre = {"latitude": 60.17, "longitude": (middle + 180) % 360 - 180, "radius": 150}
    ((buildings, longitude),) = scenes_of(source, tile_size=100, **centre)
    ((expected, _),) = scenes_of(ordinary, tile_size=100, **(centre | {"longitude": 24.94}))
    assert -180 <= longitude <= 180
    assert len(buildings) == len(expected) == 4
    assert max(shapely.hausdorff_distance(buildings.geometry.to_numpy(), expected.geometry.to_numpy())) < 0.02


def test_the_header_of_fiji_is_no_box_round_the_earth(tmp_path: Path) -> None:
    """All buildings lie in Suva, on one side; the map without a centre has its tiles there, too."""
    header = '<bounds minlat="50" minlon="174.8" maxlat="70" maxlon="-177.3"/>'
    source = opened(tmp_path, moved(XML, 178.44, header))
    np.testing.assert_allclose(source.bounds, (174.8, 50, 182.7, 70))
    centre = {"latitude": 60.17, "longitude": 178.44, "radius": 150}
    assert [longitude for _, longitude in scenes_of(source, **centre)] == pytest.approx([178.44])
    assert [longitude for _, longitude in scenes_of(source)] == pytest.approx([178.44], abs=1e-3)


def test_a_country_with_buildings_in_one_town_has_its_tiles_there(tmp_path: Path) -> None:
    header = '<bounds minlat="50" minlon="10" maxlat="70" maxlon="30"/>'
    source = opened(tmp_path, re.sub(r"<bounds[^>]*/>", header, XML))
    ((buildings, _),) = scenes_of(source)
    assert len(buildings) == 9


def test_a_map_of_both_hemispheres_is_left_as_it_is(tmp_path: Path) -> None:
    """Alaska and Scotland in one file: nothing crosses, and nothing is turned."""
    far = re.sub(r'(id|ref)="(\d+)"', lambda match: f'{match[1]}="{int(match[2]) + 10**7}"', moved(XML, -150.0))
    parts = sorted(elements(XML) + elements(far), key=lambda part: "nwr".index(part[1]))
    source = opened(tmp_path, f'<osm version="0.6">{"".join(parts)}</osm>')
    assert source.bounds[2] - source.bounds[0] == pytest.approx(174.94, abs=0.01)


@pytest.mark.parametrize("longitude", [178.44, 179.99, 180.0, -179.99])
def test_overpass_is_asked_for_boxes_that_together_are_the_circle(longitude: float) -> None:
    area = AreaSettings(source="overpass", overpass=OverpassSettings(box=2500))
    city = City("Town", "FJ", "overpass", -18.0, longitude, 4000.0, 4)
    boxes = boxes_of(city, area)
    assert all(-180 <= west < east <= 180 and east - west < 0.05 for west, _, east, _ in boxes)
    # The same circle anywhere else: as much area, and no part twice.
    usual = boxes_of(City("Town", "FJ", "overpass", -18.0, 20.0, 4000.0, 4), area)
    assert sum(shapely.box(*one).area for one in boxes) == pytest.approx(
        sum(shapely.box(*one).area for one in usual), rel=1e-4
    )
    assert shapely.union_all([shapely.box(*one) for one in boxes]).area == pytest.approx(
        sum(shapely.box(*one).area for one in boxes)
    )


def test_overpass_gives_the_map_of_a_file(tmp_path: Path, ordinary: Source) -> None:
    path = tmp_path / "town.osm"
    path.write_text(moved(XML, 180.0))
    with overpass.OverpassServer(overpass.elements_of(path)) as server:
        asked = OverpassSettings(endpoints=(server.endpoint,), pause=0.0, timeout=20.0)
        area = AreaSettings(
            source="overpass", city="Town", latitude=60.17, longitude=-180.0, radius=300, tile_size=180, overpass=asked
        )
        source = open_source(area, tmp_path / "cache")
        assert all(east - west < 0.05 for west, _, east, _ in server.queries)
    found = source.buildings(source.bounds)
    assert found["osm_id"].tolist() == ordinary.buildings(ordinary.bounds)["osm_id"].tolist()
    ((buildings, _),) = scenes_of(source, tile_size=180, latitude=60.17, longitude=-180.0, radius=150)
    assert len(buildings) == 9


def test_overture_has_buildings_on_both_sides(tmp_path: Path, ordinary: Source) -> None:
    known = ordinary.buildings(ordinary.bounds)
    frame = gpd.GeoDataFrame(
        {"id": [f"b{k}" for k in range(len(known))], "sources": [None] * len(known), "height": 9.0},
        geometry=[
            translate(shape, 180 - 24.94 if shape.centroid.x < 24.94 else -180 - 24.94) for shape in known.geometry
        ],
        crs="EPSG:4326",
    )
    path = tmp_path / "town.parquet"
    frame.to_parquet(path, write_covering_bbox=True)
    centre = {"latitude": 60.17, "longitude": 180.0, "radius": 150.0}
    source = open_source(AreaSettings(source=str(path), city="Town", **centre), tmp_path / "cache")
    ((buildings, _),) = scenes_of(source, tile_size=180, **centre)
    assert len(buildings) == 9


def test_boxes_are_cut_at_the_antimeridian() -> None:
    assert within_turn((10, 0, 11, 1)) == [(10, 0, 11, 1)]
    assert within_turn((-181, 0, -179, 1)) == [(179, 0, 180, 1), (-180, 0, -179, 1)]
    assert within_turn((181, 0, 182, 1)) == [(-179, 0, -178, 1)]
    west, _, east, _ = world_bounds((-1000, -1000, 1000, 1000), -17.0, 180.0)
    assert west < 180 < east < 180.1


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "town.osm.gz": gzip.compress,
    "town.osm.bz2": bz2.compress,
    "town.osm.xml": bytes,
    "town.osm.xml.gz": gzip.compress,
    "town.osm.xml.bz2": bz2.compress,
}


@pytest.mark.parametrize("name", PACKED)
def test_packed_extracts_are_read(tmp_path: Path, ordinary: Source, name: str) -> None:
    same_buildings(opened(tmp_path, PACKED[name](XML.encode()), name), ordinary)


def elements(xml: str) -> list[str]:
    return re.findall(r"<node[^>]*/>|<way.*?</way>|<relation.*?</relation>", xml)


def in_order(parts: list[str], xml: str = XML) -> str:
    (bounds,) = re.findall(r"<bounds[^>]*/>", xml)
    return f'<osm version="0.6">{bounds}{"".join(parts)}</osm>'


def shuffled(parts: list[str]) -> list[str]:
    return random.Random(3).sample(parts, len(parts))


def half_later(parts: list[str]) -> list[str]:
    """Nodes of the last buildings after the ways, as when two files are joined: most buildings are complete."""
    nodes = [part for part in parts if part.startswith("<node")]
    return [*nodes[:-8], *parts[len(nodes) :], *nodes[-8:]]


@pytest.mark.parametrize(
    "order", [shuffled, half_later, lambda parts: parts[::-1]], ids=["shuffled", "half", "reverse"]
)
def test_unsorted_extracts_are_sorted(
    tmp_path: Path, ordinary: Source, order: Callable[[list[str]], list[str]]
) -> None:
    same_buildings(opened(tmp_path, in_order(order(elements(XML)))), ordinary)


@pytest.mark.parametrize("new", ["all", "some nodes", "nodes of a street"])
def test_elements_that_josm_added_are_there(tmp_path: Path, ordinary: Source, new: str) -> None:
    """JOSM counts new elements downwards from -1."""
    if new == "all":
        text = re.sub(r'\b(id|ref)="(\d+)"', r'\1="-\2"', XML)
    else:
        number = "1" if new == "nodes of a street" else r"1\d"
        text = re.sub(rf'<(node id|nd ref)="({number})"', r'<\1="-\2"', XML)
        assert text != XML
    source = opened(tmp_path, in_order(elements(text)))
    for of in ("buildings", "streets"):
        found, expected = (getattr(one, of)(ordinary.bounds) for one in (source, ordinary))
        assert sorted(abs(found["osm_id"])) == sorted(expected["osm_id"])
        assert found.geometry.union_all().equals(expected.geometry.union_all())


def test_what_is_too_large_to_be_sorted_is_refused_without_a_tool_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewriting, "MOST_SORTED", 1000)
    path = tmp_path / "town.osm"
    path.write_text(in_order(shuffled(elements(XML))))
    with pytest.raises(MapError, match=r"not sorted.*smaller area") as refused:
        read_extract(path)
    assert "osmium" not in str(refused.value)
    path.write_text(XML)
    assert read_extract(path).counts["buildings"] == 9


@pytest.mark.parametrize(
    ("beyond", "shift"),
    [
        (box(-5.9, 101, 5.9, 120), 8),  # 1 m north of the tile
        (box(-6, 102.1, 6, 120), 0),  # far enough
        ([[(-5.9, 99.9), (5.9, 99.9), (5.9, 120.0), (-5.9, 120.0)]], 8),  # its 0.1 m in the tile are clipped away
        ([[(-5.9, 92.0), (5.9, 92.0), (5.9, 120.0), (-5.9, 120.0)]], 8),  # across the edge, as before
        # Narrow where it crosses the edge, wide beyond.
        ([[(-2.9, 99.0), (3.0, 99.0), (3.0, 100.5), (7.0, 100.5), (7.0, 120.0), (-2.9, 120.0)]], -5),
    ],
)
def test_the_base_station_keeps_clear_of_buildings_beyond_the_edge(
    town: Callable[..., Source], beyond: list[list[tuple[float, float]]], shift: float
) -> None:
    houses = [(box(x, y, x + 20, y + 20), {"building": "yes"}) for x in (-80, 60) for y in (-80, 0)]
    source = town([*houses, (beyond, {"building": "yes", "height": "9"})])
    area = AreaSettings(city="Town", scenes=9, min_coverage=0.01, latitude=60.17, longitude=24.94, radius=150)
    scene = SceneSettings(bs_front=0.0)
    (tile,) = plan_tiles(source, area.model_copy(update={"split": SplitSettings(by="scene")}), scene, 7)
    found = build_scene(tile, source, scene, UserSettings(minimum=5, maximum=5), 7)
    assert found.bs_shift == shift
    ring = shapely.Polygon(beyond[0])
    assert ring.distance(shapely.Point(found.bs_position[:2])) >= 1.99
