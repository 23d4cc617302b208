"""Publication of a draft: one move, then one atomic move of the pointer to the latest version.

On local disk the pointer is the symbolic link `latest.zarr`, so that plain xarray follows it; on object storage, which
has no links, it is the file `latest.json`.
"""

import os
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import (
    StorePath,
    children,
    location,
    make_folder,
    move_folder,
    read_json,
    remove_folder,
    write_json,
)
from wavecity.dataset.fingerprints import read_sealed, write_sealed
from wavecity.geo.errors import InputError


@dataclass(frozen=True)
class Version:
    """A published, immutable version of a store."""

    store: StorePath
    number: int
    fingerprint: str

    @property
    def folder(self) -> StorePath:
        """`versions/vN`: `data.zarr` with receipts, buildings, statistics, ledger, lineage and card next to it."""
        return self.store / "versions" / f"v{self.number}"

    @property
    def data(self) -> StorePath:
        """The version's Zarr group."""
        return self.folder / "data.zarr"

    @property
    def map_dates(self) -> dict[str, str]:
        """Date of the map of every city, ISO 8601, where the map says it: the time of its newest edit.

        Examples
        --------
        >>> latest("helsinki").map_dates
        {'Helsinki': '2019-04-01T16:20:31+00:00'}
        """
        maps = (read_json(self.folder / "lineage.json") or {}).get("maps", {})
        return {city: record["map_date"] for city, record in maps.items() if record.get("map_date")}


def versions(store: str | StorePath) -> list[Version]:
    """Versions of a store, oldest first; a folder that is still being copied is not listed.

    Examples
    --------
    >>> [version.number for version in versions("helsinki")]
    [1, 2, 3]
    """
    store = location(store)
    found = []
    for folder in children(store / "versions"):
        content = read_json(folder / "draft.json") if folder.name[1:].isdigit() else None
        if content is not None:
            found.append(Version(store, int(folder.name[1:]), content["fingerprint"]))
    return sorted(found, key=lambda version: version.number)


def latest(store: str | StorePath) -> Version | None:
    """The version that the pointer names.

    Examples
    --------
    >>> latest("helsinki").folder
    PosixPath('helsinki/versions/v3')
    """
    store = location(store)
    name = pointed_at(store)
    return next((version for version in versions(store) if version.folder.name == name), None)


def pointed_at(store: StorePath) -> str | None:
    """Name of the version that the pointer names."""
    if isinstance(store, Path):
        pointer = store / "latest.zarr"
        return Path(os.readlink(pointer)).parent.name if pointer.is_symlink() else None
    content = read_json(store / "latest.json")
    return content["version"] if content else None


def publish(store: str | StorePath, draft: StorePath, keep: int, grace: float = 0.0, point: bool = True) -> Version:
    """Publish a validated draft as the next version and point at it; under the store's `builder_lock`.

    Killed after the move, the version is there by its fingerprint, and `make_latest` does the rest.

    Parameters
    ----------
    store : path or URL
    draft : path
        Folder of a finished draft whose `validation.json` says ok.
    keep : int
        Versions that stay; older ones are removed, never the published one.
    grace : float
        Hours that a version beyond `keep` stays after its successor was published. A file that is removed under a
        reader looks to Zarr like a chunk of fill values, so readers need time to end.
    point : bool
        Whether it becomes the latest version; the first one does in any case.

    Raises
    ------
    InputError
        The draft was not validated, or has changed since.

    Examples
    --------
    >>> validate(draft.folder).ok
    True
    >>> publish("helsinki", draft.folder, keep=3).number
    1
    """
    store = location(store)
    validation = read_sealed(draft / "validation.json")
    if not validation or not validation.get("ok"):
        msg = f"{draft}: not validated; run `wavecity validate {draft}` and fix what it names before publishing"
        raise InputError(msg)
    manifest = read_json(draft / "manifest.json")
    if manifest is None or manifest["sha256"] != validation["manifest"]:
        msg = f"{draft}: has changed since it was validated; run `wavecity validate {draft}` again"
        raise InputError(msg)
    fingerprint = load_draft(draft).fingerprint
    known = versions(store)
    same = [version for version in known if version.fingerprint == fingerprint]
    if same:
        # A move by copies that was killed after the last copy: the rest of the draft can go.
        version = same[-1]
        remove_folder(draft)
    else:
        _sweep(store, known)
        version = Version(store, max((v.number for v in known), default=0) + 1, fingerprint)
        make_folder(version.folder.parent)
        move_folder(draft, version.folder, last="draft.json")
    make_latest(version, keep, grace, point)
    return version


def make_latest(version: Version, keep: int, grace: float, point: bool = True) -> None:
    """Point at a complete version, and remove those that are due; parameters as for `publish`."""
    if read_sealed(version.folder / "published.json") is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_sealed(version.folder / "published.json", {"version": version.number, "published": now})
    if point or pointed_at(version.store) is None:
        point_latest(version)
    retire(version.store, keep, grace)


def _sweep(store: StorePath, known: list[Version]) -> None:
    """Remove folders that a killed copy or removal left behind: without `draft.json` they are no versions."""
    for folder in children(store / "versions"):
        if folder.name not in {version.folder.name for version in known}:
            remove_folder(folder)


def retire(store: StorePath, keep: int, grace: float) -> list[Version]:
    """Remove versions beyond the newest `keep` whose successor is older than `grace` hours; returns those removed."""
    known = versions(store)
    current = pointed_at(store)
    removed = []
    for position, old in enumerate(known[:-keep]):
        published = read_sealed(known[position + 1].folder / "published.json")
        since = datetime.fromisoformat(published["published"]) if published else datetime.min.replace(tzinfo=UTC)
        if old.folder.name != current and datetime.now(UTC) - since >= timedelta(hours=grace):
            # Without its draft.json it is no version any more, should this be killed.
            (old.folder / "draft.json").unlink()
            remove_folder(old.folder)
            removed.append(old)
    return removed


def point_latest(version: Version) -> None:
    """Move the pointer atomically: a reader sees the old version or the new one, never none."""
    if isinstance(version.store, Path):
        temporary = version.store / f"latest.zarr.{uuid.uuid4().hex}.partial"
        temporary.symlink_to(Path("versions", version.folder.name, "data.zarr"))
        os.replace(temporary, version.store / "latest.zarr")
    else:
        write_json(version.store / "latest.json", {"version": version.folder.name})
