"""Plane waves in a window of snapshots: recovered from time, antennas and delays at once, and continued by their Doppler.

What `tracked_waves.py` compares with other predictors. Windows are those of `wavecity.model.data.windows`, in bins of angle and
delay.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.temporal.autoregression import LOUDEST

# Of recipe `temporal`.
SUBCARRIERS = 64
# At most so many waves of a window.
WAVES = 12
# Steps of Levenberg-Marquardt after each new wave and at the end.
STEPS, LAST_STEPS = 4, 15
# Columns of the Jacobian: the atom, and its derivatives by Doppler, direction and delay, as derivatives of the factors along
# time, antennas and delay.
TIME, SPACE, DELAY = (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)
# Largest step in a parameter, in bins.
LONGEST = 0.25
CHUNK = 128


@dataclass(frozen=True)
class Tracked:
    """Waves of B windows in the order in which they were found, and their uncertainty.

    Attributes
    ----------
    turns : float64 (B, K, 3)
        Cycles per snapshot (Doppler), per antenna, and per subcarrier (from the window's first bin of delay).
    gain : complex128 (B, K)
        In the middle of the snapshots seen, of the array and of the band; 0 where there is no wave.
    covariance : float64 (B, K, 3, 3)
        Of `turns`, all other parameters unknown: the Cramér-Rao bound at the level of what is unexplained.
    drift : complex128 (B, K)
        Logarithm of the gain in the later half of the snapshots over that in the earlier one: 0 for a steady wave, large where
        one appeared, disappeared, or is two.
    noise : float64 (B,)
        Mean power of what is unexplained in an entry.
    recent : float64 (B,)
        Logarithm of what is unexplained in the last quarter of the snapshots over what would be there on average: large where
        something has just begun or ended.
    """

    turns: Tensor
    gain: Tensor
    covariance: Tensor
    drift: Tensor
    noise: Tensor
    recent: Tensor

    @property
    def found(self) -> Tensor:
        """Which of the K are waves, bool (B, K)."""
        return self.gain != 0


class Atoms:
    """Factors of plane waves over snapshots, antennas and bins of delay, and their derivatives."""

    def __init__(self, sizes: Sequence[int], subcarriers: int) -> None:
        self.sizes = snapshots, antennas, delays = tuple(sizes)
        self.bins = torch.tensor([1 / snapshots, 1 / antennas, 1 / subcarriers], dtype=torch.float64)
        self.seen = torch.arange(snapshots).double() - (snapshots - 1) / 2
        self.antennas = torch.arange(antennas).double() - (antennas - 1) / 2
        self.frequencies = torch.arange(subcarriers).double() - (subcarriers - 1) / 2
        rows, columns = torch.arange(delays).double(), torch.arange(subcarriers).double()
        # The unitary inverse DFT over the subcarriers, cropped (`wavecity.model.data.angle_delay`).
        self.crop = torch.exp(2j * math.pi * rows[:, None] * columns / subcarriers) / math.sqrt(subcarriers)

    def time(self, turns: Tensor, steps: Tensor) -> Tensor:
        """Factor and its derivative, complex (B, 2, K, steps)."""
        wave = torch.exp(2j * math.pi * turns[..., :1] * steps)
        return torch.stack((wave, 2j * math.pi * steps * wave), 1)

    def space(self, turns: Tensor) -> Tensor:
        """Complex (B, 2, K, antennas)."""
        wave = torch.exp(2j * math.pi * turns[..., 1:2] * self.antennas)
        return torch.stack((wave, 2j * math.pi * self.antennas * wave), 1)

    def delay(self, turns: Tensor) -> Tensor:
        """Complex (B, 2, K, delays)."""
        wave = torch.exp(-2j * math.pi * turns[..., 2:3] * self.frequencies)
        return torch.stack((wave, -2j * math.pi * self.frequencies * wave), 1) @ self.crop.T

    def columns(self, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of the four columns of every wave, complex (B, 4, K, size) each."""
        time, space, delay = self.time(turns, self.seen), self.space(turns), self.delay(turns)
        return time[:, TIME], space[:, SPACE], delay[:, DELAY]


def recover(past: Tensor, waves: int = WAVES, subcarriers: int = SUBCARRIERS) -> Tracked:
    """Recover the waves of windows of snapshots, jointly over time, antennas and delay.

    Newtonised orthogonal matching pursuit (Mamandipoor, Ramasamy and Madhow, IEEE Trans. Signal Process. 64, 2016): the peak of
    the residual's three-dimensional spectrum, then steps of Levenberg-Marquardt in all parameters of all waves, with the gains
    projected out. A wave is kept if the Bayesian information criterion is better with it; the level of the noise is not needed.
    Columns are products over the three axes, so all inner products are products of small ones.

    Parameters
    ----------
    past : complex (B, T, angle, delay)
        As `wavecity.model.data.windows.Windows` has it.
    waves : int
        At most so many a window.
    subcarriers : int
        Of the band whose bins of delay these are.

    Examples
    --------
    >>> time, antenna = torch.arange(16.0)[:, None, None], torch.arange(16.0)[:, None]
    >>> csi = torch.exp(2j * math.pi * (0.2 * time + 0.1 * antenna)) * torch.ones(8)
    >>> found = recover(torch.fft.fft(csi, dim=1, norm="ortho")[None], waves=1, subcarriers=8)
    >>> [round(value, 3) for value in found.turns[0, 0, :2].tolist()]
    [0.2, 0.1]
    """
    parts = [_Pursuit(part, waves, subcarriers).run() for part in past.split(CHUNK)]
    return Tracked(*(torch.cat([getattr(part, name) for part in parts]) for name in Tracked.__dataclass_fields__))


class _Pursuit:
    """The pursuit for one chunk of windows."""

    def __init__(self, past: Tensor, waves: int, subcarriers: int) -> None:
        # Back to antennas: there the factor is a wave.
        seen = torch.fft.ifft(past.to(torch.complex128), dim=2, norm="ortho")
        self.scale = seen.abs().square().mean((1, 2, 3)).sqrt().clamp_min(1e-150)
        self.seen = seen / self.scale[:, None, None, None]
        self.atoms = Atoms(past.shape[1:], subcarriers)
        self.count = math.prod(past.shape[1:])
        self.most = waves
        self.turns = torch.zeros(len(past), waves, 3, dtype=torch.float64)
        self.found = torch.zeros(len(past), waves, dtype=torch.bool)

    def run(self) -> Tracked:
        live = torch.arange(len(self.seen))
        live = live[self.seen.abs().square().sum((1, 2, 3)) > 0]
        score = torch.full((len(self.seen),), 2 * self.count * math.log(self.count), dtype=torch.float64)
        for number in range(self.most):
            if not len(live):
                break
            old = self.turns[live]
            self.turns[live, number] = self._peak(live, number)
            self.found[live, number] = True
            left = self._refine(live, number + 1, STEPS).left.clamp_min(1e-14 * self.count)
            # Five real parameters a wave.
            new = 2 * self.count * left.log() + 5 * (number + 1) * math.log(2 * self.count)
            better = new < score[live]
            self.turns[live] = torch.where(better[:, None, None], self.turns[live], old)
            self.found[live, number] = better
            score[live] = torch.where(better, new, score[live])
            live = live[better]
        everywhere = torch.arange(len(self.seen))
        self._refine(everywhere, self.most, LAST_STEPS)
        return self._result(everywhere)

    def _peak(self, rows: Tensor, number: int) -> Tensor:
        """Parameters (R, 3) of the greatest bin of the spectrum of what the waves so far leave."""
        residual = self._residual(rows, number)
        snapshots, antennas, delays = self.atoms.sizes
        grid = torch.arange(-1, 2 * delays).double() / 2 / len(self.atoms.frequencies)
        shapes = self.atoms.delay(grid[:, None].expand(-1, 3)[None])[0, 0]  # (grid, delays)
        shapes = shapes / shapes.norm(dim=1, keepdim=True)
        power = torch.fft.fft2(residual @ shapes.mH, s=(2 * snapshots, 2 * antennas), dim=(1, 2)).abs()
        index = power.flatten(1).argmax(1)
        place, delay = index // len(grid), grid[index % len(grid)]
        doppler, direction = (place // (2 * antennas)) / (2 * snapshots), (place % (2 * antennas)) / (2 * antennas)
        turns = torch.stack((doppler.double(), direction.double(), delay), -1)
        turns[:, :2] -= (turns[:, :2] >= 0.5).double()
        return turns

    def _residual(self, rows: Tensor, number: int) -> Tensor:
        """What the first `number` waves leave, complex (R, T, antennas, delays)."""
        turns = self.turns[rows, :number]
        gain = self._fit(rows, turns, number).gain
        time, space, delay = (part[:, 0] for part in self.atoms.columns(turns))
        return self.seen[rows] - torch.einsum("bk,bkt,bkx,bkd->btxd", gain, time, space, delay)

    def _fit(self, rows: Tensor, turns: Tensor, number: int) -> "_Fit":
        """Gains and what the normal equations need, with the first `number` waves at `turns` (R, number, 3)."""
        found = self.found[rows, :number]
        time, space, delay = self.atoms.columns(turns)
        gram = torch.ones((), dtype=torch.complex128)
        for part in (time, space, delay):
            flat = part.flatten(1, 2)
            gram = gram * (flat.conj() @ flat.mT)  # (R, 4 K, 4 K)
        seen = self.seen[rows]
        along = (
            (time[:, :2].flatten(1, 2).conj() @ seen.flatten(2)).unflatten(1, (2, number)).unflatten(3, seen.shape[2:])
        )
        across = (space.conj()[..., None, :] @ along[:, TIME])[..., 0, :]  # (R, 4, K, delays)
        right = (across * delay.conj()).sum(-1).flatten(1)  # (R, 4 K)
        unit = torch.diag_embed(torch.where(found, 1e-9 * self.count, 1e9 * self.count)).to(gram.dtype)
        inverse = torch.linalg.inv(gram[:, :number, :number] + unit)
        gain = (inverse @ right[:, :number, None])[..., 0] * found
        energy = seen.abs().square().sum((1, 2, 3))
        left = energy - 2 * (gain.conj() * right[:, :number]).sum(1).real
        left = left + (gain.conj()[:, None] @ gram[:, :number, :number] @ gain[..., None])[:, 0, 0].real
        return _Fit(gram, right, inverse, gain, left.clamp_min(1e-16 * self.count))

    def _normal(self, fit: "_Fit", found: Tensor) -> tuple[Tensor, Tensor]:
        """Normal matrix (R, 3 K, 3 K) and slope (R, 3 K) of the parameters, those of a kind together, gains projected out."""
        number = fit.gain.shape[1]
        gain = fit.gain.repeat(1, 3)
        across = fit.gram[:, number:, :number]
        inner = fit.gram[:, number:, number:] - across @ fit.inverse @ across.mH
        normal = (gain.conj()[:, :, None] * inner * gain[:, None]).real
        slope = (gain.conj() * (fit.right[:, number:] - (across @ fit.gain[..., None])[..., 0])).real
        return normal + torch.diag_embed(torch.where(found, 0.0, 1.0).double().repeat(1, 3)), slope

    def _refine(self, rows: Tensor, number: int, steps: int) -> "_Fit":
        """Levenberg-Marquardt in the parameters of the first `number` waves of some windows."""
        found, turns = self.found[rows, :number], self.turns[rows, :number]
        fit = self._fit(rows, turns, number)
        damping = torch.full((len(rows),), 1e-3, dtype=torch.float64)
        longest = (LONGEST * self.atoms.bins)[:, None].expand(-1, number).reshape(-1)
        for _ in range(steps):
            normal, slope = self._normal(fit, found)
            held = torch.diag_embed(damping[:, None] * normal.diagonal(dim1=1, dim2=2) + 1e-12)
            step = torch.linalg.solve(normal + held, slope[..., None])[..., 0]
            step = step.clamp(-longest, longest) * found.repeat(1, 3)
            moved = turns + step.unflatten(1, (3, number)).mT
            trial = self._fit(rows, moved, number)
            better = trial.left <= fit.left
            turns = torch.where(better[:, None, None], moved, turns)
            damping = torch.where(better, damping / 5, damping * 10)
            fit = trial.where(better, fit)
        self.turns[rows, :number] = turns
        return fit

    def _result(self, rows: Tensor) -> Tracked:
        fit = self._fit(rows, self.turns, self.most)
        noise = fit.left / (self.count - 2.5 * self.found.sum(1)).clamp_min(1)
        normal, _ = self._normal(fit, self.found)
        unit = 1e-9 * torch.eye(normal.shape[1], dtype=torch.float64)
        inverse = torch.linalg.inv(2 / noise[:, None, None] * normal + unit)
        inverse = inverse.unflatten(1, (3, self.most)).unflatten(3, (3, self.most))
        covariance = inverse.diagonal(dim1=2, dim2=4).permute(0, 3, 1, 2)
        half = self.atoms.sizes[0] // 2
        early, late = (self._gains(rows, part) for part in (slice(half), slice(half, None)))
        ratio = torch.where(self.found & (early.abs() > 0), late / early, 1.0)
        gain = fit.gain * self.scale[:, None]
        unexplained = self._residual(rows, self.most).abs().square().sum((2, 3))
        last = unexplained[:, -max(self.atoms.sizes[0] // 4, 1) :].mean(1)
        recent = (last.clamp_min(1e-16) / unexplained.mean(1).clamp_min(1e-16)).log()
        return Tracked(self.turns, gain, covariance, ratio.log(), noise * self.scale.square(), recent)

    def _gains(self, rows: Tensor, part: slice) -> Tensor:
        """Gains (R, K) from some of the snapshots alone."""
        time, space, delay = (factor[:, 0] for factor in self.atoms.columns(self.turns[rows]))
        time = time[..., part]
        gram = (time.conj() @ time.mT) * (space.conj() @ space.mT) * (delay.conj() @ delay.mT)
        right = torch.einsum("btxd,bkt,bkx,bkd->bk", self.seen[rows][:, part], time.conj(), space.conj(), delay.conj())
        unit = torch.diag_embed(torch.where(self.found[rows], 1e-4 * self.count, 1e9 * self.count)).to(gram.dtype)
        return torch.linalg.solve(gram + unit, right[..., None])[..., 0]


@dataclass(frozen=True)
class _Fit:
    """Least squares of R windows with K waves each; the first K of the 4 K columns are the waves themselves."""

    gram: Tensor  # (R, 4 K, 4 K); inner products of the columns
    right: Tensor  # (R, 4 K); inner products with what is seen
    inverse: Tensor  # (R, K, K); of the waves' part of `gram`
    gain: Tensor  # (R, K)
    left: Tensor  # (R,); energy that is unexplained

    def where(self, rows: Tensor, other: "_Fit") -> "_Fit":
        """These where `rows` (R,), others elsewhere."""
        names = self.__dataclass_fields__
        pairs = ((getattr(self, name), getattr(other, name)) for name in names)
        return _Fit(*(torch.where(rows.view(-1, *[1] * (one.ndim - 1)), one, two) for one, two in pairs))


def by_slope(past: Tensor, waves: int = WAVES, subcarriers: int = SUBCARRIERS) -> Tracked:
    """The simple way to track: waves of one direction and delay, a gain for each snapshot, Doppler by the slope of its phase.

    Directions and delays are those of the spectrum's greatest bin, over all snapshots, of what the waves so far leave, on a grid
    of a quarter of a bin; nothing is refined. Kept are waves that lower the Bayesian information criterion.
    """
    seen = torch.fft.ifft(past.to(torch.complex128), dim=2, norm="ortho")
    atoms, batch = Atoms(past.shape[1:], subcarriers), len(past)
    _, antennas, delays = atoms.sizes
    count = math.prod(atoms.sizes)
    cells = torch.cartesian_prod(
        torch.arange(-2 * antennas, 2 * antennas).double() / 4 / antennas,
        torch.arange(-2, 4 * delays - 2).double() / 4 / subcarriers,
    )
    grid = torch.cat((torch.zeros_like(cells[:, :1]), cells), -1)[None]
    shapes = (atoms.space(grid)[0, 0][:, :, None] * atoms.delay(grid)[0, 0][:, None]).flatten(1)  # (cells, entries)
    unit = shapes / shapes.norm(dim=1, keepdim=True)
    flat, residual = seen.flatten(2), seen.flatten(2)
    turns, gain = torch.zeros(batch, waves, 3, dtype=torch.float64), torch.zeros(batch, waves, dtype=torch.complex128)
    live, chosen = torch.ones(batch, dtype=torch.bool), torch.zeros(batch, 0, dtype=torch.long)
    score = 2 * count * flat.abs().square().sum((1, 2)).clamp_min(1e-300).log()
    for number in range(1, waves + 1):
        new = (residual @ unit.mH).abs().square().sum(1).argmax(1, keepdim=True)
        chosen = torch.cat((chosen, new), 1)
        basis = shapes[chosen].mT  # (B, entries, number)
        tracks = torch.linalg.lstsq(basis, flat.mT).solution.mT  # (B, T, number)
        slope = (tracks[:, 1:] * tracks[:, :-1].conj()).sum(1).angle() / (2 * math.pi)
        rotation = torch.exp(2j * math.pi * slope[:, None] * atoms.seen[:, None])
        residual = flat - tracks @ basis.mT
        steady = (tracks * rotation.conj()).mean(1)
        left = (flat - (rotation * steady[:, None]) @ basis.mT).abs().square().sum((1, 2)).clamp_min(1e-300)
        better = 2 * count * left.log() + 5 * number * math.log(2 * count) < score
        live = live & better
        score = torch.where(live, 2 * count * left.log() + 5 * number * math.log(2 * count), score)
        turns[live, :number] = torch.cat((slope[..., None], grid[0, chosen][..., 1:]), -1)[live]
        gain[live, :number] = steady[live]
    blank = torch.zeros(batch, waves, 3, 3, dtype=torch.float64)
    return Tracked(turns, gain, blank, torch.zeros_like(gain), *torch.zeros(2, batch, dtype=torch.float64))


class Continued:
    """Waves continued by their Doppler: what a forecast is made of, and the errors of forecasts, without making them.

    A forecast is the sum of the waves' spaces and delays (B, K, ...), which stay, with weights (B, H, K).
    """

    def __init__(self, waves: Tracked, past: Tensor, subcarriers: int = SUBCARRIERS, ahead: int = 8) -> None:
        atoms = Atoms(past.shape[1:], subcarriers)
        steps = atoms.seen[-1] + torch.arange(1, ahead + 1)
        # In bins of angle again.
        self.space = torch.fft.fft(atoms.space(waves.turns)[:, 0], dim=-1, norm="ortho")
        self.delay = atoms.delay(waves.turns)[:, 0]
        self.gram = (self.space.conj() @ self.space.mT) * (self.delay.conj() @ self.delay.mT)
        weights = waves.gain[:, None] * atoms.time(waves.turns, steps)[:, 0].mT  # (B, H, K)
        # As the other methods have it: no forecast is louder than twice the loudest snapshot seen.
        power = (weights.conj() * (weights @ self.gram.mT)).sum(-1).real.clamp_min(1e-300)
        loudest = past.to(torch.complex128).abs().square().sum((2, 3)).amax(1, keepdim=True)
        self.weights = weights * (LOUDEST * (loudest / power).sqrt()).clamp_max(1)[..., None]

    def forecast(self, factors: Tensor | None = None) -> Tensor:
        """Snapshots complex64 (B, H, angle, delay), each wave with a factor (B, H, K)."""
        weights = self.weights if factors is None else self.weights * factors
        return torch.einsum("bhk,bka,bkd->bhad", weights, self.space, self.delay).to(torch.complex64)

    def products(self, future: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of snapshots (B, H), and their inner products with the waves (B, H, K)."""
        future = future.to(torch.complex128)
        right = torch.einsum("bhad,bka,bkd->bhk", future, self.space.conj(), self.delay.conj())
        return future.abs().square().sum((2, 3)), right


def closed_form(past: Tensor) -> Tensor:
    """Forecast complex64 (B, H, angle, delay) by the waves' Dopplers alone."""
    return Continued(recover(past), past).forecast()
