"""A real Prometheus (Debian's) takes the metrics of a run and answers what the dashboard asks; skipped where it is missing."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from processes import finished, process, wait_until

from wavecity.dataset.draft import load_draft
from wavecity.dataset.progress import stage
from wavecity.dataset.publish import latest
from wavecity.flows.bench.prefect_server import free_port
from wavecity.flows.metrics import current, served

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "docker" / "prometheus.yml"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docker" / "grafana" / "wavecity.json").read_text())
QUERIES = {target["expr"]: panel["title"] for panel in DASHBOARD["panels"] for target in panel["targets"]}


@pytest.fixture
def prometheus() -> str:
    for name in ("prometheus", "promtool"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} in PATH (Debian's package prometheus)")
    return "prometheus"


def test_the_dashboards_queries_have_answers(
    prometheus: str, toy_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = finished(["promtool", "check", "config", CONFIGURATION])
    assert checked.returncode == 0, checked.stdout + checked.stderr
    given = yaml.safe_load(CONFIGURATION.read_text())
    ours, port = free_port(), free_port()
    (job,) = given["scrape_configs"]
    job |= {"scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{ours}"]}]}
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(given))
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '0, 40, 1024, 81559'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("WAVECITY_METRICS", f"127.0.0.1:{ours}")

    def ask(path: str, **words: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/{path}?{urlencode(words)}", timeout=20) as answer:
            return json.load(answer)["data"]

    def values(query: str) -> list[float]:
        # As Grafana does for "All" of the dashboard's variable; the time is Prometheus's own.
        found = ask("query", query=query.replace("$recipe", ".*"))["result"]
        return [float(sample["value"][1]) for sample in found]

    version = latest(toy_store)
    assert version is not None
    receipts = load_draft(version.folder).receipts()
    for receipt in receipts:
        for scene in receipt["scenes"]:
            scene |= {"seconds_scene": 0.5, "seconds_raytrace": 1.5}
    command = [prometheus, "--config.file", tmp_path / "prometheus.yml", "--storage.tsdb.path", tmp_path / "data"]
    command += ["--web.listen-address", f"127.0.0.1:{port}"]
    log = tmp_path / "prometheus.log"
    with served("toy"), process([str(word) for word in command], log, cwd=tmp_path):
        metrics = current()
        assert metrics is not None
        metrics.started(units=len(receipts), missing=len(receipts))
        with stage("build 2/4: trace"):
            metrics.unit(receipts[0], workers=2, left=7.5)

        def scraped(seen: float) -> Any:
            def answer() -> bool:
                try:
                    return values("sum(wavecity_work_seconds_count)") == [seen]
                except OSError:  # it starts
                    return False

            return answer

        first = 2 * len(receipts[0]["scenes"]) + 1
        wait_until(scraped(first), 60, log.read_text)
        for receipt in receipts[1:]:
            metrics.unit(receipt, workers=2, left=0.0)
        metrics.published(version)
        scenes = sum(len(receipt["scenes"]) for receipt in receipts)
        wait_until(scraped(2 * scenes + len(receipts)), 60, log.read_text)
        # Every panel of the dashboard, each with an answer.
        answers = {query: values(query) for query in QUERIES}
        assert [QUERIES[query] for query, answer in answers.items() if not answer] == []
        assert values("sum(wavecity_scenes_total)") == [scenes]
        assert values('wavecity_units{state="left"}') == [0]
        by_stage = next(query for query in QUERIES if "work_seconds_sum" in query)
        assert 1.5 in [round(value, 6) for value in values(by_stage)]  # seconds a scene, as the receipts say
        assert values("wavecity_gpu_utilization_ratio") == [pytest.approx(0.4)]
        (recipe,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "recipe")
        name = recipe["definition"].removeprefix("label_values(").partition(",")[0]
        begun = str(time.time() - 600)
        assert ask("label/recipe/values", **{"match[]": name, "start": begun}) == ["toy"]
