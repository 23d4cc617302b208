"""`wavecity bench geo`: from a map to mesh and rasters, compared with a pipeline in the manner of Geo2SigMap.

1. Every map is converted to its index, once; the time for that is reported separately.
2. On every tile both pipelines run, warm, in turn, in this process: ours from the index (`build_scene`, with heights,
   overlaps, base station, users and all quality gates), the reference from the extract
   (`wavecity.flows.bench.geo_reference`).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import osmium
from osmium.osm import Node, Relation, Way, mutable
from osmium.osm.types import OSMEntity

from wavecity.dataset.progress import say, track
from wavecity.flows.bench import geo_reference
from wavecity.flows.bench.measure import area_of, environment, named_by_option, print_figures, table_of, timed
from wavecity.flows.console import console
from wavecity.geo.build import build_scene
from wavecity.geo.errors import InputError, SceneError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.settings import AreaSettings, SceneSettings, UserSettings
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


class TileFigures(TypedDict):
    """Figures of one tile: an entry of `per_tile`."""

    tile: str
    map: str
    buildings_ours: int
    buildings_reference: int
    seconds_ours: float
    seconds_reference: float
    seconds_reference_reading: float
    speedup: float


class Figures(TypedDict):
    """Figures of all tiles, those of one process."""

    tiles: int
    speedup: float
    speedup_median: float
    speedup_min: float
    # As if the reference did not read the extract for every tile.
    speedup_without_reading: float
    tiles_per_second: float
    buildings_per_second: float
    tiles_per_second_reference: float
    buildings_per_second_reference: float
    seconds_median: float
    seconds_median_reference: float
    # Making the index of all maps, once.
    convert_seconds: float
    map_megabytes: float


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        A map cannot be read or has no usable tile.
    """
    if options.reader == "osmnx" and not options.region and not all(name.endswith(".osm") for name in options.maps):
        msg = f"--map {', '.join(options.maps)}: osmnx reads .osm files only; give such maps, or use --region"
        raise InputError(msg)
    rows: list[TileFigures] = []
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
    figures = summary(rows, convert, size)
    print_result(figures, rows)
    return {
        **figures,
        "tiles_per_map": options.tiles,
        "region": options.region,
        "copies": options.copies,
        "reader": options.reader,
        "maps": ", ".join(Path(name).name for name in options.maps),
        "seed": SEED,
        **environment(*PACKAGES),
        "per_tile": rows,
    }


def convert_map(name: str, cache: Path) -> tuple[Path, Source, float]:
    """Extract, its index, and the seconds that making the index took."""
    with named_by_option():
        source, seconds = timed(lambda: open_source(AreaSettings(source=name), cache))
    return find_helsinki() if name == "helsinki" else Path(name).expanduser(), source, seconds


def check_readable(path: Path, reader: str) -> None:
    """Raise InputError if the reference cannot read a map: osmnx fails on ways whose nodes were cut off."""
    try:
        geo_reference.read_buildings(path, reader)
    except Exception as error:
        msg = f"--map {path}: {reader} cannot read it ({type(error).__name__}: {error}); use --reader osmium"
        raise InputError(msg) from error


def merge(paths: list[Path], target: Path, copies: int) -> Path:
    """Merge all extracts, sorted, with copies of them, each a degree further east, to the size of a city's extract."""
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


def _moved(item: OSMEntity, first: int, degrees: int) -> mutable.OSMObject:
    """An item with other ids and, if it is a node, some degrees further east."""
    if isinstance(item, Node):
        return item.replace(id=item.id + first, location=(item.location.lon + degrees, item.location.lat))
    if isinstance(item, Way):
        return item.replace(id=item.id + first, nodes=[node.ref + first for node in item.nodes])
    assert isinstance(item, Relation)
    members = [(member.type, member.ref + first, member.role) for member in item.members]
    return item.replace(id=item.id + first, members=members)


def pick_tiles(name: str, source: Source, count: int) -> list[Tile]:
    """The first `count` accepted tiles of a map in a seeded random order.

    Raises
    ------
    InputError
        The map is smaller than a tile or has no usable tile.
    """
    area = area_of(name, count)
    tiles = [tile for tile in plan_tiles(source, area, SCENE, SEED) if tile.status == "accepted"]
    if not tiles:
        msg = f"--map {name}: none of its {len(grid(source, area))} tiles is usable; give an extract of a built-up area"
        raise InputError(msg)
    return tiles


def compare_tile(tile: Tile, source: Source, path: Path, folder: Path, reader: str) -> TileFigures | None:
    """Run ours, the reference, ours on one tile, after a warm-up run of each; None if the tile has no scene."""

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
    n_ours, first = timed(ours)
    n_reference, seconds_reference = timed(reference)
    _, second = timed(ours)
    _, seconds_read = timed(lambda: geo_reference.read_buildings(path, reader))
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


def summary(rows: list[TileFigures], convert_seconds: float, map_bytes: int) -> Figures:
    """Figures of all tiles; speeds are those of one process."""
    ours = np.array([row["seconds_ours"] for row in rows])
    reference = np.array([row["seconds_reference"] for row in rows])
    reading = np.array([row["seconds_reference_reading"] for row in rows])
    return {
        "tiles": len(rows),
        "speedup": float(reference.sum() / ours.sum()),
        "speedup_median": float(np.median(reference / ours)),
        "speedup_min": float((reference / ours).min()),
        "speedup_without_reading": float((reference - reading).sum() / ours.sum()),
        "tiles_per_second": float(len(rows) / ours.sum()),
        "buildings_per_second": float(sum(row["buildings_ours"] for row in rows) / ours.sum()),
        "tiles_per_second_reference": float(len(rows) / reference.sum()),
        "buildings_per_second_reference": float(sum(row["buildings_reference"] for row in rows) / reference.sum()),
        "seconds_median": float(np.median(ours)),
        "seconds_median_reference": float(np.median(reference)),
        "convert_seconds": convert_seconds,
        "map_megabytes": map_bytes / 1e6,
    }


def print_result(result: Figures, rows: list[TileFigures]) -> None:
    """Table of the tiles, and the figures of all."""
    table = table_of(("tile", "map"), ("buildings", "ours ms", "reference ms", "of that reading", "speed-up"))
    for row in rows:
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
    print_figures(figures)
