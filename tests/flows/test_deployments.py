"""Deployments against real processes: a server, two pools with a worker each; publishing starts training on the other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from processes import wait_until
from servers import ENDED, ask, pool_worker, prefect, small_recipe

pytestmark = pytest.mark.system


def test_from_a_deployment_to_a_model_trained_on_what_it_published(
    deployed_server: dict[str, str], tmp_path: Path
) -> None:
    server = deployed_server
    bad = small_recipe("small", **{"radio.rows": -1})
    refused = prefect(server, "deployment", "run", "build-dataset/quickstart", "--param", f"recipe={json.dumps(bad)}")
    assert refused.returncode != 0
    assert "recipe.radio.rows" in refused.stdout + refused.stderr
    assert ask(server, "flow_runs/filter", {}) == []

    gpu_log = tmp_path / "gpu.log"
    with pool_worker(server, "cpu-pool", tmp_path / "cpu.log"), pool_worker(server, "gpu-pool", gpu_log):
        recipe = json.dumps(small_recipe("small"))
        built = prefect(
            server, "deployment", "run", "build-dataset/quickstart", "--param", f"recipe={recipe}", "--watch"
        )
        assert built.returncode == 0, built.stdout + built.stderr + (tmp_path / "cpu.log").read_text()
        # The event reaches the server, the trigger makes a run, the other pool's worker takes it.
        training = wait_until(lambda: ended_trainings(server), 600, gpu_log.read_text)
        trained, store = tmp_path / "runs" / "small" / "v1", tmp_path / "stores" / "small"
        (trained / "report.html").unlink()
        parameters = {"run": str(trained), "store": str(store), "tasks": ["localization", "mu-mimo"]}
        words = [word for key, value in parameters.items() for word in ("--param", f"{key}={json.dumps(value)}")]
        evaluated = prefect(server, "deployment", "run", "evaluate-run/evaluate", "--watch", *words)
        assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr + gpu_log.read_text()
    assert [run["state_type"] for run in training] == ["COMPLETED"], gpu_log.read_text()
    assert training[0]["work_pool_name"] == "gpu-pool"
    version = tmp_path / "stores" / "small" / "versions" / "v1"
    dataset = training[0]["parameters"]["dataset"]
    assert dataset["manifest"] == json.loads((version / "manifest.json").read_text())["sha256"]
    assert dataset["data"] == str(version / "data.zarr")
    assert (trained / "report.html").is_file()
    artifacts = {artifact["key"]: artifact["description"] for artifact in ask(server, "artifacts/filter", {})}
    # A history by key is that of one recipe.
    names = ("units-done", "outcomes", "origins", "dataset-card", "training", "report")
    assert {f"small-{name}" for name in names} <= artifacts.keys()
    # Progress, time, size and cost, by the build's own figures.
    assert re.match(
        r"4 of 4 scenes, .*All 4 scenes take .* GB, 0\.\d+ core-hours, with ", artifacts["small-units-done"]
    )


def ended_trainings(environment: dict[str, str]) -> list[dict[str, Any]]:
    return [
        run
        for run in ask(environment, "flow_runs/filter", {})
        if "dataset" in run["parameters"] and run["state_type"] in ENDED
    ]


def test_datasets_go_before_those_of_downstream_tasks(deployed_server: dict[str, str]) -> None:
    """Whatever was asked for first: what a worker with one free place is given is a run of the first queue."""
    server, runs = deployed_server, {}
    for name in ("localization", "su-mimo", "quickstart", "mu-mimo", "pretrain-10k"):
        deployment = ask(server, f"deployments/name/build-dataset/{name}")
        runs[ask(server, f"deployments/{deployment['id']}/create_flow_run", {})["id"]] = name
    due = ask(server, "work_pools/cpu-pool/get_scheduled_flow_runs", {})
    names = [runs[entry["flow_run"]["id"]] for entry in due]
    assert set(names[:2]) == {"quickstart", "pretrain-10k"}
    assert set(names[2:]) == {"localization", "su-mimo", "mu-mimo"}
    for name in ("mu-mimo", "su-mimo", "localization", "backfill"):
        flow = "backfill" if name == "backfill" else "build-dataset"
        assert ask(server, f"deployments/name/{flow}/{name}")["work_queue_name"] == "downstream"
