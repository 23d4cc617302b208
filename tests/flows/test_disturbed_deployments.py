"""Runs of deployments on a Dask cluster, and what may happen to them: nothing that is finished is done again."""

import json
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from distributed import Client
from processes import wait_until
from servers import ENDED, ask, dask_cluster, ended_tasks, pool_worker, prefect, receipts, small_recipe, workers_of

from wavecity.dataset.checks.validate import validate
from wavecity.flows.bench.prefect_server import prefect_server

pytestmark = pytest.mark.system

UNITS = 12
SCENES = {"area.scenes": UNITS, "store.unit": 1, "solver.rays": 1_000_000, "solver.max_depth": 3}


@dataclass
class Box:
    """Server, deployments, a worker of the cpu pool, and a Dask cluster of two workers."""

    folder: Path
    environment: dict[str, str]
    server: ExitStack
    pool: psutil.Process
    scheduler: str
    dask: dict[str, psutil.Process]

    def start(self, name: str) -> str:
        """Start a build into a store of this name; the run's id."""
        parameters = {"recipe": small_recipe(name, **SCENES), "store": str(self.folder / name)}
        words = [word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")]
        answer = prefect(self.environment, "deployment", "run", "build-dataset/quickstart", *words)
        found = re.search(r"UUID: (\S+)", answer.stdout)
        assert found, answer.stdout + answer.stderr
        return found[1]

    def end(self, run: str) -> dict[str, Any]:
        """Wait for the end of a run."""
        log = self.folder / "cpu.log"
        wait_until(lambda: ask(self.environment, f"flow_runs/{run}")["state_type"] in ENDED, 300, log.read_text)
        return ask(self.environment, f"flow_runs/{run}")

    def flow(self) -> psutil.Process:
        """The process of the one run that the pool's worker has started."""
        (process,) = (child for child in self.pool.children() if "prefect" in " ".join(child.cmdline()))
        return process

    def receipts(self, name: str) -> dict[str, tuple[int, bytes]]:
        return receipts(self.folder / name)

    def wait_for_receipts(self, name: str, count: int) -> None:
        wait_until(lambda: len(self.receipts(name)) >= count, 300, (self.folder / "cpu.log").read_text)


@contextmanager
def frozen(processes: list[psutil.Process]) -> Iterator[None]:
    """Processes that stand still within: what is disturbed then is disturbed in the middle."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            if process.is_running():
                process.send_signal(signal.SIGCONT)


def settled(ask: Callable[[], Any]) -> Any:
    """The first answer that is given twice: what a worker has sent before it was stopped may still be on its way."""
    answer, again = ask(), ask()
    while answer != again:
        answer, again = again, ask()
    return answer


@pytest.fixture
def box(deployed_home: Path, tmp_path: Path) -> Iterator[Box]:
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        shutil.copytree(deployed_home, tmp_path, dirs_exist_ok=True)
        environment = workers_of(server.enter_context(prefect_server(tmp_path)), tmp_path)
        machines = {name: dict(os.environ) for name in ("one", "two")}
        scheduler, workers = stack.enter_context(dask_cluster(tmp_path, machines))
        environment["WAVECITY_DASK"] = scheduler
        pool = stack.enter_context(pool_worker(environment, "cpu-pool", tmp_path / "cpu.log"))
        dask = {name: psutil.Process(worker.pid) for name, worker in workers.items()}
        yield Box(tmp_path, environment, server, psutil.Process(pool.pid), scheduler, dask)


def assert_whole(box: Box, name: str, finished: dict[str, Any]) -> None:
    receipts = box.receipts(name)
    assert len(receipts) == UNITS
    assert {unit: receipts[unit] for unit in finished} == finished, "a finished unit was done again"
    assert validate(box.folder / name).ok


def test_a_killed_dask_worker_costs_the_unit_that_it_held_and_a_restart_of_the_server_nothing(box: Box) -> None:
    with Client(box.scheduler) as client:
        run = box.start("store")
        box.wait_for_receipts("store", 2)
        with frozen(list(box.dask.values())):
            finished = box.receipts("store")
            assert len(finished) < UNITS - 3
            # Units under way, and units that are done but whose answer still lies there.
            held, answered = settled(
                lambda: client.run_on_scheduler(
                    lambda dask_scheduler: next(
                        ([task.key for task in worker.processing], [task.key for task in worker.has_what])
                        for worker in dask_scheduler.workers.values()
                        if worker.name == "two"
                    )
                )
            )
            assert held
            box.dask["two"].kill()
            box.server.close()
            port = urlsplit(box.environment["PREFECT_API_URL"]).port
            box.server.enter_context(prefect_server(box.folder, port=port))
        ended = box.end(run)
        log = client.run_on_scheduler(lambda dask_scheduler: [entry[:3] for entry in dask_scheduler.transition_log])
    assert ended["state_type"] == "COMPLETED", (box.folder / "cpu.log").read_text()
    assert_whole(box, "store", finished)
    # The scheduler's own record: every unit came to its end once, and only what the dead worker held was handed out again. An
    # answer that died with it is asked for again, which finds the receipt: no finished unit was done again.
    units = [entry for entry in log if str(entry[0]).startswith("run_unit")]
    ends = Counter(key for key, _, to in units if to == "memory")
    assert len(ends) == UNITS
    assert {key for key, count in ends.items() if count > 1} <= set(answered)
    handed_out = Counter(key for key, _, to in units if to == "processing")
    assert {key for key, count in handed_out.items() if count > 1} - set(answered) == set(held)
    # Nor did Prefect run a task again.
    tasks = ended_tasks(box.environment, [run], UNITS)
    units_run = [task for task in tasks if task["name"].startswith("unit-")]
    assert len(units_run) == UNITS
    assert {(task["state_type"], task["run_count"]) for task in units_run} == {("COMPLETED", 1)}


def test_a_cancelled_run_and_a_killed_one_are_picked_up_by_the_next(box: Box) -> None:
    run = box.start("store")
    box.wait_for_receipts("store", 2)
    with frozen(list(box.dask.values())):
        finished = box.receipts("store")
        assert len(finished) < UNITS - 3
        flow = box.flow()
        answer = prefect(box.environment, "flow-run", "cancel", run)
        assert answer.returncode == 0, answer.stderr
        cancelled = box.end(run)
        # It ended by itself when it was asked to, long before the worker would have killed it.
        assert cancelled["state_type"] == "CANCELLED", (box.folder / "cpu.log").read_text()
        wait_until(lambda: not flow.is_running(), 60)
    # What it wrote reaches the log through its worker.
    log = box.folder / "cpu.log"
    wait_until(lambda: "cancelled" in log.read_text(), 60, log.read_text)
    tasks = ask(box.environment, "task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert "FAILED" not in {task["state_type"] for task in tasks}
    assert not (box.folder / "store" / "versions").exists()

    killed = box.start("store")
    # A unit of this run's own: those that the cancelled run held may have been finished after it.
    wait_until(lambda: ask(box.environment, f"flow_runs/{killed}")["state_type"] == "RUNNING", 300)
    box.wait_for_receipts("store", len(box.receipts("store")) + 1)
    with frozen(list(box.dask.values())):
        finished = {**box.receipts("store"), **finished}
        assert len(finished) < UNITS
        flow = box.flow()
        flow.kill()
        assert box.end(killed)["state_type"] == "CRASHED"
    last = box.end(box.start("store"))
    assert last["state_type"] == "COMPLETED", (box.folder / "cpu.log").read_text()
    assert_whole(box, "store", finished)
