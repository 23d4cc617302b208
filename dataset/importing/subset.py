"""A part of a store as a store of its own: some scenes, with some of the arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np

from wavecity.dataset.bands import at_band, attributes_at, index_of
from wavecity.dataset.buildings import write_buildings
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import Draft, load_draft, open_draft
from wavecity.dataset.features import channel_checksum
from wavecity.dataset.files import StorePath, location, make_folder, open_group, read_json
from wavecity.dataset.fingerprints import fingerprint_of, package_versions
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.layout import Layout
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.metadata import STORE_SCHEMA
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version, make_latest, publish, versions
from wavecity.dataset.reader import check_version, refuse_run_folder, resolve
from wavecity.dataset.records import Lineage, Outcome, StoreAttributes, attributes_of
from wavecity.dataset.schema import Arrays
from wavecity.dataset.selection import rows_of
from wavecity.dataset.stored_units import load_unit
from wavecity.dataset.writer import write_unit
from wavecity.geo.errors import InputError

# What a store may have or not; all else is in every store.
OPTIONAL = ("spectrum", "paths", "trajectory", "radio_map", "bs")
# Attributes that follow from the content.
COMPUTED = ("fingerprint", "schema_version", "statistics", "coordinates", "comment", "Conventions")
# What `flows.reuse` knows a scene by: from a subset, which may lack arrays, nothing is taken over.
REUSE = ("inputs", "channels")


@dataclass(frozen=True)
class _Part:
    """What is taken from a version.

    Attributes
    ----------
    source : Draft
        The version.
    rows : tuple of int
        Rows of its scenes, ascending.
    outcomes : list of dict
        Of these scenes.
    kept : tuple of str
        Of `OPTIONAL`.
    band : int, optional
        Number of the only carrier, or pair of ports, that is taken.
    """

    source: Draft
    rows: tuple[int, ...]
    outcomes: list[Outcome]
    kept: tuple[str, ...]
    band: int | None = None

    @property
    def origin(self) -> str:
        """Where the scenes come from."""
        return f"subset of {self.source.fingerprint[:16]}"

    @property
    def layout(self) -> Layout:
        """Layout of the new store; its user axis is as long as its largest scene needs."""
        layout = self.source.layout
        users = max(max(outcome["n_users"] for outcome in self.outcomes), 1)
        with_paths, moving, maps = (name in self.kept for name in ("paths", "trajectory", "radio_map"))
        return replace(
            layout,
            scenes=len(self.rows),
            users=users,
            with_spectrum="spectrum" in self.kept,
            with_paths=with_paths,
            paths=layout.paths if with_paths else 0,
            bounces=layout.bounces if with_paths else 0,
            steps=layout.steps if moving else 0,
            subcarriers=layout.subcarriers if moving else 0,
            map_metrics=layout.map_metrics if maps else (),
            map_cells=layout.map_cells if maps else 0,
            base_stations=layout.base_stations if "bs" in self.kept else 1,
            carriers=layout.carriers if self.band is None else 0,
            ports=layout.ports if self.band is None else 0,
        )


def subset(
    store: str | StorePath,
    out: str | StorePath,
    *,
    cities: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    scenes: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
    version: int | None = None,
    carrier: float | None = None,
    port: str | None = None,
    progress: Tracker = iter,
) -> Version:
    """Write some scenes of a store, with some of its arrays, as a store of its own.

    It is a whole store: validated, with buildings, card, lineage and attribution. Statistics are of its own train
    scenes. Scenes that were quarantined stay behind. What is read is compared with its checksums. Killed, the same
    call goes on with the units that are missing.

    Parameters
    ----------
    store : path or URL
        Folder of a build or of a version.
    out : path or URL
        Folder of the new store; it may not hold another dataset.
    cities, splits, scenes : sequence of str, optional
        Names of cities, of splits, and ids of scenes or patterns such as `helsinki-*`: scenes that are in all three.
    fields : sequence of str, optional
        Arrays to keep, as the readers name them. Of `spectrum`, `paths`, `trajectory`, `radio_map` and `bs` (all base
        stations but the first) those that are not named are left out, a group as a whole; the others are in every store.
        All by default.
    version : int, optional
        Number of a published version; the latest by default.
    carrier : float, optional
        Of several carriers only the one with this frequency in Hz; all by default.
    port : str, optional
        Of several pairs of ports only the one of this name, user/base station; all by default.
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.

    Returns
    -------
    Version
        Published.

    Raises
    ------
    InputError
        Not a whole store, or damaged; no such scene, city, split, array, version, carrier or port; `out` holds another dataset.

    Examples
    --------
    >>> subset("helsinki", "helsinki-test", splits=["test"], fields=["csi", "paths"]).data
    PosixPath('helsinki-test/versions/v1/data.zarr')
    """
    folder = resolve(store, version).parent
    check_version(folder)
    source = load_draft(folder)
    every = [outcome for receipt in source.receipts() for outcome in receipt["scenes"]]
    rows = _rows(store, every, cities, splits, scenes)
    attributes = attributes_of(open_group(source.data).attrs)
    at = index_of(store, attributes, "all" if carrier is None else carrier, port or "all")
    part = _Part(source, rows, [every[row] for row in rows], _kept(store, source.layout, fields), at)
    card = _card_of(folder)
    ids = [outcome["scene_id"] for outcome in part.outcomes]
    made_of: dict[str, object] = {
        "subset of": source.fingerprint,
        "scenes": ids,
        "kept": part.kept,
        "schema": STORE_SCHEMA,
    }
    if at is not None:
        made_of["band"] = at
    fingerprint = fingerprint_of({**made_of, "versions": package_versions()})
    place = location(out)
    refuse_run_folder(place)
    there = versions(place)
    if there and all(known.fingerprint != fingerprint for known in there):
        msg = f"{out}: holds another dataset already; name a folder that is not there yet"
        raise InputError(msg)
    make_folder(place)
    with builder_lock(place):
        for known in there:
            if known.fingerprint == fingerprint:
                make_latest(known, keep=1, grace=0.0)
                return known
        draft = open_draft(place, fingerprint, part.layout)
        for unit in progress(draft.missing()):
            _write(draft, unit, part)
        finish_draft(draft, _attributes(part), _lineage(part))
        card(draft.folder)
        seal(draft)
        result = validate(draft.folder)
        if not result.ok:
            first = result.findings[0]
            msg = f"{out}: not published, {first.check} at {first.where}: {first.message}; is {store} valid?"
            raise InputError(msg)
        return publish(place, draft.folder, keep=1)


def _rows(
    store: object,
    outcomes: Sequence[Outcome],
    cities: Sequence[str] | None,
    splits: Sequence[str] | None,
    scenes: Sequence[str] | None,
) -> tuple[int, ...]:
    """Rows of the scenes that are wanted and done."""
    ids, places, of = (np.array([str(one.get(name, "")) for one in outcomes]) for name in ("scene_id", "city", "split"))
    wanted = rows_of(store, ids, places, scenes, cities)
    for split in splits or ():
        if split not in of:
            msg = f"{store}: no split {split!r}; it has {', '.join(sorted(set(of.tolist())))}"
            raise InputError(msg)
    if splits:
        wanted &= np.isin(of, list(splits))
    done = wanted & np.array([one["status"] == "done" for one in outcomes])
    if not done.any():
        why = "the scenes chosen were quarantined" if wanted.any() else "no chosen scene is in these splits"
        msg = f"{store}: nothing to write, {why}"
        raise InputError(msg)
    return tuple(np.flatnonzero(done).tolist())


def _kept(store: object, layout: Layout, fields: Sequence[str] | None) -> tuple[str, ...]:
    """Which of the optional parts are kept."""
    names = [spec.name for spec in layout.specs()]
    parts = [part for part in OPTIONAL if any(name.split("/")[0] == part for name in names)]
    for field in fields or ():
        if field not in names and field not in parts:
            msg = f"{store}: no array {field!r}; it has {', '.join(names)}"
            raise InputError(msg)
    return tuple(part for part in parts if fields is None or any(field.split("/")[0] == part for field in fields))


def _card_of(folder: StorePath) -> Callable[[StorePath], None]:
    """Write what the version in `folder` has of card and Croissant into another folder."""
    if not (folder / "card.html").exists():
        return lambda draft: None
    try:
        from wavecity.dataset.card.croissant import write_croissant
        from wavecity.dataset.card.page import write_card
    except ModuleNotFoundError as error:
        msg = f"the dataset's card needs {error.name}: pip install 'wavecity[generate]'"
        raise InputError(msg) from error

    def write(draft: StorePath) -> None:
        write_card(draft)
        write_croissant(draft)

    return write


def _write(draft: Draft, unit: int, part: _Part) -> None:
    """Write one unit of the new store, from as many as its scenes lie in."""
    names = tuple(spec.name for spec in draft.layout.specs())
    per_user = {spec.name for spec in draft.layout.specs() if spec.dims[1] == "user"}
    scenes: list[Arrays] = []
    tables = []
    here = draft.layout.scenes_of(unit)
    rows = part.rows[here.start : here.stop]
    outcomes: list[Outcome] = []
    for row, outcome in zip(rows, part.outcomes[here.start : here.stop], strict=True):
        known = {key: value for key, value in outcome.items() if key not in REUSE}
        its_unit = row // part.source.layout.unit
        found = load_unit(part.source, its_unit, names)
        if found is None:
            msg = (
                f"{part.source.folder}: unit {its_unit} is damaged; run `wavecity validate` and build or copy it again"
            )
            raise InputError(msg)
        arrays, buildings = found
        at, count = row - part.source.layout.scenes_of(its_unit).start, outcome["n_users"]
        taken = {name: arrays[name][at, :count] if name in per_user else arrays[name][at] for name in names}
        if part.band is not None:
            taken = at_band(taken, part.band)
            known |= {"channel_checksum": channel_checksum(taken), "n_outage": int(taken["outage"].sum())}
        scenes.append(taken)
        outcomes.append(cast(Outcome, known | {"origin": part.origin}))
        if buildings is not None:
            table = buildings[buildings["scene_id"] == outcome["scene_id"]]
            tables.append((table, outcome["latitude"], outcome["longitude"]))
    if tables:
        write_buildings(draft.buildings_path(unit), tables)
    receipt = part.source.receipt(rows[0] // part.source.layout.unit)
    write_unit(draft, unit, scenes, outcomes, {"seed": receipt["seed"]} if receipt and "seed" in receipt else {})


def _attributes(part: _Part) -> StoreAttributes:
    """Attributes of the version that hold for a part of it, too."""
    attributes = attributes_of(open_group(part.source.data).attrs)
    groups: dict[str, Literal["trajectory", "radio_map", "base_stations"]] = {
        "trajectory": "trajectory",
        "radio_map": "radio_map",
        "bs": "base_stations",
    }
    for group, attribute in groups.items():
        if group not in part.kept:
            attributes.pop(attribute, None)
            attributes["conventions"].pop(group, None)
    if part.band is not None:
        attributes = attributes_at(attributes, part.band)
    for name in COMPUTED:
        attributes.pop(name, None)  # type: ignore[misc]
    return attributes


def _lineage(part: _Part) -> Lineage:
    """Lineage of the version, of the cities and tiles that are here, and what it is a part of."""
    known = cast(Lineage, read_json(part.source.folder / "lineage.json") or {})
    ids = {outcome["scene_id"] for outcome in part.outcomes}
    cities = {outcome["city"] for outcome in part.outcomes}
    lineage: Lineage = {**known}
    if "maps" in known:
        lineage["maps"] = {city: record for city, record in known["maps"].items() if city in cities}
    if "cities" in known:
        counts = [(city, sum(one["city"] == city["name"] for one in part.outcomes)) for city in known["cities"]]
        lineage["cities"] = [{**city, "scenes": count, "wanted": count} for city, count in counts if count]
    if "tiles" in known:
        lineage["tiles"] = [tile for tile in known["tiles"] if tile["id"] in ids]
    lineage["origins"] = {part.origin: len(part.rows)}
    lineage["subset"] = {
        "of": part.source.fingerprint,
        "scenes": len(part.rows),
        "of_scenes": part.source.layout.scenes,
        "left_out": [name for name in _kept("", part.source.layout, None) if name not in part.kept],
        "versions": known.get("versions", {}),
    }
    return lineage
