"""How long and how large a build will be, against a build of the same recipe."""

import re
from pathlib import Path

import pytest
from command import wavecity, wavecity_process

from wavecity.dataset.files import files_below
from wavecity.flows.forecast import Forecast, plan_of_some, seconds_per_effort
from wavecity.flows.planning import show_plan
from wavecity.flows.recipe import load_recipe
from wavecity.geo.plan import Plan
from wavecity.geo.settings import SplitSettings
from wavecity.geo.tiles import divide


def test_each_workers_first_unit_compiles_and_does_not_count() -> None:
    """Worker, end, seconds and effort of each unit."""
    units = [(1, 9.0, 9.0, 4.0), (2, 10.0, 10.0, 4.0), (1, 12.0, 3.0, 4.0), (2, 15.0, 5.0, 4.0)]
    assert seconds_per_effort(units) == pytest.approx(1.0)
    assert seconds_per_effort(units[:2]) == pytest.approx(19 / 8)


def test_seconds_and_bytes_of_all_scenes() -> None:
    found = Forecast(scenes=10_000, measured=32, workers=2, rate=2.0, start=40.0, scene_bytes=2e6, other_bytes=1e6)
    assert found.seconds == 5040
    assert found.nbytes == 2.0001e10
    assert str(found) == (
        "forecast: 10,000 scenes take 84 min with 2 workers (2.00 scenes/s), 20 GB (2.00 MB a scene) and 2.8 core-hours, "
        "by 32 of them"
    )


def test_some_tiles_of_a_plan_are_spread_over_it(tmp_path: Path, maps: Path) -> None:
    plan = show_plan(load_recipe("quickstart"), maps, fetch=False)
    every = [tile.id for tile in plan.accepted]
    few = [tile.id for tile in plan_of_some(plan, 4).accepted]
    assert few == [every[0], every[4], every[8], every[12]]
    assert [tile.id for tile in plan_of_some(plan, 99).accepted] == every
    assert plan_of_some(Plan([]), 4).accepted == []


def test_only_a_forecast_takes_workers_and_a_rate() -> None:
    result = wavecity("plan", "quickstart", "--rate", "2")
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1] == "wavecity: --rate is for --forecast only"


def test_cities_of_the_large_recipe() -> None:
    """At least 4 validation and 6 test cities of several continents; the two extracts of a city are in one split."""
    area = load_recipe("cities-39").area
    assert area.split == SplitSettings(validation=0.1, test=0.16)
    split = divide([city.name for city in area.cities], area.split, load_recipe("cities-39").seed)
    test = sorted(name for name, part in split.items() if part == "test")
    assert test == ["Baltimore", "Casablanca", "Granada", "Hyderabad", "Quito", "Rio de Janeiro", "Sofia"]
    assert sorted(name for name, part in split.items() if part == "validation") == [
        "Baku",
        "Chiang Mai",
        "Lyon",
        "Pretoria",
    ]
    assert split["Dhaka"] == split["Dhaka South"]
    assert split["Lima"] == split["Lima West"]


@pytest.mark.system
def test_the_size_foretold_is_that_of_the_build(tmp_path: Path) -> None:
    options = (
        "--set",
        "area.scenes=8",
        "--set",
        "solver.rays=20000",
        "--set",
        "users.maximum=40",
        "--set",
        "users.minimum=40",
    )
    told = wavecity_process("plan", "quickstart", *options, "--forecast", "--workers", "1", "--rate", "2.5")
    assert told.returncode == 0, told.stderr
    line = told.stdout.strip().splitlines()[-1]
    assert line.startswith("forecast: 8 scenes take ")
    assert "(2.50 scenes/s)" in line
    built = wavecity_process("build", "quickstart", *options, "--out", tmp_path / "store", "--workers", "1")
    assert built.returncode == 0, built.stderr
    store = tmp_path / "store"
    names = [name for name in files_below(store) if not name.startswith("maps")]
    size = sum((store / name).stat().st_size for name in names)
    assert float(re.findall(r"([0-9.e-]+) GB", line)[0]) == pytest.approx(size / 1e9, rel=0.2)
