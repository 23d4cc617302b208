"""Buildings mapped inside a building: both stand."""

from collections.abc import Callable

import pytest
import shapely
from geo_maps import LATITUDE, LONGITUDE, Building, box

from wavecity.geo.footprints import Footprints, tile_footprints
from wavecity.geo.settings import SceneSettings
from wavecity.geo.sources import Source

SETTINGS = SceneSettings()
NAVE = box(-30, -15, 30, 15)
DOME = box(-8, -8, 8, 8)


def prints(source: Source, latitude: float = LATITUDE) -> Footprints:
    return tile_footprints(latitude, LONGITUDE, 200.0, source, SETTINGS, 0)


def tops(found: Footprints) -> dict[int, float]:
    return found.buildings.groupby("osm_id")["height"].max().to_dict()


def building(shape: list, **tags: str) -> Building:
    return shape, {"building": "yes", **tags}


@pytest.mark.parametrize(
    ("nave", "dome", "expected"),
    [
        ({"height": "20"}, {"height": "35"}, (20, 35)),
        # The whole has the height of its tower, and the lower part its own.
        ({"height": "35"}, {"height": "20"}, (35, 20)),
        # Of unknown height: a storey above what is around it.
        ({"height": "20"}, {}, (20, 23.5)),
        ({"building": "church", "building:levels": "4"}, {"building": "church"}, (14, 17.5)),
        # By type three storeys, and 35 m as its only neighbour.
        ({"building": "church"}, {"height": "35"}, (35, 35)),
    ],
)
def test_both_stand(town: Callable[..., Source], nave: dict, dome: dict, expected: tuple[float, float]) -> None:
    found = prints(town([building(NAVE, **nave), building(DOME, **dome)]))
    assert found.ledger == {"used": 2}
    assert tops(found) == dict(zip((1000, 1001), expected, strict=True))
    areas = found.buildings.set_index("osm_id").area
    assert areas.to_dict() == pytest.approx({1000: 60 * 30 - 16 * 16, 1001: 16 * 16}, rel=1e-3)


def test_neither_height_is_known(town: Callable[..., Source]) -> None:
    found = prints(town([building(NAVE, building="church"), building(DOME)]))
    heights = tops(found)
    assert heights[1001] == heights[1000] + SETTINGS.storey_height
    assert set(found.buildings["height_source"]) == {"guess"}


def test_a_tower_in_a_dome_in_a_nave(town: Callable[..., Source]) -> None:
    tower = box(-2.6, -2.6, 2.6, 2.6)
    # In any order: larger ones are decided on first.
    found = prints(town([building(tower), building(DOME), building(NAVE, height="20")]))
    assert tops(found) == {1000: 27.0, 1001: 23.5, 1002: 20.0}


def test_a_raised_dome_leaves_the_nave_below(town: Callable[..., Source]) -> None:
    found = prints(town([building(NAVE, height="20"), building(DOME, height="18", min_height="12")]))
    assert found.ledger == {"inside a taller building": 1, "used": 1}
    assert found.union.area == pytest.approx(60 * 30, rel=1e-3)
    assert found.buildings["base"].tolist() == [0]


@pytest.mark.parametrize("kind", ["kiosk", "roof"])
def test_kiosks_and_roofs_stay_inside(town: Callable[..., Source], kind: str) -> None:
    found = prints(town([building(NAVE, height="20"), building(DOME, building=kind)]))
    assert tops(found) == {1000: 20}
    assert found.ledger == {"inside a taller building": 1, "used": 1}


def test_the_same_building_drawn_twice_does_not_grow(town: Callable[..., Source]) -> None:
    found = prints(town([building(NAVE, height="20"), building(box(-29.5, -15, 30, 15))]))
    assert tops(found) == {1000: 20}


def test_the_same_in_every_tile(town: Callable[..., Source]) -> None:
    """The second tile holds the dome, and of the nave only what is around it."""
    source = town([building(NAVE), building(DOME)], half=400.0)
    whole = tops(prints(source))
    assert tops(prints(source, LATITUDE + 100 / 111_200)) == whole
    assert not shapely.is_empty(prints(source, LATITUDE + 100 / 111_200).union)
