"""Is a store what it says? Structure, checksums against the receipts, physics of every scene, splits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray

from dataset.files import write_json
from dataset.reader import open_store, resolve
from dataset.writer import Draft, array_checksum, load_draft
from raytrace.arrays import SPEED_OF_LIGHT, best_beam

# Rounding of float32 values of some 1e-6 relative; positions and delays are rounded to float32 independently.
RELATIVE = 1e-4


@dataclass(frozen=True)
class Finding:
    """A check that failed: where, and what was found against what is right."""

    check: str
    where: str
    message: str


@dataclass(frozen=True)
class Validation:
    """Result of `validate`: the checks that ran, with their findings."""

    checks: dict[str, int]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """No finding."""
        return not self.findings


def validate(store: str | Path, progress: Callable[[Any], Any] = iter) -> Validation:
    """Check a draft or a published version, every value of it.

    Parameters
    ----------
    store : path
        Folder of a build, of a draft or version, or a `.zarr`.
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.

    Returns
    -------
    Validation
        Also written to `validation.json` beside a draft that is not yet published.

    Raises
    ------
    InputError
        Not a store.
    """
    path = resolve(store)
    data = open_store(path)
    draft = load_draft(path.parent)
    findings: list[Finding] = []
    counts: dict[str, int] = {}
    for unit in progress(range(draft.layout.units)):
        for check, where, message in _check_unit(draft, data, unit, counts):
            findings.append(Finding(check, where, message))
    for check, where, message in _check_splits(data, counts):
        findings.append(Finding(check, where, message))
    result = Validation(counts, findings)
    if path.parent.parent.name == ".staging":
        content = {"ok": result.ok, "checks": counts, "findings": [vars(finding) for finding in findings]}
        write_json(path.parent / "validation.json", content)
    return result


def _check_unit(draft: Draft, data: xr.Dataset, unit: int, counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    receipt = draft.receipt(unit)
    counts["receipt"] = counts.get("receipt", 0) + 1
    if receipt is None:
        yield "receipt", f"unit {unit}", "no valid receipt; run the build again, it redoes this unit"
        return
    scenes = draft.layout.scenes_of(unit)
    root = zarr.open_group(str(draft.data), mode="r")
    arrays: dict[str, NDArray[Any]] = {}
    for spec in draft.layout.specs():
        counts["checksum"] = counts.get("checksum", 0) + 1
        try:
            values = np.asarray(root[spec.name][scenes.start : scenes.stop])  # type: ignore[index]
        except Exception as error:  # a damaged shard fails in whichever codec meets the bad byte
            yield "checksum", f"unit {unit}, {spec.name}", f"cannot be decoded ({type(error).__name__}: {error})"
            continue
        if array_checksum(values) != receipt["sha256"][spec.name]:
            yield "checksum", f"unit {unit}, {spec.name}", "values differ from the receipt's SHA-256; rebuild the unit"
        arrays[spec.name] = values
    if len(arrays) < len(draft.layout.specs()):
        return
    for row, scene in enumerate(scenes):
        if receipt["scenes"][row]["status"] != "done":
            continue
        n_users = receipt["scenes"][row]["n_users"]
        values_of = {name: values[row] for name, values in arrays.items()}
        where = f"scene {receipt['scenes'][row]['scene_id']}"
        if int(data["n_users"].values[scene]) != n_users:
            yield "structure", where, f"n_users is {int(data['n_users'].values[scene])}, its receipt says {n_users}"
        values_of["bs_shift"] = data["bs_shift"].values[scene]
        gates = receipt["scenes"][row].get("provenance", {}).get("gates", {})
        values_of["users_under_cover"] = np.asarray(gates.get("users_under_cover", 0))
        for name, check in SCENE_CHECKS.items():
            counts[name] = counts.get(name, 0) + 1
            message = check(values_of, n_users, data.attrs)
            if message:
                yield name, where, message


def _finite(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    bad = [name for name, values in arrays.items() if not np.isfinite(values).all()]
    return f"not finite: {', '.join(bad)}" if bad else ""


def _friis(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    """LoS path gain: equal to Friis for isotropic elements, never above it by more than the element's gain.

    `los` is geometry: it also holds where the recipe does not trace the direct path, or where its gain is below the floor.
    """
    if "paths/gain" not in arrays or not attrs["los_traced"]:
        return ""
    users = np.flatnonzero(arrays["los"][:n_users] & ~arrays["outage"][:n_users])
    direct = (arrays["paths/gain"][users] != 0) & ~arrays["paths/interactions"][users].any(-1)
    # Among paths that were cut the direct one may be, behind an element pattern's null.
    missing = ~direct.any(1) & (arrays["paths/power_cut"][users] == 0)
    if missing.any():
        return f"{int(missing.sum())} users are labelled LoS without a direct path"
    users, direct = users[direct.any(1)], direct[direct.any(1)]
    distance = np.linalg.norm(arrays["user_position"][users], axis=-1)
    friis = SPEED_OF_LIGHT / (4 * np.pi * attrs["frequency_hz"] * distance)
    found = np.abs(np.where(direct, arrays["paths/gain"][users], 0)).max(1, initial=0)
    excess = 20 * np.log10(found / friis) - attrs["element_gain_max_db"] if len(users) else np.zeros(1)
    if excess.max() > 0.01:
        return f"LoS gain {excess.max():.2f} dB above Friis"
    if attrs["element_pattern"] == "iso" and attrs["polarisation_matched"] and excess.min() < -0.5:
        return f"LoS gain {-excess.min():.2f} dB below Friis"
    return ""


def _delay(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    if "paths/delay" not in arrays:
        return ""
    shortest = np.linalg.norm(arrays["user_position"][:n_users], axis=-1)[:, None] / SPEED_OF_LIGHT
    real = arrays["paths/gain"][:n_users] != 0
    early = real & (arrays["paths/delay"][:n_users] < shortest * (1 - RELATIVE))
    return f"{int(early.sum())} paths arrive before light could" if early.any() else ""


def _parseval(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    if "spectrum" not in arrays:
        return ""
    csi, spectrum = arrays["csi"][:n_users], arrays["spectrum"][:n_users]
    transformed = np.abs(np.fft.fft2(csi.astype(np.complex128))) ** 2
    scale = transformed.max((-2, -1), initial=0)[:, None, None] + np.finfo(np.float32).tiny
    error = np.abs(spectrum - transformed) / scale
    return f"spectrum differs from |DFT(csi)|^2 by {error.max():.1e} of its peak" if error.max() > RELATIVE else ""


def _beams(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    expected = best_beam(arrays["csi"][:n_users])
    expected[arrays["outage"][:n_users]] = -1
    wrong = int((expected != arrays["best_beam"][:n_users]).sum())
    return f"best_beam wrong for {wrong} users" if wrong else ""


def _users(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    """Users inside the tile and outdoors: not where a cell and all its eight neighbours are built.

    But for those under raised buildings, whom the receipt counts: the height map does not show what is open below.
    """
    height = arrays["height"]
    half = attrs["tile_size_m"] / 2
    position = arrays["user_position"][:n_users] + np.asarray(attrs["bs_position_m"])
    # The recorded base station is the unshifted one; the shift is along x and at most a few cells.
    x, y = position[:, 0] + arrays["bs_shift"], position[:, 1]
    if n_users and max(np.abs(x).max(), np.abs(y).max()) > half + 0.01:
        return "users outside the tile"
    cell = attrs["tile_size_m"] / len(height)
    column = np.clip(((x + half) / cell).astype(int), 1, len(height) - 2)
    row = np.clip(((half - y) / cell).astype(int), 1, len(height) - 2)
    built = np.stack([height[row + i, column + j] > 0 for i in (-1, 0, 1) for j in (-1, 0, 1)]).all(0)
    indoors = int(built.sum()) - int(arrays["users_under_cover"])
    return f"{indoors} users inside buildings" if indoors > 0 else ""


def _occupancy(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    """Occupancy follows from the height map; the share seen in cells is off by up to 0.05 from the exact area."""
    occupancy, threshold = arrays["occupancy"], attrs["occupancy_threshold"]
    cells = len(arrays["height"]) // len(occupancy)
    share = (arrays["height"] > 0).reshape(len(occupancy), cells, len(occupancy), cells).mean((1, 3))
    wrong = ((share > threshold + 0.05) & (occupancy == 0)) | ((share < threshold - 0.05) & (occupancy == 1))
    return f"{int(wrong.sum())} occupancy patches contradict the height map" if wrong.any() else ""


def _padding(arrays: dict[str, NDArray[Any]], n_users: int, attrs: dict[str, Any]) -> str:
    pad = arrays["csi"][n_users:].any() or not arrays["outage"][n_users:].all() or arrays["los"][n_users:].any()
    return "padding users are not empty" if pad else ""


SCENE_CHECKS: dict[str, Callable[[dict[str, NDArray[Any]], int, dict[str, Any]], str]] = {
    "finite": _finite,
    "friis": _friis,
    "delay": _delay,
    "spectrum": _parseval,
    "best_beam": _beams,
    "users": _users,
    "occupancy": _occupancy,
    "padding": _padding,
}


def _check_splits(data: xr.Dataset, counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    counts["split"] = counts.get("split", 0) + 1
    if data.attrs.get("split_by") != "city":
        return
    splits: dict[str, set[str]] = {}
    for city, split in zip(data["city"].values, data["split"].values, strict=True):
        splits.setdefault(str(city), set()).add(str(split))
    for city, names in sorted(splits.items()):
        if len(names) > 1:
            yield "split", city, f"city in several splits: {', '.join(sorted(names))}"
