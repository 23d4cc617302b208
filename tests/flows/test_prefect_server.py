"""With a server configured, the run is readable there: the flow, and a task for every unit."""

import subprocess
import sys
from pathlib import Path

from processes import ask, wait_until
from test_pipeline import SET


def test_a_build_is_recorded_with_a_task_for_every_unit(server, tmp_path):
    command = [str(Path(sys.executable).with_name("wavecity")), "build", "quickstart", "--out", str(tmp_path / "store")]
    result = subprocess.run([*command, *SET], env=server, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [run["state_type"] for run in ask(server, "flow_runs/filter", {})] == ["COMPLETED"]

    def recorded() -> bool:
        return {"unit-0", "unit-1"} <= {run["name"] for run in ask(server, "task_runs/filter", {})}

    # Task runs reach the database through the server's event queue.
    wait_until(recorded, 60)
