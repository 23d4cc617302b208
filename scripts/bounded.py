"""The bounded search against the exhaustive one on real tiles: the paths that are kept, and the time of the trace stage.

Usage: python scripts/bounded.py [--tiles 40] [--map helsinki --map rio.osm.pbf ...] [--depth 4] [--rays 1000000]
           [--users 400] [--tolerance 40] [--no-diffraction] [--timed 8] [--rounds 3] [--cache FOLDER]

Both run on the same tiles in one process with one thread. A user is equal if its `max_paths` strongest paths are the
same: as many, with the same interactions, delays within 1e-12 s and gains within 0.1 %. Then the two take turns on the
first --timed tiles, and the median of the rounds' CPU times is printed.
"""

import time

import numpy as np
from numpy.typing import NDArray
from real_tiles import scenes_of, tracing_parser

from wavecity.flows.bench.scenes import SEED
from wavecity.geo.scene import Scene
from wavecity.raytrace import backend
from wavecity.raytrace.channels import Channels
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate


def equal_users(one: Channels, other: Channels) -> NDArray[np.bool_]:
    """Which users (U,) have the same kept paths."""
    # By delay, so that two paths of the same strength may change places.
    first, second = (np.argsort(channels.delay, axis=1, kind="stable") for channels in (one, other))

    def sorted_paths(channels: Channels, order: NDArray[np.int64]) -> tuple[NDArray[np.generic], ...]:
        tables = channels.delay, channels.gain
        delay, gain = (np.take_along_axis(table, order, axis=1) for table in tables)
        return delay, gain, np.take_along_axis(channels.interactions, order[..., None], axis=1)

    delay, gain, kinds = sorted_paths(one, first)
    other_delay, other_gain, other_kinds = sorted_paths(other, second)
    same = np.abs(delay - other_delay) <= 1e-12 + 1e-7 * delay
    same &= np.abs(gain - other_gain) <= 1e-3 * np.abs(gain)
    same &= (kinds == other_kinds).all(axis=2)
    equal: NDArray[np.bool_] = same.all(axis=1)
    return equal


def run(scene: Scene, solver: SolverSettings) -> tuple[Channels, float]:
    """Channels of a scene, and the CPU time."""
    start = time.process_time()
    channels = simulate(scene, RadioSettings(), solver, SEED)
    return channels, time.process_time() - start


def main() -> None:
    """Compare, and print the tables."""
    parser = tracing_parser(__doc__, tiles=40)
    parser.add_argument("--tolerance", type=float, default=SolverSettings().tolerance)
    parser.add_argument("--timed", type=int, default=8)
    options = parser.parse_args()
    backend.prepare(threads=1)
    scenes = scenes_of(options, options.users)
    bounded = SolverSettings(
        max_depth=options.depth,
        rays=options.rays,
        diffraction=not options.no_diffraction,
        tolerance=options.tolerance,
    )
    exhaustive = bounded.model_copy(update={"tolerance": 0.0})
    for solver in (bounded, exhaustive):
        run(scenes[0], solver)

    equal, difference, found = [], [], {"bounded": 0, "exhaustive": 0}
    for scene in scenes:
        few, every = run(scene, bounded)[0], run(scene, exhaustive)[0]
        equal.append(equal_users(few, every))
        difference.append(np.abs(few.path_gain - every.path_gain))
        found["bounded"] += int(few.n_paths.sum())
        found["exhaustive"] += int(every.n_paths.sum())
        if not equal[-1].all():
            print(f"{scene.id}: {(~equal[-1]).sum()} users differ, by up to {difference[-1].max():.4f} dB", flush=True)
    same, off = np.concatenate(equal), np.concatenate(difference)
    print("\n| tiles | users | with the same kept paths | within 0.01 dB | largest difference | paths found |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {len(scenes)} | {len(same):,} | {100 * same.mean():.3f} % | {100 * (off <= 0.01).mean():.3f} % "
        f"| {off.max():.4f} dB | {found['bounded']:,} of {found['exhaustive']:,} |"
    )
    if not options.timed:
        return
    print("\n| tile | exhaustive s | bounded s | faster |\n|---|---|---|---|")
    total = np.zeros(2)
    for scene in scenes[: options.timed]:
        rounds = [[run(scene, exhaustive)[1], run(scene, bounded)[1]] for _ in range(options.rounds)]
        seconds = np.median(rounds, axis=0)
        total += seconds
        print(f"| {scene.id} | {seconds[0]:.2f} | {seconds[1]:.2f} | {seconds[0] / seconds[1]:.2f} x |", flush=True)
    print(f"| all | {total[0]:.2f} | {total[1]:.2f} | {total[0] / total[1]:.2f} x |")


if __name__ == "__main__":
    main()
