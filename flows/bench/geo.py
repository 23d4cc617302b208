"""`wavecity bench geo`: from a map to mesh and rasters, our way and in the manner of Geo2SigMap, on the same real tiles.

1. Every map is converted to its index, once; what that takes is told apart.
2. On every tile both pipelines run, warm, in turn, in this process: ours from the index (`build_scene`, with heights,
   overlaps, base station, users and all quality gates), the other one from the extract (`wavecity.flows.bench.geo_reference`).
"""

import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import osmium
from rich import box
from rich.table import Table

from wavecity.dataset.progress import say, track
from wavecity.flows.bench import geo_reference
from wavecity.flows.tables import console
from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError, SceneError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import Source, open_source
from wavecity.geo.tiles import Tile, grid, plan_tiles

# Above every id of OpenStreetMap.
ID_STEP = 20_000_000_000

SEED = 0
SCENE = SceneSettings()
PACKAGES = ("shapely", "geopandas", "osmium", "numpy", "triangle")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    tiles : int
        Tiles of each map; fewer where a map has not so many.
    maps : tuple of str
        `helsinki`, or paths of extracts.
    region : bool
        Both pipelines work from one extract into which all maps are merged, as from that of a region.
    reader : str
        How the reference reads: `osmium`, or `osmnx`, which takes complete `.osm` files only.
    copies : int
        With `region`: how often the maps are in the extract, side by side.
    """

    tiles: int
    maps: tuple[str, ...]
    region: bool = False
    reader: str = "osmium"
    copies: int = 1


def run(options: Options) -> dict[str, Any]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        A map cannot be read or has no usable tile.
    """
    if options.reader == "osmnx" and not options.region and not all(name.endswith(".osm") for name in options.maps):
        msg = f"--map {', '.join(options.maps)}: osmnx reads .osm files only; give such maps, or use --region"
        raise InputError(msg)
    rows: list[dict[str, Any]] = []
    convert = 0.0
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        opened = {name: convert_map(name, Path(folder) / "cache") for name in options.maps}
        tiles_of = {name: pick_tiles(name, source, options.tiles) for name, (_, source, _) in opened.items()}
        if options.region:
            suffix = ".osm" if options.reader == "osmnx" else ".osm.pbf"
            merged = merge([path for path, _, _ in opened.values()], Path(folder) / f"region{suffix}", options.copies)
            opened = dict.fromkeys(opened, convert_map(str(merged), Path(folder) / "cache"))
        for path, _, _ in opened.values():
            check_readable(path, options.reader)
        for path, seconds in {path: seconds for path, _, seconds in opened.values()}.items():
            convert, size = convert + seconds, size + path.stat().st_size
        for name, tiles in tiles_of.items():
            path, source, _ = opened[name]
            for tile in track(tiles, Path(name).name, unit="tiles"):
                row = compare_tile(tile, source, path, Path(folder) / "reference", options.reader)
                if row is not None:
                    rows.append(row)
    if not rows:
        msg = f"--map {', '.join(options.maps)}: no tile could be built; give an extract of a built-up area"
        raise InputError(msg)
    extra = {"convert_seconds": convert, "map_megabytes": size / 1e6}
    result = {**summary(rows), **extra, **_settings(options), "per_tile": rows}
    print_result(result)
    return result


def convert_map(name: str, cache: Path) -> tuple[Path, Source, float]:
    """Extract, its index, and the seconds that making the index took."""
    start = time.perf_counter()
    try:
        source = open_source(AreaSettings(source=name), cache)
    except InputError as error:
        # Errors name a recipe's field; here the map is an option.
        raise InputError(str(error).replace("area.source:", "--map", 1)) from error
    seconds = time.perf_counter() - start
    return find_helsinki() if name == "helsinki" else Path(name).expanduser(), source, seconds


def check_readable(path: Path, reader: str) -> None:
    """Raise InputError where the reference's reader fails on a map, as osmnx does on ways whose nodes were cut off."""
    try:
        geo_reference.read_buildings(path, reader)
    except Exception as error:
        msg = f"--map {path}: {reader} cannot read it ({type(error).__name__}: {error}); use --reader osmium"
        raise InputError(msg) from error


def merge(paths: list[Path], target: Path, copies: int) -> Path:
    """All extracts as one file, sorted; and copies of them, each a degree further east, to the size of a city's extract."""
    reader = osmium.MergeInputReader()
    for path in paths:
        reader.add_file(str(path))
    once = target.with_name(f"once-{target.name}")
    with osmium.SimpleWriter(str(once)) as writer:
        reader.apply(writer)
    with osmium.SimpleWriter(str(target)) as writer:
        for kind in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for copy in range(copies):
                first = copy * ID_STEP
                for item in osmium.FileProcessor(str(once), kind):
                    writer.add(_moved(item, first, copy))
    once.unlink()
    return target


def _moved(item: Any, first: int, degrees: int) -> Any:
    if item.is_node():
        return item.replace(id=item.id + first, location=(item.location.lon + degrees, item.location.lat))
    if item.is_way():
        return item.replace(id=item.id + first, nodes=[node.ref + first for node in item.nodes])
    members = [(member.type, member.ref + first, member.role) for member in item.members]
    return item.replace(id=item.id + first, members=members)


def pick_tiles(name: str, source: Source, count: int) -> list[Tile]:
    """Accepted tiles of a map, in a seeded random order's first `count`.

    Raises
    ------
    InputError
        The map is smaller than a tile or has no usable tile.
    """
    area = AreaSettings(source=name, city=Path(name).name.split(".")[0].capitalize(), country="XX", scenes=count)
    area = area.model_copy(update={"split": SplitSettings(by="scene")})
    tiles = [tile for tile in plan_tiles(source, area, SCENE, SEED) if tile.status == "accepted"]
    if not tiles:
        msg = f"--map {name}: none of its {len(grid(source, area))} tiles is usable; give an extract of a built-up area"
        raise InputError(msg)
    return tiles


def compare_tile(tile: Tile, source: Source, path: Path, folder: Path, reader: str) -> dict[str, Any] | None:
    """Both pipelines on one tile, after a run of each that is not counted: ours, the other, ours; None if it has no scene."""

    def ours() -> int:
        return len(build_scene(tile, source, SCENE, UserSettings(), SEED).buildings)

    def reference() -> int:
        return geo_reference.build_tile(path, tile.latitude, tile.longitude, tile.size, folder / tile.id, reader)

    try:
        ours()
    except SceneError as error:
        say(f"{tile.id}: left out: {error}")
        return None
    reference()
    first, n_ours = _timed(ours)
    seconds_reference, n_reference = _timed(reference)
    second, _ = _timed(ours)
    seconds_read, _ = _timed(lambda: len(geo_reference.read_buildings(path, reader)))
    seconds_ours = (first + second) / 2
    return {
        "tile": tile.id,
        "map": path.name,
        "buildings_ours": n_ours,
        "buildings_reference": n_reference,
        "seconds_ours": seconds_ours,
        "seconds_reference": seconds_reference,
        "seconds_reference_reading": seconds_read,
        "speedup": seconds_reference / seconds_ours,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all tiles; speeds are those of one process."""
    of = {key: np.array([row[key] for row in rows]) for key in rows[0] if key not in ("tile", "map")}
    ours, reference, reading = of["seconds_ours"], of["seconds_reference"], of["seconds_reference_reading"]
    return {
        "tiles": len(rows),
        "speedup": float(reference.sum() / ours.sum()),
        "speedup_median": float(np.median(reference / ours)),
        "speedup_min": float((reference / ours).min()),
        # What would be left if the other pipeline did not read the extract for every tile.
        "speedup_without_reading": float((reference - reading).sum() / ours.sum()),
        "tiles_per_second": float(len(rows) / ours.sum()),
        "buildings_per_second": float(of["buildings_ours"].sum() / ours.sum()),
        "tiles_per_second_reference": float(len(rows) / reference.sum()),
        "buildings_per_second_reference": float(of["buildings_reference"].sum() / reference.sum()),
        "seconds_median": float(np.median(ours)),
        "seconds_median_reference": float(np.median(reference)),
    }


def print_result(result: dict[str, Any]) -> None:
    """Table of the tiles, and the figures of all."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("tile", "map"):
        table.add_column(name)
    for name in ("buildings", "ours ms", "reference ms", "of that reading", "speed-up"):
        table.add_column(name, justify="right")
    for row in result["per_tile"]:
        table.add_row(
            row["tile"],
            row["map"],
            str(row["buildings_ours"]),
            f"{1000 * row['seconds_ours']:.0f}",
            f"{1000 * row['seconds_reference']:.0f}",
            f"{1000 * row['seconds_reference_reading']:.0f}",
            f"{row['speedup']:.1f}x",
        )
    console.print(table)
    figures = {
        "speed-up": f"{result['speedup']:.1f}x in all, median {result['speedup_median']:.1f}x, least "
        f"{result['speedup_min']:.1f}x; {result['speedup_without_reading']:.1f}x without reading the extract",
        "ours": f"{result['tiles_per_second']:.1f} tiles/s, {result['buildings_per_second']:.0f} buildings/s "
        "in one process, with base station, users and quality gates",
        "reference": f"{result['tiles_per_second_reference']:.2f} tiles/s, "
        f"{result['buildings_per_second_reference']:.0f} buildings/s",
        "conversion": f"{result['convert_seconds']:.2f} s, once for all tiles of {result['map_megabytes']:.1f} MB of maps",
    }
    for name, text in figures.items():
        console.print(f"{name:12} {text}")


def _timed(call: Callable[[], int]) -> tuple[float, int]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def _settings(options: Options) -> dict[str, Any]:
    return {
        "tiles_per_map": options.tiles,
        "region": options.region,
        "copies": options.copies,
        "reader": options.reader,
        "maps": ", ".join(Path(name).name for name in options.maps),
        "seed": SEED,
        "machine": platform.machine(),
        "version_python": platform.python_version(),
        **{f"version_{name}": metadata.version(name) for name in PACKAGES},
    }
