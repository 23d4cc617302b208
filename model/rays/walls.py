"""Walls of a scene as segments in plan view, for rays that are followed through it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

# Walls of a block.
BLOCK = 8


@dataclass(frozen=True)
class Blocks:
    """Neighbouring walls in N blocks of `BLOCK`, so that most need not be looked at.

    Attributes
    ----------
    wall : int64 (N, BLOCK)
        Which walls; the last block is filled up with its last.
    start_x, start_y, along_x, along_y, base, top : float64 (N, BLOCK)
        Theirs: where they start, how they run, m.
    centre : float64 (N, 2)
    radius, highest : float64 (N,)
        Of a circle around a block in plan view, and its highest top, m.
    """

    wall: Tensor
    start_x: Tensor
    start_y: Tensor
    along_x: Tensor
    along_y: Tensor
    base: Tensor
    top: Tensor
    centre: Tensor
    radius: Tensor
    highest: Tensor


@dataclass(frozen=True)
class Walls:
    """W walls; seen from outside a building runs from right to left, so that its outward normal is on the right.

    Attributes
    ----------
    start, end : float64 (W, 2)
        In plan view relative to the base station, m.
    base, top : float64 (W,)
        Above the ground, m.
    previous : int64 (W,)
        The wall before it on its ring: they meet at its start.

    Examples
    --------
    >>> square = [[0, 0], [0, 10], [10, 10], [10, 0], [0, 0]]
    >>> walls = Walls.of_rings([(square, True)], [0.0], [12.0])
    >>> walls.start.shape
    torch.Size([4, 2])
    """

    start: Tensor
    end: Tensor
    base: Tensor
    top: Tensor
    previous: Tensor

    @classmethod
    def of_rings(cls, rings: Iterable[tuple[ArrayLike, bool]], base: ArrayLike, top: ArrayLike) -> "Walls":
        """Walls along closed rings.

        Parameters
        ----------
        rings : iterable of (array-like (n, 2), bool)
            Corners with the first repeated at the end, and whether it is an outline (True) or a courtyard (False).
        base, top : array-like (R,)
            Of each ring, m.
        """
        starts, ends, before, counts = [], [], [], []
        for corners, outline in rings:
            points = np.asarray(corners, dtype=np.float64)
            if (_area(points) > 0) != outline:  # outlines run anticlockwise: outside is on the right
                points = points[::-1]
            longer = np.any(points[1:] != points[:-1], axis=1)
            starts.append(points[:-1][longer])
            ends.append(points[1:][longer])
            counts.append(int(longer.sum()))
            before.append(sum(counts[:-1]) + np.roll(np.arange(counts[-1]), 1))
        if not sum(counts):  # one wall that no ray meets: the nearest of none would be a case of its own everywhere
            away = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
            return cls(
                away, 2 * away, away[:, 1] * torch.inf, away[:, 1] * -torch.inf, torch.zeros(1, dtype=torch.int64)
            )
        low, high = (torch.from_numpy(np.repeat(np.asarray(edge, dtype=np.float64), counts)) for edge in (base, top))
        start, end, previous = (torch.from_numpy(np.concatenate(parts)) for parts in (starts, ends, before))
        return cls(start, end, low, high, previous)

    @property
    def normal(self) -> Tensor:
        """Outward unit normals, float64 (W, 2)."""
        along = self.end - self.start
        return torch.stack((along[:, 1], -along[:, 0]), 1) / along.norm(dim=1, keepdim=True)

    @cached_property
    def blocks(self) -> Blocks:
        """The walls in blocks."""
        middle = (self.start + self.end) / 2
        order = _along_curve(middle)
        more = -len(order) % BLOCK
        wall = torch.cat((order, order[-1:].expand(more))).view(-1, BLOCK)
        ends = torch.cat((self.start[wall], self.end[wall]), 1)  # (N, 2 BLOCK, 2)
        centre = (ends.amin(1) + ends.amax(1)) / 2
        along = self.end - self.start
        start_x, start_y, along_x, along_y, base, top = (
            part[wall].contiguous() for part in (*self.start.T, *along.T, self.base, self.top)
        )
        return Blocks(
            wall=wall,
            start_x=start_x,
            start_y=start_y,
            along_x=along_x,
            along_y=along_y,
            base=base,
            top=top,
            centre=centre,
            radius=(ends - centre[:, None]).norm(dim=2).amax(1),
            highest=top.amax(1),
        )

    def to(self, device: torch.device) -> "Walls":
        """The same walls on another device."""
        if self.start.device == device:
            return self  # with its blocks
        return Walls(*(part.to(device) for part in (self.start, self.end, self.base, self.top, self.previous)))


def _along_curve(points: Tensor) -> Tensor:
    """Order of points (N, 2) along Morton's curve: neighbours in it are neighbours in the plane."""
    low, high = points.amin(0), points.amax(0)
    cell = ((points - low) / (high - low).clamp_min(1e-9) * 1023).long()  # (N, 2), ten bits each
    place = sum(((cell >> bit) & 1) << (2 * bit + torch.arange(2, device=points.device)) for bit in range(10))
    return torch.as_tensor(place).sum(1).argsort(stable=True)


def _area(points: NDArray[np.float64]) -> float:
    """Signed area of a closed ring, positive if it runs anticlockwise."""
    x, y = points[:, 0], points[:, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)
