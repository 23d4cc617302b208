"""Versions of a store by map date: `backfill`."""

from pathlib import Path

import click

from wavecity.flows.commands.options import (
    address,
    dask_option,
    gate_option,
    import_extra,
    maps_option,
    nothing_left,
    recipe_argument,
    set_option,
    workers_option,
)
from wavecity.flows.commands.prefect_start import prefect_answers
from wavecity.flows.help import SpokenCommand


@click.command(
    cls=SpokenCommand,
    examples=(
        (
            "wavecity backfill mytown.yaml --out stores/mytown --map mytown-2019.osm.pbf --map mytown-2023.osm.pbf",
            "v1 of 2019, v2 of 2023, in whatever order they are named",
        ),
    ),
)
@recipe_argument
@click.option("--out", type=address, required=True, help="Store: a folder, or a URL such as s3://bucket/store.")
@click.option("--map", "sources", multiple=True, required=True, help="A map, as area.source names one; repeatable.")
@click.option("--city", default="", help="Which city the maps are of, if the recipe has several.")
@set_option
@workers_option
@dask_option
@maps_option
@gate_option
def backfill(
    recipe: str,
    out: str,
    sources: tuple[str, ...],
    city: str,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
    passed: tuple[str, ...],
) -> None:
    """Build one version for each of several maps of a city, the oldest first. Resumes by itself.

    The date of a map is that of its newest edit. The latest version is that of the newest map, also of those that were
    there before; store.keep must be large enough for all of them.
    """
    from wavecity.dataset.files import location, make_folder
    from wavecity.dataset.progress import stage
    from wavecity.dataset.reader import refuse_run_folder
    from wavecity.flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    place = location(out)
    with nothing_left(place):
        make_folder(place)
        refuse_run_folder(place)
        with stage("load Prefect"):
            module = import_extra("wavecity.flows.backfill", "generate")
        with import_extra("wavecity.flows.guard", "generate").no_orphans(), prefect_answers():
            built = module.backfill(loaded, sources, city, out, workers, dask, maps, pass_gates=passed)
    for version in built:
        dates = ", ".join(sorted(set(version.map_dates.values())))
        click.echo(f"v{version.number}: map of {dates}: {version.data}")
