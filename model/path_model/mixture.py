"""Where a user is, as a mixture: density, samples, the region that holds a share of it, and its best guess."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Samples from which a region's threshold is taken.
SAMPLES = 400
# Two components closer than this support each other in the best guess, m.
CLOSE = 1.0


class Mixture(NamedTuple):
    """C components for each of B users, with the density exp(-r / scale) / (2 pi scale^2) at a distance r.

    Examples
    --------
    >>> one = Mixture(torch.zeros(1, 1), torch.zeros(1, 1, 2), torch.zeros(1, 1))
    >>> round(one.log_density(torch.zeros(1, 1, 2)).exp().item(), 3)  # 1 / (2 pi)
    0.159
    """

    log_weight: Tensor  # (B, C), of sum 1
    centre: Tensor  # (B, C, 2), m
    log_scale: Tensor  # (B, C), of m

    def log_density(self, points: Tensor) -> Tensor:
        """Logarithm of the density at points (B, P, 2), (B, P)."""
        away = _distance(points[:, :, None], self.centre[:, None])  # (B, P, C)
        log_scale = self.log_scale[:, None]
        each = -away * (-log_scale).exp() - 2 * log_scale - math.log(2 * math.pi)
        return (self.log_weight[:, None] + each).logsumexp(-1)

    def sample(self, count: int, rng: np.random.Generator) -> Tensor:
        """Points (B, count, 2)."""
        batch, parts = self.log_weight.shape
        uniform = torch.from_numpy(rng.random((batch, count))).to(self.log_weight)
        chosen = torch.searchsorted(self.log_weight.exp().cumsum(1), uniform).clamp_max(parts - 1)
        # Radii of this density are gamma distributed with shape 2.
        radius = torch.from_numpy(rng.gamma(2.0, 1.0, (batch, count))).to(self.centre)
        angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, (batch, count))).to(self.centre)
        radius = radius * self.log_scale.gather(1, chosen).exp()
        offset = torch.stack((angle.cos(), angle.sin()), -1) * radius[..., None]
        return self.centre.gather(1, chosen[..., None].expand(-1, -1, 2)) + offset

    def edge(self, share: float, rng: np.random.Generator) -> Tensor:
        """Logarithm of the density at the edge of the smallest region that holds a share of the mixture, (B,)."""
        return self.log_density(self.sample(SAMPLES, rng)).quantile(1 - share, dim=1)

    def holds(self, points: Tensor, share: float, rng: np.random.Generator) -> Tensor:
        """Whether points (B, 2) lie in the smallest region that holds a share of the mixture, bool (B,)."""
        return self.log_density(points[:, None])[:, 0] >= self.edge(share, rng)

    def best(self) -> Tensor:
        """The component's centre (B, 2) around which most of the mixture lies close."""
        away = _distance(self.centre[:, :, None], self.centre[:, None])
        near = torch.exp(-away / CLOSE) * (CLOSE / (CLOSE + self.log_scale.exp()))[:, None]
        index = (near * self.log_weight.exp()[:, None]).sum(-1).argmax(1)
        return self.centre[torch.arange(len(index), device=index.device), index]

    def spread(self) -> Tensor:
        """How unsure the mixture is of its best guess, (B,) in m: the mean distance of its components, plus their mean scale."""
        away = (self.centre - self.best()[:, None]).norm(dim=-1)
        return (self.log_weight.exp() * (away + self.log_scale.exp())).sum(1)


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Between points (..., 2), with a slope everywhere."""
    return ((one - other).square().sum(-1) + 1e-6).sqrt()
