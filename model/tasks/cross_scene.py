"""Localisation across scenes (section 4.1, Figures 5c and 12): one head for all of them, tested on scenes never seen.

Heads are trained on users of the training scenes; those of the validation scenes choose learning rate and stop. In a
test scene they work as they are (zero-shot), or are fine-tuned on a few labelled users of it. Everything else is as in
`wavecity.model.tasks.localization`.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.feasible import TESTED
from wavecity.model.data.users import Users, WirelessData, gather
from wavecity.model.figures.curves import draw_cross, draw_layouts
from wavecity.model.figures.parts import BARS, LAYOUT, LAYOUTS, Part
from wavecity.model.learning.baselines import inverse_distance_mean, nearest
from wavecity.model.learning.heads import Loss, PlaceCorrection, Standardiser, apply, distance, log_distance, tuned
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.results.claims import OURS, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Facts, Findings
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks import paths, sites
from wavecity.model.tasks.localization import KEPT, drawn_methods, head_builders, layouts, loss_of
from wavecity.model.tasks.spec import TaskSpec
from wavecity.model.transformer import seeded_weights

NEIGHBOURS_TAKEN = 5
# Stream of random numbers.
SOURCES = 32


@dataclass(frozen=True)
class Source:
    """Labelled users of the scenes that heads are trained on."""

    users: Users  # In random order: first those of training scenes, then those of validation scenes
    train: int  # How many are of training scenes

    @property
    def noise(self) -> Tensor:
        """Mean power of the noise of an entry, float64 (N,)."""
        return sites.noise_of(self.users)

    def held_back(self, settings: HeadSettings) -> HeadSettings:
        """Settings by which exactly the users of validation scenes choose rate and stop."""
        return settings.model_copy(update={"held_back": 1 - self.train / len(self.users)})


def cross_localization(predictor: TaskModel, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error in unseen scenes against the number of labelled users there, from none.

    Encoder and head are trained together on the training scenes only, for the fine-tuned model and its twin; in an
    unseen scene the head alone is adapted, as everywhere. Neighbours are looked up among the training users and the
    labelled ones. Of the settings `cross_scene`, `heads` and `physics_users` count, and CSI share and noise of
    `localization`. The seed is that of pilots, noise and the tested users. Arrays `layout_*` are those of
    `localization`, at the smallest number of labels.

    Raises
    ------
    NotPossible
        No test scene has users enough for the smallest number of labels.
    """
    config = settings.cross_scene
    visible = predictor.pilots(settings.localization.csi, seed)
    rows, counts = sites.choose_scenes(
        data.splits["test"], config.scenes, config.users, config.labels, TESTED, data.name, "cross_scene.labels"
    )
    picked = [sites.make_site(data, row, config.users, TESTED, settings.localization.snr, seed) for row in rows]
    source = make_source(data, settings, seed)
    look = sites.viewer(predictor, visible)
    unseen, known = [(site, look(site.users)) for site in picked], look(source.users)

    errors = sites.Errors(Metric.CROSS_LOCATION_ERROR)
    drawn = drawn_methods(known)
    rates: dict[Method, float] = {}
    adapted: dict[tuple[Method, int, int], float] = {}
    for method, head_seed, start, values, rate in _learned(predictor, source, known, unseen, visible, settings.heads):
        rates.setdefault(method, rate)
        for site, features in zip(picked, values, strict=True):
            for count in counts:
                head, key = start, (method, count, site.row)
                if count:
                    # As for every head, the first seed's held-back labels choose the rate.
                    tried = [adapted[key]] if key in adapted else config.adapt_rates
                    index = site.labelled(count, head_seed)
                    head, adapted[key] = _adapted(start, site, features, index, settings.heads, tried)
                place = apply(head, features[: site.tested])
                errors.add(method, count, head_seed, site, place)
                if method in drawn and count == counts[0] and head_seed == 0:
                    drawn[method].append(place)
    everyone = torch.arange(len(source.users))
    weight = sites.level_weight(known, source.users.position, everyone[: source.train], everyone[source.train :])
    for site, view in unseen:
        errors.add_location_head(predictor, site, visible)
        for method, count, head_seed, place in _simple(source, known, site, view, counts, settings.heads.seeds, weight):
            errors.add(method, count, head_seed, site, place)

    left_out = errors.add_physics(predictor, data, picked, visible, settings.physics_users)
    facts: Facts = {
        **left_out,
        "train_users": source.train,
        "train_scenes": len(source.users.scene[: source.train].unique()),
        "validation_users": len(source.users) - source.train,
        **sites.site_facts(picked, counts, config.labels, settings),
        **sites.csi_facts(predictor, visible),
        "learning_rates": rates,
        "adaptation_rates": {
            method: {str(count): [adapted[method, count, site.row] for site in picked] for count in counts if count}
            for method in rates
        },
        "level_weight": weight,
        "layout_labels": counts[0],
        "split": "heads: training scenes, rate and stop by validation scenes; unseen scenes: half of the users at random "
        "are tested on and never labelled, more labels contain the fewer, a part of the labels chooses rate and stop",
    }
    return Findings(errors.records(), facts, layouts(picked, drawn))


def make_source(data: WirelessData, settings: EvaluationSettings, seed: int) -> Source:
    """Gather users of the training and validation scenes, with noise, in random order."""
    rng = np.random.default_rng([seed, SOURCES])
    parts = []
    for split, limit in (("train", settings.cross_scene.train_users), ("validation", settings.max_users)):
        users = gather(data.splits[split], limit)
        parts.append(users.at(torch.from_numpy(rng.permutation(len(users)))))
    return Source(sites.with_noise(Users.joined(parts), settings.localization.snr, rng), len(parts[0]))


# Method, seed, head, what it reads of the users of each unseen scene, and the learning rate that validation scenes chose.
Learned = tuple[Method, int, nn.Module, list[Tensor], float]


def _learned(
    predictor: TaskModel,
    source: Source,
    known: sites.Views,
    unseen: Sequence[tuple[sites.Site, sites.Views]],
    visible: Tensor,
    settings: HeadSettings,
) -> Iterator[Learned]:
    """Train every method's heads on the training scenes, one for each seed (of weights, batches, and later of labels)."""
    heads, held_back = head_builders(predictor, visible), source.held_back(settings)
    features = {
        Method.PHYSC_MLP: (known.physc, [view.physc for _, view in unseen]),
        Method.RAW_CNN: (known.entries, [view.entries for _, view in unseen]),
    }
    if known.placed is not None:
        features[Method.PHYSC_HEAD] = (known.placed, [view.placed for _, view in unseen if view.placed is not None])
    for method, (seen, values) in features.items():
        standardise = Standardiser.of(seen[: source.train], KEPT.get(method, 0))
        labelled = (standardise(seen), source.users.position)

        def draw_same(_: int, labelled: tuple[Tensor, Tensor] = labelled) -> tuple[Tensor, Tensor]:
            return labelled

        for seed, head, rate in tuned(heads[method], loss_of(method), draw_same, held_back):
            yield method, seed, head, [standardise(part) for part in values], rate

    # Batches cannot draw more users than this; the order is random.
    drawn = min(source.train, settings.finetune_steps * settings.finetune_batch)
    index = torch.cat((torch.arange(drawn), torch.arange(source.train, len(source.users))))
    users = source.users.at(index)
    fewer = Source(users, drawn).held_back(settings)
    if isinstance(predictor, PathEncoder):
        yield from _paths_together(predictor, users, drawn, unseen, visible, fewer)
        return

    def draw(_: int) -> tuple[Users, Tensor, Tensor]:
        return users, users.csi[:, None], users.position

    mlp = heads[Method.PHYSC_MLP]
    for method, (seed, model, rate) in sites.trained_together(predictor, mlp, lambda _: distance, draw, visible, fewer):
        head, model.head = model.head, nn.Identity()
        yield method, seed, head, [model.outputs(site.users, site.users.csi[:, None]) for site, _ in unseen], rate


def _paths_together(
    predictor: PathEncoder,
    users: Users,
    train: int,
    unseen: Sequence[tuple[sites.Site, sites.Views]],
    visible: Tensor,
    settings: HeadSettings,
) -> Iterator[Learned]:
    """As `_learned`, of path models trained as a whole, and heads that start from where these put users."""
    everyone = torch.arange(len(users))
    for method, (seed, network, rate) in paths.trained_places(predictor, users, visible, lambda _: everyone, settings):
        encoder = predictor.with_model(network.model)
        known, *others = (encoder.placed(some, visible) for some in (users, *(site.users for site, _ in unseen)))
        standardise = Standardiser.of(known[:train], KEPT[Method.PHYSC_HEAD])
        with seeded_weights(seed):
            head = PlaceCorrection(encoder.width)
        yield method, seed, head, [standardise(part) for part in others], rate


def _adapted(
    head: nn.Module, site: sites.Site, features: Tensor, index: Tensor, settings: HeadSettings, rates: Sequence[float]
) -> tuple[nn.Module, float]:
    """Fine-tune a copy of a head on labelled users of an unseen scene; the start itself is one of the candidates."""
    labelled = (features[index], site.users.position[index])
    once = settings.model_copy(update={"seeds": 1})
    loss: Loss = log_distance if isinstance(head, PlaceCorrection) else distance
    found = tuned(lambda: copy.deepcopy(head), lambda _: loss, lambda _: labelled, once, rates)
    _, adapted, rate = next(iter(found))
    return adapted, rate


def _simple(
    source: Source,
    known: sites.Views,
    site: sites.Site,
    view: sites.Views,
    counts: Sequence[int],
    seeds: int,
    weight: float,
) -> Iterator[tuple[Method, int, int, Tensor]]:
    """Method, number of labels, seed and places of the tested users, of what needs no training: neighbours, the mean."""
    train = source.users.position[: source.train]
    # Without labels nothing depends on the seed.
    draws = [(count, seed) for count in counts for seed in range(seeds if count else 1)]
    for method, factor in ((Method.KNN, 0.0), (Method.KNN_LEVEL, weight)):
        queries = sites.with_level(view, factor)
        distance, index = nearest(
            sites.with_level(known, factor)[: source.train], queries[: site.tested], NEIGHBOURS_TAKEN
        )
        near = (distance, train[index])
        for count, seed in draws:
            index = site.labelled(count, seed)
            place = among(near, queries[index], site.users.position[index], queries[: site.tested])
            yield method, count, seed, place
    for count, seed in draws:
        labels = site.users.position[site.labelled(count, seed)] if count else train
        yield Method.MEAN_LABELLED, count, seed, labels.mean(0).expand(site.tested, -1)


def among(near: tuple[Tensor, Tensor], features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """`nearest_neighbours` of queries (M, F) when features (L, F) with labels (L, c) join the database.

    `near` holds the distances (M, k) and labels (M, k, c) of the nearest in the database.
    """
    joined = torch.cat((near[0], torch.cdist(queries, features)), 1)
    every = torch.cat((near[1], labels.expand(len(queries), -1, -1)), 1)
    found, index = joined.topk(min(NEIGHBOURS_TAKEN, joined.shape[1]), largest=False)
    return inverse_distance_mean(found, every.gather(1, index[..., None].expand(-1, -1, every.shape[-1])))


TASK: TaskName = "cross-localization"
_ERROR, _POOLED = Metric.CROSS_LOCATION_ERROR, {"scene": None}
_MLP, _CNN, _KNN = (Method.PHYSC_MLP,), (Method.RAW_CNN,), (Method.KNN, Method.KNN_LEVEL)
_TRAINED = (Method.PHYSC_FINE_TUNED, Method.PHYSC_MLP)
CLAIMS = (
    Claim("cross-zero", "5", "section 4.2, Figure 5c",
          "In scenes never seen, without any label of theirs, [PHYSC] + MLP is better than raw CSI + CNN.",
          "relative reduction of the median error with no labels", TASK, "gain",
          Select(_ERROR, _MLP, _CNN, _POOLED, at=0)),
    Claim("cross-more", "5", "section 4.2, Figure 5c", "With labels of the new scene it keeps getting better.",
          "relative reduction from no labels to the most", TASK, "change", Select(_ERROR, _MLP, where=_POOLED, at="most")),
    Claim("cross-cnn", "5", "section 4.2, Figure 5c",
          "Raw CSI + CNN gets worse when it is fine-tuned on only a few labels.",
          "relative growth of its error from no labels to the fewest; here held-back labels choose rate and stop, no step at "
          "all included, which shields it", TASK, "change",
          Select(_ERROR, _CNN, where=_POOLED, at="fewest", better=False)),
    Claim("cross-knn", "5", OURS, "In scenes never seen it also beats the nearest neighbours of |DFT| fingerprints.",
          "relative reduction, mean over the numbers of labels", TASK, "gain", Select(_ERROR, _MLP, _KNN, _POOLED)),
    Claim("cross-physics", "5", OURS,
          "In scenes never seen it also beats the physics localiser, which needs the footprints and no label.",
          "relative reduction, mean over the numbers of labels", TASK, "gain",
          Select(_ERROR, _MLP, (Method.PHYSICS,), _POOLED)),
    Claim("cross-twin", "5", OURS,
          "Pretraining helps in scenes never seen: the same encoder from scratch, with the same budget, is behind.",
          "relative reduction, mean over the numbers of labels that both have", TASK, "gain",
          Select(_ERROR, _TRAINED, (Method.TWIN,), _POOLED)),
    Claim("layouts", "12", "Appendix E.1, Figure 12",
          "In scenes never seen, [PHYSC] + MLP puts users nearer to where they are than raw CSI + CNN (pictures only).",
          "not at all here; the verdict is with Figure 5", TASK, "gain", Select(_ERROR, _MLP, _CNN, _POOLED, at=0),
          by_eye=True),
)  # fmt: skip
# Of the path model besides.
PATH_CLAIMS = (
    *CLAIMS,
    Claim("cross-head", "5", OURS,
          "A head that starts from where the path model itself puts users beats neighbours and the physics localiser there.",
          "relative reduction over the best of them, mean over the numbers of labels", TASK, "gain",
          Select(_ERROR, (Method.PHYSC_HEAD,), (*_KNN, Method.PHYSICS), _POOLED)),
)  # fmt: skip
FIGURES = (
    Part("5", "Localisation", TASK,
         f"(c) Heads trained on training scenes, then adapted; 0 labels is zero-shot. {BARS}", draw_cross,
         metric=_ERROR, over_labels=True),
    Part("12", "Scenes of the localisation task with predicted locations", TASK,
         f"Heads that have not seen these scenes, as in the paper's figure. {LAYOUT}", draw_map=draw_layouts,
         arrays=LAYOUTS),
)  # fmt: skip
_BASELINES = (Method.RAW_CNN, Method.TWIN, *_KNN, Method.PHYSICS, Method.MEAN_LABELLED)
_READ = frozenset({"batch_size", "cross_scene", "heads", "localization", "max_users"})
SPECS = (
    TaskSpec(TASK, "multimodal", "Localisation in unseen scenes", cross_localization, _READ | {"physics_users"}, _BASELINES,
             CLAIMS, FIGURES),
    TaskSpec(TASK, "rays", "Localisation in unseen scenes", paths.of_paths(cross_localization), _READ, _BASELINES,
             PATH_CLAIMS, FIGURES),
)  # fmt: skip
