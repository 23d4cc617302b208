"""Processes of a run end with it, and a deployed run with its worker."""

import os
import sys
from pathlib import Path

import psutil
import pytest
from processes import PIPE, ROOT, process, wait_until

from wavecity.flows.guard import DEPLOYED, _nobody_reads

# As Prefect's worker starts a run: with pipes of its own for what it writes. The run starts a process, and ignores SIGTERM or
# leaves it to Python.
WORKER = """
import os, subprocess, sys
run = '''
import signal, subprocess, sys, time
from wavecity.flows import guard
guard.GRACE = 0.1
guard.end_with_worker()
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True)
print(below.pid, flush=True)
while True:
    print("a line of its log", flush=True)
    time.sleep(0.05)
'''
environment = {**os.environ, sys.argv[1]: "0"}
started = subprocess.Popen([sys.executable, "-c", run, sys.argv[2]], env=environment, stdout=subprocess.PIPE, text=True)
print(started.pid, int(started.stdout.readline()), flush=True)
for line in started.stdout:
    pass
"""


@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_a_deployed_run_ends_with_its_killed_worker(tmp_path: Path, kind: str) -> None:
    with process([sys.executable, "-c", WORKER, DEPLOYED, kind], tmp_path / "log", cwd=ROOT, stdout=PIPE) as worker:
        assert worker.stdout is not None
        run, below = (psutil.Process(int(pid)) for pid in worker.stdout.readline().split())
        assert run.ppid() == worker.pid
        worker.kill()
        wait_until(lambda: not alive(run), 60)
        wait_until(lambda: not alive(below), 60)
    # It was not a line that it could not write that ended it.
    assert "BrokenPipeError" not in (tmp_path / "log").read_text()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_pipe_without_a_reader_is_seen() -> None:
    reader, writer = os.pipe()
    with open(os.devnull, "wb") as nowhere:
        assert not _nobody_reads((writer, nowhere.fileno()), 0)
        os.close(reader)
        assert _nobody_reads((nowhere.fileno(), writer), 0)
    os.close(writer)
