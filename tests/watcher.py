"""Ends a test process that hangs, and what it started: python watcher.py MARK VALUE PID (see `keeper`).

Reads lines `SECONDS NAME`: a test begins and may take so long; `0`: it ended. The end of the input is the end of the test
process. Uses the standard library and /proc alone, so that it starts in milliseconds.
"""

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path


def marked(mark: str, value: str) -> list[int]:
    """Processes whose environment has `mark=value`."""
    needle, found = f"{mark}={value}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if needle in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def kill_all(mark: str, value: str) -> None:
    """Kill until none is left: one may start another while the list is read."""
    for _ in range(100):
        pids = marked(mark, value)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not pids:
            return
        time.sleep(0.02)


def end(pid: int, name: str, mark: str, value: str) -> None:
    """End the test process itself: SIGABRT has Python's fault handler print where it hangs."""
    print(
        f"\n{name}: did not end at its limit; its process {pid} and all that it started are ended now", file=sys.stderr
    )
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
        time.sleep(3)
        os.kill(pid, signal.SIGKILL)
    kill_all(mark, value)


def main(mark: str, value: str, pid: int) -> None:
    deadline, name, rest = float("inf"), "", b""
    while True:
        readable, _, _ = select.select([0], [], [], min(max(deadline - time.monotonic(), 0), 3600))
        if not readable:
            if time.monotonic() >= deadline:
                end(pid, name, mark, value)
                return
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            kill_all(mark, value)
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            seconds, _, text = line.decode().partition(" ")
            deadline = time.monotonic() + float(seconds) if float(seconds) else float("inf")
            name = text


if __name__ == "__main__":
    # Ctrl-C and the end of the terminal are for the test process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
