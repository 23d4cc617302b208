"""Block scenes, an independent NumPy ray tracer, and real tiles as the tests need them."""

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import Polygon

from wavecity.geo.build import build_scene
from wavecity.geo.mesh import extrude
from wavecity.geo.scene import Mesh, Scene
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings, UserSettings
from wavecity.geo.sources import open_source
from wavecity.geo.tiles import plan_tiles
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.solver import Paths
from wavecity.raytrace.stock import place_link, trace_link
from wavecity.raytrace.world import World, build_world

SOURCE = np.array([0.0, 100.0, 15.0])
SPEED_OF_LIGHT = 299_792_458.0


def stock_paths(world: World, source: np.ndarray, users: np.ndarray, **options: Any) -> Any:
    """Place a link and trace it: `place_link` and `trace_link` with the options of both."""
    place = {name: options.pop(name) for name in ("orientation", "pattern", "rows", "columns") if name in options}
    place_link(world, source, users, **place)
    return trace_link(world, **options)


def box(x: float, y: float, width: float, depth: float, turn: float = 0.0) -> Polygon:
    return shapely.affinity.rotate(shapely.box(x - width / 2, y - depth / 2, x + width / 2, y + depth / 2), turn)


L_SHAPE = Polygon([(-60, -60), (-20, -60), (-20, -40), (-40, -40), (-40, -10), (-60, -10)])
BLOCKS = [(box(-20, 20, 30, 20, 10), 20.0), (box(30, 10, 20, 40), 12.0), (L_SHAPE, 25.0)]


def mesh_of(blocks: list[Any], welded: bool = True) -> Mesh:
    """Solids of (footprint, height of the top) or (footprint, top, base)."""
    vertices, faces, building, surface = [np.empty((0, 3))], [np.empty((0, 3), int)], [np.empty(0)], [np.empty(0)]
    for number, (footprint, height, *base) in enumerate(blocks):
        points, triangles, kinds = extrude(shapely.geometry.polygon.orient(footprint), *(base or [0.0]), height)
        if not welded:
            points, triangles = points[triangles.ravel()], np.arange(triangles.size).reshape(-1, 3)
        faces.append(triangles + sum(len(part) for part in vertices))
        vertices.append(points)
        building.append(np.full(len(triangles), number))
        surface.append(kinds)
    return Mesh(
        np.concatenate(vertices),
        np.concatenate(faces).astype(np.int32),
        np.concatenate(building).astype(np.int32),
        np.concatenate(surface).astype(np.uint8),
    )


def world_of(blocks: list[Any], radio: RadioSettings | None = None, welded: bool = True) -> World:
    return build_world(mesh_of(blocks, welded), 200.0, radio or RadioSettings())


def scene_of(blocks: list[tuple[Polygon, float]], users: np.ndarray[Any, Any]) -> Scene:
    cells, patches = np.zeros((200, 200), np.float32), np.zeros((20, 20), np.uint8)
    place = {"id": "toy-0000", "city": "Toy", "country": "FI", "latitude": 60.0, "longitude": 25.0, "crs": ""}
    return Scene(
        **place,
        size=200.0,
        split="train",
        mesh=mesh_of(blocks),
        height=cells,
        occupancy=patches,
        bs_position=SOURCE,
        bs_shift=0.0,
        users=users.astype(np.float32),
        buildings=None,
    )


def real_scenes(source: str, cache: Path, count: int, users: int, tile_size: float = 200.0) -> list[Scene]:
    """Scenes of up to `count` accepted tiles of an extract (or of `helsinki`)."""
    city, split = Path(source).name.split(".")[0], SplitSettings(by="scene")
    area = AreaSettings(source=source, city=city, country="XX", scenes=count, tile_size=tile_size, split=split)
    extract = open_source(area, cache)
    accepted = [tile for tile in plan_tiles(extract, area, SceneSettings(), 0) if tile.status == "accepted"]
    each = UserSettings(minimum=users, maximum=users)
    return [build_scene(tile, extract, SceneSettings(), each, 0) for tile in accepted[:count]]


def users_around(blocks: list[Any], count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Positions 1.5 m above open ground."""
    random = np.random.default_rng(seed)
    built = shapely.unary_union([footprint.buffer(0.5) for footprint, *_ in blocks])
    found = random.uniform(-99, 99, (20 * count, 2))
    found = found[~shapely.contains_xy(built, found)][:count]
    return np.column_stack([found, np.full(count, 1.5)]).astype(np.float32)


def hits(
    origin: np.ndarray[Any, Any], target: np.ndarray[Any, Any], triangles: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Möller-Trumbore for all (segment, triangle) pairs: where along each segment, nan where it misses."""
    one, two = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    way = (target - origin)[:, None]
    across = np.cross(way, two)
    scale = (one * across).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        away = origin[:, None] - triangles[:, 0]
        u = (away * across).sum(-1) / scale
        turned = np.cross(away, one)
        v = (way * turned).sum(-1) / scale
        t = (two * turned).sum(-1) / scale
    slack = 1e-9
    return np.where((u >= -slack) & (v >= -slack) & (u + v <= 1 + slack) & (np.abs(scale) > 1e-12), t, np.nan)


def blocked(
    origin: np.ndarray[Any, Any], target: np.ndarray[Any, Any], triangles: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Whether a triangle lies between the ends of each segment."""
    t = hits(origin, target, triangles)
    return ((t > 1e-7) & (t < 1 - 1e-7)).any(axis=1)


def angles_of(paths: Paths) -> np.ndarray[Any, Any]:
    """Zenith and azimuth of departure and arrival, as Sionna lists them."""
    columns = []
    for unit in (paths.departure, paths.arrival):
        columns += [np.arccos(unit[:, 2]), np.arctan2(unit[:, 1], unit[:, 0])]
    return np.stack(columns, axis=1)
