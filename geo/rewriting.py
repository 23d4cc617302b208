"""A copy of an extract as osmium wants it: sorted, nodes with ids above zero, and away from the antimeridian.

JOSM writes new elements with negative ids, for which osmium keeps no locations, and tools that join files write nodes
after their ways. A ring across the antimeridian looks to osmium as if it went round the earth.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import osmium

from wavecity.geo.errors import MapError

# Largest file in bytes that is sorted in memory, where it takes up to ten times as much.
MOST_SORTED = 200_000_000
HALF_TURN = 180.0


@contextmanager
def rewritten(path: Path, turned: bool = False) -> Iterator[Path]:
    """A temporary sorted copy of an extract, without a bounding box, that exists within the block.

    Nodes get new ids, which nothing else refers to; ways and relations keep theirs.

    Parameters
    ----------
    path : Path
    turned : bool
        Turn the earth by 180 degrees: the antimeridian becomes that of Greenwich.

    Raises
    ------
    MapError
        The file is too large to be sorted in memory.
    """
    size = path.stat().st_size
    if size > MOST_SORTED:
        msg = (
            f"area.source: {path}: {size / 1e6:,.0f} MB that are not sorted, or cross the antimeridian, are more than "
            f"the {MOST_SORTED / 1e6:,.0f} MB that are sorted in memory; give an extract of a smaller area"
        )
        raise MapError(msg)
    with tempfile.TemporaryDirectory(prefix="wavecity-map-") as folder:
        copy = Path(folder) / "sorted.osm.pbf"
        reader = osmium.MergeInputReader()
        reader.add_file(str(path))
        with osmium.SimpleWriter(str(copy)) as writer:
            reader.apply(_Copier(writer, turned))
        yield copy


def needs_sorting(path: Path) -> bool:
    """Whether an extract has negative ids of nodes, or elements in an order that osmium does not expect."""
    reader = osmium.io.Reader(str(path))
    try:
        declared = reader.header().get("sorting") == "Type_then_ID"
    finally:
        reader.close()
    kinds = {"n": 0, "w": 1, "r": 2}
    last = (0, 0)
    for item in osmium.FileProcessor(str(path)):
        if declared or item.id < 0:
            return bool(item.id < 0)  # the negative ones are the first of a sorted file
        here = kinds[item.type_str()], item.id
        if here < last:
            return True
        last = here
    return False


class _Copier(osmium.SimpleHandler):
    """Writes every element; nodes with new ids from 1 on."""

    def __init__(self, writer: osmium.SimpleWriter, turned: bool) -> None:
        super().__init__()
        self._writer = writer
        self._turned = turned
        self._ids: dict[int, int] = {}

    def _number(self, old: int) -> int:
        """New id of a node."""
        return self._ids.setdefault(old, len(self._ids) + 1)

    def node(self, item: osmium.osm.Node) -> None:
        """Write a node, turned if that is wanted."""
        location: object = item.location
        if self._turned and item.location.valid():
            longitude = item.location.lon
            location = longitude + (HALF_TURN if longitude < 0 else -HALF_TURN), item.location.lat
        self._writer.add_node(item.replace(id=self._number(item.id), location=location))

    def way(self, item: osmium.osm.Way) -> None:
        """Write a way with the new ids of its nodes."""
        self._writer.add_way(item.replace(nodes=[self._number(node.ref) for node in item.nodes]))

    def relation(self, item: osmium.osm.Relation) -> None:
        """Write a relation; those of its members that are nodes draw nothing and are left out."""
        members = [(member.type, member.ref, member.role) for member in item.members if member.type != "n"]
        self._writer.add_relation(item.replace(members=members))
