"""A dataset of a recipe built in this process by the plain functions, without Prefect and Dask."""

from pathlib import Path

from wavecity.dataset.publish import Version
from wavecity.flows import build
from wavecity.flows.recipe import Recipe, load_recipe


def recipe_with(name: str, changes: dict[str, object]) -> Recipe:
    """A shipped recipe with some dotted keys changed."""
    return load_recipe(name, tuple(f"{key}={value}" for key, value in changes.items()))


def build_version(recipe: Recipe, store: Path, maps: Path, stop_after: int | None = None) -> Version | None:
    """Build what is missing and publish it; with `stop_after`, only so many units, without publishing."""
    plan = build.plan_scenes(recipe, maps)
    reuse = build.reuse_of(recipe, plan, store)
    draft = build.draft_of(recipe, plan, store)
    for unit in draft.missing()[:stop_after]:
        build.run_unit(draft, unit, build.jobs_of(draft, unit, plan, reuse), plan.sources, recipe)
    if draft.missing():
        return None
    build.finish(draft, recipe, plan)
    return build.check_and_publish(draft, recipe, store)
