"""Heights that another data set states, for buildings of which the map states none (`area.heights`).

The file is GeoParquet with footprints and a column `height` (m), `num_floors` or both, as Overture's buildings have
(https://docs.overturemaps.org/schema/reference/buildings/), or plain Parquet with such columns and WKB in WGS84.
"""

import hashlib
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.extract import ExtractSource, map_folder, open_map, sha256_of, write_map
from wavecity.geo.height_texts import MAX_HEIGHT
from wavecity.geo.heights import EXTERNAL_FLOORS, EXTERNAL_HEIGHT, MIN_HEIGHT, tagged_height
from wavecity.geo.projection import WGS84
from wavecity.geo.reading import Bounds

# A building takes the file's height where footprints with a height cover at least this share of its own.
LEAST_SHARE = 0.5
# Column of the file, and the tag under which the map keeps the value.
COLUMNS = {"height": EXTERNAL_HEIGHT, "num_floors": EXTERNAL_FLOORS}
RIGHT = "give GeoParquet with footprints and a column height (m) or num_floors, such as Overture's buildings"


def with_heights(source: ExtractSource, path: Path, cache: Path) -> ExtractSource:
    """The same map, whose buildings without a height have that of the file where its footprints cover them.

    Where footprints with a height cover half of a building or more, it takes the median of their heights, weighted by
    the area that they share with it. So neither blocks that the file draws in one nor houses that it divides are lost.

    Parameters
    ----------
    source : ExtractSource
    path : Path
        See the module.
    cache : Path
        Folder of maps; the filled map lies there by the hashes of both files.

    Returns
    -------
    ExtractSource
        `provenance["heights"]` says from which file, for how many buildings without a height, and how many it filled.

    Raises
    ------
    InputError
        The file is missing, cannot be read, or lacks its columns.

    Examples
    --------
    >>> with_heights(source, Path("overture.parquet"), Path("maps")).provenance["heights"]["filled"]
    1204
    """
    if not path.is_file():
        msg = f"area.heights: {path}: no such file; {RIGHT}"
        raise InputError(msg)
    file_digest = sha256_of(path)
    digest = hashlib.sha256(f"{source.provenance['sha256']} {file_digest}".encode()).hexdigest()
    folder = map_folder(cache, f"{source.provenance['name']}-heights", digest)
    if not folder.is_dir():
        everywhere = (-360.0, -90.0, 360.0, 90.0)
        buildings, streets = source.buildings(everywhere), source.streets(everywhere)
        boxes = source.boxes()
        bounds = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())
        counts = _fill(buildings, _read(path, bounds))
        for frame in (buildings, streets):
            frame["tags"] = [json.dumps(tags, sort_keys=True, ensure_ascii=False) for tags in frame["tags"]]
        described = {
            **source.provenance,
            "sha256": digest,
            "map_sha256": source.provenance["sha256"],
            "heights": {"file": path.name, "sha256": file_digest, **counts},
        }
        unplaced = json.loads((source.parquet.parent / "map.json").read_text())["unplaced"]
        write_map(folder, buildings, streets, source.bounds, described, unplaced)
    return open_map(folder)


def _read(path: Path, bounds: Bounds) -> gpd.GeoDataFrame:
    """Footprints of a file in a WGS84 box, with `height` and `num_floors` as far as it has them."""
    try:
        schema = pq.read_schema(path)
        columns = [name for name in COLUMNS if name in schema.names]
        if not columns:
            msg = f"area.heights: {path}: neither of the columns {' and '.join(COLUMNS)}; {RIGHT}"
            raise InputError(msg)
        if b"geo" in (schema.metadata or {}):
            covered = b'"covering"' in schema.metadata[b"geo"]
            primary = json.loads(schema.metadata[b"geo"])["primary_column"]
            found = gpd.read_parquet(path, columns=[primary, *columns], bbox=bounds if covered else None)
            if found.crs is None:
                msg = f"area.heights: {path}: geometry without coordinate reference system; {RIGHT}"
                raise InputError(msg)
            found = found.to_crs(WGS84)
        elif "geometry" in schema.names:
            table = pq.read_table(path, columns=["geometry", *columns]).to_pandas()
            found = gpd.GeoDataFrame(table[columns], geometry=shapely.from_wkb(table["geometry"]), crs=WGS84)
        else:
            msg = f"area.heights: {path}: no column geometry; {RIGHT}"
            raise InputError(msg)
        for name in columns:
            found[name] = found[name].astype(np.float64)
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, shapely.errors.GEOSException) as error:
        msg = f"area.heights: {path}: cannot be read as GeoParquet ({' '.join(str(error).split())[:200]}); {RIGHT}"
        raise InputError(msg) from error
    found = found.rename_geometry("geometry") if found.geometry.name != "geometry" else found
    return found.cx[bounds[0] : bounds[2], bounds[1] : bounds[3]]


def _fill(buildings: gpd.GeoDataFrame, file: gpd.GeoDataFrame) -> dict[str, int]:
    """Add the file's heights to the tags of buildings without one; counts of these, of the filled, and of the file's."""
    tags: list[dict[str, str]] = buildings["tags"].tolist()
    open_rows = np.array(
        [
            row
            for row, (of, problem) in enumerate(zip(tags, buildings["problem"], strict=True))
            if not problem and of.get("building", "no") != "no" and tagged_height(of, 1.0) is None
        ],
        dtype=np.int64,
    )
    shapes = shapely.make_valid(buildings.geometry.to_numpy()[open_rows])
    filled: set[int] = set()
    usable = 0
    for column, tag in COLUMNS.items():
        if column not in file:
            continue
        values = file[column].to_numpy()
        good = (values >= (MIN_HEIGHT if column == "height" else 0.5)) & (values <= MAX_HEIGHT)
        good &= np.isin(shapely.get_type_id(file.geometry.to_numpy()), (3, 6))
        usable += int(good.sum())
        for row, value in _by_overlap(shapes, shapely.make_valid(file.geometry.to_numpy()[good]), values[good]).items():
            if row not in filled:  # metres say more than storeys
                tags[int(open_rows[row])][tag] = f"{value:.2f}".rstrip("0").rstrip(".")
                filled.add(row)
    return {"without_height": len(open_rows), "filled": len(filled), "usable": usable}


def _by_overlap(
    shapes: NDArray[np.object_], others: NDArray[np.object_], values: NDArray[np.float64]
) -> dict[int, float]:
    """Row of a shape -> median of the values of the others on it, weighted by area, where they cover enough of it."""
    left, right = shapely.STRtree(others).query(shapes, predicate="intersects")
    order = np.lexsort((values[right], left))
    left, right = left[order], right[order]
    # In square degrees: their ratios are those of square metres.
    shared = shapely.area(shapely.intersection(shapes[left], others[right]))
    area = shapely.area(shapes)
    found: dict[int, float] = {}
    rows, starts = np.unique(left, return_index=True)
    for row, start, end in zip(rows.tolist(), starts, [*starts[1:], len(left)], strict=False):
        here = np.arange(start, end)
        sums = np.cumsum(shared[here])
        if area[row] > 0 and sums[-1] >= LEAST_SHARE * area[row]:
            found[row] = float(values[right[here[int(np.argmax(sums >= 0.5 * sums[-1]))]]])
    return found
