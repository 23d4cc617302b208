"""Some cities built anew, cities added, quarantined scenes tried again, older maps filled in: the rest stays as it is."""

import json
import logging
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from command import wavecity, wavecity_process
from geo_maps import box, osm_xml

from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import Draft, load_draft
from wavecity.dataset.files import read_json
from wavecity.dataset.publish import Version, latest, pointed_at, versions
from wavecity.dataset.reader import open_store
from wavecity.flows import backfill, drafts, partial, pipeline, publishing, units
from wavecity.flows.backfill import oldest_first, with_map
from wavecity.flows.drafts import draft_of, published, reuse_of
from wavecity.flows.partial import named_cities, others_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.publishing import check_and_publish, finish
from wavecity.flows.recipe import Recipe, parse_recipe
from wavecity.flows.units import jobs_of, run_unit, sources_of
from wavecity.geo.errors import CommandFailed, InputError

NAMES = ("Aville", "Btown", "Ceton, D.C.")


# 3 x 3 tiles of 200 m with five blocks each.
BLOCKS = [
    (box(x + dx, y + dy, x + dx + 55, y + dy + 40), {"building": "yes", "height": str(k % 3)})
    for k, (x, y) in enumerate((x, y) for x in (-300, -100, 100) for y in (-300, -100, 100))
    for dx, dy in [(10, 20), (80, 30), (20, 80), (110, 90), (40, 140)]
]


def town(path: Path, height: int = 12) -> Path:
    """A map of 3 x 3 tiles, with buildings of about this height."""
    blocks = [(rings, {**tags, "height": str(height + int(tags["height"]))}) for rings, tags in BLOCKS]
    path.write_text(osm_xml(blocks, half=300.0))
    return path


def recipe_of(folder: Path, names: tuple[str, ...] = NAMES[:2], **changes: Any) -> Recipe:
    """Two scenes of each city, which are a unit."""
    cities = [{"name": name, "country": "FI", "scenes": 2, "source": str(folder / f"{name}.osm")} for name in names]
    content: dict[str, Any] = {
        "name": "towns",
        "seed": 3,
        "area": {"cities": cities, "scenes": 2 * len(names), "min_coverage": 0.05,
                 "split": {"by": "city", "validation": 0, "test": 0}},
        "users": {"minimum": 6, "maximum": 8},
        "radio": {"columns": 4, "rows": 4},
        "solver": {"rays": 1000, "max_depth": 1, "max_paths": 4},
        "store": {"unit": 2, "grace": 0, "keep": 9},
    }  # fmt: skip
    for key, value in changes.items():
        section, name = key.split("__")
        content[section][name] = value
    return parse_recipe(content, "towns.yaml")


def run(recipe: Recipe, store: Path, named: tuple[str, ...] = ()) -> Version:
    """Build all cities, or some, by the plain functions."""
    maps = store.parent / "maps"
    others = others_of(recipe, named, store) if named else None
    plan = plan_scenes(recipe, maps, others=others)
    known = published(recipe, plan, store)
    if known:
        return known
    reuse, draft = reuse_of(recipe, plan, store), draft_of(recipe, plan, store)
    for unit in draft.missing():
        jobs = jobs_of(draft, unit, plan, reuse)
        run_unit(draft, unit, jobs, sources_of(jobs, plan), recipe)
    finish(draft, recipe, plan)
    return check_and_publish(draft, recipe, store)


def scenes(version: Version) -> dict[str, dict[str, Any]]:
    receipts = load_draft(version.folder).receipts()
    return {scene["scene_id"]: dict(scene) for receipt in receipts for scene in receipt["scenes"]}


def origins(version: Version) -> list[str]:
    return [scene["origin"] for scene in scenes(version).values()]


def shards(version: Version, unit: int) -> dict[str, bytes]:
    """Every file of a unit's arrays, and its table of buildings."""
    receipt = load_draft(version.folder).receipts()[unit]
    names = [*receipt["files"], f"buildings/unit-{unit:05d}.parquet"]
    assert sum("/c/" in name for name in names) > 10
    return {name: (version.folder / name).read_bytes() for name in names}


@pytest.fixture(autouse=True)
def without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "write_card", lambda *_: None)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of what is traced."""
    found: list[str] = []
    real = units.trace
    monkeypatch.setattr(units, "trace", lambda scene, *given: found.append(scene.id) or real(scene, *given))
    return found


@pytest.fixture
def store(tmp_path: Path, traced: list[str]) -> Path:
    """A version of two cities."""
    for name in NAMES:
        town(tmp_path / f"{name}.osm")
    run(recipe_of(tmp_path), tmp_path / "store")
    assert len(traced) == 4
    traced.clear()
    return tmp_path / "store"


def test_only_the_named_city_is_looked_at(store: Path, traced: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its new map is used; the map of the other one may be gone, and the code another one."""
    town(store.parent / "Btown.osm", 20)
    (store.parent / "Aville.osm").unlink()
    for module in (drafts, partial, publishing, units):
        monkeypatch.setattr(module, "code_of", lambda recipe: "newer")
    first, recipe = versions(store)[0], recipe_of(store.parent)
    second = run(recipe, store, ("Btown",))
    assert second.number == 2
    assert [scene_id.rsplit("-", 1)[0] for scene_id in traced] == ["btown", "btown"]
    assert origins(second)[:2] == ["kept from v1: its city was not built again"] * 2
    assert shards(second, 0) == shards(first, 0)
    assert shards(second, 1) != shards(first, 1)
    before, after = read_json(first.folder / "lineage.json"), read_json(second.folder / "lineage.json")
    assert after["maps"]["Aville"] == before["maps"]["Aville"]
    assert after["maps"]["Btown"]["sha256"] != before["maps"]["Btown"]["sha256"]
    assert after["cities"][0] == before["cities"][0]
    # It is of two states of the code, and says so.
    assert after["inputs"]["code"] == "newer"
    assert [(record["cities"], record["inputs"]) for record in after["kept"]] == [(["Aville"], before["inputs"])]
    assert validate(second.folder).ok
    # Given again, there is nothing to do; built as a whole, the kept city is of an older state of the code.
    traced.clear()
    assert run(recipe, store, ("Btown",)) == second
    assert traced == []
    town(store.parent / "Aville.osm")
    whole = run(recipe, store)
    assert origins(whole) == ["traced: changed: code"] * 2 + ["kept from v2: inputs unchanged"] * 2


def test_a_partial_build_is_the_whole_one_where_nothing_else_has_changed(store: Path, traced: list[str]) -> None:
    town(store.parent / "Btown.osm", 20)
    recipe = recipe_of(store.parent)
    second = run(recipe, store, ("Btown",))
    assert len(traced) == 2
    assert run(recipe, store) == second
    assert "kept" not in read_json(second.folder / "lineage.json")
    fresh = run(recipe, store.parent / "fresh")
    assert [shards(second, unit) for unit in (0, 1)] == [shards(fresh, unit) for unit in (0, 1)]


def test_more_cities_keep_the_scenes_of_the_others(store: Path, traced: list[str]) -> None:
    """With a whole build, and with one of the new city alone: nothing of the others is traced, and bytes are the same."""
    (first,) = versions(store)
    recipe = recipe_of(store.parent, NAMES)
    alone = run(recipe, store, NAMES[2:])
    assert len(traced) == 2
    assert all(scene_id.startswith("ceton") for scene_id in traced)
    # Whoever builds them all finds nothing to trace.
    whole = run(recipe, store)
    assert len(traced) == 2
    assert origins(whole) == ["kept from v2: inputs unchanged"] * 6
    for version in (alone, whole):
        assert [shards(version, unit) for unit in (0, 1)] == [shards(first, unit) for unit in (0, 1)]
        assert shards(version, 2)
        assert len(scenes(version)) == 6


def test_quarantined_scenes_of_other_cities_stay_quarantined(store: Path, traced: list[str]) -> None:
    (first,) = versions(store)
    path = load_draft(first.folder).receipt_path(0)
    receipt = json.loads(Path(str(path)).read_text())
    receipt["scenes"][1] |= {
        "status": "quarantined",
        "n_users": 0,
        "stage": "raytrace",
        "reason": "RuntimeError: bad luck",
    }
    Path(str(path)).write_text(json.dumps(receipt))
    lost = receipt["scenes"][1]["scene_id"]
    town(store.parent / "Btown.osm", 20)
    second = run(recipe_of(store.parent), store, ("Btown",))
    assert scenes(second)[lost]["reason"] == "RuntimeError: bad luck"
    assert open_store(second.folder)["status"].values.tolist() == ["done", "quarantined", "done", "done"]
    assert len(traced) == 2


def test_splits_of_other_cities_stay(store: Path) -> None:
    """In a split by scene the tiles of a city may move those of another one: not if that one is kept."""
    by_scene = {"by": "scene", "validation": 0.25, "test": 0.25}
    recipe = recipe_of(store.parent, area__split=by_scene)
    first = run(recipe, store)
    more = recipe_of(store.parent, NAMES, area__split=by_scene)
    second = run(more, store, NAMES[2:])
    was, now = ({key: scene["split"] for key, scene in scenes(version).items()} for version in (first, second))
    assert now | was == now
    assert set(now.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("names", "changes", "named", "message"),
    [
        (NAMES[:2], {"solver__max_depth": 2}, ("Btown",), r"^cities: v1 was built with another recipe \(solver\.max_depth\)"),
        (NAMES, {}, ("Btown",), r"^cities: v1 has no Ceton, D\.C\., which the recipe has: name them too$"),
    ],
)  # fmt: skip
def test_what_cannot_lie_next_to_each_other_is_refused(
    store: Path, names: tuple[str, ...], changes: dict[str, Any], named: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        others_of(recipe_of(store.parent, names, **changes), named, store)


def test_refusals_without_a_version_without_a_map_and_with_damage(store: Path) -> None:
    recipe = recipe_of(store.parent)
    with pytest.raises(InputError, match=r"^cities: .*/other has no version yet"):
        others_of(recipe, ("Btown",), store.parent / "other")
    (first,) = versions(store)
    shard = first.folder / "data.zarr/csi/c/0/0/0/0"
    assert isinstance(shard, Path)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    town(store.parent / "Btown.osm", 20)
    with pytest.raises(CommandFailed, match=r"^v1: files of aville-\d+ are damaged, .* name Aville in cities too$"):
        run(recipe, store, ("Btown",))
    (store.parent / "Btown.osm").write_text("no map")
    with pytest.raises(InputError, match=r"Btown"):
        run(recipe, store, ("Btown",))


def test_names_of_cities_may_have_commas(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, NAMES)
    assert named_cities(recipe, ["Btown, Ceton, D.C.,Aville"], "cities") == ["Btown", "Ceton, D.C.", "Aville"]
    assert named_cities(recipe, ["Ceton, D.C.", "Ceton, D.C."], "cities") == ["Ceton, D.C."]
    with pytest.raises(InputError, match=r"^cities: 'Atown' is no city of recipe towns; it has Btown$"):
        named_cities(recipe, ["Aville, Atown"], "cities")


@pytest.fixture
def flow(store: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`build_dataset` without Prefect and Dask."""

    @contextmanager
    def lock(*_: Any) -> Any:
        yield SimpleNamespace(check=lambda: None)

    def run_units(
        client: Any, draft: Draft, missing: list[int], plan: Any, reuse: Any, recipe: Recipe, *_: Any, log: Any = None
    ) -> None:
        for unit in missing:
            jobs = jobs_of(draft, unit, plan, reuse)
            run_unit(draft, unit, jobs, sources_of(jobs, plan), recipe)

    for name, part in (
        ("compute", lambda *_: nullcontext()),
        ("turn", lock),
        ("run_units", run_units),
        ("plan_on_cluster", lambda recipe, maps, workers, dask, others: plan_scenes(recipe, maps, others=others)),
        ("finish", finish),
        ("_refuse_by_gates", lambda *_: None),
        ("check_and_publish", check_and_publish),
        ("cluster_map", lambda client: map),
        ("get_run_logger", lambda: logging.getLogger("build")),
    ):
        monkeypatch.setattr(pipeline, name, part)
    monkeypatch.setattr(pipeline.artifacts, "show_version", lambda *_: None)

    def start(recipe: Recipe, **options: Any) -> Version:
        return pipeline.build_dataset.fn(recipe, str(store), maps=store.parent / "maps", announce=False, **options)  # type: ignore[no-any-return]

    return start


def test_the_flow_builds_some_cities(store: Path, traced: list[str], flow: Any) -> None:
    town(store.parent / "Btown.osm", 20)
    (store.parent / "Aville.osm").unlink()
    assert flow(recipe_of(store.parent), cities=("Btown",)).number == 2
    assert len(traced) == 2
    with pytest.raises(InputError, match=r"^cities: 'Nowhere' is no city"):
        flow(recipe_of(store.parent), cities=("Nowhere",))


def test_quarantined_scenes_of_a_version_are_tried_again_as_a_new_one(
    tmp_path: Path, traced: list[str], flow: Any, store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    town(tmp_path / "Btown.osm", 20)
    recipe, trace, unlucky = recipe_of(tmp_path), units.trace, ["btown"]

    def with_bad_luck(scene: Any, *given: Any) -> Any:
        arrays = trace(scene, *given)
        if any(scene.id.startswith(name) for name in unlucky):
            raise RuntimeError("out of luck")
        return arrays

    monkeypatch.setattr(units, "trace", with_bad_luck)
    second = flow(recipe)
    lost = [key for key, scene in scenes(second).items() if scene["status"] != "done"]
    assert len(lost) == 2
    # Without being asked nothing is tried again; without luck the version stays.
    traced.clear()
    assert flow(recipe) == second
    assert flow(recipe, retry_quarantined=True) == second
    assert sorted(traced) == sorted(lost)
    assert "v2 stays: its 2 quarantined scenes are quarantined again" in caplog.text
    assert not list((store / ".staging").iterdir())
    unlucky.clear()
    third = flow(recipe, retry_quarantined=True)
    assert third.number == 3
    assert f"tried again: {', '.join(lost)} quarantined before" in caplog.text
    assert origins(third) == ["kept from v2: inputs unchanged"] * 2 + ["traced: quarantined in v2"] * 2
    assert shards(third, 0) == shards(second, 0)
    assert not [scene for scene in scenes(third).values() if scene["status"] != "done"]
    # It is the version of this recipe and map from here on.
    assert flow(recipe) == third
    assert flow(recipe, retry_quarantined=True) == third
    np.testing.assert_array_equal(
        open_store(third.folder)["csi"].values, open_store(run(recipe, tmp_path / "fresh").folder)["csi"].values
    )


YEARS = (2015, 2019, 2023)


def dated(path: Path, year: int) -> Path:
    """A town as it was in a year, with the time of its last edit."""
    town(path, height=9 + year % 7)
    path.write_text(path.read_text().replace("<way ", f'<way timestamp="{year}-05-01T12:00:00Z" '))
    return path


@pytest.fixture
def built(flow: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `build_dataset` was called with."""
    calls: list[dict[str, Any]] = []

    def build(recipe: Recipe, place: str, workers: Any, dask: Any, maps: Path, **options: Any) -> Version:
        calls.append(options)
        version: Version = flow(recipe, cities=options["cities"], point=options["point"])
        return version

    monkeypatch.setattr(backfill, "build_dataset", build)
    return calls


def single(folder: Path) -> Recipe:
    content = recipe_of(folder).model_dump(mode="json")
    content["area"] |= {"cities": [], "city": "Town", "country": "FI", "source": "nowhere.osm", "scenes": 2}
    content["area"]["split"] = {"by": "scene", "validation": 0, "test": 0}
    return parse_recipe(content, "town.yaml")


def test_versions_come_in_the_order_of_their_maps(
    tmp_path: Path, built: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they are named; the latest is the newest map's, also if an older one is filled in afterwards."""
    maps = {year: str(dated(tmp_path / f"{year}.osm", year)) for year in YEARS}
    place, recipe = tmp_path / "store", single(tmp_path)
    (place / "latest.zarr").unlink()
    for version in versions(place):  # of the fixture
        (version.folder / "draft.json").unlink()
    made = backfill.backfill.fn(recipe, (maps[2023], maps[2019]), store=str(place), maps=tmp_path / "maps")
    assert [list(version.map_dates.values()) for version in made] == [
        ["2019-05-01T12:00:00+00:00"],
        ["2023-05-01T12:00:00+00:00"],
    ]
    assert latest(place) == made[1]
    (older,) = backfill.backfill.fn(recipe, (maps[2015],), store=str(place), maps=tmp_path / "maps")
    assert older.number > made[1].number
    assert older.map_dates == {"Town": "2015-05-01T12:00:00+00:00"}
    assert latest(place) == made[1]
    # Given again, all are there, and readers stay where they are.
    again = backfill.backfill.fn(recipe, tuple(maps.values()), store=str(place), maps=tmp_path / "maps")
    assert again == [older, *made]
    assert latest(place) == made[1]
    assert len(versions(place)) == 3
    assert f"{older.folder.name} (map of 2015-05-01)" in wavecity("inspect", place).stdout


def test_of_several_cities_only_the_named_one_is_built(
    tmp_path: Path, built: list[dict[str, Any]], traced: list[str]
) -> None:  # fmt: skip
    maps = [str(dated(tmp_path / f"{year}.osm", year)) for year in YEARS]
    place = tmp_path / "store"
    made = backfill.backfill.fn(recipe_of(tmp_path), tuple(maps), "Btown", str(place), maps=tmp_path / "maps")
    assert [version.number for version in made] == [2, 3, 4]
    assert {scene_id.rsplit("-", 1)[0] for scene_id in traced} == {"btown"}
    assert [set(version.map_dates) for version in made] == [{"Btown"}] * 3
    again = backfill.backfill.fn(recipe_of(tmp_path), tuple(maps), "Btown", str(place), maps=tmp_path / "maps")
    assert again == made
    assert pointed_at(place) == "v4"


def test_what_cannot_be_put_in_order_or_kept_is_refused(tmp_path: Path) -> None:
    undated = tmp_path / "undated.osm"
    undated.write_text(osm_xml(BLOCKS, half=300.0))
    recipe = recipe_of(tmp_path)
    with pytest.raises(InputError, match=r"^.*undated\.osm: the map has no date"):
        oldest_first(single(tmp_path), (str(undated),), "", tmp_path / "maps")
    with pytest.raises(InputError, match=r"^city: recipe towns has 2 cities: name the one that the maps are of$"):
        with_map(recipe, str(undated), "")
    with pytest.raises(InputError, match=r"^city: 'Nowhere' is no city of recipe towns"):
        with_map(recipe, str(undated), "Nowhere")
    maps = tuple(str(dated(tmp_path / f"{year}.osm", year)) for year in YEARS)
    content = single(tmp_path).model_dump(mode="json")
    content["store"]["keep"] = 2
    few = parse_recipe(content, "town.yaml")
    with pytest.raises(InputError, match=r"^store\.keep is 2, but .* 3 versions, .*set store\.keep to at least 3$"):
        backfill.backfill.fn(few, maps, store=str(tmp_path / "other"), maps=tmp_path / "maps")


@pytest.mark.system
def test_the_commands(tmp_path: Path) -> None:
    """Versions by map date, then one city of the last of them, as users make them."""
    for name in NAMES[:2]:
        town(tmp_path / f"{name}.osm")
    newer, older = (dated(tmp_path / f"{year}.osm", year) for year in (2023, 2019))
    (tmp_path / "towns.yaml").write_text(yaml.safe_dump(recipe_of(tmp_path).model_dump(mode="json")))
    common = ("towns.yaml", "--out", "store", "--workers", "1")
    filled = wavecity_process("backfill", *common, "--city", "Btown", "--map", newer, "--map", older, cwd=tmp_path)
    assert filled.returncode == 0, filled.stderr
    assert filled.stdout.splitlines() == [
        "v1: map of 2019-05-01T12:00:00+00:00: store/versions/v1/data.zarr",
        "v2: map of 2023-05-01T12:00:00+00:00: store/versions/v2/data.zarr",
    ]
    (tmp_path / "Aville.osm").unlink()
    built = wavecity_process("build", *common, "--cities", "Btown", cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    assert "2 scenes kept from v2: its city was not built again" in built.stdout
    assert "published v3: " in built.stdout
    refused = wavecity("build", *common, "--cities", "Btown, Nowhere", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("wavecity: --cities: 'Nowhere' is no city of recipe towns")
