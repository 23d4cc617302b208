"""The chain-first path solver: every path from one source to many receivers, each once.

1. Chains of surfaces are found once (`chains`).
2. They are paired with receivers; pairs that cannot be a path are dropped (`pairs`).
3. Sionna's image method validates the rest, in batches (`sionna_private`).
4. Duplicates are removed by geometry.
5. Vertices, lengths and angles are computed in float64 (`geometry`), coefficients by Sionna's field calculator.

The stock solver instead tests, for every ray and bounce, every receiver's visibility.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace import sionna_private as sionna
from raytrace.chains import Chains, find_chains
from raytrace.device import dr, load_rows, mi, rt
from raytrace.geometry import Unfolded, oriented_edges, path_lengths, trace_back, unfold
from raytrace.pairs import PairFinder
from raytrace.surfaces import Surfaces
from raytrace.world import World

# Paths of one receiver with the same interactions whose vertices all agree within this are one path. Sionna's image
# method accepts a neighbouring face as the same mirror up to the same distance.
DUPLICATE_TOLERANCE = 0.01

# (chain, receiver) pairs tested at once, and pairs given to the image method at once (some 250 bytes each at depth 3).
PAIR_BATCH = 8_000_000
IMAGE_BATCH = 400_000


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
    coefficient : complex64 (N,)
        sqrt(power gain) between the two elements, without the carrier phase exp(-j 2 pi f delay).
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

    def select(self, index: NDArray[Any]) -> "Paths":
        """The paths at these positions (or under this mask)."""
        return Paths(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class ChainSolver:
    """LoS, specular reflection and first-order diffraction, chain-first.

    Parameters
    ----------
    max_depth : int
        Largest number of interactions.
    rays : int
        Rays shot to find chains.
    los, specular, diffraction : bool
    seed : int
        Only rays that leave edges are random.
    """

    max_depth: int = 3
    rays: int = 1_000_000
    los: bool = True
    specular: bool = True
    diffraction: bool = False
    seed: int = 0

    def __call__(
        self,
        world: World,
        source: NDArray[np.float64],
        receivers: NDArray[Any],
        orientation: tuple[float, float, float] = (0.0, 0.0, 0.0),
        pattern: str = "iso",
    ) -> Paths:
        """Find all paths and their coefficients.

        Parameters
        ----------
        world : World
        source : float64 (3,)
            Metres.
        receivers : float (R, 3)
            Metres. Isotropic, vertically polarised.
        orientation : tuple
            Of the source's element, radians (azimuth, downtilt, slant).
        pattern : str
            Sionna's name of the source's element pattern; vertical polarisation.
        """
        source, receivers = np.asarray(source, np.float64), np.asarray(receivers, np.float64)
        at_source, at_receivers = load_rows(mi.Point3f, source), load_rows(mi.Point3f, receivers)
        chains = find_chains(world, source, self.max_depth, self.rays, self.specular, self.diffraction, self.seed)
        unfolded = unfold(world.surfaces, source, chains.elements, chains.swapped)
        chain, receiver, faces = self._valid_pairs(world, chains, unfolded, receivers, at_source, at_receivers)
        paths = _with_geometry(world.surfaces, source, receivers, chains, unfolded, chain, receiver, faces)
        paths = paths.select(unique_paths(world.surfaces, paths))
        if self.los:
            seen = np.flatnonzero(line_of_sight(world, source, receivers))
            paths = _join(_direct_paths(source, receivers, seen, paths.types.shape[1]), paths)
        if not len(paths):
            return paths
        coefficient = self._coefficients(world, receivers, paths, at_source, at_receivers, orientation, pattern)
        # Nothing arrives where an element pattern has a null.
        return replace(paths, coefficient=coefficient).select(coefficient != 0)

    def _valid_pairs(
        self,
        world: World,
        chains: Chains,
        unfolded: Unfolded,
        receivers: NDArray[np.float64],
        at_source: Any,
        at_receivers: Any,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
        """Pairs that Sionna's image method confirms, sorted by receiver and chain; and the faces they meet."""
        depth = chains.elements.shape[1]
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, depth), np.int32))]
        if len(chains) and len(receivers):
            finder = PairFinder(world.surfaces, unfolded, receivers, self.diffraction)
            buffer = self._chain_buffer(world, chains)
            step = max(1, PAIR_BATCH // len(receivers))
            for first in range(0, len(chains), step):
                chain, receiver = finder.find(first, min(first + step, len(chains)))
                for low in range(0, dr.width(chain), IMAGE_BATCH):
                    part = dr.arange(mi.UInt, min(IMAGE_BATCH, dr.width(chain) - low)) + dr.opaque(mi.UInt, low)
                    batch = dr.gather(mi.UInt, chain, part), dr.gather(mi.UInt, receiver, part)
                    found.append(sionna.validate(world, buffer, *batch, at_source, at_receivers, self.diffraction))
        chain, receiver, faces = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((chain, receiver))
        return chain[order], receiver[order], faces[order]

    def _chain_buffer(self, world: World, chains: Chains) -> Any:
        """One entry a chain for the image method: types, a face and a point of each plane, the wedge."""
        surfaces = world.surfaces
        types = _types(surfaces, chains.elements)
        faces = _faces(surfaces, chains.elements, chains.swapped)
        points = surfaces.vertices[surfaces.faces[faces, 0]]
        wedges = _wedges(surfaces, chains.elements, chains.swapped) if self.diffraction else None
        return sionna.make_buffer(world, types, faces, points, wedges=wedges)

    def _coefficients(
        self,
        world: World,
        receivers: NDArray[np.float64],
        paths: Paths,
        at_source: Any,
        at_receivers: Any,
        orientation: tuple[float, float, float],
        pattern: str,
    ) -> NDArray[np.complex64]:
        surfaces = world.surfaces
        wedges = None
        if self.diffraction:
            # The illuminated face was stored as the one hit: the 0-face.
            swapped = _edge_is_swapped(surfaces, paths.elements, paths.faces)
            wedges = _wedges(surfaces, paths.elements, swapped)
        # Sionna's distance from the edge to the receiver also counts the way to the vertex after a path's last one: put
        # the receiver there. (The stock solver has an image there, and with it wrong fields of paths such as
        # diffraction, then reflection, when they are shorter than its `max_depth`.)
        vertices = np.where(paths.types[..., None] != sionna.NONE, paths.vertices, receivers[paths.receiver, None])
        buffer = sionna.make_buffer(world, paths.types, paths.faces, vertices, paths.receiver, wedges)
        return sionna.coefficients(world, buffer, at_source, at_receivers, orientation, pattern, self.diffraction)


def line_of_sight(world: World, source: NDArray[np.float64], receivers: NDArray[Any]) -> NDArray[np.bool_]:
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
    return ~world.scene.mi_scene.ray_test(rt.utils.spawn_ray_to(origins, targets)).numpy()


def unique_paths(surfaces: Surfaces, paths: Paths) -> NDArray[np.int64]:
    """Positions of the paths that remain when each duplicate is dropped.

    There is one path for a sequence of mirrors and edges. But the image method also accepts a face for the mirror of a
    chain when it is nearly on its plane, as the fronts of a row of houses are, and so finds one path through several
    chains. Duplicates are paths that met the same planes and edges, or whose vertices agree. Kept is the one that met
    its own chain's planes; then the one of the earlier chain.
    """
    count = len(paths)
    if not count:
        return np.empty(0, np.int64)
    met = np.where(paths.types == sionna.SPECULAR, surfaces.plane_of_face[paths.faces], paths.elements)
    astray = (met != paths.elements).any(axis=1)
    better = np.argsort(astray, kind="stable")
    _, first = np.unique(np.column_stack([paths.receiver, met])[better], axis=0, return_index=True)
    kept = np.sort(better[first])

    paths, rank = paths.select(kept), np.argsort(np.argsort(kept + count * astray[kept]))
    kind = (paths.types.astype(np.int64) * (sionna.DIFFRACTION + 1) ** np.arange(paths.types.shape[1])).sum(axis=1)
    order = np.lexsort((paths.length, kind, paths.receiver))
    receiver, kind, length = paths.receiver[order], kind[order], paths.length[order]
    vertices, rank = paths.vertices[order], rank[order]
    dropped = np.zeros(len(order), bool)
    # Lengths of duplicates differ by no more than their vertices can make them.
    reach = 2 * DUPLICATE_TOLERANCE * paths.types.shape[1]
    for lag in range(1, len(order)):
        near = (receiver[lag:] == receiver[:-lag]) & (kind[lag:] == kind[:-lag])
        near &= length[lag:] - length[:-lag] < reach
        if not near.any():
            break
        one = np.flatnonzero(near)
        two = one + lag
        same = np.linalg.norm(vertices[one] - vertices[two], axis=2).max(axis=1) < DUPLICATE_TOLERANCE
        one, two = one[same], two[same]
        dropped[np.where(rank[one] > rank[two], one, two)] = True
    return np.sort(kept[order[~dropped]])


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
    elements = chains.elements[chain]
    types = _types(surfaces, elements)
    vertices = trace_back(surfaces, unfolded, chain, receivers[receiver])
    length, departure, arrival = path_lengths(source, vertices, elements >= 0, receivers[receiver])
    nothing = np.zeros(len(chain), np.complex64)
    return Paths(
        receiver, types, vertices, np.where(elements >= 0, faces, -1), elements, length, departure, arrival, nothing
    )


def _direct_paths(
    source: NDArray[np.float64], receivers: NDArray[np.float64], seen: NDArray[np.int64], depth: int
) -> Paths:
    count = len(seen)
    vertices, none = np.zeros((count, depth, 3)), np.full((count, depth), -1, np.int32)
    length, departure, arrival = path_lengths(source, vertices, np.zeros((count, depth), bool), receivers[seen])
    types = np.zeros((count, depth), np.uint8)
    return Paths(seen, types, vertices, none, none, length, departure, arrival, np.zeros(count, np.complex64))


def _join(first: Paths, second: Paths) -> Paths:
    """All paths, by receiver; those of `first` before those of `second`."""
    parts = (
        (field.name, np.concatenate([getattr(first, field.name), getattr(second, field.name)]))
        for field in fields(Paths)
    )
    joined = Paths(**dict(parts))
    return joined.select(np.argsort(joined.receiver, kind="stable"))


def _types(surfaces: Surfaces, elements: NDArray[np.int32]) -> NDArray[np.uint8]:
    kind = np.where(elements >= surfaces.planes, sionna.DIFFRACTION, sionna.SPECULAR)
    return np.where(elements >= 0, kind, sionna.NONE).astype(np.uint8)


def _faces(surfaces: Surfaces, elements: NDArray[np.int32], swapped: NDArray[np.bool_]) -> NDArray[np.int32]:
    """A face of each element: the plane's largest, the edge's illuminated one (any where there is no element)."""
    is_edge = elements >= surfaces.planes
    plane_face = surfaces.plane_face[np.where(is_edge | (elements < 0), 0, elements)]
    if not surfaces.edges:
        return plane_face
    sides = surfaces.edge_faces[np.where(is_edge, elements - surfaces.planes, 0)]
    lit = np.where(swapped[:, None], sides[..., 1], sides[..., 0])
    return np.where(is_edge, lit, plane_face).astype(np.int32)


def _wedges(surfaces: Surfaces, elements: NDArray[np.int32], swapped: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """Wedge geometry of each row as Sionna has it, the 0-face the illuminated one; zeros without an edge."""
    count = len(elements)
    wedge: dict[str, NDArray[Any]] = {
        "origin": np.zeros((count, 3)),
        "along": np.zeros((count, 3)),
        "length": np.zeros(count),
        "normals": np.zeros((count, 2, 3)),
        "faces": np.zeros((count, 2), np.int32),
    }
    row, position = np.nonzero(elements >= surfaces.planes)
    edge = elements[row, position] - surfaces.planes
    wedge["origin"][row], wedge["along"][row], wedge["normals"][row] = oriented_edges(surfaces, edge, swapped[row])
    wedge["length"][row] = surfaces.edge_length[edge]
    sides = surfaces.edge_faces[edge]
    wedge["faces"][row] = np.where(swapped[row, None], sides[:, ::-1], sides)
    return wedge


def _edge_is_swapped(surfaces: Surfaces, elements: NDArray[np.int32], faces: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether a path's diffracting face is its edge's n-face."""
    swapped = np.zeros(len(elements), bool)
    row, position = np.nonzero(elements >= surfaces.planes)
    swapped[row] = surfaces.edge_faces[elements[row, position] - surfaces.planes, 0] != faces[row, position]
    return swapped
