"""Validation of a store: bytes against the manifest, values against the receipts, physics of every scene, splits."""

import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from wavecity.dataset.bands import statistics_of
from wavecity.dataset.checks.findings import Report, Validation
from wavecity.dataset.checks.units import NO_GEOMETRY, check_file, check_unit, check_unit_files, has_geometry
from wavecity.dataset.draft import Draft, load_draft
from wavecity.dataset.files import StorePath, array_of, files_below, open_group, read_json
from wavecity.dataset.fingerprints import read_sealed, write_sealed
from wavecity.dataset.finish import UNSEALED, group_axes, scene_arrays, scene_values
from wavecity.dataset.progress import Tracker
from wavecity.dataset.reader import resolve
from wavecity.dataset.records import Manifest, attributes_of
from wavecity.dataset.schema import SCENE_FIELDS, Arrays
from wavecity.dataset.statistics import merge_statistics

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Each(Protocol):
    """As `map`, in the order of the arguments; may run elsewhere."""

    def __call__(self, function: Callable[[Argument], Result], arguments: Iterable[Argument], /) -> Iterable[Result]:
        """Results of a function for several arguments."""


@contextmanager
def processes(workers: int) -> Iterator[Each]:
    """Several local processes as the `each` of `validate`."""
    if workers < 2:
        yield map
        return
    # Fresh processes: a fork would copy Zarr's event loop and its threads in an undefined state.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.map


def validate(store: str | StorePath, progress: Tracker = iter, each: Each = map) -> Validation:
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
        For a draft that is not yet published, also written to its `validation.json`.

    Raises
    ------
    InputError
        Not a store.

    Examples
    --------
    >>> validate("helsinki").ok
    True
    >>> with processes(4) as each:
    ...     result = validate("helsinki", each=each)
    """
    folder = resolve(store).parent
    draft = load_draft(folder)
    report = Report()
    sums = _check_manifest(draft, report)
    scenes = _check_coordinates(draft, report) if sums else None
    # Without a manifest, or with damaged metadata, there are no values to trust, only bytes.
    check = check_unit if sums and scenes is not None else check_unit_files
    if scenes is not None:
        _check_splits(scenes, draft, report)
    if sums:
        _check_totals(draft, report)
    units = [(unit, sums.get(unit, {})) for unit in range(draft.layout.units)]
    for part in progress(each(partial(check, draft), units)):
        report.counts.update(part.counts)
        report.findings.extend(part.findings)
    result = Validation(dict(report.counts), report.findings, [] if has_geometry() else [NO_GEOMETRY])
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

    Examples
    --------
    >>> validate_bytes(latest("helsinki").folder).ok
    True
    """
    draft, report = load_draft(folder), Report()
    for listed in _check_manifest(draft, report).items():
        part = check_unit_files(draft, listed)
        report.counts.update(part.counts)
        report.findings.extend(part.findings)
    return Validation(dict(report.counts), report.findings, [])


def _check_manifest(draft: Draft, report: Report) -> dict[int, dict[str, str]]:
    """Check that the files listed are those of the version; files that belong to no unit are read here.

    Returns
    -------
    dict
        Unit -> listed checksums of its files, for the checks of the units.
    """
    report.ran("manifest")
    content: Manifest | None = read_sealed(draft.folder / "manifest.json")
    if content is None:
        report.add(
            "manifest", "manifest.json", "missing or changed, so no file can be checked; build the version again"
        )
        return {}
    sums = content["files"]
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
            check_file(draft, name, sums[name], report)
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


def _check_coordinates(draft: Draft, report: Report) -> Arrays | None:
    """Check that the scene coordinates of the root group are what the receipts say; returns them."""
    report.ran("structure")
    try:
        root = open_group(draft.data)
        shapes = {spec.name: draft.layout.shape(spec) for spec in draft.layout.specs()}
        for name, shape in shapes.items():
            if getattr(root[name], "shape", None) != shape:
                report.add("structure", name, f"shape {getattr(root[name], 'shape', None)}, the layout says {shape}")
        # Stores of schema 1 have only the fields, in the root group.
        fields = {
            name: field
            for name, field in scene_arrays(draft.layout).items()
            if (field.name == name and field in SCENE_FIELDS) or name in root
        }
        scenes = {name: np.asarray(array_of(root, name)[:]) for name in fields}
        for name, (_, values) in group_axes(draft.layout, attributes_of(root.attrs)).items():
            if not np.array_equal(np.asarray(array_of(root, name)[:]), values):
                report.add("structure", name, "not what the store's attributes say")
    except Exception as error:  # damaged metadata fail in whichever part of Zarr meets them
        report.add("structure", "data.zarr", f"cannot be opened ({type(error).__name__}: {str(error).splitlines()[0]})")
        return None
    outcomes = [outcome for receipt in draft.all_receipts() if receipt for outcome in receipt["scenes"]]
    if len(outcomes) == draft.layout.scenes:
        for name, field in fields.items():
            expected = scene_values(field, outcomes).tolist()
            for outcome, found, right in zip(outcomes, scenes[name].tolist(), expected, strict=True):
                if found != right and not (found != found and right != right):  # a NaN is never equal
                    where = f"{name} of scene {outcome.get('scene_id', '')}"
                    report.add("structure", where, f"{found}, its receipt says {right}")
    return scenes


def _check_totals(draft: Draft, report: Report) -> None:
    """Check that the statistics of the version are the sum of those of its units."""
    receipts = [receipt for receipt in draft.all_receipts() if receipt]
    if len(receipts) < draft.layout.units:
        return  # each missing receipt is a finding of its own
    report.ran("statistics")
    merged = merge_statistics([receipt["statistics"] for receipt in receipts])
    found = read_json(draft.folder / "statistics.json")
    if not isinstance(found, dict) or any(not np.isclose(found.get(k, np.nan), v, 1e-9) for k, v in merged.items()):
        report.add("statistics", "statistics.json", "not the sum of the units' statistics")
    if draft.layout.bands:
        stated = statistics_of(attributes_of(open_group(draft.data).attrs))
        every = [merge_statistics(list(units)) for units in zip(*(unit["bands"] for unit in receipts), strict=True)]
        if list(stated.values()) != every:
            report.add("statistics", "data.zarr, carriers or ports", "not the sum of the units' statistics")


def _check_splits(scenes: Arrays, draft: Draft, report: Report) -> None:
    """Check that no city is in several splits, where splits are by city."""
    report.ran("split")
    if open_group(draft.data).attrs.get("split_by") != "city":
        return
    splits: dict[str, set[str]] = {}
    for city, split in zip(scenes["city"], scenes["split"], strict=True):
        splits.setdefault(str(city), set()).add(str(split))
    for city, names in sorted(splits.items()):
        if len(names) > 1:
            report.add("split", city, f"city in several splits: {', '.join(sorted(names))}")
