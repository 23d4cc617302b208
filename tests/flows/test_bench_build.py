"""`wavecity bench build`: all sides make the same scenes, and the figures are there; how fast it was is not tested."""

import json
import math

import pytest
from command import wavecity, wavecity_process

from wavecity.flows.bench import build as bench
from wavecity.flows.bench.build import Run

SMALL = ("users.minimum=20", "users.maximum=24", "solver.rays=20_000", "solver.max_depth=2")
SET = [word for change in SMALL for word in ("--set", change)]


@pytest.mark.system
def test_three_real_scenes_on_every_side(tmp_path):
    out = tmp_path / "build.json"
    arguments = ("--scenes", 3, "--unit", 2, "--rounds", 1, *SET, "--json", out)
    result = wavecity_process("bench", "build", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    assert not [name for name, value in figures.items() if isinstance(value, list | dict)]
    assert all(math.isfinite(value) for value in figures.values() if isinstance(value, int | float))
    # Two units with one worker and two with two.
    assert (figures["scenes"], figures["units"], figures["receipts"]) == (3, 2, 4)
    assert (figures["scenes_done"], figures["scenes_differing"]) == (3, 0)
    assert (figures["rays"], figures["depth"], figures["users_minimum"], figures["users_maximum"]) == (
        20_000,
        2,
        20,
        24,
    )
    seconds = {side: figures[f"seconds_units_{side}"] for side in bench.SIDES}
    assert min(seconds.values()) > 0
    assert figures["overhead_over_raytrace"] == pytest.approx(seconds["1_worker"] / seconds["bare"])
    assert figures["scaling_2_workers"] == pytest.approx(seconds["1_worker"] / seconds["2_workers"])
    assert figures["scaling_2_bare"] == pytest.approx(seconds["bare"] / seconds["2_bare"])
    assert figures["scenes_per_second"] == pytest.approx(3 / seconds["2_workers"])
    # Start, warm-up and what comes after the units are all in the total.
    parts = ("plan", "start", "warm", "units_2_workers", "finish", "publish")
    assert figures["seconds_total"] == pytest.approx(sum(figures[f"seconds_{part}"] for part in parts))
    for side in bench.SIDES:
        assert side in result.stdout
    assert list(tmp_path.iterdir()) == [out]


def test_more_scenes_than_the_map_has_come_from_more_names():
    area = bench.recipe_of(bench.Options(scenes=40)).area
    assert [city.name for city in area.cities] == ["Helsinki 1", "Helsinki 2", "Helsinki 3"]
    assert (area.scenes, area.source) == (40, "helsinki")


def test_figures_are_medians_and_scenes_that_differ_are_counted():
    same = {"a": "1", "b": "2"}
    runs = {
        "bare": [Run(same, units_seconds=seconds) for seconds in (9, 10, 50)],
        "2_bare": [Run(same, units_seconds=4), Run(same, units_seconds=6)],
        "1_worker": [Run(same, units_seconds=seconds, receipts=1) for seconds in (11, 12, 13)],
        "2_workers": [Run(same, 8, 1, 2, 3, 4, receipts=1), Run(same, 6, 1, 2, 3, 4, receipts=1)],
    }
    figures = bench.summary(runs, 5)
    assert figures["overhead_over_raytrace"] == pytest.approx(1.2)
    assert figures["scaling_2_workers"] == pytest.approx(12 / 7)
    assert figures["scaling_2_bare"] == pytest.approx(10 / 5)
    assert figures["scenes_per_second"] == pytest.approx(2 / 7)
    assert figures["seconds_total"] == pytest.approx(5 + 7 + 1 + 2 + 3 + 4)
    assert (figures["scenes_differing"], figures["receipts"]) == (0, 5)
    runs["bare"][1] = Run({"a": "1", "b": "other"}, units_seconds=10)
    runs["1_worker"][0] = Run({"b": "2"}, units_seconds=11)
    assert bench.summary(runs, 5)["scenes_differing"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "radio.rows=-1"], "radio.rows = -1"),
        (["--scenes", "0"], "--scenes"),
        (["--json", "."], "is a folder"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, words, tmp_path):
    result = wavecity("bench", "build", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr
