"""Diffuse scattering, by Sionna's own path solver: slow, as it tests every receiver at every bounce of every ray."""

from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.device import SionnaPaths, rt
from wavecity.raytrace.geometry import path_lengths
from wavecity.raytrace.recording import recording
from wavecity.raytrace.solver import ChainSolver, Paths, join
from wavecity.raytrace.world import World

# Bytes of a path in the stock solver's buffer at depth 3, including what is needed to fill it.
PATH_BYTES = 1000


@recording
def diffuse_paths(
    world: World,
    source: NDArray[np.float64],
    receivers: NDArray[np.floating],
    solver: ChainSolver,
    rays: int,
    orientation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pattern: str = "iso",
) -> Paths:
    """Paths with a diffuse reflection: which the chain solver leaves out.

    They are a sample of the scattered field: more rays give more and fainter paths of the same power. The same seed and
    rays give the same paths.

    Parameters
    ----------
    world : World
        Its scene has no radio devices before and after the call.
    source : float64 (3,)
        Metres.
    receivers : float (R, 3)
        Metres. Isotropic, with the polarisation of the world.
    solver : ChainSolver
        Depth, the other kinds of interaction, seed and memory.
    rays : int
        Each can reach each receiver once per interaction.
    orientation, pattern
        Of the source's element, as for `ChainSolver`.
    """
    depth = max(1, solver.max_depth)
    found = [no_paths(depth)]
    if solver.max_depth and len(receivers):
        at_most = rays * depth
        step = max(1, solver.memory * 1_000_000 // (PATH_BYTES * at_most))
        for low in range(0, len(receivers), step):
            some = np.asarray(receivers[low : low + step], np.float64)
            paths = _stock(world, source, some, solver, rays, at_most * len(some), orientation, pattern)
            found.append(_as_paths(world, paths, np.asarray(source, np.float64), some, low))
    return join(found)


def _stock(
    world: World,
    source: NDArray[np.float64],
    receivers: NDArray[np.float64],
    solver: ChainSolver,
    rays: int,
    at_most: int,
    orientation: tuple[float, float, float],
    pattern: str,
) -> SionnaPaths:
    """Paths of the stock solver with diffuse reflection."""
    scene = world.scene
    user, bs = world.polarisations
    scene.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern=pattern, polarization=bs)
    scene.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization=user)
    names = ["source", *(f"receiver-{number}" for number in range(len(receivers)))]
    place = [float(value) for value in source]
    scene.add(rt.Transmitter(names[0], place, orientation=[float(angle) for angle in orientation]))
    for name, position in zip(names[1:], receivers.tolist(), strict=True):
        scene.add(rt.Receiver(name, position))
    try:
        with sionna.right_diffraction() if solver.diffraction else nullcontext():
            return sionna.PathSolver(deterministic=True)(
                scene,
                max_depth=solver.max_depth,
                samples_per_src=rays,
                max_num_paths_per_src=at_most,
                los=False,
                specular_reflection=solver.specular,
                diffuse_reflection=True,
                refraction=solver.refraction,
                diffraction=solver.diffraction,
                diffraction_lit_region=solver.lit_region,
                seed=solver.seed,
            )
    finally:
        for name in names:
            scene.remove(name)


def _as_paths(
    world: World, paths: SionnaPaths, source: NDArray[np.float64], receivers: NDArray[np.float64], first: int
) -> Paths:
    """Paths with a diffuse reflection as the solver found them, with lengths and angles in float64."""
    types = paths.interactions.numpy()[:, :, 0]  # depth, receiver, path
    depth = len(types)
    kept = paths.valid.numpy()[:, 0] & (types == sionna.DIFFUSE).any(axis=0)
    row = np.nonzero(kept)
    if not len(row[0]):
        return no_paths(depth)
    types = types[:, *row].T.astype(np.uint8)
    vertices = np.moveaxis(paths.vertices.numpy()[:, :, 0], 0, 2)[row].astype(np.float64)
    vertices[types == sionna.NONE] = 0
    shape = paths.objects.numpy()[:, :, 0][:, *row].T
    primitive = paths.primitives.numpy()[:, :, 0][:, *row].T
    faces = world.first_face[np.where(types != sionna.NONE, shape, world.shape[0])] + primitive
    faces = np.where(types != sionna.NONE, faces, -1).astype(np.int32)
    length, departure, arrival = path_lengths(source, vertices, types != sionna.NONE, receivers[row[0]])
    user, bs = world.ports
    coefficient = (paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, user, 0, bs][row]
    found = Paths(
        row[0].astype(np.int64) + first,
        types,
        vertices,
        faces,
        np.full((len(types), depth), -1, np.int32),
        length,
        departure,
        arrival,
        coefficient.astype(np.complex64),
    )
    # A path of which another port has a field.
    return found.select(found.coefficient != 0)


def no_paths(depth: int) -> Paths:
    """No paths, of a given depth."""
    return Paths(
        np.empty(0, np.int64),
        np.empty((0, depth), np.uint8),
        np.empty((0, depth, 3)),
        np.empty((0, depth), np.int32),
        np.empty((0, depth), np.int32),
        np.empty(0),
        np.empty((0, 3)),
        np.empty((0, 3)),
        np.empty(0, np.complex64),
    )
