import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wavecity.geo.guess import Neighbours, guessed_storeys
from wavecity.geo.height_texts import parse_length, parse_levels, unread_heights
from wavecity.geo.heights import HeightStatistics, height_statistics, impute_height, nearest_heights, tagged_height

FOOT = 0.3048


@pytest.mark.parametrize(
    ("text", "metres", "exact"),
    [
        ("12", 12, True),
        ("12 m", 12, True),
        ("12m", 12, True),
        ("12.5 metres", 12.5, True),
        ("12,5", 12.5, True),
        ("1200 cm", 12, True),
        ("40 ft", 40 * FOOT, True),
        ("40'", 40 * FOOT, True),
        ("40'6\"", 40.5 * FOOT, True),
        ("40 feet", 40 * FOOT, True),
        ("12;14", 14, False),
        ("14; 12 m", 14, False),
        ("12-14", 14, False),
        ("40 ft;10 m", 40 * FOOT, False),
        ("~12", 12, False),
        ("ca. 12", 12, False),
        ("about 12 m", 12, False),
        (" 12 M ", 12, True),
        ("1,250 ft", 1250 * FOOT, True),
        ("14 metros", 14, True),
        ("35 mt", 35, True),
        ("35 mts.", 35, True),
        ("12 м", 12, True),
        ("0", 0, True),
    ],
)
def test_length_of_tag(text: str, metres: float, exact: bool) -> None:
    parsed = parse_length(text)
    assert parsed is not None
    assert parsed[0] == pytest.approx(metres, abs=1e-9)
    assert parsed[1] is exact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "high",
        "-3",
        "12 storeys",
        "1e3",
        "nan",
        "inf",
        "99999",
        "12 m 3",
        ";",
        "m",
        "'",
        "1,234",
        "0,125",
        "12,345,678",
    ],
)
def test_no_length_in_tag(text: str) -> None:
    assert parse_length(text) is None


@pytest.mark.parametrize(
    ("text", "levels"),
    [("5", 5), ("2.5", 2.5), ("2,5", 2.5), ("~4", 4), ("3;4", 4), ("2-3", 3), ("0", 0), ("2,3", 3), ("1, 2, 4", 4),
     ("G+4", 5), ("g + 4", 5), ("5+1", 6), ("3 floors", 3), ("5 levels", 5), ("2 storeys", 2), ("7층", 7)],
)  # fmt: skip
def test_levels_of_tag(text: str, levels: float) -> None:
    assert parse_levels(text) == levels


@pytest.mark.parametrize("text", ["", "five", "-1", "3E", "five+1", "5 m", "1000", "nan"])
def test_no_levels_in_tag(text: str) -> None:
    assert parse_levels(text) is None


@pytest.mark.parametrize(
    ("tags", "top", "base", "source"),
    [
        ({"height": "20"}, 20, 0, "tag"),
        ({"building:height": "20"}, 20, 0, "tag"),
        ({"height": "x", "building:height": "20"}, 20, 0, "tag"),
        # The top is above ground, not above min_height (the High Line).
        ({"height": "7.5", "min_height": "5.5"}, 7.5, 5.5, "tag"),
        ({"height": "7.5", "building:levels": "9"}, 7.5, 0, "tag"),
        ({"building:levels": "4"}, 14, 0, "levels"),
        ({"building:levels": "4", "roof:levels": "1"}, 17.5, 0, "levels"),
        ({"building:levels": "4", "building:min_level": "2"}, 14, 7, "levels"),
        ({"height": "20", "building:min_level": "2", "min_height": "3"}, 20, 3, "tag"),
        ({"est_height": "20"}, 20, 0, "tag"),
        ({"est_height": "20", "height": "19"}, 19, 0, "tag"),
        ({"height": "3 floors"}, 10.5, 0, "levels"),
        # The storeys of this building are 3 m and 5 m high.
        ({"height": "6", "building:levels": "2", "building:min_level": "1"}, 6, 3, "tag"),
        ({"height": "15", "building:levels": "2", "roof:levels": "1", "building:min_level": "2"}, 15, 10, "tag"),
        ({"height": "6", "building:levels": "2", "building:min_level": "2"}, 6, 3, "tag"),
        # La Plata: six storeys below, this one on top of them.
        ({"height": "32.1", "building:levels": "6", "building:min_level": "6"}, 32.1, 21, "tag"),
        # Contradictions stand on the ground.
        ({"height": "5", "min_height": "20"}, 5, 0, "tag"),
        ({"building:levels": "2", "building:min_level": "2"}, 7, 0, "levels"),
    ],
)
def test_height_of_building(tags: dict[str, str], top: float, base: float, source: str) -> None:
    height = tagged_height(tags, 3.5)
    assert height is not None
    assert (height.top, height.base, height.source) == (pytest.approx(top), pytest.approx(base), source)


@pytest.mark.parametrize(
    "tags", [{}, {"building:levels": "0"}, {"height": "0"}, {"roof:levels": "1"}, {"min_height": "3"}]
)
def test_building_without_height(tags: dict[str, str]) -> None:
    assert tagged_height(tags, 3.5) is None


def like(*tops: float, area: float = 200.0) -> Neighbours:
    """Neighbours of these heights, next door and of the same type and footprint."""
    n = len(tops)
    return Neighbours(np.array(tops), np.full(n, area), np.zeros(n), np.ones(n, dtype=bool))


def test_confidence_ranks_the_sources() -> None:
    tags = [{"height": "12"}, {"height": "~12"}, {"building:levels": "4"}]
    known = [height.confidence for one in tags if (height := tagged_height(one, 3.5))]
    imputed = [
        impute_height({}, ("way", 1), 200.0, near, statistics, 3.5, "neighbours", 0).confidence
        for near, statistics in [(like(9.0), _map()), (like(), _map()), (like(), HeightStatistics())]
    ]
    ranks = known + imputed
    assert len(ranks) == 6
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 6


def _map() -> HeightStatistics:
    """Three storeys would be guessed of each: 10, 5 and 4/3 for each of them."""
    tags = [{"height": "30"}, {"height": "15"}, {"building:levels": "4"}]
    return height_statistics([{"building": "yes"} | one for one in tags], [200.0] * 3)


def test_statistics_keep_metres_and_levels_apart() -> None:
    statistics = _map()
    assert (statistics.n_metres, statistics.n_levels) == (2, 1)
    assert (statistics.metres, statistics.levels) == (7.5, pytest.approx(4 / 3))
    assert height_statistics([{"building": "yes"}], [100.0]).n_tagged == 0


def test_storey_of_a_map_is_the_recipes_where_it_says_little() -> None:
    assert HeightStatistics().storey(3.25) == 3.25
    few = HeightStatistics(metres=7.0, n_metres=5)
    assert few.storey(3.5) == pytest.approx(math.sqrt(3.5 * 7.0), abs=0.05)
    many = HeightStatistics(levels=2.0, n_levels=10_000)
    assert many.storey(3.5) == pytest.approx(7.0, rel=1e-3)


def test_imputed_height_follows_the_id_and_the_seed() -> None:
    def top(number: int, seed: int) -> float:
        return impute_height({}, ("way", number), 200.0, like(), HeightStatistics(), 3.5, "geo2sigmap", seed).top

    assert top(7, 1) == top(7, 1)
    assert top(7, 1) != top(8, 1)
    assert top(7, 1) != top(7, 2)


def test_geo2sigmap_profile() -> None:
    tops = np.array(
        [impute_height({}, ("way", k), 200.0, like(), _map(), 3.5, "geo2sigmap", 0).top / 3.5 for k in range(2000)]
    )
    assert tops.min() >= 1
    assert tops.max() <= 15
    assert tops.mean() == pytest.approx(5, abs=0.1)
    assert tops.std() == pytest.approx(1, abs=0.06)


def imputed(kind: str, area: float, neighbours: Neighbours, statistics: HeightStatistics | None = None) -> float:
    tags = {"building": kind}
    return impute_height(tags, ("way", 1), area, neighbours, statistics or _map(), 3.5, "neighbours", 0).top


def test_neighbours_decide_before_the_map() -> None:
    assert imputed("yes", 200.0, like(8.0, 9.0, 30.0)) == 9.0
    # Two sheds next door say little of a block, and a block little of a house.
    mixed = Neighbours(
        np.array([3.0, 3.0, 21.0]), np.array([20.0, 20.0, 500.0]), np.array([5.0, 5.0, 40.0]), np.ones(3, dtype=bool)
    )
    assert imputed("yes", 450.0, mixed) == 21.0
    types = Neighbours(np.array([7.0, 28.0, 28.0]), np.full(3, 150.0), np.full(3, 10.0), np.array([True, False, False]))
    assert imputed("house", 150.0, types) == 7.0


@pytest.mark.parametrize(
    ("kind", "area"), [("yes", 9.0), ("garage", 30.0), ("shed", 60.0), ("kiosk", 40.0), ("garages", 300.0)]
)
def test_garages_sheds_and_kiosks_have_one_storey(kind: str, area: float) -> None:
    assert imputed(kind, area, like(28.0, 35.0)) == 3.5
    assert imputed(kind, area, like()) == 3.5


def test_type_and_footprint_decide_where_the_map_says_nothing() -> None:
    nothing = HeightStatistics()
    tops = {kind: imputed(kind, 150.0, like(), nothing) for kind in ("house", "terrace", "apartments", "church")}
    assert tops == {"house": 7.0, "terrace": 10.5, "apartments": 17.5, "church": 10.5}
    by_area = [imputed("yes", area, like(), nothing) for area in (40.0, 100.0, 200.0, 300.0, 1000.0)]
    assert by_area == [3.5, 7.0, 10.5, 14.0, 17.5]
    assert impute_height({}, ("way", 1), 200.0, like(), nothing, 3.5, "neighbours", 0).source == "guess"
    assert impute_height({}, ("way", 1), 200.0, like(), _map(), 3.5, "neighbours", 0).source == "imputed"


def test_guess_is_scaled_to_the_heights_of_the_map() -> None:
    low = HeightStatistics(metres=2.0, n_metres=1000)
    assert imputed("apartments", 300.0, like(), low) == pytest.approx(5 * 2.0, rel=0.01)
    assert imputed("garage", 30.0, like(), low) == 3.5


@pytest.mark.parametrize(
    ("tags", "top", "base"),
    [
        ({"building": "roof", "height": "5"}, 5, 4.5),
        ({"building": "roof", "height": "0.8"}, 0.8, 0.4),
        ({"building": "carport", "building:levels": "1"}, 3.5, 3),
        ({"building": "roof", "height": "5", "min_height": "3"}, 5, 3),
        ({"building": "roof"}, 4.5, 4),
        ({"building": "carport"}, 3, 2.5),
        ({"building": "roof", "min_height": "9"}, 9.5, 9),
    ],
)
def test_roof_is_a_slab_on_open_air(tags: dict[str, str], top: float, base: float) -> None:
    height = tagged_height(tags, 3.5) or impute_height(
        tags, ("way", 1), 299.0, like(202.0), _map(), 3.5, "neighbours", 0
    )
    assert (height.top, height.base) == (pytest.approx(top), pytest.approx(base))


def test_nearest_heights_are_near_and_sorted() -> None:
    others = np.array([[200.0, 0.0], [0.0, 100.0], [0.0, 10.0], [-20.0, 0.0]])
    tops, areas = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
    kinds = np.array(["a", "b", "a", "b"])
    near = nearest_heights(np.zeros(2), "a", others, tops, areas, kinds)
    assert near.tops.tolist() == [3, 4, 2]
    assert near.areas.tolist() == [30, 40, 20]
    assert near.distances.tolist() == [10, 20, 100]
    assert near.same_type.tolist() == [True, False, False]
    assert len(nearest_heights(np.zeros(2), "a", others, tops, areas, kinds, radius=50.0)) == 2
    assert len(nearest_heights(np.zeros(2), "a", np.empty((0, 2)), np.empty(0), np.empty(0), kinds[:0])) == 0


@given(st.text(max_size=10) | st.sampled_from(["yes", "shed", "office"]), st.floats(0, 1e6))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_any_building_has_some_storeys(kind: str, area: float) -> None:
    assert 1 <= guessed_storeys(kind, area) <= 6


# Any text, and text made of what real tags are made of.
SCRAPS = st.text(alphabet="0123456789.,;-~'\" mftcinea", max_size=12)
KEYS = ["height", "building:height", "min_height", "building:levels", "roof:levels", "building:min_level"]


# Hypothesis' first use of unicode text is slow on a busy machine.
@settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=12) | SCRAPS), st.floats(0.5, 10))
def test_no_tags_make_a_height_absurd(tags: dict[str, str], storey: float) -> None:
    tagged = tagged_height(tags, storey)
    imputed = impute_height(tags, ("way", 1), 200.0, like(), _map(), storey, "neighbours", 0)
    for height in (tagged, imputed):
        if height is not None:
            assert math.isfinite(height.top)
            assert math.isfinite(height.base)
            assert 0 <= height.base < height.top
            assert 0 < height.confidence <= 1


def test_unread_height_tags_are_counted_by_text() -> None:
    tags = [{"height": "tall"}, {"height": "tall", "building:levels": "3E"}, {"height": "3 floors"}, {"height": "9"}]
    assert unread_heights([{"building": "yes", "name": "x"} | one for one in tags]) == {
        "height=tall": 2,
        "building:levels=3E": 1,
    }
    assert unread_heights({"height": f"tall {k}"} for k in range(60))["other texts"] == 10
