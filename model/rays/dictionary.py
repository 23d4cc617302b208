"""Atoms of plane waves over the visible antennas of a panel, alone and with their bounce off the ground."""

import math

import torch
from torch import Tensor

from wavecity.model.rays.radio import Radio

OVERSAMPLING = 4
# Grids of the direction cosine towards the ground in turns of the bounce's phase, one of which is 1/317 at 28.5 GHz, from
# 15 m to 1.5 m: steps of a first one and of a fine one, and how far the fine one reaches; and the least and greatest steps.
SCAN_STEP, FINE_STEP, TURNS = 0.16, 0.016, 4.0
FINEST, COARSEST = 0.0001, 0.0005
EAST_REACH = 0.01
# Directions that are kept of a wave whose bounce may have turned once more or less.
MODES = 8
# An atom that lies in the span of the other waves explains nothing new: least share of its energy that must be outside.
SEPARATE = 0.02
# Least and greatest direction cosine towards the ground. Waves that rise come down over a roof's edge; one with a bounce off
# the ground falls, and is down after 675 m at most.
RISING, FLATTEST, STEEPEST = -0.7, 0.02, 0.999


class Dictionary:
    """Atoms over the visible antennas of one panel, and where a residual has most of one."""

    def __init__(self, shown: Tensor, radio: Radio) -> None:
        self.radio = radio
        self.shown = shown
        self.columns, self.rows = shown.shape
        device = shown.device
        self.turn = 2 * math.pi * radio.spacing
        # The way by the ground is longer by 2 h h' / distance.
        turn = radio.wavelength * radio.drop / (2 * radio.bs_height * radio.user_height)
        self.scan_step = min(max(SCAN_STEP * turn, FINEST), COARSEST)
        self.fine_step = min(FINE_STEP * turn, COARSEST / 10)
        self.turns = max(TURNS * turn, 40 * self.fine_step)
        self.x_axis = torch.arange(self.columns, dtype=torch.float64, device=device) - (self.columns - 1) / 2
        self.y_axis = torch.arange(self.rows, dtype=torch.float64, device=device) - (self.rows - 1) / 2
        index = shown.nonzero(as_tuple=True)
        self.column, self.row = index
        self.x, self.y = self.x_axis[self.column], self.y_axis[self.row]
        along_x = torch.fft.fftfreq(OVERSAMPLING * self.columns, dtype=torch.float64, device=device) / radio.spacing
        along_y = torch.fft.fftfreq(OVERSAMPLING * self.rows, dtype=torch.float64, device=device) / radio.spacing
        self.bins = torch.stack(torch.meshgrid(along_x, along_y, indexing="ij"), -1).flatten(0, 1)
        self.possible = (self.bins[:, 1] > RISING) & (self.bins.square().sum(-1) < 1)

    def _wave(self, east: Tensor, down: Tensor) -> Tensor:
        """Plane waves (B, K) on the visible antennas, (B, M, K)."""
        phases = [
            self.turn * axis[:, None] * cosine[:, None] for axis, cosine in ((self.x_axis, east), (self.y_axis, down))
        ]
        along_x, along_y = (torch.polar(torch.ones_like(phase), phase) for phase in phases)
        return along_x[:, self.column] * along_y[:, self.row]

    def pairs(self, direction: Tensor, bounced: Tensor) -> Tensor:
        """Atoms (B, M, K) of directions (B, K, 2)."""
        east, down = direction[..., 0], direction[..., 1]
        ratio, shrunk, steeper = self.radio.ground_bounce(down.clamp_min(FLATTEST))
        return self._wave(east, down) + self._wave(east * shrunk, steeper) * (ratio * bounced)[:, None]

    def atoms(self, direction: Tensor, bounced: Tensor) -> tuple[Tensor, Tensor]:
        """Atoms (B, M, K), and their derivatives by both direction cosines (B, M, K, 2)."""
        east, down = direction[..., 0], direction[..., 1]
        step, falling = 1e-6, down.clamp_min(FLATTEST)
        ratio, shrunk, steeper = self.radio.ground_bounce(falling)
        after, before = self.radio.ground_bounce(falling + step), self.radio.ground_bounce(falling - step)
        d_ratio, d_shrunk, d_steeper = ((a - b) / (2 * step) for a, b in zip(after, before, strict=True))
        wave = self._wave(east, down)
        other = self._wave(east * shrunk, steeper) * bounced[:, None]
        ratio = ratio[:, None]
        x, y = self.x[:, None], self.y[:, None]
        by_east = 1j * self.turn * x * (wave + ratio * shrunk[:, None] * other)
        phase = x * (east * d_shrunk)[:, None] + y * d_steeper[:, None]
        by_down = 1j * self.turn * y * wave + (d_ratio[:, None] + 1j * self.turn * phase * ratio) * other
        return wave + ratio * other, torch.stack((by_east, by_down), -1)

    def grid(self, visible: Tensor) -> Tensor:
        """Entries of the visible antennas (B, M) in the panel, 0 elsewhere, (B, x, y)."""
        grid = torch.zeros(len(visible), self.columns, self.rows, dtype=visible.dtype, device=visible.device)
        grid[:, self.shown] = visible
        return grid

    def peak(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Direction of the greatest bin of a residual's spectrum (B, 2), and its power |sum|^2 (B,)."""
        size = (OVERSAMPLING * self.columns, OVERSAMPLING * self.rows)
        power = power_of(torch.fft.fft2(self.grid(residual).to(torch.complex64), s=size)).flatten(1)
        power, index = torch.where(self.possible, power, -1.0).max(1)
        return self.bins[index], power

    def scan(self, residual: Tensor, others: Tensor, around: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        """Best direction within `reach` of `down`, and whether with a bounce.

        Parameters
        ----------
        residual : complex (B, M)
            Without what the other waves explain.
        others : complex (B, M, P)
            Orthonormal basis of the other waves.
        around : float64 (B, 2)
        reach : float

        Returns
        -------
        direction : float64 (B, 2)
        bounced : bool (B,)
            The atom that explains most of the residual together with the other waves.
        """
        panels = torch.stack([self.grid(part) for part in (residual, *others.unbind(2))], 1)  # (B, 1 + P, x, y)
        east, down = around[:, :1], around[:, 1:]
        best, bounced = self._best(panels, east, down + _steps(reach, self.scan_step, down))
        # The bins of the spectrum are coarse along x as well.
        east = best[:, :1] + torch.linspace(-1, 1, 9, dtype=best.dtype, device=best.device) * EAST_REACH
        alone, pair = self._scores(panels, east, best[:, 1:].expand_as(east))
        east = east.gather(1, torch.where(bounced[:, None], pair, alone).argmax(1, keepdim=True))
        # Elevations a whole turn of the bounce's phase apart differ by parts in a thousand of the score only.
        return self._best(panels, east, best[:, 1:] + _steps(self.turns, self.fine_step, down))

    def _best(self, panels: Tensor, east: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """Of candidates with one east (B, 1) and several down (B, C): direction (B, 2) and bounced (B,) of the best."""
        down = down.clamp(RISING, STEEPEST)
        alone, pair = self._scores(panels, east, down)
        scores = (alone, torch.where(down > FLATTEST, pair, -1.0))
        index = torch.cat(scores, 1).argmax(1)
        chosen = down.gather(1, (index % down.shape[1])[:, None])
        return torch.cat((east, chosen), 1), index >= down.shape[1]

    def modes(
        self, residual: Tensor, others: Tensor, around: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Local maxima of the likelihood over `down` around a direction (B, 2).

        Parameters
        ----------
        residual, others
            As for `scan`.
        variance : float64 (B,)
            Of the noise of an entry.

        Returns
        -------
        down : float64 (B, A)
        bounced : bool (B, A)
        likelihood : float64 (B, A)
            Logarithm, best first, relative to it; -inf where there are fewer than A.
        """
        panels = torch.stack([self.grid(part) for part in (residual, *others.unbind(2))], 1)
        down = (around[:, 1:] + _steps(self.turns, self.fine_step, around)).clamp(RISING, STEEPEST)
        alone, pair = self._scores(panels, around[:, :1], down)
        score = torch.stack((alone, torch.where(down > FLATTEST, pair, 0.0)), 1).double() / variance[:, None, None]
        inner = score[..., 1:-1]
        peaks = (inner > score[..., :-2]) & (inner >= score[..., 2:])
        best, index = torch.where(peaks, inner, -torch.inf).flatten(1).topk(MODES, dim=1)
        count = inner.shape[-1]
        return down.gather(1, index % count + 1), index >= count, best - best[:, :1]

    def _scores(self, panels: Tensor, east: Tensor, down: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of a residual that atoms without and with a bounce explain, (B, C) each.

        Candidates are down (B, C) and east (B, C) or (B, 1). With one east the bounce's is that of the middle candidate:
        the candidates are close together.
        """
        ratio, shrunk, steeper = self.radio.ground_bounce(down.clamp_min(FLATTEST))
        if east.shape[1] == 1:
            shrunk = shrunk[:, shrunk.shape[1] // 2, None]
        alone = self._correlate(panels, east, down)  # (B, 1 + P, C)
        pair = alone + ratio.conj()[:, None] * self._correlate(panels, east * shrunk, steeper)
        mask = self.shown.to(panels.dtype)[None, None]
        overlap = self._correlate(mask, east * (1 - shrunk), down - steeper)[:, 0]
        count = len(self.x)
        norm = count * (1 + power_of(ratio)) + 2 * (ratio * overlap).real
        return _explained(alone, count), _explained(pair, norm)

    def _correlate(self, panels: Tensor, east: Tensor, down: Tensor) -> Tensor:
        """Inner products of plane waves, east (B, C or 1) and down (B, C), with panels (B, P, x, y), (B, P, C)."""
        along_x = _wave(-self.turn * east[..., None] * self.x_axis)[:, None] @ panels.to(
            torch.complex64
        )  # (B, P, C or 1, y)
        if east.shape[1] > 1:
            return (along_x * _wave(-self.turn * down[..., None] * self.y_axis)[:, None]).sum(-1)
        # Antennas as far above the middle as below it share a cosine and, but for its sign, a sine.
        half = self.rows // 2
        above, below = along_x[:, :, 0, half:], along_x[:, :, 0].flip(-1)[..., half:]
        even, odd = above + below, above - below
        if self.rows % 2:
            even[..., 0] /= 2
        phase = (self.turn * down[:, None] * self.y_axis[half:, None]).float()  # (B, y / 2, C)
        cosine, sine = phase.cos(), phase.sin()
        real = torch.cat((even.real, even.imag), 1) @ cosine
        imaginary = torch.cat((odd.imag, -odd.real), 1) @ sine
        return torch.complex(*(real + imaginary).chunk(2, 1))


def _steps(reach: float, step: float, like: Tensor) -> Tensor:
    count = round(reach / step)
    return torch.arange(-count, count + 1, dtype=like.dtype, device=like.device) * step


def _wave(phase: Tensor) -> Tensor:
    """exp(j phase); single precision is enough for a search."""
    phase = phase.float()
    return torch.complex(phase.cos(), phase.sin())


def power_of(values: Tensor) -> Tensor:
    """|values|^2, without the root of `abs`."""
    return values.real.square() + values.imag.square()


def _explained(products: Tensor, norm: Tensor | int) -> Tensor:
    """Energy along what an atom adds to the other waves, from products (B, 1 + P, C) with residual and basis."""
    new = norm - power_of(products[:, 1:]).sum(1)
    return power_of(products[:, 0]) / torch.maximum(new, SEPARATE * torch.as_tensor(norm, device=new.device))
