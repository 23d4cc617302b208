"""With a server configured, the run is readable there: the flow, and a task for every unit."""

import subprocess
import sys
import time
from pathlib import Path

from prefect_api import post
from test_pipeline import SET


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
