"""Localisation in one scene from a share of the CSI (section 4.1, Figures 5a, 5b and 12): a head a scene and method.

The model sees the whole scene and some CSI patches with noise, never the location; nothing of the scene is masked, so
that no mask can tell where a user is. All methods see the same noisy patches and, for a number of labels and a seed, the
same labels. Users that are tested on are drawn before and are never labelled.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wavecity.model.data.users import Users, WirelessData
from wavecity.model.learning.baselines import nearest_neighbours
from wavecity.model.learning.embeddings import clusters, evenly, picture
from wavecity.model.learning.finetune import finetuned
from wavecity.model.learning.heads import LocationCnn, LocationHead, Standardiser, apply, distance, tuned
from wavecity.model.learning.selection import first_held_back
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.results.table import Findings
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.sites import (
    Errors,
    Site,
    Views,
    ZeroFilled,
    choose_scenes,
    level_weight,
    make_site,
    shown_antennas,
    site_facts,
    viewer,
    with_level,
)

QUANTITY = "Localisation, median error"
PHYSC, CNN, UNTRAINED = "[PHYSC] + MLP", "raw CSI + CNN", "untrained [PHYSC] + MLP"
FINE_TUNED, TWIN = "[PHYSC], fine-tuned", "from-scratch twin"
LOCATION_HEAD, MEAN = "model's location head, no labels", "mean of labelled users"
NEIGHBOURS, NEIGHBOURS_LEVEL = "kNN on |DFT|", "kNN on |DFT| and level"
# Users of a scene whose places the report draws, and groups of neighbours that t-SNE is coloured by [ours].
DRAWN = 20
GROUPS = 8
EMBEDDED = 1000
# Method, head seed, places (tested, 2) of the tested users, learning rate if there is one.
Placed = tuple[str, int, Tensor, float | None]


def localization(predictor: Predictor, data: WirelessData, settings: EvaluationSettings, seed: int) -> Findings:
    """Median error against the number of labelled users of a scene, on test scenes.

    Methods without labels have one record (x is not a number); those that train encoder and head run at the largest
    number of labels, and not at all when `heads.finetune_steps` is 0.

    Parameters
    ----------
    predictor : Predictor
    data : WirelessData
    settings : EvaluationSettings
        `localization` and `heads`.
    seed : int
        Of pilots, noise and the tested users; the heads' seeds choose labels, weights and batches.

    Returns
    -------
    Findings
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
    look, random_encoder = viewer(predictor, visible), predictor.untrained(seed)
    samples = data.splits["test"]
    rows, counts = choose_scenes(
        samples, config.scenes, config.users, config.labels, config.test_share, data.name, "localization.labels"
    )
    sites = [make_site(data, row, config.users, config.test_share, config.snr, seed) for row in rows]
    views = [look(site.users) for site in sites]

    errors, heads = Errors(QUANTITY, "all scenes"), head_builders(predictor, visible)
    drawn: dict[str, list[Tensor]] = {PHYSC: [], CNN: []}
    rates: dict[str, dict[str, list[float]]] = {}
    for site, view in zip(sites, views, strict=True):
        place = predictor.predict(site.test, visible, fill_csi=False).location
        if place is not None:
            errors.add(LOCATION_HEAD, math.nan, 0, site, place)
        features = {
            PHYSC: view.physc,
            CNN: view.entries,
            UNTRAINED: random_encoder.encode(site.users, visible),
        }
        for count in counts:
            places = _head_places(site, features, heads, count, settings)
            for method, head_seed, place, rate in [*places, *_simple_places(site, view, count, settings)]:
                errors.add(method, count, head_seed, site, place)
                if method in drawn and count == counts[-1] and head_seed == 0:
                    drawn[method].append(place)
                if rate is not None and head_seed == 0:
                    rates.setdefault(method, {}).setdefault(str(count), []).append(rate)
        for method, head_seed, place, rate in _finetuned_places(predictor, site, visible, counts[-1], settings):
            errors.add(method, counts[-1], head_seed, site, place)
            if head_seed == 0:
                rates.setdefault(method, {}).setdefault(str(counts[-1]), []).append(rate)

    facts = {
        **site_facts(sites, counts, config.labels, settings),
        "csi_patches_seen": len(visible),
        "csi_patches": predictor.model.csi_patches,
        "learning_rates": rates,
        "split": "users of a scene at random; those tested on are never labelled, more labels contain the fewer",
    }
    grouped, shown = group_users(sites[0], views[0], seed)
    return Findings(errors.records(), facts | grouped, shown | layouts(sites, drawn))


def head_builders(predictor: Predictor, visible: Tensor) -> dict[str, Callable[[], nn.Module]]:
    """How the heads on fixed features are made, by method."""
    shown, scale = shown_antennas(predictor, visible), predictor.scenes.size

    def mlp() -> nn.Module:
        return LocationHead(predictor.settings.model.width, scale)

    def cnn() -> nn.Module:
        # Half the time of the default layout.
        network: nn.Module = nn.Sequential(ZeroFilled(shown), LocationCnn(scale))
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    return {PHYSC: mlp, CNN: cnn, UNTRAINED: mlp}


def _head_places(
    site: Site,
    features: dict[str, Tensor],
    heads: dict[str, Callable[[], nn.Module]],
    count: int,
    settings: EvaluationSettings,
) -> Iterator[Placed]:
    """Method, head seed, places of the tested users and learning rate, of heads on fixed features."""
    for method, values in features.items():

        def draw(head_seed: int, values: Tensor = values) -> tuple[Tensor, Tensor]:
            index = site.labelled(count, head_seed)
            return Standardiser.of(values[index])(values[index]), site.users.position[index]

        for head_seed, head, rate in tuned(heads[method], lambda _: distance, draw, settings.heads):
            standardise = Standardiser.of(values[site.labelled(count, head_seed)])
            yield method, head_seed, apply(head, standardise(values[: site.tested])), rate


def _finetuned_places(
    predictor: Predictor, site: Site, visible: Tensor, count: int, settings: EvaluationSettings
) -> Iterator[tuple[str, int, Tensor, float]]:
    """As `_head_places`, of encoder and head trained together: pretrained, and from random weights."""
    if not settings.heads.finetune_steps:
        return

    def draw(head_seed: int) -> tuple[Users, Tensor, Tensor]:
        users = site.users.at(site.labelled(count, head_seed))
        return users, users.csi[:, None], users.position

    def build() -> nn.Module:
        return LocationHead(predictor.settings.model.width, predictor.scenes.size)

    starts: dict[str, Callable[[int], Predictor]] = {FINE_TUNED: lambda _: predictor, TWIN: predictor.untrained}
    for method, start in starts.items():
        for head_seed, model, rate in finetuned(start, build, lambda _: distance, draw, visible, settings.heads):
            yield method, head_seed, model.outputs(site.test, site.test.csi[:, None]), rate


def _simple_places(site: Site, view: Views, count: int, settings: EvaluationSettings) -> Iterator[Placed]:
    """As `_head_places`, of what needs labels but no training."""
    position = site.users.position
    for head_seed in range(settings.heads.seeds):
        index = site.labelled(count, head_seed)
        yield MEAN, head_seed, position[index].mean(0).expand(site.tested, -1), None
        stop = first_held_back(len(index), settings.heads.held_back)
        weight = level_weight(view, position, index[:stop], index[stop:])
        for method, prints in ((NEIGHBOURS, view.prints), (NEIGHBOURS_LEVEL, with_level(view, weight))):
            yield method, head_seed, nearest_neighbours(prints[index], position[index], prints[: site.tested]), None


def group_users(site: Site, view: Views, seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Facts and arrays of how raw CSI and [PHYSC] group users of a scene that are neighbours in space (Figure 5a)."""
    shown = evenly(len(site.users), EMBEDDED)
    group = clusters(site.users.position[shown], GROUPS, seed)
    facts, arrays = picture({"raw": view.entries[shown], "physc": view.physc[shown]}, group, seed)
    return {"tsne_scene": site.name, "tsne_users": len(shown)} | facts, {"tsne_cluster": group} | arrays


def layouts(sites: Sequence[Site], places: dict[str, list[Tensor]]) -> dict[str, NDArray[Any]]:
    """Some tested users of each scene and where methods put them (Figure 12); `places` holds (tested, 2) by scene."""
    count = min(DRAWN, *(site.tested for site in sites))
    return {
        "layout_scene": np.array([site.row for site in sites]),
        "layout_true": np.stack([site.users.position[:count].numpy() for site in sites]),
        "layout_methods": np.array(list(places)),
        "layout_places": np.stack([np.stack([place[:count].numpy() for place in found]) for found in places.values()]),
    }
