"""CPU seconds of several base stations in one build, against as many builds of one.

    python scripts/base_stations_cost.py --scenes 3 --rounds 2

Each build is a process of its own, as a worker is: imports, compiled kernels, scenes, traced links, features. Builds come
in turns. A build of one has its base station where the build of several has it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

RULES = "scene.base_stations={rooftops: 1, street: 1, positions: [[0, 0, 40]]}"


def trace(scenes: int, maps: Path, station: int | None, changes: tuple[str, ...]) -> None:
    """Trace scenes with all base stations, or one of them; prints the seconds that took."""
    from wavecity.flows.planning import plan_scenes
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.scenes import scene_of
    from wavecity.flows.tracing import trace, trace_link
    from wavecity.geo.base_stations import place_others

    recipe = load_recipe("quickstart", (RULES, *changes))
    plan = plan_scenes(recipe, maps)
    before, made, users = used(), 0.0, 0
    for tile in plan.accepted[:scenes]:
        start = used()
        scene = scene_of(recipe, tile.id, maps)
        others = place_others(scene, plan.sources[tile.city], recipe.scene)
        made += used() - start
        users += len(scene.users)
        if station is None:
            trace(scene, recipe, others)
        elif station == 0:
            trace_link(scene, recipe)
        elif other := others[station - 1]:
            turned = recipe.model_copy(update={"radio": recipe.radio.model_copy(update={"azimuth": other.azimuth})})
            trace_link(replace(scene, bs_position=other.position), turned)
    took = {"all": used(), "imports and plan": before, "scenes": made, "links": used() - before - made}
    print(json.dumps(took | {"users": users}))


def used() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the builds in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--set", action="append", default=[], help="change of the recipe, KEY=VALUE")
    parser.add_argument("--station", help=argparse.SUPPRESS)
    given = parser.parse_args()
    maps = given.maps or Path(tempfile.mkdtemp())
    if given.station is not None:
        trace(given.scenes, maps, None if given.station == "all" else int(given.station), tuple(given.set))
        return
    for turn in range(given.rounds):
        took = {}
        for station in ("all", "0", "1", "2", "3"):
            command = [sys.executable, __file__, f"--scenes={given.scenes}", f"--maps={maps}", f"--station={station}"]
            command += [f"--set={change}" for change in given.set]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            took[station] = json.loads(run.stdout.splitlines()[-1])
            print(f"round {turn}, base station {station}: {took[station]}", flush=True)
        alone = [took[station] for station in ("0", "1", "2", "3")]
        for part in ("all", "imports and plan", "scenes", "links"):
            together, apart = took["all"][part], sum(of[part] for of in alone)
            print(
                f"{part}: {together:.1f} s in one build, {apart:.1f} s in four, ratio {together / apart:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
