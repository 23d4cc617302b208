"""A command that needs Prefect says that it waits for the server."""

import asyncio
import os
import threading
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from prefect.events import Event
from prefect.events.clients import EventsClient
from prefect.events.worker import EventsWorker
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from processes import python

from wavecity.dataset import progress
from wavecity.flows.commands import prefect_start
from wavecity.flows.commands.prefect_start import prefect_answers
from wavecity.geo.errors import CommandFailed, InputError


def test_the_start_of_the_server_is_a_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def start(server: SubprocessASGIServer, timeout: int | None = None) -> None:
        assert capsys.readouterr().err == "start the Prefect server\n"
        # What the clock does every 30 s.
        progress._DISPLAY.beat()
        assert capsys.readouterr().err == "start the Prefect server: 0 s\n"
        raise RuntimeError("it does not come up")

    monkeypatch.setattr(SubprocessASGIServer, "start", start)
    with pytest.raises(RuntimeError, match="it does not come up"), prefect_answers():
        pytest.fail("the flow began without a server")


def test_a_configured_server_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = "http://127.0.0.1:9/api"  # the discard port, where nothing listens
    monkeypatch.setenv("PREFECT_API_URL", url)
    settings = temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0})
    message = f"PREFECT_API_URL={url}: no Prefect server answers there"
    with settings, pytest.raises(InputError, match=message), prefect_answers():
        pytest.fail("the flow began without a server")
    assert capsys.readouterr().err == "connect to the Prefect server\n"


class Stuck(EventsClient):
    """Has its first event in hand for as long as the test wants."""

    taken, released = threading.Event(), threading.Event()
    sent: ClassVar[list[str]] = []

    async def _emit(self, event: Event) -> None:
        self.taken.set()
        await asyncio.to_thread(self.released.wait)
        self.sent.append(event.event)


def test_what_a_lost_server_has_not_got_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the end of the process waits for each of them in turn, as long as the client tries."""
    monkeypatch.setattr(prefect_start, "wait_for_server", lambda: None)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        worker = EventsWorker.instance(Stuck)
        for number in range(30):
            worker.send(Event(event=f"unit-{number}", resource={"prefect.resource.id": "wavecity.store.small"}))
        assert Stuck.taken.wait(30)
        with pytest.raises(CommandFailed, match="the Prefect server stopped answering"), prefect_answers():
            raise httpx.ConnectError("connection refused")
        Stuck.released.set()
        worker.drain()
    assert Stuck.sent == ["unit-0"]


TWO_RUNS = """
from wavecity.flows.commands.prefect_start import prefect_answers, set_defaults
from wavecity.flows.guard import no_orphans
set_defaults()
import prefect
@prefect.flow
def double(number):
    return 2 * number
for number in (1, 2):
    with no_orphans(), prefect_answers():
        print(double(number))
"""


@pytest.mark.system
def test_a_second_run_of_a_process_has_a_server_again(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    answer = python(TWO_RUNS, env={**environment, "PREFECT_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert answer.splitlines() == ["2", "4"]


def test_the_interface_of_a_server_on_another_port_asks_that_port() -> None:
    """As the operations page says: by the variable, for an option of the command reaches the server alone."""
    code = "from prefect.settings import PREFECT_UI_API_URL; print(PREFECT_UI_API_URL.value())"
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    assert python(code, env={**environment, "PREFECT_SERVER_API_PORT": "5000"}) == "http://127.0.0.1:5000/api"
    deploy = Path(__file__).parents[2] / "docs" / "operations" / "deploy.md"
    assert "PREFECT_SERVER_API_PORT=5000" in deploy.read_text(encoding="utf-8")
