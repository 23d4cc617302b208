"""Units that a new version has in common with an older one: their files are shared, not written again.

On a local disk the new version's files are hard links: a unit that both have takes its bytes once, until the last version
that has it is removed. On object storage the server copies them.
"""

import os
import re
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from wavecity.dataset.draft import Draft
from wavecity.dataset.files import StorePath, make_folder, remove_folder, sha256_of, write_json
from wavecity.dataset.fingerprints import package_versions
from wavecity.dataset.records import Outcome, Receipt


def share_unit(draft: Draft, unit: int, old: Draft, old_unit: int, outcomes: Sequence[Outcome]) -> Receipt | None:
    """Take over a whole unit of another version, and leave its receipt.

    Parameters
    ----------
    draft : Draft
    unit : int
    old : Draft
        A published version (`load_draft`).
    old_unit : int
        Its unit with the same scenes in the same order.
    outcomes : sequence of dict
        What the new receipt says of the scenes.

    Returns
    -------
    dict or None
        The receipt; None where the unit has to be written: it is laid out in another way, its scenes are in other
        splits, or a file is not what its receipt says.

    Examples
    --------
    >>> share_unit(draft, 3, load_draft(store / "versions" / "v1"), 3, outcomes)["unit"]
    3
    """
    start = time.perf_counter()
    before = old.receipt(old_unit)
    if before is None or replace(draft.layout, scenes=1) != replace(old.layout, scenes=1):
        return None
    # Statistics and histograms of a unit are kept by split.
    splits = [(scene["scene_id"], scene["split"]) for scene in before["scenes"]]
    if splits != [(scene["scene_id"], scene["split"]) for scene in outcomes]:
        return None
    names = {name: _renamed(name, old_unit, unit) for name in before["files"]}
    try:
        if any(sha256_of(old.folder / name) != digest for name, digest in before["files"].items()):
            return None
    except OSError:
        return None
    for spec in draft.layout.specs():
        remove_folder(draft.data / spec.name / "c" / str(unit))
    for name, new in names.items():
        _share(old.folder / name, draft.folder / new)
    receipt: Receipt = {
        **before,
        "fingerprint": draft.fingerprint,
        "unit": unit,
        "scenes": list(outcomes),
        "files": {names[name]: digest for name, digest in before["files"].items()},
        "sizes": {names[name]: size for name, size in before["sizes"].items()},
        "versions": package_versions(),
        "seconds_write": round(time.perf_counter() - start, 3),
    }
    write_json(draft.receipt_path(unit), receipt)
    return receipt


def _renamed(name: str, old: int, new: int) -> str:
    """Name of a unit's file as that of another unit: `data.zarr/csi/c/3/0/0/0`, `buildings/unit-00003.parquet`."""
    if name.startswith("buildings/"):
        return f"buildings/unit-{new:05d}.parquet"
    return re.sub(rf"/c/{old}(?=/|$)", f"/c/{new}", name, count=1)


def _share(source: StorePath, target: StorePath) -> None:
    """Give a file a second name; where that cannot be, copy it."""
    if isinstance(source, Path) and isinstance(target, Path):
        make_folder(target.parent)
        target.unlink(missing_ok=True)
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target)
            return
        shutil.copyfile(source, target)
        return
    assert not isinstance(source, Path)
    assert not isinstance(target, Path)
    source.fs.copy(source.path, target.path)
