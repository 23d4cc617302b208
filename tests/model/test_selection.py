"""Training with held-back labels, on a problem whose course is known: one weight, drawn to 3 by what it is trained on."""

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from wavecity.model.learning.selection import first_held_back, repeated, train_seeds, train_selected


class Weight(nn.Module):
    """One number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def away(self, place: float) -> torch.Tensor:
        """Squared distance from a place."""
        return (self.value - place) ** 2


@pytest.mark.parametrize(("place", "found"), [(3.0, 3.0), (1.0, 1.0), (-1.0, 0.0)])
def test_the_step_that_does_best_on_what_is_held_back_is_kept(place, found):
    """Held back at 3 training goes all the way, at 1 it is stopped on the way, at -1 it is not begun."""
    network, seen = Weight(), []

    def held_back_loss() -> float:
        seen.append(network.away(place).item())
        return seen[-1]

    least = train_selected(network, lambda: network.away(3.0), held_back_loss, 0.02, 400, 1, one_cycle=False)
    assert least == min(seen) == network.away(place).item()
    assert network.value.item() == pytest.approx(found, abs=0.05)
    assert len(seen) == 401
    assert not network.training


def test_the_last_step_is_looked_at_and_none_changes_nothing():
    """Five steps with a look at every third: the start, the third, the fifth."""
    network, looks = Weight(), []
    train_selected(network, lambda: network.away(3.0), lambda: looks.append(0) or network.away(3.0).item(), 0.1, 5, 3)
    assert len(looks) == 3
    assert 0 < network.value.item() < 0.6
    kept = network.value.item()
    train_selected(network, lambda: network.away(9.0), lambda: network.away(9.0).item(), 0.1, 0, 3)
    assert network.value.item() == kept


@pytest.mark.parametrize(("one_cycle", "norm"), [(True, 1.0), (False, 6e3)])
def test_one_cycle_clips_gradients(one_cycle, norm):
    """What the optimiser is given of a gradient of 6,000."""
    network, norms = Weight(), []
    watch = register_optimizer_step_pre_hook(lambda *_: norms.append(abs(network.value.grad.item())))
    train_selected(network, lambda: 1e3 * network.away(3.0), lambda: 0.0, 1e-4, 3, 3, one_cycle)
    watch.remove()
    assert norms == pytest.approx([norm] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("count", "share", "first"), [(10, 0.2, 8), (2, 0.2, 1), (3, 0.01, 2), (1, 0.2, 1), (100, 0.25, 75)]
)
def test_at_least_one_is_held_back_and_one_is_not(count, share, first):
    """Of one label alone none is held back."""
    assert first_held_back(count, share) == first


def test_all_seeds_train_at_the_rate_that_the_first_one_favours():
    """The second seed would have favoured another rate, but is not asked."""
    runs = []

    def prepare(seed):
        def train_at(rate):
            runs.append((seed, rate))
            return abs(rate - (0.1, 1.0)[seed]), nn.Linear(seed + 1, 1)

        return train_at

    found = list(train_seeds(2, (0.01, 0.1, 1.0), prepare))
    assert runs == [(0, 0.01), (0, 0.1), (0, 1.0), (1, 0.1)]
    assert [(one.seed, one.rate, one.network.in_features) for one in found] == [(0, 0.1, 1), (1, 0.1, 2)]


@pytest.mark.parametrize(("count", "rows"), [(2, [0, 1]), (7, [0, 1, 2, 0, 1, 2, 0])])
def test_rows_are_repeated_from_the_start(count, rows):
    assert repeated(torch.arange(3), count).tolist() == rows
