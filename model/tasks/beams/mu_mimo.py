"""Beams for clusters of single-antenna users and their sum-rate (section 4.1, Appendices C.1 and E.2; Figures 6, 13-15).

Labels are the strongest of all DFT beams by exhaustive search over the whole channel. The methods see a few CSI patches,
the same ones for every user, as with fixed pilots; the model sees the scene too, never the location. Labels are those of
training users. Test users are in scenes that no method was trained on, and every one of them is in one cluster.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.model.data.feasible import NotPossible, too_few_for_clusters
from wavecity.model.data.users import Samples, Users, WirelessData, collate, evenly, gather
from wavecity.model.figures.curves import draw_clusters, draw_ecdf, draw_heads, draw_mu
from wavecity.model.figures.parts import BARS, TSNE, Part
from wavecity.model.learning.baselines import omp
from wavecity.model.learning.embeddings import EMBEDDED, grouped
from wavecity.model.learning.heads import classifier
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.multimodal.inference import beams_of_spectrum, top_k_hits
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.results.claims import ABOUT, MARGIN, OURS, SILHOUETTE_MARGIN, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE, Arrays, Condition, Facts, Findings, Record
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings, HeadSettings, MuMimoSettings
from wavecity.model.tasks import paths
from wavecity.model.tasks.beams import receivers
from wavecity.model.tasks.beams.link import Link, beam_power, best_beams
from wavecity.model.tasks.beams.mu_precoding import mu_bound, mu_digital_rate, mu_sum_rate
from wavecity.model.tasks.beams.probes import Features, Pool, label_counts, label_facts, probe
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.sites import csi_facts, silhouettes, trained_together
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.tasks.untrained import sparse_channels

# Paths of the shorter of the two pursuits.
FEW_PATHS = 4
# Stream of random numbers.
CLUSTERS = 40


def mu_mimo(predictor: TaskModel, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Accuracy of beams and sum-rate of clusters against the share of the training labels that is used.

    Sum-rates are means over the clusters, each user served with the beam of the highest score
    (`mu_precoding.mu_sum_rate`). Methods that take no labels have one record (x is not a number). Encoder and head are
    trained together at the largest share only, and not at all when `heads.finetune_steps` is 0. Of the settings
    `mu_mimo` and `heads` count. The seed is that of pilots and clusters; the heads' seeds choose labels, weights and
    batches.

    Arrays: `ecdf_ratios` (R,), `ecdf_methods` (M,) and `ecdf_rates` (R, M, C), sum-rate of each cluster by the first
    head seed; `tsne_raw`, `tsne_physc` (n, 2) and `tsne_cluster` (n,) of test users, grouped by their beams' angles.

    Raises
    ------
    NotPossible
        No test scene has users enough for a cluster, or no share gives labels enough.
    """
    receivers.check_level(data)
    config = settings.mu_mimo
    train = receivers.with_channel(gather(data.splits["train"], config.users))
    counts = label_counts(config.ratios, len(train), data.name, "mu_mimo.ratios")
    test = gather_clusters(data, config, seed)
    visible = predictor.pilots(config.csi, seed)
    served = ServedClusters(test, config.cluster, receivers.link_of(config.link))
    codebook = predictor.geometry.columns * predictor.geometry.rows
    pool = Pool.of(best_beams(train.csi)[:, None], codebook, (1.0,), seed)

    (train_seen, train_noise), (test_seen, test_noise) = (
        receivers.seen_at(users.csi, config.snr, seed, part) for part, users in enumerate((train, test))
    )
    train, test = replace(train, csi=train_seen, noise=train_noise), replace(test, csi=test_seen, noise=test_noise)

    views = [partial_views(predictor, users, visible, seed) for users in (train, test)]
    features = {name: (views[0][name], views[1][name]) for name in views[0]}

    def learned() -> Iterator[tuple[Method, float, int, Tensor, float]]:
        """Method, share of the labels, head seed, scores and learning rate of all that is trained."""
        for ratio, count in counts.items():
            for method, values in features.items():
                for head_seed, scores, rate in probe(values, pool, count, settings.heads):
                    yield method, ratio, head_seed, scores, rate
        if isinstance(predictor, PathEncoder):
            yield from _learned_paths(predictor, train, test, visible, pool, counts, settings.heads)
            return
        for method, head_seed, scores, rate in _together(predictor, train, test, visible, pool, counts, settings.heads):
            yield method, max(counts), head_seed, scores, rate

    rates: dict[Method, dict[str, float]] = {}
    for method, ratio, head_seed, scores, rate in learned():
        served.add(method, scores, ratio, head_seed)
        if head_seed == 0:
            rates.setdefault(method, {})[f"{ratio:g}"] = rate
    for method, scores, atoms in _unlabelled(predictor, test, visible, settings.omp_atoms):
        served.add(method, scores, paths=atoms)
    served.add_rates(Method.EXHAUSTIVE_SEARCH, served.label, math.nan, 0, WHOLE, None)
    _ablation(served, features, pool, counts, config, settings.heads)

    facts = {
        **label_facts(train, test, counts, config.ratios, settings.heads),
        "clusters": len(test) // config.cluster,
        "users_a_cluster": config.cluster,
        "beams": codebook,
        "beams_of_training_users": len(pool.classes),
        "test_users_whose_beam_no_training_user_has": int((~torch.isin(served.label, pool.classes)).sum()),
        **csi_facts(predictor, visible),
        "feature_width": {name: values[0].shape[1] for name, values in features.items()},
        "learning_rates": rates,
        "split": "labels of users of training scenes, at random; tested on scenes of the test split, clusters at random",
        "snr_of_csi_db": config.snr,
        **receivers.link_facts(config.link, served.test.csi),
        "fully_digital_bound": float(mu_bound(served.csi, served.link).mean()),
        "fully_digital_rzf": float(mu_digital_rate(served.csi, served.link).mean()),
    }
    groups, shown = _group_beams(served, features[Method.RAW_PROBE][1], features[Method.PHYSC_PROBE][1], seed)
    records = [*served.records, *silhouettes(groups)]
    return Findings(records, facts | groups, shown | served.ecdf(list(counts)))


@dataclass
class ServedClusters:
    """Test users in clusters, and what scores of beams are worth for them."""

    test: Users  # Users of a cluster one after the other
    cluster: int
    link: Link
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.csi = self.test.csi.unflatten(0, (-1, self.cluster))
        self.label = best_beams(self.test.csi)
        # By method and share of the labels, None for methods that take no labels.
        self._drawn: dict[tuple[Method, float | None], NDArray[np.float64]] = {}

    def add(
        self,
        method: Method,
        scores: Tensor,
        x: float = math.nan,
        seed: int = 0,
        condition: Condition = WHOLE,
        paths: int | None = None,
    ) -> None:
        """Note what scores (N, beams) of a method give."""
        for metric, k in ((Metric.BEAM_TOP1, 1), (Metric.BEAM_TOP5, 5)):
            hits = 100 * top_k_hits(scores, self.label, k)
            self.records.append(Record(metric, method, hits, seed, len(scores), x, condition, paths))
        self.add_rates(method, scores.argmax(1), x, seed, condition, paths)

    def add_rates(
        self, method: Method, beams: Tensor, x: float, seed: int, condition: Condition, paths: int | None
    ) -> None:
        """Note the sum-rates alone: with the labels themselves as beams they are a bound."""
        rates = mu_sum_rate(self.csi, beams.view(-1, self.cluster), self.link)
        mean, count = float(rates.mean()), len(rates)
        self.records.append(Record(Metric.MU_RATE, method, mean, seed, count, x, condition, paths))
        if seed == 0 and condition == WHOLE:
            self._drawn[method, None if math.isnan(x) else x] = rates.numpy()

    def ecdf(self, ratios: Sequence[float]) -> Arrays:
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
    """Test users drawn at random, those of a cluster one after the other and from one scene; refuses too few of them.

    Scenes are evenly spread over those with users enough, and as many as `test_users` allows with one cluster each.
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
        raise NotPossible(f"{data.name}: {too_few_for_clusters(users, size)}")
    return Users.joined(found)


def _users_of(samples: Samples, row: int, limit: int, seed: int) -> Users:
    order = np.random.default_rng([seed, CLUSTERS, row]).permutation(np.flatnonzero(samples.scene_index == row))
    return receivers.with_channel(collate(samples.__getitems__([int(index) for index in order[:limit]])))


def partial_views(predictor: TaskModel, users: Users, visible: Tensor, seed: int) -> dict[Method, Tensor]:
    """What the linear probes read of users, by method: float32 (N, width) each."""
    shown = predictor.shown(visible)
    return {
        Method.PHYSC_PROBE: predictor.encode(users, visible),
        Method.RAW_PROBE: receivers.raw_entries(predictor, users.csi, visible),
        Method.DFT_PROBE: receivers.in_chunks(lambda csi: fingerprint(csi, shown), users.csi),
        Method.UNTRAINED_PROBE: predictor.untrained(seed).encode(users, visible),
    }


def _together(
    predictor: TaskModel,
    train: Users,
    test: Users,
    visible: Tensor,
    pool: Pool,
    counts: dict[float, int],
    settings: HeadSettings,
) -> Iterator[tuple[Method, int, Tensor, float]]:
    """Method, head seed, scores and learning rate of encoder and head trained together, with the most labels."""

    def draw(head_seed: int) -> tuple[Users, Tensor, Tensor]:
        index = pool.labelled(counts[max(counts)], head_seed)
        return train.at(index), train.csi[index][:, None], pool.label[index]

    def build() -> nn.Module:
        return classifier(predictor.width, (), len(pool.classes))

    for method, one in trained_together(predictor, build, pool.loss, draw, visible, settings):
        yield method, one.seed, pool.scores(one.network.outputs(test, test.csi[:, None])), one.rate


def _learned_paths(
    predictor: PathEncoder,
    train: Users,
    test: Users,
    visible: Tensor,
    pool: Pool,
    counts: dict[float, int],
    settings: HeadSettings,
) -> Iterator[tuple[Method, float, int, Tensor, float]]:
    """Method, share of the labels, head seed, scores and learning rate of what starts from the path model's own spectrum."""
    beam = pool.classes[pool.label[:, 0]]
    features = paths.with_beams(predictor, train, visible), paths.with_beams(predictor, test, visible)
    for ratio, count in counts.items():

        def labelled(head_seed: int, count: int = count) -> Tensor:
            return pool.labelled(count, head_seed)

        for head_seed, scores, rate in paths.corrected_beams(features, predictor.width, beam, labelled, settings):
            yield Method.PHYSC_HEAD, ratio, head_seed, scores, rate
    most = max(counts)
    for method, one in paths.trained_beams(
        predictor, train, visible, beam, lambda head_seed: pool.labelled(counts[most], head_seed), settings
    ):
        yield method, most, one.seed, paths.scores_by(predictor, one.network, test, visible), one.rate


def _unlabelled(
    predictor: TaskModel, test: Users, visible: Tensor, omp_atoms: int
) -> Iterator[tuple[Method, Tensor, int | None]]:
    """Method, scores and, where its name does not say it, number of paths of what needs no labels."""
    shown = predictor.shown(visible)
    predicted = predictor.predict(test, visible, fill_csi=False).spectrum
    if predicted.shape[-2:] == shown.shape:
        yield Method.MODEL_SPECTRUM_BEAM, beams_of_spectrum(predicted), None
    zero = torch.zeros((), dtype=test.csi.dtype)
    masked_power = receivers.in_chunks(lambda csi: beam_power(torch.where(shown, csi, zero)), test.csi)
    yield Method.ZERO_FILLED_BEAM, masked_power, None
    for atoms in sorted({FEW_PATHS, omp_atoms}):
        power = torch.cat([omp(csi, shown, atoms)[1] for csi in test.csi.split(receivers.CHUNK)])
        method, named = (Method.OMP_4_BEAM, None) if atoms == FEW_PATHS else (Method.OMP_BEAM, atoms)
        yield method, beams_of_spectrum(power), named
    if (sparse := sparse_channels(predictor, test.csi, shown, test.noise)) is not None:
        yield Method.SBL_BEAM, receivers.in_chunks(beam_power, sparse), None


def _ablation(
    served: ServedClusters,
    features: dict[Method, Features],
    pool: Pool,
    counts: dict[float, int],
    config: MuMimoSettings,
    settings: HeadSettings,
) -> None:
    """Heads of some hidden layers at fixed learning rates (Appendix E.2.2)."""
    for rate in config.ablation_rates:
        for hidden in config.hidden:
            condition = Condition(hidden_layers="-".join(map(str, hidden)) or "none", learning_rate=rate)
            for ratio, count in counts.items():
                for method, values in (
                    (Method.PHYSC_HEAD, features[Method.PHYSC_PROBE]),
                    (Method.RAW_HEAD, features[Method.RAW_PROBE]),
                ):
                    for head_seed, scores, _ in probe(values, pool, count, settings, hidden, (rate,)):
                        served.add(method, scores, ratio, head_seed, condition)


def _group_beams(served: ServedClusters, raw: Tensor, physc: Tensor, seed: int) -> tuple[Facts, Arrays]:
    """Facts and arrays of how raw CSI and [PHYSC] group users of neighbouring beams (Figures 6a and 6b)."""
    shown = evenly(len(served.label), EMBEDDED)
    columns, rows = served.test.csi.shape[1:]
    # Beams are periodic in both angles.
    angles = 2 * np.pi * torch.stack((served.label[shown] // rows / columns, served.label[shown] % rows / rows), 1)
    return grouped(torch.cat((angles.cos(), angles.sin()), 1), raw[shown], physc[shown], seed)


TASK: TaskName = "mu-mimo"
# Readings of "near-optimal" [ours]: what counts as so, and what as the opposite, per cent.
NEAR, FAR = 95.0, 80.0
_PROBE, _RAW, _BOUND = (Method.PHYSC_PROBE,), (Method.RAW_PROBE,), (Method.EXHAUSTIVE_SEARCH,)
_SIMPLE = (Method.DFT_PROBE, Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.OMP_BEAM, Method.SBL_BEAM)
_PROBES = {"hidden_layers": None}
CLAIMS = (
    Claim("mu-clusters", "6", "section 4.2, Figures 6a and 6b",
          "Users of neighbouring beams form clusters that are better separated in [PHYSC] than in raw CSI.",
          f"silhouette of [PHYSC] less that of raw CSI, in their own spaces; one draw, so {SILHOUETTE_MARGIN:g} is the margin",
          TASK, "gain", Select(Metric.SILHOUETTE, (Method.PHYSC,), (Method.RAW,), kind="absolute"),
          SILHOUETTE_MARGIN, -SILHOUETTE_MARGIN, 1),
    Claim("mu-top5", "6", "section 4.2, Figure 6c",
          "A linear probe on [PHYSC] finds the beam among five nearly 20 points more often than one on raw CSI.",
          "points, mean over the training ratios", TASK, "gain",
          Select(Metric.BEAM_TOP5, _PROBE, _RAW, _PROBES, kind="absolute"), 20 * ABOUT),
    Claim("mu-simple", "6", OURS,
          "It also finds the beam more often than a probe on |zero-filled DFT|, the zero-filled DFT itself, OMP and SBL.",
          "points over the best of the four, mean over the training ratios", TASK, "gain",
          Select(Metric.BEAM_TOP5, _PROBE, _SIMPLE, _PROBES, kind="absolute")),
    Claim("mu-near", "6", "section 4.2, Figure 6d",
          "With 20 % of the labels the sum-rate is near that of the exhaustive search.",
          f"share of the bound; at least {NEAR:g} % counts as near, less than {FAR:g} % as the opposite", TASK, "gain",
          Select(Metric.MU_RATE, _PROBE, _BOUND, _PROBES, at=0.2, kind="share"), NEAR, FAR),
    Claim("mu-simple-rate", "6", OURS, "Its sum-rate is also above that of the same four.",
          "relative gain over the best of the four, mean over the training ratios", TASK, "gain",
          Select(Metric.MU_RATE, _PROBE, _SIMPLE, _PROBES)),
    Claim("mu-fewer", "13", "Appendix E.2, Figure 13",
          "The sum-rate of the raw baseline is reached with a quarter of its labels.",
          "relative gain over the baseline that has four times the labels; level or better counts", TASK, "fewer_labels",
          Select(Metric.MU_RATE, _PROBE, _RAW, _PROBES, factor=4), -MARGIN, -MARGIN),
    Claim("heads-large", "14", "Appendix E.2, Figure 14",
          "At a learning rate of 1e-3 [PHYSC] is ahead of raw CSI whatever the head's hidden layers.",
          "points in top-5 accuracy of the head with the smallest gain, mean over the training ratios", TASK, "gain",
          Select(Metric.BEAM_TOP5, (Method.PHYSC_HEAD,), (Method.RAW_HEAD,), {"learning_rate": 1e-3}, kind="absolute",
                 over="worst")),
    Claim("heads-small", "15", "Appendix E.2, Figure 15", "At a learning rate of 1e-4 too.",
          "points in top-5 accuracy of the head with the smallest gain, mean over the training ratios", TASK, "gain",
          Select(Metric.BEAM_TOP5, (Method.PHYSC_HEAD,), (Method.RAW_HEAD,), {"learning_rate": 1e-4}, kind="absolute",
                 over="worst")),
)  # fmt: skip
# Of the path model besides.
PATH_CLAIMS = (
    *CLAIMS,
    Claim("mu-head", "6", OURS,
          "A head that starts from the path model's own spectrum finds the beam more often than the same four.",
          "points over the best of the four, mean over the training ratios", TASK, "gain",
          Select(Metric.BEAM_TOP5, (Method.PHYSC_HEAD,), _SIMPLE, _PROBES, kind="absolute")),
)  # fmt: skip
FIGURES = (
    Part("6", "Multi-user MIMO", TASK, "(a), (b) Colour: k-means clusters of the beams in angle.",
         lambda outcome: draw_clusters(outcome, "clusters of beams in angle"), arrays=TSNE),
    Part("6", "", TASK, f"(c), (d) Accuracy over users, sum-rate as mean over clusters. {BARS}", draw_mu,
         metric=Metric.MU_RATE, over_labels=True),
    Part("13", "Distribution of the multi-user sum-rate", TASK,
         "Share of the test clusters whose sum-rate is not above a value; first seed.", draw_ecdf,
         arrays=("ecdf_ratios", "ecdf_rates")),
    Part("14", "Heads with a learning rate of 1e-3", TASK, f"Hidden layers of the head; nothing tuned. {BARS}",
         lambda outcome: draw_heads(outcome, 1e-3), metric=Metric.BEAM_TOP5, where={"learning_rate": 1e-3},
         over_labels=True),
    Part("15", "Heads with a learning rate of 1e-4", TASK, f"Hidden layers of the head; nothing tuned. {BARS}",
         lambda outcome: draw_heads(outcome, 1e-4), metric=Metric.BEAM_TOP5, where={"learning_rate": 1e-4},
         over_labels=True),
)  # fmt: skip
_BASELINES = (Method.RAW_PROBE, Method.RAW_HEAD, Method.UNTRAINED_PROBE, Method.TWIN, *_SIMPLE, *_BOUND, Method.RAW)
_READ = frozenset({"batch_size", "heads", "mu_mimo", "omp_atoms"})
SPECS = (
    TaskSpec(TASK, "multimodal", "Beams and sum-rate of several users", mu_mimo, _READ, _BASELINES, CLAIMS, FIGURES),
    TaskSpec(TASK, "rays", "Beams and sum-rate of several users", paths.of_paths(mu_mimo), _READ, _BASELINES, PATH_CLAIMS,
             FIGURES),
)  # fmt: skip
