"""Opening a store: from the folder of a build, of a version, or a `.zarr` itself to an xarray Dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xarray as xr

from wavecity.dataset.bands import DIMS, Carrier, Port, choose_band
from wavecity.dataset.base_stations import GROUP as BASE_STATIONS
from wavecity.dataset.base_stations import Links, chosen, name_of
from wavecity.dataset.files import StorePath, lists, location, open_group, outage, zarr_store
from wavecity.dataset.fingerprints import read_sealed
from wavecity.dataset.integrity import damages, named
from wavecity.dataset.metadata import GROUP_FIELDS, SCENE_INDEX
from wavecity.dataset.publish import pointed_at, versions
from wavecity.dataset.records import Manifest, attributes_of, cf_attributes
from wavecity.dataset.schema import SCENE_FIELDS, Values
from wavecity.dataset.selection import rows_of
from wavecity.geo.errors import InputError

# Dimension, values and attributes.
Coordinate: TypeAlias = tuple[str, Values, dict[str, object]]


def resolve(store: str | StorePath, version: int | None = None) -> StorePath:
    """Path of the Zarr group that `store` names, with the `latest` pointer followed now.

    A reader that holds the resolved path goes on undisturbed when a newer version is published.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    version : int, optional
        Number of a published version, of the folder of a build; the latest by default.

    Raises
    ------
    InputError
        `store` is no store, nothing was published in it yet, or it has no such version.

    Examples
    --------
    >>> resolve("helsinki")
    PosixPath('/data/helsinki/versions/v3/data.zarr')
    """
    path = location(store)
    try:
        if lists(path) and not path.exists():
            msg = f"{store}: no such store; name the folder or URL given to `--out` of a build, or a .zarr folder"
            raise InputError(msg)
        if version is not None:
            return _version(path, store, version)
        name = pointed_at(path)
        for candidate in (path / "versions" / str(name) / "data.zarr", path / "data.zarr", path):
            if (candidate / "zarr.json").is_file():
                return candidate.resolve() if isinstance(candidate, Path) else candidate
        staged = (path / ".staging").exists()
        refuse_run_folder(path)
    except InputError:  # a ValueError too
        raise
    except Exception as error:
        if not isinstance(error, OSError | ValueError) and not outage(error):
            raise
        # botocore's missing credentials are a ValueError or an OSError, depending on where they are missed.
        remedy = "its permissions" if isinstance(path, Path) else "the address and the credentials in the environment"
        msg = f"{store}: cannot be read ({error}); check {remedy}"
        raise InputError(msg) from error
    if staged:
        msg = f"{store}: no version is published yet; finish it with `wavecity build`, then `wavecity publish`"
        raise InputError(msg)
    msg = f"{store}: not a Wavecity store; expected latest.zarr, data.zarr or zarr.json in it"
    raise InputError(msg)


def _version(path: StorePath, store: str | StorePath, number: int) -> StorePath:
    """Path of the Zarr group of one version of a store."""
    found = {version.number: version for version in versions(path)}
    if number in found:
        data = found[number].data
        return data.resolve() if isinstance(data, Path) else data
    there = ", ".join(map(str, found))
    msg = f"{store}: version {number} is not there; " + (
        f"its versions are {there}" if found else "name the folder of a build, which has versions in it"
    )
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


def open_store(
    store: str | StorePath,
    group: str | None = None,
    verify: bool = False,
    *,
    scenes: Sequence[str] | None = None,
    cities: Sequence[str] | None = None,
    version: int | None = None,
    bs: Links | None = None,
    carrier: Carrier = None,
    port: Port = None,
) -> xr.Dataset:
    """Open the published version lazily.

    A file that is missing would be read as fill values, so presence and size of all files are compared with the
    manifest.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    group : str, optional
        `paths` for the path-level arrays; `trajectory` for users that move (coordinates `time`, `frequency`); `radio_map`;
        `bs` for the cells of several base stations.
    verify : bool
        Whether every byte is compared with the manifest, too.
    scenes : sequence of str, optional
        Ids of scenes, or patterns such as `helsinki-*`: only these, in the order of the store.
    cities : sequence of str, optional
        Only scenes of these cities.
    version : int, optional
        Number of a published version; the latest by default.
    bs : int or "all", optional
        Of several base stations the one whose links are read, or all of them along a dimension `bs`; then there is also
        what the group `bs` has (`serving`, `sinr`, and coordinates `bs_position`, `bs_azimuth`). By default the links of
        base station 0 and nothing else.
    carrier : float or "all", optional
        Of a store with several: the one with this frequency in Hz, or all, along dimension `carrier`.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station, e.g. `H/V`; or `all`.

    Returns
    -------
    xarray.Dataset
        Dask-backed; dimensions and units as in the schema. What there is once per scene (`city`, `split`, ...) is in
        memory, and `scene` is an index of ids in every group. Attributes can be saved as NetCDF: what was an object is
        JSON text (`attributes_of`). Variables have no encoding, so that `to_zarr` writes right copies.

    Raises
    ------
    InputError
        Not a store, a Zarr group that is not of this schema, or a store without that group, version, scene, city, base
        station or carrier, or with several carriers or ports of which none is named; files that are missing or are not what
        was written.

    Examples
    --------
    >>> data = open_store("helsinki")
    >>> train = data.isel(scene=(data["split"] == "train").values)
    >>> delays = open_store("helsinki", "paths")["delay"]
    >>> data.sel(scene="helsinki-0020")["path_gain"].groupby("los").mean()
    >>> open_store("helsinki", bs="all").sel(bs=1)["csi"]
    """
    path = resolve(store, version)
    if path.name == "data.zarr":
        check_version(path.parent, verify)
    if group is not None and not (path / group / "zarr.json").is_file():
        msg = f"{store}: has no group {group!r}; " + {
            "paths": "build it with features.paths: true",
            "trajectory": "its users do not move: build it from a recipe with mobility",
            "radio_map": "build it with features.radio_map",
            BASE_STATIONS: "it has one base station; build it with scene.base_stations for more",
        }.get(group, "there are paths, trajectory, radio_map and bs")
        raise InputError(msg)
    dataset = _group_of(path, group, store)
    if group is None and ("csi" not in dataset or "schema_version" not in dataset.attrs):
        msg = f"{store}: a Zarr group, but not a finished Wavecity store (no csi or schema_version); name another"
        raise InputError(msg)
    coordinates = _scene_coordinates(path, group)
    opened: xr.Dataset = dataset.assign_coords(coordinates).assign_attrs(cf_attributes(dataset.attrs))
    opened = opened.drop_encoding()
    if bs is not None:
        opened = _links(opened, path, group, store, bs)
    if any(dim in opened.dims for dim in DIMS) or carrier is not None or port is not None:
        opened = choose_band(store, opened, attributes_of(open_group(path).attrs), carrier, port)
    if scenes is None and cities is None:
        return opened
    ids, places = (coordinates[name][1] if name in coordinates else None for name in ("scene", "city"))
    return opened.isel(scene=np.flatnonzero(rows_of(store, ids, places, scenes, cities)))


def _group_of(path: StorePath, group: str | None, store: str | StorePath) -> xr.Dataset:
    """Open one group of a store as it is; `store` is its name in messages."""
    try:
        found: xr.Dataset = xr.open_zarr(zarr_store(path, read_only=True), group=group)
    except (ValueError, KeyError, OSError, TypeError) as error:
        msg = f"{store}: cannot be read as a Wavecity store ({str(error).splitlines()[0]}); rebuild or name another"
        raise InputError(msg) from error
    return found


def _links(first: xr.Dataset, path: StorePath, group: str | None, store: str | StorePath, links: Links) -> xr.Dataset:
    """A group of base station 0 as it is for other base stations, or for all; in the root group with the cells."""
    root = xr.open_zarr(zarr_store(path, read_only=True), chunks=None)
    numbers = chosen(store, attributes_of(root.attrs), links)
    if group in ("radio_map", BASE_STATIONS):
        msg = f"{store}: group {group!r} is not of single links; open it without bs"
        raise InputError(msg)
    if not (path / BASE_STATIONS / "zarr.json").is_file():
        return first
    views: list[xr.Dataset] = []
    names: set[str] = set()
    for number in numbers:
        link = _group_of(path, name_of(number, group or "").rstrip("/"), store) if number else first
        # What links do not have of their own, such as maps, is the store's.
        own = {str(name): link[name].variable for name in link.data_vars}
        names |= set(own) if number else set()
        views.append(first.assign(own).drop_encoding())
    if len(views) == 1:
        found = views[0].assign_coords(bs=numbers[0])
    else:
        along = xr.Variable("bs", np.array(numbers))
        found = xr.concat(views, along, sorted(names), "minimal", compat="override", join="override")
    if group is not None:
        return found
    cells = _group_of(path, BASE_STATIONS, store).drop_encoding()
    cells = cells.drop_vars(list(cells.coords)).isel(bs=numbers[0] if len(views) == 1 else slice(None))
    places = {f"bs_{name}": cells[name].variable.load() for name in ("position", "azimuth")}
    of_users = {name: cells[name].variable for name in cells.data_vars if name not in ("position", "azimuth")}
    return found.assign(of_users).assign_coords(places)


def _scene_coordinates(path: StorePath, group: str | None) -> dict[str, Coordinate]:
    """What there is once per scene, in memory, as coordinates of a group: name -> dimension, values, attributes.

    From the root group, which stores of every schema have them in. numpy's variable-width strings, as xarray reads
    them, cannot be cast to plain ones.
    """
    # Without dask, which would import its scheduler for them.
    root = xr.open_zarr(zarr_store(path, read_only=True), chunks=None)
    names = [field.name for field in (SCENE_FIELDS if group is None else GROUP_FIELDS)]
    found: dict[str, Coordinate] = {}
    for name in [*names, "scene_id"]:
        if name in root.variables and root[name].dims == ("scene",):
            values = root[name].values
            plain = values if values.dtype.kind in "biuf" else np.array(values.tolist(), str)
            found[name] = ("scene", plain, root[name].attrs)
    if "scene_id" in found:
        ids = found["scene_id"] if group is None else found.pop("scene_id")
        found[SCENE_INDEX.name] = ids
    return found
