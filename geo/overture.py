"""Overture Maps buildings (GeoParquet), as if they were an OpenStreetMap extract.

Schema: https://docs.overturemaps.org/schema/reference/buildings/ (types `building` and `building_part`).
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import shapely
import shapely.affinity

from wavecity.geo.cities import City
from wavecity.geo.errors import MapError
from wavecity.geo.extract import ExtractSource, map_folder, open_map, sha256_of, write_map
from wavecity.geo.projection import WGS84, within_turn, world_bounds
from wavecity.geo.reading import Bounds, street_frame
from wavecity.geo.settings import AreaSettings

LICENCE = "© OpenStreetMap contributors, Overture Maps Foundation, ODbL 1.0"
# Overture's columns and the tags that they are made of. Heights are metres; `height` is OpenStreetMap's, so the top
# above ground also where there is a `min_height`.
TAG_OF = {
    "height": "height",
    "min_height": "min_height",
    "num_floors": "building:levels",
    "min_floor": "building:min_level",
    "roof_shape": "roof:shape",
    "roof_height": "roof:height",
    "level": "layer",
}
OTHERS = ["id", "geometry", "sources", "class", "subtype", "type", "building_id", "is_underground"]


def open_overture(path: Path, city: City, area: AreaSettings, cache: Path) -> ExtractSource:
    """Buildings of an Overture file, of the city's circle if the city has a centre, else all.

    Raises
    ------
    MapError
        The file is missing, no Overture buildings, or has none there.
    InputError
        The cache cannot be written.
    """
    if not path.is_file():
        msg = f"area.source: {path}: no such file; give an Overture buildings .parquet"
        raise MapError(msg)
    circle: Bounds | None = None
    if city.latitude is not None and city.longitude is not None:
        radius = city.radius + area.tile_size
        circle = world_bounds((-radius, -radius, radius, radius), city.latitude, city.longitude)
    file_digest = sha256_of(path)
    digest = hashlib.sha256(f"{file_digest} {circle}".encode()).hexdigest()
    folder = map_folder(cache, path.name.split(".")[0], digest)
    if not folder.is_dir():
        found = _read(path, circle)
        frame, datasets = _as_extract(found)
        parts = int(_parts(found).sum())
        provenance = {
            "name": path.name.split(".")[0],
            "file": path.name,
            "sha256": file_digest,
            "map_date": None,
            "licence": LICENCE,
            "counts": {"buildings": len(found) - parts, "parts": parts},
            "datasets": datasets,
        }
        write_map(folder, frame, street_frame([]), circle or tuple(frame.total_bounds.tolist()), provenance)
    return open_map(folder)


def _read(path: Path, circle: Bounds | None) -> gpd.GeoDataFrame:
    """Rows of a file, checked."""
    right = "give an Overture buildings .parquet (columns id, geometry, sources, height …)"
    try:
        names = set(pq.read_schema(path).names)
        if not {"id", "geometry", "sources"} <= names:
            msg = f"area.source: {path}: not Overture buildings by its columns; {right}"
            raise MapError(msg)
        columns = [name for name in [*OTHERS, *TAG_OF] if name in names]
        # Overture's features end at the antimeridian; those beyond it are put next to the others.
        parts = within_turn(circle) if circle and "bbox" in names else [None]
        found = pd.concat([_beside(gpd.read_parquet(path, columns=columns, bbox=part), circle) for part in parts])
    except (OSError, ValueError) as error:
        if isinstance(error, MapError):
            raise
        msg = f"area.source: {path}: cannot be read as GeoParquet ({' '.join(str(error).split())}); {right}"
        raise MapError(msg) from error
    found = found[found.geom_type.isin(["Polygon", "MultiPolygon"])]
    if found.empty:
        msg = f"area.source: {path}: holds no building" + (" around the city's centre" if circle else "")
        raise MapError(msg)
    return found


def _beside(found: gpd.GeoDataFrame, circle: Bounds | None) -> gpd.GeoDataFrame:
    """Rows with the longitudes of a circle, which go beyond ±180 where it crosses the antimeridian."""
    if circle is None or min(circle[0], -circle[2]) >= -180.0 or found.empty:
        return found
    middle, here = (circle[0] + circle[2]) / 2, found.geometry.to_numpy()
    turns = np.round((shapely.bounds(here)[:, 0] - middle) / 360.0)
    moved = [shapely.affinity.translate(shape, -360.0 * turn) for shape, turn in zip(here, turns, strict=True)]
    return found.set_geometry(gpd.GeoSeries(moved, index=found.index, crs=found.crs))


def _as_extract(found: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, list[str]]:
    """Columns of `Source.buildings` (tags as JSON text), and the names of the datasets behind them."""
    rows = found.drop(columns="geometry").to_dict("records")
    keys: list[tuple[str, int]] = []
    seen: set[tuple[str, int]] = set()
    for row in rows:
        key = _osm_key(row)
        # Two buildings may come from one element: ids stay unique.
        if key is None or key in seen:
            key = "overture", int(hashlib.sha256(row["id"].encode()).hexdigest()[:15], 16)
        seen.add(key)
        keys.append(key)
    parts = _parts(found)
    frame = gpd.GeoDataFrame(
        {
            "osm_type": [key[0] for key in keys],
            "osm_id": np.array([key[1] for key in keys], dtype=np.int64),
            "tags": [
                json.dumps(_tags(row, bool(part)), sort_keys=True, ensure_ascii=False)
                for row, part in zip(rows, parts, strict=True)
            ],
            "outline_of": np.zeros(len(rows), dtype=np.int64),
            "problem": np.full(len(rows), "", dtype=object),
        },
        geometry=found.geometry.to_numpy(),
        crs=WGS84,
    )
    return frame, sorted({source["dataset"] for row in rows for source in _sources(row)})


def _parts(found: gpd.GeoDataFrame) -> Any:
    """Which rows are building parts: by `type`, or, in a file of parts alone, by their `building_id`."""
    if "type" in found:
        return (found["type"] == "building_part").to_numpy()
    return found["building_id"].notna().to_numpy() if "building_id" in found else np.zeros(len(found), dtype=bool)


def _tags(row: dict[str, Any], part: bool) -> dict[str, str]:
    """OpenStreetMap tags of a row."""
    kind = next((row[name] for name in ("class", "subtype") if isinstance(row.get(name), str)), "yes")
    tags = {"building:part": "yes"} if part else {"building": kind}
    for column, key in TAG_OF.items():
        value = row.get(column)
        if isinstance(value, str):
            tags[key] = value
        elif value is not None and value == value:  # not NaN
            tags[key] = f"{float(value):g}"
    if row.get("is_underground") is True:
        tags["location"] = "underground"
    return tags


def _sources(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Sources of a row."""
    return [] if row["sources"] is None else list(row["sources"])


def _osm_key(row: dict[str, Any]) -> tuple[str, int] | None:
    """OSM type and id from the source of the geometry, such as `w123@4`."""
    for source in _sources(row):
        found = re.fullmatch(r"([wr])(\d+)(@\d+)?", str(source.get("record_id")))
        # The source of one property alone (a height from lidar, say) is not where the building comes from.
        if found and source["dataset"] == "OpenStreetMap" and not source.get("property"):
            return {"w": "way", "r": "relation"}[found[1]], int(found[2])
    return None
