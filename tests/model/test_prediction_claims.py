"""Claims about channel prediction from records written by hand."""

import numpy as np
import pytest

from wavecity.model.figures.drawing import style
from wavecity.model.figures.prediction import METHODS
from wavecity.model.report.papers import TEMPORAL, standing, standings_of
from wavecity.model.results.claims import judge
from wavecity.model.results.measures import Select, gain
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import Outcome
from wavecity.model.results.records import Condition, Record
from wavecity.model.results.rows import frame_of

MODEL, TWIN, DENSE, GRU = Method.MODEL_FINE_TUNED, Method.TWIN, Method.DENSE_TWIN, Method.GRU
RIDGE, PERSISTENCE, SPARSE = Method.RIDGE, Method.PERSISTENCE, Method.SPARSE_ATTENTION
BASELINES = (RIDGE, GRU, DENSE, PERSISTENCE)
ERROR = Metric.PREDICTION_NMSE
SHARES = (0.01, 1.0)


def outcome_of(values, more=()):
    """Values in dB by (method, kind, horizon): one for what takes no labels, else one a share; seeds differ by 0.1."""
    records = list(more)
    for (method, kind, horizon), value in values.items():
        where = Condition(user_kind=kind, horizon=horizon)
        if isinstance(value, float):
            records.append(Record(ERROR, method, value, 0, 60, condition=where))
            continue
        for share, level in zip(SHARES, value, strict=True):
            if level is not None:
                records += [
                    Record(ERROR, method, level + 0.1 * (seed - 1), seed, 60, share, where) for seed in range(3)
                ]
    return Outcome("prediction", {"facts": {}, "dataset_version": "v"}, frame_of(records), {})


def ahead(outcome, others=BASELINES, metric=ERROR, **how):
    return gain(Select(metric, (MODEL,), others, kind="absolute", **how), outcome)


@pytest.fixture
def outcome():
    return outcome_of(
        {
            (MODEL, "walker", 1): (-20.0, -24.0), (MODEL, "walker", 8): (-12.0, -14.0),
            (MODEL, "vehicle", 1): (-10.0, -12.0), (MODEL, "vehicle", 8): (-3.0, -5.0),
            (TWIN, "walker", 1): (-1.0, -20.0), (TWIN, "walker", 8): (0.0, -10.0),
            (TWIN, "vehicle", 1): (0.0, -4.0), (TWIN, "vehicle", 8): (1.0, -2.0),
            (DENSE, "walker", 1): (None, -19.0), (DENSE, "walker", 8): (None, -9.0),
            (DENSE, "vehicle", 1): (None, -4.0), (DENSE, "vehicle", 8): (None, -2.0),
            (GRU, "walker", 1): (-5.0, -10.0), (GRU, "walker", 8): (0.0, 0.0),
            (GRU, "vehicle", 1): (0.0, 0.0), (GRU, "vehicle", 8): (0.0, 0.0),
            (RIDGE, "walker", 1): -30.0, (RIDGE, "walker", 8): -13.0,
            (RIDGE, "vehicle", 1): -8.0, (RIDGE, "vehicle", 8): -1.0,
            (PERSISTENCE, "walker", 1): -11.0, (PERSISTENCE, "walker", 8): 3.0,
            (PERSISTENCE, "vehicle", 1): 4.0, (PERSISTENCE, "vehicle", 8): 3.0,
        },
        [Record(Metric.ATTENTION_FACTOR, SPARSE, 3072 / 128, 0, 3072)],
    )  # fmt: skip


def claim_of(key):
    return next(claim for claim in TEMPORAL.claims if claim.key == key)


def test_gains_are_means_over_conditions_against_the_best_rival_by_seed(outcome):
    # Longest horizon, all labels, ridge the nearest: (-13 + 14) and (-1 + 5), mean 2.5; seeds at -0.1, 0, 0.1.
    found = ahead(outcome, at="most", longest=True)
    np.testing.assert_allclose(sorted(found.gains), [2.4, 2.5, 2.6])
    assert outcome.name(RIDGE) in found.text
    assert found.samples == "120 users · walker, vehicle · horizon 8 · labels 100 % · 3 seeds"
    # Ridge among walkers: (-30 + 24) and (-13 + 14), mean -2.5; the others are farther.
    np.testing.assert_allclose(np.mean(ahead(outcome, at="most", over="worst kind").gains), -2.5)
    # Fewest labels: ridge -10, -1, 2, 2; mean -1.75.
    np.testing.assert_allclose(np.mean(ahead(outcome, at="fewest").gains), -1.75)
    # Twin: 19, 12, 10, 4.
    np.testing.assert_allclose(np.mean(ahead(outcome, (TWIN,), at="fewest").gains), 11.25)


def test_a_rival_that_was_not_trained_with_the_fewest_labels_does_not_count_there(outcome):
    assert ahead(outcome, (DENSE,), at="fewest") is None
    np.testing.assert_allclose(np.mean(ahead(outcome, (DENSE,), at="most").gains), (5 + 5 + 8 + 3) / 4)
    assert ahead(outcome, (RIDGE,), Metric.PREDICTION_CLEAN_NMSE) is None


def test_verdicts_follow_the_rule(outcome):
    verdicts = {claim.key: judge(claim, {"prediction": outcome}).verdict for claim in TEMPORAL.claims}
    assert verdicts == {
        "prediction-long": "shown",
        "prediction-regimes": "contradicted",
        "prediction-few": "contradicted",
        "prediction-pretraining": "shown",
        "prediction-sparse": "shown",  # the twin is 0.5 dB ahead; no worse than 0.5 dB behind is enough
        "prediction-pairs": "shown",  # 3072 / 128 = 24
        "prediction-ridge": "shown",  # (-6 + 1 + 4 + 4) / 4 less one deviation of 0.1 exceeds 0.5
        "prediction-ridge-few": "contradicted",
        "prediction-ridge-clean": "not measured",
        "prediction-network": "not measured",
        "prediction-zero": "not measured",
    }
    assert "0.5 dB where it gives a direction only" in TEMPORAL.rule
    assert judge(claim_of("prediction-long"), {}).verdict == "not measured"


def test_users_of_one_kind_may_be_too_few_where_those_of_all_are_not(outcome):
    few = Outcome(outcome.task, outcome.result, outcome.frame.assign(n=30), {})
    assert judge(claim_of("prediction-long"), {"prediction": few}).verdict == "shown"
    item = judge(claim_of("prediction-regimes"), {"prediction": few})
    assert (item.verdict, item.lacks) == ("too small to tell", "30 of 50 tested users")
    assert judge(claim_of("prediction-pairs"), {"prediction": few}, None, "little").verdict == "shown"


def test_plain_words_count_comparisons_with_one_rival_at_a_time(outcome):
    # Of eight, at 1 %: -20 behind -30, -12 behind -13, ahead twice; at 100 %: behind once, ahead thrice.
    ridge = standing(outcome, RIDGE)
    assert (ridge.ahead, ridge.level, ridge.behind) == (5, 0, 3)
    assert (ridge.fewest, ridge.most) == ("-1.8 ± 0.1 dB with 1 %", "0.8 ± 0.1 dB with 100 %")
    assert standing(outcome, DENSE).total == 4
    held = standing(outcome, PERSISTENCE)
    assert (held.ahead, held.behind) == (8, 0)
    found = standings_of({"prediction": outcome})
    assert found.sentence.startswith(
        "The fine-tuned model beats ridge (AR) of each sample in 5 of 8 comparisons of kind of user, horizon and"
    )
    assert found.standings[0] == ridge
    worse = outcome_of({(MODEL, "walker", 1): (-5.0, -6.0), (RIDGE, "walker", 1): -20.0})
    assert "does not beat ridge (AR) of each sample anywhere" in standings_of({"prediction": worse}).sentence
    assert standings_of({"prediction": outcome_of({(MODEL, "walker", 1): (-5.0, -6.0)})}) is None


def test_each_method_has_a_colour_of_its_own():
    assert len({style(name)["color"] for name in METHODS}) == len(METHODS)
    assert all(style(MODEL)["linewidth"] > style(name)["linewidth"] for name in METHODS if name != MODEL)
