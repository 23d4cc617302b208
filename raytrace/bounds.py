"""Upper bounds of the fields of (chain, receiver) pairs, before it is known whether anything stands in their way.

Of a pair that geometry allows (`pairs`) everything but the visibility is known: the unfolded length, the angles of
incidence on mirrors, both angles at the edge. A mirror keeps at most the larger of its two Fresnel coefficients, an edge
at most the sum of the magnitudes of the four terms of its coefficient, each weighted in the same way.
"""

import numpy as np
from numpy.typing import NDArray
from sionna.rt.utils import complex_relative_permittivity, itu_coefficients_single_layer_slab

from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.chains import Chains
from wavecity.raytrace.device import Numbers, Vectors, dr, load, load_rows, load_table, mi, rt
from wavecity.raytrace.elements import are_edges
from wavecity.raytrace.geometry import Unfolded, oriented_edges
from wavecity.raytrace.pairs import PairFinder
from wavecity.raytrace.utd import wedge_terms
from wavecity.raytrace.world import World

# Cells of a table of coefficients over the cosine of the angle of incidence, and points tried in each.
CELLS, POINTS = 512, 8
# Thickness of Sionna's slabs in m, which no recipe changes.
THICKNESS = 0.1
# Fields and bounds are float32, from points that differ by up to a millimetre at edges.
MARGIN = 1.05


class FieldBounds:
    """Bounds of the coefficients of pairs between the source's element and isotropic receivers.

    Parameters
    ----------
    world : World
        Mirrors of unknown material count as perfect.
    finder : PairFinder
        Of C chains.
    unfolded : Unfolded
    chains : Chains
    source : float64 (3,)
    orientation, pattern
        Of the source's element, as of `ChainSolver`.
    """

    def __init__(
        self,
        world: World,
        finder: PairFinder,
        unfolded: Unfolded,
        chains: Chains,
        source: NDArray[np.float64],
        orientation: tuple[float, float, float],
        pattern: str,
    ) -> None:
        surfaces, elements = world.surfaces, chains.elements
        self._finder = finder
        frequency = float(world.scene.frequency[0])
        self._wavelength = dr.opaque(mi.Float, SPEED_OF_LIGHT / frequency)
        material, tables = reflectance(world, frequency)
        self._reflectance = load_table(mi.Float, tables.ravel())
        self._material = load_table(
            mi.UInt, _one_material(material, surfaces.plane_of_face, surfaces.planes, len(tables))
        )
        self._source = load_table(mi.Vector3f, source[None])
        turn = rt.utils.rotation_matrix(load_rows(mi.Point3f, np.array([orientation])))
        self._turn = load_table(mi.Vector3f, np.array(turn.numpy(), np.float64).reshape(3, 3).T)
        self._pattern = rt.PlanarArray(
            num_rows=1, num_cols=1, pattern=pattern, polarization="V"
        ).antenna_pattern.patterns[0]
        if finder.diffraction:
            lit, normals, along = unfolded.lit, np.zeros((len(elements), 2, 3)), np.zeros((len(elements), 3))
            row, position = np.nonzero(are_edges(surfaces, elements))
            edge = elements[row, position] - surfaces.planes
            _, along[row], normals[row] = oriented_edges(surfaces, edge, chains.swapped[row])
            sides = np.full(len(elements), len(tables) - 1)
            one, two = material[surfaces.edge_faces[edge]].T
            sides[row] = np.where(one == two, one, len(tables) - 1)
            self._lit = load_table(mi.Vector3f, lit)
            self._wedge = [load_table(mi.Vector3f, v) for v in (along, normals[:, 0], normals[:, 1])]
            self._sides = load_table(mi.UInt, sides)

    def __call__(self, chain: Numbers, receiver: Numbers) -> NDArray[np.float64]:
        """Largest power gains (N,) that pairs may have; `mi.UInt` (N,) each."""
        bound = self._amplitude(chain, receiver)
        dr.eval(bound)
        power: NDArray[np.float64] = (MARGIN * bound.numpy().astype(np.float64)) ** 2
        return power

    def _amplitude(self, chain: Numbers, receiver: Numbers) -> Numbers:
        finder = self._finder
        user = at = finder.receiver(receiver)
        parameter = mi.Float(0)
        if finder.diffraction:
            parameter, _ = finder.place_on_edge(chain, at)
        gain, spread = mi.Float(1), dr.rcp(dr.norm(user - finder.lamp(chain)))
        for position in reversed(range(finder.depth)):
            slot = chain * finder.depth + position
            plane = finder.plane(slot)
            reflects = plane >= 0
            target = finder.aim_at(slot, parameter, mi.Bool(True))
            _, met, normal = finder.meets(plane, at, target, reflects)
            cosine = dr.abs(dr.dot(normal, dr.normalize(target - at)))
            kept = self._reflected(dr.gather(mi.UInt, self._material, plane, reflects), cosine, reflects)
            gain *= dr.select(reflects, kept, 1)
            if finder.diffraction:
                diffracts = finder.is_edge(slot)
                bent = self._diffracted(chain, target, at, user, diffracts)
                spread = dr.select(diffracts, bent, spread)
                at = dr.select(diffracts, target, at)
            at = dr.select(reflects, met, at)
        return gain * spread * self._departing(at) * self._wavelength / (4 * dr.pi)

    def _reflected(self, material: Numbers, cosine: Numbers, active: Numbers) -> Numbers:
        """Largest magnitude of a material's reflection coefficients."""
        cell = dr.minimum(mi.UInt(dr.clip(cosine, 0, 1) * CELLS), CELLS - 1)
        return dr.gather(mi.Float, self._reflectance, material * CELLS + cell, active)

    def _diffracted(
        self, chain: Numbers, place: Vectors, following: Vectors, user: Vectors, active: Numbers
    ) -> Numbers:
        """Largest magnitude of an edge's coefficient, times its spreading factor."""
        lit = dr.gather(mi.Vector3f, self._lit, chain, active)
        along, normal_0, normal_n = (dr.gather(mi.Vector3f, table, chain, active) for table in self._wedge)
        s_source, s = dr.norm(place - lit), self._finder.beyond_edge(chain, user)
        incident, outgoing = (place - lit) / s_source, dr.normalize(following - place)
        wavenumber = dr.two_pi / self._wavelength
        terms = wedge_terms(along, normal_0, normal_n, incident, outgoing, s, s_source, wavenumber)
        material = dr.gather(mi.UInt, self._sides, chain, active)
        kept = [
            self._reflected(material, dr.abs(terms.sine * dr.sin(grazing)), active)
            for grazing in (terms.grazing_0, terms.grazing_n)
        ]
        d1, d2, d3, d4 = terms.d
        coefficient = dr.abs(d1 + d2) + kept[0] * dr.abs(d4) + kept[1] * dr.abs(d3)
        return coefficient * dr.rsqrt(s * s_source * (s + s_source))

    def _departing(self, first: Vectors) -> Numbers:
        """Magnitude of the source's pattern towards points."""
        zero = dr.zeros(mi.UInt, dr.width(first))
        away = dr.normalize(first - dr.gather(mi.Vector3f, self._source, zero))
        local = mi.Vector3f(*(dr.dot(dr.gather(mi.Vector3f, self._turn, zero + axis), away) for axis in range(3)))
        theta, phi = rt.utils.theta_phi_from_unit_vec(local)
        c_theta, c_phi = self._pattern(theta, phi)
        return dr.sqrt(dr.squared_norm(c_theta) + dr.squared_norm(c_phi))


def reflectance(world: World, frequency: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Largest magnitudes of the reflection coefficients of a world's materials.

    Parameters
    ----------
    world : World
    frequency : float
        Hz.

    Returns
    -------
    int64 (F,)
        Material of each face.
    float64 (materials + 1, CELLS)
        For the cosine of the angle of incidence in equal steps from 0 to 1. The last one is 1.
    """
    if world.constants is None:
        return np.zeros(len(world.shape), np.int64), np.ones((1, CELLS))
    distinct, material = np.unique(world.constants, axis=0, return_inverse=True)
    cosine = np.linspace(0, 1, CELLS * POINTS + 1)
    constants = np.repeat(distinct, len(cosine), axis=0)
    eta = complex_relative_permittivity(
        load(mi.Float, constants[:, 0]), load(mi.Float, constants[:, 1]), dr.opaque(mi.Float, 2 * np.pi * frequency)
    )
    te, tm, _, _ = itu_coefficients_single_layer_slab(
        load(mi.Float, np.tile(cosine, len(distinct))),
        eta,
        dr.opaque(mi.Float, THICKNESS),
        dr.opaque(mi.Float, SPEED_OF_LIGHT / frequency),
    )
    larger = dr.maximum(dr.abs(te), dr.abs(tm)).numpy().astype(np.float64).reshape(len(distinct), -1)
    inside = larger[:, :-1].reshape(len(distinct), CELLS, POINTS).max(axis=2)
    table = np.minimum(1, np.maximum(inside, larger[:, POINTS::POINTS]))
    return material.reshape(-1), np.concatenate([table, np.ones((1, CELLS))])


def _one_material(
    material: NDArray[np.int64], group: NDArray[np.int32], groups: int, materials: int
) -> NDArray[np.int64]:
    """Material of the faces of each group; the last, perfect one where they differ."""
    least, most = np.full(groups, materials), np.full(groups, -1)
    np.minimum.at(least, group, material)
    np.maximum.at(most, group, material)
    return np.where(least == most, least, materials - 1)


class Queues:
    """`Queue` of every band: which pairs any of them wants to test next, each pair once.

    So nothing that matters in any band (carrier, pair of ports) is left out.

    Parameters
    ----------
    receiver : int64 (N,)
        Of each pair.
    power : float64 (N,) or (N, bands)
        Bounds.
    receivers, kept, tolerance
        As of `Queue`.
    """

    def __init__(
        self, receiver: NDArray[np.int64], power: NDArray[np.float64], receivers: int, kept: int, tolerance: float
    ) -> None:
        self._queues = [Queue(receiver, column, receivers, kept, tolerance) for column in _columns(power)]
        self._taken = np.zeros(len(receiver), bool)

    def take(self, receiver: NDArray[np.int64], power: NDArray[np.float64]) -> NDArray[np.int64]:
        """Positions of pairs to test, none when all is done; `receiver` (M,) and `power` (M,) or (M, bands) are those of
        the paths found so far, each once.
        """
        while True:
            columns = zip(self._queues, _columns(power), strict=True)
            wanted = np.concatenate([queue.take(receiver, column) for queue, column in columns])
            new = np.unique(wanted[~self._taken[wanted]])
            self._taken[new] = True
            if len(new) or not len(wanted):
                return new


def _columns(power: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Power (N,) in every band."""
    return [power] if power.ndim == 1 else list(power.T)


class Queue:
    """Which pairs to test next: for every receiver those with the largest bounds, until the rest cannot matter.

    Parameters
    ----------
    receiver : int64 (N,)
        Of each pair.
    power : float64 (N,)
        Bounds.
    receivers : int
    kept : int
        Strongest paths of a receiver that must not change.
    tolerance : float
        dB below the power found at which all that is left of a receiver may lie.
    """

    def __init__(
        self, receiver: NDArray[np.int64], power: NDArray[np.float64], receivers: int, kept: int, tolerance: float
    ) -> None:
        self._order = np.lexsort((-power, receiver))
        self._power = power[self._order]
        count = np.bincount(receiver, minlength=receivers)
        self._end = np.cumsum(count)
        self._next = self._end - count
        # What is left from each pair on.
        total = np.concatenate([np.cumsum(self._power[::-1])[::-1], [0.0]])
        self._rest = total[:-1] - np.repeat(total[self._end], count)
        self._kept, self._share = kept, 10 ** (-tolerance / 10)
        self._round = 2 * kept

    def take(self, receiver: NDArray[np.int64], power: NDArray[np.float64]) -> NDArray[np.int64]:
        """Positions of pairs to test, none when all is done.

        Parameters
        ----------
        receiver : int64 (M,)
            Of the paths found so far, each once.
        power : float64 (M,)
        """
        users = len(self._end)
        total = np.bincount(receiver, power, users)
        order = np.lexsort((-power, receiver))
        count = np.bincount(receiver, minlength=users)
        place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        weakest = np.zeros(users)
        last = place == self._kept - 1
        weakest[receiver[order][last]] = power[order][last]
        left = np.flatnonzero(self._next < self._end)
        at = self._next[left]
        left = left[(self._power[at] >= weakest[left]) | (self._rest[at] > self._share * total[left])]
        size = np.minimum(self._round, self._end[left] - self._next[left])
        self._round *= 2
        start = np.repeat(self._next[left] - np.cumsum(size) + size, size)
        self._next[left] += size
        return np.sort(self._order[start + np.arange(size.sum())])
