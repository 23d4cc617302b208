"""No scene ends while kernels are recorded."""

import gc
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from processes import ROOT, finished
from raytrace_helpers import SOURCE, box, world_of

from wavecity.raytrace.diffuse import diffuse_paths
from wavecity.raytrace.path_solver import ChainPathSolver
from wavecity.raytrace.recording import Recording, recording
from wavecity.raytrace.scattering import scattered_paths
from wavecity.raytrace.solver import ChainSolver, line_of_sight
from wavecity.raytrace.stock import place_link, trace_link

USERS = np.array([[-3.0, 40.0, 1.5], [12.0, 35.0, 1.5]])
BLOCK = [(box(-20, 20, 30, 20, 10), 20.0)]
SOLVER = ChainSolver(max_depth=1, rays=500, diffraction=True, memory=8)
ISO = (0.0, 0.0, 0.0), "iso"
# What records kernels and evaluates them, by the name of the function.
CALLS: dict[str, Callable[[Any], object]] = {
    "__call__": lambda world: SOLVER(world, SOURCE, USERS),
    "chains": lambda world: SOLVER.chains(world, SOURCE),
    "trace": lambda world: SOLVER.trace(world, SOURCE, USERS),
    "line_of_sight": lambda world: line_of_sight(world, SOURCE, USERS),
    "diffuse_paths": lambda world: diffuse_paths(world, SOURCE, USERS, SOLVER, 500, *ISO),
    "scattered_paths": lambda world: scattered_paths(world, SOURCE, USERS, *ISO, 1, 8),
    "trace_link": lambda world: trace_link(world, max_depth=1, samples_per_src=500),
    "drop-in": lambda world: ChainPathSolver()(world.scene, max_depth=1, samples_per_src=500),
}


@pytest.fixture
def collections() -> Iterator[list[set[str]]]:
    """Functions of the ray tracer that were running when the collector ran: it is called as often as it can be."""
    before, running = gc.get_threshold(), []

    def note(phase: str, info: dict[str, int]) -> None:
        frame, names = sys._getframe(1), set()
        while frame is not None and phase == "start":
            if "/raytrace/" in frame.f_code.co_filename:
                names.add(frame.f_code.co_name)
            frame = frame.f_back
        if phase == "start":
            running.append(names)

    gc.callbacks.append(note)
    gc.set_threshold(1, 1_000_000, 1_000_000)
    yield running
    gc.set_threshold(*before)
    gc.callbacks.remove(note)


@pytest.mark.parametrize("name", CALLS)
def test_nothing_is_collected_while_kernels_are_recorded(name: str, collections: list[set[str]]) -> None:
    world = world_of(BLOCK)
    place_link(world, SOURCE, USERS)
    call = CALLS[name]
    assert collections
    collections.clear()
    call(world)
    function = "__call__" if name == "drop-in" else name
    assert [names for names in collections if function in names] == []
    assert gc.isenabled()


def test_blocks_in_blocks_and_after_errors() -> None:
    with recording, recording:
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), recording:
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_had_disabled_the_collector_finds_it_disabled() -> None:
    gc.disable()
    try:
        with recording:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_until_the_last_of_several_threads_is_done() -> None:
    shared, inside, leave = Recording(), threading.Event(), threading.Event()

    def other() -> None:
        with shared:
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with shared:
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join()
    assert gc.isenabled()


# Another scene is alive when Sionna's image method begins, and refers to itself alone when it goes on. The collector, which
# knows no other objects, is called as often as it can be.
ENDING = """
import gc
import numpy as np
from raytrace_helpers import SOURCE, box, world_of
from wavecity.raytrace import backend
backend.prepare(1)
from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.solver import ChainSolver

world = world_of([(box(-20, 20, 30, 20, 10), 20.0)])
gc.collect()
gc.freeze()
gc.collect()
another = [world_of([])]
another.append(another)
rest = sionna.ImageMethod._backtrack


def backtrack(*args, **options):
    global another
    another = None
    gc.set_threshold(1, 1, 1)
    {first}
    return rest(*args, **options)


sionna.ImageMethod._backtrack = backtrack
users = np.array([[-3.0, 40.0, 1.5], [12.0, 35.0, 1.5]])
print(len(ChainSolver(max_depth=1, rays=500, diffraction=True)(world, SOURCE, users)), "paths")
"""


@pytest.mark.system
@pytest.mark.parametrize("collected", [False, True])
def test_a_scene_that_ends_in_between(collected: bool) -> None:
    """It does not; and if it does, Dr.Jit ends the process: once it no longer does, `recording` is not needed."""
    script = ENDING.format(first="gc.collect()" if collected else "pass")
    ended = finished([sys.executable, "-c", f"import sys; sys.path[:0] = ['tests/raytrace']\n{script}"], cwd=ROOT)
    if collected:
        assert ended.returncode == -signal.SIGABRT
        assert "invalid redefinition of function" in ended.stdout + ended.stderr
    else:
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert int(ended.stdout.split()[0]) > 2
