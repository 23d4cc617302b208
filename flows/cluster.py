"""Where units are computed: a Dask cluster, local by default, any scheduler by address."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Security

from wavecity.dataset.progress import stage
from wavecity.geo.errors import CommandFailed, InputError

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

# Seconds that local workers may take to start; two take about two.
START = 180.0
# Seconds that a build goes on without any worker, as when a cluster grows on demand; and between two looks.
ALONE = 600.0
LOOK = 60.0


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
    CommandFailed
        The local workers do not start.
    """
    if workers is None:
        address = address or os.environ.get("WAVECITY_DASK")
    # Whichever of Dask and Prefect is imported first decides what becomes of Dask's records. Those of local workers say
    # nothing that this module does not say.
    logging.getLogger("distributed").setLevel(logging.WARNING if address else logging.CRITICAL)
    if address:
        # Before there is a client: one that cannot make its connection stays Dask's default all the same.
        if address.startswith("tls://") and Security().get_connection_args("client").get("ssl_context") is None:
            msg = f"--dask {address}: TLS needs a certificate: set DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..__CLIENT__CERT and "
            raise InputError(msg + "..__CLIENT__KEY (docs/operations/deploy.md)")
        try:
            client = Client(address, timeout=10)
        except (OSError, ValueError) as error:
            msg = f"--dask {address}: no Dask scheduler answers there; start one with `dask scheduler`"
            if address.startswith("tls://"):
                msg += ", or name a certificate that it accepts"
            raise InputError(msg) from error
        with _closing(client):
            yield client
        return
    n_workers = workers or os.cpu_count() or 1
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        with stage(f"start workers: {n_workers}"):
            local = stack.enter_context(_closing(_start_local(n_workers)))
            client = stack.enter_context(_closing(Client(local)))
        yield client


@contextmanager
def _closing(opened: Any) -> Iterator[Any]:
    """Have a client or a cluster for the block; that it does not close in time is no error of the block's.

    On a busy machine it may not: then a run would fail whose dataset is published, or one be `Failed` that is cancelled.
    """
    opened.__enter__()
    try:
        yield opened
    finally:
        try:
            opened.__exit__(None, None, None)
        except Exception as error:
            logging.getLogger(__name__).warning("Dask was not closed: %r", error)


def result_of(client: Client, future: "Future[Any]", what: str) -> Any:
    """Wait for the result of `what`, for as long as there are workers.

    Raises
    ------
    CommandFailed
        It ended several workers, one after the other, or there has been no worker for `ALONE` seconds.
    """
    alone_since: float | None = None
    while True:
        try:
            return future.result(timeout=LOOK)
        except KilledWorker as error:
            msg = (
                f"{what}: it ended {error.allowed_failures + 1} Dask workers, one after the other: too little memory, or a "
                f"library that aborts (LLVM, a driver); what the last one, {error.last_worker.address}, wrote says more"
            )
            raise CommandFailed(msg) from error
        except TimeoutError:
            if future.done():  # meanwhile; or it is the error of the work itself
                return future.result()
        if client.scheduler_info()["workers"]:
            alone_since = None
            continue
        alone_since = alone_since or time.monotonic()
        if time.monotonic() - alone_since >= ALONE:
            msg = (
                f"{what}: no Dask worker for {ALONE:.0f} s; start workers, and run the same command again to go on "
                "(their own output says why they ended)"
            )
            raise CommandFailed(msg)


def _start_local(n_workers: int) -> LocalCluster:
    """Start local workers, within `START` seconds."""
    found: futures.Future[LocalCluster] = futures.Future()

    def start() -> None:
        try:
            cluster = LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=50,
            )
        except BaseException as error:
            found.set_exception(error)
        else:
            found.set_result(cluster)

    # In a thread of its own: the constructor has no limit, and a signal that ends the run may not get through to it.
    threading.Thread(target=start, name="start-workers", daemon=True).start()
    try:
        return found.result(START)
    except TimeoutError as error:
        found.add_done_callback(_close)
        reason = f"they did not start within {START:.0f} s"
        cause: Exception = error
    except (RuntimeError, OSError) as error:
        reason, cause = str(error), error
    except BaseException:
        found.add_done_callback(_close)
        raise
    msg = (
        f"{n_workers} local Dask workers: {reason}; in a script of your own, start the build below "
        '`if __name__ == "__main__":`'
    )
    raise CommandFailed(msg) from cause


def _close(found: "futures.Future[LocalCluster]") -> None:
    """Close a cluster that nobody waits for any more."""
    with suppress(BaseException):
        found.result().close(timeout=10)
