"""Whatever ends this process, `kill -9` included, ends the processes that it started.

Dask's workers watch their parent themselves; the server that Prefect starts for a run does not,
and would run for ever.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

MARK = "WAVECITY_RUN"

# Reads until the other end of the pipe is closed, which the kernel does when its only holder ends, however it ends.
# Python's own tracker of resources ends with its process, and serves it beyond the block.
_WATCH = f"""
import os, sys
sys.stdin.buffer.read()
import psutil
for process in psutil.process_iter():
    try:
        marked = process.pid != os.getpid() and process.environ().get({MARK!r}) == sys.argv[1]
        if marked and "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
            process.kill()
    except psutil.Error:
        pass
"""


@contextmanager
def no_orphans() -> Iterator[None]:
    """Have processes that are started in the block end at the latest with this one.

    They are known by an environment variable that they inherit. At the end of the block the watcher ends what is left.
    """
    if MARK in os.environ:  # started by a process that is watched already
        yield
        return
    mark = uuid.uuid4().hex
    watcher = subprocess.Popen(
        [sys.executable, "-c", _WATCH, mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is for the watched process
    )
    assert watcher.stdin is not None
    os.environ[MARK] = mark
    try:
        yield
    finally:
        del os.environ[MARK]
        # The main process itself never carries the variable in its environment block: it was not started with it.
        watcher.stdin.close()
        watcher.wait()
