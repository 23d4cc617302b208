"""What there is to do with a store: `validate`, `describe`, `inspect`, `preview`, `publish`, `subset`, `import-channels`."""

import json
import os
import sys
from pathlib import Path

import click

from wavecity.flows.commands.options import address, gate_option, import_extra, path, workers_option
from wavecity.flows.help import SpokenCommand
from wavecity.geo.errors import InputError


@click.command(cls=SpokenCommand)
@click.argument("store", type=address)
@workers_option
def validate(store: str, workers: int | None) -> None:
    """Check every byte, structure, physics and splits of a store; exit code 1 when something is wrong."""
    from wavecity.dataset.checks.validate import processes
    from wavecity.dataset.checks.validate import validate as check
    from wavecity.dataset.draft import load_draft
    from wavecity.dataset.progress import track
    from wavecity.dataset.reader import resolve
    from wavecity.flows.store_tables import print_validation

    units = load_draft(resolve(store).parent).layout.units
    # A process takes some seconds to start: as long as it checks a few units.
    with processes(workers or min(os.cpu_count() or 1, units // 4)) as each:
        result = check(store, lambda parts: track(parts, "validate", units, "units"), each)
    print_validation(result)
    sys.exit(0 if result.ok else 1)


@click.command(cls=SpokenCommand)
@click.argument("store", type=address)
@click.option("--scenes", is_flag=True, help="List every scene: city, split, outcome, users, where it comes from.")
@click.option("--card", type=path, help="Copy the dataset card to FILE.html or .md, or its Croissant to .json.")
def inspect(store: str, scenes: bool, card: Path | None) -> None:
    """Sizes, scenes, cities, splits, height provenance, outcomes and lineage of a store."""
    from wavecity.flows.store_tables import copy_card, print_scenes, print_store

    print_store(store)
    if scenes:
        print_scenes(store)
    if card:
        click.echo(f"wrote {copy_card(store, card)}")


@click.command(
    cls=SpokenCommand,
    examples=(
        ("wavecity describe stores/helsinki", "arrays, splits, conventions and sizes, for people"),
        ("wavecity describe stores/helsinki --json | jq '.fields[].name'", "the same for programs"),
    ),
)
@click.argument("store", type=address)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--version", type=click.IntRange(1), help="Number of the version (default: the published one).")
def describe(store: str, as_json: bool, version: int | None) -> None:
    """What is in a store: fields with shapes, units and sizes, splits, conventions."""
    from wavecity.dataset.describe import describe as describe_store
    from wavecity.dataset.describe import description_text

    found = describe_store(store, version)
    click.echo(json.dumps(found, indent=1, ensure_ascii=False) if as_json else description_text(found))


@click.command(cls=SpokenCommand)
@click.argument("store", type=address)
@click.option("--scene", "scene_id", required=True, help="Id of the scene, e.g. helsinki-0007.")
@click.option("--out", type=path, required=True, help="FILE.png, .html (interactive, offline) or .glb (glTF).")
@click.option("--carrier", type=float, metavar="HZ", help="Of several carriers the one that is drawn, e.g. 28.5e9.")
@click.option("--port", metavar="NAME", help="Of several pairs of ports the one that is drawn, user/base station: H/V.")
@click.option(
    "--bs", type=click.IntRange(0), help="Of several base stations the one whose links are drawn (default: 0)."
)
def preview(store: str, scene_id: str, out: Path, carrier: float | None, port: str | None, bs: int | None) -> None:
    """Draw a scene of a store: buildings by source of height, crowns, base stations, users, their strongest paths."""
    output = import_extra("wavecity.dataset.preview.output", "generate")
    click.echo(f"wrote {output.draw_scene(store, scene_id, out, carrier, port, bs)}")


@click.command(cls=SpokenCommand)
@click.argument("store", type=address)
@gate_option
def publish(store: str, passed: tuple[str, ...]) -> None:
    """Publish the newest validated draft of a store, within the quality gates of its recipe."""
    from wavecity.flows.manual_publish import publish_newest

    version = publish_newest(store, passed)
    click.echo(f"published v{version.number}: {version.data}")


@click.command(
    cls=SpokenCommand,
    examples=(
        ("wavecity subset stores/world --cities Helsinki,Oslo --out stores/north", "two cities of it"),
        (
            "wavecity subset stores/world --split test --fields csi --out test",
            "its test scenes, without paths and spectra",
        ),
    ),
)
@click.argument("store", type=address)
@click.option("--out", type=address, required=True, help="Folder or URL of the new store.")
@click.option("--cities", multiple=True, metavar="NAMES", help="Scenes of these cities: Helsinki,Oslo; repeatable.")
@click.option("--split", "splits", multiple=True, metavar="NAMES", help="Scenes of these splits: train,validation.")
@click.option("--scenes", multiple=True, metavar="IDS", help="These scenes, by id or pattern: helsinki-0020,oslo-00??.")
@click.option(
    "--fields",
    multiple=True,
    metavar="NAMES",
    help="Of spectrum, paths, trajectory, radio_map and bs (several base stations) keep only these; all other arrays are in "
    "every store.",
)
@click.option("--carrier", type=float, metavar="HZ", help="Of several carriers only this one, e.g. 28.5e9.")
@click.option("--port", metavar="NAME", help="Of several pairs of ports only this one, user/base station: H/V.")
@click.option("--version", type=click.IntRange(1), help="Number of the version (default: the published one).")
def subset(
    store: str,
    out: str,
    cities: tuple[str, ...],
    splits: tuple[str, ...],
    scenes: tuple[str, ...],
    fields: tuple[str, ...],
    carrier: float | None,
    port: str | None,
    version: int | None,
) -> None:
    """Write a part of a store as a store of its own; continues where it was when killed."""
    from wavecity.dataset.files import folder_size
    from wavecity.dataset.progress import track

    made = import_extra("wavecity.dataset.importing.subset", "generate").subset(
        store,
        out,
        cities=_names(cities),
        splits=_names(splits),
        scenes=_names(scenes),
        fields=_names(fields),
        version=version,
        carrier=carrier,
        port=port,
        progress=lambda units: track(units, "subset", unit="units"),
    )
    click.echo(f"published v{made.number}, {folder_size(made.folder) / 1e6:.1f} MB: {made.data}")


def _names(given: tuple[str, ...]) -> list[str] | None:
    """Names separated by commas, of an option that may be repeated; None where it was not given."""
    return [name.strip() for part in given for name in part.split(",") if name.strip()] if given else None


@click.command("import-channels", cls=SpokenCommand)
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
def import_channels(files: tuple[Path, ...], out: str, **given: object) -> None:
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
