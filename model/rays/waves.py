"""Plane waves in a partial channel, off the grid, each with the bounce off the ground that comes with it.

In a street a path and the same path with a bounce off the ground leave the base station 0.6 to 1.1 degrees apart at nearly
the same level: no array of 32 rows separates them, and one wave fitted to both has the wrong elevation. But the two-ray
model gives the second from the first, so the atom of the dictionary is the pair; it has no more parameters than one wave.
The search is Newtonised orthogonal matching pursuit (Mamandipoor, Ramasamy and Madhow, IEEE Trans. Signal Process. 64,
2016), with variable projection for the amplitudes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.dictionary import FLATTEST, MODES, RISING, STEEPEST, Dictionary, power_of
from wavecity.model.rays.radio import Radio

# Most waves of a channel: the sixth has seldom 1 % of the power.
WAVES = 6
# A peak of the residual's spectrum this many times the noise's mean is a wave: in noise alone one channel in ten has one.
THRESHOLD = 12.0
# How far from a peak of the residual's spectrum, and from the wave so far, a better direction is looked for.
SCAN_REACH, RESCAN_REACH = 0.06, 0.04
STEPS, LAST_STEPS = 3, 6
# Relative to a channel's power: noise that is assumed where none is given, from the rounding of complex64.
FLOOR = 1e-8
CHUNK = 64
# Direction in the place of a wave that there is not.
NOWHERE = (0.0, 0.5)


@dataclass(frozen=True)
class Waves:
    """Recovered waves of B channels, strongest first.

    Attributes
    ----------
    direction : float64 (B, K, 2)
        Direction cosines of departure: along the panel's x axis (east, where it faces south), and down.
    bounced : bool (B, K)
        Whether the wave comes with its bounce off the ground.
    gain : complex128 (B, K)
        Amplitude of the wave itself at the array's centre, sqrt(power gain); 0 where there is no wave.
    covariance : float64 (B, K, 2, 2)
        Of `direction`, from the noise or what the waves leave unexplained, whichever is more (Cramér-Rao bound).
    unexplained : float64 (B,)
        Share of the visible power that is in no wave.
    other_direction : float64 (B, K, A, 2)
        Directions that explain the channel, the likeliest first: the wave's own, those in which the bounce's phase has
        turned once more or less, and those without a bounce.
    likelihood : float64 (B, K, A)
        Logarithm, relative to the best of the A; -inf where there are fewer.
    """

    direction: Tensor
    bounced: Tensor
    gain: Tensor
    covariance: Tensor
    unexplained: Tensor
    other_direction: Tensor
    likelihood: Tensor

    @property
    def found(self) -> Tensor:
        """Which of the K are waves, bool (B, K)."""
        return self.gain != 0

    def split(self, users: int) -> "list[Waves]":
        """The waves of so many channels at a time."""
        parts = zip(*(getattr(self, name).split(users) for name in Waves.__dataclass_fields__), strict=True)
        return [Waves(*part) for part in parts]

    def channel(self, radio: Radio, columns: int, rows: int) -> Tensor:
        """The whole channel that the waves make up, complex64 (B, x, y)."""
        dictionary = Dictionary(torch.ones(columns, rows, dtype=torch.bool, device=self.gain.device), radio)
        parts = [
            (dictionary.pairs(direction, bounced) @ gain[..., None])[..., 0]
            for direction, bounced, gain in zip(
                self.direction.split(CHUNK), self.bounced.split(CHUNK), self.gain.split(CHUNK), strict=True
            )
        ]
        return torch.cat(parts).view(-1, columns, rows).to(torch.complex64)


def recover(csi: Tensor, shown: Tensor, noise: Tensor, radio: Radio, waves: int = WAVES) -> Waves:
    """Recover the plane waves of partial channels.

    Parameters
    ----------
    csi : complex (B, x, y)
        Only entries where `shown` are read.
    shown : bool (x, y)
    noise : float (B,)
        Mean power of the noise of an entry, on the scale of |csi|^2; 0 for none.
    radio : Radio
    waves : int
        At most so many a channel.

    Returns
    -------
    Waves
        Deterministic; the same for a channel whatever others are in the batch, up to rounding.

    Examples
    --------
    >>> radio = Radio(28.5e9, 0.5, 15.0, 1.5, 5.24 - 0.4j)
    >>> x = torch.arange(8.0)[:, None] - 3.5
    >>> y = torch.arange(8.0)[None, :] - 3.5
    >>> csi = torch.exp(1j * math.pi * (0.3 * x + 0.2 * y))[None]
    >>> found = recover(csi, torch.ones(8, 8, dtype=torch.bool), torch.zeros(1), radio, waves=1)
    >>> [round(cosine, 2) for cosine in found.direction[0, 0].tolist()], found.bounced[0, 0].item()
    ([0.3, 0.2], False)
    """
    dictionary = Dictionary(shown, radio)
    parts = [
        _Search(dictionary, part, level, waves).run()
        for part, level in zip(
            csi[:, shown].to(torch.complex128).split(CHUNK), noise.double().split(CHUNK), strict=True
        )
    ]
    return Waves(*(torch.cat([getattr(part, name) for part in parts]) for name in Waves.__dataclass_fields__))


class _Search:
    """The pursuit for one chunk of channels, (B, M)."""

    def __init__(self, dictionary: Dictionary, visible: Tensor, noise: Tensor, waves: int) -> None:
        self.dictionary = dictionary
        power = power_of(visible).mean(1)
        self.scale = power.sqrt().clamp_min(1e-30)
        self.visible = visible / self.scale[:, None]
        self.noise = (noise / self.scale.square()).clamp_min(FLOOR)
        self.most = waves
        batch, device = len(visible), visible.device
        self.direction = torch.zeros(batch, 0, 2, dtype=torch.float64, device=device)
        self.bounced = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        self.found = torch.zeros(batch, 0, dtype=torch.bool, device=device)
        self.live = power > 0

    def run(self) -> Waves:
        count = self.visible.shape[1]
        residual = self.visible
        for _ in range(self.most):
            peak, power = self.dictionary.peak(residual)
            self.live = self.live & (power > THRESHOLD * count * self.noise)
            if not self.live.any():
                break
            direction, bounced = self.dictionary.scan(residual, self._basis(None), peak, SCAN_REACH)
            self.direction = torch.cat((self.direction, direction[:, None]), 1)
            self.bounced = torch.cat((self.bounced, bounced[:, None]), 1)
            self.found = torch.cat((self.found, self.live[:, None]), 1)
            residual = self._refine(STEPS, self.live)
        for wave in range(self.direction.shape[1]):
            others = self._basis(wave)
            own = self.visible - (others @ (others.mH @ self.visible[..., None]))[..., 0]
            direction, bounced = self.dictionary.scan(own, others, self.direction[:, wave], RESCAN_REACH)
            self.direction[:, wave] = torch.where(self.found[:, wave, None], direction, self.direction[:, wave])
            self.bounced[:, wave] = torch.where(self.found[:, wave], bounced, self.bounced[:, wave])
        self._refine(LAST_STEPS, torch.ones_like(self.live))
        return self._result()

    def _basis(self, without: int | None) -> Tensor:
        """Orthonormal basis (B, M, P) of the waves found so far, or of all but one of them."""
        atoms = self.dictionary.pairs(self.direction, self.bounced) * self.found[:, None]
        kept = [wave for wave in range(atoms.shape[2]) if wave != without]
        left, size, _ = torch.linalg.svd(atoms[..., kept], full_matrices=False)
        return left * (size > 1e-4 * math.sqrt(atoms.shape[1]))[:, None]

    def _fit(self, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Atoms (B, M, K), amplitudes (B, K), residual (B, M), derivatives (B, M, K, 2) at given directions."""
        atoms, slopes = self.dictionary.atoms(direction, self.bounced)
        atoms = atoms * self.found[:, None]
        gram = atoms.mH @ atoms
        ridge = torch.where(self.found, 1e-9 * atoms.shape[1], 1.0)
        gain = torch.linalg.solve(gram + torch.diag_embed(ridge).to(gram.dtype), atoms.mH @ self.visible[..., None])
        return atoms, gain[..., 0], self.visible - (atoms @ gain)[..., 0], slopes

    def _jacobian(self, atoms: Tensor, gain: Tensor, slopes: Tensor) -> Tensor:
        """Derivatives of the fitted channel by all direction cosines, the amplitudes projected out, (B, M, 2 K)."""
        jacobian = (slopes * gain[:, None, :, None]).flatten(2)
        gram = atoms.mH @ atoms
        ridge = torch.where(self.found, 1e-9 * atoms.shape[1], 1.0)
        projected = torch.linalg.solve(gram + torch.diag_embed(ridge).to(gram.dtype), atoms.mH @ jacobian)
        return jacobian - atoms @ projected

    def _refine(self, steps: int, rows: Tensor) -> Tensor:
        """Levenberg-Marquardt steps of all directions of the channels `rows` (B,); the residual after them."""
        damping = torch.full((len(self.visible),), 1e-3, dtype=torch.float64, device=self.visible.device)
        atoms, gain, residual, slopes = self._fit(self.direction)
        for _ in range(steps):
            jacobian = self._jacobian(atoms, gain, slopes)
            normal = (jacobian.mH @ jacobian).real
            slope = (jacobian.mH @ residual[..., None]).real
            diagonal = normal.diagonal(dim1=1, dim2=2)
            held = torch.diag_embed(damping[:, None] * diagonal + 1e-12)
            step = torch.linalg.solve(normal + held, slope)[..., 0].view_as(self.direction)
            moved = self.direction + step.clamp(-0.01, 0.01) * self.found[..., None]
            moved[..., 1].clamp_(RISING, STEEPEST)
            moved[..., 1] = torch.where(self.bounced, moved[..., 1].clamp_min(FLATTEST), moved[..., 1])
            trial = self._fit(moved)
            better = rows & (power_of(trial[2]).sum(1) <= power_of(residual).sum(1))
            self.direction = torch.where(better[:, None, None], moved, self.direction)
            damping = torch.where(better, damping / 3, damping * 10)
            atoms, gain, residual, slopes = (
                torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(trial, (atoms, gain, residual, slopes), strict=True)
            )
        return residual

    def _result(self) -> Waves:
        batch, count = self.visible.shape
        atoms, gain, residual, slopes = self._fit(self.direction)
        left = power_of(residual).sum(1)
        unknowns = 2 * self.found.sum(1)  # complex ones: two cosines and a gain with two parts
        variance = torch.maximum(self.noise, left / (count - unknowns).clamp_min(1))
        jacobian = self._jacobian(atoms, gain, slopes)
        normal = (jacobian.mH @ jacobian).real
        normal = normal + torch.diag_embed(torch.where(self.found, 1e-9, 1.0).repeat_interleave(2, 1).double())
        inverse = torch.linalg.inv(normal) * (variance / 2)[:, None, None]
        waves = self.direction.shape[1]
        blocks = inverse.view(batch, waves, 2, waves, 2).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # (B, K, 2, 2)
        gain = torch.where(self.found, gain, 0.0)
        order = gain.abs().argsort(dim=1, descending=True, stable=True)
        rows = torch.arange(batch, device=gain.device)[:, None]
        others = self._alternatives(variance)
        result = Waves(
            direction=torch.where(self.found[..., None], self.direction, self.direction.new_tensor(NOWHERE))[
                rows, order
            ],
            bounced=self.bounced[rows, order],
            gain=gain[rows, order] * self.scale[:, None],
            covariance=blocks[rows, order],
            unexplained=left / power_of(self.visible).sum(1).clamp_min(1e-300),
            other_direction=others[0][rows, order],
            likelihood=others[1][rows, order],
        )
        return _padded(result, self.most)

    def _alternatives(self, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Other directions of every wave (B, K, A, 2) and their likelihood (B, K, A)."""
        directions, likelihoods = [], []
        for wave in range(self.direction.shape[1]):
            others = self._basis(wave)
            own = self.visible - (others @ (others.mH @ self.visible[..., None]))[..., 0]
            down, bounced, likelihood = self.dictionary.modes(own, others, self.direction[:, wave], variance)
            # The wave's own direction is finer than the grid of the others.
            mine = ((down - self.direction[:, wave, 1:]).abs() < 2 * self.dictionary.fine_step) & (
                bounced == self.bounced[:, wave, None]
            )
            down = torch.where(mine, self.direction[:, wave, 1:], down)
            directions.append(torch.stack((self.direction[:, wave, :1].expand_as(down), down), -1))
            likelihood = torch.where(self.found[:, wave, None] & ~likelihood.isnan(), likelihood, -torch.inf)
            likelihoods.append(likelihood)
        if not directions:
            empty = self.direction.new_zeros(len(self.direction), 0, MODES)
            return empty[..., None].expand(-1, -1, -1, 2), empty
        return torch.stack(directions, 1), torch.stack(likelihoods, 1)


def _padded(waves: Waves, most: int) -> Waves:
    """The same with room for `most` waves a channel."""
    batch, have = waves.gain.shape
    more = most - have
    if not more:
        return waves
    blank = waves.gain.real.new_zeros(batch, more)
    flat = blank.new_tensor(NOWHERE).expand(batch, more, 2)
    unit = torch.eye(2, dtype=torch.float64, device=blank.device).expand(batch, more, 2, 2)
    modes = blank[..., None].expand(-1, -1, MODES)
    return Waves(
        torch.cat((waves.direction, flat), 1),
        torch.cat((waves.bounced, blank == 1), 1),
        torch.cat((waves.gain, blank.to(waves.gain.dtype)), 1),
        torch.cat((waves.covariance, unit), 1),
        waves.unexplained,
        torch.cat((waves.other_direction, flat[:, :, None].expand(-1, -1, MODES, 2)), 1),
        torch.cat((waves.likelihood, modes - torch.inf), 1),
    )
