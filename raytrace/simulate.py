"""`Scene` -> `Channels`: trace all users of a scene and keep their strongest paths."""

import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wavecity.geo.errors import InputError
from wavecity.geo.scene import Scene
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.channels import Channels, WeakenedChannels, csi
from wavecity.raytrace.diffuse import diffuse_paths
from wavecity.raytrace.scattering import scattered_paths
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.solver import ChainSolver, Paths, join, line_of_sight
from wavecity.raytrace.vegetation import weakened
from wavecity.raytrace.world import build_world

# Dr.Jit has one state per process: two scenes at once would mix, and wait for each other's kernels anyway. A scene also
# ends within the block, not while another is traced (see `recording`).
ONE_AT_A_TIME = threading.Lock()

# Paths whose channels are computed at a time; each takes about 2 kB.
PATHS_AT_ONCE = 131_072


def simulate(
    scene: Scene,
    radio: RadioSettings,
    solver: SolverSettings,
    seed: int,
    velocities: ArrayLike | None = None,
) -> Channels:
    """Path-level channels from the base station to every user of a scene.

    The same arguments give the same bytes, in any process and with any number of threads, on one backend.

    Parameters
    ----------
    scene : Scene
    radio : RadioSettings
        Frequency, materials, and the panel's element pattern and orientation. The array itself enters in
        `channels.csi`.
    solver : SolverSettings
    seed : int
        Moves the rays that search onward from edges (with diffraction); nothing else is random.
    velocities : float (U, 3), optional
        Of the users in m/s, scene frame; they stand still unless given. Everything else is static.

    Raises
    ------
    InputError
        Velocities of another shape, several carriers or ports, a material without a model at the frequency, no usable LLVM, or a
        Sionna RT of another series.

    Examples
    --------
    >>> channels = simulate(scene, RadioSettings(), SolverSettings(max_depth=3), seed=0)
    >>> channels.gain.shape  # (user, path)
    (83, 32)
    """
    refuse_several(radio, "simulate: trace them with simulate_bands")
    if velocities is not None:
        velocities, expected = np.asarray(velocities, np.float64), (len(scene.users), 3)
        if velocities.shape != expected or not np.isfinite(velocities).all():
            msg = f"velocities: shape {velocities.shape}; finite m/s of shape {expected}, one row per user, are needed"
            raise InputError(msg)
    (paths,), visible = trace_scene(scene, radio, solver, seed)
    paths, loss = weakened(scene.vegetation, scene.bs_position, scene.users, paths, radio.frequency)
    return collect(paths, visible, radio.frequency, solver, velocities, loss)


def simulate_csi(
    scene: Scene, radio: RadioSettings, solver: SolverSettings, seed: int
) -> tuple[Channels, NDArray[np.complex64]]:
    """`simulate`, and the channels of the panel.

    They are made from the paths of `Channels`, the strongest; those of scattering from patches, of which no path is
    strong, from all paths.

    Parameters
    ----------
    scene, radio, solver, seed
        As of `simulate`.

    Returns
    -------
    Channels
    complex64 (U, columns, rows)

    Raises
    ------
    InputError
        As `simulate`.
    """
    refuse_several(radio, "simulate_csi: trace them with simulate_bands")
    (found,) = simulate_bands(scene, radio, solver, seed)
    return found


def simulate_bands(
    scene: Scene, radio: RadioSettings, solver: SolverSettings, seed: int
) -> list[tuple[Channels, NDArray[np.complex64]]]:
    """`simulate_csi` at every carrier and between every two ports: paths are found once, and only their fields are computed
    at each.

    Without `solver.tolerance` each has the paths of a run of its own. With it none of these is missing; there are some more,
    which another one asked for.

    Parameters
    ----------
    scene, radio, solver, seed
        As of `simulate`, with `radio.carriers`, or polarisations with two ports.

    Returns
    -------
    list of (Channels, complex64 (U, columns, rows))
        Carrier by carrier, in the order of `radio.ports`. A path that several of them keep has the same delay and angles in
        all, to the bit.

    Raises
    ------
    InputError
        As `simulate`.

    Examples
    --------
    >>> radio = RadioSettings(carriers=[3.5e9, 28.5e9])
    >>> low, high = simulate_bands(scene, radio, SolverSettings(), seed=0)
    >>> (low[0].path_gain - high[0].path_gain).round(1)[:2]
    array([18.2, 18.2], dtype=float32)
    """
    each, visible = trace_scene(scene, radio, solver, seed)
    bands = [one for one in radio.each for _ in radio.ports]
    return [_channels(scene, paths, visible, one, solver) for paths, one in zip(each, bands, strict=True)]


def _channels(
    scene: Scene, paths: Paths, visible: NDArray[np.bool_], radio: RadioSettings, solver: SolverSettings
) -> tuple[Channels, NDArray[np.complex64]]:
    """Channels of one carrier behind the scene's vegetation, path level and of the panel."""
    paths, loss = weakened(scene.vegetation, scene.bs_position, scene.users, paths, radio.frequency)
    channels = collect(paths, visible, radio.frequency, solver, loss=loss)
    if not (solver.diffuse and solver.diffuse_method == "patches"):
        return channels, csi(channels, radio)
    most = max(1, int(channels.n_paths.max(initial=0)))
    everything = collect(paths, visible, radio.frequency, solver.model_copy(update={"max_paths": most}))
    return channels, csi(everything, radio, batch=max(1, PATHS_AT_ONCE // most))


def refuse_several(radio: RadioSettings, remedy: str) -> None:
    """Raise `InputError` where there are several carriers, or pairs of ports."""
    if radio.carriers:
        names = ", ".join(f"{carrier / 1e9:g}" for carrier in radio.carriers)
        msg = f"radio.carriers are {names} GHz, but one carrier is needed; {remedy}"
        raise InputError(msg)
    if len(radio.ports) > 1:
        ends = f"{radio.user_polarisation} of users and {radio.polarisation} of the base station"
        msg = f"radio: {ends} are {len(radio.ports)} pairs of ports, but one is needed; {remedy}"
        raise InputError(msg)


def trace_scene(
    scene: Scene, radio: RadioSettings, solver: SolverSettings, seed: int
) -> tuple[list[Paths], NDArray[np.bool_]]:
    """All paths of a scene in every band, without its vegetation, and which users see the base station.

    Arguments as of `simulate`.
    """
    trace, panel = chain_solver(solver, seed), (panel_orientation(radio), radio.pattern)
    with ONE_AT_A_TIME:
        world = build_world(scene.mesh, scene.size, radio)
        ends = scene.bs_position, scene.users
        each = trace(world, *ends, *panel).by_band()
        if solver.diffuse and solver.max_depth:
            patches = solver.diffuse_method == "patches"
            for number, one in enumerate(world.each()):
                scattered = (
                    scattered_paths(one, *ends, *panel, solver.max_depth, solver.memory)
                    if patches
                    else diffuse_paths(one, *ends, trace, solver.diffuse_rays, *panel)
                )
                each[number] = join([each[number], scattered])
            del one
        visible = line_of_sight(world, *ends)
        del world
    return each, visible


def chain_solver(solver: SolverSettings, seed: int) -> ChainSolver:
    """The solver of these settings; it knows no diffuse scattering."""
    return ChainSolver(
        solver.max_depth,
        solver.rays,
        solver.los,
        solver.specular,
        solver.diffraction,
        solver.refraction,
        seed=seed,
        memory=solver.memory,
        tolerance=solver.tolerance,
        max_paths=solver.max_paths,
    )


def panel_orientation(radio: RadioSettings) -> tuple[float, float, float]:
    """Azimuth, downtilt and slant of the base station's element in radians."""
    return float(np.deg2rad(radio.azimuth)), float(np.deg2rad(radio.downtilt)), 0.0


def collect(
    paths: Paths,
    visible: NDArray[np.bool_],
    frequency: float,
    solver: SolverSettings,
    velocities: NDArray[np.float64] | None = None,
    loss: NDArray[np.float64] | None = None,
) -> Channels:
    """Arrange paths by user, strongest first, and cut them to `max_paths`.

    Parameters
    ----------
    paths : Paths
        Of U users.
    visible : bool (U,)
        Line of sight.
    frequency : float
        Hz.
    solver : SolverSettings
    velocities : float64 (U, 3), optional
        Of the users in m/s.
    loss : float64 (N,), optional
        What vegetation has taken from each path, in dB; with it the result is `WeakenedChannels`.
    """
    users, depth = len(visible), paths.types.shape[1]
    power = np.abs(paths.coefficient.astype(np.complex128)) ** 2
    total = np.bincount(paths.receiver, power, users)
    with np.errstate(divide="ignore"):
        path_gain = 10 * np.log10(total)
    outage = path_gain < solver.gain_floor

    # Strongest first; equals keep the order of the solver, which depends on nothing but the scene.
    order = np.lexsort((np.arange(len(paths)), -power, paths.receiver))
    paths, power = paths.select(order), power[order]
    count = np.bincount(paths.receiver, minlength=users)
    place = np.arange(len(paths)) - np.repeat(np.cumsum(count) - count, count)
    kept = (place < solver.max_paths) & ~outage[paths.receiver]
    strongest, place, power = paths.select(kept), place[kept], power[kept]

    def table(values: NDArray[Any], dtype: type, *shape: int) -> NDArray[Any]:
        filled: NDArray[Any] = np.zeros((users, solver.max_paths, *shape), dtype)
        filled[strongest.receiver, place] = values
        return filled

    # The whole turns are taken off in float64: 100 m are 9,500 wavelengths.
    turns = strongest.length * (frequency / SPEED_OF_LIGHT)
    carrier = np.exp(-2j * np.pi * (turns % 1))
    doppler = np.zeros(len(strongest))
    if velocities is not None:
        # The last term of Sionna's `Paths.doppler`: the user's speed towards the path's last vertex, over wavelength.
        towards = (strongest.arrival * velocities[strongest.receiver]).sum(axis=1)
        doppler = towards * (frequency / SPEED_OF_LIGHT)
    share = np.bincount(strongest.receiver, power, users) / np.where(total > 0, total, 1.0)
    channels = Channels(
        gain=table(strongest.coefficient * carrier, np.complex64),
        delay=table(strongest.length / SPEED_OF_LIGHT, np.float32),
        aod_zenith=table(_zenith(strongest.departure), np.float32),
        aod_azimuth=table(_azimuth(strongest.departure), np.float32),
        aoa_zenith=table(_zenith(strongest.arrival), np.float32),
        aoa_azimuth=table(_azimuth(strongest.arrival), np.float32),
        doppler=table(doppler, np.float32),
        interactions=table(strongest.types, np.int8, depth),
        n_paths=count.astype(np.int32),
        # Exactly 0 where nothing was cut: the sums of the same powers in another order differ by rounding.
        power_cut=np.where(outage | (count <= solver.max_paths), 0.0, np.clip(1 - share, 0, 1)).astype(np.float32),
        path_gain=np.where(outage, solver.gain_floor, path_gain).astype(np.float32),
        los=visible,
        outage=outage,
        vertices=table(strongest.vertices, np.float32, depth, 3),
    )
    if loss is None:
        return channels
    return WeakenedChannels(**vars(channels), vegetation_loss=table(loss[order][kept], np.float32))


def _zenith(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Zenith in radians of unit vectors (N, 3)."""
    return np.arccos(np.clip(unit[:, 2], -1, 1))


def _azimuth(unit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Azimuth in radians of unit vectors (N, 3)."""
    return np.arctan2(unit[:, 1], unit[:, 0])
