"""Sionna's `PathSolver` in all its modes on one scene: as released, with the coefficient of diffraction corrected, and with
`deterministic=True`, which keeps every pair of a ray and a receiver and so may want more memory than there is.

Every mode runs in a process of its own: its peak memory is its own, and one that is killed ends no benchmark.
"""

from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wavecity.dataset.progress import say, track
from wavecity.flows.bench.kernels import Kernels
from wavecity.flows.bench.measure import apart, table_of
from wavecity.flows.bench.memory import peak_memory
from wavecity.flows.bench.scenes import SEED
from wavecity.flows.console import console
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.solver import ChainSolver
from wavecity.raytrace.stock import compare, place_link, stock_table, trace_link
from wavecity.raytrace.world import build_world

# Enough to find paths of every kind, so that all kernels get compiled, in a fraction of the time and memory.
WARM_RAYS = 10_000
# Below this many users a mode that does not fit is given up.
FEWEST_USERS = 10


@dataclass(frozen=True)
class Mode:
    """A way to run the stock solver.

    Attributes
    ----------
    corrected : bool
        With the diffraction coefficient of `raytrace.utd`.
    deterministic : bool
        Of `sionna.rt.PathSolver`.
    """

    corrected: bool = False
    deterministic: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        words = [word for word in ("corrected", "deterministic") if getattr(self, word)]
        return " and ".join(words) or "as released"


@dataclass(frozen=True)
class ModeFigures:
    """One mode of the stock solver, and ours, on the same scene and users.

    Attributes
    ----------
    mode : str
    users : int
        As many as fitted into memory.
    seconds_ours, seconds_stock : float
        Warm, without compiling.
    memory_ours_mb, memory_stock_mb : float
        By how much the solver raised the peak of its process, compiling included.
    paths_ours, paths_stock : int
        Without the stock solver's own duplicates.
    missing, stock_missing : int
        Paths of the one that the other lacks.
    no_edge : int
        Paths of the stock solver at edges that touching buildings do not have.
    stock_duplicates : int
    energy_difference_max_db : float or None
        Of the user with the most, over the paths that both found.
    """

    mode: str
    users: int
    seconds_ours: float
    seconds_stock: float
    memory_ours_mb: float
    memory_stock_mb: float
    paths_ours: int
    paths_stock: int
    missing: int
    stock_missing: int
    no_edge: int
    stock_duplicates: int
    energy_difference_max_db: float | None


def modes_of(diffraction: bool) -> list[Mode]:
    """The modes that differ: the coefficient matters with diffraction only."""
    return [Mode(corrected, way) for way in (False, True) for corrected in ((False, True) if diffraction else (False,))]


def measure_modes(scene: Scene, rays: int, depth: int, diffraction: bool) -> list[ModeFigures]:
    """Run every mode, each with the users of the scene or half of them, and again half, until it fits into memory.

    Parameters
    ----------
    scene : Scene
    rays, depth : int
        Of both solvers.
    diffraction : bool

    Returns
    -------
    list of ModeFigures
        Without the modes that do not fit even with ten users.
    """
    found = []
    for mode in track(modes_of(diffraction), "the stock solver's modes", unit="modes"):
        users = len(scene.users)
        while users >= min(FEWEST_USERS, len(scene.users)):
            try:
                found.append(apart(run_mode, scene, mode, users, rays, depth, diffraction))
                break
            except (BrokenProcessPool, MemoryError):
                say(f"{mode.name}: {users} users and {rays:,} rays do not fit into memory; trying half as many users")
                users //= 2
    return found


def run_mode(scene: Scene, mode: Mode, users: int, rays: int, depth: int, diffraction: bool) -> ModeFigures:
    """Run ours and the stock solver in this process, ours first: it needs less, so each raises the peak by its own."""
    _die_first()
    backend.prepare()
    world = build_world(scene.mesh, scene.size, RadioSettings())
    receivers = scene.users[:users]
    kernels = Kernels()
    place_link(world, scene.bs_position, receivers)
    solver = ChainSolver(max_depth=depth, rays=rays, los=False, diffraction=diffraction, seed=SEED)
    start = peak_memory()
    kernels.run(lambda: solver(world, scene.bs_position, receivers))
    ours, seconds_ours = kernels.run(lambda: solver(world, scene.bs_position, receivers))
    between = peak_memory()

    def stock(samples: int) -> object:
        return trace_link(
            world, mode.corrected, mode.deterministic,
            max_depth=depth, samples_per_src=samples, los=False, diffraction=diffraction, seed=SEED,
        )  # fmt: skip

    kernels.run(lambda: stock(WARM_RAYS))
    theirs, seconds_stock = kernels.run(lambda: stock(rays))
    end = peak_memory()
    result = compare(stock_table(theirs, world), ours, world, users)
    return ModeFigures(
        mode=mode.name,
        users=users,
        seconds_ours=seconds_ours,
        seconds_stock=seconds_stock,
        memory_ours_mb=between - start,
        memory_stock_mb=max(end - start, 0.0),
        paths_ours=result.ours,
        paths_stock=result.stock,
        missing=result.missing,
        stock_missing=result.ours - (result.stock - result.missing - result.no_edge),
        no_edge=result.no_edge,
        stock_duplicates=result.stock_duplicates,
        energy_difference_max_db=float(np.max(result.difference)) if len(result.difference) else None,
    )


def _die_first() -> None:
    """Where memory runs out, this process is to be killed and no other: not the benchmark, not the terminal."""
    score = Path("/proc/self/oom_score_adj")
    if score.exists():
        score.write_text("1000")


def print_modes(rows: list[ModeFigures]) -> None:
    """Print the table of the modes, and what its columns mean."""
    numbers = ("users", "ours s", "stock s", "faster", "ours MB", "stock MB", "paths ours", "stock", "no edge",
               "missing", "only ours", "stock twice", "energy dB")  # fmt: skip
    table = table_of(("stock solver",), numbers)
    for row in rows:
        table.add_row(
            row.mode,
            str(row.users),
            f"{row.seconds_ours:.3f}",
            f"{row.seconds_stock:.2f}",
            f"{row.seconds_stock / row.seconds_ours:.1f}x",
            f"{row.memory_ours_mb:.0f}",
            f"{row.memory_stock_mb:.0f}",
            str(row.paths_ours),
            str(row.paths_stock),
            str(row.no_edge),
            str(row.missing),
            str(row.stock_missing),
            str(row.stock_duplicates),
            "-" if row.energy_difference_max_db is None else f"{row.energy_difference_max_db:.4f}",
        )
    console.print(table)
    console.print(
        "MB: by how much each raised the peak of its process. no edge: paths of the stock solver at edges that touching "
        "buildings do not have. missing: others that ours lacks.",
        soft_wrap=True,
    )
