"""Claims of the paper, judged by one rule: gains from results tables, and what becomes of them."""

import numpy as np
import pytest
from synthetic_results import claim_of, outcome_of, silhouettes

from wavecity.model.results import claims, measures
from wavecity.model.results.claims import judge, verdict
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Record

LOCAL, CROSS = Metric.LOCATION_ERROR, Metric.CROSS_LOCATION_ERROR


@pytest.mark.parametrize(
    ("gains", "size", "opposite", "expected"),
    [
        ((24, 25, 26), 20, -2, "shown"),  # mean 25, standard deviation 1
        ((15, 25, 35), 20, -2, "not shown"),  # 25 - 10 is below 20
        ((20.5, 21.5, 22.5), 20, -2, "shown"),
        ((20.2, 21.0, 21.8), 20.25, -2, "not shown"),  # 21 - 0.8 = 20.2
        ((-4, -5, -6), 20, -2, "contradicted"),  # -5 + 1 = -4
        ((-2, -3, -4), 20, -2, "not shown"),  # -3 + 1 = -2 is not below -2
        ((30, float("nan"), 31, 32), 20, -2, "shown"),
        ((float("nan"),) * 3, 20, -2, "not measured"),
    ],
)
def test_the_rule(gains, size, opposite, expected):
    claim = claims.Claim("k", "5", "s", "t", "c", "mu-mimo", size=size, opposite=opposite)
    assert verdict(claim, np.array(gains, float)) == expected


@pytest.mark.parametrize(
    ("seeds", "users", "pretraining", "expected", "lacks"),
    [
        (3, 50, "", "shown", ""),
        (2, 50, "", "too small to tell", "2 of 3 seeds"),
        (3, 49, "", "too small to tell", "49 of 50 tested users"),
        (3, 50, "pretrained on 9 of 10 users", "too small to tell", "pretrained on 9 of 10 users"),
        (1, 24, "p", "too small to tell", "1 of 3 seeds, 24 of 50 tested users, p"),
    ],
)
def test_a_verdict_needs_seeds_and_users(seeds, users, pretraining, expected, lacks):
    records = [
        Record(LOCAL, name, value, seed, users, 100)
        for name, value in ((Method.PHYSC_MLP, 10.0), (Method.RAW_CNN, 20.0))
        for seed in range(seeds)
    ]
    item = judge(claim_of("local-share"), {"localization": outcome_of(records, "localization")}, None, pretraining)
    assert (item.verdict, item.lacks) == (expected, lacks)
    # What does not depend on who is drawn needs no users, and was not pretrained to be quick.
    records = [Record(Metric.LATENCY, Method.MODEL_ONNX, 4.0, 5, 2)]
    assert judge(claim_of("latency"), {"latency": outcome_of(records, "latency")}, None, pretraining).verdict == "shown"


def test_fifty_users_are_as_many_as_the_rule_says():
    """Two shares of 50 independent users each differ by up to 20 points in 95 of 100 draws, where users are half and half."""
    rng = np.random.default_rng(0)
    first, second = rng.binomial(claims.USERS, 0.5, (2, 100_000)) / claims.USERS
    # Between two possible values, for a share of 50 comes in steps of 2 points.
    assert np.mean(np.abs(first - second) < 0.195) < 0.95 < np.mean(np.abs(first - second) < 0.215)


def test_users_of_a_rate_over_clusters_are_those_in_them():
    records = [
        Record(Metric.MU_RATE, name, value, seed, 7, x)
        for name, value in ((Method.PHYSC_PROBE, 30.0), (Method.OMP_4_BEAM, 20.0), (Method.RAW_PROBE, 20.0))
        for x in (0.2, 0.8)
        for seed in range(3)
    ]
    records.append(Record(Metric.MU_RATE, Method.EXHAUSTIVE_SEARCH, 31.0, 0, 7))
    outcome = outcome_of(records, facts={"users_a_cluster": 8})
    for key in ("mu-simple-rate", "mu-near", "mu-fewer"):
        assert claim_of(key).measured(outcome).users == 56, key


def test_a_gain_is_the_mean_over_labels_of_paired_differences():
    """Two labels, three seeds, by hand."""
    ours = {100: (10.0, 11.0, 12.0), 300: (8.0, 8.0, 9.0)}
    cnn = {100: (20.0, 20.0, 24.0), 300: (16.0, 10.0, 12.0), 1000: (1.0, 1.0, 1.0)}
    records = [
        Record(LOCAL, name, value, seed, 50, x)
        for name, table in ((Method.PHYSC_MLP, ours), (Method.RAW_CNN, cnn))
        for x, values in table.items()
        for seed, value in enumerate(values)
    ]
    found = claim_of("local-share").measured(outcome_of(records, "localization"))
    np.testing.assert_allclose(found.gains, [(50 + 50) / 2, (45 + 20) / 2, (50 + 25) / 2])
    assert "[PHYSC] + MLP 9.7 ± 0.8" in found.text  # means 9, 9.5, 10.5
    assert found.samples == "50 users · labels 100, 300 · 3 seeds"
    metres = claim_of("local-metres").measured(outcome_of(records, "localization"))
    np.testing.assert_allclose(metres.gains, [9, 5.5, 7.5])
    few = claim_of("local-few").measured(outcome_of(records, "localization"))
    np.testing.assert_allclose(few.gains, [10 - 8, 9 - 2, 12 - 3])


def test_the_best_rival_counts_and_what_takes_no_labels_stands_at_every_ratio():
    records = []
    for name, values in ((Method.PHYSC_PROBE, (80, 90)), (Method.DFT_PROBE, (60, 70))):
        for x, value in zip((0.1, 0.2), values, strict=True):
            records += [Record(Metric.BEAM_TOP5, name, value + s, s, 90, x) for s in range(3)]
    records.append(Record(Metric.BEAM_TOP5, Method.OMP_4_BEAM, 91.0, 0, 90))
    found = claim_of("mu-simple").measured(outcome_of(records))
    np.testing.assert_allclose(found.gains, [85 - 91, 86 - 91, 87 - 91])
    assert "OMP, 4 paths, no labels 91.0" in found.text
    assert judge(claim_of("mu-simple"), {"mu-mimo": outcome_of(records)}).verdict == "contradicted"


def test_zero_shot_and_adaptation():
    values = {Method.PHYSC_MLP: {0: 20.0, 20: 18.0, 100: 15.0}, Method.RAW_CNN: {0: 40.0, 20: 44.0, 100: 30.0}}
    records = [
        Record(CROSS, name, value + 0.1 * seed, seed, 80, x)
        for name, table in values.items()
        for x, value in table.items()
        for seed in range(3)
    ]
    # One record stands for all seeds where nothing depends on them.
    records += [Record(CROSS, Method.KNN, 30.0, 0, 80, 0)]
    records += [Record(CROSS, Method.KNN, 10.0, s, 80, 20) for s in range(3)]
    outcomes = {"cross-localization": outcome_of(records, "cross-localization")}
    judged = {key: judge(claim_of(key), outcomes) for key in ("cross-zero", "cross-more", "cross-cnn", "cross-knn")}
    assert {key: item.verdict for key, item in judged.items()} == {
        "cross-zero": "shown",
        "cross-more": "shown",
        "cross-cnn": "shown",
        "cross-knn": "contradicted",
    }
    np.testing.assert_allclose(claim_of("cross-more").measured(outcomes["cross-localization"]).gains[0], 25.0)
    np.testing.assert_allclose(claim_of("cross-cnn").measured(outcomes["cross-localization"]).gains[0], 10.0)
    # 0 labels: (30 - 20)/30, 20 labels: (10 - 18)/10.
    np.testing.assert_allclose(
        claim_of("cross-knn").measured(outcomes["cross-localization"]).gains[0], 100 * (1 / 3 - 0.8) / 2
    )


def test_share_of_the_bound_fewer_labels_and_the_ratio_the_paper_names():
    rate = Metric.MU_RATE
    records = []
    for name, values in ((Method.PHYSC_PROBE, (30, 38, 39)), (Method.RAW_PROBE, (10, 20, 37))):
        for x, value in zip((0.05, 0.2, 0.8), values, strict=True):
            records += [Record(rate, name, value, s, 12, x) for s in range(3)]
    records.append(Record(rate, Method.EXHAUSTIVE_SEARCH, 39.5, 0, 12))
    outcome = outcome_of(records)
    np.testing.assert_allclose(claim_of("mu-near").measured(outcome).gains, 100 * 38 / 39.5)
    np.testing.assert_allclose(claim_of("mu-fewer").measured(outcome).gains, 100 * (38 - 37) / 37)
    assert claim_of("mu-near").measured(outcome).samples == "12 clusters · labels 20 % · 3 seeds"
    # 10 % was not run, 5 and 20 % are as near as is allowed; nothing within a factor of two of 0.3 % is.
    assert measures.row_at(np.array([0.05, 0.2, 0.8]), 0.1) in (0, 1)
    assert measures.row_at(np.array([0.2, 0.8]), 0.05) is None
    assert claim_of("su-rate").measured(outcome) is None


def test_the_weakest_head_counts():
    records = []
    for hidden, ours in (("none", 50), ("32", 43), ("32-32", 60)):
        for name, value in ((Method.PHYSC_HEAD, ours), (Method.RAW_HEAD, 40)):
            where = Condition(hidden_layers=hidden, learning_rate=1e-3)
            records += [Record(Metric.BEAM_TOP5, name, value, s, 9, 0.1, where) for s in range(3)]
    found = claim_of("heads-large").measured(outcome_of(records))
    np.testing.assert_allclose(found.gains, 3)
    assert found.samples == "9 users · hidden 32, learning rate 0.001 · labels 10 % · 3 seeds"
    assert found.text == "smallest gain 3.0 ± 0.0 points ([PHYSC], head 43.0 ± 0.0, raw CSI, head 40.0 ± 0.0 %)"
    assert judge(claim_of("heads-small"), {"mu-mimo": outcome_of(records)}).verdict == "not measured"


def test_silhouettes_and_milliseconds():
    item = judge(claim_of("mu-clusters"), {"mu-mimo": outcome_of(silhouettes(0.2, 0.01, 60))})
    assert (item.verdict, item.text, item.samples) == (
        "shown", "gain 0.19 ([PHYSC] 0.20, raw CSI 0.01)", "60 users · 1 seed",
    )  # fmt: skip
    for slowest, expected in ((4.0, "shown"), (40.0, "not shown"), (150.0, "contradicted")):
        records = [
            Record(Metric.LATENCY, method, value, 5, 200, condition=Condition(csi_masked=masked, threads=1))
            for masked, method, value in (
                (0.75, Method.MODEL_PYTORCH, 2 * slowest),
                (0.75, Method.MODEL_ONNX, slowest),
                (0.5, Method.MODEL_PYTORCH, 1.0),
            )
        ]
        item = judge(claim_of("latency"), {"latency": outcome_of(records, "latency")})
        assert item.verdict == expected
        assert f"{slowest:.2f} ms by model in ONNX Runtime" in item.text
