"""Rays that are shot, reflected by faces or pass through them, and the sequences of elements that they follow."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.device import Numbers, Vectors, dr, load, load_table, mi, positions
from wavecity.raytrace.world import World

# Above this many possible (chain, element) pairs new chains are numbered by sorting instead of by a table.
TABLE_LIMIT = 50_000_000


@dataclass
class Rays:
    """Rays in flight: origins, directions, and the row of their chain in the current level."""

    origin: Vectors
    direction: Vectors
    row: Numbers


@dataclass
class Hits:
    """Sequences (rows, elements), and the (row of sequence, face) pairs that rays met after them."""

    prefix: NDArray[np.int32]
    pairs: NDArray[np.int64]


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
        self, rays: Rays, prefix: NDArray[np.int32], depth: int, coherent: bool = False, with_hits: bool = False
    ) -> tuple[list[NDArray[np.int32]], list[Hits]]:
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
        with_hits : bool
            Whether what rays met is asked for.

        Returns
        -------
        list of int32 (chains, elements)
            New sequences, one array per bounce.
        list of Hits
            What rays met, for each bounce but the first, if asked for.
        """
        surfaces = self.world.surfaces
        levels, hits = [], []
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
                ways.append(met.spawn_ray(rays.direction - 2 * dr.dot(rays.direction, met.n) * met.n))
            if self.refraction:
                ways.append(met.spawn_ray(rays.direction))
            dr.eval(valid, plane, face, [(way.o, way.d) for way in ways])
            alive = positions(valid)
            if dr.width(alive) == 0:
                break
            row = dr.gather(mi.UInt, rays.row, alive).numpy()
            if bounce > 0 and with_hits:
                met_faces, _ = _number(row, dr.gather(mi.UInt, face, alive).numpy(), len(prefix), len(surfaces.faces))
                hits.append(Hits(prefix, met_faces))
            elements = [dr.gather(mi.UInt, plane, alive).numpy()] if self.specular else []
            if self.refraction:
                elements.append(np.full(len(row), surfaces.through, np.uint32))
            pairs, new_row = _number(
                np.tile(row, len(ways)), np.concatenate(elements), len(prefix), surfaces.through + 1
            )
            prefix = np.column_stack([prefix[pairs[:, 0]], pairs[:, 1]]).astype(np.int32)
            levels.append(prefix)
            rays = Rays(
                _join([dr.gather(mi.Point3f, way.o, alive) for way in ways]),
                _join([dr.gather(mi.Vector3f, way.d, alive) for way in ways]),
                load(mi.UInt, new_row),
            )
        return levels, hits


def _join(parts: list[Vectors]) -> Vectors:
    """One vector array from several."""
    if len(parts) == 1:
        return parts[0]
    return type(parts[0])(*(dr.concat([part[axis] for part in parts]) for axis in range(3)))


def merge(
    parts: list[tuple[list[NDArray[np.int32]], list[Hits]]],
) -> tuple[list[NDArray[np.int32]], list[Hits]]:
    """Merge the results of several batches of rays; sequences may occur several times, hits do not."""
    if len(parts) == 1:
        return parts[0]
    depth = max(len(levels) for levels, _ in parts)
    levels = [np.concatenate([found[level] for found, _ in parts if len(found) > level]) for level in range(depth)]
    hits = []
    for level in range(max((len(met) for _, met in parts), default=0)):
        some = [met[level] for _, met in parts if len(met) > level]
        prefix, row = np.unique(np.concatenate([hit.prefix for hit in some]), axis=0, return_inverse=True)
        first = np.cumsum([0, *(len(hit.prefix) for hit in some)])[:-1]
        pairs = [
            np.column_stack([row.reshape(-1)[start + hit.pairs[:, 0]], hit.pairs[:, 1]])
            for start, hit in zip(first, some, strict=True)
        ]
        hits.append(Hits(prefix, np.unique(np.concatenate(pairs), axis=0)))
    return levels, hits


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
