"""Waves followed from the base station: mirrored at walls in plan view until they are down at a user's height."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.radio import Radio
from wavecity.model.rays.walls import Blocks, Walls

# A path of more mirrorings than this has lost its power.
BOUNCES = 5
# A hit this close to the start is the wall that the ray has just left, m.
CLOSE = 1e-6
# A ray that loses less than this a metre does not come down by itself.
RISES = 1e-4
# Margin around a block of walls, m.
AROUND = 1e-3
# Rays times walls at a time: what fits a core's cache takes half the time of what does not.
CHUNK = 400_000


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
        Way to the landing, m.
    reached : bool (R,)
        False where the ray never lands: it came down on a roof, or was still on its way after `BOUNCES` walls.
    """

    position: Tensor
    turned: Tensor
    bounces: Tensor
    length: Tensor
    reached: Tensor


@dataclass(frozen=True)
class Rays:
    """R rays on their way, in plan view.

    Attributes
    ----------
    place, heading : float64 (R, 2)
        Where they are relative to the base station, m; and their unit direction.
    level : float64 (R,)
        Their height there, m.
    fall : float64 (R,)
        How much of it they lose a metre.
    """

    place: Tensor
    heading: Tensor
    level: Tensor
    fall: Tensor

    @classmethod
    def leaving(cls, direction: Tensor, radio: Radio) -> "Rays":
        """Those that leave the base station with direction cosines (R, 2)."""
        down = direction[:, 1]
        fall = down / (1 - down.square()).clamp_min(1e-12).sqrt()
        return cls(torch.zeros_like(direction), radio.heading(direction), torch.full_like(fall, radio.bs_height), fall)

    def at(self, index: Tensor) -> "Rays":
        """Some of them."""
        return Rays(self.place[index], self.heading[index], self.level[index], self.fall[index])


@dataclass(frozen=True)
class Leg:
    """A straight part of the way of some rays.

    Attributes
    ----------
    ray : int64 (F,)
        Which ones.
    start : Rays
        At its start.
    gone : float64 (F,)
        Way in plan view before it, m.
    way : float64 (F,)
        Its length in plan view, m; infinite where nothing is met.
    """

    ray: Tensor
    start: Rays
    gone: Tensor
    way: Tensor

    def of(self, rays: Tensor) -> "Leg":
        """That of some of its rays, bool (F,)."""
        return Leg(self.ray[rays], self.start.at(rays), self.gone[rays], self.way[rays])


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
    rays = Rays.leaving(direction, radio)
    return march(rays, walls, radio.user_height)[0]


def march(rays: Rays, walls: Walls, user_height: float, most: int = BOUNCES) -> tuple[Landings, list[Leg]]:
    """Follow rays from where they are to the height of a user, over at most so many walls; and their legs in turn."""
    # An empty tensor splits into one empty part.
    indices = torch.arange(len(rays.fall), device=rays.fall.device).split(max(CHUNK // len(walls.top), 1))
    parts = [_march(rays.at(index), walls, user_height, most) for index in indices]
    landings = Landings(
        *(torch.cat([getattr(part, name) for part, _ in parts]) for name in Landings.__dataclass_fields__)
    )
    legs: list[Leg] = []
    for bounce in range(max((len(part) for _, part in parts), default=0)):
        of_all = [(index, part[bounce]) for index, (_, part) in zip(indices, parts, strict=True) if bounce < len(part)]
        starts = [leg.start for _, leg in of_all]
        legs.append(
            Leg(
                torch.cat([index[leg.ray] for index, leg in of_all]),
                Rays(*(torch.cat([getattr(start, name) for start in starts]) for name in Rays.__dataclass_fields__)),
                torch.cat([leg.gone for _, leg in of_all]),
                torch.cat([leg.way for _, leg in of_all]),
            )
        )
    return landings, legs


def _march(rays: Rays, walls: Walls, user_height: float, most: int) -> tuple[Landings, list[Leg]]:
    count, device = len(rays.fall), rays.fall.device
    place, heading, level, fall = rays.place.clone(), rays.heading.clone(), rays.level.clone(), rays.fall
    gone = torch.zeros(count, dtype=torch.float64, device=device)
    turned = torch.eye(2, dtype=torch.float64, device=device).repeat(count, 1, 1)
    bounces = torch.zeros(count, dtype=torch.int64, device=device)
    flying = torch.ones(count, dtype=torch.bool, device=device)
    landed = torch.zeros_like(flying)
    normal = walls.normal
    legs = []
    for bounce in range(most + 1):
        index = flying.nonzero()[:, 0]
        if not len(index):
            break
        here = Rays(place[index], heading[index], level[index], fall[index])
        left = torch.where(here.fall > RISES, (here.level - user_height) / here.fall.clamp_min(RISES), torch.inf)
        way, wall = first_wall(here, walls, left)
        legs.append(Leg(index, here, gone[index], torch.minimum(way, left)))
        lands = (way >= left) & left.isfinite()
        landed[index] = lands
        # What goes on is at a wall that it met from outside.
        facing = normal[wall]
        on = ~lands & way.isfinite() & ((here.heading * facing).sum(1) < 0) & (bounce < most)
        way = torch.where(lands, left, torch.where(on, way, 0.0))
        place[index] += here.heading * way[:, None]
        level[index] -= way * here.fall
        gone[index] += way
        flying[index] = on
        mirror = torch.eye(2, dtype=torch.float64, device=device) - 2 * facing[:, :, None] * facing[:, None, :]
        index, mirror = index[on], mirror[on]
        heading[index] = (mirror @ heading[index, :, None])[..., 0]
        turned[index] = mirror @ turned[index]
        bounces[index] += 1
    reached = landed & ~_indoors(
        Rays(place, heading, torch.full_like(level, user_height), torch.zeros_like(level)), walls
    )
    length = gone * (1 + fall.square()).sqrt()
    return Landings(place, turned, bounces, length, reached), legs


def _indoors(rays: Rays, walls: Walls) -> Tensor:
    """Whether level rays are in a building: the next wall is met from inside."""
    way, wall = first_wall(rays, walls)
    return way.isfinite() & ((rays.heading * walls.normal[wall]).sum(1) > 0)


def first_wall(rays: Rays, walls: Walls, reach: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The first wall that a ray meets between its base and its top.

    Parameters
    ----------
    rays : Rays
    walls : Walls
    reach : float64 (R,), optional
        Of walls beyond it nothing has to be said, m.

    Returns
    -------
    way : float64 (R,)
        To that wall in plan view, infinite where there is none, m.
    wall : int64 (R,)
        Which one; 0 where there is none.
    """
    blocks = walls.blocks
    ray, block = _near_blocks(rays, blocks, reach)
    x, y = (blocks.start_x[block] - rays.place[ray, :1]), (blocks.start_y[block] - rays.place[ray, 1:])  # (P, BLOCK)
    along_x, along_y = blocks.along_x[block], blocks.along_y[block]
    east, north = rays.heading[ray, :1], rays.heading[ray, 1:]
    cross = east * along_y - north * along_x
    meets = cross.abs() > 1e-12
    cross = torch.where(meets, cross, 1.0)
    way = (x * along_y - y * along_x) / cross
    share = (x * north - y * east) / cross
    height = rays.level[ray, None] - way * rays.fall[ray, None]
    meets &= (
        (way > CLOSE) & (share >= 0) & (share <= 1) & (height >= blocks.base[block]) & (height <= blocks.top[block])
    )
    pair = meets.nonzero(as_tuple=True)
    ray, wall, way = ray[pair[0]], blocks.wall[block[pair[0]], pair[1]], way[pair]
    nearest = torch.full_like(rays.fall, torch.inf).scatter_reduce(0, ray, way, "amin")
    # Of walls at the same place, the first.
    first = way == nearest[ray]
    which = ray.new_full((len(nearest),), len(walls.top)).scatter_reduce(0, ray[first], wall[first], "amin")
    return nearest, torch.where(nearest.isfinite(), which, 0)


def _near_blocks(rays: Rays, blocks: Blocks, reach: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pairs of a ray and a block that it may meet a wall of."""
    side = torch.stack((rays.heading[:, 1], -rays.heading[:, 0]), 1)
    aside = side @ blocks.centre.mT - (rays.place * side).sum(1, keepdim=True)  # (R, N)
    ahead = rays.heading @ blocks.centre.mT - (rays.place * rays.heading).sum(1, keepdim=True)
    radius = blocks.radius + AROUND
    near = (aside.abs_() <= radius) & (ahead >= -radius)
    if reach is not None:
        near &= ahead <= reach[:, None] + radius
    # Where a ray that comes down leaves a block it is lowest.
    near &= (ahead + radius) * rays.fall[:, None].clamp_min(0) >= rays.level[:, None] - blocks.highest - AROUND
    ray, block = near.nonzero(as_tuple=True)
    return ray, block
