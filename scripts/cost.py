"""How long the build of a published dataset takes with more workers: its own units, handed out by a simulated scheduler.

Usage: python scripts/cost.py STORE [--workers 1 2 8 64] [--plan 900] [--city 300] [--start 40] [--dispatch 2.5]
           [--bandwidth 400] [--check 0.02] [--slower 1.0]

Seconds of every unit (tracing and writing) and its bytes come from the receipts of the latest version. The simulation
hands units out in their order to workers that become free; one scheduler, which needs --dispatch ms a scene; one store,
which takes --bandwidth MB/s from all workers together. Planning takes --plan core-seconds, but no less than that of the
largest --city; workers need --start s before their first unit; validation takes --check core-seconds a scene. --slower
divides the seconds of the receipts: how much longer a unit took because its neighbours shared memory and caches.
"""

import argparse
import heapq
from pathlib import Path

from wavecity.dataset.files import read_json
from wavecity.flows.build_log import duration

Unit = tuple[float, float, int]


def units_of(store: Path) -> list[Unit]:
    """Seconds, bytes and scenes of every unit of the latest version."""
    version = (store / "latest.zarr").resolve().parent
    units = []
    for path in sorted((version / "receipts").glob("*.json")):
        receipt = read_json(path) or {}
        scenes = receipt["scenes"]
        seconds = sum(scene.get("seconds_scene", 0.0) + scene.get("seconds_raytrace", 0.0) for scene in scenes)
        units.append((seconds + receipt["seconds_write"], float(sum(receipt["sizes"].values())), len(scenes)))
    return units


def simulate(units: list[Unit], workers: int, start: float, dispatch: float, bandwidth: float) -> float:
    """Seconds until the last unit is stored.

    Parameters
    ----------
    units : list of (seconds, bytes, scenes)
    workers : int
    start : float
        Seconds before a worker takes its first unit.
    dispatch : float
        Seconds of the scheduler per scene; it does one thing at a time.
    bandwidth : float
        Bytes per second of the store; it serves one unit after the other.

    Examples
    --------
    >>> simulate([(10.0, 0.0, 16)] * 4, workers=2, start=5.0, dispatch=0.0, bandwidth=1e9)
    25.0
    """
    free = [start] * workers
    heapq.heapify(free)
    scheduler = store = 0.0
    for seconds, size, scenes in units:
        begin = heapq.heappop(free)
        scheduler = max(scheduler, begin) + scenes * dispatch
        # Written while it is traced; a store that does not keep up makes it wait.
        store = max(store, scheduler) + size / bandwidth
        heapq.heappush(free, max(scheduler + seconds, store))
    return max(free)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8, 64])
    parser.add_argument("--plan", type=float, default=900.0, help="core-seconds")
    parser.add_argument("--city", type=float, default=300.0, help="core-seconds of the city that takes longest")
    parser.add_argument("--start", type=float, default=40.0, help="s")
    parser.add_argument("--dispatch", type=float, default=2.5, help="ms a scene")
    parser.add_argument("--bandwidth", type=float, default=400.0, help="MB/s")
    parser.add_argument("--check", type=float, default=0.02, help="core-seconds a scene")
    parser.add_argument("--slower", type=float, default=1.0)
    options = parser.parse_args()
    units = [(seconds / options.slower, size, scenes) for seconds, size, scenes in units_of(options.store)]
    scenes = sum(unit[2] for unit in units)
    work = sum(unit[0] for unit in units)
    print(
        f"{scenes:,} scenes in {len(units):,} units: {work / 3600:.2f} core-hours, {sum(u[1] for u in units) / 1e9:.1f} GB"
    )
    print("| workers | plan | trace | validate | whole | times one worker |")
    print("|---:|---:|---:|---:|---:|---:|")
    one = 0.0
    for workers in options.workers:
        plan = max(options.plan / workers, options.city)
        trace = simulate(units, workers, options.start, options.dispatch / 1e3, options.bandwidth * 1e6)
        check = options.check * scenes / workers
        whole = plan + trace + check
        one = one or whole
        cells = [str(workers), *(duration(seconds) for seconds in (plan, trace, check, whole)), f"{one / whole:.1f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
