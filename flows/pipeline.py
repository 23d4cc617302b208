"""The whole system, top to bottom: recipe -> plan -> units -> validated, published version -> checkpoint -> report.

Prefect wraps the plain functions of `wavecity.flows.build` and `model`: it shows, schedules and retries. Receipts and
fingerprints decide what is done, so a second run recomputes nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from distributed import Client
from distributed.client import FutureCancelledError
from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import emit_event
from prefect.futures import as_completed
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from wavecity.dataset.checks.validate import Each
from wavecity.dataset.draft import Draft, load_draft
from wavecity.dataset.files import StorePath, location, make_folder, outage, read_json, remove_folder, write_json
from wavecity.dataset.lock import Lock
from wavecity.dataset.progress import say, stage, track
from wavecity.dataset.publish import Version, latest, make_latest, pointed_at
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import Receipt
from wavecity.flows import artifacts, build, finished, gates
from wavecity.flows.build_log import BuildLog
from wavecity.flows.cluster import compute, result_of
from wavecity.flows.gates import GateName
from wavecity.flows.guard import end_with_worker
from wavecity.flows.maps import map_folder, share_maps
from wavecity.flows.metrics import measured
from wavecity.flows.partial import Others, named_cities, others_of
from wavecity.flows.recipe import Recipe, recipe_of_run
from wavecity.flows.reuse import Reuse
from wavecity.flows.run_checks import refuse_other_run, refuse_unfit_model, tasks_of, warnings_of
from wavecity.flows.run_log import shorten_errors
from wavecity.flows.splits import refuse_untrainable, warning_of
from wavecity.flows.turns import WhenBusy, await_turn, cancelled_if_busy, turn
from wavecity.geo.cities import City, cities_of
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.plan import CityPlan, Plan, Servers
from wavecity.geo.settings import Settings
from wavecity.geo.sources import Source, refresh_city
from wavecity.model.data.feasible import NotPossible, sizes_of
from wavecity.model.settings.tasks import TaskName

Item = TypeVar("Item")
Result = TypeVar("Result")

# Before anything else of a deployed run, whose process Prefect starts with nothing but this module.
shorten_errors()
end_with_worker()

# One thread per unit in flight: it only waits for Dask. To mypy no thread pool is a runner as `flow` declares it.
RUNNER: Any = ThreadPoolTaskRunner(max_workers=32)

# Message of a unit that was under way when its run ended.
ENDED = "the run ended before this unit did"

# As `build.run_unit`: writes a unit and gives its receipt.
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
    jobs: list[build.Job],
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


# Receipts and fingerprints decide what is done, never Prefect's cache; clients and locks cannot be hashed for its key.
plan_scenes = task(name="plan", cache_policy=NO_CACHE)(build.plan_scenes)
finish = task(name="finish", cache_policy=NO_CACHE)(build.finish)
measure_gates = task(name="gates", cache_policy=NO_CACHE)(gates.measure)
check_and_publish = task(name="validate-and-publish", cache_policy=NO_CACHE)(build.check_and_publish)


class Published(Settings):
    """A published version, as the event hands it to training."""

    store: str = Field(description="Store: folder or URL, as the builder names it.")
    version: str = Field(description="Its version, e.g. v3.")
    data: str = Field(description="Zarr group of the version.")
    fingerprint: str = Field(description="Fingerprint of recipe, maps, code and packages.")
    manifest: str = Field(description="SHA-256 of the version's manifest: of all its bytes.")


@flow(name="build-dataset", task_runner=RUNNER)
@cancelled_if_busy
@measured
def build_dataset(
    recipe: Recipe,
    store: str = "",
    workers: int | None = None,
    dask: str | None = None,
    maps: Path | None = None,
    refresh: bool = False,
    announce: bool = True,
    verify: bool = False,
    trained: bool = False,
    when_busy: WhenBusy = "fail",
    pass_gates: tuple[GateName, ...] = (),
    refresh_cities: tuple[str, ...] = (),
    retry_quarantined: bool = False,
    cities: tuple[str, ...] = (),
    point: bool = True,
) -> Version:
    """Maps -> published dataset version; whatever is already there is kept.

    Parameters
    ----------
    recipe : Recipe
    store : str
        Folder, or URL on object storage (`s3://bucket/store`; credentials from the environment); by default a folder of
        the recipe's name in that of the environment variable `WAVECITY_STORE`, or in `stores`.
    workers, dask
        Local worker processes, or the address of a Dask scheduler.
    maps : Path, optional
        Folder of fetched and converted maps, which several stores may share; by default `store/maps`, or for a store
        on object storage the user's cache folder.
    refresh : bool
        Ask the servers that maps came from for newer ones first.
    announce : bool
        Whether a new version is announced as an event, `wavecity.dataset.published`.
    verify : bool
        Whether every byte of the units that an interrupted build has finished is compared with their receipts before
        the build goes on; by default only presence and sizes of files are. Every byte is checked before publication
        in any case.
    trained : bool
        Whether a model is to be trained on it: a plan without train or validation scenes is refused.
    when_busy : {"fail", "cancel", "wait"}
        What becomes of the run while another one builds in the store.
    pass_gates : tuple of str
        Gates of the recipe that do not stop publication this time.
    refresh_cities : tuple of str
        Cities to which `refresh` is limited, by name; by default all, or `cities`. The others keep their maps, and so
        their scenes.
    retry_quarantined : bool
        Whether quarantined scenes are tried again: those of the draft, or of the published version, which never changes:
        what comes of it is a new one.
    cities : tuple of str
        Cities that are built, by name; the others are kept from the latest version as they are there, without a look at
        their maps (`wavecity.flows.partial`). By default all are built.
    point : bool
        Whether the version becomes the store's latest; the first one of a store does in any case.

    Raises
    ------
    GateFailed
        A limit of `recipe.gates` is exceeded; the draft stays, the published version is untouched.
    """
    logger = get_run_logger()
    place = store_of(recipe, store)
    make_folder(place)
    await_turn(place, when_busy, logger.info)
    folder = maps or map_folder(place)
    named = named_cities(recipe, cities, "cities")
    build.refuse_missing_maps(recipe, folder, named)
    others = others_of(recipe, named, place) if named else None
    if refresh:
        _refresh_maps(recipe, folder, named_cities(recipe, refresh_cities, "refresh_cities") or named)
    with stage("build 1/4: plan"):
        plan = _plan(recipe, folder, workers, dask, others)
    if trained:
        refuse_untrainable(recipe, plan)
    if warning := warning_of(recipe, plan):
        say(f"warning: {warning}")
    for city in plan.short:
        logger.warning(
            "%s: %d of %d scenes%s",
            city.city.name,
            city.found,
            city.city.scenes,
            f": {city.problem}" * bool(city.problem),
        )
    log = BuildLog(logger, place)
    log.planned(plan)
    known = build.published(recipe, plan, place)
    lost = build.quarantined_of(load_draft(known.folder)) if known and retry_quarantined else []
    if known and not lost and (known.folder.name == pointed_at(place) or not point):
        logger.info("version v%d is up to date, nothing to do", known.number)
        say(f"build: v{known.number} is up to date{', without a quarantined scene' * retry_quarantined}")
        return known
    with turn(place, when_busy, logger.info) as lock:
        if known and known.folder.name != pointed_at(place) and point:
            # Built before, then another recipe or map was; or the build was killed before it moved the pointer.
            make_latest(known, recipe.store.keep, recipe.store.grace)
        if known and not lost:
            return known
        _refuse_other_latest(others, place)
        reuse = build.reuse_of(recipe, plan, place)
        draft = build.draft_of(recipe, plan, place, known.number if known else 0)
        _discard_damaged(draft, verify)
        if retry_quarantined and (again := draft.discard_quarantined() or lost):
            logger.info("tried again: %s quarantined before", ", ".join(again))
        missing = draft.missing()
        log.started(draft, missing)
        share_maps(plan.sources, place)
        with compute(workers, dask) as client:

            def validated(parts: Iterable[Item]) -> Iterator[Item]:
                return track(parts, "build 4/4: validate", draft.layout.units, "units")

            def complete(missing: list[int]) -> Version:
                if missing:
                    _run_units(client, draft, missing, plan, reuse, recipe, lock, log=log)
                lock.check()
                if known and len(build.quarantined_of(draft)) >= len(lost):
                    logger.warning(
                        "v%d stays: its %d quarantined scenes are quarantined again", known.number, len(lost)
                    )
                    say(f"build: v{known.number} stays, its {len(lost)} quarantined scenes are quarantined again")
                    remove_folder(draft.folder)
                    return known
                with stage("build 3/4: statistics and card"):
                    finish(draft, recipe, plan)
                _refuse_by_gates(draft, recipe, place, pass_gates)
                return check_and_publish(draft, recipe, place, validated, _on_cluster(client), point)

            try:
                version = complete(missing)
            except build.CheckFailed:
                # Bytes of a finished unit may have changed where it lies; what is wrong for another reason stays wrong.
                if not _discard_damaged(draft, verify=True):
                    raise
                version = complete(draft.missing())
    if version == known:
        return known
    log.published(version)
    artifacts.show_version(version, recipe.name)
    if announce:
        announce_version(recipe, version)
    return version


def store_of(recipe: Recipe, store: str = "") -> StorePath:
    """A store by its folder or URL; by default a folder of the recipe's name in `WAVECITY_STORE`, or in `stores`."""
    return location(store or f"{os.environ.get('WAVECITY_STORE', 'stores')}/{recipe.name}")


def _refuse_other_latest(others: Others | None, place: StorePath) -> None:
    """Refuse to keep scenes of a version that another build has replaced meanwhile."""
    if others and pointed_at(place) != others.version.folder.name:
        msg = f"cities: {pointed_at(place)} was published meanwhile; run the same command again to build on it"
        raise InputError(msg)


def _refuse_by_gates(draft: Draft, recipe: Recipe, place: StorePath, passed: Collection[GateName]) -> None:
    """Measure a finished draft by the gates, show them, and refuse it if one is exceeded."""
    known = latest(place)
    measured = measure_gates(draft.folder, known.folder if known else None, recipe.gates, passed)
    artifacts.show_gates(measured, recipe.name)
    for gate in measured:
        if gate.verdict == "exceeded, overridden":
            get_run_logger().warning("gate %s is overridden: %s %.3g", gate.name, gate.what, gate.value)
    if any(gate.exceeded for gate in measured):
        error = gates.GateFailed(measured, draft.folder)
        emit_event(
            "wavecity.gate.failed",
            resource={"prefect.resource.id": f"wavecity.store.{recipe.name}", "prefect.resource.name": str(place)},
            payload={"gates": [gate.name for gate in error.gates], "message": str(error)},
        )
        raise error


def _discard_damaged(draft: Draft, verify: bool) -> bool:
    """Have finished units whose files are damaged built again, and say which; returns whether there are any."""
    damaged = draft.discard_damaged(verify)
    for line in damaged:
        get_run_logger().warning("finished, but damaged since, so it is built again: %s", line)
    return bool(damaged)


def announce_version(recipe: Recipe, version: Version) -> Published:
    """Emit the event that starts training where a deployment is triggered by it (see `prefect.yaml`)."""
    published = Published(
        store=str(version.store),
        version=version.folder.name,
        data=str(version.data),
        fingerprint=version.fingerprint,
        manifest=read_json(version.folder / "manifest.json")["sha256"],
    )
    emit_event(
        "wavecity.dataset.published",
        resource={"prefect.resource.id": f"wavecity.store.{recipe.name}", "prefect.resource.name": str(version.store)},
        payload={"recipe": recipe.model_dump(mode="json"), "dataset": published.model_dump(mode="json")},
    )
    return published


def _refresh_maps(recipe: Recipe, folder: Path, only: Collection[str] = ()) -> None:
    """Ask the servers of all cities, or of some, for newer maps; a server that fails is a warning."""
    logger, servers = get_run_logger(), Servers()
    for city in cities_of(recipe.area):
        if (only and city.name not in only) or not city.scenes or servers.given_up(city):
            continue
        try:
            if refresh_city(city, folder):
                logger.info("%s: the server has a newer map", city.name)
            servers.note(city, "")
        except MapError as error:
            servers.note(city, getattr(error, "server", ""), str(error))
            logger.warning("%s", error)


def _on_cluster(client: Client) -> Each:
    """`map` on the cluster: results in order, each released once it is used."""

    def each(job: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        futures = deque(client.map(job, list(items), pure=False))
        while futures:
            yield futures.popleft().result()

    return each


def _plan(recipe: Recipe, maps: Path, workers: int | None, dask: str | None, others: Others | None = None) -> Plan:
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


def _run_units(
    client: Client,
    draft: Draft,
    missing: list[int],
    plan: Plan,
    reuse: Reuse,
    recipe: Recipe,
    lock: Lock,
    run_unit: RunUnit = build.run_unit,
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
            jobs = build.jobs_of(draft, unit, plan, reuse)
            futures[build_unit.submit(client, draft, unit, jobs, build.sources_of(jobs, plan), recipe, run_unit)] = unit
        for future in as_completed(list(futures)):
            receipt = cast(Receipt, future.result())  # `Cancelled` raises
            lock.check()
            if log is not None:
                log.workers(len(client.nthreads()))
                log.unit(receipt)
            progress.advance(log.forecast() if log else "")
            bar.advance(len(draft.layout.scenes_of(futures[future])), log.left() if log else "")


@task(name="pretrain", cache_policy=NO_CACHE)
def pretrain(recipe: Recipe, store: StorePath, out: Path, overwrite: bool = False) -> Path:
    """Dataset version -> checkpoint; a finished training is not repeated, another one in the folder is refused."""
    from wavecity.model.training.pretrain import pretrain as train

    with stage("pretrain"):
        checkpoint = train(str(store), recipe.training, out, recipe.seed, overwrite)
    artifacts.show_training(out, recipe.name)
    return checkpoint


@task(name="evaluate", task_run_name="evaluate-{name}", cache_policy=NO_CACHE)
def evaluate(run: Path, store: StorePath, name: Any, recipe: Recipe) -> dict[str, Any]:
    """One downstream task of a pretrained model, compared with its baselines; or why it is not possible, as `not_possible`."""
    from wavecity.model.tasks.evaluate import evaluate as run_task
    from wavecity.model.tasks.evaluate import note_not_possible

    try:
        return run_task(run, str(store), name, recipe.training, recipe.seed)
    except NotPossible as error:
        get_run_logger().warning("%s", error)
        note_not_possible(run, name, str(error))
        return {"task": name, "not_possible": str(error)}


@task(name="report", cache_policy=NO_CACHE)
def report(run: Path, recipe_name: str) -> Path:
    """Run folder -> one self-contained HTML page."""
    from wavecity.model.report.page import write_report

    with stage("report"):
        page = write_report(run)
    artifacts.show_report(page, recipe_name)
    return page


@flow(name="train-and-evaluate")
@measured
def train_and_evaluate(
    recipe: Recipe, dataset: Published, out: Path | None = None, overwrite: bool = False
) -> dict[str, str]:
    """A published version -> checkpoint -> evaluations -> report; runs where the GPU is.

    Parameters
    ----------
    recipe : Recipe
    dataset : Published
        What the event said: exactly this version is trained on, whatever has been published since.
    out : Path, optional
        Run folder; by default `<recipe>/<version>` in that of the environment variable `WAVECITY_RUNS`, or in `runs`.
    overwrite : bool
        Replace another training in the folder, and its results.

    Raises
    ------
    InputError
        The version cannot be read here, or is not the announced one; the folder holds another training.
    """
    folder = resolve(dataset.data).parent
    manifest = read_json(folder / "manifest.json") or {}
    if manifest.get("sha256") != dataset.manifest:
        msg = f"{folder}: manifest {str(manifest.get('sha256'))[:12]} is not that announced, {dataset.manifest[:12]}"
        raise InputError(msg)
    out = out or Path(os.environ.get("WAVECITY_RUNS", "runs")) / recipe.name / dataset.version
    return _train(recipe, location(dataset.data), out, overwrite)


@flow(name="evaluate-run")
def evaluate_run(run: Path, store: str, tasks: list[TaskName]) -> dict[str, str]:
    """Tasks of a pretrained run on a dataset of theirs -> results -> report; what is there already is kept.

    Parameters
    ----------
    run : Path
        Folder of a pretraining, with its recipe.
    store : str
        Dataset to evaluate on, folder or URL; it need not be what the run was trained on.
    tasks : list of str
    """
    recipe = recipe_of_run(run)
    left_out = _evaluate(run, location(store), tasks, recipe)
    return {"report": str(report(run, recipe.name)), "run": str(run), **left_out}


def _train(recipe: Recipe, data: StorePath, out: Path, overwrite: bool) -> dict[str, str]:
    """Pretrain on a version, evaluate the tasks of the recipe, and write the report."""
    from wavecity.model.training.pretrain import refuse_other_training

    make_folder(out)
    if not overwrite:
        refuse_other_training(out, recipe.training, recipe.seed, str(open_store(data).attrs.get("fingerprint", "")))
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    for warning in warnings_of(recipe, sizes_of(str(data))):
        get_run_logger().warning(warning)
        say(f"warning: {warning}")
    pretrain(recipe, data, out, overwrite)
    left_out = _evaluate(out, data, tasks_of(recipe), recipe)
    return {"report": str(report(out, recipe.name)), "run": str(out), **left_out}


def _evaluate(run: Path, store: StorePath, tasks: Iterable[TaskName], recipe: Recipe) -> dict[str, str]:
    """Evaluate every task; those that were not possible, with their reasons."""
    names, reasons = list(tasks), []
    for number, name in enumerate(names, 1):
        with stage(f"evaluate {number}/{len(names)}: {name}"):
            result = evaluate(run, store, name, recipe)
        if "not_possible" in result:
            reasons.append(result["not_possible"])
    return {"not_possible": "; ".join(reasons)} if reasons else {}


@flow(name="wavecity")
@cancelled_if_busy
@measured
def run_recipe(
    recipe: Recipe,
    out: Path,
    workers: int | None = None,
    dask: str | None = None,
    maps: Path | None = None,
    overwrite: bool = False,
    when_busy: WhenBusy = "fail",
    pass_gates: tuple[GateName, ...] = (),
) -> dict[str, str]:
    """The main job: map -> dataset -> model -> report.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        Run folder; the store is `out/store`.
    workers, dask, maps
        As for `build_dataset`.
    overwrite : bool
        Replace another training in the folder, and its results.
    when_busy, pass_gates
        As for `build_dataset`.

    Returns
    -------
    dict
        Paths of the `report`, the `store` and the `run`; `not_possible` names the tasks that were not, and why.

    Raises
    ------
    InputError
        The folder holds a training on other data or with other settings.
    """
    if not overwrite:
        refuse_other_run(recipe, out)
    refuse_unfit_model(recipe)
    build.refuse_missing_maps(recipe, maps or map_folder(out / "store"))
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    store = str(out / "store")
    version = build_dataset(
        recipe, store, workers, dask, maps, announce=False, trained=True, when_busy=when_busy, pass_gates=pass_gates
    )
    result = {**_train(recipe, version.data, out, overwrite), "store": store}
    finished.record(recipe, version, out)
    return result
