"""Selection of the (chain, receiver) pairs that may be a path, by geometry alone: cheap, and before any ray is traced.

For each pair the path is traced back as if nothing were in the way. It must meet every plane within the rectangle
around the plane's faces, and every edge between its ends; faces passed through impose no condition. The remaining few
per cent go to the image method.
"""

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.device import Numbers, Vectors, divided, dr, load_table, mi
from wavecity.raytrace.geometry import Unfolded
from wavecity.raytrace.surfaces import Surfaces

# Slack in m for the rounding of float32, far more than it needs: a pair too many costs a ray, one too few loses a path.
SLACK = 0.02
# Grazing incidence magnifies rounding; 1e-4 m across the plane become this much along it, divided by the sine.
GRAZING_SLACK = 1e-4


class PairFinder:
    """Tables of chains in device memory, and the test of pairs.

    Parameters
    ----------
    surfaces : Surfaces
    unfolded : Unfolded
        Of C chains.
    receivers : float (R, 3)
    diffraction : bool
        Whether any chain may have an edge (else that part is not compiled).
    """

    def __init__(
        self, surfaces: Surfaces, unfolded: Unfolded, receivers: NDArray[np.floating], diffraction: bool
    ) -> None:
        self.chains, self.depth = unfolded.plane.shape
        self.count = len(receivers)
        self.diffraction = diffraction
        self._receivers = load_table(mi.Vector3f, receivers)
        self._plane = load_table(mi.Int, unfolded.plane.ravel())
        self._aim = load_table(mi.Vector3f, unfolded.aim)
        self._normal, self._offset = (
            load_table(mi.Vector3f, surfaces.normal),
            load_table(mi.Float, surfaces.offset),
        )
        self._u, self._v = load_table(mi.Vector3f, surfaces.frame[:, 0]), load_table(mi.Vector3f, surfaces.frame[:, 1])
        self._bounds = load_table(mi.Vector4f, surfaces.bounds)
        length = np.maximum((unfolded.plane >= 0).sum(axis=1) + (unfolded.is_edge | unfolded.passes).sum(axis=1), 1)
        self._last = load_table(mi.UInt, np.arange(self.chains) * self.depth + length - 1)
        self._lamp = load_table(mi.Vector3f, unfolded.lamp)
        if diffraction:
            self._slide = load_table(mi.Vector3f, unfolded.slide)
            self._edge = load_table(mi.Bool, unfolded.is_edge.ravel())
            self._any_edge = load_table(mi.Bool, unfolded.is_edge.any(axis=1))
            self._origin, self._along = (
                load_table(mi.Vector3f, unfolded.origin),
                load_table(mi.Vector3f, unfolded.along),
            )
            self._length = load_table(mi.Float, unfolded.length)
            self._facing = load_table(mi.Vector3f, unfolded.facing)

    def find(self, first: int, last: int) -> tuple[Numbers, Numbers, Numbers]:
        """Pairs of the chains `first` to `last` (exclusive) with all receivers that may be paths.

        Returns
        -------
        mi.UInt (N,), mi.UInt (N,), mi.UInt (N,)
            Chain and receiver, chain by chain; and 1 where the edge's faces are better exchanged, else 0. Sionna's
            image method moves the point on the edge towards the receiver along the 0-face's normal, by millimetres:
            where the rest of the path lies below that face this is into a blunt wedge, and the path would be lost.
            Where the source sees both faces, either may be the 0-face.
        """
        # Nearly all pairs fail at the element that the receiver looks at.
        fits = self._meets_last(*self._pair(dr.arange(mi.UInt, (last - first) * self.count), first))
        dr.eval(fits)
        keep = dr.compress(fits)
        if dr.width(keep) == 0:
            return keep, keep, keep
        chain, receiver = self._pair(keep, first)
        dr.eval(chain, receiver)
        fits, turned = self._plausible(chain, receiver)
        dr.eval(fits, turned)
        keep = dr.compress(fits)
        return dr.gather(mi.UInt, chain, keep), dr.gather(mi.UInt, receiver, keep), dr.gather(mi.UInt, turned, keep)

    def _pair(self, number: Numbers, first: int) -> tuple[Numbers, Numbers]:
        """Chain and receiver of pairs that are numbered chain by chain, from a first chain on."""
        row = divided(number, self.count)
        return row + dr.opaque(mi.UInt, first), number - row * dr.opaque(mi.UInt, self.count)

    def receiver(self, number: Numbers) -> Vectors:
        """Positions of receivers."""
        return dr.gather(mi.Vector3f, self._receivers, number)

    def lamp(self, chain: Numbers) -> Vectors:
        """Images of the source in all planes."""
        return dr.gather(mi.Vector3f, self._lamp, chain)

    def last(self, chain: Numbers) -> Numbers:
        """Slots of the last elements."""
        return dr.gather(mi.UInt, self._last, chain)

    def plane(self, slot: Numbers) -> Numbers:
        """Mirrors at elements (`slot` in the tables of all chains' elements), -1 where there is none."""
        return dr.gather(mi.Int, self._plane, slot)

    def is_edge(self, slot: Numbers) -> Numbers:
        """Whether elements are edges."""
        return dr.gather(mi.Bool, self._edge, slot)

    def beyond_edge(self, chain: Numbers, at: Vectors) -> Numbers:
        """Length of the way from the edge to points."""
        parameter, _ = self.place_on_edge(chain, at)
        along = dr.gather(mi.Vector3f, self._along, chain)
        return dr.norm(at - dr.gather(mi.Vector3f, self._origin, chain) - parameter * along)

    def place_on_edge(self, chain: Numbers, at: Vectors) -> tuple[Numbers, Numbers]:
        """Where on its edge the path to points diffracts, and whether that is between the ends (or there is no edge)."""
        along = dr.gather(mi.Vector3f, self._along, chain)
        origin = dr.gather(mi.Vector3f, self._origin, chain)
        s, t = dr.gather(mi.Vector3f, self._lamp, chain) - origin, at - origin
        along_s, along_t = dr.dot(s, along), dr.dot(t, along)
        away_s, away_t = dr.norm(s - along_s * along), dr.norm(t - along_t * along)
        parameter = (along_s * away_t + along_t * away_s) / dr.maximum(away_s + away_t, 1e-6)
        length = dr.gather(mi.Float, self._length, chain)
        on_edge = (parameter > -SLACK) & (parameter < length + SLACK)
        return parameter, on_edge | ~dr.gather(mi.Bool, self._any_edge, chain)

    def aim_at(self, slot: Numbers, parameter: Numbers, active: Numbers) -> Vectors:
        """Point that the path runs towards at an element (`slot` in the tables of all chains' elements)."""
        target = dr.gather(mi.Vector3f, self._aim, slot, active)
        if self.diffraction:
            target += parameter * dr.gather(mi.Vector3f, self._slide, slot, active)
        return target

    def meets(self, plane: Numbers, at: Vectors, target: Vectors, active: Numbers) -> tuple[Numbers, Vectors, Vectors]:
        """Whether the way from `at` to `target` meets a mirror within the rectangle around its faces; where; and its normal."""
        ahead = target - at
        normal = dr.gather(mi.Vector3f, self._normal, plane, active)
        offset = dr.gather(mi.Float, self._offset, plane, active)
        speed = dr.dot(normal, ahead)
        time = (offset - dr.dot(normal, at)) / speed
        met = at + time * ahead
        slack = SLACK + GRAZING_SLACK * dr.norm(ahead) / dr.abs(speed)
        u = dr.dot(met, dr.gather(mi.Vector3f, self._u, plane, active))
        v = dr.dot(met, dr.gather(mi.Vector3f, self._v, plane, active))
        bounds = dr.gather(mi.Vector4f, self._bounds, plane, active)
        inside = (u > bounds.x - slack) & (u < bounds.y + slack) & (v > bounds.z - slack) & (v < bounds.w + slack)
        # The mirror lies between the receiver's side and the image; a receiver on the plane itself is no path.
        return inside & (time > -1e-4) & (time < 1.0001), met, normal

    def _meets_last(self, chain: Numbers, receiver: Numbers) -> Numbers:
        """Whether each pair may be a path as far as the edge and the last element are concerned."""
        at = dr.gather(mi.Vector3f, self._receivers, receiver)
        fits, parameter = mi.Bool(True), mi.Float(0)
        if self.diffraction:
            parameter, fits = self.place_on_edge(chain, at)
        slot = self.last(chain)
        plane = dr.gather(mi.Int, self._plane, slot, fits)
        reflects = fits & (plane >= 0)
        inside, _, _ = self.meets(plane, at, self.aim_at(slot, parameter, reflects), reflects)
        return fits & (inside | ~reflects)

    def _plausible(self, chain: Numbers, receiver: Numbers) -> tuple[Numbers, Numbers]:
        """Whether each pair may be a path, and where the edge's faces are better exchanged."""
        turned = dr.zeros(mi.UInt, dr.width(chain))
        at = dr.gather(mi.Vector3f, self._receivers, receiver)
        fits = mi.Bool(True)
        parameter = mi.Float(0)
        if self.diffraction:
            parameter, fits = self.place_on_edge(chain, at)
        for position in reversed(range(self.depth)):
            slot = chain * self.depth + position
            plane = dr.gather(mi.Int, self._plane, slot, fits)
            reflects = fits & (plane >= 0)
            target = self.aim_at(slot, parameter, fits)
            inside, met, _ = self.meets(plane, at, target, reflects)
            fits &= inside | ~reflects
            at = dr.select(reflects, met, at)
            if self.diffraction:
                diffracts = dr.gather(mi.Bool, self._edge, slot, fits)
                facing = dr.gather(mi.Vector3f, self._facing, chain, diffracts)
                turned = dr.select(diffracts & (dr.dot(facing, at - target) < 0), mi.UInt(1), turned)
                at = dr.select(diffracts, target, at)
        return fits, turned
