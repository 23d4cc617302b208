"""The draft of a version: created once, filled unit by unit, finished by one process.

A unit is a fixed group of scenes: one shard of every array, one task, one writer. Its receipt, renamed into place after
the last array was written, is the only proof that it is done.
"""

import hashlib
import json
import math
import platform
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray
from zarr.core.buffer import Buffer

from wavecity.dataset.distributions import merge_distributions, unit_distributions
from wavecity.dataset.files import (
    StorePath,
    array_of,
    files_below,
    json_bytes,
    location,
    make_folder,
    open_group,
    read_json,
    remove_folder,
    sha256_of,
    sweep_partials,
    write_json,
    zarr_store,
)
from wavecity.dataset.integrity import damages, named, sizes_of
from wavecity.dataset.schema import (
    ATTRIBUTION,
    CONVENTIONS,
    LICENCE,
    SCENE_FIELDS,
    SCHEMA_VERSION,
    TRAJECTORY_AXES,
    TRAJECTORY_CONVENTION,
    ArraySpec,
    array_specs,
)
from wavecity.dataset.statistics import merge_statistics, unit_statistics
from wavecity.geo.errors import InputError
from wavecity.raytrace.channels import subcarrier_frequencies

# What is written after the manifest; each carries its own checksum.
UNSEALED = ("manifest.json", "validation.json", "published.json")
# Arrays of which a whole unit has no more bytes than this are one chunk a unit.
SMALL = 2**20
# Bytes of a chunk of trajectories, one user's at least.
TRAJECTORY_CHUNK = 2**20
PACKAGES = ("wavecity", "numpy", "zarr", "shapely", "osmium", "sionna-rt", "mitsuba", "drjit")


@dataclass(frozen=True)
class Layout:
    """Sizes of the store's dimensions and its sharding; without `steps` its users do not move."""

    scenes: int
    users: int
    columns: int
    rows: int
    paths: int
    bounces: int
    height_cells: int
    occupancy_patches: int
    unit: int
    users_per_chunk: int
    with_spectrum: bool
    with_paths: bool
    gain_floor: float
    steps: int = 0
    subcarriers: int = 0

    @property
    def with_trajectory(self) -> bool:
        """Whether users move."""
        return self.steps > 0

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-self.scenes // self.unit)

    def specs(self) -> list[ArraySpec]:
        """Arrays that units write."""
        return array_specs(self.with_spectrum, self.with_paths, self.gain_floor, self.with_trajectory)

    def shape(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape of one array."""
        sizes = {
            "scene": self.scenes,
            "user": self.users,
            "x": self.columns,
            "y": self.rows,
            "kx": self.columns,
            "ky": self.rows,
            "row": self.height_cells,
            "column": self.height_cells,
            "patch_row": self.occupancy_patches,
            "patch_column": self.occupancy_patches,
            "axis": 3,
            "path": self.paths,
            "bounce": self.bounces,
            "time": self.steps,
            "subcarrier": self.subcarriers,
        }
        return tuple(sizes[dim] for dim in spec.dims)

    def scenes_of(self, unit: int) -> range:
        """Scene indices of a unit."""
        return range(unit * self.unit, min((unit + 1) * self.unit, self.scenes))


@dataclass(frozen=True)
class Draft:
    """A version under construction: `folder/data.zarr` and, beside it, receipts and buildings."""

    folder: StorePath
    fingerprint: str
    layout: Layout

    @property
    def data(self) -> StorePath:
        """The Zarr group."""
        return self.folder / "data.zarr"

    def receipt_path(self, unit: int) -> StorePath:
        """Where a unit's receipt lies."""
        return self.folder / "receipts" / f"unit-{unit:05d}.json"

    def receipt(self, unit: int) -> dict[str, Any] | None:
        """Receipt of a unit, or None where it is missing, broken or of another build."""
        receipt = read_json(self.receipt_path(unit))
        if not isinstance(receipt, dict) or receipt.get("fingerprint") != self.fingerprint:
            return None
        return receipt if len(receipt.get("scenes", ())) == len(self.layout.scenes_of(unit)) else None

    def buildings_path(self, unit: int) -> StorePath:
        """Where the table of a unit's buildings lies."""
        return self.folder / "buildings" / f"unit-{unit:05d}.parquet"

    def all_receipts(self) -> list[dict[str, Any] | None]:
        """Receipt of every unit, None where there is no valid one; several are read at once."""
        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(self.receipt, range(self.layout.units)))

    def missing(self) -> list[int]:
        """Units without a valid receipt."""
        return [unit for unit, receipt in enumerate(self.all_receipts()) if receipt is None]

    def discard_damaged(self, verify: bool = False) -> list[str]:
        """Remove receipts and damaged files of finished units whose files are not what was written: they are built again.

        Parameters
        ----------
        verify : bool
            Whether every byte is read; by default a file is damaged that is missing or has another size.

        Returns
        -------
        list of str
            A line for each such unit.
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

    def receipts(self) -> list[dict[str, Any]]:
        """All receipts in the order of their units; only for a draft without missing units."""
        receipts = self.all_receipts()
        missing = receipts.count(None)
        if missing:
            msg = f"{self.folder}: {missing} units have no valid receipt; build them first"
            raise RuntimeError(msg)
        return [receipt for receipt in receipts if receipt is not None]


def fingerprint_of(content: Any) -> str:
    """SHA-256 of JSON-ready content: same recipe part, map data, code and versions give the same fingerprint."""
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


def open_draft(store: str | StorePath, fingerprint: str, layout: Layout) -> Draft:
    """Open the draft of this fingerprint under `store/.staging`, or create it; one process at a time (`builder_lock`).

    Half-written files of a killed process are swept; finished units stay.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    staging = location(store) / ".staging"
    make_folder(staging)
    sweep_partials(staging)
    draft = Draft(staging / fingerprint[:16], fingerprint, layout)
    # draft.json comes last: a draft without it was not made to its end, and holds nothing yet. One whose arrays cannot be
    # opened any more begins anew; what its receipts name is gone then.
    if read_json(draft.folder / "draft.json") is None or not _has_arrays(draft):
        _create_arrays(draft.data, layout)
        make_folder(draft.folder / "receipts")
        make_folder(draft.folder / "buildings")
        write_json(draft.folder / "draft.json", {"fingerprint": fingerprint, "layout": asdict(layout)})
    return draft


def load_draft(folder: StorePath) -> Draft:
    """Open the draft that lies in `folder`."""
    content = read_json(folder / "draft.json")
    try:
        return Draft(folder, content["fingerprint"], Layout(**content["layout"]))
    except (TypeError, KeyError) as error:
        msg = f"{folder}: no readable draft.json, so its receipts cannot be checked; name a whole version, not a copied .zarr"
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
    root = zarr.open_group(zarr_store(path), mode="w", zarr_format=3)
    compressor = zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="shuffle")
    for spec in layout.specs():
        shape = layout.shape(spec)
        inner = _chunk(spec, layout)
        # A shard holds whole chunks: the user axis is rounded up, the array itself keeps its length.
        shard = [layout.unit, *(-(-size // chunk) * chunk for size, chunk in zip(shape[1:], inner[1:], strict=True))]
        root.create_array(
            spec.name,
            shape=shape,
            dtype=spec.dtype,
            chunks=tuple(inner),
            shards=tuple(shard),
            compressors=compressor,
            fill_value=spec.fill,
            dimension_names=spec.dims,
            attributes={"units": spec.units, "long_name": spec.long_name},
        )


def _chunk(spec: ArraySpec, layout: Layout) -> list[int]:
    """Chunk inside a shard: few users of a scene where samples are large, a whole scene or unit where they are small.

    Every chunk costs a reader some 0.1 ms of Python whatever its size: a flag a user in chunks of 64 users took 30 times
    as long to read as in chunks of a unit.
    """
    shape = layout.shape(spec)
    if "subcarrier" in spec.dims:
        of_user = np.dtype(spec.dtype).itemsize * math.prod(shape[2:])
        return [1, min(max(1, TRAJECTORY_CHUNK // of_user), layout.users_per_chunk, shape[1]), *shape[2:]]
    if {"x", "kx"} & set(spec.dims):
        return [1, min(layout.users_per_chunk, shape[1]), *shape[2:]]
    of_scene = np.dtype(spec.dtype).itemsize * math.prod(shape[1:])
    return [layout.unit if of_scene * layout.unit <= SMALL else 1, *shape[1:]]


def write_shards(array: zarr.Array[Any], start: int, values: NDArray[Any]) -> None:
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
        msg = f"{array.path}: values of shape {values.shape[1:]} a scene, the array holds {array.shape[1:]}"
        raise ValueError(msg)
    array[start:stop] = values


def write_unit(
    draft: Draft,
    unit: int,
    scenes: Sequence[dict[str, NDArray[Any]] | None],
    outcomes: Sequence[dict[str, Any]],
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Write one unit and leave its receipt.

    Parameters
    ----------
    draft : Draft
    unit : int
    scenes : sequence
        Per scene of the unit its arrays (`features.scene_arrays`), or None for a quarantined scene.
    outcomes : sequence of dict
        Per scene at least `id`, `status`, `split`, `n_users`; goes into the receipt.
    extra : dict
        Seeds and timings for the receipt.

    Returns
    -------
    dict
        The receipt: outcomes, SHA-256 of every array's values, SHA-256 and bytes of every file of the unit, statistics,
        versions.
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
            # Zarr reads a shard first of whose last chunk the user axis fills a part; one that was cut short fails there.
            # An object is whole or absent.
            remove_folder(draft.data / spec.name / "c" / str(unit))
        write_shards(array_of(root, spec.name), expected.start, values)
        sums[spec.name] = array_checksum(values)
    files = {f"data.zarr/{name}": digest for name, digest in store.sums.items()}
    sizes = {f"data.zarr/{name}": size for name, size in store.sizes.items()}
    buildings = draft.buildings_path(unit)
    if buildings.exists():
        name, content = f"buildings/{buildings.name}", buildings.read_bytes()
        files[name], sizes[name] = hashlib.sha256(content).hexdigest(), len(content)
    receipt = {
        "fingerprint": draft.fingerprint,
        "unit": unit,
        "scenes": list(outcomes),
        "sha256": sums,
        "files": files,
        "sizes": sizes,
        "statistics": unit_statistics(scenes, [outcome["split"] for outcome in outcomes]),
        "distributions": unit_distributions(scenes, [outcome["split"] for outcome in outcomes]),
        "versions": package_versions(),
        "seconds_write": round(time.perf_counter() - start, 3),
        **extra,
    }
    write_json(draft.receipt_path(unit), receipt)
    return receipt


class _Hashing(zarr.storage.WrapperStore[Any]):
    """Keeps SHA-256 and size of every file on its way into the store, so that none has to be read back."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.sums: dict[str, str] = {}
        self.sizes: dict[str, int] = {}

    async def set(self, key: str, value: Buffer) -> None:
        self.sums[key] = hashlib.sha256(value.as_buffer_like()).hexdigest()
        self.sizes[key] = len(value)
        await super().set(key, value)


def array_checksum(values: NDArray[Any]) -> str:
    """SHA-256 of an array's values in C order."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _place(target: NDArray[Any], values: NDArray[Any], spec: ArraySpec, users: int) -> None:
    if spec.dims[1] != "user":
        target[...] = values
        return
    if len(values) > users:
        msg = f"{spec.name}: {len(values)} users, the store holds {users} a scene"
        raise ValueError(msg)
    # The bounce axis of a scene is as long as its solver's depth; the store's may be longer.
    target[(slice(len(values)), *(slice(size) for size in values.shape[1:]))] = values


def finish_draft(draft: Draft, attributes: dict[str, Any], lineage: dict[str, Any]) -> None:
    """Write what only one process may write: scene coordinates, attributes, statistics, ledger, lineage.

    What is to lie beside them (the card) is written next; `seal` comes last.

    Parameters
    ----------
    draft : Draft
        All units done.
    attributes : dict
        More attributes of the root group (frequency, array, recipe). Where users move, `trajectory` has at least
        `interval_s` and `subcarrier_spacing_hz`.
    lineage : dict
        Map, code and package versions, for `lineage.json`.
    """
    # What an earlier attempt sealed is written anew from here on.
    (draft.folder / "manifest.json").unlink(missing_ok=True)
    receipts = draft.receipts()
    outcomes = [outcome for receipt in receipts for outcome in receipt["scenes"]]
    statistics = merge_statistics([receipt["statistics"] for receipt in receipts])
    root = open_group(draft.data, "r+")
    for field in SCENE_FIELDS:
        values = [outcome.get(field.name, field.fill) for outcome in outcomes]
        array = root.create_array(
            field.name,
            shape=(len(values),),
            dtype=str if field.dtype == "str" else field.dtype,
            dimension_names=("scene",),
            fill_value=field.fill,
            overwrite=True,
            attributes={"long_name": field.long_name, **({"units": field.units} if field.units else {})},
        )
        array[:] = np.array(values, dtype=object if field.dtype == "str" else field.dtype)
    conventions = CONVENTIONS
    if draft.layout.with_trajectory:
        _write_trajectory_axes(root, draft.layout, attributes["trajectory"])
        conventions = CONVENTIONS | {"trajectory": TRAJECTORY_CONVENTION}
    root.attrs.update(
        {
            "title": "Wavecity channels",
            "Conventions": "CF-1.11",
            "schema_version": SCHEMA_VERSION,
            "fingerprint": draft.fingerprint,
            "licence": LICENCE,
            "attribution": ATTRIBUTION,
            "conventions": conventions,
            "statistics": statistics,
            "coordinates": " ".join(field.name for field in SCENE_FIELDS),
            **attributes,
        }
    )
    with warnings.catch_warnings():
        # Consolidated metadata is not yet in the Zarr v3 specification; readers that do not know it ignore it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr_store(draft.data))
    ledger = [outcome for outcome in outcomes if outcome["status"] != "done"]
    write_json(draft.folder / "ledger.json", ledger)
    write_json(draft.folder / "statistics.json", statistics)
    write_json(draft.folder / "distributions.json", merge_distributions([unit["distributions"] for unit in receipts]))
    write_json(draft.folder / "lineage.json", {**lineage, "versions": receipts[0]["versions"]})


def trajectory_axes(layout: Layout, trajectory: dict[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Coordinates of the group `trajectory`: times in s, frequencies of the subcarriers from the carrier in Hz."""
    return {
        "time": trajectory["interval_s"] * np.arange(layout.steps, dtype=np.float64),
        "frequency": subcarrier_frequencies(layout.subcarriers, trajectory["subcarrier_spacing_hz"]),
    }


def _write_trajectory_axes(root: zarr.Group, layout: Layout, trajectory: dict[str, Any]) -> None:
    values = trajectory_axes(layout, trajectory)
    for axis in TRAJECTORY_AXES:
        array = root.create_array(
            f"trajectory/{axis.name}",
            shape=values[axis.name].shape,
            dtype="float64",
            dimension_names=(axis.dim,),
            overwrite=True,
            attributes={"units": axis.units, "long_name": axis.long_name},
        )
        array[:] = values[axis.name]
    # xarray takes what is named here for coordinates.
    root["trajectory"].attrs["coordinates"] = " ".join(axis.name for axis in TRAJECTORY_AXES)


def seal(draft: Draft) -> None:
    """Write `manifest.json`: SHA-256 and bytes of every file of the version. From here on nothing may change.

    Shards are not read again: their sums and sizes were taken while they were written.
    """
    sums: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for receipt in draft.receipts():
        sums |= receipt["files"]
        sizes |= receipt.get("sizes", {})
    rest = [name for name in files_below(draft.folder) if name not in sums and name not in UNSEALED]
    with ThreadPoolExecutor(16) as threads:
        sums |= zip(rest, threads.map(lambda name: sha256_of(draft.folder / name), rest), strict=True)
    sizes = sizes_of(draft.folder, sums) | sizes
    write_sealed(draft.folder / "manifest.json", {"files": sums, "sizes": sizes})


def write_sealed(path: StorePath, content: dict[str, Any]) -> None:
    """Write JSON that carries its own SHA-256."""
    write_json(path, {**content, "sha256": fingerprint_of(content)})


def read_sealed(path: StorePath) -> dict[str, Any] | None:
    """Content of what `write_sealed` wrote, or None where it is missing or a byte of it has changed."""
    content = read_json(path)
    if not isinstance(content, dict) or path.read_bytes() != json_bytes(content):
        return None
    digest = content.pop("sha256", None)
    return content if digest == fingerprint_of(content) else None
