"""Metrics of a run for Prometheus; off unless the environment variable `WAVECITY_METRICS` says where to serve them.

    WAVECITY_METRICS=127.0.0.1:9464 wavecity build quickstart --out stores/helsinki
    curl http://127.0.0.1:9464/metrics

The process of a run serves its own figures for as long as it lives, counted from its start. What they are is in
`docs/operations/metrics.md`, and on the Grafana dashboard `docker/grafana/wavecity.json`.
"""

import functools
import inspect
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from wavecity.dataset import progress
from wavecity.dataset.progress import Stage
from wavecity.dataset.publish import Version
from wavecity.dataset.records import Receipt
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

VARIABLE = "WAVECITY_METRICS"
# What is asked of nvidia-smi, for every GPU: name of the metric, meaning, column, factor to the metric's unit.
GPU = (
    ("wavecity_gpu_utilization_ratio", "Share of the last sample period in which the GPU computed", "utilization.gpu", 0.01),
    ("wavecity_gpu_memory_used_bytes", "Memory of the GPU that is in use", "memory.used", 2.0**20),
    ("wavecity_gpu_memory_total_bytes", "Memory of the GPU", "memory.total", 2.0**20),
)  # fmt: skip

_current: "Metrics | None" = None


class Metrics:
    """Metrics of one run, in a registry of their own.

    Parameters
    ----------
    recipe : str
        Name of the recipe: a label of every metric but those of the machine.
    registry : CollectorRegistry
    """

    def __init__(self, recipe: str, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, ProcessCollector, Summary

        def labelled(kind: Any, name: str, meaning: str, *labels: str) -> Any:
            """A metric of this recipe; with further labels, the family of those that have them."""
            made = kind(f"wavecity_{name}", meaning, ("recipe", *labels), registry=registry)
            return functools.partial(made.labels, recipe) if labels else made.labels(recipe)

        ProcessCollector(registry=registry)
        if shutil.which("nvidia-smi"):
            registry.register(Gpus())
        self._scenes = labelled(Counter, "scenes", "Scenes of finished units", "status", "origin")
        self._users = labelled(Counter, "users", "Users of finished scenes")
        self._quarantined = labelled(Counter, "quarantined", "Quarantined scenes, by where they failed", "stage")
        self._bytes = labelled(Counter, "written_bytes", "Bytes of finished units on disk")
        self._work = labelled(Summary, "work_seconds", "Worker time of a scene, or of a unit's write", "stage")
        self._stage = labelled(Gauge, "stage_seconds", "Duration of a finished stage of the run", "stage")
        self._units = labelled(
            Gauge, "units", "Units of the build that are finished, and that are still to come", "state"
        )
        self._workers = labelled(Gauge, "workers", "Workers of the Dask cluster")
        self._left = labelled(Gauge, "left_seconds", "Time that the units to come will take at the present rate")
        self._version = labelled(Gauge, "version", "Number of the version that was published last")

    def started(self, units: int, missing: int) -> None:
        """What is left to do of a build."""
        self._units("done").set(units - missing)
        self._units("left").set(missing)

    def unit(self, receipt: Receipt, workers: int, left: float) -> None:
        """A finished unit; `left` is the time that the others will take, in seconds."""
        for scene in receipt["scenes"]:
            kept = scene.get("origin", "").startswith("kept")
            self._scenes(scene["status"], "kept" if kept else "traced").inc()
            self._users.inc(scene["n_users"])
            if scene["status"] == "quarantined":
                self._quarantined(scene["stage"]).inc()
            if "seconds_raytrace" in scene:
                self._work("scene").observe(scene["seconds_scene"])
                self._work("raytrace").observe(scene["seconds_raytrace"])
        self._work("write").observe(receipt["seconds_write"])
        self._bytes.inc(sum(receipt["sizes"].values()))
        self._units("done").inc()
        self._units("left").dec()
        self._workers.set(workers)
        self._left.set(left)

    def published(self, version: Version) -> None:
        """A version."""
        self._version.set(version.number)

    def stage(self, stage: Stage) -> None:
        """A stage that has ended, e.g. `build 2/4: trace`."""
        self._stage(stage.text).set(stage.seconds)


class Gpus:
    """Use of the GPUs of this machine at the time of a scrape, as nvidia-smi says."""

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """Ask nvidia-smi; nothing where it fails."""
        from prometheus_client.core import GaugeMetricFamily

        columns = ",".join(column for _, _, column, _ in GPU)
        command = ["nvidia-smi", f"--query-gpu=index,{columns}", "--format=csv,noheader,nounits"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return
        rows = [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]
        for column, (name, meaning, _, factor) in enumerate(GPU, 1):
            family = GaugeMetricFamily(name, meaning, labels=("gpu",))
            for row in rows:
                # `[N/A]` for what a GPU does not say, as one that is divided into instances.
                if row[column].replace(".", "").isdigit():
                    family.add_metric([row[0]], factor * float(row[column]))
            yield family


def current() -> Metrics | None:
    """The metrics that this process serves; None where it serves none."""
    return _current


def measured(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Have a flow with a parameter `recipe` serve metrics while it runs, if `WAVECITY_METRICS` says where."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        recipe = signature.bind(*args, **kwargs).arguments["recipe"]
        with served(recipe.name):
            return function(*args, **kwargs)

    return run


@contextmanager
def served(recipe: str) -> Iterator[None]:
    """Serve metrics while the block runs, if `WAVECITY_METRICS` says where and an outer block does not do so already.

    An address that is in use, as by another run on this machine, is a warning: the run goes on without metrics.

    Raises
    ------
    InputError
        It is no address, or `prometheus_client` is not installed.
    """
    global _current
    if not os.environ.get(VARIABLE) or _current is not None:
        yield
        return
    host, port = address_of(os.environ[VARIABLE])
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError as error:
        msg = f"{VARIABLE} is set, but prometheus_client is not installed: pip install 'wavecity[metrics]', or unset it"
        raise InputError(msg) from error
    registry = CollectorRegistry()
    metrics = Metrics(recipe, registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        _logger().warning("no metrics: %s=%s:%d: %s", VARIABLE, host, port, error)
        yield
        return
    _current = metrics
    progress.LISTENERS.append(metrics.stage)
    try:
        yield
    finally:
        progress.LISTENERS.remove(metrics.stage)
        _current = None
        server.shutdown()
        server.server_close()
        thread.join()


def _logger() -> "logging.Logger | logging.LoggerAdapter[Any]":
    """That of the run, or of this module outside a run."""
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(__name__)


def address_of(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; without a host only this machine is answered.

    Raises
    ------
    InputError
        It is neither.

    Examples
    --------
    >>> address_of("0.0.0.0:9464"), address_of("9464")
    (('0.0.0.0', 9464), ('127.0.0.1', 9464))
    """
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        msg = f"{VARIABLE}={text}: write HOST:PORT, or a port of this machine, e.g. 127.0.0.1:9464"
        raise InputError(msg)
    return host.strip("[]") or "127.0.0.1", int(port)
