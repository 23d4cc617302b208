"""Opening a store: from the folder of a build, of a version, or a `.zarr` itself to an xarray Dataset."""

from pathlib import Path

import numpy as np
import xarray as xr

from wavecity.dataset.files import StorePath, location, zarr_store
from wavecity.dataset.fingerprints import read_sealed
from wavecity.dataset.integrity import damages, named
from wavecity.dataset.publish import pointed_at
from wavecity.dataset.records import Manifest
from wavecity.geo.errors import InputError


def resolve(store: str | StorePath) -> StorePath:
    """Path of the Zarr group that `store` names, with the `latest` pointer followed now.

    A reader that holds the resolved path goes on undisturbed when a newer version is published.

    Raises
    ------
    InputError
        `store` is no store, or nothing was published in it yet.

    Examples
    --------
    >>> resolve("helsinki")
    PosixPath('/data/helsinki/versions/v3/data.zarr')
    """
    path = location(store)
    try:
        if not path.exists():
            msg = f"{store}: no such store; name the folder or URL given to `--out` of a build, or a .zarr folder"
            raise InputError(msg)
        name = pointed_at(path)
        for candidate in (path / "versions" / str(name) / "data.zarr", path / "data.zarr", path):
            if (candidate / "zarr.json").is_file():
                return candidate.resolve() if isinstance(candidate, Path) else candidate
        staged = (path / ".staging").exists()
        refuse_run_folder(path)
    except InputError:  # a ValueError too
        raise
    except (OSError, ValueError) as error:
        # botocore's missing credentials are a ValueError or an OSError, depending on where they are missed.
        remedy = "its permissions" if isinstance(path, Path) else "the address and the credentials in the environment"
        msg = f"{store}: cannot be read ({error}); check {remedy}"
        raise InputError(msg) from error
    if staged:
        msg = f"{store}: no version is published yet; finish it with `wavecity build`, then `wavecity publish`"
        raise InputError(msg)
    msg = f"{store}: not a Wavecity store; expected latest.zarr, data.zarr or zarr.json in it"
    raise InputError(msg)


def refuse_run_folder(path: StorePath) -> None:
    """Raise `InputError` where a folder is that of a run, which has its store in it."""
    inner = path / "store"
    if isinstance(path, Path) and not (path / "versions").exists() and (inner / "versions").exists():
        msg = f"{path}: the folder of a run, not a store; its store is {inner}"
        raise InputError(msg)


def check_version(folder: StorePath, verify: bool = False, below: str = "data.zarr/") -> None:
    """Refuse a version of which files are missing or cut short; files that its manifest does not name do not count.

    A `.zarr` folder that was copied without its manifest, and a draft, are taken as they are.

    Parameters
    ----------
    folder : path
        Of the version.
    verify : bool
        Whether every byte is compared, too.
    below : str
        Start of the names of the files that count.

    Raises
    ------
    InputError
        A file is missing or has another size, or with `verify` other bytes; or the manifest itself was changed.
    """
    path = folder / "manifest.json"
    content: Manifest | None = read_sealed(path)
    if content is None:
        if path.exists():
            msg = f"{path}: cut short or changed, so no file can be checked; copy the version again, or build it again"
            raise InputError(msg)
        return
    sums = {name: digest for name, digest in content["files"].items() if name.startswith(below)}
    wrong = damages(folder, sums, content.get("sizes", {}), verify)
    if wrong:
        msg = (
            f"{folder}: {len(wrong)} of {len(sums)} files are damaged: {named(wrong)}; copy the version again, or "
            "build it again"
        )
        raise InputError(msg)


def open_store(store: str | StorePath, group: str | None = None, verify: bool = False) -> xr.Dataset:
    """Open the published version lazily.

    A file that is missing would be read as fill values, so presence and size of all files are compared with the
    manifest.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    group : str, optional
        `paths` for the path-level arrays; `trajectory` for users that move (coordinates `time`, `frequency`).
    verify : bool
        Whether every byte is compared with the manifest, too.

    Returns
    -------
    xarray.Dataset
        Dask-backed; dimensions and units as in the schema.

    Raises
    ------
    InputError
        Not a store, a Zarr group that is not of this schema, or a store without that group; files that are missing or
        are not what was written.

    Examples
    --------
    >>> data = open_store("helsinki")
    >>> train = data.isel(scene=(data["split"] == "train").values)
    >>> delays = open_store("helsinki", "paths")["delay"]
    """
    path = resolve(store)
    if path.name == "data.zarr":
        check_version(path.parent, verify)
    if group is not None and not (path / group / "zarr.json").is_file():
        msg = f"{store}: has no group {group!r}; " + {
            "paths": "build it with features.paths: true",
            "trajectory": "its users do not move: build it from a recipe with mobility",
        }.get(group, "there are paths and trajectory")
        raise InputError(msg)
    try:
        dataset: xr.Dataset = xr.open_zarr(zarr_store(path, read_only=True), group=group)
    except (ValueError, KeyError, OSError, TypeError) as error:
        msg = f"{store}: cannot be read as a Wavecity store ({str(error).splitlines()[0]}); rebuild or name another"
        raise InputError(msg) from error
    if group is None and ("csi" not in dataset or "schema_version" not in dataset.attrs):
        msg = f"{store}: a Zarr group, but not a finished Wavecity store (no csi or schema_version); name another"
        raise InputError(msg)
    strings = [name for name, array in dataset.variables.items() if array.dtype.kind == "T"]
    if not strings:
        return dataset
    # numpy's variable-width strings cannot be cast to plain ones; the scene coordinates are small, so do it here, and
    # without dask, which would import its scheduler for them.
    plain = xr.open_zarr(zarr_store(path, read_only=True), group=group, chunks=None)
    names = {name: ("scene", np.array(plain[name].values.tolist(), str), plain[name].attrs) for name in strings}
    plainer: xr.Dataset = dataset.assign_coords(names)
    return plainer
