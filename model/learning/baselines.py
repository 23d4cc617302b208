"""Strong simple predictors that the model is compared with: no training, or one linear solve; and scores of detection."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

# Directions of the dictionary of plane waves for one bin of the DFT, along either axis.
OVERSAMPLING = 4
# Standard deviation of the neighbours' weights, in patches.
REACH = 1.5


def omp(csi: Tensor, shown: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit of at most `atoms` waves over an oversampled 2-D DFT dictionary of plane waves.

    Of complex (B, x, y) only entries where `shown`, bool (x, y), are read. Returns the whole channel from the waves
    picked, complex64, and their spatial spectrum |F estimate|^2 for beam selection, float32.
    """
    batch, columns, rows = csi.shape
    fine = (OVERSAMPLING * columns, OVERSAMPLING * rows)
    seen = torch.where(shown, csi, torch.zeros((), dtype=csi.dtype)).to(torch.complex64)
    scale = seen.abs().square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-30)
    seen = seen / scale
    x_index, y_index = shown.nonzero(as_tuple=True)
    target = seen[:, x_index, y_index]
    residual = seen
    picked: list[Tensor] = []
    for _ in range(min(atoms, len(x_index))):
        correlation = torch.fft.fft2(residual, s=fine).abs().flatten(1)
        for earlier in picked:
            correlation.scatter_(1, earlier[:, None], 0.0)
        picked.append(correlation.argmax(1))
        waves = _waves(torch.stack(picked, 1), fine, x_index, y_index)
        # A ridge of 1e-4 keeps neighbouring waves, nearly parallel over few antennas, from cancelling each other.
        gram = waves.mH @ waves + 1e-4 * len(x_index) * torch.eye(len(picked))
        weights = torch.linalg.solve(gram, waves.mH @ target[..., None])
        left = target - (waves @ weights)[..., 0]
        residual = torch.zeros_like(seen)
        residual[:, x_index, y_index] = left
    every_x, every_y = torch.ones(columns, rows, dtype=torch.bool).nonzero(as_tuple=True)
    whole = _waves(torch.stack(picked, 1), fine, every_x, every_y)
    estimate = (whole @ weights)[..., 0].view(batch, columns, rows)
    power = torch.fft.fft2(estimate).abs().square()
    return estimate * scale, power * scale.square()


def _waves(picked: Tensor, fine: tuple[int, int], x: Tensor, y: Tensor) -> Tensor:
    """Plane waves of dictionary indices (B, k) at antennas (M,): complex64 (B, M, k)."""
    k_x, k_y = picked // fine[1], picked % fine[1]
    phase = x[None, :, None] * k_x[:, None] / fine[0] + y[None, :, None] * k_y[:, None] / fine[1]
    return torch.polar(torch.ones_like(phase), 2 * np.pi * phase)


class Lmmse:
    """Linear MMSE interpolation with the covariance of the training users (N, x, y), each scaled to unit power.

    For each mask the shrinkage towards the identity is taken that fills in the validation users best: the number of
    users is often below the number of antennas.
    """

    SHRINKAGE = (0.01, 0.05, 0.2, 0.5, 0.8)

    def __init__(self, train: Tensor, validation: Tensor) -> None:
        flat = train.flatten(1).to(torch.complex128)
        flat = flat / flat.abs().square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
        self._covariance = (flat.T @ flat.conj() / len(flat)).to(torch.complex64)
        self._validation = validation

    def __call__(self, csi: Tensor, shown: Tensor) -> Tensor:
        """Fill in the antennas that are not shown, complex (B, x, y) to complex64 (B, x, y)."""
        errors = [
            nmse(self._fill(self._validation, shown, shrinkage), self._validation, ~shown).mean()
            for shrinkage in self.SHRINKAGE
        ]
        return self._fill(csi, shown, self.SHRINKAGE[int(torch.stack(errors).argmin())])

    def _fill(self, csi: Tensor, shown: Tensor, shrinkage: float) -> Tensor:
        identity = torch.eye(len(self._covariance), dtype=torch.complex64)
        covariance = (1 - shrinkage) * self._covariance + shrinkage * identity
        seen, hidden = shown.flatten().nonzero()[:, 0], (~shown).flatten().nonzero()[:, 0]
        weights = torch.linalg.solve(covariance[seen][:, seen], covariance[hidden][:, seen].mH).conj()
        flat = csi.flatten(1)
        scale = flat[:, seen].abs().square().mean(1, keepdim=True).sqrt().clamp_min(1e-30)
        visible = (flat[:, seen] / scale).to(torch.complex64)
        filled = torch.zeros(flat.shape, dtype=torch.complex64)
        filled[:, seen] = visible
        filled[:, hidden] = visible @ weights
        return filled.view(csi.shape) * scale[..., None]


def nmse(estimate: Tensor, csi: Tensor, where: Tensor) -> Tensor:
    """Squared error over energy of channels complex (B, x, y), float64 (B,), over antennas bool (x, y)."""
    truth = csi[:, where].to(torch.complex128)
    error = (estimate[:, where].to(torch.complex128) - truth).abs().square().sum(-1)
    return error / truth.abs().square().sum(-1).clamp_min(1e-300)


def neighbour_mean(occupancy: Tensor, visible: Tensor) -> Tensor:
    """Occupancy of hidden patches as the Gaussian-weighted mean of visible ones, float32 in [0, 1]; (B, R, C) each."""
    edge = max(occupancy.shape[-2:])
    offsets = torch.arange(-edge + 1, edge, dtype=torch.float32)
    weights = torch.exp(-0.5 * (offsets / REACH) ** 2)
    kernel = (weights[:, None] * weights)[None, None]
    known = visible.float().unsqueeze(1)
    total = torch.nn.functional.conv2d(occupancy.float().unsqueeze(1) * known, kernel, padding=edge - 1)
    norm = torch.nn.functional.conv2d(known, kernel, padding=edge - 1)
    return (total / norm.clamp_min(1e-12)).squeeze(1)


def nearest(train: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances (M, k) of queries (M, F) to the k nearest of features (N, F), or to all N, and which these are."""
    k = min(k, len(train))
    if not k or not len(queries):  # which scikit-learn refuses
        return torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.long)
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train.numpy())
    distance, index = search.kneighbors(queries.numpy())
    return torch.from_numpy(distance).to(train.dtype), torch.from_numpy(index)


def inverse_distance_mean(distance: Tensor, labels: Tensor) -> Tensor:
    """Mean of labels (M, k, c), weighted by the inverse of distances (M, k): (M, c)."""
    weight = 1 / distance.clamp_min(1e-6)
    weight = weight / weight.sum(1, keepdim=True)
    return (labels * weight[..., None]).sum(1)


def nearest_neighbours(train: Tensor, labels: Tensor, queries: Tensor, k: int = 5) -> Tensor:
    """Mean of labels (N, c) of the k features (N, F) nearest to queries (M, F), by inverse distance: (M, c)."""
    distance, index = nearest(train, queries, k)
    return inverse_distance_mean(distance, labels[index])


def average_precision(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve; not-a-number where nothing is positive."""
    return float(average_precision_score(positive, scores)) if positive.any() else float("nan")


def best_f1(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Percentile of the scores with the highest F1 score as a threshold, and that score: choose on validation scenes."""
    candidates = np.unique(np.quantile(scores, np.linspace(0, 1, 101)))
    if not positive.any():
        return float(candidates[0]), 0.0
    precision, recall, thresholds = precision_recall_curve(positive, scores)
    at = np.searchsorted(thresholds, candidates)
    values = 2 * precision[at] * recall[at] / np.maximum(precision[at] + recall[at], 1e-300)
    best = int(np.argmax(values))
    return float(candidates[best]), float(values[best])


def f1(predicted: NDArray[np.bool_], positive: NDArray[np.bool_]) -> float:
    """F1 score, 0 when nothing is found."""
    return float(f1_score(positive, predicted, zero_division=0.0))


def decibel(ratio: float) -> float:
    """10 log10 of a power ratio."""
    return 10 * math.log10(max(ratio, 1e-300))
