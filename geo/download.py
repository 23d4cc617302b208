"""Downloads of map extracts: resumed, verified by checksum, cached.

pooch and fsspec neither resume nor retry a transfer that breaks off, hence `requests` and a loop.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from filelock import FileLock

from wavecity.geo import network
from wavecity.geo.errors import InputError, MapError, Unreachable
from wavecity.geo.network import PermanentFailure, TemporaryFailure

# progress(what, done, total): bytes of a file or requests of a city; total is 0 when unknown.
Progress = Callable[[str, int, int], None]

# Successive failures without a single new byte, after which a download is given up.
ATTEMPTS = 5
# Seconds to connect, and between two pieces of the body.
TIMEOUT = (30.0, 60.0)
PIECE = 1 << 18
HASHES = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


def download(url: str, cache: Path, progress: Progress | None = None) -> Path:
    """File at a URL, from the cache where it is there, without any request.

    Parameters
    ----------
    url : str
        http(s) address of a map.
    cache : Path
        The file is kept in its `downloads`; safe to share between processes.
    progress : callable, optional
        Called as `progress(file name, bytes so far, bytes in total, or 0)`.

    Returns
    -------
    Path
        The complete file; `<file>.json` next to it holds url, etag, last_modified, size and checksum.

    Raises
    ------
    MapError
        The server has no such file, keeps failing, or sends a file that its checksum file does not confirm.
    InputError
        The cache cannot be written, or the disk is full.
    """
    target = download_path(url, cache)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that want the same map: the second waits, then finds it. A killed one leaves no lock behind.
        with FileLock(target.parent / "lock"):
            if not target.is_file():
                _fetch(url, target, progress)
    except OSError as error:
        msg = (
            f"cache: {target.parent}: cannot be written ({error.strerror or error}); make room or choose another folder"
        )
        raise InputError(msg) from error
    return target


def drop_outdated(url: str, cache: Path) -> bool:
    """Remove a cached download whose ETag or Last-Modified has changed on the server; `download` then loads it anew.

    Returns
    -------
    bool
        Whether it was removed. Without a cached file, or its ETag and date, there is nothing to compare.

    Raises
    ------
    MapError
        The server does not answer; the kept file stays.
    """
    target = download_path(url, cache)
    if not target.is_file():
        return False
    about = described(target)
    try:
        headers = {"User-Agent": network.user_agent(), "Accept-Encoding": "identity"}
        answer = requests.head(url, headers=headers, timeout=TIMEOUT, allow_redirects=True)
        answer.raise_for_status()
    except requests.RequestException as error:
        msg = (
            f"area.source: {url}: cannot be asked for a newer map ({error}); the kept one of "
            f"{about['last_modified']} stays"
        )
        if error.response is None:
            raise Unreachable(msg, urlsplit(url).netloc) from error
        raise MapError(msg) from error
    now = {"etag": answer.headers.get("ETag", ""), "last_modified": answer.headers.get("Last-Modified", "")}
    known = [name for name in now if now[name] and about.get(name)]
    if all(now[name] == about[name] for name in known):
        return False
    with FileLock(target.parent / "lock"):
        target.unlink(missing_ok=True)
    return True


def download_path(url: str, cache: Path) -> Path:
    """Where `download` keeps a URL."""
    name = Path(unquote(urlsplit(url).path)).name or "map"
    return cache / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def described(file: Path) -> dict[str, Any]:
    """Record of a downloaded file: url, etag, last_modified, size, checksum (`md5:…` or None)."""
    return dict(json.loads(_companion(file, ".json").read_text()))


def _fetch(url: str, target: Path, progress: Progress | None) -> None:
    """Download a file to `target`, verified by the server's checksum where there is one."""
    partial = _companion(target, ".partial")
    with requests.Session() as session:
        session.headers.update({"User-Agent": network.user_agent(), "Accept-Encoding": "identity"})
        # The file may be replaced on the server while we load it: once more from the start, then it is an error.
        for last in (False, True):
            state = _patiently(session, url, partial, progress)
            expected = _checksum(session, url, target.name)
            if expected is None or _digest(partial, expected[0]) == expected[1]:
                break
            partial.unlink()
            _companion(partial, ".json").unlink(missing_ok=True)
            if last:
                msg = f"area.source: {url}: does not match its {expected[0]} checksum; try later or use another server"
                raise MapError(msg)
    checksum = ":".join(expected) if expected else None
    about = {"url": url, **state, "size": partial.stat().st_size, "checksum": checksum}
    _write(_companion(target, ".json"), about)
    partial.replace(target)
    _companion(partial, ".json").unlink(missing_ok=True)


def _patiently(session: requests.Session, url: str, partial: Path, progress: Progress | None) -> dict[str, str]:
    """Load into `partial` until it is complete; returns ETag and Last-Modified of the file."""
    failures = most = 0
    while True:
        try:
            return _transfer(session, url, partial, progress)
        except PermanentFailure as error:
            msg = f"area.source: {url}: {error}; check the address (a city's name may be spelt differently there)"
            raise MapError(msg) from error
        except TemporaryFailure as error:
            have = _size(partial)
            # A connection that keeps breaking but gains bytes each time may take as many attempts as it needs.
            failures = 1 if have > most else failures + 1
            most = max(most, have)
            if failures >= ATTEMPTS or error.wait > network.LONGEST_WAIT:
                later = f", asks to wait {error.wait:.0f} s" if error.wait else ""
                msg = (
                    f"area.source: {url}: {error}{later}; gave up after {failures} attempts, {have} bytes are kept: "
                    "run again later to go on"
                )
                if error.no_answer and not have:
                    raise Unreachable(msg, urlsplit(url).netloc) from error
                raise MapError(msg) from error
            network.sleep(max(network.backoff(failures), error.wait))


def _transfer(session: requests.Session, url: str, partial: Path, progress: Progress | None) -> dict[str, str]:
    """One request for the bytes that `partial` lacks."""
    notes = _companion(partial, ".json")
    state = json.loads(notes.read_text()) if notes.is_file() and partial.is_file() else {}
    have = _size(partial) if state else 0
    if have and have == state["total"]:
        return {key: state[key] for key in ("etag", "last_modified")}
    # If-Range: a file that changed meanwhile is sent from the start (200) instead of its rest (206).
    headers = {"Range": f"bytes={have}-", "If-Range": state["validator"]} if have and state["validator"] else {}
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:
                partial.unlink()
                raise TemporaryFailure("the server refuses to go on where we left off")
            network.check_status(response)
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise PermanentFailure("a web page instead of a map")
            if response.status_code == 206:
                found = re.match(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
                if not found or int(found[1]) != have:
                    partial.unlink()
                    raise TemporaryFailure("the server goes on elsewhere than where we left off")
                total = int(found[2])
            else:
                have, total = 0, int(response.headers.get("Content-Length", 0))
                partial.unlink(missing_ok=True)
            state = _state(response, total)
            _write(notes, state)
            with partial.open("ab") as file:
                # The bytes as they are stored on the server: requests would unpack a gzip that is sent as an encoding.
                for piece in response.raw.stream(PIECE, decode_content=False):
                    file.write(piece)
                    have += len(piece)
                    if progress:
                        progress(partial.name.removesuffix(".partial"), have, total)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise TemporaryFailure(network.explain(error), no_answer=True) from error
    if total and have != total:
        if have > total:
            partial.unlink()
        raise TemporaryFailure(f"the answer broke off at {have} of {total} bytes")
    return {key: state[key] for key in ("etag", "last_modified")}


def _state(response: requests.Response, total: int) -> dict[str, Any]:
    """ETag, date and size of the file that a response is of."""
    etag, modified = response.headers.get("ETag", ""), response.headers.get("Last-Modified", "")
    # A weak ETag does not promise the same bytes, so it must not go into If-Range.
    validator = etag if etag and not etag.startswith("W/") else modified
    return {"etag": etag, "last_modified": modified, "validator": validator, "total": total}


def _checksum(session: requests.Session, url: str, name: str) -> tuple[str, str] | None:
    """Hash and digest from the server: Geofabrik has `<file>.md5`, BBBike a `CHECKSUM.txt` in the folder."""
    plain = url.split("?")[0]
    for address in (f"{plain}.md5", f"{plain}.sha256", f"{plain.rsplit('/', 1)[0]}/CHECKSUM.txt"):
        try:
            response = session.get(address, timeout=TIMEOUT)
        except requests.RequestException:
            continue
        digests = _digests(response.text, name) if response.ok else []
        if digests:
            return max(digests, key=lambda found: len(found[1]))
    return None


def _digests(text: str, name: str) -> list[tuple[str, str]]:
    """Digests of a file in a checksum list: `<hex>  name` (GNU), `MD5 (name) = <hex>` (BSD), or the hex alone."""
    found = []
    for line in text.splitlines():
        words = re.findall(r"[^\s()=*]+", line)
        digest = next(
            (word.lower() for word in words if len(word) in HASHES and re.fullmatch(r"[0-9a-fA-F]+", word)), ""
        )
        if digest and (len(words) == 1 or name in (Path(word).name for word in words)):
            found.append((HASHES[len(digest)], digest))
    return found


def _digest(path: Path, algorithm: str) -> str:
    """Hash of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    """Bytes of a file, 0 without one."""
    return path.stat().st_size if path.is_file() else 0


def _companion(path: Path, suffix: str) -> Path:
    """File next to another one, by suffix."""
    return path.with_name(path.name + suffix)


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically."""
    draft = _companion(path, ".draft")
    draft.write_text(json.dumps(content, indent=1))
    os.replace(draft, path)
