"""Buildings of an extract as a list of our own: nodes and ways from pyosmium, rings and polygons by shapely alone."""

from dataclasses import dataclass
from pathlib import Path

import osmium
import shapely
from pyproj import Transformer
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

Element = tuple[str, int]


@dataclass
class MapFeatures:
    """Every building and building part of an extract.

    Attributes
    ----------
    shapes : dict
        (osm_type, osm_id) -> WGS84 polygon, of all whose rings are complete.
    broken : dict
        (osm_type, osm_id) -> what the map lacks: nodes, or rings that do not close or cross.
    """

    shapes: dict[Element, BaseGeometry]
    broken: dict[Element, str]


def read_features(path: Path) -> MapFeatures:
    ways: dict[int, list[tuple[float, float]]] = {}
    whole: set[int] = set()
    tagged: list[int] = []
    relations: list[tuple[int, list[tuple[int, str]]]] = []
    for item in osmium.FileProcessor(str(path)).with_locations():
        mapped = "building" in item.tags or "building:part" in item.tags
        if item.is_way():
            points = [(node.lon, node.lat) for node in item.nodes if node.location.valid()]
            ways[item.id] = points
            if len(points) == len(item.nodes):
                whole.add(item.id)
            if mapped and item.is_closed():
                tagged.append(item.id)
        elif item.is_relation() and mapped and item.tags.get("type") == "multipolygon":
            relations.append((item.id, [(member.ref, member.role) for member in item.members if member.type == "w"]))
    found = MapFeatures({}, {})
    for number in tagged:
        if number not in whole or len(ways[number]) < 4:
            found.broken["way", number] = "nodes are missing"
        elif not Polygon(ways[number]).is_valid:
            found.broken["way", number] = "ring crosses itself"
        else:
            found.shapes["way", number] = Polygon(ways[number])
    for number, members in relations:
        if not all(ref in whole for ref, _ in members):
            found.broken["relation", number] = "ways are missing"
            continue
        rings = {role: _areas([ways[ref] for ref, of in members if of == role]) for role in ("outer", "inner")}
        shape = shapely.difference(rings["outer"], rings["inner"])
        lines = sum(shapely.linestrings(ways[ref]).length for ref, _ in members)
        drawn = rings["outer"].boundary.length + rings["inner"].boundary.length
        if abs(drawn - lines) > 1e-9 or shape.is_empty:
            found.broken["relation", number] = "rings do not close, or cross"
        else:
            found.shapes["relation", number] = shape
    return found


def read_streets(path: Path) -> dict[int, tuple[dict[str, str], list[list[tuple[float, float]]]]]:
    """Tags and runs of at least two nodes (longitude, latitude) of every way with a highway tag."""
    streets = {}
    for item in osmium.FileProcessor(str(path)).with_locations():
        if item.is_way() and "highway" in item.tags:
            runs: list[list[tuple[float, float]]] = [[]]
            for node in item.nodes:
                if node.location.valid():
                    runs[-1].append((node.lon, node.lat))
                else:
                    runs.append([])
            runs = [run for run in runs if len(run) >= 2]
            if runs:
                streets[item.id] = dict(item.tags), runs
    return streets


def touching(features: MapFeatures, crs: str, size: float) -> set[Element]:
    """Elements that touch the square tile around the origin of `crs`."""
    names = list(features.shapes)
    to_local = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    local = shapely.transform(list(features.shapes.values()), to_local.transform, interleaved=False)
    hits = shapely.intersects(local, shapely.box(-size / 2, -size / 2, size / 2, size / 2))
    return {names[index] for index in hits.nonzero()[0]}


def _areas(lines: list[list[tuple[float, float]]]) -> BaseGeometry:
    closed = [Polygon(line) for line in lines if len(line) >= 4 and line[0] == line[-1]]
    pieces = [shapely.linestrings(line) for line in lines if len(line) >= 2 and line[0] != line[-1]]
    merged = shapely.get_parts(shapely.line_merge(shapely.multilinestrings(pieces))) if pieces else []
    closed += [Polygon(line.coords) for line in merged if line.is_ring]
    return shapely.union_all([ring for ring in closed if ring.is_valid]) if closed else MultiPolygon()
