"""Heights of the features around a tile: tagged, inherited from the building of a part, or imputed."""

from dataclasses import replace

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wavecity.geo.height_texts import parse_length
from wavecity.geo.heights import (
    CONFIDENCE,
    MIN_HEIGHT,
    NEIGHBOUR_RADIUS,
    Height,
    impute_height,
    nearest_heights,
    tagged_height,
)
from wavecity.geo.rows import ROW_REACH, row_leaders
from wavecity.geo.settings import SceneSettings
from wavecity.geo.sources import Source

# When they cover more than this, a rest whose height the map does not state is a yard or an annex, not a tower.
PARTS_MOST = 0.6


def without_towers(
    outlines: NDArray[np.object_],
    heights: dict[int, Height],
    local: NDArray[np.object_],
    parents: NDArray[np.int64],
    tags: list[dict[str, str]],
    storey: float,
) -> None:
    """Lower what parts leave of a building without a height: to the lowest of them, to nothing if it is tagged as 0 m."""
    for parent in np.unique(parents[parents >= 0]).tolist():
        height = heights.get(parent)
        if height is None or outlines[parent].is_empty or height.source not in ("imputed", "guess"):
            continue
        stated = parse_length(tags[parent].get("height", ""))
        if stated is not None and stated[0] < MIN_HEIGHT:
            outlines[parent] = Polygon()
        elif outlines[parent].area < (1 - PARTS_MOST) * local[parent].area:
            parts = [tagged_height(tags[part], storey) for part in np.flatnonzero(parents == parent)]
            lowest = min((part.top for part in parts if part), default=height.top)
            if height.base < lowest < height.top:
                heights[parent] = replace(height, top=lowest)


def feature_heights(
    features: gpd.GeoDataFrame,
    tags: list[dict[str, str]],
    local: NDArray[np.object_],
    kinds: NDArray[np.str_],
    parents: NDArray[np.int64],
    wanted: NDArray[np.bool_],
    source: Source,
    settings: SceneSettings,
    seed: int,
) -> dict[int, Height]:
    """Height of every feature that touches the tile."""
    storey = settings.storey_height
    known = {row: tagged_height(tags[row], storey) for row in range(len(tags)) if kinds[row] in ("building", "part")}
    references = np.array([row for row, height in known.items() if height and kinds[row] == "building"], dtype=np.int64)
    # get_coordinates leaves empty geometries out: without their rows all later ones would get a neighbour's centre.
    centres = np.full((len(local), 2), np.nan)
    centres[~shapely.is_empty(local)] = shapely.get_coordinates(shapely.centroid(local))
    areas = shapely.area(local)
    types, ids = features["osm_type"].tolist(), features["osm_id"].to_numpy()
    uses = np.array([of.get("building") or of.get("building:part", "") for of in tags], dtype=np.str_)
    tops = np.array([height.top for row in references if (height := known[int(row)])], dtype=np.float64)
    others = (centres[references], tops, areas[references], uses[references])
    untagged = np.array([kinds[row] == "building" and known.get(row) is None for row in range(len(tags))], dtype=bool)
    leaders: dict[int, int] = {}
    if settings.impute == "neighbours":
        leaders = row_leaders(local, uses, areas, centres, ids, untagged, wanted)

    def impute(row: int) -> Height:
        # A leader's neighbours are within reach of every building of its row.
        leader, radius = leaders.get(row, row), NEIGHBOUR_RADIUS - (ROW_REACH if row in leaders else 0.0)
        neighbours = nearest_heights(centres[leader], uses[row], *others, radius)
        osm, area = (types[row], int(ids[row])), float(areas[leader])
        return impute_height(tags[row], osm, area, neighbours, source.statistics, storey, settings.impute, seed)

    heights: dict[int, Height] = {}
    has_parts = set(parents.tolist())
    # Buildings first: a part without a height of its own takes its building's.
    for row in sorted(known, key=lambda row: kinds[row] != "building"):
        height = known[row]
        if kinds[row] == "building":
            if wanted[row] or row in has_parts:
                heights[row] = height or impute(row)
        elif wanted[row] and height:
            heights[row] = Height(height.top, height.base, "part", height.confidence)
        elif wanted[row]:
            heights[row] = _inherited(tags[row], heights.get(int(parents[row])), storey) or impute(row)
    return heights


def _inherited(tags: dict[str, str], parent: Height | None, storey_height: float) -> Height | None:
    """Height of a part that has at most a base of its own: up to the top of its building."""
    if parent is None:
        return None
    own = tagged_height({**tags, "height": f"{parent.top:.3f}"}, storey_height)
    confidence = min(parent.confidence, CONFIDENCE["inherited"])
    return Height(parent.top, own.base if own else 0.0, parent.source, confidence)
