"""Sionna's own `PathSolver` on a `World`, and how its paths compare with ours: for the benchmark and the tests.

Paths are compared by the mirrors they met. The stock solver finds a path again through every face that is nearly on the
plane of its mirror, as the fronts of a row of houses are, with vertices centimetres apart; by their vertices these
would be different paths.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.device import Numbers, SionnaPaths, dr, rt
from wavecity.raytrace.recording import recording
from wavecity.raytrace.solver import DUPLICATE_TOLERANCE, Paths
from wavecity.raytrace.world import World

# Columns of the stock solver's paths, one row per path: see `stock_table`.
Table: TypeAlias = dict[str, NDArray[Any]]

# Metres. Points of one edge closer than this are one point: a wall that is nearly on the plane of a mirror moves the
# point where the wave meets an edge before it by centimetres.
EDGE_TOLERANCE = 0.1

# Metres of a vertex from the line of its edge, where there is one, and beyond its end.
AT_EDGE = 0.02
BEYOND_END = 2e-3

# Amplitude below which a path (-220 dB) is the rounding of float32 fields: either solver may have exactly nothing
# there.
FAINTEST = 1e-11

# In `met`: nothing past the end of a path, an edge (the vertex shows which one), and a face that is passed through.
NOTHING, EDGE, THROUGH = -1, -2, -3


@dataclass(frozen=True)
class Comparison:
    """How the paths of the two solvers between the same points differ.

    Attributes
    ----------
    ours, stock : int
        Paths found by each, the stock solver's without its own duplicates.
    missing : int
        Of `stock`, those that ours lacks.
    no_edge : int
        Of `stock`, those that ours lacks because they diffract where buildings touch and the outer surface of all of
        them has no edge; not in `missing`.
    duplicates, stock_duplicates : int
        Paths that each solver found more than once.
    difference : float64 (U,)
        Of the users with paths that both found: |10 log10(energy ours / energy stock)| of these paths in dB.
    extra : float64 (U,)
        Of the same users: by how many dB the paths that only ours found raise the energy.
    users_only_ours : int
        Users that no common path reaches, but paths of ours do.
    """

    ours: int
    stock: int
    missing: int
    no_edge: int
    duplicates: int
    stock_duplicates: int
    difference: NDArray[np.float64]
    extra: NDArray[np.float64]
    users_only_ours: int


def place_link(
    world: World,
    source: NDArray[np.floating],
    users: NDArray[np.floating],
    orientation: tuple[float, ...] = (0.0, 0.0, 0.0),
    pattern: str = "iso",
    rows: int = 1,
    columns: int = 1,
) -> None:
    """Put one transmitter, and one receiver per user, into the Sionna scene in place of its own.

    Parameters
    ----------
    world : World
    source : float (3,)
        Metres.
    users : float (U, 3)
        Metres. Isotropic, vertically polarised.
    orientation : tuple
        Of the source's panel, radians (azimuth, downtilt, slant).
    pattern : str
        Sionna's name of its element pattern; vertical polarisation.
    rows, columns : int
        Of its panel.
    """
    scene = world.scene
    scene.tx_array = rt.PlanarArray(num_rows=rows, num_cols=columns, pattern=pattern, polarization="V")
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    for name in [*scene.transmitters, *scene.receivers]:
        scene.remove(name)
    scene.add(rt.Transmitter("bs", [float(x) for x in source], orientation=[float(angle) for angle in orientation]))
    for number, user in enumerate(users):
        scene.add(rt.Receiver(f"user-{number}", [float(x) for x in user]))


@recording
def trace_link(world: World, corrected: bool = True, deterministic: bool = False, **options: Any) -> SionnaPaths:
    """Run `PathSolver` on the placed link, until coefficients and delays are computed.

    Parameters
    ----------
    world : World
        After `place_link`.
    corrected : bool
        With the diffraction coefficient of `utd` instead of its own.
    deterministic : bool
        Of `PathSolver`: no path is lost to collisions of its hash table, for much more memory.
    options
        Arguments of `PathSolver`; by default depth 3, 100,000 samples, no refraction.

    Returns
    -------
    sionna.rt.Paths
    """
    settings = {"max_depth": 3, "samples_per_src": 100_000, "refraction": False, "seed": 1} | options
    with sionna.right_diffraction() if corrected and settings.get("diffraction") else nullcontext():
        paths = sionna.PathSolver(deterministic)(world.scene, **settings)
        dr.eval(paths.a, paths.tau)
    dr.sync_thread()
    return paths


def stock_table(paths: SionnaPaths, world: World) -> Table:
    """The valid paths of Sionna's `Paths` from one transmitter, one row each (N paths, D = `max_depth`, A antennas).

    Those fainter than `FAINTEST` are left out.

    Returns
    -------
    dict
        receiver (N,), types (N, D), met (N, D) as of `planes_met`; vertices (N, D, 3) in m, 0 past the end; length (N,)
        in m; coefficient complex (N, A) without the carrier phase; angles (N, 4): zenith and azimuth of departure, then
        of arrival, radians.
    """
    coefficients = (paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0]  # receiver, antenna, path
    row = np.nonzero(paths.valid.numpy()[:, 0] & (np.abs(coefficients).max(axis=1) > FAINTEST))

    def per_bounce(values: Numbers) -> NDArray[Any]:
        selected: NDArray[Any] = np.moveaxis(values.numpy()[:, :, 0], 0, 2)[row]
        return selected

    types, shapes = per_bounce(paths.interactions), per_bounce(paths.objects)
    faces = world.faces(np.where(types != sionna.NONE, shapes, rt.INVALID_SHAPE), per_bounce(paths.primitives))
    angles = (paths.theta_t, paths.phi_t, paths.theta_r, paths.phi_r)
    return {
        "receiver": row[0],
        "types": types,
        "met": planes_met(world, types, faces),
        "vertices": per_bounce(paths.vertices) * (types > 0)[..., None],
        "length": paths.tau.numpy()[:, 0][row].astype(np.float64) * SPEED_OF_LIGHT,
        "coefficient": np.moveaxis(coefficients, -1, 1)[row],
        "angles": np.stack([angle.numpy()[:, 0][row] for angle in angles], axis=1),
    }


def planes_met(world: World, types: NDArray[np.integer], faces: NDArray[np.integer]) -> NDArray[np.int64]:
    """The plane of every reflection, else `NOTHING`, `EDGE` or `THROUGH`; all (N, D)."""
    met = np.full(types.shape, NOTHING, np.int64)
    reflects = types == sionna.SPECULAR
    met[reflects] = world.surfaces.plane_of_face[faces[reflects]]
    met[types == sionna.DIFFRACTION] = EDGE
    met[types == rt.InteractionType.REFRACTION] = THROUGH
    return met


def partners(theirs: Table, ours: Paths, world: World) -> NDArray[np.int64]:
    """For each stock path ours that met the same planes in the same order (and the same point of an edge), or -1.

    Parameters
    ----------
    theirs : dict
        From `stock_table` (N rows).
    ours : Paths
        Of the same world and users.
    world : World

    Returns
    -------
    int64 (N,)
        Positions in `ours`; of several the one whose vertices are nearest.
    """
    met = planes_met(world, ours.types, ours.faces)
    _, name = np.unique(
        np.concatenate([_key(theirs["receiver"], theirs["met"]), _key(ours.receiver, met)]), axis=0, return_inverse=True
    )
    theirs_name, ours_name = np.split(name.reshape(-1), [len(theirs["receiver"])])
    row, candidate = _equal_pairs(theirs_name, ours_name)
    gap = np.linalg.norm(theirs["vertices"][row] - ours.vertices[candidate], axis=2)
    near = _at_edge(gap, ours.types[candidate]) < EDGE_TOLERANCE
    row, candidate, gap = row[near], candidate[near], gap[near].max(axis=1, initial=0.0)
    order = np.lexsort((candidate, gap, row))
    found, first = np.unique(row[order], return_index=True)
    result = np.full(len(theirs_name), -1)
    result[found] = candidate[order][first]
    return result


def stock_repeats(theirs: Table) -> NDArray[np.bool_]:
    """Whether a stock path is one that an earlier row has already: the same mirrors, and the same point of an edge."""
    _, name = np.unique(_key(theirs["receiver"], theirs["met"]), axis=0, return_inverse=True)
    name = name.reshape(-1)
    first_of_pair, second_of_pair = _equal_pairs(name, name)
    first_of_pair, second_of_pair = (
        first_of_pair[first_of_pair < second_of_pair],
        second_of_pair[first_of_pair < second_of_pair],
    )
    gap = np.linalg.norm(theirs["vertices"][first_of_pair] - theirs["vertices"][second_of_pair], axis=2)
    repeated = np.zeros(len(name), bool)
    repeated[second_of_pair[_at_edge(gap, theirs["types"][second_of_pair]) < EDGE_TOLERANCE]] = True
    return repeated


def at_no_edge(theirs: Table, world: World) -> NDArray[np.bool_]:
    """Whether stock paths diffract where the outer surface of all buildings has no edge; see `touching`.

    Parameters
    ----------
    theirs : dict
        From `stock_table` (N rows).
    world : World

    Returns
    -------
    bool (N,)
    """
    surfaces = world.surfaces
    gap = np.zeros(len(theirs["types"]))
    row, position = np.nonzero(theirs["types"] == sionna.DIFFRACTION)
    for number, point in zip(row, theirs["vertices"][row, position], strict=True):
        away = point - surfaces.edge_origin
        along = (away * surfaces.edge_direction).sum(axis=1)
        beyond = np.maximum(-along, along - surfaces.edge_length)
        aside = np.linalg.norm(away - along[:, None] * surfaces.edge_direction, axis=1)
        gap[number] = aside[beyond < BEYOND_END].min(initial=np.inf)
    stray: NDArray[np.bool_] = gap > AT_EDGE
    return stray


def count_repeats(ours: Paths, world: World) -> int:
    """Paths of ours that occur twice: the same planes and edges, or all vertices within `DUPLICATE_TOLERANCE`.

    Computed independently of `solver.unique_paths`, which it checks.
    """
    if not len(ours):
        return 0
    met = planes_met(world, ours.types, ours.faces)
    # Edges are known by number here, and numbers of edges follow those of planes.
    met = np.where(met == EDGE, ours.elements, met)
    _, first = np.unique(_key(ours.receiver, met), axis=0, return_index=True)
    repeated = np.ones(len(ours), bool)
    repeated[first] = False
    _, kind = np.unique(_key(ours.receiver, ours.types), axis=0, return_inverse=True)
    # Paths of another user or with other interactions are far off in one more dimension.
    place = np.column_stack([kind.reshape(-1), ours.vertices.reshape(len(ours), -1)])
    pairs = cKDTree(place).query_pairs(DUPLICATE_TOLERANCE, p=np.inf, output_type="ndarray")
    gap = np.linalg.norm(ours.vertices[pairs[:, 0]] - ours.vertices[pairs[:, 1]], axis=2)
    repeated[pairs[(gap < DUPLICATE_TOLERANCE).all(axis=1), 1]] = True
    return int(repeated.sum())


def compare(theirs: Table, ours: Paths, world: World, users: int) -> Comparison:
    """Compare paths and energy of both solvers.

    Parameters
    ----------
    theirs : dict
        From `stock_table`, one antenna.
    ours : Paths
        Of the same world, source and users.
    world : World
    users : int
    """
    own = ~stock_repeats(theirs)
    distinct = {name: column[own] for name, column in theirs.items()}
    partner = partners(distinct, ours, world)
    both = partner >= 0
    lost = np.flatnonzero(~both)
    no_edge = int(at_no_edge({name: column[lost] for name, column in distinct.items()}, world).sum())

    def energy(receiver: NDArray[np.int64], coefficient: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        return np.bincount(receiver, np.abs(coefficient.astype(np.complex128)) ** 2, users).astype(np.float64)

    stock = energy(distinct["receiver"][both], distinct["coefficient"][both, 0])
    common = energy(ours.receiver[partner[both]], ours.coefficient[partner[both]])
    total = energy(ours.receiver, ours.coefficient)
    served = stock > 0
    return Comparison(
        ours=len(ours),
        stock=len(partner),
        missing=len(lost) - no_edge,
        no_edge=no_edge,
        duplicates=count_repeats(ours, world),
        stock_duplicates=int((~own).sum()),
        difference=np.abs(10 * np.log10(common[served] / stock[served])),
        extra=10 * np.log10(total[served] / common[served]),
        users_only_ours=int(((total > 0) & ~served).sum()),
    )


def _key(receiver: NDArray[np.integer], met: NDArray[np.integer]) -> NDArray[np.int64]:
    """One row per path: its receiver, and what it met."""
    return np.column_stack([receiver, met]).astype(np.int64)


def _at_edge(gap: NDArray[np.float64], types: NDArray[np.integer]) -> NDArray[np.float64]:
    """The gap between two paths' vertices at their edge, 0 without one; (N, D) -> (N,)."""
    at_edge: NDArray[np.float64] = np.where(types == sionna.DIFFRACTION, gap, 0.0).max(axis=1, initial=0.0)
    return at_edge


def _equal_pairs(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All (i, j) with left[i] == right[j], by i; without the table of all pairs."""
    order = np.argsort(right, kind="stable")
    begin = np.searchsorted(right[order], left)
    count = np.searchsorted(right[order], left, side="right") - begin
    i = np.repeat(np.arange(len(left)), count)
    within = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, order[np.repeat(begin, count) + within]
