"""A store in another tool's format: pieces that are whole or absent, so that a killed export goes on."""

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wavecity.dataset.exchange.selection import Scene, Selection, select
from wavecity.dataset.files import make_folder, read_json, sweep_partials, write_json, write_text
from wavecity.dataset.fingerprints import fingerprint_of
from wavecity.dataset.progress import Tracker
from wavecity.geo.errors import InputError

# To be raised when the same store would give other files.
EXPORTER = 1
# Says what the folder holds, and once it is finished the size of every file.
RECORD = "export.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Item:
    """A piece of an export: a file or folder of this name, with these scenes."""

    name: str
    scenes: tuple[Scene, ...]


class Format(Protocol):
    """How a store is written in one format."""

    def settings(self) -> dict[str, object]:
        """What decides the files besides the selection; JSON."""

    def items(self, selection: Selection) -> list[Item]:
        """Pieces, none of them larger than memory allows."""

    def write(self, selection: Selection, item: Item, path: Path) -> None:
        """Write one piece as a new file or folder `path`."""

    def finish(self, selection: Selection, items: Sequence[Item], out: Path) -> str:
        """Write what all pieces share; returns the page that says how to read them, Markdown."""


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes
    ----------
    out : Path
    items, written : int
        Pieces, and those of them that were not there before.
    scenes, users : int
    bytes : int
        Of all files.
    """

    out: Path
    items: int
    written: int
    scenes: int
    users: int
    bytes: int


def export_dataset(
    store: str,
    to: str,
    out: Path,
    *,
    cities: Sequence[str] = (),
    splits: Sequence[str] = (),
    scenes: Sequence[str] = (),
    bs: Sequence[int] = (),
    fields: Sequence[str] | None = None,
    array: str | None = None,
    progress: Tracker = iter,
) -> Exported:
    """Write scenes of a store in another tool's format.

    Given again, it goes on where it was killed; of a finished export only files that are missing or have another size
    are written.

    Parameters
    ----------
    store : str
        Folder or URL.
    to : str
        `deepmimo` (version 4), `deepmimo-v3`, `hdf5`, `mat` or `webdataset`.
    out : Path
        Folder: new, empty, or of the same export.
    cities, splits, scenes : sequences of str
        Names; empty for all.
    bs : sequence of int
        Numbers of the base stations whose links are exported; empty for all.
    fields : sequence of str, optional
        Arrays, for the formats that are not DeepMIMO's.
    array : str, optional
        For DeepMIMO's: `16x8` or `16x8@0.7`, columns x rows and the spacing in wavelengths of the array that the phases
        are referred to; the store's unless given.
    progress : callable
        Wraps the iteration over pieces, e.g. a progress bar.

    Returns
    -------
    Exported

    Raises
    ------
    InputError
        An unknown name, a store without paths for DeepMIMO, a package that is not installed, or a folder that holds
        something else. Nothing is written then.

    Examples
    --------
    >>> export_dataset("helsinki", "hdf5", Path("helsinki-hdf5"), splits=["test"])
    """
    form, names = _format(store, to, fields, array)
    selection = select(store, names, cities, splits, scenes, bs)
    # Refuses arrays that the store does not have before anything is written.
    _ = selection.arrays
    items = form.items(selection)
    content = {
        "exporter": EXPORTER,
        "to": to,
        "dataset": selection.identity,
        "scenes": [scene.id for scene in selection.scenes],
        "settings": form.settings(),
    }
    if selection.has_several:
        content["base_stations"] = list(selection.numbers)
    record = {
        "format": to,
        "attribution": selection.attributes["attribution"],
        "licence": selection.attributes["licence"],
        "of": fingerprint_of(content),
        **content,
    }
    _refuse_other(out, record)
    make_folder(out)
    with _alone(out):
        sweep_partials(out)
        _discard_damaged(out, items)
        if not (out / RECORD).exists():
            write_json(out / RECORD, record)
        missing = [item for item in items if not (out / item.name).exists()]
        for item in progress(missing):
            _write(form, selection, item, out)
        files = _sizes(out)
        if missing or _finished(out) != files:
            page = form.finish(selection, items, out)
            write_text(out / "README.md", page)
            files = _sizes(out)
            write_json(out / RECORD, {**record, "files": files})
    users = sum(scene.users for scene in selection.scenes)
    return Exported(out, len(items), len(missing), len(selection.scenes), users, sum(files.values()))


def _format(
    store: str, to: str, fields: Sequence[str] | None, array: str | None
) -> tuple[Format, Sequence[str] | None]:
    """The format of a name, and the arrays it reads."""
    from wavecity.dataset.exchange import array_files, deepmimo_v3, deepmimo_v4, tar_files

    scenarios: dict[str, Callable[[str, str | None], Format]] = {
        "deepmimo": deepmimo_v4.Scenarios,
        "deepmimo-v3": deepmimo_v3.Scenarios,
    }
    others: dict[str, Callable[[], Format]] = {
        "hdf5": array_files.Hdf5,
        "mat": array_files.Matlab,
        "webdataset": tar_files.Tar,
    }
    if to in scenarios:
        if fields is not None:
            msg = f"--fields is for {', '.join(others)}; a DeepMIMO scenario consists of paths"
            raise InputError(msg)
        return scenarios[to](store, array), deepmimo_v4.path_fields(store)
    if to not in others:
        msg = f"--to {to}: not known; known are {', '.join([*scenarios, *others])}"
        raise InputError(msg)
    if array is not None:
        msg = f"--array is for {', '.join(scenarios)}; {to} has the channels of the store's own array"
        raise InputError(msg)
    return others[to](), tar_files.fields_of(store) if to == "webdataset" and fields is None else fields


def _refuse_other(out: Path, record: dict[str, object]) -> None:
    """Refuse a folder that holds anything but this export."""
    if not out.exists():
        return
    if not out.is_dir():
        msg = f"{out}: a file; name a folder"
        raise InputError(msg)
    there = read_json(out / RECORD)
    if isinstance(there, dict) and "of" in there:
        if there["of"] != record["of"]:
            msg = (
                f"{out}: holds another export ({there.get('format')}, {len(there.get('scenes', ()))} scenes); repeat "
                "that one's options, or name another folder"
            )
            raise InputError(msg)
    elif any(path.name != LOCK for path in out.iterdir()):
        msg = f"{out}: holds something else; name a new or empty folder"
        raise InputError(msg)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second export out of the folder."""
    with (out / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{out}: another export is writing there; wait for it, or name another folder"
            raise InputError(msg) from error
        yield
        (out / LOCK).unlink(missing_ok=True)


def _write(form: Format, selection: Selection, item: Item, out: Path) -> None:
    """Write one piece under another name, then rename it."""
    temporary = out / f"{item.name}.{uuid.uuid4().hex}.partial"
    temporary.parent.mkdir(exist_ok=True)
    try:
        form.write(selection, item, temporary)
        os.replace(temporary, out / item.name)
    finally:
        _remove(temporary)


def _discard_damaged(out: Path, items: Sequence[Item]) -> None:
    """Remove pieces of a finished export of which a file is missing or has another size."""
    listed, there = _finished(out), _sizes(out)
    wrong = {name for name, size in listed.items() if there.get(name) != size}
    for item in items:
        if item.name in wrong or any(name.startswith(f"{item.name}/") for name in wrong):
            _remove(out / item.name)


def _finished(out: Path) -> dict[str, int]:
    """Sizes of all files as the record says them; empty before the export is finished."""
    content = read_json(out / RECORD)
    return dict(content.get("files", {})) if isinstance(content, dict) else {}


def _sizes(out: Path) -> dict[str, int]:
    """Bytes of all files of an export, its record aside."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in (RECORD, LOCK))
    return {str(path.relative_to(out)): path.stat().st_size for path in files}


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
