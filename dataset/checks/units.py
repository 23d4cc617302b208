"""Checks of one unit: its files, its values against the receipt, and every scene of it."""

import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from wavecity.dataset.bands import at_band, attributes_at, band_names, dim_of
from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.checks.bands import check_bands
from wavecity.dataset.checks.base_stations import BASE_STATION_CHECKS, check_walls, is_missing, link_of
from wavecity.dataset.checks.findings import Report
from wavecity.dataset.checks.physics import SCENE_CHECKS, SceneCheck
from wavecity.dataset.checks.radio_maps import RADIO_MAP_CHECKS
from wavecity.dataset.checks.trajectories import TRAJECTORY_CHECKS
from wavecity.dataset.checks.vegetation import VEGETATION_CHECKS
from wavecity.dataset.draft import Draft
from wavecity.dataset.files import array_of, open_group, sha256_of
from wavecity.dataset.fingerprints import array_checksum
from wavecity.dataset.materials import COLUMNS as MATERIAL_COLUMNS
from wavecity.dataset.materials import has_materials, wrong_materials
from wavecity.dataset.records import Receipt, StoreAttributes, attributes_of
from wavecity.dataset.schema import Arrays
from wavecity.dataset.statistics import unit_statistics

if TYPE_CHECKING:
    import geopandas as gpd

NO_GEOMETRY = "los: needs the buildings, pip install 'wavecity[generate]'"


def has_geometry() -> bool:
    """Whether the packages that read buildings are installed."""
    return importlib.util.find_spec("geopandas") is not None


def check_file(draft: Draft, name: str, expected: str, report: Report) -> None:
    """Compare the bytes of one file with its SHA-256 in the manifest."""
    report.ran("checksum")
    try:
        found = sha256_of(draft.folder / name)
    except OSError as error:
        report.add("checksum", name, f"cannot be read ({error})")
        return
    if found != expected:
        report.add("checksum", name, "its bytes differ from the SHA-256 in manifest.json; restore it or build again")


def check_unit_files(draft: Draft, listed: tuple[int, dict[str, str]]) -> Report:
    """Check the bytes of a unit's files; `listed` is the unit and, of each file, its SHA-256 in the manifest."""
    report = Report()
    for name, expected in listed[1].items():
        check_file(draft, name, expected, report)
    return report


def check_unit(draft: Draft, listed: tuple[int, dict[str, str]]) -> Report:
    """Check the bytes of a unit's files, its values and its scenes; parameters as for `check_unit_files`."""
    unit = listed[0]
    report = check_unit_files(draft, listed)
    damaged = {finding.where for finding in report.findings}
    if f"receipts/{draft.receipt_path(unit).name}" in damaged:
        return report  # nothing to compare the values with
    report.ran("receipt")
    receipt = draft.receipt(unit)
    if receipt is None:
        report.add("receipt", f"unit {unit}", "no valid receipt; run the build again, it redoes this unit")
        return report
    arrays = _read_unit(draft, unit, receipt, damaged, report)
    if len(arrays) < len(draft.layout.specs()):
        return report
    root = open_group(draft.data)
    attributes = attributes_of(root.attrs)
    shifts = np.asarray(array_of(root, "bs_shift")[:])
    _check_unit_statistics(receipt, arrays, unit, draft.layout.bands, report)
    buildings = _buildings(draft, unit)
    if buildings is not None:
        # Needs shapely, as the table needs geopandas.
        from wavecity.dataset.checks.line_of_sight import check_line_of_sight
        from wavecity.dataset.checks.radio_map_footprints import check_footprints

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
        theirs = None if buildings is None else buildings[buildings["scene_id"] == outcome["scene_id"]]
        checks = SCENE_CHECKS | (TRAJECTORY_CHECKS if draft.layout.with_trajectory else {})
        for number in range(draft.layout.base_stations):
            view, of_link = link_of(values, attributes, number)
            here = where + f", bs {number}" * (number > 0)
            if draft.layout.with_vegetation and draft.layout.with_paths:
                _run(VEGETATION_CHECKS, here, view, n_users, of_link, report)
            if is_missing(values, number):
                continue
            _run(checks, here, view, n_users, of_link, report)
            if dim := dim_of(attributes):
                report.check(f"{dim}s", here, check_bands(view, n_users, of_link))
            if theirs is not None:
                message = check_line_of_sight(
                    theirs,
                    view["user_position"][:n_users],
                    np.asarray(of_link["bs_position_m"], np.float64),
                    float(view["bs_shift"]),
                    view["los"][:n_users],
                )
                report.check("los", here, message)
        if draft.layout.base_stations > 1:
            _run(BASE_STATION_CHECKS, where, values, n_users, attributes, report)
            if theirs is not None:
                report.check("base stations", where, check_walls(theirs, values["bs/position"]))
        if theirs is not None and has_materials(theirs.columns):
            message = wrong_materials(theirs[["osm_type", "osm_id", *MATERIAL_COLUMNS]].to_dict("records"))
            report.check("materials", where, message)
        if draft.layout.with_radio_map:
            _run(RADIO_MAP_CHECKS, where, values, n_users, attributes, report)
            if theirs is not None:
                for at, its_values, its_attributes in _each_band(values, attributes):
                    message = check_footprints(theirs, its_values, its_attributes)
                    report.check("radio map buildings", where + at, message)
    return report


def _run(
    checks: Mapping[str, SceneCheck],
    where: str,
    values: Arrays,
    n_users: int,
    attributes: StoreAttributes,
    report: Report,
) -> None:
    """Make checks of a scene, or of its links to one base station, at every carrier or pair of ports."""
    for at, its_values, its_attributes in _each_band(values, attributes):
        for name, check in checks.items():
            report.check(name, where + at, check(its_values, n_users, its_attributes))


def _each_band(values: Arrays, attributes: StoreAttributes) -> Iterator[tuple[str, Arrays, StoreAttributes]]:
    """Values of a scene and attributes of the store at every carrier or pair of ports, and a word that says at which."""
    names = band_names(attributes)
    for number, name in enumerate(names):
        yield f" at {name}", at_band(values, number), attributes_at(attributes, number)
    if not names:
        yield "", values, attributes


def _read_unit(draft: Draft, unit: int, receipt: Receipt, damaged: set[str], report: Report) -> Arrays:
    """Values of a unit's arrays, each against its checksum; a shard already found damaged gives no second finding."""
    scenes = draft.layout.scenes_of(unit)
    root = open_group(draft.data)
    arrays: Arrays = {}
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


def _check_unit_statistics(receipt: Receipt, arrays: Arrays, unit: int, bands: int, report: Report) -> None:
    """The receipt's sums over the train users follow from the stored values."""
    report.ran("statistics")
    scenes: list[Arrays | None] = [
        {
            "csi": arrays["csi"][row, : outcome["n_users"]],
            "outage": arrays["outage"][row, : outcome["n_users"]],
            "occupancy": arrays["occupancy"][row],
        }
        if outcome["status"] == "done"
        else None
        for row, outcome in enumerate(receipt["scenes"])
    ]
    splits = [outcome["split"] for outcome in receipt["scenes"]]
    each = [[None if scene is None else at_band(scene, number) for scene in scenes] for number in range(bands)]
    found = [unit_statistics(alone, splits) for alone in each or [scenes]]
    stated = [receipt["statistics"], *receipt.get("bands", [])]
    pairs = zip([found[0], *found] if bands else found, stated, strict=True)
    if any(not np.isclose(one[name], value, 1e-9, 1e-30) for one, said in pairs for name, value in said.items()):
        report.add("statistics", f"unit {unit}", "the receipt's statistics do not follow from the stored values")


def _buildings(draft: Draft, unit: int) -> "gpd.GeoDataFrame | None":
    """Table of the unit's buildings; None where it cannot be read here, or no scene has one."""
    path = draft.buildings_path(unit)
    if not has_geometry() or not path.exists():
        return None
    try:
        table = read_buildings(path)
    except Exception:  # damaged: a finding of the checksums
        return None
    # So is a column whose name was damaged, which readers may not notice.
    return table if {"scene_id", "osm_type", "osm_id", "base", "height"} <= set(table.columns) else None
