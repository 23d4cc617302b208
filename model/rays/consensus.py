"""Where the landing points of a user's waves agree: the physics localiser, with nothing trained."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.follow import Landings, follow
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.waves import Waves

# Of the landing points beyond what the waves' covariance says, m: corners of the map, walls that are not flat.
MAP_ERROR = 0.5
# Weight of a wave: its power to this exponent. The strongest must not outvote two that agree.
POWER_WEIGHT = 0.3
# What a wall takes from a wave, and how far a level may be from what the walls leave of Friis: of direct and of other paths, dB.
WALL_LOSS, DIRECT_SPREAD, SPREAD = 7.0, 1.5, 5.0
# No path is stronger than a direct one by more, dB.
STRONGER = 3.0
# Landing points within so many standard deviations of the chosen one are averaged.
AGREEING = 3.0


@dataclass(frozen=True)
class Estimate:
    """Where B users are, from K waves with A directions each.

    Attributes
    ----------
    position : float64 (B, 2)
        Relative to the base station, east and north, m; nan where no wave lands.
    covariance : float64 (B, 2, 2)
        Of the average of the waves that agree, m^2.
    agreeing : float64 (B,)
        Their share of the weights of all waves, 0 to 1.
    landings : float64 (B, K, A, 2)
        Where each of a wave's directions comes down, m.
    usable : bool (B, K, A)
        Those that come down where users can be, no stronger than a direct path.
    bounces : int64 (B, K, A)
        Walls on the way.
    landing_covariance : float64 (B, K, A, 2, 2)
        m^2.
    """

    position: Tensor
    covariance: Tensor
    agreeing: Tensor
    landings: Tensor
    usable: Tensor
    bounces: Tensor
    landing_covariance: Tensor


def consensus(waves: Waves, scene: Surroundings) -> Estimate:
    """Follow the waves of B users of one scene, and find where they agree.

    Parameters
    ----------
    waves : Waves
    scene : Surroundings

    Returns
    -------
    Estimate
        Each wave says where the user is by a mixture: a Gaussian around each landing point, of the direction's covariance
        and `MAP_ERROR`, weighted by the direction's likelihood and by how well its level fits the number of walls on the
        way; and a constant density over the box for a wave that came another way. The position is the landing point with
        the greatest product of all mixtures, waves weighted by power; and then the average of all landing points that agree
        with it, weighted by precision.
    """
    batch, most, modes = waves.likelihood.shape
    radio = scene.radio
    landed = follow(waves.other_direction.flatten(0, 2), scene.walls.to(waves.gain.device), radio)
    place, bounces = landed.position.view(batch, most, modes, 2), landed.bounces.view(batch, most, modes)
    over_friis = 20 * torch.log10(waves.gain.abs().clamp_min(1e-30))[..., None] - radio.friis(landed.length.view_as(bounces))
    west, south, east, north = scene.box
    inside = (place[..., 0] >= west) & (place[..., 0] <= east) & (place[..., 1] >= south) & (place[..., 1] <= north)
    usable = landed.reached.view_as(inside) & inside & (over_friis < STRONGER) & waves.likelihood.isfinite()
    usable &= waves.found[..., None]

    unit = torch.eye(2, dtype=torch.float64, device=place.device)
    spread = _landing_covariance(waves, landed, radio) + MAP_ERROR**2 * unit
    spread = torch.where(usable[..., None, None], spread, unit)
    precision = torch.linalg.inv(spread)
    sigma = torch.where(bounces > 0, SPREAD, DIRECT_SPREAD)
    fits = -((over_friis + WALL_LOSS * bounces) / sigma).square() / 2 - sigma.log()
    # A wave's directions share its probability.
    prior = waves.likelihood - waves.likelihood.exp().sum(2, keepdim=True).clamp_min(1.0).log()
    log_weight = torch.where(usable, prior + fits + precision.det().log() / 2 - math.log(2 * math.pi), -torch.inf)

    points = place.flatten(1, 2)  # (B, C, 2): every landing point is a candidate
    apart = points[:, :, None, None] - place[:, None]  # (B, C, K, A, 2)
    away = (apart[..., None, :] @ precision[:, None] @ apart[..., None])[..., 0, 0]  # squared, in standard deviations
    elsewhere = torch.full_like(away[..., :1], -math.log((east - west) * (north - south)))
    says = torch.cat((log_weight[:, None] - away / 2, elsewhere), -1).logsumexp(-1)  # (B, C, K)
    power = waves.gain.abs().square()
    weight = torch.where(usable.any(2), (power / power.amax(1, keepdim=True).clamp_min(1e-300)) ** POWER_WEIGHT, 0.0)
    score = torch.where(usable.flatten(1), (weight[:, None] * says).sum(2), -torch.inf)
    best = score.argmax(1)

    rows = torch.arange(batch, device=place.device)
    near = (away[rows, best] < AGREEING**2) & usable
    # Of a wave, the direction that says it most.
    said = torch.where(near, log_weight - away[rows, best] / 2, -torch.inf)
    chosen = said.argmax(2, keepdim=True)
    agrees = near.any(2)
    pick = (rows[:, None], torch.arange(most, device=place.device), chosen[..., 0])
    together = agrees[..., None, None] * precision[pick]
    lands = usable.any(2).any(1)
    total = torch.where(lands[:, None, None], together.sum(1), unit)
    pulled = (together @ place[pick][..., None])[..., 0].sum(1)
    position = torch.linalg.solve(total, pulled[..., None])[..., 0]
    return Estimate(
        position=torch.where(lands[:, None], position, torch.nan),
        covariance=torch.linalg.inv(total),
        agreeing=(agrees * weight).sum(1) / weight.sum(1).clamp_min(1e-300),
        landings=place,
        usable=usable,
        bounces=bounces,
        landing_covariance=spread,
    )


def _landing_covariance(waves: Waves, landed: Landings, radio: Radio) -> Tensor:
    """Covariance of the landing points (B, K, A, 2, 2), m^2: that of the directions, through the way without walls."""
    direction = waves.other_direction.flatten(0, 2)
    columns = []
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64, device=direction.device)
        step[axis] = 1e-6
        after, before = (
            radio.distance(moved[:, 1])[:, None] * radio.heading(moved) for moved in (direction + step, direction - step)
        )
        columns.append((after - before) / 2e-6)
    slope = (landed.turned @ torch.stack(columns, -1)).view(*waves.likelihood.shape, 2, 2)
    return slope @ waves.covariance[:, :, None] @ slope.mT
