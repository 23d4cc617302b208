"""Every way and relation tagged as a building ends with an outcome: counted from raw XML by a parser of our own."""

import os
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest
import shapely

from wavecity.geo.extract import open_extract
from wavecity.geo.footprints import tile_footprints
from wavecity.geo.reading import read_extract
from wavecity.geo.settings import SceneSettings

SHARED = Path(os.environ.get("WAVECITY_SHARED", Path(__file__).parents[2].parent / "shared"))
CELL = 1e-4  # degrees
Points = list[tuple[float, float]]


@dataclass
class Drawing:
    """A small map in cells from (10, 48): ways by id (points, tags), relations by id (members, tags)."""

    ways: dict[int, tuple[Points, dict[str, str]]]
    relations: dict[int, tuple[list[tuple[str, int, str]], dict[str, str]]]

    def xml(self, without_nodes: frozenset[tuple[float, float]] = frozenset()) -> str:
        # An ordinary house: a map without any whole building is refused.
        ways = {1: (square(-20, -20, 4), {"building": "yes"})} | self.ways
        points = dict.fromkeys(point for line, _ in ways.values() for point in line)
        numbers = {point: number for number, point in enumerate(points, 1)}
        nodes = [
            f'<node id="{number}" version="1" lon="{10 + x * CELL:.7f}" lat="{48 + y * CELL:.7f}"/>'
            for (x, y), number in numbers.items()
            if (x, y) not in without_nodes
        ]
        lines = [
            f'<way id="{number}" version="1">{"".join(f"<nd ref={quoteattr(str(numbers[p]))}/>" for p in line)}'
            f"{_tags(tags)}</way>"
            for number, (line, tags) in sorted(ways.items())
        ]
        groups = [
            f'<relation id="{number}" version="1">'
            + "".join(f'<member type="{kind}" ref="{ref}" role="{role}"/>' for kind, ref, role in members)
            + f"{_tags(tags)}</relation>"
            for number, (members, tags) in sorted(self.relations.items())
        ]
        return f'<osm version="0.6">{"".join(nodes + lines + groups)}</osm>'


def _tags(tags: dict[str, str]) -> str:
    return "".join(f"<tag k={quoteattr(key)} v={quoteattr(value)}/>" for key, value in tags.items())


def square(x: float, y: float, size: float) -> Points:
    return [(x, y), (x + size, y), (x + size, y + size), (x, y + size), (x, y)]


YES = {"building": "yes"}
MULTI = {"type": "multipolygon"}
BUILT = MULTI | YES
OUTER, INNER = square(0, 0, 10), square(2, 2, 3)


def ring(*roles: str) -> list[tuple[str, int, str]]:
    """Members: ways 10, 11, ... with these roles."""
    return [("way", 10 + k, role) for k, role in enumerate(roles)]


# Name -> ways, relations, and for each tagged element its area in cells, or why it has none.
CASES: dict[str, tuple[dict, dict, dict[tuple[str, int], float | str]]] = {
    "bowtie": ({10: ([(0, 0), (4, 0), (0, 4), (4, 4), (0, 0)], YES)}, {}, {("way", 10): 8}),
    "loop at a corner": (
        {10: ([(0, 0), (6, 0), (6, 6), (8, 6), (8, 8), (6, 8), (6, 6), (0, 6), (0, 0)], YES)}, {}, {("way", 10): 40},
    ),
    "spike": ({10: ([(0, 0), (4, 0), (4, 4), (9, 9), (4, 4), (0, 4), (0, 0)], YES)}, {}, {("way", 10): 16}),
    "walked twice": ({10: (square(0, 0, 4) + square(0, 0, 4)[1:], YES)}, {}, {("way", 10): 16}),
    "two nodes": ({10: ([(0, 0), (4, 0), (0, 0)], YES)}, {}, {("way", 10): "rings without area"}),
    "one node": ({10: ([(0, 0), (0, 0)], YES)}, {}, {("way", 10): "rings without area"}),
    "on a line": ({10: ([(0, 0), (4, 0), (8, 0), (0, 0)], YES)}, {}, {("way", 10): "rings without area"}),
    "open": ({10: ([(0, 0), (4, 0), (4, 4), (0, 4)], YES)}, {}, {("way", 10): "ring that does not close"}),
    "inner ring touches in a point": (
        {10: (OUTER, {}), 11: ([(0, 5), (3, 3), (3, 7), (0, 5)], {})}, {5: (ring("outer", "inner"), BUILT)},
        {("relation", 5): 94},
    ),
    "inner rings share an edge": (
        {10: (OUTER, {}), 11: (square(2, 2, 3), {}), 12: (square(5, 2, 3), {})},
        {5: (ring("outer", "inner", "inner"), BUILT)}, {("relation", 5): 82},
    ),
    "inner ring on the outer": (
        {10: (OUTER, {}), 11: (square(0, 2, 3), {})}, {5: (ring("outer", "inner"), BUILT)}, {("relation", 5): 91},
    ),
    "inner ring crosses the outer": (
        {10: (OUTER, {}), 11: (square(-2, 2, 4), {})}, {5: (ring("outer", "inner"), BUILT)}, {("relation", 5): 92},
    ),
    "inner rings overlap": (
        {10: (OUTER, {}), 11: (square(2, 2, 3), {}), 12: (square(4, 4, 3), {})},
        {5: (ring("outer", "inner", "inner"), BUILT)}, {("relation", 5): 83},
    ),
    "the same ring twice": (
        {10: (OUTER, {}), 11: (OUTER, {})}, {5: (ring("outer", "outer"), BUILT)}, {("relation", 5): 100},
    ),
    "a way of the ring twice": (
        {10: (OUTER[:3], {}), 11: (OUTER[2:], {}), 12: (OUTER[:3], {})},
        {5: (ring("outer", "outer", "outer"), BUILT)}, {("relation", 5): 100},
    ),
    "island in the courtyard": (
        {10: (OUTER, {}), 11: (square(2, 2, 6), {}), 12: (square(4, 4, 2), {})},
        {5: (ring("outer", "inner", "outer"), BUILT)}, {("relation", 5): 68},
    ),
    "outer ring of three ways": (
        {10: (OUTER[:2], {}), 11: (OUTER[1:4], {}), 12: (OUTER[3:], {})},
        {5: (ring("outer", "outer", "outer"), BUILT)}, {("relation", 5): 100},
    ),
    "outer ring crosses itself": (
        {10: ([(0, 0), (4, 0), (0, 4), (4, 4), (0, 0)], {})}, {5: (ring("outer"), BUILT)}, {("relation", 5): 8},
    ),
    "no roles": ({10: (OUTER, {}), 11: (INNER, {})}, {5: (ring("", ""), BUILT)}, {("relation", 5): 91}),
    "wrong roles": (
        {10: (OUTER, {}), 11: (INNER, {})}, {5: (ring("outer", "outer"), BUILT)}, {("relation", 5): (91, 100)},
    ),
    "open ring": (
        {10: (OUTER[:3], {}), 11: (INNER, {})}, {5: (ring("outer", "inner"), BUILT)},
        {("relation", 5): "ring that does not close"},
    ),
    "hundred touching points": (
        {10: ([(0, 0), (200, 0), (200, 10), *((x, 9.0 if x % 2 else 10.0) for x in range(199, 0, -1)), (0, 10), (0, 0)],
              {}),
         11: ([(1, 9), (100, 5), (199, 9), *((x, 8.0 if x % 2 == 0 else 9.0) for x in range(198, 0, -1))], {})},
        {5: (ring("outer", "inner"), BUILT)}, {("relation", 5): (1000, 1900)},
    ),
    "no members": ({}, {5: ([], BUILT)}, {("relation", 5): "members are missing in the map"}),
    "member missing": (
        {10: (OUTER[:3], {})}, {5: (ring("outer", "outer"), BUILT)},
        {("relation", 5): "members are missing in the map"},
    ),
    "one of two rings missing": (
        {10: (OUTER, {})}, {5: (ring("outer", "outer"), BUILT)}, {("relation", 5): 100},
    ),
    "outline on a building relation": (
        {10: (OUTER, {}), 11: (square(0, 0, 5), {"building:part": "yes"})},
        {5: (ring("outline", "part"), {"type": "building", "building": "yes", "height": "30"})},
        {("relation", 5): 100, ("way", 11): 25},
    ),
    "outline is a multipolygon": (
        {10: (OUTER, {}), 11: (INNER, {})},
        {4: (ring("outer", "inner"), MULTI), 5: ([("relation", 4, "outline")], {"type": "building"} | YES)},
        {("relation", 5): 91},
    ),
    "site of its members": (
        {10: (OUTER, YES), 11: (square(20, 0, 5), YES)}, {5: (ring("", ""), {"type": "site"} | YES)},
        {("way", 10): 100, ("way", 11): 25, ("relation", 5): "its members are buildings"},
    ),
    "site with an outline": ({10: (OUTER, {})}, {5: (ring("outline"), {"type": "site"} | YES)}, {("relation", 5): 100}),
    "relation without a type": ({10: (OUTER, {})}, {5: (ring("outer"), YES)}, {("relation", 5): 100}),
    "building relation without its outline": (
        {}, {5: (ring("outline"), {"type": "building"} | YES)}, {("relation", 5): "members are missing in the map"},
    ),
    "old multipolygon": ({10: (OUTER, YES), 11: (INNER, {})}, {5: (ring("outer", "inner"), MULTI)}, {("way", 10): 91}),
    "old multipolygon with a source": (
        {10: (OUTER, YES), 11: (INNER, {})}, {5: (ring("outer", "inner"), MULTI | {"source": "survey"})},
        {("way", 10): 91},
    ),
    "multipolygon of another kind": (
        {10: (OUTER, YES), 11: (INNER, {})}, {5: (ring("outer", "inner"), MULTI | {"landuse": "grass"})},
        {("way", 10): 100},
    ),
    "old multipolygon of two buildings": (
        {10: (OUTER, YES), 11: (square(20, 0, 10), {"building": "church"}), 12: (INNER, {})},
        {5: (ring("outer", "outer", "inner"), MULTI)}, {("way", 10): 91, ("way", 11): 100},
    ),
    "old multipolygon of open ways": (
        {10: (OUTER[:3], YES), 11: (OUTER[2:], YES), 12: (INNER, {})},
        {5: (ring("outer", "outer", "inner"), MULTI)},
        {("way", 10): "repeats the outer ring of its relation", ("way", 11): "repeats the outer ring of its relation",
         ("relation", 5): 91},
    ),
    "tags on the relation and its open ways": (
        {10: (OUTER[:3], YES), 11: (OUTER[2:], YES)}, {5: (ring("outer", "outer"), BUILT)},
        {("way", 10): "repeats the outer ring of its relation", ("way", 11): "repeats the outer ring of its relation",
         ("relation", 5): 100},
    ),
}  # fmt: skip


def outcomes(path: Path) -> dict[tuple[str, int], tuple[str, float, dict]]:
    """Element -> problem, area in cells, and tags."""
    read = read_extract(path)
    frame = read.buildings
    areas = shapely.area(frame.geometry.to_numpy()) / CELL**2
    columns = zip(frame["osm_type"], frame["osm_id"], frame["problem"], areas, strict=True)
    found = {(kind, number): (problem, area) for kind, number, problem, area in columns}
    assert len(found) == len(frame)
    return found | {(kind, number): (problem, 0.0) for kind, number, problem in read.unplaced}


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_ring_has_its_outcome(tmp_path: Path, name: str) -> None:
    ways, relations, expected = CASES[name]
    path = tmp_path / "grid.osm"
    path.write_text(Drawing(ways, relations).xml())
    found = outcomes(path)
    assert found.keys() == expected.keys() | {("way", 1)}
    for element, right in expected.items():
        problem, area = found[element]
        if isinstance(right, str):
            assert problem == right
        elif isinstance(right, tuple):
            assert problem == ""
            assert right[0] - 1e-3 <= area <= right[1] + 1e-3
        else:
            assert (problem, area) == ("", pytest.approx(right, abs=1e-3))


def test_way_whose_nodes_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "grid.osm"
    path.write_text(Drawing({10: (OUTER, YES)}, {}).xml(without_nodes=frozenset({(10, 10)})))
    assert outcomes(path)["way", 10][0] == "nodes are missing in the map"
    read = read_extract(path)
    assert (read.counts["tagged"], read.counts["buildings"], read.counts["lost"]) == (2, 1, 1)
    assert read.losses == {"nodes are missing in the map": 1}


def test_height_on_a_building_relation_is_that_of_its_outline(tmp_path: Path) -> None:
    path = tmp_path / "grid.osm"
    relation = (ring("outline"), {"type": "building", "height": "33", "building:levels": "4"})
    path.write_text(Drawing({10: (OUTER, YES | {"building:levels": "9"})}, {5: relation}).xml())
    frame = read_extract(path).buildings
    tags = frame.loc[frame["osm_id"] == 10, "tags"].item()
    assert '"height": "33"' in tags
    assert '"building:levels": "9"' in tags


def test_ledger_of_a_tile_counts_what_has_no_polygon(tmp_path: Path) -> None:
    drawing = Drawing(
        {10: ([(0, 0), (4, 0), (0, 4), (4, 4), (0, 0)], YES), 11: ([(6, 0), (9, 0), (6, 0)], YES), 12: (OUTER[:3], {})},
        {5: ([("way", 12, "outer"), ("way", 99, "outer")], BUILT), 6: ([("way", 98, "outer")], BUILT)},
    )
    path = tmp_path / "grid.osm"
    path.write_text(drawing.xml())
    source = open_extract(path, "grid", tmp_path)
    prints = tile_footprints(48.0, 10.0, 200.0, source, SceneSettings(), 1)
    listed = prints.outcomes.set_index(["osm_type", "osm_id"])["outcome"].to_dict()
    assert listed == {
        ("way", 10): "used",
        ("way", 11): "rings without area",
        ("relation", 5): "members are missing in the map",
    }
    # Nothing is known of the place of relation 6; the map counts it all the same.
    assert source.provenance["losses"] == {"members are missing in the map": 2, "rings without area": 1}
    assert source.provenance["counts"]["lost"] == 3


def by_raw_xml(path: Path) -> dict[tuple[str, int], str]:
    """Element with a building tag -> `polygon`, or what it lacks (ways only; relations are only listed)."""
    nodes: dict[str, tuple[float, float]] = {}
    found: dict[tuple[str, int], str] = {}
    for element in ElementTree.parse(path).getroot():
        number = element.get("id", "")
        if element.tag == "node":
            nodes[number] = float(element.get("lon", "")), float(element.get("lat", ""))
        elif not any(tag.get("k") in ("building", "building:part") for tag in element.iter("tag")):
            continue
        elif element.tag == "relation":
            found["relation", int(number)] = "relation"
        elif element.tag == "way":
            refs = [node.get("ref", "") for node in element.iter("nd")]
            if len(refs) < 2 or refs[0] != refs[-1]:
                kind = "open"
            elif not all(ref in nodes for ref in refs):
                kind = "nodes missing"
            else:
                points = [nodes[ref] for ref in refs]
                flat = len(set(points)) < 3 or shapely.convex_hull(shapely.MultiPoint(points)).area == 0
                kind = "flat" if flat else "polygon"
            found["way", int(number)] = kind
    return found


FILES = [
    *sorted(path.name for path in (SHARED / "faults").glob("*.osm") if path.name != "negative-ids.osm"),
    "granada.osm",
    "berlin-prenzlauer-berg.osm",
]


@pytest.mark.parametrize("name", FILES)
def test_no_building_of_raw_xml_is_without_an_outcome(name: str) -> None:
    path = next((place for place in (SHARED / "faults" / name, SHARED / "osm" / name) if place.is_file()), None)
    if path is None:
        pytest.skip(f"{name} is not at hand")
    raw = by_raw_xml(path)
    found = outcomes(path)
    # Nothing is lost, and nothing is there twice; a relation without a building tag may stand for its open ways.
    assert raw.keys() <= found.keys()
    assert all(kind == "relation" for kind, _ in found.keys() - raw.keys())
    reasons = {
        "polygon": {""},
        "open": {"ring that does not close", "repeats the outer ring of its relation"},
        "nodes missing": {"nodes are missing in the map"},
        "flat": {"rings without area"},
    }
    for element, kind in raw.items():
        if kind != "relation":
            assert found[element][0] in reasons[kind], (element, kind)
    read = read_extract(path)
    assert read.counts["tagged"] == len(raw)
    excused = {"", "repeats the outer ring of its relation", "its members are buildings"}
    assert read.counts["lost"] == sum(problem not in excused for problem, _ in found.values())
    assert sum(read.losses.values()) == read.counts["lost"]


def test_self_crossing_ways_of_baltimore_stand(extract) -> None:
    source = extract("baltimore.osm.pbf")
    frame = source.buildings(source.bounds)
    rows = frame[frame["osm_id"].isin([222550663, 222550664])]
    assert rows["problem"].tolist() == ["", ""]
    assert rows.geometry.is_valid.all()
    assert (shapely.area(rows.geometry.to_numpy()) > 0).all()
    middle = rows.geometry.iloc[0].centroid
    ledger = tile_footprints(middle.y, middle.x, 200.0, source, SceneSettings(), 1).outcomes
    assert set(ledger.loc[ledger["osm_id"].isin(rows["osm_id"]), "outcome"]) == {"used"}
