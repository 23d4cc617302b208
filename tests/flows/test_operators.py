"""What an operator meets: wrong recipes, stores that are busy, a worker that is killed."""

import json
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from processes import Process, process, wait_until
from servers import ENDED, PREFECT, ask, pool_worker, prefect, receipts, small_recipe

from wavecity.dataset.lock import builder_lock, refuse_busy
from wavecity.geo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def start(server: dict[str, str], recipe: dict[str, Any], **parameters: Any) -> str:
    """Start a build; the run's id."""
    given = {"recipe": recipe, "workers": 1, "announce": False, **parameters}
    words = [word for key, value in given.items() for word in ("--param", f"{key}={json.dumps(value)}")]
    answer = prefect(server, "deployment", "run", "build-dataset/quickstart", *words)
    found = re.search(r"UUID: (\S+)", answer.stdout)
    assert found, answer.stdout + answer.stderr
    return found[1]


def state(server: dict[str, str], run: str) -> dict[str, Any]:
    return ask(server, f"flow_runs/{run}")["state"] or {"type": "NONE"}


def end(server: dict[str, str], run: str, log: Path) -> dict[str, Any]:
    """Wait for the end of a run; its last state."""
    wait_until(lambda: state(server, run)["type"] in ENDED, 240, log.read_text)
    return state(server, run)


def lines(server: dict[str, str], run: str, level: int = 0) -> list[str]:
    """The log on a run's page."""
    found = ask(server, "logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"})
    return [entry["message"] for entry in found if entry["level"] >= level]


def errors_of(server: dict[str, str], run: str) -> list[str]:
    """Errors on a run's page, which may come later than its state, but for the one that repeats the state."""
    return [text for text in lines(server, run, 40) if not text.startswith("Finished in state")]


def test_wrong_recipes_and_busy_stores(deployed_server: dict[str, str], tmp_path: Path) -> None:
    server, log = deployed_server, tmp_path / "cpu.log"
    stores = tmp_path / "stores"
    (stores / "busy").mkdir(parents=True)
    refused = prefect(
        server, "deployment", "run", "build-dataset/quickstart", "--param", 'recipe={"name": "mine", "base": "nope"}'
    )
    assert "'recipe.base'. Failure reason: 'nope' is not one of ['cities-39'" in refused.stdout + refused.stderr
    assert ask(server, "flow_runs/filter", {}) == []
    with pool_worker(server, "cpu-pool", log):
        empty = start(server, small_recipe("mine", **{"area.min_coverage": 0.9}))
        missing = start(server, small_recipe("mine", **{"area.source": "nope.osm"}))
        assert end(server, empty, log)["type"] == end(server, missing, log)["type"] == "FAILED"
        for run, line in (
            (empty, "recipe.area: min_coverage 0.9 must be"),
            (missing, "area.source: nope.osm: no such"),
        ):
            # What it is, and Prefect's line with the last state.
            errors = wait_until(partial(errors_of, server, run), 60, log.read_text)
            assert [text[: len(line)] for text in errors] == [line]
            assert not any("Traceback" in text for text in lines(server, run))
        # One store is busy, whoever builds in it; another one of the same deployment is not.
        with builder_lock(stores / "busy"):
            waiting = start(server, small_recipe("busy"), when_busy="wait")
            cancelled = start(server, small_recipe("busy"))
            other = start(server, small_recipe("other"))
            wait_until(lambda: any(text.startswith("waiting: ") for text in lines(server, waiting)), 120, log.read_text)
            refusal = end(server, cancelled, log)
            assert refusal["type"] == "CANCELLED"
            assert "is building in this store; wait for it" in refusal["message"]
            assert end(server, other, log)["type"] == "COMPLETED", log.read_text()
            assert state(server, waiting)["type"] == "RUNNING"
        assert end(server, waiting, log)["type"] == "COMPLETED", log.read_text()
    wait_until(lambda: "is published" in " ".join(lines(server, other)), 60, log.read_text)
    said = " ".join(lines(server, other))
    for words in (
        "4 scenes in 1 city (Helsinki)",
        "4 scenes in 2 of 2 units to build",
        "v1 is published",
        "checks passed",
    ):
        assert words in said
    keys = {artifact["key"] for artifact in ask(server, "artifacts/filter", {})}
    assert {"busy-outcomes", "other-outcomes"} <= keys
    assert {"dataset", "quickstart"} <= set(ask(server, f"flow_runs/{other}")["tags"])


@pytest.mark.parametrize(("moment", "signals"), [("start workers", "ignored"), ("trace", "default")])
def test_a_run_whose_worker_is_killed_ends_and_frees_its_store(
    deployed_server: dict[str, str], tmp_path: Path, moment: str, signals: str
) -> None:
    """Killed while Dask starts, or within the units; also by a worker that a script has started in the background."""
    server, log = deployed_server, tmp_path / "cpu.log"
    store = tmp_path / "stores" / "small"
    command = [PREFECT, "worker", "start", "--pool", "cpu-pool", "--type", "process"]
    if signals == "ignored":
        command = ["env", "--ignore-signal=INT", *command]
    with process(command, log, server, ROOT) as worker:
        recipe = small_recipe("small", **{"area.scenes": 40, "store.unit": 1, "solver.rays": 1_000_000})
        run = start(server, recipe)
        wait_until(lambda: moment in log.read_text() or ended(server, run), 120, log.read_text)
        if moment == "trace":
            wait_until(lambda: receipts(store), 120, log.read_text)
        family = flow_of(worker)
        with pytest.raises(InputError, match="is building in this store"):
            refuse_busy(store)
        worker.send_signal(signal.SIGKILL)
        # It has 30 s to end and to report, and its watcher reports for it if that was not enough.
        _, alive = psutil.wait_procs(family, timeout=120)
        assert not alive, [each.cmdline() for each in alive]
    assert end(server, run, log)["type"] == "CRASHED"
    refuse_busy(store)
    tasks = ask(server, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert "FAILED" not in {task["state_type"] for task in tasks}


def ended(server: dict[str, str], run: str) -> bool:
    return state(server, run)["type"] in ENDED


def flow_of(worker: Process) -> list[psutil.Process]:
    """The process of the one run that a worker has started, and all that it started."""
    (flow,) = (child for child in psutil.Process(worker.pid).children() if "prefect" in " ".join(child.cmdline()))
    return [flow, *flow.children(recursive=True)]
