"""Writing one unit of a draft: whole shards of every array, then the receipt."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr
import zarr.storage
from zarr.abc.store import Store
from zarr.core.buffer import Buffer
from zarr.types import ArrayV3

from wavecity.dataset.bands import at_band
from wavecity.dataset.distributions import unit_distributions
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import array_of, remove_folder, write_json, zarr_store
from wavecity.dataset.fingerprints import array_checksum, package_versions
from wavecity.dataset.records import Outcome, Receipt, ReceiptExtra
from wavecity.dataset.schema import Arrays, ArraySpec, Values
from wavecity.dataset.statistics import unit_statistics


def write_shards(array: ArrayV3, start: int, values: Values) -> None:
    """Write scenes `start ... start + len(values)` of one array, whole shards only.

    Two writers in one shard silently lose data (zarr issue 3682), so nothing but whole shards may be written.

    Raises
    ------
    ValueError
        The region is not shard-aligned; the message says what would be.
    """
    shard = (array.shards or array.chunks)[0]
    stop = start + len(values)
    if start % shard or (stop % shard and stop != array.shape[0]):
        msg = (
            f"{array.path}: scenes {start}:{stop} do not fill whole shards of {shard} scenes (of {array.shape[0]}); "
            f"write a whole unit at once, starting at a multiple of {shard}"
        )
        raise ValueError(msg)
    if values.shape[1:] != array.shape[1:]:
        msg = f"{array.path}: values of shape {values.shape[1:]} per scene, the array holds {array.shape[1:]}"
        raise ValueError(msg)
    array[start:stop] = values


def write_unit(
    draft: Draft,
    unit: int,
    scenes: Sequence[Arrays | None],
    outcomes: Sequence[Outcome],
    extra: ReceiptExtra,
) -> Receipt:
    """Write one unit and leave its receipt.

    Parameters
    ----------
    draft : Draft
    unit : int
        From 0 on.
    scenes : sequence of dict
        Arrays of each scene of the unit (`features.scene_arrays`), or None for a quarantined scene.
    outcomes : sequence of dict
        What became of each scene; goes into the receipt.
    extra : dict
        Seed, for the receipt.

    Returns
    -------
    dict
        The receipt: outcomes, SHA-256 of every array's values, SHA-256 and bytes of every file of the unit, statistics,
        versions.

    Raises
    ------
    ValueError
        Not as many scenes as the unit has, or a scene with more users than the store holds.

    Examples
    --------
    >>> outcome = {"scene_id": "site", "city": "Site", "split": "test", "n_users": 12, "status": "done"}
    >>> receipt = write_unit(draft, 0, [arrays], [outcome], {"seed": 7})
    """
    start = time.perf_counter()
    expected = draft.layout.scenes_of(unit)
    if not len(scenes) == len(outcomes) == len(expected):
        msg = f"unit {unit} has {len(expected)} scenes, got {len(scenes)} with {len(outcomes)} outcomes"
        raise ValueError(msg)
    store = _Hashing(zarr_store(draft.data))
    root = zarr.open_group(store, mode="r+")
    sums: dict[str, str] = {}
    for spec in draft.layout.specs():
        shape = draft.layout.shape(spec)[1:]
        values = np.full((len(expected), *shape), spec.fill, dtype=spec.dtype)
        for row, arrays in enumerate(scenes):
            if arrays is not None:
                _place(values[row], arrays[spec.name], spec, draft.layout.users)
        # Zarr drops chunks that equal the fill value, and -0.0 does: without this it would come back as +0.0.
        if values.dtype.kind in "fc":
            values += values.dtype.type(0)
        if isinstance(draft.data, Path):
            # Zarr reads a shard first of whose last chunk the user axis fills a part; one that was cut short fails
            # there. An object is whole or absent.
            remove_folder(draft.data / spec.name / "c" / str(unit))
        write_shards(array_of(root, spec.name), expected.start, values)
        sums[spec.name] = array_checksum(values)
    files = {f"data.zarr/{name}": digest for name, digest in store.sums.items()}
    sizes = {f"data.zarr/{name}": size for name, size in store.sizes.items()}
    buildings = draft.buildings_path(unit)
    if buildings.exists():
        name, content = f"buildings/{buildings.name}", buildings.read_bytes()
        files[name], sizes[name] = hashlib.sha256(content).hexdigest(), len(content)
    splits = [outcome["split"] for outcome in outcomes]
    # At every carrier or pair of ports, where there are several; what is counted once is at the first one.
    each = [
        [None if arrays is None else at_band(arrays, number) for arrays in scenes]
        for number in range(draft.layout.bands)
    ] or [list(scenes)]
    statistics = [unit_statistics(alone, splits) for alone in each]
    receipt: Receipt = {
        "fingerprint": draft.fingerprint,
        "unit": unit,
        "scenes": list(outcomes),
        "sha256": sums,
        "files": files,
        "sizes": sizes,
        "statistics": statistics[0],
        "distributions": unit_distributions(each[0], splits),
        "versions": package_versions(),
        "seconds_write": round(time.perf_counter() - start, 3),
        **extra,
    }
    if draft.layout.bands:
        receipt["bands"] = statistics
    write_json(draft.receipt_path(unit), receipt)
    return receipt


class _Hashing(zarr.storage.WrapperStore[Store]):
    """Keeps SHA-256 and size of every file on its way into the store, so that none has to be read back."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.sums: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    async def set(self, key: str, value: Buffer) -> None:
        self.sums[key] = hashlib.sha256(value.as_buffer_like()).hexdigest()
        self.sizes[key] = len(value)
        await super().set(key, value)


def _place(target: Values, values: Values, spec: ArraySpec, users: int) -> None:
    """Copy one scene's values of an array into its row, which has room for as many users as the store holds."""
    if spec.dims[1] != "user":
        target[...] = values
        return
    if len(values) > users:
        msg = f"{spec.name}: {len(values)} users, the store holds {users} per scene"
        raise ValueError(msg)
    # The bounce axis of a scene is as long as its solver's depth; the store's may be longer.
    target[(slice(len(values)), *(slice(size) for size in values.shape[1:]))] = values
