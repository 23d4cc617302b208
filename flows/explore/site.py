"""The page as static files: in memory for the local server, or written to a folder or bucket."""

import os
import re
from dataclasses import dataclass, replace
from importlib import resources
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from wavecity.dataset.files import StorePath, atomic_path, children, location, make_folder
from wavecity.dataset.reader import resolve
from wavecity.flows.explore.index import index_bytes, make_index
from wavecity.flows.explore.predictions import read_predictions
from wavecity.geo.errors import InputError

INDEX = "explore.json"
# Predictions of a run, which the page loads with the first scene.
RUN = "run.json"
# What an earlier site may have that this one has not: its predictions, and parts of its bundle.
OURS = re.compile(r"run\.json|\w+-[A-Z0-9]{8}\.js")
# Where the local server has the version's files.
DATA = "data"


@dataclass(frozen=True)
class Site:
    """A page and the version that it shows.

    Attributes
    ----------
    folder : path
        Of the version.
    index : dict
        See `make_index`; its `data` says where the page finds the version's files.
    predictions : dict, optional
        See `read_predictions`.
    """

    folder: StorePath
    index: dict[str, Any]
    predictions: dict[str, Any] | None = None

    def files(self) -> dict[str, bytes]:
        """Content of every file of the site by its name."""
        found = {**page_files(), INDEX: index_bytes(self.index)}
        return found if self.predictions is None else {**found, RUN: index_bytes(self.predictions)}


def page_files() -> dict[str, bytes]:
    """Files of the page, the same for every store."""
    folder = resources.files("wavecity.flows.explore") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def make_site(store: str | StorePath, run: Path | None = None) -> Site:
    """Index a store for the local server, with the predictions of a run.

    Raises
    ------
    InputError
        See `make_index` and `read_predictions`.

    Examples
    --------
    >>> make_site("stores/helsinki").index["data"]
    'data/'
    """
    predictions = None if run is None else read_predictions(run, store)
    index = {**make_index(store), "data": f"{DATA}/"}
    if predictions is not None:
        scenes = predictions["scenes"]
        rays = any("rays" in scene for scene in scenes.values())
        index["run"] = {"name": predictions["name"], "scenes": sorted(scenes), "rays": rays}
    return Site(resolve(store).parent, index, predictions)


def write_site(site: Site, out: str | StorePath, data: str | None = None) -> str:
    """Write a site as files that any web server or bucket can serve.

    Parameters
    ----------
    site : Site
    out : path or URL
        New, empty, or with an earlier site, which is replaced.
    data : str, optional
        Where the page finds the version's files, as a browser sees it. By default relative to the page, where both are
        on disk or in the same bucket, else the bucket's public address.

    Returns
    -------
    str
        That address.

    Raises
    ------
    InputError
        `out` holds something else, lies in the published version, or cannot be written; or a browser cannot reach the
        data.

    Examples
    --------
    >>> write_site(make_site("public/store"), "public/site")
    '../store/versions/v3/'
    """
    target = location(out)
    refuse_out(site.folder, target)
    address = (data.rstrip("/") + "/") if data else address_of(site.folder, target)
    make_folder(target)
    # Where a store lies on this machine is nobody's business.
    named = site.index["store"]
    store = named if "://" in named else Path(named).resolve().name
    files = replace(site, index={**site.index, "store": store, "data": address}).files()
    # The index last: a folder that has it has all.
    for name in sorted(files, key=lambda name: name == INDEX):
        _write(target / name, files[name])
    for path in children(target):
        if path.name not in files and OURS.fullmatch(path.name):
            path.unlink()
    return address


def _write(path: StorePath, content: bytes) -> None:
    """Write a file of a site, on object storage with the type that browsers need to know."""
    if isinstance(path, Path):
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
        return
    key = "ContentType" if path.protocol == "s3" else "content_type"
    path.fs.pipe_file(path.path, content, **{key: content_type(path.name)})


def content_type(name: str) -> str:
    """Type of a file for HTTP.

    Examples
    --------
    >>> content_type("app.js")
    'text/javascript; charset=utf-8'
    """
    kind = guess_type(name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind.endswith(("json", "javascript"))
    return f"{kind}; charset=utf-8" if text else kind


def refuse_out(version: StorePath, target: StorePath) -> None:
    """Raise `InputError` where a site must not be written."""
    if isinstance(target, Path) and target.exists() and not target.is_dir():
        msg = f"--out {target}: is a file; name a folder"
        raise InputError(msg)
    if isinstance(target, Path) and isinstance(version, Path) and target.resolve().is_relative_to(version.resolve()):
        msg = f"--out {target}: lies in a published version, which never changes; name a folder next to the store"
        raise InputError(msg)
    names = {path.name for path in children(target)}
    if names and not {INDEX, "index.html"} <= names:
        msg = (
            f"--out {target}: holds {', '.join(sorted(names)[:3])}, not an earlier site; name a new or an empty folder"
        )
        raise InputError(msg)


def address_of(version: StorePath, target: StorePath) -> str:
    """Address of a version as the page in `target` reaches it."""
    if isinstance(version, Path) and isinstance(target, Path):
        return Path(os.path.relpath(version.resolve(), target.resolve())).as_posix() + "/"
    if isinstance(version, Path):
        msg = f"--out {target}: the data are on this machine; name with --data where a browser finds them"
        raise InputError(msg)
    if not isinstance(target, Path) and _bucket(version) == _bucket(target):
        return os.path.relpath(version.path, target.path) + "/"
    if version.protocol not in ("s3", "gs", "gcs"):
        msg = f"{version}: no public address is known for {version.protocol}://; name it with --data"
        raise InputError(msg)
    bucket, _, key = version.path.partition("/")
    if version.protocol != "s3":
        return f"https://storage.googleapis.com/{bucket}/{key}/"
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f"{server.rstrip('/')}/{bucket}/{key}/" if server else f"https://{bucket}.s3.amazonaws.com/{key}/"


def _bucket(place: StorePath) -> tuple[str, str]:
    """Protocol and bucket of a place on object storage."""
    assert not isinstance(place, Path)
    return place.protocol, place.path.partition("/")[0]
