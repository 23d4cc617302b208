"""Which tasks a dataset is too small for: known from its numbers of users, before anything is computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavecity.dataset import InputError
from wavecity.dataset.records import attributes_of
from wavecity.model.settings.prediction import PredictionSettings
from wavecity.model.settings.tasks import TASKS_OF
from wavecity.model.settings.training import TrainingSettings

# Fewer labels than these are no training set.
FEWEST_LABELS = 10
# Share of an unseen scene's users that is tested on; the paper collects 2,000 "for testing and adaptation" [ours].
TESTED = 0.5
# Least number of training users: some to train on, some to choose by, and of `equivariance` some to test.
FEWEST_TRAINED = {"prediction": 2, "equivariance": 3}

SECTION = "training.evaluation"


class NotPossible(InputError):
    """A task that this dataset or this model does not allow; other tasks of the run may go on."""


@dataclass(frozen=True)
class Sizes:
    """What there is to evaluate on, or the most that there can be."""

    train: int  # Users of the train split that have a path
    test: NDArray[np.int64]  # Those of each test scene
    steps: int | None  # Snapshots of a trajectory; None where users stand still
    paths: bool  # Whether the paths themselves are stored
    most: bool = False  # Whether these are upper bounds, from a recipe, instead of a dataset's own


def sizes_of(store: str) -> Sizes:
    """Count users with a path in a published dataset."""
    from wavecity.dataset.reader import open_store

    data = open_store(store)
    there = np.arange(data.sizes["user"]) < data["n_users"].values[:, None]
    users = (there & ~data["outage"].values.astype(bool)).sum(1)
    split = data["split"].values.astype(str)
    attributes = attributes_of(data.attrs)
    steps = attributes.get("trajectory", {}).get("steps")
    paths = bool(attributes.get("recipe", {}).get("features", {}).get("paths", True))
    return Sizes(int(users[split == "train"].sum()), users[split == "test"], steps, paths)


def obstacles(tasks: Iterable[str], settings: TrainingSettings, sizes: Sizes) -> dict[str, str]:
    """Tasks that will not be possible, each with the reason, which names the recipe's keys in full."""
    found = {task: obstacle(task, settings, sizes) for task in tasks}
    return {task: why for task, why in found.items() if why}


def obstacle(task: str, settings: TrainingSettings, sizes: Sizes) -> str:
    """Why a task will not be possible; empty where nothing stands in the way."""
    evaluation, users, most = settings.evaluation, sizes.test, sizes.most
    why = wrong_model(task, settings.backbone)
    if settings.backbone == "temporal":
        why = why or too_short(evaluation.prediction, sizes.steps)
    if why := why or too_few_trained(task, sizes.train):
        return why
    if task == "localization":
        config = evaluation.localization
        return too_few_to_label(users, config.users, config.labels, config.test_share, "localization.labels", most)
    if task == "cross-localization":
        other = evaluation.cross_scene
        return too_few_to_label(users, other.users, other.labels, TESTED, "cross_scene.labels", most)
    if task == "mu-mimo":
        mu = evaluation.mu_mimo
        why = too_few_for_ratios(mu.ratios, min(sizes.train, mu.users), "mu_mimo.ratios")
        return why or too_few_for_clusters(users, mu.cluster, most)
    if task == "su-mimo":
        su = evaluation.su_mimo
        if not sizes.paths:
            return "features.paths is false: several receive antennas are derived from the paths; set it to true"
        return too_few_for_ratios(su.ratios, min(sizes.train, su.users), "su_mimo.ratios")
    return ""


def wrong_model(task: str, backbone: str) -> str:
    """Say which model a task needs, if it is not this one."""
    if task in TASKS_OF[backbone]:
        return ""
    needed = next(name for name, tasks in TASKS_OF.items() if task in tasks)
    return f"{task} needs a {needed} model (training.backbone), this is a {backbone} one; choose {', '.join(TASKS_OF[backbone])}"


def room_of(users: NDArray[np.int64], limit: int, tested: float) -> NDArray[np.int64]:
    """Users of each scene that may be labelled: those taken of it, without those that are tested on."""
    taken = np.minimum(users, limit)
    return np.asarray(taken - np.maximum(np.round(tested * taken).astype(np.int64), 1))


def too_few_to_label(
    users: NDArray[np.int64], limit: int, labels: Sequence[int], tested: float, key: str, most: bool = False
) -> str:
    """Say that no scene has users enough for the smallest number of labels, if so."""
    room, fewest = int(room_of(users, limit, tested).max(initial=0)), min(labels)
    if fewest <= room:
        return ""
    return (
        f"{SECTION}.{key} asks for {fewest} labelled users of a scene at least, but {_largest(users, most)}, {max(room, 0)} of "
        "them not tested on; ask for fewer labels or build more users a scene (users.test)"
    )


def too_few_for_ratios(ratios: Sequence[float], train: int, key: str) -> str:
    """Say that the training users are too few for the largest share of labels, if so."""
    labels = round(max(ratios) * train)
    if labels >= FEWEST_LABELS:
        return ""
    return (
        f"{SECTION}.{key}: the largest, {max(ratios):g}, gives {labels} labels of {train} training users with a path, "
        f"{FEWEST_LABELS} are needed; build more scenes (area.scenes) or users (users.maximum)"
    )


def too_few_for_clusters(users: NDArray[np.int64], size: int, most: bool = False) -> str:
    """Say that no scene has users enough for a cluster, if so."""
    if users.max(initial=0) >= size:
        return ""
    return (
        f"{SECTION}.mu_mimo.cluster is {size}, but {_largest(users, most)}; lower it or build more users a scene "
        "(users.test)"
    )


def too_few_trained(task: str, train: int) -> str:
    """Say that a task which trains models has too few users to do so, if so."""
    if train >= FEWEST_TRAINED.get(task, 0):
        return ""
    return (
        f"{task} needs {FEWEST_TRAINED[task]} training users with a path at least, there are {train}; build more scenes "
        "(area.scenes) or users (users.maximum)"
    )


def too_short(settings: PredictionSettings, steps: int | None) -> str:
    """Say that trajectories are shorter than a window, if so; or that there are none."""
    if steps is None:
        return "users stand still, mobility is null; the temporal model needs trajectories, e.g. recipe temporal"
    past, horizon = settings.past, settings.horizons[-1]
    if steps >= (needed := past + horizon):
        return ""
    return (
        f"trajectories have {steps} snapshots, but {SECTION}.prediction.past {past} and the longest of "
        f"{SECTION}.prediction.horizons, {horizon}, need {needed}; set fewer, or build the dataset with mobility.steps {needed}"
    )


def _largest(users: NDArray[np.int64], most: bool) -> str:
    count = int(users.max(initial=0))
    return (
        f"a test scene has {count} users at most" if most else f"the largest test scene has {count} users with a path"
    )
