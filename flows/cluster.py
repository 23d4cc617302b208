"""Where units are computed: a Dask cluster, local by default, any scheduler by address."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dask
from distributed import Client, LocalCluster

from wavecity.dataset.progress import stage
from wavecity.geo.errors import InputError

# Dask's defaults suit many short tasks; units take seconds to minutes. On a small machine the defaults cost several
# per cent: malloc returns memory to the system at every chance (a hundred times the page faults; setting either
# threshold stops malloc from adapting it, so both are set), the profiler samples every worker's stack 100 times per
# second, and all processes wake up 50 times per second to report their state.
SETTINGS = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**28,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**25,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.work-stealing-interval": "1s",
}


@contextmanager
def compute(workers: int | None = None, address: str | None = None) -> Iterator[Client]:
    """Yield a client; a local cluster has one process per core, with one thread each.

    Parameters
    ----------
    workers : int, optional
        Local worker processes; by default one per core.
    address : str, optional
        Scheduler of a running cluster, e.g. `tcp://10.0.0.5:8786`; by default that in the environment variable
        `WAVECITY_DASK`, if there is one and `workers` is not given.

    Raises
    ------
    InputError
        No scheduler answers at `address`.
    """
    if workers is None:
        address = address or os.environ.get("WAVECITY_DASK")
    if address:
        try:
            client = Client(address, timeout=10)
        except (OSError, ValueError) as error:
            msg = f"--dask {address}: no Dask scheduler answers there; start one with `dask scheduler`"
            raise InputError(msg) from error
        with client:
            yield client
        return
    n_workers = workers or os.cpu_count() or 1
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        with stage(f"start workers: {n_workers}"):
            local = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            )
            client = stack.enter_context(Client(stack.enter_context(local)))
        yield client
