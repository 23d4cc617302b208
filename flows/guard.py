"""No process is left behind: what a run starts ends with it, and a deployed run ends with the worker that started it.

Dask's workers watch their parent themselves; the server that Prefect starts for a run does not, and would run for ever.
Nor does the process of a deployed run, which would go on building, with nobody who could cancel it. A second process
(`wavecity.flows.watcher`) ends what the run leaves behind, and reports the run where its worker no longer can.
"""

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MARK = "WAVECITY_RUN"
# In the environment of a deployed run's process.
DEPLOYED = "PREFECT__FLOW_RUN_ID"
# Seconds between two looks at the parent, whose pipes say more at once, and that a run may take to end once it is gone.
LOOK = 1.0
GRACE = 30.0

# Watchers that end with this process: without a reference their pipes would be closed at once.
_KEPT: "list[subprocess.Popen[bytes]]" = []


@contextmanager
def no_orphans() -> Iterator[None]:
    """Have processes that are started in the block end at the latest with this one.

    They are known by an environment variable that they inherit. At the end of the block the watcher ends what is left.
    """
    if MARK in os.environ:  # started by a process that is watched already
        yield
        return
    watcher = _watch()
    assert watcher.stdin is not None
    try:
        yield
    finally:
        del os.environ[MARK]
        # The main process itself never carries the variable in its environment block: it was not started with it.
        watcher.stdin.close()
        watcher.wait()


def end_with_worker() -> None:
    """Have this process, if it is that of a deployed run, end with the worker that started it, and its own processes with it.

    A run without its worker is first asked to end as Prefect asks (SIGTERM: it reports `Crashed` and gives up the store),
    and killed after `GRACE` seconds, for whatever it is in the middle of. Prefect reports last of all, once the cluster is
    closed and every unit has ended, and not at all before its flow has begun: the watcher makes up for a missing report.
    """
    if DEPLOYED not in os.environ or MARK in os.environ:
        return
    parent = os.getppid()
    # The worker may have gone while this process imported its code.
    gone = _nobody_reads((1, 2), 0)
    _KEPT.append(_watch("0" if gone else str(parent)))
    atexit.register(_ends_by_itself, _KEPT[-1])
    threading.Thread(target=_end_after, args=(parent, gone), name="worker-watch", daemon=True).start()


def _ends_by_itself(watcher: "subprocess.Popen[bytes]") -> None:
    """Have the watcher know that nobody has killed this process."""
    assert watcher.stdin is not None
    with suppress(OSError):
        watcher.stdin.write(b".")
        watcher.stdin.flush()


def _end_after(parent: int, gone: bool) -> None:
    """Wait for the end of the parent, then end this process."""
    while True:
        if _nobody_reads((1, 2), 0 if gone else LOOK):
            # Whoever writes to a pipe without a reader fails, and rich even ends the process, before Prefect has reported.
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 1)
                os.dup2(nowhere.fileno(), 2)
        if gone or os.getppid() != parent:
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def _nobody_reads(streams: tuple[int, ...], seconds: float) -> bool:
    """Whether one of these file descriptors is a pipe that has lost its reader, or loses it within some seconds."""
    poll = select.poll()
    for stream in streams:
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(1000 * seconds))


def _watch(*worker: str) -> "subprocess.Popen[bytes]":
    """Start the process that ends those that this one starts from here on, once its standard input is closed."""
    mark = uuid.uuid4().hex
    watcher = subprocess.Popen(
        [sys.executable, "-m", "wavecity.flows.watcher", mark, *worker],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for the watched process
    )
    os.environ[MARK] = mark
    return watcher
