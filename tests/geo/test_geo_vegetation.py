"""Trees and woods of a map drawn by hand, and the crowns of a scene."""

import json
import shutil
from dataclasses import replace
from math import pi
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from geo_maps import LATITUDE, LONGITUDE, box, osm_xml
from pydantic import ValidationError

from wavecity.dataset.vegetation import crowns_of
from wavecity.flows.recipe import load_recipe
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.extract import open_extract
from wavecity.geo.projection import local_crs, unproject
from wavecity.geo.scene import Scene
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import open_source
from wavecity.geo.vegetation import open_vegetation, read_vegetation, row_of_trees, tree_size, with_vegetation
from wavecity.geo.vegetation_settings import SceneSettings, VegetationSettings

TOWN = [(box(20, 20, 40, 40), {"building": "yes", "height": "9"})]
TREES = [
    ((0.0, 0.0), {"natural": "tree", "height": "14 m", "diameter_crown": "8"}),
    ((10.0, 0.0), {"natural": "tree", "est_height": "20", "circumference": "0.8"}),
    ((20.0, 0.0), {"natural": "tree", "circumference": "120"}),  # in cm
    ((30.0, 0.0), {"natural": "tree"}),
    ((-102.0, 0.0), {"natural": "tree"}),  # reaches into the tile
    ((-104.0, 0.0), {"natural": "tree"}),
    ((-40.0, 2.0), {"natural": "tree"}),  # in the row
    ((50.0, 0.0), {"natural": "shrub"}),
]
ROW = ([(-60.0, 0.0), (-28.0, 0.0)], {"natural": "tree_row", "height": "12"})
WOODS = [
    (box(60, -60, 140, -20), {"natural": "wood", "height": "18"}),
    ([*box(-80, 40, -40, 80), *box(-70, 50, -50, 70)], {"landuse": "forest"}),
    (box(-90, -90, -80, -80), {"landuse": "grass"}),
]


def written(folder: Path) -> Path:
    """The town, as `geo_maps` draws it, with its trees."""
    text = osm_xml([*TOWN, *WOODS], 150.0, [ROW])
    nodes = []
    for number, (place, tags) in enumerate(TREES):
        ((lon, lat),) = unproject(np.array([place]), LATITUDE, LONGITUDE)
        of = "".join(f'<tag k="{key}" v="{value}"/>' for key, value in tags.items())
        nodes.append(f'<node id="{9000 + number}" version="1" lat="{lat:.9f}" lon="{lon:.9f}">{of}</node>')
    path = folder / "town.osm"
    path.write_text(text.replace("<way", "".join(nodes) + "<way", 1), encoding="utf-8")
    return path


def scene_here() -> Scene:
    place = {"latitude": LATITUDE, "longitude": LONGITUDE, "crs": local_crs(LATITUDE, LONGITUDE), "size": 200.0}
    nothing = dict.fromkeys(("mesh", "height", "occupancy", "bs_position", "users", "buildings"))
    return Scene(id="town-0000", city="Town", country="", split="train", bs_shift=0.0, **place, **nothing)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("trees")
    area = AreaSettings(source=str(written(folder)), city="Town", country="FI")
    plain = open_source(area, folder)
    return SimpleNamespace(
        area=area, folder=folder, plain=plain, source=open_vegetation(plain, cities_of(area)[0], folder)
    )


def test_every_kind_of_tag_is_a_crown(town: SimpleNamespace) -> None:
    scene = with_vegetation(scene_here(), town.source, VegetationSettings())
    assert scene.vegetation is not None
    crowns = scene.vegetation.crowns
    trees = crowns[crowns["kind"] == "tree"].set_index("osm_id")
    assert sorted(trees.index) == [9000, 9001, 9002, 9003, 9004, 9006]
    sizes = trees[["top", "radius", "height_source", "diameter_source"]].values.tolist()
    by_id = dict(zip(trees.index, sizes, strict=True))
    assert by_id[9000] == [14, 4, "tag", "tag"]
    assert by_id[9001] == [20, pytest.approx(25 * 0.8 / pi / 2), "estimate", "trunk"]
    assert by_id[9002] == by_id[9003] == [10, 3, "recipe", "recipe"]
    np.testing.assert_allclose(trees["base"], 0.3 * trees["top"])
    for number in trees.index:
        place = TREES[number - 9000][0]
        np.testing.assert_allclose(shapely.get_coordinates(trees.geometry[number])[0], place, atol=0.01)
    # Four trees in 32 m, 8 m apart; that at -40 m is drawn.
    row = crowns[crowns["kind"] == "row"]
    np.testing.assert_allclose(np.sort(shapely.get_coordinates(row.geometry)[:, 0]), [-56, -48, -32], atol=0.01)
    assert row[["osm_id", "top", "radius", "diameter_source"]].values.tolist() == [[1, 12, 3.6, "height"]] * 3


def test_woods_are_areas_with_holes_within_the_tile(town: SimpleNamespace) -> None:
    scene = with_vegetation(scene_here(), town.source, VegetationSettings(wood_height=11.0))
    assert scene.vegetation is not None
    woods = scene.vegetation.crowns.query("kind == 'wood'").sort_values("top")
    assert woods[["base", "top", "height_source"]].values.tolist() == [[0, 11, "recipe"], [0, 18, "tag"]]
    np.testing.assert_allclose(woods.geometry.area, [40**2 - 20**2, 40 * 40], rtol=1e-3)
    counts = {name: found for name, found in scene.provenance["vegetation"].items() if name != "shapes"}
    assert counts == {
        "crowns": {"tree": 6, "row": 3, "wood": 2},
        "heights": {"estimate": 1, "recipe": 5, "tag": 5},
        "diameters": {"height": 3, "recipe": 4, "tag": 1, "trunk": 1},
    }


def test_shapes_of_crowns_are_kept_for_drawings(town: SimpleNamespace) -> None:
    scene = with_vegetation(scene_here(), town.source, VegetationSettings(wood_height=11.0))
    assert scene.vegetation is not None
    table = scene.vegetation.crowns
    kept = crowns_of({"provenance": json.loads(json.dumps(scene.provenance))})
    assert len(kept) == len(table) == 11
    trees = [crown for crown in kept if not np.isnan(crown.radius)]
    expected = sorted((*TREES[number - 9000][0], radius, base, top) for number, radius, base, top in
                      table.query("kind == 'tree'")[["osm_id", "radius", "base", "top"]].itertuples(index=False))  # fmt: skip
    found = sorted((*crown.rings[0][0], crown.radius, crown.base, crown.top) for crown in trees)
    for one in expected:
        assert np.abs(np.array(found) - one).max(1).min() < 0.02
    woods = [shapely.Polygon(crown.rings[0], crown.rings[1:]) for crown in kept if np.isnan(crown.radius)]
    # One of them has a clearing.
    np.testing.assert_allclose(sorted(wood.area for wood in woods), [40**2 - 20**2, 40 * 40], rtol=2e-3)
    assert sorted(len(crown.rings) for crown in kept)[-1] == 2
    assert crowns_of({"provenance": {}}) == crowns_of({}) == []


def test_trees_or_woods_may_be_left_out(town: SimpleNamespace) -> None:
    for settings, kinds in (
        (VegetationSettings(woods=False), {"tree", "row"}),
        (VegetationSettings(trees=False), {"wood"}),
        (VegetationSettings(trees=False, woods=False), set()),
    ):
        scene = with_vegetation(scene_here(), town.source, settings)
        assert scene.vegetation is not None
        assert set(scene.vegetation.crowns["kind"]) == kinds
    assert with_vegetation(scene_here(), town.source, None) == scene_here()


def test_buildings_and_streets_are_those_of_the_map_without_trees(town: SimpleNamespace) -> None:
    for name in ("buildings.parquet", "streets.parquet", "map.json"):
        one, other = (source.parquet.with_name(name).read_bytes() for source in (town.plain, town.source))
        assert one == other
    assert town.source.provenance == town.plain.provenance
    assert not town.plain.parquet.with_name("vegetation.parquet").exists()
    assert open_extract(Path(town.area.source), "town", town.folder).provenance == town.plain.provenance


def test_an_unsorted_map_has_the_same_trees(town: SimpleNamespace, tmp_path: Path) -> None:
    text = Path(town.area.source).read_text(encoding="utf-8")
    head, ways = text.split("<way", 1)
    rest = "<way" + ways.removesuffix("</osm>")
    start = head.index("<node")
    mixed = tmp_path / "mixed.osm"
    mixed.write_text(f"{head[:start]}{rest}{head[start:]}</osm>", encoding="utf-8")
    one, other = (read_vegetation(path).sort_values(["kind", "osm_id"]) for path in (Path(town.area.source), mixed))
    assert one["kind"].tolist() == other["kind"].tolist() == ["row"] + ["tree"] * 7 + ["wood"] * 2
    assert shapely.equals_exact(one.geometry.to_numpy(), other.geometry.to_numpy(), 1e-7).all()
    assert [json.loads(text) for text in one["tags"]] == [json.loads(text) for text in other["tags"]]


def test_a_map_without_trees_has_no_crowns(tmp_path: Path) -> None:
    (tmp_path / "bare.osm").write_text(osm_xml(TOWN), encoding="utf-8")
    area = AreaSettings(source=str(tmp_path / "bare.osm"))
    source = open_vegetation(open_source(area, tmp_path), cities_of(area)[0], tmp_path)
    scene = with_vegetation(scene_here(), source, VegetationSettings())
    assert scene.vegetation is not None
    assert len(scene.vegetation.crowns) == 0
    assert scene.vegetation.checksum == replace(scene.vegetation).checksum


@pytest.mark.parametrize(
    ("tags", "height", "diameter"),
    [
        ({}, 8.0, 4.0),
        ({"height": "tall"}, 8.0, 4.0),
        ({"height": "400"}, 8.0, 4.0),
        ({"height": "40 ft"}, 12.192, 6.096),
        ({"height": "5", "est_height": "9"}, 5.0, 2.5),
        ({"diameter_crown": "12,5"}, 8.0, 12.5),
        ({"diameter_crown": "0", "circumference": "1.256637"}, 8.0, 10.0),
    ],
)
def test_sizes(tags: dict[str, str], height: float, diameter: float) -> None:
    size = tree_size(tags, VegetationSettings(tree_height=8.0, crown_diameter=4.0))
    assert (size.height, size.diameter) == (pytest.approx(height), pytest.approx(diameter, rel=1e-6))


def test_rows_have_a_tree_at_least() -> None:
    assert len(row_of_trees(shapely.LineString([(0, 0), (1, 0)]), 8.0)) == 1
    lines = shapely.MultiLineString([[(0, 0), (16, 0)], [(0, 5), (24, 5)]])
    places = row_of_trees(lines, 8.0)
    np.testing.assert_allclose(places, [(4, 0), (12, 0), (4, 5), (12, 5), (20, 5)])


def test_a_recipe_without_vegetation_is_written_as_before() -> None:
    plain = load_recipe("quickstart")
    assert not {"vegetation", "materials", "base_stations"} & set(plain.data_parts()["scene"])
    assert not {"vegetation", "materials", "base_stations"} & set(SceneSettings().model_dump())
    asked = load_recipe("quickstart", ("scene.vegetation={}",))
    assert asked.data_parts()["scene"]["vegetation"]["crown_base"] == 0.3


def test_maps_without_trees_are_refused(town: SimpleNamespace) -> None:
    place = ("area.latitude=60.17", "area.longitude=24.94", "scene.vegetation={}")
    for source in ("overpass", "/maps/houses.parquet"):
        with pytest.raises(InputError, match=rf"scene.vegetation: a map from {source} holds no trees"):
            load_recipe("quickstart", (f"area.source={source}", *place))
        with pytest.raises(InputError, match="holds no trees"):
            open_vegetation(town.plain, replace(cities_of(town.area)[0], source=source), town.folder)
    with pytest.raises(ValidationError, match="crown_base"):
        VegetationSettings(crown_base=1.0)


def test_a_cache_that_cannot_be_written_is_one_line(
    town: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = cities_of(town.area)[0]
    source = open_source(town.area, tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(InputError, match=r"cache: .*: cannot be written \(No space left on device\)"):
            open_vegetation(source, city, tmp_path)
    assert len(list((tmp_path / "maps").iterdir())) == 1
    assert open_vegetation(source, city, tmp_path).parquet.with_name("vegetation.parquet").exists()
