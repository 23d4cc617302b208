"""Comparison of the files of a store with what was written: presence and sizes, and bytes on request."""

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wavecity.dataset.files import StorePath, lists, sha256_of

# How many files a message names.
NAMED = 3


def sizes_of(folder: StorePath, names: Iterable[str]) -> dict[str, int]:
    """Sizes in bytes of the files that exist; on object storage from a single listing."""
    if not isinstance(folder, Path):
        prefix = folder.path.rstrip("/") + "/"
        listed = folder.fs.find(folder.path, detail=True)
        there = {name.removeprefix(prefix): int(info["size"] or 0) for name, info in listed.items()}
        return {name: there[name] for name in names if name in there}
    found = {}
    for name in names:
        try:
            found[name] = os.stat(folder / name).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def damages(
    folder: StorePath, sums: Mapping[str, str], sizes: Mapping[str, int], verify: bool = False
) -> dict[str, str]:
    """Find files that differ from what was written.

    Parameters
    ----------
    folder : path
    sums : mapping
        Name of every file, relative to `folder` -> SHA-256.
    sizes : mapping
        Name -> bytes; versions written by older releases have none.
    verify : bool
        Whether every byte is read.

    Returns
    -------
    dict
        Name -> what is wrong with it, "is missing".
    """
    found = sizes_of(folder, sums) if lists(folder) else {name: sizes.get(name, 0) for name in sums}
    wrong = {name: "is missing" for name in sums if name not in found}
    for name, size in found.items():
        if size != sizes.get(name, size):
            wrong[name] = f"has {size} bytes, not {sizes[name]}"
    if verify:
        whole = [name for name in found if name not in wrong]
        with ThreadPoolExecutor(16) as threads:
            read = threads.map(lambda name: sha256_of(folder / name), whole)
            wrong |= {name: "has changed" for name, digest in zip(whole, read, strict=True) if digest != sums[name]}
    return dict(sorted(wrong.items()))


def named(wrong: Mapping[str, str]) -> str:
    """The first few damaged files for a message of one line."""
    more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return ", ".join(f"{name} {what}" for name, what in list(wrong.items())[:NAMED]) + more
