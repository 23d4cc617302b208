"""Which tokens a token of the temporal model attends to: a neighbourhood in angle, delay and time.

A path drifts by few bins in a few snapshots. So token (t, i, j) attends to (t + dt, i + di, j + dj): in its own snapshot
to all |di|, |dj| <= reach, in the others within a drift of min(reach, |dt|); angles are circular, delay and time end at
the edges of the grid.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Group:
    """Offsets to the same snapshot: `angles` successive ones from di, times `delays` from dj; their `numbers`."""

    dt: int
    di: int
    angles: int
    dj: int
    delays: int
    numbers: slice


@dataclass(frozen=True)
class Neighbourhood:
    """Where a token looks."""

    grid: Grid  # (T, A, D); snapshots, tokens along angle and along delay
    offsets: tuple[tuple[int, int, int], ...]  # K of them, in ascending order

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def tokens(self) -> int:
        """N = T * A * D."""
        return math.prod(self.grid)

    @property
    def top_k(self) -> int:
        """Neighbours that a head keeps: min(32, max(8, 0.2 K)), with the K of a token far from all edges."""
        return min(32, max(8, int(0.2 * len(self))))

    @cached_property
    def groups(self) -> tuple["Group", ...]:
        """Offsets of the same dt: within it, all pairs of some successive di and dj."""
        groups = []
        for dt in dict.fromkeys(offset[0] for offset in self.offsets):
            numbers = [number for number, offset in enumerate(self.offsets) if offset[0] == dt]
            _, di, dj = self.offsets[numbers[0]]
            _, last_di, last_dj = self.offsets[numbers[-1]]
            groups.append(Group(dt, di, last_di - di + 1, dj, last_dj - dj + 1, slice(numbers[0], numbers[-1] + 1)))
        return tuple(groups)

    @cached_property
    def lists(self) -> NDArray[np.int64]:
        """Neighbours of every token, int64 (N, K): flat indices, -1 where an offset leaves the grid."""
        snapshots, angles, delays = self.grid
        t, i, j = (axis.reshape(-1, 1) for axis in np.indices(self.grid))
        dt, di, dj = np.asarray(self.offsets).T
        t, i, j = t + dt, (i + di) % angles, j + dj
        inside = (t >= 0) & (t < snapshots) & (j >= 0) & (j < delays)
        return np.where(inside, (t * angles + i) * delays + j, -1)

    def sizes(self) -> NDArray[np.int64]:
        """Neighbours of every token, itself included, int64 (N,)."""
        return (self.lists >= 0).sum(1)

    def mask(self) -> Tensor:
        """Who attends to whom, bool (N, N): for dense attention."""
        mask = torch.zeros(self.tokens, self.tokens + 1, dtype=torch.bool)
        # -1 is the last column, which is cut off.
        return mask.scatter(1, torch.from_numpy(self.lists) % (self.tokens + 1), value=True)[:, :-1]


@lru_cache(maxsize=64)
def neighbourhood(grid: Grid, reach: int = 2, past: int = 4, future: int = 3, causal: bool = False) -> Neighbourhood:
    """Offsets within `reach` in the same snapshot, and within min(reach, |dt|) for dt in -past ... future.

    They do not depend on the number of snapshots. A grid of few angles has each neighbour once, though it is met on
    both ways around. `causal` leaves out later snapshots.
    """
    _, angles, delays = grid
    offsets = []
    for dt in range(-past, (0 if causal else future) + 1):
        drift = reach if dt == 0 else min(reach, abs(dt))
        low, high = max(-drift, -((angles - 1) // 2)), min(drift, angles // 2)
        narrow = min(drift, delays - 1)
        offsets += [(dt, di, dj) for di in range(low, high + 1) for dj in range(-narrow, narrow + 1)]
    return Neighbourhood(grid, tuple(offsets))
