from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from geo_maps import box
from pydantic import ValidationError
from pyproj import Geod

from wavecity.geo.cities import cities_of
from wavecity.geo.errors import InputError
from wavecity.geo.settings import AreaSettings, SceneSettings, SplitSettings
from wavecity.geo.sources import Source
from wavecity.geo.tiles import city_grid, divide, grid, plan_tiles

BY_SCENE = SplitSettings(by="scene")
AREA = AreaSettings(split=BY_SCENE)
SCENE = SceneSettings()


def test_grid_is_200_metres_apart_and_inside_the_map(helsinki: Source) -> None:
    tiles = grid(helsinki, AREA)
    assert len(tiles) == 5 * 8
    geod = Geod(ellps="WGS84")
    east = geod.inv(tiles[0].longitude, tiles[0].latitude, tiles[1].longitude, tiles[1].latitude)
    south = geod.inv(tiles[0].longitude, tiles[0].latitude, tiles[5].longitude, tiles[5].latitude)
    assert east[2] == pytest.approx(200, abs=0.01)
    assert south[2] == pytest.approx(200, abs=0.01)
    # Grid north and true north part by a fraction of a degree half a kilometre from the map's middle.
    assert east[0] == pytest.approx(90, abs=0.5)
    assert abs(south[0]) == pytest.approx(180, abs=0.5)
    west, low, right, high = helsinki.bounds
    assert all(west < tile.longitude < right and low < tile.latitude < high for tile in tiles)
    assert len({tile.id for tile in tiles}) == 40
    assert tiles[7].id == "helsinki-0007"


def test_a_shorter_stride_makes_tiles_overlap_inside_the_same_map(helsinki: Source) -> None:
    apart = grid(helsinki, AREA)
    close = grid(helsinki, AREA.model_copy(update={"stride": 100.0}))
    # Five columns of 200 m leave room for nine positions 100 m apart, and perhaps one more at the rest of the width.
    columns = len({tile.longitude for tile in close[: len(close) // 15]})
    assert len(close) in (9 * 15, 10 * 15, 9 * 16, 10 * 16)
    assert columns in (9, 10)
    geod = Geod(ellps="WGS84")
    (first, second), (west, south, east, north) = close[:2], helsinki.bounds
    assert geod.inv(first.longitude, first.latitude, second.longitude, second.latitude)[2] == pytest.approx(
        100, abs=0.01
    )
    assert {tile.size for tile in close} == {200.0}
    for corner in (close[0], close[-1]):
        # At least half a tile from every edge of the map.
        assert geod.inv(corner.longitude, corner.latitude, west, corner.latitude)[2] > 99
        assert geod.inv(corner.longitude, corner.latitude, east, corner.latitude)[2] > 99
        assert geod.inv(corner.longitude, corner.latitude, corner.longitude, south)[2] > 99
        assert geod.inv(corner.longitude, corner.latitude, corner.longitude, north)[2] > 99
    assert grid(helsinki, AREA.model_copy(update={"stride": 200.0})) == apart
    city = cities_of(AREA.model_copy(update={"radius": 2000.0}))[0]
    disc = city_grid(city, 60.17, 24.94, 200.0, 100.0)
    assert len(disc) == pytest.approx(np.pi * 2000**2 / 100**2, rel=0.15)


def test_overlapping_tiles_in_two_splits_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"use split\.by: city"):
        AreaSettings(stride=100, split=BY_SCENE)
    assert AreaSettings(stride=100, split=SplitSettings(by="city")).stride == 100


def test_every_candidate_of_helsinki_has_an_outcome(helsinki: Source) -> None:
    tiles = plan_tiles(helsinki, AREA.model_copy(update={"scenes": 1000}), SCENE, 0)
    assert [tile.id for tile in tiles] == [tile.id for tile in grid(helsinki, AREA)]
    accepted = [tile for tile in tiles if tile.status == "accepted"]
    assert len(accepted) >= 16
    for tile in accepted:
        assert not tile.reason
        assert 0.10 <= tile.coverage <= 0.60
        assert tile.n_buildings >= 4
    rejected = [tile for tile in tiles if tile.status == "rejected"]
    assert all(tile.reason and not tile.split for tile in rejected)
    # The count of usable tiles that comes with the shared maps: at least 10 % built, at least 4 buildings.
    usable = [tile for tile in tiles if tile.coverage >= 0.10 and tile.n_buildings >= 4]
    assert len(usable) == pytest.approx(30, abs=2)
    assert {tile.reason for tile in usable if tile.status == "rejected" and tile.coverage <= 0.6} <= {
        "no clear base station position within 20 m of the top centre"
    }


def test_only_as_many_as_wanted(helsinki: Source) -> None:
    few = plan_tiles(helsinki, AREA.model_copy(update={"scenes": 6}), SCENE, 0)
    assert Counter(tile.status for tile in few)["accepted"] == 6
    assert any(tile.reason == "not needed" for tile in few)
    again = plan_tiles(helsinki, AREA.model_copy(update={"scenes": 6}), SCENE, 0)
    assert repr(again) == repr(few)
    other = plan_tiles(helsinki, AREA.model_copy(update={"scenes": 6}), SCENE, 1)
    assert [tile.status for tile in other] != [tile.status for tile in few]


def test_reasons(town: Callable[..., Source]) -> None:
    """A town of 2 x 2 tiles: empty, too few, too sparse, good."""

    def houses(x: float, y: float, count: int, size: float) -> list:
        places = [(x + dx, y + dy) for dx in (10, 120) for dy in (10, 120)][:count]
        return [(box(a, b, a + size, b + size), {"building": "yes", "height": "9"}) for a, b in places]

    buildings = houses(-200, -200, 2, 60) + houses(0, 0, 4, 10) + houses(0, -200, 4, 60)
    source = town(buildings, half=201.0)
    tiles = plan_tiles(source, AREA.model_copy(update={"city": "Tōwn Åb"}), SCENE, 0)
    assert [(tile.id, tile.reason) for tile in tiles] == [
        ("town-ab-0000", "no buildings"),
        ("town-ab-0001", "coverage 1.0 % below 10 %"),
        ("town-ab-0002", "2 buildings, at least 4 wanted"),
        ("town-ab-0003", ""),
    ]
    assert tiles[3].coverage == pytest.approx(4 * 60 * 60 / 40_000, rel=1e-3)
    dense = plan_tiles(source, AREA.model_copy(update={"max_coverage": 0.3}), SCENE, 0)
    assert dense[3].reason == "coverage 36.0 % above 30 %"


def test_map_smaller_than_a_tile(town: Callable[..., Source]) -> None:
    source = town([(box(0, 0, 20, 20), {"building": "yes"})], half=80.0)
    with pytest.raises(InputError, match=r"area.source: town.osm: the map of 160 m x 160 m is smaller than a tile"):
        plan_tiles(source, AREA, SCENE, 0)


def test_one_city_cannot_be_split_by_city(helsinki: Source) -> None:
    with pytest.raises(InputError, match=r"area.split.by: city: .*Helsinki.*by: scene"):
        plan_tiles(helsinki, AreaSettings(), SCENE, 0)
    everything = AreaSettings(scenes=1, split=SplitSettings(by="city", validation=0, test=0))
    splits = [tile.split for tile in plan_tiles(helsinki, everything, SCENE, 0)]
    assert set(splits) == {"train", ""}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, {"train": 1}),
        (2, {"train": 2}),
        (3, {"train": 1, "validation": 1, "test": 1}),
        (16, {"train": 12, "validation": 2, "test": 2}),
        (100, {"train": 80, "validation": 10, "test": 10}),
    ],
)
def test_splits_have_whole_scenes(count: int, expected: dict[str, int]) -> None:
    ids = [f"town-{k:04d}" for k in range(count)]
    splits = divide(ids, BY_SCENE, 0)
    assert Counter(splits.values()) == expected
    # Whatever the order in which the tiles were found.
    assert divide(ids[::-1], BY_SCENE, 0) == splits
    if count == 100:
        assert divide(ids, BY_SCENE, 1) != splits
        assert not np.array_equal(sorted(splits.values()), list(splits.values()))
