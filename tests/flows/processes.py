"""What runs beside Prefect's server, each as a process of its own: workers of its pools, a Dask cluster; its commands."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from test_pipeline import SMALL

from flows.bench.prefect_server import free_port

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
# States in which a run stays.
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
DASK = str(Path(sys.executable).with_name("dask"))


def small_recipe(name: str, **changes: Any) -> dict[str, Any]:
    """The quickstart in seconds, as the parameter of a run; `changes` are dotted fields and their values.

    One task stands for all: `test_pipeline` runs them.
    """
    recipe: dict[str, Any] = {"name": name, "base": "quickstart"}
    for key, value in {**SMALL, "training.evaluation.tasks": ["reconstruction"], **changes}.items():
        *parents, leaf = key.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return recipe


def wait_until(what: Callable[[], Any], seconds: float, complaint: Callable[[], str] = str) -> Any:
    """Ask until the answer is true; the time is a limit for what hangs, not for what is slow."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.1)
    return answer


def ask(environment: dict[str, str], path: str, body: Any = None, method: str | None = None) -> Any:
    """The server's answer to a request, with a JSON body or without one."""
    data = None if body is None else json.dumps(body).encode()
    url = f"{environment['PREFECT_API_URL']}/{path}"
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "null")


@contextmanager
def process(command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("a") as out, subprocess.Popen(command, env=environment, cwd=cwd, stdout=out, stderr=out) as started:
        try:
            yield started
        finally:
            started.terminate()


def prefect(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Prefect's where `prefect.yaml` lies."""
    # The width keeps lines whole.
    command = [PREFECT, "--no-prompt", *arguments]
    return subprocess.run(command, env={**environment, "COLUMNS": "200"}, cwd=ROOT, capture_output=True, text=True)


@contextmanager
def pool_worker(environment: dict[str, str], pool: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [PREFECT, "worker", "start", "--pool", pool, "--type", "process"]
    with process(command, environment, log, ROOT) as started:
        yield started


def deploy(server: dict[str, str], folder: Path) -> dict[str, str]:
    """Make the two pools and all deployments of `prefect.yaml`; the environment for their workers, who write to `folder`."""
    for pool in ("cpu-pool", "gpu-pool"):
        result = prefect(server, "work-pool", "create", pool, "--type", "process")
        assert result.returncode == 0, result.stdout + result.stderr
    result = prefect(server, "deploy", "--all")
    assert result.returncode == 0, result.stdout + result.stderr
    folders = {"WAVECITY_STORE": str(folder / "stores"), "WAVECITY_RUNS": str(folder / "runs")}
    return {**server, **folders, "PREFECT_WORKER_QUERY_SECONDS": "1"}


@contextmanager
def dask_cluster(
    folder: Path, machines: dict[str, dict[str, str]]
) -> Iterator[tuple[str, dict[str, subprocess.Popen[bytes]]]]:
    """A scheduler and one worker of one thread per machine: name -> its environment, in a folder of its name.

    Yields the scheduler's address and the workers' processes.
    """
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with ExitStack() as stack:
        # A worker that is killed is not started again by a nanny: another one must take over.
        scheduler = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        stack.enter_context(process(scheduler, dict(os.environ), folder / "scheduler.log", folder))
        workers = {}
        for name, environment in machines.items():
            cwd = folder / name
            cwd.mkdir()
            command = [DASK, "worker", address, "--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
            workers[name] = stack.enter_context(process(command, environment, folder / f"{name}.log", cwd))
        yield address, workers
