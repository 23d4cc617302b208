"""The Dask cluster that units are computed on."""

import resource
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, KilledWorker, LocalCluster
from distributed.client import FutureCancelledError
from prefect.exceptions import TerminationSignal
from processes import finished, process, wait_until
from servers import DASK

from wavecity.flows import cluster
from wavecity.flows.bench.prefect_server import free_port
from wavecity.flows.cluster import compute, result_of
from wavecity.flows.dispatch import build_unit
from wavecity.geo.errors import CommandFailed, InputError


@pytest.mark.system
def test_local_workers_keep_their_memory_and_are_left_alone() -> None:
    def faults() -> int:
        """Page faults of ten arrays of 16 MB, one after the other; each has 4,096 pages."""
        before = 0
        for number in range(12):
            np.ones(2**21)
            if number == 1:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    settings = ("distributed.worker.profile.enabled", "distributed.admin.tick.interval")
    with compute(1) as client:
        assert client.submit(faults).result() < 4096
        assert client.submit(lambda: [dask.config.get(name) for name in settings]).result() == [False, "1s"]
    # Only those: whoever else uses Dask in this process has it as it is.
    assert [dask.config.get(name) for name in settings] == [True, "20ms"]


@pytest.mark.system
def test_a_scheduler_that_is_lost_is_said_in_one_line(tmp_path: Path) -> None:
    port, started = free_port(), tmp_path / "started"
    address = f"tcp://127.0.0.1:{port}"
    folder = str(started)

    def hold(*_: object) -> None:
        Path(folder).touch()
        time.sleep(600)

    scheduler = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = [DASK, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "3s"}),
        process(scheduler, tmp_path / "scheduler.log", cwd=tmp_path) as first,
        process(worker, tmp_path / "worker.log", cwd=tmp_path) as second,
        ThreadPoolExecutor(1) as threads,
        Client(address, timeout=60) as client,
    ):
        unit = threads.submit(build_unit.fn, client, None, 0, [], {}, None, hold)
        wait_until(started.exists, 120, (tmp_path / "worker.log").read_text)
        first.kill()
        with pytest.raises(InputError, match="--dask: the scheduler is gone; start one, with its workers"):
            unit.result(timeout=120)
        second.kill()


def future(*outcomes: Any, done: bool = False) -> Any:
    """A future whose calls of `result` have these outcomes, one after the other."""
    left = iter(outcomes)

    def result(timeout: float | None = None) -> Any:
        outcome = next(left)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return SimpleNamespace(result=result, done=lambda: done, release=lambda: None)


def client(*looks: dict[str, Any], **attributes: Any) -> Any:
    """A client whose scheduler has these workers at one look after the other."""
    left = iter(looks)
    return SimpleNamespace(scheduler_info=lambda: {"workers": next(left)}, status="running", **attributes)


def test_a_unit_that_ends_one_worker_after_the_other_ends_the_build_in_one_line() -> None:
    worker: Any = SimpleNamespace(address="tcp://10.0.0.5:4001")
    killed = KilledWorker("run_unit-1", worker, 3)
    with pytest.raises(CommandFailed, match=r"^unit 7: it ended 4 Dask workers, .*tcp://10\.0\.0\.5:4001"):
        result_of(client(), future(killed, done=True), "unit 7")


def test_a_build_without_any_worker_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 100.0, 300.0, 300.0, 399.0, 400.0])
    monkeypatch.setattr(cluster.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(cluster, "ALONE", 100.0)
    waits = [TimeoutError() for _ in range(9)]
    # They are gone for a while, come back, and are gone for good.
    with pytest.raises(CommandFailed, match=r"^unit 7: no Dask worker for 100 s; start workers"):
        result_of(client({}, {"one": 1}, {}, {}, {}), future(*waits), "unit 7")
    assert result_of(client({"one": 1}, {"one": 1}), future(*waits[:2], "receipt"), "unit 7") == "receipt"


def test_a_time_limit_within_the_work_is_its_own_error() -> None:
    error = TimeoutError("of the map server")
    with pytest.raises(TimeoutError, match="of the map server"):
        result_of(client(), future(error, error, done=True), "unit 7")


def test_a_unit_that_ends_right_after_a_look_has_its_result() -> None:
    assert result_of(client(), future(TimeoutError(), "receipt", done=True), "unit 7") == "receipt"


def test_units_under_way_when_a_run_ends_are_cancelled() -> None:
    gone = client(submit=lambda *_, **__: future(FutureCancelledError("run_unit-1", "unknown"), done=True))
    state: Any = build_unit.fn(gone, None, 7, [], {}, None, None)  # type: ignore[arg-type]
    assert state.is_cancelled()


HELD = threading.Event()


def hold(*_: object) -> None:
    HELD.wait()


class Closing(Client):
    """A client that is closed right before it is asked for one thing or another."""

    before = ""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        if self.before == "submit":
            self.close()
        return super().submit(*args, **kwargs)

    def scheduler_info(self, *args: Any, **kwargs: Any) -> Any:
        if self.before == "scheduler_info":
            self.close()
        return super().scheduler_info(*args, **kwargs)


@pytest.mark.parametrize("before", ["submit", "scheduler_info"])
def test_a_client_may_be_closed_at_any_moment(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LOOK", 0.01)
    HELD.clear()
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        closing = Closing(local)
        closing.before = before
        state: Any = build_unit.fn(closing, None, 7, [], {}, None, hold)  # type: ignore[arg-type]
        HELD.set()
    assert state.is_cancelled()


def test_local_workers_that_do_not_start_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    started, closed = threading.Event(), threading.Event()

    def late(**_: Any) -> Any:
        started.wait()
        return SimpleNamespace(close=lambda timeout: closed.set())

    monkeypatch.setattr(cluster, "LocalCluster", late)
    monkeypatch.setattr(cluster, "START", 0.01)
    with pytest.raises(CommandFailed, match=r"^2 local Dask workers: they did not start within 0 s"), compute(2):
        pytest.fail("there is no cluster")
    # Whatever comes up after all is closed.
    started.set()
    assert closed.wait(30)


def test_local_workers_that_fail_to_start_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: Any) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr(cluster, "LocalCluster", fail)
    with pytest.raises(CommandFailed, match=r"^1 local Dask workers: Nanny failed to start\.; in a script"), compute(1):
        pytest.fail("there is no cluster")


class Slow:
    """A client that is not closed in time."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.status = "running"

    def __enter__(self) -> "Slow":
        return self

    def __exit__(self, *_: object) -> None:
        raise TimeoutError("timed out after 20 s.")


def test_a_client_that_is_not_closed_in_time_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cluster, "Client", Slow)
    with compute(address="tcp://10.0.0.5:8786") as found:
        assert found.status == "running"
    assert "Dask was not closed: TimeoutError('timed out after 20 s.')" in caplog.text
    # Prefect ends a run with this one, and would call it Failed if another error took its place.
    with pytest.raises(TerminationSignal), compute(address="tcp://10.0.0.5:8786"):
        raise TerminationSignal(15)


def test_a_client_without_a_certificate_leaves_dask_as_it_was() -> None:
    """Else whatever Dask computes later in this process asks for a client that is not there."""
    with pytest.raises(InputError, match="TLS needs a certificate"), compute(address=f"tls://127.0.0.1:{free_port()}"):
        pass
    assert dask.config.get("scheduler", None) is None
    assert dask.delayed(sum)([1, 2]).compute() == 3


@pytest.mark.parametrize("first", ["wavecity.flows.pipeline", "distributed"])
def test_local_workers_come_and_go_without_a_word_of_dask(first: str) -> None:
    """Prefect's handlers show what Dask says about itself where Prefect was imported first."""
    code = f"""
import {first}
import wavecity.flows.pipeline
from wavecity.flows.cluster import compute

if __name__ == "__main__":
    with compute(1) as client:
        client.submit(abs, -1).result()
"""
    run = finished([sys.executable, "-c", code])
    assert run.returncode == 0, run.stderr
    assert "distributed" not in run.stdout + run.stderr
