"""Channels from other sources -> a published store: arrays in NumPy's `.npz`, measured or from another simulator.

The layout of a file is `wavecity.dataset.importing.channel_files.LAYOUT`; a file holds one scene, or several.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wavecity.dataset.base_stations import link_view, with_links
from wavecity.dataset.checks.validate import validate
from wavecity.dataset.draft import open_draft
from wavecity.dataset.files import location, make_folder, remove_folder, sha256_of
from wavecity.dataset.fingerprints import fingerprint_of, package_versions
from wavecity.dataset.finish import finish_draft, seal
from wavecity.dataset.importing.channel_files import CELLS, LAYOUT, PATCH, SPLITS, load_channels
from wavecity.dataset.layout import Layout
from wavecity.dataset.lock import builder_lock
from wavecity.dataset.metadata import STORE_SCHEMA
from wavecity.dataset.progress import Tracker
from wavecity.dataset.publish import Version, latest, make_latest, publish, versions
from wavecity.dataset.reader import open_store
from wavecity.dataset.records import BaseStationAttributes, Outcome, StoreAttributes
from wavecity.dataset.schema import CONVENTIONS, Arrays, Values
from wavecity.dataset.settings import Settings, StoreSettings
from wavecity.dataset.writer import write_unit
from wavecity.geo.base_station_settings import BaseStationSettings
from wavecity.geo.errors import InputError
from wavecity.raytrace.arrays import best_beam, spectrum

# To be raised when the same files would give other arrays.
IMPORTER = 1
OCCUPIED = 0.6
# dB; a user at or below it counts as without a path, as in recipes.
FLOOR = -200.0
# The lowest user's antenna is so many m above the ground where the base station's height is not given.
USER_HEIGHT = 1.5
# Bytes of the channels of a unit, which is in memory as a whole.
UNIT_BYTES = 2**28


class ImportSettings(Settings):
    """Properties of the channels that the arrays do not hold."""

    frequency: float = Field(gt=0, description="Carrier in Hz.")
    spacing: float = Field(0.5, gt=0, le=100, description="Distance of neighbouring antennas in wavelengths.")
    azimuth: float = Field(
        -90.0, ge=-360, le=360, description="Boresight of the panel in degrees from east towards north; -90: south."
    )
    tile_size: float = Field(200.0, gt=0, description="Edge of a scene's map in m.")
    bs_position: tuple[float, float, float] | None = Field(
        None,
        description="Base station in the scene's frame, m: origin at the middle of the map, on the ground. Empty: in "
        "the middle of the northern edge, at a height where the lowest user is 1.5 m above the ground.",
    )
    split: Literal["scene", "user", "test"] | None = Field(
        None,
        description="Where the files have no split: divide whole scenes, or the users of each scene, or take all for "
        "test. Empty: scenes where there are three or more, else users.",
    )
    validation: float = Field(0.1, ge=0, lt=1, description="Share of scenes, or users, for validation; one at least.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of scenes, or users, for test; one at least.")
    normalised: bool = Field(
        False,
        description="The level of a channel means nothing. Channels are scaled to path_gain where it is given; without "
        "it there are no rates.",
    )
    licence: str = Field("not stated", min_length=1, description="Licence of the data.")
    attribution: str = Field(
        "imported channels, origin not stated", min_length=1, description="Text that names the origin of the data."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Of the division into splits.")


class Source(Protocol):
    """Where channels come from: a file or a scenario, with one scene or several."""

    @property
    def name(self) -> str:
        """Name, with its ending where it is a file's."""

    @property
    def stem(self) -> str:
        """Name of its scene, unless the arrays have another."""

    def load(self) -> Arrays:
        """Arrays as of `load_channels`, with `paths/gain`, ... as in a store where there are paths; asked for often.

        Of several base stations also `bs/k/csi`, ... of the others, `bs/position` and `bs/azimuth`, as in a store.
        """

    def checksum(self) -> str:
        """SHA-256 of its content."""

    def facts(self) -> Outcome:
        """Entries of the receipt that it knows of its scenes: city, place, `bs_shift`."""


@dataclass(frozen=True)
class ChannelFile:
    """An `.npz` of `LAYOUT` as a source."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def stem(self) -> str:
        """Name of the file without its ending."""
        return self.path.stem

    def load(self) -> Arrays:
        """The file's arrays, checked."""
        return load_channels(self.path)

    def checksum(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)

    def facts(self) -> Outcome:
        """Files stand for cities."""
        return {"city": self.path.stem}


@dataclass(frozen=True)
class _Scene:
    """A scene of the store: some users of a source."""

    name: str
    split: str
    file: Source
    number: int
    users: NDArray[np.int64]


# A file's scenes: their names, every user's scene, and the splits where the file has them.
_Found = tuple[Source, list[str], NDArray[np.int64], NDArray[np.str_] | None]


def import_channels(files: Sequence[Path], store: str, settings: ImportSettings, progress: Tracker = iter) -> Version:
    """Write arrays into a store as its next version, validate and publish it.

    Spectra, beams and occupancy are computed; there are no paths, so nothing can be derived from them. The same files
    and settings again change nothing; an import that was killed goes on.

    Parameters
    ----------
    files : sequence of Path
        `.npz` of `wavecity.dataset.importing.channel_files.LAYOUT`. One of them is in memory at a time.
    store : str
        Folder or URL; a new one, or one of imported channels.
    settings : ImportSettings
    progress : callable
        Wraps the iteration over units, e.g. a progress bar.

    Returns
    -------
    Version

    Raises
    ------
    InputError
        A file that is not of the layout, or files that do not fit together: the message names file, array and what
        would be right. Nothing is published then.

    Examples
    --------
    >>> np.savez("site.npz", csi=csi, user_position=position)
    >>> import_channels([Path("site.npz")], "stores/site", ImportSettings(frequency=28.5e9))
    """
    load_channels.cache_clear()
    return import_sources([ChannelFile(file) for file in files], store, settings, progress)


def import_sources(
    files: Sequence[Source],
    store: str,
    settings: ImportSettings,
    progress: Tracker = iter,
    known_attributes: StoreAttributes | None = None,
) -> Version:
    """Write what sources have into a store, as `import_channels` does with files.

    Parameters
    ----------
    files : sequence of Source
        All with paths, or none.
    store, settings, progress
        As of `import_channels`.
    known_attributes : dict, optional
        Attributes of the store that the sources know better than `settings`; JSON. `base_stations` where sources have
        several.
    """
    place = location(store)
    before = latest(place)
    if before is not None and "imported" not in open_store(before.folder, carrier="all", port="all").attrs:
        msg = f"{store}: holds a dataset that was built from a recipe; name another store"
        raise InputError(msg)
    scenes, layout, known, positions = _plan(files, settings)
    base = _base_station(positions, settings)
    sums = {file.name: file.checksum() for file in files}
    # The order of the files is that of the scenes.
    content: list[object] = [IMPORTER, STORE_SCHEMA, settings.model_dump(mode="json"), list(sums.items())]
    content += [package_versions(), *([known_attributes] if known_attributes else [])]
    fingerprint = fingerprint_of(content)
    cells = (known_attributes or {}).get("base_stations")
    defaults = StoreSettings()
    make_folder(place)
    with builder_lock(place):
        for version in versions(place):
            if version.fingerprint == fingerprint:
                make_latest(version, defaults.keep, defaults.grace)
                return version
        draft = open_draft(place, fingerprint, layout)
        for unit in progress(draft.missing()):
            rows = [scenes[row] for row in layout.scenes_of(unit)]
            arrays = [_scene_arrays(scene, settings, layout, cells) for scene in rows]
            outcomes = [_outcome(scene, values, settings, base) for scene, values in zip(rows, arrays, strict=True)]
            write_unit(draft, unit, arrays, outcomes, {"seed": settings.seed})
        by_user = len({(scene.file, scene.number) for scene in scenes}) < len(scenes)
        attributes = _attributes(settings, layout, base, known, sums, "user" if by_user else "scene")
        attributes |= known_attributes or {}
        origins = Counter(f"imported from {scene.file.name}" for scene in scenes)
        finish_draft(draft, attributes, {"fingerprint": fingerprint, "imported": sums, "origins": dict(origins)})
        seal(draft)
        result = validate(draft.folder)
        if not result.ok:
            first = result.findings[0]
            remove_folder(draft.folder)
            msg = f"{store}: not published, {first.check} at {first.where}: {first.message}"
            raise InputError(msg)
        return publish(place, draft.folder, defaults.keep, defaults.grace)


def _plan(
    files: Sequence[Source], settings: ImportSettings
) -> tuple[list[_Scene], Layout, set[str], dict[Source, Values]]:
    """Check all files: scenes in the order of the store, its layout, arrays that every file has, users' positions from
    the base station before it was slid.
    """
    names = Counter(file.name for file in files)
    if not files or max(names.values()) > 1:
        msg = f"{names.most_common(1)[0][0]}: given twice; every file once" if files else "no file to import"
        raise InputError(msg)
    found: list[_Found] = []
    positions: dict[Source, Values] = {}
    paths = bounces = 0
    stations = 1
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    known = {*LAYOUT, "paths/gain", "paths/vertices"}
    for file in files:
        arrays = file.load()
        known &= arrays.keys()
        positions[file] = arrays["user_position"] + [file.facts().get("bs_shift", 0.0), 0.0, 0.0]
        stations = max(stations, len(arrays.get("bs/position", ())))
        for name, values in arrays.items():
            if name.endswith("paths/interactions"):
                paths, bounces = max(paths, values.shape[1]), max(bounces, values.shape[2])
        height = arrays.get("height", np.zeros((CELLS, CELLS)))
        for name, shape in (("csi", arrays["csi"].shape[1:]), ("height", height.shape[-2:])):
            first, other = shapes.setdefault(name, (file.name, shape))
            if shape != other:
                msg = (
                    f"{file}: {name} of {' x '.join(map(str, shape))}, in {first} it is {' x '.join(map(str, other))}; "
                )
                msg += "files of one store must agree"
                raise InputError(msg)
        number = arrays.get("scene", np.zeros(len(arrays["csi"]), np.int64)).astype(np.int64)
        count = int(number.max()) + 1
        default = [file.stem] if count == 1 else [f"{file.stem}-{row:04d}" for row in range(count)]
        found.append((file, list(map(str, arrays.get("scene_id", default))), number, arrays.get("split")))
    scenes = list(_divide(found, settings))
    twice = [name for name, count in Counter(scene.name for scene in scenes).items() if count > 1]
    if twice:
        msg = f"scene {twice[0]!r} is there twice; name the scenes by array scene_id, or rename the files"
        raise InputError(msg)
    (columns, rows), (cells, _) = shapes["csi"][1], shapes["height"][1]
    users = max(len(scene.users) for scene in scenes)
    unit = int(np.clip(UNIT_BYTES // (12 * users * columns * rows * stations), 1, min(16, len(scenes))))
    chunk = StoreSettings().users_per_chunk
    sizes = (columns, rows, paths, bounces, cells, cells // PATCH)
    vertices = "paths/vertices" in known
    layout = Layout(len(scenes), users, *sizes, unit, chunk, True, "paths/gain" in known, FLOOR, with_vertices=vertices,
                    base_stations=stations)  # fmt: skip
    return scenes, layout, known, positions


def _divide(found: Sequence[_Found], settings: ImportSettings) -> Iterator[_Scene]:
    """Scenes with their splits; a scene whose users are divided becomes one for every split."""
    total = sum(len(names) for _, names, _, _ in found)
    way = settings.split or ("scene" if total >= len(SPLITS) else "user")
    whole = iter(_shares(total, settings, "scenes", np.random.default_rng(settings.seed)) if way == "scene" else ())
    for file, names, number, given in found:
        for row, name in enumerate(names):
            users = np.flatnonzero(number == row)
            if given is not None:
                split = np.broadcast_to(given[row], len(users)) if len(given) == len(names) else given[users]
            elif way == "user":
                rng = np.random.default_rng([settings.seed, *name.encode()])
                split = np.array(_shares(len(users), settings, f"users of scene {name}", rng))
            else:
                split = np.broadcast_to("test" if way == "test" else next(whole), len(users))
            theirs = [part for part in SPLITS if (split == part).any()]
            for part in theirs:
                label = name if len(theirs) == 1 else f"{name}-{part}"
                yield _Scene(label, part, file, row, users[split == part])


def _shares(count: int, settings: ImportSettings, what: str, rng: np.random.Generator) -> list[str]:
    """Splits of `count` things, in random order."""
    sizes = {name: max(round(share * count), 1) if share else 0 for name, share in
             (("validation", settings.validation), ("test", settings.test))}  # fmt: skip
    train = count - sum(sizes.values())
    if train < 1:
        msg = f"{count} {what} cannot be divided into {sum(map(bool, sizes.values())) + 1} splits; "
        msg += "import more, give an array split, or take all for test (--split test)"
        raise InputError(msg)
    ordered = [name for name, size in {"train": train, **sizes}.items() for _ in range(size)]
    return [ordered[place] for place in rng.permutation(count)]


def _base_station(positions: dict[Source, Values], settings: ImportSettings) -> NDArray[np.float64]:
    """Position of the base station, the same in all scenes; users must lie on the map around it."""
    lowest = min(float(position[:, 2].min()) for position in positions.values())
    half = settings.tile_size / 2
    base = np.array(settings.bs_position or (0.0, half, max(USER_HEIGHT - lowest, 0.0)))
    for file, position in positions.items():
        beyond = np.abs(position[:, :2] + base[:2]).max(1)
        worst = int(beyond.argmax())
        if beyond[worst] > half:
            x, y, _ = position[worst]
            msg = (
                f"{file}: user {worst} at ({x:g}, {y:g}) m from the base station is off the map, "
                f"{settings.tile_size:g} m wide around ({-base[0]:g}, {-base[1]:g}); give --tile-size, or the base "
                "station's place on the map, --bs-position"
            )
            raise InputError(msg)
    return base


def _scene_arrays(
    scene: _Scene, settings: ImportSettings, layout: Layout, cells: BaseStationAttributes | None
) -> Arrays:
    """Arrays of the schema; those of paths where the source has them, and of all base stations."""
    given = scene.file.load()
    height = np.asarray(given.get("height", np.zeros((layout.height_cells,) * 2)), np.float32)
    height = height if height.ndim == 2 else height[scene.number]
    patches = layout.occupancy_patches
    built = (height > 0).reshape(patches, PATCH, patches, PATCH).mean((1, 3))
    maps: Arrays = {"height": height, "occupancy": (built > OCCUPIED).astype(np.uint8)}
    first = maps | _link_arrays(link_view(given, 0), scene, settings)
    if layout.base_stations == 1:
        return first
    assert cells is not None
    stations: list[tuple[Values, float] | None] = [
        (place, float(azimuth)) if np.isfinite(place).all() else None
        for place, azimuth in zip(given["bs/position"], given["bs/azimuth"], strict=True)
    ]
    stations += [None] * (layout.base_stations - len(stations))
    others = [
        None if station is None else _link_arrays(link_view(given, number), scene, settings)
        for number, station in enumerate(stations[1:], 1)
    ]
    return with_links(first, others, stations, _settings_of(cells), FLOOR)


def _settings_of(cells: BaseStationAttributes) -> BaseStationSettings:
    """Powers of base stations, as the attributes of a store say them; where they stand is not in it."""
    return BaseStationSettings(
        corners=True,
        power_dbm=cells["transmit_power_dbm"],
        bandwidth=cells["bandwidth_hz"],
        noise_figure=cells["noise_figure_db"],
        hysteresis=cells["hysteresis_db"],
    )


def _link_arrays(given: Arrays, scene: _Scene, settings: ImportSettings) -> Arrays:
    """Arrays of the links of one base station."""
    csi = given["csi"][scene.users]
    power = np.mean(np.abs(csi.astype(np.complex128)) ** 2, axis=(1, 2))
    with np.errstate(divide="ignore"):
        gain = 10 * np.log10(power)
    if "path_gain" in given:
        wanted = given["path_gain"][scene.users].astype(np.float64)
        if settings.normalised:
            heard = power > 0
            scale = np.sqrt(10 ** (wanted / 10) / np.where(heard, power, 1))
            csi = (csi * scale[:, None, None]).astype(np.complex64)
            wanted[~heard] = -np.inf
        # A channel of zeros is none, whatever the gain says.
        gain = np.where(np.isneginf(gain), gain, wanted)
    outage = gain <= FLOOR
    beams = best_beam(csi)
    beams[outage] = -1
    los = given["los"][scene.users] if "los" in given else np.zeros(len(csi), bool)
    paths = {name: values[scene.users] for name, values in given.items() if name.startswith("paths/")}
    for values in paths.values():
        values[outage] = 0
    return {
        **paths,
        "csi": csi,
        "spectrum": spectrum(csi),
        "user_position": given["user_position"][scene.users].astype(np.float32),
        "path_gain": np.maximum(gain, FLOOR).astype(np.float32),
        "los": los,
        "outage": outage,
        "best_beam": beams,
    }


def _outcome(scene: _Scene, arrays: Arrays, settings: ImportSettings, base: NDArray[np.float64]) -> Outcome:
    """Entry of the receipt."""
    # Imported users may stand anywhere: those inside buildings count as under cover for the checks.
    cells = len(arrays["height"])
    facts = scene.file.facts()
    place = arrays["user_position"].astype(np.float64) + base + [facts.get("bs_shift", 0.0), 0.0, 0.0]
    cell = settings.tile_size / cells
    column = np.clip((place[:, 0] + settings.tile_size / 2) / cell, 0, cells - 1).astype(int)
    row = np.clip((settings.tile_size / 2 - place[:, 1]) / cell, 0, cells - 1).astype(int)
    # As `features.channel_checksum`, which needs the packages that make scenes.
    digest = hashlib.sha256(arrays["csi"].tobytes())
    digest.update(arrays["user_position"].tobytes())
    covered = int((arrays["height"][row, column] > 0).sum())
    return {
        "scene_id": scene.name,
        "country": "",
        **facts,
        "split": scene.split,
        "status": "done",
        "n_users": len(scene.users),
        "n_los": int(arrays["los"].sum()),
        "n_outage": int(arrays["outage"].sum()),
        "origin": f"imported from {scene.file.name}",
        "channel_checksum": digest.hexdigest(),
        "provenance": {"gates": {"users_under_cover": covered}},
    }


def _attributes(
    settings: ImportSettings,
    layout: Layout,
    base: NDArray[np.float64],
    known: set[str],
    sums: dict[str, str],
    split_by: str,
) -> StoreAttributes:
    """Attributes of the store; `imported` says what is not known."""
    level = "normalised" if settings.normalised and "path_gain" not in known else "absolute"
    paths = "paths/gain" in known
    notes = ["Channels were computed from imported paths." if paths else "Channels were imported: there are no paths."]
    notes += ["No map was given: height is 0 everywhere."] * ("height" not in known)
    notes += ["Line of sight was not given: los is false everywhere."] * ("los" not in known)
    notes += ["Channels are normalised: neither their level nor path_gain means anything."] * (level == "normalised")
    return {
        "title": "Imported channels",
        "licence": settings.licence,
        "attribution": settings.attribution,
        "conventions": {**CONVENTIONS, "imported": " ".join(notes)},
        "frequency_hz": settings.frequency,
        "element_pattern": "unknown",
        "element_gain_max_db": 0.0,
        "los_traced": False,
        "polarisation_matched": False,
        "array": {
            "columns": layout.columns,
            "rows": layout.rows,
            "spacing_wavelengths": settings.spacing,
            "azimuth_deg": settings.azimuth,
        },
        "bs_position_m": base.tolist(),
        "tile_size_m": settings.tile_size,
        "occupancy_threshold": OCCUPIED,
        "split_by": split_by,
        "imported": {
            "files": sums,
            "settings": settings.model_dump(mode="json"),
            "level": level,
            "height": "height" in known,
            "los": "los" in known,
        },
    }
