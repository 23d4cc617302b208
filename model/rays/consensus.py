"""Where the landing points of a user's waves agree: the physics localiser, with nothing trained."""

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
# A direct path is no weaker than Friis by the first, and no path stronger by the second, dB.
WEAKER, STRONGER = 4.0, 3.0
# Landing points within so many standard deviations of the chosen one are averaged.
AGREEING = 3.0


@dataclass(frozen=True)
class Estimate:
    """Where B users are, from K waves each.

    Attributes
    ----------
    position : float64 (B, 2)
        Relative to the base station, east and north, m; nan where no wave lands.
    covariance : float64 (B, 2, 2)
        Of the average of the waves that agree, m^2.
    agreeing : float64 (B,)
        Their share of all weights, 0 to 1: how sure it is.
    landings : float64 (B, K, 2)
    usable : bool (B, K)
        Waves that land where users can be, at a plausible level.
    bounces : int64 (B, K)
    length : float64 (B, K)
        Of the waves' ways, m.
    landing_covariance : float64 (B, K, 2, 2)
        m^2.
    """

    position: Tensor
    covariance: Tensor
    agreeing: Tensor
    landings: Tensor
    usable: Tensor
    bounces: Tensor
    length: Tensor
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
        The landing point with the greatest density of all landing points, each a Gaussian of its covariance and
        `MAP_ERROR`, weighted by power; then the mean of those that agree with it, weighted by precision.
    """
    batch, most = waves.gain.shape
    radio = scene.radio
    landed = follow(waves.direction.flatten(0, 1), scene.walls.to(waves.gain.device), radio)
    place = landed.position.view(batch, most, 2)
    bounces, length = landed.bounces.view(batch, most), landed.length.view(batch, most)
    over_friis = 20 * torch.log10(waves.gain.abs().clamp_min(1e-30)) - radio.friis(length)
    plausible = (over_friis < STRONGER) & ((bounces > 0) | (over_friis > -WEAKER))
    west, south, east, north = scene.box
    inside = (place[..., 0] >= west) & (place[..., 0] <= east) & (place[..., 1] >= south) & (place[..., 1] <= north)
    usable = waves.found & landed.reached.view(batch, most) & plausible & inside
    unit = torch.eye(2, dtype=torch.float64, device=waves.gain.device)
    spread = torch.where(usable[..., None, None], _landing_covariance(waves, landed, radio) + MAP_ERROR**2 * unit, unit)
    power = waves.gain.abs().square()
    weight = torch.where(usable, (power / power.amax(1, keepdim=True).clamp_min(1e-300)) ** POWER_WEIGHT, 0.0)

    precision = torch.linalg.inv(spread)
    apart = place[:, :, None] - place[:, None]  # (B, candidate, wave, 2)
    away = torch.einsum("bcki,bkij,bckj->bck", apart, precision, apart)  # squared, in standard deviations
    density = weight[:, None] * torch.exp(-away / 2) * precision.det().sqrt()[:, None]
    score = torch.where(usable, density.sum(2), -1.0)
    best = score.argmax(1)
    near = away.gather(1, best[:, None, None].expand(-1, 1, most))[:, 0] < AGREEING**2
    together = torch.where(usable & near, 1.0, 0.0)
    total = (together[..., None, None] * precision).sum(1)
    total = torch.where(usable.any(1)[:, None, None], total, torch.eye(2, dtype=total.dtype, device=total.device))
    pulled = (together[..., None] * (precision @ place[..., None])[..., 0]).sum(1)
    position = torch.linalg.solve(total, pulled[..., None])[..., 0]
    position = torch.where(usable.any(1)[:, None], position, torch.nan)
    agreeing = (together * weight).sum(1) / weight.sum(1).clamp_min(1e-300)
    return Estimate(position, torch.linalg.inv(total), agreeing, place, usable, bounces, length, spread)


def _landing_covariance(waves: Waves, landed: Landings, radio: Radio) -> Tensor:
    """Covariance of the landing points (B, K, 2, 2), m^2: that of the directions, through the way without walls."""
    direction = waves.direction.flatten(0, 1)
    columns = []
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64, device=direction.device)
        step[axis] = 1e-6
        after, before = (
            radio.distance(moved[:, 1])[:, None] * radio.heading(moved)
            for moved in (direction + step, direction - step)
        )
        columns.append((after - before) / 2e-6)
    slope = landed.turned @ torch.stack(columns, -1)  # (R, 2, 2)
    return (slope @ waves.covariance.flatten(0, 1) @ slope.mT).view_as(waves.covariance)
