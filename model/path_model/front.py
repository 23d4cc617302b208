"""What the network is shown of a user: its waves, where each may come down, and a first spectrum; nothing of it is trained."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavecity.model.data.noise import add_noise, gaussian
from wavecity.model.data.tokens import squared, visible_antennas
from wavecity.model.data.users import Rows
from wavecity.model.multimodal.sparse import sparse_bayesian
from wavecity.model.rays.consensus import CHUNK, NEVER, POWER_WEIGHT, Estimate, consensus, packed
from wavecity.model.rays.disturb import NOTHING, Disturbance
from wavecity.model.rays.follow import follow
from wavecity.model.rays.heights import likeliest
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.waves import Waves, recover

# Places of a user that the network chooses among, and how far apart they are at least, m.
PLACES, APART = 32, 1.0
# Radii within which other waves' places are counted, m.
RADII = (0.7, 2.0, 6.0)
# Blur of the places when they are compared, m.
BLUR = 1.5
# Square of a distance to what is not there, m^2.
FAR = 1e12
# Features of a wave and of a place, in the order of `_wave_features` and `_places`.
WAVE_FEATURES, PLACE_FEATURES = 16, 9
# Up to so many visible antennas the first spectrum is that of sparse Bayesian learning, which costs their cube.
SPARSE_ANTENNAS = 64
# Of the spectrum's mean: below it nothing is known.
FLOOR = 1e-6
# Streams of random numbers.
PATCHES, NOISE, DRAW, WRONG, BELIEFS, ERRORS = 10, 21, 22, 23, 24, 25


@dataclass(frozen=True)
class Draw:
    """Which CSI patches are seen, with how much noise, and what is wrong.

    Attributes
    ----------
    seed : int
        Of patches and noise.
    patches : int
        CSI patches that are seen, the same ones for all users.
    snr : float or None
        dB; None for none.
    number : int
        Draws of one seed differ in it; those of a training are numbered from 1, and each scene has patches of its own.
    wrong : Disturbance
        In map, panel and heights: exactly this; in a draw of a training at most this, each scene with errors of its own.
    share : float
        Of the scenes of a training's draw in which something is wrong.
    """

    seed: int
    patches: int = 0
    snr: float | None = None
    number: int = 0
    wrong: Disturbance = NOTHING
    share: float = 1.0

    def wrong_in(self, scene: int, radio: Radio) -> Disturbance:
        """What is wrong in a scene, of which `radio` has the true constants."""
        if not self.number:
            return self.wrong
        rng = np.random.default_rng([self.seed, WRONG, self.number, scene])
        return self.wrong.drawn(rng, radio) if rng.random() < self.share else NOTHING

    def beliefs(self, scene: int) -> np.random.Generator:
        """Random numbers of what is wrong in a scene's map and the base station's place; always the same ones."""
        return np.random.default_rng([self.seed, BELIEFS, self.number, scene])

    def errors(self, scene: int) -> np.random.Generator:
        """Random numbers of what is wrong in a scene's channels; always the same ones."""
        return np.random.default_rng([self.seed, ERRORS, self.number, scene])

    def shown(self, scene: int, columns: int, rows: int, patch: int) -> Tensor:
        """Antennas that are seen in a scene, bool (x, y)."""
        count = columns * rows // patch**2
        if self.number:
            rng = np.random.default_rng([self.seed, DRAW, self.number, scene])
            seen = rng.permutation(count)[: _patches(rng, count)]
        else:
            masked = count - min(self.patches, count)
            seen = np.random.default_rng([self.seed, PATCHES, masked]).permutation(count)[masked:]
        return visible_antennas(torch.from_numpy(np.sort(seen)), columns, rows, patch)

    def noisy(self, csi: Tensor, scene: int) -> tuple[Tensor, Tensor]:
        """Channels (B, x, y) with noise, and its mean power for each, float64 (B,)."""
        rng = np.random.default_rng([self.seed, NOISE, self.number, scene])
        if self.number:
            # One in eight without noise.
            snr = torch.from_numpy(np.where(rng.random(len(csi)) < 0.125, np.inf, rng.uniform(0, 30, len(csi))))
        else:
            snr = torch.full((len(csi),), math.inf if self.snr is None else self.snr, dtype=torch.float64)
        power = squared(csi.to(torch.complex128)).mean((1, 2)) * 10 ** (-snr / 10)
        return add_noise(csi, snr, gaussian(rng, tuple(csi.shape))), power


def _patches(rng: np.random.Generator, count: int) -> int:
    """From 3 to all, few as likely as many: uniform in the logarithm."""
    least = min(3, count)
    return min(int(math.exp(rng.uniform(math.log(least), math.log(count + 1)))), count)


@dataclass(frozen=True)
class Fronts(Rows):
    """What the network is shown of B users.

    Attributes
    ----------
    wave : float32 (B, K, `WAVE_FEATURES`)
        See `_wave_features`; zeros where there is no wave.
    found : bool (B, K)
    direction : float32 (B, K, 2)
        Direction cosines along the panel and down.
    bounced : bool (B, K)
    gain : complex64 (B, K)
        sqrt(power gain) at the array's centre.
    landing : float32 (B, K, 2)
        Where the wave comes down by mirrors alone, m from the base station; 0 where it does not.
    place : float32 (B, C, 2)
        Where the user may be, the physics' own estimate first, m from the base station.
    place_features : float32 (B, C, `PLACE_FEATURES`)
        See `_places`.
    usable : bool (B, C)
    prior : float32 (B, C)
        Logarithm of how well the waves agree on a place, 0 for the best.
    spread : float32 (B,)
        Standard deviation of the physics' own estimate, m.
    log_spectrum : float32 (B, kx, ky)
        Logarithm of the spectrum of the recovered channel, of mean 1.
    shown : bool (B, x, y)
        Antennas that were seen.
    noise : float32 (B,)
        Over the power of what is seen, dB; -60 where there is none.
    """

    wave: Tensor
    found: Tensor
    direction: Tensor
    bounced: Tensor
    gain: Tensor
    landing: Tensor
    place: Tensor
    place_features: Tensor
    usable: Tensor
    prior: Tensor
    spread: Tensor
    log_spectrum: Tensor
    shown: Tensor
    noise: Tensor

    def to(self, device: torch.device) -> "Fronts":
        """The same on another device."""
        return Fronts(*(part.to(device) for part in vars(self).values()))

    def mirrored(self) -> "Fronts":
        """Those of a world mirrored east-west, with a panel that faces south."""
        turn = self.place.new_tensor([-1.0, 1.0])
        flipped = self.wave.clone()
        flipped[..., EAST] *= -1
        return Fronts(
            flipped,
            self.found,
            self.direction * turn,
            self.bounced,
            self.gain,
            self.landing * turn,
            self.place * turn,
            self.place_features,
            self.usable,
            self.prior,
            self.spread,
            mirrored_spectrum(self.log_spectrum),
            self.shown.flip(1),
            self.noise,
        )


# Features of a wave that change their sign in a mirror.
EAST = [0, 11]


def mirrored_spectrum(spectrum: Tensor) -> Tensor:
    """Spectrum (..., kx, ky) of channels whose columns are in reverse order."""
    return spectrum.flip(-2).roll(1, -2)


@torch.no_grad()
def front(csi: Tensor, shown: Tensor, noise: Tensor, scene: Surroundings) -> Fronts:
    """Recover and follow the waves of B users of one scene.

    Parameters
    ----------
    csi : complex (B, x, y)
        sqrt(power gain); only entries where `shown` are read.
    shown : bool (x, y)
    noise : float64 (B,)
        Mean power of the noise of an entry; 0 for none.
    scene : Surroundings

    Returns
    -------
    Fronts
        Deterministic, and the same for a user whatever others are in the batch, up to rounding. Where the users' height is
        unknown (`Surroundings.heights`), those of each user's likeliest.
    """
    sparse = sparse_bayesian(csi.to(torch.complex128), shown, noise) if int(shown.sum()) <= SPARSE_ANTENNAS else None
    if not scene.heights:
        return _front(csi, shown, noise, scene, sparse)[0]
    fronts, unexplained, scores = zip(
        *(_front(csi, shown, noise, scene.at_height(height), sparse) for height in scene.heights), strict=True
    )
    best = likeliest(torch.stack(unexplained), torch.stack(scores), csi[:, shown], noise)
    return Fronts.joined(fronts).at(best * len(csi) + torch.arange(len(csi)))


def _front(
    csi: Tensor, shown: Tensor, noise: Tensor, scene: Surroundings, sparse: Tensor | None
) -> tuple[Fronts, Tensor, Tensor]:
    """`front` at one height of all users, what of their power is in no wave, and how well the waves agree, (B,) each.

    `sparse` is the channel (B, x, y) of which the spectrum is taken; None for that which the waves make up.
    """
    waves = recover(csi, shown, noise, scene.radio)
    landing, features = _wave_features(waves, scene)
    places, scores = [], []
    for part in waves.split(CHUNK):
        found = consensus(part, scene)
        places.append(_places(part, found, scene))
        scores.append(found.score)
    place, usable, prior, of_place, spread = (torch.cat(parts) for parts in zip(*places, strict=True))
    power = squared(csi[:, shown].to(torch.complex128)).mean(1).clamp_min(1e-300)
    whole = waves.channel(scene.radio, *shown.shape) if sparse is None else sparse
    fronts = Fronts(
        wave=features.float(),
        found=waves.found,
        direction=waves.direction.float(),
        bounced=waves.bounced & waves.found,
        gain=waves.gain.to(torch.complex64),
        landing=landing.float(),
        place=place.float(),
        place_features=of_place.float(),
        usable=usable,
        prior=prior.float(),
        spread=spread.float(),
        log_spectrum=_spectrum(whole),
        shown=shown.expand(len(csi), -1, -1),
        noise=(10 * torch.log10((noise / power).clamp_min(1e-6))).float(),
    )
    return fronts, waves.unexplained, torch.cat(scores)


def _wave_features(waves: Waves, scene: Surroundings) -> tuple[Tensor, Tensor]:
    """Where waves come down by mirrors alone (B, K, 2), and their features (B, K, F)."""
    radio = scene.radio
    batch, most = waves.gain.shape
    landed = follow(waves.direction.flatten(0, 1), scene.walls, radio)
    reached = landed.reached.view(batch, most) & waves.found
    landing = torch.where(reached[..., None], landed.position.view(batch, most, 2), 0.0)
    length = landed.length.view(batch, most).clamp(1, 2000)
    gain = 20 * torch.log10(waves.gain.abs().clamp_min(1e-12))
    deviation = waves.covariance.diagonal(dim1=2, dim2=3).clamp(1e-12, 1).sqrt()
    features = torch.stack(
        (
            waves.direction[..., 0],
            waves.direction[..., 1],
            waves.bounced.double(),
            (gain + 110) / 20,
            (gain - gain.amax(1, keepdim=True)) / 20,
            deviation[..., 0].log10() / 2 + 1,
            deviation[..., 1].log10() / 2 + 1,
            reached.double(),
            landed.bounces.view(batch, most) / 3,
            length.log10() - 2,
            torch.where(reached, (gain - radio.friis(length)) / 20, 0.0).clamp(-3, 1),
            (landing[..., 0] / 100).clamp(-3, 3),
            (landing[..., 1] / 100).clamp(-3, 3),
            waves.likelihood.exp().sum(2).clamp(1, 8).log(),
            waves.unexplained[:, None].expand(-1, most).clamp(1e-6, 1).log10() / 3,
            waves.found.sum(1, keepdim=True).expand(-1, most) / most,
        ),
        -1,
    )
    return landing, torch.where(waves.found[..., None], features, 0.0)


def _places(waves: Waves, found: Estimate, scene: Surroundings) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Places (B, C, 2) on which the waves agree best, which are usable, how well, and their features (B, C, F).

    The first is the physics' own estimate, whose standard deviation (B,) is the last that is returned. Of places closer
    together than `APART` the best counts.
    """
    batch, _, held = found.log_weight.shape
    power = waves.gain.abs().square()
    weight = torch.where(
        found.log_weight.isfinite().any(2),
        (power / power.amax(1, keepdim=True).clamp_min(1e-300)) ** POWER_WEIGHT,
        0.0,
    )
    located = ~found.position.isnan().any(1, keepdim=True)
    # The physics' own estimate, and then every landing that there is.
    own = torch.where(located, found.position, 0.0)
    landing, is_landing = packed(found.log_weight.isfinite().flatten(1))
    points = torch.cat((own[:, None], found.landings.flatten(1, 2).gather(1, landing[..., None].expand(-1, -1, 2))), 1)
    there = torch.cat((located, is_landing), 1)  # (B, N)
    near, score = _agreement(points, found, weight, scene)
    score = torch.where(there, score, -torch.inf)
    prior = score - score.amax(1, keepdim=True)
    prior = torch.where(prior.isnan(), -torch.inf, prior)

    first = torch.zeros(batch, dtype=torch.int64, device=points.device)
    left, chosen = prior.clone(), []
    for number in range(PLACES):
        index = first if not number else left.argmax(1)
        chosen.append(torch.where(left.isfinite().any(1) | (number == 0), index, -1))
        apart = (points - points.gather(1, index[:, None, None].expand(-1, 1, 2))).square().sum(2)
        left = torch.where(apart < APART**2, -torch.inf, left)
    index = torch.stack(chosen, 1)
    some = index >= 0
    index = index.clamp_min(0)
    usable = some & there.gather(1, index)
    place = points.gather(1, index[..., None].expand(-1, -1, 2)) * usable[..., None]
    # Of the physics' own estimate: as if it were of the strongest wave, with nothing else known.
    is_own = index == 0
    of = landing.gather(1, (index - 1).clamp_min(0))  # (B, C) among waves and places
    own_weight, edge = (
        torch.where(is_own, 0.0, values.flatten(1).gather(1, of).double()) for values in (found.log_weight, found.edges)
    )
    level = (10 * torch.log10(power.clamp_min(1e-30)) + 110) / 20
    of_wave = level.gather(1, torch.where(is_own, 0, of // held))
    prior = torch.where(usable, prior.gather(1, index), 0.0).clamp_min(-30)
    is_first = (torch.arange(PLACES, device=points.device) == 0).expand(batch, -1).double()
    features = torch.cat(
        (
            torch.stack(
                (
                    own_weight.clamp(-20, 5) / 10,
                    prior / 10,
                    edge,
                    of_wave,
                    is_first,
                    (found.agreeing[:, None] * is_first).nan_to_num(),
                ),
                -1,
            ),
            near.gather(1, index[..., None].expand(-1, -1, len(RADII))),
        ),
        -1,
    )
    spread = found.covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-4).sqrt().nan_to_num(100.0).clamp_max(100.0)
    return place, usable, prior, torch.where(usable[..., None], features, 0.0), spread


def _agreement(points: Tensor, found: Estimate, weight: Tensor, scene: Surroundings) -> tuple[Tensor, Tensor]:
    """Of points (B, N, 2): weights of the waves with a place within each of `RADII` (B, N, 3), and how well all agree (B, N)."""
    west, south, east, north = scene.box
    elsewhere = -math.log((east - west) * (north - south))
    exists = found.log_weight.isfinite()
    counts = exists.sum(2)
    # Squared distances are products of (|p|^2, 1, p) with (1, |q|^2, -2 q).
    x, y = points.unbind(-1)
    left = torch.stack((x * x + y * y, torch.ones_like(x), x, y), -1)
    a, b = found.landings.unbind(-1)
    away = torch.where(exists, a * a + b * b, FAR)
    right = torch.stack((torch.ones_like(a), away, -2 * a, -2 * b), -2)  # (B, K, 4, H)
    level = (found.log_weight - elsewhere).clamp_min(NEVER)
    score = torch.zeros_like(x)
    near = score.new_zeros(*x.shape, len(RADII))
    radii = near.new_tensor(RADII).square()
    for wave in range(counts.shape[1]):
        places = int(counts[:, wave].max())
        if not places:
            score += weight[:, wave, None] * elsewhere
            continue
        apart = left @ right[:, wave, :, :places]  # (B, N, H)
        near += (apart.amin(-1)[..., None] < radii) * weight[:, wave, None, None]
        says = apart.mul_(-1 / (2 * BLUR**2)).add_(level[:, None, wave, :places]).exp_().sum(-1)
        score += weight[:, wave, None] * (says.log1p() + elsewhere)
    return near, score


def _spectrum(whole: Tensor) -> Tensor:
    """Logarithm of the spectrum, of mean 1, of recovered channels complex (B, x, y), float32 (B, kx, ky)."""
    power = squared(torch.fft.fft2(whole.to(torch.complex128)))
    return (power / power.mean((1, 2), keepdim=True).clamp_min(1e-300) + FLOOR).log().float()
