"""Checksums of content: of JSON, of arrays, and of JSON files that carry their own."""

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.files import StorePath, json_bytes, read_json, write_json

# Those that decide the data's bytes.
PACKAGES = ("wavecity", "numpy", "zarr", "shapely", "osmium", "sionna-rt", "mitsuba", "drjit")


def fingerprint_of(content: object) -> str:
    """SHA-256 of content that can be written as JSON, whatever the order of its keys.

    Examples
    --------
    >>> fingerprint_of({"seed": 7, "maps": []}) == fingerprint_of({"maps": [], "seed": 7})
    True
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages that decide the data's bytes."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def array_checksum(values: NDArray[np.generic]) -> str:
    """SHA-256 of an array's values in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def write_sealed(path: StorePath, content: Mapping[str, object]) -> None:
    """Write a JSON object that carries its own SHA-256, in key `sha256`."""
    write_json(path, {**content, "sha256": fingerprint_of(content)})


def read_sealed(path: StorePath) -> Any:
    """Content of a file that `write_sealed` wrote, or None where it is missing or a byte of it has changed."""
    content = read_json(path)
    if not isinstance(content, dict) or path.read_bytes() != json_bytes(content):
        return None
    digest = content.pop("sha256", None)
    return content if digest == fingerprint_of(content) else None
