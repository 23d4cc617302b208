"""What of a build runs on the Dask cluster: cities to plan, units to trace, versions to check; each unit a Prefect task."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from distributed import Client
from distributed.client import FutureCancelledError
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import as_completed
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner

from wavecity.dataset.checks.validate import Each
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import outage
from wavecity.dataset.lock import Lock
from wavecity.dataset.progress import stage
from wavecity.dataset.records import Receipt
from wavecity.flows import artifacts, planning
from wavecity.flows.build_log import BuildLog
from wavecity.flows.cluster import compute, result_of
from wavecity.flows.partial import Others
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Reuse
from wavecity.flows.units import Job, jobs_of, run_unit, sources_of
from wavecity.geo.cities import City, cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.sources import Source

Item = TypeVar("Item")
Result = TypeVar("Result")

# One thread per unit in flight: it only waits for Dask. To mypy no thread pool is a runner as `flow` declares it.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)

# Message of a unit that was under way when its run ended.
ENDED = "the run ended before this unit did"

# As `run_unit`: writes a unit and gives its receipt.
RunUnit = Callable[..., Receipt]


def _can_pass(task: Task[..., object], run: TaskRun, state: State[object]) -> bool:
    """Retry after a broken connection, of the store as well; never after bad geometry or wrong input.

    Nor after killed workers: Dask has tried the unit on several.
    """
    try:
        state.result()
    except (ConnectionError, TimeoutError):
        return True
    except Exception as error:
        return bool(outage(error))
    return False


@task(
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_can_pass,
    task_run_name="unit-{unit}",
    cache_policy=NO_CACHE,
)
def build_unit(
    client: Client,
    draft: Draft,
    unit: int,
    jobs: list[Job],
    sources: dict[str, Source],
    recipe: Recipe,
    run_unit: RunUnit,
) -> Receipt | State[Receipt]:
    """Hand one unit to Dask and wait for its receipt; `Cancelled` if the run ends meanwhile."""
    try:
        future = client.submit(run_unit, draft, unit, jobs, sources, recipe, pure=False)
        try:
            return cast(Receipt, result_of(client, future, f"unit {unit}"))
        finally:
            future.release()
    except Exception as error:
        # A client that is closed, at whichever moment, fails in many ways: it sends nothing, and knows of no workers.
        if client.status in ("closing", "closed"):
            return Cancelled(message=ENDED)
        if not isinstance(error, FutureCancelledError):
            raise
        if error.reason == "scheduler-connection-lost":
            msg = "--dask: the scheduler is gone; start one, with its workers, and run the same command to go on"
            raise InputError(msg) from error
        return Cancelled(message=ENDED)


# Never from Prefect's cache: plans have their own, by city.
plan_scenes = task(name="plan", cache_policy=NO_CACHE)(planning.plan_scenes)


def plan_on_cluster(
    recipe: Recipe, maps: Path, workers: int | None, dask: str | None, others: Others | None = None
) -> Plan:
    """Plan all cities but those that are kept, several at once on the cluster."""
    named = [city for city in cities_of(recipe.area) if not others or city.name not in others.plans]
    if len(named) == 1:
        return plan_scenes(recipe, maps, others=others)
    with compute(workers, dask) as client:
        # So many that none waits while one of them takes long, so few that a silent server is not asked for all its cities.
        ahead = 4 * max(len(client.scheduler_info()["workers"]), 1)
        wanted = sum(city.scenes > 0 for city in named)

        def each(job: Callable[[City], CityPlan], cities: Iterable[City]) -> Iterator[CityPlan]:
            futures: deque[Any] = deque()
            with stage("plan", wanted, "cities") as bar:
                for city in cities:
                    futures.append(client.submit(job, city, pure=False))
                    if len(futures) >= ahead:
                        yield futures.popleft().result()
                        bar.advance()
                while futures:
                    yield futures.popleft().result()
                    bar.advance()

        return plan_scenes(recipe, maps, each, others)


def run_units(
    client: Client,
    draft: Draft,
    missing: list[int],
    plan: Plan,
    reuse: Reuse,
    recipe: Recipe,
    lock: Lock,
    run_unit: RunUnit = run_unit,
    log: BuildLog | None = None,
) -> None:
    """Run all missing units on the cluster, one Prefect task each, and wait for them."""
    futures = {}
    progress = artifacts.Progress(draft.layout.units, draft.layout.units - len(missing), recipe.name)
    scenes = sum(len(draft.layout.scenes_of(unit)) for unit in missing)
    with stage("build 2/4: trace", scenes, "scenes") as bar:
        if log is not None:
            log.workers(len(client.nthreads()))
        for unit in missing:
            jobs = jobs_of(draft, unit, plan, reuse)
            futures[build_unit.submit(client, draft, unit, jobs, sources_of(jobs, plan), recipe, run_unit)] = unit
        for future in as_completed(list(futures)):
            receipt = cast(Receipt, future.result())  # `Cancelled` raises
            lock.check()
            if log is not None:
                log.workers(len(client.nthreads()))
                log.unit(receipt)
            progress.advance(log.forecast() if log else "")
            bar.advance(len(draft.layout.scenes_of(futures[future])), log.left() if log else "")


def cluster_map(client: Client) -> Each:
    """`map` on the cluster: results in order, each released once it is used."""

    def each(job: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        futures = deque(client.map(job, list(items), pure=False))
        while futures:
            yield futures.popleft().result()

    return each
