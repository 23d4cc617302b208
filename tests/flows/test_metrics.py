"""Metrics as Prometheus gets them: scraped over HTTP, and read by the client library's own parser."""

import json
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from command import PROGRAM
from processes import process, wait_until
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from small import SET

from wavecity.dataset.draft import load_draft
from wavecity.dataset.progress import LISTENERS, stage
from wavecity.dataset.publish import latest
from wavecity.flows import metrics
from wavecity.flows.bench.prefect_server import free_port
from wavecity.flows.metrics import Gpus, Metrics, address_of, current, measured, served
from wavecity.flows.recipe import load_recipe
from wavecity.geo.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
Labels = tuple[tuple[str, str], ...]


def parse(text: str) -> dict[tuple[str, Labels], float]:
    """Samples by name and sorted labels, without that of the recipe."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted((key, value) for key, value in sample.labels.items() if key != "recipe"))
            found[sample.name, labels] = sample.value
    return found


def scrape(port: int) -> dict[tuple[str, Labels], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        return parse(answer.read().decode())


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port at which metrics are to be served."""
    port = free_port()
    monkeypatch.setenv("WAVECITY_METRICS", f"127.0.0.1:{port}")
    return port


def test_what_is_scraped_is_what_the_receipts_say(toy_store: Path, port: int) -> None:
    version = latest(toy_store)
    assert version is not None
    receipts = load_draft(version.folder).receipts()
    scenes = [scene for receipt in receipts for scene in receipt["scenes"]]
    for scene, seconds in zip(scenes, range(1, 7), strict=True):
        scene |= {
            "seconds_scene": 0.5,
            "seconds_raytrace": float(seconds),
            "origin": "kept from v1: x" * (seconds == 1),
        }
    with served("toy"):
        served_metrics = current()
        assert served_metrics is not None
        served_metrics.started(units=4, missing=3)
        for receipt in receipts:
            served_metrics.unit(receipt, workers=2, left=7.5)
        served_metrics.published(version)
        with stage("build 2/4: trace"):
            pass
        found = scrape(port)
    assert found["wavecity_scenes_total", (("origin", "traced"), ("status", "done"))] == 4
    assert found["wavecity_scenes_total", (("origin", "kept"), ("status", "done"))] == 1
    assert found["wavecity_scenes_total", (("origin", "traced"), ("status", "quarantined"))] == 1
    assert found["wavecity_quarantined_total", (("stage", "scene"),)] == 1
    assert found["wavecity_users_total", ()] == sum(scene["n_users"] for scene in scenes)
    files = [version.folder / name for receipt in receipts for name in receipt["files"]]
    assert found["wavecity_written_bytes_total", ()] == sum(file.stat().st_size for file in files)
    assert found["wavecity_work_seconds_sum", (("stage", "raytrace"),)] == 21
    assert found["wavecity_work_seconds_count", (("stage", "scene"),)] == 6
    assert found["wavecity_work_seconds_count", (("stage", "write"),)] == 3
    assert found["wavecity_units", (("state", "left"),)] == 0
    assert found["wavecity_units", (("state", "done"),)] == 4
    assert found["wavecity_workers", ()] == 2
    assert found["wavecity_left_seconds", ()] == 7.5
    assert found["wavecity_version", ()] == 1
    assert found["wavecity_stage_seconds", (("stage", "build 2/4: trace"),)] >= 0
    # Nothing is served after the run, and nothing listens any more.
    assert current() is None
    assert LISTENERS == []
    with pytest.raises(URLError):
        scrape(port)


def test_flows_serve_while_they_run_and_the_outermost_is_the_one(port: int) -> None:
    seen = []

    @measured
    def inner(recipe: Any, rest: int = 0) -> None:
        seen.append(current())

    @measured
    def outer(store: str, recipe: Any) -> int:
        inner(recipe)
        seen.append(current())
        return len(scrape(port))

    assert outer("store", recipe=load_recipe("quickstart")) > 0
    assert seen[0] is seen[1] is not None
    assert current() is None


def test_without_the_variable_nothing_is_served_or_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVECITY_METRICS", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with served("toy"):
        assert current() is None


@pytest.mark.parametrize(
    ("text", "hides", "message"),
    [
        ("nowhere", False, r"^WAVECITY_METRICS=nowhere: write HOST:PORT, or a port of this machine, e\.g\. 127\.0\.0\.1:9464$"),
        ("0:70000", False, r"^WAVECITY_METRICS=0:70000: write HOST:PORT"),
        ("9464", True, r"^WAVECITY_METRICS is set, but prometheus_client is not installed: pip install 'wavecity\[metrics\]'"),
    ],
)  # fmt: skip
def test_wrong_addresses_and_a_missing_library_are_one_line(
    monkeypatch: pytest.MonkeyPatch, text: str, hides: bool, message: str
) -> None:
    monkeypatch.setenv("WAVECITY_METRICS", text)
    if hides:
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InputError, match=message), served("toy"):
        pass
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("[::1]:9464") == ("::1", 9464)


def test_a_port_that_is_taken_is_a_warning(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with served("one"):
        first = metrics.current()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metrics, "_current", None)
            with served("two"):
                assert current() is None
        assert "no metrics: WAVECITY_METRICS=127.0.0.1:" in caplog.text
        assert first is current()
        assert scrape(port)


def test_gpus_are_those_that_nvidia_smi_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, 40, 1024, 81559'\necho '1, [N/A], 2, 81559'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    registry = CollectorRegistry()
    Metrics("toy", registry)
    assert registry.get_sample_value("wavecity_gpu_utilization_ratio", {"gpu": "0"}) == pytest.approx(0.4)
    assert registry.get_sample_value("wavecity_gpu_utilization_ratio", {"gpu": "1"}) is None
    assert registry.get_sample_value("wavecity_gpu_memory_used_bytes", {"gpu": "1"}) == 2 * 1024**2
    program.write_text("#!/bin/sh\necho 'no devices were found'\nexit 6\n")
    assert list(Gpus().collect()) == []


def test_the_dashboard_and_the_docs_know_every_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no other one: what a panel asks for is served."""
    registry = CollectorRegistry()
    Metrics("toy", registry)
    ours = {family.name for family in registry.collect() if family.name.startswith("wavecity_")}
    ours |= {name for name, *_ in metrics.GPU}
    dashboard = json.loads((ROOT / "docker" / "grafana" / "wavecity.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    shown = {re.sub(r"_(total|sum|count)$", "", name) for name in re.findall(r"wavecity_[a-z_]+", asked)}
    assert shown - {"wavecity_gpu_memory"} <= ours | {"wavecity_gpu_memory_total_bytes"}
    page = (ROOT / "docs" / "operations" / "metrics.md").read_text()
    assert {name for name in ours if name not in page} == set()


@pytest.mark.system
def test_a_running_build_is_scraped(tmp_path: Path, port: int) -> None:
    store, log, environment = tmp_path / "store", tmp_path / "log", {**os.environ, "PREFECT_HOME": str(tmp_path)}
    command = [PROGRAM, "build", "quickstart", "--out", store, "--workers", "1", *SET, "--set", "store.unit=1"]
    found: dict[tuple[str, Labels], float] = {}
    with process(command, log, environment) as build:

        def ended() -> bool:
            with suppress(OSError):  # not yet, or no longer
                found.update(scrape(port))
            return build.poll() is not None

        wait_until(ended, 240, log.read_text)
    assert build.returncode == 0, log.read_text()
    version = latest(store)
    assert version is not None
    receipts = load_draft(version.folder).receipts()
    done = found["wavecity_scenes_total", (("origin", "traced"), ("status", "done"))]
    # The last answer came before the end of the run: after the last unit the card is made and every byte is checked.
    assert done == sum(len(receipt["scenes"]) for receipt in receipts) == 4
    assert found["wavecity_units", (("state", "left"),)] == 0
    assert found["wavecity_written_bytes_total", ()] == sum(sum(receipt["sizes"].values()) for receipt in receipts)
    traced = sum(scene["seconds_raytrace"] for receipt in receipts for scene in receipt["scenes"])
    assert found["wavecity_work_seconds_sum", (("stage", "raytrace"),)] == pytest.approx(traced)
    assert found["wavecity_workers", ()] == 1
    assert ("wavecity_stage_seconds", (("stage", "build 2/4: trace"),)) in found
