"""Evaluation of a tiny run on synthetic scenes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import stored

from wavecity.dataset import InputError
from wavecity.model.data.noise import add_noise, gaussian
from wavecity.model.data.users import gather
from wavecity.model.multimodal.inference import Predictor, top_k_hits
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.outcomes import read_outcomes
from wavecity.model.settings.tasks import REGISTERED, TASKS
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.spec import spec_of, specs_of
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain


@pytest.fixture(scope="module")
def run(data, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    pretrain(stored(data), tiny, folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def results(run, data, tiny):
    return {task: evaluate(run, "synthetic", task, tiny, 1, data=data) for task in ("reconstruction", "mu-mimo")}


def rows_of_task(run, task, metric):
    return [row for row in read_outcomes(run)[task].rows if row.metric == metric]


def test_reconstruction_goes_with_its_baselines(run, results, data):
    result = results["reconstruction"]
    assert result["facts"]["test_users"] == 48
    assert result["facts"]["test_scenes"] == 2
    csi = rows_of_task(run, "reconstruction", Metric.CSI_NMSE)[0]
    assert csi.condition.csi_masked == 0.5
    assert csi.values[Method.ZEROS] == pytest.approx(0)
    assert set(csi.values) == {Method.MODEL, Method.OMP, Method.LMMSE, Method.ZEROS}
    # Two plane waves: half of the antennas tell the rest.
    assert csi.values[Method.OMP] < -15
    for row in read_outcomes(run)["reconstruction"].rows:
        assert np.isfinite(list(row.values.values())).all()
    everywhere = gather(data.splits["train"]).position.mean(0)
    truth = gather(data.splits["test"]).position
    expected = (truth - everywhere).norm(dim=-1).median().item()
    location = rows_of_task(run, "reconstruction", Metric.HIDDEN_LOCATION_ERROR)[0]
    assert location.values[Method.MEAN_TRAINING] == pytest.approx(expected, rel=1e-4)
    (precision,) = rows_of_task(run, "reconstruction", Metric.OCCUPANCY_PRECISION)
    assert precision.values[Method.NEIGHBOUR_MEAN] > precision.values[Method.PREVALENCE]


def test_every_seeds_value_is_in_the_table(run, results):
    frame = pd.read_parquet(run / results["mu-mimo"]["table"])
    row = rows_of_task(run, "mu-mimo", Metric.BEAM_TOP5)[0]
    here = frame[(frame["metric"] == "beam_top5") & frame["hidden_layers"].isna()]
    for method, mean in row.values.items():
        values = here[(here["method"] == method.value) & ((here["x"] == row.x) | here["x"].isna())]["value"]
        assert values.to_numpy().mean() == pytest.approx(mean)
        if method in row.spread:
            assert np.std(values, ddof=1) == pytest.approx(row.spread[method])
    assert results["mu-mimo"]["seeds"] == 2
    card = json.loads((run / "pretrain.json").read_text())
    assert set(frame["checkpoint"]) == {card["fingerprint"]}
    assert set(frame["data_version"]) == {results["mu-mimo"]["dataset_version"]}


def test_results_are_kept_and_depend_on_settings_and_seed(run, data, tiny, results):
    path = run / "results" / "mu-mimo.json"
    before, records = path.stat().st_mtime_ns, path.with_suffix(".parquet").read_bytes()
    assert evaluate(run, "synthetic", "mu-mimo", tiny, 1, data=data) == results["mu-mimo"]
    assert path.stat().st_mtime_ns == before
    assert evaluate(run, "synthetic", "mu-mimo", tiny, 2, data=data)["fingerprint"] != results["mu-mimo"]["fingerprint"]
    assert path.with_suffix(".parquet").read_bytes() != records
    evaluate(run, "synthetic", "mu-mimo", tiny, 1, data=data)
    assert path.with_suffix(".parquet").read_bytes() == records


def test_unknown_task_is_wrong_input(run, data, tiny):
    with pytest.raises(InputError, match="choose one of reconstruction, localization, cross-localization, mu-mimo"):
        evaluate(run, "synthetic", "precoding", tiny, 1, data=data)


def test_every_registered_task_has_a_spec_for_each_of_its_models():
    assert tuple(REGISTERED) == TASKS
    for name, task in REGISTERED.items():
        for backbone in ("multimodal", "temporal"):
            spec = spec_of(name, backbone)
            assert (spec is not None) == (backbone in task.backbones)
            if spec is not None:
                assert (spec.name, spec.backbone) == (name, backbone)
                assert spec.settings <= set(EvaluationSettings.model_fields)
                assert {claim.task for claim in spec.claims} <= {name}
    for backbone in ("multimodal", "temporal"):
        keys = [claim.key for spec in specs_of(backbone) for claim in spec.claims]
        assert len(set(keys)) == len(keys)


def test_predictions_with_the_location_hidden_do_not_use_it(run, data):
    model, settings, statistics, _ = load_model(run)
    predictor = Predictor(model, settings, statistics, data, batch_size=16)
    users = gather(data.splits["test"], 20)
    moved = replace(users, position=users.position.flip(0) + 40)
    visible = predictor.visible_patches(0.75, 0)
    assert len(visible) == 16
    for options in ({}, {"scene_ratio": 0.2, "decoy": True}):
        outcome = []
        for group in (users, moved):
            chosen = dict(options)
            if chosen.pop("decoy", False):
                chosen["decoy"] = np.random.default_rng(0)
            outcome.append(predictor.predict(group, visible, **chosen))
        assert torch.equal(outcome[0].physc, outcome[1].physc)
        assert torch.equal(outcome[0].location, outcome[1].location)


def test_predicted_csi_is_in_the_unit_of_the_data_and_only_where_masked(data, tiny):
    torch.manual_seed(0)
    model = FoundationModel(tiny.model, load_geometry(data, tiny)).eval()
    predictor = Predictor(model, tiny, data.statistics, data, batch_size=7)
    users = gather(data.splits["test"], 10)
    visible = predictor.visible_patches(0.5, 0)
    plain = predictor.predict(users, visible).csi
    loud = predictor.predict(replace(users, csi=users.csi * 2), visible).csi
    shown = torch.zeros(64, dtype=torch.bool)
    shown[visible] = True
    where = shown.view(8, 8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert (plain[:, where] == 0).all()
    assert (plain[:, ~where] != 0).all()
    assert (loud.abs().mean() / plain.abs().mean()).item() == pytest.approx(2, rel=0.3)


def load_geometry(data, settings):
    from wavecity.model.data.users import geometry_of

    return geometry_of(data, settings.model)


def test_noise_has_the_stated_power(data):
    csi = gather(data.splits["test"], 20).csi
    noisy = add_noise(csi, 10.0, gaussian(np.random.default_rng(0), csi.shape))
    ratio = (noisy - csi).abs().square().double().sum((1, 2)) / csi.abs().square().double().sum((1, 2))
    np.testing.assert_allclose(ratio, 0.1, rtol=0.12)


def test_top_k():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]])
    label = torch.tensor([2, 1])
    assert [top_k_hits(scores, label, k) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_default_settings_are_the_papers():
    settings = TrainingSettings()
    assert settings.epochs == 50
    assert settings.model.width == 128
    assert settings.evaluation.localization.csi == 0.25
    assert settings.evaluation.localization.snr == 10
    assert settings.evaluation.mu_mimo.csi == 0.05
    assert settings.evaluation.mu_mimo.cluster == 8
    assert settings.evaluation.heads.seeds == 3


def test_an_evaluation_reads_its_checkpoint_once(run, data, tiny, monkeypatch):
    read, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: read.append(args[0]) or load(*args, **options))
    evaluate(run, "synthetic", "reconstruction", tiny, 77, data=data)
    assert read == [run / "checkpoints" / "last.ckpt"]
