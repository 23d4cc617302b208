"""How everything is trained that needs labels: some are held back, and the step that does best on them is kept."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 1e-2


def first_held_back(count: int, share: float) -> int:
    """Number of labels to train on, at least one; those after them, at least one if there are two, are held back."""
    return max(count - max(round(share * count), 1), 1)


def train_selected(
    network: nn.Module,
    loss: Callable[[], Tensor],
    held_back_loss: Callable[[], float],
    rate: float,
    steps: int,
    look: int,
    one_cycle: bool = True,
) -> float:
    """Train in place; the step with the least loss on what is held back wins, the start included.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode afterwards.
    loss : callable
        Draws a batch and gives its loss.
    held_back_loss : callable
        Puts the network into evaluation mode and judges it.
    rate : float
        Learning rate of AdamW.
    steps : int
        None leaves the network as it is.
    look : int
        Steps from one look at what is held back to the next; the last step is always looked at.
    one_cycle : bool
        Let the rate rise and fall, and clip gradients to a norm of 1: for whole networks, which a head alone does not need.

    Returns
    -------
    float
        That least loss.
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
