import errno
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from file_server import Fault, FileServer, send, status
from geo_maps import LATITUDE, LONGITUDE, box, osm_xml
from processes import PIPE, ROOT, Process, process

from wavecity.geo import network
from wavecity.geo.cities import City
from wavecity.geo.download import described, download, download_path, drop_outdated
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.extract import find_helsinki
from wavecity.geo.settings import AreaSettings
from wavecity.geo.sources import Source, is_here, open_city, open_source

MAP = "/osm/bbbike/Helsinki/Helsinki.osm.pbf"


@pytest.fixture(scope="module")
def data() -> bytes:
    return find_helsinki().read_bytes()


@pytest.fixture
def server(data: bytes) -> Iterator[FileServer]:
    """A server like BBBike's, with one real map."""
    with FileServer({MAP: data}) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of every wait; nobody really waits."""
    waited: list[float] = []
    monkeypatch.setattr(network, "sleep", waited.append)
    return waited


def ranges(server: FileServer) -> list[str]:
    return [asked for _, asked, _ in server.asked]


def test_downloaded_once_and_opened(server: FileServer, tmp_path: Path, helsinki: Source) -> None:
    area = AreaSettings(source=f"{server.url}/osm/bbbike/{{city}}/{{city}}.osm.pbf", city="Helsinki")
    steps: list[tuple[str, int, int]] = []
    source = open_source(area, tmp_path, lambda *step: steps.append(step))
    again = open_source(area, tmp_path)
    assert source == again
    assert len(server.asked) == 1
    assert server.agents == {network.user_agent()}
    assert steps[-1] == ("Helsinki.osm.pbf", len(server.files[MAP]), len(server.files[MAP]))
    whole = source.buildings(source.bounds)
    assert whole.equals(helsinki.buildings(helsinki.bounds))
    assert source.provenance == {
        **helsinki.provenance,
        "name": "Helsinki",
        "url": server.url + MAP,
        "published": "Tue, 14 Nov 2023 22:13:21 GMT",
    }


def test_is_here_needs_no_request(server: FileServer, tmp_path: Path) -> None:
    city = City("Helsinki", "FI", server.url + MAP, None, None, 4000.0, 1)
    assert not is_here(city, AreaSettings(), tmp_path)
    open_city(city, AreaSettings(), tmp_path)
    assert is_here(city, AreaSettings(), tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("validator", ["etag", "weak", "date", ""])
def test_a_kept_map_is_dropped_when_the_server_has_a_newer_one(
    server: FileServer, tmp_path: Path, validator: str
) -> None:
    server.validator = validator
    url = server.url + MAP
    assert not drop_outdated(url, tmp_path)
    kept = download(url, tmp_path)
    assert not drop_outdated(url, tmp_path)
    server.version += 1
    # A server that tells versions apart by nothing is believed to have none.
    assert drop_outdated(url, tmp_path) == bool(validator)
    assert kept.is_file() == (not validator)


def test_a_map_is_kept_when_nobody_can_be_asked(server: FileServer, tmp_path: Path) -> None:
    kept = download(server.url + MAP, tmp_path)
    del server.files[MAP]
    with pytest.raises(MapError, match="cannot be asked for a newer map"):
        drop_outdated(server.url + MAP, tmp_path)
    assert kept.is_file()


@pytest.mark.parametrize("validator", ["etag", "weak", "date"])
def test_goes_on_where_it_broke_off(server: FileServer, data: bytes, tmp_path: Path, validator: str) -> None:
    server.validator = validator
    server.faults = [server.cut(100_000), server.cut(300_000)]
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert ranges(server) == ["", "bytes=100000-", "bytes=300000-"]
    assert server.asked[1][2] == ('"v1"' if validator == "etag" else server.marks()["Last-Modified"])


def test_goes_on_in_the_next_run(server: FileServer, data: bytes, tmp_path: Path) -> None:
    server.faults = [server.cut(100_000), *[status(503)] * 4]
    with pytest.raises(MapError, match=r"HTTP 503.*100000 bytes are kept"):
        download(server.url + MAP, tmp_path)
    server.asked.clear()
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert ranges(server) == ["bytes=100000-"]


def test_a_line_that_gains_may_break_often(server: FileServer, data: bytes, tmp_path: Path) -> None:
    server.faults = [server.cut(10_000 * turn) for turn in range(1, 30)]
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert len(server.asked) == 30


@pytest.mark.parametrize("validator", ["etag", "date"])
def test_a_changed_file_starts_anew(server: FileServer, data: bytes, tmp_path: Path, validator: str) -> None:
    server.validator = validator

    def replaced(handler: object, body: bytes) -> None:
        server.cut(100_000)(handler, b"old" * 100_000)  # type: ignore[arg-type]
        server.version = 2

    server.faults = [replaced]
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert ranges(server) == ["", "bytes=100000-"]


@pytest.mark.parametrize("ability", ["no ranges", "no validator"])
def test_a_simple_server_starts_over(server: FileServer, data: bytes, tmp_path: Path, ability: str) -> None:
    server.ranges, server.validator = ability != "no ranges", "" if ability == "no validator" else "etag"
    server.faults = [server.cut(100_000)]
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert len(server.asked) == 2


def test_a_server_that_always_cuts_is_given_up(server: FileServer, tmp_path: Path, waits: list[float]) -> None:
    server.ranges = False
    server.faults = [server.cut(100_000)] * 50
    with pytest.raises(MapError, match=r"broke off.*gave up after 5 attempts"):
        download(server.url + MAP, tmp_path)
    assert len(server.asked) == 5
    assert len(waits) == 4


def test_a_whole_partial_needs_no_more_of_the_file(server: FileServer, data: bytes, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming."""
    server.faults = [server.cut(100_000), *[status(503)] * 4]
    with pytest.raises(MapError):
        download(server.url + MAP, tmp_path)
    target = download_path(server.url + MAP, tmp_path)
    target.with_name(target.name + ".partial").write_bytes(data)
    server.asked.clear()
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert not server.asked


def lists(data: bytes) -> dict[str, tuple[str, str, str]]:
    """Path, text and name of a checksum list, by style."""
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    other = "0" * 32
    folder = MAP.rsplit("/", 1)[0]
    return {
        "geofabrik": (f"{MAP}.md5", f"{md5}  Helsinki.osm.pbf\n", f"md5:{md5}"),
        "bare": (f"{MAP}.md5", f"{md5.upper()}\n", f"md5:{md5}"),
        "bbbike": (
            f"{folder}/CHECKSUM.txt",
            f"{other}  Helsinki.osm.gz\n{md5}  Helsinki.osm.pbf\n{'1' * 64}  x.gz\n{sha256}  Helsinki.osm.pbf\n",
            f"sha256:{sha256}",
        ),
        "bsd": (f"{folder}/CHECKSUM.txt", f"MD5 (a.gz) = {other}\nMD5 (Helsinki.osm.pbf) = {md5}\n", f"md5:{md5}"),
    }


@pytest.mark.parametrize("style", ["geofabrik", "bare", "bbbike", "bsd"])
def test_checksums_are_used(server: FileServer, data: bytes, tmp_path: Path, style: str) -> None:
    path, text, said = lists(data)[style]
    server.extra[path] = text.encode()
    file = download(server.url + MAP, tmp_path)
    assert described(file)["checksum"] == said
    assert described(file)["size"] == len(data)


def test_a_wrong_checksum_is_tried_once_more_then_refused(server: FileServer, tmp_path: Path) -> None:
    server.extra[f"{MAP}.md5"] = b"0" * 32
    with pytest.raises(MapError, match="does not match its md5 checksum; try later") as caught:
        download(server.url + MAP, tmp_path)
    assert ranges(server) == ["", ""]
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("Helsinki.osm.pbf*.p*"))


def test_damage_on_the_way_is_mended(server: FileServer, data: bytes, tmp_path: Path) -> None:
    server.extra[f"{MAP}.md5"] = hashlib.md5(data).hexdigest().encode()
    server.faults = [lambda handler, body: send(handler, b"\0" + body[1:])]
    assert download(server.url + MAP, tmp_path).read_bytes() == data


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_what_can_pass_is_tried_again(server: FileServer, tmp_path: Path, waits: list[float], code: int) -> None:
    server.faults = [status(code), status(code)]
    download(server.url + MAP, tmp_path)
    assert 1 <= waits[0] <= 2 <= waits[1] <= 4


@pytest.mark.parametrize("date", [False, True])
def test_retry_after(
    server: FileServer, tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch, date: bool
) -> None:
    monkeypatch.setattr(network, "clock", lambda: 1_700_000_000.0)
    server.faults = [status(429, Retry_After="Tue, 14 Nov 2023 22:15:20 GMT" if date else "120")]
    download(server.url + MAP, tmp_path)
    assert waits == [120]


def test_a_wait_of_hours_is_not_waited(server: FileServer, tmp_path: Path, waits: list[float]) -> None:
    server.faults = [status(503, Retry_After="7200")]
    with pytest.raises(MapError, match="asks to wait 7200 s"):
        download(server.url + MAP, tmp_path)
    assert not waits


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (status(404), "HTTP 404 Not Found; check the address"),
        (status(403), "HTTP 403 Forbidden"),
        (status(410), "HTTP 410"),
        (status(200, Content_Type="text/html; charset=utf-8"), "a web page instead of a map"),
    ],
)
def test_what_cannot_pass_is_not_tried_again(
    server: FileServer, tmp_path: Path, waits: list[float], fault: Fault, hint: str
) -> None:
    server.faults = [fault]
    with pytest.raises(MapError) as caught:
        open_source(AreaSettings(source=server.url + MAP), tmp_path)
    message = str(caught.value)
    assert message.startswith(f"area.source: {server.url + MAP}: ")
    assert hint in message
    assert "\n" not in message
    assert len(server.asked) == 1
    assert not waits


def test_nobody_listens(data: bytes, tmp_path: Path) -> None:
    with FileServer({MAP: data}) as gone:
        pass
    with pytest.raises(MapError, match="the connection failed or broke off; gave up after 5 attempts"):
        download(gone.url + MAP, tmp_path)


def test_a_broken_map_is_not_kept(server: FileServer, tmp_path: Path, data: bytes) -> None:
    server.files[MAP] = data[: len(data) // 2]
    for _ in range(2):
        with pytest.raises(MapError, match=r"cannot be read as OpenStreetMap data .* is removed: run again") as caught:
            open_source(AreaSettings(source=server.url + MAP), tmp_path)
        assert server.url in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(server.asked) == 2


def test_not_a_map_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="not a map by its name"):
        open_source(AreaSettings(source="https://example.com/Helsinki.zip"), tmp_path)


def test_unwritable_cache(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=r"^cache: .* cannot be written \(Not a directory\)") as caught:
        download(server.url + MAP, tmp_path / "cache")
    assert not isinstance(caught.value, MapError)


def test_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        InputError, match=r"^cache: .* cannot be written \(No space left on device\); make room"
    ) as caught:
        download(server.url + MAP, tmp_path, full)
    assert not isinstance(caught.value, MapError)
    assert "\n" not in str(caught.value)


CHILD = """
import sys
from pathlib import Path
from wavecity.geo.download import download
print("ready", flush=True)
print(download(sys.argv[1], Path(sys.argv[2])).stat().st_size, flush=True)
"""


def child(url: str, cache: Path, log: Path) -> AbstractContextManager[Process]:
    return process([sys.executable, "-c", CHILD, url, str(cache)], log, cwd=ROOT, stdout=PIPE)


def test_two_processes_load_once(server: FileServer, data: bytes, tmp_path: Path) -> None:
    ready = threading.Event()

    def hold(handler: object, body: bytes) -> None:
        ready.wait(60)
        server.serve(handler, body)  # type: ignore[arg-type]

    server.faults = [hold]
    url = server.url + MAP
    with child(url, tmp_path, tmp_path / "1.log") as first, child(url, tmp_path, tmp_path / "2.log") as second:
        assert [each.stdout.readline() for each in (first, second) if each.stdout] == [b"ready\n"] * 2
        ready.set()
        assert [each.communicate()[0] for each in (first, second)] == [f"{len(data)}\n".encode()] * 2
    assert len(server.asked) == 1


def test_killed_in_the_middle(server: FileServer, data: bytes, tmp_path: Path) -> None:
    half = threading.Event()

    def stall(handler: object, body: bytes) -> None:
        server.serve(handler, body, 300_000)  # type: ignore[arg-type]
        half.set()
        server.over.wait(60)

    server.faults = [stall]
    with child(server.url + MAP, tmp_path, tmp_path / "child.log") as killed:
        assert half.wait(60)
        killed.kill()
        killed.wait()
    target = download_path(server.url + MAP, tmp_path)
    assert not target.exists()
    kept = target.with_name(target.name + ".partial")
    have = kept.stat().st_size if kept.exists() else 0
    assert download(server.url + MAP, tmp_path).read_bytes() == data
    assert ranges(server)[1] == (f"bytes={have}-" if have else "")
    assert not kept.exists()
    assert json.loads(target.with_name(target.name + ".json").read_text())["url"] == server.url + MAP


def test_a_map_without_buildings_is_kept(server: FileServer, tmp_path: Path) -> None:
    """Nothing is wrong with the file: loading it anew would give the same."""
    server.files["/meadow.osm"] = osm_xml([]).encode()
    for _ in range(2):
        with pytest.raises(MapError, match="holds no complete building"):
            open_source(AreaSettings(source=f"{server.url}/meadow.osm"), tmp_path)
    assert len(server.asked) == 1


def test_query_strings_and_other_names(server: FileServer, tmp_path: Path) -> None:
    server.files["/town.osm"] = osm_xml([(box(0, 0, 20, 10), {"building": "yes"})]).encode()
    source = open_source(AreaSettings(source=f"{server.url}/town.osm?key=1"), tmp_path)
    assert source.provenance["file"] == "town.osm"
    west, south, east, north = source.bounds
    assert west < LONGITUDE < east
    assert south < LATITUDE < north
