"""Streets of a tile as networks of straight pieces: one each for vehicles, cyclists and walkers.

Streets come from the map as lines. Streets that are tagged as under ground or indoors are left out, sections inside
buildings are cut out, and the rest becomes a graph of straight pieces that a user follows piece by piece. The ground is
flat, so a bridge counts as a street at ground level.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from wavecity.geo.polygons import GRID
from wavecity.geo.projection import cached_crs, local_crs, project, world_bounds
from wavecity.geo.sources import Source
from wavecity.geo.users import QUARTER

# Streets with kerbs: vehicles in the middle, walkers on the pavements along them.
KERBED = {"primary", "secondary", "tertiary", "unclassified", "residential", "road"}
KERBED |= {f"{kind}_link" for kind in ("primary", "secondary", "tertiary")}
# Vehicles and walkers share the middle.
SHARED = {"living_street", "service"}
ROADS = KERBED | SHARED | {"motorway", "motorway_link", "trunk", "trunk_link"}
FOOTWAYS = SHARED | {"footway", "path", "pedestrian", "steps", "track"}
# Where cycling is allowed unless forbidden; and where it is forbidden unless allowed.
CYCLED = KERBED | SHARED | {"cycleway", "path", "track"}
CYCLED_IF_ALLOWED = {"footway", "pedestrian", "bridleway", "trunk", "trunk_link"}
CYCLING_ALLOWED = {"yes", "designated", "permissive"}
CYCLING_FORBIDDEN = {"no", "dismount", "use_sidepath"}
# Roundabouts and motorways are oneway without saying so.
ONEWAY_BY_KIND = {"junction": {"roundabout", "circular"}, "highway": {"motorway"}}
# m; from the middle of a street to where people walk: half the lanes, and a metre of pavement.
LANE, PAVEMENT = 3.25, 1.0
# Connected pieces shorter than this (m) are left-overs of the cutting: nobody walks there.
MIN_STRETCH = 20.0
MPS = {"": 1 / 3.6, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "mph": 0.44704, "knots": 1852 / 3600}
WALKING_PACE = 7 / 3.6


@dataclass(frozen=True)
class Network:
    """Straight pieces, each followed from its tail to its head; a street in both directions is two of them.

    Attributes
    ----------
    node : float64 (N, 2)
        m.
    tail, head : int64 (E,)
        Nodes at the ends of each piece.
    limit : float64 (E,)
        Speed limit in m/s; inf: none.
    """

    node: NDArray[np.float64]
    tail: NDArray[np.int64]
    head: NDArray[np.int64]
    limit: NDArray[np.float64]

    @cached_property
    def lengths(self) -> NDArray[np.float64]:
        """Length of each piece in m."""
        lengths: NDArray[np.float64] = np.hypot(*(self.node[self.head] - self.node[self.tail]).T)
        return lengths

    @cached_property
    def reach(self) -> NDArray[np.float64]:
        """Cumulative length of the pieces in m."""
        return np.cumsum(self.lengths)

    @property
    def length(self) -> float:
        """Length of all pieces in m; both directions count."""
        return float(self.reach[-1]) if len(self.reach) else 0.0

    @cached_property
    def leaving(self) -> list[list[int]]:
        """Pieces that begin at each node."""
        pieces: list[list[int]] = [[] for _ in self.node]
        for piece, tail in enumerate(self.tail.tolist()):
            pieces[tail].append(piece)
        return pieces


def tile_streets(latitude: float, longitude: float, size: float, source: Source) -> gpd.GeoDataFrame:
    """Streets in and around the tile: osm_id, tags, and geometry in local metres, ordered by id.

    Parameters
    ----------
    latitude, longitude : float
        Centre in WGS84 degrees.
    size : float
        Edge of the tile in m.
    source : Source
    """
    # The pavement of a street outside may lie inside.
    reach = size / 2 + 8 * LANE
    found = source.streets(world_bounds((-reach, -reach, reach, reach), latitude, longitude))
    local = shapely.set_precision(project(found.geometry.to_numpy(), latitude, longitude), GRID, mode="pointwise")
    local_frame = gpd.GeoDataFrame(found[["osm_id", "tags"]], geometry=local)
    return local_frame.set_crs(cached_crs(local_crs(latitude, longitude)))


def road_network(streets: gpd.GeoDataFrame, ground: BaseGeometry) -> Network:
    """Drivable streets on open ground, with their directions and speed limits; joined where the map joins them."""
    drivable = [
        (tags, line, directions(tags))
        for tags, line in _outdoors(streets)
        if tags["highway"] in ROADS
        and tags.get("area") != "yes"
        and _access(tags, "motorcar", "motor_vehicle", "vehicle", "access") != "no"
    ]
    return _directed_network(drivable, ground)


def cycle_network(streets: gpd.GeoDataFrame, ground: BaseGeometry) -> Network:
    """Streets and paths that cyclists may use on open ground, with their directions and speed limits."""
    lanes = [
        (tags, line, cycling_directions(tags))
        for tags, line in _outdoors(streets)
        if tags.get("area") != "yes" and may_cycle(tags)
    ]
    return _directed_network(lanes, ground)


def may_cycle(tags: dict[str, str]) -> bool:
    """Whether cyclists use a street or path (OSM's key `bicycle`, else what its kind and general access say)."""
    said = _access(tags, "bicycle", "vehicle", "access")
    if tags["highway"] in CYCLED_IF_ALLOWED:
        return tags.get("bicycle") in CYCLING_ALLOWED
    return tags["highway"] in CYCLED and said not in CYCLING_FORBIDDEN


def cycling_directions(tags: dict[str, str]) -> tuple[bool, bool]:
    """Whether cyclists use a street along its line, and against it: contraflow lanes open oneways to cyclists."""
    own = tags.get("oneway:bicycle")
    contraflow = any(
        tags.get(f"cycleway{side}", "").startswith("opposite") for side in ("", ":left", ":right", ":both")
    )
    if own == "no" or (own is None and contraflow):
        return True, True
    return directions(tags if own is None else {**tags, "oneway": own})


def _directed_network(
    lines: list[tuple[dict[str, str], BaseGeometry, tuple[bool, bool]]], ground: BaseGeometry
) -> Network:
    """Network of lines with their tags (for the speed limit), each open along its line, against it, or both."""
    starts, ends, limits = [np.empty((0, 2))], [np.empty((0, 2))], [np.empty(0)]
    for tags, line, (forward, backward) in lines:
        for run in shapely.get_parts(line):
            xy = shapely.get_coordinates(run)
            for there, way, sense in ((forward, xy, "forward"), (backward, xy[::-1], "backward")):
                if there:
                    starts.append(way[:-1])
                    ends.append(way[1:])
                    limits.append(np.full(len(way) - 1, speed_limit(tags, sense)))
    return _network(np.concatenate(starts), np.concatenate(ends), np.concatenate(limits), ground)


def path_network(streets: gpd.GeoDataFrame, ground: BaseGeometry) -> Network:
    """Paths and shared streets, and the pavements on both sides of streets with kerbs; joined wherever they cross."""
    paths, kerbed = [], []
    for tags, line in _outdoors(streets):
        if _access(tags, "foot", "access") == "no":
            continue
        if tags["highway"] in FOOTWAYS or (tags["highway"] == "cycleway" and tags.get("foot") in ("yes", "designated")):
            paths.append(line)
        # Where pavements are mapped as ways of their own, they are there already.
        elif tags["highway"] in KERBED and "separate" not in (tags.get("sidewalk"), tags.get("sidewalk:both")):
            kerbed.append(shapely.buffer(line, half_width(tags), quad_segs=QUARTER))
    # The outline of all streets together: pavements round every block, whole at corners and junctions.
    pavements = shapely.boundary(shapely.union_all(kerbed, grid_size=GRID))
    noded = shapely.union_all([*paths, pavements], grid_size=GRID)
    runs = [shapely.get_coordinates(run) for run in shapely.get_parts(noded) if run.geom_type == "LineString"]
    starts = np.concatenate([np.empty((0, 2)), *(run[:-1] for run in runs), *(run[:0:-1] for run in runs)])
    ends = np.concatenate([np.empty((0, 2)), *(run[1:] for run in runs), *(run[-2::-1] for run in runs)])
    return _network(starts, ends, np.full(len(starts), np.inf), ground)


def directions(tags: dict[str, str]) -> tuple[bool, bool]:
    """Whether a street is driven along its line, and against it.

    Examples
    --------
    >>> directions({"highway": "residential", "oneway": "yes"})
    (True, False)
    """
    oneway = tags.get("oneway", "")
    if oneway in ("-1", "reverse"):
        return False, True
    by_kind = any(tags.get(key) in kinds for key, kinds in ONEWAY_BY_KIND.items())
    return True, not (oneway in ("yes", "true", "1") or (by_kind and oneway != "no"))


def speed_limit(tags: dict[str, str], sense: str) -> float:
    """Tagged limit in m/s in a sense (`forward`, `backward`): `50`, `30 mph`, `walk`, the least of `50;30`; inf: none.

    Examples
    --------
    >>> round(speed_limit({"maxspeed": "50"}, "forward"), 2)
    13.89
    """
    limits = [np.inf]
    for text in tags.get(f"maxspeed:{sense}", tags.get("maxspeed", "")).split(";"):
        number = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?) ?(km/h|kmh|kph|mph|knots|)", text.strip())
        if number and float(number[1]) > 0:
            limits.append(float(number[1]) * MPS[number[2]])
        elif text.strip() == "walk":
            limits.append(WALKING_PACE)
    return min(limits)


def half_width(tags: dict[str, str]) -> float:
    """Distance in m from the middle of a street to the people who walk along it."""
    lanes = tags.get("lanes", "")
    return LANE * (int(lanes) if lanes in set("12345678") else 2) / 2 + PAVEMENT


def _outdoors(streets: gpd.GeoDataFrame) -> list[tuple[dict[str, str], BaseGeometry]]:
    """Tags and lines of the streets that are neither under ground nor under a roof, by their tags."""
    return [
        (tags, line)
        for tags, line in zip(streets["tags"], streets.geometry, strict=True)
        # A passage through a building is judged by the building.
        if tags.get("tunnel", "no") in ("no", "building_passage")
        and not tags.get("layer", "0").startswith("-")
        and tags.get("location") != "underground"
        and tags.get("covered", "no") == "no"
        and tags.get("indoor", "no") == "no"
    ]


def _access(tags: dict[str, str], *keys: str) -> str:
    """Value of the first of the keys, from the special to the general, that is tagged."""
    return next((tags[key] for key in keys if key in tags), "")


def _network(
    starts: NDArray[np.float64], ends: NDArray[np.float64], limits: NDArray[np.float64], ground: BaseGeometry
) -> Network:
    """Network of the parts of directed straight pieces (S, 2) that lie on the ground."""
    lines = shapely.linestrings(np.stack([starts, ends], axis=1))
    shapely.prepare(ground)
    inside, touching = shapely.covers(ground, lines), shapely.intersects(ground, lines)
    tails, heads, pieces = [starts[inside]], [ends[inside]], [np.flatnonzero(inside)]
    for piece in np.flatnonzero(touching & ~inside):
        for part in shapely.get_parts(shapely.intersection(lines[piece], ground, grid_size=GRID)):
            if part.geom_type != "LineString":
                continue
            xy = shapely.get_coordinates(part)
            # Overlays are free to turn a line.
            if (xy[-1] - xy[0]) @ (ends[piece] - starts[piece]) < 0:
                xy = xy[::-1]
            tails.append(xy[:-1])
            heads.append(xy[1:])
            pieces.append(np.full(len(xy) - 1, piece))
    of_piece = np.concatenate(pieces)
    points = np.concatenate([*tails, *heads])
    keys = np.round(points / GRID).astype(np.int64)
    _, first, index = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    tail, head = index.reshape(2, -1)
    return _without_scraps(Network(points[first], tail, head, limits[of_piece]))


def _without_scraps(network: Network) -> Network:
    """Network without pieces of no length and connected parts shorter than `MIN_STRETCH`."""
    n = len(network.node)
    if n == 0:
        return network
    joined = coo_array((np.ones(len(network.tail)), (network.tail, network.head)), shape=(n, n))
    part = connected_components(joined, directed=False)[1][network.tail]
    stretch = np.bincount(part, network.lengths)[part]
    kept = (stretch >= MIN_STRETCH) & (network.lengths > 0)
    return Network(network.node, network.tail[kept], network.head[kept], network.limit[kept])
