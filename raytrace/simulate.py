"""Scene -> Channels: traces one scene and packs its paths by user, strongest first."""

import numpy as np
from numpy.typing import NDArray

from geo.scene import Scene
from raytrace.arrays import SPEED_OF_LIGHT
from raytrace.channels import Channels
from raytrace.settings import RadioSettings, SolverSettings
from raytrace.solver import ChainSolver, Paths
from raytrace.world import build_world


def simulate(scene: Scene, radio: RadioSettings, solver: SolverSettings, seed: int) -> Channels:
    """Trace the paths from a scene's base station to its users.

    Call `backend.prepare` before the first import of this module, or leave the choice to it.

    Parameters
    ----------
    scene : Scene
    radio : RadioSettings
    solver : SolverSettings
    seed : int

    Returns
    -------
    Channels
        Users as in `scene.users`; those without a path above `solver.gain_floor` are kept, flagged as outage.

    Raises
    ------
    InputError
        A material that is not defined at the frequency.
    """
    world = build_world(scene.mesh, scene.size, radio)
    trace = ChainSolver(solver.max_depth, solver.rays, solver.los, solver.specular, solver.diffraction, seed)
    orientation = (float(np.deg2rad(radio.azimuth)), float(np.deg2rad(radio.downtilt)), 0.0)
    paths = trace(world, scene.bs_position, scene.users, orientation, radio.pattern)
    return pack(paths, len(scene.users), radio.frequency, solver)


def pack(paths: Paths, users: int, frequency: float, solver: SolverSettings) -> Channels:
    """Sort each user's paths by power, keep the strongest `max_paths`, note what the cut took.

    Parameters
    ----------
    paths : Paths
    users : int
    frequency : float
        Hz.
    solver : SolverSettings
        `max_paths`, `max_depth` and `gain_floor` count here.
    """
    power = np.abs(paths.coefficient.astype(np.complex128)) ** 2
    total = np.bincount(paths.receiver, power, users)
    outage = total <= 10 ** (solver.gain_floor / 10)
    kept = ~outage[paths.receiver]
    paths, power = paths.select(kept), power[kept]
    order = np.lexsort((np.arange(len(paths)), -power, paths.receiver))
    paths, power = paths.select(order), power[order]
    count = np.bincount(paths.receiver, minlength=users)
    rank = np.arange(len(paths)) - np.repeat(np.cumsum(count) - count, count)
    paths, power, rank = (
        paths.select(rank < solver.max_paths),
        power[rank < solver.max_paths],
        rank[rank < solver.max_paths],
    )
    stored = np.bincount(paths.receiver, power, users)

    def spread(values: NDArray[np.generic], dtype: type) -> NDArray[np.generic]:
        array = np.zeros((users, solver.max_paths, *values.shape[1:]), dtype)
        array[paths.receiver, rank] = values
        return array

    delay = paths.length / SPEED_OF_LIGHT
    carrier = np.exp(-2j * np.pi * np.mod(frequency * delay, 1.0))
    return Channels(
        gain=spread(paths.coefficient * carrier, np.complex64),
        delay=spread(delay, np.float32),
        aod_zenith=spread(np.arccos(np.clip(paths.departure[:, 2], -1, 1)), np.float32),
        aod_azimuth=spread(np.arctan2(paths.departure[:, 1], paths.departure[:, 0]), np.float32),
        aoa_zenith=spread(np.arccos(np.clip(paths.arrival[:, 2], -1, 1)), np.float32),
        aoa_azimuth=spread(np.arctan2(paths.arrival[:, 1], paths.arrival[:, 0]), np.float32),
        doppler=np.zeros((users, solver.max_paths), np.float32),
        interactions=spread(paths.types, np.int8),
        n_paths=count.astype(np.int32),
        power_cut=np.where(outage, 0, 1 - stored / np.where(outage, 1, total)).clip(0).astype(np.float32),
        path_gain=np.where(outage, solver.gain_floor, 10 * np.log10(np.where(outage, 1, total))).astype(np.float32),
        los=np.bincount(paths.receiver, ~paths.types.any(axis=1), users) > 0,
        outage=outage,
    )
