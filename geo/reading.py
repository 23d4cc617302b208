"""Buildings and streets of an OpenStreetMap extract, read with pyosmium: none of them is lost without a reason."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import shapely
from shapely.geometry.base import BaseGeometry

from wavecity.geo.cities import SUFFIXES
from wavecity.geo.errors import MapError
from wavecity.geo.height_texts import unread_heights
from wavecity.geo.projection import WGS84, turned
from wavecity.geo.rewriting import HALF_TURN, needs_sorting, rewritten
from wavecity.geo.rings import NO_MEMBERS, NO_NODES, Element, Leftovers, Shape, is_mapped, outer_rings, recover

Bounds = tuple[float, float, float, float]

# Number of decimals of a longitude in OpenStreetMap.
DECIMALS = 7


class Unreadable(MapError):
    """A file that is not complete OpenStreetMap data: broken or cut short."""


@dataclass(frozen=True)
class Reading:
    """Content of an extract.

    Attributes
    ----------
    buildings : geopandas.GeoDataFrame
        Columns of `Source.buildings`, tags as JSON text.
    streets : geopandas.GeoDataFrame
        Columns of `Source.streets`, tags as JSON text.
    bounds : (west, south, east, north)
        WGS84 degrees that the extract covers. Across the antimeridian, longitudes go on beyond ±180.
    newest : str or None
        Time of the newest edit of a building.
    counts : dict
        Number of elements by what became of them.
    losses, repairs : dict
        Number of buildings that the map does not show whole, by the reason, and of repaired ones, by what was done.
    unread_heights : dict
        Number of height tags that could not be read, by their text.
    unplaced : list of (osm_type, osm_id, reason)
        Of the lost ones those of which the map has no node, so that no tile can count them.
    broken_streets : int
        Streets that lack nodes.
    """

    buildings: gpd.GeoDataFrame
    streets: gpd.GeoDataFrame
    bounds: Bounds
    newest: str | None
    counts: dict[str, int]
    losses: dict[str, int]
    repairs: dict[str, int]
    unread_heights: dict[str, int]
    unplaced: list[tuple[str, int, str]]
    broken_streets: int

    @property
    def incomplete(self) -> bool:
        """Whether anything lacks nodes or members."""
        return bool(self.broken_streets or self.losses.get(NO_NODES) or self.losses.get(NO_MEMBERS))

    @property
    def facts(self) -> dict[str, Any]:
        """What the map's provenance says of its content."""
        return {
            "counts": self.counts,
            "losses": self.losses,
            "repairs": self.repairs,
            "unread_heights": self.unread_heights,
        }


def read_extract(path: Path, box: Bounds | None = None) -> Reading:
    """Buildings and streets of an extract; `box` is what it covers, if that is not in its header.

    One that is not sorted, or has negative ids, is sorted in memory; one across the antimeridian keeps its rings whole.

    Raises
    ------
    MapError
        It holds no building, or is too large to be sorted.
    Unreadable
        It is broken, truncated, or not OpenStreetMap data.
    """
    try:
        box = box or _header_box(path)
        reading = _read_sorted(path, box)
        if _crosses_antimeridian(reading):
            with rewritten(path, turned=True) as copy:
                reading = _turned_back(_read(copy, None), box)
    except (RuntimeError, OSError, UnicodeDecodeError) as error:
        raise Unreadable(_explain(path, error)) from error
    _check_complete(path, int((reading.buildings["problem"] == "").sum()), Counter(reading.losses))
    return reading


def _read_sorted(path: Path, box: Bounds | None) -> Reading:
    """Content of an extract, whatever the order of its elements."""
    try:
        reading = _read(path, box)
        if not (reading.incomplete and needs_sorting(path)):
            return reading
    except RuntimeError as error:
        if "out of order" not in str(error):
            raise
    with rewritten(path) as copy:
        return _read(copy, box)


def _read(path: Path, box: Bounds | None) -> Reading:
    """Content of an extract in the order that osmium expects; `box` is what it says to cover."""
    areas: dict[Element, tuple[dict[str, str], bytes]] = {}
    streets: list[tuple[int, dict[str, str], BaseGeometry]] = []
    leftovers = Leftovers()
    newest: datetime | None = None
    broken = 0
    factory = osmium.geom.WKBFactory()
    for item in _tagged(path):
        of_building = "building" in item.tags or "building:part" in item.tags
        if item.is_area():
            # A closed highway comes as an area, too; rings that do not close or cross are leftovers.
            if of_building:
                with contextlib.suppress(RuntimeError):
                    wkb = bytes.fromhex(factory.create_multipolygon(item))
                    areas["way" if item.from_way() else "relation", item.orig_id()] = dict(item.tags), wkb
            continue
        if item.is_way() and "highway" in item.tags:
            points = [(node.lon, node.lat) if node.location.valid() else None for node in item.nodes]
            broken += None in points
            line = _line(points)
            if line is not None:
                streets.append((item.id, dict(item.tags), line))
        leftovers.note(item)
        if of_building and item.timestamp.year > 1970 and (newest is None or item.timestamp > newest):
            newest = item.timestamp
    shapes, tags = recover(path, leftovers, areas)
    losses = Counter(shape.problem for element, shape in shapes.items() if shape.lost and is_mapped(tags[element]))
    frame = _building_frame(areas, shapes, tags, leftovers)
    complete = frame["problem"] == ""
    tags_built = [json.loads(text) for text in frame["tags"][complete]]
    n_built = sum("building" in of_element for of_element in tags_built)
    counts = {
        "tagged": len(leftovers.ways) + sum(relation.of_building for relation in leftovers.relations.values()),
        "buildings": n_built,
        "parts": int(complete.sum()) - n_built,
        "lost": losses.total(),
        "streets": len(streets),
    }
    return Reading(
        frame,
        street_frame(streets),
        _covered(box, frame),
        newest.isoformat() if newest else None,
        counts,
        dict(losses.most_common()),
        dict(Counter(shape.repair for shape in shapes.values() if shape.repair).most_common()),
        unread_heights(of_element for of_element in tags_built if is_mapped(of_element)),
        [(*element, shape.problem) for element, shape in sorted(shapes.items()) if shape.geometry.is_empty],
        broken,
    )


def _covered(box: Bounds | None, frame: gpd.GeoDataFrame) -> Bounds:
    """Box that a map covers: what it says, or that of its buildings.

    osmium orders the longitudes of a header, so that from a box across the antimeridian comes the rest of the earth.
    """
    west, south, east, north = frame.total_bounds.tolist()
    turn = 2 * HALF_TURN
    if box is None or (box[2] - box[0] == turn and east > HALF_TURN):
        return west, south, east, north
    middle = float(np.median(shapely.bounds(frame.geometry.to_numpy())[:, 0])) if len(frame) else box[0]
    if min(box[0], -box[2]) < -HALF_TURN:  # drawn around a centre near the antimeridian: all may lie on its other side
        shift = turned((box[0] + box[2]) / 2, middle) - (box[0] + box[2]) / 2
        return box[0] + shift, box[1], box[2] + shift, box[3]
    if box[2] - box[0] > HALF_TURN and not box[0] <= middle <= box[2]:
        return (box[2], box[1], box[0] + turn, box[3]) if middle > box[2] else (box[2] - turn, box[1], box[0], box[3])
    return box


def _crosses_antimeridian(reading: Reading) -> bool:
    """Whether a map has places on both sides of the antimeridian, and none on the half of the earth around Greenwich."""
    geometry = [*reading.buildings.geometry, *reading.streets.geometry]
    longitude = shapely.get_coordinates(geometry)[:, 0]
    return bool(len(longitude) and np.ptp(longitude) > HALF_TURN and np.abs(longitude).min() > HALF_TURN / 2)


def _turned_back(reading: Reading, box: Bounds | None) -> Reading:
    """What was read from a copy that is turned by half the earth, at its place, with longitudes from 0 to 360."""

    def back(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        # Rounded, so that coordinates are exactly those of the map.
        here = shapely.transform(
            frame.geometry.to_numpy(), lambda xy: np.column_stack([np.round(xy[:, 0] + HALF_TURN, DECIMALS), xy[:, 1]])
        )
        return frame.set_geometry(gpd.GeoSeries(here, index=frame.index, crs=frame.crs))

    buildings = back(reading.buildings)
    return replace(reading, buildings=buildings, streets=back(reading.streets), bounds=_covered(box, buildings))


def _tagged(path: Path) -> Iterator[Any]:
    """Ways, relations and assembled areas with a building tag, ways with a highway tag, and typed relations."""
    buildings = osmium.filter.KeyFilter("building", "building:part")
    wanted = osmium.filter.KeyFilter("building", "building:part", "highway", "type")
    yield from osmium.FileProcessor(str(path)).with_areas(buildings).with_filter(wanted)


def _building_frame(
    areas: dict[Element, tuple[dict[str, str], bytes]],
    shapes: dict[Element, Shape],
    tags: dict[Element, dict[str, str]],
    leftovers: Leftovers,
) -> gpd.GeoDataFrame:
    """Frame for `write_map` of everything of which the map says where it is."""
    polygons = dict(zip(areas, shapely.from_wkb([wkb for _, wkb in areas.values()]), strict=True))
    placed = {element: shape for element, shape in shapes.items() if not shape.geometry.is_empty}
    elements = [*areas, *sorted(placed.keys() - areas.keys())]
    all_tags = [tags.get(element, {}) | (areas[element][0] if element in areas else {}) for element in elements]
    whole = areas.keys() | {element for element, shape in placed.items() if not shape.problem}
    outers = outer_rings(leftovers, whole)
    problems, outlines = [], []
    for (kind, number), of_element in zip(elements, all_tags, strict=True):
        shape = placed.get((kind, number))
        problems.append(shape.problem if shape else "")
        # Taken as a building of its own, the outer ring of a relation would fill the courtyard.
        repeats = kind == "way" and "building" in of_element
        outlines.append(outers.get(number, 0) if repeats else 0)
    return gpd.GeoDataFrame(
        {
            "osm_type": [kind for kind, _ in elements],
            "osm_id": np.array([number for _, number in elements], dtype=np.int64),
            "tags": [json.dumps(of_element, sort_keys=True, ensure_ascii=False) for of_element in all_tags],
            "outline_of": np.array(outlines, dtype=np.int64),
            "problem": np.array(problems, dtype=object),
        },
        geometry=[placed[element].geometry if element in placed else polygons[element] for element in elements],
        crs=WGS84,
    )


def _check_complete(path: Path, complete: int, losses: Counter[str]) -> None:
    """Refuse an extract without buildings, and one that lacks the nodes of most of them."""
    missing = losses[NO_NODES] + losses[NO_MEMBERS]
    if not complete and not missing:
        msg = f"area.source: {path}: holds no complete building; give an extract of a built-up area"
        raise MapError(msg)
    # A clipped extract loses some rings at its edge.
    if complete < missing:
        msg = (
            f"area.source: {path}: only {complete} of {complete + losses.total()} buildings are complete; "
            "the nodes of the others are missing; cut it from a larger map with complete ways"
        )
        raise Unreadable(msg)


def _line(points: list[tuple[float, float] | None]) -> BaseGeometry | None:
    """A way's line through the nodes that are there: a clipped extract lacks some, and the line breaks at them."""
    runs = [list(run) for there, run in itertools.groupby(points, lambda point: point is not None) if there]
    lines = [shapely.LineString(run) for run in runs if len(run) > 1]
    return (lines[0] if len(lines) == 1 else shapely.MultiLineString(lines)) if lines else None


def _header_box(path: Path) -> Bounds | None:
    """Bounding box in the header of an extract, if it has one."""
    reader = osmium.io.Reader(str(path))
    try:
        box = reader.header().box()
    finally:
        reader.close()
    if not box.valid():
        return None
    low, high = box.bottom_left, box.top_right
    return low.lon, low.lat, high.lon, high.lat


def _explain(path: Path, error: Exception) -> str:
    """Message for an extract that osmium cannot read."""
    reason = " ".join(str(error).split())
    return (
        f"area.source: {path}: cannot be read as OpenStreetMap data ({reason}); "
        f"give a complete {', '.join(SUFFIXES)} file"
    )


def street_frame(ways: list[tuple[int, dict[str, str], BaseGeometry]]) -> gpd.GeoDataFrame:
    """Frame for `write_map` of streets (OSM id, tags, WGS84 line)."""
    return gpd.GeoDataFrame(
        {
            "osm_id": np.array([way[0] for way in ways], dtype=np.int64),
            "tags": np.array([json.dumps(way[1], sort_keys=True, ensure_ascii=False) for way in ways], dtype=object),
        },
        geometry=[way[2] for way in ways],
        crs=WGS84,
    )
