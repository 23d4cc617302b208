"""The draft of a version: created once, filled unit by unit by `wavecity.dataset.writer`, finished by
`wavecity.dataset.finish`.

A unit is a fixed group of scenes: one shard of every array, one task, one writer. Its receipt, renamed into place after
the last array was written, is the only proof that it is done.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import zarr
import zarr.codecs

from wavecity.dataset.files import (
    StorePath,
    array_of,
    location,
    make_folder,
    read_json,
    sweep_partials,
    write_json,
    zarr_store,
)
from wavecity.dataset.integrity import damages, named
from wavecity.dataset.layout import Layout
from wavecity.dataset.records import Receipt
from wavecity.geo.errors import InputError


@dataclass(frozen=True)
class Draft:
    """A version under construction: `folder/data.zarr`, with receipts and buildings next to it.

    Examples
    --------
    >>> draft = open_draft("helsinki", fingerprint, layout)
    >>> draft.missing()
    [0, 1, 2, 3]
    """

    folder: StorePath
    fingerprint: str
    layout: Layout

    @property
    def data(self) -> StorePath:
        """Path of the Zarr group."""
        return self.folder / "data.zarr"

    def receipt_path(self, unit: int) -> StorePath:
        """Where a unit's receipt lies."""
        return self.folder / "receipts" / f"unit-{unit:05d}.json"

    def receipt(self, unit: int) -> Receipt | None:
        """Receipt of a unit, or None where it is missing, broken or of another build."""
        content = read_json(self.receipt_path(unit))
        if not isinstance(content, dict) or content.get("fingerprint") != self.fingerprint:
            return None
        whole = len(content.get("scenes", ())) == len(self.layout.scenes_of(unit))
        return cast(Receipt, content) if whole else None

    def buildings_path(self, unit: int) -> StorePath:
        """Where the table of a unit's buildings lies."""
        return self.folder / "buildings" / f"unit-{unit:05d}.parquet"

    def all_receipts(self) -> list[Receipt | None]:
        """Receipt of every unit, None where there is no valid one; several are read at once."""
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(self.receipt, range(self.layout.units)))

    def missing(self) -> list[int]:
        """Units without a valid receipt."""
        return [unit for unit, receipt in enumerate(self.all_receipts()) if receipt is None]

    def discard_damaged(self, verify: bool = False) -> list[str]:
        """Remove receipts and damaged files of finished units whose files are not what was written: they are built
        again.

        Parameters
        ----------
        verify : bool
            Whether every byte is read; by default a file is damaged that is missing or has another size.

        Returns
        -------
        list of str
            One line per such unit.
        """
        receipts = [receipt for receipt in self.all_receipts() if receipt is not None]
        sums = {name: digest for receipt in receipts for name, digest in receipt["files"].items()}
        sizes = {name: size for receipt in receipts for name, size in receipt.get("sizes", {}).items()}
        damaged = damages(self.folder, sums, sizes, verify)
        lines = []
        for receipt in receipts:
            wrong = {name: what for name, what in damaged.items() if name in receipt["files"]}
            if wrong:
                self.receipt_path(receipt["unit"]).unlink()
                for name in wrong:
                    (self.folder / name).unlink(missing_ok=True)
                lines.append(f"unit {receipt['unit']}: {named(wrong)}")
        return lines

    def discard_quarantined(self) -> list[str]:
        """Remove receipts of finished units with quarantined scenes: they are built again.

        Returns
        -------
        list of str
            Ids of the quarantined scenes.
        """
        scenes = []
        for receipt in self.all_receipts():
            lost = [scene["scene_id"] for scene in receipt["scenes"] if scene["status"] != "done"] if receipt else []
            if receipt and lost:
                self.receipt_path(receipt["unit"]).unlink()
                scenes += lost
        return scenes

    def receipts(self) -> list[Receipt]:
        """All receipts in the order of their units; only for a draft without missing units."""
        receipts = self.all_receipts()
        missing = receipts.count(None)
        if missing:
            msg = f"{self.folder}: {missing} units have no valid receipt; build them first"
            raise RuntimeError(msg)
        return [receipt for receipt in receipts if receipt is not None]


def open_draft(store: str | StorePath, fingerprint: str, layout: Layout) -> Draft:
    """Open the draft of this fingerprint under `store/.staging`, or create it; one process at a time (`builder_lock`).

    Half-written files of a killed process are removed; finished units stay.

    Parameters
    ----------
    store : path or URL
    fingerprint : str
        Of everything that decides the data (`fingerprints.fingerprint_of`).
    layout : Layout

    Raises
    ------
    InputError
        The folder cannot be written.

    Examples
    --------
    >>> draft = open_draft("helsinki", fingerprint, layout)
    >>> for unit in draft.missing():
    ...     write_unit(draft, unit, scenes[unit], outcomes[unit], {"seed": 7})
    """
    staging = location(store) / ".staging"
    make_folder(staging)
    sweep_partials(staging)
    draft = Draft(staging / fingerprint[:16], fingerprint, layout)
    # draft.json comes last: a draft without it was not created completely, and holds nothing yet. One whose arrays
    # cannot be opened any more starts anew; what its receipts name is lost.
    if read_json(draft.folder / "draft.json") is None or not _has_arrays(draft):
        _create_arrays(draft.data, layout)
        make_folder(draft.folder / "receipts")
        make_folder(draft.folder / "buildings")
        write_json(draft.folder / "draft.json", {"fingerprint": fingerprint, "layout": layout.content()})
    return draft


def load_draft(folder: StorePath) -> Draft:
    """Open the draft, or the published version, in `folder`.

    Raises
    ------
    InputError
        It holds no readable `draft.json`.
    """
    content = read_json(folder / "draft.json")
    try:
        return Draft(folder, content["fingerprint"], Layout.of(content["layout"]))
    except (TypeError, KeyError) as error:
        msg = (
            f"{folder}: no readable draft.json, so its receipts cannot be checked; name a whole version, not a "
            f"copied .zarr"
        )
        raise InputError(msg) from error


def _has_arrays(draft: Draft) -> bool:
    """Whether the metadata of all arrays can be read."""
    try:
        # Of each by itself: the root's consolidated metadata would hide that those of an array are gone.
        root = zarr.open_group(zarr_store(draft.data, read_only=True), mode="r", use_consolidated=False)
        return all(array_of(root, spec.name).shape == draft.layout.shape(spec) for spec in draft.layout.specs())
    except (OSError, KeyError, ValueError, TypeError):
        return False


def _create_arrays(path: StorePath, layout: Layout) -> None:
    """Create all arrays of a draft, without values."""
    root = zarr.open_group(zarr_store(path), mode="w", zarr_format=3)
    compressor = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    for spec in layout.specs():
        root.create_array(
            spec.name,
            shape=layout.shape(spec),
            dtype=spec.dtype,
            chunks=layout.chunk(spec),
            shards=layout.shard(spec),
            compressors=compressor,
            fill_value=spec.fill,
            dimension_names=spec.dims,
            attributes={"units": spec.units, "long_name": spec.long_name},
        )
