"""How everything that needs labels is trained: some are held back, and choose the learning rate and the step.

All methods of a task get the same seeds, rates and steps, so that none is favoured by the care it was trained with.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

WEIGHT_DECAY = 1e-2

Network = TypeVar("Network", bound=nn.Module)
# Trains a network from its start at a learning rate: the least loss on the held-back labels, and the network.
TrainAt = Callable[[float], tuple[float, Network]]


class Trained(NamedTuple, Generic[Network]):
    """A trained network, in evaluation mode, with its seed and the learning rate that held-back labels chose."""

    seed: int
    network: Network
    rate: float


class RateChoice:
    """Learning rates to try: all of them the first time, later only the one that did best then."""

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates = tuple(rates)

    def train(self, train_at: TrainAt[Network]) -> tuple[Network, float]:
        """Train at every rate that is left; the network with the least held-back loss, and its rate."""
        trials = [(*train_at(rate), rate) for rate in self.rates]
        _, network, rate = min(trials, key=lambda trial: trial[0])
        self.rates = (rate,)
        return network, rate


def train_seeds(
    seeds: int, rates: Sequence[float], prepare: Callable[[int], TrainAt[Network]]
) -> Iterator[Trained[Network]]:
    """Train once per seed, at the learning rate that the held-back labels of the first seed favour.

    `prepare` makes of a seed the function that trains at a rate; labels, held-back labels and start are drawn once per
    seed.

    Examples
    --------
    >>> def prepare(seed):
    ...     def train_at(rate):
    ...         return abs(rate - 0.1), nn.Identity()
    ...     return train_at
    >>> [(one.seed, one.rate) for one in train_seeds(2, (0.01, 0.1, 1.0), prepare)]
    [(0, 0.1), (1, 0.1)]
    """
    choice = RateChoice(rates)
    for seed in range(seeds):
        yield Trained(seed, *choice.train(prepare(seed)))


def first_held_back(count: int, share: float) -> int:
    """Number of labels to train on, at least one; those after them, at least one if there are two, are held back."""
    return max(count - max(round(share * count), 1), 1)


def split_held_back(labelled: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """What is trained on, and what is held back, of labelled rows in random order."""
    stop = first_held_back(len(labelled), share)
    return labelled[:stop], labelled[stop:]


def draw_rows(rng: np.random.Generator, values: Tensor, count: int) -> Tensor:
    """Draw `count` rows, each as often as the others: several times where there are fewer."""
    return values[torch.from_numpy(np.resize(rng.permutation(len(values)), count))]


def repeated(values: Tensor, count: int) -> Tensor:
    """Rows of (N, ...) up to `count`, from the start again where there are fewer: for what is drawn anew at every use."""
    return values[torch.arange(count) % len(values)]


def train_selected(
    network: nn.Module,
    loss: Callable[[], Tensor],
    held_back_loss: Callable[[], float],
    rate: float,
    steps: int,
    look: int,
    one_cycle: bool = True,
) -> float:
    """Train in place with AdamW and return the least loss on what is held back, whose step wins, the start included.

    `loss` draws a batch and gives its loss, `held_back_loss` judges the network in evaluation mode, every `look` steps
    and after the last. No step leaves the network as it is. With `one_cycle` the rate rises and falls, and gradients
    are clipped to a norm of 1: for whole networks, which a head alone does not need.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(steps, 1)) if one_cycle else None
    best, weights = held_back_loss(), copy.deepcopy(network.state_dict())
    for step in range(1, steps + 1):
        network.train()
        optimiser.zero_grad()
        loss().backward()
        if schedule is not None:
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if schedule is not None:
            schedule.step()
        if step % look == 0 or step == steps:
            value = held_back_loss()
            if value < best:
                best, weights = value, copy.deepcopy(network.state_dict())
    network.load_state_dict(weights)
    network.eval()
    return best
