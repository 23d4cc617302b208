"""Opening a store: from the folder of a build, of a version, or a `.zarr` itself to an xarray Dataset."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geo.errors import InputError


def resolve(store: str | Path) -> Path:
    """Path of the Zarr group that `store` means, with the `latest` pointer followed now.

    A reader that holds the resolved path goes on undisturbed when a newer version is published.

    Raises
    ------
    InputError
        `store` is no store, or nothing was published in it yet.
    """
    path = Path(store)
    if not path.exists():
        msg = f"{store}: no such store; name the folder given to `--out` of a build, or a .zarr folder"
        raise InputError(msg)
    for candidate in (path / "latest.zarr", path / "data.zarr", path):
        if (candidate / "zarr.json").is_file():
            return candidate.resolve()
    if (path / ".staging").is_dir():
        msg = f"{store}: no version is published yet; finish it with `wavecity build`, then `wavecity publish`"
        raise InputError(msg)
    msg = f"{store}: not a Wavecity store; expected latest.zarr, data.zarr or zarr.json in it"
    raise InputError(msg)


def open_store(store: str | Path, group: str | None = None) -> xr.Dataset:
    """Open the published version lazily.

    Parameters
    ----------
    store : path
        Folder of a build, of a version, or a `.zarr`.
    group : str, optional
        `paths` for the path-level arrays.

    Returns
    -------
    xarray.Dataset
        Dask-backed; dimensions and units as in the schema.

    Raises
    ------
    InputError
        Not a store, or a Zarr group that is not of this schema.
    """
    path = resolve(store)
    try:
        dataset = xr.open_zarr(path, group=group)
    except (ValueError, KeyError, OSError, TypeError) as error:
        msg = f"{store}: cannot be read as a Wavecity store ({str(error).splitlines()[0]}); rebuild or name another"
        raise InputError(msg) from error
    if group is None and ("csi" not in dataset or "schema_version" not in dataset.attrs):
        msg = f"{store}: a Zarr group, but not a finished Wavecity store (no csi or schema_version); name another"
        raise InputError(msg)
    # numpy's variable-width strings cannot be cast to plain ones; the scene coordinates are small, so do it here.
    strings = [name for name, array in dataset.variables.items() if array.dtype.kind == "T"]
    return dataset.assign_coords({name: ("scene", np.array(dataset[name].values.tolist(), str)) for name in strings})


def statistics(store: str | Path) -> dict[str, Any]:
    """Statistics of the train split, as stored in the version (see `dataset.statistics`)."""
    return dict(open_store(store).attrs["statistics"])
