"""Runs on a server whose database is new, or goes away for a moment: none is lost, and the logs stay short."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError

import psutil
import pytest
from processes import wait_until
from servers import ENDED, ask, deploy, ended_tasks, pool_worker, small_recipe, workers_of

from wavecity.flows.bench.prefect_server import free_port, postgresql, prefect_server
from wavecity.geo.errors import InputError

pytestmark = pytest.mark.system

DEPLOYMENTS = ("quickstart", "localization")
# Most bytes of the log of a worker with two small builds, and of the server; without its database that writes a traceback
# per request.
SHORT = {"cpu.log": 100_000, "server.log": 100_000}
OUTAGE = {**SHORT, "server.log": 10_000_000}


@pytest.fixture(params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[dict[str, str], Callable[[], None] | None]]:
    """A server on a database that nobody has used yet, and how that is restarted where it is PostgreSQL."""
    with ExitStack() as stack:
        database = restart = None
        if request.param == "postgresql":
            # Not below tmp_path, where the account that runs it may not go.
            folder, port = Path(stack.enter_context(TemporaryDirectory(prefix="wavecity-test-"))), free_port()
            running = stack.enter_context(ExitStack())
            try:
                database = running.enter_context(postgresql(folder, port))
            except InputError as error:
                pytest.skip(str(error))

            def restart() -> None:
                running.close()
                running.enter_context(postgresql(folder, port))

        environment = stack.enter_context(prefect_server(tmp_path, database))
        deploy(environment)
        yield workers_of(environment, tmp_path), restart


def drop_connections() -> None:
    """Have PostgreSQL drop all connections and recover, as after a crash: that is what happens if one of its own dies."""

    def killed() -> bool:
        for each in psutil.Process(os.getpid()).children(recursive=True):
            # They come and go, and all of them may be busy at a moment.
            with suppress(psutil.NoSuchProcess):
                if each.name() == "postgres" and "idle" in " ".join(each.cmdline()):
                    each.kill()
                    return True
        return False

    wait_until(killed, 60)


def test_two_builds_at_once(server: tuple[dict[str, str], Callable[[], None] | None], tmp_path: Path) -> None:
    environment, restart = server
    log = tmp_path / "cpu.log"
    with pool_worker(environment, "cpu-pool", log):
        runs = []
        for name in DEPLOYMENTS:
            deployment = ask(environment, f"deployments/name/build-dataset/{name}")
            parameters = {"recipe": small_recipe(name), "workers": 1, "announce": False}
            made = ask(environment, f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
            runs.append(made["id"])
        if restart:
            wait_until(lambda: "build 1/4" in log.read_text(), 120, log.read_text)
            drop_connections()
            wait_until(lambda: "build 2/4" in log.read_text(), 120, log.read_text)
            restart()
        wait_until(lambda: all(state(environment, run) in ENDED for run in runs), 240, log.read_text)
    assert [state(environment, run) for run in runs] == ["COMPLETED"] * 2, log.read_text()
    for name in DEPLOYMENTS:
        assert (tmp_path / "stores" / name / "versions" / "v1" / "published.json").is_file()
    tasks = ended_tasks(environment, runs, 4)
    assert sum(task["name"].startswith("unit-") for task in tasks) == 4
    assert {task["state_type"] for task in tasks} == {"COMPLETED"}
    for name, most in (OUTAGE if restart else SHORT).items():
        assert (tmp_path / name).stat().st_size < most


def state(server: dict[str, str], run: str) -> str:
    try:
        return str(ask(server, f"flow_runs/{run}")["state_type"])
    except HTTPError:
        return "unknown"  # without its database the server answers 503
