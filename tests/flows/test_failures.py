"""Rows of docs/operations/failures.md that no other test tries: servers and stores that are lost within a build, and runs
that a worker cannot start.
"""

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from command import PROGRAM
from processes import Process, process, wait_until
from s3_server import s3_server
from servers import ENDED, ask, pool_worker, prefect, receipts, small_recipe
from small import SET

from wavecity.flows.bench.prefect_server import free_port, prefect_server

pytestmark = pytest.mark.system

UNITS = 12
# Long enough to be disturbed.
BUILD = ["build", "quickstart", "--workers", "1", *SET]
BUILD += ["--set", f"area.scenes={UNITS}", "--set", "store.unit=1", "--set", "solver.rays=500000"]


def last_line(log: Path) -> str:
    """What the command said last."""
    return log.read_text(encoding="utf-8").splitlines()[-1]


def test_a_prefect_server_that_is_lost_within_a_build_is_one_line(tmp_path: Path) -> None:
    store, log = tmp_path / "store", tmp_path / "build.log"
    with ExitStack() as server:
        environment = server.enter_context(prefect_server(tmp_path)) | {"PREFECT_CLIENT_MAX_RETRIES": "1"}
        with process([PROGRAM, *BUILD, "--out", store], log, environment) as build:
            wait_until(lambda: receipts(store) or build.poll() is not None, 240, log.read_text)
            server.close()
            assert build.wait(240) == 1, log.read_text()
    assert last_line(log).startswith("wavecity: the Prefect server stopped answering (")
    assert last_line(log).endswith("); run the same command again to go on")
    # Prefect's client has nothing to add, for none of the events that it could not send.
    assert "EventsWorker" not in log.read_text()
    # What is done stays done; how much that is depends on when the build noticed.
    assert receipts(store)
    assert not (store / "versions").exists()


class Gate:
    """A way to a server of this machine: once it is closed, nobody there answers, and new connections are refused."""

    def __init__(self, to: int) -> None:
        self.to, self.port = to, free_port()
        self.lock, self.sockets = threading.Lock(), list[socket.socket]()
        self.open()

    def open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        with self.lock:
            for each in (self.listener, *self.sockets):
                with suppress(OSError):  # the other side was first
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            self.sockets = []

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # closed
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self.to))
                with self.lock:
                    if listener.fileno() < 0:
                        here.close()
                        there.close()
                        return
                    self.sockets += [here, there]
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def build_into_a_bucket(folder: Path, **environment: str) -> Iterator[tuple[Process, Gate]]:
    """A build into a bucket of which a unit is done, and the gate between them."""
    log, events = folder / "build.log", folder / "events.jsonl"
    with s3_server("bucket", folder / "s3.log") as given:
        gate = Gate(int(given["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        given |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{gate.port}", "AWS_MAX_ATTEMPTS": "1"}
        given |= {"WAVECITY_EVENTS": str(events), "PREFECT_HOME": str(folder), **environment}
        command = [PROGRAM, *BUILD, "--out", "s3://bucket/store", "--maps", folder / "maps"]
        with process(command, log, {**os.environ, **given}) as build:
            wait_until(
                lambda: (events.is_file() and '"event": "unit"' in events.read_text()) or build.poll() is not None,
                240,
                log.read_text,
            )
            yield build, gate
        gate.close()


def test_a_store_that_does_not_answer_for_a_while_is_asked_again(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with build_into_a_bucket(tmp_path, PREFECT_LOGGING_LEVEL="INFO") as (build, gate):
        gate.close()
        wait_until(lambda: "Retry 1/2" in log.read_text() or build.poll() is not None, 120, log.read_text)
        gate.open()
        assert build.wait(240) == 0, log.read_text()
    assert "published v1: s3://bucket/store/versions/v1/data.zarr" in log.read_text()


def test_a_store_that_is_lost_within_a_build_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with build_into_a_bucket(tmp_path) as (build, gate):
        gate.close()
        assert build.wait(240) == 1, log.read_text()
    assert last_line(log).startswith("wavecity: the store does not answer: ")
    assert "Traceback" not in log.read_text()
    # It is not mistaken for bad geometry.
    assert '"quarantined"' not in (tmp_path / "events.jsonl").read_text()


def ended(server: dict[str, str], run: str) -> dict[str, Any]:
    """A run, once it has ended."""
    wait_until(lambda: ask(server, f"flow_runs/{run}")["state_type"] in ENDED, 120)
    return dict(ask(server, f"flow_runs/{run}"))


def test_runs_that_a_worker_cannot_start_end_as_crashed(deployed_server: dict[str, str], tmp_path: Path) -> None:
    """A pool whose template names a secret that is not there; a deployment from a folder that the worker lacks."""
    server = deployed_server
    template = ["--type", "process", "--base-job-template", "docker/s3-pool.json"]
    made = prefect(server, "work-pool", "create", "s3-pool", *template)
    assert made.returncode == 0, made.stdout + made.stderr
    deployment = ask(server, "deployments/name/build-dataset/quickstart")
    path = f"deployments/{deployment['id']}"
    parameters = {"recipe": small_recipe("small")}

    ask(server, path, {"work_pool_name": "s3-pool", "work_queue_name": None}, "PATCH")
    with pool_worker(server, "s3-pool", tmp_path / "s3.log"):
        run = ask(server, f"{path}/create_flow_run", {"parameters": parameters})["id"]
        state = ended(server, run)["state"]
    assert state["type"] == "CRASHED", (tmp_path / "s3.log").read_text()
    assert "wavecity-s3-key-id" in (tmp_path / "s3.log").read_text()

    steps = [{"prefect.deployments.steps.set_working_directory": {"directory": str(tmp_path / "elsewhere")}}]
    ask(server, path, {"work_pool_name": "cpu-pool", "work_queue_name": "datasets", "pull_steps": steps}, "PATCH")
    with pool_worker(server, "cpu-pool", tmp_path / "cpu.log"):
        run = ask(server, f"{path}/create_flow_run", {"parameters": parameters})["id"]
        state = ended(server, run)["state"]
    assert state["type"] == "CRASHED", (tmp_path / "cpu.log").read_text()
    assert re.search(r"No such file or directory: '.*/elsewhere'", (tmp_path / "cpu.log").read_text())
