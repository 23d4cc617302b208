"""Buildings of a unit's scenes as GeoParquet: where they are on the Earth, and in the metres of their scene."""

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wavecity.dataset.files import StorePath, atomic_path

if TYPE_CHECKING:
    import geopandas as gpd

# The primary geometry is in WGS84, longitude first, as GeoParquet recommends. Versions written before had the local
# geometry alone, in its place.
WORLD, LOCAL = "geometry", "local_geometry"
CRS84 = "OGC:CRS84"
# Key of the file's metadata under which the projections are.
METADATA = b"wavecity"


def write_buildings(path: StorePath, scenes: "Sequence[tuple[gpd.GeoDataFrame, float, float]]") -> None:
    """Write the buildings of all scenes of a unit as one GeoParquet 1.1 file.

    `geometry` is in WGS84 (OGC:CRS84), with a bounding box per row. `local_geometry` is in metres of each scene's own
    projection, therefore without a CRS; the file's metadata hold the projections as JSON under `wavecity`.

    Parameters
    ----------
    path : StorePath
        Appears whole or not at all.
    scenes : sequence of (geopandas.GeoDataFrame, float, float)
        Of every scene: its buildings, with `scene_id` and `geometry` in metres from the tile's centre, and the centre's
        latitude and longitude in degrees.

    Examples
    --------
    >>> write_buildings(draft.buildings_path(0), [(scene.buildings.assign(scene_id=scene.id), 60.17, 24.94)])
    >>> gpd.read_parquet(draft.buildings_path(0)).crs.name
    'WGS 84 (CRS84)'
    """
    import geopandas as gpd
    import pandas as pd
    import pyarrow.parquet as pq

    from wavecity.geo.projection import cached_crs, local_crs, to_world

    frames, projections = [], {}
    for table, latitude, longitude in scenes:
        local = table.geometry.to_numpy()
        geometries = {WORLD: to_world(local, latitude, longitude), LOCAL: local}
        frames.append(pd.DataFrame(table.drop(columns=table.geometry.name)).assign(**geometries))
        for scene in table["scene_id"].unique().tolist():
            projections[scene] = local_crs(latitude, longitude)
    joined = pd.concat(frames, ignore_index=True)
    frame = gpd.GeoDataFrame(joined, geometry=WORLD, crs=cached_crs(CRS84))
    frame[LOCAL] = gpd.GeoSeries(joined[LOCAL], crs=None)
    about = {
        "column": LOCAL,
        "units": "m",
        "axes": "x east, y north, from the centre of the scene's tile",
        "projections": projections,
    }
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, write_covering_bbox=True, schema_version="1.1.0")
        written = pq.read_table(temporary)
        metadata = {**(written.schema.metadata or {}), METADATA: json.dumps(about, sort_keys=True).encode()}
        pq.write_table(written.replace_schema_metadata(metadata), temporary)


def read_buildings(path: StorePath) -> "gpd.GeoDataFrame":
    """Buildings of a unit with `geometry` in metres of each building's scene, of any version's file.

    Raises
    ------
    OSError, ValueError
        The file cannot be read as GeoParquet.
    """
    import geopandas as gpd

    table = gpd.read_parquet(io.BytesIO(path.read_bytes()))
    if LOCAL not in table:
        return table
    metres = table[LOCAL].to_numpy()
    # `bbox` is that of the geometry in degrees.
    columns = [name for name in table.columns if name not in (WORLD, LOCAL, "bbox")]
    return gpd.GeoDataFrame(table[columns], geometry=metres)
