"""What a preview shows of a scene: solids, users, and as much of their strongest paths as the store determines.

The store keeps a path's directions, delay and interactions, not its vertices. `rebuild_path` finds them again.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import Polygon

from wavecity.dataset.files import StorePath
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.writer import load_draft
from wavecity.geo.errors import InputError
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.settings import RadioSettings

Array = NDArray[np.float64]

HEIGHT_SOURCES = ("tag", "levels", "part", "imputed")
STATUSES = ("line of sight", "reflected or diffracted only", "outage")
MAX_PATHS = 40
# Codes of `paths/interactions`, see `schema.CONVENTIONS`.
NOTHING, SPECULAR, REFRACTION, DIFFRACTION = 0, 1, 4, 8
# A path counts as rebuilt when its two ends meet, and its length equals delay times c, within this many m. Angles and
# delays are float32: some 0.1 mm over the length of a path.
TOLERANCE = 0.05
# Length in m of what is drawn of a ray that leads to no wall (a diffraction edge is easily missed).
STUB = 15.0


@dataclass(frozen=True)
class DrawnPath:
    """The strongest path of one user.

    Attributes
    ----------
    user : int
    gain : float
        Of this path alone, dB.
    kind : str
        `line of sight`, `1 bounce`, `2 bounces, 1 diffraction`, ...
    whole : bool
        Whether `lines` is the entire path, checked against its delay; else only what leads away from both its ends.
    lines : list of float64 (P, 3)
        One polyline, or one from each end; metres in the scene frame.
    """

    user: int
    gain: float
    kind: str
    whole: bool
    lines: list[Array]


@dataclass(frozen=True)
class View:
    """A scene as it is drawn; metres in the scene frame (x east, y north, z up, origin at the tile's centre).

    Attributes
    ----------
    id, city, split, map_date, attribution : str
        `map_date` is empty where the map has none.
    size : float
        Edge of the tile.
    buildings : geopandas.GeoDataFrame
        osm_type, osm_id, height, base, height_source, geometry.
    triangles : float64 (T, 3, 3)
        Surface of all buildings, counter-clockwise from outside; `owner` (T,) is the row of `buildings`.
    base, boresight : float64 (3,)
        Base station and the direction that its panel faces.
    users : float64 (U, 3)
    gain : float64 (U,)
        Path gain in dB.
    status : int (U,)
        Index into `STATUSES`.
    n_paths : int (U,) or None
        Paths found; None, like an empty `paths`, when the store keeps no paths.
    paths : list of DrawnPath
    """

    id: str
    city: str
    split: str
    map_date: str
    attribution: str
    size: float
    buildings: gpd.GeoDataFrame
    triangles: Array
    owner: NDArray[np.int64]
    base: Array
    boresight: Array
    users: Array
    gain: Array
    status: NDArray[np.int64]
    n_paths: NDArray[np.int64] | None
    paths: list[DrawnPath]

    @property
    def source_counts(self) -> dict[str, int]:
        """Buildings of every height source that occurs."""
        counts = self.buildings["height_source"].value_counts()
        return {source: int(counts[source]) for source in HEIGHT_SOURCES if source in counts}

    @property
    def status_counts(self) -> dict[str, int]:
        """Users of every status."""
        return {name: int((self.status == index).sum()) for index, name in enumerate(STATUSES)}

    @property
    def gain_range(self) -> tuple[float, float]:
        """Ends of the colour scale in dB: nearly all users with a path, in steps of 5 dB."""
        heard = self.gain[self.status < 2]
        if not len(heard):
            return -150.0, -80.0
        # A single faint user would take the colour from all others.
        faint, strong = np.percentile(heard, [3, 97])
        low, high = 5 * np.floor(faint / 5), 5 * np.ceil(strong / 5)
        return float(low), float(max(high, low + 5))

    @property
    def title(self) -> str:
        """Scene, city, split and date of the map."""
        date = f"map of {self.map_date}" if self.map_date else "map without a date"
        return f"{self.id} · {self.city} · {date} · split: {self.split}"

    @property
    def subtitle(self) -> str:
        """Numbers of buildings by height source, and of users by status."""
        total = len(self.buildings)
        sources = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in self.source_counts.items())
        users = ", ".join(f"{n} {name}" for name, n in self.status_counts.items())
        return f"{total} buildings, heights by {sources} · {len(self.users)} users: {users}"

    @property
    def path_note(self) -> str:
        """What the drawn paths are, and are not."""
        if self.n_paths is None:
            return "The store keeps no paths (features.paths: false)."
        if not self.paths:
            return "No user has a path."
        whole = sum(path.whole for path in self.paths)
        heard = int((self.status < 2).sum())
        note = f"Strongest paths of {len(self.paths)} of the {heard} users with a path: "
        note += f"{whole} rebuilt whole from the stored directions, their lengths equal to the stored delays"
        if whole < len(self.paths):
            note += f"; of {len(self.paths) - whole} (dashed) only what leads away from both ends is known"
        return f"{note}."


def load_view(store: str | StorePath, scene_id: str, max_paths: int = MAX_PATHS) -> View:
    """Read what a preview needs of one scene.

    Parameters
    ----------
    store : path
        Folder of a build, of a version, or a `.zarr` within one.
    scene_id : str
        E.g. `helsinki-0007`.
    max_paths : int
        How many users get their strongest path drawn, at most; evenly picked.

    Raises
    ------
    InputError
        No such scene, a quarantined scene, or a store without the scene's buildings.
    """
    folder = resolve(store).parent
    data = open_store(store)
    row = _find_scene(store, data["scene_id"].values.astype(str), data["status"].values.astype(str), scene_id)
    scene = data.isel(scene=row).load()
    draft = load_draft(folder)
    unit = row // draft.layout.unit
    buildings = _read_buildings(draft.buildings_path(unit), scene_id)
    triangles, owner = surface(buildings)

    n = int(scene["n_users"])
    base = np.asarray(data.attrs["bs_position_m"]) + np.array([float(scene["bs_shift"]), 0, 0])
    users = scene["user_position"].values[:n].astype(np.float64) + base
    los, outage = scene["los"].values[:n], scene["outage"].values[:n]
    status = np.where(outage, 2, np.where(los, 0, 1))
    radio = data.attrs.get("recipe", {}).get("radio", {})
    azimuth = np.radians(radio.get("azimuth", RadioSettings().azimuth))
    downtilt = np.radians(radio.get("downtilt", RadioSettings().downtilt))
    boresight = np.array(
        [np.cos(azimuth) * np.cos(downtilt), np.sin(azimuth) * np.cos(downtilt), -np.sin(downtilt)], np.float64
    )
    n_paths, paths = None, []
    if draft.layout.with_paths:
        table = {
            name: array.values[:n]
            for name, array in open_store(store, "paths").isel(scene=row).load().data_vars.items()
        }
        n_paths = table["n_paths"].astype(np.int64)
        paths = strongest_paths(table, base, users, status, triangles, max_paths)
    receipt = draft.receipt(unit)
    outcome = receipt["scenes"][row % draft.layout.unit] if receipt else {}
    return View(
        id=scene_id,
        city=str(scene["city"].values),
        split=str(scene["split"].values),
        map_date=str(outcome.get("provenance", {}).get("map", {}).get("map_date") or "")[:10],
        attribution=data.attrs["attribution"],
        size=float(data.attrs["tile_size_m"]),
        buildings=buildings,
        triangles=triangles,
        owner=owner,
        base=base,
        boresight=boresight,
        users=users,
        gain=scene["path_gain"].values[:n].astype(np.float64),
        status=status,
        n_paths=n_paths,
        paths=paths,
    )


def _find_scene(store: str | StorePath, ids: NDArray[np.str_], status: NDArray[np.str_], scene_id: str) -> int:
    found = np.flatnonzero(ids == scene_id)
    if not len(found):
        known = ", ".join(ids[status == "done"][:6])
        msg = f"{store}: no scene {scene_id!r}; it has {known}, ..."
        raise InputError(msg)
    if status[found[0]] != "done":
        msg = f"{store}: scene {scene_id!r} is {status[found[0]]}, so there is nothing to draw; see ledger.json for why"
        raise InputError(msg)
    return int(found[0])


def _read_buildings(path: StorePath, scene_id: str) -> gpd.GeoDataFrame:
    try:
        table = gpd.read_parquet(io.BytesIO(path.read_bytes()))
    except FileNotFoundError as error:
        msg = f"{path}: no such file, so scene {scene_id!r} has no buildings to draw; name a whole version of a build"
        raise InputError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as GeoParquet ({str(error).splitlines()[0]}); copy or build the version again"
        raise InputError(msg) from error
    rows = table[table["scene_id"] == scene_id].reset_index(drop=True)
    if rows.empty:
        msg = f"{path}: no buildings of scene {scene_id!r}; copy or build the version again"
        raise InputError(msg)
    return rows


def surface(buildings: gpd.GeoDataFrame) -> tuple[Array, NDArray[np.int64]]:
    """Triangles (T, 3, 3) of all buildings, and the row (T,) each belongs to."""
    solids, rows = [], []
    columns = zip(buildings.geometry, buildings["base"], buildings["height"], strict=True)
    for row, (footprint, base, top) in enumerate(columns):
        for polygon in shapely.get_parts(footprint):
            solids.append(prism(polygon, base, top))
            rows.append(np.full(len(solids[-1]), row))
    return np.concatenate(solids), np.concatenate(rows)


def prism(polygon: Polygon, base: float, top: float) -> Array:
    """A polygon, holes kept, as a closed prism from `base` to `top` m.

    Returns
    -------
    float64 (T, 3, 3)
        Triangles, counter-clockwise from outside: roof, floor, then two for every edge of the footprint.
    """
    flat = shapely.get_coordinates(shapely.get_parts(shapely.constrained_delaunay_triangles(polygon)))
    flat = flat.reshape(-1, 4, 2)[:, :3]
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    clockwise = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    flat[clockwise] = flat[clockwise, ::-1]
    oriented = shapely.orient_polygons(polygon)
    rings = [shapely.get_coordinates(ring) for ring in (oriented.exterior, *oriented.interiors)]
    start = np.concatenate([ring[:-1] for ring in rings])
    end = np.concatenate([ring[1:] for ring in rings])

    def at(points: Array, z: float) -> Array:
        return np.concatenate([points, np.full((*points.shape[:-1], 1), z)], axis=-1)

    low, low_end, high, high_end = at(start, base), at(end, base), at(start, top), at(end, top)
    walls = [np.stack([low, low_end, high_end], axis=1), np.stack([low, high_end, high], axis=1)]
    return np.concatenate([at(flat, top), at(flat[:, ::-1], base), *walls])


def strongest_paths(
    table: dict[Any, NDArray[Any]],
    base: Array,
    users: Array,
    status: NDArray[np.int64],
    triangles: Array,
    max_paths: int,
) -> list[DrawnPath]:
    """Strongest path of every n-th user that has one, half of them to users without line of sight if there are enough.

    Parameters
    ----------
    table : dict
        The store's `paths/*` arrays of one scene, strongest path first.
    base : float64 (3,)
    users : float64 (U, 3)
    status : int (U,)
    triangles : float64 (T, 3, 3)
    max_paths : int
    """
    direct, hidden = (np.flatnonzero((status == kind) & (table["gain"][:, 0] != 0)) for kind in (0, 1))
    chosen = _every_nth(hidden, max(max_paths // 2, max_paths - len(direct)))
    chosen += _every_nth(direct, max_paths - len(chosen))
    paths = []
    for user in sorted(chosen):
        departure, arrival = (
            direction(table[f"{end}_zenith"][user, 0], table[f"{end}_azimuth"][user, 0]) for end in ("aod", "aoa")
        )
        interactions = table["interactions"][user, 0]
        interactions = interactions[interactions != NOTHING].tolist()
        length = float(table["delay"][user, 0]) * SPEED_OF_LIGHT
        whole, lines = rebuild_path(base, departure, users[user], arrival, interactions, length, triangles)
        gain = 20 * np.log10(abs(table["gain"][user, 0]))
        paths.append(DrawnPath(user, float(gain), describe(interactions), whole, lines))
    return paths


def _every_nth(users: NDArray[np.int64], most: int) -> list[int]:
    return users[:: max(1, -(-len(users) // max(most, 1)))].tolist()


def direction(zenith: float, azimuth: float) -> Array:
    """Unit vector (3,) of stored angles in rad."""
    zenith, azimuth = float(zenith), float(azimuth)
    return np.array([np.sin(zenith) * np.cos(azimuth), np.sin(zenith) * np.sin(azimuth), np.cos(zenith)])


def describe(interactions: Sequence[int]) -> str:
    """A path's interactions in words."""
    bounces = sum(kind not in (REFRACTION, DIFFRACTION) for kind in interactions)
    counts = [(bounces, "bounce"), (interactions.count(DIFFRACTION), "diffraction")]
    counts.append((interactions.count(REFRACTION), "refraction"))
    words = [f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count]
    return ", ".join(words) or STATUSES[0]


def rebuild_path(
    base: Array,
    departure: Array,
    user: Array,
    arrival: Array,
    interactions: Sequence[int],
    length: float,
    triangles: Array,
) -> tuple[bool, list[Array]]:
    """Vertices of a path from its directions.

    Where one vertex is unknown it is the point where the rays from both ends meet. Reflections before and after it are
    traced: the ray from either end, mirrored at what it hits. What comes out counts only when the rays do meet and the
    length is the delay's; a path bent by two edges, say, is left open.

    Parameters
    ----------
    base, user : float64 (3,)
    departure, arrival : float64 (3,)
        Unit vectors away from base and user.
    interactions : sequence of int
        From the base station on, without 0.
    length : float
        m.
    triangles : float64 (T, 3, 3)
        Buildings; the ground is the plane z = 0.

    Returns
    -------
    whole : bool
    lines : list of float64 (P, 3)
        The path from base to user; or, where it is not whole, the known part from the base and the one from the user.
    """
    bends = [index for index, kind in enumerate(interactions) if kind != REFRACTION]
    if not bends:
        line = np.stack([base, user])
        return abs(_length(line) - length) < TOLERANCE, [line]
    # The vertex where both rays meet: the one that mirrors nothing, or else any, say the last.
    pivot = next((index for index in bends if interactions[index] != SPECULAR), bends[-1])
    ahead, ray_ahead = _mirror_along(base, departure, interactions[:pivot], triangles)
    behind, ray_behind = _mirror_along(user, arrival, interactions[:pivot:-1], triangles)
    if ray_ahead is not None and ray_behind is not None:
        meeting, gap = nearest_point(ahead[-1], ray_ahead, behind[-1], ray_behind)
        line = np.stack([*ahead, meeting, *reversed(behind)])
        if gap < TOLERANCE and abs(_length(line) - length) < TOLERANCE:
            return True, [line]
    open_ends = []
    for points, ray in ((ahead, ray_ahead), (behind, ray_behind)):
        if ray is not None:
            distance, _ = first_hit(points[-1], ray, triangles)
            points.append(points[-1] + ray * (distance if distance < length else STUB))
        open_ends.append(np.stack(points))
    return False, open_ends


def _mirror_along(
    origin: Array, ray: Array, interactions: Sequence[int], triangles: Array
) -> tuple[list[Array], Array | None]:
    """Follow a ray through reflections and refractions: its vertices, and where it goes next (None: not known)."""
    points = [origin]
    for kind in interactions:
        distance, normal = first_hit(points[-1], ray, triangles)
        if kind not in (SPECULAR, REFRACTION) or not np.isfinite(distance):
            return points, None if len(points) > 1 else ray
        points.append(points[-1] + distance * ray)
        if kind == SPECULAR:
            ray = ray - 2 * (ray @ normal) * normal
    return points, ray


def nearest_point(first: Array, ray: Array, second: Array, other_ray: Array) -> tuple[Array, float]:
    """Point (3,) nearest to both half-lines in the least-squares sense, and their distance there in m (inf: behind)."""
    matrix = np.column_stack([ray, -other_ray])
    (along, other_along), *_ = np.linalg.lstsq(matrix, second - first, rcond=None)
    if along < 0 or other_along < 0:
        return (first + second) / 2, np.inf
    ends = first + along * ray, second + other_along * other_ray
    return (ends[0] + ends[1]) / 2, float(np.linalg.norm(ends[0] - ends[1]))


def first_hit(origin: Array, ray: Array, triangles: Array) -> tuple[float, Array]:
    """Distance in m to the first triangle or the ground along a ray (inf: none), and the unit normal (3,) there."""
    # Möller and Trumbore; 1 mm ahead, so that a ray does not hit the wall that it leaves.
    corner = triangles[:, 0]
    first, second = triangles[:, 1] - corner, triangles[:, 2] - corner
    across = np.cross(ray, second)
    determinant = (first * across).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = origin - corner
        u = (offset * across).sum(-1) / determinant
        turned = np.cross(offset, first)
        v = (turned @ ray) / determinant
        distance = (second * turned).sum(-1) / determinant
        hit = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9) & (distance > 1e-3)
    distance = np.where(hit, distance, np.inf)
    ground = -origin[2] / ray[2] if ray[2] < 0 else np.inf
    nearest = int(distance.argmin()) if len(distance) else 0
    if len(distance) == 0 or (1e-3 < ground < distance[nearest]):
        return float(ground), np.array([0.0, 0.0, 1.0])
    normal = np.cross(first[nearest], second[nearest])
    return float(distance[nearest]), normal / np.linalg.norm(normal)


def _length(line: Array) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())
