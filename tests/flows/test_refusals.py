"""What cannot work is refused before anything is fetched or traced, in one line, and nothing is left behind."""

import errno
import socket
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from command import wavecity
from geo_maps import box, osm_xml
from processes import Finished
from rich.text import Text
from toy import build_store, make_layout

from wavecity.dataset.files import read_json, write_json
from wavecity.dataset.publish import latest
from wavecity.flows import planning, units
from wavecity.flows.commands.options import nothing_left
from wavecity.flows.drafts import reuse_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.run_checks import refuse_unfit_model
from wavecity.flows.splits import empty_splits, refuse_untrainable
from wavecity.flows.store_tables import print_shortfalls
from wavecity.flows.units import Job
from wavecity.geo import network
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError

HOUSES = [(box(x, y, x + 20, y + 20), {"building": "house", "height": "7"}) for x in (-80, 0, 60) for y in (-80, 0)]
RECIPE = """
name: mine
area:
  source: town.osm
  city: Town
  country: FI
  scenes: 1
  min_coverage: 0.01
  split: {by: scene, validation: 0, test: 0}
users: {minimum: 10, maximum: 10}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a map and a recipe."""
    (tmp_path / "town.osm").write_text(osm_xml(HOUSES))
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


def refused(result: Finished, *words: str) -> None:
    """It ended with exit code 2 and one line of its own, which says these words."""
    assert result.returncode == 2, result.stderr
    (line,) = [text for text in result.stderr.splitlines() if text.startswith("wavecity: ")]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (RECIPE.replace("Town", "München").encode("latin-1"), ("mine.yaml", "line 5 is not UTF-8", "0xfc", "as UTF-8")),
        (RECIPE.encode() + b"users: {minimum: 5}\n", ("'users' is there twice, in lines 10 and 11",)),
        (
            RECIPE.replace("city: Town", "city: Town\n  scenes: 3").encode(),
            ("'scenes' is there twice, in lines 6 and 8",),
        ),
    ],
    ids=["latin-1", "section twice", "key twice"],
)
def test_recipes_that_are_broken_as_text(folder: Path, content: bytes, words: tuple[str, ...]) -> None:
    (folder / "mine.yaml").write_bytes(content)
    refused(wavecity("plan", "mine.yaml", cwd=folder), *words)


def test_a_recipe_may_begin_with_a_byte_order_mark(folder: Path) -> None:
    """Windows' editors write one."""
    (folder / "mine.yaml").write_bytes(b"\xef\xbb\xbf" + RECIPE.encode())
    assert load_recipe(str(folder / "mine.yaml")).area.city == "Town"


@pytest.mark.parametrize("name", ["a: b.osm", "map #1.osm", "[1].osm", "'quoted.osm", "~.osm", "no", "1.50"])
def test_paths_of_set_are_taken_as_they_stand(name: str) -> None:
    assert load_recipe("quickstart", (f"area.source={name}",)).area.source == name


def test_other_values_of_set_are_yaml() -> None:
    recipe = load_recipe(
        "quickstart", ("area.country=NO", 'area.city="No"', "scene.bs_height=2e1", "mobility=null", "base=null")
    )
    assert (recipe.area.country, recipe.area.city, recipe.scene.bs_height, recipe.mobility) == ("NO", "No", 20.0, None)
    with pytest.raises(InputError, match=r"^--set area\.cities=\[1: not valid YAML"):
        load_recipe("quickstart", ("area.cities=[1",))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("area.tile_size=205",), ("scene.occupancy_patch: 10 m does not divide area.tile_size, 205 m",)),
        (("scene.resolution=3",), ("scene.resolution: 3 m does not divide",)),
        (("scene.occupancy_patch=300",), ("scene.occupancy_patch: 300 m does not divide",)),
        (("radio.wall_material=brick", "radio.frequency=60e9"), ("wall_material brick", "up to 40 GHz", "60 GHz")),
        (("radio.ground_material=asphalt_concrete", "radio.frequency=41e9"), ("ground_material asphalt_concrete",)),
    ],
    ids=str,
)
def test_recipes_that_cannot_be_traced(folder: Path, changes: tuple[str, ...], words: tuple[str, ...]) -> None:
    sets = [word for change in changes for word in ("--set", change)]
    refused(wavecity("build", "mine.yaml", "--out", "store", *sets, cwd=folder), *words)
    assert not (folder / "store").exists()


def test_sizes_that_divide_but_for_rounding_are_accepted() -> None:
    assert load_recipe("quickstart", ("scene.resolution=0.1", "scene.occupancy_patch=0.4")).scene.resolution == 0.1


def test_a_run_without_scenes_to_train_on_is_refused(folder: Path) -> None:
    refused(wavecity("run", "mine.yaml", "--out", "run", cwd=folder), "no scene for validation among 1")
    assert not (folder / "run").exists()
    refuse_untrainable(load_recipe("quickstart"))
    # Split by city: which cities give scenes is known, and which of them are held out.
    few = load_recipe("temporal", ("area.scenes=6",))
    used = {city.name for city in cities_of(few.area) if city.scenes}
    assert len(used) == 6
    assert set(empty_splits(few)) == {"train", "validation", "test"} - set(_splits(few, used))


def _splits(recipe: Recipe, names: set[str]) -> list[str]:
    """Splits of some cities by the plan itself, without maps."""
    from wavecity.geo.plan import join_plans, plan_one

    plans = [plan_one(city, lambda _: None, recipe.area, recipe.scene, recipe.seed) for city in cities_of(recipe.area)]
    plan = join_plans(plans, recipe.area, recipe.seed)
    return [
        tile.split for city in plan.cities for tile in city.tiles if tile.status == "planned" and tile.city in names
    ]


def test_a_model_whose_patches_do_not_fit_the_tile_is_refused_before_the_build() -> None:
    """Otherwise it is the pretraining that refuses, hours later."""
    refuse_unfit_model(load_recipe("quickstart-paper"))
    unfit = load_recipe("quickstart-paper", ("area.tile_size=210",))
    with pytest.raises(InputError, match=r"height map of 210 cells .* training\.model\.height_patch 20 must divide"):
        refuse_unfit_model(unfit)


def test_a_plan_says_which_split_has_no_scene(folder: Path) -> None:
    result = wavecity("plan", "mine.yaml", "--set", "area.split.test=0.3", cwd=folder)
    assert result.returncode == 0
    assert "warning: area.split: no scene for test" in result.stderr


TWO = """
name: two
area:
  scenes: 2
  min_coverage: 0.01
  cities: [{name: Town, source: town.osm}, {name: Other, source: twon.osm}]
  split: {by: city, validation: 0, test: 0}
"""


def test_a_misspelt_file_of_one_city_is_an_error(folder: Path) -> None:
    (folder / "two.yaml").write_text(TWO)
    result = wavecity("plan", "two.yaml", cwd=folder)
    refused(result, "Other: twon.osm: no such file; did you mean town.osm?", "area.allow_missing")
    with pytest.raises(InputError, match=r"Other: .*did you mean town\.osm"):
        plan_scenes(_in(folder, TWO), folder / "maps")
    plan = plan_scenes(_in(folder, TWO.replace("scenes: 2", "scenes: 2\n  allow_missing: true")), folder / "maps")
    assert [city.state for city in plan.cities] == ["ready", "missing"]


def _in(folder: Path, text: str) -> Recipe:
    (folder / "some.yaml").write_text(text.replace("source: t", f"source: {folder}/t"))
    return load_recipe(str(folder / "some.yaml"))


@pytest.fixture
def silent_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_does_not_answer_is_given_up(
    folder: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """219 cities, six of them with scenes: three are tried, the packaged map at the end is used."""
    waits: list[float] = []
    monkeypatch.setattr(network, "sleep", waits.append)
    server = f"http://127.0.0.1:{silent_port}/{{city}}.osm.pbf"
    recipe = load_recipe("temporal", (f"area.source={server}", "area.scenes=6"))
    with pytest.raises(InputError, match=r"none of the other 5 cities; after 3 of them no more were tried"):
        plan_scenes(recipe, folder)
    attempts = len(waits)
    assert attempts == 12  # four waits of each of three cities
    (here,) = [city.model_copy(update={"source": "helsinki"}) for city in recipe.area.cities if city.name == "Helsinki"]
    cities = [*recipe.area.cities[:9], here]
    some = recipe.model_copy(update={"area": recipe.area.model_copy(update={"cities": tuple(cities), "scenes": 10})})
    plan = plan_scenes(some, folder)
    assert [city.problem[:9] for city in plan.cities[3:9]] == ["not tried"] * 6
    assert f"127.0.0.1:{silent_port} did not answer for 3 cities" in plan.cities[8].problem
    assert len(waits) == 2 * attempts


def test_maps_of_cities_without_scenes_are_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three cities with room for one scene only the first map is opened."""
    opened: list[str] = []
    real = planning.open_city

    def open_city(city, *rest):
        opened.append(city.name)
        return real(city, *rest)

    monkeypatch.setattr(planning, "open_city", open_city)
    text = TWO.replace("twon.osm", "http://127.0.0.1:1/other.osm.pbf").replace("scenes: 2", "scenes: 1")
    plan = plan_scenes(_in(folder, text), folder / "maps")
    assert set(opened) == {"Town"}
    assert [city.state for city in plan.cities] == ["ready", "not needed"]
    assert plan.short == []


def test_every_city_that_gave_less_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "store"
    build_store(store, make_layout(scenes=2, unit=2, users=12))
    version = latest(store)
    assert version is not None
    lineage = read_json(version.folder / "lineage.json") or {}
    of = {"wanted": 3, "scenes": 3, "rejected": {}, "problem": ""}
    cities = [
        {**of, "name": "Whole"},
        {**of, "name": "Short", "scenes": 1, "rejected": {"coverage below 10 %": 4, "not needed": 3}},
        {**of, "name": "Lost", "scenes": 0, "problem": "area.source: lost.osm: no such file"},
        {**of, "name": "Failed"},
        *({**of, "name": name, "scenes": 0, "problem": "not tried, as it did not answer"} for name in "AB"),
    ]
    write_json(version.folder / "lineage.json", {**lineage, "cities": cities})
    write_json(version.folder / "ledger.json", [{"city": "Failed", "scene_id": "failed-0001"}])
    print_shortfalls(version.folder)
    lines = capsys.readouterr().out.splitlines()
    assert "Short: 1 of 3 scenes: coverage below 10 % 4" in lines
    assert "Lost: 0 of 3 scenes: area.source: lost.osm: no such file" in lines
    assert "Failed: 2 of 3 scenes: quarantined 1" in lines
    assert "2 more cities (A, B): 0 scenes: not tried, as it did not answer" in lines
    assert not any("Whole" in line for line in lines)


@pytest.mark.parametrize(("unserved", "status"), [("warn", "done"), ("refuse", "quarantined")])
def test_scenes_where_hardly_anybody_is_served(
    folder: Path, monkeypatch: pytest.MonkeyPatch, unserved: str, status: str
) -> None:
    recipe = _in(folder, RECIPE + f"scene: {{min_served: 0.2, unserved: {unserved}}}\n")
    plan = plan_scenes(recipe, folder / "maps")
    outage = np.ones(10, dtype=bool)
    outage[0] = False
    arrays = {"csi": np.zeros((10, 2, 2), np.complex64), "outage": outage, "los": ~outage}
    monkeypatch.setattr(units, "trace", lambda *_: arrays)
    monkeypatch.setattr(units, "channel_checksum", lambda _: "")
    reuse = reuse_of(recipe, plan, folder / "store")
    (tile,) = plan.accepted
    job = Job(tile, reuse.inputs[tile.id], None, "first")
    _, outcome, _ = units._run_scene(job, plan.sources["Town"], recipe)
    assert outcome["status"] == status
    if status == "quarantined":
        assert outcome["reason"] == "SceneError: 10% of the users are served, below scene.min_served 20%"


def test_pictures_and_unknown_scenes_leave_nothing(folder: Path) -> None:
    refused(wavecity("plan", "mine.yaml", "--png", "x.docx", cwd=folder), "--png x.docx: name a file that ends in .png")
    refused(
        wavecity("export", "mine.yaml", "--scene", "town-9999", "--out", "scene", cwd=folder), "accepts no such tile"
    )
    missing = ("--set", "area.source=other.osm")
    refused(wavecity("run", "mine.yaml", "--out", "run", "--set", "area.split.test=0.9", *missing, cwd=folder))
    assert sorted(path.name for path in folder.iterdir()) == ["mine.yaml", "town.osm"]


@pytest.mark.parametrize(
    ("before", "files", "there"),
    [(False, ["recipe.json"], False), (True, [], True), (False, ["map.osm.pbf"], True)],
    ids=["new and empty", "old", "with a map"],
)
def test_a_store_that_was_never_filled_is_removed(tmp_path: Path, before: bool, files: list[str], there: bool) -> None:
    store = tmp_path / "store"
    if before:
        store.mkdir()

    def fail() -> None:
        with nothing_left(store):
            (store / "maps").mkdir(parents=True)
            for name in files:
                (store / "maps" / name).touch()
            raise InputError

    with pytest.raises(InputError):
        fail()
    assert store.exists() == there


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(*_: object, **__: object) -> None:
        try:
            raise OSError(code, "No space left on device", "store/data.zarr")
        except OSError as error:
            msg = "a worker failed"
            raise ExceptionGroup(msg, [RuntimeError("x")]) from error

    monkeypatch.setattr("wavecity.flows.planning.show_plan", full)
    result = wavecity("plan", "mine.yaml", cwd=folder)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("wavecity: the disk is full (store/data.zarr); make room")
    assert "Traceback" not in result.stderr


def test_a_disk_that_fills_with_maps_is_no_wrong_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geopandas.GeoDataFrame.to_parquet", full)
    result = wavecity("plan", "mine.yaml", "--maps", "maps", cwd=folder)
    assert result.returncode == 1
    assert "wavecity: cache: maps/maps: cannot be written (No space left on device)" in result.stderr
    assert [path for path in (folder / "maps").rglob("*") if path.is_file()] == []


def test_other_errors_are_no_full_disks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("wavecity.flows.planning.show_plan", broken)
    with pytest.raises(OSError, match="Input/output"):
        wavecity("plan", "mine.yaml", cwd=folder)


@pytest.mark.parametrize("command", ["build", "run"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("area.source=nope.osm", "area.source: nope.osm: no such file; give"),
        ("area.source=nope.parquet", "area.source: nope.parquet: no such file; give an Overture"),
        ("area.heights=nope.parquet", "area.heights: nope.parquet: no such file; give"),
    ],
)
def test_a_missing_map_is_refused_before_prefect_is_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, change: str, words: str
) -> None:
    monkeypatch.setattr("wavecity.flows.commands.build.prefect_answers", lambda: pytest.fail("Prefect was started"))
    splits = ("--set", "area.scenes=8", "--set", "area.split={by: scene, validation: 0.3, test: 0.3}")
    result = wavecity(command, "mine.yaml", "--out", "there", *splits, "--set", change, cwd=folder)
    refused(result, words)
    assert "Prefect" not in result.stderr
    assert not (folder / "there").exists()


def test_what_a_schema_can_say_is_in_that_of_the_recipe() -> None:
    """Prefect checks parameters by it, before a run exists."""
    schema = Recipe.model_json_schema()["properties"]
    for name in ("quickstart", None):
        jsonschema.validate(name, schema["base"])
    with pytest.raises(jsonschema.ValidationError, match=r"'nope' is not one of .*'quickstart'"):
        jsonschema.validate("nope", schema["base"])
    with pytest.raises(jsonschema.ValidationError) as refusal:
        jsonschema.validate("My Name", schema["name"])
    # What is printed, for Prefect's command line does it through rich.
    assert Text.from_markup(refusal.value.message).plain == refusal.value.message
