"""Is a store what it says? Every byte against the manifest, values against the receipts, physics of every scene, splits."""

import importlib.util
import io
import multiprocessing
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.checks.trajectories import TRAJECTORY_CHECKS
from wavecity.dataset.files import StorePath, array_of, files_below, open_group, read_json, sha256_of
from wavecity.dataset.reader import resolve
from wavecity.dataset.schema import SCENE_FIELDS, TRAJECTORY_AXES
from wavecity.dataset.statistics import merge_statistics, unit_statistics
from wavecity.dataset.writer import (
    UNSEALED,
    Draft,
    array_checksum,
    load_draft,
    read_sealed,
    trajectory_axes,
    write_sealed,
)
from wavecity.geo.errors import CommandFailed
from wavecity.raytrace.arrays import SPEED_OF_LIGHT, best_beam

# Rounding of float32 values of some 1e-6 relative; positions and delays are rounded to float32 independently.
RELATIVE = 1e-4

# As `map`, in the order of the arguments; may run elsewhere.
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Finding:
    """A check that failed: where, and what was found against what is right."""

    check: str
    where: str
    message: str


@dataclass(frozen=True)
class Validation:
    """Result of `validate`: how often each check ran, and the findings.

    `left_out` says which checks did not run here, and why.
    """

    checks: dict[str, int]
    findings: list[Finding]
    left_out: list[str]

    @property
    def ok(self) -> bool:
        """No finding."""
        return not self.findings

    @property
    def found(self) -> str:
        """How many findings there are, in words."""
        return f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"


class CheckFailed(CommandFailed):
    """Validation found something (exit code 1)."""

    def __init__(self, validation: Validation) -> None:
        first = validation.findings[0]
        super().__init__(f"validation failed: {first.check} at {first.where}: {first.message} ({validation.found})")
        self.validation = validation


@dataclass
class _Report:
    """What one unit's checks found; travels between processes."""

    counts: Counter[str]
    findings: list[Finding]

    def ran(self, check: str) -> None:
        self.counts[check] += 1

    def add(self, check: str, where: str, message: str) -> None:
        self.findings.append(Finding(check, where, message))


@contextmanager
def processes(workers: int) -> Iterator[Each]:
    """Several local processes as the `each` of `validate`."""
    if workers < 2:
        yield map
        return
    # Fresh processes: a fork would copy Zarr's event loop and its threads in an undefined state.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def validate(store: str | StorePath, progress: Callable[[Any], Any] = iter, each: Each = map) -> Validation:
    """Check a draft or a published version, every byte and every value of it.

    Parameters
    ----------
    store : path or URL
        Folder of a build, of a draft or version, or a `.zarr`.
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.
    each : callable
        As `map`; runs the checks of the units, e.g. in `processes`.

    Returns
    -------
    Validation
        Also written to `validation.json` beside a draft that is not yet published.

    Raises
    ------
    InputError
        Not a store.
    """
    folder = resolve(store).parent
    draft = load_draft(folder)
    report = _Report(Counter(), [])
    sums = _check_manifest(draft, report)
    scenes = _check_coordinates(draft, report) if sums else None
    # Without a manifest, or with damaged metadata, there are no values to trust, only bytes.
    check = _check_unit if sums and scenes is not None else _check_unit_files
    if scenes is not None:
        _check_splits(scenes, draft, report)
    if sums:
        _check_totals(draft, report)
    units = [(unit, sums.get(unit, {})) for unit in range(draft.layout.units)]
    for part in progress(each(partial(check, draft), units)):
        report.counts.update(part.counts)
        report.findings.extend(part.findings)
    result = Validation(dict(report.counts), report.findings, [] if _has_geometry() else [NO_GEOMETRY])
    if folder.parent.name == ".staging" and sums:
        found = [vars(finding) for finding in result.findings]
        manifest = read_json(folder / "manifest.json")["sha256"]
        write_sealed(
            folder / "validation.json",
            {"ok": result.ok, "checks": result.checks, "findings": found, "manifest": manifest},
        )
    return result


def validate_bytes(folder: StorePath) -> Validation:
    """Check every byte of a draft or version against its manifest, and nothing else.

    Raises
    ------
    InputError
        Not the folder of a draft or version.
    """
    draft, report = load_draft(folder), _Report(Counter(), [])
    for listed in _check_manifest(draft, report).items():
        part = _check_unit_files(draft, listed)
        report.counts.update(part.counts)
        report.findings.extend(part.findings)
    return Validation(dict(report.counts), report.findings, [])


NO_GEOMETRY = "los: needs the buildings, pip install 'wavecity[generate]'"


def _has_geometry() -> bool:
    return importlib.util.find_spec("geopandas") is not None


def _check_manifest(draft: Draft, report: _Report) -> dict[int, dict[str, str]]:
    """Every file of the version is listed, and the other way round; files that belong to no unit are read here.

    Returns
    -------
    dict
        Unit -> listed sums of its files, for the units' checks.
    """
    report.ran("manifest")
    content = read_sealed(draft.folder / "manifest.json")
    if content is None:
        report.add(
            "manifest", "manifest.json", "missing or changed, so no file can be checked; build the version again"
        )
        return {}
    sums: dict[str, str] = content["files"]
    present = set(files_below(draft.folder))
    for name in sorted(sums.keys() - present):
        report.add("manifest", name, "missing; restore it or build the version again")
    for name in sorted(present - sums.keys() - set(UNSEALED)):
        report.add("manifest", name, "not listed in manifest.json; it does not belong to the version")
    for name in UNSEALED[1:]:
        if name in present and read_sealed(draft.folder / name) is None:
            report.add("checksum", name, "its content has changed")
    arrays = {spec.name for spec in draft.layout.specs()}
    units: dict[int, dict[str, str]] = {}
    for name in sorted(sums.keys() & present):
        unit = _unit_of(name, arrays)
        if unit is None:
            _check_file(draft, name, sums[name], report)
        else:
            units.setdefault(unit, {})[name] = sums[name]
    return units


def _unit_of(name: str, arrays: set[str]) -> int | None:
    """Unit that a listed file belongs to, None for what the finishing step wrote."""
    found = re.fullmatch(r"(?:receipts|buildings)/unit-(\d+)\.\w+", name)
    if found:
        return int(found[1])
    found = re.fullmatch(r"data\.zarr/(.+)/c/(\d+)/.+", name)
    return int(found[2]) if found and found[1] in arrays else None


def _check_file(draft: Draft, name: str, expected: str, report: _Report) -> bool:
    report.ran("checksum")
    try:
        found = sha256_of(draft.folder / name)
    except OSError as error:
        report.add("checksum", name, f"cannot be read ({error})")
        return False
    if found != expected:
        report.add("checksum", name, "its bytes differ from the SHA-256 in manifest.json; restore it or build again")
    return found == expected


def _check_coordinates(draft: Draft, report: _Report) -> dict[str, NDArray[Any]] | None:
    """Scene coordinates of the root group are what the receipts say; returns them."""
    report.ran("structure")
    try:
        root = open_group(draft.data)
        shapes = {spec.name: draft.layout.shape(spec) for spec in draft.layout.specs()}
        for name, shape in shapes.items():
            if getattr(root[name], "shape", None) != shape:
                report.add("structure", name, f"shape {getattr(root[name], 'shape', None)}, the layout says {shape}")
        scenes = {field.name: np.asarray(array_of(root, field.name)[:]) for field in SCENE_FIELDS}
        if draft.layout.with_trajectory:
            expected_axes = trajectory_axes(draft.layout, dict(root.attrs)["trajectory"])  # type: ignore[arg-type]
            for axis in TRAJECTORY_AXES:
                name = f"trajectory/{axis.name}"
                if not np.array_equal(array_of(root, name)[:], expected_axes[axis.name]):  # type: ignore[arg-type]
                    report.add("structure", name, "not the times or frequencies that the store's attributes say")
    except Exception as error:  # damaged metadata fail in whichever part of Zarr meets them
        report.add("structure", "data.zarr", f"cannot be opened ({type(error).__name__}: {str(error).splitlines()[0]})")
        return None
    outcomes = [outcome for receipt in draft.all_receipts() if receipt for outcome in receipt["scenes"]]
    if len(outcomes) == draft.layout.scenes:
        for field in SCENE_FIELDS:
            kind = object if field.dtype == "str" else field.dtype
            expected = np.array([outcome.get(field.name, field.fill) for outcome in outcomes], kind).tolist()
            for outcome, found, right in zip(outcomes, scenes[field.name].tolist(), expected, strict=True):
                if found != right and not (found != found and right != right):  # a NaN is never equal
                    where = f"{field.name} of scene {outcome.get('scene_id', '')}"
                    report.add("structure", where, f"{found}, its receipt says {right}")
    return scenes


def _check_totals(draft: Draft, report: _Report) -> None:
    """Statistics of the version are the sum of those of its units."""
    receipts = [receipt for receipt in draft.all_receipts() if receipt]
    if len(receipts) < draft.layout.units:
        return  # each missing receipt is a finding of its own
    report.ran("statistics")
    merged = merge_statistics([receipt["statistics"] for receipt in receipts])
    found = read_json(draft.folder / "statistics.json")
    if not isinstance(found, dict) or any(not np.isclose(found.get(k, np.nan), v, 1e-9) for k, v in merged.items()):
        report.add("statistics", "statistics.json", "not the sum of the units' statistics")


def _check_unit_files(draft: Draft, listed: tuple[int, dict[str, str]]) -> _Report:
    report = _Report(Counter(), [])
    for name, expected in listed[1].items():
        _check_file(draft, name, expected, report)
    return report


def _check_unit(draft: Draft, listed: tuple[int, dict[str, str]]) -> _Report:
    unit = listed[0]
    report = _check_unit_files(draft, listed)
    damaged = {finding.where for finding in report.findings}
    if f"receipts/{draft.receipt_path(unit).name}" in damaged:
        return report  # nothing to hold the values against
    report.ran("receipt")
    receipt = draft.receipt(unit)
    if receipt is None:
        report.add("receipt", f"unit {unit}", "no valid receipt; run the build again, it redoes this unit")
        return report
    arrays = _read_unit(draft, unit, receipt, damaged, report)
    if len(arrays) < len(draft.layout.specs()):
        return report
    root = open_group(draft.data)
    attributes = dict(root.attrs)
    shifts = np.asarray(array_of(root, "bs_shift")[:])
    _check_unit_statistics(receipt, arrays, unit, report)
    buildings = _buildings(draft, unit)
    if buildings is not None:
        from wavecity.dataset.checks.line_of_sight import (
            check_line_of_sight,
        )  # needs shapely, as the table needs geopandas
    for row, scene in enumerate(draft.layout.scenes_of(unit)):
        outcome = receipt["scenes"][row]
        if outcome["status"] != "done":
            continue
        n_users = outcome["n_users"]
        values = {name: array[row] for name, array in arrays.items()}
        values["bs_shift"] = shifts[scene]
        gates = outcome.get("provenance", {}).get("gates", {})
        values["users_under_cover"] = np.asarray(gates.get("users_under_cover", 0))
        where = f"scene {outcome['scene_id']}"
        checks = SCENE_CHECKS | (TRAJECTORY_CHECKS if draft.layout.with_trajectory else {})
        for name, check in checks.items():
            report.ran(name)
            message = check(values, n_users, attributes)
            if message:
                report.add(name, where, message)
        if buildings is not None:
            # Needs shapely, which comes with what reads the buildings.
            from wavecity.dataset.checks.line_of_sight import check_line_of_sight

            report.ran("los")
            message = check_line_of_sight(
                buildings[buildings["scene_id"] == outcome["scene_id"]],
                values["user_position"][:n_users],
                np.asarray(attributes["bs_position_m"], np.float64),
                float(shifts[scene]),
                values["los"][:n_users],
            )
            if message:
                report.add("los", where, message)
    return report


def _read_unit(
    draft: Draft, unit: int, receipt: dict[str, Any], damaged: set[str], report: _Report
) -> dict[str, NDArray[Any]]:
    """Values of a unit's arrays, each against its checksum; a shard already found damaged gives no second finding."""
    scenes = draft.layout.scenes_of(unit)
    root = open_group(draft.data)
    arrays: dict[str, NDArray[Any]] = {}
    for spec in draft.layout.specs():
        report.ran("values")
        known = any(name.startswith(f"data.zarr/{spec.name}/c/") for name in damaged)
        try:
            values = np.asarray(array_of(root, spec.name)[scenes.start : scenes.stop])
        except Exception as error:  # a damaged shard fails in whichever codec meets the bad byte
            if not known:
                report.add("values", f"unit {unit}, {spec.name}", f"not decoded ({type(error).__name__}: {error})")
            continue
        if array_checksum(values) != receipt["sha256"][spec.name]:
            if not known:
                report.add("values", f"unit {unit}, {spec.name}", "differ from the receipt's SHA-256; build it again")
            continue
        arrays[spec.name] = values
    return arrays


def _check_unit_statistics(
    receipt: dict[str, Any], arrays: dict[str, NDArray[Any]], unit: int, report: _Report
) -> None:
    """The receipt's sums over the train users follow from the stored values."""
    report.ran("statistics")
    scenes = [
        {
            "csi": arrays["csi"][row, : outcome["n_users"]],
            "outage": arrays["outage"][row, : outcome["n_users"]],
            "occupancy": arrays["occupancy"][row],
        }
        if outcome["status"] == "done"
        else None
        for row, outcome in enumerate(receipt["scenes"])
    ]
    found = unit_statistics(scenes, [outcome["split"] for outcome in receipt["scenes"]])
    if any(not np.isclose(found[name], value, 1e-9, 1e-30) for name, value in receipt["statistics"].items()):
        report.add("statistics", f"unit {unit}", "the receipt's statistics do not follow from the stored values")


def _buildings(draft: Draft, unit: int) -> Any:
    """Table of the unit's buildings; None where it cannot be read here, or no scene has one."""
    path = draft.buildings_path(unit)
    if not _has_geometry() or not path.exists():
        return None
    import geopandas as gpd

    try:
        table = gpd.read_parquet(io.BytesIO(path.read_bytes()))
    except Exception:  # damaged: a finding of the checksums
        return None
    # So is a column whose name was damaged, which a reader may not notice.
    return table if {"scene_id", "osm_type", "osm_id", "base", "height"} <= set(table.columns) else None


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
    moving = (values for name, values in arrays.items() if name.startswith("trajectory/"))
    return "padding users are not empty" if pad or any(values[n_users:].any() for values in moving) else ""


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


def _check_splits(scenes: dict[str, NDArray[Any]], draft: Draft, report: _Report) -> None:
    report.ran("split")
    if open_group(draft.data).attrs.get("split_by") != "city":
        return
    splits: dict[str, set[str]] = {}
    for city, split in zip(scenes["city"], scenes["split"], strict=True):
        splits.setdefault(str(city), set()).add(str(split))
    for city, names in sorted(splits.items()):
        if len(names) > 1:
            report.add("split", city, f"city in several splits: {', '.join(sorted(names))}")
