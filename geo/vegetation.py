"""Trees and woods of a map, and the crowns of a scene: vertical cylinders of trees, prisms of woods."""

import contextlib
import itertools
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import geopandas as gpd
import numpy as np
import osmium
import shapely
from numpy.typing import NDArray
from osmium.osm import Area, Node, Way
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from wavecity.geo.boxes import read_box
from wavecity.geo.cities import City
from wavecity.geo.download import download_path
from wavecity.geo.errors import InputError
from wavecity.geo.extract import ExtractSource, find_helsinki, write_indexed
from wavecity.geo.height_texts import parse_length
from wavecity.geo.polygons import polygons
from wavecity.geo.projection import WGS84, cached_crs, project, turned, world_bounds
from wavecity.geo.rewriting import needs_sorting, rewritten
from wavecity.geo.scene import Scene, Vegetation
from wavecity.geo.sources import Source
from wavecity.geo.vegetation_settings import VegetationSettings, lacks_vegetation

Kind = Literal["tree", "row", "wood"]
# `tag`: height, or diameter_crown; `estimate`: est_height; `trunk`: from circumference; `height`: in proportion to a tagged
# height; `recipe`: the recipe's.
SizeSource = Literal["tag", "estimate", "trunk", "height", "recipe"]
KINDS, SIZE_SOURCES = get_args(Kind), get_args(SizeSource)

# Crowns are some 25 times as wide as their trunks at breast height: 24 to 27 for 400 free-standing trees of four species in
# two towns. A. Coombes, J. Martin, D. Slater, "Defining the allometry of stem and crown diameter of urban trees", Urban
# Forestry & Urban Greening 44, 126421, 2019.
CROWN_OF_TRUNK = 25.0
# m; what is tagged outside of these is a typing error, or in other units.
HEIGHTS, DIAMETERS, CIRCUMFERENCES = (1.0, 100.0), (0.5, 50.0), (0.1, 15.0)
# Of the prepared map: raise it when its table of vegetation changes.
VERSION = 1
# m around a tile in which trees may reach into it, and rows have their trees.
AROUND = 50.0
FILE = "vegetation.parquet"
COLUMNS = ["osm_type", "osm_id", "kind", "tags"]
BARE = "give an .osm or .osm.pbf extract, or set scene.vegetation to null"


@dataclass(frozen=True)
class Size:
    """Height and crown diameter of a tree in m, and where they come from."""

    height: float
    diameter: float
    height_source: SizeSource
    diameter_source: SizeSource


def tree_size(tags: Mapping[str, str], settings: VegetationSettings) -> Size:
    """Size of a tree, from its tags as far as they say it.

    Examples
    --------
    >>> tree_size({"height": "14 m", "circumference": "0.8"}, VegetationSettings())
    Size(height=14.0, diameter=6.366197723675814, height_source='tag', diameter_source='trunk')
    """
    height, height_source = _height(tags, settings.tree_height)
    if (crown := _length(tags.get("diameter_crown", ""), DIAMETERS)) is not None:
        return Size(height, crown, height_source, "tag")
    if (trunk := _length(tags.get("circumference", ""), CIRCUMFERENCES)) is not None:
        return Size(height, CROWN_OF_TRUNK * trunk / math.pi, height_source, "trunk")
    crown = settings.crown_diameter * height / settings.tree_height
    return Size(height, crown, height_source, "recipe" if height_source == "recipe" else "height")


def _height(tags: Mapping[str, str], otherwise: float) -> tuple[float, SizeSource]:
    """Height of a tree or wood."""
    names: tuple[tuple[str, SizeSource], ...] = (("height", "tag"), ("est_height", "estimate"))
    for key, kind in names:
        if (value := _length(tags.get(key, ""), HEIGHTS)) is not None:
            return value, kind
    return otherwise, "recipe"


def _length(text: str, limits: tuple[float, float]) -> float | None:
    """A tagged length in m, None unless it is within limits."""
    found = parse_length(text)
    return found[0] if found is not None and limits[0] <= found[0] <= limits[1] else None


def open_vegetation(source: Source, city: City, cache: Path) -> Source:
    """The same map with its trees and woods, read from the city's extract unless that has been done before.

    Parameters
    ----------
    source : Source
        As `open_city` gives it.
    city : City
    cache : Path
        Folder of maps.

    Raises
    ------
    InputError
        The map is no extract: answers of Overpass and Overture's buildings hold no trees. Or the cache cannot be written.
    """
    if lacks_vegetation(city.source) or not isinstance(source, ExtractSource):
        msg = f"scene.vegetation: {city.source}: holds no trees; {BARE}"
        raise InputError(msg)
    prepared = source.parquet.parent
    folder = prepared.with_name(f"{prepared.name}-vegetation{VERSION}")
    if not folder.is_dir():
        frame = read_vegetation(_extract_of(city, cache), (source.bounds[0] + source.bounds[2]) / 2)
        try:
            _write(frame, prepared, folder)
        except OSError as error:
            msg = f"cache: {folder.parent}: cannot be written ({error.strerror or error}); choose another output folder"
            raise InputError(msg) from error
    return source.moved(folder)


def _write(frame: gpd.GeoDataFrame, prepared: Path, folder: Path) -> None:
    """Copy a prepared map to a folder, with its vegetation; the folder appears whole or not at all."""
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        for file in prepared.iterdir():
            shutil.copyfile(file, draft / file.name)
        write_indexed(frame, draft / FILE)
        try:
            draft.rename(folder)
        except OSError:
            # Another process that was faster wrote the same.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract_of(city: City, cache: Path) -> Path:
    """File of a city's extract."""
    if city.source == "helsinki":
        return find_helsinki()
    return download_path(city.source, cache) if "://" in city.source else Path(city.source).expanduser()


def read_vegetation(path: Path, longitude: float = 0.0) -> gpd.GeoDataFrame:
    """Trees, rows of trees and woods of an extract.

    Parameters
    ----------
    path : Path
    longitude : float
        Longitudes are within half a turn of it, in degrees.

    Returns
    -------
    geopandas.GeoDataFrame
        osm_type, osm_id, kind (`KINDS`), tags (JSON text), geometry (WGS84: points, lines, areas).
    """
    if needs_sorting(path):
        with rewritten(path) as copy:
            rows = list(_read(copy))
    else:
        rows = list(_read(path))
    shapes = shapely.transform(
        np.array([row[4] for row in rows], dtype=object),
        lambda xy: np.column_stack([xy[:, 0] - 360 * np.round((xy[:, 0] - longitude) / 360), xy[:, 1]]),
    )
    return gpd.GeoDataFrame(
        {
            "osm_type": np.array([row[0] for row in rows], dtype=object),
            "osm_id": np.array([row[1] for row in rows], dtype=np.int64),
            "kind": np.array([row[2] for row in rows], dtype=object),
            "tags": np.array([json.dumps(row[3], sort_keys=True, ensure_ascii=False) for row in rows], dtype=object),
        },
        geometry=list(shapes),
        crs=WGS84,
    )


def _read(path: Path) -> Iterator[tuple[str, int, Kind, dict[str, str], BaseGeometry]]:
    """Elements of a sorted extract; of areas and rows that lack nodes, what can be built of them."""
    factory = osmium.geom.WKBFactory()
    wanted = osmium.filter.KeyFilter("natural", "landuse")
    for item in osmium.FileProcessor(str(path)).with_areas(wanted).with_filter(wanted):
        tags = dict(item.tags)
        natural = tags.get("natural")
        if isinstance(item, Node) and natural == "tree" and item.location.valid():
            yield "node", item.id, "tree", tags, shapely.Point(item.lon, item.lat)
        elif isinstance(item, Area) and (natural == "wood" or tags.get("landuse") == "forest"):
            # Rings that do not close or cross have no area.
            with contextlib.suppress(RuntimeError):
                shape = shapely.from_wkb(bytes.fromhex(factory.create_multipolygon(item)))
                yield "way" if item.from_way() else "relation", item.orig_id(), "wood", tags, shape
        elif isinstance(item, Way) and natural == "tree_row":
            places = [(node.lon, node.lat) if node.location.valid() else None for node in item.nodes]
            runs = [list(run) for known, run in itertools.groupby(places, lambda place: place is not None) if known]
            lines = [run for run in runs if len(run) > 1]
            if lines:
                yield "way", item.id, "row", tags, shapely.MultiLineString(lines)


def with_vegetation(scene: Scene, source: Source, settings: VegetationSettings | None) -> Scene:
    """The scene with the crowns of its tile; without settings the scene as it is.

    Parameters
    ----------
    scene : Scene
    source : Source
        As `open_vegetation` gives it.
    settings : VegetationSettings, optional

    Examples
    --------
    >>> with_vegetation(scene, source, VegetationSettings()).vegetation.crowns["kind"].value_counts().to_dict()
    {'tree': 121, 'row': 14}
    """
    if settings is None:
        return scene
    crowns = crowns_of(scene, source, settings)
    counts = {
        "crowns": {kind: int((crowns["kind"] == kind).sum()) for kind in KINDS},
        "heights": dict(sorted(Counter(crowns["height_source"]).items())),
        "diameters": dict(sorted(Counter(crowns["diameter_source"][crowns["kind"] != "wood"]).items())),
        "shapes": shapes_of(crowns),
    }
    vegetation = Vegetation(crowns, settings.attenuation, settings.largest_loss)
    return replace(scene, vegetation=vegetation, provenance={**scene.provenance, "vegetation": counts})


def shapes_of(crowns: gpd.GeoDataFrame) -> dict[str, str]:
    """Crowns for drawings, to a centimetre, as JSON text: receipts have a line for each number of other JSON.

    `trees` lists east, north, radius, base and top of each in m; `woods` base, top and the rings of their area, the outer
    one first.

    Examples
    --------
    >>> shapes_of(scene.vegetation.crowns)
    {'trees': '[[12.5,-3.0,3.0,3.0,10.0]]', 'woods': '[]'}
    """
    columns = (crowns[name] for name in ("radius", "base", "top"))
    trees: list[list[float]] = []
    woods: list[list[object]] = []
    for shape, radius, base, top in zip(crowns.geometry, *columns, strict=True):
        if isinstance(shape, shapely.Point):
            trees.append(np.round([shape.x, shape.y, radius, base, top], 2).tolist())
        else:
            rings = [shape.exterior, *shape.interiors]
            woods.append([round(base, 2), round(top, 2), [np.round(ring.coords, 2).tolist() for ring in rings]])
    return {name: json.dumps(each, separators=(",", ":")) for name, each in (("trees", trees), ("woods", woods))}


def crowns_of(scene: Scene, source: Source, settings: VegetationSettings) -> gpd.GeoDataFrame:
    """Crowns that reach into a scene's tile; columns as of `Vegetation.crowns`."""
    half = scene.size / 2
    reach = half + AROUND
    bounds = world_bounds((-reach, -reach, reach, reach), scene.latitude, scene.longitude)
    shift = turned((bounds[0] + bounds[2]) / 2, (source.bounds[0] + source.bounds[2]) / 2) - (bounds[0] + bounds[2]) / 2
    here = bounds[0] + shift, bounds[1], bounds[2] + shift, bounds[3]
    found = read_box(source.parquet.with_name(FILE), here, COLUMNS, ["kind", "osm_type", "osm_id"])
    local = project(found.geometry.to_numpy(), scene.latitude, scene.longitude)
    tile = shapely.box(-half, -half, half, half)
    mapped = shapely.get_coordinates(local[(found["kind"] == "tree").to_numpy()])
    rows: list[dict[str, object]] = []
    for osm_type, osm_id, kind, tags, shape in zip(*(found[name] for name in COLUMNS), local, strict=True):
        named = {"osm_type": osm_type, "osm_id": osm_id, "kind": kind}
        if kind == "wood" and settings.woods:
            top, height_source = _height(tags, settings.wood_height)
            size = {"base": 0.0, "top": top, "radius": np.nan, "height_source": height_source, "diameter_source": ""}
            inside = shapely.intersection(shapely.make_valid(shape), tile)
            rows += [{**named, **size, "geometry": part} for part in polygons(inside)]
        elif kind != "wood" and settings.trees:
            tree = tree_size(tags, settings)
            size = {
                "base": settings.crown_base * tree.height,
                "top": tree.height,
                "radius": tree.diameter / 2,
                "height_source": tree.height_source,
                "diameter_source": tree.diameter_source,
            }
            places = shapely.get_coordinates(shape)
            if kind == "row":
                places = row_of_trees(shape, settings.row_spacing)
                # Mappers draw the trees of a row, too.
                if len(mapped):
                    places = places[cKDTree(mapped).query(places)[0] > settings.row_spacing / 2]
            near = np.hypot(*np.maximum(np.abs(places) - half, 0).T) < tree.diameter / 2
            rows += [{**named, **size, "geometry": shapely.Point(place)} for place in places[near]]
    columns = ["osm_type", "osm_id", "kind", "base", "top", "radius", "height_source", "diameter_source", "geometry"]
    return gpd.GeoDataFrame({name: [row[name] for row in rows] for name in columns}, crs=cached_crs(scene.crs))


def row_of_trees(lines: BaseGeometry, spacing: float) -> NDArray[np.float64]:
    """Places (N, 2) of the trees of a row: in the middle of equal parts of its lines about `spacing` long.

    Examples
    --------
    >>> row_of_trees(shapely.LineString([(0, 0), (17, 0)]), 8.0)
    array([[ 4.25,  0.  ],
           [12.75,  0.  ]])
    """
    places = []
    for line in shapely.get_parts(lines):
        count = max(1, round(line.length / spacing))
        places.append(shapely.line_interpolate_point(line, (np.arange(count) + 0.5) / count, normalized=True))
    return np.asarray(shapely.get_coordinates(np.concatenate(places)), np.float64)
