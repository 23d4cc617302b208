"""Beam pairs for a user of several antennas and the rate of two streams (section 4.1, Appendix C.2; Figure 7).

Labels are two pairs of a transmit and a receive beam by greedy exhaustive search over the whole channel
(`su_precoding.su_labels`). The methods see a few CSI patches of every receive antenna, the same ones for all; the model, made
for users of one antenna, gives a [PHYSC] token for each, and the tokens are concatenated. Test users are in scenes that
no method was trained on.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wavecity.model.data.users import Users, WirelessData, with_antennas
from wavecity.model.learning.baselines import omp
from wavecity.model.learning.finetune import finetuned
from wavecity.model.learning.heads import Loss, classifier
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.table import BOUND, Findings, Record
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks.beams.link import Link
from wavecity.model.tasks.beams.mu_mimo import (
    FINE_TUNED,
    MAGNITUDES,
    PHYSC,
    RAW,
    TWIN,
    ZERO_FILLED,
    pursuit,
)
from wavecity.model.tasks.beams.probes import Pool, label_counts, probe
from wavecity.model.tasks.beams.receivers import in_chunks, link_facts, link_of, raw_entries, receivers
from wavecity.model.tasks.beams.su_precoding import Pairs, su_bound, su_labels, su_rate
from wavecity.model.tasks.sites import shown_antennas

RECEIVE, TRANSMIT = "Receive beams, top-2 accuracy", "Transmit beams, top-2 accuracy"
PAIR, RATE = "Dominant beam pair, accuracy", "SU-MIMO sum-rate"
CONDITION = "two linear probes"
# Of the target distribution for the beams of the first and of the second pair [ours]: both count, and the first leads.
SHARES = (2 / 3, 1 / 3)
ATOMS = 4


def su_mimo(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Accuracy of beams and rate against the share of the training labels that is used.

    Top-2 accuracy is the mean share of the two labelled beams that are among the two with the highest scores, in any
    order; the dominant pair is right where the highest score at either end is that of the first labelled pair. Rates are
    means over users (`su_precoding.su_rate`). Methods that take no labels have one record (x is not a number). Encoder and
    heads are not trained together when `heads.finetune_steps` is 0.

    Parameters
    ----------
    predictor : Predictor
    data : WirelessData
        Of a store with paths.
    settings : EvaluationSettings
        `su_mimo` and `heads`.
    seed : int
        Of pilots; the heads' seeds choose labels, weights and batches.

    Returns
    -------
    Findings
        No arrays.

    Raises
    ------
    InputError
        A store without paths, or no share gives labels enough.
    """
    config = settings.su_mimo
    shape = (config.columns, config.rows)
    link = link_of(config.link)
    train, train_csi = receivers(data, "train", config.users, *shape)
    test, test_csi = receivers(data, "test", config.test_users, *shape)
    counts = label_counts(config.ratios, len(train), data.name, "su_mimo.ratios")
    visible = predictor.pilots(config.csi, seed)
    trial = Trial(test_csi, shape, link)
    ends = Ends.of(su_labels(train_csi, shape, link), train_csi, seed)

    views = [_views(predictor, users, csi, shape, visible) for users, csi in ((train, train_csi), (test, test_csi))]
    rates: dict[str, dict[str, Any]] = {}
    for ratio, count in counts.items():
        for method in views[0]:
            features = (views[0][method], views[1][method])
            for head_seed, pairs, chosen in _two_probes(features, ends, count, settings.heads):
                trial.add(method, pairs, ratio, head_seed)
                if head_seed == 0:
                    rates.setdefault(method, {})[f"{ratio:g}"] = chosen
        joint = _trained_together(predictor, (train, train_csi), (test, test_csi), ends, count, visible, settings.heads)
        for method, head_seed, pairs, rate in joint:
            trial.add(method, pairs, ratio, head_seed)
            if head_seed == 0:
                rates.setdefault(method, {})[f"{ratio:g}"] = rate
    for method, pairs in _unlabelled(predictor, test_csi, shape, visible, link):
        trial.add(method, pairs)
    trial.add_bound()

    facts = {
        "test_scenes": len(test.scene.unique()),
        "test_users": len(test),
        "train_scenes": len(train.scene.unique()),
        "train_users": len(train),
        "labels": {f"{ratio:g}": count for ratio, count in counts.items()},
        "ratios_left_out": sorted(set(config.ratios) - set(counts)),
        "held_back_share_of_labels": settings.heads.held_back,
        "receive_antennas": f"{config.columns} x {config.rows}, half a wavelength apart, isotropic, facing east",
        "transmit_beams": ends.transmit.codebook,
        "transmit_beams_of_training_users": len(ends.transmit.classes),
        "receive_beams": ends.receive.codebook,
        "top_2_accuracy": "mean share of the two labelled beams that are among the two predicted",
        "target_shares_of_first_and_second_pair": list(SHARES),
        "csi_patches_seen": len(visible),
        "csi_patches": predictor.model.csi_patches,
        "feature_width": {name: values.shape[1] for name, values in views[0].items()},
        "head_seeds": settings.heads.seeds,
        "learning_rates": rates,
        "split": "labels of users of training scenes, at random; tested on scenes of the test split",
        **link_facts(config.link, test.csi),
        "fully_digital_bound": float(su_bound(test_csi, link).mean()),
    }
    return Findings(trial.records, facts)


@dataclass(frozen=True)
class Ends:
    """Training users with the labels of either end; the same users are labelled at both."""

    transmit: Pool
    receive: Pool

    @classmethod
    def of(cls, pairs: Pairs, csi: Tensor, seed: int) -> "Ends":
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

        def both(outputs: Tensor, truth: Tensor) -> Tensor:
            return transmit(outputs[:, :split], truth[:, :2]) + receive(outputs[:, split:], truth[:, 2:])

        return both

    def pairs(self, outputs: Tensor) -> Pairs:
        """Beams of the highest outputs of both classifiers."""
        return best_two(self.transmit.scores(outputs[:, : self._split]), self.receive.scores(outputs[:, self._split :]))

    @property
    def _split(self) -> int:
        return len(self.transmit.classes)


@dataclass
class Trial:
    """Test users with channels (N, R, x, y), and what beams are worth for them."""

    csi: Tensor
    shape: tuple[int, int]
    link: Link
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.label = su_labels(self.csi, self.shape, self.link)

    def add(self, method: str, pairs: Pairs, x: float = float("nan"), seed: int = 0) -> None:
        """Note what the beams of a method give; the first of the two at either end is its dominant one."""
        dominant = (pairs.tx[:, 0] == self.label.tx[:, 0]) & (pairs.rx[:, 0] == self.label.rx[:, 0])
        shares = {
            RECEIVE: found_share(pairs.rx, self.label.rx),
            TRANSMIT: found_share(pairs.tx, self.label.tx),
            PAIR: float(dominant.double().mean()),
        }
        for quantity, share in shares.items():
            self.records.append(Record(quantity, CONDITION, method, 100 * share, "%", "higher", seed, len(self.csi), x))
        self._add_rate(method, pairs, x, seed)

    def add_bound(self) -> None:
        """Note the rate with the labels themselves as beams."""
        self._add_rate(BOUND, self.label, float("nan"), 0)

    def _add_rate(self, method: str, pairs: Pairs, x: float, seed: int) -> None:
        rate = float(su_rate(self.csi, pairs, self.shape, self.link).mean())
        self.records.append(Record(RATE, CONDITION, method, rate, "bit/s/Hz", "higher", seed, len(self.csi), x))


def found_share(beams: Tensor, label: Tensor) -> float:
    """Mean share of a user's labelled beams (N, 2) that are among the predicted ones (N, 2)."""
    return float((label[:, :, None] == beams[:, None, :]).any(2).double().mean())


def best_two(transmit: Tensor, receive: Tensor) -> Pairs:
    """Beams of the two highest scores at either end, (N, N_t) and (N, N_r)."""
    return Pairs(transmit.topk(2, dim=1).indices, receive.topk(2, dim=1).indices)


def _views(
    predictor: Predictor, users: Users, csi: Tensor, shape: tuple[int, int], visible: Tensor
) -> dict[str, Tensor]:
    """What the probes read of users with channels (N, R, x, y), by method: float32 (N, width) each."""
    shown = shown_antennas(predictor, visible)
    antennas = with_antennas(users, csi)
    return {
        PHYSC: predictor.encode(antennas, visible).reshape(len(users), -1),
        RAW: raw_entries(predictor, antennas.csi, visible).reshape(len(users), -1),
        MAGNITUDES: in_chunks(lambda part: pair_magnitudes(part, shown, shape), csi),
    }


def pair_magnitudes(csi: Tensor, shown: Tensor, shape: tuple[int, int]) -> Tensor:
    """Magnitudes of the zero-filled channel's DFT, over both arrays, scaled to norm 1.

    Parameters
    ----------
    csi : complex (N, R, x, y)
    shown : bool (x, y)
    shape : (int, int)
        Columns and rows of the receive antennas.

    Returns
    -------
    float32 (N, x * y + 2 * R)
        For each transmit direction over all receive directions, then root of the summed power and greatest magnitude for
        each receive direction over all transmit directions.
    """
    seen = torch.where(shown, csi, torch.zeros((), dtype=csi.dtype)).to(torch.complex128)
    pairs = torch.fft.fftn(seen.unflatten(1, shape), dim=(1, 2, 3, 4)).abs().flatten(3).flatten(1, 2)
    features = torch.cat((pairs.norm(dim=1), pairs.norm(dim=2), pairs.amax(2)), 1)
    return (features / pairs.flatten(1).norm(dim=1, keepdim=True).clamp_min(1e-30)).float()


def _two_probes(
    features: tuple[Tensor, Tensor], ends: Ends, count: int, settings: HeadSettings
) -> Iterator[tuple[int, Pairs, dict[str, float]]]:
    """Head seed, beams of the test users and learning rates of two separate linear classifiers."""
    both = zip(
        probe(features, ends.transmit, count, settings), probe(features, ends.receive, count, settings), strict=True
    )
    for (head_seed, transmit, transmit_rate), (_, receive, receive_rate) in both:
        yield head_seed, best_two(transmit, receive), {"transmit": transmit_rate, "receive": receive_rate}


def _trained_together(
    predictor: Predictor,
    train: tuple[Users, Tensor],
    test: tuple[Users, Tensor],
    ends: Ends,
    count: int,
    visible: Tensor,
    settings: HeadSettings,
) -> Iterator[tuple[str, int, Pairs, float]]:
    """Method, head seed, beams and rate of encoder and heads trained together: pretrained, and from random weights."""
    if not settings.finetune_steps:
        return
    users, csi = train

    def draw(head_seed: int) -> tuple[Users, Tensor, Tensor]:
        index = ends.transmit.labelled(count, head_seed)
        return users.at(index), csi[index], ends.label[index]

    def build() -> nn.Module:
        return classifier(csi.shape[1] * predictor.settings.model.width, (), ends.outputs)

    starts: dict[str, Callable[[int], Predictor]] = {FINE_TUNED: lambda _: predictor, TWIN: predictor.untrained}
    for method, start in starts.items():
        for head_seed, model, rate in finetuned(start, build, ends.loss, draw, visible, settings):
            yield method, head_seed, ends.pairs(model.outputs(*test)), rate


def _unlabelled(
    predictor: Predictor, csi: Tensor, shape: tuple[int, int], visible: Tensor, link: Link
) -> Iterator[tuple[str, Pairs]]:
    """Method and beams of what needs no labels: the labels' search, on channels estimated from what is seen."""
    shown = shown_antennas(predictor, visible)
    # Brought to the gain of the whole array: how strong the second pair must be depends on it.
    gain = shown.numel() / int(shown.sum())
    yield ZERO_FILLED, su_labels(torch.where(shown, gain * csi, torch.zeros((), dtype=csi.dtype)), shape, link)
    estimate = in_chunks(lambda part: omp(part, shown, ATOMS)[0], csi.flatten(0, 1))
    yield pursuit(ATOMS), su_labels(estimate.unflatten(0, csi.shape[:2]), shape, link)
