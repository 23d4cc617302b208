"""`wavecity radio-map`: files for people, GIS and NumPy."""

from pathlib import Path

import numpy as np
import pytest
from command import wavecity
from PIL import Image
from pyproj import Geod, Transformer

from wavecity.flows.commands.build import RADIO_METRICS
from wavecity.flows.planning import plan_scenes
from wavecity.flows.radio_maps import TITLES
from wavecity.flows.recipe import load_recipe
from wavecity.raytrace.radio_map import RadioMap
from wavecity.raytrace.radio_map_settings import METRICS

SCENE = "helsinki-0020"
QUICK = ("--set", "solver.rays=20000", "--set", "solver.max_depth=1", "--set", "solver.diffraction=false")


def test_files_lie_in_the_right_place_and_say_whose_map_it_is(tmp_path: Path, maps: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    outs = [argument for ending in ("tif", "png", "npz") for argument in ("--out", tmp_path / f"map.{ending}")]
    metrics = ("--metric", "path_gain", "--metric", "los", "--spacing", "5")
    result = wavecity("radio-map", "quickstart", "--scene", SCENE, *QUICK, *metrics, *outs, "--maps", maps)
    assert result.returncode == 0, result.stderr
    plan = plan_scenes(load_recipe("quickstart"), maps)
    (tile,) = [tile for tile in plan.accepted if tile.id == SCENE]
    archive = np.load(tmp_path / "map.npz")
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.descriptions == ("path_gain", "los")
        assert file.tags(1)["units"] == "dB"
        assert "OpenStreetMap contributors" in file.tags()["TIFFTAG_COPYRIGHT"]
        np.testing.assert_array_equal(file.read(1), archive["path_gain"])
        # The north-western corner, by GDAL's idea of the projection and by geodesics on the ellipsoid.
        to_degrees = Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True)
        longitude, latitude = to_degrees.transform(*file.xy(0, 0, offset="ul"))
        shape = file.shape
    assert shape == (40, 40)
    azimuth, _, distance = Geod(ellps="WGS84").inv(tile.longitude, tile.latitude, longitude, latitude)
    assert azimuth == pytest.approx(-45, abs=0.01)
    assert distance == pytest.approx(np.hypot(100, 100), abs=0.01)
    # Next to the base station, at the northern edge, it is loudest.
    loudest = np.unravel_index(np.nanargmax(archive["path_gain"]), shape)
    assert loudest[0] < 10
    assert "OpenStreetMap contributors" in str(archive["attribution"])
    assert Image.open(tmp_path / "map.png").size[0] > 800


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "map.jpg"), "--out map.jpg: what kind of file? It ends in .png, .tif, .npz"),
        (("--out", "map.png", "--spacing", "-1"), "--spacing -1.0: input should be greater than 0"),
        (("--out", "nowhere/map.png"), "--out nowhere/map.png: there is no folder nowhere; make it first"),
        (
            ("--out", "map.png", "--set", "solver.diffuse=true", "--set", "radio.scattering=0.3"),
            "solver.diffuse is true",
        ),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, maps: Path, arguments: tuple[str, ...], words: str) -> None:
    result = wavecity("radio-map", "quickstart", "--scene", SCENE, *arguments, "--maps", maps, cwd=tmp_path)
    assert result.returncode == 2, result.stdout
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_knows_all_metrics() -> None:
    assert RADIO_METRICS == tuple(METRICS) == tuple(TITLES)


def test_pictures_tell_cells_without_a_path_from_weak_ones() -> None:
    values = {
        "path_gain": np.array([[-150, -90], [np.nan, -150]], np.float32),
        "los": np.array([[0, 1], [np.nan, 0]], np.float32),
    }
    found = RadioMap(1.0, 1.5, np.isfinite(values["los"]), values, floor=-150.0)
    np.testing.assert_array_equal(found.silent, [[True, False], [False, True]])
    alone = RadioMap(1.0, 1.5, found.open, {"los": values["los"]}, floor=-150.0)
    assert not alone.silent.any()
    counted = RadioMap(1.0, 1.5, found.open, {"n_paths": np.array([[0, 2], [np.nan, 0]], np.float32)}, floor=-150.0)
    np.testing.assert_array_equal(counted.silent, found.silent)
