"""Diffuse scattering from patches against Sionna's own solver: power of each receiver, and CPU time at equal error.

Usage: python scripts/diffuse.py [--receivers 100] [--rays 10000 100000 1000000]

In Sionna's simple_street_canyon and in a tile of Helsinki, first order, with the stock solver doing nothing else (no line of
sight, no reflection: its rays then fall on a lattice and are all scattered, which is the best that it can do). Errors are
those of a receiver's scattered power against patches of a third of the size. The last line has the rays shared by scattering
and reflection, as in a call for all paths.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "raytrace")]

from raytrace_helpers import real_scenes  # noqa: E402

from wavecity.geo.scene import Scene  # noqa: E402
from wavecity.raytrace import patches  # noqa: E402
from wavecity.raytrace.device import rt  # noqa: E402
from wavecity.raytrace.scattering import scattered_paths  # noqa: E402
from wavecity.raytrace.settings import RadioSettings, SolverSettings  # noqa: E402
from wavecity.raytrace.simulate import simulate  # noqa: E402
from wavecity.raytrace.stock import place_link, trace_link  # noqa: E402
from wavecity.raytrace.world import World, build_world, world_of  # noqa: E402

# Paths that the stock solver may keep at a time; receivers go in batches.
PATHS = 4_000_000
# A lobe that is neither the simplest nor symmetric.
ALPHA_R, ALPHA_I, LAMBDA = 4, 8, 0.7


def main() -> None:
    """Print a table for each scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receivers", type=int, default=100)
    parser.add_argument("--rays", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    given = parser.parse_args()
    for name, lobe, (world, source, receivers) in scenes(given.receivers):
        compare(f"{name}, {lobe}", world, source, receivers, given.rays)


def scenes(count: int) -> list[tuple[str, str, tuple[World, NDArray[np.float64], NDArray[np.float64]]]]:
    """Each scene, name of its lobe, source and receivers."""
    canyon, random = rt.load_scene(rt.scene.simple_street_canyon), np.random.default_rng(0)
    canyon.frequency = 28e9
    for material in canyon.radio_materials.values():
        material.scattering_coefficient, material.xpd_coefficient = 0.4, 0.1
        material.scattering_pattern = rt.BackscatteringPattern(alpha_r=ALPHA_R, alpha_i=ALPHA_I, lambda_=LAMBDA)
    street = random.uniform([-60, -8, 1.5], [60, 8, 1.5], (count, 3))
    found = [("street canyon", "backscattering", (world_of(canyon), np.array([-33.0, 2.0, 20.0]), street))]
    with tempfile.TemporaryDirectory() as folder:
        (tile,) = real_scenes("helsinki", Path(folder), 2, count)[1:]
    world = build_world(tile.mesh, tile.size, RadioSettings(scattering=0.4))
    added(tile)
    return [*found, ("Helsinki tile", "lambertian", (world, tile.bs_position, tile.users.astype(np.float64)))]


def added(tile: Scene) -> None:
    """Print by how much scattering changes the path gain of users with and without line of sight."""
    solver = SolverSettings(max_depth=3, rays=200_000)
    smooth = simulate(tile, RadioSettings(), solver, 0)
    rough = simulate(tile, RadioSettings(scattering=0.4), solver.model_copy(update={"diffuse": True}), 0)
    for label, users in (("with", smooth.los), ("without", ~smooth.los)):
        both = users & ~smooth.outage
        change = np.percentile((rough.path_gain - smooth.path_gain)[both], [10, 50, 90])
        new = int((users & smooth.outage & ~rough.outage).sum())
        print(
            f"{int(users.sum())} users {label} line of sight: {change.round(2)} dB (10, 50, 90 %); {new} reached by it alone"
        )


def compare(
    name: str, world: World, source: NDArray[np.float64], receivers: NDArray[np.float64], rays: list[int]
) -> None:
    """Print a line for each solver and, from a power law of the stock solver's error, the time that it needs for ours."""
    with finer(3):
        reference = ours(world, source, receivers)[0]
    print(f"\n{name}: {len(receivers)} receivers")
    print("solver               paths each   CPU s   error in dB: sum    RMS    90 %    largest")

    def line(solver: str, call: Callable[[], tuple[NDArray[np.float64], int]]) -> tuple[float, float]:
        call()  # compiles
        start = time.process_time()
        power, paths = call()
        seconds = time.process_time() - start
        reached = reference > 0
        error = np.abs(10 * np.log10(np.maximum(power[reached], 1e-30) / reference[reached]))
        rms, total = float(np.sqrt((error**2).mean())), 10 * np.log10(power.sum() / reference.sum())
        figures = f"{total:17.3f} {rms:6.3f} {np.percentile(error, 90):7.3f} {error.max():10.3f}"
        print(f"{solver:20} {paths / len(receivers):10.0f} {seconds:7.2f} {figures}", flush=True)
        return seconds, rms

    seconds, rms = line("patches", lambda: ours(world, source, receivers))
    found = [line(f"stock, {n:,} rays", lambda n=n: stock(world, source, receivers, n)) for n in rays]
    line("with reflections too", lambda: stock(world, source, receivers, rays[-1], alone=False))
    (before, error_before), (last, error_last) = found[-2:]
    if error_last >= error_before:
        print("the stock solver's error does not fall: it misses receivers")
        return
    slope = np.log(error_last / error_before) / np.log(last / before)
    needed = last * (rms / error_last) ** (1 / slope)
    print(f"at {rms:.3f} dB the stock solver would need {needed:.0f} s: {needed / seconds:.0f} times ours")


def finer(factor: float) -> AbstractContextManager[object]:
    """Patches of a fraction of the size within the block."""
    smaller = {name: getattr(patches, name) / factor for name in ("SIZE_PER_DISTANCE", "LARGEST")}
    return mock.patch.multiple(patches, **smaller)


def ours(world: World, source: NDArray[np.float64], receivers: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Power gain of each receiver, and the number of paths."""
    found = scattered_paths(world, source, receivers)
    return np.bincount(found.receiver, np.abs(found.coefficient.astype(np.complex128)) ** 2, len(receivers)), len(found)


def stock(
    world: World, source: NDArray[np.float64], receivers: NDArray[np.float64], rays: int, alone: bool = True
) -> tuple[NDArray[np.float64], int]:
    """The same by `PathSolver`, some receivers at a time; scattering alone, or together with reflection, as in use."""
    kinds = {"los": not alone, "specular_reflection": not alone, "diffuse_reflection": True, "max_depth": 1}
    power, count, step = [np.empty(0)], 0, max(1, PATHS // rays)
    for low in range(0, len(receivers), step):
        place_link(world, source, receivers[low : low + step])
        paths = trace_link(world, samples_per_src=rays, max_num_paths_per_src=rays * step, **kinds)
        amplitude = np.abs(paths.a[0].numpy() + 1j * paths.a[1].numpy())[:, 0, 0, 0].astype(np.float64)
        scattered = paths.valid.numpy()[:, 0] & (paths.interactions.numpy()[0, :, 0] == rt.InteractionType.DIFFUSE)
        power.append((amplitude**2 * scattered).sum(axis=1))
        count += int(scattered.sum())
    return np.concatenate(power), count


if __name__ == "__main__":
    main()
