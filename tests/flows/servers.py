"""Prefect's server, pools and commands, and a Dask cluster, each as a process of its own."""

import base64
import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil
from processes import Finished, Process, finished, process, wait_until
from small import SMALL

from wavecity.flows.bench.prefect_server import free_port

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
# States in which a run stays.
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
DASK = str(Path(sys.executable).with_name("dask"))


def small_recipe(name: str, **changes: Any) -> dict[str, Any]:
    """The quickstart with the paper's model in seconds, as the parameter of a run; `changes` are dotted fields and their values.

    One task stands for all: `test_pipeline` runs them.
    """
    recipe: dict[str, Any] = {"name": name, "base": "quickstart-paper"}
    for key, value in {**SMALL, "training.evaluation.tasks": ["reconstruction"], **changes}.items():
        *parents, leaf = key.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return recipe


def ask(environment: dict[str, str], path: str, body: Any = None, method: str | None = None) -> Any:
    """The server's answer to a request, with a JSON body or without one."""
    data = None if body is None else json.dumps(body).encode()
    url = f"{environment['PREFECT_API_URL']}/{path}"
    headers = {"Content-Type": "application/json"}
    if password := environment.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    request = urllib.request.Request(url, data, headers, method=method)

    def answered() -> tuple[Any] | None:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return (json.loads(answer.read() or "null"),)
        except HTTPError as error:
            if error.code != 503:  # its database is busy; Prefect's own client asks again, too
                raise
            return None

    return wait_until(answered, 60)[0]


def prefect(environment: dict[str, str], *arguments: str) -> Finished:
    """Run a command of Prefect's where `prefect.yaml` lies."""
    # The width keeps lines whole.
    return finished([PREFECT, "--no-prompt", *arguments], env={**environment, "COLUMNS": "200"}, cwd=ROOT)


def ended_tasks(environment: dict[str, str], runs: list[str], units: int) -> list[dict[str, Any]]:
    """Task runs of flow runs, once so many units and everything else have ended.

    They reach the server's database through a queue, so that a flow may have ended before its tasks have.
    """

    def found() -> list[dict[str, Any]] | None:
        tasks = ask(environment, "task_runs/filter", {"flow_runs": {"id": {"any_": runs}}})
        recorded = sum(task["name"].startswith("unit-") for task in tasks)
        return tasks if recorded >= units and all(task["state_type"] in ENDED for task in tasks) else None

    return wait_until(found, 60)


def receipts(store: Path) -> dict[str, tuple[int, bytes]]:
    """Receipts of a store, draft or published: when they were written, and what they say."""
    while True:
        try:
            return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("unit-*.json")}
        except FileNotFoundError:
            continue  # a folder was made anew or published while it was listed: its receipts lie elsewhere now


@contextmanager
def pool_worker(environment: dict[str, str], pool: str, log: Path) -> Iterator[Process]:
    command = [PREFECT, "worker", "start", "--pool", pool, "--type", "process"]
    with process(command, log, environment, ROOT) as started:
        yield started
        # A run that has ended for the server may still be closing; a worker that stops would kill it.
        with suppress(psutil.NoSuchProcess):
            psutil.wait_procs(psutil.Process(started.pid).children(), timeout=30)


def deploy(server: dict[str, str]) -> None:
    """Make the two pools and all deployments of `prefect.yaml`."""
    for pool in ("cpu-pool", "gpu-pool"):
        result = prefect(server, "work-pool", "create", pool, "--type", "process")
        assert result.returncode == 0, result.stdout + result.stderr
    result = prefect(server, "deploy", "--all")
    assert result.returncode == 0, result.stdout + result.stderr


def workers_of(server: dict[str, str], folder: Path) -> dict[str, str]:
    """Environment for workers of the pools who write to `folder`."""
    folders = {"WAVECITY_STORE": str(folder / "stores"), "WAVECITY_RUNS": str(folder / "runs")}
    return {**server, **folders, "PREFECT_WORKER_QUERY_SECONDS": "1"}


@contextmanager
def dask_cluster(folder: Path, machines: dict[str, dict[str, str]]) -> Iterator[tuple[str, dict[str, Process]]]:
    """A scheduler and one worker of one thread per machine: name -> its environment, in a folder of its name.

    Yields the scheduler's address and the workers' processes.
    """
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        # A worker that is killed is not started again by a nanny: another one must take over.
        scheduler = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        stack.enter_context(process(scheduler, folder / "scheduler.log", cwd=folder))
        workers = {}
        for name, environment in machines.items():
            cwd = folder / name
            cwd.mkdir()
            command = [DASK, "worker", address, "--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            workers[name] = stack.enter_context(process(command, folder / f"{name}.log", environment, cwd))
        yield address, workers
