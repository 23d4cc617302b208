"""Raw map features -> solids of a tile: footprints, and the heights between which each is filled."""

from collections.abc import Iterable
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import shapely.errors
from numpy.typing import NDArray
from pyproj import CRS
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from wavecity.geo.errors import SceneError
from wavecity.geo.heights import NEIGHBOUR_RADIUS, Height
from wavecity.geo.materials import with_materials
from wavecity.geo.nested import holders, let_both_stand
from wavecity.geo.polygons import GRID, polygons, repair, simplify_together, unpinch
from wavecity.geo.projection import cached_crs, local_crs, project, world_bounds
from wavecity.geo.rings import FLAT, REPEATED, is_mapped
from wavecity.geo.settings import SceneSettings
from wavecity.geo.sources import Source
from wavecity.geo.tile_heights import feature_heights, without_towers

# Overlaps below this area (m2) are rounding, not overlap.
TOUCH = 1e-3
# When parts cover this much of a building they describe it whole (Simple 3D Buildings) and the rest of the outline is
# drawing error; when they cover less, only the special parts were mapped and the rest keeps the outline's height.
PARTS_COMPLETE = 0.9
# Buildings rarely reach farther out of a tile (m): up to here one read of the map is enough.
USUAL_OVERHANG = 60.0


@dataclass(frozen=True)
class Footprints:
    """The solids of a tile.

    Attributes
    ----------
    buildings : geopandas.GeoDataFrame
        osm_type, osm_id, height, base (m), height_source, confidence, geometry: MultiPolygon in local metres, valid, on
        a 1 mm grid, inside the tile. No two rows share volume. Ordered by type, id and base. With `scene.materials` also
        the columns of `wavecity.geo.materials.with_materials`.
    union : shapely geometry
        Built-up area, seen from above.
    coverage : float
        Share of the tile that `union` covers.
    beyond : shapely geometry
        What is built outside the tile within `bs_clearance` of its edge, of whatever height.
    outcomes : pandas.DataFrame
        What became of every map feature that touches the tile: osm_type, osm_id, outcome (`used`, or the reason why
        not), one row per feature.
    """

    buildings: gpd.GeoDataFrame
    union: BaseGeometry
    coverage: float
    beyond: BaseGeometry
    outcomes: pd.DataFrame

    @property
    def ledger(self) -> dict[str, int]:
        """Number of features by outcome."""
        return {str(outcome): int(n) for outcome, n in self.outcomes["outcome"].value_counts().sort_index().items()}


@dataclass(frozen=True)
class Solid:
    """A prism: a footprint (one Polygon or several) from `base` to `top` in m."""

    footprint: BaseGeometry
    base: float
    top: float
    feature: int


def tile_footprints(
    latitude: float, longitude: float, size: float, source: Source, settings: SceneSettings, seed: int
) -> Footprints:
    """Solids of the tile around a centre.

    Parameters
    ----------
    latitude, longitude : float
        Centre in WGS84 degrees.
    size : float
        Edge of the tile in m.
    source : Source
    settings : SceneSettings
    seed : int
        For imputed heights.

    Raises
    ------
    SceneError
        GEOS fails on the geometry.

    Examples
    --------
    >>> prints = tile_footprints(60.1755, 24.9348, 200.0, source, SceneSettings(), seed=7)
    >>> prints.buildings[["height", "height_source"]]
    """
    try:
        return _resolve(latitude, longitude, size, source, settings, seed)
    except shapely.errors.GEOSException as error:
        msg = f"geometry that GEOS cannot overlay: {' '.join(str(error).split())}"
        raise SceneError(msg) from error


def _resolve(
    latitude: float, longitude: float, size: float, source: Source, settings: SceneSettings, seed: int
) -> Footprints:
    """Solids of a tile; see `tile_footprints`."""
    features, local, in_tile = _features_around(latitude, longitude, size, source)
    tags = list(features["tags"])
    described = zip(tags, features["outline_of"], features["problem"], strict=True)
    kinds = np.array([_kind(*row) for row in described], dtype=np.str_)
    _adopt_outline_tags(features, tags)
    kinds = _parts_by_place(local, kinds, tags)
    parents = _parents(local, kinds)
    wanted = in_tile & ~shapely.is_empty(local)
    inside = holders(local, kinds, wanted)
    wanted[list(inside.values())] = True
    heights = feature_heights(features, tags, local, kinds, parents, wanted, source, settings, seed)
    outlines = _without_parts(local, kinds, parents)
    without_towers(outlines, heights, local, parents, tags, settings.storey_height)
    let_both_stand(inside, outlines, heights, tags, local, settings.storey_height)

    outcomes: dict[int, str] = {}
    large: list[int] = []
    for index in np.flatnonzero(in_tile).tolist():
        if kinds[index] not in ("building", "part"):
            outcomes[index] = str(kinds[index])
        elif local[index].is_empty:
            outcomes[index] = FLAT
        elif outlines[index].is_empty:
            outcomes[index] = "replaced by its parts"
        elif outlines[index].area < settings.min_area:
            outcomes[index] = "smaller than scene.min_area"
        else:
            large.append(index)

    simplified = simplify_together([outlines[index] for index in large], settings.simplify_tolerance)
    square = shapely.box(-size / 2, -size / 2, size / 2, size / 2)
    clipped = shapely.intersection(np.array(simplified, dtype=object), square, grid_size=GRID)
    solids = []
    for index, piece in zip(large, clipped, strict=True):
        footprint = _clean(piece, settings)
        if footprint.is_empty:
            whole = piece.area >= settings.min_area and square.contains(outlines[index])
            outcomes[index] = "thinner than scene.simplify_tolerance" if whole else "clipped away at the tile's edge"
        else:
            outcomes[index] = "inside a taller building"
            solids.append(Solid(footprint, heights[index].base, heights[index].top, index))
    solids = _without_overlaps(solids, settings)
    outcomes.update({solid.feature: "used" for solid in solids})

    frame = _frame(solids, features, heights, cached_crs(local_crs(latitude, longitude)))
    if settings.materials is not None:
        areas = shapely.area(local)
        frame = with_materials(frame, features, tags, parents, areas, settings.materials, settings.storey_height)
    union = shapely.union_all(frame.geometry.to_numpy(), grid_size=GRID) if len(frame) else Polygon()
    built = outlines.copy()
    built[large] = simplified
    around = _beyond(built[(kinds == "building") | (kinds == "part")], size, settings)
    return Footprints(frame, union, min(1.0, union.area / size**2), around, _table(features, outcomes))


def _beyond(outlines: NDArray[np.object_], size: float, settings: SceneSettings) -> BaseGeometry:
    """What is built outside the tile, as near to its edge as the base station must not be to a building."""
    half, reach = size / 2, size / 2 + settings.bs_clearance
    frame = shapely.box(-reach, -reach, reach, reach).difference(shapely.box(-half, -half, half, half))
    near = outlines[shapely.intersects(outlines, frame) & (shapely.area(outlines) >= settings.min_area)]
    return shapely.union_all(shapely.intersection(near, frame, grid_size=GRID), grid_size=GRID)


def built_between(prints: Footprints, low: float, high: float) -> BaseGeometry:
    """Union of the footprints of all solids between two heights in m; the ground below raised ones is open."""
    there = ((prints.buildings["base"] < high) & (prints.buildings["height"] > low)).to_numpy()
    if there.all():
        return prints.union
    return shapely.union_all(prints.buildings.geometry.to_numpy()[there], grid_size=GRID)


def _features_around(
    latitude: float, longitude: float, size: float, source: Source
) -> tuple[gpd.GeoDataFrame, NDArray[np.object_], NDArray[np.bool_]]:
    """Map features, their geometry in local metres, and which touch the tile; the others are neighbours and parts."""
    square = shapely.box(-size / 2, -size / 2, size / 2, size / 2)
    reach = size / 2 + NEIGHBOUR_RADIUS + USUAL_OVERHANG
    wide = source.buildings(world_bounds((-reach, -reach, reach, reach), latitude, longitude))
    raw = project(wide.geometry.to_numpy(), latitude, longitude)
    # Decided by the rings as mapped, so that a building of which repair leaves nothing is accounted for, too.
    touching = shapely.intersects(raw, square)
    if not touching.any():
        return wide.iloc[:0], raw[:0], touching[:0]
    # Neighbours and parts of every building that touches the tile, so that a building is the same in all its tiles.
    whole = touching & (wide["problem"] == "").to_numpy()
    if not whole.any():
        return wide, repair(raw), touching
    x0, y0, x1, y1 = shapely.total_bounds(raw[whole]) + np.array([-1, -1, 1, 1]) * NEIGHBOUR_RADIUS
    if max(-x0, -y0, x1, y1) > reach:
        wide = source.buildings(world_bounds((x0, y0, x1, y1), latitude, longitude))
        raw = project(wide.geometry.to_numpy(), latitude, longitude)
        touching = shapely.intersects(raw, square)
    return wide, repair(raw), touching


def _kind(tags: dict[str, str], outline_of: int, problem: str) -> str:
    """`building`, `part`, or the reason why a feature is neither."""
    layer = tags.get("layer", "0")
    sunk = layer.startswith("-") and tags.get("location") != "overground"
    if sunk or tags.get("location") == "underground":
        return "underground"
    if not is_mapped(tags):
        return "tagged as no building"
    if problem:
        return problem
    if tags.get("building", "no") != "no":
        return REPEATED if outline_of else "building"
    return "part"


def _adopt_outline_tags(features: gpd.GeoDataFrame, tags: list[dict[str, str]]) -> None:
    """Give a building relation the tags (say, the height) of the way that repeats its outline."""
    rows = {
        (kind, osm_id): row
        for row, (kind, osm_id) in enumerate(zip(features["osm_type"], features["osm_id"], strict=True))
    }
    for row, relation in enumerate(features["outline_of"]):
        target = rows.get(("relation", relation)) if relation else None
        if target is not None:
            tags[target] = {**tags[row], **tags[target]}


def _parts_by_place(
    local: NDArray[np.object_], kinds: NDArray[np.str_], tags: list[dict[str, str]]
) -> NDArray[np.str_]:
    """Kinds: a feature tagged both as building and as part is a part if a larger building stands around it.

    The tower of Helsinki Cathedral is tagged so; as a building of its own it would be replaced by the nave around it.
    """
    tagged_both = [
        row
        for row in np.flatnonzero(kinds == "building").tolist()
        if tags[row].get("building:part", "no") != "no" and not local[row].is_empty
    ]
    if not tagged_both:
        return kinds
    buildings = np.flatnonzero(kinds == "building")
    middles = shapely.point_on_surface(local[tagged_both])
    feature, building = shapely.STRtree(local[buildings]).query(middles, predicate="within")
    area = shapely.area(local)
    rows = np.array(tagged_both)[feature]
    decided = kinds.copy()
    decided[rows[area[buildings[building]] > area[rows] + TOUCH]] = "part"
    return decided


def _parents(local: NDArray[np.object_], kinds: NDArray[np.str_]) -> NDArray[np.int64]:
    """For every part the smallest building around its middle that is not smaller than it; -1 where there is none."""
    parents = np.full(len(local), -1)
    parts, buildings = np.flatnonzero(kinds == "part"), np.flatnonzero(kinds == "building")
    if len(parts) == 0 or len(buildings) == 0:
        return parents
    middle = shapely.point_on_surface(local[parts])
    part, building = shapely.STRtree(local[buildings]).query(middle, predicate="within")
    area = shapely.area(local[buildings])
    # A part may stick out a little, but one larger than the building around its middle belongs to another building.
    fits = shapely.area(local[parts[part]]) <= area[building] / PARTS_COMPLETE
    part, building = part[fits], building[fits]
    for number in np.unique(part):
        around = building[part == number]
        parents[parts[number]] = buildings[around[np.argmin(area[around])]]
    return parents


def _without_parts(
    local: NDArray[np.object_], kinds: NDArray[np.str_], parents: NDArray[np.int64]
) -> NDArray[np.object_]:
    """Footprints: a building that has parts keeps only the area that they leave uncovered."""
    outlines = local.copy()
    for parent in np.unique(parents[parents >= 0]):
        parts = shapely.union_all(local[parents == parent], grid_size=GRID)
        rest = shapely.difference(local[parent], parts, grid_size=GRID)
        complete = rest.area <= (1 - PARTS_COMPLETE) * local[parent].area
        outlines[parent] = Polygon() if complete else MultiPolygon(polygons(rest))
    return outlines


def _without_overlaps(solids: list[Solid], settings: SceneSettings) -> list[Solid]:
    """Solids that share no volume: where two overlap, the taller stays and the lower ends at its underside or walls."""
    resolved: list[Solid] = []
    for solid in sorted(solids, key=lambda solid: (-solid.top, solid.base, solid.feature)):
        pieces = [solid]
        hits = shapely.intersects(np.array([other.footprint for other in resolved], dtype=object), solid.footprint)
        for index in np.flatnonzero(hits):
            pieces = [rest for piece in pieces for rest in _cut(piece, resolved[index], settings)]
        resolved.extend(pieces)
    return _joined(resolved, settings)


def _joined(solids: list[Solid], settings: SceneSettings) -> list[Solid]:
    """Solids: pieces of one feature with the same base and top are joined, so that no wall is inside a building."""
    groups: dict[tuple[int, float, float], list[Solid]] = {}
    for solid in solids:
        groups.setdefault((solid.feature, solid.base, solid.top), []).append(solid)
    joined = []
    for (feature, base, top), pieces in groups.items():
        footprint = pieces[0].footprint
        if len(pieces) > 1:
            footprint = _clean(shapely.union_all([piece.footprint for piece in pieces], grid_size=GRID), settings)
        joined.append(Solid(footprint, base, top, feature))
    return joined


def _cut(low: Solid, tall: Solid, settings: SceneSettings) -> Iterable[Solid]:
    """Pieces of a lower solid that a taller one leaves of it."""
    if tall.base >= low.top or low.base >= tall.top:
        return [low]
    common = shapely.intersection(low.footprint, tall.footprint, grid_size=GRID)
    if common.area < TOUCH:
        return [low]
    outside = _clean(shapely.difference(low.footprint, tall.footprint, grid_size=GRID), settings)
    below = _clean(common, settings) if tall.base > low.base else Polygon()
    pieces = (Solid(outside, low.base, low.top, low.feature), Solid(below, low.base, tall.base, low.feature))
    return [piece for piece in pieces if not piece.footprint.is_empty]


def _clean(footprint: BaseGeometry, settings: SceneSettings) -> BaseGeometry:
    """Polygons fit for extrusion: no slivers, no two rings that meet in a point."""
    kept = []
    for polygon in polygons(footprint):
        for piece in polygons(unpinch(polygon)):
            thin = piece.buffer(-settings.simplify_tolerance / 2).is_empty
            if piece.area >= settings.min_area and not thin:
                kept.append(piece)
    return MultiPolygon(kept)


def _table(features: gpd.GeoDataFrame, outcomes: dict[int, str]) -> pd.DataFrame:
    """Table of the outcomes of all features."""
    rows = sorted(outcomes)
    named = {name: features[name].iloc[rows].array for name in ("osm_type", "osm_id")}
    return pd.DataFrame({**named, "outcome": np.array([outcomes[row] for row in rows], dtype=object)})


def _frame(solids: list[Solid], features: gpd.GeoDataFrame, heights: dict[int, Height], crs: CRS) -> gpd.GeoDataFrame:
    """One row for every feature and height interval."""
    types, ids = features["osm_type"].tolist(), features["osm_id"].tolist()
    groups: dict[tuple[str, int, float, float], list[Solid]] = {}
    for solid in solids:
        groups.setdefault((types[solid.feature], ids[solid.feature], solid.base, solid.top), []).append(solid)
    keys = sorted(groups)
    geometry = [MultiPolygon([piece for solid in groups[key] for piece in polygons(solid.footprint)]) for key in keys]
    origin = [heights[groups[key][0].feature] for key in keys]
    return gpd.GeoDataFrame(
        {
            "osm_type": [key[0] for key in keys],
            "osm_id": np.array([key[1] for key in keys], dtype=np.int64),
            "height": np.array([key[3] for key in keys], dtype=np.float64),
            "base": np.array([key[2] for key in keys], dtype=np.float64),
            "height_source": [height.source for height in origin],
            "confidence": np.array([height.confidence for height in origin], dtype=np.float64),
        },
        geometry=geometry,
        crs=crs,
    )
