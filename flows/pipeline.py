"""The whole system, top to bottom: recipe -> plan -> units -> validated, published version -> checkpoint -> report.

Prefect wraps the plain functions of `flows.build` and `model`: it shows, schedules and retries; what is done is decided
by receipts and fingerprints, so a second run recomputes nothing.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from distributed import KilledWorker
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from tqdm import tqdm

from dataset.files import StorePath, location, make_folder, write_json
from dataset.lock import Lock, builder_lock
from dataset.publish import Version
from dataset.validate import Each
from dataset.writer import Draft
from flows import build
from flows.cluster import compute
from flows.recipe import Recipe
from geo.cities import City, cities_of
from geo.plan import CityPlan, Plan

# One thread a unit in flight: it only waits for Dask.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)

TASKS = ("reconstruction", "localization", "beams")


def _can_pass(task: Any, run: Any, state: Any) -> bool:
    """Retry what can pass, a killed worker or a broken connection; never bad geometry or wrong input."""
    try:
        state.result()
    except (KilledWorker, ConnectionError, TimeoutError):
        return True
    except Exception:
        return False
    return False


@task(retries=2, retry_delay_seconds=5, retry_condition_fn=_can_pass, task_run_name="unit-{unit}")
def build_unit(client: Any, draft: Draft, unit: int, jobs: list[Any], sources: Any, recipe: Recipe) -> dict[str, Any]:
    """Hand one unit to Dask and wait for its receipt."""
    future = client.submit(build.run_unit, draft, unit, jobs, sources, recipe, pure=False)
    try:
        return future.result()
    finally:
        future.release()


plan_scenes = task(name="plan", cache_policy=NO_CACHE)(build.plan_scenes)
finish = task(name="finish")(build.finish)
check_and_publish = task(name="validate-and-publish")(build.check_and_publish)


@flow(name="build-dataset", task_runner=RUNNER)
def build_dataset(
    recipe: Recipe, store: str, workers: int | None = None, dask: str | None = None, maps: Path | None = None
) -> Version:
    """Maps -> published dataset version; whatever is already there is kept.

    Parameters
    ----------
    recipe : Recipe
    store : str
        Folder, or URL on object storage (`s3://bucket/store`; credentials from the environment).
    workers, dask
        Local worker processes, or the address of a Dask scheduler.
    maps : Path, optional
        Folder of fetched and converted maps, which several stores may share; by default `store/maps`, or for a store
        on object storage the user's cache folder.
    """
    logger = get_run_logger()
    place = location(store)
    make_folder(place)
    plan = _plan(recipe, maps or _map_folder(place), workers, dask)
    for city in plan.short:
        logger.warning(
            "%s: %d of %d scenes%s",
            city.city.name,
            city.found,
            city.city.scenes,
            f": {city.problem}" * bool(city.problem),
        )
    version = build.published(recipe, plan, place)
    if version:
        logger.info("version v%d is up to date, nothing to do", version.number)
        return version
    with builder_lock(place) as lock:
        reuse = build.reuse_of(recipe, plan, place)
        draft = build.draft_of(recipe, plan, place)
        missing = draft.missing()
        logger.info("%d scenes, %d of %d units to build", len(plan.accepted), len(missing), draft.layout.units)
        with compute(workers, dask) as client:
            if missing:
                _run_units(client, draft, missing, plan, reuse, recipe, lock)
            lock.check()
            finish(draft, recipe, plan)
            return check_and_publish(draft, recipe, place, _bar, _on_cluster(client))


def _bar(units: Any) -> Any:
    return tqdm(units, "validate", unit="unit")


def _on_cluster(client: Any) -> Each:
    """`map` on the cluster: results in order, each released as soon as it was taken."""

    def each(job: Any, items: Iterable[Any]) -> Iterator[Any]:
        futures = deque(client.map(job, list(items), pure=False))
        while futures:
            yield futures.popleft().result()

    return each


def _map_folder(store: StorePath) -> Path:
    if isinstance(store, Path):
        return store / "maps"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavecity" / "maps"


def _plan(recipe: Recipe, maps: Path, workers: int | None, dask: str | None) -> Plan:
    """Plan all cities, several at once on the cluster."""
    if len(cities_of(recipe.area)) == 1:
        return plan_scenes(recipe, maps)
    with compute(workers, dask) as client:

        def each(job: Any, cities: list[City]) -> list[CityPlan]:
            futures = client.map(job, cities, pure=False)
            return [future.result() for future in tqdm(futures, desc="cities", unit="city")]

        return plan_scenes(recipe, maps, each)


def _run_units(
    client: Any, draft: Draft, missing: list[int], plan: Plan, reuse: Any, recipe: Recipe, lock: Lock
) -> None:
    futures: list[PrefectFuture[Any]] = []
    with tqdm(total=sum(len(draft.layout.scenes_of(unit)) for unit in missing), desc="scenes", unit="scene") as bar:
        for unit in missing:
            jobs = build.jobs_of(draft, unit, plan, reuse)
            sources = {job.tile.city: plan.sources[job.tile.city] for job in jobs}
            future = build_unit.submit(client, draft, unit, jobs, sources, recipe)
            futures.append(future)
        # In the order of submission: the bar moves when the oldest unfinished unit is done.
        for unit, future in zip(missing, futures, strict=True):
            future.result()
            lock.check()
            bar.update(len(draft.layout.scenes_of(unit)))


@task(name="pretrain")
def pretrain(recipe: Recipe, store: StorePath, out: Path) -> Path:
    """Dataset version -> checkpoint; a finished training is not repeated."""
    from model.pretrain import pretrain as train

    return train(str(store), recipe.training, out, recipe.seed)


@task(name="evaluate", task_run_name="evaluate-{name}")
def evaluate(run: Path, store: StorePath, name: Any, recipe: Recipe) -> dict[str, Any]:
    """One downstream task of a pretrained model, beside its baselines."""
    from model.tasks import evaluate as run_task

    return run_task(run, str(store), name, recipe.training, recipe.seed)


@task(name="report")
def report(run: Path, store: StorePath) -> Path:
    """Run folder -> one self-contained HTML page."""
    from model.report import write_report

    return write_report(run, str(store))


@flow(name="wavecity")
def run_recipe(
    recipe: Recipe, out: Path, workers: int | None = None, dask: str | None = None, maps: Path | None = None
) -> dict[str, str]:
    """The main job: map -> dataset -> model -> report.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        Run folder; the store is `out/store`.
    workers, dask, maps
        As for `build_dataset`.

    Returns
    -------
    dict
        Paths of the `report`, the `store` and the `run`.
    """
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    version = build_dataset(recipe, str(out / "store"), workers, dask, maps)
    pretrain(recipe, version.data, out)
    for name in TASKS:
        evaluate(out, version.data, name, recipe)
    page = report(out, version.data)
    return {"report": str(page), "store": str(out / "store"), "run": str(out)}
