"""Four ways to train a map on channels that should follow shifts, at equal data, steps and choice of rate.

`vanilla` sees the users as they are; `augmented` sees each modulated at random; `penalised` pays for its equivariance error
on top of the loss; `wrapped` stands in the canonicalising wrapper and cannot err. All see random phases, as in pretraining.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.users import Rows
from wavecity.model.equivariance.group import Wrapped, energies, epsilon, modulate
from wavecity.model.learning import selection
from wavecity.model.learning.baselines import decibel
from wavecity.model.results.names import Metric
from wavecity.model.settings.equivariance import BudgetSettings, EquivarianceSettings, Method
from wavecity.model.settings.training import HeadSettings
from wavecity.model.transformer import seeded_weights

# Held-back users that are looked at, and how often in a training.
LOOKED_AT = 16
LOOKS = 3
# Users that a trained map works on at a time.
BATCH = 16
# In training, what is asked for weighs as if it had this share of the power of what is seen, if it has less: no fade may
# rule a step.
QUIET = 1e-2
# Streams of random numbers.
USERS, HELD_BACK, BATCHES, SHIFTS = 40, 41, 42, 43

Size = tuple[int, int]


@dataclass(frozen=True)
class Batch(Rows):
    """What a map sees of some users, and what it is asked for."""

    seen: Tensor  # complex (N, ...)
    visible: Tensor | None  # bool, as `seen`, or None for all
    target: Tensor  # complex (N, ...)
    asked: Tensor | None  # bool, as `target`, or None for all; entries that errors are over

    def to(self, dtype: torch.dtype) -> "Batch":
        """The same in another precision."""
        return replace(self, seen=self.seen.to(dtype), target=self.target.to(dtype))

    def only_asked(self, values: Tensor) -> Tensor:
        """Values as `target`, zero where nothing is asked."""
        return values if self.asked is None else values.masked_fill(~self.asked, 0)

    def power(self) -> Tensor:
        """Energy of what is asked for, float64 (N,)."""
        return energies(self.only_asked(self.target))


class Metrics(NamedTuple):
    """Names of a problem's error."""

    trained: Metric
    own: Metric
    scale: Metric


ESTIMATION = Metrics(Metric.ESTIMATION_NMSE, Metric.ESTIMATION_OWN_NMSE, Metric.ESTIMATION_SCALE_NMSE)
FORECAST = Metrics(Metric.FORECAST_NMSE, Metric.FORECAST_OWN_NMSE, Metric.FORECAST_SCALE_NMSE)


class Problem(ABC):
    """A task on channels, with the axes along which they may be modulated."""

    metrics: ClassVar[Metrics]  # Names of its error
    axes: ClassVar[tuple[str, ...]]
    dims: ClassVar[tuple[int, ...]]  # Of `Batch.seen` and `Batch.target`
    bins: tuple[int, ...]  # Entries of `seen` along each axis
    origin: tuple[int, ...]  # Index of the target's first entry along each axis, counted from the first one seen
    rms: float = 1.0  # Of what a wrapped map is given: the level that it was trained at

    @property
    @abstractmethod
    def own(self) -> nn.Module:
        """The run's own model as a map, in evaluation mode."""

    @abstractmethod
    def draw(self, csi: Tensor, rng: np.random.Generator) -> Batch:
        """Draw what is seen of some users' channels."""

    @abstractmethod
    def build(self, size: Size) -> nn.Module:
        """Random weights: a map (seen, visible) to the target's shape."""

    def wrap(self, network: nn.Module) -> nn.Module:
        """Put a map of `build`'s kind in the canonicalising wrapper."""
        return Wrapped(network, self.dims, self.origin, self.rms)

    def move(self, batch: Batch, turns: Tensor) -> Batch:
        """Modulate what is seen and what is asked for, by the same turns float64 (N, axes)."""
        target = modulate(batch.target, turns, self.dims, self.origin)
        return replace(batch, seen=modulate(batch.seen, turns, self.dims), target=target)

    def shifts(self, bins: float, axis: str | None, users: int, rng: np.random.Generator) -> Tensor:
        """Turns float64 (N, axes) of so many bins along one axis or, for None, along all; signs at random."""
        signs = torch.from_numpy(rng.choice((-1.0, 1.0), (users, len(self.axes))))
        chosen = torch.tensor([axis in (None, name) for name in self.axes])
        return signs * chosen * bins / torch.tensor(self.bins, dtype=torch.float64)

    def random_shifts(self, users: int, rng: np.random.Generator) -> Tensor:
        """Turns float64 (N, axes), uniform around the circle along every axis."""
        return torch.from_numpy(rng.uniform(-0.5, 0.5, (users, len(self.axes))))


@dataclass(frozen=True)
class Cell:
    """What is trained: a method, a size of the model and a number of training users."""

    method: Method
    size: Size
    samples: int


def cells_of(config: EquivarianceSettings, budget: BudgetSettings, users: int) -> list[Cell]:
    """All methods at the largest size with the most of the `users`; `scaled` ones also smaller, and with fewer users."""
    counts = sorted({min(max(count, 2), users) for count in budget.samples})
    largest, most = budget.sizes[-1], counts[-1]
    cells = [Cell(method, largest, most) for method in config.methods]
    for method in config.scaled:
        cells += [Cell(method, size, most) for size in budget.sizes[:-1]]
        cells += [Cell(method, largest, count) for count in counts[:-1]]
    return cells


@torch.no_grad()
def outputs(network: nn.Module, batch: Batch) -> Tensor:
    """A map's outputs for any number of users, complex as `batch.target`."""
    network.eval()
    parts = [batch.at(index) for index in torch.arange(len(batch)).split(BATCH)]
    return torch.cat([network(part.seen, part.visible) for part in parts])


def nmse(output: Tensor, batch: Batch) -> float:
    """Mean over users of the squared error over the energy of what is asked for, dB; users without any are left out."""
    error, power = energies(batch.only_asked(output - batch.target)), batch.power()
    heard = power > 0
    return decibel(float((error[heard] / power[heard]).mean()))


def shift_error(network: nn.Module, problem: Problem, batch: Batch, turns: Tensor, output: Tensor) -> float:
    """Epsilon of a map in dB, over what is asked for; every user counts as if all were asked for the same power.

    An error below the rounding of the batch's precision (where a shift happens to be exact) counts as that rounding.
    `turns` are float64 (N, axes), `output` complex (N, ...) of the map for the batch as it is.
    """
    shifted = outputs(network, problem.move(batch, turns))
    expected = modulate(output, turns, problem.dims, problem.origin)
    power = batch.power()
    level = torch.where(power > 0, power.rsqrt(), 0).view(-1, *[1] * (output.ndim - 1))
    ratio = epsilon(*(batch.only_asked(part).to(torch.complex128) * level for part in (shifted, expected)))
    return decibel(float(ratio.clamp_min(torch.finfo(batch.target.real.dtype).eps ** 2)))


def loss_of(
    network: nn.Module, problem: Problem, batch: Batch, method: Method, penalty: float, rng: np.random.Generator
) -> Tensor:
    """Loss of a step: the mean over users of the squared error over the energy, and what the method makes of it.

    `penalty` is the weight of the mean over users of |f(M_g H) - M_g f(H)|^2 over the energy asked for: over that of
    f(H), a map would be paid for loud outputs, and one that begins with zeros would divide by them. `rng` draws g.
    """
    if method == "augmented":
        batch = problem.move(batch, problem.random_shifts(len(batch), rng))
    output = network(batch.seen, batch.visible)
    share = 1 / _weighing(batch)
    loss = (energies(batch.only_asked(output - batch.target)) * share).mean()
    if method == "penalised":
        turns = problem.random_shifts(len(batch), rng)
        moved = problem.move(batch, turns)
        strayed = network(moved.seen, moved.visible) - modulate(output, turns, problem.dims, problem.origin)
        loss = loss + penalty * (energies(batch.only_asked(strayed)) * share).mean()
    return loss


def trained(
    problem: Problem,
    cell: Cell,
    users: Tensor,
    config: EquivarianceSettings,
    budget: BudgetSettings,
    heads: HeadSettings,
) -> Iterator[selection.Trained[nn.Module]]:
    """Train a cell once per seed, at the learning rate that the first seed's held-back users favour.

    Trained on are channels of `users`, complex64 (N, ...). A seed's order is the same for all cells, so that more users
    contain the fewer; the last `heads.held_back` of them choose.
    """
    looked_at_every = max(budget.steps // LOOKS, 1)

    def prepare(seed: int) -> selection.TrainAt[nn.Module]:
        order = np.random.default_rng([seed, USERS]).permutation(len(users))[: cell.samples]
        csi, held_back = selection.split_held_back(users[torch.from_numpy(order)], heads.held_back)
        judged = problem.draw(selection.repeated(held_back, LOOKED_AT), np.random.default_rng([seed, HELD_BACK]))

        def train_at(rate: float) -> tuple[float, nn.Module]:
            with seeded_weights(seed):
                network = problem.build(cell.size)
            if cell.method == "wrapped":
                network = problem.wrap(network)
            # Two streams: all methods see the same users, masks and phases, whether they draw shifts or not.
            rng, shifts = np.random.default_rng([seed, BATCHES]), np.random.default_rng([seed, SHIFTS])

            def batch_loss() -> Tensor:
                batch = _turned(problem.draw(selection.draw_rows(rng, csi, budget.batch_size), rng), rng)
                return loss_of(network, problem, batch, cell.method, config.penalty, shifts)

            def held_back_loss() -> float:
                error = energies(judged.only_asked(outputs(network, judged) - judged.target))
                return float((error / _weighing(judged)).mean())

            return selection.train_selected(
                network, batch_loss, held_back_loss, rate, budget.steps, looked_at_every
            ), network

        return train_at

    return selection.train_seeds(heads.seeds, budget.learning_rates, prepare)


def _turned(batch: Batch, rng: np.random.Generator) -> Batch:
    """Rotate every user by a random phase: more of the same physics."""
    angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, len(batch)))
    phase = torch.polar(torch.ones_like(angle), angle).to(batch.seen.dtype).view(-1, *[1] * (batch.seen.ndim - 1))
    return replace(batch, seen=batch.seen * phase, target=batch.target * phase)


def _weighing(batch: Batch) -> Tensor:
    """What a user's squared error is divided by in training, float64 (N,)."""
    visible = batch.seen if batch.visible is None else batch.seen.masked_fill(~batch.visible, 0)
    entries = [
        part.flatten(1).sum(1) if part is not None else torch.full((len(batch),), whole[0].numel())
        for part, whole in ((batch.visible, batch.seen), (batch.asked, batch.target))
    ]
    level = energies(visible) / entries[0].clamp_min(1) * entries[1]
    return batch.power().maximum(QUIET * level).clamp_min(1e-300)
