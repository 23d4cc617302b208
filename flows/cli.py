"""`wavecity`: the command line. Exit codes: 0 done, 1 a check failed, 2 wrong input."""

import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from wavecity.flows.bench.commands import bench
from wavecity.flows.help import EvaluateCommand, GroupedCommands, RecipeName, SilentCommand, StoreAddress
from wavecity.flows.options import import_extra, path, set_option
from wavecity.geo.errors import InputError
from wavecity.model.settings.tasks import TASKS

# Quiet and offline unless the user says otherwise; must be set before Prefect is imported.
DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A failed flow prints its error once, below; the server's own logs would only repeat it.
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}

# In the message of a RuntimeError of Prefect's client.
UNREACHABLE = "Failed to reach API at"

recipe_argument = click.argument("recipe", type=RecipeName())
workers_option = click.option("--workers", type=click.IntRange(1), help="Worker processes (default: one a core).")
dask_option = click.option("--dask", metavar="ADDRESS", help="Scheduler of a running Dask cluster instead.")


address = StoreAddress()
overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace another training, and its results, that the run folder holds."
)
maps_option = click.option("--maps", type=path, help="Folder of fetched maps, shared by stores (default: STORE/maps).")


@click.group(
    cls=GroupedCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    # In the order in which a newcomer meets them.
    subjects={
        "Everything": ("run",),
        "Data": ("plan", "build", "import-channels", "validate", "publish", "inspect", "preview", "export"),
        "Models": ("pretrain", "evaluate", "report", "export-model"),
        "Help with these": ("recipe", "completion", "bench"),
    },
    examples=(
        ("wavecity run quickstart", "from a map of Helsinki to an evaluated model, in minutes"),
        ("wavecity plan pretrain-10k --png cities.png", "what a recipe would make, without making it"),
        ("wavecity build quickstart --out stores/helsinki", "only the dataset"),
        ("wavecity inspect stores/helsinki --scenes", "what is in it"),
        ("wavecity recipe quickstart solver", "keys for --set, with their values and meanings"),
    ),
)
@click.version_option(package_name="wavecity", prog_name="wavecity")
def cli() -> None:
    """City maps in, wireless foundation models out.

    RECIPE is a shipped name (quickstart) or a YAML file, STORE a folder or a URL (s3://bucket/store), RUN the folder of
    a run. `wavecity COMMAND --help` has options and examples. Map data © OpenStreetMap contributors, ODbL.
    """
    defaults = dict(DEFAULTS)
    if importlib.util.find_spec("prefect"):
        defaults["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = _own_database()
        if "PREFECT_API_URL" not in os.environ:
            # The server that Prefect starts for a run either answers at once or is gone; five retries are two minutes.
            defaults["PREFECT_CLIENT_MAX_RETRIES"] = "2"
    os.environ.update({key: value for key, value in defaults.items() if key not in os.environ})


@cli.command(
    examples=(
        ("wavecity run quickstart", "into runs/quickstart; given again it goes on, or finds all done"),
        (
            "wavecity run quickstart --out runs/mine --set area.source=mycity.osm.pbf --set area.city=Mycity",
            "another map",
        ),
    )
)
@recipe_argument
@click.option("--out", type=path, help="Run folder (default: runs/<recipe>).")
@set_option
@workers_option
@dask_option
@maps_option
@overwrite_option
def run(
    recipe: str,
    out: Path | None,
    overrides: tuple[str, ...],
    workers: int | None,
    dask: str | None,
    maps: Path | None,
    overwrite: bool,
) -> None:
    """The whole DAG: build, validate, publish, pretrain, evaluate, report. Resumes by itself.

    A run folder belongs to one recipe: with other data or another training it is refused, --overwrite replaces it.
    """
    from wavecity.dataset.files import make_folder
    from wavecity.dataset.progress import say
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.run_checks import refuse_other_run
    from wavecity.flows.tables import print_run

    loaded = load_recipe(recipe, overrides)
    out = out or Path("runs") / loaded.name
    if not overwrite:
        refuse_other_run(loaded, out)
    make_folder(out)
    if not overwrite and import_extra("wavecity.flows.finished", "generate").find(loaded, out, maps):
        say("nothing to do: recipe, maps, code and results are those of the run that is there")
    else:
        _warn_of(loaded)
        say("starting Prefect")
        pipeline = import_extra("wavecity.flows.pipeline", "generate,train")
        with import_extra("wavecity.flows.guard", "generate").no_orphans(), _prefect_answers():
            pipeline.run_recipe(loaded, out, workers, dask, maps, overwrite)
    print_run(out)


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
    from wavecity.dataset.files import write_json
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.tables import print_plan

    if fetch and maps is None:
        msg = "--fetch: where to? name a folder for the maps, e.g. --maps maps"
        raise InputError(msg)
    loaded = load_recipe(recipe, overrides)
    build = import_extra("wavecity.flows.build", "generate")
    _warn_of(loaded)
    with tempfile.TemporaryDirectory() as cache:
        planned = build.show_plan(loaded, maps or Path(cache), fetch, _city_bar)
        print_plan(planned, every)
        if json_path:
            write_json(json_path, build.plan_record(planned))
            click.echo(f"wrote {json_path}")
        if png:
            click.echo(f"wrote {import_extra('wavecity.flows.map_picture', 'generate').draw_plan(planned, png)}")


def _warn_of(recipe: Any, sizes: Any = None) -> None:
    """Say before anything starts which tasks will not be possible."""
    from wavecity.flows.run_checks import warnings_of

    for warning in warnings_of(recipe, sizes):
        click.echo(f"warning: {warning}", err=True)


def _city_bar(cities: Any) -> Any:
    from wavecity.dataset.progress import track

    return track(cities, "plan", unit="cities")


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
    from wavecity.dataset.files import location, make_folder
    from wavecity.dataset.progress import say
    from wavecity.dataset.reader import refuse_run_folder
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.tables import print_origins

    if scenes:
        overrides = (*overrides, f"area.scenes={scenes}")
    loaded = load_recipe(recipe, overrides)
    place = location(out)
    make_folder(place)
    refuse_run_folder(place)
    folder = maps or import_extra("wavecity.flows.maps", "generate").map_folder(place)
    version = None if verify else import_extra("wavecity.flows.build", "generate").up_to_date(loaded, place, folder)
    if version:
        say(f"nothing to do: v{version.number} is of this recipe, map and code")
    else:
        say("starting Prefect")
        pipeline = import_extra("wavecity.flows.pipeline", "generate")
        with import_extra("wavecity.flows.guard", "generate").no_orphans(), _prefect_answers():
            version = pipeline.build_dataset(loaded, out, workers, dask, maps, verify=verify)
    print_origins(version.folder)
    click.echo(f"published v{version.number}: {version.data}")


@cli.command()
@click.argument("store", type=address)
@workers_option
def validate(store: str, workers: int | None) -> None:
    """Check every byte, structure, physics and splits of a store; exit code 1 when something is wrong."""
    from wavecity.dataset.checks.validate import processes
    from wavecity.dataset.checks.validate import validate as check
    from wavecity.dataset.progress import track
    from wavecity.dataset.reader import resolve
    from wavecity.dataset.writer import load_draft
    from wavecity.flows.tables import print_validation

    units = load_draft(resolve(store).parent).layout.units
    # A process takes some seconds to start: as long as it checks a few units.
    with processes(workers or min(os.cpu_count() or 1, units // 4)) as each:
        result = check(store, lambda parts: track(parts, "validate", units, "units"), each)
    print_validation(result)
    sys.exit(0 if result.ok else 1)


@cli.command()
@click.argument("store", type=address)
@click.option("--scenes", is_flag=True, help="List every scene: city, split, outcome, users, where it comes from.")
@click.option("--card", type=path, help="Copy the dataset card to FILE.html or .md, or its Croissant to .json.")
def inspect(store: str, scenes: bool, card: Path | None) -> None:
    """Sizes, scenes, cities, splits, height provenance, outcomes and lineage of a store."""
    from wavecity.flows.tables import copy_card, print_scenes, print_store

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
    click.echo(f"wrote {import_extra('wavecity.dataset.preview.output', 'generate').draw_scene(store, scene_id, out)}")


@cli.command()
@recipe_argument
@click.option("--scene", "scene_id", required=True, help="Id of a tile that `wavecity plan` accepts.")
@click.option("--out", type=path, required=True, help="Folder to write.")
@set_option
@maps_option
def export(recipe: str, scene_id: str, out: Path, overrides: tuple[str, ...], maps: Path | None) -> None:
    """Write a scene of a recipe as Mitsuba XML and PLY (for sionna.rt.load_scene) and as glTF."""
    from wavecity.dataset.files import make_folder
    from wavecity.flows.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    make_folder(out)
    module = import_extra("wavecity.flows.build", "generate")
    with tempfile.TemporaryDirectory() as cache:
        for written in module.export_scene(loaded, scene_id, out, maps or Path(cache)):
            click.echo(f"wrote {written}")


@cli.command()
@click.argument("store", type=address)
def publish(store: str) -> None:
    """Publish the newest validated draft of a store."""
    from wavecity.flows.tables import publish_newest

    version = publish_newest(store)
    click.echo(f"published v{version.number}: {version.data}")


@cli.command("import-channels")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=path)
@click.option("--out", type=address, required=True, help="Store: a folder, or a URL such as s3://bucket/store.")
@click.option("--frequency", required=True, type=float, help="Carrier in Hz, e.g. 28.5e9.")
@click.option("--spacing", type=float, help="Distance of neighbouring antennas in wavelengths (default: 0.5).")
@click.option("--azimuth", type=float, help="Boresight in degrees from east towards north (default: -90, south).")
@click.option("--tile-size", type=float, help="Edge of a scene's map in m (default: 200).")
@click.option(
    "--bs-position",
    nargs=3,
    type=float,
    metavar="X Y Z",
    help="Base station on the map, m (default: middle of its north edge).",
)
@click.option(
    "--split",
    type=click.Choice(["scene", "user", "test"]),
    help="Divide whole scenes, or each one's users; or all for test.",
)
@click.option("--validation", type=float, help="Share of scenes, or users, for validation (default: 0.1).")
@click.option("--test", type=float, help="Share of scenes, or users, for test (default: 0.1).")
@click.option("--normalised", is_flag=True, help="The channels' level means nothing.")
@click.option("--licence", help="Licence of the data, for the metadata.")
@click.option("--attribution", help="Whom to name, for the metadata.")
@click.option("--seed", type=int, help="Of the division into splits (default: 0).")
def import_channels(files: tuple[Path, ...], out: str, **given: Any) -> None:
    """Make a store of channels of your own.

    FILE is an .npz with csi, user_position and more; docs/howto/own-channels.md has the layout.
    """
    from pydantic import ValidationError

    from wavecity.dataset.importing import importer
    from wavecity.dataset.progress import track

    try:
        settings = importer.ImportSettings.model_validate(
            {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--" + str(problem["loc"][0]).replace("_", "-")
        msg = f"{option} {problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
        raise InputError(msg) from error
    version = importer.import_channels(files, out, settings, lambda units: track(units, "import", unit="units"))
    click.echo(f"published v{version.number}: {version.data}")


@cli.command()
@recipe_argument
@click.option("--data", type=address, required=True, help="Store to train on: a folder or a URL.")
@click.option("--out", type=path, required=True, help="Run folder.")
@click.option(
    "--init-from",
    type=path,
    help="Run or checkpoint whose weights to start from (training.init_from), not its optimiser.",
)
@set_option
@overwrite_option
def pretrain(
    recipe: str, data: str, out: Path, init_from: Path | None, overrides: tuple[str, ...], overwrite: bool
) -> None:
    """Pretrain the foundation model of a recipe on a store. Resumes by itself.

    A run folder belongs to one training: with other settings or data it is refused, --overwrite replaces it.
    """
    import json

    from wavecity.dataset.files import make_folder, write_json
    from wavecity.dataset.progress import stage
    from wavecity.flows.recipe import load_recipe

    if init_from is not None:
        # Whole, so that the command can be given again from another folder; as JSON, which is YAML for any name.
        overrides = (*overrides, f"training.init_from={json.dumps(str(init_from.resolve()))}")
    loaded = load_recipe(recipe, overrides)
    module = import_extra("wavecity.model.training.pretrain", "train")
    _warn_of(loaded, import_extra("wavecity.model.data.feasible", "train").sizes_of(data))
    if not overwrite:  # before the recipe of what is there is replaced
        module.refuse_other_training(out, loaded.training, loaded.seed, module.dataset_version(data))
    make_folder(out)
    write_json(out / "recipe.json", loaded.model_dump(mode="json"))
    with stage("pretrain"):
        checkpoint = module.pretrain(data, loaded.training, out, loaded.seed, overwrite)
    click.echo(f"checkpoint {checkpoint}")


@cli.command(
    cls=EvaluateCommand,
    examples=(
        (
            "wavecity evaluate runs/quickstart --task localization --data runs/quickstart/store",
            "on its own test scenes",
        ),
        ("wavecity evaluate runs/quickstart --task mu-mimo --data stores/mu-mimo --json > mu-mimo.json", "all values"),
    ),
)
@click.argument("run_folder", metavar="RUN", type=path)
@click.option(
    "--task",
    "name",
    metavar="TASK",
    required=True,
    type=click.Choice(TASKS),
    help="What to run, of the list below; tables and figures go to RUN/results.",
)
@click.option("--data", type=address, required=True, help="Store with held-out scenes: a folder or a URL.")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of the table.")
def evaluate(run_folder: Path, name: str, data: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Evaluate a pretrained run on held-out scenes, compared with its baselines.

    Results with the run's own settings go into the report. Those with --set are kept under names of their own.
    """
    import json

    from wavecity.dataset.progress import stage
    from wavecity.flows.recipe import recipe_of_run
    from wavecity.flows.tables import print_result

    recipe, own = recipe_of_run(run_folder, overrides), recipe_of_run(run_folder)
    with stage(f"evaluate {name}"):
        evaluate = import_extra("wavecity.model.tasks.evaluate", "train").evaluate
        result = evaluate(run_folder, data, name, recipe.training, recipe.seed, own=(own.training, own.seed))
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
    differences = import_extra("wavecity.model.training.export", "train").export_model(run_folder, out, csi)
    largest = max(differences.values())
    click.echo(f"{out}: outputs equal the model's within {largest:.0e} of their RMS, for any batch size")


@cli.command()
@click.argument("run_folder", metavar="RUN", type=path)
@click.option("--data", type=address, help="Dataset of the pretraining, if it lies elsewhere now.")
def report(run_folder: Path, data: str | None) -> None:
    """Write RUN/report.html from what the run left."""
    click.echo(import_extra("wavecity.model.report.page", "train").write_report(run_folder, data and str(data)))


# Silent on standard error: a shell runs it at every start.
@cli.command(
    cls=SilentCommand,
    examples=(
        ('eval "$(wavecity completion bash)"', "in ~/.bashrc"),
        ('eval "$(wavecity completion zsh)"', "in ~/.zshrc"),
        ("wavecity completion fish > ~/.config/fish/completions/wavecity.fish", "once"),
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options, recipes and tasks in a shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "wavecity", "_WAVECITY_COMPLETE").source())


@cli.command(
    "recipe",
    cls=SilentCommand,
    examples=(
        ("wavecity recipe quickstart", "all keys"),
        ("wavecity recipe quickstart training.evaluation", "those of a section"),
    ),
)
@recipe_argument
@click.argument("section", default="")
@set_option
def show_recipe(recipe: str, section: str, overrides: tuple[str, ...]) -> None:
    """List the keys of a recipe with their values and meanings, all or those of a SECTION such as `solver`."""
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.tables import print_keys

    print_keys(load_recipe(recipe, overrides), section)


cli.add_command(bench)


@contextmanager
def _prefect_answers() -> Iterator[None]:
    """Say in one line that no Prefect server answers, where its client says it with a traceback."""
    try:
        yield
    except RuntimeError as error:
        url = os.environ.get("PREFECT_API_URL")
        if url is None or UNREACHABLE not in str(error):
            raise
        msg = f"PREFECT_API_URL={url}: no Prefect server answers there; start one with `prefect server start`, or unset it"
        raise InputError(msg) from error


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


def main() -> None:
    """Entry point: user errors are one line and exit code 2, failed checks exit code 1."""
    try:
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
        if type(error).__module__.startswith("httpx") or (
            isinstance(error, RuntimeError) and UNREACHABLE in str(error)
        ):
            _fail(f"the Prefect server stopped answering ({error}); run the same command again to go on", 1)
        raise


def _fail(message: str, code: int) -> None:
    click.echo(f"wavecity: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
