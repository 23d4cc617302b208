"""`wavecity`: the command line. Exit codes: 0 done, 1 a check failed, 2 wrong input."""

import importlib
import importlib.util
import os
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from flows.bench.commands import bench
from flows.options import import_extra, path, set_option
from geo.errors import InputError
from model.task_names import TASKS

# Quiet and offline unless the user says otherwise; must be set before Prefect is imported.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A failed flow prints its error once, below; the server's own logs would only repeat it.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

recipe_argument = click.argument("recipe")
workers_option = click.option("--workers", type=click.IntRange(1), help="Worker processes (default: one a core).")
dask_option = click.option("--dask", metavar="ADDRESS", help="Scheduler of a running Dask cluster instead.")


class StoreAddress(click.ParamType):
    """A folder, or a URL on object storage."""

    name = "store"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """Keep it as it was written: a path type would make `s3:/` of `s3://`."""
        return str(value)


address = StoreAddress()
maps_option = click.option("--maps", type=path, help="Folder of fetched maps, shared by stores (default: STORE/maps).")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="wavecity", prog_name="wavecity")
def cli() -> None:
    """City maps in, wireless foundation models out.

    RECIPE is a shipped name (quickstart) or a YAML file. Map data © OpenStreetMap contributors, ODbL.
    """
    defaults = dict(DEFAULTS)
    if importlib.util.find_spec("prefect"):
        defaults["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = _own_database()
        if "PREFECT_API_URL" not in os.environ:
            # The server that Prefect starts for a run either answers at once or is gone; five retries are two minutes.
            defaults["PREFECT_CLIENT_MAX_RETRIES"] = "2"
    os.environ.update({key: value for key, value in defaults.items() if key not in os.environ})


@cli.command()
@recipe_argument
@click.option("--out", type=path, help="Run folder (default: runs/<recipe>).")
@set_option
@workers_option
@dask_option
@maps_option
def run(
    recipe: str,
    out: Path | None,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
) -> None:
    """The whole DAG: build, validate, publish, pretrain, evaluate, report. Resumes by itself."""
    from dataset.files import make_folder
    from flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    out = out or Path("runs") / loaded.name
    make_folder(out)
    pipeline = import_extra("flows.pipeline", "generate,train")
    with import_extra("flows.guard", "generate").no_orphans():
        result = pipeline.run_recipe(loaded, out, workers, dask, maps)
    click.echo(f"report  {result['report']}\nstore   {result['store']}")


@cli.command()
@recipe_argument
@set_option
@click.option("--maps", type=path, help="Folder of fetched maps (default: none, only maps that are local files).")
@click.option("--fetch", is_flag=True, help="Download maps that are not there (into --maps).")
@click.option("--tiles", "every", is_flag=True, help="List every tile, of several cities too.")
@click.option("--png", type=path, help="Picture to write: the cities on a map, or the tiles of one city.")
@click.option("--json", "json_path", type=path, help="File to write: every city and tile with its outcome.")
def plan(
    recipe: str,
    overrides: tuple[str, ...],
    maps: Path | None,
    fetch: bool,
    every: bool,
    png: Path | None,
    json_path: Path | None,
) -> None:
    """Cities and tiles of a recipe, each with its outcome.

    Where a map is not there, tiles are planned by their positions; nothing is downloaded without --fetch.
    """
    from dataset.files import write_json
    from flows.recipe import load_recipe
    from flows.tables import print_plan

    if fetch and maps is None:
        msg = "--fetch: where to? name a folder for the maps, e.g. --maps maps"
        raise InputError(msg)
    loaded = load_recipe(recipe, overrides)
    build = import_extra("flows.build", "generate")
    with tempfile.TemporaryDirectory() as cache:
        planned = build.show_plan(loaded, maps or Path(cache), fetch, _city_bar)
        print_plan(planned, every)
        if json_path:
            write_json(json_path, build.plan_record(planned))
            click.echo(f"wrote {json_path}")
        if png:
            click.echo(f"wrote {import_extra('flows.map_picture', 'generate').draw_plan(planned, png)}")


def _city_bar(cities: Any) -> Any:
    from tqdm import tqdm

    return tqdm(cities, "cities", unit="city", disable=len(cities) < 2)


@cli.command()
@recipe_argument
@click.option("--out", type=address, required=True, help="Store: a folder, or a URL such as s3://bucket/store.")
@click.option("--scenes", type=click.IntRange(1), help="Number of scenes instead of the recipe's.")
@set_option
@workers_option
@dask_option
@maps_option
@click.option("--verify", is_flag=True, help="Compare every byte of finished units before going on, not only sizes.")
def build(
    recipe: str,
    out: str,
    scenes: int | None,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
    verify: bool,
) -> None:
    """Build, validate and publish the dataset of a recipe. Resumes by itself.

    Scenes of the latest version whose inputs have not changed are kept; what was kept and what was traced, and why, is
    told at the end.
    """
    from dataset.files import location, make_folder
    from flows.recipe import load_recipe
    from flows.tables import print_origins

    if scenes:
        overrides = (*overrides, f"area.scenes={scenes}")
    loaded = load_recipe(recipe, overrides)
    make_folder(location(out))
    pipeline = import_extra("flows.pipeline", "generate")
    with import_extra("flows.guard", "generate").no_orphans():
        version = pipeline.build_dataset(loaded, out, workers, dask, maps, verify=verify)
    print_origins(version.folder)
    click.echo(f"published v{version.number}: {version.data}")


@cli.command()
@click.argument("store", type=address)
@workers_option
def validate(store: str, workers: int | None) -> None:
    """Check every byte, structure, physics and splits of a store; exit code 1 when something is wrong."""
    from tqdm import tqdm

    from dataset.reader import resolve
    from dataset.validate import processes
    from dataset.validate import validate as check
    from dataset.writer import load_draft
    from flows.tables import print_validation

    units = load_draft(resolve(store).parent).layout.units
    # A process takes some seconds to start: as long as it checks a few units.
    with processes(workers or min(os.cpu_count() or 1, units // 4)) as each:
        result = check(store, lambda parts: tqdm(parts, "validate", total=units, unit="unit"), each)
    print_validation(result)
    sys.exit(0 if result.ok else 1)


@cli.command()
@click.argument("store", type=address)
@click.option("--scenes", is_flag=True, help="List every scene: city, split, outcome, users, where it comes from.")
@click.option("--card", type=path, help="Copy the dataset card to FILE.html or .md, or its Croissant to .json.")
def inspect(store: str, scenes: bool, card: Path | None) -> None:
    """Sizes, scenes, cities, splits, height provenance, outcomes and lineage of a store."""
    from flows.tables import copy_card, print_scenes, print_store

    print_store(store)
    if scenes:
        print_scenes(store)
    if card:
        click.echo(f"wrote {copy_card(store, card)}")


@cli.command()
@click.argument("store", type=address)
@click.option("--scene", "scene_id", required=True, help="Id of the scene, e.g. helsinki-0007.")
@click.option("--out", type=path, required=True, help="FILE.png, .html (interactive, offline) or .glb (glTF).")
def preview(store: str, scene_id: str, out: Path) -> None:
    """Draw a scene of a store: buildings by source of height, base station, users, their strongest paths."""
    click.echo(f"wrote {import_extra('dataset.preview', 'generate').draw_scene(store, scene_id, out)}")


@cli.command()
@recipe_argument
@click.option("--scene", "scene_id", required=True, help="Id of a tile that `wavecity plan` accepts.")
@click.option("--out", type=path, required=True, help="Folder to write.")
@set_option
@maps_option
def export(recipe: str, scene_id: str, out: Path, overrides: tuple[str, ...], maps: Path | None) -> None:
    """Write a scene of a recipe as Mitsuba XML and PLY (for sionna.rt.load_scene) and as glTF."""
    from dataset.files import make_folder
    from flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    make_folder(out)
    module = import_extra("flows.build", "generate")
    with tempfile.TemporaryDirectory() as cache:
        for written in module.export_scene(loaded, scene_id, out, maps or Path(cache)):
            click.echo(f"wrote {written}")


@cli.command()
@click.argument("store", type=address)
def publish(store: str) -> None:
    """Publish the newest validated draft of a store."""
    from flows.tables import publish_newest

    version = publish_newest(store)
    click.echo(f"published v{version.number}: {version.data}")


@cli.command()
@recipe_argument
@click.option("--data", type=address, required=True, help="Store to train on: a folder or a URL.")
@click.option("--out", type=path, required=True, help="Run folder.")
@set_option
def pretrain(recipe: str, data: str, out: Path, overrides: tuple[str, ...]) -> None:
    """Pretrain the foundation model of a recipe on a store. Resumes by itself."""
    from dataset.files import write_json
    from flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    write_json(out / "recipe.json", loaded.model_dump(mode="json"))
    checkpoint = import_extra("model.pretrain", "train").pretrain(str(data), loaded.training, out, loaded.seed)
    click.echo(f"checkpoint {checkpoint}")


@cli.command()
@click.argument("run_folder", metavar="RUN", type=path)
@click.option(
    "--task", "name", required=True, type=click.Choice(TASKS), help="What to run; tables and figures go to RUN/results."
)
@click.option("--data", type=address, required=True, help="Store with held-out scenes: a folder or a URL.")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of the table.")
def evaluate(run_folder: Path, name: str, data: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Evaluate a pretrained run on held-out scenes, beside its baselines."""
    import json

    from flows.recipe import recipe_of_run
    from flows.tables import print_result

    recipe = recipe_of_run(run_folder, overrides)
    result = import_extra("model.tasks", "train").evaluate(run_folder, str(data), name, recipe.training, recipe.seed)
    if as_json:
        click.echo(json.dumps(result, indent=1))
    else:
        print_result(result, run_folder)


@cli.command("export-model")
@click.argument("run_folder", metavar="RUN", type=path)
@click.option("--out", type=path, required=True, help="File to write: .onnx, or .pt2 for torch.export.")
@click.option(
    "--csi", default=0.25, show_default=True, type=click.FloatRange(0, 1, min_open=True), help="Share of the CSI seen."
)
def export_model(run_folder: Path, out: Path, csi: float) -> None:
    """Write a run's encoder: channel and height map in, [PHYSC] and spatial spectrum out."""
    differences = import_extra("model.export", "train").export_model(run_folder, out, csi)
    largest = max(differences.values())
    click.echo(f"{out}: outputs equal the model's within {largest:.0e} of their RMS, for any batch size")


@cli.command()
@click.argument("run_folder", metavar="RUN", type=path)
@click.option("--data", type=address, help="Dataset of the pretraining, if it lies elsewhere now.")
def report(run_folder: Path, data: str | None) -> None:
    """Write RUN/report.html from what the run left."""
    click.echo(import_extra("model.report", "train").write_report(run_folder, data and str(data)))


cli.add_command(bench)


def _own_database() -> str:
    """Database of the server that Prefect starts for a run when none is configured.

    Prefect's own default is one file for all its versions, and a file that a newer one migrated stops an older one.
    """
    version = metadata.version("prefect")
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wavecity"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written, as in some containers
        folder = Path(tempfile.gettempdir())
    return f"sqlite+aiosqlite:///{folder / f'prefect-{version}.db'}"


def check_imports() -> None:
    """`dataset` and `model` are names that others use too: refuse to run with somebody else's package.

    Raises
    ------
    InputError
        A package of ours was imported from somewhere else.
    """
    home = Path(__file__).resolve().parents[1]
    for name in ("geo", "raytrace", "dataset", "model"):
        origin = Path(importlib.import_module(name).__file__ or "").resolve()
        if origin.parents[1] != home:
            msg = f"package {name!r} comes from {origin}, not from Wavecity in {home}; uninstall or rename the other"
            raise InputError(msg)


def main() -> None:
    """Entry point: user errors are one line and exit code 2, failed checks exit code 1."""
    try:
        check_imports()
        cli(standalone_mode=False)
    except InputError as error:
        _fail(str(error), 2)
    except click.exceptions.Abort:
        _fail("interrupted; run the same command again to go on", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on", 130)
    except Exception as error:
        if type(error).__name__ == "CheckFailed":
            _fail(str(error), 1)
        if type(error).__module__.startswith("httpx"):
            _fail(f"the Prefect server stopped answering ({error}); run the same command again to go on", 1)
        raise


def _fail(message: str, code: int) -> None:
    click.echo(f"wavecity: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
