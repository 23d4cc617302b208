"""Encoder and head trained together on few labels: the pretrained model fine-tuned, and its twin from scratch."""

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model.data import Users, with_antennas
from model.heads import Loss, Standardiser
from model.inference import Predictor
from model.settings import HeadSettings

# Held-back users that are looked at, and how often.
LOOKED_AT = 256
LOOK = 25
WEIGHT_DECAY = 1e-2


class EncoderWithHead(nn.Module):
    """A copy of an encoder, and a head on its [PHYSC] tokens, one a receive antenna.

    Parameters
    ----------
    predictor : Predictor
        Its model is copied.
    head : nn.Module
        On (B, antennas * d).
    visible : int64 (v,)
        CSI patches seen.
    """

    def __init__(self, predictor: Predictor, head: nn.Module, visible: Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(predictor.model)
        self.head = head
        self._predictor = predictor.with_model(self.model)
        self._visible = visible
        self._standardiser = Standardiser(torch.zeros(()), torch.ones(()))

    def standardise_by(self, users: Users, csi: Tensor) -> None:
        """Fix the scale of the head's inputs by what the encoder gives for some users before training."""
        with torch.no_grad():
            self._standardiser = Standardiser.of(self._features(users, csi))

    def forward(self, users: Users, csi: Tensor) -> Tensor:
        """Outputs of the head for users with channels (B, R, x, y)."""
        return self.head(self._standardiser(self._features(users, csi)))

    def _features(self, users: Users, csi: Tensor) -> Tensor:
        return self._predictor.physc(with_antennas(users, csi), self._visible).reshape(len(users), -1)

    @torch.no_grad()
    def outputs(self, users: Users, csi: Tensor, batch: int = 64) -> Tensor:
        """Outputs for any number of users, without gradients."""
        self.eval()
        index = torch.arange(len(users)).split(batch)
        return torch.cat([self(users.at(part), csi[part]) for part in index])


def finetuned(
    predictor: Callable[[int], Predictor],
    build: Callable[[], nn.Module],
    loss: Callable[[Tensor], Loss],
    draw: Callable[[int], tuple[Users, Tensor, Tensor]],
    visible: Tensor,
    settings: HeadSettings,
    rates: Sequence[float] | None = None,
) -> Iterator[tuple[int, EncoderWithHead, float]]:
    """Train encoder and head together, once a seed, at the rate that the first seed's held-back labels favour.

    Parameters
    ----------
    predictor : callable
        Seed -> the model to start from: the pretrained one, or one with random weights (`Predictor.untrained`).
    build : callable
        Makes the head; called under the seed.
    loss : callable
        Training labels -> loss.
    draw : callable
        Seed -> users in random order, their channels (N, R, x, y) and labels; the last `held_back` of them choose.
    visible : int64 (v,)
    settings : HeadSettings
        `finetune_steps` of `finetune_batch` users, the same for everything that is compared.
    rates : sequence of float, optional
        Instead of the settings'.

    Yields
    ------
    seed : int
    model : EncoderWithHead
    rate : float
    """
    chosen: float | None = None
    for seed in range(settings.seeds):
        users, csi, labels = draw(seed)
        tries = []
        for rate in [chosen] if chosen is not None else rates or settings.finetune_rates:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = EncoderWithHead(predictor(seed), build(), visible)
            tries.append((_train(model, loss, users, csi, labels, rate, settings, seed), rate, model))
        _, chosen, model = min(tries, key=lambda entry: entry[0])
        yield seed, model, chosen


def _train(
    model: EncoderWithHead,
    loss: Callable[[Tensor], Loss],
    users: Users,
    csi: Tensor,
    labels: Tensor,
    rate: float,
    settings: HeadSettings,
    seed: int,
) -> float:
    """Train in place; the step with the least loss on held-back users wins, and that loss is returned."""
    stop = max(len(labels) - max(round(settings.held_back * len(labels)), 1), 1)
    held_back = torch.arange(stop, len(labels))[:LOOKED_AT]
    model.standardise_by(users.at(torch.arange(stop)[:LOOKED_AT]), csi[:stop][:LOOKED_AT])
    criterion = loss(labels[:stop])
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=max(settings.finetune_steps, 1))
    rng = np.random.default_rng([seed, 21])
    best, weights = float("inf"), copy.deepcopy(model.state_dict())
    for step in range(1, settings.finetune_steps + 1):
        model.train()
        index = torch.from_numpy(rng.permutation(stop)[: settings.finetune_batch])
        optimiser.zero_grad()
        criterion(model(users.at(index), csi[index]), labels[index]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % LOOK == 0 or step == settings.finetune_steps:
            value = float(criterion(model.outputs(users.at(held_back), csi[held_back]), labels[held_back]))
            if value < best:
                best, weights = value, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return best
