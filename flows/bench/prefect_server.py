"""Prefect's server as a separate process, on SQLite or PostgreSQL, and requests to it."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wavecity.geo.errors import InputError

# Longest wait for a server to answer.
STARTUP_SECONDS = 90
# Unprivileged accounts that may run PostgreSQL, which refuses to run as root.
ACCOUNTS = ("postgres", "nobody")


def post(url: str, content: Mapping[str, object] | None = None) -> Any:
    """POST JSON and return the answer's."""
    body = json.dumps(content or {}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@contextmanager
def prefect_server(folder: Path, database: str | None = None, port: int | None = None) -> Iterator[dict[str, str]]:
    """Run a server; yields the environment that reaches it.

    Parameters
    ----------
    folder : Path
        For its log and, by default, its database.
    database : str, optional
        SQLAlchemy URL of another database.
    port : int, optional
        Of an earlier server in the same folder, which this one then goes on from.

    Raises
    ------
    RuntimeError
        It does not come up; the message ends with its log.
    """
    port = port or free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # The command line names a database of the user's own.
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database or f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
    }
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port), "--no-ui"]
    url = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=2).close()
        except OSError:
            return False
        return True

    with _process(command, folder / "server.log", answers, env=environment):
        yield environment | {"PREFECT_API_URL": url}


@contextmanager
def postgresql(folder: Path | None = None, port: int | None = None) -> Iterator[str]:
    """Run a PostgreSQL server; yields its URL for SQLAlchemy.

    Parameters
    ----------
    folder : Path, optional
        For its database, by default a temporary one; a server in the folder of an earlier one goes on from it.
    port : int, optional
        By default a free one.

    Raises
    ------
    InputError
        PostgreSQL is not installed, or this is root and there is no other account to run it.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="wavecity-postgresql-") as name, postgresql(Path(name), port) as url:
            yield url
        return
    initdb = _find_initdb()
    account = _account()
    port = port or free_port()
    data = folder / "data"
    if not data.exists():
        if account:
            shutil.chown(folder, account)
        subprocess.run(
            [initdb, "-D", data, "-U", "wavecity", "-A", "trust", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, user=account, cwd=folder,
        )  # fmt: skip
    command = [initdb.with_name("postgres"), "-D", data, "-p", str(port), "-k", folder]
    command += ["-c", "listen_addresses=127.0.0.1"]
    ready = [str(initdb.with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
    # SIGINT, for at SIGTERM it would wait until nobody is connected.
    with _process(
        [str(word) for word in command], folder / "postgresql.log", lambda: not subprocess.call(ready),
        user=account, cwd=folder, stop=signal.SIGINT,
    ):  # fmt: skip
        yield f"postgresql+asyncpg://wavecity@127.0.0.1:{port}/postgres"


@contextmanager
def client_of(environment: dict[str, str]) -> Iterator[None]:
    """Have the flows of this process recorded by the server of `environment`."""
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    # There is one per process for all servers: that of an earlier server would go on sending there.
    EventsWorker.drain_all(timeout=20, at_exit=False)
    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"], PREFECT_CLIENT_MAX_RETRIES: 2}):
        try:
            yield
        finally:
            # While the server still answers: after its end every event in the queue is retried for over a minute.
            EventsWorker.drain_all(timeout=20, at_exit=False)


@contextmanager
def _process(
    command: list[str],
    log: Path,
    answers: Callable[[], bool],
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: Path | None = None,
    stop: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """Run a server for the block, which begins once it answers; `stop` asks it to end."""
    with (
        log.open("a") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=env, user=user, cwd=cwd) as process,
    ):
        try:
            deadline = time.monotonic() + STARTUP_SECONDS
            while not answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    msg = f"{Path(command[0]).name} did not come up:\n{log.read_text()}"
                    raise RuntimeError(msg)
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _find_initdb() -> Path:
    """PostgreSQL's programs: those in PATH, else the newest of Debian's folders."""
    found = shutil.which("initdb")
    # Debian's names are versions; in PATH there may be a link to one program alone.
    places = [Path(found).resolve()] if found else []
    places += sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]), reverse=True
    )
    for place in places:
        if all(place.with_name(name).is_file() for name in ("postgres", "pg_isready")):
            return place
    msg = "--database postgresql: no initdb in PATH or in /usr/lib/postgresql; install postgresql, or use sqlite"
    raise InputError(msg)


def _account() -> str | None:
    """Account to run PostgreSQL with: None for the own one, another one for root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    account = next((name for name in ACCOUNTS if name in known), None)
    if account is None:
        msg = (
            f"--database postgresql: does not run as root, and there is no account {' or '.join(ACCOUNTS)}; use sqlite"
        )
        raise InputError(msg)
    return account


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
