"""A server for one site on this machine: the page, its index, and byte ranges of the version's files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from threading import Thread
from urllib.parse import unquote, urlsplit

from wavecity.dataset.files import StorePath
from wavecity.flows.explore.site import DATA, Site, content_type
from wavecity.geo.errors import InputError

# Names under which a browser on this machine reaches the server; a page of another host that resolves to this address is
# refused.
HOSTS = ("127.0.0.1", "localhost", "[::1]")
RANGE = re.compile(r"bytes=(\d*)-(\d*)$")
PIECE = 2**20


@contextmanager
def serving(site: Site, port: int = 0) -> Iterator[str]:
    """Serve a site on this machine within the block; yields the page's address.

    Parameters
    ----------
    site : Site
    port : int
        0 for any that is free.

    Raises
    ------
    InputError
        The port is taken.

    Examples
    --------
    >>> with serving(make_site("stores/helsinki")) as address:
    ...     webbrowser.open(address)
    """

    class Handler(_Handler):
        folder, content = site.folder, site.files()

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        msg = f"--port {port}: cannot be used ({error.strerror or error}); name another, or none for one that is free"
        raise InputError(msg) from error
    thread = Thread(target=server.serve_forever, name="explore", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    folder: StorePath
    content: dict[str, bytes]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: a page asks for hundreds of ranges."""

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with a file of the page, or a range of a file of the version."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in HOSTS:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        if ".." in PurePosixPath(name).parts or "\\" in name or "\0" in name:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif name.startswith(f"{DATA}/"):
            self._send_range(self.folder / name.removeprefix(f"{DATA}/"))
        elif (content := self.content.get(name)) is None:
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._start(HTTPStatus.OK, len(content), name)
            self._write(content)

    def _send_range(self, path: StorePath) -> None:
        """Send a file, or the part of it that is asked for."""
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError:
            size = None
        if size is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        asked = self.headers.get("Range")
        part = range_of(asked, size) if asked else (0, size)
        if part is None:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start, stop = part
        status = HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK
        where = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"} if asked else {}
        with path.open("rb") as file:
            self._start(status, stop - start, path.name, {"Accept-Ranges": "bytes", **where})
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                self._write(piece)
                start += len(piece)

    def _start(self, status: HTTPStatus, length: int, name: str, more: dict[str, str] | None = None) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type(name))
        self.send_header("Content-Length", str(length))
        # Another store may be served at the same address later.
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        for key, value in (more or {}).items():
            self.send_header(key, value)
        self.end_headers()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer without content."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _write(self, content: bytes) -> None:
        """Send content, unless only the head was asked for; a browser that went away is no error."""
        if self.command != "HEAD":
            try:
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True


def range_of(asked: str, size: int) -> tuple[int, int] | None:
    """Start and stop of the bytes that a `Range` header asks for, or None where there are none.

    Examples
    --------
    >>> range_of("bytes=-4", 10)
    (6, 10)
    """
    match = RANGE.match(asked.strip())
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    return (start, stop) if start < stop else None
