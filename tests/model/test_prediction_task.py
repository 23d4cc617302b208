"""The prediction task: windows, labels, training, errors by kind of user; from a tiny pretraining to a page in a browser."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic import stored
from synthetic_results import check_spec
from synthetic_temporal import make_temporal, plane_waves, users_of

from wavecity.dataset import InputError
from wavecity.model.data.windows import Cutter
from wavecity.model.report.page import write_report
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Findings, read_records
from wavecity.model.results.rows import frame_of, rows_of
from wavecity.model.settings.prediction import PredictionSettings
from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.settings.training import HeadSettings, TrainingSettings
from wavecity.model.tasks import prediction as task
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.prediction import SPECS, label_counts, pick_test, prediction
from wavecity.model.tasks.prediction_training import Forecaster, forecast, prediction_loss, ratios, trained
from wavecity.model.temporal.network import TemporalModel
from wavecity.model.training.pretrain import pretrain

HORIZONS = (1, 2, 4)
SHARES = (0.2, 1.0)


@pytest.fixture(scope="module")
def settings():
    """A model of few offsets, windows of twelve snapshots: the whole length of a trajectory."""
    return TrainingSettings.model_validate(
        {
            "backbone": "temporal",
            "temporal": {
                "model": {"width": 8, "layers": 1, "heads": 2, "mixing": 2, "reach": 1, "past": 1, "future": 1,
                          "top_k": False},
                "snapshots": 12, "delays": 4, "align": False,
            },
            "evaluation": {
                "heads": {"seeds": 3},
                "prediction": {"past": 8, "horizons": HORIZONS, "labels": SHARES, "dense_labels": [1.0], "steps": 2,
                               "fit_windows": 4, "batch_size": 4, "gru_width": 8, "gru_steps": 4, "learning_rates": [3e-3],
                               "ridge_orders": [1, 3], "ridge_penalties": [1e-8, 1e-2]},
            },
            "epochs": 1, "batch_size": 8, "accelerator": "cpu", "optimiser": {"warmup_steps": 2},
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def moving():
    return make_temporal((("train", 2), ("validation", 1), ("test", 2)), steps=12, subcarriers=8, antennas=4)


@pytest.fixture(scope="module")
def run(settings, moving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("moving")
    pretrain(stored(moving), settings, folder, 1)
    return folder


@pytest.fixture(scope="module")
def result(run, settings, moving):
    return evaluate(run, "synthetic", "prediction", settings, 1, data=moving)


@pytest.fixture(scope="module")
def frame(run, result):
    return frame_of(read_records(run / result["table"], "prediction"))


def under(frame, **fixed):
    return frame[[one.fits(**fixed) for one in frame["condition"]]]


@pytest.fixture(scope="module")
def report(run, result, data):
    return write_report(run, "synthetic", data=data)


def test_a_window_goes_on_where_the_past_ends_and_its_noise_has_the_stated_power():
    rng = np.random.default_rng(0)
    csi = torch.from_numpy(plane_waves(rng, [15.0] * 5, steps=20, subcarriers=16, antennas=8, paths=1)[0])
    clean = Cutter(6, 3, 16, False, None).cut(csi, np.random.default_rng(1))
    series = torch.cat((clean.past, clean.future), 1)
    assert series.shape == (5, 9, 8, 16)
    # One path: each snapshot is the one before, turned by the same angle.
    step = (csi[:, 1] / csi[:, 0])[:, 0, 0]
    for later, earlier in zip(series.unbind(1)[1:], series.unbind(1)[:-1], strict=True):
        torch.testing.assert_close(later, earlier * step[:, None, None], rtol=1e-3, atol=1e-3)
    # Same generator, same place: what differs is the noise, all of it with all delays kept.
    noisy = Cutter(6, 3, 16, False, 10.0).cut(csi, np.random.default_rng(1))
    torch.testing.assert_close(noisy.future.abs(), clean.future.abs())
    power = (noisy.past - clean.past).abs().square().mean() / clean.past.abs().square().mean()
    assert float(power) == pytest.approx(0.1, rel=0.1)
    turned = Cutter(6, 3, 16, False, None).cut(csi, np.random.default_rng(1), turn=True)
    torch.testing.assert_close(turned.past.abs(), clean.past.abs())
    assert not torch.allclose(turned.past, clean.past)


def test_the_future_has_no_say_in_what_is_seen():
    """Delays are aligned, and the scale is set, by the snapshots seen alone."""
    rng = np.random.default_rng(0)
    csi = torch.from_numpy(plane_waves(rng, [5.0] * 6, steps=9, subcarriers=16, antennas=4)[0])
    other = csi.clone()
    other[:, 6:] = 100 * torch.from_numpy(plane_waves(rng, [5.0] * 6, steps=3, subcarriers=16, antennas=4)[0])
    cutter = Cutter(6, 3, 4, True, 20.0)
    first, second = (cutter.cut(channel, np.random.default_rng(2)) for channel in (csi, other))
    assert torch.equal(first.past, second.past)
    assert not torch.allclose(first.future, second.future)


def test_users_who_were_never_heard_count_for_nothing():
    csi = torch.zeros(2, 9, 8, 4, dtype=torch.complex64)
    csi[:, 7:] = 1e-5
    windows = Cutter(6, 3, 4, True, None).cut(csi, np.random.default_rng(0))
    assert ratios(torch.zeros_like(windows.future), windows.future).isnan().all()


def test_the_error_is_a_mean_of_ratios_of_each_user(result, frame, moving):
    """Persistence, worked out anew with numpy from trajectories as long as a window, without noise."""
    users = users_of(moving, "test")
    channel = users.csi.numpy().astype(np.complex128)
    bins = np.fft.ifft(np.fft.fft(channel, axis=3), axis=2)[:, :, :4]
    for kind, regime in ((0, "walker"), (1, "vehicle"), (2, "cyclist")):
        mine = bins[users.kind.numpy() == kind]
        for horizon in HORIZONS:
            truth = mine[:, 7 + horizon]
            ratio = (abs(mine[:, 7] - truth) ** 2).sum((1, 2)) / (abs(truth) ** 2).sum((1, 2))
            here = under(frame[frame["method"] == Method.PERSISTENCE], user_kind=regime, horizon=horizon)
            clean = here[here["metric"] == Metric.PREDICTION_CLEAN_NMSE].iloc[0]
            assert clean["value"] == pytest.approx(10 * np.log10(ratio.mean()), abs=1e-3)
            assert clean["n"] == len(mine) == result["facts"]["test_users"][regime]["users"]
            noisy, median = (
                here[here["metric"] == name]["value"].item()
                for name in (Metric.PREDICTION_NMSE, Metric.PREDICTION_MEDIAN_NMSE)
            )
            # 10 dB noise on what is held adds a tenth, less what the dropped delays take with them.
            assert noisy > clean["value"]
            assert median != noisy


def test_every_method_is_there_for_every_share_and_seed(frame, run, result):
    check_spec(SPECS[0], Findings(read_records(run / result["table"], "prediction"), result["facts"]))
    here = under(frame[frame["metric"] == Metric.PREDICTION_NMSE], user_kind="vehicle", horizon=4)
    assert set(here["method"]) == {
        Method.MODEL_FINE_TUNED,
        Method.MODEL_ZERO_SHOT,
        Method.TWIN,
        Method.DENSE_TWIN,
        Method.GRU,
        Method.RIDGE,
        Method.PERSISTENCE,
        Method.FIRST_GUESS,
    }
    for method, group in here.groupby("method"):
        if method in (Method.MODEL_ZERO_SHOT, Method.RIDGE, Method.PERSISTENCE, Method.FIRST_GUESS):
            assert group["x"].isna().all()
            assert len(group) == 1
            continue
        shares = (1.0,) if method == Method.DENSE_TWIN else SHARES
        assert sorted(zip(group["x"], group["seed"], strict=True)) == [(x, seed) for x in shares for seed in range(3)]
    assert {"walker", "cyclist", "vehicle", None} == {one.user_kind for one in frame["condition"]}
    assert np.isfinite(frame["value"]).all()
    clean = frame[frame["metric"] == Metric.PREDICTION_CLEAN_NMSE]
    assert set(clean["x"].dropna()) == {1.0}
    assert result["facts"]["labelled_users"] == {"20 %": 5, "100 %": 24}
    assert result["facts"]["test_scenes"] == 2
    # Few paths, no noise: a recursion of each sample is far ahead of holding its last snapshot.
    values = under(clean, user_kind="walker", horizon=4).set_index("method")["value"]
    assert values[Method.RIDGE] < values[Method.PERSISTENCE] - 10


def test_all_methods_have_the_same_labels_more_contain_the_fewer_and_none_is_a_test_user(monkeypatch, settings, moving):
    drawn = {}

    def record(build, draw, cutter, config, heads, steps):
        drawn.setdefault(len(draw(0)), []).append([draw(seed) for seed in range(heads.seeds)])
        return iter(())

    monkeypatch.setattr(task, "trained", record)
    torch.manual_seed(0)
    prediction(TemporalModel(settings.temporal.model, (12, 4, 4)), settings, moving, settings.evaluation, 1)
    assert {count: len(methods) for count, methods in drawn.items()} == {5: 3, 24: 4}
    for methods in drawn.values():
        for other in methods[1:]:
            assert all(torch.equal(one, two) for one, two in zip(methods[0], other, strict=True))
    few, many = drawn[5][0], drawn[24][0]
    for seed in range(3):
        assert torch.equal(many[seed][:5], few[seed])
    assert not torch.equal(few[0], few[1])
    known = {complex(value) for value in users_of(moving, "train").csi[:, 0, 0, 0]}
    assert {complex(value) for value in many[0][:, 0, 0, 0]} == known
    assert not known & {complex(value) for value in users_of(moving, "test").csi[:, 0, 0, 0]}


def test_small_stores_have_fewer_shares():
    assert label_counts(1000, (0.01, 0.05, 1.0)) == {0.01: 10, 0.05: 50, 1.0: 1000}
    # One to train on and one to choose by at least; a share that adds nothing is left out.
    assert label_counts(30, (0.01, 0.05, 0.1, 0.5, 1.0)) == {0.01: 2, 0.1: 3, 0.5: 15, 1.0: 30}
    assert label_counts(2, (0.01, 1.0)) == {0.01: 2}


def test_test_users_are_of_each_kind_and_no_more_than_wanted(moving):
    picked = pick_test(moving, 3)
    assert torch.bincount(picked.kind).tolist() == [3, 3, 3]
    assert len(picked.scene.unique()) == 2


@pytest.mark.parametrize("patch", [(1, 1), (2, 2)])
def test_the_fitted_combination_is_the_least_squares_one(patch):
    """No small change of any weight lowers the errors over those of the guess alone, in the mean."""
    rng = np.random.default_rng(3)
    csi, _ = plane_waves(rng, [1.4, 15.0, 5.0] * 4, steps=12, subcarriers=8, antennas=4)
    windows = Cutter(8, 4, 4, False, 10.0).cut(torch.from_numpy(csi), rng)
    torch.manual_seed(0)
    shape = {"width": 4, "layers": 1, "heads": 2, "mixing": 2, "past": 1, "future": 1, "patch": patch}
    model = TemporalModel(TemporalModelSettings(**shape), (12, 4, 4))
    torch.nn.init.normal_(model.head.weight)
    forecaster = Forecaster(model, 4)
    guess = ratios(forecast(forecaster, windows.past), windows.future)
    before = prediction_loss(forecast(forecaster, windows.past), windows)
    forecaster.fit(windows, windows)
    assert prediction_loss(forecast(forecaster, windows.past), windows) < before

    def loss():
        return float((ratios(forecast(forecaster, windows.past), windows.future) / guess).mean())

    fitted = loss()
    assert fitted < 1
    for parameter in (model.combine.weight, model.combine.bias):
        for _ in range(5):
            change = 0.05 * torch.randn_like(parameter)
            with torch.no_grad():
                parameter += change
            assert loss() > fitted
            with torch.no_grad():
                parameter -= change


def test_a_fit_that_does_not_help_where_it_is_judged_is_dropped():
    rng = np.random.default_rng(4)
    csi, _ = plane_waves(rng, [1.4, 5.0] * 2, steps=12, subcarriers=8, antennas=4)
    windows = Cutter(8, 4, 4, False, None).cut(torch.from_numpy(csi), rng)
    shape = {"width": 4, "layers": 1, "heads": 2, "mixing": 2, "past": 1, "future": 1}
    forecaster = Forecaster(TemporalModel(TemporalModelSettings(**shape), (12, 4, 4)), 4)
    start = forecast(forecaster, windows.past)
    # The start is exact there, so nothing can be better.
    forecaster.fit(replace(windows, future=windows.future * 3), replace(windows, future=start))
    torch.testing.assert_close(forecast(forecaster, windows.past), start)


class Scaled(torch.nn.Module):
    """Predicts the last snapshot times a number."""

    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def forward(self, past):
        return (self.value * past[:, -1:]).expand(-1, 3, -1, -1)


def test_the_rate_that_held_back_labels_favour_is_taken_and_training_repeats():
    """Nothing moves, so that a factor of one is best: from zero, ten steps at the larger rate come nearer."""
    csi = torch.ones(10, 9, 4, 2, dtype=torch.complex64)
    config = PredictionSettings(learning_rates=(1e-4, 5e-2), batch_size=4)
    cutter = Cutter(6, 3, 4, False, None)
    weights = []
    for _ in range(2):
        runs = list(trained(Scaled, lambda _: csi, cutter, config, HeadSettings(seeds=2), 10))
        assert [(seed, rate) for seed, _, rate in runs] == [(0, 5e-2), (1, 5e-2)]
        weights.append([model.value.item() for _, model, _ in runs])
    assert weights[0] == weights[1]
    assert 0.1 < weights[0][0] < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"past": 9},
            r"trajectories have 12 snapshots, but training.evaluation.prediction.past 9 and the longest of .*, 4, need 13",
        ),
        (
            {"horizons": (1, 8)},
            r"training\.evaluation\.prediction\.horizons, 8, need 16; set fewer, or build the dataset with mobility.steps 16",
        ),
    ],
)
def test_trajectories_too_short_are_refused_in_one_line(settings, moving, change, words):
    config = settings.evaluation.prediction.model_copy(update=change)
    evaluation = settings.evaluation.model_copy(update={"prediction": config})
    model = TemporalModel(settings.temporal.model, (12, 4, 4))
    with pytest.raises(InputError, match=words):
        prediction(model, settings, moving, evaluation, 1)


def test_another_array_is_refused_in_one_line(settings):
    model = TemporalModel(settings.temporal.model, (12, 4, 4))
    wide = make_temporal((("train", 1), ("test", 1)), steps=12, subcarriers=8, antennas=8)
    with pytest.raises(InputError, match="8 antennas, but the model was trained on 4"):
        prediction(model, settings, wide, settings.evaluation, 1)


@pytest.mark.parametrize("change", [{"horizons": [2, 1]}, {"labels": [0.1, 0.1]}, {"dense_labels": [0.3]}])
def test_settings_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="prediction"):
        PredictionSettings.model_validate(change)


def test_the_same_seed_gives_the_same_rows(run, result, settings, moving, tmp_path):
    """Also if it is the only one."""
    table = "results/prediction.parquet"
    before = pd.read_parquet(run / table)
    assert result["seeds"] == before["seed"].nunique() == 3
    assert evaluate(run, "synthetic", "prediction", settings, 1, data=moving) == result
    again = shutil.copytree(run, tmp_path / "again")
    shutil.rmtree(again / "results")
    evaluate(again, "synthetic", "prediction", changed(settings, "heads", seeds=1), 1, data=moving)
    pd.testing.assert_frame_equal(
        pd.read_parquet(again / table), before[before["seed"] == 0].reset_index(drop=True), check_exact=True
    )
    # What other tasks are set to has no part in it.
    other = settings.evaluation.model_copy(update={"masks": (0.5,)})
    kept = evaluate(run, "synthetic", "prediction", settings.model_copy(update={"evaluation": other}), 1, data=moving)
    assert kept["fingerprint"] == result["fingerprint"]


def changed(settings, part, **values):
    """Settings with other values in a part of their evaluation."""
    one = getattr(settings.evaluation, part).model_copy(update=values)
    return settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={part: one})})


def test_a_task_of_the_other_model_is_refused_in_one_line(run, result, settings, moving, data, linked):
    with pytest.raises(
        InputError, match=r"localization needs a multimodal model, .* holds a temporal one; choose pred"
    ):
        evaluate(run, "synthetic", "localization", settings, 1, data=data)
    with pytest.raises(
        InputError, match=r"prediction needs a temporal model, .* multimodal one; choose reconstruction"
    ):
        evaluate(linked, "synthetic", "prediction", settings, 1, data=moving)


def test_a_recipe_has_the_tasks_of_its_model():
    from wavecity.flows.recipe import load_recipe
    from wavecity.flows.run_checks import tasks_of
    from wavecity.model.settings.tasks import TASKS

    recipe = load_recipe("quickstart-paper")
    assert tasks_of(recipe) == [
        name for name in TASKS if name not in ("prediction", "equivariance", "zero-shot", "few-labels", "radio-map")
    ]
    moving = recipe.training.model_copy(update={"backbone": "temporal"})
    assert tasks_of(recipe.model_copy(update={"training": moving})) == ["prediction"]
    paths = recipe.training.model_copy(update={"backbone": "rays"})
    assert tasks_of(recipe.model_copy(update={"training": paths})) == ["zero-shot"]


def test_the_report_tells_how_the_model_stands_against_ridge(report, frame, result):
    page = report.read_text(encoding="utf-8")
    rows = [row for row in rows_of(frame) if row.metric == Metric.PREDICTION_NMSE]
    assert len(rows) == 9 * len(SHARES)
    better = sum(row.values[Method.MODEL_FINE_TUNED] < row.values[Method.RIDGE] for row in rows)
    told = re.search(r"(\d+) of (\d+) comparisons of kind of user, horizon and labels", page)
    assert told is not None
    assert int(told[2]) == len(rows)
    # Level within the noise is not ahead.
    assert int(told[1]) <= better
    assert "ridge (AR) of each sample" in page[page.index('id="standing"') : page.index('id="size"')]
    assert "LWM-Temporal: Sparse Spatio-Temporal Attention" in page
    assert page.count('src="data:image/svg+xml;base64,') == 3
    for words in ("Prediction error over the horizon", "Prediction error over the labels", "walker, horizon 4"):
        assert words in page
    for words in ("Yazdian", "[PHYSC]", "Reconstruction of what is masked"):
        assert words not in page
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(source.startswith(("data:", "#")) for source in sources)
    targets = {source[1:] for source in sources if source.startswith("#")}
    assert targets <= set(re.findall(r'id="([^"]+)"', page))
    json.loads(json.dumps(result["facts"]))


@pytest.mark.system
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Debian's chromium is not installed")
def test_the_page_opens_in_a_browser(report):
    """No console error, no request that leaves the page, every picture decoded, nothing wider than the window."""
    from playwright.sync_api import sync_playwright

    problems, requests = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-background-networking"]
        )
        opened = browser.new_page(viewport={"width": 1280, "height": 900})
        opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("request", lambda request: requests.append(request.url[:80]))
        opened.goto(report.as_uri())
        pictures = opened.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth])")
        width = opened.evaluate("document.documentElement.scrollWidth")
        browser.close()
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    # Three figures, loss curves twice, six scenes.
    assert len(pictures) == 3 + 2 + 6
    assert all(complete and natural > 300 for complete, natural in pictures)
    assert width <= 1280
