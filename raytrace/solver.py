"""The chain-first path solver: every path from one source to many receivers, each once.

1. Chains of surfaces are found once (`chains`).
2. They are paired with receivers; pairs that cannot be a path are dropped (`pairs`).
3. Sionna's image method validates the rest, in batches (`confirm`); with a `tolerance` those that may carry the most
   first, and no more than matter (`bounds`).
4. Duplicates are removed by geometry.
5. Vertices, lengths and angles are computed in float64 (`geometry`), coefficients by Sionna's field calculator.

The stock solver instead tests, for every ray and bounce, every receiver's visibility.
"""

from dataclasses import dataclass, fields, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.bounds import Queues
from wavecity.raytrace.chains import Chains, find_chains
from wavecity.raytrace.confirm import PairTest
from wavecity.raytrace.device import PathsBuffer, dr, load_rows, load_table, mi, rt
from wavecity.raytrace.elements import are_edges, element_types, element_wedges
from wavecity.raytrace.geometry import Unfolded, path_lengths, shortest_step, trace_back, unfold
from wavecity.raytrace.recording import recording
from wavecity.raytrace.rows import row_keys
from wavecity.raytrace.surfaces import Surfaces
from wavecity.raytrace.world import World

# Paths of one receiver with the same interactions whose vertices all agree within this are one path. Sionna's image
# method accepts a neighbouring face as the same mirror up to the same distance.
DUPLICATE_TOLERANCE = 0.01

# Vertices of a path nearer than this are one point to Sionna's fields, which are float32.
CONTACT = 1e-4

# Orientation (radians: azimuth, downtilt, slant) and pattern of the source's element.
Panel: TypeAlias = tuple[tuple[float, float, float], str]


@dataclass(frozen=True)
class Paths:
    """Paths from one source, by receiver, then in the order of their chains (N paths, D = `max_depth`, at least 1).

    Attributes
    ----------
    receiver : int64 (N,)
    types : uint8 (N, D)
        Sionna's `InteractionType` of each interaction, from the source on.
    vertices : float64 (N, D, 3)
        Metres; 0 past the end.
    faces : int32 (N, D)
        Mesh face of each interaction; -1 past the end.
    elements : int32 (N, D)
        Plane or edge that each path was found through (see `chains.Chains`); -1 past the end.
    length : float64 (N,)
        Metres.
    departure, arrival : float64 (N, 3)
        Unit vectors at the source and at the receiver, both away from it.
    coefficient : complex64 (N,) or (N, C)
        sqrt(power gain) between the two elements, without the carrier phase exp(-j 2 pi f delay); at each of C bands
        (carriers, pairs of ports) where the world has several.
    """

    receiver: NDArray[np.int64]
    types: NDArray[np.uint8]
    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    elements: NDArray[np.int32]
    length: NDArray[np.float64]
    departure: NDArray[np.float64]
    arrival: NDArray[np.float64]
    coefficient: NDArray[np.complex64]

    def __len__(self) -> int:
        return len(self.receiver)

    def select(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> "Paths":
        """The paths at these positions (or under this mask)."""
        return Paths(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def by_band(self) -> "list[Paths]":
        """The paths that each band has; all of them where there is one."""
        if self.coefficient.ndim == 1:
            return [self]
        return [replace(self, coefficient=column).select(column != 0) for column in self.coefficient.T]


@dataclass(frozen=True)
class ChainSolver:
    """LoS, specular reflection, refraction and first-order diffraction, chain-first.

    Parameters
    ----------
    max_depth : int
        Largest number of interactions.
    rays : int
        Rays shot to find chains.
    los, specular, diffraction, refraction : bool
    lit_region : bool
        Whether diffraction also counts where the source is visible.
    seed : int
        Only rays that leave edges are random.
    memory : int
        Working memory in MB, in addition to the scene, the result and the program itself. It sets the sizes of
        batches and changes no result.
    tolerance : float
        dB. With diffraction, and more than 0, pairs of a chain and a receiver are tested in the order of the power that
        they may carry at most, until all that is left of a receiver lies below its `max_paths`-th strongest path, and
        together this many dB below the power found. 0 tests all.
    max_paths : int
        Strongest paths of a receiver that `tolerance` leaves as they are.

    Examples
    --------
    >>> solver = ChainSolver(max_depth=3, rays=200_000)
    >>> paths = solver(build_world(scene.mesh, scene.size, radio), scene.bs_position, scene.users)
    >>> len(paths), paths.vertices.shape
    (1904, (1904, 3, 3))
    """

    max_depth: int = 3
    rays: int = 1_000_000
    los: bool = True
    specular: bool = True
    diffraction: bool = False
    refraction: bool = False
    lit_region: bool = True
    seed: int = 0
    memory: int = 512
    tolerance: float = 0.0
    max_paths: int = 32

    @recording
    def __call__(
        self,
        world: World,
        source: NDArray[np.float64],
        receivers: ArrayLike,
        orientation: tuple[float, float, float] = (0.0, 0.0, 0.0),
        pattern: str = "iso",
        chains: Chains | None = None,
    ) -> Paths:
        """Find all paths and their coefficients.

        Parameters
        ----------
        world : World
            With several bands all are traced at once: paths are found once, and the tolerance holds at each.
        source : float64 (3,)
            Metres.
        receivers : float (R, 3)
            Metres. Isotropic, with the polarisation of the world.
        orientation : tuple
            Of the source's element, radians (azimuth, downtilt, slant).
        pattern : str
            Sionna's name of the source's element pattern, with the polarisation of the world.
        chains : Chains, optional
            Of this world and source (see `chains`); found anew unless given.
        """
        source, receivers = np.asarray(source, np.float64), np.asarray(receivers, np.float64)
        chains = self.chains(world, source, receivers) if chains is None else chains
        # Reflections alone are so few that bounds would cost more than they save.
        if self.tolerance > 0 and self.diffraction and len(chains) and len(receivers):
            return self._strongest(world, source, receivers, (orientation, pattern), chains)
        paths = self.trace(world, source, receivers, chains)
        paths = self._with_fields(world, source, receivers, (orientation, pattern), paths)
        # Nothing arrives where an element pattern has a null. Of two edges in one place only one may carry a field, so
        # that duplicates are removed last.
        paths = paths.select(_carries(paths))
        return paths.select(unique_paths(world.surfaces, paths))

    @recording
    def chains(self, world: World, source: NDArray[np.float64], receivers: ArrayLike | None = None) -> Chains:
        """Chains of a source: they serve any number of calls, best those with receivers near the ones given here."""
        return find_chains(
            world,
            np.asarray(source, np.float64),
            self.max_depth,
            self.rays,
            self.specular,
            self.diffraction,
            self.refraction,
            self.seed,
            self.memory,
            None if receivers is None else np.asarray(receivers, np.float64),
        )

    @recording
    def trace(
        self, world: World, source: NDArray[np.float64], receivers: ArrayLike, chains: Chains | None = None
    ) -> Paths:
        """Find all paths, without their coefficients (0), some of them twice (see `unique_paths`).

        Parameters
        ----------
        world : World
        source : float64 (3,)
            Metres.
        receivers : float (R, 3)
            Metres.
        chains : Chains, optional
            Of this world and source; found anew unless given.
        """
        source, receivers = np.asarray(source, np.float64), np.asarray(receivers, np.float64)
        chains = self.chains(world, source, receivers) if chains is None else chains
        unfolded = unfold(world.surfaces, source, chains.elements, chains.swapped)
        test = self._pair_test(world, chains, unfolded, source, receivers)
        chain, receiver, faces = test.confirm_all()
        order = np.lexsort((chain, receiver))
        paths = _with_geometry(
            world.surfaces, source, receivers, chains, unfolded, chain[order], receiver[order], faces[order]
        )
        paths = paths.select(_has_steps(paths))
        return join([self._direct(world, source, receivers, paths.types.shape[1]), paths])

    def _pair_test(
        self,
        world: World,
        chains: Chains,
        unfolded: Unfolded,
        source: NDArray[np.float64],
        receivers: NDArray[np.float64],
    ) -> PairTest:
        kinds = self.diffraction, self.lit_region
        return PairTest(world, chains, unfolded, source, receivers, *kinds, self.memory)

    def _direct(self, world: World, source: NDArray[np.float64], receivers: NDArray[np.float64], depth: int) -> Paths:
        """Direct paths, if they are asked for."""
        seen = np.flatnonzero(line_of_sight(world, source, receivers)) if self.los else np.empty(0, np.int64)
        # A direct path without length, of a receiver at the source, has neither field nor direction.
        seen = seen[np.linalg.norm(receivers[seen] - source, axis=1) > CONTACT]
        return _direct_paths(source, receivers, seen, depth)

    def _with_fields(
        self, world: World, source: NDArray[np.float64], receivers: NDArray[np.float64], panel: Panel, paths: Paths
    ) -> Paths:
        """Paths with their coefficients."""
        if not len(paths):
            return replace(paths, coefficient=np.zeros((0, len(world.bands)), np.complex64)) if world.bands else paths
        if len(paths) == 1:  # for which kernels would be compiled anew
            return self._with_fields(world, source, receivers, panel, concatenate([paths, paths])).select(np.array([0]))
        buffer = path_buffer(world, paths, receivers, self.diffraction)
        ends = load_rows(mi.Point3f, source), load_table(mi.Point3f, receivers)
        each = [sionna.coefficients(one, buffer, *ends, *panel, self.diffraction) for one in world.each()]
        return replace(paths, coefficient=np.stack(each, axis=1) if world.bands else each[0])

    def _strongest(
        self,
        world: World,
        source: NDArray[np.float64],
        receivers: NDArray[np.float64],
        panel: Panel,
        chains: Chains,
    ) -> Paths:
        """Paths with their coefficients, without those that `tolerance` leaves out."""
        surfaces = world.surfaces
        unfolded = unfold(surfaces, source, chains.elements, chains.swapped)
        test = self._pair_test(world, chains, unfolded, source, receivers)
        direct = self._direct(world, source, receivers, chains.elements.shape[1])
        every = self._with_fields(world, source, receivers, panel, direct)
        place, kept = np.full(len(every), -1), np.arange(len(every))
        pairs = test.bounded(unfolded, source, *panel)
        queue = Queues(pairs.receiver, pairs.power, len(receivers), self.max_paths, self.tolerance)
        while len(tested := queue.take(every.receiver[kept], _power(every.coefficient[kept]))):
            found = test.confirm(*pairs.load(tested))
            new = _with_geometry(surfaces, source, receivers, chains, unfolded, *found)
            sound = _has_steps(new)
            new, chain = self._with_fields(world, source, receivers, panel, new.select(sound)), found[0][sound]
            carries = _carries(new)
            new, chain = new.select(carries), chain[carries]
            every, place = concatenate([every, new]), np.concatenate([place, chain])
            # Only receivers with new paths may have new duplicates.
            changed = np.zeros(len(receivers), bool)
            changed[new.receiver] = True
            again = np.flatnonzero(changed[every.receiver])
            again = again[np.lexsort((place[again], every.receiver[again]))]
            distinct = again[unique_paths(surfaces, every.select(again))]
            kept = np.concatenate([kept[~changed[every.receiver[kept]]], distinct])
        return every.select(kept[np.argsort(every.receiver[kept], kind="stable")])


def path_buffer(
    world: World,
    paths: Paths,
    receivers: NDArray[np.float64],
    diffraction: bool,
    source: NDArray[np.integer] | None = None,
) -> PathsBuffer:
    """Paths as Sionna's field calculator takes them.

    Parameters
    ----------
    world : World
    paths : Paths
    receivers : float64 (R, 3)
    diffraction : bool
    source : int (N,), optional
        Number of each path's source, by default 0.
    """
    surfaces = world.surfaces
    wedges = None
    if diffraction:
        # The illuminated face was stored as the one hit: the 0-face.
        swapped = _edge_is_swapped(surfaces, paths.elements, paths.faces)
        wedges = element_wedges(surfaces, paths.elements, swapped)
    # Sionna's distance from the edge to the receiver also counts the way to the vertex after a path's last one: put the
    # receiver there. (The stock solver has an image there, and with it wrong fields of paths such as diffraction, then
    # reflection, when they are shorter than its `max_depth`.)
    vertices = np.where(paths.types[..., None] != sionna.NONE, paths.vertices, receivers[paths.receiver, None])
    return sionna.make_buffer(world, paths.types, paths.faces, vertices, paths.receiver, source, wedges)


@recording
def line_of_sight(world: World, source: NDArray[np.float64], receivers: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether nothing stands between the source and each receiver.

    Parameters
    ----------
    world : World
    source : float64 (3,)
    receivers : float (R, 3)

    Returns
    -------
    bool (R,)
    """
    if not len(receivers):
        return np.zeros(0, bool)
    targets = load_rows(mi.Point3f, receivers)
    origins = dr.gather(mi.Point3f, load_rows(mi.Point3f, source), dr.zeros(mi.UInt, len(receivers)))
    clear: NDArray[np.bool_] = ~world.scene.mi_scene.ray_test(rt.utils.spawn_ray_to(origins, targets)).numpy()
    return clear


def unique_paths(surfaces: Surfaces, paths: Paths) -> NDArray[np.int64]:
    """Positions of the paths that remain without duplicates.

    There is one path for a sequence of mirrors and edges. But the image method also accepts a face for the mirror of a
    chain when it is nearly on its plane, as the fronts of a row of houses are, and so finds one path through several
    chains. Duplicates are paths that met the same planes and edges, or whose vertices agree. Kept is the one that met
    its own chain's planes; then the one of the earlier chain.
    """
    count = len(paths)
    if not count:
        return np.empty(0, np.int64)
    met, reflects = paths.elements.copy(), paths.types == sionna.SPECULAR
    met[reflects] = surfaces.plane_of_face[paths.faces[reflects]]
    astray = (met != paths.elements).any(axis=1)
    better = np.argsort(astray, kind="stable")
    _, first = np.unique(row_keys(np.column_stack([paths.receiver, met]))[better], return_index=True)
    kept = np.sort(better[first])

    rank = np.argsort(np.argsort(kept + count * astray[kept]))
    kind = (paths.types[kept].astype(np.int64) * (sionna.DIFFRACTION + 1) ** np.arange(paths.types.shape[1])).sum(
        axis=1
    )
    order = np.lexsort((paths.length[kept], kind, paths.receiver[kept]))
    at, kind, rank = kept[order], kind[order], rank[order]
    receiver, length, vertices = paths.receiver[at], paths.length[at], paths.vertices[at]
    dropped = np.zeros(len(order), bool)
    # Lengths of duplicates differ by no more than their vertices can make them.
    reach = 2 * DUPLICATE_TOLERANCE * paths.types.shape[1]
    for lag in range(1, len(order)):
        near = (receiver[lag:] == receiver[:-lag]) & (kind[lag:] == kind[:-lag])
        near &= length[lag:] - length[:-lag] < reach
        if not near.any():
            break
        first_of_pair = np.flatnonzero(near)
        second_of_pair = first_of_pair + lag
        same = (
            np.linalg.norm(vertices[first_of_pair] - vertices[second_of_pair], axis=2).max(axis=1) < DUPLICATE_TOLERANCE
        )
        first_of_pair, second_of_pair = first_of_pair[same], second_of_pair[same]
        dropped[np.where(rank[first_of_pair] > rank[second_of_pair], first_of_pair, second_of_pair)] = True
    return np.sort(at[~dropped])


def _power(coefficient: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Power gain of paths."""
    power: NDArray[np.float64] = np.abs(coefficient.astype(np.complex128)) ** 2
    return power


def _carries(paths: Paths) -> NDArray[np.bool_]:
    """Which paths have a field, in any band."""
    there: NDArray[np.bool_] = paths.coefficient != 0
    return there if there.ndim == 1 else np.asarray(there.any(axis=1))


def _has_steps(paths: Paths) -> NDArray[np.bool_]:
    """Where an edge stands on a wall, a path could meet both in one point: of a step without length fields are NaN."""
    steps: NDArray[np.bool_] = shortest_step(paths.vertices, paths.types != sionna.NONE) > CONTACT
    return steps


def _with_geometry(
    surfaces: Surfaces,
    source: NDArray[np.float64],
    receivers: NDArray[np.float64],
    chains: Chains,
    unfolded: Unfolded,
    chain: NDArray[np.int64],
    receiver: NDArray[np.int64],
    faces: NDArray[np.int32],
) -> Paths:
    """Paths of (chain, receiver) pairs, with vertices, lengths and directions."""
    elements = chains.elements[chain]
    types = element_types(surfaces, elements)
    vertices = trace_back(surfaces, unfolded, chain, receivers[receiver], faces)
    length, departure, arrival = path_lengths(source, vertices, elements >= 0, receivers[receiver])
    nothing = np.zeros(len(chain), np.complex64)
    return Paths(
        receiver, types, vertices, np.where(elements >= 0, faces, -1), elements, length, departure, arrival, nothing
    )


def _direct_paths(
    source: NDArray[np.float64], receivers: NDArray[np.float64], seen: NDArray[np.int64], depth: int
) -> Paths:
    """Direct paths to the receivers that see the source."""
    count = len(seen)
    vertices, none = np.zeros((count, depth, 3)), np.full((count, depth), -1, np.int32)
    length, departure, arrival = path_lengths(source, vertices, np.zeros((count, depth), bool), receivers[seen])
    types = np.zeros((count, depth), np.uint8)
    return Paths(seen, types, vertices, none, none, length, departure, arrival, np.zeros(count, np.complex64))


def concatenate(parts: list[Paths]) -> Paths:
    """All paths, part after part."""
    return Paths(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Paths)}
    )


def join(parts: list[Paths]) -> Paths:
    """All paths, by receiver; those of a receiver in the order of the parts."""
    joined = concatenate(parts)
    return joined.select(np.argsort(joined.receiver, kind="stable"))


def _edge_is_swapped(surfaces: Surfaces, elements: NDArray[np.int32], faces: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether a path's diffracting face is its edge's n-face."""
    swapped = np.zeros(len(elements), bool)
    row, position = np.nonzero(are_edges(surfaces, elements))
    swapped[row] = surfaces.edge_faces[elements[row, position] - surfaces.planes, 0] != faces[row, position]
    return swapped
