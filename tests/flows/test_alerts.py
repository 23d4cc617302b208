"""Automations of a real server, which notify a webhook of this test."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from prefect.automations import EventTrigger, Posture
from processes import finished, python, wait_until
from servers import ROOT, ask, pool_worker, small_recipe

from wavecity.dataset.lock import builder_lock
from wavecity.flows.alerts import SILENCE, alerts

BLOCK = """
import sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock
CustomWebhookNotificationBlock(
    name="test", url=sys.argv[1], json_data={"subject": "{{subject}}", "body": "{{body}}"}
).save("operations")
"""
EVENT = """
import json, sys
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
resource = {"prefect.resource.id": "wavecity.store.small", "prefect.resource.name": "/stores/small"}
emit_event(sys.argv[1], resource=resource, payload=json.loads(sys.argv[2]))
EventsWorker.drain_all(timeout=20, at_exit=False)
"""


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server of this machine; yields its address and what it was sent."""
    got: list[dict[str, str]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", got
        finally:
            server.shutdown()


def test_failed_runs_gates_and_versions_are_notified(deployed_server: dict[str, str]) -> None:
    server = deployed_server
    command = [sys.executable, "-m", "wavecity.flows.alerts"]
    missing = finished([*command, "slack-webhook/nobody"], env=server, cwd=ROOT)
    assert missing.returncode == 2
    assert "slack-webhook/nobody: no such notification block" in missing.stderr
    assert "Traceback" not in missing.stderr
    with webhook() as (address, got):
        python(BLOCK, address, env=server)
        for _ in range(2):  # given again it makes none twice
            made = finished([*command, "custom-webhook/operations"], env=server, cwd=ROOT)
            assert made.returncode == 0, made.stderr
        names = sorted(automation["name"] for automation in ask(server, "automations/filter", {}))
        ours = [name for name in names if name.startswith("wavecity: ")]
        assert ours == sorted(made.stdout.split("\n")[:-1])
        assert len(ours) == len(set(ours)) == 6

        deployment = ask(server, "deployments/name/build-dataset/quickstart")
        run = ask(server, f"deployments/{deployment['id']}/create_flow_run", {})
        for state in ("Failed", "Crashed"):
            given = {"type": state.upper(), "message": f"it has {state}"}
            ask(server, f"flow_runs/{run['id']}/set_state", {"state": given, "force": True})
        python(EVENT, "wavecity.gate.failed", json.dumps({"message": "not published: outage"}), env=server)
        dataset = {"version": "v3", "data": "/stores/small/versions/v3/data.zarr"}
        python(EVENT, "wavecity.dataset.published", json.dumps({"dataset": dataset, "recipe": {}}), env=server)
        wait_until(lambda: len(got) >= 4, 90, lambda: str(got))
    bodies = {message["subject"].removeprefix("Wavecity: "): message["body"] for message in got}
    assert bodies.keys() == {
        "A run is Failed",
        "A run is Crashed",
        "A quality gate stopped a version",
        "A version was published",
    }
    assert f"build-dataset {run['name']}: it has" in bodies["A run is Failed"]
    assert run["id"] in bodies["A run is Failed"]
    assert bodies["A quality gate stopped a version"].strip() == "/stores/small: not published: outage"
    assert bodies["A version was published"].strip() == "/stores/small: v3, /stores/small/versions/v3/data.zarr"


def test_a_silent_run_is_one_whose_heartbeats_end_before_its_last_state() -> None:
    (silent,) = (alert.trigger for alert in alerts(uuid4()) if alert.name == "wavecity: silent")
    assert isinstance(silent, EventTrigger)
    assert silent.posture == Posture.Proactive
    assert silent.after == {"prefect.flow-run.heartbeat"}
    assert {"prefect.flow-run.heartbeat", "prefect.flow-run.Completed", "prefect.flow-run.Failed"} <= silent.expect
    assert silent.within == SILENCE
    # One run after the other, not all of them together.
    assert silent.for_each == {"prefect.resource.id"}


ENDED = """
import sys
from uuid import uuid4
from prefect.events import emit_event
from prefect.events.worker import EventsWorker
run = {"prefect.resource.id": f"prefect.flow-run.{uuid4()}"}
tag = [{"prefect.resource.id": "prefect.tag.dataset", "prefect.resource.role": "tag"}]
for event in ("heartbeat", "Completed"):
    emit_event(f"prefect.flow-run.{event}", resource=run, related=tag)
EventsWorker.drain_all(timeout=20, at_exit=False)
"""


@pytest.fixture
def impatient_server(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, str]:
    """A server that calls a run late after a second, and looks for what did not happen every second."""
    for name in ("AFTER", "LOOP"):
        monkeypatch.setenv(f"PREFECT_SERVER_SERVICES_LATE_RUNS_{name}_SECONDS", "1")
    monkeypatch.setenv("PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY", "PT1S")
    server: dict[str, str] = request.getfixturevalue("deployed_server")
    return server


@pytest.mark.system
def test_late_runs_and_runs_of_a_lost_machine_are_notified(impatient_server: dict[str, str], tmp_path: Path) -> None:
    """A run without a worker, and one that was killed together with its worker; one that has ended is not silent."""
    server, log, store = impatient_server, tmp_path / "cpu.log", tmp_path / "stores" / "small"
    store.mkdir(parents=True)
    deployment = ask(server, "deployments/name/build-dataset/quickstart")
    with webhook() as (address, got):
        python(BLOCK, address, env=server)
        command = [sys.executable, "-m", "wavecity.flows.alerts", "custom-webhook/operations", "--silence", "0.2"]
        made = finished(command, env=server, cwd=ROOT)
        assert made.returncode == 0, made.stderr
        python(ENDED, env=server)
        # It waits for its turn, which does not come.
        parameters = {"recipe": small_recipe("small"), "when_busy": "wait"}
        run = ask(server, f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})
        wait_until(lambda: got, 90, lambda: str(got))
        with builder_lock(store), pool_worker(server, "cpu-pool", log) as worker:
            wait_until(lambda: "waiting: " in log.read_text(), 120, log.read_text)
            # Its first sign of life has arrived; the next one would come three minutes later.
            resource = {"id": [f"prefect.flow-run.{run['id']}"]}
            beats = {"filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": resource}}
            wait_until(lambda: ask(server, "events/filter", beats)["total"], 60, log.read_text)
            family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
            for each in family:  # at once, as by the loss of a machine: none has time to report another
                each.suspend()
            for each in family:
                each.kill()
            psutil.wait_procs(family[1:], timeout=60)
            wait_until(lambda: len(got) >= 3, 90, lambda: str(got))
    subjects = [message["subject"] for message in got]
    assert subjects[0] == "Wavecity: A run is Late"
    assert set(subjects[1:]) == {"Wavecity: A run gave no sign of life for 0.2 min", "Wavecity: A run is Crashed"}
    assert all(run["id"] in message["body"] for message in got)
    # Else it would be under way for ever.
    state = ask(server, f"flow_runs/{run['id']}")["state"]
    assert state["type"] == "CRASHED"
    assert state["message"].startswith("No sign of life for 0.2 min: ")
    # One that goes on all the same, as when only the server was away, can still say how it ended.
    ended = ask(server, f"flow_runs/{run['id']}/set_state", {"state": {"type": "COMPLETED"}})
    assert ended["status"] == "ACCEPT"
