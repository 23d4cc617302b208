"""kill -9 of any process of a build at any moment, then the same command: the undisturbed dataset, nothing done twice."""

import json
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import wavecity_process
from processes import Process, process
from servers import receipts

pytestmark = pytest.mark.system

SETTINGS = {
    "area.scenes": 8,
    "users.minimum": 60,
    "users.maximum": 70,
    "solver.rays": 100_000,
    "store.unit": 1,
}
BUILD = ["build", "quickstart", "--workers", "2", *(w for k, v in SETTINGS.items() for w in ("--set", f"{k}={v}"))]
# What a unit took, and when the version came to be.
TIMES = ("seconds_write", "seconds_scene", "seconds_raytrace")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, maps: Path) -> tuple[dict[str, Any], float]:
    """Content of the version that a build in peace makes, and how long it takes."""
    store = tmp_path_factory.mktemp("peace") / "store"
    start = time.monotonic()
    assert wavecity_process(*BUILD, "--out", store, "--maps", maps).returncode == 0
    return content(store), time.monotonic() - start


def content(store: Path) -> dict[str, Any]:
    folder = (store / "latest.zarr").resolve().parent
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if name.startswith("receipts/"):
            receipt = json.loads(path.read_bytes())
            for part in (receipt, *receipt["scenes"]):
                for key in TIMES:
                    part.pop(key, None)
            found[name] = receipt
        elif name not in ("published.json", "manifest.json", "validation.json"):
            # These three hold the time of publication, and sums over the receipts with their times.
            found[name] = path.read_bytes()
    return found


def start(store: Path, maps: Path) -> AbstractContextManager[Process]:
    command = [sys.executable, "-m", "wavecity.flows.cli", *BUILD, "--out", str(store), "--maps", str(maps)]
    return process(command, store.parent / f"{store.name}.log")


def family(process: Process) -> list[psutil.Process]:
    me = psutil.Process(process.pid)
    # One that ended by itself a moment ago, and that nobody has asked about yet, cannot be killed.
    return [me, *(child for child in me.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE)]


def role(command: str) -> str:
    names = {
        "uvicorn": "the server",
        "spawn_main": "a worker",
        "resource_tracker": "Python's tracker",
        "flows.watcher": "the watcher",
    }
    return next((name for word, name in names.items() if word in command), command)


def disturb(store: Path, maps: Path, moment: Callable[[Process], None], pick: Callable[[list[Any]], Any]) -> str:
    """Start a build, kill one of its processes at a moment, build again if that ended it. Returns whom it hit."""
    with start(store, maps) as build:
        moment(build)
        if build.poll() is not None:
            assert build.returncode == 0
            return "nobody, the build was over"
        everybody = family(build)
        victim = pick(everybody)
        kind = "the command" if victim.pid == build.pid else role(" ".join(victim.cmdline()))
        finished = receipts(store)
        victim.send_signal(signal.SIGKILL)
        build.wait()
        _, alive = psutil.wait_procs(everybody, timeout=60)
        assert not alive, f"left running after {kind} was killed: {[p.cmdline() for p in alive]}"
    if build.returncode != 0:
        again = wavecity_process(*BUILD, "--out", store, "--maps", maps)
        assert again.returncode == 0, again.stderr
    now = receipts(store)
    assert {name: now[name] for name in finished} == finished, "a finished unit was done again"
    return f"{kind}, {len(finished)} units done"


def check(store: Path, expected: dict[str, Any]) -> None:
    assert content(store) == expected
    assert not list(store.rglob("*.partial"))
    assert [path.name[:6] for path in (store / ".staging").iterdir()] == ["lease-"]


def after_units(store: Path, count: int) -> Callable[[Process], None]:
    def wait(process: Process) -> None:
        while len(receipts(store)) < count and process.poll() is None:
            time.sleep(0.01)

    return wait


@pytest.mark.parametrize(("units", "victim"), [(0, "main"), (3, "main"), (2, "worker")])
def test_killed_and_resumed_it_is_the_undisturbed_build(
    units: int, victim: str, tmp_path: Path, maps: Path, undisturbed: tuple[dict[str, Any], float]
) -> None:
    store = tmp_path / "store"

    def pick(everybody: list[Any]) -> Any:
        workers = [p for p in everybody if "spawn_main" in " ".join(p.cmdline())]
        return workers[0] if victim == "worker" else everybody[0]

    disturb(store, maps, after_units(store, units), pick)
    check(store, undisturbed[0])


@pytest.mark.heavy
def test_twenty_random_moments(
    tmp_path: Path, maps: Path, undisturbed: tuple[dict[str, Any], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Any process of the build: the command, a worker, the server that Prefect starts, Dask's and Python's helpers.

    Half of the moments by the clock, half of them among the units, which take a small part of so small a build.
    """
    expected, duration = undisturbed
    choice = random.Random(1)
    for trial in range(20):
        store = tmp_path / f"store-{trial}"
        if trial % 2:
            units = choice.randrange(SETTINGS["area.scenes"])
            moment, when = after_units(store, units), f"after {units} units"
        else:
            seconds = choice.uniform(0.1, 0.95) * duration
            moment, when = (lambda _, seconds=seconds: time.sleep(seconds)), f"after {seconds:.1f} of {duration:.1f} s"
        hit = disturb(store, maps, moment, choice.choice)
        check(store, expected)
        with capsys.disabled():
            print(f"{trial + 1}: {when}: {hit}")


def test_a_second_build_in_the_same_store_is_refused_and_harms_nothing(
    tmp_path: Path, maps: Path, undisturbed: tuple[dict[str, Any], float]
) -> None:
    store = tmp_path / "store"
    with start(store, maps) as first:
        after_units(store, 1)(first)
        first.send_signal(signal.SIGSTOP)  # or it might be done before the second one has begun
        second = wavecity_process(*BUILD, "--out", store, "--maps", maps)
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
    assert second.returncode == 2
    assert f"process {first.pid} on" in second.stderr
    assert "Traceback" not in second.stderr
    check(store, undisturbed[0])
