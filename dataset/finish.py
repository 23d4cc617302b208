"""The last steps of a draft, by one process: what all units share, then the seal."""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import zarr
from numpy.typing import NDArray

from wavecity.dataset.bands import CARRIER, PORT
from wavecity.dataset.bands import CONVENTIONS as OF_BANDS
from wavecity.dataset.base_stations import CONVENTION as BASE_STATION_CONVENTION
from wavecity.dataset.base_stations import GROUP as BASE_STATIONS
from wavecity.dataset.base_stations import name_of
from wavecity.dataset.distributions import merge_distributions
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import files_below, open_group, sha256_of, write_json, zarr_store
from wavecity.dataset.fingerprints import write_sealed
from wavecity.dataset.integrity import sizes_of
from wavecity.dataset.layout import Layout
from wavecity.dataset.metadata import GROUP_FIELDS, SCENE_INDEX, STORE_SCHEMA
from wavecity.dataset.radio_maps import GROUP, RADIO_MAP_AXES, RADIO_MAP_CONVENTION, radio_map_axes
from wavecity.dataset.records import Outcome, StoreAttributes, TrajectoryAttributes, cf_attributes
from wavecity.dataset.schema import (
    ATTRIBUTION,
    CONVENTIONS,
    LICENCE,
    SCENE_FIELDS,
    TRAJECTORY_AXES,
    TRAJECTORY_CONVENTION,
    SceneField,
    TrajectoryAxis,
    Values,
)
from wavecity.dataset.statistics import merge_statistics
from wavecity.dataset.vegetation import CONVENTION as VEGETATION_CONVENTION
from wavecity.raytrace.channels import subcarrier_frequencies

# The coordinates of dimensions `carrier` and `port`, in every group.
CARRIER_AXIS = TrajectoryAxis(CARRIER, CARRIER, "Hz", "carrier frequency")
PORT_AXIS = TrajectoryAxis(PORT, PORT, "1", "polarisation of user and base station")

# What is written after the manifest; each carries its own checksum.
UNSEALED = ("manifest.json", "validation.json", "published.json")
# Where those look who copy a store with a tool of theirs; `comment` is CF's name for such a text.
COMMENT = (
    "Arrays are sharded: with xarray, write a copy by ds.drop_encoding().to_zarr(...), for with the encoding of the shards "
    "values may be lost. Or use `wavecity subset`, whose copies are whole stores. Attributes that are objects are JSON text."
)


def finish_draft(draft: Draft, attributes: StoreAttributes, lineage: Mapping[str, object]) -> None:
    """Write what only one process may write: scene coordinates, attributes, statistics, ledger, lineage.

    Other files of the version (the card) are written next; `seal` comes last.

    Parameters
    ----------
    draft : Draft
        All units done.
    attributes : dict
        More attributes of the root group (frequency, array, recipe). Where users move, `trajectory` has at least
        `interval_s` and `subcarrier_spacing_hz`; where scenes have radio maps, there is `radio_map`; where there are
        several carriers or pairs of ports, `carriers` or `ports` (`bands.bands_of`).
    lineage : dict
        Map, code and package versions, for `lineage.json` (`records.Lineage`).

    Raises
    ------
    RuntimeError
        A unit has no valid receipt.

    Examples
    --------
    >>> finish_draft(draft, {"frequency_hz": 28.5e9, "split_by": "scene"}, {"maps": {}})
    >>> seal(draft)
    """
    # From here on, what an earlier attempt sealed is written anew.
    (draft.folder / "manifest.json").unlink(missing_ok=True)
    receipts = draft.receipts()
    outcomes = [outcome for receipt in receipts for outcome in receipt["scenes"]]
    statistics = merge_statistics([receipt["statistics"] for receipt in receipts])
    root = open_group(draft.data, "r+")
    for name, field in scene_arrays(draft.layout).items():
        values = scene_values(field, outcomes)
        array = root.create_array(
            name,
            shape=values.shape,
            dtype=str if field.dtype == "str" else field.dtype,
            dimension_names=("scene",),
            fill_value=field.fill,
            overwrite=True,
            attributes={"long_name": field.long_name, **({"units": field.units} if field.units else {})},
        )
        array[:] = values
    axes = group_axes(draft.layout, attributes)
    _write_axes(root, axes)
    for group in groups(draft.layout):
        # xarray takes what this attribute names as coordinates.
        theirs = [axis for name, (axis, _) in axes.items() if name.rpartition("/")[0] == group]
        root[group].attrs["coordinates"] = " ".join(field.name for field in [*GROUP_FIELDS, *theirs])
    conventions = CONVENTIONS
    if draft.layout.with_trajectory:
        conventions = conventions | {"trajectory": TRAJECTORY_CONVENTION}
    if draft.layout.base_stations > 1:
        conventions = conventions | {BASE_STATIONS: BASE_STATION_CONVENTION}
    if draft.layout.with_vegetation:
        conventions = conventions | {"vegetation": VEGETATION_CONVENTION}
    if draft.layout.with_radio_map:
        conventions = conventions | {GROUP: RADIO_MAP_CONVENTION}
        for metric in draft.layout.map_metrics:
            root[f"{GROUP}/{metric}"].attrs.update(cf_attributes(attributes["radio_map"]))
    if draft.layout.bands:
        dim = CARRIER if draft.layout.carriers else PORT
        conventions = conventions | {dim: OF_BANDS[dim]}
        every = [merge_statistics(list(units)) for units in zip(*(unit["bands"] for unit in receipts), strict=True)]
        if draft.layout.carriers:
            attributes = {**attributes, "carriers": {**attributes["carriers"], "statistics": every}}
        else:
            attributes = {**attributes, "ports": {**attributes["ports"], "statistics": every}}
    content: dict[str, object] = {
        "title": "Wavecity channels",
        "Conventions": "CF-1.11",
        "schema_version": STORE_SCHEMA,
        "fingerprint": draft.fingerprint,
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
        "comment": COMMENT,
        "conventions": conventions,
        "statistics": statistics,
        "coordinates": " ".join(field.name for field in SCENE_FIELDS),
        **attributes,
    }
    root.attrs.update(cf_attributes(content))
    with warnings.catch_warnings():
        # Consolidated metadata is not yet in the Zarr v3 specification; readers that do not know it ignore it.
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(zarr_store(draft.data))
    ledger = [outcome for outcome in outcomes if outcome["status"] != "done"]
    write_json(draft.folder / "ledger.json", ledger)
    write_json(draft.folder / "statistics.json", statistics)
    write_json(draft.folder / "distributions.json", merge_distributions([unit["distributions"] for unit in receipts]))
    write_json(draft.folder / "lineage.json", {**lineage, "versions": receipts[0]["versions"]})


def groups(layout: Layout) -> list[str]:
    """Groups of a store below its root."""
    of_link = ["paths"] * layout.with_paths + ["trajectory"] * layout.with_trajectory
    others = [name_of(k, group).rstrip("/") for k in range(1, layout.base_stations) for group in ["", *of_link]]
    return of_link + [GROUP] * layout.with_radio_map + ([BASE_STATIONS, *others] if others else [])


def scene_arrays(layout: Layout) -> dict[str, SceneField]:
    """Arrays with one value per scene, by their name in the store: all in the root group, some in the others as well."""
    copies = {f"{group}/{field.name}": field for group in groups(layout) for field in [SCENE_INDEX, *GROUP_FIELDS]}
    return {field.name: field for field in [*SCENE_FIELDS, SCENE_INDEX]} | copies


def scene_values(field: SceneField, outcomes: Sequence[Outcome]) -> Values:
    """Values (scene,) of a field from the outcomes of all scenes."""
    name = "scene_id" if field is SCENE_INDEX else field.name
    values = [outcome.get(name, field.fill) for outcome in outcomes]
    return np.array(values, dtype=object if field.dtype == "str" else field.dtype)


def trajectory_axes(layout: Layout, trajectory: TrajectoryAttributes) -> dict[str, NDArray[np.float64]]:
    """Coordinates of the group `trajectory`: times in s, frequencies of the subcarriers from the carrier in Hz."""
    return {
        "time": trajectory["interval_s"] * np.arange(layout.steps, dtype=np.float64),
        "frequency": subcarrier_frequencies(layout.subcarriers, trajectory["subcarrier_spacing_hz"]),
    }


def group_axes(layout: Layout, attributes: StoreAttributes) -> dict[str, tuple[TrajectoryAxis, Values]]:
    """Coordinates of groups along other dimensions than `scene`, with their values, by their name in the store."""
    axes: dict[str, tuple[TrajectoryAxis, Values]] = {}
    if layout.with_trajectory:
        values = trajectory_axes(layout, attributes["trajectory"])
        axes |= {f"trajectory/{axis.name}": (axis, values[axis.name]) for axis in TRAJECTORY_AXES}
    if layout.with_radio_map:
        values = radio_map_axes(layout.map_cells, attributes["radio_map"]["spacing_m"])
        axes |= {f"{GROUP}/{axis.name}": (axis, values[axis.name]) for axis in RADIO_MAP_AXES}
    if layout.bands:
        along: tuple[TrajectoryAxis, Values] = (
            (CARRIER_AXIS, np.asarray(attributes["carriers"]["frequencies_hz"], np.float64))
            if layout.carriers
            else (PORT_AXIS, np.asarray(attributes["ports"]["names"], object))
        )
        dim = along[0].name
        axes |= {f"{group}/{dim}".lstrip("/"): along for group in ["", *groups(layout)]}
    return axes


def _write_axes(root: zarr.Group, axes: Mapping[str, tuple[TrajectoryAxis, Values]]) -> None:
    """Write coordinates of groups."""
    for name, (axis, values) in axes.items():
        array = root.create_array(
            name,
            shape=values.shape,
            dtype=str if values.dtype == object else "float64",
            dimension_names=(axis.dim,),
            overwrite=True,
            attributes={"units": axis.units, "long_name": axis.long_name},
        )
        array[:] = values


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
