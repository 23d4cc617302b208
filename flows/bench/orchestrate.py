"""`wavecity bench orchestrate`: what the whole orchestration costs per scene, with null scenes.

The sides take turns within every round, each with Dask workers of its own that have imported what a unit needs:

- ours: a flow with the pipeline's own steps, among them `run_units`: one Prefect task per unit, recorded by a server;
- dask_units: the same units handed to Dask by `client.submit`, without Prefect;
- dask_scenes: `client.submit` for every scene; nothing is written;
- prefect_map: `task.map`, one Prefect task per scene that hands it to Dask; nothing is written.

A null unit computes nothing; it writes small arrays and its receipt with the real writer, which counts as overhead. The
overhead of a run also includes starting the workers, comparing with the version before, making the draft and finishing
it (coordinates, ledger, card, manifest), but not planning, which reads maps, starting the server, or validation.

1. Rounds without sleeping: milliseconds per scene of every side, for handing out, running and collecting all scenes.
2. One worker and two, with scenes that sleep: scaling.
3. With `--seconds-per-scene`: one run of all scenes; its time beyond the sleeping is overhead.

Sleeping leaves the cores to the orchestration, ray tracing does not: `cpu_ms_per_scene` is the CPU time that it takes.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
from distributed import Client, Future, as_completed
from prefect import flow, task, unmapped
from prefect.runtime import flow_run

from wavecity.dataset.draft import Draft
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.progress import track
from wavecity.dataset.records import Outcome
from wavecity.flows import pipeline
from wavecity.flows.bench.measure import environment, median, print_figures, rotated, table_of
from wavecity.flows.bench.null import null_scene, null_unit, warm_up, wrong_units
from wavecity.flows.bench.prefect_server import client_of, post, postgresql, prefect_server
from wavecity.flows.cluster import compute
from wavecity.flows.console import console
from wavecity.flows.dispatch import RUNNER, run_units
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.units import Job, jobs_of
from wavecity.geo.cities import City
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.sources import open_source
from wavecity.geo.tiles import Tile

SIDES = ("ours", "dask_units", "dask_scenes", "prefect_map")
# As in the recipe of 10,000 scenes.
SCENES_OF_A_CITY = 46
# Duration of a scene to which overhead is projected if none sleeps, s.
REFERENCE_SECONDS = 0.5
# Sleep of a scene while scaling is measured, if `seconds_per_scene` is 0, s.
SCALING_SECONDS = 0.1
# The server records with a delay: without a new record for so long the rest counts as lost, s.
PATIENCE = 60
PACKAGES = ("prefect", "distributed", "zarr")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    scenes, unit : int
        Scenes, and how many a unit has.
    seconds_per_scene : float
        What a scene sleeps in the run of all of them; 0: there is no such run.
    workers : int
        Dask worker processes.
    rounds : int
    map_scenes : int
        Scenes of `task.map`, which is slow.
    scaling_scenes : int
        Scenes of the runs with one and with two workers.
    check_units : int
        Units of every run of ours whose arrays are read again and compared with their receipts.
    database : str
        The server's: `sqlite` or `postgresql`.
    """

    scenes: int = 10_000
    unit: int = 16
    seconds_per_scene: float = 0.0
    workers: int = 2
    rounds: int = 3
    map_scenes: int = 500
    scaling_scenes: int = 320
    check_units: int = 64
    database: str = "sqlite"


@dataclass(frozen=True)
class Case:
    """A recipe of null scenes, its plan, and the server's API."""

    recipe: Recipe
    plan: Plan
    api: str


@dataclass
class Run:
    """One side's run.

    Attributes
    ----------
    scenes : int
    units_seconds : float
        Handing out, running and collecting all scenes.
    cluster_seconds, draft_seconds, finish_seconds : float
        Start of the workers with their imports; reuse, draft and what is missing; `finish`.
    cpu_seconds : float
        Of this process, the server and the workers, from the first unit to the last record.
    record_seconds : float
        From the flow's end until the server had recorded everything.
    tasks, recorded : int
        Task runs, and those that the server has as completed.
    receipts : int
        Valid receipts.
    wrong : int
        Units whose arrays are not what their receipts say.
    """

    scenes: int
    units_seconds: float = 0.0
    cluster_seconds: float = 0.0
    draft_seconds: float = 0.0
    finish_seconds: float = 0.0
    cpu_seconds: float = 0.0
    record_seconds: float = 0.0
    tasks: int = 0
    recorded: int = 0
    receipts: int = 0
    wrong: int = 0
    flow_run: str = field(default="", repr=False)

    @property
    def ms_per_scene(self) -> float:
        """Milliseconds per scene."""
        return 1000 * self.units_seconds / self.scenes

    @property
    def total_seconds(self) -> float:
        """Workers' start, draft, units, finish."""
        return self.cluster_seconds + self.draft_seconds + self.units_seconds + self.finish_seconds


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        PostgreSQL is asked for and cannot be had.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wavecity-bench-")))
        start = time.perf_counter()
        database = stack.enter_context(postgresql()) if options.database == "postgresql" else None
        server = stack.enter_context(prefect_server(folder, database))
        server_seconds = time.perf_counter() - start
        stack.enter_context(client_of(server))

        def case_of(scenes: int) -> Case:
            return make_case(scenes, options.unit, folder / "maps", server["PREFECT_API_URL"])

        null, few = case_of(options.scenes), case_of(options.map_scenes)
        runs: dict[str, list[Run]] = {side: [] for side in SIDES}
        measure: dict[str, Callable[[Path], Run]] = {
            "ours": lambda store: run_ours(null, store, options.workers, 0.0, options.check_units),
            "dask_units": lambda store: run_dask_units(null, store, options.workers),
            "dask_scenes": lambda store: run_dask_scenes(null, store, options.workers),
            "prefect_map": lambda store: run_prefect_map(few, store, options.workers),
        }
        scaling = case_of(options.scaling_scenes)
        seconds = options.seconds_per_scene or SCALING_SECONDS
        scaled: dict[int, list[Run]] = {1: [], 2: []}
        for turn in track(range(options.rounds), "rounds", unit="rounds"):
            for side in rotated(SIDES, turn):
                with store_below(folder) as store:
                    runs[side].append(measure[side](store))
            for workers in rotated((1, 2), turn):
                with store_below(folder) as store:
                    scaled[workers].append(run_ours(scaling, store, workers, seconds, options.check_units))
        long = None
        if options.seconds_per_scene:
            with store_below(folder) as store:
                long = run_ours(null, store, options.workers, options.seconds_per_scene, options.check_units)
    figures = summary(runs, scaled, long, options)
    print_result(figures, options)
    return {
        **figures,
        "seconds_long_run": long.total_seconds if long else None,
        "seconds_server": server_seconds,
        **vars(options),
        "scaling_seconds_per_scene": seconds,
        "cores": os.cpu_count(),
        **environment(*PACKAGES),
    }


def make_case(scenes: int, unit: int, maps: Path, api: str) -> Case:
    """Null scenes in as many cities as a large recipe would have; every city has the map of Helsinki.

    Parameters
    ----------
    scenes, unit : int
    maps : Path
        Folder for the prepared map.
    api : str
        URL of the server's API.
    """
    settings = {
        "area.scenes": scenes, "area.tile_size": 50, "scene.resolution": 10, "users.minimum": 1, "users.maximum": 1,
        "radio.columns": 1, "radio.rows": 1, "features.spectrum": "false", "features.paths": "false", "store.unit": unit,
    }  # fmt: skip
    recipe = load_recipe("quickstart", tuple(f"{key}={value}" for key, value in settings.items()))
    source = open_source(recipe.area, maps)
    west, south, _, _ = source.bounds
    cities = []
    for number, start in enumerate(range(0, scenes, SCENES_OF_A_CITY)):
        count = min(SCENES_OF_A_CITY, scenes - start)
        city = City(f"Null {number}", "FI", recipe.area.source, None, None, recipe.area.radius, count)
        tiles = [
            Tile(f"null-{number}-{row:04d}", city.name, city.country, south, west + row / 1000, 50.0, "train")
            for row in range(count)
        ]
        cities.append(CityPlan(city, tiles, source))
    return Case(recipe, Plan(cities), api)


def run_ours(case: Case, store: Path, workers: int, seconds: float, check: int) -> Run:
    """Run the pipeline's steps from plan to sealed draft, with scenes that sleep `seconds`, and count the records."""

    @flow(name="bench-orchestrate", task_runner=RUNNER)
    def null_build() -> tuple[Run, Draft, dict[int, float]]:
        run = Run(len(case.plan.accepted), flow_run=str(flow_run.id))
        with builder_lock(store) as lock:
            start = time.perf_counter()
            reuse = reuse_of(case.recipe, case.plan, store)
            draft = draft_of(case.recipe, case.plan, store)
            missing = draft.missing()
            run.draft_seconds = time.perf_counter() - start
            with _workers(workers, run) as client:
                before, start = _cpu(), time.perf_counter()
                null = partial(null_unit, seconds=seconds)
                run_units(client, draft, missing, case.plan, reuse, case.recipe, lock, null)
                run.units_seconds = time.perf_counter() - start
                # Workers are gone later.
                after = _cpu()
                run.cpu_seconds = _spent(before, after)
                lock.check()
                start = time.perf_counter()
                pipeline.finish(draft, case.recipe, case.plan)
                run.finish_seconds = time.perf_counter() - start
            run.tasks = len(missing) + 1
        return run, draft, after

    run, draft, before = null_build()
    _await_records(case, run)
    run.cpu_seconds += _spent(before, _cpu())
    receipts = draft.all_receipts()
    run.receipts = len(receipts) - receipts.count(None)
    units = np.unique(np.linspace(0, draft.layout.units - 1, check).astype(int)).tolist() if check else []
    run.wrong = len(wrong_units(draft, units))
    return run


def run_dask_units(case: Case, store: Path, workers: int) -> Run:
    """The same units without Prefect; their arguments are prepared before the clock starts."""
    run = Run(len(case.plan.accepted))
    reuse = reuse_of(case.recipe, case.plan, store)
    draft = draft_of(case.recipe, case.plan, store)
    sources = case.plan.sources
    work = []
    for unit in range(draft.layout.units):
        jobs = jobs_of(draft, unit, case.plan, reuse)
        work.append((unit, jobs, {job.tile.city: sources[job.tile.city] for job in jobs}))
    with _workers(workers, run) as client:
        start = time.perf_counter()
        _collect([client.submit(null_unit, draft, *each, case.recipe, pure=False) for each in work])
        run.units_seconds = time.perf_counter() - start
    run.receipts = draft.layout.units - len(draft.missing())
    return run


def run_dask_scenes(case: Case, store: Path, workers: int) -> Run:
    """One Dask task per scene, without Prefect."""
    run, jobs = Run(len(case.plan.accepted)), _jobs(case, store)
    with _workers(workers, run) as client:
        start = time.perf_counter()
        _collect([client.submit(null_scene, job, 0.0, pure=False) for job in jobs])
        run.units_seconds = time.perf_counter() - start
    return run


def run_prefect_map(case: Case, store: Path, workers: int) -> Run:
    """One Prefect task per scene, in threads as ours."""

    @task(task_run_name="scene-{job.tile.id}")
    def build_scene(client: Client, job: Job) -> Outcome:
        future = client.submit(null_scene, job, 0.0, pure=False)
        try:
            outcome: Outcome = future.result()
        finally:
            future.release()
        return outcome

    @flow(name="bench-map", task_runner=RUNNER)
    def null_map() -> Run:
        run, jobs = Run(len(case.plan.accepted), flow_run=str(flow_run.id)), _jobs(case, store)
        with _workers(workers, run) as client:
            start = time.perf_counter()
            build_scene.map(unmapped(client), jobs).result()
            run.units_seconds = time.perf_counter() - start
        run.tasks = len(jobs)
        return run

    run = null_map()
    _await_records(case, run)
    return run


def _jobs(case: Case, store: Path) -> list[Job]:
    """Jobs of all accepted tiles, as a build makes them."""
    reuse = reuse_of(case.recipe, case.plan, store)
    return [Job(tile, reuse.inputs[tile.id], None, reuse.reasons[tile.id]) for tile in case.plan.accepted]


def _collect(futures: list[Future]) -> None:
    """Wait for all futures, and release each once it is done."""
    for future in as_completed(futures):
        future.result()
        future.release()


@contextmanager
def _workers(workers: int, run: Run) -> Iterator[Client]:
    """Workers as a build has them, with what a unit needs imported."""
    start = time.perf_counter()
    with compute(workers) as client:
        client.wait_for_workers(workers)
        client.run(warm_up)
        run.cluster_seconds = time.perf_counter() - start
        yield client


def _await_records(case: Case, run: Run) -> None:
    """Wait until the server has all task runs of a flow run, or has had no new one for `PATIENCE` seconds."""
    start = changed = time.perf_counter()
    completed = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    while run.recorded < run.tasks and time.perf_counter() - changed < PATIENCE:
        of_flow = {"flow_runs": {"id": {"any_": [run.flow_run]}}}
        count = post(f"{case.api}/task_runs/count", {**of_flow, **completed})
        if count != run.recorded:
            run.recorded, changed = count, time.perf_counter()
        time.sleep(0.2)
    run.record_seconds = time.perf_counter() - start


def _cpu() -> dict[int, float]:
    """CPU seconds so far of this process and all below it."""
    me = psutil.Process()
    times = {}
    for process in [me, *me.children(recursive=True)]:
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        times[process.pid] = spent.user + spent.system
    return times


def _spent(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU seconds between two calls of `_cpu`, over processes that exist at the second."""
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())


@contextmanager
def store_below(folder: Path) -> Iterator[Path]:
    """A folder for a store, emptied at the end: 10,000 null scenes are thousands of files."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="store-") as name:
        yield Path(name)


def summary(
    runs: dict[str, list[Run]], scaled: dict[int, list[Run]], long: Run | None, options: Options
) -> dict[str, float]:
    """Medians of the rounds, ratios of those, and counts over all runs.

    Parameters
    ----------
    runs : dict
        Side -> its null runs.
    scaled : dict
        Number of workers -> runs of ours with sleeping scenes.
    long : Run or None
        The run of all scenes with sleeping.
    options : Options
    """

    def over_rounds(of: list[Run], what: Callable[[Run], float]) -> float:
        return median(map(what, of))

    ours = runs["ours"]
    per_scene = {side: over_rounds(of, lambda run: run.ms_per_scene) for side, of in runs.items()}
    reference = options.seconds_per_scene or REFERENCE_SECONDS
    total = over_rounds(ours, lambda run: run.total_seconds)
    work = options.scenes * reference / options.workers
    cpu = over_rounds(ours, lambda run: 1000 * run.cpu_seconds / run.scenes)
    projected = total / (total + work)
    measured = (long.total_seconds - work) / long.total_seconds if long else None
    throughput = {
        workers: over_rounds(of, lambda run: run.scenes / run.units_seconds) for workers, of in scaled.items()
    }
    built = [*ours, *scaled[1], *scaled[2], *([long] if long else [])]
    recorded = [*built, *runs["prefect_map"]]
    written = [*built, *runs["dask_units"]]
    receipts = sum(run.receipts for run in written)
    return {
        "overhead_fraction": projected if measured is None else measured,
        "overhead_fraction_measured": measured is not None,
        "overhead_fraction_projected": projected,
        "overhead_fraction_cpu": cpu / (cpu + 1000 * reference),
        "scaling_2_workers": throughput[2] / throughput[1],
        "scenes_per_second_1_worker": throughput[1],
        "scenes_per_second_2_workers": throughput[2],
        **{f"ms_per_scene_{side}": value for side, value in per_scene.items()},
        **{f"ratio_{side}_to_ours": per_scene[side] / per_scene["ours"] for side in SIDES[1:]},
        "total_ms_per_scene": 1000 * total / options.scenes,
        "cpu_ms_per_scene": cpu,
        "seconds_cluster": over_rounds(ours, lambda run: run.cluster_seconds),
        "seconds_draft": over_rounds(ours, lambda run: run.draft_seconds),
        "seconds_units": over_rounds(ours, lambda run: run.units_seconds),
        "seconds_finish": over_rounds(ours, lambda run: run.finish_seconds),
        "seconds_record": over_rounds(ours, lambda run: run.record_seconds),
        "task_runs": sum(run.tasks for run in recorded),
        "task_runs_lost": sum(run.tasks - run.recorded for run in recorded),
        "receipts": receipts,
        "receipts_missing": sum(-(-run.scenes // options.unit) for run in written) - receipts,
        "units_wrong": sum(run.wrong for run in built),
    }


def print_result(result: dict[str, float], options: Options) -> None:
    """Print the table of sides and the summary."""
    table = table_of(("side",), ("scenes", "ms per scene", "it / ours"))
    for side in SIDES:
        scenes = options.map_scenes if side == "prefect_map" else options.scenes
        ratio = result.get(f"ratio_{side}_to_ours")
        table.add_row(side, str(scenes), f"{result[f'ms_per_scene_{side}']:.2f}", f"{ratio:.2f}x" if ratio else "")
    console.print(table)
    kind = "measured" if result["overhead_fraction_measured"] else f"projected to scenes of {REFERENCE_SECONDS:g} s"
    figures = {
        "overhead": f"{100 * result['overhead_fraction']:.2f} % of a run, {kind}; of the cores' time "
        f"{100 * result['overhead_fraction_cpu']:.2f} % ({result['cpu_ms_per_scene']:.2f} ms per scene)",
        "a null run": f"workers {result['seconds_cluster']:.1f} s, draft {result['seconds_draft']:.1f} s, units "
        f"{result['seconds_units']:.1f} s, finish {result['seconds_finish']:.1f} s; recorded "
        f"{result['seconds_record']:.1f} s later",
        "scaling": f"{result['scaling_2_workers']:.2f}x with 2 workers ({result['scenes_per_second_1_worker']:.1f} and "
        f"{result['scenes_per_second_2_workers']:.1f} scenes/s)",
        "there": f"{result['task_runs']} task runs, {result['task_runs_lost']} lost; {result['receipts']} receipts, "
        f"{result['receipts_missing']} missing; {result['units_wrong']} units wrong",
    }
    print_figures(figures)
