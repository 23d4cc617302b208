"""How long a build takes and how large its dataset becomes: measured on some of its scenes, by the build's own code."""

import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client, as_completed

from wavecity.dataset.draft import Draft
from wavecity.dataset.files import files_below
from wavecity.dataset.progress import stage
from wavecity.flows.build_log import duration, effort
from wavecity.flows.cluster import compute
from wavecity.flows.cost import cost
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.publishing import check_and_publish, finish
from wavecity.flows.recipe import Recipe
from wavecity.flows.units import Job, jobs_of, run_unit, sources_of
from wavecity.geo.errors import InputError
from wavecity.geo.plan import Plan
from wavecity.geo.sources import Source

# Scenes that are measured: times of scenes vary by half of their mean, so that of 32 is known to a tenth. And scenes of a
# unit of theirs: the first one of each worker compiles kernels, and does not count.
SAMPLE, UNIT = 32, 4


@dataclass(frozen=True)
class Forecast:
    """What a build will take.

    Attributes
    ----------
    scenes : int
        Of the whole build.
    measured : int
        Scenes built for it.
    workers : int
    rate : float
        Scenes a second, of all workers together, tracing and validation.
    start : float
        Seconds before the first scene is done: workers start, kernels are compiled.
    scene_bytes, other_bytes : float
        On disk: of a scene; and of coordinates, ledger and card.
    """

    scenes: int
    measured: int
    workers: int
    rate: float
    start: float
    scene_bytes: float
    other_bytes: float

    @property
    def seconds(self) -> float:
        """Of the whole build, once it is planned."""
        return self.start + self.scenes / self.rate

    @property
    def nbytes(self) -> float:
        """Of the whole dataset."""
        return self.scenes * self.scene_bytes + self.other_bytes

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"forecast: {self.scenes:,} scenes take {duration(self.seconds)} with {self.workers} workers "
            f"({self.rate:.2f} scenes/s), {self.nbytes / 1e9:.3g} GB ({self.scene_bytes / 1e6:.2f} MB a scene) and "
            f"{cost(self.seconds * self.workers)}, by {self.measured} of them"
        )


def forecast(recipe: Recipe, plan: Plan, workers: int | None = None, rate: float | None = None) -> Forecast:
    """Build some scenes of a plan in a temporary store, and draw conclusions for all.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan
    workers : int, optional
        Of the build: by default one per core.
    rate : float, optional
        Scenes a second of another machine. Then only sizes are measured here.

    Raises
    ------
    InputError
        No map of the plan is there.

    Examples
    --------
    >>> found = forecast(recipe, plan)
    >>> print(found)
    forecast: 10,000 scenes take 1 h 24 min with 2 workers (1.98 scenes/s), 21.3 GB (2.13 MB a scene) and 2.8 core-hours, by
    32 of them
    """
    scenes = sum(city.found for city in plan.cities)
    if not plan.accepted:
        msg = "--forecast builds some scenes, and none of the maps is here: fetch them with --fetch, into --maps FOLDER"
        raise InputError(msg)
    few = plan_of_some(plan, SAMPLE if rate is None else UNIT)
    small = recipe.model_copy(update={"store": recipe.store.model_copy(update={"unit": UNIT})})
    count, begun = workers or os.cpu_count() or 1, time.monotonic()
    with tempfile.TemporaryDirectory() as folder, compute(count) as client:
        draft = draft_of(small, few, Path(folder) / "store")
        times = _build_units(client, draft, few, small)
        store = Path(folder) / "store"
        traced = _size(store)
        first = min(end for _, end, _, _ in times) - begun
        begun = time.monotonic()
        with stage("forecast: validate"):
            finish(draft, small, few)
            check_and_publish(draft, small, store)
        checked = (time.monotonic() - begun) / len(few.accepted)
        rest = _size(store) - traced
    # Cities differ in their buildings, and the sample may not be quite like the whole.
    mean = sum(effort(tile) for tile in plan.accepted) / len(plan.accepted)
    return Forecast(
        scenes,
        len(few.accepted),
        count,
        rate or count / (mean * seconds_per_effort(times) + checked),
        first,
        traced / len(few.accepted),
        rest,
    )


def _size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum((folder / name).stat().st_size for name in files_below(folder))


def plan_of_some(plan: Plan, count: int) -> Plan:
    """A plan with some of its accepted tiles, evenly from first to last."""
    accepted = plan.accepted
    step = max(1.0, len(accepted) / count)
    chosen = {accepted[int(number * step)].id for number in range(min(count, len(accepted)))}
    cities = []
    for city in plan.cities:
        tiles = [tile for tile in city.tiles if tile.id in chosen]
        if tiles:
            cities.append(replace(city, city=replace(city.city, scenes=len(tiles)), tiles=tiles))
    return Plan(cities)


def _build_units(client: Client, draft: Draft, plan: Plan, recipe: Recipe) -> list[tuple[int, float, float, float]]:
    """Worker, end, seconds and effort of each unit, in the order in which they end."""
    reuse = reuse_of(recipe, plan, draft.folder.parent.parent)
    futures = []
    for unit in range(draft.layout.units):
        jobs = jobs_of(draft, unit, plan, reuse)
        needed = sources_of(jobs, plan)
        futures.append(client.submit(_timed, draft, unit, jobs, needed, recipe, pure=False))
    done = []
    with stage("forecast: trace", len(plan.accepted), "scenes") as bar:
        for future in as_completed(futures):
            worker, end, seconds, jobs = future.result()
            done.append((worker, end, seconds, sum(effort(job.tile) for job in jobs)))
            bar.advance(len(jobs))
    return done


def _timed(
    draft: Draft, unit: int, jobs: list[Job], sources: dict[str, Source], recipe: Recipe
) -> tuple[int, float, float, list[Job]]:
    """Build a unit: worker, end, seconds and its jobs."""
    start = time.monotonic()
    run_unit(draft, unit, jobs, sources, recipe)
    end = time.monotonic()
    return os.getpid(), end, end - start, jobs


def seconds_per_effort(units: list[tuple[int, float, float, float]]) -> float:
    """Mean of all units (worker, end, seconds, effort) but each worker's first; of all where there are no others."""
    seen: set[int] = set()
    later = []
    for worker, _, seconds, done in units:
        if worker in seen:
            later.append((seconds, done))
        seen.add(worker)
    used = later or [(seconds, done) for _, _, seconds, done in units]
    return sum(seconds for seconds, _ in used) / sum(done for _, done in used)
