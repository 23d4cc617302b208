"""Where the landing points and curves of a user's waves agree: the physics localiser, with nothing trained."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.edges import SAMPLES, WALLS_AFTER, Departures, curves, departures
from wavecity.model.rays.follow import Rays, march
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.walls import Walls
from wavecity.model.rays.waves import Waves

# Of the landing points beyond what the waves' covariance says, m: corners of the map, walls that are not flat.
MAP_ERROR = 0.5
# Weight of a wave: its power to this exponent. The strongest must not outvote two that agree.
POWER_WEIGHT = 0.3
# What a wall takes from a wave, and how far a level may be from what the way leaves of Friis: of direct and of other paths, dB.
WALL_LOSS, DIRECT_SPREAD, SPREAD = 7.0, 1.5, 5.0
# No path is stronger than a direct one by more, dB.
STRONGER = 3.0
# Landing points within so many standard deviations of the chosen one are averaged.
AGREEING = 3.0
# Likeliest landing points of a wave that are kept; users at a time.
KEPT, CHUNK = 128, 16
# Directions of a wave that are less likely than its best by so much (logarithm) are not followed around edges: it takes long.
UNLIKELY = 5.0
# Logarithm of what does not happen: its exponential is 0.
NEVER = -1e4
# Standard deviations of a direction beyond this say nothing, radians.
WIDEST = 0.05


@dataclass(frozen=True)
class Estimate:
    """Where B users are, from K waves.

    Attributes
    ----------
    position : float64 (B, 2)
        Relative to the base station, east and north, m; nan where no wave lands.
    covariance : float64 (B, 2, 2)
        Of the average of the waves that agree, m^2; nan where no wave lands.
    agreeing : float64 (B,)
        Their share of the weights of all waves, 0 to 1.
    landings : float64 (B, K, H, 2)
        Where a wave may come down: points, and samples of curves around edges, m.
    log_weight : float64 (B, K, H)
        How likely each is, -inf where there are fewer.
    edges : bool (B, K, H)
        Whether it came by an edge.
    score : float64 (B,)
        How much likelier the waves are at the position than anywhere in the tile, nats; 0 where none lands.
    height : float64 (B,)
        Of the user above the ground, m: the one that is known, or the likeliest of `Surroundings.heights`.
    """

    position: Tensor
    covariance: Tensor
    agreeing: Tensor
    landings: Tensor
    log_weight: Tensor
    edges: Tensor
    score: Tensor
    height: Tensor

    def at(self, index: Tensor) -> "Estimate":
        """Some of the users."""
        return Estimate(*(getattr(self, name)[index] for name in Estimate.__dataclass_fields__))

    @classmethod
    def joined(cls, parts: "list[Estimate]") -> "Estimate":
        """Of several groups of users, one after the other."""
        most = max(part.log_weight.shape[2] for part in parts)
        return cls(
            position=torch.cat([part.position for part in parts]),
            covariance=torch.cat([part.covariance for part in parts]),
            agreeing=torch.cat([part.agreeing for part in parts]),
            landings=torch.cat([_widened(part.landings, most, 0.0) for part in parts]),
            log_weight=torch.cat([_widened(part.log_weight, most, -torch.inf) for part in parts]),
            edges=torch.cat([_widened(part.edges, most, 0.0) for part in parts]),
            score=torch.cat([part.score for part in parts]),
            height=torch.cat([part.height for part in parts]),
        )


@dataclass(frozen=True)
class _Landing:
    """H places where one of R waves may come down."""

    wave: Tensor
    position: Tensor
    covariance: Tensor
    log_weight: Tensor
    edge: Tensor

    @property
    def density(self) -> Tensor:
        """Logarithm of the density at each place itself, 1/m^2."""
        return self.log_weight - self.covariance.det().log() / 2 - math.log(2 * math.pi)

    def at(self, index: Tensor) -> "_Landing":
        """Some of them."""
        return _Landing(*(getattr(self, name)[index] for name in _Landing.__dataclass_fields__))

    def within(self, box: tuple[float, float, float, float]) -> "_Landing":
        """Those where a user can be."""
        west, south, east, north = box
        x, y = self.position.unbind(1)
        inside = (x >= west) & (x <= east) & (y >= south) & (y <= north)
        return self.at((inside & self.log_weight.isfinite()).nonzero()[:, 0])

    def joined(self, other: "_Landing") -> "_Landing":
        """These and others."""
        pairs = ((getattr(self, name), getattr(other, name)) for name in _Landing.__dataclass_fields__)
        return _Landing(*(torch.cat(pair) for pair in pairs))


def consensus(waves: Waves, scene: Surroundings) -> Estimate:
    """Follow the waves of B users of one scene, and find where they agree.

    Parameters
    ----------
    waves : Waves
    scene : Surroundings

    Returns
    -------
    Estimate
        Each wave says where the user is by a mixture of Gaussians: around each landing point, of the direction's covariance
        and `MAP_ERROR`, and along the curves of waves that leave an edge; weighted by the direction's likelihood and by how
        well its level fits the way; and a constant density over the box for a wave that came another way. The position is
        the landing point with the greatest product of all mixtures, waves weighted by power; and then the average of all
        that agree with it, weighted by precision.
    """
    return Estimate.joined([_consensus(part, scene) for part in waves.split(CHUNK)])


def _widened(places: Tensor, most: int, fill: float) -> Tensor:
    """(B, K, H, ...) with room for `most` places a wave."""
    more = places.new_full((*places.shape[:2], most - places.shape[2], *places.shape[3:]), fill)
    return torch.cat((places, more), 2)


def _consensus(waves: Waves, scene: Surroundings) -> Estimate:
    """`consensus` for a few users: every place of every wave is compared with every other."""
    batch, most = waves.gain.shape
    found = _landings(waves, scene)
    place, covariance, log_weight, edge = _by_wave(found, batch * most)
    shape = (batch, most, log_weight.shape[1])
    place, covariance, log_weight = place.view(*shape, 2), covariance.view(*shape, 2, 2), log_weight.view(shape)
    power = waves.gain.abs().square()
    lands = log_weight.isfinite().any(2)
    weight = torch.where(lands, (power / power.amax(1, keepdim=True).clamp_min(1e-300)) ** POWER_WEIGHT, 0.0)
    position, total, agreeing, score = _agree(place, covariance, log_weight, weight, scene.box)
    height = torch.full_like(score, scene.radio.user_height)
    return Estimate(position, total, agreeing, place, log_weight, edge.view(shape), score, height)


def _landings(waves: Waves, scene: Surroundings) -> _Landing:
    """The places where the waves may come down; of each wave at least the likeliest `KEPT`."""
    radio, device = scene.radio, waves.gain.device
    walls = scene.walls.to(device)
    modes = waves.likelihood.shape[2]
    # A wave's directions share its probability.
    prior = waves.likelihood - waves.likelihood.exp().sum(2, keepdim=True).clamp_min(1.0).log()
    prior = torch.where(waves.found[..., None], prior, -torch.inf).flatten()
    ray = prior.isfinite().nonzero()[:, 0]
    prior, wave = prior[ray], ray // modes
    direction = waves.other_direction.flatten(0, 2)[ray]
    covariance = waves.covariance.flatten(0, 1)[wave]
    gain = 20 * torch.log10(waves.gain.abs().clamp_min(1e-30)).flatten()[wave]
    rays = Rays.leaving(direction, radio)
    landed, legs = march(rays, walls, radio.user_height)
    unit = torch.eye(2, dtype=torch.float64, device=device)

    slope = landed.turned @ _spreading(direction, radio)
    fits = _fits(gain - radio.friis(landed.length), WALL_LOSS * landed.bounces, landed.bounces > 0)
    points = _Landing(
        wave,
        landed.position,
        slope @ covariance @ slope.mT + MAP_ERROR**2 * unit,
        torch.where(landed.reached, prior + fits, -torch.inf),
        torch.zeros_like(landed.reached),
    )
    # An azimuth moves by a cosine along the panel over that ahead of it, an elevation by a cosine downwards over the rest.
    ahead = (1 - direction.square().sum(1)).clamp_min(1e-6).sqrt()
    flat = (1 - direction[:, 1].square()).sqrt()
    spread = (covariance.diagonal(dim1=1, dim2=2).sqrt() / torch.stack((ahead, flat), 1)).clamp_max(WIDEST)
    worth = waves.likelihood.flatten()[ray] > -UNLIKELY
    leaving = departures(legs, rays.fall, spread, worth, walls, radio)
    across = (leaving.spacing / 2).square() + (leaving.blur * spread[leaving.ray, 1]).square() + MAP_ERROR**2
    # The wave left by one of the cone's directions, of which walls and the building itself take some away.
    share = prior[leaving.ray] - leaving.mismatch.square() / 2 - math.log(SAMPLES)
    over = gain[leaving.ray] - radio.friis(leaving.length) - leaving.level
    stronger = over + leaving.level >= STRONGER
    share = torch.where(stronger, -torch.inf, share)
    return _with_curves(points.within(scene.box), leaving, wave[leaving.ray], across, share, over, scene, walls)


def _with_curves(
    kept: _Landing,
    leaving: Departures,
    wave: Tensor,
    across: Tensor,
    share: Tensor,
    over: Tensor,
    scene: Surroundings,
    walls: Walls,
) -> _Landing:
    """Landings together with those around edges that are among the likeliest of their wave.

    Rays are followed in the order of what they can be worth at best, as long as that is more than a wave has already:
    everything but the place and the walls on the way is known before, and following takes long.

    Parameters
    ----------
    kept : _Landing
    leaving : Departures
        (S,)
    wave, across, share, over : (S,)
        Of the departures: the wave, the variance of a landing in m^2, the logarithm of the weight before levels count, and
        the level over what the way leaves without walls, dB.
    """
    walls_after = torch.arange(WALLS_AFTER + 1, device=over.device)[:, None]
    at_best = share + _level_fits(over, leaving.before + walls_after).amax(0) - (2 * math.pi * across).log()
    waiting = at_best.isfinite().nonzero()[:, 0]
    waiting = waiting[_ranked(wave[waiting], at_best[waiting])[0]]
    size = KEPT
    while len(waiting):
        some = _rank(wave[waiting]) < size
        now, waiting = waiting[some], waiting[~some]
        found = curves(leaving.at(now), walls, scene.radio)
        now = now[found.sample]
        unit = torch.eye(2, dtype=torch.float64, device=over.device)
        landed = _Landing(
            wave[now],
            found.position,
            across[now, None, None] * unit,
            share[now] + _level_fits(over[now], found.walls),
            torch.ones_like(now, dtype=torch.bool),
        )
        kept = kept.joined(landed.within(scene.box))
        order, rank = _ranked(kept.wave, kept.density)
        last = order[rank == KEPT - 1]
        least = over.new_full((int(wave.max()) + 1,), -torch.inf)
        least[kept.wave[last]] = kept.density[last]
        waiting = waiting[at_best[waiting] > least[wave[waiting]]]
        size *= 2
    return kept


def _level_fits(over: Tensor, walls: Tensor) -> Tensor:
    """Logarithm of how well levels over what an edge leaves, dB, fit so many walls on the way."""
    return -((over + WALL_LOSS * walls) / SPREAD).square() / 2 - math.log(SPREAD)


def _ranked(wave: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Order by wave and, the greatest first, by value; and which of its wave each then is, from 0."""
    order = value.argsort(descending=True, stable=True)
    order = order[wave[order].argsort(stable=True)]
    return order, _rank(wave[order])


def _rank(wave: Tensor) -> Tensor:
    """Which of its wave each one is, of sorted waves, from 0."""
    return torch.arange(len(wave), device=wave.device) - torch.searchsorted(wave, wave)


def _fits(over_friis: Tensor, loss: Tensor, scattered: Tensor | bool) -> Tensor:
    """Logarithm of how well levels over Friis, dB, fit the losses on the way; -inf for what no path can have."""
    sigma = torch.where(torch.as_tensor(scattered, device=loss.device), SPREAD, DIRECT_SPREAD)
    return torch.where(over_friis < STRONGER, -((over_friis + loss) / sigma).square() / 2 - sigma.log(), -torch.inf)


def _spreading(direction: Tensor, radio: Radio) -> Tensor:
    """Derivatives (R, 2, 2) of where waves would come down without walls by their direction cosines, m."""
    columns = []
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64, device=direction.device)
        step[axis] = 1e-6
        after, before = (
            radio.distance(moved[:, 1])[:, None] * radio.heading(moved)
            for moved in (direction + step, direction - step)
        )
        columns.append((after - before) / 2e-6)
    return torch.stack(columns, -1)


def _by_wave(found: _Landing, waves: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The likeliest places of each wave: (R, H, 2), covariances (R, H, 2, 2), log weights (R, H) and edges (R, H)."""
    density = found.density
    order, rank = _ranked(found.wave, density)
    order, rank = order[rank < KEPT], rank[rank < KEPT]
    wave = found.wave[order]
    most = int(rank.max()) + 1 if len(rank) else 1
    place = torch.zeros(waves, most, 2, dtype=torch.float64, device=wave.device)
    spread = torch.eye(2, dtype=torch.float64, device=wave.device).repeat(waves, most, 1, 1)
    weight = torch.full((waves, most), -torch.inf, dtype=torch.float64, device=wave.device)
    edge = torch.zeros(waves, most, dtype=torch.bool, device=wave.device)
    place[wave, rank], spread[wave, rank] = found.position[order], found.covariance[order]
    weight[wave, rank], edge[wave, rank] = density[order], found.edge[order]
    return place, spread, weight, edge


def packed(usable: Tensor) -> tuple[Tensor, Tensor]:
    """Indices of what is usable of (B, N), in order, as many as the most of a row; and which of them are meant, (B, C)."""
    counts = usable.sum(1, keepdim=True)
    most = max(int(counts.max()), 1)
    index = (~usable).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return index, torch.arange(most, device=usable.device) < counts


def _agree(
    place: Tensor, covariance: Tensor, log_weight: Tensor, weight: Tensor, box: tuple[float, float, float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Position (B, 2), covariance (B, 2, 2), share (B,) and score (B,) of where the waves (B, K, H) of users agree."""
    batch, most, _ = log_weight.shape
    rows = torch.arange(batch, device=place.device)
    precision = torch.linalg.inv(covariance)
    usable = log_weight.isfinite()
    counts = usable.sum(2)
    west, south, east, north = box
    elsewhere = -math.log((east - west) * (north - south))
    # Every place is a candidate. Logarithms of Gaussians are quadratic forms: products of squares and places with coefficients.
    index, there = packed(usable.flatten(1))
    points = place.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 2))
    x, y = points.unbind(-1)
    squares = torch.stack((x * x, 2 * x * y, y * y, x, y, torch.ones_like(x)), -1)  # (B, C, 6)
    linear = (precision @ place[..., None])[..., 0]
    level = (log_weight - elsewhere).clamp_min(NEVER) - (linear * place).sum(-1) / 2
    parts = (precision[..., 0, 0], precision[..., 0, 1], precision[..., 1, 1])
    forms = torch.stack((*(-part / 2 for part in parts), linear[..., 0], linear[..., 1], level), -2)  # (B, K, 6, H)
    score = torch.zeros_like(x)
    for wave in range(most):
        most_places = int(counts[:, wave].max())
        says = (squares @ forms[:, wave, :, :most_places]).exp_().sum(-1)
        score += weight[:, wave, None] * (says.log1p() + elsewhere)
    first = torch.where(there, score, -torch.inf).argmax(1, keepdim=True)
    best = index.gather(1, first)[:, 0]
    over = score.gather(1, first)[:, 0] - weight.sum(1) * elsewhere
    apart = place.flatten(1, 2)[rows, best][:, None, None] - place
    away = ((precision @ apart[..., None])[..., 0] * apart).sum(-1)  # (B, K, H)

    near = (away < AGREEING**2) & usable
    agrees = near.any(2)
    # Of a wave, the place that says it most.
    chosen = torch.where(near, log_weight - away / 2, -torch.inf).argmax(2)
    pick = (rows[:, None], torch.arange(most, device=place.device), chosen)
    together = agrees[..., None, None] * precision[pick]
    lands = usable.flatten(1).any(1)
    total = torch.where(lands[:, None, None], together.sum(1), torch.eye(2, dtype=torch.float64, device=place.device))
    pulled = (together @ place[pick][..., None])[..., 0].sum(1)
    position = torch.linalg.solve(total, pulled[..., None])[..., 0]
    share = (agrees * weight).sum(1) / weight.sum(1).clamp_min(1e-300)
    covariance = torch.where(lands[:, None, None], torch.linalg.inv(total), torch.nan)
    return torch.where(lands[:, None], position, torch.nan), covariance, share, torch.where(lands, over, 0.0)
