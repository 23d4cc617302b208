"""How far Sionna RT 2.2.0's diffraction coefficient, and ours, are from the theory, and what that does to a dataset.

Usage: python scripts/diffraction.py [--tiles 8] [--map FILE ...] [--depth 4] [--smallest]

Prints a table of 300 receivers around a block against the NumPy UTD of the tests (tests/raytrace/utd.py); with --tiles, how far
the users without line of sight of so many tiles of each map (Helsinki's by default) moved; with --smallest, the smallest case
of Sionna's own solver.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "raytrace")]

from raytrace_helpers import SPEED_OF_LIGHT, box, real_scenes, world_of  # noqa: E402
from utd import coefficient, wedge_of_block  # noqa: E402

from wavecity.raytrace import sionna_private  # noqa: E402
from wavecity.raytrace.settings import RadioSettings, SolverSettings  # noqa: E402
from wavecity.raytrace.simulate import simulate  # noqa: E402
from wavecity.raytrace.solver import ChainSolver  # noqa: E402
from wavecity.raytrace.stock import place_link, stock_table, trace_link  # noqa: E402
from wavecity.raytrace.world import material_properties  # noqa: E402

HALF, HEIGHT = 20.0, 30.0
VACUUM_PERMITTIVITY = 8.8541878128e-12


def theirs() -> AbstractContextManager[object]:
    """Sionna's own coefficient within the block."""

    @contextmanager
    def unchanged() -> Iterator[None]:
        yield

    return mock.patch.object(sionna_private, "right_diffraction", unchanged)


def against_the_theory() -> None:
    """Print percentiles of the error in dB and rad, ours and theirs, for two materials."""
    source, rng = np.array([45.0, 30.0, 12.0]), np.random.default_rng(0)
    receivers = rng.uniform([-70, -70, 1.5], [70, 70, 40], (300, 3))
    receivers = receivers[(np.abs(receivers[:, :2]) > HALF + 2).any(axis=1)]
    print("material  coefficient    paths   dB: 50 %    90 %    99 %   rad: 50 %    90 %    99 %")
    for material in ("concrete", "metal"):
        radio = RadioSettings(wall_material=material, roof_material=material)
        world = world_of([(box(0, 0, 2 * HALF, 2 * HALF), HEIGHT)], radio)
        real, conductivity = material_properties("wall_material", material, radio.frequency)
        permittivity = real - 1j * conductivity / (2 * np.pi * radio.frequency * VACUUM_PERMITTIVITY)
        for name, block in (("ours", mock.MagicMock()), ("Sionna 2.2.0", theirs())):
            with block:
                paths = ChainSolver(1, 20_000, diffraction=True)(world, source, receivers)
            rows = np.flatnonzero(paths.types[:, 0] == sionna_private.DIFFRACTION)
            ratios = np.array([
                paths.coefficient[row]
                / coefficient(
                    wedge_of_block(paths.vertices[row, 0], HALF, HEIGHT, source), source, receivers[paths.receiver[row]],
                    SPEED_OF_LIGHT / radio.frequency, permittivity,
                )
                for row in rows
            ])  # fmt: skip
            decibels = np.percentile(np.abs(20 * np.log10(np.abs(ratios))), [50, 90, 99])
            radians = np.percentile(np.abs(np.angle(ratios)), [50, 90, 99])
            figures = "".join(f"{value:8.3f}" for value in (*decibels, *radians))
            print(f"{material:9} {name:13} {len(rows):6}  {figures}")


def in_tiles(count: int, maps: list[str], depth: int) -> None:
    """Print how much the path gain of users without line of sight differs, by tile and in all."""
    moved: list[float] = []
    solver = SolverSettings(rays=500_000, max_depth=depth, diffraction=True)
    with tempfile.TemporaryDirectory() as folder:
        for scene in (scene for name in maps for scene in real_scenes(name, Path(folder), count, 200)):
            right = simulate(scene, RadioSettings(), solver, 0)
            with theirs():
                wrong = simulate(scene, RadioSettings(), solver, 0)
            both = ~right.los & np.isfinite(right.path_gain) & np.isfinite(wrong.path_gain)
            moved += list(np.abs(right.path_gain - wrong.path_gain)[both])
            print(f"{scene.id}: {both.sum()} users without line of sight, median {np.median(moved):.2f} dB so far")
    counts, edges = np.histogram(moved, [0, 0.1, 0.3, 1, 3, 6, 10, 20, 100])
    print("dB:", ", ".join(f"{low:g} to {high:g}: {n}" for low, high, n in zip(edges, edges[1:], counts, strict=False)))
    print(
        f"{len(moved)} users: "
        + ", ".join(f"{share} %: {np.percentile(moved, share):.2f} dB" for share in (50, 90, 100))
    )


def smallest() -> None:
    """Print the field either side of a reflection boundary, of Sionna's own solver on one edge of metal."""
    radio = RadioSettings(wall_material="metal", roof_material="metal")
    world = world_of([(box(-50, -50, 100, 100), 400.0)], radio)
    source, wavelength = np.array([-6.0, 3.0, 220.0]), SPEED_OF_LIGHT / radio.frequency
    angles = np.radians(26.565 + np.array([-0.03, 0.03]))
    receivers = np.stack([9 * np.cos(angles), 9 * np.sin(angles), [220.0, 220.0]], axis=1)
    for corrected in (False, True):
        place_link(world, source, receivers)
        table = stock_table(trace_link(world, corrected, max_depth=1, diffraction=True), world)
        print("corrected" if corrected else "Sionna 2.2.0")
        for number in range(2):
            here = (table["receiver"] == number) & (table["length"] < 60)
            free = wavelength / (4 * np.pi * np.linalg.norm(receivers[number] - source))
            named = zip(table["types"][here, 0], table["coefficient"][here, 0] / free, strict=True)
            print(
                f"  receiver {number}:",
                ", ".join(f"{kind}: {value.real:+.3f}{value.imag:+.3f}j" for kind, value in named),
            )


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=0)
    parser.add_argument("--map", dest="maps", action="append", metavar="FILE")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--smallest", action="store_true")
    options = parser.parse_args()
    against_the_theory()
    if options.smallest:
        smallest()
    if options.tiles:
        in_tiles(options.tiles, options.maps or ["helsinki"], options.depth)


if __name__ == "__main__":
    main()
