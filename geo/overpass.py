"""Buildings and streets from the Overpass API, one request at a time, every answer cached, a limited number of retries.

osmnx composes the query and sends it. Its geometry is not used: `features_from_polygon` drops the members of relations,
so a way that repeats its relation's outer ring would fill the courtyard; it passes every ring through `make_valid`; and
it fails on extracts that are cut (Helsinki). Where both read a map they agree, but for 3 of Baltimore's 1736 buildings.
The raw answers become an extract that the one reader of `wavecity.geo.extract` reads: the same map gives the same
buildings, by either way.
"""

import contextlib
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import osmium
import requests
import urllib3
from filelock import FileLock
from pyproj import Geod

from wavecity.geo import network
from wavecity.geo.cities import City, cities_of, slug
from wavecity.geo.download import Progress
from wavecity.geo.errors import InputError, MapError, Unreachable
from wavecity.geo.extract import LICENCE, ExtractSource, map_folder, open_map, write_map
from wavecity.geo.network import PermanentFailure, TemporaryFailure
from wavecity.geo.projection import turned, within_turn, world_bounds
from wavecity.geo.reading import Bounds, read_extract
from wavecity.geo.settings import AreaSettings, OverpassSettings

BUILDINGS: dict[str, bool | str | list[str]] = {"building": True, "building:part": True}
TAGS: dict[str, bool | str | list[str]] = {**BUILDINGS, "highway": True}
# osmnx is set up through variables of a module, which two threads must not change at once.
_OSMNX = threading.Lock()


def open_overpass(city: City, area: AreaSettings, cache: Path, progress: Progress | None = None) -> ExtractSource:
    """Map of the circle around a city's centre, requested from the Overpass API box by box.

    Parameters
    ----------
    city : City
    area : AreaSettings
    cache : Path
        Answers are kept in its `overpass`, from whichever endpoint; a box that is there is not requested again.
    progress : callable, optional
        Called as `progress(city, boxes so far, boxes in total)`.

    Raises
    ------
    MapError
        Overpass keeps failing or refuses, or there are no buildings.
    InputError
        The city has no centre, the recipe needs more requests than `max_requests`, or the cache cannot be written.
    """
    boxes = boxes_of(city, area)
    if missing_boxes(city, area, cache):
        _check_budget(city, area, cache)
    folder = cache / "overpass"
    try:
        for done, box in enumerate(boxes):
            if progress:
                progress(f"{city.name}: Overpass", done, len(boxes))
            if not _kept(folder, box).is_file():
                folder.mkdir(parents=True, exist_ok=True)
                _ask_in_turn(city, box, area.overpass, folder)
        if progress:
            progress(f"{city.name}: Overpass", len(boxes), len(boxes))
        return _map_of(city, [_kept(folder, box) for box in boxes], boxes, cache)
    except OSError as error:
        msg = f"cache: {folder}: cannot be written ({error.strerror or error}); make room or choose another folder"
        raise InputError(msg) from error


def boxes_of(city: City, area: AreaSettings) -> list[Bounds]:
    """Boxes (west, south, east, north) of at most `overpass.box` metres that cover the city's circle.

    The circle is a tile wider than the city's radius, for tiles and neighbours at its edge.
    """
    if city.latitude is None or city.longitude is None:
        msg = (
            f"area.source: overpass: {city.name} has no centre to ask around; give its latitude and longitude, "
            "or an extract instead"
        )
        raise InputError(msg)
    radius = city.radius + area.tile_size
    west, south, east, north = world_bounds((-radius, -radius, radius, radius), city.latitude, city.longitude)
    count = math.ceil(2 * radius / area.overpass.box)
    # As many decimals as osmnx sends: neighbours share their edge exactly.
    x = [round(west + (east - west) * k / count, 6) for k in range(count + 1)]
    y = [round(south + (north - south) * k / count, 6) for k in range(count + 1)]
    boxes = [(x[i], y[j], x[i + 1], y[j + 1]) for j, i in itertools.product(range(count), repeat=2)]
    near = [box for box in boxes if _distance(box, city.latitude, city.longitude) <= radius]
    return [part for box in near for part in within_turn(box)]


def missing_boxes(city: City, area: AreaSettings, cache: Path) -> list[Bounds]:
    """Boxes of a city that have to be requested."""
    return [box for box in boxes_of(city, area) if not _kept(cache / "overpass", box).is_file()]


def _check_budget(city: City, area: AreaSettings, cache: Path) -> None:
    """Refuse, before the first request, a recipe that needs too many for all its cities."""
    cities = [other for other in cities_of(area) if other.source == "overpass"]
    wanted = {box for other in [city, *cities] for box in missing_boxes(other, area, cache)}
    if len(wanted) > area.overpass.max_requests:
        msg = (
            f"area.overpass.max_requests: {area.overpass.max_requests}, but {len(wanted)} requests are needed; use "
            "extracts (download.bbbike.org, download.geofabrik.de), a smaller radius, or fewer cities"
        )
        raise InputError(msg)


def _distance(box: Bounds, latitude: float, longitude: float) -> float:
    """Metres from a point to the nearest point of a box."""
    west, south, east, north = box
    nearest = min(max(longitude, west), east), min(max(latitude, south), north)
    return float(Geod(ellps="WGS84").inv(longitude, latitude, *nearest)[2])


def _kept(folder: Path, box: Bounds) -> Path:
    """File of a box's answer; the name is the question, whatever the endpoint and its limits."""
    return folder / f"map_{'_'.join(f'{edge:.6f}' for edge in box)}.json"


def _ask_in_turn(city: City, box: Bounds, settings: OverpassSettings, folder: Path) -> None:
    """Request one box while no other process does, with the pause between the requests of all of them."""
    last = folder / "last-request"
    with _OSMNX, FileLock(folder / "lock"):
        if _kept(folder, box).is_file():
            return  # another process got it while we waited
        for orphan in folder.glob("*.partial"):
            shutil.rmtree(orphan)  # of a killed process: nobody else is here while we hold the lock
        since = network.clock() - last.stat().st_mtime if last.is_file() else math.inf
        # A clock set back must not make us wait for hours.
        if 0 <= since < settings.pause:
            network.sleep(settings.pause - since)
        try:
            _ask_patiently(city, box, settings, folder)
        finally:
            last.touch()
            os.utime(last, (network.clock(), network.clock()))


def _ask_patiently(city: City, box: Bounds, settings: OverpassSettings, folder: Path) -> None:
    """Request until there is an answer: each time from the next endpoint, after a longer wait, at most `attempts`
    times.
    """
    endpoints = list(settings.endpoints)
    free_at: dict[str, float] = {}
    answered = False
    remedy = "try later, name other area.overpass.endpoints, or use an extract (download.bbbike.org)"
    for attempt in range(1, settings.attempts + 1):
        endpoint = endpoints.pop(0)
        try:
            _ask(endpoint, box, settings, folder)
            return
        except PermanentFailure as error:
            failure, answered = f"{endpoint}: {error}", True
        except TemporaryFailure as error:
            failure, answered = f"{endpoint}: {error}", answered or not error.no_answer
            if error.wait > network.LONGEST_WAIT:
                failure += f", asks to wait {error.wait:.0f} s"
            else:
                free_at[endpoint] = network.clock() + error.wait
                endpoints.append(endpoint)
        if not endpoints or attempt == settings.attempts:
            msg = f"area.overpass: {city.name}: gave up after {attempt} attempts ({failure}); {remedy}"
            if not answered:
                raise Unreachable(msg, "overpass")
            raise MapError(msg)
        until_free = free_at.get(endpoints[0], 0.0) - network.clock()
        network.sleep(max(network.backoff(attempt), settings.pause, until_free))


def _ask(endpoint: str, box: Bounds, settings: OverpassSettings, folder: Path) -> None:
    """One request through osmnx, whose own cache serves as a draft: its writes are not atomic, the renaming is."""
    import osmnx  # a second to import, and no worker needs it
    from osmnx._errors import CacheOnlyInterruptError

    wait = _wait_for_slot(endpoint, settings)
    if wait > network.LONGEST_WAIT:
        raise TemporaryFailure("no slot is free", wait)
    network.sleep(wait)
    draft = Path(tempfile.mkdtemp(suffix=".partial", dir=folder))
    options = {
        "overpass_url": endpoint,
        # The server gives up before the connection times out, and gives the reason.
        "overpass_settings": f"[out:json][timeout:{max(1, int(0.9 * settings.timeout))}]",
        "requests_timeout": settings.timeout,
        "requests_kwargs": {"hooks": {"response": _Check(settings.timeout)}},
        "http_user_agent": network.user_agent(),
        # osmnx polls /status for ever where the limit is 0 (on a private server): `_wait_for_slot` does that part.
        "overpass_rate_limit": False,
        # Nor does it need to resolve the server's name through Google.
        "doh_url_template": None,
        "use_cache": True,
        "cache_folder": str(draft),
        "cache_only_mode": True,
    }
    try:
        with _setting(osmnx.settings, options):
            osmnx.features.features_from_bbox(box, TAGS)
    except CacheOnlyInterruptError:
        (answer,) = draft.glob("*.json")
        answer.replace(_kept(folder, box))
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TemporaryFailure(network.explain(error), no_answer=True) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class _Check:
    """Hook of requests that checks an answer before osmnx, which sleeps 55 s on 429 and 504 and ignores remarks."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.end = time.monotonic() + timeout

    def __call__(self, response: requests.Response, *_: Any, **__: Any) -> None:
        if response.is_redirect:
            return
        network.check_status(response)
        # requests' own timeout is between two pieces: a very slow server may take for ever. `read1` comes back with
        # what is there; requests' iterators wait for a full piece.
        pieces = []
        try:
            while piece := response.raw.read1(1 << 16, decode_content=True):
                pieces.append(piece)
                if time.monotonic() > self.end:
                    raise TemporaryFailure(f"no whole answer within {self.timeout:g} s")
        finally:
            response.close()
        response._content = b"".join(pieces)
        try:
            answer = response.json()
        except requests.exceptions.JSONDecodeError as error:
            raise TemporaryFailure("an answer that is no JSON (cut, or a page of HTML)") from error
        if not isinstance(answer, dict) or not isinstance(answer.get("elements"), list):
            raise TemporaryFailure("an answer without elements")
        # Out of time or memory: what is there so far, with status 200.
        if "remark" in answer:
            raise TemporaryFailure(f"remark: {' '.join(str(answer['remark']).split())[:200]}")


def _wait_for_slot(endpoint: str, settings: OverpassSettings) -> float:
    """Seconds until the server has a slot for us, by its /status; 0 where it gives no time."""
    try:
        response = requests.get(
            f"{endpoint.rstrip('/')}/status",
            headers={"User-Agent": network.user_agent()},
            timeout=min(30.0, settings.timeout),
        )
    except requests.RequestException:
        return 0.0  # the request itself will show it
    text = response.text if response.ok else ""
    if "available now" in text:
        return 0.0
    waits = re.findall(r"^Slot available after: .*, in (\d+) seconds", text, re.MULTILINE)
    return min((float(wait) for wait in waits), default=0.0)


@contextlib.contextmanager
def _setting(module: Any, options: dict[str, Any]) -> Iterator[None]:
    """Set variables of a module, and restore them and what osmnx does to the name look-up of the whole process."""
    before = {name: getattr(module, name) for name in options}
    look_up = socket.getaddrinfo
    for name, value in options.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        socket.getaddrinfo = look_up
        for name, value in before.items():
            setattr(module, name, value)


def _map_of(city: City, files: list[Path], boxes: list[Bounds], cache: Path) -> ExtractSource:
    """Converted map of a city's answers."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    folder = map_folder(cache, slug(city.name), digest.hexdigest())
    if folder.is_dir():
        return open_map(folder)
    nodes: dict[int, tuple[float, float]] = {}
    ways: dict[int, dict[str, Any]] = {}
    relations: dict[int, dict[str, Any]] = {}
    dates = []
    for file in files:
        try:
            answer = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            file.unlink()
            msg = (
                f"area.overpass: {city.name}: the kept answer {file} is damaged and was removed: run again to ask anew"
            )
            raise MapError(msg) from error
        dates.append(answer.get("osm3s", {}).get("timestamp_osm_base", ""))
        # A building on the edge of two boxes is in both answers.
        for element in answer["elements"]:
            if element["type"] == "node":
                nodes[element["id"]] = element["lon"], element["lat"]
            else:
                (ways if element["type"] == "way" else relations)[element["id"]] = element
    if not any(BUILDINGS.keys() & element.get("tags", {}).keys() for element in [*ways.values(), *relations.values()]):
        msg = (
            f"area.overpass: {city.name}: no building within {city.radius:g} m of {city.latitude}, {city.longitude}; "
            "correct the city's latitude and longitude"
        )
        raise MapError(msg)
    assert city.longitude is not None  # there were boxes around it
    x = [turned(edge, city.longitude) for box in boxes for edge in (box[0], box[2])]
    y = [edge for box in boxes for edge in (box[1], box[3])]
    with tempfile.TemporaryDirectory(prefix="merged.", dir=cache) as draft:
        path = Path(draft) / "merged.osm.pbf"
        _write_extract(path, nodes, ways.values(), relations.values())
        try:
            read = read_extract(path, (min(x), min(y), max(x), max(y)))
        except MapError as error:
            msg = (
                f"area.overpass: {city.name}: the answers lack the nodes of most buildings; remove {files[0].parent} "
                "and name other area.overpass.endpoints"
            )
            raise MapError(msg) from error
    provenance = {
        "name": slug(city.name),
        "file": "Overpass API",
        "sha256": digest.hexdigest(),
        "map_date": min(dates) or None,
        "licence": LICENCE,
        **read.facts,
        "boxes": len(files),
    }
    write_map(folder, read.buildings, read.streets, read.bounds, provenance, read.unplaced)
    return open_map(folder)


def _write_extract(
    path: Path,
    nodes: dict[int, tuple[float, float]],
    ways: Iterable[dict[str, Any]],
    relations: Iterable[dict[str, Any]],
) -> None:
    """Elements of Overpass's JSON as an .osm.pbf in the order that osmium wants."""
    with osmium.SimpleWriter(str(path)) as writer:
        for number in sorted(nodes):
            writer.add_node(osmium.osm.mutable.Node(id=number, location=nodes[number]))
        for way in sorted(ways, key=lambda element: element["id"]):
            writer.add_way(osmium.osm.mutable.Way(id=way["id"], nodes=way["nodes"], tags=way.get("tags", {})))
        for relation in sorted(relations, key=lambda element: element["id"]):
            members = [(member["type"][0], member["ref"], member["role"]) for member in relation["members"]]
            writer.add_relation(
                osmium.osm.mutable.Relation(id=relation["id"], members=members, tags=relation.get("tags", {}))
            )
