"""A store in other tools' formats, and theirs as a store: `export-dataset`, `import-dataset`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import click

from wavecity.flows.commands.options import address, path
from wavecity.flows.help import SpokenCommand
from wavecity.geo.errors import InputError

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


def numbers(option: str, given: tuple[str, ...]) -> list[int]:
    """Whole numbers from 0 on, as an option gives them."""
    for text in given:
        if not text.isdecimal():
            msg = f"{option} {text}: expected numbers from 0 on, separated by commas"
            raise InputError(msg)
    return [int(text) for text in given]


@click.command(
    "export-dataset",
    cls=SpokenCommand,
    examples=(
        ("wavecity export-dataset stores/helsinki --to deepmimo --out deepmimo_scenarios", "a scenario for each scene"),
        (
            "wavecity export-dataset stores/six --to hdf5 --out six-hdf5 --cities Berlin,Seoul --split test",
            "some scenes",
        ),
        (
            "wavecity export-dataset stores/cells --to deepmimo --out deepmimo_scenarios --bs 0,2",
            "of several base stations two",
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
@click.option("--bs", type=names, default=(), help="Numbers of base stations, 0,2 (default: all).")
@click.option("--fields", type=names, help="Arrays, for hdf5, mat and webdataset: csi,height,paths/gain.")
@click.option("--array", metavar="COLSxROWS[@SPACING]", help="Array of DeepMIMO's phases (default: the store's).")
def export_dataset(
    store: str,
    to: str,
    out: Path,
    cities: tuple[str, ...],
    splits: tuple[str, ...],
    scenes: tuple[str, ...],
    bs: tuple[str, ...],
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
        store,
        to,
        out,
        cities=cities,
        splits=splits,
        scenes=scenes,
        bs=numbers("--bs", bs),
        fields=fields,
        array=array,
        progress=bar,
    )
    if not done.written:
        say("nothing to do: the export is whole")
    click.echo(
        f"exported {done.scenes:,} scene{'s' * (done.scenes != 1)}, {done.users:,} users, {done.bytes / 1e6:,.1f} MB: {out}"
    )


@click.command(
    "import-dataset",
    cls=SpokenCommand,
    examples=(
        (
            "wavecity import-dataset deepmimo_scenarios/asu_campus_3p5 --out stores/asu --columns 8 --rows 8",
            "channels of an 8 x 8 array from its paths",
        ),
    ),
)
@click.argument("scenarios", metavar="SCENARIO...", nargs=-1, required=True, type=path)
@click.option("--out", type=address, required=True, help="Store: a folder, or a URL such as s3://bucket/store.")
@click.option("--transmitters", type=names, default=(), help="Numbers of transmitters, 0,2 (default: all).")
@click.option(
    "--links",
    is_flag=True,
    help="Transmitters of a scenario are base stations of one scene (default: each is a scene).",
)
@click.option("--columns", type=int, help="Antennas of the array along its horizontal axis (default: 32).")
@click.option("--rows", type=int, help="Antennas along its vertical axis (default: 32).")
@click.option("--spacing", type=float, help="Distance of neighbouring antennas in wavelengths (default: 0.5).")
@click.option("--azimuth", type=float, help="Boresight in degrees from east towards north (default: -90, south).")
@click.option("--downtilt", type=float, help="Degrees below the horizon (default: 0).")
@click.option("--max-paths", type=int, help="Strongest paths kept for a user (default: 32).")
@click.option("--users", type=int, help="At most so many users of a scene, drawn at random (default: all).")
@click.option("--reached", is_flag=True, help="Leave out users without a path, as those inside buildings.")
@click.option(
    "--carrier-phase",
    type=click.Choice(["auto", "included", "missing"]),
    help="Whether phases have the carrier's; auto: not where DeepMIMO converted them from Sionna.",
)
@click.option(
    "--interactions",
    type=click.Choice(["kinds", "positions"]),
    help="What is stored of a path's interactions; positions: where they are, too (default: kinds).",
)
@click.option("--tile-size", type=float, help="Edge of a scene's map in m (default: around all users).")
@click.option("--bs-position", nargs=3, type=float, metavar="X Y Z", help="Base station on the map, m.")
@click.option("--cells", type=int, help="Cells of the height map along an edge (default: 200).")
@click.option(
    "--split",
    type=click.Choice(["scene", "user", "test"]),
    help="Divide whole scenes, or each one's users; or all for test.",
)
@click.option("--validation", type=float, help="Share of scenes, or users, for validation (default: 0.1).")
@click.option("--test", type=float, help="Share of scenes, or users, for test (default: 0.1).")
@click.option("--licence", help="Licence of the data, for the metadata.")
@click.option("--attribution", help="Whom to name, for the metadata.")
@click.option("--seed", type=int, help="Of splits and drawn users (default: 0).")
def import_dataset(
    scenarios: tuple[Path, ...], out: str, transmitters: tuple[str, ...], links: bool, **given: object
) -> None:
    """Make a store of DeepMIMO v4 scenarios.

    SCENARIO is a scenario's folder, or a folder of scenarios. Scenarios that export-dataset wrote bring array, map,
    splits and base stations with them.
    """
    from wavecity.dataset.exchange.scenarios import import_scenarios
    from wavecity.dataset.progress import track

    options = {name: value for name, value in given.items() if value is not None and value is not False}
    version = import_scenarios(
        scenarios,
        out,
        options,
        transmitters=numbers("--transmitters", transmitters),
        links=links,
        progress=lambda units: track(units, "import", unit="units"),
    )
    click.echo(f"published v{version.number}: {version.data}")
