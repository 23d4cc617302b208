"""Versions by map date: one for each of several maps of a city, such as its yearly extracts, the oldest first."""

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from prefect import flow

from wavecity.dataset.files import StorePath, make_folder, read_json
from wavecity.dataset.publish import Version, latest, versions
from wavecity.flows.gates import GateName
from wavecity.flows.maps import map_folder
from wavecity.flows.partial import named_cities
from wavecity.flows.pipeline import build_dataset, store_of
from wavecity.flows.recipe import Recipe, parse_recipe
from wavecity.flows.turns import WhenBusy, cancelled_if_busy
from wavecity.geo.cities import City, cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.sources import open_city


class Dated(NamedTuple):
    """A recipe with one of the maps, and what that map says of itself."""

    date: datetime
    recipe: Recipe
    sha256: str


@flow(name="backfill")
@cancelled_if_busy
def backfill(
    recipe: Recipe,
    sources: tuple[str, ...],
    city: str = "",
    store: str = "",
    workers: int | None = None,
    dask: str | None = None,
    maps: Path | None = None,
    announce: bool = False,
    when_busy: WhenBusy = "fail",
    pass_gates: tuple[GateName, ...] = (),
) -> list[Version]:
    """Several maps of a city -> a published version for each, in the order of their dates.

    Of a recipe of several cities only that one is built; the others are kept as the first version has them. The store's
    latest version is the one of the newest map, also of those that were there before. Maps whose version is there are
    passed over, so the same call goes on after an interruption.

    Parameters
    ----------
    recipe : Recipe
        With a map of its own, which is replaced.
    sources : tuple of str
        Maps, as `area.source`: files or URLs.
    city : str
        Which city they are of, if the recipe has several.
    store, workers, dask, maps, announce, when_busy, pass_gates
        As for `build_dataset`.

    Returns
    -------
    list of Version
        Oldest map first.

    Raises
    ------
    InputError
        A map cannot be read or has no date; `store.keep` is too small for so many versions.
    """
    place = store_of(recipe, store)
    make_folder(place)
    dated = oldest_first(recipe, sources, city, maps or map_folder(place))
    refuse_short_lived(dated, place, recipe.store.keep)
    built = []
    for each in dated:
        newest = latest(place)
        version = build_dataset(
            each.recipe,
            str(place),
            workers,
            dask,
            maps,
            announce=announce,
            when_busy=when_busy,
            pass_gates=pass_gates,
            cities=(city,) if city and newest else (),
            point=newest is None or each.date >= _date_of(newest, city),
        )
        built.append(version)
    return built


def oldest_first(recipe: Recipe, sources: tuple[str, ...], city: str, cache: Path) -> list[Dated]:
    """Recipes with these maps of a city, sorted by the dates that the maps state.

    Raises
    ------
    InputError
        A map cannot be read, or has no date; the recipe has several cities and none is named.
    """
    found = []
    for source in sources:
        changed = with_map(recipe, source, city)
        (one,) = [each for each in cities_of(changed.area) if not city or each.name == city]
        provenance = open_city(one, changed.area, cache).provenance
        if not provenance["map_date"]:
            msg = (
                f"{source}: the map has no date, as its buildings have no time of their last edit: take an extract with "
                "metadata, and not one that was reduced to geometry"
            )
            raise InputError(msg)
        found.append(Dated(_moment(provenance["map_date"]), changed, provenance["sha256"]))
    return sorted(found, key=lambda each: each.date)


def with_map(recipe: Recipe, source: str, city: str) -> Recipe:
    """A recipe with another map of its one city, or of one that its `area.cities` lists.

    Raises
    ------
    InputError
        It has several cities, and none is named or that one is not in `area.cities`.
    """
    content = recipe.model_dump(mode="json")
    known: list[City] = cities_of(recipe.area)
    if city:
        named_cities(recipe, [city], "city")
    if len(known) == 1:
        content["area"]["source"] = source
        return parse_recipe(content, f"recipe {recipe.name}")
    listed = [entry for entry in content["area"]["cities"] if entry["name"] == city]
    if not listed:
        msg = f"city: recipe {recipe.name} has {len(known)} cities: name the one that the maps are of"
        raise InputError(msg + ", and list it in area.cities" * bool(city))
    listed[0]["source"] = source
    return parse_recipe(content, f"recipe {recipe.name}")


def refuse_short_lived(dated: list[Dated], store: StorePath, keep: int) -> None:
    """Refuse to build versions of which the first would be removed soon after the last was published.

    Raises
    ------
    InputError
        It says what `store.keep` must be.
    """
    known = versions(store)
    there = {
        record.get("sha256")
        for version in known
        for record in (read_json(version.folder / "lineage.json") or {}).get("maps", {}).values()
    }
    wanted = len(known) + len({each.sha256 for each in dated} - there)
    if wanted > keep:
        msg = f"store.keep is {keep}, but there would be {wanted} versions, the oldest of which would be removed: "
        raise InputError(f"{msg}set store.keep to at least {wanted}")


def _date_of(version: Version, city: str) -> datetime:
    """Date of a version's map of a city, or of its newest one."""
    dates = version.map_dates
    texts = [dates[city]] if city in dates else list(dates.values())
    return max(map(_moment, texts), default=datetime.min.replace(tzinfo=UTC))


def _moment(date: str) -> datetime:
    """A moment of a date in ISO 8601; without a zone it is UTC."""
    moment = datetime.fromisoformat(date)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
