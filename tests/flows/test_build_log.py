"""What a build logs: few lines for people, a record per scene for machines."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toy import build_store, make_layout

from wavecity.dataset.draft import load_draft
from wavecity.dataset.publish import latest
from wavecity.flows import build_log
from wavecity.flows.build_log import BuildLog
from wavecity.geo.cities import City
from wavecity.geo.errors import InputError
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.tiles import Tile


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WAVECITY_EVENTS", str(tmp_path / "events.jsonl"))
    return tmp_path / "events.jsonl"


def receipt(unit: int, *scenes: dict[str, Any]) -> Any:
    return {"unit": unit, "scenes": list(scenes), "sizes": {"a": 1_000_000, "b": 500_000}, "seconds_write": 0.1}


def done(name: str) -> dict[str, Any]:
    return {"scene_id": name, "city": "Town", "status": "done", "n_users": 9, "seconds_raytrace": 2.5}


LOST = {
    "scene_id": "town-9",
    "city": "Town",
    "status": "quarantined",
    "n_users": 0,
    "stage": "raytrace",
    "reason": "X: y",
}


def test_lines_come_at_intervals_and_records_always(
    tmp_path: Path, events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    log = BuildLog(logging.getLogger("build"), tmp_path / "store", lambda: now[0])
    draft: Any = SimpleNamespace(layout=make_layout(scenes=12, unit=2))
    log.started(draft, [1, 2, 3, 4, 5])
    for unit, seconds in ((1, 10.0), (2, 60.0), (3, 70.0)):
        now[0] = seconds
        log.unit(receipt(unit, done(f"town-{unit}"), LOST if unit == 2 else done(f"town-{unit}b")))
    assert (
        [record.getMessage() for record in caplog.records]
        == [
            f"store {tmp_path}/store: 10 scenes in 5 of 6 units to build, 1 done before",
            "town-9 is quarantined in raytrace: X: y",
            "4 of 10 scenes, 1 quarantined, 3.0 MB, 0.04 scenes/s, about 2 min left",  # 2 scenes in the 50 s since the first unit
        ]
    )
    records = [json.loads(line) for line in events.read_text().splitlines()]
    scenes = [record for record in records if record["event"] == "scene"]
    assert [(one["unit"], one["scene"], one["city"], one["status"]) for one in scenes][2:4] == [
        (2, "town-2", "Town", "done"),
        (2, "town-9", "Town", "quarantined"),
    ]
    assert scenes[3]["reason"] == "X: y"
    assert scenes[0]["seconds_raytrace"] == 2.5
    assert [record["bytes"] for record in records if record["event"] == "unit"] == [1_500_000] * 3


def test_time_left_counts_the_buildings_of_what_is_left(tmp_path: Path) -> None:
    """Scenes of a city of few buildings are no measure for those of another: effort is 22 buildings and their own."""
    tiles = [Tile(f"town-{n}", "Town", "FI", 60.0, 25.0, 200.0, n_buildings=8 if n < 4 else 98) for n in range(6)]
    now = [0.0]
    log = BuildLog(logging.getLogger("build"), tmp_path, lambda: now[0])
    log.planned(Plan([CityPlan(City("Town", "FI", "helsinki", None, None, 1000.0, 6), tiles)]))
    log.started(SimpleNamespace(layout=make_layout(scenes=6, unit=2)), [0, 1, 2])  # type: ignore[arg-type]
    for unit, seconds in ((0, 30.0), (1, 36.0)):
        now[0] = seconds
        log.unit(receipt(unit, done(f"town-{2 * unit}"), done(f"town-{2 * unit + 1}")))
    # 60 in the 6 s since the first unit was done (0.1 s each), and 240 to come.
    assert log.left() == "about 24 s left"


def test_scenes_that_are_kept_are_no_measure_for_those_that_are_traced(tmp_path: Path) -> None:
    """Three units kept in 3 s say little of three to trace: once one of these took 20 s, the rest takes another 20."""
    tiles = [Tile(f"town-{n}", "Town", "FI", 60.0, 25.0, 200.0, n_buildings=78) for n in range(12)]
    now = [0.0]
    log = BuildLog(logging.getLogger("build"), tmp_path, lambda: now[0])
    log.planned(Plan([CityPlan(City("Town", "FI", "helsinki", None, None, 1000.0, 12), tiles)]))
    kept = {tile.id for tile in tiles[:6]}
    log.started(SimpleNamespace(layout=make_layout(scenes=12, unit=2)), list(range(6)), kept)  # type: ignore[arg-type]
    for unit, seconds in ((0, 1.0), (1, 2.0), (2, 3.0), (3, 22.0), (4, 42.0)):
        now[0] = seconds
        log.unit(receipt(unit, done(f"town-{2 * unit}"), done(f"town-{2 * unit + 1}")))
    assert 18 <= float(log.left().split()[1]) <= 22


def test_the_log_is_bounded_when_everything_is_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WAVECITY_EVENTS", raising=False)
    log = BuildLog(logging.getLogger("build"), tmp_path, lambda: 0.0)
    for unit in range(100):
        log.unit(receipt(unit, LOST, LOST))
    assert len(caplog.records) == build_log.LINES
    assert caplog.records[-1].getMessage().endswith("X: y; further ones are only counted here")
    assert list(tmp_path.iterdir()) == []


def test_the_end_says_what_was_published_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = tmp_path / "store"
    build_store(store, make_layout(scenes=2, unit=2, users=12))
    version = latest(store)
    assert version is not None
    log = BuildLog(logging.getLogger("build"), store)
    draft = load_draft(version.folder)
    log.started(draft, [0])
    log.unit(draft.receipts()[0])
    log.published(version)
    progress, end = (record.getMessage() for record in caplog.records[-2:])
    size = sum(path.stat().st_size for path in version.folder.rglob("*") if path.is_file())
    megabytes = float(progress.split(", ")[1].split()[0])
    assert 0 < megabytes <= size / 1e6
    assert end.startswith("validation: ")
    assert (
        f"checks passed ({sum(json.loads((version.folder / 'validation.json').read_text())['checks'].values())}" in end
    )
    assert end.endswith(f"v1 is published: {version.data}")


def test_the_forecast_of_a_running_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and bytes from what is done, cost from how long there were how many workers."""
    monkeypatch.setenv("WAVECITY_CORE_HOUR", "0.5 EUR")
    now = [0.0]
    log = BuildLog(logging.getLogger("build"), tmp_path / "store", lambda: now[0])
    draft: Any = SimpleNamespace(layout=make_layout(scenes=12, unit=2))
    log.started(draft, list(range(6)))
    log.workers(1)
    assert log.forecast() == ""
    for unit, seconds in ((0, 1000.0), (1, 2000.0), (2, 3000.0)):
        now[0] = seconds
        log.unit(receipt(unit, done(f"town-{unit}"), done(f"town-{unit}b")))
    now[0] = 3600.0
    log.workers(2)
    # 4 scenes in the 2600 s since the first unit; 6 are left, which take 3900 s of two workers, after 3600 s of one.
    assert log.forecast() == (
        "6 of 12 scenes, 4.5 MB, 0.0015 scenes/s, about 65 min left. All 12 scenes take 2 h 05 min, 0.009 GB, "
        f"{(3600 + 7800) / 3600:.1f} core-hours ({(3600 + 7800) / 3600 / 2:.2f} EUR), with 2 workers at the end"
    )
    log.workers(1)
    assert log.forecast().endswith(", with 1 worker at the end")


@pytest.mark.parametrize("price", ["cheap", "EUR 0.04"])
def test_a_price_that_is_none_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, price: str
) -> None:
    monkeypatch.setenv("WAVECITY_CORE_HOUR", price)
    with pytest.raises(InputError, match=rf"^WAVECITY_CORE_HOUR={price}: write the price of a core for an hour"):
        BuildLog(logging.getLogger("build"), tmp_path)
