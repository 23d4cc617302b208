"""Whether the ways of (chain, receiver) pairs are clear: cheap tests, before the image method decides.

Every way between two elements is tested for obstacles, except for its first and last millimetres, where the image method
has its own rules. Only pairs that it would refuse are left out.
"""

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.device import Numbers, Vectors, dr, load_packets, load_table, mi, packets, positions
from wavecity.raytrace.edges import EDGE_OFFSET
from wavecity.raytrace.elements import are_edges
from wavecity.raytrace.pairs import PairFinder
from wavecity.raytrace.surfaces import Surfaces
from wavecity.raytrace.world import World

# Metres at either end of a way in which nothing counts as an obstacle.
ENDS = 5e-3
# Metres: what a way meets only within this of its line is left to the image method. Walls and roofs are grazed sideways
# and from above: ways are moved in both directions at once.
GRAZING = 2e-4
# Metres: a triangle met so far from its sides is also met by ways moved by that.
SOLID = 5 * GRAZING


class Clearance:
    """Tests of pairs without faces passed through.

    Parameters
    ----------
    world : World
    finder : PairFinder
    source : float64 (3,)
        Metres.
    elements : int32 (C, D), optional
        Of the finder's chains; needed where some have an edge.
    """

    def __init__(
        self,
        world: World,
        finder: PairFinder,
        source: NDArray[np.float64],
        elements: NDArray[np.int32] | None = None,
    ) -> None:
        self._scene, self._finder = world.scene.mi_scene, finder
        self._source = load_table(mi.Vector3f, source[None])
        self._first_face = load_table(mi.UInt, world.first_face)
        self._face = load_packets(*_normals_and_heights(world.surfaces))
        if finder.diffraction and elements is not None:
            row, position = np.nonzero(are_edges(world.surfaces, elements))
            away = np.zeros((len(elements), 3))
            normals = world.surfaces.edge_normals[elements[row, position] - world.surfaces.planes].sum(axis=1)
            away[row] = normals / np.maximum(np.linalg.norm(normals, axis=1), 1e-9)[:, None]
            self._away = load_table(mi.Vector3f, away)

    def clear(self, chain: Numbers, receiver: Numbers, turned: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Those of the pairs (as from `PairFinder.find`) whose ways are clear; a single one twice."""
        for ways in (self._last_way, self._other_ways):
            if not dr.width(chain):
                break
            is_clear = ways(chain, receiver)
            dr.eval(is_clear)
            keep = positions(is_clear)
            chain, receiver, turned = (dr.gather(mi.UInt, numbers, keep) for numbers in (chain, receiver, turned))
            dr.eval(chain, receiver, turned)
        return chain, receiver, turned

    def _last_way(self, chain: Numbers, receiver: Numbers) -> Numbers:
        """Whether the way from the last element to the receiver is clear."""
        user = self._finder.receiver(receiver)
        parameter = self._parameter(chain, user)
        _, place = self._element(chain, self._finder.last(chain), user, parameter)
        return self._open(user, place, mi.Bool(True))

    def _other_ways(self, chain: Numbers, receiver: Numbers) -> Numbers:
        """Whether the ways from the source to the last element are clear."""
        at = self._finder.receiver(receiver)
        parameter = self._parameter(chain, at)
        is_clear, first = mi.Bool(True), mi.Bool(True)
        for position in reversed(range(self._finder.depth)):
            present, place = self._element(chain, chain * self._finder.depth + position, at, parameter)
            is_clear &= self._open(at, place, present & ~first & is_clear)
            first &= ~present
            at = dr.select(present, place, at)
        return is_clear & self._open(
            at, dr.gather(mi.Vector3f, self._source, dr.zeros(mi.UInt, dr.width(chain))), is_clear
        )

    def _parameter(self, chain: Numbers, user: Vectors) -> Numbers:
        return self._finder.place_on_edge(chain, user)[0] if self._finder.diffraction else mi.Float(0)

    def _element(self, chain: Numbers, slot: Numbers, at: Vectors, parameter: Numbers) -> tuple[Numbers, Vectors]:
        """Whether there is an element, and where the way from `at` meets it."""
        plane = self._finder.plane(slot)
        present = plane >= 0
        target = self._finder.aim_at(slot, parameter, mi.Bool(True))
        _, place, _ = self._finder.meets(plane, at, target, present)
        if self._finder.diffraction:
            diffracts = self._finder.is_edge(slot)
            # As in the image method.
            outside = target + EDGE_OFFSET * dr.gather(mi.Vector3f, self._away, chain, diffracts)
            place, present = dr.select(diffracts, outside, place), present | diffracts
        return present, place

    def _open(self, start: Vectors, end: Vectors, active: Numbers) -> Numbers:
        """Whether nothing stands between points, or only something that the way grazes."""
        way = end - start
        length = dr.norm(way)
        direction = way / length
        active &= length > 2 * ENDS
        across = dr.normalize(mi.Vector3f(direction.y + 1e-9, -direction.x, 0))
        aside = GRAZING * dr.normalize(across + dr.cross(direction, across))
        is_open, grazes = self._nothing_met(self._ray(start, direction, length), active)
        is_open |= ~active
        for shift in (aside, -aside):
            ray = self._ray(start + shift, direction, length)
            is_open |= ~self._scene.ray_test(ray, active=grazes & ~is_open) & grazes & ~is_open
        return is_open

    def _ray(self, start: Vectors, direction: Vectors, length: Numbers) -> Vectors:
        """Rays of this length, without their ends."""
        ray = mi.Ray3f(mi.Point3f(start + ENDS * direction), direction)
        ray.time = dr.zeros(mi.Float, dr.width(length))
        ray.maxt = length - 2 * ENDS
        return ray

    def _nothing_met(self, ray: Vectors, active: Numbers) -> tuple[Numbers, Numbers]:
        """Whether rays meet nothing; and, where they do, whether rays just as long a little to a side may do so."""
        met = self._scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        meets = active & met.is_valid()
        shape = dr.reinterpret_array(mi.UInt, met.shape)
        face = dr.gather(mi.UInt, self._first_face, shape, meets) + met.prim_index
        normal, height = packets(self._face, face, meets)
        slope = dr.abs(dr.dot(normal, ray.d))
        # How far the point is from the triangle's sides, and from the ray's ends, in m and as the ray sees it.
        u, v = met.prim_uv
        inside = slope * dr.minimum(
            height * dr.minimum(dr.minimum(u, v), 1 - u - v), dr.minimum(met.t, ray.maxt - met.t)
        )
        return active & ~meets, meets & ~(inside > SOLID)


def _normals_and_heights(surfaces: Surfaces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal (F, 3) and smallest height (F,) in m of each triangle."""
    corners = surfaces.vertices[surfaces.faces]
    sides = np.roll(corners, -1, axis=1) - corners
    normal = np.cross(sides[:, 0], sides[:, 1])
    area = np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    return normal / area[:, None], area / np.maximum(np.linalg.norm(sides, axis=2).max(axis=1), 1e-6)
