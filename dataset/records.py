"""What the JSON files of a version hold, and the attributes of its Zarr group: one type for each."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias, TypedDict, cast

from wavecity.dataset.distributions import Distributions

# Content of a JSON object that is not described here.
Content: TypeAlias = dict[str, Any]


class Outcome(TypedDict, total=False):
    """What became of one scene: an entry of `scenes` in its unit's receipt.

    Every outcome has `scene_id`, `city`, `split`, `n_users` and `status` (`done` or `quarantined`); a quarantined one
    has `stage`, `reason` and `traceback`; the others are there where they are known.
    """

    scene_id: str
    city: str
    country: str
    latitude: float
    longitude: float
    split: str
    status: str
    n_users: int
    n_los: int
    n_outage: int
    bs_shift: float
    mesh_checksum: str
    channel_checksum: str
    # Keys of what decided the scene's bytes, and those of its channels.
    inputs: str
    channels: str
    origin: str
    # Buildings by the source of their height.
    heights_from: dict[str, int]
    # `Scene.provenance`: map, gates, features, vegetation.
    provenance: Content
    stage: str
    reason: str
    traceback: str
    seconds_scene: float
    seconds_raytrace: float


class ReceiptExtra(TypedDict, total=False):
    """What not every receipt has: what the maker of a unit adds, and `statistics` at each of several bands."""

    seed: int
    bands: list[dict[str, float]]


class Receipt(ReceiptExtra):
    """`receipts/unit-*.json`: the proof that a unit is done.

    `sha256` has the checksum of every array's values, `files` and `sizes` those and the bytes of every file of the
    unit.
    """

    fingerprint: str
    unit: int
    scenes: list[Outcome]
    sha256: dict[str, str]
    files: dict[str, str]
    sizes: dict[str, int]
    statistics: dict[str, float]
    distributions: Distributions
    versions: dict[str, str]
    seconds_write: float


class Manifest(TypedDict):
    """`manifest.json`: SHA-256 and bytes of every file; versions written earlier have no `sizes`."""

    files: dict[str, str]
    sizes: dict[str, int]


class HeightFileRecord(TypedDict):
    """A file of heights in the lineage: footprints with a height, and how many of a map's buildings it filled."""

    file: str
    sha256: str
    usable: int
    without_height: int
    filled: int


class MapRecord(TypedDict, total=False):
    """A city's map in the lineage."""

    name: str
    file: str
    licence: str
    map_date: str | None
    sha256: str
    counts: dict[str, int]
    # Buildings that could not be built, by what the map lacks, and repaired ones, by what was done.
    losses: dict[str, int]
    repairs: dict[str, int]
    # Tags of heights that could not be read, by their text.
    unread_heights: dict[str, int]
    # Where another file filled missing heights.
    heights: HeightFileRecord


class CityRecord(TypedDict):
    """A city in the lineage: how many scenes it was to give, and gave."""

    name: str
    country: str
    state: str
    wanted: int
    scenes: int
    candidates: int
    rejected: dict[str, int]
    problem: str


class TileRecord(TypedDict):
    """A candidate tile in the lineage."""

    id: str
    latitude: float
    longitude: float
    status: str
    reason: str


class KeptRecord(TypedDict):
    """Cities whose scenes a partial build kept, and what had decided their bytes."""

    inputs: dict[str, object]
    cities: list[str]


class SubsetRecord(TypedDict):
    """What a subset is a part of: fingerprint, packages, and how many of how many scenes."""

    of: str
    scenes: int
    of_scenes: int
    left_out: list[str]
    versions: dict[str, str]


class Lineage(TypedDict, total=False):
    """`lineage.json`: where a version comes from; `kept` only where a partial build kept other inputs than `inputs`."""

    fingerprint: str
    maps: dict[str, MapRecord]
    cities: list[CityRecord]
    tiles: list[TileRecord]
    inputs: dict[str, object]
    kept: list[KeptRecord]
    origins: dict[str, int]
    versions: dict[str, str]
    imported: dict[str, str]
    subset: SubsetRecord


class PanelAttributes(TypedDict, total=False):
    """The base station's antenna array."""

    columns: int
    rows: int
    spacing_wavelengths: float
    azimuth_deg: float
    downtilt_deg: float


class TrajectoryAttributes(TypedDict):
    """What readers need to know of users that move."""

    interval_s: float
    steps: int
    subcarriers: int
    subcarrier_spacing_hz: float
    kinds: dict[str, str]
    fastest_mps: list[float]


class RadioMapAttributes(TypedDict):
    """Grid of the radio maps: edge of a cell, and height of the receivers above ground."""

    spacing_m: float
    receiver_height_m: float


class BaseStationAttributes(TypedDict):
    """Number of base stations, and what decides the cells."""

    count: int
    transmit_power_dbm: float
    bandwidth_hz: float
    noise_figure_db: float
    hysteresis_db: float


class VegetationAttributes(TypedDict):
    """What paths lose in vegetation."""

    attenuation_db_per_m: float
    largest_loss_db: float


class BandAttributes(TypedDict, total=False):
    """Carriers, or pairs of ports, of a store that has several, in their order, with statistics as of the store; of carriers
    also what paths lose in vegetation, where there is any.
    """

    frequencies_hz: list[float]
    names: list[str]
    statistics: list[dict[str, float]]
    vegetation: list[VegetationAttributes]


class ImportAttributes(TypedDict):
    """Where imported channels come from, and what is not known of them."""

    files: dict[str, str]
    settings: dict[str, object]
    level: str
    height: bool
    los: bool


class StoreAttributes(TypedDict, total=False):
    """Attributes of a store's root group, decoded; `recipe`, `trajectory`, `radio_map`, `base_stations`, `vegetation`,
    `carriers`, `ports` and `imported` only where they apply.
    """

    title: str
    fingerprint: str
    schema_version: str
    licence: str
    attribution: str
    conventions: dict[str, str]
    statistics: dict[str, float]
    coordinates: str
    frequency_hz: float
    element_pattern: str
    element_gain_max_db: float
    los_traced: bool
    polarisation_matched: bool
    array: PanelAttributes
    bs_position_m: list[float]
    tile_size_m: float
    occupancy_threshold: float
    split_by: str
    # Parts of the recipe by name.
    recipe: Content
    trajectory: TrajectoryAttributes
    radio_map: RadioMapAttributes
    base_stations: BaseStationAttributes
    vegetation: VegetationAttributes
    carriers: BandAttributes
    ports: BandAttributes
    # Of user and base station, where they are not V/V.
    polarisations: str
    imported: ImportAttributes


# What is stored as JSON text, and as 0 or 1: NetCDF has neither objects nor truth values. Stores of schema 1 have both.
OBJECTS = (
    "conventions", "statistics", "array", "recipe", "trajectory", "radio_map", "base_stations", "carriers", "ports",
    "vegetation",
    "imported", "receiver",
)  # fmt: skip
FLAGS = ("los_traced", "polarisation_matched")


def attributes_of(attrs: Mapping[str, Any]) -> StoreAttributes:
    """Attributes of a store as Python objects: those that are stored as JSON text are decoded.

    Parameters
    ----------
    attrs : mapping
        Of a Zarr group, or of an xarray Dataset or DataArray, of any schema version.

    Examples
    --------
    >>> attributes_of({"array": '{"columns": 32, "rows": 32}', "los_traced": 1})
    {'array': {'columns': 32, 'rows': 32}, 'los_traced': True}
    """
    decoded = dict(attrs)
    for name in OBJECTS:
        if isinstance(decoded.get(name), str):
            decoded[name] = json.loads(decoded[name])
    return cast(StoreAttributes, decoded | {name: bool(decoded[name]) for name in FLAGS if name in decoded})


def cf_attributes(attributes: Mapping[str, object]) -> dict[str, Any]:
    """Attributes as the CF conventions allow, so that NetCDF can hold them: the reverse of `attributes_of`.

    Examples
    --------
    >>> cf_attributes({"array": {"columns": 32, "rows": 32}, "los_traced": True})
    {'array': '{"columns": 32, "rows": 32}', 'los_traced': 1}
    """
    return {name: _cf_value(value) for name, value in attributes.items()}


def _cf_value(value: object) -> object:
    """Objects as JSON text, truth values as 0 or 1."""
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False)
    return int(value) if isinstance(value, bool) else value
