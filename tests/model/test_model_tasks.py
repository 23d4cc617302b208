"""Evaluation of a tiny run on synthetic scenes."""

import json

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
from wavecity.model.results.table import COLUMNS
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import TASKS, evaluate
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


def row_of(result, quantity, condition=""):
    return next(row for row in result["rows"] if quantity in row["quantity"] and condition in row["condition"])


def test_reconstruction_stands_beside_its_baselines(results, data):
    result = results["reconstruction"]
    assert result["facts"]["test_users"] == 48
    assert result["facts"]["test_scenes"] == 2
    csi = row_of(result, "Masked CSI", "0.5")["values"]
    assert csi["zeros"] == pytest.approx(0)
    assert set(csi) == {"model", "OMP, 16 paths", "LMMSE", "zeros"}
    # Two plane waves: half of the antennas tell the rest.
    assert csi["OMP, 16 paths"] < -15
    for quantity in ("Masked CSI", "Strongest direction", "Hidden location", "Masked occupancy"):
        for row in result["rows"]:
            if quantity in row["quantity"]:
                assert np.isfinite(list(row["values"].values())).all()
    everywhere = gather(data.splits["train"]).position.mean(0)
    truth = gather(data.splits["test"]).position
    expected = (truth - everywhere).norm(dim=-1).median().item()
    assert row_of(result, "Hidden location")["values"]["mean of training users"] == pytest.approx(expected, rel=1e-4)
    precision = row_of(result, "average precision")["values"]
    assert precision["mean of visible neighbours"] > precision["prevalence"]


def test_every_seeds_value_is_in_the_table(run, results):
    frame = pd.read_parquet(run / "results" / "mu-mimo.parquet")
    assert list(frame.columns) == list(COLUMNS)
    row = row_of(results["mu-mimo"], "top-5")
    here = frame[(frame["quantity"] == row["quantity"]) & (frame["condition"] == row["condition"])]
    for method, mean in row["values"].items():
        values = here[(here["method"] == method) & ((here["x"] == row["x"]) | here["x"].isna())]["value"]
        assert values.to_numpy().mean() == pytest.approx(mean)
        if method in row["spread"]:
            assert np.std(values, ddof=1) == pytest.approx(row["spread"][method])
    assert results["mu-mimo"]["seeds"] == 2


def test_results_are_kept_and_depend_on_settings_and_seed(run, data, tiny, results):
    path = run / "results" / "mu-mimo.json"
    before = path.stat().st_mtime_ns
    assert evaluate(run, "synthetic", "mu-mimo", tiny, 1, data=data)["rows"] == results["mu-mimo"]["rows"]
    assert path.stat().st_mtime_ns == before
    kept = path.read_text()
    assert evaluate(run, "synthetic", "mu-mimo", tiny, 2, data=data)["fingerprint"] != results["mu-mimo"]["fingerprint"]
    again = evaluate(run, "synthetic", "mu-mimo", tiny, 1, data=data)
    assert again["rows"] == results["mu-mimo"]["rows"]
    assert json.loads(kept)["rows"] == again["rows"]


def test_unknown_task_is_wrong_input(run, data, tiny):
    with pytest.raises(InputError, match="choose one of reconstruction, localization, cross-localization, mu-mimo"):
        evaluate(run, "synthetic", "precoding", tiny, 1, data=data)


def test_the_command_line_knows_every_task():
    from wavecity.model.settings.tasks import TASKS as NAMES

    assert tuple(TASKS) == NAMES


def test_predictions_with_the_location_hidden_do_not_use_it(run, data):
    model, settings, statistics, _ = load_model(run)
    predictor = Predictor(model, settings, statistics, data, batch_size=16)
    users = gather(data.splits["test"], 20)
    moved = users.replace(csi=users.csi, position=users.position.flip(0) + 40)
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
    loud = predictor.predict(users.replace(csi=users.csi * 2, position=users.position), visible).csi
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
