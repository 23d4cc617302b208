"""`wavecity`: the command line. Exit codes: 0 done, 1 a check failed, 2 wrong input."""

import errno
import sys
from collections.abc import Iterator

import click

from wavecity.flows.bench.commands import bench
from wavecity.flows.commands import backfill, build, exchange, models, recipes, store
from wavecity.flows.commands.benchmark import benchmark
from wavecity.flows.commands.explore import explore
from wavecity.flows.commands.prefect_start import set_defaults
from wavecity.flows.help import GroupedCommands
from wavecity.geo.errors import CommandFailed, InputError


@click.group(
    cls=GroupedCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    # In the order in which a newcomer meets them.
    subjects={
        "Everything": ("run",),
        "Data": (
            "plan",
            "build",
            "backfill",
            "import-channels",
            "validate",
            "publish",
            "describe",
            "inspect",
            "explore",
            "preview",
            "subset",
            "export",
            "radio-map",
            "export-dataset",
            "import-dataset",
        ),
        "Models": ("pretrain", "evaluate", "report", "benchmark", "export-model"),
        "Help with these": ("recipe", "completion", "bench"),
    },
    examples=(
        ("wavecity run quickstart", "from a map of Helsinki to an evaluated model, in minutes"),
        ("wavecity plan pretrain-10k --png cities.png", "what a recipe would make, without making it"),
        ("wavecity build quickstart --out stores/helsinki", "only the dataset"),
        ("wavecity inspect stores/helsinki --scenes", "what is in it"),
        ("wavecity explore stores/helsinki", "look at it in the browser: cities, scenes in 3D, channels"),
        ("wavecity recipe quickstart solver", "keys for --set, with their values and meanings"),
    ),
)
@click.version_option(package_name="wavecity", prog_name="wavecity")
def cli() -> None:
    """City maps in, wireless foundation models out.

    RECIPE is a shipped name (quickstart) or a YAML file, STORE a folder or a URL (s3://bucket/store), RUN the folder of
    a run. `wavecity COMMAND --help` has options and examples. Map data © OpenStreetMap contributors, ODbL.
    """
    set_defaults()


for command in (
    *(build.run, build.plan, build.build, backfill.backfill, build.export, build.radio_map),
    *(store.validate, store.describe, store.inspect, store.preview, store.publish, store.subset, store.import_channels),
    *(exchange.export_dataset, exchange.import_dataset),
    explore,
    *(models.pretrain, models.evaluate, models.report, models.export_model, benchmark),
    *(recipes.completion, recipes.show_recipe, bench),
):
    cli.add_command(command)


def main() -> None:
    """Entry point: user errors are one line and exit code 2, failed checks exit code 1."""
    try:
        cli(standalone_mode=False)
    except InputError as error:
        # A disk that fills is no wrong input, whoever found it.
        _fail(str(error), 2 if disk_that_is_full(error) is None else 1)
    except click.exceptions.Abort:
        _fail("interrupted; run the same command again to go on", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except KeyboardInterrupt:
        _fail("interrupted; run the same command again to go on", 130)
    except CommandFailed as error:
        _fail(str(error), 1)
    except Exception as error:
        if (where := disk_that_is_full(error)) is not None:
            _fail(f"the disk is full{where}; make room and run the same command again to go on", 1)
        from wavecity.dataset.files import outage  # not before: it takes zarr with it

        if found := next(filter(None, map(outage, causes(error))), ""):
            _fail(found, 1)
        raise


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those behind it."""
    seen: set[int] = set()
    rest = [error]
    while rest:
        one = rest.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        rest += [one.__cause__, one.__context__, *(one.exceptions if isinstance(one, BaseExceptionGroup) else ())]


def disk_that_is_full(error: BaseException | None) -> str | None:
    """Whether an error, or one behind it, is that of a full disk: ` (name of the file)`, or nothing where it has none."""
    for one in causes(error):
        full = isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left on device" in str(one) or "database or disk is full" in str(one):
            name = one.filename if isinstance(one, OSError) else None
            return f" ({name})" if name else ""
    return None


def _fail(message: str, code: int) -> None:
    """Print an error in one line and exit."""
    click.echo(f"wavecity: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
