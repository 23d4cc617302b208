"""Ends the processes of a run once the run's own process has ended, and reports a deployed run that nobody else can report.

    python -m wavecity.flows.watcher MARK [WORKER]

A process of its own, started by `wavecity.flows.guard`. Its standard input is a pipe whose other end the run alone holds: the
kernel closes that when the run's process ends, however it ends; what was written to it says that it was not killed.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from uuid import UUID

import psutil

from wavecity.flows.guard import DEPLOYED, MARK

TRACKER = "multiprocessing.resource_tracker"
# Seconds that a worker may take to stop once it has killed its runs; some four on a busy machine.
STOP = 20.0
MESSAGE = "The process of the run ended without a report, and so did its worker, which would have made one."


def main(mark: str, worker: str = "") -> None:
    """Wait for the end of the run's process, then end what is left of it.

    Parameters
    ----------
    mark : str
        Value of the environment variable by which the run's processes are known.
    worker : str
        Process id of the Prefect worker of a deployed run, 0 for one that has ended before.
    """
    # systemd stops a unit by a SIGTERM to all of its processes: this one has still to report then.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Held from the start: later another process may have its number.
    parent = _process(int(worker or 0))
    by_itself = bool(sys.stdin.buffer.read())
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            # Python's own tracker of resources ends with its process, and serves it beyond the block.
            if process.environ().get(MARK) == mark and TRACKER not in " ".join(process.cmdline()):
                process.kill()
    # Without an address Prefect's client would start a server.
    if worker and "PREFECT_API_URL" in os.environ and not (_lives(parent) if by_itself else _goes_on(parent)):
        report_crash(UUID(os.environ[DEPLOYED]))


def report_crash(run: UUID) -> None:
    """Report a run as crashed, if the server takes it to be under way."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is not None and state.type in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING):
            client.set_flow_run_state(run, Crashed(message=MESSAGE), force=True)


def _process(pid: int) -> psutil.Process | None:
    """A process; None if there is none of this number."""
    try:
        return psutil.Process(pid) if pid else None
    except psutil.NoSuchProcess:
        return None


def _goes_on(worker: psutil.Process | None) -> bool:
    """Whether a worker lives, and will do so: one that was asked to stop kills its runs first, and reports none of them."""
    deadline = time.monotonic() + STOP
    while _lives(worker):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.2)
    return False


def _lives(process: psutil.Process | None) -> bool:
    """Whether a process is still running."""
    try:
        return process is not None and process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main(*sys.argv[1:])
