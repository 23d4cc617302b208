"""Towns drawn in metres, as OpenStreetMap XML."""

from xml.sax.saxutils import quoteattr

import numpy as np

from wavecity.geo.projection import unproject

LATITUDE, LONGITUDE = 60.17, 24.94
Ring = list[tuple[float, float]]
# Footprint (shell, then holes) in metres around the tile's centre, and tags.
Building = tuple[list[Ring], dict[str, str]]
# Points in metres, and tags (`highway` and more); streets that share a point meet there.
Street = tuple[list[tuple[float, float]], dict[str, str]]


def box(x0: float, y0: float, x1: float, y1: float) -> list[Ring]:
    return [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]]


def osm_xml(buildings: list[Building], half: float = 150.0, streets: list[Street] | None = None) -> str:
    """OSM XML of a town; a building with holes becomes a multipolygon relation. Ids: building k is 1000 + k, street 1 + k."""
    nodes: list[str] = []
    crossings: dict[tuple[float, float], int] = {}
    ways: list[str] = []
    relations: list[str] = []

    def way(ring: Ring, number: int, tags: dict[str, str]) -> None:
        references = []
        for lon, lat in unproject(np.array(ring, dtype=float), LATITUDE, LONGITUDE):
            nodes.append(f'<node id="{len(nodes) + 1}" version="1" lat="{lat:.9f}" lon="{lon:.9f}"/>')
            references.append(f'<nd ref="{len(nodes)}"/>')
        ways.append(f'<way id="{number}" version="1">{"".join(references)}{references[0]}{_tags(tags)}</way>')

    def street(points: list[tuple[float, float]], number: int, tags: dict[str, str]) -> None:
        for point in points:
            if point not in crossings:
                ((lon, lat),) = unproject(np.array([point], dtype=float), LATITUDE, LONGITUDE)
                nodes.append(f'<node id="{len(nodes) + 1}" version="1" lat="{lat:.9f}" lon="{lon:.9f}"/>')
                crossings[point] = len(nodes)
        references = "".join(f'<nd ref="{crossings[point]}"/>' for point in points)
        ways.append(f'<way id="{number}" version="1">{references}{_tags(tags)}</way>')

    for index, (points, tags) in enumerate(streets or []):
        street(points, 1 + index, tags)
    for index, (rings, tags) in enumerate(buildings):
        if len(rings) == 1:
            way(rings[0], 1000 + index, tags)
            continue
        members = []
        for k, ring in enumerate(rings):
            way(ring, 100_000 * (index + 1) + k, {})
            members.append(f'<member type="way" ref="{100_000 * (index + 1) + k}" role="{"inner" if k else "outer"}"/>')
        relations.append(
            f'<relation id="{1000 + index}" version="1">{"".join(members)}'
            f"{_tags({'type': 'multipolygon', **tags})}</relation>"
        )
    corners = unproject(np.array([[-half, -half], [half, half]]), LATITUDE, LONGITUDE)
    (west, south), (east, north) = corners
    bounds = f'<bounds minlat="{south:.9f}" minlon="{west:.9f}" maxlat="{north:.9f}" maxlon="{east:.9f}"/>'
    # osmium wants nodes, ways, relations, each by id.
    ways.sort(key=lambda text: int(text.split('"')[1]))
    return f'<osm version="0.6">{bounds}{"".join(nodes + ways + relations)}</osm>'


def _tags(tags: dict[str, str]) -> str:
    return "".join(f"<tag k={quoteattr(key)} v={quoteattr(value)}/>" for key, value in tags.items())
