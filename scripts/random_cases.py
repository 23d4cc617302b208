"""Random transmitters and receivers in Sionna RT's own scenes: `ChainPathSolver` against the stock solver, path by path.

Usage: python scripts/random_cases.py --out cases.jsonl [--cases 500] [--only 17 18] [--table]

Both solvers get the same case, the stock one with the coefficient of diffraction corrected; tests/raytrace/path_by_path.py
compares their paths and explains the differences. The file has one line a case; a second call continues it. --table only
prints.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "raytrace")]

from path_by_path import aids, compare  # noqa: E402

from wavecity.raytrace.device import mi, rt  # noqa: E402
from wavecity.raytrace.world import World, world_of  # noqa: E402

# How many of 500 cases each scene gets. "empty" is `load_scene()`.
SCENES = {
    "munich": 110, "florence": 80, "etoile": 90, "san_francisco": 20, "simple_street_canyon": 50,
    "simple_street_canyon_with_cars": 40, "box": 20, "box_knife": 15, "box_one_screen": 10, "box_two_screens": 10,
    "floor_wall": 10, "simple_wedge": 10, "double_reflector": 5, "triple_reflector": 5, "simple_reflector": 15, "empty": 10,
}  # fmt: skip
KINDS = ("street", "street", "street", "street", "one receiver", "1 cm", "inside", "on a wall", "above everything")
OPTIONS: tuple[dict[str, Any], ...] = (
    {"max_depth": 3, "refraction": False},
    {"max_depth": 3, "refraction": False, "diffraction": True},
    {"max_depth": 2, "refraction": True, "diffraction": True},
    {"max_depth": 2, "refraction": False, "diffraction": True, "diffraction_lit_region": False},
    {"max_depth": 1, "refraction": True, "los": False},
)


def case_scene(number: int) -> str:
    """The scene of a case: 500 cases have each as often as listed, and the first few cases are a fair sample."""
    return str(np.repeat(list(SCENES), list(SCENES.values()))[number * 137 % sum(SCENES.values())])


def load(name: str) -> World:
    """One of Sionna's scenes at 28 GHz, except where one of its materials has no model there."""
    scene = rt.load_scene(None if name == "empty" else getattr(rt.scene, name))
    try:
        scene.frequency = 28e9
    except ValueError:
        scene.frequency = 3.5e9
    return world_of(scene)


def draw(number: int, world: World) -> dict[str, Any]:
    """Kind, options, transmitter and receivers of a case, which depend on its number alone."""
    random = np.random.default_rng([7, number])
    kind, options = KINDS[random.integers(len(KINDS))], OPTIONS[random.integers(len(OPTIONS))]
    count = 1 if kind == "one receiver" else int(random.integers(2, 7))
    places = Places(world, random)
    source = places.street(random.choice([1.5, 5.0, 15.0]))
    receivers = [places.street(1.5, source) for _ in range(count)]
    if kind == "1 cm":
        ways = random.normal(size=(count, 3))
        receivers = list(source + 0.01 * ways / np.linalg.norm(ways, axis=1)[:, None])
    elif kind == "inside":
        receivers[0] = places.inside(receivers[0])
        if random.random() < 0.3:
            source = places.inside(source)
    elif kind == "on a wall":
        receivers = [places.wall(receiver) for receiver in receivers]
    elif kind == "above everything":
        top = places.high[2] + random.uniform(1, 30, count)
        receivers = [np.r_[receiver[:2], height] for receiver, height in zip(receivers, top, strict=True)]
    return {"kind": kind, "options": options, "source": source, "receivers": np.array(receivers)}


class Places:
    """Random places of a scene."""

    def __init__(self, world: World, random: np.random.Generator) -> None:
        self.world, self.random = world, random
        vertices = world.surfaces.vertices
        self.low, self.high = np.full(3, -50.0), np.full(3, 50.0)
        if len(vertices):
            self.low, self.high = vertices.min(axis=0), vertices.max(axis=0)
        self.city = len(vertices) > 0 and self.high[2] > 20

    def first_hit(self, origin: np.ndarray, direction: tuple[float, float, float]) -> np.ndarray | None:
        """Where a ray meets the scene."""
        ray = mi.Ray3f(mi.Point3f(*origin.tolist()), mi.Vector3f(*map(float, direction)))
        met = self.world.scene.mi_scene.ray_intersect(ray)
        return np.array(met.p).ravel() if met.is_valid()[0] else None

    def street(self, height: float, near: np.ndarray | None = None) -> np.ndarray:
        """A place this high over the lowest surface, under the open sky; of small scenes anywhere within."""
        if not self.city:
            margin = 2.0 if (self.high - self.low).min() < 0.5 else -0.05
            return self.random.uniform(self.low - margin, self.high + margin)
        for _ in range(1000):
            middle, half = (self.low + self.high)[:2] / 2, 0.35 * (self.high - self.low)[:2]
            if near is not None:
                middle, half = near[:2], np.full(2, 60.0)
            place = np.r_[self.random.uniform(middle - half, middle + half), self.high[2] + 10]
            ground = self.first_hit(place, (0, 0, -1))
            if ground is not None and self.first_hit(ground - [0, 0, 0.1], (0, 0, -1)) is None:
                return np.array([ground[0], ground[1], ground[2] + height])
        raise RuntimeError("no open place found")

    def inside(self, place: np.ndarray) -> np.ndarray:
        """Under a roof, if one is found."""
        for _ in range(200 if self.city else 0):
            top = np.r_[place[:2] + self.random.uniform(-80, 80, 2), self.high[2] + 10]
            roof = self.first_hit(top, (0, 0, -1))
            if roof is not None and self.first_hit(roof - [0, 0, 0.1], (0, 0, -1)) is not None:
                return roof - [0, 0, min(1.0, (roof[2] - self.low[2]) / 2)]
        return place

    def wall(self, place: np.ndarray) -> np.ndarray:
        """Where a level ray from the place meets the scene, to the last bit of float32."""
        turn = self.random.uniform(0, 2 * np.pi)
        wall = self.first_hit(place, (np.cos(turn), np.sin(turn), 0.0))
        return place if wall is None else wall


def run(out: Path, cases: list[int]) -> None:
    """Solve the cases that the file lacks and append a line for each."""
    done = {json.loads(line)["case"] for line in out.read_text().splitlines()} if out.exists() else set()
    name, world = None, None
    with out.open("a") as file:
        # A scene is loaded once for each hundred cases; the file is a fair sample after each.
        for number in sorted(set(cases) - done, key=lambda number: (number // 100, case_scene(number), number)):
            if case_scene(number) != name:
                name = case_scene(number)
                world = load(name)
                common = aids(world)
            assert world is not None
            case = draw(number, world) | common
            line = {"case": number, "scene": str(name), "kind": case["kind"], "options": case["options"]}
            try:
                line |= compare(world, case)
            except Exception as error:  # a crash is a finding
                line |= {"crash": f"{type(error).__name__}: {error}"[:300]}
            file.write(json.dumps(line) + "\n")
            file.flush()


def report(out: Path) -> None:
    """Print one row for each class, then one for each scene."""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    paths, cases = Counter(), Counter()
    for line in lines:
        paths.update(line.get("classes", {}))
        cases.update(line.get("classes", {}).keys())
    print(f"{len(lines)} cases, {sum('crash' in line for line in lines)} crashes\n")
    print("| class | paths | cases |\n|---|---|---|")
    for name, count in paths.most_common():
        print(f"| {name} | {count:,} | {cases[name]} |")
    print("\n| scene | cases | crashes | paths: ours | stock | cases with a difference | unexplained paths |")
    print("|---|---|---|---|---|---|---|")
    for scene in SCENES:
        mine = [line for line in lines if line["scene"] == scene]
        columns = [
            len(mine),
            sum("crash" in line for line in mine),
            sum(line.get("ours", 0) for line in mine),
            sum(line.get("stock", 0) for line in mine),
            sum(set(line.get("classes", {})) > {"the same"} for line in mine),
            sum(line.get("classes", {}).get("unexplained", 0) for line in mine),
        ]
        print(f"| {scene} | " + " | ".join(f"{value:,}" for value in columns) + " |")


def main() -> None:
    """Solve what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a case")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases")
    parser.add_argument("--table", action="store_true", help="only print")
    options = parser.parse_args()
    if not options.table:
        run(options.out, options.only or list(range(options.cases)))
    report(options.out)


if __name__ == "__main__":
    main()
