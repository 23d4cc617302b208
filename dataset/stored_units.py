"""The units of a finished version, read back with every byte checked: for a new version, and for a subset."""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import array_of, open_group, read_json, sha256_of
from wavecity.dataset.schema import Arrays

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


@lru_cache(maxsize=2)
def load_unit(draft: Draft, unit: int, names: tuple[str, ...] = ()) -> "tuple[Arrays, GeoDataFrame | None] | None":
    """Arrays and buildings of a unit, cached for the unit's other scenes.

    Parameters
    ----------
    draft : Draft
        Of the version.
    unit : int
    names : tuple of str
        Arrays that are read; all by default.

    Returns
    -------
    tuple or None
        Arrays (scene of the unit, ...) by name, and the table of buildings where the unit has one; None if a file of
        them differs from its receipt.
    """
    receipt = draft.receipt(unit)
    if receipt is None:
        return None
    wanted = names or tuple(spec.name for spec in draft.layout.specs())
    manifest = read_json(draft.folder / "manifest.json") or {"files": {}}
    table = f"buildings/{draft.buildings_path(unit).name}"
    # Receipts of older versions do not list the buildings.
    sums = {
        name: digest
        for name, digest in receipt["files"].items()
        if any(name.startswith(f"data.zarr/{array}/c/") for array in wanted)
    }
    if table in manifest["files"]:
        sums[table] = manifest["files"][table]
    try:
        if any(sha256_of(draft.folder / name) != digest for name, digest in sums.items()):
            return None
    except OSError:
        return None
    root = open_group(draft.data)
    scenes = draft.layout.scenes_of(unit)
    arrays = {name: np.asarray(array_of(root, name)[scenes.start : scenes.stop]) for name in wanted}
    return arrays, read_buildings(draft.buildings_path(unit)) if table in sums else None
