"""With a server configured, the run is readable there: the flow, and a task for every unit."""

from command import PROGRAM
from processes import finished, wait_until
from servers import ask
from small import SET


def test_a_build_is_recorded_with_a_task_for_every_unit(deployed_server, tmp_path):
    result = finished([PROGRAM, "build", "quickstart", "--out", tmp_path / "store", *SET], env=deployed_server)
    assert result.returncode == 0, result.stderr
    runs = ask(deployed_server, "flow_runs/filter", {})
    # Its publication has also asked for a training, which no worker takes here.
    assert [run["state_type"] for run in runs if "dataset" not in run["parameters"]] == ["COMPLETED"]

    def recorded() -> bool:
        return {"unit-0", "unit-1"} <= {run["name"] for run in ask(deployed_server, "task_runs/filter", {})}

    # Task runs reach the database through the server's event queue.
    wait_until(recorded, 60)
