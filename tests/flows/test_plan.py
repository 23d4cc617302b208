"""Several cities: planned, kept, built without the one that has no map; and `wavecity plan`."""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import xarray as xr
import yaml
from command import wavecity, wavecity_process

from wavecity.flows.drafts import dataset_fingerprint
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import load_recipe
from wavecity.geo.extract import find_helsinki

CITIES = """
name: two-cities
area:
  scenes: 6
  allow_missing: true
  split: {by: city, validation: 0.34, test: 0.33}
  cities:
    - {name: Helsinki, country: FI, source: helsinki}
    - {name: Kluuvi, country: FI, source: helsinki, latitude: 60.1705, longitude: 24.9440, radius: 600}
    - {name: Atlantis, country: GR, source: nowhere/atlantis.osm.pbf}
users: {minimum: 10, maximum: 12}
radio: {columns: 4, rows: 4}
solver: {rays: 5000, max_depth: 1}
store: {unit: 2}
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "two-cities.yaml"
    path.write_text(CITIES)
    return path


def test_a_city_is_planned_once(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(str(recipe_file))
    first = plan_scenes(recipe, tmp_path)
    assert [city.state for city in first.cities] == ["ready", "ready", "missing"]
    assert len(list((tmp_path / "plans").glob("*.json"))) == 2

    def never(*_: object) -> None:
        msg = "planned again"
        raise AssertionError(msg)

    monkeypatch.setattr("wavecity.geo.tiles.qualify", never)
    again = plan_scenes(recipe, tmp_path)
    assert repr([city.tiles for city in again.cities]) == repr([city.tiles for city in first.cities])
    assert dataset_fingerprint(recipe, again) == dataset_fingerprint(recipe, first)
    # Another seed is another plan.
    with pytest.raises(AssertionError, match="planned again"):
        plan_scenes(recipe.model_copy(update={"seed": 1}), tmp_path)


@pytest.mark.system
def test_the_build_goes_on_without_the_missing_city(recipe_file: Path, tmp_path: Path) -> None:
    result = wavecity_process("build", recipe_file, "--out", tmp_path / "store", "--maps", tmp_path / "maps")
    assert result.returncode == 0, result.stderr
    data = xr.open_zarr(tmp_path / "store" / "latest.zarr")
    assert list(data["city"].values) == ["Helsinki"] * 2 + ["Kluuvi"] * 2
    assert len(set(zip(data["city"].values, data["split"].values, strict=True))) == 2
    assert (tmp_path / "maps" / "maps").is_dir()
    assert not (tmp_path / "store" / "maps").exists()
    shown = wavecity("inspect", tmp_path / "store").stdout
    assert "Atlantis: 0 of 2 scenes: area.source: nowhere/atlantis.osm.pbf: no such file" in shown
    assert wavecity("validate", tmp_path / "store").returncode == 0


def test_plan_shows_cities_tiles_and_what_is_short(recipe_file: Path, tmp_path: Path) -> None:
    result = wavecity("plan", recipe_file, "--json", tmp_path / "plan.json", "--png", tmp_path / "plan.png", "--tiles")
    assert result.returncode == 0, result.stderr
    for words in ("Atlantis", "missing", "1 of 3 cities are 2 scenes short", "OpenStreetMap", "helsinki-00"):
        assert words in result.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [city["scenes"] for city in plan["cities"]] == [2, 2, 0]
    assert {tile["status"] for tile in plan["tiles"]} == {"accepted", "rejected"}
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.system
def test_plan_of_the_world_asks_no_server(tmp_path: Path) -> None:
    """Every connection would be refused by a proxy that is not there."""
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    result = wavecity("plan", "pretrain-10k", "--json", tmp_path / "plan.json", **proxy)
    assert result.returncode == 0, result.stderr
    assert "10000 planned by position" in result.stdout
    tiles = json.loads((tmp_path / "plan.json").read_text())["tiles"]
    assert len(tiles) == len({tile["id"] for tile in tiles}) == 10_000
    assert {tile["split"] for tile in tiles} == {"train", "validation", "test"}
    again = tmp_path / "again.json"
    assert wavecity("plan", "pretrain-10k", "--json", again, **proxy).returncode == 0
    assert again.read_bytes() == (tmp_path / "plan.json").read_bytes()


def test_maps_are_fetched_once_city_by_city(tmp_path: Path) -> None:
    """A server with the map of one of two cities, as one of extracts by city has them."""
    (tmp_path / "served" / "Helsinki").mkdir(parents=True)
    shutil.copy(find_helsinki(), tmp_path / "served" / "Helsinki" / "Helsinki.osm.pbf")
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_request(self, code: object = "-", size: object = "-") -> None:
            asked.append(f"{self.command} {self.path} {int(code)}")  # type: ignore[call-overload]

        def log_error(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        recipe = tmp_path / "fetched.yaml"
        area = {
            "source": f"http://127.0.0.1:{server.server_port}/{{city}}/{{city}}.osm.pbf",
            "scenes": 4,
            "split": {"by": "scene"},
            "cities": [{"name": "Helsinki", "country": "FI"}, {"name": "Atlantis", "country": "GR"}],
        }
        recipe.write_text(yaml.safe_dump({"name": "fetched", "area": area}))
        before = wavecity("plan", recipe, "--maps", tmp_path / "maps")
        assert before.returncode == 0, before.stderr
        assert not asked
        result = wavecity("plan", recipe, "--maps", tmp_path / "maps", "--fetch")
        assert result.returncode == 0, result.stderr
        assert "2 of 40 tiles accepted" in result.stdout
        assert "1 of 2 cities are 2 scenes short" in result.stdout
        assert "GET /Helsinki/Helsinki.osm.pbf 200" in asked
        assert any(line.endswith("/Atlantis/Atlantis.osm.pbf 404") for line in asked)
        asked.clear()
        assert wavecity("plan", recipe, "--maps", tmp_path / "maps", "--fetch").returncode == 0
        assert not any("Helsinki" in line for line in asked)
        server.shutdown()


def test_fetch_needs_a_folder() -> None:
    result = wavecity("plan", "pretrain-10k", "--fetch")
    assert result.returncode == 2
    assert "--fetch needs a folder" in result.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cities": [{"name": "A", "latitude": 1.0}]}, "give latitude and longitude, or neither"),
        ({"cities": [{"name": "A"}], "world": {}}, "give `cities` or `world`, not both"),
        ({"cities": [{"name": "A"}, {"name": "a"}]}, "two cities of one name"),
        ({"source": "overpass", "city": "A"}, "centre"),
    ],
)
def test_wrong_areas_are_one_line(change: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"name": "wrong", "area": {"split": {"by": "scene"}, **change}}))
    result = wavecity("plan", path)
    if result.returncode == 0:  # Overpass is not asked by a plan, only by --fetch or a build
        result = wavecity("plan", path, "--fetch", "--maps", tmp_path)
    assert result.returncode == 2, result.stdout
    assert words in result.stderr
    assert "Traceback" not in result.stderr
