"""The Dask cluster that units are computed on."""

import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client
from processes import process, wait_until
from servers import DASK

from wavecity.flows.bench.prefect_server import free_port
from wavecity.flows.cluster import compute
from wavecity.flows.pipeline import build_unit
from wavecity.geo.errors import InputError


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
