"""Classifiers of beams on features of users: who is labelled, which beams have an output, how they are weighted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.feasible import FEWEST_LABELS, NotPossible, too_few_for_ratios
from wavecity.model.data.users import Users
from wavecity.model.learning.heads import Loss, Standardiser, apply, classifier, inverse_frequency, tuned
from wavecity.model.results.records import Facts
from wavecity.model.settings.training import HeadSettings

# Stream of random numbers.
LABELS = 41

Features = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Pool:
    """Training users that may be labelled."""

    label: Tensor  # int64 (N, k); positions in `classes` of a user's beams
    classes: Tensor  # int64 (c,); beams that have an output, ascending
    codebook: int  # All beams
    shares: tuple[float, ...]  # Of the target distribution, for each of the k labels
    weighted: bool  # Whether beams are weighted by `inverse_frequency` among the labels
    seed: int

    @classmethod
    def of(cls, beams: Tensor, codebook: int, shares: tuple[float, ...], seed: int, weighted: bool = True) -> "Pool":
        """Users with beams int64 (N, k). A beam that none of them has can never be labelled, and gets no output."""
        classes, label = beams.unique(return_inverse=True)
        return cls(label, classes, codebook, shares, weighted, seed)

    def labelled(self, count: int, head_seed: int) -> Tensor:
        """Users labelled for a head's seed, int64 (count,), in random order; more labels contain the fewer."""
        rng = np.random.default_rng([self.seed, LABELS, head_seed])
        return torch.from_numpy(rng.permutation(len(self.label))[:count])

    def loss(self, label: Tensor) -> Loss:
        """Cross-entropy for training labels (n, k); unlabelled beams weigh nothing."""
        weight = (
            inverse_frequency(label.flatten(), len(self.classes)) if self.weighted else torch.ones(len(self.classes))
        )
        return weighted_cross_entropy(weight, self.shares)

    def scores(self, outputs: Tensor) -> Tensor:
        """Outputs (M, c) as scores (M, codebook) of all beams: minus infinity where there is no output."""
        scores = torch.full((len(outputs), self.codebook), float("-inf"))
        scores[:, self.classes] = outputs
        return scores


def label_counts(ratios: Sequence[float], total: int, name: str, key: str) -> dict[float, int]:
    """Number of labels of each share of `total` users, ascending; without the shares that give too few.

    Where not one gives enough, the refusal names the dataset and the `key` of the setting below `training.evaluation`.
    """
    if why := too_few_for_ratios(ratios, total, key):
        raise NotPossible(f"{name}: {why}")
    counts = {ratio: round(ratio * total) for ratio in sorted(set(ratios))}
    return {ratio: count for ratio, count in counts.items() if count >= FEWEST_LABELS}


def label_facts(
    train: Users, test: Users, counts: Mapping[float, int], ratios: Sequence[float], heads: HeadSettings
) -> Facts:
    """Sample sizes of a task whose heads are trained at shares `ratios` of the labels, of which `counts` are enough."""
    return {
        "test_scenes": len(test.scene.unique()),
        "test_users": len(test),
        "train_scenes": len(train.scene.unique()),
        "train_users": len(train),
        "labels": {f"{ratio:g}": count for ratio, count in counts.items()},
        "ratios_left_out": sorted(set(ratios) - set(counts)),
        "held_back_share_of_labels": heads.held_back,
        "head_seeds": heads.seeds,
    }


def weighted_cross_entropy(weight: Tensor, shares: Sequence[float] = (1.0,)) -> Loss:
    """Cross-entropy of logits (B, c) with class weights (c,), to labels int64 (B, k) that share the target.

    Classes that were not labelled weigh 0: held-back users with such a beam do not count, unless all have one.
    """
    share = torch.tensor(shares)

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        weights = weight[truth] * share
        if not weights.any():
            weights = share.expand_as(weights)
        return -(weights * logits.log_softmax(-1).gather(1, truth)).sum() / weights.sum()

    return loss


def probe(
    features: Features,
    pool: Pool,
    count: int,
    settings: HeadSettings,
    hidden: Sequence[int] = (),
    rates: Sequence[float] | None = None,
) -> Iterator[tuple[int, Tensor, float]]:
    """Train a classifier (linear if nothing is hidden) on features (N, width) of `count` labelled users, per seed.

    Yields seed, scores (M, codebook) of the test users' features (M, width), and learning rate, of `rates` or the
    settings'.
    """
    train, test = features

    def draw(head_seed: int) -> tuple[Tensor, Tensor]:
        index = pool.labelled(count, head_seed)
        return Standardiser.of(train[index])(train[index]), pool.label[index]

    def build() -> nn.Module:
        return classifier(train.shape[1], hidden, len(pool.classes))

    for head_seed, head, rate in tuned(build, pool.loss, draw, settings, rates):
        standardise = Standardiser.of(train[pool.labelled(count, head_seed)])
        yield head_seed, pool.scores(apply(head, standardise(test))), rate
