"""Encoder and head trained together on few labels: the pretrained model fine-tuned, and its twin from scratch.

The head is trained first, on the features of the encoder as it is, and then both together: with a random head the first
steps would only spoil the encoder. The twin gets the same.
"""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.users import Users, with_antennas
from wavecity.model.learning.heads import Loss, Standardiser, fit
from wavecity.model.learning.selection import RateChoice, TrainAt, Trained, first_held_back, train_seeds, train_selected
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.settings.training import HeadSettings
from wavecity.model.transformer import seeded_weights

# Held-back users that are looked at, and how often.
LOOKED_AT = 256
LOOK = 25
# Stream of random numbers.
BATCHES = 21


class EncoderWithHead(nn.Module):
    """A copy of a model's encoder, and a head (B, antennas * d) on its [PHYSC] tokens, one per receive antenna."""

    def __init__(self, predictor: TaskModel, head: nn.Module, visible: Tensor) -> None:
        super().__init__()
        self._predictor = predictor.copied()
        self.model = self._predictor.model
        self.head = head
        self._visible = visible
        self._standardiser = Standardiser(torch.zeros(()), torch.ones(()))

    @torch.no_grad()
    def standardised(self, users: Users, csi: Tensor, reference: int, batch: int = 64) -> Tensor:
        """Inputs of the head for any number of users, on a scale that the first `reference` of them fix for good."""
        index = torch.arange(len(users)).split(batch)
        features = torch.cat([self._features(users.at(part), csi[part]) for part in index])
        self._standardiser = Standardiser.of(features[:reference])
        return self._standardiser(features)

    def forward(self, users: Users, csi: Tensor) -> Tensor:
        """Outputs of the head for users with channels (B, R, x, y)."""
        features = self._standardiser(self._features(users, csi))  # (B, R * d)
        return self.head(features)

    def _features(self, users: Users, csi: Tensor) -> Tensor:
        tokens = self._predictor.physc(with_antennas(users, csi), self._visible)  # (B * R, d)
        return tokens.reshape(len(users), -1)  # (B, R * d)

    def copied(self) -> "EncoderWithHead":
        """Another one with the same weights; the scenes are shared."""
        other = EncoderWithHead(self._predictor, copy.deepcopy(self.head), self._visible)
        other._standardiser = self._standardiser
        return other

    @torch.no_grad()
    def outputs(self, users: Users, csi: Tensor, batch: int = 64) -> Tensor:
        """Outputs for any number of users, without gradients."""
        self.eval()
        index = torch.arange(len(users)).split(batch)
        return torch.cat([self(users.at(part), csi[part]) for part in index])


def finetuned(
    predictor: Callable[[int], TaskModel],
    build: Callable[[], nn.Module],
    loss: Callable[[Tensor], Loss],
    draw: Callable[[int], tuple[Users, Tensor, Tensor]],
    visible: Tensor,
    settings: HeadSettings,
) -> Iterator[Trained[EncoderWithHead]]:
    """Train a head, then encoder and head, once per seed, at rates that the first seed's held-back labels favour.

    `predictor` gives for a seed the model to start from: the pretrained one, or one with random weights
    (`TaskModel.untrained`). `build` makes the head and is called under the seed; `loss` is made from training labels.
    `draw` gives for a seed users in random order, their channels (N, R, x, y) and labels, the last `held_back` of which
    choose. `visible`, int64 (v,), are CSI patches.
    """
    head_rates = RateChoice(settings.learning_rates)

    def prepare(seed: int) -> TrainAt[EncoderWithHead]:
        users, csi, labels = draw(seed)
        with seeded_weights(seed):
            start = EncoderWithHead(predictor(seed), build(), visible)
        stop = first_held_back(len(labels), settings.held_back)
        criterion = loss(labels[:stop])
        features = start.standardised(users, csi, stop)
        known, held_back = (features[:stop], labels[:stop]), (features[stop:], labels[stop:])
        looked_at = torch.arange(stop, len(labels))[:LOOKED_AT]

        def train_head(rate: float) -> tuple[float, nn.Module]:
            head = copy.deepcopy(start.head)
            return fit(head, criterion, known, held_back, rate, seed, settings), head

        def train_both(rate: float) -> tuple[float, EncoderWithHead]:
            model = start.copied()
            rng = np.random.default_rng([seed, BATCHES])

            def batch_loss() -> Tensor:
                index = torch.from_numpy(rng.permutation(stop)[: settings.finetune_batch])
                return criterion(model(users.at(index), csi[index]), labels[index])

            def held_back_loss() -> float:
                return float(criterion(model.outputs(users.at(looked_at), csi[looked_at]), labels[looked_at]))

            return train_selected(model, batch_loss, held_back_loss, rate, settings.finetune_steps, LOOK), model

        start.head, _ = head_rates.train(train_head)
        return train_both

    return train_seeds(settings.seeds, settings.finetune_rates, prepare)
