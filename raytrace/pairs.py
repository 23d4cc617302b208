"""Selection of the (chain, receiver) pairs that may be a path, by geometry alone: cheap, and before any ray is traced.

For each pair the path is traced back as if nothing were in the way. It must meet every plane within the rectangle
around the plane's faces, and every edge between its ends; faces passed through impose no condition. The remaining few
per cent go to the image method.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace.device import Numbers, Vectors, crossed, dr, load_packets, load_table, mi, packets
from wavecity.raytrace.geometry import Unfolded, edge_coordinates
from wavecity.raytrace.surfaces import Surfaces

# Slack in m for the rounding of float32, far more than it needs: a pair too many costs a ray, one too few loses a path.
SLACK = 0.02
# Grazing incidence magnifies rounding; 1e-4 m across the plane become this much along it, divided by the sine.
GRAZING_SLACK = 1e-4


class Edge(NamedTuple):
    """Edges, seen from the side where paths leave them: a point, the direction, and the source's image in them."""

    origin: Vectors
    along: Vectors
    length: Numbers
    # Where the image lies along the edge, and how far from its line.
    foot: Numbers
    height: Numbers

    def place(self, at: Vectors) -> tuple[Numbers, Numbers]:
        """Where the path to points diffracts, in m from the origin, and whether that is on the edge."""
        ahead = at - self.origin
        along_t = dr.dot(ahead, self.along)
        away_t = dr.norm(ahead - along_t * self.along)
        parameter = (self.foot * away_t + along_t * self.height) / dr.maximum(self.height + away_t, 1e-6)
        return parameter, (parameter > -SLACK) & (parameter < self.length + SLACK)


class Mirror(NamedTuple):
    """Planes, and the rectangles around their faces."""

    normal: Vectors
    offset: Numbers
    axes: tuple[Vectors, Vectors]
    bounds: Vectors

    def meet(self, at: Vectors, target: Vectors) -> tuple[Numbers, Vectors]:
        """Whether the way from `at` to `target` meets them within the rectangle, and where."""
        ahead = target - at
        speed = dr.dot(self.normal, ahead)
        time = (self.offset - dr.dot(self.normal, at)) / speed
        met = at + time * ahead
        slack = SLACK + GRAZING_SLACK * dr.norm(ahead) / dr.abs(speed)
        u, v = (dr.dot(met, axis) for axis in self.axes)
        low_u, high_u, low_v, high_v = self.bounds
        inside = (u > low_u - slack) & (u < high_u + slack) & (v > low_v - slack) & (v < high_v + slack)
        # The mirror lies between the receiver's side and the image; a receiver on the plane itself is no path.
        return inside & (time > -1e-4) & (time < 1.0001), met


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
        self._receivers = load_packets(receivers)
        self._plane = load_table(mi.Int, unfolded.plane.ravel())
        self._aim = load_packets(unfolded.aim.reshape(-1, 3))
        self._mirror = load_packets(surfaces.normal, surfaces.offset)
        self._axes = [load_packets(surfaces.frame[:, axis]) for axis in range(2)]
        self._bounds = load_packets(surfaces.bounds[:, :3], surfaces.bounds[:, 3])
        length = np.maximum((unfolded.plane >= 0).sum(axis=1) + (unfolded.is_edge | unfolded.passes).sum(axis=1), 1)
        self._last = load_table(mi.UInt, np.arange(self.chains) * self.depth + length - 1)
        self._lamp = load_packets(unfolded.lamp)
        if diffraction:
            self._slide = load_packets(unfolded.slide.reshape(-1, 3))
            self._edge = load_table(mi.Bool, unfolded.is_edge.ravel())
            # The image of the source in the coordinates of the edge. Without one all these are 0.
            foot, height = edge_coordinates(unfolded.lamp, unfolded.origin, unfolded.along)
            self._origin = load_packets(unfolded.origin, foot)
            self._along = load_packets(unfolded.along, height)
            self._length = load_table(mi.Float, unfolded.length)
            self._facing = load_packets(unfolded.facing)

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
        row, receiver = crossed(last - first, self.count, lambda row: self._at_last(row + dr.opaque(mi.UInt, first)))
        if dr.width(row) == 0:
            return row, row, row
        chain = row + dr.opaque(mi.UInt, first)
        dr.eval(chain)
        fits, turned = self.plausible(chain, receiver)
        dr.eval(fits, turned)
        keep = dr.compress(fits)
        return dr.gather(mi.UInt, chain, keep), dr.gather(mi.UInt, receiver, keep), dr.gather(mi.UInt, turned, keep)

    def receiver(self, number: Numbers) -> Vectors:
        """Positions of receivers."""
        return packets(self._receivers, number)[0]

    def lamp(self, chain: Numbers) -> Vectors:
        """Images of the source in all planes."""
        return packets(self._lamp, chain)[0]

    def last(self, chain: Numbers) -> Numbers:
        """Slots of the last elements."""
        return dr.gather(mi.UInt, self._last, chain)

    def plane(self, slot: Numbers) -> Numbers:
        """Mirrors at elements (`slot` in the tables of all chains' elements), -1 where there is none."""
        return dr.gather(mi.Int, self._plane, slot)

    def is_edge(self, slot: Numbers) -> Numbers:
        """Whether elements are edges."""
        return dr.gather(mi.Bool, self._edge, slot)

    def edge(self, chain: Numbers) -> Edge:
        """Edges of chains."""
        (origin, foot), (along, height) = packets(self._origin, chain), packets(self._along, chain)
        return Edge(origin, along, dr.gather(mi.Float, self._length, chain), foot, height)

    def mirror(self, plane: Numbers, active: Numbers) -> Mirror:
        """Mirrors by their number."""
        normal, offset = packets(self._mirror, plane, active)
        u, v = (packets(axis, plane, active)[0] for axis in self._axes)
        return Mirror(normal, offset, (u, v), dr.gather(mi.Vector4f, self._bounds, plane, active))

    def beyond_edge(self, chain: Numbers, at: Vectors) -> Numbers:
        """Length of the way from the edge to points."""
        edge = self.edge(chain)
        return dr.norm(at - edge.origin - edge.place(at)[0] * edge.along)

    def place_on_edge(self, chain: Numbers, at: Vectors) -> tuple[Numbers, Numbers]:
        """Where on its edge the path to points diffracts, and whether that is between the ends (or there is no edge)."""
        return self.edge(chain).place(at)

    def aim_at(self, slot: Numbers, parameter: Numbers, active: Numbers) -> Vectors:
        """Point that the path runs towards at an element (`slot` in the tables of all chains' elements)."""
        target, _ = packets(self._aim, slot, active)
        if self.diffraction:
            target += parameter * packets(self._slide, slot, active)[0]
        return target

    def meets(self, plane: Numbers, at: Vectors, target: Vectors, active: Numbers) -> tuple[Numbers, Vectors, Vectors]:
        """Whether the way from `at` to `target` meets a mirror within the rectangle around its faces; where; and its normal."""
        mirror = self.mirror(plane, active)
        inside, met = mirror.meet(at, target)
        return inside, met, mirror.normal

    def _at_last(self, chain: Numbers) -> Callable[[Numbers], Numbers]:
        """Test of receivers: whether they and these chains may be a path as far as edge and last element are concerned."""
        slot = self.last(chain)
        plane = self.plane(slot)
        reflects = plane >= 0
        mirror, (aim, _) = self.mirror(plane, reflects), packets(self._aim, slot, reflects)
        if not self.diffraction:
            return lambda receiver: mirror.meet(self.receiver(receiver), aim)[0] | ~reflects
        edge, (slide, _) = self.edge(chain), packets(self._slide, slot, reflects)

        def test(receiver: Numbers) -> Numbers:
            at = self.receiver(receiver)
            parameter, fits = edge.place(at)
            return fits & (mirror.meet(at, aim + parameter * slide)[0] | ~reflects)

        return test

    def plausible(self, chain: Numbers, receiver: Numbers) -> tuple[Numbers, Numbers]:
        """Whether each pair may be a path, and where the edge's faces are better exchanged (1, else 0)."""
        turned = dr.zeros(mi.UInt, dr.width(chain))
        at = self.receiver(receiver)
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
                facing, _ = packets(self._facing, chain, diffracts)
                turned = dr.select(diffracts & (dr.dot(facing, at - target) < 0), mi.UInt(1), turned)
                at = dr.select(diffracts, target, at)
        return fits, turned
