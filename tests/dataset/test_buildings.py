"""GeoParquet of the buildings: other tools put them where the raw map has them, and metres stay what they were."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import osmium
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from pyproj import CRS, Transformer

from wavecity.dataset.buildings import read_buildings, write_buildings
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.projection import project, to_world
from wavecity.geo.settings import AreaSettings, SceneSettings
from wavecity.geo.sources import open_source

# Two tiles of Helsinki, and no simplification, so that every footprint is the map's own.
TILES = {"helsinki-0001": (60.1691, 24.9454), "helsinki-0002": (60.1711, 24.9454)}
SETTINGS = SceneSettings(simplify_tolerance=0.0, min_area=0.0)
UTM = "EPSG:32635"


@pytest.fixture(scope="module")
def helsinki(maps: Path):
    return open_source(AreaSettings(), maps)


@pytest.fixture(scope="module")
def scenes(helsinki):
    found = {name: tile_footprints(*place, 200.0, helsinki, SETTINGS, 0).buildings for name, place in TILES.items()}
    return {name: table.assign(scene_id=name) for name, table in found.items()}


@pytest.fixture(scope="module")
def path(scenes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("buildings") / "unit-00000.parquet"
    write_buildings(file, [(scenes[name], *TILES[name]) for name in TILES])
    return file


def test_geopandas_puts_buildings_where_the_raw_map_has_them(path):
    from wavecity.geo.extract import find_helsinki

    raw = {}
    for item in osmium.FileProcessor(str(find_helsinki()), osmium.osm.NODE | osmium.osm.WAY).with_locations():
        whole = item.is_way() and item.is_closed() and all(node.location.valid() for node in item.nodes)
        if whole and "building" in item.tags:
            raw[item.id] = shapely.Polygon([(node.lon, node.lat) for node in item.nodes])
    table = gpd.read_parquet(path)
    assert table.geometry.name == "geometry"
    assert table.crs == "OGC:CRS84"
    here = table[(table["osm_type"] == "way") & table["osm_id"].isin(list(raw))].to_crs(UTM)
    there = gpd.GeoSeries([raw[number] for number in here["osm_id"]], crs="EPSG:4326").to_crs(UTM)
    # The footprint is cut at the tile's edge and lies on a grid of 1 mm: every corner inside the tile is the map's.
    assert len(here) > 20
    for footprint, mapped in zip(here.geometry, there, strict=True):
        assert shapely.difference(footprint, mapped.buffer(0.005)).area < 1e-6
    whole = np.isclose(here.area.to_numpy(), there.area.to_numpy(), rtol=1e-3)
    assert whole.sum() > 8
    off = shapely.hausdorff_distance(here.geometry.to_numpy()[whole], there.to_numpy()[whole])
    assert off.max() < 0.005


def test_the_file_is_geoparquet_with_both_geometries(path):
    schema = pq.read_schema(path)
    geo = json.loads(schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    assert geo["columns"]["geometry"]["crs"]["id"] == {"authority": "OGC", "code": "CRS84"}
    assert geo["columns"]["local_geometry"]["crs"] is None
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    west, south, east, north = geo["columns"]["geometry"]["bbox"]
    assert 24.94 < west < east < 24.95
    assert 60.168 < south < north < 60.173


def test_the_metadata_say_how_metres_become_degrees(path):
    about = json.loads(pq.read_schema(path).metadata[b"wavecity"])
    table = gpd.read_parquet(path)
    assert set(about["projections"]) == set(TILES)
    for name, projection in about["projections"].items():
        rows = table[table["scene_id"] == name]
        turn = Transformer.from_crs(CRS(projection), "OGC:CRS84", always_xy=True)
        turned = shapely.transform(
            rows[about["column"]].to_numpy(), lambda xy, turn=turn: np.column_stack(turn.transform(xy[:, 0], xy[:, 1]))
        )
        assert shapely.equals_exact(turned, rows.geometry.to_numpy(), 1e-9).all()


def test_wavecity_reads_metres(path, scenes):
    table = read_buildings(path)
    assert set(table.columns) == set(scenes["helsinki-0001"].columns)
    for name, before in scenes.items():
        rows = table[table["scene_id"] == name].reset_index(drop=True)
        assert shapely.equals_exact(rows.geometry.to_numpy(), before.geometry.to_numpy(), 0).all()
        assert rows.drop(columns="geometry").equals(before.drop(columns="geometry").reset_index(drop=True))


def test_the_same_bytes_from_a_table_that_was_read_back(path, tmp_path):
    table = read_buildings(path)
    again = [(table[table["scene_id"] == name], *place) for name, place in TILES.items()]
    write_buildings(tmp_path / "again.parquet", again)
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_files_of_older_versions_are_read(tmp_path, scenes):
    before = scenes["helsinki-0001"].set_crs(None, allow_override=True)
    before.to_parquet(tmp_path / "old.parquet")
    assert read_buildings(tmp_path / "old.parquet").equals(before)


def test_gdal_understands_the_coordinates(path, tmp_path):
    table = gpd.read_parquet(path)
    table.drop(columns="local_geometry").to_file(tmp_path / "buildings.gpkg")
    about = pyogrio.read_info(tmp_path / "buildings.gpkg", force_total_bounds=True)
    assert CRS(about["crs"]).is_geographic
    assert np.allclose(about["total_bounds"], table.total_bounds)


@pytest.mark.skipif("Parquet" not in pyogrio.list_drivers(), reason="this GDAL has no Parquet driver")
def test_gdal_reads_the_file_itself(path):
    assert CRS(pyogrio.read_info(path)["crs"]).is_geographic


def test_maps_are_geoparquet_in_wgs84(helsinki):
    geo = json.loads(pq.read_schema(helsinki.parquet).metadata[b"geo"])
    assert CRS.from_json_dict(geo["columns"]["geometry"]["crs"]) == CRS("EPSG:4326")


def test_a_building_on_the_antimeridian_is_cut_there():
    block = np.array([shapely.box(-30, -10, 20, 10)], dtype=object)
    (world,) = to_world(block, -17.0, 180.0)
    west, _, east, _ = world.bounds
    assert (west, east) == (-180.0, 180.0)
    assert len(world.geoms) == 2
    # Two slim pieces, not a belt round the earth; as much area as before on the ellipsoid.
    parts = [project(np.array([part]), -17.0, 180.0 if part.bounds[0] > 0 else -180.0)[0] for part in world.geoms]
    assert sum(part.area for part in parts) == pytest.approx(1000.0, rel=1e-6)
