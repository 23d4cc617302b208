"""Pictures of cities on both sides of the antimeridian: a few kilometres wide, not the earth."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from wavecity.dataset.card import pictures
from wavecity.flows.map_picture import draw_plan
from wavecity.geo.cities import City
from wavecity.geo.plan import CityPlan, Plan
from wavecity.geo.tiles import Tile, city_grid

CITY = City("Taveuni", "FJ", "taveuni.osm", -16.8, 180.0, 1000.0, 4)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def note(figure: Figure, *arguments: object, **options: object) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", note)
    return figures


def test_the_picture_of_a_plan_is_as_wide_as_its_tiles(tmp_path: Path, drawn: list[Figure]) -> None:
    tiles = city_grid(CITY, -16.8, 180.0, 200.0)
    sides = {np.sign(tile.longitude) for tile in tiles}
    assert sides == {-1.0, 1.0}
    draw_plan(Plan([CityPlan(CITY, tiles)]), tmp_path / "plan.png")
    west, east = drawn[0].axes[0].get_xlim()
    assert 0.01 < east - west < 0.03
    squares = [patch for collection in drawn[0].axes[0].collections for patch in collection.get_paths()]
    longitude = np.concatenate([square.vertices[:, 0] for square in squares])
    assert west < longitude.min() < longitude.max() < east


def test_the_cards_map_of_a_city_is_as_wide_as_its_tiles(drawn: list[Figure]) -> None:
    tiles: list[Tile] = city_grid(CITY, -16.8, 180.0, 200.0)
    places = [pictures.Place(tile.id, tile.latitude, tile.longitude, "train") for tile in tiles]
    pictures.draw_tiles(places, 200.0, {})
    west, east = drawn[0].axes[0].get_xlim()
    assert 1500 < east - west < 2100
