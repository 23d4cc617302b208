"""What the equivariance task measures: errors against the shift, errors by set of users, both over scale, and the cost."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.equivariance import training
from wavecity.model.equivariance.group import lag_one
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.results.names import Method, Metric, TestSet
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.results.words import size_of, test_set_of
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings
from wavecity.model.settings.equivariance import Method as Way
from wavecity.model.settings.training import HeadSettings

SEEN, UNSEEN, MODULATED, VEHICLES = (
    Condition(test_set=one) for one in (TestSet.SEEN, TestSet.UNSEEN, TestSet.MODULATED, TestSet.VEHICLES)
)
# Sets that are looked at for every size and number of users.
SCALED = (SEEN, UNSEEN, MODULATED)
EVERY_AXIS = "all"

OWN, OWN_WRAPPED = Method.VANILLA_PRETRAINED, Method.WRAPPED_PRETRAINED
# Ways of training, as in a recipe.
TRAINED = {way: Method(way) for way in get_args(Way)}
PRECISIONS = {"float32": torch.complex64, "float64": torch.complex128}
# Calls before the clock starts.
WARM_UP = 2


def shifted(name: str) -> Condition:
    """Set out of distribution of a name."""
    return Condition(test_set=TestSet.SHIFTED, shifted=name)


def along(axis: str | None, bins: float) -> Condition:
    """Condition of an equivariance error: the axis, and whether whole bins are shifted."""
    return Condition(shift_axis=axis or EVERY_AXIS, on_grid=float(bins).is_integer())


def sized(condition: Condition, size: training.Size) -> Condition:
    """Condition with the size of the model."""
    return replace(condition, width=size[0], layers=size[1])


@dataclass(frozen=True)
class Measurement:
    """What all maps of a problem are measured on, by the same masks and shifts."""

    problem: training.Problem
    sets: dict[Condition, training.Batch]  # Condition -> Batch of test users
    few: training.Batch  # Users that the equivariance error is over
    config: EquivarianceSettings
    seed: int

    @classmethod
    def of(
        cls, problem: training.Problem, channels: Mapping[Condition, Tensor], config: EquivarianceSettings, seed: int
    ) -> "Measurement":
        """Draw what is seen of the test users; see `measure`."""
        sets = {}
        for number, (name, csi) in enumerate(channels.items()):
            if len(csi):
                sets[name] = problem.draw(csi, np.random.default_rng([seed, 44, number]))
            if name == UNSEEN:
                turns = problem.random_shifts(len(csi), np.random.default_rng([seed, 45]))
                sets[MODULATED] = problem.move(sets[name], turns)
        unseen = sets[UNSEEN]
        spread = torch.linspace(0, len(unseen) - 1, min(config.shift_users, len(unseen))).round().long()
        return cls(problem, sets, unseen.at(spread), config, seed)

    def of_own(self) -> Iterator[Record]:
        """The run's own model, plain and in the wrapper: errors against the shift in both precisions, errors by set.

        Precisions are those of the channels and the wrapper; the network computes as it was trained, in float32.
        """
        problem = self.problem
        networks = {OWN: problem.own, OWN_WRAPPED: problem.wrap(problem.own)}
        for precision, dtype in PRECISIONS.items():
            batch = self.few.to(dtype)
            for method, network in networks.items():
                for axis in (*problem.axes, None):
                    for bins, error in self._errors(network, batch, axis):
                        where = replace(along(axis, bins), precision=precision)
                        yield Record(Metric.EQUIVARIANCE_ERROR, method, error, 0, len(batch), bins, where)
        for where, batch in self.sets.items():
            for method, network in networks.items():
                value = training.nmse(training.outputs(network, batch), batch)
                yield Record(problem.metrics.own, method, value, 0, len(batch), condition=where)

    def of_trained(self, network: nn.Module, head_seed: int, cell: training.Cell, reference: bool) -> Iterator[Record]:
        """A trained map: its place over scale, and if it is a `reference` all sets and shifts."""
        method, scaled, metrics = TRAINED[cell.method], cell.method in self.config.scaled, self.problem.metrics
        for where, batch in self.sets.items():
            if not reference and where not in SCALED:
                continue
            value = training.nmse(training.outputs(network, batch), batch)
            if reference:
                yield Record(metrics.trained, method, value, head_seed, len(batch), condition=where)
            if scaled and where in SCALED:
                at_size = sized(where, cell.size)
                yield Record(metrics.scale, method, value, head_seed, len(batch), cell.samples, at_size)
        few = self.few
        if reference:
            for bins, error in self._errors(network, few, None):
                where = along(None, bins)
                yield Record(Metric.TRAINED_EQUIVARIANCE_ERROR, method, error, head_seed, len(few), bins, where)
        if scaled:
            turns = self.problem.random_shifts(len(few), np.random.default_rng([self.seed, 47]))
            error = training.shift_error(network, self.problem, few, turns, training.outputs(network, few))
            where = sized(Condition(shift_axis=EVERY_AXIS), cell.size)
            yield Record(Metric.SCALE_EQUIVARIANCE_ERROR, method, error, head_seed, len(few), cell.samples, where)

    def _errors(self, network: nn.Module, batch: training.Batch, axis: str | None) -> Iterator[tuple[float, float]]:
        """Shift in bins and equivariance error in dB; signs are the same for all maps."""
        output = training.outputs(network, batch)
        for bins in sorted(self.config.shifts):
            turns = self.problem.shifts(bins, axis, len(batch), np.random.default_rng([self.seed, 46]))
            yield bins, training.shift_error(network, self.problem, batch, turns, output)

    def undefined(self) -> dict[str, float]:
        """Share of the users and axes of each set whose lag-1 sum vanishes: there the wrapper promises nothing."""
        shares = {}
        for name, batch in self.sets.items():
            visible = torch.ones_like(batch.seen, dtype=torch.bool) if batch.visible is None else batch.visible
            defined = lag_one(batch.seen, visible, self.problem.dims)[1]
            shares[test_set_of(name)] = float((~defined).double().mean())
        return shares


def measure(
    problem: training.Problem,
    users: Tensor,
    channels: Mapping[Condition, Tensor],
    config: EquivarianceSettings,
    budget: BudgetSettings,
    heads: HeadSettings,
    seed: int,
) -> Findings:
    """Measure the run's own model, then train and measure every cell.

    Trained on are `users`, complex64 (N, ...); `channels` are sets of test users, complex64 (M, ...). `UNSEEN` is one
    of them; it also gives the set that is modulated at random, and the users that the equivariance error is over. The
    seed is that of masks, windows and shifts of the test users.
    """
    measurement = Measurement.of(problem, channels, config, seed)
    records = list(measurement.of_own())
    cost, times = _cost(problem, measurement.sets[UNSEEN], budget.batch_size, config.timings)
    records += times
    largest, most = budget.sizes[-1], min(budget.samples[-1], len(users))
    facts: Facts = {"learning_rates": {}, "training_seconds": {}, "parameters": {}}
    for cell in training.cells_of(config, budget, len(users)):
        started = time.perf_counter()
        name, where = TRAINED[cell.method], f"{size_of(*cell.size)}, {cell.samples} users"
        reference = cell.size == largest and cell.samples == most
        for one in training.trained(problem, cell, users, config, budget, heads):
            records += measurement.of_trained(one.network, one.seed, cell, reference)
            facts["learning_rates"].setdefault(name, {})[where] = one.rate
            facts["parameters"][size_of(*cell.size)] = count_parameters(one.network)
        facts["training_seconds"].setdefault(name, {})[where] = round(time.perf_counter() - started, 1)
    return Findings(
        records,
        {
            "sets": {test_set_of(name): len(batch) for name, batch in measurement.sets.items()},
            "training_users": len(users),
            "reference": f"{size_of(*largest)}, {most:,} training users",
            "bins": dict(zip(problem.axes, problem.bins, strict=True)),
            "shift_users": len(measurement.few),
            "precision": "of the channels and the wrapper; the network computes in float32",
            "lag_one_undefined": measurement.undefined(),
            "wrapper_cost_percent": round(cost, 1),
            "steps": budget.steps,
            "batch_size": budget.batch_size,
            "head_seeds": heads.seeds,
            "split": "nothing trained here has seen a test user; the run's own model was pretrained on all users of the seen "
            "scenes",
            "penalty": config.penalty,
            **facts,
        },
    )


@torch.no_grad()
def _cost(problem: training.Problem, users: training.Batch, size: int, calls: int) -> tuple[float, list[Record]]:
    """Per cent by which the wrapper lengthens a forward pass: medians of calls in turn, one process."""
    batch = users.at(torch.arange(size) % len(users))
    networks = {OWN: problem.own, OWN_WRAPPED: problem.wrap(problem.own)}
    seconds: dict[Method, list[float]] = {name: [] for name in networks}
    for call in range(WARM_UP + calls):
        for name, network in networks.items():
            started = time.perf_counter()
            network(batch.seen, batch.visible)
            if call >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    cost = 100 * (medians[OWN_WRAPPED] / medians[OWN] - 1)
    where = Condition(batch=size, precision="float32")
    times = {method: (Metric.FORWARD_TIME, 1e3 * value) for method, value in medians.items()}
    found = [*times.items(), (OWN_WRAPPED, (Metric.WRAPPER_COST, cost))]
    return cost, [Record(metric, method, value, 0, calls, condition=where) for method, (metric, value) in found]
