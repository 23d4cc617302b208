"""Which tiles of which cities become scenes: a recipe's plan, kept by city in the folder of maps."""

import json
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from wavecity.dataset.card.maps import without_heights
from wavecity.dataset.files import read_json, write_text
from wavecity.dataset.fingerprints import fingerprint_of
from wavecity.flows.fingerprint import code_fingerprint
from wavecity.flows.partial import Others, join_partly, maps_of
from wavecity.flows.plan_records import tile_of, tile_record
from wavecity.flows.recipe import Recipe
from wavecity.geo.cities import City, cities_of, slug
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.height_file import RIGHT as HEIGHT_FILE
from wavecity.geo.plan import CityPlan, Plan, join_plans, plan_cities, plan_one, without_map
from wavecity.geo.sources import Source, is_here, open_city
from wavecity.geo.vegetation import open_vegetation


def plan_scenes(
    recipe: Recipe, cache: Path, each: Callable[..., Iterable[CityPlan]] = map, others: Others | None = None
) -> Plan:
    """Cut the maps of all cities into tiles, each with its outcome; maps that are not there are fetched.

    A city is planned once: its outcome is kept in `cache/plans` and found again as long as map and recipe are the same.

    Parameters
    ----------
    recipe : Recipe
    cache : Path
        Folder for maps and plans.
    each : callable
        As `map`; runs `plan_one_city` for every city, possibly elsewhere.
    others : Others, optional
        Cities that are not planned, but kept as a version has them (`wavecity.flows.partial`).

    Raises
    ------
    InputError
        No map can be had, or no tile is usable.
    """
    cities, kept = cities_of(recipe.area), others.plans if others else {}
    named = [city for city in cities if city.name not in kept]
    refuse_missing_files(named, recipe)
    job = partial(plan_one_city, recipe=recipe, cache=cache)
    planned = iter(plan_cities(named, job, _at_hand(recipe, cache), each))
    plans = [kept[city.name] if city.name in kept else next(planned) for city in cities]
    plan = join_plans(plans, recipe.area, recipe.seed)
    if others:
        plan = join_partly(plan, others)
    if not plan.accepted:
        msg = f"area.source {recipe.area.source}: none of {len(plan.tiles)} tiles is usable; lower area.min_coverage"
        raise InputError(msg)
    if bare := without_heights(maps_of(plan)):
        msg = f"no height is stated by the map of {', '.join(bare)}: all are guesses by building type and footprint"
        warnings.warn(msg, stacklevel=2)
    return plan


def plan_one_city(city: City, recipe: Recipe, cache: Path) -> CityPlan:
    """Plan of one city, from the cache if its map and the recipe have not changed."""

    def open_map(city: City) -> Source:
        source = open_city(city, recipe.area, cache)
        return source if recipe.scene.vegetation is None else open_vegetation(source, city, cache)

    def planned() -> CityPlan:
        return plan_one(city, open_map, recipe.area, recipe.scene, recipe.seed)

    if city.scenes == 0:
        return planned()
    try:
        source = open_map(city)
    except MapError as error:
        return without_map(city, error)
    path = _plan_path(city, source, recipe, cache)
    known = _known_plan(path, source)
    if known is not None:
        return known
    plan = planned()
    if plan.source is not None:
        # Without line breaks: there may be hundreds of thousands of tiles.
        write_text(path, json.dumps({"city": asdict(plan.city), "tiles": [tile_record(tile) for tile in plan.tiles]}))
    return plan


def _plan_path(city: City, source: Source, recipe: Recipe, cache: Path) -> Path:
    """Where the plan of a city lies, by everything that decides it."""
    area = recipe.area.model_dump(mode="json", exclude={"cities", "world", "scenes", "split", "overpass"})
    key = fingerprint_of(
        {
            "city": asdict(city),
            "area": area,
            "scene": recipe.scene.model_dump(mode="json"),
            "seed": recipe.seed,
            "map": source.provenance["sha256"],
            "code": code_fingerprint(),
        }
    )
    return cache / "plans" / f"{slug(city.name)}-{key[:16]}.json"


def _known_plan(path: Path, source: Source) -> CityPlan | None:
    """The plan of a city in a file, None if there is none."""
    known = read_json(path)
    if known is None:
        return None
    return CityPlan(City(**known["city"]), [tile_of(tile) for tile in known["tiles"]], source)


def planned_before(recipe: Recipe, cache: Path) -> Plan | None:
    """The plan of a recipe, if that of every city is in the cache; nothing is fetched or planned."""
    plans = []
    for city in cities_of(recipe.area):
        if city.scenes == 0:
            plans.append(CityPlan(city, []))
            continue
        if not is_here(city, recipe.area, cache):
            return None
        try:
            source = open_city(city, recipe.area, cache)
        except MapError:
            return None
        known = _known_plan(_plan_path(city, source, recipe, cache), source)
        if known is None:
            return None
        plans.append(known)
    return join_plans(plans, recipe.area, recipe.seed)


def show_plan(
    recipe: Recipe, cache: Path, fetch: bool, progress: Callable[[Iterable[City]], Iterable[City]] = iter
) -> Plan:
    """Plan as far as maps are there: without `fetch` nothing is downloaded, and cities without a map get positions.

    Raises
    ------
    InputError
        No map can be had.
    """

    def plan_if_here(city: City) -> CityPlan:
        remote = city.source == "overpass" or "://" in city.source
        if fetch or not remote or is_here(city, recipe.area, cache):
            return plan_one_city(city, recipe, cache)
        return plan_one(city, lambda _: None, recipe.area, recipe.scene, recipe.seed)

    cities = cities_of(recipe.area)
    refuse_missing_files(cities, recipe)

    def each(job: Callable[[City], CityPlan], some: Iterable[City]) -> Iterable[CityPlan]:
        tried = iter(some)
        for _ in progress(cities):  # the bar is of all cities, whether or not they are tried
            if (city := next(tried, None)) is not None:
                yield job(city)

    return join_plans(plan_cities(cities, plan_if_here, _at_hand(recipe, cache), each), recipe.area, recipe.seed)


def refuse_missing_files(cities: list[City], recipe: Recipe) -> None:
    """Refuse a city of a recipe of several whose map is a file that is not there, unless the recipe allows that.

    Raises
    ------
    InputError
        It names the city and its file.
    """
    if len(cities_of(recipe.area)) == 1 or recipe.area.allow_missing:
        return
    for city in cities:
        path = Path(city.source).expanduser()
        if city.source in ("helsinki", "overpass") or "://" in city.source or path.exists() or not city.scenes:
            continue
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        like = get_close_matches(path.name, names, 1, 0.8)
        hint = f"did you mean {like[0]}?" if like else "correct it"
        msg = f"area.cities: {city.name}: {city.source}: no such file; {hint}, or set area.allow_missing to do without"
        raise InputError(msg)


def refuse_missing_maps(recipe: Recipe, cache: Path, only: Collection[str] = ()) -> None:
    """Refuse a recipe whose files of maps or heights are not there; takes a moment, nothing is read.

    Parameters
    ----------
    recipe : Recipe
    cache : Path
        Folder of maps.
    only : collection of str
        Names of cities to which the question is limited.

    Raises
    ------
    InputError
        It names the file.
    """
    cities = cities_of(recipe.area)
    refuse_missing_files([city for city in cities if not only or city.name in only], recipe)
    local = cities[0].source != "overpass" and "://" not in cities[0].source
    if len(cities) == 1 and local and not is_here(cities[0], recipe.area, cache):
        open_city(cities[0], recipe.area, cache)  # raises, and says what may be given
    heights = recipe.area.heights
    if heights and not Path(heights).expanduser().is_file():
        msg = f"area.heights: {heights}: no such file; {HEIGHT_FILE}"
        raise InputError(msg)


def _at_hand(recipe: Recipe, cache: Path) -> Callable[[City], bool]:
    """Whether a city's map needs no network."""
    return lambda city: is_here(city, recipe.area, cache)
