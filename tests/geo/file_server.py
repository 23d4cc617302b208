"""A download server on this machine, with ranges and checksums, that misbehaves when told to."""

import threading
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A fault answers one request for a file in the server's stead.
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


class FileServer:
    """`with FileServer({"/Town.osm": b"…"}) as server:` serves at `server.url`.

    `faults` are taken one a request of a file of `files` (checksum files apart); `asked` holds path, Range and If-Range
    of every request; `ranges` and `validator` (`etag`, `weak`, `date`, ``) say what the server can do.
    """

    def __init__(self, files: dict[str, bytes], *faults: Fault) -> None:
        self.files = files
        self.extra: dict[str, bytes] = {}
        self.faults = list(faults)
        self.asked: list[tuple[str, str, str]] = []
        self.agents: set[str] = set()
        self.ranges = True
        self.validator = "etag"
        self.version = 1
        self.over = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                server.agents.add(self.headers["User-Agent"])
                body = server.files.get(path)
                if body is None:
                    note = server.extra.get(path)
                    send(self, note if note is not None else b"not found", 200 if note is not None else 404)
                    return
                server.asked.append((path, self.headers.get("Range", ""), self.headers.get("If-Range", "")))
                try:
                    if server.faults:
                        server.faults.pop(0)(self, body)
                    else:
                        server.serve(self, body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client was killed, as one test wants

            def do_HEAD(self) -> None:
                found = self.path.split("?")[0] in server.files
                self.send_response(200 if found else 404)
                for name, value in server.marks().items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> "FileServer":
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()

    def marks(self) -> dict[str, str]:
        """Headers that tell one version of a file from the next."""
        date = {"Last-Modified": formatdate(1_700_000_000 + self.version, usegmt=True)}
        return {
            "etag": {"ETag": f'"v{self.version}"', **date},
            "weak": {"ETag": f'W/"v{self.version}"', **date},
            "date": date,
            "": {},
        }[self.validator]

    def serve(self, handler: BaseHTTPRequestHandler, body: bytes, upto: int | None = None) -> None:
        """A good answer (RFC 9110: ranges, If-Range by ETag or date); with `upto`, the body ends there."""
        asked, condition = handler.headers.get("Range", ""), handler.headers.get("If-Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if condition and condition not in self.marks().values():
            start = 0
        if start >= len(body):
            send(handler, b"", 416, {"Content-Range": f"bytes */{len(body)}"})
            return
        headers = {"Content-Type": "application/octet-stream", **self.marks()}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        headers["Content-Length"] = str(len(body) - start)
        send(handler, body[start:upto], 206 if start else 200, headers)

    def cut(self, upto: int) -> Fault:
        """The connection breaks after so many bytes of the file."""
        return lambda handler, body: self.serve(handler, body, upto)


def send(handler: BaseHTTPRequestHandler, body: bytes, code: int = 200, headers: dict[str, str] | None = None) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def status(code: int, **headers: str) -> Fault:
    return lambda handler, _: send(
        handler, b"<html>sorry</html>", code, {name.replace("_", "-"): value for name, value in headers.items()}
    )
