"""Splits without scenes: known from the recipe, or from its plan, before anything is fetched or traced."""

from collections import Counter

from wavecity.flows.recipe import Recipe
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.plan import Plan
from wavecity.geo.tiles import divide

# Without these nothing is trained.
TRAINED_ON = ("train", "validation")


def scenes_by_split(recipe: Recipe, plan: Plan | None = None) -> Counter[str]:
    """Number of scenes of each split: of a plan, or the most that the recipe can give."""
    if plan is not None:
        return Counter(tile.split for tile in plan.tiles if tile.status != "rejected")
    cities, split = cities_of(recipe.area), recipe.area.split
    if split.by == "scene":
        scenes = sum(city.scenes for city in cities)
        return Counter(divide([str(scene) for scene in range(scenes)], split, recipe.seed).values())
    counts = Counter[str]()
    label = divide([city.name for city in cities], split, recipe.seed)
    for city in cities:
        counts[label[city.name]] += city.scenes
    return counts


def empty_splits(recipe: Recipe, plan: Plan | None = None) -> list[str]:
    """Splits that are to have a share of the scenes, and get none."""
    counts, split = scenes_by_split(recipe, plan), recipe.area.split
    shares = {"train": 1 - split.validation - split.test, "validation": split.validation, "test": split.test}
    return [name for name, share in shares.items() if share > 1e-9 and not counts[name]]


def refuse_untrainable(recipe: Recipe, plan: Plan | None = None) -> None:
    """Refuse a run without scenes to train on, or to validate with, or of several carriers, of which models know one.

    Raises
    ------
    InputError
        It names the splits, and how many scenes there are; or the carriers.
    """
    if recipe.radio.carriers or len(recipe.radio.ports) > 1:
        key, what, option = (
            ("carriers", "carrier", "carrier HZ")
            if recipe.radio.carriers
            else ("polarisation", "pair of ports", "port NAME")
        )
        msg = (
            f"radio.{key}: models are trained on one {what}; make the dataset with `wavecity build`, a store of one of them "
            f"with `wavecity subset STORE --{option}`, and train on that with `wavecity pretrain`"
        )
        raise InputError(msg)
    counts = scenes_by_split(recipe, plan)
    lacking = [name for name in TRAINED_ON if not counts[name]]
    if lacking:
        of = f"{recipe.area.split.validation:g} and test {recipe.area.split.test:g}, by {recipe.area.split.by}"
        msg = (
            f"area.split: no scene for {' and '.join(lacking)} among {counts.total()} (validation {of}): nothing could be "
            "trained; ask for more area.scenes, or change the shares"
        )
        raise InputError(msg)


def warning_of(recipe: Recipe, plan: Plan) -> str:
    """A line about splits of a plan that get no scene; empty where all do."""
    empty = empty_splits(recipe, plan) if scenes_by_split(recipe, plan) else []
    return (
        f"area.split: no scene for {', '.join(empty)}: ask for more area.scenes, or change the shares" if empty else ""
    )
