"""What several modules of the command line share."""

import importlib
from pathlib import Path
from typing import Any

import click

from wavecity.geo.errors import InputError

path = click.Path(path_type=Path)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, e.g. --set solver.max_depth=4; repeatable. `wavecity recipe` lists them all.",
)


def import_extra(module: str, extra: str) -> Any:
    """Import what an extra brings; without it say which to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("geo", "raytrace", "dataset", "model", "flows"):
            raise
        msg = f"this command needs {error.name}: pip install 'wavecity[{extra}]'"
        raise InputError(msg) from error
