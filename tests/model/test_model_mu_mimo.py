"""Beams and sum-rates of clusters, against loops in numpy and torch's own losses."""

import dataclasses
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic import make_data
from synthetic_results import check_spec

from wavecity.dataset import InputError
from wavecity.model.data.users import gather, geometry_of
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE, Condition
from wavecity.model.results.rows import frame_of, rows_of
from wavecity.model.settings.training import (
    EvaluationSettings,
    HeadSettings,
    LinkSettings,
    MuMimoSettings,
    TrainingSettings,
)
from wavecity.model.tasks.beams import mu_mimo as task
from wavecity.model.tasks.beams import probes as beam_probes
from wavecity.model.tasks.beams.receivers import link_of, raw_entries, with_channel
from wavecity.raytrace.arrays import dft_codebook

MODEL = {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "height_patch": 20, "spectrum_channels": 4}
HEADS = {"seeds": 2, "steps": 20, "batch_size": 32, "learning_rates": (3e-3, 3e-2)}
HEADS |= {"finetune_steps": 2, "finetune_batch": 4, "finetune_rates": (1e-3,)}
TASK = {"ratios": (0.02, 0.4, 0.8), "cluster": 4, "hidden": ((), (8,)), "ablation_rates": (1e-2,)}


def predictor_of(data):
    settings = TrainingSettings.model_validate(
        {"model": MODEL, "losses": {"spectrum_form": "kl"}, "accelerator": "cpu"}
    )
    torch.manual_seed(3)
    model = FoundationModel(settings.model, geometry_of(data, settings.model)).eval()
    return Predictor(model, settings, data.statistics, data, batch_size=16)


def settings_of(**changes):
    return EvaluationSettings.model_validate({"heads": HEADS, "omp_atoms": 6, "mu_mimo": TASK | changes})


@pytest.fixture(scope="module")
def predictor(data):
    return predictor_of(data)


@pytest.fixture(scope="module")
def findings(predictor, data):
    return task.mu_mimo(predictor, data, settings_of(), 5)


def literal_rate(h, beams, power, noise):
    """Sum rate of one cluster, eqs 10-12 and 18-21 in numpy: h (K, x, y)."""
    columns, rows = h.shape[1:]
    h = h.reshape(len(h), -1).astype(np.complex128)
    analog = dft_codebook(columns, rows)[beams].reshape(len(h), -1).T
    effective = h.conj() @ analog
    alpha = columns * rows * len(h) * noise / power
    digital = effective.conj().T @ np.linalg.inv(effective @ effective.conj().T + alpha * np.eye(len(h)))
    digital *= np.sqrt(power) / np.linalg.norm(analog @ digital)
    received = np.abs(effective @ digital) ** 2
    signal = received.diagonal()
    return np.log2(1 + signal / (received.sum(1) - signal + noise)).sum()


# What heads learn from


def test_one_label_is_torch_s_weighted_cross_entropy():
    logits, truth = torch.randn(9, 5), torch.tensor([0, 1, 2, 3, 3, 3, 0, 1, 4])
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 3.0])
    expected = torch.nn.functional.cross_entropy(logits, truth, weight)
    torch.testing.assert_close(beam_probes.weighted_cross_entropy(weight)(logits, truth[:, None]), expected)


def test_two_labels_are_a_soft_target():
    logits, truth = torch.randn(6, 4), torch.tensor([[0, 1], [1, 2], [3, 0], [2, 1], [0, 3], [1, 3]])
    target = torch.zeros(6, 4)
    target[torch.arange(6), truth[:, 0]], target[torch.arange(6), truth[:, 1]] = 0.75, 0.25
    found = beam_probes.weighted_cross_entropy(torch.ones(4), (0.75, 0.25))(logits, truth)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(logits, target))


def test_held_back_users_count_if_labelled_beams_have_no_share_in_them():
    loss = beam_probes.weighted_cross_entropy(torch.tensor([1.0, 0.0, 0.0]))
    logits = torch.randn(4, 3)
    unseen = torch.tensor([1, 2, 1, 2])
    torch.testing.assert_close(loss(logits, unseen[:, None]), torch.nn.functional.cross_entropy(logits, unseen))
    some = torch.tensor([0, 2, 1, 2])
    torch.testing.assert_close(loss(logits, some[:, None]), torch.nn.functional.cross_entropy(logits[:1], some[:1]))


def test_rare_beams_weigh_more_and_beams_without_a_label_nothing():
    pool = beam_probes.Pool.of(torch.tensor([[7], [7], [7], [7], [2], [9]]), 16, (1.0,), 0)
    assert pool.classes.tolist() == [2, 7, 9]
    # Four users of beam 7, one of beam 2, none of 9: weights 1 / sqrt(4), 1 and 0.
    logits = torch.randn(6, 3)
    each = -logits.log_softmax(1)[torch.arange(6), pool.label[:, 0]]
    expected = (each[:4].sum() / 2 + each[4]) / (4 / 2 + 1)
    torch.testing.assert_close(pool.loss(pool.label[:5])(logits, pool.label), expected)


def test_labels_are_nested_and_of_the_seed_alone():
    pool = beam_probes.Pool.of(torch.arange(50)[:, None], 64, (1.0,), 3)
    many, few = pool.labelled(40, 1), pool.labelled(10, 1)
    assert few.tolist() == many[:10].tolist()
    assert len(many.unique()) == 40
    assert pool.labelled(10, 2).tolist() != few.tolist()
    assert dataclasses.replace(pool, seed=4).labelled(10, 1).tolist() != few.tolist()


def test_a_probe_finds_beams_that_the_features_tell():
    """Features are the beam's row of an orthogonal matrix, with noise; beams 3, 10, 11 and 40 of 64."""
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.normal(size=(6, 6)))[0][:4]
    beams = torch.tensor([3, 10, 11, 40])
    label = torch.from_numpy(rng.integers(0, 4, 300))
    features = torch.from_numpy(rows[label] + 0.1 * rng.normal(size=(300, 6))).float()
    pool = beam_probes.Pool.of(beams[label[:200], None], 64, (1.0,), 0)
    heads = HeadSettings(seeds=2, steps=60, learning_rates=(1e-5, 3e-2))
    found = list(beam_probes.probe((features[:200], features[200:]), pool, 100, heads))
    assert [(seed, rate) for seed, _, rate in found] == [(0, 3e-2), (1, 3e-2)]
    for _, scores, _ in found:
        assert scores.shape == (100, 64)
        assert (scores.argmax(1) == beams[label[200:]]).float().mean() > 0.97
        assert scores.isfinite().any(0).nonzero()[:, 0].tolist() == beams.tolist()


# What is seen


def test_raw_entries_are_the_visible_ones_and_their_level(predictor, data):
    users = gather(data.splits["test"], 5)
    visible = predictor.pilots(0.05, 1)
    assert len(visible) == 3
    found = raw_entries(predictor, users.csi, visible).numpy()
    assert found.shape == (5, 97)
    for user, h in enumerate(users.csi.numpy().astype(np.complex128)):
        patches = [h[4 * (p // 8) : 4 * (p // 8) + 4, 4 * (p % 8) : 4 * (p % 8) + 4].ravel() for p in visible.tolist()]
        rms = np.sqrt(np.mean(np.abs(patches) ** 2))
        parts = np.concatenate([np.concatenate((p.real, p.imag)) for p in patches]) / rms
        np.testing.assert_allclose(found[user, :-1], parts, rtol=1e-5, atol=1e-6)
        level = (20 * np.log10(rms) - data.statistics.csi_rms_db_mean) / data.statistics.csi_rms_db_std
        assert found[user, -1] == pytest.approx(level, rel=1e-4)


def test_no_method_sees_hidden_patches(predictor, data):
    users = gather(data.splits["test"], 6)
    visible = predictor.pilots(0.05, 1)
    shown = predictor.shown(visible)
    changed = replace(users, csi=torch.where(shown, users.csi, 1e-3 * torch.randn(32, 32)), position=-users.position)
    first, second = (task.partial_views(predictor, group, visible, 0) for group in (users, changed))
    assert set(first) == {Method.PHYSC_PROBE, Method.RAW_PROBE, Method.DFT_PROBE, Method.UNTRAINED_PROBE}
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=1e-4, atol=1e-5)


# Clusters and rates


def test_clusters_are_of_one_scene_and_disjoint(data):
    config = MuMimoSettings(cluster=5, test_users=30)
    test = task.gather_clusters(data, config, 1)
    assert len(test) == 30
    assert (test.scene.view(-1, 5) == test.scene.view(-1, 5)[:, :1]).all()
    assert len(test.position.unique(dim=0)) == 30
    # 24 users a scene: the four that do not fill a cluster stay out.
    whole = task.gather_clusters(data, MuMimoSettings(cluster=5), 1)
    assert torch.bincount(whole.scene)[6:].tolist() == [20, 20]
    other = task.gather_clusters(data, MuMimoSettings(cluster=5), 2)
    assert not torch.equal(whole.position, other.position)
    few = task.gather_clusters(data, MuMimoSettings(cluster=10, test_users=12), 1)
    assert len(few) == 10


def test_too_small_scenes_are_named(data):
    with pytest.raises(
        InputError,
        match=r"synthetic: training\.evaluation\.mu_mimo\.cluster is 30, but the largest test scene has 24 users",
    ):
        task.gather_clusters(data, MuMimoSettings(cluster=30), 0)


def test_too_few_labels_are_named():
    assert beam_probes.label_counts((0.4, 0.1, 0.02), 120, "x", "mu_mimo.ratios") == {0.1: 12, 0.4: 48}
    with pytest.raises(
        InputError,
        match=r"x: training\.evaluation\.mu_mimo\.ratios: the largest, 0\.1, gives 5 labels of 50 training users",
    ) as error:
        beam_probes.label_counts((0.1, 0.02), 50, "x", "mu_mimo.ratios")
    assert "\n" not in str(error.value)


def test_users_in_outage_take_no_part():
    data = make_data(users=12, seed=2)
    for split in ("train", "test"):
        data.splits[split].arrays["csi"][::3] = 0
    assert len(with_channel(gather(data.splits["train"]))) == 32
    test = task.gather_clusters(data, MuMimoSettings(cluster=4), 0)
    assert len(test) == 16
    assert (test.csi != 0).flatten(1).any(1).all()


def test_rates_and_hits_are_those_of_loops(data):
    rng = np.random.default_rng(4)
    test = task.gather_clusters(data, MuMimoSettings(cluster=4, test_users=16), 0)
    link = link_of(LinkSettings(power_dbm=20))
    noise = 10 ** ((-174 + 10 * math.log10(100e6) + 7) / 10 - 3)
    assert (link.power, link.noise) == (pytest.approx(0.1), pytest.approx(noise))
    served = task.ServedClusters(test, 4, link)
    codebook = dft_codebook(32, 32).reshape(1024, -1)
    power = np.abs(test.csi.numpy().reshape(-1, 1024).conj() @ codebook.T) ** 2
    label = power.argmax(1)
    assert served.label.tolist() == label.tolist()
    # Labels of four users are first, third, sixth, and without a score.
    scores = rng.uniform(size=(16, 1024))
    for user in range(16):
        scores[user, label[user]] = (3, 1.5, 1.2, -math.inf)[user % 4]
        others = [beam for beam in range(1024) if beam != label[user]]
        scores[user, others[:2]], scores[user, others[2:5]] = 2, 1.3
    served.add(Method.PHYSC_PROBE, torch.from_numpy(scores), 0.1, 1)
    served.add_rates(Method.EXHAUSTIVE_SEARCH, served.label, float("nan"), 0, WHOLE, None)
    found = {(record.metric, record.method): record for record in served.records}
    assert found[Metric.BEAM_TOP1, Method.PHYSC_PROBE].value == 25
    assert found[Metric.BEAM_TOP5, Method.PHYSC_PROBE].value == 50
    assert found[Metric.BEAM_TOP5, Method.PHYSC_PROBE].n == 16
    for method, beams in ((Method.PHYSC_PROBE, scores.argmax(1)), (Method.EXHAUSTIVE_SEARCH, label)):
        rates = [
            literal_rate(test.csi.numpy()[part], beams[part], 0.1, noise)
            for part in (slice(c, c + 4) for c in range(0, 16, 4))
        ]
        assert found[Metric.MU_RATE, method].value == pytest.approx(np.mean(rates), rel=1e-6)
        assert found[Metric.MU_RATE, method].n == 4


# The task


def test_claims_and_figures_find_their_records(predictor, data):
    rates = {"ablation_rates": (1e-3, 1e-4), "hidden": ((),)}
    check_spec(task.SPECS[0], task.mu_mimo(predictor, data, settings_of(**rates), 5))


def under(frame, metric, condition):
    of_metric = frame[frame["metric"] == metric]
    return of_metric[[one == condition for one in of_metric["condition"]]]


def test_every_method_is_measured_at_every_ratio_with_labels_enough(findings):
    frame = frame_of(findings.records)
    assert not frame.duplicated(["metric", "condition", "method", "x", "seed"]).any()
    assert set(frame["paths"]) == {None, 6}
    assert frame["value"].notna().all()
    assert findings.facts["labels"] == {"0.4": 38, "0.8": 77}
    assert findings.facts["ratios_left_out"] == [0.02]
    probes = {Method.PHYSC_PROBE, Method.RAW_PROBE, Method.DFT_PROBE, Method.UNTRAINED_PROBE}
    together = {Method.PHYSC_FINE_TUNED, Method.TWIN}
    free = {
        Method.MODEL_SPECTRUM_BEAM, Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.OMP_BEAM, Method.SBL_BEAM
    }  # fmt: skip
    for metric in (Metric.BEAM_TOP1, Metric.BEAM_TOP5, Metric.MU_RATE):
        by_method = dict(list(under(frame, metric, WHOLE).groupby("method")))
        assert set(by_method) == probes | together | free | (
            {Method.EXHAUSTIVE_SEARCH} if metric == Metric.MU_RATE else set()
        )
        for name in probes:
            assert sorted(zip(by_method[name]["x"], by_method[name]["seed"], strict=True)) == [
                (0.4, 0), (0.4, 1), (0.8, 0), (0.8, 1)
            ]  # fmt: skip
        for name in free:
            assert by_method[name]["x"].isna().all()
            assert len(by_method[name]) == 1
        for name in together:
            assert set(by_method[name]["x"]) == {0.8}
            assert by_method[name]["seed"].tolist() == [0, 1]
        for hidden in ("none", "8"):
            where = Condition(hidden_layers=hidden, learning_rate=0.01)
            heads = under(frame, metric, where)
            assert sorted(heads["method"].unique()) == sorted((Method.PHYSC_HEAD, Method.RAW_HEAD))
            assert len(heads) == 8
    assert len(rows_of(frame)) == 3 * 2 * 3


def test_facts_are_plain_and_rates_stay_below_the_bound(findings):
    facts = json.loads(json.dumps(findings.facts))
    assert facts["test_users"] == 48
    assert facts["clusters"] == 12
    assert facts["feature_width"][Method.RAW_PROBE] == 97
    assert facts["feature_width"][Method.DFT_PROBE] == 1024
    assert set(facts["learning_rates"][Method.PHYSC_PROBE]) == {"0.4", "0.8"}
    assert -1 <= facts["silhouette_physc"] <= 1
    rates = [record.value for record in findings.records if record.metric == Metric.MU_RATE]
    assert max(rates) <= facts["fully_digital_bound"]
    assert facts["fully_digital_rzf"] <= facts["fully_digital_bound"]


def test_the_curves_of_clusters_have_the_means_of_the_records(findings):
    arrays = findings.arrays
    methods = arrays["ecdf_methods"].tolist()
    assert Method.EXHAUSTIVE_SEARCH in methods
    assert Method.TWIN not in methods
    assert arrays["ecdf_rates"].shape == (2, len(methods), 12)
    assert arrays["ecdf_ratios"].tolist() == [0.4, 0.8]
    for record in findings.records:
        if record.metric == Metric.MU_RATE and record.method in methods and record.seed == 0:
            column = arrays["ecdf_rates"][:, methods.index(record.method)].mean(1)
            found = column if math.isnan(record.x) else column[arrays["ecdf_ratios"] == record.x]
            np.testing.assert_allclose(found, record.value, rtol=1e-5)
    assert arrays["tsne_raw"].shape == arrays["tsne_physc"].shape == (48, 2)
    assert arrays["tsne_cluster"].max() < 8


def test_neighbouring_beams_share_a_colour_across_the_edge_of_the_codebook(predictor, data):
    """Beams (0, 0) and (31, 31) are neighbours; (16, 16) is not."""
    test = gather(data.splits["test"], 12)
    beams = torch.tensor([0, 31 * 32 + 31, 16 * 32 + 16] * 4)
    csi = torch.from_numpy(dft_codebook(32, 32))[beams].to(torch.complex64)
    served = task.ServedClusters(replace(test, csi=csi), 4, link_of(LinkSettings()))
    assert served.label.tolist() == beams.tolist()
    # Two groups for three beams.
    features = torch.randn(12, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wavecity.model.learning.embeddings.GROUPS", 2)
        _, arrays = task._group_beams(served, features, features, 0)
    first, second, third = arrays["tsne_cluster"][:3]
    assert first == second != third


def test_all_of_the_channel_gives_the_label_without_labels(predictor, data):
    settings = settings_of(csi=1.0, ratios=(0.2,), hidden=((),))
    settings = settings.model_copy(
        update={"heads": settings.heads.model_copy(update={"finetune_steps": 0, "seeds": 1})}
    )
    found = task.mu_mimo(predictor, data, settings, 0)
    values = {(r.metric, r.method): r.value for r in found.records if r.condition == WHOLE}
    assert values[Metric.BEAM_TOP1, Method.ZERO_FILLED_BEAM] == 100
    assert values[Metric.MU_RATE, Method.ZERO_FILLED_BEAM] == pytest.approx(
        values[Metric.MU_RATE, Method.EXHAUSTIVE_SEARCH]
    )
    assert not {Method.PHYSC_FINE_TUNED, Method.TWIN} & {method for _, method in values}


def test_the_same_seed_gives_the_same_values(findings, predictor, data):
    again = task.mu_mimo(predictor, data, settings_of(hidden=((),)), 5)
    first = {(r.metric, r.condition, r.method, str(r.x), r.seed): r.value for r in findings.records}
    for record in again.records:
        key = (record.metric, record.condition, record.method, str(record.x), record.seed)
        assert record.value == pytest.approx(first[key], rel=1e-9)
