import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def test_confidence_ranks_the_sources() -> None:
    tags = [{"height": "12"}, {"height": "~12"}, {"building:levels": "4"}]
    known = [height.confidence for one in tags if (height := tagged_height(one, 3.5))]
    imputed = [
        impute_height({}, ("way", 1), 200.0, near, statistics, 3.5, "neighbours", 0).confidence
        for near, statistics in [([9.0], _map()), ([], _map()), ([], HeightStatistics())]
    ]
    ranks = known + imputed
    assert len(ranks) == 6
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 6


def _map() -> HeightStatistics:
    return height_statistics([{"height": "30"}, {"height": "10"}, {"building:levels": "4"}])


def test_statistics_keep_metres_and_levels_apart() -> None:
    statistics = _map()
    assert (statistics.n_metres, statistics.n_levels) == (2, 1)
    assert (statistics.metres[0], statistics.metres[50], statistics.metres[-1]) == (10, 20, 30)
    assert set(statistics.levels) == {4}


def test_imputed_height_follows_the_id_and_the_seed() -> None:
    def top(number: int, seed: int) -> float:
        return impute_height({}, ("way", number), 200.0, [], HeightStatistics(), 3.5, "geo2sigmap", seed).top

    assert top(7, 1) == top(7, 1)
    assert top(7, 1) != top(8, 1)
    assert top(7, 1) != top(7, 2)


def test_geo2sigmap_profile() -> None:
    tops = np.array(
        [impute_height({}, ("way", k), 200.0, [], _map(), 3.5, "geo2sigmap", 0).top / 3.5 for k in range(2000)]
    )
    assert tops.min() >= 1
    assert tops.max() <= 15
    assert tops.mean() == pytest.approx(5, abs=0.1)
    assert tops.std() == pytest.approx(1, abs=0.06)


def test_neighbours_decide_before_the_map() -> None:
    near = [8.0, 9.0, 10.0]
    tops = {impute_height({}, ("way", k), 200.0, near, _map(), 3.5, "neighbours", 0).top for k in range(60)}
    assert tops == set(near)
    kiosk = impute_height({}, ("way", 1), 9.0, near, _map(), 3.5, "neighbours", 0)
    assert kiosk.top == 3.5


def test_nearest_heights_are_near_and_sorted() -> None:
    others = np.array([[200.0, 0.0], [0.0, 100.0], [0.0, 10.0], [-20.0, 0.0]])
    heights = np.array([1.0, 2.0, 3.0, 4.0])
    assert nearest_heights(np.zeros(2), others, heights).tolist() == [3, 4, 2]
    assert nearest_heights(np.zeros(2), np.empty((0, 2)), np.empty(0)).tolist() == []


# Any text, and text made of what real tags are made of.
SCRAPS = st.text(alphabet="0123456789.,;-~'\" mftcinea", max_size=12)
KEYS = ["height", "building:height", "min_height", "building:levels", "roof:levels", "building:min_level"]


# Hypothesis' first use of unicode text is slow on a busy machine.
@settings(deadline=None, derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=12) | SCRAPS), st.floats(0.5, 10))
def test_no_tags_make_a_height_absurd(tags: dict[str, str], storey: float) -> None:
    tagged = tagged_height(tags, storey)
    imputed = impute_height(tags, ("way", 1), 200.0, [], _map(), storey, "neighbours", 0)
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
