"""A store in other tools' formats, and theirs as a store: `export-dataset`, `import-dataset`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import click

from wavecity.flows.commands.options import address, path
from wavecity.flows.help import SpokenCommand

Item = TypeVar("Item")


class Names(click.ParamType):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Return the names."""
        if isinstance(value, tuple):
            return value
        return tuple(name.strip() for name in str(value).split(",") if name.strip())


names = Names()


@click.command(
    "export-dataset",
    cls=SpokenCommand,
    examples=(
        ("wavecity export-dataset stores/helsinki --to deepmimo --out deepmimo_scenarios", "a scenario for each scene"),
        (
            "wavecity export-dataset stores/six --to hdf5 --out six-hdf5 --cities Berlin,Seoul --split test",
            "some scenes",
        ),
    ),
)
@click.argument("store", type=address)
@click.option(
    "--to",
    required=True,
    type=click.Choice(["deepmimo", "deepmimo-v3", "hdf5", "mat", "webdataset"]),
    help="Format; deepmimo is version 4.",
)
@click.option("--out", type=path, required=True, help="Folder to write: new, empty, or of the same export.")
@click.option("--cities", type=names, default=(), help="Names, separated by commas (default: all).")
@click.option("--split", "splits", type=names, default=(), help="train, validation, test, or several (default: all).")
@click.option("--scenes", type=names, default=(), help="Ids of scenes, separated by commas (default: all).")
@click.option("--fields", type=names, help="Arrays, for hdf5, mat and webdataset: csi,height,paths/gain.")
@click.option("--array", metavar="COLSxROWS[@SPACING]", help="Array of DeepMIMO's phases (default: the store's).")
def export_dataset(
    store: str,
    to: str,
    out: Path,
    cities: tuple[str, ...],
    splits: tuple[str, ...],
    scenes: tuple[str, ...],
    fields: tuple[str, ...] | None,
    array: str | None,
) -> None:
    """Write a dataset in another tool's format: DeepMIMO scenarios, HDF5, MATLAB files, WebDataset shards.

    Given again it goes on where it was killed. A README.md in the folder says how to read it.
    """
    from wavecity.dataset.exchange import exporter
    from wavecity.dataset.progress import say, track

    def bar(items: Iterable[Item]) -> Iterable[Item]:
        return track(items, f"write {to}", unit="files" if to in ("hdf5", "mat", "webdataset") else "scenarios")

    done = exporter.export_dataset(
        store, to, out, cities=cities, splits=splits, scenes=scenes, fields=fields, array=array, progress=bar
    )
    if not done.written:
        say("nothing to do: the export is whole")
    click.echo(f"exported {done.scenes:,} scenes, {done.users:,} users, {done.bytes / 1e6:,.1f} MB: {out}")
