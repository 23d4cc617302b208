"""What is in a store: its arrays with shapes, units and sizes, its splits and its conventions."""

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
import xarray as xr

from wavecity.dataset.bands import at_first_band, band_names, carriers_text, frequencies_of
from wavecity.dataset.files import StorePath, folder_size, read_json
from wavecity.dataset.fingerprints import read_sealed
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import attributes_of
from wavecity.geo.errors import InputError

SPLITS = ("train", "validation", "test")


class Field(TypedDict):
    """One array: dimensions with their lengths, units as CF writes them, and the bytes that it takes on disk."""

    name: str
    dims: list[str]
    shape: list[int]
    dtype: str
    units: str
    long_name: str
    bytes: int


class Split(TypedDict):
    """What a split holds: scenes that are done, users, those with a path, and how many scenes of each city."""

    scenes: int
    users: int
    users_with_a_path: int
    cities: dict[str, int]


class Description(TypedDict):
    """What `describe` returns, JSON-ready."""

    store: str
    version: str
    published: str | None
    title: str
    fingerprint: str
    schema_version: str
    licence: str
    attribution: str
    bytes: int
    sizes: dict[str, int]
    scenes: dict[str, int]
    splits: dict[str, Split]
    split_by: str
    frequency_hz: float
    carriers_hz: list[float]
    ports: list[str]
    array: dict[str, float]
    fields: list[Field]
    statistics: dict[str, float]
    conventions: dict[str, str]


def describe(store: str | StorePath, version: int | None = None) -> Description:
    """Describe a store.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr`.
    version : int, optional
        Number of a published version; the latest by default.

    Returns
    -------
    dict
        JSON-ready: sizes of the dimensions, scenes by outcome, splits, fields, statistics, conventions, licence.

    Raises
    ------
    InputError
        Not a store, damaged, or without such a version.

    Examples
    --------
    >>> [field["name"] for field in describe("helsinki")["fields"]][:3]
    ['csi', 'spectrum', 'height']
    """
    path = resolve(store, version)
    data = open_store(path, carrier="all", port="all")
    attributes = attributes_of(data.attrs)
    groups = {
        "": data,
        **{
            name: group
            for name in ("paths", "trajectory", "radio_map", "bs")
            if (group := _group(path, name)) is not None
        },
    }
    sizes = {str(name): int(length) for group in groups.values() for name, length in group.sizes.items()}
    manifest = read_json(path.parent / "manifest.json") or {}
    stored: Mapping[str, int] = manifest.get("sizes") or {}
    published = read_sealed(path.parent / "published.json") or {}
    fields = [
        _field(path, stored, f"{group}/{name}".lstrip("/"), array)
        for group, opened in groups.items()
        for name, array in {**opened.data_vars, **opened.coords}.items()
        # Scene coordinates are those of the root.
        if not group or array.dims != ("scene",)
    ]
    status = [str(name) for name in np.atleast_1d(data["status"].values)] if "status" in data else []
    return {
        "store": str(store),
        "version": path.parent.name,
        "published": published.get("published"),
        "title": attributes.get("title", ""),
        "fingerprint": attributes.get("fingerprint", ""),
        "schema_version": str(attributes.get("schema_version", "")),
        "licence": attributes.get("licence", ""),
        "attribution": attributes.get("attribution", ""),
        "bytes": sum(stored.values()) if stored else folder_size(path),
        "sizes": sizes,
        "scenes": {name: status.count(name) for name in sorted(set(status))},
        "splits": _splits(data),
        "split_by": attributes.get("split_by", ""),
        "frequency_hz": float(attributes.get("frequency_hz", float("nan"))),
        "carriers_hz": frequencies_of(attributes) if "frequency_hz" in attributes else [],
        "ports": band_names(attributes) if "ports" in attributes else [],
        "array": {name: float(value) for name, value in attributes.get("array", {}).items()},  # type: ignore[arg-type]
        "fields": fields,
        "statistics": attributes.get("statistics", {}),
        "conventions": attributes.get("conventions", {}),
    }


def description_text(of: Description) -> str:
    """A description for people.

    Examples
    --------
    >>> print(description_text(describe("helsinki")))
    """
    published = f", published {of['published']}" if of["published"] else ", not published"
    panel = of["array"]
    ports = f"ports {', '.join(of['ports'])} (user/base station), " if of["ports"] else ""
    lines = [
        f"{of['title']}: {of['store']}",
        f"{of['version']}{published}, {size_text(of['bytes'])}, schema {of['schema_version']}, "
        f"fingerprint {of['fingerprint'][:16]}",
        f"{carriers_text(of['carriers_hz'])}, {ports}{panel['columns']:g} x {panel['rows']:g} antennas, "
        f"{panel['spacing_wavelengths']:g} wavelengths apart",
        "scenes: " + ", ".join(f"{count:,} {name}" for name, count in of["scenes"].items()),
        "",
        *_table(
            ["split", "scenes", "users", "with a path", "cities"],
            [
                [name, f"{part['scenes']:,}", f"{part['users']:,}", f"{part['users_with_a_path']:,}", _cities(part)]
                for name, part in of["splits"].items()
            ],
        ),
        "",
        *_table(
            ["field", "shape", "type", "unit", "on disk", "what it is"],
            [
                [
                    field["name"],
                    ", ".join(f"{dim} {length}" for dim, length in zip(field["dims"], field["shape"], strict=True)),
                    field["dtype"],
                    field["units"],
                    size_text(field["bytes"]),
                    field["long_name"],
                ]
                for field in of["fields"]
            ],
        ),
        "",
        "conventions",
        *(f"  {name}: {text}" for name, text in of["conventions"].items()),
        "",
        "statistics of the train split: "
        + ", ".join(f"{name} {value:.6g}" for name, value in of["statistics"].items()),
        f"licence: {of['licence']}. {of['attribution']}",
    ]
    return "\n".join(line.rstrip() for line in lines)


def size_text(size: float) -> str:
    """Bytes for people: `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _group(path: StorePath, name: str) -> xr.Dataset | None:
    """A group below the root, where the store has it."""
    try:
        return open_store(path, name, carrier="all", port="all")
    except InputError:
        return None


def _field(path: StorePath, stored: Mapping[str, int], name: str, array: xr.DataArray) -> Field:
    """What there is to know of an array; its bytes from the manifest, or counted where there is none."""
    prefix = f"data.zarr/{name}/"
    counted = sum(size for file, size in stored.items() if file.startswith(prefix))
    return {
        "name": name,
        "dims": [str(dim) for dim in array.dims],
        "shape": [int(length) for length in array.shape],
        "dtype": "string" if array.dtype.kind in "TOU" else str(array.dtype),
        "units": str(array.attrs.get("units", "")),
        "long_name": str(array.attrs.get("long_name", "")),
        "bytes": counted if stored else folder_size(path / name),
    }


def _splits(data: xr.Dataset) -> dict[str, Split]:
    """The splits in their usual order."""
    splits, n_users = data["split"].values.astype(str), data["n_users"].values
    real = np.arange(data.sizes["user"]) < n_users[:, None]
    # With several carriers or ports those with a path at the first one.
    outage = at_first_band(data[["outage"]])["outage"].values.astype(bool)
    served = (real & ~outage).sum(1)
    cities = data["city"].values.astype(str) if "city" in data else np.full(len(splits), "")
    found: dict[str, Split] = {}
    for name in sorted(set(splits.tolist()), key=lambda name: (SPLITS.index(name) if name in SPLITS else 9, name)):
        here = (splits == name) & (n_users > 0)
        places, counts = np.unique(cities[here], return_counts=True)
        found[name] = {
            "scenes": int(here.sum()),
            "users": int(n_users[here].sum()),
            "users_with_a_path": int(served[here].sum()),
            "cities": dict(zip(places.tolist(), counts.tolist(), strict=True)),
        }
    return found


def _cities(part: Split, most: int = 4) -> str:
    """The cities with most scenes, and how many more there are."""
    names = sorted(part["cities"], key=lambda name: (-part["cities"][name], name))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table, its columns as wide as they need be."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
