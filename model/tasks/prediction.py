"""Channel prediction under mobility: error against horizon, speed and labels in unseen cities, compared with strong baselines."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.trajectories import KINDS, TemporalData, TemporalUsers, gather_temporal
from wavecity.model.data.users import evenly
from wavecity.model.data.windows import Cutter, Windows, check_windows
from wavecity.model.figures.parts import BARS, Part
from wavecity.model.figures.prediction import draw_horizons, draw_labels
from wavecity.model.learning.baselines import decibel
from wavecity.model.learning.predictors import GruPredictor, persistence, ridge
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.results.claims import DB_MARGIN, OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.results.words import share_of
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.prediction_training import Forecaster, forecast, ratios, trained
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.temporal.extrapolation import extrapolate
from wavecity.model.temporal.neighbourhood import neighbourhood
from wavecity.model.temporal.network import TemporalModel

# Kinds of users from slow to fast, and their nominal speeds in m/s.
SPEEDS = {"walker": 1.4, "cyclist": 5.0, "vehicle": 15.0}
# Test users whose kind is looked at, over the number wanted of a kind.
SPARE = 12


def prediction(
    model: TemporalModel, trained_with: TrainingSettings, data: TemporalData, settings: EvaluationSettings, seed: int
) -> Findings:
    """Error of predicted snapshots on the test split, against horizon, kind of user and labelled training users.

    The NMSE is the mean over users of a snapshot's squared error over its energy, in dB; with it goes that of the
    median user. Both are over the bins of angle and delay that the model sees. A labelled user is one whose trajectory
    a method may be trained on for this task; pretraining has seen all training users. All methods that learn have the
    same labelled users at a share and seed, more labels contain the fewer, and test users are never labelled.

    The snapshots seen are noisy, for every method, if `prediction.snr` is set; then all methods are judged without
    noise too, as they were trained, at the largest share. Of the settings `prediction` counts, and of `heads` the seeds
    and the share held back. The seed is that of the test windows and their noise; the heads' seeds choose labels,
    weights and batches. x is the share of labelled training users; not-a-number for what takes no labels.

    Raises
    ------
    InputError
        Trajectories shorter than a window, other antennas or delays than the model's, or no user to test on.
    """
    config, temporal = settings.prediction, trained_with.temporal
    check_windows(data, config, model.grid[1])
    horizons = config.horizons
    cutter = Cutter(config.past, horizons[-1], temporal.delays, temporal.align, config.snr)
    train = gather_temporal(data.splits["train"], config.users).csi
    test = pick_test(data, config.test_users)
    views = {Metric.PREDICTION_NMSE: cutter.cut(test.csi, np.random.default_rng([seed, 30]))}
    if config.snr is not None:
        # The same generator: the same places.
        views[Metric.PREDICTION_CLEAN_NMSE] = replace(cutter, snr=None).cut(test.csi, np.random.default_rng([seed, 30]))
    errors = PredictionErrors(test.kind, horizons)
    rates: dict[Method, dict[str, float]] = {}
    seconds: dict[Method, float] = {}

    zero_shot = Forecaster(model, horizons[-1])
    for metric, windows in views.items():
        errors.add(metric, Method.MODEL_ZERO_SHOT, 0, math.nan, forecast(zero_shot, windows.past), windows)
    counts = label_counts(len(train), config.labels)
    for share, count in counts.items():
        for method, head_seed, network, rate, took in _learned(model, train, count, share, cutter, settings):
            for metric, windows in views.items():
                if metric is Metric.PREDICTION_NMSE or share == max(counts):
                    predicted = forecast(network, windows.past)
                    errors.add(metric, method, head_seed, share, predicted, windows)
            seconds[method] = round(seconds.get(method, 0.0) + took, 1)
            rates.setdefault(method, {})[share_of(share)] = rate
    choice = {}
    for metric, windows in views.items():
        simple = ridge(windows.past, horizons, config.ridge_orders, config.ridge_penalties)
        errors.add(metric, Method.RIDGE, 0, math.nan, simple.values, windows)
        errors.add(metric, Method.PERSISTENCE, 0, math.nan, persistence(windows.past, horizons), windows)
        if model.settings.extrapolation:
            errors.add(metric, Method.FIRST_GUESS, 0, math.nan, extrapolate(windows.past, horizons[-1]).best(), windows)
        choice[metric] = simple.summary(horizons)
    facts = _sizes(model, data, test, cutter, settings) | {
        "train_users": len(train),
        "labelled_users": {share_of(share): count for share, count in counts.items()},
        "learning_rates": rates,
        "training_seconds": seconds,
        "ridge_choice": choice,
    }
    tokens, neighbours = facts["attention"].values()
    sparse = Record(Metric.ATTENTION_FACTOR, Method.SPARSE_ATTENTION, tokens / neighbours, 0, tokens)
    return Findings([*errors.records, sparse], facts)


def pick_test(data: TemporalData, limit: int) -> TemporalUsers:
    """Test users, at most `limit` of each kind, evenly spread over the scenes."""
    users = gather_temporal(data.splits["test"], SPARE * limit)
    picked = []
    for kind in range(len(KINDS)):
        rows = torch.nonzero(users.kind == kind)[:, 0]
        picked.append(rows[evenly(len(rows), limit)])
    return users.at(torch.cat(picked))


def label_counts(users: int, shares: Sequence[float]) -> dict[float, int]:
    """Labelled users of each share, two at least; a share that gives no more than the one before is left out."""
    counts: dict[float, int] = {}
    for share in shares:
        count = min(max(round(share * users), 2), users)
        if count > max(counts.values(), default=0):
            counts[share] = count
    return counts


@dataclass(frozen=True)
class PredictionErrors:
    """Errors of predictions by kind of user and horizon, as records; of windows of users of `kind`, int64 (N,)."""

    kind: Tensor
    horizons: Sequence[int]
    records: list[Record] = field(default_factory=list)

    def add(self, metric: Metric, method: Method, seed: int, share: float, predicted: Tensor, windows: Windows) -> None:
        """Measure predictions complex (N, H, angle, delay), of all snapshots to come or of the horizons alone."""
        rows = [horizon - 1 for horizon in self.horizons]
        if predicted.shape[1] != len(rows):
            predicted = predicted[:, rows]
        errors = ratios(predicted, windows.future[:, rows])
        for kind in SPEEDS:
            mine = errors[self.kind == KINDS.index(kind)]
            for horizon, column in zip(self.horizons, mine.unbind(1), strict=True):
                known = column[column.isfinite()]
                if not len(known):
                    continue
                figures = {metric: known.mean()}
                if metric is Metric.PREDICTION_NMSE:
                    figures[Metric.PREDICTION_MEDIAN_NMSE] = known.median()
                where = Condition(user_kind=kind, horizon=horizon)
                for name, value in figures.items():
                    error = decibel(float(value))
                    self.records.append(Record(name, method, error, seed, len(known), share, where))


def _learned(
    model: TemporalModel, train: Tensor, count: int, share: float, cutter: Cutter, settings: EvaluationSettings
) -> Iterator[tuple[Method, int, nn.Module, float, float]]:
    """Method, head seed, network, learning rate and seconds of all that is trained on `count` labelled users."""
    config, horizon = settings.prediction, cutter.future
    dense = model.settings.model_copy(update={"attention": "dense"})
    starts: dict[Method, tuple[Callable[[], nn.Module], int]] = {
        Method.MODEL_FINE_TUNED: (lambda: Forecaster(copy.deepcopy(model), horizon), config.steps),
        Method.TWIN: (lambda: Forecaster(TemporalModel(model.settings, model.grid), horizon), config.steps),
        Method.DENSE_TWIN: (lambda: Forecaster(TemporalModel(dense, model.grid), horizon), config.steps),
        Method.GRU: (lambda: GruPredictor(model.grid[1:], horizon, config.gru_width), config.gru_steps),
    }
    if share not in config.dense_labels:
        del starts[Method.DENSE_TWIN]

    def draw(seed: int) -> Tensor:
        return train[torch.from_numpy(np.random.default_rng([seed, 33]).permutation(len(train))[:count])]

    for method, (build, steps) in starts.items():
        started = time.perf_counter()
        for head_seed, network, rate in trained(build, draw, cutter, config, settings.heads, steps):
            yield method, head_seed, network, rate, time.perf_counter() - started
            started = time.perf_counter()


def _sizes(
    model: TemporalModel, data: TemporalData, test: TemporalUsers, cutter: Cutter, settings: EvaluationSettings
) -> Facts:
    """What the figures rest on."""
    config = settings.prediction
    regimes = {}
    for regime, nominal in SPEEDS.items():
        speed = test.speed[test.kind == KINDS.index(regime)]
        if len(speed):
            low, high = float(speed.min()), float(speed.max())
            regimes[regime] = {"users": len(speed), "nominal_m_s": nominal, "mean_m_s": round(float(speed.mean()), 2),
                               "range_m_s": [round(low, 2), round(high, 2)]}  # fmt: skip
    scenes = [int(scene) for scene in test.scene.unique()]
    bins = model.token_grid[1:]
    near = neighbourhood(
        (cutter.past + cutter.future, *bins), model.settings.reach, model.settings.past, model.settings.future,
        model.settings.causal,
    )  # fmt: skip
    gru = GruPredictor(model.grid[1:], cutter.future, config.gru_width)
    return {
        "test_scenes": len(scenes),
        "test_cities": sorted({data.cities[scene] for scene in scenes}),
        "test_users": regimes,
        "snapshots_seen": cutter.past,
        "interval_ms": 1e3 * data.interval,
        "bins": {"angle": model.grid[1], "delay": cutter.delays},
        "snr_db": cutter.snr,
        "energy_in_dropped_delays": round(cutter.lost(test.csi), 6),
        "starts_from_a_first_guess": model.settings.extrapolation,
        "attention": {"tokens": near.tokens, "neighbours": round(float(near.sizes().mean()), 1)},
        "parameters": {"model": count_parameters(model), Method.GRU: count_parameters(gru)},
        "steps": {"model and twins": config.steps, Method.GRU: config.gru_steps},
        "batch_size": config.batch_size,
        "head_seeds": settings.heads.seeds,
        "split": "test users are of unseen cities and never labelled; more labels contain the fewer; all methods have the "
        "same; users without a path at a horizon are left out there",
    }


TASK: TaskName = "prediction"
# Reading of "an order of magnitude" [abstract], and what counts as the opposite [ours].
MAGNITUDE, SMALL = 10.0, 2.0
_ERROR, _CLEAN = Metric.PREDICTION_NMSE, Metric.PREDICTION_CLEAN_NMSE
_MODEL, _TWIN, _RIDGE = (Method.MODEL_FINE_TUNED,), (Method.TWIN,), (Method.RIDGE,)
_STRONG = (Method.RIDGE, Method.GRU, Method.DENSE_TWIN, Method.PERSISTENCE)
CLAIMS = (
    Claim("prediction-long", "1", "abstract",
          "Channel prediction is better than with strong baselines, particularly at long horizons.",
          "dB over the best of ridge, GRU, dense attention and persistence at the longest horizon with all labels, mean "
          "over the kinds of users", TASK, "gain",
          Select(_ERROR, _MODEL, _STRONG, at="most", kind="absolute", longest=True), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-regimes", "1", "abstract",
          "The improvement is consistent across the mobility regimes.",
          "dB over the best of the same, mean over the horizons with all labels, for the kind of user where it is smallest",
          TASK, "gain", Select(_ERROR, _MODEL, _STRONG, at="most", kind="absolute", over="worst kind"),
          DB_MARGIN, -DB_MARGIN),
    Claim("prediction-few", "2", "abstract",
          "Channel prediction is better than with strong baselines, particularly with limited fine-tuning data.",
          "dB over the best of the same with the fewest labels, mean over kinds of users and horizons", TASK, "gain",
          Select(_ERROR, _MODEL, _STRONG, at="fewest", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-pretraining", "2", "abstract",
          "Pretraining matters: the same model from random weights, with the same budget, is behind.",
          "dB with the fewest labels, mean over kinds of users and horizons", TASK, "gain",
          Select(_ERROR, _MODEL, _TWIN, at="fewest", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-sparse", "1", "abstract",
          "Sparse attention keeps what matters: it is no worse than dense attention, both from random weights with the same "
          "budget.",
          f"dB, mean over kinds of users and horizons; more than {DB_MARGIN:g} dB worse is the opposite", TASK, "gain",
          Select(_ERROR, _TWIN, (Method.DENSE_TWIN,), at="most", kind="absolute"), -DB_MARGIN, -DB_MARGIN),
    Claim("prediction-pairs", "", "abstract",
          "Sparse attention reduces the complexity of attention by an order of magnitude.",
          f"pairs of tokens of dense attention over those of sparse attention; at least {MAGNITUDE:g}, less than {SMALL:g} is "
          "the opposite", TASK, "level", Select(Metric.ATTENTION_FACTOR, (Method.SPARSE_ATTENTION,)),
          MAGNITUDE * (1 - 1e-9), SMALL, 1, 0),
    Claim("prediction-ridge", "1", OURS,
          "With all labels it also beats ridge (AR), fitted to each sample's own history without any training.",
          "dB, mean over kinds of users and horizons", TASK, "gain",
          Select(_ERROR, _MODEL, _RIDGE, at="most", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-ridge-few", "2", OURS, "With the fewest labels too.",
          "dB over ridge (AR), mean over kinds of users and horizons", TASK, "gain",
          Select(_ERROR, _MODEL, _RIDGE, at="fewest", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-ridge-clean", "3", OURS,
          "Where the snapshots seen have no noise, it beats ridge (AR) as well.",
          "dB with all labels, mean over kinds of users and horizons; trained with noise", TASK, "gain",
          Select(_CLEAN, _MODEL, _RIDGE, at="most", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-network", "2", OURS,
          "Training adds something: the fine-tuned model is ahead of the guess that its network starts from.",
          "dB with all labels, mean over kinds of users and horizons", TASK, "gain",
          Select(_ERROR, _MODEL, (Method.FIRST_GUESS,), at="most", kind="absolute"), DB_MARGIN, -DB_MARGIN),
    Claim("prediction-zero", "2", OURS, "Without any label the pretrained model is ahead of persistence.",
          "dB, mean over kinds of users and horizons; one draw", TASK, "gain",
          Select(_ERROR, (Method.MODEL_ZERO_SHOT,), (Method.PERSISTENCE,), kind="absolute"), DB_MARGIN, -DB_MARGIN, 1),
)  # fmt: skip
FIGURES = (
    Part("1", "Prediction error over the horizon", TASK,
         "Each method with the most labels it was trained with; dashed: no training on this task. Points are means "
         "over the seeds, bars one standard deviation. Below the dotted line a prediction is better than none.",
         draw_horizons, metric=_ERROR),
    Part("2", "Prediction error over the labels", TASK, BARS, draw_labels, metric=_ERROR, over_labels=True),
    Part("3", "Prediction error where what is seen has no noise", TASK,
         "The same methods, trained with noise, as in Figure 1.", lambda outcome: draw_horizons(outcome, _CLEAN),
         metric=_CLEAN),
)  # fmt: skip
SPECS = (
    TaskSpec(TASK, "temporal", "Channel prediction under mobility", prediction, frozenset({"heads", "prediction"}),
             (*_STRONG, Method.TWIN, Method.FIRST_GUESS, Method.SPARSE_ATTENTION), CLAIMS, FIGURES, ("train", "test")),
)  # fmt: skip
