"""Localisation in one scene from a share of the CSI (section 4.1, Figures 5a, 5b and 12): a head a scene and method.

The model sees the whole scene and some CSI patches with noise, never the location; nothing of the scene is masked, so
that no mask can tell where a user is. All methods see the same noisy patches and, for a number of labels and a seed, the
same labels. Users that are tested on are drawn before and are never labelled.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wavecity.model.data.users import Users, WirelessData, evenly
from wavecity.model.figures.curves import draw_clusters, draw_layouts, draw_local, draw_local_scenes
from wavecity.model.figures.parts import BARS, LAYOUT, LAYOUTS, TSNE, Part
from wavecity.model.learning.baselines import nearest_neighbours
from wavecity.model.learning.embeddings import EMBEDDED, grouped
from wavecity.model.learning.heads import (
    LocationCnn,
    LocationHead,
    Loss,
    PlaceCorrection,
    Standardiser,
    apply,
    distance,
    log_distance,
    tuned,
)
from wavecity.model.learning.selection import first_held_back
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.results.claims import OURS, SILHOUETTE_MARGIN, Claim
from wavecity.model.results.measures import Select
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Arrays, Facts, Findings
from wavecity.model.settings.tasks import TaskName
from wavecity.model.settings.training import EvaluationSettings, HeadSettings
from wavecity.model.tasks import paths, sites
from wavecity.model.tasks.spec import TaskSpec

# Users of a scene whose places the report draws [ours].
DRAWN = 20
# Last features of heads that are not standardised: the place that the model itself says, and its spread.
KEPT = {Method.PHYSC_HEAD: 3}
# Method, head seed, places (tested, 2) of the tested users, learning rate if there is one.
Placed = tuple[Method, int, Tensor, float | None]


def localization(predictor: TaskModel, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error against the number of labelled users of a scene, on test scenes.

    Methods without labels have one record (x is not a number); those that train encoder and head run at the largest
    number of labels, and not at all when `heads.finetune_steps` is 0. Of a model that puts users somewhere itself there is a
    head, too, that starts from that (`PlaceCorrection`). Of the settings `localization`, `heads` and `physics_users`
    count.
    The seed is that of pilots, noise and the tested users; the heads' seeds choose labels, weights and batches.

    Arrays: `layout_scene` (S,), `layout_true` (S, n, 2), `layout_methods` (M,), `layout_places` (M, S, n, 2): some
    tested users, m relative to the base station, at the largest number of labels; `tsne_raw`, `tsne_physc` (n, 2) and
    `tsne_cluster` (n,) of the first scene's users, grouped by position.

    Raises
    ------
    NotPossible
        No test scene has users enough for the smallest number of labels.
    """
    config = settings.localization
    visible = predictor.pilots(config.csi, seed)
    look, random_encoder = sites.viewer(predictor, visible), predictor.untrained(seed)
    samples = data.splits["test"]
    rows, counts = sites.choose_scenes(
        samples, config.scenes, config.users, config.labels, config.test_share, data.name, "localization.labels"
    )
    picked = [sites.make_site(data, row, config.users, config.test_share, config.snr, seed) for row in rows]
    views = [look(site.users) for site in picked]

    errors, heads = sites.Errors(Metric.LOCATION_ERROR), head_builders(predictor, visible)
    drawn = drawn_methods(views[0])
    rates: dict[Method, dict[str, list[float]]] = {}
    for site, view in zip(picked, views, strict=True):
        errors.add_location_head(predictor, site, visible)
        features = {
            Method.PHYSC_MLP: view.physc,
            Method.RAW_CNN: view.entries,
            Method.UNTRAINED_MLP: random_encoder.encode(site.users, visible),
        }
        if view.placed is not None:
            features[Method.PHYSC_HEAD] = view.placed
        for count in counts:
            places = head_places(site, features, heads, count, settings)
            for method, head_seed, place, rate in [*places, *_simple_places(site, view, count, settings)]:
                errors.add(method, count, head_seed, site, place)
                if method in drawn and count == counts[-1] and head_seed == 0:
                    drawn[method].append(place)
                if rate is not None and head_seed == 0:
                    rates.setdefault(method, {}).setdefault(str(count), []).append(rate)
        for method, head_seed, place, rate in _places_together(predictor, site, counts[-1], visible, settings.heads):
            errors.add(method, counts[-1], head_seed, site, place)
            if head_seed == 0:
                rates.setdefault(method, {}).setdefault(str(counts[-1]), []).append(rate)

    left_out = errors.add_physics(predictor, data, picked, visible, settings.physics_users)
    facts: Facts = {
        **left_out,
        **sites.site_facts(picked, counts, config.labels, settings),
        **sites.csi_facts(predictor, visible),
        "learning_rates": rates,
        "split": "users of a scene at random; those tested on are never labelled, more labels contain the fewer",
    }
    shown = evenly(len(picked[0].users), EMBEDDED)
    where = picked[0].users.position[shown]
    groups, arrays = grouped(where, views[0].entries[shown], views[0].physc[shown], seed)
    facts |= {"tsne_scene": picked[0].name} | groups
    return Findings([*errors.records(), *sites.silhouettes(groups)], facts, arrays | layouts(picked, drawn))


def head_builders(predictor: TaskModel, visible: Tensor) -> dict[Method, Callable[[], nn.Module]]:
    """How the heads on fixed features are made, by method."""
    shown, scale = predictor.shown(visible), predictor.size

    def mlp() -> nn.Module:
        return LocationHead(predictor.width, scale)

    def correction() -> nn.Module:
        return PlaceCorrection(predictor.width)

    def cnn() -> nn.Module:
        # Half the time of the default layout.
        network: nn.Module = nn.Sequential(sites.ZeroFilled(shown), LocationCnn(scale))
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    return {Method.PHYSC_MLP: mlp, Method.PHYSC_HEAD: correction, Method.RAW_CNN: cnn, Method.UNTRAINED_MLP: mlp}


def loss_of(method: Method) -> Callable[[Tensor], Loss]:
    """From training labels to the loss of a method's head."""
    loss = log_distance if method is Method.PHYSC_HEAD else distance
    return lambda _: loss


def drawn_methods(view: sites.Views) -> dict[Method, list[Tensor]]:
    """Methods whose places the report draws, with none yet."""
    methods = (Method.PHYSC_MLP, Method.RAW_CNN, *(() if view.placed is None else (Method.PHYSC_HEAD,)))
    return {method: [] for method in methods}


def head_places(
    site: sites.Site,
    features: dict[Method, Tensor],
    heads: dict[Method, Callable[[], nn.Module]],
    count: int,
    settings: EvaluationSettings,
) -> Iterator[Placed]:
    """Method, head seed, places of the tested users and learning rate, of heads on fixed features."""
    for method, values in features.items():
        kept = KEPT.get(method, 0)

        def draw(head_seed: int, values: Tensor = values, kept: int = kept) -> tuple[Tensor, Tensor]:
            index = site.labelled(count, head_seed)
            return Standardiser.of(values[index], kept)(values[index]), site.users.position[index]

        for head_seed, head, rate in tuned(heads[method], loss_of(method), draw, settings.heads):
            standardise = Standardiser.of(values[site.labelled(count, head_seed)], kept)
            yield method, head_seed, apply(head, standardise(values[: site.tested])), rate


def _places_together(
    predictor: TaskModel, site: sites.Site, count: int, visible: Tensor, settings: HeadSettings
) -> Iterator[tuple[Method, int, Tensor, float]]:
    """Method, head seed, places of the tested users and learning rate, of encoder and head trained together."""

    def labelled(head_seed: int) -> Tensor:
        return site.labelled(count, head_seed)

    if isinstance(predictor, PathEncoder):
        for method, found in paths.trained_places(predictor, site.users, visible, labelled, settings):
            yield method, found.seed, paths.places_by(predictor, found.network, site.test, visible), found.rate
        return

    def draw(head_seed: int) -> tuple[Users, Tensor, Tensor]:
        users = site.users.at(labelled(head_seed))
        return users, users.csi[:, None], users.position

    mlp = head_builders(predictor, visible)[Method.PHYSC_MLP]
    for method, one in sites.trained_together(predictor, mlp, lambda _: distance, draw, visible, settings):
        yield method, one.seed, one.network.outputs(site.test, site.test.csi[:, None]), one.rate


def _simple_places(site: sites.Site, view: sites.Views, count: int, settings: EvaluationSettings) -> Iterator[Placed]:
    """As `head_places`, of what needs labels but no training."""
    position = site.users.position
    for head_seed in range(settings.heads.seeds):
        index = site.labelled(count, head_seed)
        yield Method.MEAN_LABELLED, head_seed, position[index].mean(0).expand(site.tested, -1), None
        stop = first_held_back(len(index), settings.heads.held_back)
        weight = sites.level_weight(view, position, index[:stop], index[stop:])
        for method, prints in ((Method.KNN, view.prints), (Method.KNN_LEVEL, sites.with_level(view, weight))):
            yield method, head_seed, nearest_neighbours(prints[index], position[index], prints[: site.tested]), None


def layouts(picked: Sequence[sites.Site], places: dict[Method, list[Tensor]]) -> Arrays:
    """Some tested users of each scene and where methods put them (Figure 12); `places` holds (tested, 2) by scene."""
    count = min(DRAWN, *(site.tested for site in picked))
    return {
        "layout_scene": np.array([site.row for site in picked]),
        "layout_true": np.stack([site.users.position[:count].numpy() for site in picked]),
        "layout_methods": np.array(list(places)),
        "layout_places": np.stack([np.stack([place[:count].numpy() for place in found]) for found in places.values()]),
    }


TASK: TaskName = "localization"
_ERROR, _POOLED = Metric.LOCATION_ERROR, {"scene": None}
_MLP, _CNN, _KNN = (Method.PHYSC_MLP,), (Method.RAW_CNN,), (Method.KNN, Method.KNN_LEVEL)
_TRAINED = (Method.PHYSC_FINE_TUNED, Method.PHYSC_MLP)
CLAIMS = (
    Claim("local-clusters", "5", "section 4.2, Figure 5a",
          "Users that stand together form clusters that are better separated in [PHYSC] than in raw CSI.",
          f"silhouette of [PHYSC] less that of raw CSI, in their own spaces; one draw, so {SILHOUETTE_MARGIN:g} is the margin",
          TASK, "gain", Select(Metric.SILHOUETTE, (Method.PHYSC,), (Method.RAW,), kind="absolute"),
          SILHOUETTE_MARGIN, -SILHOUETTE_MARGIN, 1),
    Claim("local-share", "5", "section 4.2, Figure 5b",
          "Within a scene [PHYSC] + MLP has a median error more than 20 % below that of raw CSI + CNN.",
          "relative reduction, mean over the numbers of labels", TASK, "gain", Select(_ERROR, _MLP, _CNN, _POOLED), 20.0),
    Claim("local-metres", "5", "section 4.2, Figure 5b", "That is some 5 to 10 m.",
          "reduction in m, mean over the numbers of labels; at least 5", TASK, "gain",
          Select(_ERROR, _MLP, _CNN, _POOLED, kind="absolute"), 5.0, 0.0),
    Claim("local-few", "5", "section 4.2, Figure 5b", "The gain is largest with few labels.",
          "reduction in m with the fewest labels less that with the most; any difference beyond the spread", TASK,
          "few_less_most", Select(_ERROR, _MLP, _CNN, _POOLED), 0.0, 0.0),
    Claim("local-knn", "5", OURS,
          "It also beats the nearest neighbours of |DFT| fingerprints, with the user's level where that helps.",
          "relative reduction, mean over the numbers of labels", TASK, "gain", Select(_ERROR, _MLP, _KNN, _POOLED)),
    Claim("local-physics", "5", OURS,
          "With labels it beats the physics localiser, which needs the footprints and no label.",
          "relative reduction, mean over the numbers of labels", TASK, "gain",
          Select(_ERROR, _MLP, (Method.PHYSICS,), _POOLED)),
    Claim("local-twin", "5", OURS, "Pretraining helps: the same encoder from scratch, with the same budget, is behind.",
          "relative reduction, mean over the numbers of labels that both have", TASK, "gain",
          Select(_ERROR, _TRAINED, (Method.TWIN,), _POOLED)),
)  # fmt: skip
# Of the path model besides.
PATH_CLAIMS = (
    *CLAIMS,
    Claim("local-head", "5", OURS,
          "A head that starts from where the path model itself puts users beats neighbours and the physics localiser.",
          "relative reduction over the best of them, mean over the numbers of labels", TASK, "gain",
          Select(_ERROR, (Method.PHYSC_HEAD,), (*_KNN, Method.PHYSICS), _POOLED)),
)  # fmt: skip
FIGURES = (
    Part("5", "Localisation", TASK,
         "(a) Colour: k-means clusters of the positions of one scene's users. Distances between clusters mean little "
         "in a t-SNE plane; the silhouettes are of the features themselves.",
         lambda outcome: draw_clusters(outcome, "clusters of positions"), arrays=TSNE),
    Part("5", "", TASK, f"(b) Median over the pooled errors of all scenes. {BARS}", draw_local, metric=_ERROR,
         over_labels=True),
    Part("5", "", TASK, "(b) The same scene by scene.", draw_local_scenes, metric=_ERROR, varied=True,
         over_labels=True),
    Part("12", "Scenes of the localisation task with predicted locations", TASK,
         f"Heads of the scene itself, with the largest number of labels. {LAYOUT}", draw_map=draw_layouts,
         arrays=LAYOUTS),
)  # fmt: skip
_BASELINES = (Method.RAW_CNN, Method.UNTRAINED_MLP, Method.TWIN, Method.KNN, Method.KNN_LEVEL, Method.PHYSICS,
              Method.MEAN_LABELLED, Method.RAW)  # fmt: skip
SPECS = (
    TaskSpec(TASK, "multimodal", "Localisation in one scene", localization,
             frozenset({"batch_size", "heads", "localization", "physics_users"}), _BASELINES, CLAIMS, FIGURES, ("test",)),
    TaskSpec(TASK, "rays", "Localisation in one scene", paths.of_paths(localization),
             frozenset({"batch_size", "heads", "localization"}), _BASELINES, PATH_CLAIMS, FIGURES, ("test",)),
)  # fmt: skip
