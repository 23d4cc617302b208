"""Users that move: vehicles and cyclists along the streets of a tile, walkers along its paths and pavements."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from wavecity.geo.errors import SceneError
from wavecity.geo.footprints import Footprints, built_between
from wavecity.geo.polygons import GRID
from wavecity.geo.scene import Mover, Trajectories
from wavecity.geo.seeding import generator
from wavecity.geo.settings import MobilitySettings, UserSettings
from wavecity.geo.streets import Network, cycle_network, path_network, road_network
from wavecity.geo.users import MIN_OPEN, open_ground

__all__ = ["Mover", "Trajectories", "trajectories"]

# m of network per user, who would crowd each other on less: walkers go on to open ground, all others become walkers.
WALKER_SPACING, CYCLIST_SPACING, VEHICLE_SPACING = 2.0, 4.0, 8.0
# Range in m of the straight strides of walkers on open ground.
STRIDE = (5.0, 40.0)
# Draws of a route before a user (or the next stride) is given up.
ATTEMPTS = 60
# m that the network keeps away from walls beyond the clearance: three overlays, each rounds to the grid.
MARGIN = 3 * GRID


@dataclass(frozen=True)
class Route:
    """A polyline with the time in s at each of its points (P, 2) and the velocity in m/s after each but the last.

    `ends` says that the route ended before the time did: from then on the user stands.
    """

    points: NDArray[np.float64]
    times: NDArray[np.float64]
    velocities: NDArray[np.float64]
    ends: bool = False


def trajectories(
    prints: Footprints,
    streets: gpd.GeoDataFrame,
    size: float,
    mobility: MobilitySettings,
    users: UserSettings,
    scene_id: str,
    seed: int,
    split: str = "",
) -> Trajectories:
    """Walkers, cyclists and vehicles of a tile, outdoors, in the tile and `users.clearance` from every wall, also
    between steps.

    Vehicles follow the middle of drivable streets in their direction, at their own speed up to the tagged limit, and
    leave a junction at random; cyclists do the same on the streets and paths that they may use. Walkers follow paths
    and the pavements of streets; those who find no room there cross open ground. Dead ends, walls and the tile's edge
    turn a user round; where a oneway street leads out of the tile, a vehicle is started elsewhere, or, when every start
    leads there, it stands at the edge. Users do not interact.

    Parameters
    ----------
    prints : Footprints
        Of the tile. What hangs higher than the antennas and the clearance may be passed under.
    streets : geopandas.GeoDataFrame
        See `tile_streets`.
    size : float
        Edge of the tile in m.
    mobility : MobilitySettings
    users : UserSettings
        Their number, height and clearance.
    scene_id : str
        With `seed` decides every draw.
    seed : int
    split : str
        Scenes of the test split may have another number of users.

    Raises
    ------
    SceneError
        Streets and open ground have no room for the users, or the steps are too long to keep clear of walls.
    """
    top = max(users.height, mobility.vehicle_height) + users.clearance
    standing = built_between(prints, 0, top)
    ground = open_ground(standing, size, users.clearance + MARGIN)
    # Steps are tested against a bound between the clearance and that of the network.
    clear = open_ground(standing, size, users.clearance + GRID)
    shapely.prepare([ground, clear])
    roads, paths = road_network(streets, ground), path_network(streets, ground)
    lanes = cycle_network(streets, ground)

    count = int(generator(seed, scene_id, "users").integers(*users.counts(split), endpoint=True))
    n_vehicles = min(round(mobility.vehicles * count), int(roads.length / VEHICLE_SPACING))
    n_cyclists = min(round(mobility.cyclists * count), int(lanes.length / CYCLIST_SPACING), count - n_vehicles)
    n_on_paths = min(count - n_vehicles - n_cyclists, int(paths.length / WALKER_SPACING))
    n_on_streets = n_on_paths + n_cyclists + n_vehicles
    share = ground.area / size**2
    if n_on_streets < count and share < MIN_OPEN:
        msg = f"streets for {n_on_streets} of {count} users, open ground {100 * share:.1f} % below "
        msg += f"{100 * MIN_OPEN:g} %"
        raise SceneError(msg)

    time = mobility.interval * np.arange(mobility.steps, dtype=np.float64)
    end = float(time[-1])
    ways: list[Callable[[np.random.Generator], Route | None]] = [
        partial(follow, paths, mobility.walker_speed, end)
    ] * n_on_paths
    ways += [partial(roam, ground, mobility.walker_speed, end)] * (count - n_on_streets)
    ways += [partial(follow, lanes, mobility.cyclist_speed, end)] * n_cyclists
    ways += [partial(follow, roads, mobility.vehicle_speed, end)] * n_vehicles
    kind = np.full(count, Mover.WALKER, dtype=np.uint8)
    kind[count - n_vehicles - n_cyclists :] = Mover.CYCLIST
    kind[count - n_vehicles :] = Mover.VEHICLE
    position = np.zeros((count, len(time), 3), dtype=np.float32)
    velocity = np.zeros_like(position)
    position[:, :, 2] = np.where(kind == Mover.VEHICLE, mobility.vehicle_height, users.height)[:, None]
    for user, way in enumerate(ways):
        drawn = _draw(way, time, clear, (seed, scene_id, "trajectory", user))
        if drawn is None:
            msg = f"no trajectory in steps of {mobility.interval:g} s keeps {users.clearance:g} m from walls; make "
            msg += "mobility.interval smaller"
            raise SceneError(msg)
        position[user, :, :2], velocity[user, :, :2] = drawn
    return Trajectories(position, velocity, kind, time)


def _draw(
    way: Callable[[np.random.Generator], Route | None],
    time: NDArray[np.float64],
    clear: BaseGeometry,
    key: tuple[int, str, str, int],
) -> tuple[NDArray[np.float32], NDArray[np.float64]] | None:
    """Positions and velocities (T, 2) of the first route drawn whose steps, taken straight, stay in `clear`.

    A route that ends is taken only when the first half of the draws found no other.
    """
    for attempt in range(ATTEMPTS):
        route = way(generator(*key, attempt))
        if route is None or (route.ends and attempt < ATTEMPTS // 2):
            continue
        # Tested after rounding to float32, so that what is stored is what was tested.
        points = np.column_stack([np.interp(time, route.times, route.points[:, axis]) for axis in (0, 1)])
        stored = points.astype(np.float32)
        if shapely.covers(clear, shapely.linestrings(stored.astype(np.float64))):
            piece = np.searchsorted(route.times, time, side="right") - 1
            return stored, route.velocities[piece]
    return None


def follow(network: Network, speeds: tuple[float, float], end: float, random: np.random.Generator) -> Route:
    """Route along a network until `end` s have passed, from a start that is uniform over its length.

    At every node a random piece that leads on; back only where there is no other.
    """
    speed = random.uniform(*speeds)
    piece = int(np.searchsorted(network.reach, random.random() * network.length, side="right"))
    piece = min(piece, len(network.reach) - 1)
    tail, head = network.node[network.tail[piece]], network.node[network.head[piece]]
    points, times, velocities = [tail + random.random() * (head - tail)], [0.0], []
    while times[-1] <= end:
        tail, head = network.node[network.tail[piece]], network.node[network.head[piece]]
        pace = min(speed, network.limit[piece])
        velocities.append((head - tail) * pace / network.lengths[piece])
        times.append(times[-1] + float(np.hypot(*(head - points[-1]))) / pace)
        points.append(head)
        ways = network.leaving[network.head[piece]]
        onward = [way for way in ways if network.head[way] != network.tail[piece]] or ways
        if not onward:
            break
        piece = onward[random.integers(len(onward))]
    if times[-1] > end:
        return Route(np.array(points), np.array(times), np.array(velocities))
    # Only a oneway street has no way back.
    points, times, velocities = [*points, points[-1]], [*times, end + 1.0], [*velocities, np.zeros(2)]
    return Route(np.array(points), np.array(times), np.array(velocities), ends=True)


def roam(ground: BaseGeometry, speeds: tuple[float, float], end: float, random: np.random.Generator) -> Route | None:
    """Route across open ground, in straight strides of random direction and length; None when it gets stuck."""
    speed = random.uniform(*speeds)
    x0, y0, x1, y1 = ground.bounds
    drawn = random.uniform((x0, y0), (x1, y1), (ATTEMPTS, 2))
    inside = drawn[shapely.contains_xy(ground, drawn)]
    if len(inside) == 0:
        return None
    points, times, velocities = [inside[0]], [0.0], []
    while times[-1] <= end:
        length, angle = random.uniform(*STRIDE, ATTEMPTS), random.uniform(0, 2 * np.pi, ATTEMPTS)
        direction = np.column_stack([np.cos(angle), np.sin(angle)])
        there = points[-1] + length[:, None] * direction
        strides = shapely.linestrings(np.stack([np.broadcast_to(points[-1], there.shape), there], axis=1))
        free = np.flatnonzero(shapely.covers(ground, strides))
        if len(free) == 0:
            return None
        velocities.append(speed * direction[free[0]])
        times.append(times[-1] + length[free[0]] / speed)
        points.append(there[free[0]])
    return Route(np.array(points), np.array(times), np.array(velocities))
