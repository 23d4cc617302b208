"""From raw map features to the solids of a tile: which footprint stands where, from which height to which."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

from geo.heights import CONFIDENCE, NEIGHBOUR_RADIUS, Height, impute_height, nearest_heights, tagged_height
from geo.projection import cached_crs, local_crs, project, world_bounds
from geo.settings import SceneSettings
from geo.sources import Source

# All coordinates lie on a 1 mm grid: equal corners are equal bits. Every overlay of this package names a grid, so that
# GEOS rounds robustly; without one it is wrong now and then (GEOS 3.14.1: an overlap of 10 m2 where there is none).
GRID = 0.001
# Overlaps below this area (m2) are rounding, not overlap.
TOUCH = 1e-3
# When parts cover this much of a building they describe it whole (Simple 3D Buildings) and the rest of the outline is
# drawing error; when they cover less, only the special parts were mapped and the rest keeps the outline's height.
PARTS_COMPLETE = 0.9
# Half a channel of this width (m) opened where two rings of a polygon meet in one point.
PINCH = 0.01


@dataclass(frozen=True)
class Footprints:
    """The solids of a tile.

    Attributes
    ----------
    buildings : geopandas.GeoDataFrame
        osm_type, osm_id, height, base (m), height_source, confidence, geometry: MultiPolygon in local metres, valid, on
        a 1 mm grid, inside the tile. No two rows share volume. Ordered by type, id and base.
    union : shapely geometry
        Everything built on, seen from above.
    coverage : float
        Share of the tile that `union` covers.
    ledger : dict
        What became of every map feature that touches the tile: `used`, or the reason why not -> how many.
    """

    buildings: gpd.GeoDataFrame
    union: BaseGeometry
    coverage: float
    ledger: dict[str, int]


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
        Only for imputed heights.
    """
    features, local, in_tile = _features_around(latitude, longitude, size, source)
    ledger: Counter[str] = Counter()
    tags = list(features["tags"])
    kinds = np.array([_kind(row, outline) for row, outline in zip(tags, features["outline_of"], strict=True)])
    ledger.update(str(kind) for kind in kinds[in_tile] if kind not in ("building", "part"))
    _adopt_outline_tags(features, tags)

    parents = _parents(local, kinds)
    heights = _heights(features, tags, local, kinds, parents, in_tile, source, settings, seed)
    outlines = _without_parts(local, kinds, parents)
    used = [index for index in np.flatnonzero(in_tile).tolist() if kinds[index] in ("building", "part")]
    replaced = [index for index in used if outlines[index].is_empty]
    ledger["replaced by its parts"] += len(replaced)
    used = [index for index in used if not outlines[index].is_empty]
    large = [index for index in used if outlines[index].area >= settings.min_area]
    ledger["smaller than scene.min_area"] += len(used) - len(large)

    simplified = simplify_together([outlines[index] for index in large], settings.simplify_tolerance)
    square = shapely.box(-size / 2, -size / 2, size / 2, size / 2)
    clipped = shapely.intersection(np.array(simplified, dtype=object), square, grid_size=GRID)
    solids = []
    for index, footprint in zip(large, clipped, strict=True):
        footprint = _clean(footprint, settings)
        if footprint.is_empty:
            ledger["clipped away at the tile's edge"] += 1
        else:
            solids.append(Solid(footprint, heights[index].base, heights[index].top, index))
    solids = _without_overlaps(solids, settings)
    built = {solid.feature for solid in solids}
    ledger["used"] = len(built)
    ledger["inside a taller building"] += len(large) - ledger["clipped away at the tile's edge"] - len(built)

    frame = _frame(solids, features, heights, cached_crs(local_crs(latitude, longitude)))
    union = shapely.union_all(frame.geometry.to_numpy(), grid_size=GRID) if len(frame) else Polygon()
    return Footprints(frame, union, float(union.area / size**2), {key: n for key, n in sorted(ledger.items()) if n})


def simplify_together(footprints: list[BaseGeometry], tolerance: float) -> list[BaseGeometry]:
    """Drop near-collinear vertices (Douglas-Peucker, tolerance in m) without opening gaps between neighbours.

    A vertex that several footprints share is kept in all of them; only the chains between such vertices are simplified.
    A footprint that simplification would break keeps its vertices.
    """
    if not footprints or tolerance <= 0:
        return footprints
    points = [np.unique(np.round(shapely.get_coordinates(one) / GRID).astype(np.int64), axis=0) for one in footprints]
    corners, counts = np.unique(np.concatenate(points), axis=0, return_counts=True)
    shared = {(int(x), int(y)) for x, y in corners[counts > 1]}

    def simplify_ring(ring: NDArray[np.float64]) -> NDArray[np.float64]:
        ring = ring[:-1]
        keys = np.round(ring / GRID).astype(np.int64)
        fixed = [index for index, (x, y) in enumerate(keys) if (int(x), int(y)) in shared]
        # Without shared vertices any two far-apart ones anchor the ring, so that it cannot start in a flat spot.
        if not fixed:
            first = int(np.lexsort((ring[:, 1], ring[:, 0]))[0])
            fixed = sorted({first, int(np.argmax(np.hypot(*(ring - ring[first]).T)))})
        ring = np.roll(ring, -fixed[0], axis=0)
        stops = [index - fixed[0] for index in fixed] + [len(ring)]
        closed = np.concatenate([ring, ring[:1]])
        chains = [closed[start : stop + 1] for start, stop in pairwise(stops)]
        lines = [shapely.get_coordinates(shapely.simplify(shapely.linestrings(chain), tolerance)) for chain in chains]
        return np.concatenate([*[line[:-1] for line in lines], closed[:1]])

    simplified = []
    for footprint in footprints:
        pieces = []
        for polygon in polygons(footprint):
            rings = [simplify_ring(shapely.get_coordinates(ring)) for ring in (polygon.exterior, *polygon.interiors)]
            # A ring of two points has lost its area; only the shell is needed for a polygon.
            if len(rings[0]) >= 4:
                pieces.append(Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 4]))
        result = MultiPolygon(pieces)
        simplified.append(result if pieces and result.is_valid else footprint)
    return simplified


def polygons(geometry: BaseGeometry) -> list[Polygon]:
    """Polygons of a geometry, with area; lines and points that overlays leave behind are dropped."""
    parts = shapely.get_parts(geometry, return_index=False)
    flat = [
        piece
        for part in parts
        for piece in (shapely.get_parts(part) if part.geom_type.startswith(("Multi", "Geom")) else [part])
    ]
    return [piece for piece in flat if piece.geom_type == "Polygon" and piece.area > 0]


def repair(geometry: BaseGeometry) -> BaseGeometry:
    """Valid polygons on the 1 mm grid, whatever the rings were (self-crossing, doubled, degenerate)."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry, method="structure", keep_collapsed=False)
    return MultiPolygon(polygons(shapely.set_precision(geometry, GRID)))


def _features_around(
    latitude: float, longitude: float, size: float, source: Source
) -> tuple[gpd.GeoDataFrame, NDArray[np.object_], NDArray[np.bool_]]:
    """Map features, their geometry in local metres, and which touch the tile; the others are neighbours and parts."""
    half = size / 2
    square = shapely.box(-half, -half, half, half)
    near = source.buildings(world_bounds((-half, -half, half, half), latitude, longitude))
    local = project(near.geometry.to_numpy(), latitude, longitude)
    touching = local[shapely.intersects(local, square)]
    if len(touching) == 0:
        return near.iloc[:0], touching, np.zeros(0, dtype=bool)
    # The whole extent of every building that touches the tile, so that a building is the same in all its tiles.
    x0, y0, x1, y1 = shapely.total_bounds(touching)
    margin = NEIGHBOUR_RADIUS
    wide = source.buildings(world_bounds((x0 - margin, y0 - margin, x1 + margin, y1 + margin), latitude, longitude))
    local = np.array([repair(one) for one in project(wide.geometry.to_numpy(), latitude, longitude)], dtype=object)
    return wide, local, shapely.intersects(local, square) & ~shapely.is_empty(local)


def _kind(tags: dict[str, str], outline_of: int) -> str:
    """`building`, `part`, or the reason why a feature is neither."""
    layer = tags.get("layer", "0")
    sunk = layer.startswith("-") and tags.get("location") != "overground"
    if sunk or tags.get("location") == "underground":
        return "underground"
    if tags.get("building", "no") != "no":
        return "repeats the outer ring of its relation" if outline_of else "building"
    return "part" if tags.get("building:part", "no") != "no" else "tagged as no building"


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


def _parents(local: NDArray[np.object_], kinds: NDArray[np.str_]) -> NDArray[np.int64]:
    """For every part the smallest building around its middle; -1 for buildings and for parts that stand alone."""
    parents = np.full(len(local), -1)
    parts, buildings = np.flatnonzero(kinds == "part"), np.flatnonzero(kinds == "building")
    if len(parts) == 0 or len(buildings) == 0:
        return parents
    middle = shapely.point_on_surface(local[parts])
    part, building = shapely.STRtree(local[buildings]).query(middle, predicate="within")
    area = shapely.area(local[buildings])
    for one in np.unique(part):
        around = building[part == one]
        parents[parts[one]] = buildings[around[np.argmin(area[around])]]
    return parents


def _without_parts(
    local: NDArray[np.object_], kinds: NDArray[np.str_], parents: NDArray[np.int64]
) -> NDArray[np.object_]:
    """Footprints, where a building that has parts keeps only what they leave uncovered."""
    outlines = local.copy()
    for parent in np.unique(parents[parents >= 0]):
        parts = shapely.union_all(local[parents == parent], grid_size=GRID)
        rest = shapely.difference(local[parent], parts, grid_size=GRID)
        complete = rest.area <= (1 - PARTS_COMPLETE) * local[parent].area
        outlines[parent] = Polygon() if complete else MultiPolygon(polygons(rest))
    return outlines


def _heights(
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
    centres = shapely.get_coordinates(shapely.centroid(local)) if len(local) else np.empty((0, 2))
    areas = shapely.area(local)
    tops = np.array([height.top for row in references if (height := known[int(row)])], dtype=np.float64)

    def impute(row: int) -> Height:
        neighbours = nearest_heights(centres[row], centres[references], tops)
        osm = (str(features["osm_type"].iloc[row]), int(features["osm_id"].iloc[row]))
        return impute_height(tags[row], osm, areas[row], neighbours, source.statistics, storey, settings.impute, seed)

    heights: dict[int, Height] = {}
    # Buildings first: a part without a height of its own takes its building's.
    for row in sorted(known, key=lambda row: kinds[row] != "building"):
        height = known[row]
        if kinds[row] == "building":
            if wanted[row] or row in parents:
                heights[row] = height or impute(row)
        elif wanted[row] and height:
            heights[row] = Height(height.top, height.base, "part", height.confidence)
        elif wanted[row]:
            heights[row] = _inherited(tags[row], heights.get(int(parents[row])), storey) or impute(row)
    return heights


def _inherited(tags: dict[str, str], parent: Height | None, storey_height: float) -> Height | None:
    """Height of a part that says at most where it begins: up to the top of its building."""
    if parent is None:
        return None
    own = tagged_height({**tags, "height": f"{parent.top:.3f}"}, storey_height)
    confidence = min(parent.confidence, CONFIDENCE["inherited"])
    return Height(parent.top, own.base if own else 0.0, parent.source, confidence)


def _without_overlaps(solids: list[Solid], settings: SceneSettings) -> list[Solid]:
    """Solids that share no volume: where two would, the taller stands and the lower ends at its underside or wall."""
    resolved: list[Solid] = []
    for solid in sorted(solids, key=lambda one: (-one.top, one.base, one.feature)):
        pieces = [solid]
        hits = shapely.intersects(np.array([other.footprint for other in resolved], dtype=object), solid.footprint)
        for index in np.flatnonzero(hits):
            pieces = [rest for piece in pieces for rest in _cut(piece, resolved[index], settings)]
        resolved.extend(pieces)
    return resolved


def _cut(low: Solid, tall: Solid, settings: SceneSettings) -> Iterable[Solid]:
    if tall.base >= low.top or low.base >= tall.top:
        return [low]
    common = shapely.intersection(low.footprint, tall.footprint, grid_size=GRID)
    if common.area < TOUCH:
        return [low]
    beside = _clean(shapely.difference(low.footprint, tall.footprint, grid_size=GRID), settings)
    below = _clean(common, settings) if tall.base > low.base else Polygon()
    pieces = (Solid(beside, low.base, low.top, low.feature), Solid(below, low.base, tall.base, low.feature))
    return [piece for piece in pieces if not piece.footprint.is_empty]


def _clean(footprint: BaseGeometry, settings: SceneSettings) -> BaseGeometry:
    """Polygons fit for extrusion: no slivers, no two rings that meet in a point."""
    kept = []
    for polygon in polygons(footprint):
        for piece in polygons(_unpinch(polygon)):
            thin = piece.buffer(-settings.simplify_tolerance / 2).is_empty
            if piece.area >= settings.min_area and not thin:
                kept.append(piece)
    return MultiPolygon(kept)


def _unpinch(polygon: Polygon) -> BaseGeometry:
    """A polygon whose rings share a point would become a solid with a vertical edge of four walls: open the point."""
    corners = [tuple(xy) for ring in (polygon.exterior, *polygon.interiors) for xy in ring.coords[:-1]]
    if len(set(corners)) == len(corners):
        return polygon
    return shapely.set_precision(polygon.buffer(-PINCH, join_style="mitre"), GRID)


def _frame(solids: list[Solid], features: gpd.GeoDataFrame, heights: dict[int, Height], crs: CRS) -> gpd.GeoDataFrame:
    """One row for every feature and height interval."""
    groups: dict[tuple[str, int, float, float], list[Solid]] = {}
    for solid in solids:
        osm = str(features["osm_type"].iloc[solid.feature]), int(features["osm_id"].iloc[solid.feature])
        groups.setdefault((*osm, solid.base, solid.top), []).append(solid)
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
        geometry=gpd.GeoSeries(geometry, crs=crs),
    )
