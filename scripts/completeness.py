"""Paths that ours lacks, and that only ours finds, against Sionna RT's own solver in one of its large scenes.

Usage: python scripts/completeness.py munich|etoile|florence|san_francisco [--diffraction] [--receivers 200] [--seed 0]

The transmitter stands 5 m above the roof nearest the middle of the scene, the receivers are drawn outdoors at street level
within 250 m. Both solvers shoot the same number of rays. Prints one row of a table: distinct stock paths; those at edges
that touching buildings do not have; of the others those that ours lacks above --floor dB of their user's total, the
strongest of these, and those below; paths that only ours finds, and how many of these are confirmed in float64, by the
mirror law, Keller's law and a clear way, or else by the image method of tests/raytrace/image_method.py; of the rest those
that it finds for a receiver 2 mm aside, or from 1 or 2 mm outside the edge (rounding decides), and those that it refutes.
--keep FOLDER saves the stock paths, or uses those saved there.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "raytrace")]

from image_method import ImageMethod  # noqa: E402

from wavecity.raytrace.device import SionnaScene, dr, load_rows, mi, rt  # noqa: E402
from wavecity.raytrace.solver import ChainSolver, Paths  # noqa: E402
from wavecity.raytrace.stock import (  # noqa: E402
    Table,
    at_no_edge,
    partners,
    place_link,
    planes_met,
    stock_repeats,
    stock_table,
    trace_link,
)
from wavecity.raytrace.world import World, world_of  # noqa: E402

# Mesh of the ground in each scene.
GROUND = {"munich": "ground", "etoile": "Plane", "florence": "ground", "san_francisco": "Terrain"}
RADIUS, HEIGHT, MAST = 250.0, 1.5, 5.0
FREQUENCY = 28e9

# Metres: of a vertex from its face or edge; of a way cleared at both ends. And how far a sine or cosine may be off.
ON_SURFACE, CLEARANCE, LAW = 1e-2, 5e-3, 1e-4


@dataclass(frozen=True)
class Link:
    """A world with a transmitter and receivers in it."""

    world: World
    source: NDArray[np.float64]
    users: NDArray[np.float64]


def link(name: str, receivers: int, seed: int) -> Link:
    """Load a scene and draw the two ends."""
    scene = rt.load_scene(getattr(rt.scene, name))
    scene.frequency = FREQUENCY
    box = scene.mi_scene.bbox()
    centre = (np.array(box.min) + np.array(box.max)) / 2
    random = np.random.default_rng(seed)
    count = 10 * receivers
    radius, angle = RADIUS * np.sqrt(random.random(count)), random.uniform(0, 2 * np.pi, count)
    places = centre[:2] + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    height, outdoors = tops(scene, places, GROUND[name])
    roof = np.where(outdoors, np.inf, radius).argmin()
    source = np.array([*places[roof], height[roof] + MAST])
    users = np.column_stack([places, height + HEIGHT])[outdoors][:receivers]
    # In float32, as both solvers have them.
    return Link(world_of(scene), source.astype(np.float32).astype(float), users.astype(np.float32).astype(float))


def tops(scene: SionnaScene, places: NDArray[np.float64], ground: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Height of what is seen from above at places (N, 2), and whether it is the ground."""
    above = np.column_stack([places, np.full(len(places), 1000.0)])
    down = load_rows(mi.Vector3f, np.tile([0.0, 0.0, -1.0], (len(places), 1)))
    met = scene.mi_scene.ray_intersect(mi.Ray3f(load_rows(mi.Point3f, above), down))
    shape = dr.reinterpret_array(mi.UInt, met.shape).numpy()
    numbers = {s.id(): int(dr.reinterpret_array(mi.UInt, mi.ShapePtr(s))[0]) for s in scene.mi_scene.shapes()}
    ground_number = next(number for key, number in numbers.items() if ground in key)
    return np.asarray(met.p.numpy(), np.float64)[2], shape == ground_number


def stock(at: Link, rays: int, depth: int, diffraction: bool) -> Table:
    """Distinct paths of the stock solver, with the right coefficient of diffraction."""
    place_link(at.world, at.source, at.users)
    paths = trace_link(at.world, max_depth=depth, samples_per_src=rays, diffraction=diffraction)
    table = stock_table(paths, at.world)
    own = ~stock_repeats(table)
    return {name: column[own] for name, column in table.items()}


def confirmed(at: Link, paths: Paths) -> NDArray[np.bool_]:
    """Whether each path obeys geometrical optics: on its faces and edges, mirror and Keller's law, nothing in the way."""
    surfaces = at.world.surfaces
    good = np.ones(len(paths), bool)
    present = paths.types > 0
    last = at.users[paths.receiver]
    stops = np.concatenate([np.broadcast_to(at.source, last.shape)[:, None], paths.vertices, last[:, None]], axis=1)
    for position in reversed(range(paths.types.shape[1])):
        stops[:, position + 1] = np.where(present[:, position, None], stops[:, position + 1], stops[:, position + 2])
    for position in range(paths.types.shape[1]):
        row = np.flatnonzero(present[:, position])
        before, here, after = (stops[row, position + step] for step in range(3))
        arriving, leaving = unit(here - before), unit(after - here)
        element = paths.elements[row, position]
        is_edge = element >= surfaces.planes
        edge = np.where(is_edge, element - surfaces.planes, 0)
        along, place = surfaces.edge_direction[edge], here - surfaces.edge_origin[edge]
        foot = (place * along).sum(axis=1)
        aside = np.linalg.norm(place - foot[:, None] * along, axis=1)
        keller = np.abs(((leaving - arriving) * along).sum(axis=1)) < LAW
        keller &= (aside < ON_SURFACE) & (foot > -ON_SURFACE) & (foot < surfaces.edge_length[edge] + ON_SURFACE)
        triangle = surfaces.vertices[surfaces.faces[paths.faces[row, position]]]
        normal = unit(np.cross(triangle[:, 1] - triangle[:, 0], triangle[:, 2] - triangle[:, 0]))
        turned = arriving - 2 * (arriving * normal).sum(axis=1)[:, None] * normal
        mirrors = (np.abs(turned - leaving).max(axis=1) < LAW) & (outside(here, triangle, normal) < ON_SURFACE)
        good[row] &= np.where(is_edge, keller, mirrors)
    steps = np.linalg.norm(np.diff(stops, axis=1), axis=2)
    row, step = np.nonzero(steps > 2 * CLEARANCE)
    start, end = stops[row, step], stops[row, step + 1]
    way = unit(end - start)
    rays = mi.Ray3f(load_rows(mi.Point3f, start + CLEARANCE * way), load_rows(mi.Vector3f, way))
    rays.maxt = mi.Float((steps[row, step] - 2 * CLEARANCE).astype(np.float32))
    blocked = at.world.scene.mi_scene.ray_test(rays).numpy()
    good[row[blocked]] = False
    return good


def judged(at: Link, paths: Paths) -> Counter[str]:
    """How many paths the image method in float64 finds "valid", "marginal" and "invalid"."""
    images, met = ImageMethod(at.world), planes_met(at.world, paths.types, paths.faces)
    ends = at.users[paths.receiver]
    return Counter(images.judge(at.source, *path) for path in zip(ends, met, paths.vertices, strict=True))


def outside(
    point: NDArray[np.float64], triangle: NDArray[np.float64], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far in m points (N, 3) are off their triangles (N, 3, 3)."""
    off = np.abs(((point - triangle[:, 0]) * normal).sum(axis=1))
    for corner in range(3):
        side = unit(triangle[:, (corner + 1) % 3] - triangle[:, corner])
        off = np.maximum(off, -(np.cross(side, point - triangle[:, corner]) * normal).sum(axis=1))
    return off


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (N, 3) of length 1."""
    scaled: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    return scaled


def main() -> None:
    """Compare, and print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", choices=GROUND)
    parser.add_argument("--diffraction", action="store_true")
    parser.add_argument("--receivers", type=int, default=200)
    parser.add_argument("--rays", type=int, default=1_000_000)
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--floor", type=float, default=-60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    at = link(options.scene, options.receivers, options.seed)
    name = "-".join(map(str, (options.scene, options.diffraction, options.receivers, options.rays, options.seed)))
    kept = options.keep / f"{name}-{options.depth}.npz" if options.keep else None
    if kept and kept.exists():
        theirs = dict(np.load(kept))
    else:
        theirs = stock(at, options.rays, options.depth, options.diffraction)
        if kept:
            np.savez(kept, **theirs)
    solver = ChainSolver(options.depth, options.rays, diffraction=options.diffraction)
    ours = solver(at.world, at.source, at.users)
    partner = partners(theirs, ours, at.world)
    lost = np.flatnonzero(partner < 0)
    seams = at_no_edge({column: values[lost] for column, values in theirs.items()}, at.world)
    lost = lost[~seams]
    energy = np.abs(theirs["coefficient"][:, 0].astype(np.complex128)) ** 2
    count = len(at.users)
    total = np.bincount(ours.receiver, np.abs(ours.coefficient.astype(np.complex128)) ** 2, count)
    # The field of a path that ours lacks is the stock solver's.
    total += np.bincount(theirs["receiver"][lost], energy[lost], count)
    relative = 10 * np.log10(energy[lost] / total[theirs["receiver"][lost]])
    above = relative > options.floor
    own = np.setdiff1d(np.arange(len(ours)), partner)
    sound = confirmed(at, ours.select(own))
    verdicts = judged(at, ours.select(own[~sound]))
    strongest = f"{relative.max():.0f} dB" if len(lost) else ""
    print(
        f"| {options.scene} | {'yes' if options.diffraction else 'no'} | {len(partner):,} | {seams.sum():,} "
        f"| {above.sum()} | {(~above).sum()} | {strongest} | {len(own):,} "
        f"| {sound.sum() + verdicts['valid']:,} | {verdicts['marginal']} | {verdicts['invalid']} |"
    )


if __name__ == "__main__":
    main()
