"""What a preview shows of a scene: solids, users, and as much of their strongest paths as the store determines."""

from dataclasses import dataclass, field

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.base_stations import GROUP as BASE_STATIONS
from wavecity.dataset.buildings import read_buildings
from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, open_group
from wavecity.dataset.preview.paths import STATUSES, DrawnPath, strongest_paths
from wavecity.dataset.preview.solids import Array, surface
from wavecity.dataset.reader import open_store, resolve
from wavecity.dataset.records import Outcome, attributes_of
from wavecity.dataset.vegetation import Crown, crowns_of
from wavecity.geo.errors import InputError
from wavecity.raytrace.settings import RadioSettings

HEIGHT_SOURCES = ("tag", "levels", "part", "external", "imputed", "guess")
MAX_PATHS = 40


@dataclass(frozen=True)
class View:
    """A scene as it is drawn; metres in the scene frame (x east, y north, z up, origin at the tile's centre).

    Attributes
    ----------
    id, city, split, map_date, attribution : str
        `map_date` is empty where the map has none.
    size : float
        Edge of the tile.
    buildings : geopandas.GeoDataFrame
        osm_type, osm_id, height, base, height_source, geometry.
    triangles : float64 (T, 3, 3)
        Surface of all buildings, counter-clockwise from outside; `owner` (T,) is the row of `buildings`.
    base, boresight : float64 (3,)
        Base station whose links are shown, and the direction that its panel faces.
    users : float64 (U, 3)
    gain : float64 (U,)
        Path gain in dB.
    status : int (U,)
        Index into `STATUSES`.
    n_paths : int (U,) or None
        Paths found; None, like an empty `paths`, when the store keeps no paths.
    paths : list of DrawnPath
    number : int or None
        Of the base station; None in a store with one.
    others : list of (int, float64 (3,), float64 (3,))
        Number, position and boresight of the other base stations of the scene.
    serving : int (U,) or None
        Base station that serves each user, -1 for none; None in a store with one.
    crowns : list of Crown
    """

    id: str
    city: str
    split: str
    map_date: str
    attribution: str
    size: float
    buildings: gpd.GeoDataFrame
    triangles: Array
    owner: NDArray[np.int64]
    base: Array
    boresight: Array
    users: Array
    gain: Array
    status: NDArray[np.int64]
    n_paths: NDArray[np.int64] | None
    paths: list[DrawnPath]
    number: int | None = None
    others: list[tuple[int, Array, Array]] = field(default_factory=list)
    serving: NDArray[np.int64] | None = None
    crowns: list[Crown] = field(default_factory=list)

    @property
    def source_counts(self) -> dict[str, int]:
        """Buildings of every height source that occurs."""
        counts = self.buildings["height_source"].value_counts()
        return {source: int(counts[source]) for source in HEIGHT_SOURCES if source in counts}

    @property
    def status_counts(self) -> dict[str, int]:
        """Users of every status."""
        return {name: int((self.status == index).sum()) for index, name in enumerate(STATUSES)}

    @property
    def gain_range(self) -> tuple[float, float]:
        """Ends of the colour scale in dB: nearly all users with a path, in steps of 5 dB."""
        heard = self.gain[self.status < 2]
        if not len(heard):
            return -150.0, -80.0
        # A single faint user would take the colour from all others.
        faint, strong = np.percentile(heard, [3, 97])
        low, high = 5 * np.floor(faint / 5), 5 * np.ceil(strong / 5)
        return float(low), float(max(high, low + 5))

    @property
    def title(self) -> str:
        """Scene, city, split and date of the map."""
        date = f"map of {self.map_date}" if self.map_date else "map without a date"
        return f"{self.id} · {self.city} · {date} · split: {self.split}"

    @property
    def subtitle(self) -> str:
        """Numbers of buildings by height source, and of users by status."""
        total = len(self.buildings)
        sources = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in self.source_counts.items())
        users = ", ".join(f"{n} {name}" for name, n in self.status_counts.items())
        text = f"{total} buildings, heights by {sources} · {len(self.users)} users: {users}"
        if self.number is not None and self.serving is not None:
            text += f" · base station {self.number}, which serves {int((self.serving == self.number).sum())}"
        return text

    @property
    def base_name(self) -> str:
        """What the base station is called."""
        return "base station" if self.number is None else f"base station {self.number}"

    @property
    def crowns_text(self) -> str:
        """Number of crowns of trees and woods."""
        woods = sum(bool(np.isnan(crown.radius)) for crown in self.crowns)
        return f"crowns: {len(self.crowns) - woods} trees, {woods} woods"

    @property
    def path_note(self) -> str:
        """What the drawn paths are, and are not."""
        if self.n_paths is None:
            return "The store keeps no paths (features.paths: false)."
        if not self.paths:
            return "No user has a path."
        whole = sum(path.whole for path in self.paths)
        heard = int((self.status < 2).sum())
        note = f"Strongest paths of {len(self.paths)} of the {heard} users with a path: "
        note += f"{whole} rebuilt whole from the stored directions, their lengths equal to the stored delays"
        if whole < len(self.paths):
            note += f"; of {len(self.paths) - whole} (dashed) only what leads away from both ends is known"
        losses = [path.loss for path in self.paths if path.loss > 0]
        if losses:
            note += f"; {len(losses)} go through crowns, which take up to {max(losses):.1f} dB"
        return f"{note}."


def load_view(
    store: str | StorePath,
    scene_id: str,
    max_paths: int = MAX_PATHS,
    carrier: float | None = None,
    port: str | None = None,
    bs: int | None = None,
) -> View:
    """Read what a preview needs of one scene.

    Parameters
    ----------
    store : path
        Folder of a build, of a version, or a `.zarr` within one.
    scene_id : str
        E.g. `helsinki-0007`.
    max_paths : int
        How many users get their strongest path drawn, at most; evenly picked.
    carrier : float, optional
        Of a store with several: the one with this frequency in Hz.
    port : str, optional
        Of a store with several pairs of ports: the one of this name, user/base station.
    bs : int, optional
        Of a store with several base stations: the one whose links are shown; the first by default.

    Raises
    ------
    InputError
        No such scene, a quarantined scene, no such base station, one that found no place in the scene, or a store without
        the scene's buildings.

    Examples
    --------
    >>> load_view("helsinki", "helsinki-0003").status_counts
    {'line of sight': 67, 'reflected or diffracted only': 12, 'outage': 4}
    """
    folder = resolve(store).parent
    several = "base_stations" in attributes_of(open_group(resolve(store)).attrs)
    link = (bs or 0) if several or bs is not None else None
    data = open_store(store, carrier=carrier, port=port, bs=link)
    row = _find_scene(store, data["scene_id"].values.astype(str), data["status"].values.astype(str), scene_id)
    scene = data.isel(scene=row).load()
    draft = load_draft(folder)
    unit = row // draft.layout.unit
    buildings = _read_buildings(draft.buildings_path(unit), scene_id)
    triangles, owner = surface(buildings)

    n = int(scene["n_users"])
    attributes = attributes_of(data.attrs)
    radio = attributes.get("recipe", {}).get("radio", {})
    downtilt = radio.get("downtilt", RadioSettings().downtilt)
    base = np.asarray(attributes["bs_position_m"]) + np.array([float(scene["bs_shift"]), 0, 0])
    boresight = _boresight(radio.get("azimuth", RadioSettings().azimuth), downtilt)
    others: list[tuple[int, Array, Array]] = []
    if several:
        cells = open_store(store, BASE_STATIONS, carrier=carrier, port=port).isel(scene=row)
        places, azimuths = cells["position"].values, cells["azimuth"].values
        stations = {
            number: (place, _boresight(azimuth, downtilt))
            for number, (place, azimuth) in enumerate(zip(places, azimuths, strict=True))
            if np.isfinite(place).all()
        }
        if link not in stations:
            msg = f"--bs {link}: found no place in scene {scene_id!r}; it has {', '.join(map(str, stations))}"
            raise InputError(msg)
        # Exact, as in a store with one base station.
        base, boresight = stations.pop(link) if link else (base, stations.pop(0)[1])
        others = [(number, *station) for number, station in stations.items()]
    users = scene["user_position"].values[:n].astype(np.float64) + base
    los, outage = scene["los"].values[:n], scene["outage"].values[:n]
    status = np.where(outage, 2, np.where(los, 0, 1))
    n_paths, paths = None, []
    if draft.layout.with_paths:
        table = {
            str(name): array.values[:n]
            for name, array in open_store(store, "paths", carrier=carrier, port=port, bs=link)
            .isel(scene=row)
            .load()
            .data_vars.items()
        }
        n_paths = table["n_paths"].astype(np.int64)
        paths = strongest_paths(table, base, users, status, triangles, max_paths)
    receipt = draft.receipt(unit)
    outcome = receipt["scenes"][row % draft.layout.unit] if receipt else Outcome()
    return View(
        id=scene_id,
        city=str(scene["city"].values),
        split=str(scene["split"].values),
        map_date=str(outcome.get("provenance", {}).get("map", {}).get("map_date") or "")[:10],
        attribution=attributes["attribution"],
        size=float(attributes["tile_size_m"]),
        buildings=buildings,
        triangles=triangles,
        owner=owner,
        base=base,
        boresight=boresight,
        users=users,
        gain=scene["path_gain"].values[:n].astype(np.float64),
        status=status,
        n_paths=n_paths,
        paths=paths,
        number=link if several else None,
        others=others,
        serving=scene["serving"].values[:n].astype(np.int64) if several else None,
        crowns=crowns_of(outcome),
    )


def _boresight(azimuth: float, downtilt: float) -> Array:
    """Unit vector where a panel faces, angles in degrees."""
    a, d = np.radians(azimuth), np.radians(downtilt)
    return np.array([np.cos(a) * np.cos(d), np.sin(a) * np.cos(d), -np.sin(d)], np.float64)


def _find_scene(store: str | StorePath, ids: NDArray[np.str_], status: NDArray[np.str_], scene_id: str) -> int:
    """Row of a finished scene in the store."""
    found = np.flatnonzero(ids == scene_id)
    if not len(found):
        known = ", ".join(ids[status == "done"][:6])
        msg = f"{store}: no scene {scene_id!r}; it has {known}, ..."
        raise InputError(msg)
    if status[found[0]] != "done":
        msg = f"{store}: scene {scene_id!r} is {status[found[0]]}, so there is nothing to draw; see ledger.json for why"
        raise InputError(msg)
    return int(found[0])


def _read_buildings(path: StorePath, scene_id: str) -> gpd.GeoDataFrame:
    """Buildings of one scene from the table of its unit."""
    try:
        table = read_buildings(path)
    except FileNotFoundError as error:
        msg = f"{path}: no such file, so scene {scene_id!r} has no buildings to draw; name a whole version of a build"
        raise InputError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as GeoParquet ({str(error).splitlines()[0]}); copy or build the version again"
        raise InputError(msg) from error
    rows = table[table["scene_id"] == scene_id].reset_index(drop=True)
    if rows.empty:
        msg = f"{path}: no buildings of scene {scene_id!r}; copy or build the version again"
        raise InputError(msg)
    return rows
