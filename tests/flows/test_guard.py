"""Processes of a run end with it, and a deployed run with its worker."""

import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from processes import PIPE, ROOT, process, wait_until
from servers import ask

from wavecity.flows.guard import DEPLOYED, _nobody_reads

# As Prefect's worker starts a run: with pipes of its own for what it writes. The run starts a process, and ignores SIGTERM or
# leaves it to Python.
WORKER = """
import os, signal, subprocess, sys
run = '''
import signal, subprocess, sys, time
from wavecity.flows import guard
guard.GRACE = 0.1
guard.end_with_worker()
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, start_new_session=True)
print(below.pid, flush=True)
while sys.argv[1] != "short":
    print("a line of its log", flush=True)
    time.sleep(0.05)
'''
environment = {**os.environ, sys.argv[1]: sys.argv[3]}
started = subprocess.Popen([sys.executable, "-c", run, sys.argv[2]], env=environment, stdout=subprocess.PIPE, text=True)
print(started.pid, int(started.stdout.readline()), flush=True)
for line in started.stdout:
    pass
signal.pause()
"""


def test_a_run_that_ends_by_itself_needs_no_watcher_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its worker ends later: no report is made, which would fail here for want of a server."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # the discard port, where nothing listens
    command = [sys.executable, "-c", WORKER, DEPLOYED, "short", "0"]
    with process(command, tmp_path / "log", cwd=ROOT, stdout=PIPE) as worker:
        assert worker.stdout is not None
        run, _ = (int(pid) for pid in worker.stdout.readline().split())
        with suppress(psutil.NoSuchProcess):
            wait_until(lambda: not alive(psutil.Process(run)), 60)
        wait_until(lambda: not watchers_of(worker.pid), 60)


def watchers_of(worker: int) -> list[psutil.Process]:
    """Watchers of runs of a worker."""
    found = []
    for each in psutil.process_iter():
        with suppress(psutil.Error):
            if each.cmdline()[2:3] == ["wavecity.flows.watcher"] and each.cmdline()[-1] == str(worker):
                found.append(each)
    return found


@pytest.mark.parametrize("kind", ["polite", "stubborn"])
def test_a_deployed_run_ends_with_its_killed_worker(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", WORKER, DEPLOYED, kind, "0"]
    with process(command, tmp_path / "log", cwd=ROOT, stdout=PIPE) as worker:
        assert worker.stdout is not None
        run, below = (psutil.Process(int(pid)) for pid in worker.stdout.readline().split())
        assert run.ppid() == worker.pid
        worker.kill()
        wait_until(lambda: not alive(run), 60)
        wait_until(lambda: not alive(below), 60)
    # It was not a line that it could not write that ended it.
    assert "BrokenPipeError" not in (tmp_path / "log").read_text()


def test_the_watcher_reports_what_nobody_else_can(deployed_server: dict[str, str], tmp_path: Path) -> None:
    server = deployed_server
    deployment = ask(server, "deployments/name/build-dataset/quickstart")

    def killed(state: str, kind: str, *victims: str, how: signal.Signals = signal.SIGKILL, stops: bool = False) -> str:
        """State of a run that was in another one when these processes were killed or asked to end, all at once.

        `stops`: and its worker once the watcher has ended what the run left.
        """
        run = ask(server, f"deployments/{deployment['id']}/create_flow_run", {})["id"]
        ask(server, f"flow_runs/{run}/set_state", {"state": {"type": state}, "force": True})
        command = [sys.executable, "-c", WORKER, DEPLOYED, kind, run]
        with process(command, tmp_path / "log", server, ROOT, stdout=PIPE) as worker:
            assert worker.stdout is not None
            flow, below = (psutil.Process(int(pid)) for pid in worker.stdout.readline().split())
            (watcher,) = (each for each in flow.children() if "wavecity.flows.watcher" in each.cmdline())
            wait_until(lambda: ignores_sigterm(watcher), 60)
            family = {"worker": psutil.Process(worker.pid), "run": flow, "watcher": watcher}
            chosen = [family[name] for name in victims]
            for each in chosen:
                each.suspend()
            for each in chosen:
                each.send_signal(how)
            for each in chosen:
                with suppress(psutil.NoSuchProcess):
                    each.resume()
            if stops:
                wait_until(lambda: not alive(below), 60)
                worker.kill()
            assert psutil.wait_procs([watcher], timeout=120)[1] == []
        return str(ask(server, f"flow_runs/{run}")["state_type"])

    # It hangs until it is killed; it has not begun; it is lost together with its worker.
    assert killed("RUNNING", "stubborn", "worker") == "CRASHED"
    assert killed("PENDING", "polite", "worker") == "CRASHED"
    assert killed("RUNNING", "polite", "worker", "run") == "CRASHED"
    # As systemd stops a unit.
    assert killed("RUNNING", "polite", "worker", "run", "watcher", how=signal.SIGTERM) == "CRASHED"
    # Its worker stops: it has killed the run, and makes no report.
    assert killed("RUNNING", "polite", "run", stops=True) == "CRASHED"
    # It has ended before; its worker will report it.
    assert killed("COMPLETED", "polite", "worker", "run") == "COMPLETED"
    assert killed("RUNNING", "polite", "run") == "RUNNING"


def ignores_sigterm(process: psutil.Process) -> bool:
    """Whether a process has come so far: until then it is Python that starts."""
    found = re.search(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def test_a_pipe_without_a_reader_is_seen() -> None:
    reader, writer = os.pipe()
    with open(os.devnull, "wb") as nowhere:
        assert not _nobody_reads((writer, nowhere.fileno()), 0)
        os.close(reader)
        assert _nobody_reads((nowhere.fileno(), writer), 0)
    os.close(writer)
