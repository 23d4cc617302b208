"""Files that are either whole or absent, on local disk and on object storage.

A place is a `pathlib.Path`, or for a URL (`s3://bucket/store`) a `upath.UPath`, which speaks the same language through
fsspec. Credentials come from the environment, as fsspec's implementations read them (for S3: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`).

On local disk a file is written under a temporary name and renamed; on object storage a single PUT is atomic by itself.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union

import zarr
import zarr.storage
from zarr.abc.store import Store
from zarr.types import ArrayV3

from wavecity.geo.errors import InputError

if TYPE_CHECKING:
    from upath import UPath

# `|` cannot be used with a name in quotes, and upath is not there in the base install.
StorePath: TypeAlias = Union[Path, "UPath"]


def location(where: str | StorePath) -> StorePath:
    """Turn a path or URL as users write it into a place: a URL into a `UPath`, anything else into a `Path`.

    Raises
    ------
    InputError
        The URL's protocol is not known, or the package for it is not installed.

    Examples
    --------
    >>> location("s3://bucket/helsinki") / "latest.json"
    S3Path('s3://bucket/helsinki/latest.json')
    """
    if isinstance(where, str) and where.startswith("file://"):
        return Path(where.removeprefix("file://"))
    if not isinstance(where, str) or "://" not in where:
        return Path(where) if isinstance(where, str) else where
    protocol = where.split("://")[0]
    try:
        from upath import UPath

        # Listings are asked for anew: another process may have written since.
        path = UPath(where, use_listings_cache=False)
        _ = path.fs
    except (ImportError, ValueError) as error:
        extra = "pip install 'wavecity[cloud]'" if protocol == "s3" else f"install fsspec's package for {protocol}"
        msg = f"{where}: {protocol}:// cannot be used here ({error}); {extra}"
        raise InputError(msg) from error
    return path


def lists(folder: StorePath) -> bool:
    """Whether the files of a folder can be listed: a web server's cannot, and what it lacks is found when it is read."""
    return isinstance(folder, Path) or folder.protocol not in ("http", "https")


def zarr_store(path: StorePath, read_only: bool = False) -> Store:
    """Zarr store of a place, for `zarr.open_group` and `xarray.open_zarr`."""
    if isinstance(path, Path):
        return zarr.storage.LocalStore(path, read_only=read_only)
    options = {**path.storage_options, "use_listings_cache": False}
    if not lists(path):
        del options["use_listings_cache"]  # which zarrs refuses for the web
    return zarr.storage.FsspecStore.from_url(str(path), storage_options=options, read_only=read_only)


def open_group(path: StorePath, mode: Literal["r", "r+", "a", "w", "w-"] = "r") -> zarr.Group:
    """Open a Zarr group at a place."""
    return zarr.open_group(zarr_store(path, read_only=mode == "r"), mode=mode)


def array_of(group: zarr.Group, name: str) -> ArrayV3:
    """Array of a group; raises `KeyError` where the name is not that of an array."""
    found = group[name]
    if not isinstance(found, zarr.Array):
        raise KeyError(name)
    return found


def outage(error: object) -> str:
    """What to say of an error by which object storage does not answer; of any other error nothing.

    Those of botocore are no `OSError`.
    """
    botocore = sys.modules.get("botocore.exceptions")  # without it the error is none of its
    if botocore is None or not isinstance(error, botocore.ConnectionError | botocore.HTTPClientError):
        return ""
    return f"the store does not answer: {error}; check its address in the environment, then run the same command again to go on"


@contextmanager
def atomic_path(path: StorePath) -> Iterator[Path]:
    """Yield a local temporary path; on success its file becomes `path`, on failure it is removed.

    Examples
    --------
    >>> with atomic_path(Path("table.parquet")) as temporary:
    ...     table.to_parquet(temporary)
    """
    if isinstance(path, Path):
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        yield temporary
        path.write_bytes(temporary.read_bytes())


def write_text(path: StorePath, text: str) -> None:
    """Write a text file atomically; parents are created."""
    if isinstance(path, Path):
        make_folder(path.parent)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: StorePath, content: object) -> None:
    """Write JSON atomically; parents are created."""
    write_text(path, json_bytes(content).decode())


def json_bytes(content: object) -> bytes:
    """JSON as all files have it: the same content gives the same bytes."""
    return (json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


def read_json(path: StorePath) -> Any:
    """Content of a JSON file, or None where it is missing or cannot be parsed."""
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return None


def sha256_of(path: StorePath) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def make_folder(path: StorePath) -> None:
    """Make a folder with its parents; one that cannot be written raises `InputError`. Object storage has no folders."""
    if not isinstance(path, Path):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to {path}: {error.strerror or error}; name a folder that you may write to"
        raise InputError(msg) from error
    if not os.access(path, os.W_OK):
        msg = f"cannot write to {path}: permission denied; name a folder that you may write to"
        raise InputError(msg)


def children(folder: StorePath) -> list[StorePath]:
    """Files and folders directly in a folder; none if it does not exist."""
    return list(folder.iterdir()) if folder.exists() else []


def files_below(folder: StorePath) -> list[str]:
    """Names of all files below a folder, relative to it, sorted."""
    if isinstance(folder, Path):
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    prefix = folder.path.rstrip("/") + "/"
    return sorted(name.removeprefix(prefix) for name in folder.fs.find(folder.path))


def folder_size(folder: StorePath) -> int:
    """Bytes of all files below a folder."""
    if isinstance(folder, Path):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return sum(info["size"] or 0 for info in folder.fs.find(folder.path, detail=True).values())


def move_folder(source: StorePath, target: StorePath, last: str) -> None:
    """Move a folder: one rename on local disk; on object storage copies, file `last` after all others, then deletes.

    A folder with its file `last` is whole, whenever the process is killed.
    """
    if isinstance(source, Path) and isinstance(target, Path):
        os.rename(source, target)
        return
    assert not isinstance(source, Path)
    assert not isinstance(target, Path)
    names = files_below(source)
    for batch in ([name for name in names if name != last], [last]):
        source.fs.copy([f"{source.path}/{name}" for name in batch], [f"{target.path}/{name}" for name in batch])
    remove_folder(source)


def remove_folder(folder: StorePath) -> None:
    """Remove a folder with its content; one that does not exist is no error."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.fs.exists(folder.path):
        folder.fs.rm(folder.path, recursive=True)


def sweep_partials(folder: StorePath) -> int:
    """Remove files and folders that a killed process left half-written below `folder`; returns their number."""
    if not isinstance(folder, Path):
        return 0
    found = [*folder.rglob("*.partial")]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(found)
