"""Every process that a test starts is started here, and ends with the block that started it, whatever happens.

`process` yields a running process, `finished` waits for one. Both run the command in a session (and so a process group) of
its own with default signals: Prefect's workers turn SIGTERM into SIGINT for themselves, and in a process that was started
with SIGINT ignored, as a shell starts its background jobs, they would never leave.
"""

import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import killpg
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# How long a process may take to end after it was asked to; a limit for what hangs, not for what is slow.
PATIENCE = 20.0
# Lines of a process's log that a failing test shows.
TAIL = 40
# Process groups that are running now; what else carries the mark of this run when a test ends was left behind.
GROUPS: set[int] = set()

PIPE = subprocess.PIPE
Process = subprocess.Popen[bytes]
Finished = subprocess.CompletedProcess[str]
TimeoutExpired = subprocess.TimeoutExpired


@contextmanager
def process(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    patience: float = PATIENCE,
    **streams: Any,
) -> Iterator[Process]:
    """Run a command within the block: asked to end after it (SIGTERM), and killed with its whole group.

    Parameters
    ----------
    command : sequence of str or Path
        Program and arguments.
    log : Path
        Its output is appended to this file, never to a pipe: a full one stops the command. Its end is added to an
        exception that leaves the block.
    env, cwd
        As those of `subprocess.Popen`.
    patience : float
        Seconds between the request to end and the kill.
    **streams
        `stdin`, `stdout` or `stderr` where the test talks with the process itself.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, _default_signals():
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": out, **streams}
        started = subprocess.Popen(list(map(str, command)), env=env, cwd=cwd, start_new_session=True, **streams)
    GROUPS.add(started.pid)
    try:
        yield started
    except BaseException as error:
        error.add_note(f"--- end of {log}:\n{tail(log)}")
        raise
    finally:
        _end(started, patience)
        GROUPS.discard(started.pid)


def finished(
    command: Sequence[str | Path],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes = b"",
    seconds: float = 240.0,
) -> Finished:
    """Run a command to its end; its exit code and what it wrote.

    Raises
    ------
    subprocess.TimeoutExpired
        It hangs: it was still running after `seconds`, and was killed with its group.
    """
    with tempfile.TemporaryDirectory(prefix="wavecity-test-") as folder:
        given, out, err = (Path(folder) / name for name in ("in", "out", "err"))
        given.write_bytes(input)
        with (
            given.open("rb") as stdin,
            out.open("wb") as stdout,
            process(command, err, env, cwd, 0.0, stdin=stdin, stdout=stdout) as started,
        ):
            code = started.wait(seconds)
        return subprocess.CompletedProcess(started.args, code, out.read_text("utf-8"), err.read_text("utf-8"))


def python(code: str, *arguments: object, input: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """Run Python code in a fresh interpreter; what it printed. Fails with its traceback."""
    run = finished([sys.executable, "-c", code, *map(str, arguments)], env, ROOT, input)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def tail(log: Path, lines: int = TAIL) -> str:
    """The last lines of a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return "\n".join(text.splitlines()[-lines:])


def wait_until(what: Callable[[], Any], seconds: float, complaint: Callable[[], str] = str) -> Any:
    """Ask until the answer is true, and return it; the time is a limit for what hangs, not for what is slow."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, complaint()
        time.sleep(0.1)
    return answer


@contextmanager
def _default_signals() -> Iterator[None]:
    """What is started within neither ignores nor blocks a signal that this process was started to ignore or block."""
    ignored = [each for each in signal.valid_signals() if signal.getsignal(each) is signal.SIG_IGN]
    # Python ignores SIGPIPE for itself, and `Popen` restores it.
    ignored = [each for each in ignored if each not in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None))]
    if threading.current_thread() is not threading.main_thread():
        assert not ignored, "start processes in the main thread: only there can signals be put back"
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for each in ignored:
        signal.signal(each, signal.SIG_DFL)
    try:
        yield
    finally:
        for each in ignored:
            signal.signal(each, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _end(started: Process, patience: float) -> None:
    """Ask a process to end, wait, kill its group."""
    # One that was stopped hears nothing.
    for each in (signal.SIGTERM, signal.SIGCONT) if patience else ():
        if started.poll() is None:
            started.send_signal(each)
    with suppress(subprocess.TimeoutExpired):
        started.wait(patience)
    with suppress(ProcessLookupError):
        killpg(started.pid, signal.SIGKILL)
    for stream in (started.stdin, started.stdout, started.stderr):
        if stream is not None:
            stream.close()
    started.wait(PATIENCE)
