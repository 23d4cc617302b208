"""Accuracy and cost of diffuse scattering, and how much it matters.

Usage: python scripts/diffuse.py [canyon] [tile] [maps] [added] [--receivers 200] [--rays 1000000] [--map helsinki ...]

All four, or some of them: Sionna's simple_street_canyon with a backscattering lobe and some power in the other polarisation,
a tile of Helsinki, and one tile of each map with 100 users, each compared as in `wavecity bench raytrace --diffuse`; and by
how much scattering changes the path gain of users in the tile of Helsinki.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "raytrace")]

from raytrace_helpers import real_scenes  # noqa: E402

from wavecity.flows.bench.diffuse import SCATTERING, DiffuseFigures, compare, compare_scene, print_diffuse  # noqa: E402
from wavecity.flows.bench.scenes import pick_scenes  # noqa: E402
from wavecity.geo.scene import Scene  # noqa: E402
from wavecity.raytrace.device import rt  # noqa: E402
from wavecity.raytrace.settings import RadioSettings, SolverSettings  # noqa: E402
from wavecity.raytrace.simulate import simulate  # noqa: E402
from wavecity.raytrace.world import world_of  # noqa: E402

# A lobe that is neither the simplest nor symmetric.
ALPHA_R, ALPHA_I, LAMBDA, XPD = 4, 8, 0.7, 0.1
PARTS = ["canyon", "tile", "maps", "added"]
# Of each tile of a map.
USERS = 100


def main() -> None:
    """Print the table and the changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="part", help=", ".join(PARTS))
    parser.add_argument("--receivers", type=int, default=200)
    parser.add_argument("--rays", type=int, default=1_000_000)
    parser.add_argument("--map", action="append", help="helsinki, or an extract; may be repeated")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (tile,) = real_scenes("helsinki", Path(folder), 2, given.receivers)[1:]
        if "canyon" in given.parts:
            rows.append(canyon(given.receivers, given.rays))
        if "tile" in given.parts:
            rows.append(compare_scene(tile, given.rays))
        if "maps" in given.parts:
            maps = tuple(given.map or ["helsinki"])
            rows += [compare_scene(scene, given.rays) for scene in pick_scenes(maps, len(maps), USERS, Path(folder))]
    if rows:
        print_diffuse(rows, given.rays)
    if "added" in given.parts:
        added(tile)


def canyon(receivers: int, rays: int) -> DiffuseFigures:
    """Both ways in the street canyon."""
    scene = rt.load_scene(rt.scene.simple_street_canyon)
    scene.frequency = 28e9
    for material in scene.radio_materials.values():
        material.scattering_coefficient, material.xpd_coefficient = SCATTERING, XPD
        material.scattering_pattern = rt.BackscatteringPattern(alpha_r=ALPHA_R, alpha_i=ALPHA_I, lambda_=LAMBDA)
    street = np.random.default_rng(0).uniform([-60, -8, 1.5], [60, 8, 1.5], (receivers, 3))
    return compare("street canyon", world_of(scene), np.array([-33.0, 2.0, 20.0]), street, rays)


def added(tile: Scene) -> None:
    """Print by how much scattering changes the path gain of users with and without line of sight."""
    solver = SolverSettings(max_depth=3, rays=200_000)
    smooth = simulate(tile, RadioSettings(), solver, 0)
    rough = simulate(tile, RadioSettings(scattering=SCATTERING), solver.model_copy(update={"diffuse": True}), 0)
    for label, users in (("with", smooth.los), ("without", ~smooth.los)):
        both = users & ~smooth.outage
        change = np.percentile((rough.path_gain - smooth.path_gain)[both], [10, 50, 90])
        new = int((users & smooth.outage & ~rough.outage).sum())
        print(
            f"{int(users.sum())} users {label} line of sight: {change.round(2)} dB (10, 50, 90 %); {new} reached by it alone"
        )


if __name__ == "__main__":
    main()
