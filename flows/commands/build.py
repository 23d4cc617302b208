"""From a map to a published dataset, and on to an evaluated model: `run`, `plan`, `build`, `export`."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import click

from wavecity.flows.commands.options import (
    address,
    dask_option,
    gate_option,
    import_extra,
    maps_option,
    nothing_left,
    overwrite_option,
    path,
    recipe_argument,
    set_option,
    warn_of,
    workers_option,
)
from wavecity.flows.commands.prefect_start import prefect_answers
from wavecity.flows.help import SpokenCommand
from wavecity.geo.errors import InputError

Item = TypeVar("Item")
# `wavecity.raytrace.radio_map_settings.METRICS`.
RADIO_METRICS = ("path_gain", "los", "delay_spread", "angle_spread", "n_paths", "best_beam")


@click.command(
    cls=SpokenCommand,
    examples=(
        ("wavecity run quickstart", "into runs/quickstart; given again it goes on, or finds all done"),
        (
            "wavecity run quickstart --out runs/mine --set area.source=mycity.osm.pbf --set area.city=Mycity",
            "another map",
        ),
    ),
)
@recipe_argument
@click.option("--out", type=path, help="Run folder (default: runs/<recipe>).")
@set_option
@workers_option
@dask_option
@maps_option
@gate_option
@overwrite_option
def run(
    recipe: str,
    out: Path | None,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
    passed: tuple[str, ...],
    overwrite: bool,
) -> None:
    """The whole DAG: build, validate, publish, pretrain, evaluate, report. Resumes by itself.

    A run folder belongs to one recipe: with other data or another training it is refused, --overwrite replaces it.
    """
    from wavecity.dataset.files import make_folder
    from wavecity.dataset.progress import say, stage
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.result_tables import print_run
    from wavecity.flows.run_checks import refuse_other_run

    loaded = load_recipe(recipe, overrides)
    out = out or Path("runs") / loaded.name
    if not overwrite:
        refuse_other_run(loaded, out)
    with nothing_left(out):
        make_folder(out)
        if not overwrite and import_extra("wavecity.flows.finished", "generate").find(loaded, out, maps):
            say("nothing to do: recipe, maps, code and results are those of the run that is there")
        else:
            import_extra("wavecity.flows.splits", "generate").refuse_untrainable(loaded)
            folder = maps or import_extra("wavecity.flows.maps", "generate").map_folder(out / "store")
            import_extra("wavecity.flows.planning", "generate").refuse_missing_maps(loaded, folder)
            warn_of(loaded)
            with stage("load Prefect"):
                pipeline = import_extra("wavecity.flows.pipeline", "generate,train")
            with import_extra("wavecity.flows.guard", "generate").no_orphans(), prefect_answers():
                pipeline.run_recipe(loaded, out, workers, dask, maps, overwrite, pass_gates=passed)
    print_run(out)


@click.command(cls=SpokenCommand)
@recipe_argument
@set_option
@click.option("--maps", type=path, help="Folder of fetched maps (default: none, only maps that are local files).")
@click.option("--fetch", is_flag=True, help="Download maps that are not there (into --maps).")
@click.option("--tiles", "every", is_flag=True, help="List every tile, empty ones too.")
@click.option("--png", type=path, help="Picture to write: the cities on a map, or the tiles of one city.")
@click.option("--json", "json_path", type=path, help="File to write: every city and tile with its outcome.")
@click.option(
    "--forecast", "wants_forecast", is_flag=True, help="Say how long and large the build will be, by 32 scenes."
)
@workers_option
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="For --forecast: scenes/s of another machine (measured)."
)
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    maps: Path | None,
    fetch: bool,
    every: bool,
    png: Path | None,
    json_path: Path | None,
    wants_forecast: bool,
    workers: int | None,
    rate: float | None,
) -> None:
    """Cities and tiles of a recipe, each with its outcome.

    Where a map is not there, tiles are planned by their positions; nothing is downloaded without --fetch. With --forecast
    some of the scenes are built and thrown away: it says how long the build will take and how large the dataset will be.
    """
    from wavecity.dataset.files import write_json
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.recipe_tables import print_plan

    if png and png.suffix.lower() != ".png":
        msg = f"--png {png}: name a file that ends in .png"
        raise InputError(msg)
    if fetch and maps is None:
        msg = "--fetch needs a folder for the maps, e.g. --maps maps"
        raise InputError(msg)
    if not wants_forecast and (workers or rate):
        msg = f"--{'workers' if workers else 'rate'} is for --forecast only"
        raise InputError(msg)
    loaded = load_recipe(recipe, overrides)
    planning = import_extra("wavecity.flows.planning", "generate")
    warn_of(loaded)
    with tempfile.TemporaryDirectory() as cache:
        planned = planning.show_plan(loaded, maps or Path(cache), fetch, _city_bar)
        print_plan(planned, every)
        if warning := import_extra("wavecity.flows.splits", "generate").warning_of(loaded, planned):
            click.echo(f"warning: {warning}", err=True)
        if json_path:
            write_json(json_path, import_extra("wavecity.flows.plan_records", "generate").plan_record(planned))
            click.echo(f"wrote {json_path}")
        if png:
            click.echo(f"wrote {import_extra('wavecity.flows.map_picture', 'generate').draw_plan(planned, png)}")
        if wants_forecast:
            click.echo(import_extra("wavecity.flows.forecast", "generate").forecast(loaded, planned, workers, rate))


def _city_bar(cities: Iterable[Item]) -> Iterable[Item]:
    """Show progress over the cities of a plan."""
    from wavecity.dataset.progress import track

    return track(cities, "plan", unit="cities")


@click.command(cls=SpokenCommand)
@recipe_argument
@click.option("--out", type=address, required=True, help="Store: a folder, or a URL such as s3://bucket/store.")
@click.option("--scenes", type=click.IntRange(1), help="Number of scenes instead of the recipe's.")
@set_option
@workers_option
@dask_option
@maps_option
@gate_option
@click.option("--verify", is_flag=True, help="Compare every byte of finished units before going on, not only sizes.")
@click.option(
    "--retry-quarantined",
    is_flag=True,
    help="Try quarantined scenes again: of the draft, or of the version, as a new one.",
)
@click.option(
    "--cities",
    metavar="NAMES",
    help="Build only these, with commas between; all others are kept from the latest version as they are.",
)
def build(
    recipe: str,
    out: str,
    scenes: int | None,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
    passed: tuple[str, ...],
    verify: bool,
    retry_quarantined: bool,
    cities: str | None,
) -> None:
    """Build, validate and publish the dataset of a recipe. Resumes by itself.

    Scenes of the latest version whose inputs have not changed are kept. At the end it prints how many scenes were kept
    and how many traced, and why.
    """
    from wavecity.dataset.files import location, make_folder
    from wavecity.dataset.progress import say, stage
    from wavecity.dataset.reader import refuse_run_folder
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.store_tables import print_origins, print_shortfalls

    if scenes:
        overrides = (*overrides, f"area.scenes={scenes}")
    loaded = load_recipe(recipe, overrides)
    place = location(out)
    with nothing_left(place):
        make_folder(place)
        refuse_run_folder(place)
        folder = maps or import_extra("wavecity.flows.maps", "generate").map_folder(place)
        partial = import_extra("wavecity.flows.partial", "generate")
        named = tuple(partial.named_cities(loaded, [cities] if cities else [], "--cities"))
        every = verify or retry_quarantined or named
        version = None if every else import_extra("wavecity.flows.drafts", "generate").up_to_date(loaded, place, folder)
        if version:
            say(f"nothing to do: v{version.number} is of this recipe, map and code")
        else:
            import_extra("wavecity.flows.planning", "generate").refuse_missing_maps(loaded, folder, named)
            with stage("load Prefect"):
                pipeline = import_extra("wavecity.flows.pipeline", "generate")
            with import_extra("wavecity.flows.guard", "generate").no_orphans(), prefect_answers():
                again = {"retry_quarantined": retry_quarantined, "cities": named}
                version = pipeline.build_dataset(
                    loaded, out, workers, dask, maps, verify=verify, pass_gates=passed, **again
                )
    print_shortfalls(version.folder)
    print_origins(version.folder)
    click.echo(f"published v{version.number}: {version.data}")


@click.command(cls=SpokenCommand)
@recipe_argument
@click.option("--scene", "scene_id", required=True, help="Id of a tile that `wavecity plan` accepts.")
@click.option("--out", type=path, required=True, help="Folder to write.")
@set_option
@maps_option
def export(recipe: str, scene_id: str, out: Path, overrides: tuple[str, ...], maps: Path | None) -> None:
    """Write a scene of a recipe as Mitsuba XML and PLY (for sionna.rt.load_scene) and as glTF."""
    from wavecity.flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    scenes = import_extra("wavecity.flows.scenes", "generate")
    with tempfile.TemporaryDirectory() as cache:
        for written in scenes.export_scene(loaded, scene_id, out, maps or Path(cache)):
            click.echo(f"wrote {written}")


@click.command(
    cls=SpokenCommand,
    name="radio-map",
    examples=(
        ("wavecity radio-map quickstart --scene helsinki-0039 --out map.png", "path gain in cells of 1 m"),
        (
            "wavecity radio-map quickstart --scene helsinki-0039 --metric path_gain --metric los --out map.tif --out map.png",
            "for QGIS, and a picture",
        ),
    ),
)
@recipe_argument
@click.option("--scene", "scene_id", required=True, help="Id of a tile that `wavecity plan` accepts.")
@click.option(
    "--out", "files", type=path, required=True, multiple=True, help="FILE.png, .tif (GeoTIFF) or .npz; repeatable."
)
@click.option(
    "--metric", "metrics", multiple=True, type=click.Choice(RADIO_METRICS), help="Repeatable; default: path_gain."
)
@click.option("--spacing", type=float, default=1.0, show_default=True, help="Edge of a cell in m.")
@click.option("--height", type=float, default=1.5, show_default=True, help="Of the receivers above ground in m.")
@set_option
@maps_option
def radio_map(
    recipe: str,
    scene_id: str,
    files: tuple[Path, ...],
    metrics: tuple[str, ...],
    spacing: float,
    height: float,
    overrides: tuple[str, ...],
    maps: Path | None,
) -> None:
    """Radio map of a scene of a recipe: what a receiver has anywhere on the open ground."""
    from pydantic import ValidationError

    from wavecity.flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    settings = import_extra("wavecity.raytrace.radio_map_settings", "generate").RadioMapSettings
    try:
        grid = settings(spacing=spacing, height=height, metrics=list(metrics or ("path_gain",)))
    except ValidationError as error:
        problem = error.errors()[0]
        msg = f"--{problem['loc'][0]} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise InputError(msg) from error
    module = import_extra("wavecity.flows.radio_maps", "generate")
    with tempfile.TemporaryDirectory() as cache:
        found = module.write_radio_map(loaded, scene_id, grid, files, maps or Path(cache))
    click.echo(f"{scene_id}: {found.open.sum():,} of {found.open.size:,} cells are on open ground")
    for file in files:
        click.echo(f"wrote {file}")
