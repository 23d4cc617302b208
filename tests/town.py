"""A small town of a few houses with a wood and a row of trees, as an OpenStreetMap file."""

from pathlib import Path

from geo_maps import Building, Street, box, osm_xml

TOWN: list[Building] = [
    (box(-70, 20, -30, 60), {"building": "yes", "height": "20"}),
    (box(-70, -60, -30, -20), {"building": "yes", "height": "9"}),
    (box(30, -60, 70, -20), {"building": "yes", "height": "9"}),
    (box(30, 20, 70, 60), {"building": "yes", "height": "12"}),
    (box(-15, -100, 25, -70), {"natural": "wood", "height": "12"}),
]
ROW: list[Street] = [([(-20.0, 10.0), (60.0, 10.0)], {"natural": "tree_row", "diameter_crown": "7"})]


def write_town(path: Path) -> None:
    """Write the town's map."""
    path.write_text(osm_xml(TOWN, 110.0, ROW), encoding="utf-8")
