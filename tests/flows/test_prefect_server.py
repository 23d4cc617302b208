"""With a server configured, the run is readable there: the flow, and a task for every unit."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from test_pipeline import SET


def post(url: str) -> list[dict]:
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture
def server(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--port", str(port), "--no-ui"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}/api"
        try:
            deadline = time.monotonic() + 90
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=2).close()
                    break
                except OSError:
                    assert process.poll() is None, (tmp_path / "server.log").read_text()
                    assert time.monotonic() < deadline, "the server did not come up"
                    time.sleep(0.2)
            yield environment | {"PREFECT_API_URL": url}
        finally:
            process.terminate()
            process.wait(30)


def test_a_build_is_recorded_with_a_task_for_every_unit(server, tmp_path):
    command = [str(Path(sys.executable).with_name("wavecity")), "build", "quickstart", "--out", str(tmp_path / "store")]
    result = subprocess.run([*command, *SET], env=server, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    flows = post(f"{server['PREFECT_API_URL']}/flow_runs/filter")
    assert [run["state_type"] for run in flows] == ["COMPLETED"]
    deadline = time.monotonic() + 30
    while True:  # task runs reach the database through the server's event queue
        names = {run["name"] for run in post(f"{server['PREFECT_API_URL']}/task_runs/filter")}
        if {"unit-0", "unit-1"} <= names:
            break
        assert time.monotonic() < deadline, names
        time.sleep(0.2)
