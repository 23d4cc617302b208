"""Staging -> version: one rename, then one atomic move of the `latest.zarr` pointer."""

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from dataset.files import read_json
from dataset.writer import load_draft
from geo.errors import InputError


@dataclass(frozen=True)
class Version:
    """A published, immutable version of a store."""

    store: Path
    number: int
    fingerprint: str

    @property
    def folder(self) -> Path:
        """`versions/vN`: `data.zarr` with receipts, buildings, statistics, ledger and lineage beside it."""
        return self.store / "versions" / f"v{self.number}"

    @property
    def data(self) -> Path:
        """The version's Zarr group."""
        return self.folder / "data.zarr"


def versions(store: Path) -> list[Version]:
    """Versions of a store, oldest first."""
    found = []
    for folder in (store / "versions").glob("v*"):
        content = read_json(folder / "draft.json")
        if content is not None and folder.name[1:].isdigit():
            found.append(Version(store, int(folder.name[1:]), content["fingerprint"]))
    return sorted(found, key=lambda version: version.number)


def latest(store: Path) -> Version | None:
    """The version that `latest.zarr` points to."""
    pointer = store / "latest.zarr"
    if not pointer.is_symlink():
        return None
    name = Path(os.readlink(pointer)).parent.name
    return next((version for version in versions(store) if version.folder.name == name), None)


def publish(store: Path, draft: Path, keep: int) -> Version:
    """Publish a validated draft as the next version and point `latest.zarr` at it.

    Killed between the two steps, the next call finds the version by its fingerprint and moves the pointer.

    Parameters
    ----------
    store : Path
    draft : Path
        Folder of a finished draft whose `validation.json` says ok.
    keep : int
        Versions that stay; older ones are removed, never the published one.

    Raises
    ------
    InputError
        The draft was not validated.
    """
    validation = read_json(draft / "validation.json")
    if not validation or not validation.get("ok"):
        msg = f"{draft}: not validated; run `wavecity validate {draft}` and mend what it names before publishing"
        raise InputError(msg)
    fingerprint = load_draft(draft).fingerprint
    known = versions(store)
    version = Version(store, max((v.number for v in known), default=0) + 1, fingerprint)
    version.folder.parent.mkdir(exist_ok=True)
    os.rename(draft, version.folder)
    point_latest(version)
    for old in [*known, version][:-keep]:
        shutil.rmtree(old.folder)
    return version


def point_latest(version: Version) -> None:
    """Move the pointer atomically: a reader sees the old version or the new one, never none."""
    temporary = version.store / f"latest.zarr.{uuid.uuid4().hex}.partial"
    temporary.symlink_to(version.data.relative_to(version.store))
    os.replace(temporary, version.store / "latest.zarr")
