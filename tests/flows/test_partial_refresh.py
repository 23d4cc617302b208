"""Newer maps of some cities only: the others are not asked for."""

import logging

import pytest

from wavecity.flows import pipeline
from wavecity.flows.partial import named_cities
from wavecity.flows.recipe import parse_recipe
from wavecity.geo.errors import InputError

CITIES = ("Espoo", "Oulu", "Turku")
RECIPE = parse_recipe(
    {
        "name": "three",
        "area": {
            "source": "http://127.0.0.1:9/{city}.osm.pbf",
            "scenes": 3,
            "cities": [{"name": name, "country": "FI"} for name in CITIES],
        },
    },
    "three.yaml",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cities whose servers were asked."""
    found: list[str] = []
    monkeypatch.setattr(pipeline, "refresh_city", lambda city, _: found.append(city.name))
    monkeypatch.setattr(pipeline, "get_run_logger", lambda: logging.getLogger("build"))
    return found


@pytest.mark.parametrize("only", [(), ("Oulu",), ("Turku", "Espoo")])
def test_only_these_are_asked(tmp_path, asked: list[str], only: tuple[str, ...]) -> None:
    pipeline._refresh_maps(RECIPE, tmp_path, only)
    assert sorted(asked) == sorted(only or CITIES)


def test_an_unknown_city_is_refused(asked: list[str]) -> None:
    with pytest.raises(InputError, match=r"^refresh_cities: 'Olu' is no city of recipe three; it has Oulu$"):
        named_cities(RECIPE, ("Oulu", "Olu"), "refresh_cities")
    assert asked == []
