"""What beams without a label are worth to users who are served together, and whether stated regions hold what they state."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from wavecity.model.path_model.mixture import Mixture
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, Facts, Record
from wavecity.model.settings.training import MuMimoSettings
from wavecity.model.tasks.beams.link import best_beams
from wavecity.model.tasks.beams.mu_precoding import mu_sum_rate
from wavecity.model.tasks.beams.receivers import link_of

# Stated shares of the mixture for which the share of users within the region is looked up.
SHARES = (0.5, 0.8, 0.9, 0.95)
# Streams of random numbers.
CLUSTERS, REGIONS = 40, 32


def clusters(scene: Tensor, size: int, seed: int) -> Tensor:
    """Users int64 (C * size,) of clusters, one after the other; those of a cluster stand in one scene, at random.

    Parameters
    ----------
    scene : int64 (N,)
        Of each user.
    size : int
        Users of a cluster; those that are left over in a scene are in none.

    Examples
    --------
    >>> clusters(torch.tensor([0, 0, 0, 1, 1]), 2, seed=0).sort().values[-2:].tolist()
    [3, 4]
    """
    found = [torch.zeros(0, dtype=torch.int64)]
    for row in scene.unique().tolist():
        users = (scene == row).nonzero()[:, 0]
        order = torch.from_numpy(np.random.default_rng([seed, CLUSTERS, row]).permutation(len(users)))
        found.append(users[order[: len(users) // size * size]])
    return torch.cat(found)


def sum_rates(
    csi: Tensor, scene: Tensor, scores: Mapping[Method, Tensor], where: Condition, config: MuMimoSettings, seed: int
) -> list[Record]:
    """Sum-rates of clusters whose users are served with the beam of the highest score, and with the best one.

    Parameters
    ----------
    csi : complex64 (N, x, y)
        True channels, sqrt(power gain).
    scene : int64 (N,)
    scores : dict of float (N, beams)
        By method.
    where : Condition
        Of the records of `scores`.

    Returns
    -------
    list of Record
        None if no scene has users enough for a cluster.
    """
    users = clusters(scene, config.cluster, seed)
    if not len(users):
        return []
    channels, link = csi[users].unflatten(0, (-1, config.cluster)), link_of(config.link)
    beams = {method: score[users].argmax(1) for method, score in scores.items()}
    beams[Method.EXHAUSTIVE_SEARCH] = best_beams(csi[users])
    records = []
    for method, chosen in beams.items():
        rate = float(mu_sum_rate(channels, chosen.view(-1, config.cluster), link).mean())
        records.append(Record(Metric.MU_RATE, method, rate, seed, len(channels), condition=where))
    return records


def regions(location: Mixture, position: Tensor, shares: Sequence[float], seed: int) -> dict[float, Tensor]:
    """By stated share, whether positions (N, 2) are in the smallest region that holds it of a mixture, bool (N,) each."""
    return {share: location.holds(position, share, region_rng(share, seed)) for share in sorted(set(shares))}


def region_rng(share: float, seed: int) -> np.random.Generator:
    """Random numbers of the region that holds a share of a mixture; always the same ones."""
    return np.random.default_rng([seed, REGIONS, int(1000 * share)])


def calibration(location: Mixture, position: Tensor, groups: Mapping[str, Tensor], seed: int) -> Facts:
    """How far a mixture's confidence can be believed.

    Parameters
    ----------
    location : Mixture
        Of N users.
    position : float32 (N, 2)
        True ones, m.
    groups : dict of bool (N,)
        Groups of users by name; what is found is given for each that is not empty.

    Returns
    -------
    dict
        `users_within_stated_regions`: by group and stated share, both in %, the share within the smallest region that holds
        it. `median_error_by_confidence`: by group, of the surer half and of the least sure fifth, m, by the density where the
        model locates them.
    """
    best = location.best()
    error = (best - position).norm(dim=1)
    sure = location.log_density(best[:, None])[:, 0]
    held = regions(location, position, SHARES, seed)
    within: dict[str, dict[str, float]] = {}
    medians: dict[str, dict[str, float]] = {}
    for name, mine in groups.items():
        count = int(mine.sum())
        if not count:
            continue
        within[name] = {
            f"{100 * share:g}": round(100 * float(inside[mine].float().mean()), 1) for share, inside in held.items()
        }
        by_confidence = error[mine][sure[mine].argsort(descending=True, stable=True)]
        half, fifth = by_confidence[: (count + 1) // 2], by_confidence[-max(count // 5, 1) :]
        medians[name] = {
            "surer half": round(float(half.median()), 2),
            "least sure fifth": round(float(fifth.median()), 2),
        }
    return {"users_within_stated_regions": within, "median_error_by_confidence": medians}
