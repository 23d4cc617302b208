"""Heights of buildings of which the map says nothing, in towns drawn for it."""

from collections.abc import Callable

import numpy as np
import pytest
from geo_maps import LATITUDE, LONGITUDE, Building, box, osm_xml

from wavecity.geo.footprints import tile_footprints
from wavecity.geo.settings import SceneSettings
from wavecity.geo.sources import Source

Town = Callable[..., Source]
YES = {"building": "yes"}


def heights(source: Source, **settings: object) -> dict[int, tuple[float, float, str]]:
    """OSM id -> base, top and source of its height."""
    rows = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SceneSettings(**settings), 1).buildings
    columns = zip(rows["osm_id"], rows["base"], rows["height"], rows["height_source"], strict=True)
    return {number: (base, round(top, 3), kind) for number, base, top, kind in columns}


def row(
    n: int, widths: tuple[float, ...], depth: float = 12.0, y: float = 0.0, tags: dict | None = None
) -> list[Building]:
    """Houses that share their walls."""
    edges = np.concatenate([[0.0], np.cumsum(np.resize(widths, n))]) - 60
    return [(box(edges[k], y, edges[k + 1], y + depth), tags or YES) for k in range(n)]


def test_equal_terraces_are_equally_high(town: Town) -> None:
    found = heights(town(row(7, (8.0,))))
    assert set(found.values()) == {(0.0, 7.0, "guess")}


def test_a_row_of_like_houses_has_one_height(town: Town) -> None:
    # 144 and 156 m2: on either side of what is guessed to have two and three storeys.
    found = heights(town(row(7, (12.0, 13.0))))
    assert len(set(found.values())) == 1
    alone = heights(town([(box(40 * k - 90, 0, 40 * k - 78 - k % 2, 12), YES) for k in range(4)]))
    assert len({top for _, top, _ in alone.values()}) == 1
    apart = heights(town([(box(40 * k - 90, 0, 40 * k - 78 + k % 2, 12), YES) for k in range(4)]))
    assert {top for _, top, _ in apart.values()} == {7.0, 10.5}


def test_a_row_takes_the_height_of_its_tagged_houses(town: Town) -> None:
    houses = row(7, (8.0,))
    houses[3] = (houses[3][0], YES | {"building:levels": "3"})
    far = (box(60, 60, 70, 70), YES | {"height": "40"})
    found = heights(town([*houses, far]))
    assert {top for number, (_, top, _) in found.items() if number < 1007} == {10.5}


def test_what_is_unlike_is_in_no_row(town: Town) -> None:
    hall = (box(36, 0, 96, 30), YES)  # shares a wall with the row's last house
    church = (box(-60, 12, -52, 24), {"building": "church"})
    found = heights(town([*row(12, (8.0,)), hall, church]))
    assert {found[number][1] for number in range(1000, 1012)} == {7.0}
    assert found[1012][1] == 17.5
    assert found[1013][1] == 10.5


def test_geo2sigmap_still_draws(town: Town) -> None:
    found = heights(town(row(7, (8.0,))), impute="geo2sigmap")
    assert len({top for _, top, _ in found.values()}) == 7


def test_petrol_station_is_a_slab_on_open_air(town: Town) -> None:
    blocks = [(box(x, 40, x + 20, 60), YES | {"height": "202"}) for x in (-60, -30, 30)]
    found = heights(town([(box(-10, -10, 13, 3), {"building": "roof"}), *blocks]))
    assert found[1000] == (4.0, 4.5, "imputed")


@pytest.mark.parametrize("kind", ["garage", "shed", "kiosk"])
def test_garages_stay_low_between_towers(town: Town, kind: str) -> None:
    towers = [(box(x, 40, x + 20, 60), YES | {"height": "80"}) for x in (-60, -30, 30)]
    found = heights(town([(box(-10, 10, 0, 16), {"building": kind}), *towers]))
    assert found[1000] == (0.0, 3.5, "imputed")


def test_guess_is_the_source_only_where_the_map_states_no_height(town: Town) -> None:
    houses = row(3, (8.0,))
    assert {source for _, _, source in heights(town(houses)).values()} == {"guess"}


def test_one_tagged_building_far_away_makes_it_imputed(town: Town) -> None:
    houses = [*row(3, (8.0,)), (box(500, 500, 510, 510), YES | {"height": "9"})]
    assert osm_xml(houses)
    assert {source for _, _, source in heights(town(houses, 700.0)).values()} == {"imputed"}


def outline_with_parts(share: float, **tags: str) -> list[Building]:
    """A building of 40 m x 20 m with a part of 9 m, which covers a share of it, among towers."""
    towers = [(box(x, 50, x + 20, 70), YES | {"height": "60"}) for x in (-60, -30, 0, 30)]
    part = (box(-20, 0, -20 + 40 * share, 20), {"building:part": "yes", "height": "9"})
    return [(box(-20, 0, 20, 20), YES | tags), part, *towers]


def test_rest_of_a_building_with_parts_is_no_tower(town: Town) -> None:
    assert heights(town(outline_with_parts(0.7)))[1000][1] == 9.0
    # Where the parts are the exception, the rest is as high as its neighbours.
    assert heights(town(outline_with_parts(0.3)))[1000][1] == 60.0
    assert heights(town(outline_with_parts(0.7, height="20")))[1000][1] == 20.0


def test_rest_of_an_outline_of_no_height_is_open(town: Town) -> None:
    source = town(outline_with_parts(0.3, height="0"))
    assert 1000 not in heights(source)
    ledger = tile_footprints(LATITUDE, LONGITUDE, 200.0, source, SceneSettings(), 1).outcomes.set_index("osm_id")
    assert ledger.loc[1000, "outcome"] == "replaced by its parts"
