"""Evaluation and report of a tiny run on synthetic scenes."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from dataset import InputError
from model.data import gather
from model.foundation import FoundationModel
from model.inference import Predictor, add_noise, top_k_hits
from model.pretrain import load_model, pretrain
from model.probes import LocationCnn, LocationHead, fit
from model.report import write_report
from model.results import Row
from model.settings import EvaluationSettings, TrainingSettings
from model.tasks import evaluate


@pytest.fixture(scope="module")
def run(data, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    pretrain("synthetic", tiny, folder, seed=1, data=data)
    return folder


@pytest.fixture(scope="module")
def results(run, data, tiny):
    return {
        task: evaluate(run, "synthetic", task, tiny, 1, data=data)
        for task in ("reconstruction", "localization", "beams")
    }


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


def test_probes_stand_beside_their_baselines(results):
    place = row_of(results["localization"], "Localisation")["values"]
    assert {"[PHYSC] + MLP", "raw CSI + CNN", "kNN on |DFT|"} <= set(place)
    assert results["localization"]["facts"] == {"test_scenes": 2, "labels": 24, "test_users": 24}
    hits = row_of(results["beams"], "top 5")["values"]
    names = {"[PHYSC], linear probe", "raw visible CSI, linear probe", "zero-filled DFT, no labels"}
    assert names | {"OMP, 16 paths, no labels", "|zero-filled DFT|, linear probe"} <= set(hits)
    assert hits["OMP, 16 paths, no labels"] > 80
    assert results["beams"]["facts"]["feature_width"]["raw visible CSI, linear probe"] == 4 * 32


def test_results_are_kept_and_depend_on_settings_and_seed(run, data, tiny, results):
    path = run / "results" / "beams.json"
    before = path.stat().st_mtime_ns
    assert evaluate(run, "synthetic", "beams", tiny, 1, data=data)["rows"] == results["beams"]["rows"]
    assert path.stat().st_mtime_ns == before
    kept = path.read_text()
    assert evaluate(run, "synthetic", "beams", tiny, 2, data=data)["fingerprint"] != results["beams"]["fingerprint"]
    again = evaluate(run, "synthetic", "beams", tiny, 1, data=data)
    assert again["rows"] == results["beams"]["rows"]
    assert json.loads(kept)["rows"] == again["rows"]


def test_unknown_task_is_wrong_input(run, data, tiny):
    with pytest.raises(InputError, match="choose one of reconstruction, localization, beams"):
        evaluate(run, "synthetic", "precoding", tiny, 1, data=data)


def test_report_needs_nothing_else_and_says_how_small_the_run_was(run, data, results):
    page = write_report(run, "synthetic", data=data).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 6 + 5 + 1
    for number in (3, 4, 9, 10, 11):
        assert f"Figure {number} of the paper" in page
    for words in ("4 / 2 / 2", "96 / 48 / 48", "1 (seed 1)", "OpenStreetMap contributors", "ODbL", "3 epochs, 18 steps",
                  "What this run does not show", "OMP, 16 paths", "Mask leak check"):  # fmt: skip
        assert words in page, words


def test_report_of_a_run_without_results_says_so(data, tiny, tmp_path):
    with pytest.raises(InputError, match="no finished pretraining"):
        write_report(tmp_path, "synthetic", data=data)
    pretrain("synthetic", tiny.model_copy(update={"epochs": 1}), tmp_path, seed=1, data=data)
    page = write_report(tmp_path, "synthetic", data=data).read_text(encoding="utf-8")
    assert "No task has been evaluated yet" in page
    assert (
        "Not evaluated in this run: reconstruction of what is masked, localisation probe, beam prediction probe" in page
    )


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
    from model.data import geometry_of

    return geometry_of(data, settings.model)


def test_noise_has_the_stated_power(data):
    csi = gather(data.splits["test"], 20).csi
    noisy = add_noise(csi, 10.0, np.random.default_rng(0))
    ratio = (noisy - csi).abs().square().double().sum((1, 2)) / csi.abs().square().double().sum((1, 2))
    np.testing.assert_allclose(ratio, 0.1, rtol=0.12)


def test_top_k():
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]])
    label = torch.tensor([2, 1])
    assert [top_k_hits(scores, label, k) for k in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_heads_have_the_papers_shapes():
    head, cnn = LocationHead(128, 200.0), LocationCnn(200.0)
    sizes = [layer.out_features for layer in head.layers if isinstance(layer, nn.Linear)]
    assert sizes == [64, 64, 2]
    assert head(torch.randn(3, 128)).abs().max() <= 200
    channels = [layer.out_channels for layer in cnn.layers if isinstance(layer, nn.Conv2d)]
    assert channels == [16, 32, 64]
    assert cnn(torch.randn(3, 2, 32, 32)).shape == (3, 2)


def test_a_linear_head_learns_a_linear_map_and_is_seeded():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(80, 3)).astype(np.float32))
    labels = features @ torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    settings = EvaluationSettings(probe_steps=300, probe_learning_rate=0.03)

    def loss(guess, truth):
        return (guess - truth).square().mean()

    heads = [
        fit(lambda: nn.Linear(3, 2), loss, (features[:60], labels[:60]), (features[60:], labels[60:]), settings, 5)
        for _ in range(2)
    ]
    assert loss(heads[0](features[60:]), labels[60:]).item() < 1e-2
    assert torch.equal(heads[0].weight, heads[1].weight)


@pytest.mark.parametrize(
    ("values", "better", "verdict"),
    [
        ({"model": -20.0, "OMP": -10.0, "zeros": 0.0}, "lower", "ahead of OMP"),
        ({"model": 50.0, "DFT": 83.0}, "higher", "behind DFT"),
        ({"model": 99.0, "DFT": 100.0}, "higher", "level with DFT"),
        ({"[PHYSC] + MLP": float("nan"), "CNN": 3.0}, "lower", "not measured"),
    ],
)
def test_verdicts(values, better, verdict):
    assert Row("q", "c", "", better, values).verdict() == verdict


def test_default_settings_are_the_papers():
    settings = TrainingSettings()
    assert settings.epochs == 50
    assert settings.model.width == 128
    assert settings.evaluation.localization_csi == 0.25
    assert settings.evaluation.localization_snr == 10
