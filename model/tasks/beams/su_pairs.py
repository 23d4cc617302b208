"""Beam pairs of users with several antennas: labels of either end, what the pairs are worth, and probes that find them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from wavecity.model.learning.heads import Loss
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Record
from wavecity.model.settings.training import HeadSettings
from wavecity.model.tasks.beams.link import Link
from wavecity.model.tasks.beams.probes import Pool, probe
from wavecity.model.tasks.beams.su_precoding import Pairs, su_labels, su_rate

# Of the target distribution for the beams of the first and of the second pair [ours]: both count, and the first leads.
SHARES = (2 / 3, 1 / 3)


@dataclass(frozen=True)
class PairLabels:
    """Training users with the labels of either end; the same users are labelled at both."""

    transmit: Pool
    receive: Pool

    @classmethod
    def of(cls, pairs: Pairs, csi: Tensor, seed: int) -> "PairLabels":
        """Label users with channels (N, R, x, y); the four receive beams are frequent enough to need no weights."""
        antennas, elements = csi.shape[1], csi.shape[2] * csi.shape[3]
        return cls(Pool.of(pairs.tx, elements, SHARES, seed), Pool.of(pairs.rx, antennas, SHARES, seed, weighted=False))

    @property
    def label(self) -> Tensor:
        """Transmit labels, then receive labels, int64 (N, 4)."""
        return torch.cat((self.transmit.label, self.receive.label), 1)

    @property
    def outputs(self) -> int:
        """Of both classifiers."""
        return len(self.transmit.classes) + len(self.receive.classes)

    def loss(self, label: Tensor) -> Loss:
        """Sum of the losses of both classifiers, whose outputs stand side by side."""
        transmit, receive, split = self.transmit.loss(label[:, :2]), self.receive.loss(label[:, 2:]), self._split

        def joint(outputs: Tensor, truth: Tensor) -> Tensor:
            return transmit(outputs[:, :split], truth[:, :2]) + receive(outputs[:, split:], truth[:, 2:])

        return joint

    def pairs(self, outputs: Tensor) -> Pairs:
        """Beams of the highest outputs of both classifiers."""
        return best_two(self.transmit.scores(outputs[:, : self._split]), self.receive.scores(outputs[:, self._split :]))

    @property
    def _split(self) -> int:
        return len(self.transmit.classes)


@dataclass
class ServedUsers:
    """Test users with channels (N, R, x, y), and what beams are worth for them."""

    csi: Tensor
    shape: tuple[int, int]
    link: Link
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.label = su_labels(self.csi, self.shape, self.link)

    def add(self, method: Method, pairs: Pairs, x: float = math.nan, seed: int = 0) -> None:
        """Note what the beams of a method give; the first of the two at either end is its dominant one."""
        dominant = (pairs.tx[:, 0] == self.label.tx[:, 0]) & (pairs.rx[:, 0] == self.label.rx[:, 0])
        shares = {
            Metric.RECEIVE_TOP2: found_share(pairs.rx, self.label.rx),
            Metric.TRANSMIT_TOP2: found_share(pairs.tx, self.label.tx),
            Metric.BEAM_PAIR: float(dominant.double().mean()),
        }
        for metric, share in shares.items():
            self.records.append(Record(metric, method, 100 * share, seed, len(self.csi), x))
        self.add_rate(method, pairs, x, seed)

    def add_rate(self, method: Method, pairs: Pairs, x: float = math.nan, seed: int = 0) -> None:
        """Note the rate alone: with the labels themselves as beams it is a bound."""
        rate = float(su_rate(self.csi, pairs, self.shape, self.link).mean())
        self.records.append(Record(Metric.SU_RATE, method, rate, seed, len(self.csi), x))


def found_share(beams: Tensor, label: Tensor) -> float:
    """Mean share of a user's labelled beams (N, 2) that are among the predicted ones (N, 2)."""
    return float((label[:, :, None] == beams[:, None, :]).any(2).double().mean())


def best_two(transmit: Tensor, receive: Tensor) -> Pairs:
    """Beams of the two highest scores at either end, (N, N_t) and (N, N_r)."""
    return Pairs(transmit.topk(2, dim=1).indices, receive.topk(2, dim=1).indices)


def pair_magnitudes(csi: Tensor, shown: Tensor, shape: tuple[int, int]) -> Tensor:
    """Magnitudes of the zero-filled channel's DFT, over both arrays, scaled to norm 1.

    Of complex (N, R, x, y), antennas `shown`, bool (x, y), and `shape` (columns and rows of the receiver), float32 (N,
    x * y + 2 * R): for each transmit direction over all receive directions, then root of the summed power and greatest
    magnitude for each receive direction over all transmit directions.
    """
    seen = torch.where(shown, csi, torch.zeros((), dtype=csi.dtype)).to(torch.complex128)
    pairs = torch.fft.fftn(seen.unflatten(1, shape), dim=(1, 2, 3, 4)).abs().flatten(3).flatten(1, 2)
    features = torch.cat((pairs.norm(dim=1), pairs.norm(dim=2), pairs.amax(2)), 1)
    return (features / pairs.flatten(1).norm(dim=1, keepdim=True).clamp_min(1e-30)).float()


def two_probes(
    features: tuple[Tensor, Tensor], labels: PairLabels, count: int, settings: HeadSettings
) -> Iterator[tuple[int, Pairs, dict[str, float]]]:
    """Head seed, beams of the test users and learning rates of two separate linear classifiers."""
    heads = (probe(features, pool, count, settings) for pool in (labels.transmit, labels.receive))
    for (head_seed, transmit, transmit_rate), (_, receive, receive_rate) in zip(*heads, strict=True):
        yield head_seed, best_two(transmit, receive), {"transmit": transmit_rate, "receive": receive_rate}
