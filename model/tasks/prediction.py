"""Channel prediction under mobility: error against horizon, speed and labels in unseen cities, beside strong baselines."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.trajectories import KINDS, TemporalData, TemporalUsers, gather_temporal
from wavecity.model.data.windows import Cutter, Windows, check_windows
from wavecity.model.learning.embeddings import evenly
from wavecity.model.learning.predictors import GruPredictor, persistence, ridge
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.results.outcomes import in_words
from wavecity.model.results.table import Findings, Record, decibel
from wavecity.model.settings.training import EvaluationSettings, TrainingSettings
from wavecity.model.tasks.prediction_training import Forecaster, forecast, ratios, trained
from wavecity.model.temporal.extrapolation import extrapolate
from wavecity.model.temporal.neighbourhood import neighbourhood
from wavecity.model.temporal.network import TemporalModel

QUANTITY = "Channel prediction, NMSE"
MEDIAN = "Channel prediction, median NMSE"
CLEAN = "Channel prediction without noise, NMSE"
FINE_TUNED, ZERO_SHOT = "model, fine-tuned", "model, no labels"
TWIN, DENSE, GRU = "from-scratch twin", "dense attention twin", "GRU"
RIDGE, PERSISTENCE = "ridge (AR) of each sample", "persistence"
# What the temporal model's network starts from and corrects, by itself.
START = "first guess, no network"
# Kinds of users from slow to fast, and their nominal speeds in m/s.
SPEEDS = {"walker": 1.4, "cyclist": 5.0, "vehicle": 15.0}
# Test users whose kind is looked at, over the number wanted of a kind.
SPARE = 12

NAN = float("nan")


def prediction(
    model: TemporalModel, trained_with: TrainingSettings, data: TemporalData, settings: EvaluationSettings, seed: int
) -> Findings:
    """Error of predicted snapshots on the test split, against horizon, kind of user and labelled training users.

    The NMSE is the mean over users of a snapshot's squared error over its energy, in dB; beside it stands that of the
    median user. Both are over the bins of angle and delay that the model sees. A labelled user is one whose trajectory a
    method may be trained on for this task; pretraining has seen all training users. All methods that learn have the same
    labelled users at a share and seed, more labels contain the fewer, and test users are never labelled.

    The snapshots seen are noisy, for every method alike, if `prediction.snr` is set; then all methods are judged without
    noise too, as they were trained, at the largest share.

    Parameters
    ----------
    model : TemporalModel
        Pretrained.
    trained_with : TrainingSettings
        Its settings: domain and architecture.
    data : TemporalData
        Splits `train` and `test`.
    settings : EvaluationSettings
        `prediction`, and of `heads` the seeds and the share held back.
    seed : int
        Of the test windows and their noise; the heads' seeds choose labels, weights and batches.

    Returns
    -------
    Findings
        x is the share of labelled training users; not-a-number for what takes no labels.

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
    views = {QUANTITY: cutter.cut(test.csi, np.random.default_rng([seed, 30]))}
    if config.snr is not None:
        # The same generator: the same places.
        views[CLEAN] = replace(cutter, snr=None).cut(test.csi, np.random.default_rng([seed, 30]))
    judge = Judge(test.kind, horizons)
    rates: dict[str, dict[str, float]] = {}
    seconds: dict[str, float] = {}

    zero_shot = Forecaster(model, horizons[-1])
    for quantity, windows in views.items():
        judge.add(quantity, ZERO_SHOT, 0, NAN, forecast(zero_shot, windows.past), windows)
    counts = label_counts(len(train), config.labels)
    for share, count in counts.items():
        for method, head_seed, network, rate, took in _learned(model, train, count, share, cutter, settings):
            for quantity, windows in views.items():
                if quantity == QUANTITY or share == max(counts):
                    predicted = forecast(network, windows.past)
                    judge.add(quantity, method, head_seed, share, predicted, windows)
            seconds[method] = round(seconds.get(method, 0.0) + took, 1)
            rates.setdefault(method, {})[in_words(share)] = rate
    choice = {}
    for quantity, windows in views.items():
        simple = ridge(windows.past, horizons, config.ridge_orders, config.ridge_penalties)
        judge.add(quantity, RIDGE, 0, NAN, simple.values, windows)
        judge.add(quantity, PERSISTENCE, 0, NAN, persistence(windows.past, horizons), windows)
        if model.settings.extrapolation:
            judge.add(quantity, START, 0, NAN, extrapolate(windows.past, horizons[-1]).best(), windows)
        choice[quantity] = simple.summary(horizons)
    facts = _sizes(model, data, test, cutter, settings) | {
        "train_users": len(train),
        "labelled_users": {in_words(share): count for share, count in counts.items()},
        "learning_rates": rates,
        "training_seconds": seconds,
        "ridge_choice": choice,
    }
    return Findings(judge.records, facts)


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


class Judge:
    """Errors of predictions by kind of user and horizon, as records.

    Parameters
    ----------
    kind : int64 (N,)
        Of the users that windows are of.
    horizons : sequence of int
    """

    def __init__(self, kind: Tensor, horizons: Sequence[int]) -> None:
        self.kind = kind
        self.horizons = horizons
        self.records: list[Record] = []

    def add(self, quantity: str, method: str, seed: int, share: float, predicted: Tensor, windows: Windows) -> None:
        """Judge predictions complex (N, H, angle, delay), of all snapshots to come or of the horizons alone."""
        rows = [horizon - 1 for horizon in self.horizons]
        if predicted.shape[1] != len(rows):
            predicted = predicted[:, rows]
        errors = ratios(predicted, windows.future[:, rows])
        for regime in SPEEDS:
            mine = errors[self.kind == KINDS.index(regime)]
            for horizon, column in zip(self.horizons, mine.unbind(1), strict=True):
                known = column[column.isfinite()]
                if not len(known):
                    continue
                figures = {quantity: known.mean()} | ({MEDIAN: known.median()} if quantity == QUANTITY else {})
                for name, value in figures.items():
                    self.records.append(
                        Record(name, f"{regime}, horizon {horizon}", method, decibel(float(value)), "dB", "lower", seed,
                               len(known), share)
                    )  # fmt: skip


def _learned(
    model: TemporalModel, train: Tensor, count: int, share: float, cutter: Cutter, settings: EvaluationSettings
) -> Iterator[tuple[str, int, nn.Module, float, float]]:
    """Method, head seed, network, learning rate and seconds of all that is trained on `count` labelled users."""
    config, horizon = settings.prediction, cutter.future
    dense = model.settings.model_copy(update={"attention": "dense"})
    starts: dict[str, tuple[Callable[[], nn.Module], int]] = {
        FINE_TUNED: (lambda: Forecaster(copy.deepcopy(model), horizon), config.steps),
        TWIN: (lambda: Forecaster(TemporalModel(model.settings, model.grid), horizon), config.steps),
        DENSE: (lambda: Forecaster(TemporalModel(dense, model.grid), horizon), config.steps),
        GRU: (lambda: GruPredictor(model.grid[1:], horizon, config.gru_width), config.gru_steps),
    }
    if share not in config.dense_labels:
        del starts[DENSE]

    def draw(seed: int) -> Tensor:
        return train[torch.from_numpy(np.random.default_rng([seed, 33]).permutation(len(train))[:count])]

    for method, (build, steps) in starts.items():
        started = time.perf_counter()
        for head_seed, network, rate in trained(build, draw, cutter, config, settings.heads, steps):
            yield method, head_seed, network, rate, time.perf_counter() - started
            started = time.perf_counter()


def _sizes(
    model: TemporalModel, data: TemporalData, test: TemporalUsers, cutter: Cutter, settings: EvaluationSettings
) -> dict[str, Any]:
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
        "parameters": {"model": count_parameters(model), GRU: count_parameters(gru)},
        "steps": {"model and twins": config.steps, GRU: config.gru_steps},
        "batch_size": config.batch_size,
        "head_seeds": settings.heads.seeds,
        "split": "test users are of unseen cities and never labelled; more labels contain the fewer; all methods have the "
        "same; users without a path at a horizon are left out there",
    }
