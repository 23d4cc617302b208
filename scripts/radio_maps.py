"""Radio maps against Sionna's `RadioMapSolver`: error and time, side by side.

Usage: python scripts/radio_maps.py [--map helsinki --map rio.osm.pbf ...] [--tiles 3] [--spacing 1] [--depth 3]
           [--samples 1e6 1e7 1e8] [--cache FOLDER]

Line of sight and reflections (Sionna's diffraction coefficient is wrong, see docs/diffraction.md). The truth of a cell is
the mean power at 4 x 4 points in it, by this package's path solver. Ours takes the one point in the middle of a cell,
Sionna's solver the rays that meet it. Cells with a building in them and those without a path are left out. One process,
two threads at most; CPU seconds, kernels compiled before.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real_tiles import scenes_of

from wavecity.flows.bench.scenes import SEED
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.device import rt
from wavecity.raytrace.radio_map import radio_map
from wavecity.raytrace.radio_map_settings import RadioMapSettings
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import panel_orientation
from wavecity.raytrace.world import World, build_world

Grid = NDArray[np.float64]
FINER = 4


def ours(scene: Scene, solver: SolverSettings, spacing: float) -> tuple[Grid, float]:
    """Power gain of every cell (nan in buildings), and CPU seconds."""
    begun = time.process_time()
    found = radio_map(scene, RadioSettings(), solver, RadioMapSettings(spacing=spacing), SEED)
    power = 10 ** (found.values["path_gain"].astype(np.float64) / 10)
    return np.where(found.values["path_gain"] <= solver.gain_floor, 0.0, power), time.process_time() - begun


def theirs(world: World, scene: Scene, depth: int, spacing: float, samples: int, seed: int) -> tuple[Grid, float]:
    """Power gain of every cell by Sionna's solver, row 0 north, and CPU seconds."""
    radio, sionna = RadioSettings(), world.scene
    sionna.tx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern=radio.pattern, polarization="V")
    sionna.rx_array = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
    place = [float(value) for value in scene.bs_position]
    sionna.add(rt.Transmitter("bs", place, orientation=list(panel_orientation(radio))))
    begun = time.process_time()
    try:
        found = rt.RadioMapSolver()(
            sionna,
            center=[0, 0, 1.5],
            orientation=[0, 0, 0],
            size=[scene.size, scene.size],
            cell_size=[spacing, spacing],
            samples_per_tx=samples,
            max_depth=depth,
            refraction=False,
            seed=seed,
        )
        power = np.asarray(found.path_gain.numpy(), np.float64)[0, ::-1]
    finally:
        sionna.remove("bs")
    return power, time.process_time() - begun


def error(power: Grid, truth: Grid, cells: NDArray[np.bool_]) -> str:
    """Errors in dB: of the mean over cells, in the median, at the 90th percentile; cells without a path."""
    here, right = power[cells], truth[cells]
    found = here > 0
    off = np.abs(10 * np.log10(here[found] / right[found]))
    mean = 10 * np.log10(here.mean() / right.mean())
    return f"{mean:+.2f} | {np.median(off):.2f} | {np.quantile(off, 0.9):.2f} | {100 * (~found).mean():.1f}"


def main() -> None:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--map", action="append", dest="maps")
    parser.add_argument("--tiles", type=int, default=3)
    parser.add_argument("--spacing", type=float, default=1.0)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--samples", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    backend.prepare()
    solver = SolverSettings(max_depth=options.depth, diffraction=False)
    scenes = scenes_of(options, 400)
    print("| tile | solver | CPU, s | mean, dB | median, dB | 90 %, dB | no path, % |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for number, scene in enumerate(scenes):
        if number == 0:
            ours(scene, solver, options.spacing)
        fine, _ = ours(scene, solver, options.spacing / FINER)
        cells = fine.reshape(len(fine) // FINER, FINER, -1, FINER)
        truth = cells.mean((1, 3))
        power, seconds = ours(scene, solver, options.spacing)
        shown = np.isfinite(truth) & (np.nan_to_num(truth) > 0) & np.isfinite(power)
        print(f"| {scene.id} | ours | {seconds:.1f} | {error(power, truth, shown)} |", flush=True)
        world = build_world(scene.mesh, scene.size, RadioSettings())
        theirs(world, scene, options.depth, options.spacing, 10_000, SEED)
        for samples in options.samples:
            power, seconds = theirs(world, scene, options.depth, options.spacing, int(samples), SEED)
            print(f"| | Sionna, {samples:.0e} rays | {seconds:.1f} | {error(power, truth, shown)} |", flush=True)


if __name__ == "__main__":
    main()
