import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest

from wavecity.geo.errors import MapError
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import Source, open_source

WORLD = (-180.0, -90.0, 180.0, 90.0)


def number(text: str | None) -> float | None:
    """What Overture keeps of a tag: a number, or nothing."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def whole(source: Source) -> gpd.GeoDataFrame:
    """Everything of which the map has a polygon."""
    rows = source.buildings(WORLD)
    return rows[rows["problem"] == ""].reset_index(drop=True)


@pytest.fixture
def overture(tmp_path: Path, helsinki: Source) -> Callable[..., Path]:
    """`overture(**columns)` -> Helsinki as Overture publishes it; columns replace or add to its own."""

    def make(**columns: Any) -> Path:
        known = whole(helsinki)
        rows = []
        for kind, osm_id, tags in zip(known["osm_type"], known["osm_id"], known["tags"], strict=True):
            part = "building" not in tags
            record = f"{kind[0]}{osm_id}@4"
            source = {"property": "", "dataset": "OpenStreetMap", "record_id": record, "confidence": None}
            lidar = {"property": "/properties/height", "dataset": "USGS Lidar", "record_id": "w1@1", "confidence": 0.9}
            rows.append(
                {
                    "id": f"08b1126d{osm_id:024x}",
                    "type": "building_part" if part else "building",
                    "sources": [lidar, source],
                    "subtype": None,
                    "class": None if part or tags["building"] == "yes" else tags["building"],
                    "level": None,
                    "height": number(tags.get("height")),
                    "min_height": number(tags.get("min_height")),
                    "num_floors": number(tags.get("building:levels")),
                    "min_floor": number(tags.get("building:min_level")),
                    "roof_shape": tags.get("roof:shape"),
                    "roof_height": number(tags.get("roof:height")),
                    "is_underground": False,
                }
            )
        frame = gpd.GeoDataFrame(rows, geometry=known.geometry.to_numpy(), crs="EPSG:4326")
        path = tmp_path / "helsinki-buildings.parquet"
        frame.assign(**columns).to_parquet(path, write_covering_bbox=True)
        return path

    return make


def test_same_buildings_as_openstreetmap(overture: Callable[..., Path], tmp_path: Path, helsinki: Source) -> None:
    source = open_source(AreaSettings(source=str(overture())), tmp_path)
    found, known = source.buildings(WORLD), whole(helsinki)
    assert found[["osm_type", "osm_id"]].equals(known[["osm_type", "osm_id"]])
    assert found.geometry.geom_equals(known.geometry).all()
    assert [tags.get("building") for tags in found["tags"]] == [tags.get("building") for tags in known["tags"]]
    for key in ("height", "min_height", "building:levels", "building:min_level", "roof:shape"):
        wanted = [tags.get(key) for tags in known["tags"]]
        assert any(wanted)
        if key == "roof:shape":
            assert [tags.get(key) for tags in found["tags"]] == wanted
        else:
            assert [number(tags.get(key)) for tags in found["tags"]] == [number(text) for text in wanted]
    counts = source.provenance["counts"]
    assert {key: counts[key] for key in ("buildings", "parts")} == {
        key: helsinki.provenance["counts"][key] for key in ("buildings", "parts")
    }
    # Overture has numbers only: not a height like `~12`.
    assert counts["with_height"] in (known_heights := helsinki.provenance["counts"]["with_height"], known_heights - 1)
    assert "Overture" in source.provenance["licence"]
    assert "OpenStreetMap" in source.provenance["licence"]
    assert source.provenance["datasets"] == ["OpenStreetMap", "USGS Lidar"]
    json.dumps(source.provenance)
    assert source.streets(WORLD).columns.tolist() == ["osm_id", "tags", "geometry"]
    assert source.streets(WORLD).empty


def test_only_the_citys_circle(overture: Callable[..., Path], tmp_path: Path, helsinki: Source) -> None:
    west, south, east, north = helsinki.bounds
    path = overture()
    area = AreaSettings(source=str(path), latitude=(south + north) / 2, longitude=(west + east) / 2, radius=200)
    some = open_source(area, tmp_path)
    found = some.buildings(WORLD)
    assert set(found["osm_id"]) == set(helsinki.buildings(some.bounds)["osm_id"])
    assert 0 < len(found) < len(whole(helsinki))
    sea = area.model_copy(update={"latitude": 0.0, "longitude": 0.0})
    with pytest.raises(MapError, match="holds no building around the city's centre"):
        open_source(sea, tmp_path)


def test_buildings_that_are_not_of_openstreetmap(
    overture: Callable[..., Path], tmp_path: Path, helsinki: Source
) -> None:
    count = len(whole(helsinki))
    machine = [[{"property": "", "dataset": "Microsoft ML Buildings", "record_id": None, "confidence": 0.8}]] * count
    path = overture(
        sources=machine, is_underground=np.arange(count) == 0, level=np.where(np.arange(count) == 1, -1.0, np.nan)
    )
    found = open_source(AreaSettings(source=str(path)), tmp_path).buildings(WORLD)
    assert set(found["osm_type"]) == {"overture"}
    assert found["osm_id"].is_unique
    assert (found["osm_id"] > 0).all()
    assert sum(tags.get("location") == "underground" for tags in found["tags"]) == 1
    assert sum(tags.get("layer") == "-1" for tags in found["tags"]) == 1
    again = open_source(AreaSettings(source=str(path)), tmp_path / "other").buildings(WORLD)
    assert again["osm_id"].equals(found["osm_id"])


def test_one_element_of_openstreetmap_twice(overture: Callable[..., Path], tmp_path: Path, helsinki: Source) -> None:
    count = len(whole(helsinki))
    same = [[{"property": "", "dataset": "OpenStreetMap", "record_id": "w7@1", "confidence": None}]] * count
    found = open_source(AreaSettings(source=str(overture(sources=same))), tmp_path).buildings(WORLD)
    assert not found.duplicated(["osm_type", "osm_id"]).any()
    assert (found["osm_type"] == "way").sum() == 1


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (None, "no such file"),
        (b"no parquet", "cannot be read as GeoParquet"),
        ("columns", "not Overture buildings by its columns"),
    ],
)
def test_bad_file_gives_one_clear_line(tmp_path: Path, content: bytes | str | None, hint: str) -> None:
    path = tmp_path / "map.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        gpd.GeoDataFrame({"id": ["a"]}, geometry=gpd.points_from_xy([1], [2]), crs="EPSG:4326").to_parquet(path)
    with pytest.raises(MapError) as caught:
        open_source(AreaSettings(source=str(path)), tmp_path / "cache")
    assert str(caught.value).startswith(f"area.source: {path}: ")
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)
