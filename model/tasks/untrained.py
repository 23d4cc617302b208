"""The strongest methods that know nothing of other users: sparse Bayesian learning, and the physics localiser."""

import torch
from torch import Tensor

from wavecity.dataset import InputError
from wavecity.model.data.users import Users, WirelessData, dataset_version
from wavecity.model.learning.task_model import TaskModel
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.rays.locate import locate
from wavecity.model.rays.surroundings import surroundings

# Fact of a task that says why the physics localiser was left out.
LEFT_OUT = "not possible: physics localiser"


def sparse_channels(predictor: TaskModel, csi: Tensor, shown: Tensor, noise: Tensor | None = None) -> Tensor | None:
    """Channels complex64 (N, x, y) by `sparse_bayesian`; None where so many antennas are `shown` that it takes too long."""
    return None if shown.sum() > predictor.sparse_antennas else sparse_bayesian(csi, shown, noise)


def physics_places(
    data: WirelessData, users: Users, shown: Tensor, noise: Tensor | float, most: int
) -> tuple[Tensor | None, str]:
    """Where the physics localiser puts users, float32 (N, 2); or None, and in a line why it cannot be run.

    Parameters
    ----------
    data : WirelessData
        Its name is that of a store with the buildings, see `surroundings`.
    users : Users
        With their noisy channels, of any scenes.
    shown : bool (x, y)
        Antennas that are seen.
    noise : float or (N,)
        Mean power of the noise of an entry.
    most : int
        Users of a scene; with more it is not run.

    Returns
    -------
    places : float32 (N, 2) or None
        Relative to the base station, m; the middle of the tile where no wave comes down.
    why : str
    """
    counts = torch.bincount(users.scene)
    if counts.max() > most:
        return (
            None,
            f"{int(counts.max())} tested users of a scene are more than training.evaluation.physics_users {most}",
        )
    levels = torch.as_tensor(noise, dtype=torch.float64).expand(len(users))
    places = torch.empty(len(users), 2)
    try:
        if dataset_version(data.name) != data.version:
            raise InputError(f"{data.name}: another version was published since it was opened; evaluate again")
        for row in counts.nonzero()[:, 0].tolist():
            here = (users.scene == row).nonzero()[:, 0]
            scene = surroundings(data.name, row)
            west, south, east, north = scene.box
            middle = torch.tensor([(west + east) / 2, (south + north) / 2], dtype=torch.float64)
            found = locate(users.csi[here], shown, scene, levels[here]).position
            places[here] = torch.where(found.isnan(), middle, found).float()
    except InputError as error:
        return None, str(error)
    return places, ""
