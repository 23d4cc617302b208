"""Where prepared maps lie, and how workers on other machines get at them.

A plan is made on one machine; its units are computed wherever Dask has workers. Those that do not see the planner's map
folder fetch a city's prepared map (GeoParquet, tens of MB) from the store, once, into a folder of their own.
"""

import os
import uuid
from pathlib import Path

from filelock import FileLock

from wavecity.dataset.files import StorePath, files_below
from wavecity.geo.errors import InputError
from wavecity.geo.sources import Source


def map_folder(store: StorePath) -> Path:
    """Default folder for maps: in the store; for a store on object storage, in the user's cache."""
    return store / "maps" if isinstance(store, Path) else own_folder()


def own_folder() -> Path:
    """Folder for maps of this machine: `WAVECITY_MAPS`, or one in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("WAVECITY_MAPS") or cache / "wavecity" / "maps")


def share_maps(sources: dict[str, Source], store: StorePath) -> None:
    """Put the prepared maps of a plan into a store on object storage, those that are not there yet."""
    if isinstance(store, Path):
        return  # in the store already, or in a folder that --maps says all workers see
    for source in sources.values():
        folder = _prepared(source)
        there = set(files_below(store / "maps" / folder.name)) if (store / "maps" / folder.name).exists() else set()
        for name in files_below(folder):
            if name not in there:
                (store / "maps" / folder.name / name).write_bytes((folder / name).read_bytes())


def at_hand(source: Source, store: StorePath) -> Source:
    """Return a source whose files this machine can read, fetched from the store where it has to be.

    Raises
    ------
    InputError
        The map is neither here nor in the store.
    """
    folder = _prepared(source)
    if folder.is_dir():
        return source
    own = own_folder() / folder.name
    if not own.is_dir():
        shared = store / "maps" / folder.name
        names = files_below(shared) if shared.exists() else []
        if not names:
            msg = (
                f"{folder}: the planner's map is not on this machine, nor in {store}; "
                "name a --maps folder that all workers see, or a store on object storage"
            )
            raise InputError(msg)
        own.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(own.parent / f"{own.name}.lock"):
            if not own.is_dir():
                _copy(shared, names, own)
    return source.moved(own)


def _copy(shared: StorePath, names: list[str], own: Path) -> None:
    """Copy files to a new folder, which appears complete or not at all."""
    temporary = own.with_name(f"{own.name}.{uuid.uuid4().hex}.partial")
    temporary.mkdir()
    for name in names:
        (temporary / name).write_bytes((shared / name).read_bytes())
    temporary.rename(own)


def _prepared(source: Source) -> Path:
    """Folder of a source's GeoParquet."""
    return source.parquet.parent
