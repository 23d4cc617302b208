"""Heights of another file, in Overture's documented schema, for buildings of which the map states none."""

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from geo_maps import LATITUDE, LONGITUDE, box, osm_xml

from wavecity.dataset.card.maps import state_lines
from wavecity.geo.errors import InputError
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.projection import to_world
from wavecity.geo.settings import AreaSettings, SceneSettings
from wavecity.geo.sources import Source, open_source

# Of the map: a house, two halves of a block, one with a height, one in a corner that no file knows.
HOUSES = [
    (box(0, 0, 20, 20), {"building": "yes"}),
    (box(40, 0, 60, 20), {"building": "yes"}),
    (box(60, 0, 80, 20), {"building": "yes"}),
    (box(0, 40, 20, 60), {"building": "yes", "height": "9"}),
    (box(-80, -80, -60, -60), {"building": "yes"}),
]
# Of the file, in metres around the same place: drawn a little differently, a block in one, a house in two parts.
FOOTPRINTS = [
    (shapely.box(1, 1, 21, 21), 12.5, None),
    (shapely.box(40, 0, 80, 20), 20.0, None),
    (shapely.box(0, 40, 20, 60), 50.0, None),
    (shapely.box(-100, -100, -75, -75), 70.0, None),  # on a tenth of the last house
]


def overture(path: Path, rows: list = FOOTPRINTS) -> Path:
    """File with the columns of https://docs.overturemaps.org/schema/reference/buildings/building/."""
    local = gpd.array.from_shapely([shape for shape, _, _ in rows])
    frame = gpd.GeoDataFrame(
        {
            "id": [f"08b2a100d2cb6fff0200d1e0{number:08d}" for number in range(len(rows))],
            "version": 1,
            "subtype": None,
            "class": None,
            "height": [height for _, height, _ in rows],
            "num_floors": [floors for _, _, floors in rows],
            "sources": [[{"property": "", "dataset": "Microsoft ML Buildings", "record_id": None}] for _ in rows],
        },
        geometry=to_world(local.to_numpy(), LATITUDE, LONGITUDE),
        crs="OGC:CRS84",
    )
    frame.astype({"height": "float64", "num_floors": "Int32"}).to_parquet(path, write_covering_bbox=True)
    return path


@pytest.fixture
def filled(tmp_path: Path) -> Callable[..., Source]:
    """`filled(file)` -> the town with its heights."""

    def make(heights: Path, houses: list = HOUSES) -> Source:
        (tmp_path / "town.osm").write_text(osm_xml(houses))
        area = AreaSettings(source=str(tmp_path / "town.osm"), city="Town", heights=str(heights))
        return open_source(area, tmp_path / "cache")

    return make


def heights_of(source: Source) -> dict[int, tuple[float, str]]:
    rows = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SceneSettings(), 0).buildings
    return {row.osm_id: (row.height, row.height_source) for row in rows.itertuples()}


def test_missing_heights_are_filled_where_footprints_overlap(filled: Callable[..., Source], tmp_path: Path) -> None:
    source = filled(overture(tmp_path / "overture.parquet"))
    found = heights_of(source)
    assert found[1000] == (12.5, "external")
    # One block of the file is two houses of the map.
    assert found[1001] == found[1002] == (20.0, "external")
    # What the map says stays.
    assert found[1003] == (9.0, "tag")
    # A tenth is not enough; the filled ones are not guesses' reason any more.
    assert found[1004][1] == "imputed"
    assert found[1004][0] != 70.0
    assert source.provenance["heights"] | {"sha256": ""} == {
        "file": "overture.parquet", "sha256": "", "usable": 4, "without_height": 4, "filled": 3,
    }  # fmt: skip
    rows = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SceneSettings(), 0).buildings
    assert set(rows["confidence"][rows["height_source"] == "external"]) == {0.5}


def test_the_median_by_area_of_what_covers_a_building(filled: Callable[..., Source], tmp_path: Path) -> None:
    rows = [(shapely.box(0, 0, 5, 20), 40.0, None), (shapely.box(5, 0, 20, 20), 10.0, None)]
    assert heights_of(filled(overture(tmp_path / "parts.parquet", rows)))[1000] == (10.0, "external")


def test_storeys_where_there_are_no_metres(filled: Callable[..., Source], tmp_path: Path) -> None:
    rows = [
        (shapely.box(0, 0, 20, 20), None, 4),
        (shapely.box(40, 0, 60, 20), 30.0, 4),
        (shapely.box(60, 0, 80, 20), -1.0, None),
    ]
    found = heights_of(filled(overture(tmp_path / "floors.parquet", rows)))
    assert found[1000] == (14.0, "external")
    assert found[1001] == (30.0, "external")
    assert found[1002][1] == "imputed"


def test_plain_files_in_other_coordinates(filled: Callable[..., Source], tmp_path: Path) -> None:
    frame = gpd.read_parquet(overture(tmp_path / "overture.parquet"))
    utm = frame[["height", "geometry"]].to_crs("EPSG:32635").rename_geometry("shape")
    utm.to_parquet(tmp_path / "utm.parquet")
    assert heights_of(filled(tmp_path / "utm.parquet"))[1000] == (12.5, "external")
    # Parquet with WKB, as databases write it, without GeoParquet's metadata.
    table = pa.table({"height": frame["height"], "geometry": shapely.to_wkb(frame.geometry.to_numpy())})
    pq.write_table(table, tmp_path / "wkb.parquet")
    assert heights_of(filled(tmp_path / "wkb.parquet"))[1000] == (12.5, "external")


def test_another_file_is_another_map(filled: Callable[..., Source], tmp_path: Path) -> None:
    one = filled(overture(tmp_path / "one.parquet"))
    other = filled(overture(tmp_path / "other.parquet", [(shapely.box(0, 0, 20, 20), 31.0, None)]))
    assert one.provenance["sha256"] != other.provenance["sha256"]
    assert one.provenance["map_sha256"] == other.provenance["map_sha256"]
    assert heights_of(one)[1000] == (12.5, "external")
    assert heights_of(other)[1000] == (31.0, "external")


def test_parts_and_relations_are_as_without_the_file(filled: Callable[..., Source], tmp_path: Path) -> None:
    """The rest of the map goes through unchanged: courtyards, parts, what is lost."""
    houses = [
        *HOUSES,
        ([box(-60, 20, -20, 60)[0], box(-50, 30, -30, 50)[0]], {"building": "yes", "height": "11"}),
        (box(0, 0, 10, 20), {"building:part": "yes", "height": "25"}),
    ]
    source = filled(overture(tmp_path / "overture.parquet"), houses)
    found = heights_of(source)
    assert found[1006] == (25.0, "part")
    assert found[1000] == (12.5, "external")
    plain = open_source(AreaSettings(source=str(tmp_path / "town.osm"), city="Town"), tmp_path / "cache")
    everywhere = (-180.0, -90.0, 180.0, 90.0)
    one, other = source.buildings(everywhere), plain.buildings(everywhere)
    assert one.drop(columns="tags").equals(other.drop(columns="tags"))
    assert source.provenance["counts"] | {"with_height": 0} == plain.provenance["counts"] | {"with_height": 0}


def test_plan_and_card_say_how_many(filled: Callable[..., Source], tmp_path: Path) -> None:
    source = filled(overture(tmp_path / "overture.parquet"))
    assert state_lines({"Town": source.provenance}) == [
        "3 of 4 buildings of town.osm without a height have that of overture.parquet"
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"hoehe": [1.0]}, "neither of the columns height and num_floors"),
        ({"height": [1.0]}, "no column geometry"),
        ({"height": ["tall"], "geometry": [shapely.to_wkb(shapely.box(0, 0, 1, 1))]}, "cannot be read as GeoParquet"),
        (None, "cannot be read as GeoParquet"),
    ],
)
def test_other_files_are_refused_with_one_line(
    filled: Callable[..., Source], tmp_path: Path, columns: dict | None, message: str
) -> None:
    path = tmp_path / "wrong.parquet"
    if columns is None:
        path.write_bytes(b"no parquet")
    else:
        pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError) as caught:
        filled(path)
    assert str(caught.value).startswith(f"area.heights: {path}: {message}")
    assert "\n" not in str(caught.value)


def test_files_that_do_not_say_where_they_are(filled: Callable[..., Source], tmp_path: Path) -> None:
    frame = gpd.read_parquet(overture(tmp_path / "overture.parquet"))
    frame.set_crs(None, allow_override=True).to_parquet(tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="geometry without coordinate reference system"):
        filled(tmp_path / "bare.parquet")
    with pytest.raises(InputError, match="no such file"):
        filled(tmp_path / "missing.parquet")
