"""Rays that are shot, reflected by faces or pass through them, and the sequences of elements that they follow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.device import Numbers, Vectors, dr, load, load_table, mi, positions
from wavecity.raytrace.rows import unique_rows
from wavecity.raytrace.world import World

# Above this many possible (chain, element) pairs new chains are numbered by sorting instead of by a table.
TABLE_LIMIT = 50_000_000

# Metres: above everything.
HIGHEST = 1e9


@dataclass
class Rays:
    """Rays in flight: origins, directions, and the row of their chain in the current level."""

    origin: Vectors
    direction: Vectors
    row: Numbers


@dataclass
class Search:
    """Shoots rays and collects the sequences that they follow.

    Attributes
    ----------
    world : World
    specular, refraction : bool
        Whether rays are reflected, and whether they go on through faces. With both each ray becomes two.
    limit : int
        Rays in flight.
    """

    world: World
    specular: bool
    refraction: bool
    limit: int

    def __post_init__(self) -> None:
        self._first_face = load_table(mi.UInt, self.world.first_face)
        self._plane_of_face = load_table(mi.UInt, self.world.surfaces.plane_of_face)

    def rays_at_once(self, depth: int) -> int:
        """Rays to start with, so that never more than `limit` are in flight."""
        return max(1, self.limit // (2 ** max(0, depth - 1) if self.specular and self.refraction else 1))

    def bounce(
        self, rays: Rays, prefix: NDArray[np.int32], depth: int, coherent: bool = False, ceiling: float = np.inf
    ) -> list[NDArray[np.int32]]:
        """Let rays meet up to `depth` faces and collect the sequences of elements.

        Parameters
        ----------
        rays : Rays
        prefix : int32 (rows, elements)
            Sequences that the rays have followed so far.
        depth : int
        coherent : bool
            Neighbouring rays have nearly the same origin and direction. It changes no result, only the time: packets of
            such rays take a third of the time of single ones, packets of others three times as long.
        ceiling : float
            Metres: what rays are to reach lies below this height, and so do all faces that could send them down. They are
            followed no further once they go up from above it.

        Returns
        -------
        list of int32 (chains, elements)
            New sequences, one array per bounce.
        """
        surfaces, levels = self.world.surfaces, []
        for bounce in range(depth):
            if dr.width(rays.row) == 0:
                break
            ray = mi.Ray3f(rays.origin, rays.direction)
            ray.time = dr.zeros(mi.Float, dr.width(rays.direction))
            met = self.world.scene.mi_scene.ray_intersect(
                ray, ray_flags=mi.RayFlags.Minimal, coherent=coherent and bounce == 0
            )
            valid = met.is_valid()
            shape = dr.reinterpret_array(mi.UInt, met.shape)
            face = dr.gather(mi.UInt, self._first_face, shape, valid) + met.prim_index
            plane = dr.gather(mi.UInt, self._plane_of_face, face, valid)
            ways = []
            if self.specular:
                ways.append((plane, met.spawn_ray(rays.direction - 2 * dr.dot(rays.direction, met.n) * met.n)))
            if self.refraction:
                through = dr.zeros(mi.UInt, dr.width(plane)) + dr.opaque(mi.UInt, surfaces.through)
                ways.append((through, met.spawn_ray(rays.direction)))
            dr.eval(valid, [(element, way.o, way.d) for element, way in ways])
            alive = positions(valid)
            if not dr.width(alive):
                break
            row = dr.gather(mi.UInt, rays.row, alive).numpy()
            element = np.concatenate([dr.gather(mi.UInt, number, alive).numpy() for number, _ in ways])
            pairs, new_row = _number(np.tile(row, len(ways)), element, len(prefix), surfaces.through + 1)
            prefix = np.column_stack([prefix[pairs[:, 0]], pairs[:, 1]]).astype(np.int32)
            levels.append(prefix)
            origin = _join([dr.gather(mi.Point3f, way.o, alive) for _, way in ways])
            direction = _join([dr.gather(mi.Vector3f, way.d, alive) for _, way in ways])
            rays = leading_down(Rays(origin, direction, load(mi.UInt, new_row)), ceiling)
        return levels


def leading_down(rays: Rays, ceiling: float) -> Rays:
    """Those of the rays that start below a height in m or go down."""
    useful = (rays.direction.z < 0) | (rays.origin.z < dr.opaque(mi.Float, min(ceiling, HIGHEST)))
    dr.eval(rays.origin, rays.direction, rays.row, useful)
    keep = positions(useful)
    return Rays(*(dr.gather(type(part), part, keep) for part in (rays.origin, rays.direction, rays.row)))


def _join(parts: list[Vectors]) -> Vectors:
    """One vector array from several."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(dr.concat([part[axis] for part in parts]) for axis in range(3)))


def merge(parts: list[list[NDArray[np.int32]]]) -> list[NDArray[np.int32]]:
    """Merge the results of several batches of rays, each sequence once."""
    if len(parts) == 1:
        return parts[0]
    depth = max(map(len, parts), default=0)
    levels = (np.concatenate([found[level] for found in parts if len(found) > level]) for level in range(depth))
    return [unique_rows(level) for level in levels]


def _number(
    row: NDArray[np.uint32], element: NDArray[np.uint32], rows: int, elements: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct (row, element) pairs in ascending order, and which of them each ray has."""
    key = row.astype(np.int64) * elements + element
    if rows * elements <= TABLE_LIMIT:
        present = np.zeros(rows * elements, bool)
        present[key] = True
        distinct = np.flatnonzero(present)
        rank = np.empty(rows * elements, np.int32)
        rank[distinct] = np.arange(len(distinct), dtype=np.int32)
        which = rank[key].astype(np.int64)
    else:
        distinct, which = np.unique(key, return_inverse=True)
    return np.column_stack([distinct // elements, distinct % elements]), which.reshape(-1)
