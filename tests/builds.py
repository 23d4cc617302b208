"""A dataset of a recipe built in this process by the plain functions, without Prefect and Dask."""

from pathlib import Path

from wavecity.dataset.publish import Version
from wavecity.flows.drafts import draft_of, reuse_of
from wavecity.flows.planning import plan_scenes
from wavecity.flows.publishing import check_and_publish, finish
from wavecity.flows.recipe import Recipe, load_recipe
from wavecity.flows.units import jobs_of, run_unit


def recipe_with(name: str, changes: dict[str, object]) -> Recipe:
    """A shipped recipe with some dotted keys changed."""
    return load_recipe(name, tuple(f"{key}={value}" for key, value in changes.items()))


def build_version(recipe: Recipe, store: Path, maps: Path, stop_after: int | None = None) -> Version | None:
    """Build what is missing and publish it; with `stop_after`, only so many units, without publishing."""
    plan = plan_scenes(recipe, maps)
    reuse = reuse_of(recipe, plan, store)
    draft = draft_of(recipe, plan, store)
    for unit in draft.missing()[:stop_after]:
        run_unit(draft, unit, jobs_of(draft, unit, plan, reuse), plan.sources, recipe)
    if draft.missing():
        return None
    finish(draft, recipe, plan)
    return check_and_publish(draft, recipe, store)
