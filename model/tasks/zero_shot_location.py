"""Where the path model and its rivals locate users without a label, and how much worse where something is wrong."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavecity.dataset.reader import open_store
from wavecity.dataset.records import attributes_of
from wavecity.model.data.users import Samples, SceneTable, WirelessData, evenly, picked
from wavecity.model.learning.baselines import nearest_neighbours
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.inference import Links, PathPredictor, Predictions
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Record
from wavecity.model.settings.disturbance import DisturbanceSettings
from wavecity.model.settings.rays import ZeroShotSettings
from wavecity.model.tasks.reconstruction import fingerprint
from wavecity.model.tasks.zero_shot_rates import SHARES, regions

# Bit of a stored interaction that stands for an edge.
DIFFRACTION = 8
# Users by how their waves arrive: `reflected` have no line of sight, but a tenth of their power or more without an edge.
KINDS = ("line of sight", "reflected", "diffracted only")
SPECULAR = 0.1
# What the users who are disturbed have when they are not: the reference of the others.
UNDISTURBED = "nothing"


def links_of(samples: Samples, limit: int) -> Links:
    """Users of a split, so many evenly spread over it."""
    items = picked(samples, limit)
    index = evenly(len(samples), min(limit, len(samples))).numpy()
    return Links(
        csi=torch.stack([item["csi"] for item in items]),
        position=torch.stack([torch.as_tensor(item["user_position"]) for item in items])[:, :2].float(),
        scene=torch.as_tensor(np.asarray(samples.scene_index)[index]),
        user=torch.as_tensor(np.asarray(samples.user_index)[index]),
    )


def kinds_of(store: str, users: Links) -> NDArray[np.int64]:
    """Index of each user's kind in `KINDS`, from the paths of the store; users out of sight are `reflected` without them."""
    data = open_store(store)
    kinds = np.zeros(len(users), np.int64)
    features = attributes_of(data.attrs).get("recipe", {}).get("features", {})
    paths = open_store(store, "paths") if features.get("paths", True) else None
    for scene in users.scene.unique().tolist():
        mine = (users.scene == scene).numpy()
        rows = users.user.numpy()[mine]
        kind = np.where(data["los"].isel(scene=scene).values[rows], 0, 1)
        if paths is not None:
            part = paths[["gain", "interactions"]].isel(scene=scene, user=rows).load()
            power = np.abs(part["gain"].values) ** 2
            specular = ~(part["interactions"].values & DIFFRACTION).any(-1)
            edges_only = (power * specular).max(1) <= SPECULAR * power.sum(1)
            kind = np.where((kind == 1) & edges_only, 2, kind)
        kinds[mine] = kind
    return kinds


def seen_by(predictor: PathPredictor, users: Links, draw: Draw) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy channels (N, x, y) of users, the power of their noise (N,), and the antennas (x, y), the same for all."""
    noisy, power = torch.zeros_like(users.csi), torch.zeros(len(users), dtype=torch.float64)
    shown = torch.zeros(users.csi.shape[1:], dtype=torch.bool)
    for scene in users.scene.unique().tolist():
        mine = users.scene == scene
        channels, noise, shown = predictor.cache.seen(scene, draw)
        noisy[mine], power[mine] = channels[users.user[mine]], noise[users.user[mine]].double()
    return noisy, power, shown


def location(
    predictor: PathPredictor,
    data: WirelessData,
    test: Links,
    kinds: NDArray[np.int64],
    found: Predictions,
    draw: Draw,
    config: ZeroShotSettings,
    train: Links,
    disturbed: str | None = None,
) -> list[Record]:
    """Median and 90 % quantile of the errors, by method and kind of user, and how many users stated regions hold.

    Neighbours are looked up among those of the users `train` that stand in other cities; where all stand in one, in
    other scenes. `found` is what the model says of the users `test` under `draw`; `kinds` are indices into `KINDS`;
    `disturbed` names what is wrong.
    """
    (known, _, _), (noisy, _, shown) = seen_by(predictor, train, draw), seen_by(predictor, test, draw)
    features, queries = fingerprint(known, shown), fingerprint(noisy, shown)
    near, mean = torch.zeros_like(test.position), torch.zeros_like(test.position)
    for mine, others in _other_places(test, train, data.scenes):
        near[mine] = nearest_neighbours(features[others], train.position[others], queries[mine])
        mean[mine] = train.position[others].mean(0)
    places = {
        Method.MODEL: found.location.best(),
        Method.PHYSICS: found.physics,
        Method.KNN_TRAINING: near,
        Method.MEAN_TRAINING: mean,
    }
    errors = {method: (place - test.position).norm(dim=1) for method, place in places.items()}
    held = regions(found.location, test.position, (*SHARES, config.confidence), draw.seed)
    hidden = 1 - float(shown.float().mean())
    records = []
    for number, kind in enumerate((None, *KINDS)):
        mine = torch.ones(len(test), dtype=torch.bool) if kind is None else torch.from_numpy(kinds == number - 1)
        if not mine.any():
            continue
        count = int(mine.sum())
        where = Condition(csi_masked=hidden, user_kind=kind, disturbed=disturbed)
        for method, error in errors.items():
            for metric, share in ((Metric.HIDDEN_LOCATION_ERROR, 0.5), (Metric.HIDDEN_LOCATION_P90, 0.9)):
                value = float(error[mine].quantile(share))
                records.append(Record(metric, method, value, draw.seed, count, condition=where))
        for share, inside in held.items():
            value = 100 * float(inside[mine].float().mean())
            stated = replace(where, region=share)
            records.append(Record(Metric.REGION_HELD, Method.MODEL, value, draw.seed, count, condition=stated))
    return records


def _other_places(test: Links, train: Links, scenes: SceneTable) -> Iterator[tuple[Tensor, Tensor]]:
    """Which test users, bool (N,), may know which training users, bool (M,): those of other cities, else of other scenes."""
    numbers = {city: number for number, city in enumerate(dict.fromkeys(scenes.cities))}
    city = torch.tensor([numbers[name] for name in scenes.cities])
    places = (city[test.scene], city[train.scene]) if len(city[train.scene].unique()) > 1 else (test.scene, train.scene)
    for place in places[0].unique():
        yield places[0] == place, places[1] != place


def disturbed(
    predictor: PathPredictor,
    data: WirelessData,
    test: Links,
    kinds: NDArray[np.int64],
    config: ZeroShotSettings,
    seed: int,
) -> tuple[list[Record], Facts]:
    """`location` of the users of some scenes with something wrong, case by case; and with nothing wrong, to compare with.

    Neighbours are those of as many users, of a few scenes too: of every scene, channels are made anew for each case.
    """
    some = users_of_few_scenes(test.scene, config.disturbed_users)
    train = links_of(data.splits["train"], config.neighbours)
    train = train.at(users_of_few_scenes(train.scene, config.disturbed_users))
    users, of_kind = test.at(some), kinds[some.numpy()]
    records: list[Record] = []
    for name, case in {UNDISTURBED: None, **config.cases}.items():
        snr, patches, wrong = config.snr, config.patches, Disturbance()
        if case is not None:
            snr, patches = config.snr if case.snr is None else case.snr, case.patches or config.patches
            wrong = Disturbance(**case.model_dump(include=set(DisturbanceSettings.model_fields)))
        draw = Draw(seed, patches, snr, wrong=wrong)
        found = predictor.predict(users, draw)
        records += location(predictor, data, users, of_kind, found, draw, config, train, name)
    facts: Facts = {
        "disturbed_users": len(users),
        "disturbed_scenes": len(users.scene.unique()),
        "disturbed_neighbours": len(train),
        "disturbed": {name: case.model_dump(mode="json", exclude_defaults=True) for name, case in config.cases.items()},
    }
    return records, facts


def users_of_few_scenes(scene: Tensor, most: int) -> Tensor:
    """Users int64 (n,) of at least one scene, and of as many evenly spread ones of `scene` (N,) as have `most` users together.

    Examples
    --------
    >>> users_of_few_scenes(torch.tensor([0, 0, 1, 1, 2, 2]), 4).tolist()
    [0, 1, 4, 5]
    """
    rows, counts = scene.unique(return_counts=True)
    for number in range(len(rows), 1, -1):
        chosen = evenly(len(rows), number)
        if int(counts[chosen].sum()) <= most:
            break
    else:
        chosen = torch.zeros(1, dtype=torch.int64)
    return torch.isin(scene, rows[chosen]).nonzero()[:, 0]
