"""Regeneration as users live it: the schedule fires, the map on the server became newer, only what it changed is redone."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import osmium
import pytest
from processes import wait_until
from pyproj import Geod
from servers import ENDED, ask, deploy, pool_worker, small_recipe, workers_of

from wavecity.dataset.checks.validate import validate
from wavecity.flows.bench.prefect_server import postgresql, prefect_server
from wavecity.geo.errors import InputError
from wavecity.geo.extract import find_helsinki

pytestmark = pytest.mark.system

HELSINKI = str(find_helsinki())
# What was edited later is missing in the older state.
DATE = datetime(2019, 3, 28, tzinfo=UTC)
# More than there are: no tile comes in for another one.
SCENES = 40
# It is many scenes, of which little is asked.
CHEAP = {"solver.rays": 5_000, "solver.max_depth": 1, "users.minimum": 8, "users.maximum": 10}


def is_newer_building(element: Any) -> bool:
    return element.is_way() and "building" in element.tags and element.timestamp > DATE


def newer_buildings() -> dict[int, list[tuple[float, float]]]:
    """Corners (longitude, latitude) of what the later state adds, read without our own reader."""
    return {
        element.id: [(node.lon, node.lat) for node in element.nodes if node.location.valid()]
        for element in osmium.FileProcessor(HELSINKI).with_locations()
        if is_newer_building(element)
    }


def write_state(path: Path, newest: bool) -> None:
    """The real extract as it is, or without the buildings that were edited after the date."""
    partial_path = path.with_name(f"new-{path.name}")
    with osmium.SimpleWriter(str(partial_path), header=osmium.io.Reader(HELSINKI).header()) as writer:
        for element in osmium.FileProcessor(HELSINKI):
            if newest or not is_newer_building(element):
                writer.add(element)
    partial_path.rename(path)


@contextmanager
def map_server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server on PostgreSQL, where there is one, with the pools and all deployments."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(postgresql())
        except InputError:
            database = None
        server = stack.enter_context(prefect_server(tmp_path, database))
        deploy(server)
        yield workers_of(server, tmp_path)


def ended(environment: dict[str, str], parameter: str) -> dict[str, list[dict[str, Any]]]:
    """Runs with a parameter of this name that have ended, by state."""
    found: dict[str, list[dict[str, Any]]] = {state: [] for state in ENDED}
    for run in ask(environment, "flow_runs/filter", {}):
        if parameter in run["parameters"] and run["state_type"] in ENDED:
            found[run["state_type"]].append(run)
    return found


def test_the_schedule_fires_and_a_newer_map_makes_a_new_version_that_is_trained_on(
    deployed: dict[str, str], tmp_path: Path
) -> None:
    added = newer_buildings()
    assert 3 < len(added) < 30
    write_state(tmp_path / "helsinki.osm.pbf", newest=False)
    regenerate = ask(deployed, "deployments/name/build-dataset/regenerate")
    assert [schedule["active"] for schedule in regenerate["schedules"]] == [False]
    logs = {pool: tmp_path / f"{pool}.log" for pool in ("cpu-pool", "gpu-pool")}

    def complaint() -> str:
        return "\n".join(log.read_text() for log in logs.values())

    with ExitStack() as stack:
        url = stack.enter_context(map_server(tmp_path / "served"))
        served = tmp_path / "served" / "helsinki.osm.pbf"
        (tmp_path / "helsinki.osm.pbf").rename(served)
        for pool, log in logs.items():
            stack.enter_context(pool_worker(deployed, pool, log))
        source = {"area.source": f"{url}/helsinki.osm.pbf", "area.scenes": SCENES, "store.unit": 4}
        recipe = small_recipe("small", **source, **CHEAP)
        schedule = {
            "active": True,
            "schedule": {"interval": 4, "anchor_date": datetime.now(UTC).isoformat()},
            "parameters": {"recipe": recipe, "refresh": True},
        }
        (schedule,) = ask(deployed, f"deployments/{regenerate['id']}/schedules", [schedule])

        versions = tmp_path / "stores" / "small" / "versions"
        wait_until((versions / "v1" / "published.json").is_file, 300, complaint)
        # The store is as it was after a run that found nothing new.
        runs = len(ended(deployed, "refresh")["COMPLETED"])
        wait_until(lambda: len(ended(deployed, "refresh")["COMPLETED"]) >= runs + 2, 300, complaint)
        assert [folder.name for folder in versions.iterdir()] == ["v1"]
        write_state(served, newest=True)
        wait_until((versions / "v2" / "published.json").is_file, 300, complaint)
        ask(deployed, f"deployments/{regenerate['id']}/schedules/{schedule['id']}", method="DELETE")
        wait_until(lambda: sum(map(len, ended(deployed, "dataset").values())) == 2, 600, complaint)
        builds, trainings = ended(deployed, "refresh"), ended(deployed, "dataset")
    assert not builds["FAILED"], complaint()
    assert not builds["CRASHED"], complaint()
    # The schedule is shorter than a build: those that would have run at the same time were not started.
    assert builds["CANCELLED"]

    assert validate(versions.parent).ok
    manifests = [json.loads((versions / name / "manifest.json").read_text())["sha256"] for name in ("v1", "v2")]
    assert {run["parameters"]["dataset"]["manifest"] for run in trainings["COMPLETED"]} == set(manifests), complaint()
    # Traced again: the tiles whose mesh is another one now. That is where the new buildings stand, and where heights that
    # nobody has tagged were taken from them.
    old, new = ({scene["scene_id"]: scene for scene in scenes(versions / name)} for name in ("v1", "v2"))
    traced = {name for name, scene in new.items() if scene["origin"].startswith("traced")}
    meshes = {name: scene["mesh_checksum"] for name, scene in old.items()}
    assert traced == {name for name, scene in new.items() if scene["mesh_checksum"] != meshes.get(name)}
    near = touched(versions / "v2", added)
    assert traced & near
    assert all(new[name]["provenance"]["height_sources"]["imputed"] > 0 for name in traced - near)
    assert len(traced) < len(new) / 2


def scenes(version: Path) -> list[dict[str, Any]]:
    receipts = [json.loads(path.read_bytes()) for path in (version / "receipts").iterdir()]
    return [scene for receipt in receipts for scene in receipt["scenes"]]


def touched(version: Path, buildings: dict[int, list[tuple[float, float]]]) -> set[str]:
    """Scenes whose square has a corner of one of the buildings within."""
    tiles = json.loads((version / "lineage.json").read_bytes())["tiles"]
    geod, found = Geod(ellps="WGS84"), set()
    for tile in tiles:
        if tile["status"] != "accepted":
            continue
        for corner in (corner for corners in buildings.values() for corner in corners):
            _, _, east = geod.inv(tile["longitude"], corner[1], corner[0], corner[1])
            _, _, north = geod.inv(corner[0], tile["latitude"], corner[0], corner[1])
            if max(east, north) < tile["size"] / 2:
                found.add(tile["id"])
    return found
