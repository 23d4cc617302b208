"""The whole system, top to bottom: recipe -> plan -> units -> validated, published version -> checkpoint -> report.

Prefect wraps plain functions, of `wavecity.flows` and `model`: it shows, schedules and retries. Receipts and
fingerprints decide what is done, so a second run recomputes nothing.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from wavecity.dataset.checks.findings import CheckFailed
from wavecity.dataset.draft import Draft, load_draft
from wavecity.dataset.files import StorePath, location, make_folder, read_json, remove_folder, write_json
from wavecity.dataset.progress import say, stage, track
from wavecity.dataset.publish import Version, latest, make_latest, pointed_at
from wavecity.dataset.reader import resolve
from wavecity.flows import artifacts, finished, gates, publishing
from wavecity.flows.announce import Published, announce_exceeded_gates, announce_version
from wavecity.flows.build_log import BuildLog
from wavecity.flows.cluster import compute
from wavecity.flows.dispatch import RUNNER, cluster_map, plan_on_cluster, run_units
from wavecity.flows.drafts import draft_of, published, quarantined_of, reuse_of
from wavecity.flows.gates import GateName
from wavecity.flows.guard import end_with_worker
from wavecity.flows.maps import map_folder, share_maps
from wavecity.flows.metrics import measured
from wavecity.flows.partial import Others, named_cities, others_of
from wavecity.flows.planning import refuse_missing_maps
from wavecity.flows.recipe import Recipe, recipe_of_run
from wavecity.flows.run_checks import refuse_other_run, refuse_unfit_model
from wavecity.flows.run_log import shorten_errors
from wavecity.flows.splits import refuse_untrainable, warning_of
from wavecity.flows.training import evaluate_all, report, train
from wavecity.flows.turns import WhenBusy, await_turn, cancelled_if_busy, turn
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.plan import Servers
from wavecity.geo.sources import refresh_city
from wavecity.model.settings.tasks import TaskName

Item = TypeVar("Item")

# Before anything else of a deployed run, whose process Prefect starts with nothing but this module.
shorten_errors()
end_with_worker()

# Receipts and fingerprints decide what is done, never Prefect's cache; clients and locks cannot be hashed for its key.
finish = task(name="finish", cache_policy=NO_CACHE)(publishing.finish)
measure_gates = task(name="gates", cache_policy=NO_CACHE)(gates.measure)
check_and_publish = task(name="validate-and-publish", cache_policy=NO_CACHE)(publishing.check_and_publish)


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
    refuse_missing_maps(recipe, folder, named)
    others = others_of(recipe, named, place) if named else None
    if refresh:
        _refresh_maps(recipe, folder, named_cities(recipe, refresh_cities, "refresh_cities") or named)
    with stage("build 1/4: plan"):
        plan = plan_on_cluster(recipe, folder, workers, dask, others)
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
    known = published(recipe, plan, place)
    lost = quarantined_of(load_draft(known.folder)) if known and retry_quarantined else []
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
        reuse = reuse_of(recipe, plan, place)
        draft = draft_of(recipe, plan, place, known.number if known else 0)
        _discard_damaged(draft, verify)
        if retry_quarantined and (again := draft.discard_quarantined() or lost):
            logger.info("tried again: %s quarantined before", ", ".join(again))
        missing = draft.missing()
        log.started(draft, missing, reuse.whole)
        share_maps(plan.sources, place)
        with compute(workers, dask) as client:

            def validated(parts: Iterable[Item]) -> Iterator[Item]:
                return track(parts, "build 4/4: validate", draft.layout.units, "units")

            def complete(missing: list[int]) -> Version:
                if missing:
                    run_units(client, draft, missing, plan, reuse, recipe, lock, log=log)
                lock.check()
                if known and len(quarantined_of(draft)) >= len(lost):
                    logger.warning(
                        "v%d stays: its %d quarantined scenes are quarantined again", known.number, len(lost)
                    )
                    say(f"build: v{known.number} stays, its {len(lost)} quarantined scenes are quarantined again")
                    remove_folder(draft.folder)
                    return known
                with stage("build 3/4: statistics and card"):
                    finish(draft, recipe, plan)
                _refuse_by_gates(draft, recipe, place, pass_gates)
                return check_and_publish(draft, recipe, place, validated, cluster_map(client), point)

            try:
                version = complete(missing)
            except CheckFailed:
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
        announce_exceeded_gates(recipe, place, error)
        raise error


def _discard_damaged(draft: Draft, verify: bool) -> bool:
    """Have finished units whose files are damaged built again, and say which; returns whether there are any."""
    damaged = draft.discard_damaged(verify)
    for line in damaged:
        get_run_logger().warning("finished, but damaged since, so it is built again: %s", line)
    return bool(damaged)


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
    return train(recipe, location(dataset.data), out, overwrite)


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
    left_out = evaluate_all(run, location(store), tasks, recipe)
    return {"report": str(report(run, recipe.name)), "run": str(run), **left_out}


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
    refuse_missing_maps(recipe, maps or map_folder(out / "store"))
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    store = str(out / "store")
    version = build_dataset(
        recipe, store, workers, dask, maps, announce=False, trained=True, when_busy=when_busy, pass_gates=pass_gates
    )
    result = {**train(recipe, version.data, out, overwrite), "store": store}
    finished.record(recipe, version, out)
    return result
