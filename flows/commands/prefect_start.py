"""Prefect for a command: its settings, the start of a server, and the message if none answers."""

import importlib.util
import os
import queue
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from wavecity.geo.errors import CommandFailed, InputError

# Of a command, unless the user says otherwise, besides those of `flows`; must be set before Prefect is imported.
DEFAULTS = {
    # A failed flow prints its error once, as the command does; the server's own logs would only repeat it.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    # Nor does its client repeat, event by event, that the server is gone.
    "PREFECT_INTERNAL_LOGGING_LEVEL": "CRITICAL",
}

# In the message of a RuntimeError of Prefect's client.
UNREACHABLE = "Failed to reach API at"
UNAUTHORIZED = 401


def set_defaults() -> None:
    """Configure Prefect by environment variables, where the user has not."""
    defaults = dict(DEFAULTS)
    if importlib.util.find_spec("prefect"):
        defaults["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = _own_database()
        if "PREFECT_API_URL" not in os.environ:
            # The server that Prefect starts for a run either answers at once or is gone; five retries are two minutes.
            defaults["PREFECT_CLIENT_MAX_RETRIES"] = "2"
    os.environ.update({key: value for key, value in defaults.items() if key not in os.environ})


@contextmanager
def prefect_answers() -> Iterator[None]:
    """Run a block once the Prefect server answers; an error of one line says that none does, or no longer.

    Without a configured server Prefect's client starts one, which takes some seconds: that is shown as a stage.

    Raises
    ------
    InputError
        None answers at the address that the user configured, or it asks for a password.
    CommandFailed
        The server stopped answering.
    """
    from httpx import HTTPError, HTTPStatusError  # what Prefect's client asks with

    try:
        wait_for_server()
        yield
    except (RuntimeError, HTTPError) as error:
        unreachable = UNREACHABLE in str(error)
        if isinstance(error, RuntimeError) and not unreachable:
            raise
        _drop_events()
        url = os.environ.get("PREFECT_API_URL")
        if isinstance(error, HTTPStatusError) and error.response.status_code == UNAUTHORIZED:
            msg = f"PREFECT_API_URL={url}: this server asks for a password: set PREFECT_API_AUTH_STRING to its USER:PASSWORD"
            raise InputError(msg) from error
        if url is not None and unreachable:
            msg = f"PREFECT_API_URL={url}: no Prefect server answers there; start one with `prefect server start`, or unset it"
            raise InputError(msg) from error
        msg = f"the Prefect server stopped answering ({error}); run the same command again to go on"
        raise CommandFailed(msg) from error
    finally:
        _stop_own_server()


def wait_for_server() -> None:
    """Start the server, or ask the configured one; the flow that follows finds it running."""
    from prefect.client.orchestration import get_client

    from wavecity.dataset.progress import stage

    text = "connect to the Prefect server" if "PREFECT_API_URL" in os.environ else "start the Prefect server"
    with stage(text), get_client(sync_client=True) as client:
        client.raise_for_api_version_mismatch()


def _stop_own_server() -> None:
    """Stop the server that Prefect's client started, if it did.

    Left to the end of the process, as Prefect leaves it, the next command of the process would find one that is gone.
    """
    from prefect.events.worker import EventsWorker
    from prefect.settings import get_current_settings

    if get_current_settings().api.url is not None:
        return
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    if server.server_process is not None and server.server_process.poll() is None:
        EventsWorker.drain_all(timeout=10, at_exit=False)  # after its end every event would be retried
    server.stop()


def _drop_events() -> None:
    """Drop what still waits to be sent to a server that does not answer.

    At the end of the process Prefect would try every event for seconds, one after the other.
    """
    from prefect.events.worker import EventsWorker

    services: Any = EventsWorker
    for worker in list(services._instances.values()):
        with suppress(queue.Empty):
            while True:
                worker._queue.get_nowait()
                worker._queue.task_done()


def _own_database() -> str:
    """Database of the server that Prefect starts for a run when none is configured.

    Prefect's own default is one file for all its versions, and a file that a newer one migrated stops an older one.
    """
    version = metadata.version("prefect")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavecity"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written, as in some containers
        folder = Path(tempfile.gettempdir())
    return f"sqlite+aiosqlite:///{folder / f'prefect-{version}.db'}"
