"""Names of cities: other alphabets, other servers' spelling, and maps whose city the recipe does not name."""

import re
from pathlib import Path

import pytest
from geo_maps import box, osm_xml

from wavecity.flows.planning import show_plan
from wavecity.flows.recipe import load_recipe
from wavecity.geo import bbbike
from wavecity.geo.cities import cities_of, slug, source_of, world_cities
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, CitySettings, WorldSettings

BBBIKE = "https://download.bbbike.org/osm/bbbike/{city}/{city}.osm.pbf"


@pytest.mark.parametrize(
    ("name", "ascii_name"),
    [
        ("서울", "seoul"),
        ("東京", "dongjing"),
        ("Αθήνα", "athina"),
        ("Санкт-Петербург", "sankt-peterburg"),
        ("Łódź", "lodz"),
        # Ids of scenes that exist must stay.
        ("São Paulo", "sao-paulo"),
        ("Xi’an", "xian"),
        ("'s-Hertogenbosch", "s-hertogenbosch"),
    ],
)
def test_slugs_of_other_alphabets_can_be_read(name: str, ascii_name: str) -> None:
    assert slug(name) == ascii_name


def several(*names: str) -> AreaSettings:
    return AreaSettings(cities=tuple(CitySettings(name=name, source="helsinki") for name in names))


def test_cities_that_differ_in_their_own_alphabet_are_two() -> None:
    """苏州 and 宿州 are two large cities of China, both Suzhou in ASCII."""
    assert [city.slug for city in cities_of(several("苏州", "宿州", "東京"))] == ["suzhou", "suzhou-2", "dongjing"]
    assert [city.slug for city in cities_of(several("苏州", "Suzhou 2", "宿州"))] == ["suzhou", "suzhou-2", "suzhou-3"]
    with pytest.raises(InputError, match="two cities of one name"):
        cities_of(several("São Paulo", "sao paulo"))


def test_files_in_other_alphabets_are_found_and_name_their_city(tmp_path: Path) -> None:
    for name in ("東京.osm", "苏州.osm.bz2", "宿州.osm.xml", "são_paulo.osm"):
        (tmp_path / name).touch()
    listed = cities_of(AreaSettings(source=str(tmp_path), scenes=4))
    assert {city.name for city in listed} == {"東京", "苏州", "宿州", "Sao Paulo"}
    assert len({city.slug for city in listed}) == 4
    assert source_of(str(tmp_path), "宿州") == str(tmp_path / "宿州.osm.xml")
    assert source_of(str(tmp_path), "São Paulo") == str(tmp_path / "são_paulo.osm")


def test_another_map_keeps_no_name_of_helsinki(tmp_path: Path) -> None:
    """The town lies at 60.17, 24.94 in its file; moved to Berlin it is a scene of Germany."""
    east, north = 13.4 - 24.94, 52.52 - 60.17
    houses = [(box(x, y, x + 20, y + 20), {"building": "yes"}) for x in (-80, 0, 60) for y in (-80, 0)]

    def moved(match: re.Match[str]) -> str:
        return f'{match[1]}="{float(match[2]) + (east if "lon" in match[1] else north):.7f}"'

    path = tmp_path / "map.osm"
    path.write_text(re.sub(r'((?:min|max)?(?:lat|lon))="([^"]+)"', moved, osm_xml(houses)))
    recipe = load_recipe("quickstart", (f"area.source={path}", "area.tile_size=100", "area.min_coverage=0.01"))
    plan = show_plan(recipe, tmp_path / "maps", fetch=False)
    assert plan.cities[0].city.country == "DE"
    assert plan.cities[0].city.name != "Helsinki"
    assert all(tile.id.startswith(slug(plan.cities[0].city.name)) for tile in plan.tiles)
    named = load_recipe(
        "quickstart", (f"area.source={path}", "area.tile_size=100", "area.city=Mitte", "area.country=DE")
    )
    assert show_plan(named, tmp_path / "maps", fetch=False).cities[0].city.name == "Mitte"


def test_the_packaged_map_is_of_helsinki() -> None:
    (city,) = cities_of(load_recipe("quickstart").area)
    assert (city.name, city.country, city.slug) == ("Helsinki", "FI", "helsinki")


def test_a_centre_names_the_city_before_any_map_is_there() -> None:
    (city,) = cities_of(AreaSettings(source="overpass", latitude=-18.1416, longitude=178.4415))
    assert (city.name, city.country) == ("Suva", "FJ")
    with pytest.raises(InputError, match=r"\{city\} stands for the city's name; give area.city"):
        cities_of(AreaSettings(source=BBBIKE))


def test_cities_of_the_world_are_spelt_as_the_server_spells_them() -> None:
    area = AreaSettings(source=BBBIKE, world=WorldSettings(cities=60))
    sources = {city.name: city.source for city in cities_of(area)}
    assert sources["Munich"] == "https://download.bbbike.org/osm/bbbike/Muenchen/Muenchen.osm.pbf"
    assert sources["Rio de Janeiro"].endswith("/RiodeJaneiro.osm.pbf")
    on_server = {f"https://download.bbbike.org/osm/bbbike/{name}/{name}.osm.pbf" for name in bbbike.extracts()}
    assert set(sources.values()) <= on_server
    assert len(set(sources.values())) == 60
    # Of another server nothing is known: the names as they are.
    other = {city["name"] for city in world_cities(WorldSettings(cities=60), "https://example.org/{city}.osm.pbf")}
    assert {"Jakarta", "Lagos"} & other


def test_more_cities_than_the_server_has_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"area\.world\.cities: 238 wanted, but only \d+ .*extract at download\.bbbike\.org"
    ):
        world_cities(WorldSettings(cities=238), BBBIKE)


def test_every_bbbike_name_of_the_shipped_recipe_is_on_the_server() -> None:
    """The list of pretrain-10k was written by hand, the index comes from the server."""
    area = load_recipe("pretrain-10k").area
    names = {city.source.split("/")[-1].removesuffix(".osm.pbf") for city in cities_of(area)}
    assert names <= set(bbbike.extracts())
