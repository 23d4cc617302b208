"""An Overpass API on this machine: answers osmnx's questions from an extract, and misbehaves when told to."""

import gzip
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import osmium
import shapely

# A fault answers one request in the server's stead; `body` is what a good answer would be.
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]
COMPONENT = re.compile(r"\((node|way|relation)\['([^']+)'\]\(poly:'([^']+)'\);\(\._;>;\);\);")


def elements_of(path: Path) -> list[dict[str, Any]]:
    """Nodes, ways and relations of an extract as Overpass writes them."""
    elements: list[dict[str, Any]] = []
    for item in osmium.FileProcessor(str(path)):
        element: dict[str, Any] = {"id": item.id}
        if item.is_node():
            element.update(type="node", lat=item.lat, lon=item.lon)
        elif item.is_way():
            element.update(type="way", nodes=[node.ref for node in item.nodes])
        else:
            kinds = {"n": "node", "w": "way", "r": "relation"}
            members = [{"type": kinds[part.type], "ref": part.ref, "role": part.role} for part in item.members]
            element.update(type="relation", members=members)
        if len(item.tags):
            element["tags"] = dict(item.tags)
        elements.append(element)
    return elements


class OverpassServer:
    """`with OverpassServer(elements) as server:` serves at `server.endpoint`.

    `faults` are taken one a request; `queries` holds the boxes asked for, `agents` who asked, `most` how many requests
    were there at once, and `together` is set when it is more than one.
    """

    def __init__(self, elements: list[dict[str, Any]], faults: list[Fault] | None = None) -> None:
        self.by_key = {(element["type"], element["id"]): element for element in elements}
        self.faults = faults or []
        self.queries: list[tuple[float, float, float, float]] = []
        self.agents: list[str] = []
        self.status = "2 slots available now."
        self.status_code = 200
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.together = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                lines = [
                    "Connected as: 1",
                    "Current time: 2024-05-01T00:00:00Z",
                    "Announced endpoint: none",
                    "Rate limit: 2",
                ]
                reply(self, "\n".join([*lines, server.status, ""]).encode(), server.status_code)

            def do_POST(self) -> None:
                with server.lock:
                    server.now += 1
                    server.most = max(server.most, server.now)
                    if server.now > 1:
                        server.together.set()
                try:
                    query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["data"][0]
                    body = json.dumps(server.answer(query)).encode()
                    with server.lock:
                        server.agents.append(self.headers["User-Agent"])
                        fault = server.faults.pop(0) if server.faults else reply
                    fault(self, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client hung up, as some tests want
                finally:
                    with server.lock:
                        server.now -= 1

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}/api"

    def __enter__(self) -> "OverpassServer":
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()

    def answer(self, query: str) -> dict[str, Any]:
        """What Overpass would say: matching elements that touch the polygon, and all that they refer to."""
        components = COMPONENT.findall(query)
        assert query.startswith("[out:json][timeout:"), query
        assert len(components) == 9, query
        assert len({polygon for _, _, polygon in components}) == 1
        numbers = [float(number) for number in components[0][2].split()]
        area = shapely.Polygon(zip(numbers[1::2], numbers[::2], strict=True))
        with self.lock:
            self.queries.append(area.bounds)
        shapely.prepare(area)
        wanted = {(kind, tag) for kind, tag, _ in components}
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for element in self.by_key.values():
            tagged = any((element["type"], tag) in wanted for tag in element.get("tags", {}))
            if tagged and self._touches(element, area):
                self._take(element, found)
        meta = {"timestamp_osm_base": "2024-05-01T00:00:00Z"}
        return {"version": 0.6, "osm3s": meta, "elements": list(found.values())}

    def _touches(self, element: dict[str, Any], area: shapely.Polygon) -> bool:
        if element["type"] == "node":
            return bool(area.intersects(shapely.Point(element["lon"], element["lat"])))
        if element["type"] == "relation":
            parts = [self.by_key.get((member["type"], member["ref"])) for member in element["members"]]
            return any(part is not None and self._touches(part, area) for part in parts)
        nodes = [self.by_key[("node", ref)] for ref in element["nodes"] if ("node", ref) in self.by_key]
        return len(nodes) > 1 and bool(area.intersects(shapely.LineString([(n["lon"], n["lat"]) for n in nodes])))

    def _take(self, element: dict[str, Any], found: dict[tuple[str, int], dict[str, Any]]) -> None:
        found[(element["type"], element["id"])] = element
        keys = [("node", ref) for ref in element.get("nodes", [])]
        keys += [
            (member["type"], member["ref"]) for member in element.get("members", []) if member["type"] != "relation"
        ]
        for key in keys:
            if key in self.by_key and key not in found:
                self._take(self.by_key[key], found)


def reply(handler: BaseHTTPRequestHandler, body: bytes, code: int = 200, **headers: str) -> None:
    """A whole answer."""
    handler.send_response(code)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, **headers: str) -> Fault:
    """A refusal with a page of HTML, as Overpass sends it."""
    return lambda handler, _: reply(handler, b"<html>busy</html>", code, Content_Type="text/html", **headers)


def says(text: str) -> Fault:
    """Status 200 with something else than the data."""
    return lambda handler, _: reply(handler, text.encode())


def cut(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The connection breaks in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def cut_unseen(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """The same without a Content-Length: to HTTP it looks whole."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def zipped(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Compressed, as the public servers do."""
    reply(handler, gzip.compress(body), Content_Encoding="gzip")


def chunked(handler: BaseHTTPRequestHandler, body: bytes, end: bytes = b"0\r\n\r\n") -> None:
    """In pieces, without a Content-Length."""
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for start in range(0, len(body), 1000):
        piece = body[start : start + 1000]
        handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    handler.wfile.write(end)
    handler.close_connection = True


def cut_chunked(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """In pieces, the last of which never come."""
    chunked(handler, body[: len(body) // 2], b"3e8\r\n{")


def remark(text: str) -> Fault:
    """Status 200, half of the data, and a remark."""

    def fault(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        answer = json.loads(body)
        half = answer["elements"][: len(answer["elements"]) // 2]
        reply(handler, json.dumps({**answer, "elements": half, "remark": text}).encode())

    return fault


def silent(over: threading.Event) -> Fault:
    """No answer at all until the test is over."""
    return lambda handler, body: bool(over.wait(60)) and None


def dripping(over: threading.Event) -> Fault:
    """A byte now and then, for ever: each comes before a read would time out."""

    def fault(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    return fault


def stalls(half: threading.Event, over: threading.Event) -> Fault:
    """Half of the body, then `half` is set and nothing more comes."""

    def fault(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: len(body) // 2])
        handler.wfile.flush()
        half.set()
        over.wait(60)

    return fault
