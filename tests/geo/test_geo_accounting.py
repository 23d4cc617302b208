"""Every building of the map that touches a tile is used, clipped away, or rejected with a reason: none is lost."""

from collections import Counter
from pathlib import Path

import pytest
from osm_reader import MapFeatures, read_features, touching

from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.projection import local_crs
from wavecity.geo.settings import AreaSettings, SceneSettings
from wavecity.geo.sources import Source, find_helsinki, open_source
from wavecity.geo.tiles import grid

SETTINGS = SceneSettings()
OUTCOMES = {
    "used",
    "clipped away at the tile's edge",
    "inside a taller building",
    "its members are buildings",
    "members are missing in the map",
    "nodes are missing in the map",
    "replaced by its parts",
    "ring that does not close",
    "repeats the outer ring of its relation",
    "rings without area",
    "smaller than scene.min_area",
    "tagged as no building",
    "thinner than scene.simplify_tolerance",
    "underground",
}


def assert_accounted(features: MapFeatures, prints: Footprints, crs: str, size: float) -> None:
    table = prints.outcomes
    listed = list(zip(table["osm_type"], table["osm_id"], strict=True))
    assert len(set(listed)) == len(listed)
    expected = touching(features, crs, size)
    assert expected <= set(listed)
    # What our own list could not assemble the map may still hold; nothing else.
    assert set(listed) - expected <= set(features.broken)
    assert set(table["outcome"]) <= OUTCOMES
    used = table[table["outcome"] == "used"]
    built = prints.buildings[["osm_type", "osm_id"]].drop_duplicates()
    assert set(zip(used["osm_type"], used["osm_id"], strict=True)) == set(built.itertuples(index=False, name=None))
    assert prints.ledger == dict(Counter(table["outcome"]))


def account(path: Path, source: Source) -> tuple[int, int]:
    """Check every tile that is built up; how many tiles and features that were."""
    features = read_features(path)
    everything = source.buildings((-180.0, -90.0, 180.0, 90.0))
    have = set(zip(everything["osm_type"], everything["osm_id"], strict=True))
    assert set(features.shapes) <= have
    assert have <= set(features.shapes) | set(features.broken)
    tiles = n = 0
    for tile in grid(source, AreaSettings()):
        prints = tile_footprints(tile.latitude, tile.longitude, tile.size, source, SETTINGS, 3)
        if prints.coverage >= 0.1:
            assert_accounted(features, prints, local_crs(tile.latitude, tile.longitude), tile.size)
            tiles, n = tiles + 1, n + len(prints.outcomes)
    return tiles, n


def test_no_building_of_helsinki_is_lost(helsinki: Source) -> None:
    tiles, n = account(find_helsinki(), helsinki)
    assert tiles >= 30
    assert n >= 700


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "least_tiles"),
    [
        ("baltimore.osm.pbf", 200),
        ("berlin-prenzlauer-berg.osm", 3),
        ("granada.osm", 3),
        ("los-angeles-ucla.osm", 14),
        ("nyc-west-village.osm.pbf", 12),
        ("seattle-northgate.osm", 2),
        ("sofia-centre.osm", 8),
    ],
)
def test_no_building_of_any_extract_is_lost(shared_osm: Path, map_cache: Path, name: str, least_tiles: int) -> None:
    path = shared_osm / name
    tiles, _ = account(path, open_source(AreaSettings(source=str(path)), map_cache))
    assert tiles >= least_tiles
