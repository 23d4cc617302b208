"""The index of a store: one small JSON with a row for every scene, so that a page shows all of them without a shard."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray

from wavecity.dataset.bands import index_of
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, array_of, open_group, read_json
from wavecity.dataset.integrity import damages
from wavecity.dataset.progress import track
from wavecity.dataset.reader import resolve
from wavecity.dataset.records import Manifest, Outcome, StoreAttributes, attributes_of
from wavecity.geo.errors import InputError

# Of the index; a page refuses another.
FORMAT = 1
# Values of an array that are read at a time.
BLOCK = 2**24
# What a scene's users have in every store; numbers of paths only where paths are stored.
MEASURES = ("path_gain", "los", "outage")
PATHS = "paths/n_paths"
# What of the store's attributes the page shows or computes with.
ATTRIBUTES = (
    "title", "fingerprint", "schema_version", "licence", "attribution", "conventions", "frequency_hz", "array",
    "bs_position_m", "tile_size_m", "split_by", "trajectory", "imported", "statistics", "base_stations", "vegetation",
)  # fmt: skip
PARTS = ("name", "radio", "scene", "solver")
SHARD = re.compile(r"data\.zarr/(?P<array>.+)/c/(?P<unit>\d+)(/\d+)*$")

Column: TypeAlias = list[Any]


def make_index(store: str | StorePath) -> dict[str, Any]:
    """Describe every scene of a store in a few numbers.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a version, or a `.zarr` within one.

    Returns
    -------
    dict
        `scenes` has one list per column (id, city, split, outcome, numbers of users, shares, gains in dB), in the order
        of the store; `cities`, `splits` and `reasons` what the columns' numbers mean; `attributes` what the page needs
        of the store's; `absent` the shards that hold nothing but fill values; `damaged` the files that are not what was
        written.

    Raises
    ------
    InputError
        Not a store, or a `.zarr` without the files of its version.

    Examples
    --------
    >>> make_index("stores/helsinki")["scenes"]["id"][:2]
    ['helsinki-0003', 'helsinki-0007']
    """
    folder = resolve(store).parent
    draft = load_draft(folder)
    try:
        root = open_group(draft.data)
        attributes = attributes_of(root.attrs.asdict())
        if "schema_version" not in attributes:
            raise KeyError("schema_version")
        ids = np.asarray(array_of(root, "scene_id")[:])
    except (OSError, KeyError, ValueError, TypeError) as error:
        msg = f"{store}: cannot be read as a finished Wavecity store ({error}); build it again, or name another"
        raise InputError(msg) from error
    index_of(store, attributes, None)  # refuses several carriers or ports
    unit = draft.layout.unit
    receipts = draft.all_receipts()
    outcomes: list[Outcome] = []
    for number, receipt in enumerate(receipts):
        given = [Outcome(scene_id=str(ids[row]), status="unknown") for row in draft.layout.scenes_of(number)]
        outcomes += receipt["scenes"] if receipt else given
    manifest: Manifest | None = read_json(folder / "manifest.json")
    files = manifest["files"] if manifest else {}
    damaged = damages(folder, files, manifest.get("sizes", {})) if manifest else {}
    arrays = sorted(name for name, node in root.members(max_depth=None) if isinstance(node, zarr.Array))
    return {
        "format": FORMAT,
        "store": str(store),
        "version": folder.name,
        "attributes": _attributes(attributes),
        "layout": {"scenes": draft.layout.scenes, "users": draft.layout.users, "unit": unit},
        "arrays": arrays,
        "buildings": (folder / "buildings").exists(),
        "files": sorted(name for name in ("card.html", "croissant.json") if name in files),
        "cities": _cities(outcomes),
        **_scenes(root, arrays, outcomes, unit, [match for match in map(SHARD.match, damaged) if match]),
        "absent": _absent(files, draft.layout.units) if files else None,
        "damaged": damaged,
    }


def index_bytes(index: dict[str, Any]) -> bytes:
    """The index as the page loads it."""
    return json.dumps(index, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _attributes(attributes: StoreAttributes) -> dict[str, Any]:
    """Attributes that the page uses; of the recipe only how scenes were made and traced, without names of files."""
    recipe = attributes.get("recipe", {})
    chosen = {name: attributes[name] for name in ATTRIBUTES if name in attributes}  # type: ignore[literal-required]
    return chosen | {"recipe": {part: recipe[part] for part in PARTS if part in recipe}}


def _cities(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Cities in the order of their first scene, each with the middle of its scenes in degrees."""
    places: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        places.setdefault(outcome.get("city", ""), []).append(outcome)
    found = []
    for name, scenes in places.items():
        middle = [np.median([scene.get(key, np.nan) for scene in scenes]) for key in ("latitude", "longitude")]
        latitude, longitude = (_number(float(value), 4) for value in middle)
        country = scenes[0].get("country", "")
        found.append({"name": name, "country": country, "latitude": latitude, "longitude": longitude})
    return found


def _scenes(
    root: zarr.Group,
    arrays: Sequence[str],
    outcomes: Sequence[Outcome],
    unit: int,
    damaged: Sequence[re.Match[str]],
) -> dict[str, Any]:
    """Columns of the scenes, and the words that their numbers stand for."""
    splits = sorted({outcome.get("split", "") for outcome in outcomes}, key=_split_order)
    reasons = sorted({outcome["reason"] for outcome in outcomes if outcome.get("reason")})
    sources = sorted({name for outcome in outcomes for name in outcome.get("heights_from", {})})
    names = list(dict.fromkeys(outcome.get("city", "") for outcome in outcomes))
    scenes: dict[str, Any] = {
        "id": [outcome["scene_id"] for outcome in outcomes],
        "city": [names.index(outcome.get("city", "")) for outcome in outcomes],
        "split": [splits.index(outcome.get("split", "")) for outcome in outcomes],
        "status": [outcome["status"] for outcome in outcomes],
        "stage": [outcome.get("stage", "") for outcome in outcomes],
        "reason": [reasons.index(outcome["reason"]) if outcome.get("reason") else None for outcome in outcomes],
        "latitude": [_number(outcome.get("latitude", np.nan), 6) for outcome in outcomes],
        "longitude": [_number(outcome.get("longitude", np.nan), 6) for outcome in outcomes],
        "users": [outcome.get("n_users", 0) for outcome in outcomes],
        "bs_shift": [_number(outcome.get("bs_shift", 0.0), 3) for outcome in outcomes],
        "coverage": [_number(outcome.get("provenance", {}).get("coverage", np.nan), 3) for outcome in outcomes],
        "heights": {name: [outcome.get("heights_from", {}).get(name, 0) for outcome in outcomes] for name in sources},
    }
    lost = {(match["array"], int(match["unit"])) for match in damaged}
    scenes |= _measures(root, [name for name in (*MEASURES, PATHS) if name in arrays], scenes["users"], unit, lost)
    return {"splits": splits, "reasons": reasons, "scenes": scenes}


def _measures(
    root: zarr.Group, names: Sequence[str], users: Sequence[int], unit: int, lost: set[tuple[str, int]]
) -> dict[str, Column]:
    """Shares of users and percentiles of their gain and number of paths; None where a shard cannot be read."""
    columns: dict[str, Column] = {name: [] for name in ("los", "outage", "gain", "gain_low", "gain_high", "paths")}
    width = array_of(root, MEASURES[0]).shape[1]
    step = max(1, BLOCK // max(1, width * unit)) * unit
    for start in track(range(0, len(users), step), "summarise scenes", unit="blocks"):
        stop = min(start + step, len(users))
        values = {name: _read(root, name, start, stop, unit, lost) for name in names}
        for name, numbers in _summaries(values, np.asarray(users[start:stop])).items():
            columns[name] += [_number(value, 3 if name in ("los", "outage") else 1) for value in numbers.tolist()]
    return columns


def _read(
    root: zarr.Group, name: str, start: int, stop: int, unit: int, lost: set[tuple[str, int]]
) -> NDArray[np.float64]:
    """Values of scenes (scenes, users), by unit where not all of them can be read; NaN where they cannot."""
    array = array_of(root, name)
    units = range(start // unit, -(-stop // unit))
    if not any((name, number) in lost for number in units):
        try:
            return np.asarray(array[start:stop], np.float64)
        except Exception:  # what decoders raise is of many kinds
            if len(units) == 1:
                return np.full((stop - start, array.shape[1]), np.nan)
    elif len(units) == 1:
        return np.full((stop - start, array.shape[1]), np.nan)
    parts = [_read(root, name, max(start, i * unit), min(stop, (i + 1) * unit), unit, lost) for i in units]
    return np.concatenate(parts)


def _summaries(values: dict[str, NDArray[np.float64]], users: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Numbers of the users of each scene; NaN where there are none, or where they cannot be read."""
    there = np.arange(values["los"].shape[1]) < users[:, None]
    heard = there & (values["outage"] == 0)
    found = {name: _mean(values[name], there) for name in ("los", "outage")}
    for name, share in (("gain_low", 0.1), ("gain", 0.5), ("gain_high", 0.9)):
        found[name] = _quantile(values["path_gain"], heard, share)
    found["paths"] = _quantile(values[PATHS], heard, 0.5) if PATHS in values else np.full(len(users), np.nan)
    return found


def _mean(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the chosen values of each row."""
    with np.errstate(invalid="ignore"):
        return np.where(chosen, values, 0).sum(1) / chosen.sum(1)


def _quantile(values: NDArray[np.float64], chosen: NDArray[np.bool_], share: float) -> NDArray[np.float64]:
    """Quantile of the chosen values of each row, interpolated linearly; `np.nanquantile` goes row by row."""
    rising = np.sort(np.where(chosen, values, np.inf), axis=1)
    last = np.maximum(chosen.sum(1) - 1, 0)
    low = np.floor(share * last).astype(int)
    rows, high = np.arange(len(values)), np.minimum(low + 1, last)
    found: NDArray[np.float64] = rising[rows, low] + (share * last - low) * (rising[rows, high] - rising[rows, low])
    return np.where(chosen.any(1), found, np.nan)


def _absent(files: dict[str, str], units: int) -> dict[str, list[int]]:
    """Units of which an array has no shard: Zarr writes none where all values are the fill value."""
    there: dict[str, set[int]] = {}
    for name in files:
        if name.startswith("data.zarr/") and name.endswith("/zarr.json"):
            there.setdefault(name.removeprefix("data.zarr/").removesuffix("/zarr.json"), set())
        elif match := SHARD.match(name):
            there.setdefault(match["array"], set()).add(int(match["unit"]))
    # Groups and coordinates, which are no shards of units, are never asked for by unit.
    lacking = {name: sorted(set(range(units)) - found) for name, found in there.items()}
    return {name: numbers for name, numbers in lacking.items() if numbers and name != "zarr.json"}


def _split_order(name: str) -> tuple[int, str]:
    """The order in which people name splits."""
    order = ("train", "validation", "test")
    return (order.index(name) if name in order else len(order), name)


def _number(value: float, digits: int) -> float | None:
    """A rounded number, or None for NaN, which JSON does not have."""
    return round(float(value), digits) if math.isfinite(value) else None
