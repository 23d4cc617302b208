"""`ChainPathSolver`: a replacement for `sionna.rt.PathSolver`, on any Sionna RT scene.

    from wavecity.raytrace.path_solver import ChainPathSolver

    paths = ChainPathSolver()(scene, max_depth=3, refraction=False)   # a sionna.rt.Paths
    paths.cfr(frequencies)

Tested with sionna-rt 2.2.0 (Mitsuba 3.9.1, Dr.Jit 1.5.0); another series than 2.2 is refused.
"""

from contextlib import nullcontext
from dataclasses import fields, replace
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

from wavecity.raytrace import sionna_private as sionna
from wavecity.raytrace.arrays import SPEED_OF_LIGHT
from wavecity.raytrace.device import PathsBuffer, SionnaPaths, SionnaScene, Vectors, dr, rt
from wavecity.raytrace.recording import recording
from wavecity.raytrace.solver import ChainSolver, Paths, path_buffer, unique_paths
from wavecity.raytrace.world import World, world_of


class ChainPathSolver:
    """Path solver that finds chains of surfaces once for all receivers; same call and result as `sionna.rt.PathSolver`.

    LoS, specular reflection, refraction and first-order diffraction are chain-first: the paths of Sionna's image method
    and the coefficients of its field calculator, but none lost to a full hash table, none twice, delays and angles
    computed in float64, and the same for the same seed. Calls that need more are passed on to the stock solver:
    `diffuse_reflection` and `edge_diffraction` (free edges), with the corrected coefficient of diffraction. With
    `loop_mode` "evaluated" gradients with respect to materials and antenna patterns are kept, those with respect to
    positions are not.

    After `sionna.rt.PathSolver = ChainPathSolver` code that was written for the stock solver runs with this one.

    Paths of an array are found from its centre with `synthetic_array`, else from every antenna; the time grows with the
    number of sources.

    Parameters
    ----------
    deterministic : bool
        Of the calls that are passed on to the stock solver; paths of its own are always the same for the same seed.
    memory : int
        Working memory in MB; changes no result.
    """

    def __init__(self, deterministic: bool = False, *, memory: int = 512) -> None:
        self.deterministic = deterministic
        self.memory = memory
        self._loop_mode = "symbolic"

    @property
    def loop_mode(self) -> str:
        """Dr.Jit's mode of the loops of the field calculator: "symbolic" (fast) or "evaluated" (keeps gradients)."""
        return self._loop_mode

    @loop_mode.setter
    def loop_mode(self, mode: str) -> None:
        if mode not in ("symbolic", "evaluated"):
            msg = f"`loop_mode` must be 'symbolic' or 'evaluated', not {mode!r}"
            raise ValueError(msg)
        self._loop_mode = mode

    @recording
    def __call__(
        self,
        scene: SionnaScene,
        max_depth: int = 3,
        max_num_paths_per_src: int = 1_000_000,
        samples_per_src: int = 1_000_000,
        synthetic_array: bool = True,
        los: bool = True,
        specular_reflection: bool = True,
        diffuse_reflection: bool = False,
        refraction: bool = True,
        diffraction: bool = False,
        edge_diffraction: bool = False,
        diffraction_lit_region: bool = True,
        seed: int = 42,
    ) -> SionnaPaths:
        """Find the paths between all transmitters and receivers of a scene.

        Parameters
        ----------
        scene : sionna.rt.Scene
            With arrays, transmitters and receivers.
        max_depth : int
            Largest number of interactions.
        max_num_paths_per_src : int
            The strongest are kept.
        samples_per_src : int
            Rays that search for chains.
        synthetic_array : bool
            Antennas of an array share the paths of its centre.
        los, specular_reflection, diffuse_reflection, refraction, diffraction, edge_diffraction : bool
        diffraction_lit_region : bool
            Whether diffraction also counts where the source is visible.
        seed : int
            Only rays that leave edges are random.

        Returns
        -------
        sionna.rt.Paths

        Raises
        ------
        TypeError, ValueError
            As `sionna.rt.PathSolver`, naming the argument.
        """
        _check("max_depth", max_depth, 0)
        _check("max_num_paths_per_src", max_num_paths_per_src, 1)
        _check("samples_per_src", samples_per_src, 1)
        _check("seed", seed, 0)
        if not isinstance(scene, rt.Scene):
            msg = f"`scene` must be an instance of sionna.rt.Scene, not {type(scene).__name__}"
            raise TypeError(msg)
        flags = {
            "synthetic_array": synthetic_array,
            "los": los,
            "specular_reflection": specular_reflection,
            "diffuse_reflection": diffuse_reflection,
            "refraction": refraction,
            "diffraction": diffraction,
            "edge_diffraction": edge_diffraction,
            "diffraction_lit_region": diffraction_lit_region,
        }
        _check_flags(**flags)
        if diffuse_reflection or edge_diffraction:
            stock = sionna.PathSolver(self.deterministic)
            stock.loop_mode = self.loop_mode
            with sionna.right_diffraction() if diffraction else nullcontext():
                return stock(
                    scene,
                    max_depth=max_depth,
                    max_num_paths_per_src=max_num_paths_per_src,
                    samples_per_src=samples_per_src,
                    seed=seed,
                    **flags,
                )
        scene.all_set(radio_map=False)
        solver = ChainSolver(
            max_depth,
            samples_per_src,
            los,
            specular_reflection,
            diffraction,
            refraction,
            diffraction_lit_region,
            seed,
            self.memory,
        )
        sources, source_orientations, tx_offsets, tx_velocities = scene.sources(synthetic_array, True)
        receivers, receiver_orientations, rx_offsets, rx_velocities = scene.targets(synthetic_array, True)
        dr.make_opaque(sources, receivers, source_orientations, receiver_orientations)
        world = world_of(scene)
        paths, source = _trace_all(solver, world, _rows(sources), _rows(receivers))
        buffer = path_buffer(world, paths, _rows(receivers), diffraction, source)
        if len(paths):
            sionna.fields(
                scene,
                buffer,
                sources,
                receivers,
                source_orientations,
                receiver_orientations,
                scene.tx_array.antenna_pattern.patterns,
                scene.rx_array.antenna_pattern.patterns,
                diffraction,
                self.loop_mode,
            )
            kept = _strongest_first(world, buffer, paths, source, max_num_paths_per_src)
            paths, source = paths.select(kept), source[kept]
            exact = {
                "delay": paths.length / SPEED_OF_LIGHT,
                "departure": paths.departure,
                "arrival": paths.arrival,
                "vertices": paths.vertices,
            }
            buffer = sionna.finish(buffer, kept, exact)
        return sionna.OrderedPaths(
            _place(paths.receiver * len(sources.x) + source),
            scene,
            sources,
            receivers,
            tx_velocities,
            rx_velocities,
            synthetic_array,
            buffer,
            tx_offsets,
            rx_offsets,
        )


def _check(name: str, value: object, least: int) -> None:
    """Refuse an argument that is no integer, or too small."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        msg = f"`{name}` must be an integer, not {value!r}"
        raise TypeError(msg)
    if int(value) < least:
        msg = f"`{name}` must be at least {least}, not {value}"
        raise ValueError(msg)


def _check_flags(**flags: object) -> None:
    """Refuse a flag that is no bool."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            msg = f"`{name}` must be a bool, not {flag!r}"
            raise TypeError(msg)


def _rows(points: Vectors) -> NDArray[np.float64]:
    """Points as rows of an array."""
    return np.asarray(points.numpy(), np.float64).T


def _trace_all(
    solver: ChainSolver, world: World, sources: NDArray[np.float64], receivers: NDArray[np.float64]
) -> tuple[Paths, NDArray[np.int64]]:
    """Paths from all sources, and the source of each."""
    found = [solver.trace(world, source, receivers) for source in sources]
    source = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
    joined = Paths(
        **{field.name: np.concatenate([getattr(paths, field.name) for paths in found]) for field in fields(Paths)}
    )
    return joined, source


def _strongest_first(
    world: World, buffer: PathsBuffer, paths: Paths, source: NDArray[np.int64], at_most: int
) -> NDArray[np.int64]:
    """Positions of the paths that carry power, each once, strongest first for each pair of ends.

    Of each source there are `at_most`.
    """
    power = np.zeros(len(paths))
    for by_receive_pattern in buffer.a:
        for value in by_receive_pattern:
            power += np.abs(value.numpy()) ** 2
    carrying = np.flatnonzero(power > 0)
    pair = paths.receiver * (source.max(initial=0) + 1) + source
    kept = carrying[unique_paths(world.surfaces, replace(paths, receiver=pair).select(carrying))]
    kept = kept[np.lexsort((-power[kept], source[kept]))]
    kept = kept[_place(source[kept]) < at_most]
    return kept[np.lexsort((-power[kept], source[kept], paths.receiver[kept]))]


def _place(pair: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of each path among those of its pair (or source), which stand together."""
    new = np.flatnonzero(np.r_[True, pair[1:] != pair[:-1]]) if len(pair) else np.empty(0, np.int64)
    return np.arange(len(pair)) - np.repeat(new, np.diff(np.r_[new, len(pair)]))
