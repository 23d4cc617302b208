"""Beams for clusters of single-antenna users and their sum-rate (section 4.1, Appendices C.1 and E.2; Figures 6, 13-15).

Labels are the strongest of all DFT beams by exhaustive search over the whole channel. The methods see a few CSI patches,
the same ones for every user, as with fixed pilots; the model sees the scene too, never the location. Labels are those of
training users. Test users are in scenes that no method was trained on, and every one of them is in one cluster.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.model.data.feasible import NotPossible, too_few_for_clusters
from wavecity.model.data.users import Samples, Users, WirelessData, collate, gather
from wavecity.model.learning.baselines import omp
from wavecity.model.learning.embeddings import clusters, evenly, picture
from wavecity.model.learning.finetune import finetuned
from wavecity.model.learning.heads import classifier
from wavecity.model.multimodal.inference import Predictor, beams_of_spectrum, top_k_hits
from wavecity.model.results.table import BOUND, Findings, Record
from wavecity.model.settings.training import EvaluationSettings, HeadSettings, MuMimoSettings
from wavecity.model.tasks.beams.link import Link, beam_power, best_beams
from wavecity.model.tasks.beams.mu_precoding import mu_bound, mu_digital_rate, mu_sum_rate
from wavecity.model.tasks.beams.probes import Features, Pool, label_counts, probe
from wavecity.model.tasks.beams.receivers import (
    CHUNK,
    check_level,
    in_chunks,
    link_facts,
    link_of,
    raw_entries,
    with_channel,
)
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.sites import shown_antennas

TOP1, TOP5, RATE = "Beam, top-1 accuracy", "Beam, top-5 accuracy", "MU-MIMO sum-rate"
CONDITION = "linear probe"
PHYSC, UNTRAINED = "[PHYSC], linear probe", "untrained [PHYSC], linear probe"
RAW, MAGNITUDES = "raw CSI, linear probe", "|zero-filled DFT|, linear probe"
FINE_TUNED, TWIN = "[PHYSC], fine-tuned", "from-scratch twin"
SPECTRUM, ZERO_FILLED = "model's spectrum, no labels", "zero-filled DFT, no labels"
HEAD, RAW_HEAD = "[PHYSC], head", "raw CSI, head"
# Groups of neighbouring beams that t-SNE is coloured by, and users shown [ours].
GROUPS = 8
EMBEDDED = 1000
# Stream of random numbers.
CLUSTERS = 40


def mu_mimo(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Accuracy of beams and sum-rate of clusters against the share of the training labels that is used.

    Sum-rates are means over the clusters, each user served with the beam of the highest score (`mu_precoding.mu_sum_rate`).
    Methods that take no labels have one record (x is not a number). Encoder and head are trained together at the largest
    share only, and not at all when `heads.finetune_steps` is 0.

    Parameters
    ----------
    predictor : Predictor
    data : WirelessData
    settings : EvaluationSettings
        `mu_mimo` and `heads`.
    seed : int
        Of pilots and clusters; the heads' seeds choose labels, weights and batches.

    Returns
    -------
    Findings
        Arrays: `ecdf_ratios` (R,), `ecdf_methods` (M,) and `ecdf_rates` (R, M, C), sum-rate of each cluster by the first
        head seed; `tsne_raw`, `tsne_physc` (n, 2) and `tsne_cluster` (n,) of test users, grouped by their beams' angles.

    Raises
    ------
    NotPossible
        No test scene has users enough for a cluster, or no share gives labels enough.
    """
    check_level(data)
    config = settings.mu_mimo
    train = with_channel(gather(data.splits["train"], config.users))
    counts = label_counts(config.ratios, len(train), data.name, "mu_mimo.ratios")
    test = gather_clusters(data, config, seed)
    visible = predictor.pilots(config.csi, seed)
    trial = Trial(test, config.cluster, link_of(config.link))
    codebook = predictor.model.geometry.columns * predictor.model.geometry.rows
    pool = Pool.of(best_beams(train.csi)[:, None], codebook, (1.0,), seed)

    views = [partial_views(predictor, users, visible, seed) for users in (train, test)]
    features = {name: (views[0][name], views[1][name]) for name in views[0]}
    rates: dict[str, dict[str, float]] = {}
    for ratio, count in counts.items():
        for method, values in features.items():
            for head_seed, scores, rate in probe(values, pool, count, settings.heads):
                trial.add(CONDITION, method, scores, ratio, head_seed)
                if head_seed == 0:
                    rates.setdefault(method, {})[f"{ratio:g}"] = rate
    largest = max(counts)
    for method, head_seed, scores, rate in _trained_together(
        predictor, train, test, pool, counts[largest], visible, settings.heads
    ):
        trial.add(CONDITION, method, scores, largest, head_seed)
        if head_seed == 0:
            rates.setdefault(method, {})[f"{largest:g}"] = rate
    for method, scores in _unlabelled(predictor, test, visible, settings.omp_atoms):
        trial.add(CONDITION, method, scores)
    trial.add_bound(CONDITION)
    _ablation(trial, features, pool, counts, config, settings.heads)

    facts = {
        "test_scenes": len(test.scene.unique()),
        "test_users": len(test),
        "clusters": len(test) // config.cluster,
        "users_a_cluster": config.cluster,
        "train_scenes": len(train.scene.unique()),
        "train_users": len(train),
        "labels": {f"{ratio:g}": count for ratio, count in counts.items()},
        "ratios_left_out": sorted(set(config.ratios) - set(counts)),
        "held_back_share_of_labels": settings.heads.held_back,
        "beams": codebook,
        "beams_of_training_users": len(pool.classes),
        "test_users_whose_beam_no_training_user_has": int((~torch.isin(trial.label, pool.classes)).sum()),
        "csi_patches_seen": len(visible),
        "csi_patches": predictor.model.csi_patches,
        "feature_width": {name: values[0].shape[1] for name, values in features.items()},
        "head_seeds": settings.heads.seeds,
        "learning_rates": rates,
        "split": "labels of users of training scenes, at random; tested on scenes of the test split, clusters at random",
        **link_facts(config.link, test.csi),
        "fully_digital_bound": float(mu_bound(trial.csi, trial.link).mean()),
        "fully_digital_rzf": float(mu_digital_rate(trial.csi, trial.link).mean()),
    }
    grouped, shown = _group_beams(trial, features[RAW][1], features[PHYSC][1], seed)
    return Findings(trial.records, facts | grouped, shown | trial.ecdf(list(counts)))


@dataclass
class Trial:
    """Test users in clusters, and what scores of beams are worth for them.

    Attributes
    ----------
    test : Users
        Users of a cluster one after the other.
    cluster : int
    link : Link
    records : list of Record
    """

    test: Users
    cluster: int
    link: Link
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.csi = self.test.csi.unflatten(0, (-1, self.cluster))
        self.label = best_beams(self.test.csi)
        # By method and share of the labels, None for methods that take no labels.
        self._drawn: dict[tuple[str, float | None], NDArray[np.float64]] = {}

    def add(self, condition: str, method: str, scores: Tensor, x: float = float("nan"), seed: int = 0) -> None:
        """Note what scores (N, beams) of a method give."""
        for quantity, k in ((TOP1, 1), (TOP5, 5)):
            hits = 100 * top_k_hits(scores, self.label, k)
            self.records.append(Record(quantity, condition, method, hits, "%", "higher", seed, len(scores), x))
        self._add_rates(condition, method, scores.argmax(1), x, seed)

    def add_bound(self, condition: str) -> None:
        """Note the sum-rate with the labels themselves as beams."""
        self._add_rates(condition, BOUND, self.label, float("nan"), 0)

    def _add_rates(self, condition: str, method: str, beams: Tensor, x: float, seed: int) -> None:
        rates = mu_sum_rate(self.csi, beams.view(-1, self.cluster), self.link)
        mean, count = float(rates.mean()), len(rates)
        self.records.append(Record(RATE, condition, method, mean, "bit/s/Hz", "higher", seed, count, x))
        if seed == 0 and condition == CONDITION:
            self._drawn[method, None if np.isnan(x) else x] = rates.numpy()

    def ecdf(self, ratios: Sequence[float]) -> dict[str, NDArray[Any]]:
        """Sum-rates of all clusters by the methods that were run at every ratio, or that have none (Figure 13)."""
        curves = {}
        for method in dict.fromkeys(method for method, _ in self._drawn):
            keys = [(method, None) if (method, None) in self._drawn else (method, ratio) for ratio in ratios]
            if all(key in self._drawn for key in keys):
                curves[method] = np.stack([self._drawn[key] for key in keys])
        return {
            "ecdf_ratios": np.array(ratios, np.float64),
            "ecdf_methods": np.array(list(curves)),
            "ecdf_rates": np.stack(list(curves.values()), 1).astype(np.float32),
        }


def gather_clusters(data: WirelessData, config: MuMimoSettings, seed: int) -> Users:
    """Test users drawn at random, those of a cluster one after the other and from one scene.

    Scenes are evenly spread over those with users enough, and as many as `test_users` allows with one cluster each.

    Raises
    ------
    NotPossible
        No scene has users enough.
    """
    samples, size = data.splits["test"], config.cluster
    rows, users = np.unique(samples.scene_index, return_counts=True)
    large = rows[users >= size]
    wanted = min(len(large), max(config.test_users // size, 1))
    found = []
    for row in large[evenly(len(large), wanted).numpy()] if wanted else []:
        group = _users_of(samples, int(row), max(config.test_users // wanted, size), seed)
        if whole := len(group) // size * size:
            found.append(group.at(torch.arange(whole)))
    if not found:
        msg = f"{data.name}: {too_few_for_clusters(users, size)}"
        raise NotPossible(msg)
    return Users(*(torch.cat([getattr(group, name) for group in found]) for name in Users.__dataclass_fields__))


def _users_of(samples: Samples, row: int, limit: int, seed: int) -> Users:
    order = np.random.default_rng([seed, CLUSTERS, row]).permutation(np.flatnonzero(samples.scene_index == row))
    return with_channel(collate(samples.__getitems__([int(index) for index in order[:limit]])))


def partial_views(predictor: Predictor, users: Users, visible: Tensor, seed: int) -> dict[str, Tensor]:
    """What the linear probes read of users, by method: float32 (N, width) each."""
    shown = shown_antennas(predictor, visible)
    return {
        PHYSC: predictor.encode(users, visible),
        RAW: raw_entries(predictor, users.csi, visible),
        MAGNITUDES: in_chunks(lambda csi: fingerprint(csi, shown), users.csi),
        UNTRAINED: predictor.untrained(seed).encode(users, visible),
    }


def _trained_together(
    predictor: Predictor, train: Users, test: Users, pool: Pool, count: int, visible: Tensor, settings: HeadSettings
) -> Iterator[tuple[str, int, Tensor, float]]:
    """Method, head seed, scores and rate of encoder and head trained together: pretrained, and from random weights."""
    if not settings.finetune_steps:
        return

    def draw(head_seed: int) -> tuple[Users, Tensor, Tensor]:
        index = pool.labelled(count, head_seed)
        return train.at(index), train.csi[index][:, None], pool.label[index]

    def build() -> nn.Module:
        return classifier(predictor.settings.model.width, (), len(pool.classes))

    starts: dict[str, Callable[[int], Predictor]] = {FINE_TUNED: lambda _: predictor, TWIN: predictor.untrained}
    for method, start in starts.items():
        for head_seed, model, rate in finetuned(start, build, pool.loss, draw, visible, settings):
            yield method, head_seed, pool.scores(model.outputs(test, test.csi[:, None])), rate


def _unlabelled(predictor: Predictor, test: Users, visible: Tensor, omp_atoms: int) -> Iterator[tuple[str, Tensor]]:
    """Method and scores of what needs no labels."""
    shown = shown_antennas(predictor, visible)
    predicted = predictor.predict(test, visible, fill_csi=False).spectrum
    if predicted.shape[-2:] == shown.shape:
        yield SPECTRUM, beams_of_spectrum(predicted)
    zero = torch.zeros((), dtype=test.csi.dtype)
    yield ZERO_FILLED, in_chunks(lambda csi: beam_power(torch.where(shown, csi, zero)), test.csi)
    for atoms in sorted({4, omp_atoms}):
        power = torch.cat([omp(csi, shown, atoms)[1] for csi in test.csi.split(CHUNK)])
        yield pursuit(atoms), beams_of_spectrum(power)


def pursuit(atoms: int) -> str:
    """Name of orthogonal matching pursuit as a method."""
    return f"OMP, {atoms} paths, no labels"


def _ablation(
    trial: Trial,
    features: dict[str, Features],
    pool: Pool,
    counts: dict[float, int],
    config: MuMimoSettings,
    settings: HeadSettings,
) -> None:
    """Heads of some hidden layers at fixed learning rates (Appendix E.2.2)."""
    for rate in config.ablation_rates:
        for hidden in config.hidden:
            layers = "-".join(map(str, hidden)) or "none"
            condition = f"hidden {layers}, learning rate {rate:g}"
            for ratio, count in counts.items():
                for method, values in ((HEAD, features[PHYSC]), (RAW_HEAD, features[RAW])):
                    for head_seed, scores, _ in probe(values, pool, count, settings, hidden, (rate,)):
                        trial.add(condition, method, scores, ratio, head_seed)


def _group_beams(trial: Trial, raw: Tensor, physc: Tensor, seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Facts and arrays of how raw CSI and [PHYSC] group users of neighbouring beams (Figures 6a and 6b)."""
    shown = evenly(len(trial.label), EMBEDDED)
    columns, rows = trial.test.csi.shape[1:]
    # Beams are periodic in both angles.
    angles = 2 * np.pi * torch.stack((trial.label[shown] // rows / columns, trial.label[shown] % rows / rows), 1)
    group = clusters(torch.cat((angles.cos(), angles.sin()), 1), GROUPS, seed)
    facts, arrays = picture({"raw": raw[shown], "physc": physc[shown]}, group, seed)
    return {"tsne_users": len(shown)} | facts, {"tsne_cluster": group} | arrays
