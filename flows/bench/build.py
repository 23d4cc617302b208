"""`wavecity bench build`: scenes per second of the real build, and its overhead over building and tracing the scenes.

Real scenes of the packaged map of Helsinki, which is listed under several names where more are wanted than it has. The
sides take turns within every round, each in fresh processes:

- bare: `build_scene`, `simulate`, `csi` and `scene_arrays` on every tile, in one process; nothing is written;
- 2_bare: the same in two processes, each taking the next unit when it is free: the most that this machine's cores give;
- 1_worker, 2_workers: the pipeline's own steps in a flow, recorded by a Prefect server: draft, units on Dask workers
  (the same functions, checksums, shards, receipts), finish, validation, publication.

What is compared is the units phase, warm: before it every process does the first unit's scenes, which imports the ray
tracer and compiles its kernels. Those, starting the workers, planning and what comes after the units are reported
separately and included in `scenes_per_second_total`. That the sides did the same work is checked by the channels' checksums.
"""

import math
import multiprocessing
import os
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from distributed import Client
from prefect import flow

from wavecity.dataset.features import channel_checksum, scene_arrays
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.progress import track
from wavecity.flows import pipeline
from wavecity.flows.bench.measure import environment, median, print_figures, rotated, table_of
from wavecity.flows.bench.orchestrate import store_below
from wavecity.flows.bench.prefect_server import client_of, prefect_server
from wavecity.flows.cluster import compute
from wavecity.flows.console import console
from wavecity.flows.dispatch import RUNNER, cluster_map, run_units
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.reuse import Arrays
from wavecity.flows.units import jobs_of, run_unit
from wavecity.geo.build import build_scene
from wavecity.geo.errors import SceneError
from wavecity.geo.plan import Plan
from wavecity.geo.sources import Source
from wavecity.geo.tiles import Tile

# Of the 19 that the map of Helsinki gives.
SCENES_OF_A_CITY = 16
WORKERS = {"1_worker": 1, "2_workers": 2}
BARE = {"bare": 1, "2_bare": 2}
SIDES = (*BARE, *WORKERS)
PACKAGES = ("prefect", "distributed", "zarr", "sionna-rt", "drjit", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    scenes, unit : int
        Scenes, and how many a unit has.
    rounds : int
    overrides : tuple of str
        Changes of the recipe, which is otherwise `pretrain-10k` on the map of Helsinki.
    """

    scenes: int = 64
    unit: int = 4
    rounds: int = 3
    overrides: tuple[str, ...] = ()


@dataclass
class Run:
    """One side's run.

    Attributes
    ----------
    checksums : dict
        Scene id -> checksum of its channels; scenes that could not be made are not in it.
    units_seconds : float
        All scenes, warm.
    start_seconds, warm_seconds : float
        Start of the workers; the first unit on each of them.
    finish_seconds, publish_seconds : float
        `finish`; validation and publication.
    receipts : int
        Valid receipts.
    """

    checksums: dict[str, str] = field(default_factory=dict)
    units_seconds: float = 0.0
    start_seconds: float = 0.0
    warm_seconds: float = 0.0
    finish_seconds: float = 0.0
    publish_seconds: float = 0.0
    receipts: int = 0

    @property
    def total_seconds(self) -> float:
        """From the start of the workers to the published version, the warm-up included."""
        build = self.start_seconds + self.warm_seconds + self.units_seconds
        return build + self.finish_seconds + self.publish_seconds


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        An override is wrong, or no tile is usable.
    """
    recipe = recipe_of(options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wavecity-bench-")))
        start = time.perf_counter()
        plan = plan_scenes(recipe, folder / "maps")
        plan_seconds = time.perf_counter() - start
        stack.enter_context(client_of(stack.enter_context(prefect_server(folder))))
        runs: dict[str, list[Run]] = {side: [] for side in SIDES}
        for turn in track(range(options.rounds), "rounds", unit="rounds"):
            for side in rotated(SIDES, turn):
                with store_below(folder) as store:
                    measured = (
                        run_bare(recipe, plan, BARE[side])
                        if side in BARE
                        else run_build(recipe, plan, store, WORKERS[side])
                    )
                runs[side].append(measured)
    figures = {**summary(runs, plan_seconds), "scenes": len(plan.accepted)}
    print_result(figures)
    return {
        **figures,
        "unit": options.unit,
        "units": -(-len(plan.accepted) // options.unit),
        "rounds": options.rounds,
        "rays": recipe.solver.rays,
        "depth": recipe.solver.max_depth,
        "users_minimum": recipe.users.minimum,
        "users_maximum": recipe.users.maximum,
        "changes": " ".join(options.overrides),
        "cores": os.cpu_count(),
        **environment(*PACKAGES),
    }


def recipe_of(options: Options) -> Recipe:
    """The paper's scenes, on the map of Helsinki under as many names as they need."""
    names = [
        f"{{name: Helsinki {number + 1}, country: FI}}"
        for number in range(math.ceil(options.scenes / SCENES_OF_A_CITY))
    ]
    ours = ("area.source=helsinki", f"area.cities=[{', '.join(names)}]", "area.split.by=scene",
            f"area.scenes={options.scenes}", f"store.unit={options.unit}")  # fmt: skip
    return load_recipe("pretrain-10k", (*ours, *options.overrides))


def run_bare(recipe: Recipe, plan: Plan, processes: int) -> Run:
    """The bare functions, in fresh processes."""
    size = recipe.store.unit
    units = [plan.accepted[first : first + size] for first in range(0, len(plan.accepted), size)]
    trace, run = partial(_trace_unit, sources=plan.sources, recipe=recipe), Run()
    spawn = multiprocessing.get_context("spawn")
    # Initialised as a worker of the build.
    with spawn.Manager() as manager, ProcessPoolExecutor(processes, spawn, _one_thread) as pool:
        start = time.perf_counter()
        together = partial(trace, barrier=manager.Barrier(processes))
        list(pool.map(together, units[:1] * processes))
        run.warm_seconds = time.perf_counter() - start
        start = time.perf_counter()
        for checksums in track(pool.map(trace, units), "bare", total=len(units), unit="units"):
            run.checksums |= checksums
        run.units_seconds = time.perf_counter() - start
    return run


def _one_thread() -> None:
    """Prepare a process as a worker of the build."""
    from wavecity.raytrace import backend

    backend.prepare(threads=1)


def _trace_unit(
    tiles: list[Tile], sources: dict[str, Source], recipe: Recipe, barrier: threading.Barrier | None = None
) -> dict[str, str]:
    """Checksums of a unit's scenes by id; with a barrier, every process waits there for the others."""
    if barrier is not None:
        barrier.wait()
    traced = {tile.id: _trace(tile, sources[tile.city], recipe) for tile in tiles}
    return {name: channel_checksum(arrays) for name, arrays in traced.items() if arrays is not None}


def _trace(tile: Tile, source: Source, recipe: Recipe) -> Arrays | None:
    """The arrays of a scene, or None if it cannot be made."""
    from wavecity.raytrace.channels import csi
    from wavecity.raytrace.simulate import simulate

    try:
        scene = build_scene(tile, source, recipe.scene, recipe.users, recipe.seed)
    except SceneError:
        return None
    channels = simulate(scene, recipe.radio, recipe.solver, recipe.seed)
    return scene_arrays(scene, channels, csi(channels, recipe.radio))


def run_build(recipe: Recipe, plan: Plan, store: Path, workers: int) -> Run:
    """The pipeline's steps from the plan to the published version."""

    @flow(name="bench-build", task_runner=RUNNER)
    def real_build() -> Run:
        run = Run()
        with builder_lock(store) as lock:
            reuse = reuse_of(recipe, plan, store)
            draft = draft_of(recipe, plan, store)
            start = time.perf_counter()
            with compute(workers) as client:
                client.wait_for_workers(workers)
                started = time.perf_counter()
                warm_up(client, recipe, plan, store)
                warm = time.perf_counter()
                run_units(client, draft, draft.missing(), plan, reuse, recipe, lock)
                built = time.perf_counter()
                lock.check()
                pipeline.finish(draft, recipe, plan)
                finished = time.perf_counter()
                # Published, it lies elsewhere.
                receipts = draft.receipts()
                each = cluster_map(client)
                pipeline.check_and_publish(draft, recipe, store, each=each)
                published = time.perf_counter()
        run.start_seconds, run.warm_seconds, run.units_seconds = started - start, warm - started, built - warm
        run.finish_seconds, run.publish_seconds = finished - built, published - finished
        run.receipts = len(receipts)
        scenes = [scene for receipt in receipts for scene in receipt["scenes"]]
        run.checksums = {scene["scene_id"]: scene["channel_checksum"] for scene in scenes if scene["status"] == "done"}
        return run

    return real_build()


def warm_up(client: Client, recipe: Recipe, plan: Plan, store: Path) -> None:
    """Have every worker do the first unit, in a store of its own."""
    futures = []
    for number, worker in enumerate(client.scheduler_info()["workers"]):
        own = store / f"warm-{number}"
        draft = draft_of(recipe, plan, own)
        jobs = jobs_of(draft, 0, plan, reuse_of(recipe, plan, own))
        futures.append(client.submit(run_unit, draft, 0, jobs, plan.sources, recipe, pure=False, workers=[worker]))
    for future in futures:
        future.result()


def summary(runs: dict[str, list[Run]], plan_seconds: float) -> dict[str, float]:
    """Medians of the rounds, ratios of those, and counts over all runs.

    Parameters
    ----------
    runs : dict
        Side -> its runs.
    plan_seconds : float
        Planning, once.
    """

    def over_rounds(side: str, name: str) -> float:
        return median(getattr(each, name) for each in runs[side])

    units = {side: over_rounds(side, "units_seconds") for side in SIDES}
    first = runs["bare"][0].checksums
    every = [each for of in runs.values() for each in of]
    total = plan_seconds + over_rounds("2_workers", "total_seconds")
    ids = {scene for each in every for scene in each.checksums}
    return {
        "scenes_per_second": len(first) / units["2_workers"],
        "overhead_over_raytrace": units["1_worker"] / units["bare"],
        "scaling_2_workers": units["1_worker"] / units["2_workers"],
        "scaling_2_bare": units["bare"] / units["2_bare"],
        **{f"scenes_per_second_{side}": len(first) / seconds for side, seconds in units.items()},
        "scenes_per_second_total": len(first) / total,
        "seconds_plan": plan_seconds,
        **{f"seconds_units_{side}": seconds for side, seconds in units.items()},
        **{
            f"seconds_{part}": over_rounds("2_workers", f"{part}_seconds")
            for part in ("start", "warm", "finish", "publish")
        },
        "seconds_total": total,
        "scenes_done": len(first),
        # Scenes that not all runs made, or not with the same channels.
        "scenes_differing": sum(len({each.checksums.get(scene) for each in every}) > 1 for scene in ids),
        "receipts": sum(each.receipts for each in every),
    }


def print_result(result: dict[str, float]) -> None:
    """Print the table of sides and the summary."""
    table = table_of(("side",), ("seconds", "scenes/s"))
    for side in SIDES:
        table.add_row(side, f"{result[f'seconds_units_{side}']:.1f}", f"{result[f'scenes_per_second_{side}']:.2f}")
    console.print(table)
    figures = {
        "overhead": f"the build with one worker takes {result['overhead_over_raytrace']:.3f}x the bare functions' time",
        "scaling": f"{result['scaling_2_workers']:.2f}x with 2 workers, {result['scaling_2_bare']:.2f}x with 2 bare processes",
        "total": f"{result['scenes_per_second_total']:.2f} scenes/s with plan {result['seconds_plan']:.1f} s, workers "
        f"{result['seconds_start']:.1f} s, warm-up {result['seconds_warm']:.1f} s, finish "
        f"{result['seconds_finish']:.1f} s, validation and publication {result['seconds_publish']:.1f} s",
        "scenes": f"{result['scenes_done']} of {result['scenes']} done, {result['scenes_differing']} differ between sides",
    }
    print_figures(figures)
