"""All use of private parts of Sionna RT: path buffers, image method and field calculator, without radio devices.

`PathsBuffer`, `ImageMethod` and `FieldCalculator` are not public and may change in any release. Tested with sionna-rt
2.2.0; another series than 2.2 is refused by `check_version`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from typing import TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from wavecity.geo.errors import InputError
from wavecity.raytrace.device import MitsubaScene, Numbers, SionnaScene, Vectors, dr, load, load_rows, mi, rt
from wavecity.raytrace.recording import recording
from wavecity.raytrace.utd import diffraction_matrix
from wavecity.raytrace.world import World

TESTED_SERIES = "2.2."

# Releases whose diffraction coefficient is wrong (`utd` says how); no release of the series is known to have it right.
WRONG_DIFFRACTION = ("2.2.0",)


def check_version(installed: str) -> None:
    """Refuse a Sionna RT whose private parts are not known.

    Raises
    ------
    InputError
    """
    if not installed.startswith(TESTED_SERIES):
        msg = (
            f"sionna-rt {installed} is installed, but the ray tracer uses private parts of {TESTED_SERIES}x: "
            f"pip install 'sionna-rt=={TESTED_SERIES}*'"
        )
        raise InputError(msg)


check_version(version("sionna-rt"))


@contextmanager
def right_diffraction(installed: str = version("sionna-rt")) -> Iterator[None]:
    """Compute diffraction by `utd.diffraction_matrix` within the block, also in Sionna's own solver.

    Raises
    ------
    InputError
        Of this release nobody has checked whether its coefficient is right.
    """
    if installed not in WRONG_DIFFRACTION:
        msg = (
            f"sionna-rt {installed}: its diffraction coefficient has not been checked, only that of "
            f"{', '.join(WRONG_DIFFRACTION)} is known; install that one, or set solver.diffraction=false"
        )
        raise InputError(msg)
    theirs = rt.RadioMaterial._diffraction_matrix
    rt.RadioMaterial._diffraction_matrix = diffraction_matrix
    try:
        yield
    finally:
        rt.RadioMaterial._diffraction_matrix = theirs


from sionna.rt.path_solvers.field_calculator import FieldCalculator  # noqa: E402
from sionna.rt.path_solvers.image_method import ImageMethod  # noqa: E402
from sionna.rt.path_solvers.paths_buffer import PathsBuffer  # noqa: E402
from sionna.rt.utils import WedgeGeometry  # noqa: E402

# Where it is defined: `sionna.rt.PathSolver` may have been replaced by `ChainPathSolver`.
PathSolver = rt.path_solvers.path_solver.PathSolver

NONE = rt.InteractionType.NONE
SPECULAR = rt.InteractionType.SPECULAR
REFRACTION = rt.InteractionType.REFRACTION
DIFFUSE = rt.InteractionType.DIFFUSE
DIFFRACTION = rt.InteractionType.DIFFRACTION

# An element pattern, as in `AntennaArray.antenna_pattern.patterns`.
Pattern: TypeAlias = Callable[..., object]


class WedgeRows(TypedDict):
    """The wedge of each chain or path (N), zeros without one: edge, normals and faces (0-face, n-face) at it."""

    origin: NDArray[np.float64]
    along: NDArray[np.float64]
    length: NDArray[np.float64]
    normals: NDArray[np.float64]
    faces: NDArray[np.int32]


# The field calculator divides the sphere by this for diffuse paths alone; specular ones do not depend on it.
_UNUSED_SAMPLES = 1


def make_buffer(
    world: World,
    types: NDArray[np.integer],
    faces: NDArray[np.integer],
    vertices: NDArray[np.float64],
    receiver: NDArray[np.integer] | None = None,
    source: NDArray[np.integer] | None = None,
    wedges: WedgeRows | None = None,
) -> PathsBuffer:
    """Fill a `PathsBuffer`.

    Parameters
    ----------
    world : World
    types : int (N, D)
        Interaction types, `NONE` past the end of a path.
    faces : int (N, D)
        Faces of the world; any of them where there is no interaction.
    vertices : float64 (N, D, 3)
        Points on these faces.
    receiver, source : int (N,), optional
        By default 0.
    wedges : dict, optional
        Turns diffraction on. Per path `origin`, `along` (N, 3), `length` (N,), `normals` (N, 2, 3), `faces` (N, 2);
        zeros for paths without a wedge.
    """
    count, depth = types.shape
    buffer = PathsBuffer(count, depth, wedges is not None)
    met = types != NONE
    shape, face = np.full(types.shape, rt.INVALID_SHAPE), np.full(types.shape, rt.INVALID_PRIMITIVE)
    shape[met], face[met] = world.shape[faces[met]], world.primitive[faces[met]]

    def unsigned(values: NDArray[np.integer]) -> object:
        return mi.TensorXu(load(mi.UInt, values.ravel()), shape=(count, depth))

    buffer._interaction_types = unsigned(types)
    buffer._shapes = unsigned(shape)
    buffer._primitives = unsigned(face)
    for axis, name in enumerate(("_vertices_x", "_vertices_y", "_vertices_z")):
        values = load(mi.Float, vertices[:, :, axis].ravel())
        setattr(buffer, name, mi.TensorXf(values, shape=(count, depth)))
    if receiver is not None:
        buffer._tgt_indices = load(mi.UInt, receiver)
    if source is not None:
        buffer._src_indices = load(mi.UInt, source)
    if wedges is not None:
        edge = WedgeGeometry.build_with_size(count)
        edge.o = load_rows(mi.Point3f, wedges["origin"])
        edge.e_hat = load_rows(mi.Vector3f, wedges["along"])
        edge.length = load(mi.Float, wedges["length"])
        edge.n0 = load_rows(mi.Normal3f, wedges["normals"][:, 0])
        edge.nn = load_rows(mi.Normal3f, wedges["normals"][:, 1])
        primitive, there = np.zeros((count, 2), np.int64), wedges["length"] > 0
        primitive[there] = world.primitive[wedges["faces"][there]]
        # Sionna takes two equal numbers for a free edge, but faces of two shapes may have the same.
        same = (primitive[:, 0] == primitive[:, 1]) & (wedges["faces"][:, 0] != wedges["faces"][:, 1])
        edge.prim0, edge.primn = load(mi.UInt, primitive[:, 0]), load(mi.UInt, primitive[:, 1] + same)
        buffer._diffracting_wedges = edge
    return buffer


def scattering_buffer(
    world: World, faces: NDArray[np.integer], points: NDArray[np.float64], receiver: NDArray[np.integer]
) -> PathsBuffer:
    """Paths with one diffuse reflection, whose fields are those of a ray that stands for the whole sphere.

    Parameters
    ----------
    world : World
    faces : int (N,)
    points : float64 (N, 3)
        On these faces.
    receiver : int (N,)
    """
    buffer = make_buffer(world, np.full((len(faces), 1), DIFFUSE), faces[:, None], points[:, None], receiver)
    # Nothing was drawn at random.
    buffer._probs = mi.TensorXf(load(mi.Float, np.ones(len(faces))), shape=(len(faces), 1))
    return buffer


class SingleRays:
    """A Mitsuba scene whose rays are traced one by one.

    Sionna's image method asks for packets, which its rays, from everywhere to everywhere, make twice as slow.

    Parameters
    ----------
    scene : mi.Scene
    """

    def __init__(self, scene: MitsubaScene) -> None:
        self._scene = scene

    def ray_intersect(self, ray: object, *, ray_flags: object, active: Numbers, coherent: bool = False) -> object:
        """See `mi.Scene.ray_intersect`."""
        return self._scene.ray_intersect(ray, ray_flags=ray_flags, coherent=False, active=active)


@recording
def validate(
    world: World,
    chains: PathsBuffer,
    chain: Numbers,
    receiver: Numbers,
    source: Vectors,
    receivers: Vectors,
    diffraction: bool,
    lit_region: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Run Sionna's image method on (chain, receiver) pairs.

    Parameters
    ----------
    world : World
    chains : PathsBuffer
        One entry per chain (from `make_buffer`).
    chain, receiver : mi.UInt (N,)
    source, receivers : mi.Point3f
    diffraction : bool
    lit_region : bool
        Whether diffraction also counts where the source is visible.

    Returns
    -------
    int64 (M,), int64 (M,), int32 (M, D)
        Of the pairs that are paths: chain, receiver, and the faces that were hit.
    """
    candidates = chains.gather(chain)
    candidates._tgt_indices = receiver
    solved = ImageMethod()(
        scene=SingleRays(world.scene.mi_scene),
        paths=candidates,
        diffraction=diffraction,
        diffraction_lit_region=lit_region,
        src_positions=source,
        tgt_positions=receivers,
    )
    solved.schedule()
    dr.eval()
    found = dr.compress(solved.valid)
    count, depth = dr.width(found), solved.depth_dim_size
    if count == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, depth), np.int32)
    if count == 1:  # for which kernels would be compiled anew
        found = load(mi.UInt, np.repeat(found.numpy(), 2))
    kept = solved.gather(found)
    shape, primitive = (numbers.array.numpy().reshape(-1, depth)[:count] for numbers in (kept.shapes, kept.primitives))
    return (
        dr.gather(mi.UInt, chain, found).numpy().astype(np.int64)[:count],
        dr.gather(mi.UInt, receiver, found).numpy().astype(np.int64)[:count],
        world.faces(shape, primitive),
    )


def coefficients(
    world: World,
    paths: PathsBuffer,
    source: Vectors,
    receivers: Vectors,
    orientation: tuple[float, float, float],
    pattern: str,
    diffraction: bool,
) -> NDArray[np.complex64]:
    """Coefficients of paths between single elements, without the carrier phase.

    Parameters
    ----------
    world : World
    paths : PathsBuffer
        Valid paths (from `make_buffer`).
    source, receivers : mi.Point3f
    orientation : tuple
        Of the source's element, radians (azimuth, downtilt, slant).
    pattern : str
        The source's element pattern; receivers are isotropic. Their polarisations and ports are those of the world.
    diffraction : bool

    Returns
    -------
    complex64 (N,)
    """
    receive, transmit = (
        [rt.PlanarArray(num_rows=1, num_cols=1, pattern=of, polarization=polarisation).antenna_pattern.patterns[port]]
        for of, polarisation, port in zip(("iso", pattern), world.polarisations, world.ports, strict=True)
    )
    turned = load_rows(mi.Point3f, np.array([orientation]))
    upright = dr.zeros(mi.Point3f, dr.width(receivers))
    solved = fields(world.scene, paths, source, receivers, turned, upright, transmit, receive, diffraction)
    value = solved.a[0][0]
    dr.eval(value)
    field: NDArray[np.complex64] = (value.real.numpy() + 1j * value.imag.numpy()).astype(np.complex64)
    return field


def fields(
    scene: SionnaScene,
    paths: PathsBuffer,
    sources: Vectors,
    receivers: Vectors,
    source_orientations: Vectors,
    receiver_orientations: Vectors,
    source_patterns: Sequence[Pattern],
    receiver_patterns: Sequence[Pattern],
    diffraction: bool,
    loop_mode: str = "symbolic",
) -> PathsBuffer:
    """Run Sionna's field calculator.

    Parameters
    ----------
    scene : sionna.rt.Scene
        Names the wavelength.
    paths : PathsBuffer
        Valid paths (from `make_buffer`).
    sources, receivers : mi.Point3f
    source_orientations, receiver_orientations : mi.Point3f
        Radians.
    source_patterns, receiver_patterns : list of callables
        As of `AntennaArray.antenna_pattern.patterns`.
    diffraction : bool
    loop_mode : str
        "symbolic", or "evaluated" to keep gradients.

    Returns
    -------
    PathsBuffer
        The same, with `a`, `tau` and `doppler`.
    """
    paths.valid = dr.full(mi.Bool, True, paths.buffer_size)
    calculator = FieldCalculator()
    calculator.loop_mode = loop_mode
    with right_diffraction() if diffraction else nullcontext():
        return calculator(
            wavelength=scene.wavelength,
            paths=paths,
            samples_per_src=_UNUSED_SAMPLES,
            diffraction=diffraction,
            src_positions=sources,
            tgt_positions=receivers,
            src_orientations=source_orientations,
            tgt_orientations=receiver_orientations,
            src_antenna_patterns=source_patterns,
            tgt_antenna_patterns=receiver_patterns,
        )


def finish(buffer: PathsBuffer, kept: NDArray[np.int64], geometry: dict[str, NDArray[np.float64]]) -> PathsBuffer:
    """Order solved paths and enter exact delays and directions.

    Parameters
    ----------
    buffer : PathsBuffer
        With fields (from `fields`).
    kept : int64 (M,)
        Which paths, in which order.
    geometry : dict
        Of these paths `delay` (M,) in s, `departure`, `arrival` (M, 3), unit vectors away from the ends, `vertices`
        (M, D, 3).

    Returns
    -------
    PathsBuffer
    """
    at = load(mi.UInt, kept)
    done = buffer.gather(at)
    done.a = [[dr.gather(mi.Complex2f, value, at) for value in row] for row in buffer.a]
    done.doppler = dr.gather(mi.Float, buffer.doppler, at)
    done.tau = load(mi.Float, geometry["delay"])
    done.valid = dr.full(mi.Bool, True, len(kept))
    for axis, letter in enumerate("xyz"):
        setattr(done, f"_k_tx_{letter}", load(mi.Float, geometry["departure"][:, axis]))
        setattr(done, f"_k_rx_{letter}", load(mi.Float, geometry["arrival"][:, axis]))
        values = geometry["vertices"][:, :, axis]
        setattr(done, f"_vertices_{letter}", mi.TensorXf(load(mi.Float, values.ravel()), shape=values.shape))
    return done


class OrderedPaths(rt.Paths):
    """`sionna.rt.Paths` that lists the paths of two ends in the order of the buffer.

    Sionna numbers them by an atomic increment, whose order depends on the threads.

    Parameters
    ----------
    place : int (N,)
        Number of each path among those of its two ends.
    arguments
        Of `sionna.rt.Paths`.
    """

    def __init__(self, place: NDArray[np.int64], *arguments: object) -> None:
        self._place = load(mi.UInt, place)
        super().__init__(*arguments)

    @property
    def _path_ind(self) -> Numbers:
        return self._place

    @_path_ind.setter
    def _path_ind(self, threads_order: Numbers) -> None:
        pass
