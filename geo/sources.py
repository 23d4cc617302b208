"""Map sources of a recipe behind one interface: buildings by bounding box, from a GeoParquet cache."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from wavecity.geo.cities import SUFFIXES, City, cities_of
from wavecity.geo.download import Progress, described, download, download_path, drop_outdated
from wavecity.geo.errors import MapError
from wavecity.geo.extract import HELSINKI_SHA256, ExtractSource, find_helsinki, open_extract
from wavecity.geo.height_file import with_heights
from wavecity.geo.heights import HeightStatistics
from wavecity.geo.overpass import missing_boxes, open_overpass
from wavecity.geo.overture import open_overture
from wavecity.geo.reading import Bounds, Unreadable
from wavecity.geo.settings import AreaSettings


class Source(Protocol):
    """Where buildings and streets come from. Implementations hold paths and plain values only, so that they can be
    pickled.
    """

    @property
    def parquet(self) -> Path:
        """GeoParquet of the buildings; other files of the map lie next to it."""
        ...

    def moved(self, folder: Path) -> "Source":
        """Return the same map, whose files lie in `folder`."""
        ...

    @property
    def bounds(self) -> Bounds:
        """West, south, east, north in WGS84 degrees."""
        ...

    @property
    def statistics(self) -> HeightStatistics:
        """Distribution of the tagged heights of the whole map."""
        ...

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the map comes from, JSON-ready: name, file, sha256, map_date (or None), licence, counts,
        losses and repairs (buildings by what the map lacks, and by how they were repaired).

        Of a download also url and published (the server's Last-Modified).
        """
        ...

    def buildings(self, bounds: Bounds) -> gpd.GeoDataFrame:
        """Buildings and building parts that touch the WGS84 box, ordered by OSM type and id.

        Returns
        -------
        geopandas.GeoDataFrame
            osm_type (`way`, `relation`; `overture` when not from OpenStreetMap), osm_id, tags (dict of all raw tags),
            outline_of (id of the building relation whose outer ring a way merely repeats, else 0), problem (why the
            map shows no polygon of it, else empty), geometry (WGS84 polygon with holes; with a problem, the lines and
            points that are known).
        """
        ...

    def streets(self, bounds: Bounds) -> gpd.GeoDataFrame:
        """Ways with a `highway` tag whose box touches the WGS84 box, ordered by OSM id; whole, not cut.

        Returns
        -------
        geopandas.GeoDataFrame
            osm_id, tags (dict of all raw tags), geometry (WGS84 LineString, or MultiLineString where the map lacks
            nodes). Empty when the map holds buildings only (Overture).
        """
        ...

    def boxes(self) -> NDArray[np.float64]:
        """Bounding boxes (N, 4) of all buildings and parts: west, south, east, north in degrees, in no order."""
        ...


def open_source(area: AreaSettings, cache: Path, progress: Progress | None = None) -> Source:
    """Map of a recipe's first (or only) city; see `open_city`.

    Examples
    --------
    >>> open_source(AreaSettings(), Path("maps")).provenance["name"]
    'helsinki'
    """
    return open_city(cities_of(area)[0], area, cache, progress)


def open_city(city: City, area: AreaSettings, cache: Path, progress: Progress | None = None) -> Source:
    """Map of a city, downloaded and converted to GeoParquet in `cache` unless that has been done before.

    Missing heights are filled from `area.heights`, if there is one (`wavecity.geo.height_file`).

    Parameters
    ----------
    city : City
        `source` is `helsinki`, the path or URL of an extract (`SUFFIXES`) or of an Overture buildings .parquet, or
        `overpass`.
    area : AreaSettings
        How Overpass is queried, and the size of tiles.
    cache : Path
        Folder for downloads and converted maps; safe to share between processes.
    progress : callable, optional
        `progress(what, done, total)`: bytes of a download, requests to Overpass.

    Returns
    -------
    Source
        Small, picklable, and independent of the network.

    Raises
    ------
    MapError
        This city's map cannot be had: missing, broken, refused, without buildings.
    InputError
        Wrong for every city: the cache cannot be written, Overpass without a centre or beyond `max_requests`, no such
        file of heights.
    """
    source = _open_map(city, area, cache, progress)
    return with_heights(source, Path(area.heights).expanduser(), cache) if area.heights else source


def _open_map(city: City, area: AreaSettings, cache: Path, progress: Progress | None) -> ExtractSource:
    """Map of a city as its source has it."""
    if city.source == "overpass":
        return open_overpass(city, area, cache, progress)
    if not _is_url(city.source):
        return _open_file(Path(city.source).expanduser(), city, area, cache)
    if not city.source.split("?")[0].endswith((*SUFFIXES, ".parquet")):
        msg = f"area.source: {city.source}: not a map by its name; give the address of a {', '.join(SUFFIXES)} file"
        raise MapError(msg)
    file = download(city.source, cache, progress)
    about = described(file)
    try:
        source = _open_file(file, city, area, cache)
    except Unreadable as error:
        # A cached one would fail for ever.
        file.unlink(missing_ok=True)
        msg = f"{error}; it came from {city.source} and is removed: run again to load it anew"
        raise MapError(msg) from error
    return replace(
        source, provenance={**source.provenance, "url": city.source, "published": about["last_modified"] or None}
    )


def refresh_city(city: City, cache: Path) -> bool:
    """Remove the cached map of a city where the server has a newer one; returns whether it did.

    Overpass answers are kept as they are: use another folder of maps to request them anew.

    Raises
    ------
    MapError
        The server does not answer; the kept map stays.
    """
    return _is_url(city.source) and drop_outdated(city.source, cache)


def is_here(city: City, area: AreaSettings, cache: Path) -> bool:
    """Whether `open_city` needs no network: a local file that exists, a kept download, cached Overpass answers."""
    if city.source == "overpass":
        return not missing_boxes(city, area, cache)
    if _is_url(city.source):
        return download_path(city.source, cache).is_file()
    return city.source == "helsinki" or Path(city.source).expanduser().is_file()


def _open_file(path: Path, city: City, area: AreaSettings, cache: Path) -> ExtractSource:
    """Map of a file, by its suffix."""
    if city.source == "helsinki":
        return open_extract(find_helsinki(), "helsinki", cache, HELSINKI_SHA256)
    if path.name.endswith(".parquet"):
        return open_overture(path, city, area, cache)
    return open_extract(path, path.name.split(".")[0], cache)


def _is_url(source: str) -> bool:
    """Whether a source is an address."""
    return source.startswith(("http://", "https://"))
