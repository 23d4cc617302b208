"""Names and boxes of the extracts on download.bbbike.org, from the index that the pyrosm package carries."""

import gzip
import importlib.util
import json
from functools import lru_cache
from pathlib import Path

from shapely.geometry import shape

SERVER = "download.bbbike.org"


def extract_name(name: str, latitude: float, longitude: float) -> str | None:
    """How the server spells a city: the extract of that name whose box holds its centre, else the one nearest around it.

    Returns
    -------
    str or None
        None where no extract holds the centre.

    Examples
    --------
    >>> extract_name("Munich", 48.137, 11.575)
    'Muenchen'
    """
    around = []
    for extract, (west, south, east, north) in extracts().items():
        if west <= longitude <= east and south <= latitude <= north:
            off = abs(longitude - (west + east) / 2) + abs(latitude - (south + north) / 2)
            around.append((extract != name, off, extract))
    return min(around)[2] if around else None


@lru_cache(maxsize=1)
def extracts() -> dict[str, tuple[float, float, float, float]]:
    """Box (west, south, east, north) of every extract, by its name; empty where the index is not installed."""
    # Without importing pyrosm, which takes seconds.
    spec = importlib.util.find_spec("pyrosm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "bbbike_index.geojson.gz"
        if path.is_file():
            features = json.loads(gzip.decompress(path.read_bytes()))["features"]
            return {feature["properties"]["id"]: shape(feature["geometry"]).bounds for feature in features}
    return {}
