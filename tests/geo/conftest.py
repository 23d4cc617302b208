"""Maps for the tests: the packaged Helsinki, the shared extracts when present, and towns drawn in metres."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from geo_maps import LATITUDE, LONGITUDE, Building, Street, osm_xml

from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import Source, open_source
from wavecity.geo.tiles import Tile


@pytest.fixture
def town(tmp_path: Path) -> Callable[..., Source]:
    """`town(buildings, half, streets)` -> Source of a map that shows just these."""

    def make(buildings: list[Building], half: float = 150.0, streets: list[Street] | None = None) -> Source:
        path = tmp_path / "town.osm"
        path.write_text(osm_xml(buildings, half, streets))
        return open_source(AreaSettings(source=str(path), city="Town"), tmp_path / "cache")

    return make


@pytest.fixture(scope="session")
def middle() -> Tile:
    """The tile around the origin of `town`."""
    return Tile("town-0000", "Town", "FI", LATITUDE, LONGITUDE, 200.0, split="train")


@pytest.fixture(scope="session")
def map_cache(shared: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder of maps that were read, the packaged Helsinki among them."""
    return shared("geo-maps", lambda folder: open_source(AreaSettings(), folder))


@pytest.fixture(scope="session")
def helsinki(map_cache: Path) -> Source:
    return open_source(AreaSettings(), map_cache)


@pytest.fixture(scope="session")
def extract(map_cache: Path) -> Callable[[str], Source]:
    """`extract("sofia-centre.osm")` -> Source; skips the test where the shared extracts are absent."""
    folder = Path(os.environ.get("WAVECITY_SHARED", Path(__file__).parents[2].parent / "shared")) / "osm"

    def find(name: str) -> Source:
        if not (folder / name).is_file():
            pytest.skip(f"{name} is not at hand")
        return open_source(AreaSettings(source=str(folder / name)), map_cache)

    return find
