"""Block scenes, an independent NumPy ray tracer, and Sionna's stock solver as the tests need them."""

from typing import Any

import numpy as np
import shapely
from shapely import Polygon

from geo.mesh import extrude
from geo.scene import Mesh, Scene
from raytrace.settings import RadioSettings
from raytrace.solver import Paths
from raytrace.world import World, build_world

SOURCE = np.array([0.0, 100.0, 15.0])
SPEED_OF_LIGHT = 299_792_458.0


def box(x: float, y: float, width: float, depth: float, turn: float = 0.0) -> Polygon:
    return shapely.affinity.rotate(shapely.box(x - width / 2, y - depth / 2, x + width / 2, y + depth / 2), turn)


L_SHAPE = Polygon([(-60, -60), (-20, -60), (-20, -40), (-40, -40), (-40, -10), (-60, -10)])
BLOCKS = [(box(-20, 20, 30, 20, 10), 20.0), (box(30, 10, 20, 40), 12.0), (L_SHAPE, 25.0)]


def mesh_of(blocks: list[tuple[Polygon, float]], welded: bool = True) -> Mesh:
    vertices, faces, building, surface = [np.empty((0, 3))], [np.empty((0, 3), int)], [np.empty(0)], [np.empty(0)]
    for number, (footprint, height) in enumerate(blocks):
        points, triangles, kinds = extrude(shapely.geometry.polygon.orient(footprint), 0.0, height)
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


def world_of(blocks: list[tuple[Polygon, float]], radio: RadioSettings | None = None, welded: bool = True) -> World:
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


def users_around(blocks: list[tuple[Polygon, float]], count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Positions 1.5 m above open ground."""
    random = np.random.default_rng(seed)
    built = shapely.unary_union([footprint.buffer(0.5) for footprint, _ in blocks])
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


def stock_paths(world: World, source: Any, users: Any, **options: Any) -> Any:
    """Sionna's own solver, with a transmitter and receivers."""
    from raytrace.device import rt

    scene = world.scene
    panel = {"num_rows": options.pop("rows", 1), "num_cols": options.pop("columns", 1)}
    scene.tx_array = rt.PlanarArray(**panel, pattern=options.pop("pattern", "iso"), polarization="V")
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    for name in [*scene.transmitters, *scene.receivers]:
        scene.remove(name)
    orientation = [float(angle) for angle in options.pop("orientation", (0, 0, 0))]
    scene.add(rt.Transmitter("bs", [float(x) for x in source], orientation=orientation))
    for number, user in enumerate(users):
        scene.add(rt.Receiver(f"user-{number}", [float(x) for x in user]))
    settings = {"max_depth": 3, "samples_per_src": 100_000, "refraction": False, "seed": 1} | options
    return rt.PathSolver()(scene, **settings)


def stock_table(paths: Any, world: World) -> dict[str, np.ndarray[Any, Any]]:
    """The stock solver's valid paths, one row each; `met` are the planes they met, -2 for edges."""
    valid = paths.valid.numpy()[:, 0]
    row = np.nonzero(valid)

    def per_bounce(values: Any) -> Any:
        return np.moveaxis(values.numpy()[:, :, 0], 0, 2)[row]

    types, faces = per_bounce(paths.interactions), per_bounce(paths.primitives).astype(np.int64)
    coefficients = paths.a[0].numpy() + 1j * paths.a[1].numpy()
    angles = (paths.theta_t, paths.phi_t, paths.theta_r, paths.phi_r)
    return {
        "receiver": row[0],
        "types": types,
        "met": planes_met(world, types, faces),
        "vertices": per_bounce(paths.vertices) * (types > 0)[..., None],
        "length": paths.tau.numpy()[:, 0][row].astype(np.float64) * SPEED_OF_LIGHT,
        "coefficient": np.moveaxis(coefficients[:, 0, 0], -1, 1)[row],
        "angles": np.stack([angle.numpy()[:, 0][row] for angle in angles], axis=1),
    }


def planes_met(world: World, types: Any, faces: Any) -> np.ndarray[Any, Any]:
    planes = world.surfaces.plane_of_face[np.where(types == 1, faces, 0)]
    return np.where(types == 1, planes, np.where(types == 8, -2, -1))


def partners(theirs: dict[str, np.ndarray[Any, Any]], ours: Paths, world: World) -> np.ndarray[Any, Any]:
    """For each stock path ours that met the same planes in the same order (and the same point of an edge), or -1."""
    met = planes_met(world, ours.types, ours.faces)
    result = np.full(len(theirs["receiver"]), -1)
    for row in range(len(result)):
        same = (ours.receiver == theirs["receiver"][row]) & (met == theirs["met"][row]).all(axis=1)
        gap = np.linalg.norm(ours.vertices - theirs["vertices"][row], axis=2)
        same &= np.where(ours.types == 8, gap, 0).max(axis=1) < 0.02
        if same.any():
            candidates = np.flatnonzero(same)
            result[row] = candidates[gap[candidates].max(axis=1).argmin()]
    return result


def angles_of(paths: Paths) -> np.ndarray[Any, Any]:
    """Zenith and azimuth of departure and arrival, as Sionna lists them."""
    columns = []
    for unit in (paths.departure, paths.arrival):
        columns += [np.arccos(unit[:, 2]), np.arctan2(unit[:, 1], unit[:, 0])]
    return np.stack(columns, axis=1)
