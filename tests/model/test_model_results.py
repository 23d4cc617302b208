"""The table of records, and the rows and verdicts made of it."""

import math
import statistics

import pytest

from wavecity.model.results.table import Record, Row, records_of, rows_of, to_frame


def record(method, seed, value, x=math.nan, quantity="Error"):
    return Record(quantity, "somewhere", method, value, "m", "lower", seed, 10, x)


def test_rows_are_means_and_spreads_over_the_seeds():
    values = {10.0: (4.0, 5.0, 9.0), 100.0: (1.0, 2.0, 3.0)}
    records = [record("[PHYSC]", seed, value, x) for x, of in values.items() for seed, value in enumerate(of)]
    records += [record("kNN", 0, 7.0), record("CNN", 0, 8.0, 10.0)]
    rows = rows_of(to_frame(records, "task"))
    assert [row.x for row in rows] == [10.0, 100.0]
    for row in rows:
        assert row.values["[PHYSC]"] == pytest.approx(statistics.mean(values[row.x]))
        assert row.spread["[PHYSC]"] == pytest.approx(statistics.stdev(values[row.x]))
        # Without labels: beside every number of them; one value has no spread.
        assert row.values["kNN"] == 7.0
        assert "kNN" not in row.spread
    assert rows[0].values["CNN"] == 8.0
    assert "CNN" not in rows[1].values


def test_rows_of_one_seed_come_back_from_their_records():
    rows = [Row("Error", "here", "m", "lower", {"model": 1.0, "kNN": 2.0}), Row("F1", "", "", "higher", {"model": 0.5})]
    again = rows_of(to_frame(records_of(rows, 3, 100), "task"))
    assert [(row.quantity, row.condition, row.values) for row in again] == [
        (row.quantity, row.condition, row.values) for row in rows
    ]


@pytest.mark.parametrize(
    ("values", "better", "verdict"),
    [
        ({"model": -20.0, "OMP": -10.0, "zeros": 0.0}, "lower", "ahead of OMP"),
        ({"model": 50.0, "DFT": 83.0}, "higher", "behind DFT"),
        ({"model": 99.0, "DFT": 100.0}, "higher", "level with DFT"),
        ({"[PHYSC] + MLP": float("nan"), "CNN": 3.0}, "lower", "not measured"),
        ({"model": 1.0}, "lower", "not compared"),
        ({"model": 9.0, "raw": 5.0, "exhaustive search": 10.0}, "higher", "ahead of raw"),
    ],
)
def test_verdicts(values, better, verdict):
    assert Row("q", "c", "", better, values).verdict() == verdict


def test_a_gap_within_the_spread_is_no_lead():
    values = {"model": 10.0, "CNN": 12.0}
    assert Row("q", "c", "m", "lower", values, spread={"model": 0.5, "CNN": 0.5}).verdict() == "ahead of CNN"
    assert Row("q", "c", "m", "lower", values, spread={"model": 2.0, "CNN": 1.0}).verdict() == "level with CNN"
