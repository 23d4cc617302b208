"""`wavecity bench orchestrate`: everything is built, recorded and counted; how fast it was is not tested."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from command import wavecity, wavecity_process

from wavecity.dataset.files import read_json, write_json
from wavecity.flows.bench import orchestrate, prefect_server
from wavecity.flows.bench.measure import rotated
from wavecity.flows.bench.null import null_unit, wrong_units
from wavecity.flows.bench.orchestrate import Run
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.units import jobs_of
from wavecity.geo.errors import InputError


@pytest.mark.system
def test_a_small_run_against_a_real_server(tmp_path):
    out = tmp_path / "figures" / "orchestrate.json"
    arguments = ("--scenes", 40, "--unit", 16, "--rounds", 1, "--map-scenes", 12, "--scaling-scenes", 4)
    arguments += ("--seconds-per-scene", 0.01, "--check-units", 3, "--json", out)
    result = wavecity_process("bench", "orchestrate", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    figures = json.loads(out.read_text())
    assert not [name for name, value in figures.items() if isinstance(value, list | dict)]
    assert all(math.isfinite(value) for value in figures.values() if isinstance(value, int | float))
    # Ours: 3 units with and without sleeping, 1 with each number of workers, and one `finish` a run; then 12 mapped.
    assert (figures["task_runs"], figures["task_runs_lost"]) == ((3 + 1) * 2 + (1 + 1) * 2 + 12, 0)
    # Those runs' units, and the 3 of plain Dask.
    assert (figures["receipts"], figures["receipts_missing"], figures["units_wrong"]) == (3 * 2 + 2 + 3, 0, 0)
    assert figures["overhead_fraction_measured"]
    assert 0 < figures["overhead_fraction"] < 1
    assert 0 < figures["overhead_fraction_projected"] < 1
    assert min(figures[f"ms_per_scene_{side}"] for side in orchestrate.SIDES) > 0
    assert figures["scaling_2_workers"] == pytest.approx(
        figures["scenes_per_second_2_workers"] / figures["scenes_per_second_1_worker"]
    )
    assert (figures["scenes"], figures["unit"], figures["rounds"], figures["database"]) == (40, 16, 1, "sqlite")
    for side in orchestrate.SIDES:
        assert side in result.stdout
    # The file is there whole, and nothing next to it.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures"]
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.heavy
def test_postgresql_keeps_every_record():
    figures = orchestrate.run(
        orchestrate.Options(scenes=200, rounds=1, map_scenes=50, scaling_scenes=32, database="postgresql")
    )
    assert (figures["task_runs_lost"], figures["receipts_missing"], figures["units_wrong"]) == (0, 0, 0)


def test_figures_are_medians_and_lost_records_are_counted():
    options = orchestrate.Options(scenes=1000, unit=16, workers=2, seconds_per_scene=0.5)
    complete = {"tasks": 64, "recorded": 64, "receipts": 63}
    ours = [
        Run(1000, units_seconds=2, cluster_seconds=2, draft_seconds=1, finish_seconds=1, cpu_seconds=5, **complete),
        Run(1000, units_seconds=4, cluster_seconds=2, draft_seconds=1, finish_seconds=1, cpu_seconds=5, **complete),
        Run(1000, units_seconds=99, cluster_seconds=2, draft_seconds=1, finish_seconds=1, cpu_seconds=5, **complete),
    ]
    ours[2].recorded, ours[2].receipts, ours[2].wrong = 60, 61, 2
    runs = {
        "ours": ours,
        "dask_units": [Run(1000, units_seconds=1, receipts=63)],
        "dask_scenes": [Run(1000, units_seconds=2)],
        "prefect_map": [Run(100, units_seconds=4, tasks=100, recorded=99)],
    }
    scaled = {1: [Run(32, units_seconds=16, receipts=2)], 2: [Run(32, units_seconds=10, receipts=2)]}
    long = Run(1000, units_seconds=253, cluster_seconds=2, draft_seconds=1, finish_seconds=1, receipts=63)
    figures = orchestrate.summary(runs, scaled, long, options)
    assert [figures[f"ms_per_scene_{side}"] for side in orchestrate.SIDES] == [4, 1, 2, 40]
    assert figures["ratio_prefect_map_to_ours"] == 10
    # 257 s for 1000 scenes of 0.5 s on two workers, which are 250 s.
    assert figures["overhead_fraction"] == pytest.approx(7 / 257)
    assert figures["overhead_fraction_projected"] == pytest.approx(8 / 258)
    assert figures["overhead_fraction_cpu"] == pytest.approx(5 / 505)
    assert figures["scaling_2_workers"] == pytest.approx(1.6)
    assert (figures["task_runs_lost"], figures["receipts_missing"], figures["units_wrong"]) == (4 + 1, 2, 2)
    null = orchestrate.summary(runs, scaled, None, orchestrate.Options(scenes=1000, workers=2))
    assert not null["overhead_fraction_measured"]
    assert null["overhead_fraction"] == pytest.approx(8 / 258)


def test_a_null_unit_is_held_against_its_receipt(tmp_path):
    case = orchestrate.make_case(10, 4, tmp_path / "maps", "")
    assert [len(city.tiles) for city in case.plan.cities] == [10]
    store = tmp_path / "store"
    reuse = reuse_of(case.recipe, case.plan, store)
    draft = draft_of(case.recipe, case.plan, store)
    for unit in draft.missing():
        receipt = null_unit(draft, unit, jobs_of(draft, unit, case.plan, reuse), {}, case.recipe)
        assert [scene["status"] for scene in receipt["scenes"]] == ["done"] * len(draft.layout.scenes_of(unit))
    assert (draft.missing(), wrong_units(draft, [0, 1, 2])) == ([], [])
    altered = read_json(draft.receipt_path(1))
    altered["sha256"]["csi"] = "0" * 64
    write_json(draft.receipt_path(1), altered)
    draft.receipt_path(2).unlink()
    assert wrong_units(draft, [0, 1, 2]) == [1, 2]


def test_every_round_begins_with_another_side():
    assert [rotated(("a", "b", "c"), turn) for turn in range(4)] == [
        ("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("a", "b", "c"),
    ]  # fmt: skip


def test_without_postgresql_one_clear_line(monkeypatch):
    monkeypatch.setattr(prefect_server.shutil, "which", lambda _: None)
    monkeypatch.setattr(Path, "glob", lambda *_: iter(()))
    with pytest.raises(InputError) as error:
        orchestrate.run(orchestrate.Options(database="postgresql"))
    assert "--database postgresql: no initdb" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seconds-per-scene", "-1"], "--seconds-per-scene"),
        (["--database", "mysql"], "mysql"),
        (["--json", "."], "--json .: is a folder"),
    ],
)
def test_wrong_input_is_one_clear_line(arguments, words, tmp_path):
    result = wavecity("bench", "orchestrate", *arguments, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_cpu_time_of_processes_that_end_is_not_negative():
    before = {1: 3.0, 2: 5.0}
    assert np.isclose(orchestrate._spent(before, {1: 4.0, 3: 0.5}), 1.5)
