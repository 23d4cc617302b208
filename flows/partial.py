"""Some cities of a dataset built anew: the others are not looked at, and their scenes kept as the last version has them.

Neither their maps are opened nor their scenes compared with recipe, code and packages of today. So such a version may be
made of scenes of several states of the code: then it has a fingerprint of its own, and its lineage says which cities are of
which state (`kept`). Where nothing but the named cities has changed it is the version that a whole build would have made.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, cast

from pydantic import ValidationError

from wavecity.dataset.draft import load_draft
from wavecity.dataset.files import StorePath, open_group, read_json
from wavecity.dataset.fingerprints import fingerprint_of
from wavecity.dataset.publish import Version, latest
from wavecity.dataset.records import CityRecord, KeptRecord, Lineage, MapRecord, attributes_of
from wavecity.flows.fingerprint import code_of
from wavecity.flows.plan_records import tile_of
from wavecity.flows.recipe import Recipe
from wavecity.flows.reuse import Kept, Reuse, SceneParts, differences, inputs_of, scene_parts
from wavecity.geo.cities import City, cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.tiles import Tile

# What may differ between the scenes of a version: where maps come from, never what is made of them.
OF_MAPS = ("area.source", "area.heights")


@dataclass(frozen=True)
class Others:
    """Cities that are kept as a version has them.

    Attributes
    ----------
    version : Version
    plans : dict
        City -> its tiles, without a map.
    maps : dict
        City -> its map, as in the version's lineage.
    records : dict
        City -> what the lineage says of it.
    scenes : dict
        Tile id -> scene of the version, done or quarantined.
    inputs : dict
        City -> what decided its scenes' bytes.
    whole : bool
        Whether recipe, code and packages are those of the version, which was built as a whole.
    """

    version: Version
    plans: dict[str, CityPlan]
    maps: dict[str, MapRecord]
    records: dict[str, CityRecord]
    scenes: dict[str, Kept]
    inputs: dict[str, SceneParts]
    whole: bool


@dataclass(frozen=True)
class PartialPlan(Plan):
    """A plan of which some cities are kept."""

    others: Others
    # Whether every kept scene is what a whole build would make of it.
    whole: bool

    @property
    def named(self) -> Plan:
        """The cities that are built."""
        return Plan([city for city in self.cities if city.city.name not in self.others.plans])

    @property
    def key(self) -> str:
        """Of the kept scenes, as far as maps and recipe do not say what they are; empty where these do."""
        if self.whole:
            return ""
        kept = (tile for tile in self.tiles if tile.id in self.others.scenes)
        return fingerprint_of(
            sorted((tile.id, self.others.scenes[tile.id].outcome.get("inputs", ""), tile.split) for tile in kept)
        )

    @property
    def kept(self) -> list[KeptRecord]:
        """For the lineage: the states of code and recipe of kept scenes, each with its cities."""
        if self.whole:
            return []
        found: dict[str, KeptRecord] = {}
        for city, inputs in self.others.inputs.items():
            record = found.setdefault(fingerprint_of(inputs), {"inputs": cast(dict[str, object], inputs), "cities": []})
            record["cities"].append(city)
        return list(found.values())

    def with_kept(self, reuse: Reuse) -> Reuse:
        """What may be kept of the named cities, and everything of the others."""
        scenes = self.others.scenes
        return Reuse(
            reuse.inputs | {tile: scene.outcome.get("inputs", "") for tile, scene in scenes.items()},
            reuse.kept | scenes,
            reuse.reasons | dict.fromkeys(scenes, ""),
            frozenset(scenes),
        )


def named_cities(recipe: Recipe, names: Collection[str], field: str) -> list[str]:
    """Names of cities of a recipe, as it writes them.

    Parameters
    ----------
    recipe : Recipe
    names : collection of str
        Each a name, or several with commas between them; a name may itself have commas.
    field : str
        For the message: where the names come from.

    Raises
    ------
    InputError
        One of them is no city of the recipe.

    Examples
    --------
    >>> named_cities(recipe, ["Lyon, Quito"], "cities")
    ['Lyon', 'Quito']
    """
    known = [city.name for city in cities_of(recipe.area)]
    found: list[str] = []
    for text in names:
        parts = text.split(",")
        while parts:
            # The longest first: `Washington, D.C.` is one city.
            ends = range(len(parts), 0, -1)
            end = next((end for end in ends if ",".join(parts[:end]).strip() in known), 1)
            name = ",".join(parts[:end]).strip()
            if name not in known:
                like = get_close_matches(name, known, 3, 0.6) or known[:5]
                msg = f"{field}: {name!r} is no city of recipe {recipe.name}; it has {', '.join(like)}"
                raise InputError(msg)
            found.append(name)
            parts = parts[end:]
    return list(dict.fromkeys(found))


def others_of(recipe: Recipe, named: Collection[str], store: StorePath) -> Others:
    """The cities of a recipe that are not named, as the last version of a store has them.

    Raises
    ------
    InputError
        There is no version, it lacks a city, or was built with another recipe.
    """
    version = latest(store)
    if version is None:
        msg = f"cities: {store} has no version yet whose other cities could be kept; build all cities first"
        raise InputError(msg)
    lineage = cast(Lineage, read_json(version.folder / "lineage.json") or {})
    now = scene_parts(recipe, code_of(recipe))
    _refuse_other_recipe(version, lineage, now)
    records = {record["name"]: record for record in lineage.get("cities", [])}
    others = [city for city in cities_of(recipe.area) if city.name not in named]
    if lacking := [city.name for city in others if city.name not in records]:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        msg = (
            f"cities: {version.folder.name} has no {', '.join(lacking[:5])}{more}, which the recipe has: name them too"
        )
        raise InputError(msg)
    names = {city.name for city in others}
    tiles: dict[str, list[Tile]] = {name: [] for name in names}
    for record in lineage.get("tiles", []):
        tile = tile_of(cast(dict[str, Any], record))
        if tile.city in names:
            tiles[tile.city].append(tile)
    return Others(
        version,
        {city.name: CityPlan(_as_planned(city, records[city.name]), tiles[city.name]) for city in others},
        {city: record for city, record in lineage.get("maps", {}).items() if city in names},
        {name: record for name, record in records.items() if name in names},
        _scenes(version, names),
        {name: cast(SceneParts, inputs_of(lineage, name)) for name in names},
        "kept" not in lineage and lineage.get("inputs") == now and _settings(_recipe_of(version)) == _settings(recipe),
    )


def join_partly(plan: Plan, others: Others) -> PartialPlan:
    """A plan of all cities, in which the tiles of kept ones have the splits that they had.

    Raises
    ------
    InputError
        The map of a named city cannot be had.
    """
    for city in plan.cities:
        if city.problem and city.city.name not in others.plans:
            msg = f"cities: {city.city.name}: {city.problem}"
            raise InputError(msg)
    cities = [
        replace(city, tiles=others.plans[city.city.name].tiles) if city.city.name in others.plans else city
        for city in plan.cities
    ]
    # In a split by scene, other tiles of one city may move those of another one in a whole build.
    moved = any(
        [tile.split for tile in city.tiles] != [tile.split for tile in planned.tiles]
        for city, planned in zip(cities, plan.cities, strict=True)
    )
    return PartialPlan(cities, others, others.whole and not moved)


def maps_of(plan: Plan) -> dict[str, MapRecord]:
    """Provenance of the map of every city that has one, in the order of the plan."""
    here = {city: cast(MapRecord, source.provenance) for city, source in plan.sources.items()}
    if not isinstance(plan, PartialPlan):
        return here
    known = plan.others.maps | here
    return {city.city.name: known[city.city.name] for city in plan.cities if city.city.name in known}


def _as_planned(city: City, record: CityRecord) -> City:
    """A city with the number of scenes that was wanted from it."""
    return replace(city, country=city.country or record["country"], scenes=record["wanted"])


def _refuse_other_recipe(version: Version, lineage: Lineage, now: SceneParts) -> None:
    """Refuse a version whose scenes were made by other settings than those that are to lie next to them."""
    before = cast(dict[str, Any], lineage.get("inputs", {})).get("recipe", {})
    names = [name for name in differences(before, now["recipe"]) if name not in OF_MAPS]
    if names:
        msg = (
            f"cities: {version.folder.name} was built with another recipe ({', '.join(names[:5])}), so its scenes are not kept "
            "next to new ones; build all cities"
        )
        raise InputError(msg)


def _recipe_of(version: Version) -> Recipe | None:
    """The recipe of a version; None where it is of another state of the code."""
    try:
        return Recipe.model_validate(attributes_of(dict(open_group(version.data).attrs)).get("recipe"))
    except ValidationError:
        return None


def _settings(recipe: Recipe | None) -> dict[str, Any]:
    """The parts of a recipe that decide a dataset, but for where the map of a city lies."""
    parts = recipe.data_parts() if recipe else {}
    for city in parts.get("area", {}).get("cities", ()):
        del city["source"]
    return parts


def _scenes(version: Version, cities: Collection[str]) -> dict[str, Kept]:
    """Scenes of some cities of a version by id, the quarantined ones as well."""
    draft = load_draft(version.folder)
    found = {}
    for unit, receipt in enumerate(draft.receipts()):
        for scene, outcome in zip(draft.layout.scenes_of(unit), receipt["scenes"], strict=True):
            if outcome["city"] in cities:
                found[outcome["scene_id"]] = Kept(version.folder.name, version.folder, scene, outcome)
    return found
