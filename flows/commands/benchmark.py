"""`wavecity benchmark ...`: any encoder on the downstream tasks, and the table of results."""

from pathlib import Path

import click

from wavecity.flows.commands.options import address, import_extra, path
from wavecity.flows.help import GroupedCommands, SpokenCommand


@click.group(
    cls=GroupedCommands,
    examples=(
        (
            "wavecity benchmark run my_package:MyEncoder --data stores/six --out results/mine.json",
            "an encoder of your own; again goes on where it ended",
        ),
        ("wavecity benchmark run runs/quickstart --data stores/six --out results/ours.json", "a run"),
        ("wavecity benchmark table results/*.json", "all of them next to each other"),
    ),
)
def benchmark() -> None:
    """Compare encoders, yours and ours, on the downstream tasks under frozen settings."""


@benchmark.command("run", cls=SpokenCommand)
@click.argument("encoder")
@click.option("--data", type=address, required=True, help="Dataset: a folder or a URL.")
@click.option("--out", type=path, required=True, help="Results file, JSON. Tasks that it holds are not run again.")
@click.option("--task", "tasks", multiple=True, metavar="TASK", help="Only this task; repeatable.")
@click.option("--name", help="What tables call the encoder (default: that of its class or run).")
@click.option("--any-cities", is_flag=True, help="On a dataset of other cities than the benchmark's.")
@click.option("--protocol", type=path, help="Settings of your own: a file of the form of benchmark.yaml.")
@click.option("--overwrite", is_flag=True, help="Replace results of something else in the file.")
def benchmark_run(
    encoder: str,
    data: str,
    out: Path,
    tasks: tuple[str, ...],
    name: str | None,
    any_cities: bool,
    protocol: Path | None,
    overwrite: bool,
) -> None:
    """Train heads on an encoder's frozen features and measure them on unseen users and scenes.

    ENCODER is package.module:name, a class with a method embed(batch), or a run, or a model on the Hugging Face Hub. The
    results file says which dataset, settings and encoder it is of; those of something else are refused.
    """
    module = import_extra("wavecity.model.benchmark.protocol", "train")
    run = import_extra("wavecity.model.benchmark.run", "train").benchmark
    tables_of = import_extra("wavecity.model.benchmark.table", "train").tables_of
    settings = module.shipped_protocol() if protocol is None else module.read_protocol(protocol)
    if any_cities:
        settings = settings.model_copy(update={"cities": None})
    result = run(encoder, data, tasks or None, out, protocol=settings, name=name, overwrite=overwrite)
    click.echo(tables_of([result]), nl=False)


@benchmark.command("table", cls=SpokenCommand)
@click.argument("files", nargs=-1, required=True, type=path, metavar="FILE...")
@click.option("--into", type=path, help="Page in Markdown whose table of before is replaced, instead of printing it.")
def benchmark_table(files: tuple[Path, ...], into: Path | None) -> None:
    """Make tables in Markdown of results files of one benchmark and one dataset."""
    module = import_extra("wavecity.model.benchmark.table", "train")
    text = module.tables(files)
    if into is None:
        click.echo(text, nl=False)
    else:
        module.write_tables(into, text)
        click.echo(f"wrote {into}")
