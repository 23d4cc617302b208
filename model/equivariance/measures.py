"""What the equivariance task measures: errors against the shift, errors by set of users, both over scale, and the cost."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from wavecity.model.results.table import Findings, Record
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings, Method
from wavecity.model.settings.training import HeadSettings

EPSILON = "Equivariance error"
TRAINED_EPSILON = "Equivariance error, trained alike"
SCALE_EPSILON = "Equivariance error over scale"
TIME, COST = "Time of a forward pass", "Cost of the wrapper"

SEEN, UNSEEN = "seen scenes, other users", "unseen scenes"
MODULATED = f"{UNSEEN}, modulated at random"
# Sets out of distribution are called by what is other in them.
OTHER = f"{UNSEEN}, other "
SPEEDS = f"{OTHER}speeds (vehicles)"
# Sets that are looked at for every size and number of users.
SCALED = (SEEN, UNSEEN, MODULATED)
EVERY_AXIS = "all axes"

OWN, WRAPPED = "vanilla as pretrained", "model in the wrapper"
NAMES: dict[Method, str] = {
    "vanilla": "vanilla",
    "augmented": "augmented",
    "penalised": "penalised",
    "wrapped": WRAPPED,
}
PRECISIONS = {"float32": torch.complex64, "float64": torch.complex128}
# Calls before the clock starts.
WARM_UP = 2

NAN = float("nan")


def own_name(quantity: str) -> str:
    """Name of the error of the run's own model."""
    return f"{quantity}, the run's model"


def scale_name(quantity: str) -> str:
    """Name of the error over sizes and numbers of users."""
    return f"{quantity} over scale"


def size_name(size: Size) -> str:
    """A size in words."""
    return f"width {size[0]}, {size[1]} layer{'s' if size[1] > 1 else ''}"


def shift_name(axis: str | None, bins: float) -> str:
    """Condition of an equivariance error: the axis, and whether whole bins are shifted."""
    return f"{axis or EVERY_AXIS}, {'on' if float(bins).is_integer() else 'off'} the grid"


def measure(
    problem: Problem,
    users: Tensor,
    channels: Mapping[str, Tensor],
    config: EquivarianceSettings,
    budget: BudgetSettings,
    heads: HeadSettings,
    seed: int,
) -> Findings:
    """Measure the run's own model, then train and measure every cell.

    Parameters
    ----------
    problem : Problem
    users : complex64 (N, ...)
        That may be trained on.
    channels : mapping of str to complex64 (M, ...)
        Sets of test users; `UNSEEN` is one. It also gives the set that is modulated at random, and the users that the
        equivariance error is over.
    config : EquivarianceSettings
    budget : BudgetSettings
    heads : HeadSettings
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
    facts: dict[str, Any] = {"learning_rates": {}, "training_seconds": {}, "parameters": {}}
    for cell in cells_of(config, budget, len(users)):
        started = time.perf_counter()
        name, where = NAMES[cell.method], f"{size_name(cell.size)}, {cell.samples} users"
        reference = cell.size == budget.sizes[-1] and cell.samples == _most(budget, len(users))
        for one in trained(problem, cell, users, config, budget, heads):
            records += _of_trained(problem, one.network, one.seed, cell, reference, sets, few, config, seed)
            facts["learning_rates"].setdefault(name, {})[where] = one.rate
            facts["parameters"][size_name(cell.size)] = count_parameters(one.network)
        facts["training_seconds"].setdefault(name, {})[where] = round(time.perf_counter() - started, 1)
    return Findings(
        records,
        {
            "quantity": problem.quantity,
            "sets": {name: len(batch) for name, batch in sets.items()},
            "training_users": len(users),
            "reference": f"{size_name(budget.sizes[-1])}, {_most(budget, len(users)):,} training users",
            "bins": dict(zip(problem.axes, problem.bins, strict=True)),
            "shift_users": len(few),
            "precision": "of the channels and the wrapper; the network computes in float32",
            "lag_one_undefined": {name: _undefined(problem, batch) for name, batch in sets.items()},
            "wrapper_cost_percent": round(cost, 1),
            "steps": budget.steps,
            "batch_size": budget.batch_size,
            "head_seeds": heads.seeds,
            "split": "nothing trained here has seen a test user; the run's own model was pretrained on all users of the seen "
            "scenes",
            "penalty": config.penalty,
            **facts,
            # What x is, where it is not labels.
            "swept": {
                EPSILON: "shift, bins",
                TRAINED_EPSILON: "shift, bins",
                SCALE_EPSILON: "training users",
                scale_name(problem.quantity): "training users",
            },
        },
    )


def _of_own(
    problem: Problem, sets: Mapping[str, Batch], few: Batch, config: EquivarianceSettings, seed: int
) -> Iterator[Record]:
    """The run's own model, plain and in the wrapper: errors against the shift in both precisions, errors by set.

    Precisions are those of the channels and the wrapper; the network computes as it was trained, in float32.
    """
    networks = {OWN: problem.own, WRAPPED: problem.wrap(problem.own)}
    for precision, dtype in PRECISIONS.items():
        batch = few.to(dtype)
        for method, network in networks.items():
            for axis in (*problem.axes, None):
                for bins, error in _errors(network, problem, batch, axis, config.shifts, seed):
                    condition = f"{shift_name(axis, bins)}, {precision}"
                    yield Record(EPSILON, condition, method, error, "dB", "lower", 0, len(batch), bins)
    for name, batch in sets.items():
        for method, network in networks.items():
            value = nmse(outputs(network, batch), batch)
            yield Record(own_name(problem.quantity), name, method, value, "dB", "lower", 0, len(batch))


def _of_trained(
    problem: Problem,
    network: nn.Module,
    head_seed: int,
    cell: Cell,
    reference: bool,
    sets: Mapping[str, Batch],
    few: Batch,
    config: EquivarianceSettings,
    seed: int,
) -> Iterator[Record]:
    """A trained map: its place over scale, and at the largest size with the most users all sets and shifts."""
    method, size = NAMES[cell.method], size_name(cell.size)
    scaled = cell.method in config.scaled
    for name, batch in sets.items():
        if not reference and name not in SCALED:
            continue
        value = nmse(outputs(network, batch), batch)
        if reference:
            yield Record(problem.quantity, name, method, value, "dB", "lower", head_seed, len(batch))
        if scaled and name in SCALED:
            quantity, condition = scale_name(problem.quantity), f"{name}, {size}"
            yield Record(quantity, condition, method, value, "dB", "lower", head_seed, len(batch), cell.samples)
    if reference:
        for bins, error in _errors(network, problem, few, None, config.shifts, seed):
            condition = shift_name(None, bins)
            yield Record(TRAINED_EPSILON, condition, method, error, "dB", "lower", head_seed, len(few), bins)
    if scaled:
        turns = problem.random_shifts(len(few), np.random.default_rng([seed, 47]))
        error = shift_error(network, problem, few, turns, outputs(network, few))
        condition = f"{EVERY_AXIS}, at random, {size}"
        yield Record(SCALE_EPSILON, condition, method, error, "dB", "lower", head_seed, len(few), cell.samples)


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
    networks = {OWN: problem.own, WRAPPED: problem.wrap(problem.own)}
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for call in range(WARM_UP + calls):
        for name, network in networks.items():
            started = time.perf_counter()
            network(batch.seen, batch.visible)
            if call >= WARM_UP:
                seconds[name].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    cost = 100 * (medians[WRAPPED] / medians[OWN] - 1)
    condition = f"batch of {size}, float32"
    records = [Record(TIME, condition, name, 1e3 * value, "ms", "lower", 0, calls) for name, value in medians.items()]
    return cost, [*records, Record(COST, condition, WRAPPED, cost, "%", "lower", 0, calls)]


def _undefined(problem: Problem, batch: Batch) -> float:
    """Share of the users and axes whose lag-1 sum vanishes: there the wrapper promises nothing."""
    visible = torch.ones_like(batch.seen, dtype=torch.bool) if batch.visible is None else batch.visible
    return float((~lag_one(batch.seen, visible, problem.dims)[1]).double().mean())


def _most(budget: BudgetSettings, users: int) -> int:
    return min(budget.samples[-1], users)


def _after(name: str, sets: dict[str, Batch], more: dict[str, Batch]) -> dict[str, Batch]:
    """`more` put in behind a set."""
    ordered: dict[str, Batch] = {}
    for key, batch in sets.items():
        ordered[key] = batch
        if key == name:
            ordered |= more
    return ordered
