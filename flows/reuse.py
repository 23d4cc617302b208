"""What a new version takes over from the last one: a scene whose inputs have not changed is not traced again.

Two questions decide about a tile that the last version has too. Are its inputs the same (map file, recipe, code,
package versions)? Then nothing is computed. If not, are the results the same up to the ray tracer (mesh, users, base
station, settings of the tracer)? Then the scene is built again, for its provenance, and its channels are kept: a new
extract of a city leaves most tiles unchanged.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, read_json
from wavecity.dataset.fingerprints import fingerprint_of, package_versions
from wavecity.dataset.publish import Version, latest
from wavecity.dataset.records import Outcome
from wavecity.dataset.stored_units import load_unit
from wavecity.flows.recipe import Recipe
from wavecity.geo.base_stations import BaseStation
from wavecity.geo.cities import City
from wavecity.geo.plan import Plan
from wavecity.geo.scene import Scene
from wavecity.geo.tiles import Tile

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

# What of `area` says which tiles are wanted, not what is in them.
PLANNING = {
    "cities", "world", "scenes", "split", "overpass", "allow_missing",
    "min_coverage", "max_coverage", "min_buildings", "stride",
}  # fmt: skip


class SceneParts(TypedDict):
    """What decides a scene's bytes besides its map and its tile, JSON-ready: `inputs` of the lineage.

    Attributes
    ----------
    code : str
        Fingerprint of the sources that make data.
    versions : dict
        Package -> version.
    recipe : dict
        The recipe's data parts, without what only decides which tiles are wanted.
    """

    code: str
    versions: dict[str, str]
    recipe: dict[str, Any]


# Arrays of a scene or a unit by name, of any dtype.
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Kept:
    """A scene of a published version.

    Attributes
    ----------
    version : str
        Its name, `v3`.
    folder : path
        Its folder.
    scene : int
        Row in its arrays.
    outcome : dict
        From its receipt.
    """

    version: str
    folder: StorePath
    scene: int
    outcome: Outcome


@dataclass(frozen=True)
class Reuse:
    """What may be kept, and why the rest may not.

    Attributes
    ----------
    inputs : dict
        Tile id -> key of its inputs.
    kept : dict
        Tile id -> scene of the last version at the same place.
    reasons : dict
        Tile id -> why its inputs are not those of the last version; empty where they are.
    untouched : frozenset of str
        Ids of tiles whose scenes are kept whatever their inputs were, quarantined ones too.
    """

    inputs: dict[str, str]
    kept: dict[str, Kept]
    reasons: dict[str, str]
    untouched: frozenset[str] = frozenset()

    @property
    def whole(self) -> set[str]:
        """Ids of tiles whose scenes are kept as they are."""
        return set(self.untouched) | {tile for tile in self.kept if not self.reasons[tile]}


def plan_reuse(recipe: Recipe, plan: Plan, store: str | StorePath, code: str) -> Reuse:
    """Compare the accepted tiles with the latest version of a store.

    Parameters
    ----------
    recipe : Recipe
    plan : Plan
    store : path or URL
    code : str
        Fingerprint of the sources that make data.
    """
    cities = {city.city.name: city.city for city in plan.cities}
    parts = scene_parts(recipe, code)
    # These properties of a plan are computed at every access.
    accepted, maps = plan.accepted, {city: source.provenance["sha256"] for city, source in plan.sources.items()}
    inputs = {tile.id: _inputs_key(tile, cities[tile.city], maps[tile.city], parts) for tile in accepted}
    version = latest(store)
    if version is None:
        return Reuse(inputs, {}, dict.fromkeys(inputs, "no version before"))
    lineage = read_json(version.folder / "lineage.json") or {}
    changes = {city: differences(inputs_of(lineage, city), parts) for city in maps}
    there = _scenes(version)
    kept, reasons = {}, {}
    for tile in accepted:
        old = there.get(_place(tile.city, tile.latitude, tile.longitude))
        if old is None or old.outcome["status"] != "done":
            reasons[tile.id] = f"{'not' if old is None else 'quarantined'} in {version.folder.name}"
            continue
        kept[tile.id] = old
        if old.outcome.get("inputs") == inputs[tile.id]:
            reasons[tile.id] = ""
            continue
        before = lineage.get("maps", {}).get(tile.city, {}).get("sha256")
        map_changed = before != maps[tile.city]
        changed = changes[tile.city]
        causes = [*changed, f"map of {tile.city}"] if map_changed else changed
        reasons[tile.id] = (
            f"changed: {', '.join(causes)}" if causes else "changed: name of the tile, its split or its city"
        )
    return Reuse(inputs, kept, reasons)


def scene_parts(recipe: Recipe, code: str) -> SceneParts:
    """Everything besides the map and the tile that decides a scene's bytes; goes into the lineage."""
    parts = recipe.data_parts()
    area = {name: value for name, value in parts.pop("area").items() if name not in PLANNING}
    del parts["store"]  # how scenes are put together, not what they are
    return {"code": code, "versions": package_versions(), "recipe": {**parts, "area": area}}


def inputs_of(lineage: Mapping[str, Any], city: str) -> dict[str, Any]:
    """What decided the bytes of a city's scenes: `inputs` of the lineage, or those that a partial build kept it with."""
    for record in lineage.get("kept", []):
        if city in record["cities"]:
            return dict(record["inputs"])
    return dict(lineage.get("inputs", {}))


def channels_key(scene: Scene, recipe: Recipe, code: str, others: Sequence[BaseStation | None] = ()) -> str:
    """Key of all that the tracer and the features are given; `others` are base stations besides the scene's own."""
    digest = hashlib.sha256(scene.mesh.checksum.encode())
    tracks = (scene.tracks.position, scene.tracks.velocity, scene.tracks.kind) if scene.tracks else ()
    for values in (scene.height, scene.occupancy, scene.bs_position, scene.users, *tracks):
        digest.update(np.ascontiguousarray(values).tobytes())
    parts = scene_parts(recipe, code)
    settings = {name: parts["recipe"][name] for name in ("seed", "radio", "mobility", "solver", "features")}
    if "base_stations" in parts["recipe"]["scene"]:
        places = [other and [*other.position.tolist(), other.azimuth] for other in others]
        settings["base_stations"] = {"settings": parts["recipe"]["scene"]["base_stations"], "places": places}
    if scene.vegetation is not None:
        settings["vegetation"] = scene.vegetation.checksum
    return fingerprint_of(
        {"scene": digest.hexdigest(), "recipe": settings, "code": code, "versions": parts["versions"]}
    )


def load_kept(kept: Kept) -> "tuple[Arrays, GeoDataFrame] | None":
    """Arrays of a kept scene, users not padded, and its table of buildings; None where its files are damaged."""
    draft = load_draft(kept.folder)
    unit = kept.scene // draft.layout.unit
    arrays, buildings = load_unit(draft, unit) or (None, None)
    if arrays is None or buildings is None:
        return None
    row, n_users = kept.scene - draft.layout.scenes_of(unit).start, kept.outcome["n_users"]
    users = {spec.name: spec.dims[1] == "user" for spec in draft.layout.specs()}
    values = {name: array[row, :n_users] if users[name] else array[row] for name, array in arrays.items()}
    return values, buildings[buildings["scene_id"] == kept.outcome["scene_id"]]


def _scenes(version: Version) -> dict[tuple[str, float, float], Kept]:
    """Scenes of a version that are done or quarantined, by city and position."""
    draft = load_draft(version.folder)
    there = {}
    for unit, receipt in enumerate(draft.all_receipts()):
        for scene, outcome in zip(draft.layout.scenes_of(unit), receipt["scenes"] if receipt else (), strict=False):
            if "inputs" in outcome:
                place = _place(outcome["city"], outcome["latitude"], outcome["longitude"])
                there[place] = Kept(version.folder.name, version.folder, scene, outcome)
    return there


def _place(city: str, latitude: float, longitude: float) -> tuple[str, float, float]:
    """Key of a tile: its city and rounded position."""
    return city, round(latitude, 7), round(longitude, 7)


def _inputs_key(tile: Tile, city: City, map_sha: str, parts: SceneParts) -> str:
    """Key of all inputs of a tile's scene."""
    where: dict[str, object] = {
        "id": tile.id,
        "latitude": tile.latitude,
        "longitude": tile.longitude,
        "size": tile.size,
    }
    if parts["recipe"]["users"]["test"]:
        where["split"] = tile.split  # decides the number of users
    of_city = {name: value for name, value in asdict(city).items() if name != "scenes"}
    return fingerprint_of({"tile": where, "city": of_city, "map": map_sha, **parts})


def differences(before: Mapping[str, object], now: Mapping[str, object], prefix: str = "") -> list[str]:
    """Names of the settings that differ, `solver.max_depth`, `package numpy`, `code`.

    Parameters
    ----------
    before, now : mapping
        `SceneParts`, or sections of them.
    prefix : str
        Of the names.
    """
    names = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            inner = {"recipe": "", "versions": "package "}.get(name, f"{prefix}{name}.")
            names += differences(old, new, inner)
        else:
            names.append(f"{prefix}{name}")
    return names
