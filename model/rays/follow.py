"""Waves followed from the base station: mirrored at walls in plan view until they are down at a user's height."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.radio import Radio
from wavecity.model.rays.walls import Walls

# A path of more mirrorings than this has lost its power.
BOUNCES = 5
# A hit this close to the start is the wall that the ray has just left, m.
CLOSE = 1e-6
CHUNK = 4_000_000


@dataclass(frozen=True)
class Landings:
    """Where R rays come down.

    Attributes
    ----------
    position : float64 (R, 2)
        In plan view relative to the base station, m.
    turned : float64 (R, 2, 2)
        Mirrorings so far: turns directions at departure to those at the landing.
    bounces : int64 (R,)
    length : float64 (R,)
        Way from the base station to the landing, m.
    reached : bool (R,)
        False where the ray never lands: it came down on a roof, or was still on its way after `BOUNCES` walls.
    """

    position: Tensor
    turned: Tensor
    bounces: Tensor
    length: Tensor
    reached: Tensor


def follow(direction: Tensor, walls: Walls, radio: Radio) -> Landings:
    """Follow rays from the panel to the height of a user.

    Parameters
    ----------
    direction : float64 (R, 2)
        Direction cosines of departure: along the panel's x axis, and down (positive).
    walls : Walls
    radio : Radio

    Returns
    -------
    Landings
        A wall reflects where a ray meets it from outside between its base and its top. A ray that meets one from inside
        has come down through the roof before.

    Examples
    --------
    >>> radio = Radio(28.5e9, 0.5, 15.0, 1.5, 5.24 - 0.4j)
    >>> south = follow(torch.tensor([[0.0, 0.1]], dtype=torch.float64), Walls.of_rings([], [], []), radio)
    >>> [round(x, 1) for x in south.position[0].tolist()]
    [0.0, -134.3]
    """
    parts = direction.split(max(CHUNK // max(len(walls.top), 1), 1))
    landings = [_follow(part, walls, radio) for part in parts]
    return Landings(*(torch.cat([getattr(part, name) for part in landings]) for name in Landings.__dataclass_fields__))


def _follow(direction: Tensor, walls: Walls, radio: Radio) -> Landings:
    rays, device = len(direction), direction.device
    down = direction[:, 1]
    fall = down / (1 - down.square()).clamp_min(1e-12).sqrt()  # metres down a metre in plan view
    whole = radio.distance(down)
    left = whole.clone()  # way in plan view until it is down
    level = torch.full_like(down, radio.bs_height)
    heading = radio.heading(direction)
    place = torch.zeros_like(heading)
    turned = torch.eye(2, dtype=torch.float64, device=device).repeat(rays, 1, 1)
    bounces = torch.zeros(rays, dtype=torch.int64, device=device)
    flying = torch.ones(rays, dtype=torch.bool, device=device)
    landed = torch.zeros_like(flying)
    normal = walls.normal
    for bounce in range(BOUNCES + 1):
        index = flying.nonzero()[:, 0]
        if not len(index):
            break
        way, wall = first_wall(place[index], heading[index], level[index], fall[index], walls)
        lands = (way >= left[index]) & left[index].isfinite()
        landed[index] = lands
        # What goes on is at a wall that it met from outside.
        facing = normal[wall]
        on = ~lands & way.isfinite() & ((heading[index] * facing).sum(1) < 0) & (bounce < BOUNCES)
        way = torch.where(lands, left[index], torch.where(on, way, 0.0))
        place[index] += heading[index] * way[:, None]
        left[index] -= way
        level[index] -= way * fall[index]
        flying[index] = on
        mirror = torch.eye(2, dtype=torch.float64, device=device) - 2 * facing[:, :, None] * facing[:, None, :]
        index, mirror = index[on], mirror[on]
        heading[index] = (mirror @ heading[index, :, None])[..., 0]
        turned[index] = mirror @ turned[index]
        bounces[index] += 1
    reached = landed & ~_indoors(place, heading, walls, radio)
    return Landings(place, turned, bounces, torch.hypot(whole, torch.full_like(whole, radio.drop)), reached)


def _indoors(place: Tensor, heading: Tensor, walls: Walls, radio: Radio) -> Tensor:
    """Whether places (R, 2) at a user's height are in a building: the next wall is met from inside."""
    level = torch.full_like(place[:, 0], radio.user_height)
    way, wall = first_wall(place, heading, level, torch.zeros_like(level), walls)
    return way.isfinite() & ((heading * walls.normal[wall]).sum(1) > 0)


def first_wall(place: Tensor, heading: Tensor, level: Tensor, fall: Tensor, walls: Walls) -> tuple[Tensor, Tensor]:
    """The first wall that a ray meets between its base and its top.

    Parameters
    ----------
    place, heading : float64 (R, 2)
        Where the ray is and its unit direction, in plan view.
    level, fall : float64 (R,)
        Its height there, and how much of it is lost a metre, m.
    walls : Walls

    Returns
    -------
    way : float64 (R,)
        To that wall in plan view, infinite where there is none, m.
    wall : int64 (R,)
        Which one; 0 where there is none.
    """
    start, along = walls.start - place[:, None], walls.end - walls.start  # (R, W, 2), (W, 2)
    east, north = heading[:, 0, None], heading[:, 1, None]
    cross = east * along[:, 1] - north * along[:, 0]
    meets = cross.abs() > 1e-12
    cross = torch.where(meets, cross, 1.0)
    way = (start[..., 0] * along[:, 1] - start[..., 1] * along[:, 0]) / cross
    share = (start[..., 0] * north - start[..., 1] * east) / cross
    height = level[:, None] - way * fall[:, None]
    meets &= (way > CLOSE) & (share >= 0) & (share <= 1) & (height >= walls.base) & (height <= walls.top)
    return torch.where(meets, way, torch.inf).min(1)
