"""What more carriers cost: one, two and three carriers on real tiles, in turns, and a run of each against all together.

Usage: python scripts/carriers.py [--tiles 4] [--map helsinki ...] [--depth 4] [--rays 1000000] [--users 400]
           [--no-diffraction] [--rounds 3] [--cache FOLDER]

CPU seconds of paths, fields and channels of 32 x 32 antennas, one thread, warm; the median of the rounds. Gains are compared
with those of a run of each carrier by itself.
"""

import time

import numpy as np
from real_tiles import scenes_of, tracing_parser

from wavecity.flows.bench.scenes import SEED
from wavecity.raytrace import backend
from wavecity.raytrace.settings import RadioSettings, SolverSettings
from wavecity.raytrace.simulate import simulate_bands

CARRIERS = (28.5e9, 3.5e9, 60e9)


def main() -> None:
    """Compare, and print the table."""
    options = tracing_parser(__doc__, tiles=4).parse_args()
    backend.prepare(threads=1)
    scenes = scenes_of(options, options.users)
    solver = SolverSettings(max_depth=options.depth, rays=options.rays, diffraction=not options.no_diffraction)
    radios = [RadioSettings(carriers=CARRIERS[:count]) for count in (1, 2, 3)]

    print("| tile | 1 carrier, s | 2 | 3 | a second one adds | users off by more than 0.01 dB | largest |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    total = np.zeros(len(radios))
    for scene in scenes:
        together = simulate_bands(scene, radios[-1], solver, SEED)
        alone = [simulate_bands(scene, radio, solver, SEED)[0][0] for radio in radios[-1].each]
        off = np.abs([one.path_gain - (channels.path_gain) for one, (channels, _) in zip(alone, together, strict=True)])
        rounds = []
        for _ in range(options.rounds):
            seconds = []
            for radio in radios:
                start = time.process_time()
                simulate_bands(scene, radio, solver, SEED)
                seconds.append(time.process_time() - start)
            rounds.append(seconds)
        found = np.median(rounds, axis=0)
        total += found
        row = " | ".join(f"{value:.2f}" for value in found)
        print(
            f"| {scene.id} | {row} | {found[1] / found[0] - 1:.0%} | {(off > 0.01).mean():.2%} | {off.max():.4f} dB |",
            flush=True,
        )
    row = " | ".join(f"{value:.2f}" for value in total)
    print(f"| all | {row} | {total[1] / total[0] - 1:.0%} | | |")


if __name__ == "__main__":
    main()
