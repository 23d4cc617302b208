import errno
import json
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import osmnx
import overpass_server as overpass
import pytest
import shapely
from geo_maps import LATITUDE, LONGITUDE, box, osm_xml
from overpass_server import Fault, OverpassServer, elements_of
from processes import PIPE, ROOT, Process, process

from wavecity.geo import network
from wavecity.geo.cities import City
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.overpass import boxes_of, missing_boxes
from wavecity.geo.settings import AreaSettings, CitySettings, OverpassSettings
from wavecity.geo.sources import Source, is_here, open_city, open_source

HOLLOW = ([box(-40, -40, 40, 40)[0], box(-10, -10, 10, 10)[0]], {"building": "yes", "height": "12"})
TOWN = [
    HOLLOW,
    (box(60, 0, 80, 20), {"building": "house", "building:levels": "3", "name": 'Ä & "B" <C>'}),
    (box(62, 2, 70, 10), {"building:part": "yes", "height": "14", "min_height": "3"}),
    (box(-600, 300, -580, 320), {"building": "yes"}),
]


@pytest.fixture
def town_file(tmp_path: Path) -> Path:
    path = tmp_path / "town.osm"
    path.write_text(osm_xml(TOWN, half=1000))
    return path


@pytest.fixture
def serve(town_file: Path) -> Iterator[Callable[..., OverpassServer]]:
    """`serve(*faults)` -> a server of the town that misbehaves in this order, then serves well."""
    with ExitStack() as stack:
        elements = elements_of(town_file)
        yield lambda *faults: stack.enter_context(OverpassServer(elements, list(faults)))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of every wait; the clock goes on by them, nobody really waits."""
    waited: list[float] = []
    real = network.clock

    def sleep(seconds: float) -> None:
        if seconds > 0:
            waited.append(seconds)

    monkeypatch.setattr(network, "sleep", sleep)
    monkeypatch.setattr(network, "clock", lambda: real() + sum(waited))
    return waited


def area_of(*servers: OverpassServer, radius: float = 500.0, cities: int = 0, **options: object) -> AreaSettings:
    asked = {"pause": 0.0, "timeout": 20.0, "box": 2500.0, "endpoints": tuple(server.endpoint for server in servers)}
    return AreaSettings(
        source="overpass",
        city="Town",
        latitude=None if cities else LATITUDE,
        longitude=None if cities else LONGITUDE,
        cities=tuple(
            CitySettings(name=f"Town {k}", latitude=LATITUDE, longitude=LONGITUDE + k, radius=radius)
            for k in range(cities)
        ),
        radius=radius,
        overpass=OverpassSettings.model_validate({**asked, **options}),
    )


def same_buildings(one: Source, other: Source) -> None:
    world = (-180.0, -90.0, 180.0, 90.0)
    # The boxes need not reach what lies outside and lacks nodes.
    first, second = (
        rows[rows["problem"] == ""].reset_index(drop=True) for rows in (one.buildings(world), other.buildings(world))
    )
    assert len(first) > 0
    for column in ("osm_type", "osm_id", "tags", "outline_of"):
        assert first[column].tolist() == second[column].tolist()
    # Normalised: where a ring begins is nobody's business. Exact to the last of OpenStreetMap's seven decimals.
    assert first.geometry.normalize().geom_equals_exact(second.geometry.normalize(), 1e-9).all()


def same_streets(one: Source, other: Source) -> None:
    west, south, east, north = one.bounds
    box = (
        max(west, other.bounds[0]),
        max(south, other.bounds[1]),
        min(east, other.bounds[2]),
        min(north, other.bounds[3]),
    )
    first, second = one.streets(box), other.streets(box)
    # A diagonal way's box may touch where the way itself does not: it is not asked for.
    second = second[second.intersects(shapely.box(*box))]
    assert len(second) > 0
    first = first[first["osm_id"].isin(second["osm_id"])]
    assert first["osm_id"].tolist() == second["osm_id"].tolist()
    assert first["tags"].tolist() == second["tags"].tolist()
    assert shapely.equals_exact(first.geometry.to_numpy(), second.geometry.to_numpy(), 1e-9).all()


def test_same_map_as_the_extract(tmp_path: Path, helsinki: Source, waits: list[float]) -> None:
    """Holes, relations, parts, outlines, tags and ids: asked in boxes, or read from the file."""
    west, south, east, north = helsinki.bounds
    with OverpassServer(elements_of(find_helsinki())) as server:
        area = area_of(server, radius=1300, box=1000).model_copy(
            update={"latitude": (south + north) / 2, "longitude": (west + east) / 2}
        )
        source = open_source(area, tmp_path)
    assert len(server.queries) == 9
    same_buildings(source, helsinki)
    same_streets(source, helsinki)
    assert source.statistics == helsinki.statistics
    # Elements that the extract names without a single node lie nowhere, so no box asks for them.
    assert source.provenance["counts"]["buildings"] == 446
    assert source.provenance["counts"]["parts"] == helsinki.provenance["counts"]["parts"]
    assert source.provenance["map_date"] == "2024-05-01T00:00:00Z"
    assert "OpenStreetMap" in source.provenance["licence"]


@pytest.mark.parametrize("name", ["los-angeles-ucla.osm", "sofia-centre.osm", "berlin-prenzlauer-berg.osm"])
def test_same_map_as_other_extracts(
    tmp_path: Path, shared_osm: Path, name: str, extract: Callable[[str], Source]
) -> None:
    known = extract(name)
    everything = known.buildings((-180, -90, 180, 90)).total_bounds
    with OverpassServer(elements_of(shared_osm / name)) as server:
        area = area_of(server, radius=3500, box=4000).model_copy(
            update={"latitude": everything[1::2].mean(), "longitude": everything[::2].mean()}
        )
        source = open_source(area, tmp_path)
    same_buildings(source, known)
    same_streets(source, known)


def test_a_way_that_repeats_its_relation_is_known(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    (outer,) = [e for e in server.by_key.values() if e["id"] == 100_000]
    outer["tags"] = {"building": "yes"}
    found = open_source(area_of(server), tmp_path).buildings((-180, -90, 180, 90)).set_index("osm_id")
    assert found.loc[100_000, "outline_of"] == 1000
    assert len(found.loc[1000].geometry.geoms[0].interiors) == 1


def test_boxes_cover_the_circle() -> None:
    """Against the ellipsoid's own geodesics."""
    from pyproj import Geod

    city = City("Town", "FI", "overpass", LATITUDE, LONGITUDE, 4000.0, 1)
    area = AreaSettings(overpass=OverpassSettings(box=2500))
    boxes = np.array(boxes_of(city, area))
    turns = np.linspace(0, 360, 73)
    for radius in (0.0, 1500.0, 4000.0):
        n = len(turns)
        x, y, _ = Geod(ellps="WGS84").fwd(np.full(n, LONGITUDE), np.full(n, LATITUDE), turns, np.full(n, radius))
        inside = (boxes[:, 0] <= x[:, None]) & (boxes[:, 2] >= x[:, None])
        inside &= (boxes[:, 1] <= y[:, None]) & (boxes[:, 3] >= y[:, None])
        assert inside.any(1).all()
    for west, south, east, north in boxes:
        assert Geod(ellps="WGS84").inv(west, south, east, south)[2] <= 2500
        assert Geod(ellps="WGS84").inv(west, south, west, north)[2] <= 2500
    assert len(boxes) == 16


def test_kept_answers_are_not_asked_for_again(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    area = area_of(server, radius=1500)
    (city,) = [City("Town", "FI", "overpass", LATITUDE, LONGITUDE, 1500.0, 1)]
    assert not is_here(city, area, tmp_path)
    seen: list[tuple[str, int, int]] = []
    first = open_city(city, area, tmp_path, lambda *step: seen.append(step))
    assert len(server.queries) == 4
    assert len(set(server.queries)) == 4
    assert seen[-1] == ("Town: Overpass", 4, 4)
    assert is_here(city, area, tmp_path)
    other = area_of(
        serve(), radius=1500, timeout=7.0, attempts=2
    )  # neither endpoint nor limits are part of the question
    assert open_city(city, other, tmp_path) == first
    assert len(server.queries) == 4
    assert pickle.loads(pickle.dumps(first)) == first


def test_a_damaged_kept_answer_is_asked_for_anew(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    area = area_of(server)
    city = City("Town", "FI", "overpass", LATITUDE, LONGITUDE, 500.0, 1)
    first = open_city(city, area, tmp_path)
    (kept,) = tmp_path.rglob("map_*.json")
    kept.write_text(kept.read_text()[:100])
    with pytest.raises(MapError, match=r"Town: the kept answer .*json is damaged and was removed: run again"):
        open_city(city, area, tmp_path)
    assert open_city(city, area, tmp_path) == first
    assert len(server.queries) == 2


def test_we_say_who_we_are(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    open_source(area_of(server), tmp_path)
    assert server.agents
    assert all(agent.startswith("wavecity/") for agent in server.agents)


def test_osmnx_is_left_as_it_was(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    def state() -> dict[str, object]:
        return {name: value for name, value in vars(osmnx.settings).items() if name.islower()}

    look_up, before = socket.getaddrinfo, state()
    open_source(area_of(serve()), tmp_path)
    with pytest.raises(MapError):
        open_source(area_of(serve(overpass.status(403))), tmp_path / "other")
    assert socket.getaddrinfo is look_up
    assert state() == before


def test_full_disk(tmp_path: Path, serve: Callable[..., OverpassServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while osmnx writes, which it does in place."""

    def half(*_: object) -> None:
        (Path(osmnx.settings.cache_folder) / "answer.json").write_text('{"elements": [')
        raise OSError(errno.ENOSPC, "No space left on device")

    server = serve()
    with monkeypatch.context() as full:
        full.setattr("osmnx._http._save_to_cache", half)
        with pytest.raises(InputError, match=r"^cache: .*No space left .*make room") as caught:
            open_source(area_of(server), tmp_path)
    assert not isinstance(caught.value, MapError)
    assert not list(tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.partial"))
    assert len(open_source(area_of(server), tmp_path).buildings((-180, -90, 180, 90))) == len(TOWN)


TIMEOUT_REMARK = 'runtime error: Query timed out in "query" at line 1 after 180 seconds.'
MEMORY_REMARK = "runtime error: Query run out of memory using about 2048 MB of RAM."
FAULTS: dict[str, Fault] = {
    "HTTP 429": overpass.status(429),
    "HTTP 504": overpass.status(504),
    "HTTP 500": overpass.status(500),
    "broke off": overpass.cut,
    "broke off ": overpass.cut_chunked,
    "no JSON": overpass.cut_unseen,
    "no JSON (cut, or a page of HTML)": overpass.says("<html>The server is probably too busy</html>"),
    "without elements": overpass.says("{}"),
    "without elements ": overpass.says("[]"),
    "timed out": overpass.remark(TIMEOUT_REMARK),
    "out of memory": overpass.remark(MEMORY_REMARK),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_what_can_pass_is_asked_again(
    tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float], town_file: Path, reason: str
) -> None:
    server = serve(FAULTS[reason], FAULTS[reason])
    source = open_source(area_of(server), tmp_path / "cache")
    same_buildings(source, open_source(AreaSettings(source=str(town_file)), tmp_path / "cache"))
    assert len(server.queries) == 3
    assert len(waits) == 2
    assert 1 <= waits[0] <= 2 <= waits[1] <= 4  # doubled, half of it by chance
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("fault", [overpass.zipped, overpass.chunked])
def test_other_ways_to_send_a_body(
    tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float], fault: Fault
) -> None:
    source = open_source(area_of(serve(fault)), tmp_path)
    assert len(source.buildings(source.bounds)) == len(TOWN)
    assert not waits


@pytest.mark.parametrize("reason", FAULTS)
def test_gives_up_with_one_clear_line(
    tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float], reason: str
) -> None:
    server = serve(*[FAULTS[reason]] * 10)
    with pytest.raises(MapError) as caught:
        open_source(area_of(server, attempts=4), tmp_path)
    message = str(caught.value)
    assert message.startswith("area.overpass: Town: gave up after 4 attempts")
    assert reason.strip() in message
    assert server.endpoint in message
    assert "use an extract" in message
    assert "\n" not in message
    assert len(server.queries) == 4
    assert len(waits) == 3
    assert not list(tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("kind", [overpass.silent, overpass.dripping])
def test_slow_answers_end(
    tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float], kind: Callable[[threading.Event], Fault]
) -> None:
    server = serve()
    server.faults = [kind(server.over)] * 2
    with pytest.raises(MapError, match=r"gave up after 2 attempts .*(no answer in time|no whole answer within 0\.5 s)"):
        open_source(area_of(server, timeout=0.5, attempts=2), tmp_path)


def test_retry_after_is_honoured(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    server = serve(overpass.status(429, Retry_After="123"))
    open_source(area_of(server), tmp_path)
    assert waits == [pytest.approx(123, abs=5)]
    patient = serve(overpass.status(429, Retry_After="86400"))
    with pytest.raises(MapError, match="asks to wait 86400 s"):
        open_source(area_of(patient), tmp_path / "other")


def test_slots_are_awaited(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    server = serve()
    server.status = (
        "Slot available after: 2024-05-01T00:00:50Z, in 50 seconds.\n"
        "Slot available after: 2024-05-01T00:00:31Z, in 31 seconds."
    )
    open_source(area_of(server), tmp_path)
    assert waits == [31]


@pytest.mark.parametrize(
    ("code", "text"),
    [(200, "Currently running queries (pid, space limit):"), (200, "Slot available after: soon"), (404, "")],
)
def test_servers_without_slots(
    tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float], code: int, text: str
) -> None:
    server = serve()
    server.status_code, server.status = code, text
    open_source(area_of(server), tmp_path)
    assert not waits


def test_the_next_endpoint_is_tried(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    busy, good = serve(overpass.status(504, Retry_After="300")), serve()
    open_source(area_of(busy, good), tmp_path)
    assert (len(busy.queries), len(good.queries)) == (1, 1)
    assert len(waits) == 1
    assert waits[0] <= 2  # the other server did not ask us to wait


def test_a_refusal_ends_at_once(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    banned, good = serve(*[overpass.status(403)] * 9), serve()
    with pytest.raises(MapError, match=r"gave up after 1 attempts .*HTTP 403"):
        open_source(area_of(banned), tmp_path)
    assert not waits
    open_source(area_of(banned, good), tmp_path)
    assert (len(banned.queries), len(good.queries)) == (2, 1)


def test_nobody_listens(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    server = serve()
    area = area_of(server, attempts=2)
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(MapError, match="the connection failed"):
        open_source(area, tmp_path)


def test_least_pause_between_requests(tmp_path: Path, serve: Callable[..., OverpassServer], waits: list[float]) -> None:
    server = serve(overpass.status(504))
    open_source(area_of(server, radius=1500, pause=77.0), tmp_path)
    assert len(server.queries) == 5
    assert len(waits) == 4
    assert all(70 < wait <= 77 for wait in waits)


def test_empty_boxes_are_fine_but_an_empty_city_is_not(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    source = open_source(area_of(server, radius=1500, box=1200), tmp_path)
    assert len(source.buildings(source.bounds)) == len(TOWN)
    answers = [json.loads(file.read_text())["elements"] for file in (tmp_path / "overpass").glob("*.json")]
    assert [] in answers
    sea = AreaSettings(**{**area_of(server).model_dump(), "latitude": 0.0, "longitude": 0.0})
    for _ in range(2):  # and the answer is kept
        with pytest.raises(MapError, match=r"no building within 500 m of 0\.0, 0\.0"):
            open_source(sea, tmp_path)
    assert len(server.queries) == len(answers) + 1


def test_no_more_requests_than_allowed(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    server = serve()
    area = area_of(server, cities=3, max_requests=2)
    with pytest.raises(InputError, match=r"max_requests: 2, but 3 requests are needed; use extracts") as caught:
        open_source(area, tmp_path)
    assert not isinstance(caught.value, MapError)
    assert not server.queries


def test_a_centre_is_needed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Town has no centre") as caught:
        open_source(AreaSettings(source="overpass", city="Town"), tmp_path)
    assert not isinstance(caught.value, MapError)


def test_unwritable_cache(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"^cache: .* cannot be written"):
        open_source(area_of(serve()), tmp_path / "cache")


CHILD = """
import sys
from pathlib import Path
import osmnx
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import open_source
area = AreaSettings.model_validate_json(sys.argv[1])
print("ready", flush=True)
source = open_source(area, Path(sys.argv[2]))
print(len(source.buildings(source.bounds)), flush=True)
"""


def child(area: AreaSettings, cache: Path, log: Path) -> AbstractContextManager[Process]:
    command = [sys.executable, "-c", CHILD, area.model_dump_json(), str(cache)]
    return process(command, log, cwd=ROOT, stdout=PIPE)


def test_two_processes_ask_in_turn(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    ready = threading.Event()
    server = serve()

    def hold(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        ready.wait(60)
        server.together.wait(2)  # the chance for the other process to do what it must not
        overpass.reply(handler, body)

    server.faults = [hold]
    area = area_of(server, radius=1500)
    with child(area, tmp_path, tmp_path / "1.log") as first, child(area, tmp_path, tmp_path / "2.log") as second:
        assert [each.stdout.readline() for each in (first, second) if each.stdout] == [b"ready\n"] * 2
        ready.set()
        answers = [each.communicate()[0] for each in (first, second)]
        assert answers == [f"{len(TOWN)}\n".encode()] * 2
    assert server.most == 1
    assert len(server.queries) == 4  # each box once, not once a process


def test_killed_in_the_middle(tmp_path: Path, serve: Callable[..., OverpassServer]) -> None:
    half = threading.Event()
    server = serve()
    server.faults = [overpass.reply, overpass.stalls(half, server.over)]
    area = area_of(server, radius=1500)
    with child(area, tmp_path, tmp_path / "child.log") as killed:
        assert half.wait(60)
        killed.kill()
        killed.wait()
    (kept,) = (tmp_path / "overpass").glob("*.json")
    json.loads(kept.read_text())
    city = City("Town", "FI", "overpass", LATITUDE, LONGITUDE, 1500.0, 1)
    assert len(missing_boxes(city, area, tmp_path)) == 3
    source = open_source(area, tmp_path)
    assert len(source.buildings(source.bounds)) == len(TOWN)
    assert len(server.queries) == 5
    assert not list(tmp_path.rglob("*.partial"))
