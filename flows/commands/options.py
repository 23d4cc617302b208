"""Arguments and options that several commands share."""

import importlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import click

from wavecity.flows.help import RecipeName, StoreAddress
from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    from wavecity.flows.recipe import Recipe
    from wavecity.model.data.feasible import Sizes

path = click.Path(path_type=Path)
address = StoreAddress()
recipe_argument = click.argument("recipe", type=RecipeName())
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, e.g. --set solver.max_depth=4; repeatable. `wavecity recipe` lists them all.",
)
workers_option = click.option("--workers", type=click.IntRange(1), help="Worker processes (default: one per core).")
dask_option = click.option("--dask", metavar="ADDRESS", help="Scheduler of a running Dask cluster instead.")
maps_option = click.option("--maps", type=path, help="Folder of fetched maps, shared by stores (default: STORE/maps).")
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace another training, and its results, that the run folder holds."
)

gate_option = click.option(
    "--pass-gate",
    "passed",
    multiple=True,
    type=click.Choice(["outage", "imputed", "quarantined", "drift"]),
    help="Publish although this gate of the recipe is exceeded; repeatable.",
)


def import_extra(module: str, extra: str) -> ModuleType:
    """Import what an extra brings; without it say which to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "wavecity":
            raise
        msg = f"this command needs {error.name}: pip install 'wavecity[{extra}]'"
        raise InputError(msg) from error


@contextmanager
def nothing_left(place: object) -> Iterator[None]:
    """Remove a local folder that the block made and filled with nothing, if the block ends with wrong input."""
    new = isinstance(place, Path) and not place.exists()
    try:
        yield
    except InputError:
        if new and isinstance(place, Path):
            files = [path for path in place.rglob("*") if path.is_file()]
            # Maps that were fetched for other cities stay.
            if all(path.name in ("recipe.json", "lock") for path in files):
                shutil.rmtree(place, ignore_errors=True)
        raise


def warn_of(recipe: "Recipe", sizes: "Sizes | None" = None) -> None:
    """Say before anything starts which tasks will not be possible."""
    from wavecity.flows.run_checks import warnings_of

    for warning in warnings_of(recipe, sizes):
        click.echo(f"warning: {warning}", err=True)
