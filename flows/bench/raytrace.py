"""`wavecity bench raytrace`: Sionna's own solver and ours on the same real tiles, and the speed of the whole stage.

1. Scenes are cut from the maps, evenly from each.
2. On every scene both solvers run, warm, one after the other in this process with all threads: time, paths, energy. With
   diffraction the stock solver has the corrected coefficient, so that energies can be compared.
3. On the first scene the stock solver runs in all its modes: as released, corrected, deterministic; and its memory.
4. If asked for, diffuse scattering from patches is compared with the stock solver's.
5. The whole stage, mesh to `Channels`, runs in fresh worker processes: users per second and memory.
"""

import gc
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import SupportsFloat, TypedDict

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.progress import track
from wavecity.flows.bench import diffuse
from wavecity.flows.bench.kernels import Kernels
from wavecity.flows.bench.measure import environment, median, print_figures, table_of
from wavecity.flows.bench.scenes import SEED, pick_scenes
from wavecity.flows.bench.stage import measure_stage
from wavecity.flows.bench.stock_modes import WARM_RAYS, ModeFigures, measure_modes, print_modes
from wavecity.flows.console import console
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.chains import find_chains
from wavecity.raytrace.device import rt
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.solver import ChainSolver, Paths
from wavecity.raytrace.stock import Comparison, compare, place_link, stock_table, trace_link
from wavecity.raytrace.world import build_world

PACKAGES = ("sionna-rt", "mitsuba", "drjit", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    scenes : int
        Scenes on which both solvers run.
    rays, depth : int
        Of both solvers.
    users : int
        Of every scene.
    diffraction : bool
        First-order diffraction, in addition to specular reflection.
    maps : tuple of str
        `helsinki`, or paths of extracts.
    throughput_scenes : int
        Scenes for the speed of the whole stage.
    diffuse : bool
        Also diffuse scattering, on the same scenes.
    """

    scenes: int
    rays: int
    depth: int
    users: int
    diffraction: bool
    maps: tuple[str, ...]
    throughput_scenes: int
    diffuse: bool = False


class Energy(TypedDict):
    """Over users, in dB: energy difference of the paths that both found, and what paths that only ours found add.

    None if there is no such user.
    """

    energy_difference_median_db: float | None
    energy_difference_max_db: float | None
    energy_extra_median_db: float | None
    energy_extra_max_db: float | None


class SceneFigures(Energy):
    """Figures of one scene: an entry of `per_scene`."""

    scene: str
    city: str
    triangles: int
    users: int
    chains: int
    seconds_ours: float
    seconds_stock: float
    speedup: float
    paths_ours: int
    paths_stock: int
    no_edge: int
    missing: int
    duplicates: int
    stock_duplicates: int
    users_only_ours: int
    kernels_in_timed_runs_ours: int
    kernels_in_timed_runs_stock: int


class Solvers(Energy):
    """Figures of both solvers over all scenes."""

    scenes: int
    tiles: int
    speedup_median: float
    speedup_min: float
    speedup_max: float
    seconds_ours_median: float
    seconds_stock_median: float
    paths_ours: int
    paths_stock: int
    paths_no_edge: int
    paths_missing: int
    paths_duplicate: int
    paths_duplicate_stock: int
    users_only_ours: int
    kernels_in_timed_runs_ours: int
    kernels_in_timed_runs_stock: int


class Stage(TypedDict):
    """Figures of compiling, and of the whole stage."""

    compile_seconds_ours: float
    compile_seconds_stock: float
    kernels_compiled_after_first: int
    users_per_second_threads: float
    users_per_second_processes: float
    # A build has one process per core (`wavecity.flows.cluster`): that of the processes.
    users_per_second: float
    # The same with solver.tolerance 0.
    users_per_second_exhaustive: float
    peak_memory_mb: float
    peak_memory_growth_mb: float
    throughput_scenes: int


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        A map cannot be read or has no usable tile, or a worker ran out of memory.
    """
    wanted = max(options.scenes, options.throughput_scenes)
    with tempfile.TemporaryDirectory() as cache:
        scenes = pick_scenes(options.maps, wanted, options.users, Path(cache))
    rows: list[SceneFigures] = []
    comparisons: list[Comparison] = []
    ours, stock = Kernels(), Kernels()
    first = 0
    for scene in track(scenes[: options.scenes], "both solvers", unit="scenes"):
        row, comparison = compare_scene(scene, options, ours, stock)
        rows.append(row)
        comparisons.append(comparison)
        first = first or len(ours.compiled)
        # Worlds that linger would change what Dr.Jit compiles: a call to the only material there is gets inlined.
        gc.collect()

    modes = measure_modes(scenes[0], options.rays, options.depth, options.diffraction)
    rough = [
        diffuse.compare_scene(scene, options.rays)
        for scene in track(scenes[: options.scenes if options.diffuse else 0], "diffuse scattering", unit="scenes")
    ]
    traced = scenes[: options.throughput_scenes]
    solver = SolverSettings(max_depth=options.depth, rays=options.rays, diffraction=options.diffraction)
    cores = backend.usable_cores()
    threads = measure_stage(traced, solver, workers=1, threads=cores)
    processes = measure_stage(traced, solver, workers=cores, threads=1)
    exhaustive = measure_stage(traced, solver.model_copy(update={"tolerance": 0.0}), workers=cores, threads=1)

    figures = summary(rows, comparisons)
    stage: Stage = {
        "compile_seconds_ours": ours.seconds,
        "compile_seconds_stock": stock.seconds,
        "kernels_compiled_after_first": sum(ours.compiled[first:]),
        "users_per_second_threads": threads.users_per_second,
        "users_per_second_processes": processes.users_per_second,
        "users_per_second": processes.users_per_second,
        "users_per_second_exhaustive": exhaustive.users_per_second,
        "peak_memory_mb": max(threads.peak_mb, processes.peak_mb),
        "peak_memory_growth_mb": max(threads.growth_mb, processes.growth_mb),
        "throughput_scenes": len(traced),
    }
    print_result(figures, stage, rows, modes, cores)
    result: dict[str, object] = {
        **figures,
        **stage,
        **_settings(options),
        "per_scene": rows,
        "stock_modes": [asdict(mode) for mode in modes],
    }
    if options.diffuse:
        diffuse.print_diffuse(rough, options.rays)
        speedups = [row.speedup for row in rough if row.speedup is not None]
        result |= {
            "diffuse_speedup_median": median(speedups) if speedups else None,
            "diffuse_mean_db_max": max(abs(row.mean_db) for row in rough),
            "diffuse_per_scene": [asdict(row) | {"speedup": row.speedup} for row in rough],
        }
    return result


def compare_scene(scene: Scene, options: Options, ours: Kernels, stock: Kernels) -> tuple[SceneFigures, Comparison]:
    """Run ours, stock, ours on one scene, without LoS, after a run of each that is not counted; compare the paths.

    Parameters
    ----------
    scene : Scene
    options : Options
    ours, stock : Kernels
        Logs that go on from scene to scene.

    Returns
    -------
    dict
        The scene's row of the table.
    Comparison
    """
    world = build_world(scene.mesh, scene.size, RadioSettings())

    def run_ours(rays: int) -> Paths:
        solver = ChainSolver(max_depth=options.depth, rays=rays, los=False, diffraction=options.diffraction, seed=SEED)
        return solver(world, scene.bs_position, scene.users)

    def run_stock(rays: int) -> "rt.Paths":
        return trace_link(
            world, max_depth=options.depth, samples_per_src=rays, los=False, diffraction=options.diffraction
        )

    # The stock solver compiles a kernel for the position of every receiver.
    stock.run(lambda: place_link(world, scene.bs_position, scene.users))
    ours.run(lambda: run_ours(options.rays))
    stock.run(lambda: run_stock(WARM_RAYS))
    warm = len(ours.compiled), len(stock.compiled)
    # Before and after the stock solver: a machine that gets slower or faster meanwhile favours neither.
    found, before = ours.run(lambda: run_ours(options.rays))
    their, seconds_stock = stock.run(lambda: run_stock(options.rays))
    found, after = ours.run(lambda: run_ours(options.rays))
    seconds_ours = (before + after) / 2

    chains = find_chains(
        world, scene.bs_position, max_depth=options.depth, rays=options.rays, diffraction=options.diffraction
    )
    result = compare(stock_table(their, world), found, world, len(scene.users))
    row: SceneFigures = {
        "scene": scene.id,
        "city": scene.city,
        "triangles": len(world.surfaces.faces),
        "users": len(scene.users),
        "chains": len(chains),
        "seconds_ours": seconds_ours,
        "seconds_stock": seconds_stock,
        "speedup": seconds_stock / seconds_ours,
        "paths_ours": result.ours,
        "paths_stock": result.stock,
        "no_edge": result.no_edge,
        "missing": result.missing,
        "duplicates": result.duplicates,
        "stock_duplicates": result.stock_duplicates,
        "energy_difference_median_db": _figure(np.median, result.difference),
        "energy_difference_max_db": _figure(np.max, result.difference),
        "energy_extra_median_db": _figure(np.median, result.extra),
        "energy_extra_max_db": _figure(np.max, result.extra),
        "users_only_ours": result.users_only_ours,
        "kernels_in_timed_runs_ours": sum(ours.compiled[warm[0] :]),
        "kernels_in_timed_runs_stock": sum(stock.compiled[warm[1] :]),
    }
    return row, result


def summary(rows: list[SceneFigures], comparisons: list[Comparison]) -> Solvers:
    """Figures over all scenes; those of energy over all users."""
    speedup = np.array([row["speedup"] for row in rows])
    difference = np.concatenate([each.difference for each in comparisons])
    extra = np.concatenate([each.extra for each in comparisons])

    return {
        "scenes": len(rows),
        "tiles": len({row["scene"].partition("+")[0] for row in rows}),
        "speedup_median": float(np.median(speedup)),
        "speedup_min": float(speedup.min()),
        "speedup_max": float(speedup.max()),
        "seconds_ours_median": median(row["seconds_ours"] for row in rows),
        "seconds_stock_median": median(row["seconds_stock"] for row in rows),
        "paths_ours": sum(row["paths_ours"] for row in rows),
        "paths_stock": sum(row["paths_stock"] for row in rows),
        "paths_no_edge": sum(row["no_edge"] for row in rows),
        "paths_missing": sum(row["missing"] for row in rows),
        "paths_duplicate": sum(row["duplicates"] for row in rows),
        "paths_duplicate_stock": sum(row["stock_duplicates"] for row in rows),
        "energy_difference_median_db": _figure(np.median, difference),
        "energy_difference_max_db": _figure(np.max, difference),
        "energy_extra_median_db": _figure(np.median, extra),
        "energy_extra_max_db": _figure(np.max, extra),
        "users_only_ours": sum(row["users_only_ours"] for row in rows),
        "kernels_in_timed_runs_ours": sum(row["kernels_in_timed_runs_ours"] for row in rows),
        "kernels_in_timed_runs_stock": sum(row["kernels_in_timed_runs_stock"] for row in rows),
    }


def print_result(result: Solvers, stage: Stage, rows: list[SceneFigures], modes: list[ModeFigures], cores: int) -> None:
    """Print the tables of scenes and of the stock solver's modes, and the summary."""
    table = table_of(("scene",), ("faces", "chains", "ours s", "stock s", "faster", "paths ours", "stock", "no edge",
                                  "missing", "twice", "stock twice", "energy dB", "extra dB"))  # fmt: skip
    for row in rows:
        table.add_row(
            row["scene"],
            str(row["triangles"]),
            str(row["chains"]),
            f"{row['seconds_ours']:.3f}",
            f"{row['seconds_stock']:.2f}",
            f"{row['speedup']:.1f}x",
            str(row["paths_ours"]),
            str(row["paths_stock"]),
            str(row["no_edge"]),
            str(row["missing"]),
            str(row["duplicates"]),
            str(row["stock_duplicates"]),
            _decibel(row["energy_difference_max_db"]),
            _decibel(row["energy_extra_max_db"]),
        )
    console.print(table)
    console.print(
        "no edge: stock paths at edges that touching buildings do not have; missing: others that ours lacks; twice: found "
        "more than once. energy dB: difference over the paths that both found; extra dB: energy of paths that "
        "only ours found; both of the user with the most.",
        soft_wrap=True,
    )
    print_modes(modes)
    figures = {
        "speed-up": f"median {result['speedup_median']:.1f}x, least {result['speedup_min']:.1f}x",
        "paths": f"{result['paths_missing']} missing, {result['paths_duplicate']} twice "
        f"(stock: {result['paths_duplicate_stock']} twice)",
        "energy": f"difference of a user {_decibel(result['energy_difference_median_db'])} dB in the median, "
        f"{_decibel(result['energy_difference_max_db'])} dB at most; extra "
        f"{_decibel(result['energy_extra_median_db'])} and {_decibel(result['energy_extra_max_db'])} dB",
        "compiling": f"ours {stage['compile_seconds_ours']:.2f} s, stock {stage['compile_seconds_stock']:.2f} s; "
        f"{stage['kernels_compiled_after_first']} new kernels of ours after the first scene",
        "whole stage": f"{stage['users_per_second_threads']:.0f} users/s in one process, "
        f"{stage['users_per_second_processes']:.0f} users/s in {cores} "
        f"({stage['users_per_second_exhaustive']:.0f} with solver.tolerance 0)",
        "memory": f"{stage['peak_memory_mb']:.0f} MB per worker, "
        f"{stage['peak_memory_growth_mb']:.0f} MB more than after its first scene",
    }
    print_figures(figures)


def _settings(options: Options) -> dict[str, object]:
    """Settings of the measurement, and the machine."""
    chosen = backend.prepare()
    return {
        "rays": options.rays,
        "depth": options.depth,
        "users": options.users,
        "diffraction": options.diffraction,
        "los": False,
        "maps": ", ".join(Path(name).name for name in options.maps),
        "seed": SEED,
        "cores": backend.usable_cores(),
        "variant": chosen.variant,
        "llvm": Path(chosen.library).name,
        **environment(*PACKAGES),
    }


def _figure(of: Callable[[NDArray[np.float64]], SupportsFloat], values: NDArray[np.float64]) -> float | None:
    """A statistic of some values, None if there are none."""
    return float(of(values)) if len(values) else None


def _decibel(value: float | None) -> str:
    """A figure in dB with four decimals, `-` for None."""
    return "-" if value is None else f"{value:.4f}"
