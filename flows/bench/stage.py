"""Speed and memory of the whole stage, from mesh to `Channels`, in fresh worker processes."""

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier

from wavecity.dataset.progress import track
from wavecity.flows.bench.memory import peak_memory
from wavecity.flows.bench.scenes import SEED
from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate


@dataclass(frozen=True)
class Throughput:
    """Speed and memory of the whole stage in some worker processes.

    Attributes
    ----------
    users_per_second : float
    peak_mb, growth_mb : float
        Resident memory of the largest worker, and by how much it grew after its first scene.
    """

    users_per_second: float
    peak_mb: float
    growth_mb: float


def measure_stage(scenes: list[Scene], solver: SolverSettings, workers: int, threads: int) -> Throughput:
    """Time `simulate` over scenes in fresh processes, each after a first scene that is not counted.

    Parameters
    ----------
    scenes : list of Scene
    solver : SolverSettings
    workers : int
        Processes.
    threads : int
        Dr.Jit threads of each.

    Raises
    ------
    InputError
        A worker was killed.
    """
    context = multiprocessing.get_context("spawn")
    title = f"{workers} process{'es' if workers > 1 else ''} x {threads} thread{'s' if threads > 1 else ''}"
    peak: dict[int, float] = {}
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (threads, context.Barrier(workers))) as pool:
            warm = dict(pool.map(_warm_up, [scenes[0]] * workers, [solver] * workers))
            start = time.perf_counter()
            tasks = [pool.submit(_simulate, scene, solver) for scene in scenes]
            for task in track(as_completed(tasks), title, total=len(tasks), unit="scenes"):
                process, memory = task.result()
                peak[process] = max(memory, peak.get(process, 0.0))
            seconds = time.perf_counter() - start
    except BrokenProcessPool as error:
        msg = f"{title}: a worker was killed, most likely for lack of memory: lower --users, --rays or --depth"
        raise InputError(msg) from error
    return Throughput(
        users_per_second=sum(len(scene.users) for scene in scenes) / seconds,
        peak_mb=max(peak.values()),
        growth_mb=max(memory - warm[process] for process, memory in peak.items()),
    )


_barrier: Barrier | None = None


def _start_worker(threads: int, barrier: Barrier) -> None:
    """Prepare a worker; the barrier cannot be sent with a task."""
    global _barrier
    _barrier = barrier
    backend.prepare(threads)


def _warm_up(scene: Scene, solver: SolverSettings) -> tuple[int, float]:
    """Trace a worker's first scene, and wait until all have."""
    done = _simulate(scene, solver)
    # No worker takes a second scene before all have traced a first.
    assert _barrier is not None
    _barrier.wait()
    return done


def _simulate(scene: Scene, solver: SolverSettings) -> tuple[int, float]:
    """Trace a scene in a worker: its process and the most memory that it ever had, in MB."""
    simulate(scene, RadioSettings(), solver, SEED)
    return os.getpid(), peak_memory()
