"""Diffuse scattering from patches against Sionna's own solver: the power of every receiver, and CPU time at equal error.

The stock solver does nothing else (no line of sight, no reflection), so that its rays fall on a lattice and are all
scattered: the best that it can do. Errors are those of a receiver's scattered power against patches of a third of the size
whose visible parts are known to a fifth of the error.
That both are equal in the mean is checked with the rays shared out at random by scattering and reflection, as in a call
for all paths, over several seeds.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from wavecity.flows.bench.measure import table_of
from wavecity.flows.console import console
from wavecity.geo.scene import Scene
from wavecity.raytrace import patches, shadows
from wavecity.raytrace.device import rt
from wavecity.raytrace.scattering import scattered_paths
from wavecity.raytrace.settings import RadioSettings
from wavecity.raytrace.stock import place_link, trace_link
from wavecity.raytrace.world import World, build_world

# Of all surfaces.
SCATTERING = 0.4
# By how much smaller the patches of the reference are; and how well it knows their visible parts.
FINER = 3
CLOSER: dict[str, Any] = {"TOLERANCE": 0.002, "NEGLIGIBLE": 1e-6, "LEVELS": (64, 256), "LIT_ANGLE": 2e-5}
# Paths that the stock solver may keep at a time; receivers go in batches.
STOCK_PATHS = 4_000_000
# Of the check of the mean.
SEEDS = 5
# dB by which a user's power may be off before it counts as missed: then errors follow no power law. And how far time is
# extrapolated.
MISSED, FAR = 30.0, 100.0
# Of the users' errors in dB.
MEASURES: dict[str, Callable[[NDArray[np.float64]], float]] = {
    "rms": lambda error: float(np.sqrt((error**2).mean())),
    "90 %": lambda error: float(np.quantile(error, 0.9)),
    "median": lambda error: float(np.median(error)),
    "largest": lambda error: float(error.max()),
}


@dataclass(frozen=True)
class DiffuseFigures:
    """Both ways on one scene; CPU time is that of all threads, warm.

    Attributes
    ----------
    scene : str
    users : int
        With scattered power; errors are theirs, in dB.
    paths_ours, paths_stock : float
        Per user.
    seconds_ours, seconds_stock : float
    errors_ours_db, errors_stock_db : dict
        Error of a user's power by `MEASURES`.
    sum_db : float
        Power of all users together, ours to that of the reference.
    mean_db, mean_error_db : float
        The same, ours to the stock solver's mean over `SEEDS` seeds, and the standard error of that.
    seconds_stock_equal : dict
        What the stock solver would need for our error, by each of `MEASURES`, by the power law through two numbers of rays;
        None if its error does not fall, if it misses users, or if that is more than `FAR` times what was measured.
    """

    scene: str
    users: int
    paths_ours: float
    paths_stock: float
    seconds_ours: float
    seconds_stock: float
    errors_ours_db: dict[str, float]
    errors_stock_db: dict[str, float]
    sum_db: float
    mean_db: float
    mean_error_db: float
    seconds_stock_equal: dict[str, float | None]

    def faster(self, measure: str) -> float | None:
        """How many times as fast, at equal error by one of `MEASURES`."""
        seconds = self.seconds_stock_equal[measure]
        return None if seconds is None else seconds / self.seconds_ours

    @property
    def speedup(self) -> float | None:
        """At equal RMS error."""
        return self.faster("rms")


def compare_scene(scene: Scene, rays: int) -> DiffuseFigures:
    """Both ways on a scene with rough surfaces (Lambertian)."""
    world = build_world(scene.mesh, scene.size, RadioSettings(scattering=SCATTERING))
    return compare(scene.id, world, scene.bs_position, scene.users.astype(np.float64), rays)


def compare(
    name: str, world: World, source: NDArray[np.float64], receivers: NDArray[np.float64], rays: int
) -> DiffuseFigures:
    """Both ways between a source and receivers.

    Parameters
    ----------
    name : str
    world : World
        Whose materials scatter.
    source : float64 (3,)
        Metres.
    receivers : float64 (R, 3)
    rays : int
        Of the stock solver; it also runs with a tenth of them.
    """
    with finer_patches(FINER), mock.patch.multiple(shadows, **CLOSER):
        reference = ours(world, source, receivers)[0]
    reached = reference > 0

    def error(power: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each user that is reached at all, in dB."""
        return np.abs(10 * np.log10(np.maximum(power[reached], 1e-30) / reference[reached]))

    (power, paths), seconds = _timed(lambda: ours(world, source, receivers))
    (few, _), seconds_few = _timed(lambda: stock(world, source, receivers, max(1, rays // 10)))
    # Compiled by now.
    start = time.process_time()
    many, stock_paths = stock(world, source, receivers, rays)
    seconds_many = time.process_time() - start
    sums = [stock(world, source, receivers, rays // 10, seed=seed, alone=False)[0].sum() for seed in range(SEEDS)]
    errors, errors_few, errors_many = (
        {name: measure(error(each)) for name, measure in MEASURES.items()} for each in (power, few, many)
    )

    def equal(measure: str) -> float | None:
        """CPU seconds of the stock solver for our error."""
        slope = np.log(errors_many[measure] / errors_few[measure]) / np.log(seconds_many / seconds_few)
        missed = measure == "rms" and errors_many["largest"] > MISSED
        more = (errors[measure] / errors_many[measure]) ** (1 / slope) if slope < 0 and not missed else np.inf
        return float(seconds_many * more) if more < FAR else None

    return DiffuseFigures(
        scene=name,
        users=int(reached.sum()),
        paths_ours=paths / len(receivers),
        paths_stock=stock_paths / len(receivers),
        seconds_ours=seconds,
        seconds_stock=seconds_many,
        errors_ours_db=errors,
        errors_stock_db=errors_many,
        sum_db=float(10 * np.log10(power.sum() / reference.sum())),
        mean_db=float(10 * np.log10(power.sum() / np.mean(sums))),
        mean_error_db=float(10 / np.log(10) * np.std(sums, ddof=1) / np.sqrt(SEEDS) / np.mean(sums)),
        seconds_stock_equal={measure: equal(measure) for measure in ("rms", "90 %", "median")},
    )


def finer_patches(factor: float) -> AbstractContextManager[object]:
    """Patches of a fraction of the size within the block."""
    smaller = {name: getattr(patches, name) / factor for name in ("SIZE_PER_DISTANCE", "LARGEST")}
    return mock.patch.multiple(patches, **smaller)


def ours(world: World, source: NDArray[np.float64], receivers: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Power gain of each receiver, and the number of paths."""
    found = scattered_paths(world, source, receivers)
    power = np.bincount(found.receiver, np.abs(found.coefficient.astype(np.complex128)) ** 2, len(receivers))
    return power.astype(np.float64), len(found)


def stock(
    world: World,
    source: NDArray[np.float64],
    receivers: NDArray[np.float64],
    rays: int,
    seed: int = 1,
    alone: bool = True,
) -> tuple[NDArray[np.float64], int]:
    """The same by `PathSolver`, some receivers at a time; scattering alone, or together with reflection, as in use."""
    kinds: dict[str, Any] = {
        "los": not alone,
        "specular_reflection": not alone,
        "diffuse_reflection": True,
        "max_depth": 1,
        "seed": seed,
    }
    power, count, step = [np.empty(0)], 0, max(1, STOCK_PATHS // rays)
    for low in range(0, len(receivers), step):
        place_link(world, source, receivers[low : low + step])
        paths = trace_link(world, samples_per_src=rays, max_num_paths_per_src=rays * step, **kinds)
        amplitude = np.abs(paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0, 0].astype(np.float64)
        scattered = paths.valid.numpy()[:, 0] & (paths.interactions.numpy()[0, :, 0] == rt.InteractionType.DIFFUSE)
        power.append((amplitude**2 * scattered).sum(axis=1))
        count += int(scattered.sum())
    return np.concatenate(power), count


def _timed(call: Callable[[], tuple[NDArray[np.float64], int]]) -> tuple[tuple[NDArray[np.float64], int], float]:
    """Result and CPU seconds of a second call; the first one compiles."""
    call()
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def print_diffuse(rows: list[DiffuseFigures], rays: int) -> None:
    """Print the table of scenes, and what its columns mean."""
    numbers = ("users", "paths ours", "stock", "ours s", "stock s", "ours dB", "stock dB", "sum dB", "mean dB", "equal s",
               "faster")  # fmt: skip
    table = table_of(("diffuse",), numbers)
    for row in rows:
        table.add_row(
            row.scene,
            str(row.users),
            f"{row.paths_ours:.0f}",
            f"{row.paths_stock:.0f}",
            f"{row.seconds_ours:.2f}",
            f"{row.seconds_stock:.2f}",
            _listed(row.errors_ours_db.values(), ".3f"),
            _listed(row.errors_stock_db.values(), ".3f"),
            f"{row.sum_db:.3f}",
            f"{row.mean_db:.3f} ± {row.mean_error_db:.3f}",
            _listed(row.seconds_stock_equal.values(), ".1f"),
            _listed((row.faster(measure) for measure in row.seconds_stock_equal), ".0f"),
        )
    console.print(table)
    console.print(
        f"Scattered power; the stock solver with {rays:,} rays. s: CPU time; dB: error of a user, {', '.join(MEASURES)}, "
        f"against finer patches. sum dB: power of all users, against the same; mean dB: against the stock solver's mean over "
        f"{SEEDS} seeds, with its standard error. equal s: what the stock solver would need for our error by the first three; "
        "faster: that by ours.",
        soft_wrap=True,
    )


def _listed(values: Iterable[float | None], form: str) -> str:
    """Numbers in one cell of the table."""
    return " ".join("-" if value is None else format(value, form) for value in values)
