"""The downstream tasks on the frozen features of any encoder: users, labels, heads and seeds are those of our own models.

What differs from `wavecity.model.tasks` is what is left out: fine-tuning, the untrained twin, and baselines that are encoders
of their own here (`wavecity.model.benchmark.examples`).
"""

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from wavecity.model.benchmark.encoder import Frozen
from wavecity.model.data.feasible import TESTED
from wavecity.model.data.users import Users, gather, with_antennas
from wavecity.model.learning.heads import LocationHead, Standardiser, apply, distance, tuned
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE, Findings
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks import sites
from wavecity.model.tasks.beams import receivers
from wavecity.model.tasks.beams.link import best_beams
from wavecity.model.tasks.beams.mu_mimo import ServedClusters, gather_clusters
from wavecity.model.tasks.beams.probes import Pool, label_counts, label_facts, probe
from wavecity.model.tasks.beams.su_pairs import PairLabels, ServedUsers, two_probes
from wavecity.model.tasks.beams.su_precoding import su_labels
from wavecity.model.tasks.cross_scene import make_source
from wavecity.model.tasks.localization import head_places

Task = Callable[[Frozen, EvaluationSettings, int], Findings]


def localization(encoder: Frozen, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error in a test scene against the number of its users that are labelled; a head for each scene."""
    config, data = settings.localization, encoder.data
    shown = encoder.pilots(config.csi, seed)
    rows, counts = sites.choose_scenes(
        data.splits["test"],
        config.scenes,
        config.users,
        config.labels,
        config.test_share,
        data.name,
        "localization.labels",
    )
    picked = [sites.make_site(data, row, config.users, config.test_share, config.snr, seed) for row in rows]
    errors = sites.Errors(Metric.LOCATION_ERROR)
    for site in picked:
        features = {Method.ENCODER: encoder.features(site.users, shown, site.noise)}
        heads = {Method.ENCODER: _location_head(features[Method.ENCODER], data.scenes.size)}
        for count in counts:
            for method, head_seed, place, _ in head_places(site, features, heads, count, settings):
                errors.add(method, count, head_seed, site, place)
            for head_seed in range(settings.heads.seeds):
                labels = site.users.position[site.labelled(count, head_seed)]
                errors.add(Method.MEAN_LABELLED, count, head_seed, site, labels.mean(0).expand(site.tested, -1))
    return Findings(errors.records(), sites.site_facts(picked, counts, config.labels, settings))


def cross_localization(encoder: Frozen, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error in scenes that the head has not seen, without a label of these; one head for all training scenes."""
    config, snr, data = settings.cross_scene, settings.localization.snr, encoder.data
    shown = encoder.pilots(settings.localization.csi, seed)
    rows, counts = sites.choose_scenes(
        data.splits["test"], config.scenes, config.users, (0,), TESTED, data.name, "cross_scene.labels"
    )
    picked = [sites.make_site(data, row, config.users, TESTED, snr, seed) for row in rows]
    source = make_source(data, settings, seed)
    features, position = encoder.features(source.users, shown, source.noise), source.users.position
    standardise = Standardiser.of(features[: source.train])
    labelled = standardise(features), position
    unseen = [standardise(encoder.features(site.users, shown, site.noise))[: site.tested] for site in picked]
    errors = sites.Errors(Metric.CROSS_LOCATION_ERROR)
    build = _location_head(features, data.scenes.size)
    for head_seed, head, _ in tuned(build, lambda _: distance, lambda _: labelled, source.held_back(settings.heads)):
        for site, values in zip(picked, unseen, strict=True):
            errors.add(Method.ENCODER, 0, head_seed, site, apply(head, values))
    for site in picked:
        place = position[: source.train].mean(0).expand(site.tested, -1)
        errors.add(Method.MEAN_TRAINING, math.nan, 0, site, place)
    facts = sites.site_facts(picked, counts, (0,), settings)
    return Findings(errors.records(), {**facts, "train_users": source.train})


def mu_mimo(encoder: Frozen, settings: EvaluationSettings, seed: int) -> Findings:
    """Beams of single-antenna users in unseen scenes by a linear probe, and the sum-rate of clusters of them."""
    config, data = settings.mu_mimo, encoder.data
    receivers.check_level(data)
    train = receivers.with_channel(gather(data.splits["train"], config.users))
    counts = label_counts(config.ratios, len(train), data.name, "mu_mimo.ratios")
    test = gather_clusters(data, config, seed)
    served = ServedClusters(test, config.cluster, receivers.link_of(config.link))
    pool = Pool.of(best_beams(train.csi)[:, None], test.csi[0].numel(), (1.0,), seed)
    shown = encoder.pilots(config.csi, seed)
    seen = []
    for part, users in enumerate((train, test)):
        csi, noise = receivers.seen_at(users.csi, config.snr, seed, part)
        seen.append(encoder.features(replace(users, csi=csi), shown, noise))
    for ratio, count in counts.items():
        for head_seed, scores, _ in probe((seen[0], seen[1]), pool, count, settings.heads):
            served.add(Method.ENCODER, scores, ratio, head_seed)
    served.add_rates(Method.EXHAUSTIVE_SEARCH, served.label, math.nan, 0, WHOLE, None)
    return Findings(served.records, label_facts(train, test, counts, config.ratios, settings.heads))


def su_mimo(encoder: Frozen, settings: EvaluationSettings, seed: int) -> Findings:
    """Beam pairs of users with several antennas in unseen scenes by linear probes, and the rate of two streams.

    An encoder sees the antennas one by one; their embeddings are concatenated.
    """
    config, data = settings.su_mimo, encoder.data
    shape, link = (config.columns, config.rows), receivers.link_of(config.link)
    train, train_csi = receivers.receivers(data, "train", config.users, *shape)
    test, test_csi = receivers.receivers(data, "test", config.test_users, *shape)
    counts = label_counts(config.ratios, len(train), data.name, "su_mimo.ratios")
    served = ServedUsers(test_csi, shape, link)
    labels = PairLabels.of(su_labels(train_csi, shape, link), train_csi, seed)
    shown = encoder.pilots(config.csi, seed)
    train_seen, test_seen = (
        _of_antennas(encoder, users, *receivers.seen_at(csi, config.snr, seed, part), shown)
        for part, (users, csi) in enumerate(((train, train_csi), (test, test_csi)))
    )
    for ratio, count in counts.items():
        for head_seed, pairs, _ in two_probes((train_seen, test_seen), labels, count, settings.heads):
            served.add(Method.ENCODER, pairs, ratio, head_seed)
    served.add_rate(Method.EXHAUSTIVE_SEARCH, served.label)
    return Findings(served.records, label_facts(train, test, counts, config.ratios, settings.heads))


def _of_antennas(encoder: Frozen, users: Users, csi: Tensor, noise: Tensor, shown: Tensor) -> Tensor:
    """Features of users with channels (N, R, x, y) as one row, float32 (N, R * d); the noise (N,) is the same of all R."""
    antennas = with_antennas(users, csi)
    features = encoder.features(antennas, shown, noise.repeat_interleave(csi.shape[1]))
    return features.reshape(len(users), -1)


def _location_head(features: Tensor, scale: float) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        return LocationHead(features.shape[1], scale)

    return build


RUN: dict[str, Task] = {
    "localization": localization,
    "cross-localization": cross_localization,
    "mu-mimo": mu_mimo,
    "su-mimo": su_mimo,
}
