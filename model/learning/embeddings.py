"""Pictures and one number of how features group users: t-SNE, k-means and silhouettes (Figures 5a, 6a and 6b)."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from torch import Tensor

from wavecity.model.learning.heads import Standardiser
from wavecity.model.results.records import Arrays, Facts

PERPLEXITY = 30.0
# Below this a neighbourhood is not one.
FEWEST = 5
# Groups of neighbours that t-SNE is coloured by, and users shown [ours].
GROUPS, EMBEDDED = 8, 1000
Values = Tensor | NDArray[np.floating]


def clusters(points: Values, count: int, seed: int) -> NDArray[np.int64]:
    """Group points (N, c) by k-means, int64 (N,) from 0: into `count` groups, fewer of fewer distinct points."""
    rows = _matrix(points)
    distinct = len(np.unique(rows, axis=0))
    means = KMeans(min(count, distinct), n_init=10, random_state=_state(seed))
    return np.asarray(means.fit_predict(rows), np.int64)


def silhouette(features: Values, labels: Values | NDArray[np.int64]) -> float:
    """Mean silhouette of groups, int (N,), in the space of features (N, F) (Rousseeuw, 1987).

    1 where users of a group are much nearer to each other than to the next group, 0 where groups overlap, negative
    where others are nearer; not-a-number with fewer than two groups, or with no user who shares one. Distances are
    Euclidean: standardise the features before.
    """
    rows, groups = _matrix(features), np.asarray(labels)
    if not 2 <= len(np.unique(groups)) < len(rows):
        return float("nan")
    return float(silhouette_score(rows, groups))


def picture(
    features: dict[str, Tensor], group: Values | NDArray[np.int64], seed: int
) -> tuple[dict[str, float | None], dict[str, NDArray[np.float32]]]:
    """Show how kinds of features (N, ...) group the same users, int (N,): each standardised, then t-SNE and silhouette.

    Facts are `silhouette_<name>`, None of groups that have none; arrays are `tsne_<name>`, float32 (N, 2), none of
    fewer users than t-SNE takes, whose other results stand.
    """
    facts: dict[str, float | None] = {}
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, values in features.items():
        rows = values.flatten(1)
        rows = Standardiser.of(rows)(rows)
        score = silhouette(rows, group)
        facts[f"silhouette_{name}"] = score if np.isfinite(score) else None
        if len(rows) >= FEWEST:
            # A third of the rows is the most that the library's neighbour search can use.
            perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
            tsne = TSNE(perplexity=perplexity, init="pca", random_state=_state(seed))
            arrays[f"tsne_{name}"] = np.asarray(tsne.fit_transform(_matrix(rows)), np.float32)
    return facts, arrays


def grouped(points: Tensor, raw: Tensor, physc: Tensor, seed: int) -> tuple[Facts, Arrays]:
    """Facts and arrays of how raw CSI and [PHYSC] group users whose points (N, c) are neighbours."""
    group = clusters(points, GROUPS, seed)
    facts, arrays = picture({"raw": raw, "physc": physc}, group, seed)
    return {"tsne_users": len(points)} | facts, {"tsne_cluster": group} | arrays


def _matrix(values: Values) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    return array.reshape(len(array), -1)


def _state(seed: int) -> int:
    # scikit-learn takes 32 bits.
    return seed % 2**32
