"""Deployments against real processes: a server, two pools with a worker each; publishing starts training on the other."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect_api import post
from test_pipeline import SMALL

ROOT = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))


def small_recipe() -> dict[str, Any]:
    recipe: dict[str, Any] = {"name": "small", "base": "quickstart"}
    for key, value in SMALL.items():
        *parents, leaf = key.split(".")
        section = recipe
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return recipe


def prefect(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    # The width keeps lines whole; the project's folder is where prefect.yaml lies.
    command = [PREFECT, "--no-prompt", *arguments]
    return subprocess.run(command, env={**environment, "COLUMNS": "200"}, cwd=ROOT, capture_output=True, text=True)


@contextmanager
def worker(environment: dict[str, str], pool: str, log: Path) -> Iterator[None]:
    command = [PREFECT, "worker", "start", "--pool", pool, "--type", "process"]
    with log.open("w") as out, subprocess.Popen(command, env=environment, cwd=ROOT, stdout=out, stderr=out) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture
def deployed(server: dict[str, str], tmp_path: Path) -> dict[str, str]:
    environment = {
        **server,
        "WAVECITY_STORE": str(tmp_path / "stores"),
        "WAVECITY_RUNS": str(tmp_path / "runs"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    for pool in ("cpu-pool", "gpu-pool"):
        result = prefect(environment, "work-pool", "create", pool, "--type", "process")
        assert result.returncode == 0, result.stdout + result.stderr
    result = prefect(environment, "deploy", "--all")
    assert result.returncode == 0, result.stdout + result.stderr
    return environment


def runs(environment: dict[str, str]) -> list[dict[str, Any]]:
    return post(f"{environment['PREFECT_API_URL']}/flow_runs/filter")


def test_from_a_deployment_to_a_model_trained_on_what_it_published(deployed: dict[str, str], tmp_path: Path) -> None:
    bad = small_recipe()
    bad["radio"] = {"rows": -1}
    refused = prefect(deployed, "deployment", "run", "build-dataset/quickstart", "--param", f"recipe={json.dumps(bad)}")
    assert refused.returncode != 0
    assert "recipe.radio.rows" in refused.stdout + refused.stderr
    assert runs(deployed) == []

    with worker(deployed, "cpu-pool", tmp_path / "cpu.log"), worker(deployed, "gpu-pool", tmp_path / "gpu.log"):
        recipe = json.dumps(small_recipe())
        built = prefect(
            deployed, "deployment", "run", "build-dataset/quickstart", "--param", f"recipe={recipe}", "--watch"
        )
        assert built.returncode == 0, built.stdout + built.stderr + (tmp_path / "cpu.log").read_text()
        # The event reaches the server, the trigger makes a run, the other pool's worker takes it.
        deadline = time.monotonic() + 300
        while True:
            training = [run for run in runs(deployed) if "dataset" in run["parameters"]]
            if training and training[0]["state_type"] in ("COMPLETED", "FAILED", "CRASHED"):
                break
            assert time.monotonic() < deadline, (tmp_path / "gpu.log").read_text()
            time.sleep(1)
    assert [run["state_type"] for run in training] == ["COMPLETED"], (tmp_path / "gpu.log").read_text()
    assert training[0]["work_pool_name"] == "gpu-pool"
    version = tmp_path / "stores" / "small" / "versions" / "v1"
    dataset = training[0]["parameters"]["dataset"]
    assert dataset["manifest"] == json.loads((version / "manifest.json").read_text())["sha256"]
    assert dataset["data"] == str(version / "data.zarr")
    assert (tmp_path / "runs" / "small" / "v1" / "report.html").is_file()
    artifacts = {artifact["key"] for artifact in post(f"{deployed['PREFECT_API_URL']}/artifacts/filter")}
    assert {"units-done", "outcomes", "origins", "dataset-card", "training", "report"} <= artifacts
