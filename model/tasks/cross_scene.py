"""Localisation across scenes (section 4.1, Figures 5c and 12): one head for all of them, tested on scenes never seen.

Heads are trained on users of the training scenes; those of the validation scenes choose learning rate and stop. In a
test scene they work as they are (zero-shot), or are fine-tuned on a few labelled users of it. Everything else is as in
`wavecity.model.tasks.localization`.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.feasible import TESTED
from wavecity.model.data.users import Users, WirelessData, gather
from wavecity.model.learning.baselines import inverse_distance_mean, nearest
from wavecity.model.learning.finetune import EncoderWithHead, finetuned
from wavecity.model.learning.heads import LocationHead, Standardiser, apply, distance, tuned
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.table import Findings
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks.localization import (
    CNN,
    FINE_TUNED,
    LOCATION_HEAD,
    MEAN,
    NEIGHBOURS,
    NEIGHBOURS_LEVEL,
    PHYSC,
    TWIN,
    head_builders,
    layouts,
)
from wavecity.model.tasks.sites import (
    Errors,
    Site,
    Views,
    choose_scenes,
    level_weight,
    make_site,
    site_facts,
    viewer,
    with_level,
    with_noise,
)

QUANTITY = "Cross-scene localisation, median error"
POOLED = "unseen scenes"
NEIGHBOURS_TAKEN = 5
# Stream of random numbers.
SOURCES = 32


@dataclass(frozen=True)
class Source:
    """Labelled users of the scenes that heads are trained on.

    Attributes
    ----------
    users : Users
        In random order: first those of training scenes, then those of validation scenes.
    train : int
        How many are of training scenes.
    """

    users: Users
    train: int

    def held_back(self, settings: HeadSettings) -> HeadSettings:
        """Settings by which exactly the users of validation scenes choose rate and stop."""
        return settings.model_copy(update={"held_back": 1 - self.train / len(self.users)})


@dataclass(frozen=True)
class Learner:
    """A head trained on the training scenes.

    Attributes
    ----------
    method : str
    seed : int
        Of weights and batches, and of the labels in unseen scenes.
    head : nn.Module
    read : callable
        From an unseen scene's users to what the head takes.
    rate : float
        Learning rate that the validation scenes chose.
    """

    method: str
    seed: int
    head: nn.Module
    read: Callable[[Site, Views], Tensor]
    rate: float


def cross_localization(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error in unseen scenes against the number of labelled users there, from none.

    Encoder and head are trained together on the training scenes only, for the fine-tuned model and its twin alike; in an
    unseen scene the head alone is adapted, as everywhere. Neighbours are looked up among the training users and the
    labelled ones.

    Parameters
    ----------
    predictor : Predictor
    data : WirelessData
    settings : EvaluationSettings
        `cross_scene`, `heads`, and CSI share and noise of `localization`.
    seed : int
        Of pilots, noise and the tested users.

    Returns
    -------
    Findings
        Arrays `layout_*` as `wavecity.model.tasks.localization.localization`, at the smallest number of labels.

    Raises
    ------
    NotPossible
        No test scene has users enough for the smallest number of labels.
    """
    config = settings.cross_scene
    visible = predictor.pilots(settings.localization.csi, seed)
    rows, counts = choose_scenes(
        data.splits["test"], config.scenes, config.users, config.labels, TESTED, data.name, "cross_scene.labels"
    )
    sites = [make_site(data, row, config.users, TESTED, settings.localization.snr, seed) for row in rows]
    source = make_source(data, settings, seed)
    look = viewer(predictor, visible)
    views, known = [look(site.users) for site in sites], look(source.users)

    errors = Errors(QUANTITY, POOLED)
    drawn: dict[str, list[Tensor]] = {PHYSC: [], CNN: []}
    rates: dict[str, float] = {}
    adapted: dict[tuple[str, int, int], float] = {}
    for learner in _learners(predictor, source, known, visible, settings):
        rates.setdefault(learner.method, learner.rate)
        for site, view in zip(sites, views, strict=True):
            features = learner.read(site, view)
            for count in counts:
                head, key = learner.head, (learner.method, count, site.row)
                if count:
                    # As for every head, the first seed's held-back labels choose the rate.
                    tried = [adapted[key]] if key in adapted else config.adapt_rates
                    head, adapted[key] = _adapted(learner, site, features, count, settings.heads, tried)
                place = apply(head, features[: site.tested])
                errors.add(learner.method, count, learner.seed, site, place)
                if learner.method in drawn and count == counts[0] and learner.seed == 0:
                    drawn[learner.method].append(place)
    weight = _simple(predictor, source, known, sites, views, visible, counts, settings, errors)

    facts: dict[str, Any] = {
        "train_users": source.train,
        "train_scenes": len(source.users.scene[: source.train].unique()),
        "validation_users": len(source.users) - source.train,
        **site_facts(sites, counts, config.labels, settings),
        "csi_patches_seen": len(visible),
        "csi_patches": predictor.model.csi_patches,
        "learning_rates": rates,
        "adaptation_rates": {
            method: {str(count): [adapted[method, count, site.row] for site in sites] for count in counts if count}
            for method in rates
        },
        "level_weight": weight,
        "layout_labels": counts[0],
        "split": "heads: training scenes, rate and stop by validation scenes; unseen scenes: half of the users at random "
        "are tested on and never labelled, more labels contain the fewer, a part of the labels chooses rate and stop",
    }
    return Findings(errors.records(), facts, layouts(sites, drawn))


def make_source(data: WirelessData, settings: EvaluationSettings, seed: int) -> Source:
    """Gather users of the training and validation scenes, with noise, in random order."""
    rng = np.random.default_rng([seed, SOURCES])
    parts = []
    for split, limit in (("train", settings.cross_scene.train_users), ("validation", settings.max_users)):
        users = gather(data.splits[split], limit)
        parts.append(users.at(torch.from_numpy(rng.permutation(len(users)))))
    joined = Users(*(torch.cat([getattr(part, name) for part in parts]) for name in Users.__dataclass_fields__))
    return Source(with_noise(joined, settings.localization.snr, rng), len(parts[0]))


def _learners(
    predictor: Predictor, source: Source, known: Views, visible: Tensor, settings: EvaluationSettings
) -> Iterator[Learner]:
    """Train every method's heads on the training scenes, one a seed."""
    heads, held_back = head_builders(predictor, visible), source.held_back(settings.heads)
    reads: dict[str, Callable[[Views], Tensor]] = {PHYSC: lambda view: view.physc, CNN: lambda view: view.entries}
    for method, read in reads.items():
        features = read(known)
        standardise = Standardiser.of(features[: source.train])
        labelled = (standardise(features), source.users.position)

        def from_views(
            _: Site, view: Views, read: Callable[[Views], Tensor] = read, standardise: Standardiser = standardise
        ) -> Tensor:
            return standardise(read(view))

        def draw_same(_: int, labelled: tuple[Tensor, Tensor] = labelled) -> tuple[Tensor, Tensor]:
            return labelled

        for seed, head, rate in tuned(heads[method], lambda _: distance, draw_same, held_back):
            yield Learner(method, seed, head, from_views, rate)
    if not settings.heads.finetune_steps:
        return

    # Batches cannot draw more users than this; the order is random.
    drawn = min(source.train, settings.heads.finetune_steps * settings.heads.finetune_batch)
    index = torch.cat((torch.arange(drawn), torch.arange(source.train, len(source.users))))
    users = source.users.at(index)
    fewer = Source(users, drawn).held_back(settings.heads)

    def build() -> nn.Module:
        return LocationHead(predictor.settings.model.width, predictor.scenes.size)

    def draw(_: int) -> tuple[Users, Tensor, Tensor]:
        return users, users.csi[:, None], users.position

    starts: dict[str, Callable[[int], Predictor]] = {FINE_TUNED: lambda _: predictor, TWIN: predictor.untrained}
    for method, start in starts.items():
        for seed, model, rate in finetuned(start, build, lambda _: distance, draw, visible, fewer):
            head, model.head = model.head, nn.Identity()

            def from_users(site: Site, _: Views, model: EncoderWithHead = model) -> Tensor:
                return model.outputs(site.users, site.users.csi[:, None])

            yield Learner(method, seed, head, from_users, rate)


def _adapted(
    learner: Learner, site: Site, features: Tensor, count: int, settings: HeadSettings, rates: Sequence[float]
) -> tuple[nn.Module, float]:
    """Fine-tune a copy of a head on labelled users of an unseen scene; the start itself is one of the candidates."""
    index = site.labelled(count, learner.seed)
    labelled = (features[index], site.users.position[index])
    once = settings.model_copy(update={"seeds": 1})
    found = tuned(lambda: copy.deepcopy(learner.head), lambda _: distance, lambda _: labelled, once, rates)
    _, head, rate = next(iter(found))
    return head, rate


def _simple(
    predictor: Predictor,
    source: Source,
    known: Views,
    sites: Sequence[Site],
    views: Sequence[Views],
    visible: Tensor,
    counts: Sequence[int],
    settings: EvaluationSettings,
    errors: Errors,
) -> float:
    """Methods without training: the model's own location head, neighbours, the mean. Returns the level's weight."""
    everyone, train = torch.arange(len(source.users)), source.users.position[: source.train]
    weight = level_weight(known, source.users.position, everyone[: source.train], everyone[source.train :])
    for site, view in zip(sites, views, strict=True):
        place = predictor.predict(site.test, visible, fill_csi=False).location
        if place is not None:
            errors.add(LOCATION_HEAD, math.nan, 0, site, place)
        for method, factor in ((NEIGHBOURS, 0.0), (NEIGHBOURS_LEVEL, weight)):
            queries = with_level(view, factor)
            distance, index = nearest(
                with_level(known, factor)[: source.train], queries[: site.tested], NEIGHBOURS_TAKEN
            )
            near = (distance, train[index])
            for count in counts:
                # Without labels nothing depends on the seed.
                for seed in range(settings.heads.seeds if count else 1):
                    index = site.labelled(count, seed)
                    place = among(near, queries[index], site.users.position[index], queries[: site.tested])
                    errors.add(method, count, seed, site, place)
        for count in counts:
            for seed in range(settings.heads.seeds if count else 1):
                labels = site.users.position[site.labelled(count, seed)] if count else train
                errors.add(MEAN, count, seed, site, labels.mean(0).expand(site.tested, -1))
    return weight


def among(
    near: tuple[Tensor, Tensor], features: Tensor, labels: Tensor, queries: Tensor, k: int = NEIGHBOURS_TAKEN
) -> Tensor:
    """`nearest_neighbours` of queries (M, F) when features (L, F) with labels (L, c) join the database.

    `near` holds the distances (M, k) and labels (M, k, c) of the nearest in the database.
    """
    joined = torch.cat((near[0], torch.cdist(queries, features)), 1)
    every = torch.cat((near[1], labels.expand(len(queries), -1, -1)), 1)
    found, index = joined.topk(min(k, joined.shape[1]), largest=False)
    return inverse_distance_mean(found, every.gather(1, index[..., None].expand(-1, -1, every.shape[-1])))
