"""Heads on fixed features, and how they are trained: the same budget and choice of learning rate for every method.

Sizes of the heads are those of the paper (arXiv 2602.04016), section 4.1.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavecity.model.learning.selection import TrainAt, Trained, first_held_back, train_seeds, train_selected
from wavecity.model.settings.training import HeadSettings
from wavecity.model.transformer import seeded_weights

Loss = Callable[[Tensor, Tensor], Tensor]
Labelled = tuple[Tensor, Tensor]
# Steps from one look at the held-back labels to the next.
LOOK = 10
# Width of the hidden layer of a correction, as the paper's location head has.
HIDDEN = 64
# Stream of random numbers.
BATCHES = 20


class LocationHead(nn.Module):
    """The paper's localisation head: d -> 64 -> 64 -> 2, ReLU, tanh, scaled to the tile."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2), nn.Tanh()
        )
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, d) to positions (B, 2), m."""
        return self.scale * self.layers(features)


class LocationCnn(nn.Module):
    """The paper's raw-CSI baseline: conv-BN-ReLU-maxpool of 16, 32, 64 channels, average, 64 -> 32 -> 2, tanh."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((2, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2), nn.Tanh()
        )
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        """Real and imaginary parts (B, 2, x, y) to positions (B, 2), m."""
        return self.scale * self.layers(image)


class Correction(nn.Module):
    """What the model says already, plus a small network's correction, at first zero: few labels cannot make it worse."""

    def __init__(self, width: int, outputs: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.first, self.last = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[PHYSC] and what the model says (B, width + outputs) to outputs (B, outputs)."""
        return features[:, self.width :] + self.scale * self.last(F.relu(self.first(features[:, : self.width])))


class PlaceCorrection(nn.Module):
    """Where the model puts a user already, plus a correction, at first zero, in units of how unsure it is of that.

    What it is sure of to some decimetres is then not spoilt for users who are tens of metres off.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first, self.last = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        """[PHYSC], place and spread in m (B, width + 3) to positions (B, 2), m."""
        physc, place, spread = features.split((self.width, 2, 1), 1)
        return place + spread * self.last(F.relu(self.first(physc)))


def classifier(width: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """MLP with ReLU between its layers; no hidden layer makes it a linear probe."""
    sizes = [width, *hidden, classes]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def distance(place: Tensor, truth: Tensor) -> Tensor:
    """Mean distance of positions (B, 2), the loss of localisation heads."""
    return (place - truth).norm(dim=-1).mean()


def log_distance(place: Tensor, truth: Tensor) -> Tensor:
    """Mean logarithm of 1 m and the distance of positions (B, 2): from 0.3 to 1.6 m counts as much as from 10 to 21."""
    return (place - truth).norm(dim=-1).log1p().mean()


def inverse_frequency(label: Tensor, classes: int) -> Tensor:
    """Weights float32 (classes,) of a weighted cross-entropy: falling with frequency, mean 1 over int64 (N,).

    By its square root [ours]: by the frequency itself, all classes would count the same, and rare ones rule.
    """
    count = torch.bincount(label, minlength=classes).float()
    weight = torch.where(count > 0, count.clamp_min(1) ** -0.5, torch.zeros(()))
    return weight / (weight[label].mean()).clamp_min(1e-12)


@dataclass(frozen=True)
class Standardiser:
    """Zero mean and unit deviation by reference rows; images keep their scale (their RMS is one already)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, reference: Tensor, kept: int = 0) -> "Standardiser":
        """Learn it from features (N, F), the last `kept` of which stay as they are, or images (N, C, x, y)."""
        if reference.ndim > 2:
            return cls(torch.zeros(()), torch.ones(()))
        mean, deviation = reference.mean(0), reference.std(0, correction=0).clamp_min(1e-6)
        if kept:
            mean[-kept:], deviation[-kept:] = 0.0, 1.0
        return cls(mean, deviation)

    def __call__(self, features: Tensor) -> Tensor:
        """Same shape."""
        return (features - self.mean) / self.deviation


def fit(
    head: nn.Module, loss: Loss, train: Labelled, held_back: Labelled, rate: float, seed: int, settings: HeadSettings
) -> float:
    """Train a head in place; the step with the least loss on the held-back labels wins, and that loss is returned.

    Where it starts counts as a step: fine-tuning cannot make it worse there. The seed is that of the batches.
    """
    rng = np.random.default_rng([seed, BATCHES])
    features, labels = train

    def batch_loss() -> Tensor:
        index = torch.from_numpy(rng.permutation(len(features))[: settings.batch_size])
        return loss(head(features[index]), labels[index])

    def held_back_loss() -> float:
        head.eval()
        return float(loss(apply(head, held_back[0]), held_back[1]))

    return train_selected(head, batch_loss, held_back_loss, rate, settings.steps, LOOK, one_cycle=False)


def tuned(
    build: Callable[[], nn.Module],
    loss: Callable[[Tensor], Loss],
    draw: Callable[[int], Labelled],
    settings: HeadSettings,
    rates: Sequence[float] | None = None,
) -> Iterator[Trained[nn.Module]]:
    """Train a head once per seed, at the learning rate that the first seed's held-back labels favour.

    `build` makes the head, called under the seed; `loss` is made from training labels (class weights come from these
    alone). `draw` gives labelled features in random order, the last `held_back` of which choose; `rates` replace the
    settings'.
    """

    def prepare(seed: int) -> TrainAt[nn.Module]:
        features, labels = draw(seed)
        stop = first_held_back(len(labels), settings.held_back)
        train, held_back = (features[:stop], labels[:stop]), (features[stop:], labels[stop:])

        def train_at(rate: float) -> tuple[float, nn.Module]:
            with seeded_weights(seed):
                head = build()
            return fit(head, loss(train[1]), train, held_back, rate, seed, settings), head

        return train_at

    return train_seeds(settings.seeds, rates or settings.learning_rates, prepare)


@torch.no_grad()
def apply(head: nn.Module, features: Tensor, batch: int = 1024) -> Tensor:
    """Outputs of a head for many users."""
    return torch.cat([head(part) for part in features.split(batch)])
