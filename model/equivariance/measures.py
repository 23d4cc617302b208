"""What the equivariance task measures: errors against the shift, errors by set of users, both over scale, and the cost."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.equivariance.group import lag_one
from wavecity.model.equivariance.training import (
    Batch,
    Cell,
    Problem,
    Size,
    cells_of,
    nmse,
    outputs,
    shift_error,
    trained,
)
from wavecity.model.multimodal.network import count_parameters
from wavecity.model.results.names import Method, Metric, TestSet
from wavecity.model.results.records import Condition, Facts, Findings, Record
from wavecity.model.results.words import size_of, test_set_of
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings
from wavecity.model.settings.training import HeadSettings

SEEN, UNSEEN, MODULATED, VEHICLES = (
    Condition(test_set=one) for one in (TestSet.SEEN, TestSet.UNSEEN, TestSet.MODULATED, TestSet.VEHICLES)
)
# Sets that are looked at for every size and number of users.
SCALED = (SEEN, UNSEEN, MODULATED)
EVERY_AXIS = "all"

OWN, OWN_WRAPPED = Method.VANILLA_PRETRAINED, Method.WRAPPED_PRETRAINED
# Ways of training, as in a recipe.
TRAINED = {
    "vanilla": Method.VANILLA,
    "augmented": Method.AUGMENTED,
    "penalised": Method.PENALISED,
    "wrapped": Method.WRAPPED,
}
PRECISIONS = {"float32": torch.complex64, "float64": torch.complex128}
# Calls before the clock starts.
WARM_UP = 2


def shifted(name: str) -> Condition:
    """Set out of distribution of a name."""
    return Condition(test_set=TestSet.SHIFTED, shifted=name)


def along(axis: str | None, bins: float) -> Condition:
    """Condition of an equivariance error: the axis, and whether whole bins are shifted."""
    return Condition(shift_axis=axis or EVERY_AXIS, on_grid=float(bins).is_integer())


def sized(condition: Condition, size: Size) -> Condition:
    """Condition with the size of the model."""
    return replace(condition, width=size[0], layers=size[1])


def measure(
    problem: Problem,
    users: Tensor,
    channels: Mapping[Condition, Tensor],
    config: EquivarianceSettings,
    budget: BudgetSettings,
    heads: HeadSettings,
    seed: int,
) -> Findings:
    """Measure the run's own model, then train and measure every cell.

    Parameters
    ----------
    users : complex64 (N, ...)
        That may be trained on.
    channels : mapping of Condition to complex64 (M, ...)
        Sets of test users; `UNSEEN` is one. It also gives the set that is modulated at random, and the users that the
        equivariance error is over.
    seed : int
        Of masks, windows and shifts of the test users.
    """
    sets = {
        name: problem.draw(csi, np.random.default_rng([seed, 44, number]))
        for number, (name, csi) in enumerate(channels.items())
        if len(csi)
    }
    turns = problem.random_shifts(len(sets[UNSEEN]), np.random.default_rng([seed, 45]))
    sets = _after(UNSEEN, sets, {MODULATED: problem.move(sets[UNSEEN], turns)})
    spread = torch.linspace(0, len(sets[UNSEEN]) - 1, min(config.shift_users, len(sets[UNSEEN]))).round().long()
    few = sets[UNSEEN].at(spread)

    records = list(_of_own(problem, sets, few, config, seed))
    cost, times = _cost(problem, sets[UNSEEN], budget.batch_size, config.timings)
    records += times
    facts: Facts = {"learning_rates": {}, "training_seconds": {}, "parameters": {}}
    for cell in cells_of(config, budget, len(users)):
        started = time.perf_counter()
        name, where = TRAINED[cell.method], f"{size_of(*cell.size)}, {cell.samples} users"
        reference = cell.size == budget.sizes[-1] and cell.samples == _most(budget, len(users))
        for one in trained(problem, cell, users, config, budget, heads):
            records += _of_trained(problem, one.network, one.seed, cell, reference, sets, few, config, seed)
            facts["learning_rates"].setdefault(name, {})[where] = one.rate
            facts["parameters"][size_of(*cell.size)] = count_parameters(one.network)
        facts["training_seconds"].setdefault(name, {})[where] = round(time.perf_counter() - started, 1)
    return Findings(
        records,
        {
            "sets": {test_set_of(name): len(batch) for name, batch in sets.items()},
            "training_users": len(users),
            "reference": f"{size_of(*budget.sizes[-1])}, {_most(budget, len(users)):,} training users",
            "bins": dict(zip(problem.axes, problem.bins, strict=True)),
            "shift_users": len(few),
            "precision": "of the channels and the wrapper; the network computes in float32",
            "lag_one_undefined": {test_set_of(name): _undefined(problem, batch) for name, batch in sets.items()},
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


def _of_own(
    problem: Problem, sets: Mapping[Condition, Batch], few: Batch, config: EquivarianceSettings, seed: int
) -> Iterator[Record]:
    """The run's own model, plain and in the wrapper: errors against the shift in both precisions, errors by set.

    Precisions are those of the channels and the wrapper; the network computes as it was trained, in float32.
    """
    networks = {OWN: problem.own, OWN_WRAPPED: problem.wrap(problem.own)}
    for precision, dtype in PRECISIONS.items():
        batch = few.to(dtype)
        for method, network in networks.items():
            for axis in (*problem.axes, None):
                for bins, error in _errors(network, problem, batch, axis, config.shifts, seed):
                    where = replace(along(axis, bins), precision=precision)
                    yield Record(Metric.EQUIVARIANCE_ERROR, method, error, 0, len(batch), bins, where)
    for where, batch in sets.items():
        for method, network in networks.items():
            value = nmse(outputs(network, batch), batch)
            yield Record(problem.metrics.own, method, value, 0, len(batch), condition=where)


def _of_trained(
    problem: Problem,
    network: nn.Module,
    head_seed: int,
    cell: Cell,
    reference: bool,
    sets: Mapping[Condition, Batch],
    few: Batch,
    config: EquivarianceSettings,
    seed: int,
) -> Iterator[Record]:
    """A trained map: its place over scale, and at the largest size with the most users all sets and shifts."""
    method, scaled = TRAINED[cell.method], cell.method in config.scaled
    for where, batch in sets.items():
        if not reference and where not in SCALED:
            continue
        value = nmse(outputs(network, batch), batch)
        if reference:
            yield Record(problem.metrics.trained, method, value, head_seed, len(batch), condition=where)
        if scaled and where in SCALED:
            at_size = sized(where, cell.size)
            yield Record(problem.metrics.scale, method, value, head_seed, len(batch), cell.samples, at_size)
    if reference:
        for bins, error in _errors(network, problem, few, None, config.shifts, seed):
            where = along(None, bins)
            yield Record(Metric.TRAINED_EQUIVARIANCE_ERROR, method, error, head_seed, len(few), bins, where)
    if scaled:
        turns = problem.random_shifts(len(few), np.random.default_rng([seed, 47]))
        error = shift_error(network, problem, few, turns, outputs(network, few))
        where = sized(Condition(shift_axis=EVERY_AXIS), cell.size)
        yield Record(Metric.SCALE_EQUIVARIANCE_ERROR, method, error, head_seed, len(few), cell.samples, where)


def _errors(
    network: nn.Module, problem: Problem, batch: Batch, axis: str | None, shifts: Sequence[float], seed: int
) -> Iterator[tuple[float, float]]:
    """Shift in bins and equivariance error in dB; signs are the same for all maps."""
    output = outputs(network, batch)
    for bins in sorted(shifts):
        turns = problem.shifts(bins, axis, len(batch), np.random.default_rng([seed, 46]))
        yield bins, shift_error(network, problem, batch, turns, output)


@torch.no_grad()
def _cost(problem: Problem, users: Batch, size: int, calls: int) -> tuple[float, list[Record]]:
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


def _undefined(problem: Problem, batch: Batch) -> float:
    """Share of the users and axes whose lag-1 sum vanishes: there the wrapper promises nothing."""
    visible = torch.ones_like(batch.seen, dtype=torch.bool) if batch.visible is None else batch.visible
    return float((~lag_one(batch.seen, visible, problem.dims)[1]).double().mean())


def _most(budget: BudgetSettings, users: int) -> int:
    return min(budget.samples[-1], users)


def _after(name: Condition, sets: dict[Condition, Batch], more: dict[Condition, Batch]) -> dict[Condition, Batch]:
    """`more` put in behind a set."""
    ordered: dict[Condition, Batch] = {}
    for key, batch in sets.items():
        ordered[key] = batch
        if key == name:
            ordered |= more
    return ordered
