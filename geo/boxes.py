"""Indexed GeoParquet read by bounding box, with the row groups that were read last kept in memory.

A plan walks a city tile by tile, and tiles that are near one another lie in the same few row groups.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wavecity.geo.projection import WGS84, cached_crs
from wavecity.geo.reading import Bounds

# Row groups that are kept, of all files together: some 100 MB at most. Size and time of a file say whether it is still the
# one that was read.
KEPT_GROUPS = 48
# Columns, and geometries.
Rows = tuple[pd.DataFrame, NDArray[np.object_]]

EDGES = ("xmin", "ymin", "xmax", "ymax")


def read_box(path: Path, bounds: Bounds, columns: list[str], order: list[str]) -> gpd.GeoDataFrame:
    """Rows of an indexed GeoParquet whose box touches `bounds`.

    Parameters
    ----------
    path : Path
    bounds : (west, south, east, north)
        WGS84 degrees.
    columns : list of str
        To read, in addition to the geometry; `tags` is JSON text in the file, dictionaries in the result.
    order : list of str
        Columns that the rows are sorted by.

    Examples
    --------
    >>> read_box(path, (24.93, 60.17, 24.94, 60.18), ["osm_type", "osm_id", "tags"], ["osm_type", "osm_id"])
    """
    west, south, east, north = bounds
    stamp = path.stat().st_size, path.stat().st_mtime_ns
    boxes, starts = _index(path, stamp)
    x0, y0, x1, y1 = boxes.T
    rows = np.flatnonzero((x0 <= east) & (x1 >= west) & (y0 <= north) & (y1 >= south))
    group = np.searchsorted(starts, rows, side="right") - 1
    touched = np.unique(group).tolist()
    # Of a whole map the groups would only drive one another out.
    read = _group if len(touched) <= KEPT_GROUPS // 2 else _group.__wrapped__
    parts = [_none(path, stamp, tuple(columns))]
    for number in touched:
        frame, geometry = read(path, stamp, number, tuple(columns))
        within = rows[group == number] - starts[number]
        parts.append((frame.iloc[within], geometry[within]))
    found = pd.concat([frame for frame, _ in parts], ignore_index=True)
    # Row order follows the Hilbert curve, not the ids.
    by = np.lexsort([found[column].to_numpy() for column in reversed(order)])
    found = found.iloc[by].reset_index(drop=True)
    # Copies, for whoever changes them.
    copies: list[Any] = [dict(tags) for tags in found["tags"]]
    found["tags"] = copies
    geometry = np.concatenate([geometry for _, geometry in parts])[by]
    return gpd.GeoDataFrame(found, geometry=geometry, crs=cached_crs(WGS84))


@lru_cache(maxsize=16)
def _index(path: Path, stamp: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Boxes (N, 4) of all rows: west, south, east, north; and the first row of each group."""
    file = pq.ParquetFile(path)
    table = file.read(columns=["bbox"]).flatten()
    boxes = np.column_stack([table[f"bbox.{edge}"].to_numpy() for edge in EDGES]).astype(np.float64)
    counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    return boxes, np.concatenate([[0], np.cumsum(counts[:-1], dtype=np.int64)]).astype(np.int64)


@lru_cache(maxsize=KEPT_GROUPS)
def _group(path: Path, stamp: tuple[int, int], number: int, columns: tuple[str, ...]) -> Rows:
    """A row group, decoded."""
    return _decoded(pq.ParquetFile(path).read_row_group(number, columns=[*columns, "geometry"]))


@lru_cache(maxsize=16)
def _none(path: Path, stamp: tuple[int, int], columns: tuple[str, ...]) -> Rows:
    """No rows, of the types that the file's have."""
    return _decoded(pq.ParquetFile(path).read_row_groups([], columns=[*columns, "geometry"]))


def _decoded(table: pa.Table) -> Rows:
    frame = table.drop_columns("geometry").to_pandas()
    frame["tags"] = np.array([json.loads(text) for text in frame["tags"]], dtype=object)
    return frame, shapely.from_wkb(table["geometry"].to_numpy())
