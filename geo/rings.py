"""Buildings of which libosmium makes no area: assembled from their ways, or given a reason why not.

libosmium leaves out rings that cross themselves or lack a node, relations that lack a member, relations of other types
than `multipolygon`, and the courtyards of old multipolygons, whose tags are on the outer way (common before 2017).
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import osmium
import shapely
from shapely import GeometryCollection, LineString, MultiLineString, MultiPolygon, Point, Polygon
from shapely.geometry.base import BaseGeometry

from wavecity.geo.height_texts import HEIGHT_KEYS
from wavecity.geo.polygons import polygons

Element = tuple[str, int]

# Outcomes of buildings without a polygon.
NO_NODES = "nodes are missing in the map"
NO_MEMBERS = "members are missing in the map"
OPEN = "ring that does not close"
FLAT = "rings without area"
# These two stand in the scene all the same, by another element.
REPEATED = "repeats the outer ring of its relation"
BY_MEMBERS = "its members are buildings"
# How buildings were repaired.
CROSSED = "ring crossed itself"
TOUCHED = "rings touched or crossed"
PARTIAL = "members were missing, other rings were whole"
OUTLINE = "outline of a relation"
OLD = "courtyard of an old multipolygon"

# Tags that say nothing about what a relation is: with no others, those of its outer ways count.
_NEUTRAL = ("type", "source", "created_by", "note", "fixme", "FIXME", "attribution", "converted_by")
_OUTLINES = ("outline", "outer", "")


@dataclass(frozen=True)
class Shape:
    """What became of a building: its polygon in WGS84, or without one (`problem`) as much of its lines as is known."""

    geometry: BaseGeometry
    problem: str = ""
    repair: str = ""

    @property
    def lost(self) -> bool:
        """Whether the building stands nowhere, not even by another element."""
        return self.problem not in ("", REPEATED, BY_MEMBERS)


@dataclass(frozen=True)
class Relation:
    """A relation that may be a building: its tags and members (type `n`, `w` or `r`, id, role)."""

    tags: dict[str, str]
    members: list[tuple[str, int, str]]

    @property
    def type(self) -> str:
        """Value of its tag `type`."""
        return self.tags.get("type", "")

    @property
    def of_building(self) -> bool:
        """Whether it carries a building tag itself."""
        return "building" in self.tags or "building:part" in self.tags

    def ways(self, roles: Iterable[str] = ("outer", "")) -> list[int]:
        """Members of some roles that are ways."""
        return [ref for kind, ref, role in self.members if kind == "w" and role in roles]


@dataclass
class Leftovers:
    """What libosmium's areas do not show, gathered while an extract is read.

    Attributes
    ----------
    ways : dict
        Id of every way with a building tag -> whether it is closed.
    relations : dict
        Relations that carry a building tag, or may give one to their members.
    """

    ways: dict[int, bool] = field(default_factory=dict)
    relations: dict[int, Relation] = field(default_factory=dict)

    def note(self, item: Any) -> None:
        """Remember a way or a relation of pyosmium, if it is wanted."""
        tagged = "building" in item.tags or "building:part" in item.tags
        if item.is_way():
            if tagged:
                self.ways[item.id] = item.is_closed()
        elif item.is_relation():
            kind = item.tags.get("type", "")
            bare = kind == "multipolygon" and all(tag.k in _NEUTRAL for tag in item.tags)
            if tagged or bare or kind == "building":
                members = [(member.type, member.ref, member.role) for member in item.members]
                self.relations[item.id] = Relation(dict(item.tags), members)


@dataclass(frozen=True)
class _Way:
    """Points of a way (None: a node that the map lacks), whether it is closed, and its tags."""

    points: list[tuple[float, float] | None]
    closed: bool
    tags: dict[str, str]

    @property
    def whole(self) -> bool:
        """Whether the map has all of its nodes."""
        return None not in self.points

    @property
    def known(self) -> list[tuple[float, float]]:
        """Points that the map has."""
        return [point for point in self.points if point is not None]


def recover(
    path: Path, found: Leftovers, built: Mapping[Element, object]
) -> tuple[dict[Element, Shape], dict[Element, dict[str, str]]]:
    """Every building of an extract that has no area yet, and courtyards of those that lack them.

    Parameters
    ----------
    path : Path
        The extract, of which the ways in question are read a second time.
    found : Leftovers
    built : mapping
        Buildings and parts that libosmium assembled.

    Returns
    -------
    shapes : dict
        Of every way and relation with a building tag that is not in `built`, and of built ways whose polygon changes.
    tags : dict
        Their tags, and the heights that relations give to buildings.
    """
    relations = {
        number: relation
        for number, relation in found.relations.items()
        if ("relation", number) not in built and relation.of_building
    }
    old = {
        number: relation
        for number, relation in found.relations.items()
        if relation.type == "multipolygon"
        and not relation.of_building
        and not found.ways.keys().isdisjoint(relation.ways())
    }
    lost = {number for number in found.ways if ("way", number) not in built}
    needed = lost | {
        ref for relation in (relations | old).values() for _, ref in _way_members(relation, found.relations)
    }
    ways = _read_ways(path, needed)
    shapes: dict[Element, Shape] = {("way", number): _of_way(ways[number]) for number in lost}
    tags: dict[Element, dict[str, str]] = {("way", number): ways[number].tags for number in lost}

    for number, relation in old.items():
        outers = [ref for ref in relation.ways() if ref in found.ways]
        if all(found.ways[ref] for ref in outers):
            for ref in outers:
                if (shape := _with_courtyards(ref, relation, ways)) is not None:
                    shapes["way", ref], tags["way", ref] = shape, ways[ref].tags
        else:
            relations[number] = replace(relation, tags=ways[outers[0]].tags | relation.tags)
    for number, relation in relations.items():
        shapes["relation", number] = _of_relation(relation, found, ways)
        tags["relation", number] = relation.tags
    # An open way that carries the tags of a relation's ring stands by the relation.
    whole = built.keys() | {element for element, shape in shapes.items() if not shape.problem}
    for ref in outer_rings(replace(found, relations=found.relations | relations), whole):
        drawn = shapes.get(("way", ref))
        if drawn is not None and drawn.problem:
            shapes["way", ref] = replace(drawn, problem=REPEATED)
    _give_heights(found, tags)
    return shapes, tags


def is_mapped(tags: Mapping[str, str]) -> bool:
    """Whether tags make a building or a part of one (`building=no` does not)."""
    return tags.get("building", "no") != "no" or tags.get("building:part", "no") != "no"


def outer_rings(found: Leftovers, whole: Collection[Element]) -> dict[int, int]:
    """Ways that are the outer ring of a building relation, with the relation, of those that are `whole`."""
    return {
        ref: number
        for number, relation in found.relations.items()
        if ("relation", number) in whole and "building" in relation.tags
        for ref in relation.ways(("outer",) if relation.type == "multipolygon" else _OUTLINES)
    }


def assemble(rings: Iterable[tuple[str, list[list[tuple[float, float]]]]]) -> tuple[BaseGeometry, bool]:
    """Polygon of the lines of each role (`outer`, `inner`; anything else is decided by place).

    Larger rings are filled first, smaller ones cut out of them or added, so that rings may touch, cross, repeat each
    other and lie in each other's holes.

    Returns
    -------
    polygon : shapely geometry
        Valid; empty where no ring encloses an area.
    closed : bool
        Whether every line is part of a closed ring.

    Examples
    --------
    >>> square = [(0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0), (0.0, 0.0)]
    >>> assemble([("outer", [square]), ("inner", [[(1.0, 1.0), (2.0, 1.0), (1.0, 2.0), (1.0, 1.0)]])])[0].area
    15.5
    """
    faces: list[tuple[float, str, BaseGeometry]] = []
    closed = True
    for role, lines in rings:
        areas, all_closed = _rings(lines)
        closed &= all_closed
        faces += [(area.area, role, area) for area in areas]
    filled: BaseGeometry = Polygon()
    for _, role, face in sorted(faces, key=lambda item: -item[0]):
        inner = role == "inner" or (role != "outer" and filled.contains(face.representative_point()))
        filled = filled.difference(face) if inner else filled.union(face)
    return MultiPolygon(polygons(filled)), closed


def _rings(lines: list[list[tuple[float, float]]]) -> tuple[list[BaseGeometry], bool]:
    """Areas of closed lines, and of open ones that join to rings; and whether all lines are part of one."""
    areas = [_filled(line) for line in lines if line[0] == line[-1]]
    pieces = [LineString(line) for line in lines if line[0] != line[-1]]
    closed = True
    if pieces:
        merged = shapely.get_parts(shapely.line_merge(MultiLineString(pieces)))
        areas += [_filled(list(line.coords)) for line in merged if line.is_closed]
        # Rings that touch in a point do not merge, and those that cross need a node there.
        faces, cuts, dangles, invalid = shapely.polygonize_full(
            [shapely.node(MultiLineString([line for line in merged if not line.is_closed]))]
        )
        areas += list(shapely.get_parts(faces))
        closed = cuts.is_empty and dangles.is_empty and invalid.is_empty
    return [area for area in areas if not area.is_empty], closed


def _filled(ring: list[tuple[float, float]]) -> BaseGeometry:
    """Area of a closed line, whether or not it crosses itself."""
    if len(set(ring)) < 3:
        return Polygon()
    area = Polygon(ring)
    return area if area.is_valid else shapely.make_valid(area, method="structure", keep_collapsed=False)


def _of_way(way: _Way) -> Shape:
    """Polygon of a way with a building tag."""
    known = _lines([way])
    if not way.closed:
        return Shape(known, OPEN)
    if not way.whole:
        return Shape(known, NO_NODES)
    area, _ = assemble([("outer", [way.known])])
    return Shape(known, FLAT) if area.is_empty else Shape(area, repair=CROSSED)


def _of_relation(relation: Relation, found: Leftovers, ways: dict[int, _Way]) -> Shape:
    """Polygon of a relation with a building tag: of its rings, or of its outline."""
    multipolygon = relation.type in ("multipolygon", "boundary")
    members = _way_members(relation, found.relations)
    there = [ways[ref] for _, ref in members if ref in ways]
    if not multipolygon and any(
        (kind == "w" and ref in found.ways)
        or (kind == "r" and ref in found.relations and found.relations[ref].of_building)
        for kind, ref, role in relation.members
        if role in _OUTLINES
    ):
        return Shape(_lines(there), BY_MEMBERS)
    by_role: dict[str, list[list[tuple[float, float]]]] = defaultdict(list)
    missing = not members
    for role, ref in members:
        if ref in ways and ways[ref].whole and len(ways[ref].points) > 1:
            by_role["outer" if role == "outline" else role].append(ways[ref].known)
        else:
            missing = True
    area, closed = assemble(by_role.items())
    if area.is_empty:
        return Shape(_lines(there), NO_MEMBERS if missing else FLAT if closed else OPEN)
    repair = PARTIAL if missing or not closed else TOUCHED if multipolygon else OUTLINE
    return Shape(area, repair=repair)


def _with_courtyards(number: int, relation: Relation, ways: dict[int, _Way]) -> Shape | None:
    """Outer way of an old multipolygon without the inner rings; None where that changes nothing."""
    inners = [ways[ref].known for ref in relation.ways(("inner",)) if ref in ways and ways[ref].whole]
    if not inners or not ways[number].whole:
        return None
    area, _ = assemble([("outer", [ways[number].known]), ("inner", inners)])
    return None if area.is_empty else Shape(area, repair=OLD)


def _way_members(relation: Relation, relations: dict[int, Relation]) -> list[tuple[str, int]]:
    """Role and id of the ways that draw a relation, those of an outline that is a relation itself among them."""
    if relation.type in ("multipolygon", "boundary"):
        return [(role, ref) for kind, ref, role in relation.members if kind == "w"]
    drawn = [(role, ref) for kind, ref, role in relation.members if kind == "w" and role in (*_OUTLINES, "inner")]
    for kind, ref, role in relation.members:
        if kind == "r" and role in _OUTLINES and ref in relations and relations[ref].type == "multipolygon":
            drawn += [(inner, way) for member, way, inner in relations[ref].members if member == "w"]
    return drawn


def _give_heights(found: Leftovers, tags: dict[Element, dict[str, str]]) -> None:
    """Heights on a relation of type `building` are those of its outline."""
    for relation in found.relations.values():
        heights = {key: relation.tags[key] for key in HEIGHT_KEYS if key in relation.tags}
        if relation.type == "building" and heights:
            for kind, ref, role in relation.members:
                if role in ("outline", "outer"):
                    element: Element = ("way" if kind == "w" else "relation", ref)
                    tags[element] = heights | tags.get(element, {})


def _read_ways(path: Path, numbers: set[int]) -> dict[int, _Way]:
    """Ways of an extract by their ids."""
    if not numbers:
        return {}
    entities = osmium.osm.NODE | osmium.osm.WAY
    reader = osmium.FileProcessor(str(path), entities).with_locations()
    reader = reader.with_filter(osmium.filter.EntityFilter(osmium.osm.WAY))
    if min(numbers) >= 0:  # the filter knows no others
        reader = reader.with_filter(osmium.filter.IdFilter(numbers))
    ways = {}
    for item in reader:
        if not isinstance(item, osmium.osm.Way) or item.id not in numbers:
            continue
        points = [(node.lon, node.lat) if node.location.valid() else None for node in item.nodes]
        ways[item.id] = _Way(points, len(points) > 1 and item.is_closed(), dict(item.tags))
    return ways


def _lines(ways: Iterable[_Way]) -> BaseGeometry:
    """As much as is known of some ways, for where they are; empty where nothing is."""
    known = [way.known for way in ways]
    return GeometryCollection(
        [LineString(points) if len(points) > 1 else Point(points[0]) for points in known if points]
    )
