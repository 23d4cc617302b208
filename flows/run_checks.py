"""What is known before anything is built: a folder that holds another run, tasks that the dataset is too small for."""

from pathlib import Path

import numpy as np

from wavecity.flows.recipe import Recipe, recipe_of_run
from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError
from wavecity.model.data.feasible import Sizes, obstacles
from wavecity.model.settings.tasks import ON_REQUEST, TASKS_OF, TaskName
from wavecity.model.training.run_folder import changed_keys, held_training, refuse_other, refuse_run


def tasks_of(recipe: Recipe) -> list[TaskName]:
    """Tasks that a recipe asks for; by default all of its model but those on request."""
    backbone = recipe.training.backbone
    usual = [name for name in TASKS_OF[backbone] if name not in ON_REQUEST[backbone]]
    return list(recipe.training.evaluation.tasks or usual)


def planned_sizes(recipe: Recipe) -> Sizes:
    """The most users that a recipe's dataset can have: fewer will have a path, and not every scene will be found."""
    scenes = sum(city.scenes for city in cities_of(recipe.area))
    steps = None if recipe.mobility is None else recipe.mobility.steps
    test = np.full(scenes, recipe.users.counts("test")[1])
    return Sizes(scenes * recipe.users.maximum, test, steps, recipe.features.paths, most=True)


def warnings_of(recipe: Recipe, sizes: Sizes | None = None) -> list[str]:
    """A line for each task of a recipe that will not be possible.

    Parameters
    ----------
    recipe : Recipe
    sizes : Sizes, optional
        Of the dataset, once it is there; by default the most that the recipe can give.
    """
    found = obstacles(tasks_of(recipe), recipe.training, sizes or planned_sizes(recipe))
    return [f"{task} will not be possible: {why}" for task, why in found.items()]


def refuse_unfit_model(recipe: Recipe) -> None:
    """Refuse, before anything is built, a model whose patches do not divide the recipe's arrays.

    Raises
    ------
    InputError
        It names the patch and what it must divide.
    """
    if recipe.training.backbone == "temporal":
        return
    from wavecity.model.data.users import geometry_from  # imports torch

    cells, patches = (
        round(recipe.area.tile_size / edge) for edge in (recipe.scene.resolution, recipe.scene.occupancy_patch)
    )
    antennas = recipe.radio.columns, recipe.radio.rows
    geometry_from(f"recipe {recipe.name}", antennas, (cells, cells), (patches, patches), recipe.training.model)


def refuse_other_run(recipe: Recipe, out: Path) -> None:
    """Refuse, before anything is built, a folder with a training on other data or with other settings.

    Raises
    ------
    InputError
        It names what differs.
    """
    if not held_training(out):
        return
    refuse_other(out, recipe.training, recipe.seed)
    try:
        known = recipe_of_run(out).data_parts()
    except InputError:  # of another version of the code; the training itself is compared once the data are there
        return
    if changes := changed_keys(known, recipe.data_parts()):
        refuse_run(out, changes)
