"""Reading an indexed map by box, against reading it with a filter of Parquet's own."""

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from wavecity.geo import boxes
from wavecity.geo.boxes import read_box
from wavecity.geo.reading import Bounds

COLUMNS = ["kind", "osm_id", "tags"]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five row groups of small triangles, in an order that has nothing to do with their ids."""
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 1, (230, 2))
    geometry = shapely.polygons(corner[:, None] + rng.uniform(0, 0.05, (230, 3, 2)))
    tags = [json.dumps({"height": str(number)}) for number in range(230)]
    rows = {"kind": rng.choice(["way", "relation"], 230), "osm_id": rng.permutation(230), "tags": tags}
    frame = gpd.GeoDataFrame(rows, geometry=geometry, crs="EPSG:4326")
    frame = frame.iloc[np.argsort(frame.hilbert_distance().to_numpy())]
    path = tmp_path_factory.mktemp("map") / "rows.parquet"
    frame.to_parquet(path, index=False, write_covering_bbox=True, row_group_size=50)
    return path


def filtered(path: Path, bounds: Bounds) -> gpd.GeoDataFrame:
    west, south, east, north = bounds
    box = {edge: pc.field("bbox", edge) for edge in ("xmin", "ymin", "xmax", "ymax")}
    touching = (box["xmin"] <= east) & (box["xmax"] >= west) & (box["ymin"] <= north) & (box["ymax"] >= south)
    found = pq.read_table(path, filters=touching).sort_by([("kind", "ascending"), ("osm_id", "ascending")])
    frame = found.select(COLUMNS).to_pandas()
    frame["tags"] = [json.loads(text) for text in frame["tags"]]
    return gpd.GeoDataFrame(frame, geometry=shapely.from_wkb(found["geometry"].to_numpy()), crs="EPSG:4326")


@pytest.mark.parametrize("kept", [48, 2])
def test_what_a_box_holds(table: Path, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "KEPT_GROUPS", kept)
    rng = np.random.default_rng(4)
    for size in (0.0, 0.01, 0.1, 0.3, 2.0):
        west, south = rng.uniform(-0.1, 1.1, 2)
        bounds = west, south, west + size, south + size
        found, expected = read_box(table, bounds, COLUMNS, ["kind", "osm_id"]), filtered(table, bounds)
        assert found.equals(expected)
        assert (found.dtypes == expected.dtypes).all()
        assert found.crs == expected.crs


def test_whoever_changes_what_was_read_changes_nothing_for_others(table: Path) -> None:
    everywhere = (0.0, 0.0, 0.3, 0.3)
    first = read_box(table, everywhere, COLUMNS, ["osm_id"])
    first["tags"].iloc[0]["height"] = "changed"
    first.loc[:, "osm_id"] = -1
    again = read_box(table, everywhere, COLUMNS, ["osm_id"])
    assert again["tags"].iloc[0]["height"] != "changed"
    assert (again["osm_id"] >= 0).all()


def test_a_file_that_was_replaced_is_read_again(table: Path, tmp_path: Path) -> None:
    path, everywhere = tmp_path / "rows.parquet", (-1.0, -1.0, 2.0, 2.0)
    path.write_bytes(table.read_bytes())
    assert len(read_box(path, everywhere, COLUMNS, ["osm_id"])) == 230
    gpd.read_parquet(path).iloc[:70].to_parquet(path, index=False, write_covering_bbox=True, row_group_size=50)
    assert len(read_box(path, everywhere, COLUMNS, ["osm_id"])) == 70
    gpd.read_parquet(path).iloc[:0].to_parquet(path, index=False, write_covering_bbox=True)
    none = read_box(path, everywhere, COLUMNS, ["osm_id"])
    assert none.empty
    assert none.columns.tolist() == [*COLUMNS, "geometry"]
