"""The ways of recovered waves through a scene, for pictures: from the base station over walls to where they come down."""

import torch
from torch import Tensor

from wavecity.model.rays.follow import BOUNCES, Rays, march
from wavecity.model.rays.surroundings import Surroundings

# Corners of a way: the base station, the walls, and its end.
CORNERS = BOUNCES + 2
# What is kept of a way that meets nothing, m in plan view.
STUB = 15.0


def ways(direction: Tensor, scene: Surroundings) -> tuple[Tensor, Tensor]:
    """Follow waves by mirrors alone and keep where they turn.

    Parameters
    ----------
    direction : float (R, 2)
        Direction cosines of departure, along the panel and down.
    scene : Surroundings

    Returns
    -------
    corners : float32 (R, CORNERS, 3)
        East, north and up from the base station, m: the base station itself, every wall that mirrors, and the end; nan
        after it. A way that does not come down ends at the building that it meets, or after `STUB`.
    lands : bool (R,)
        Whether it comes down to the height of a user, outside buildings.

    Examples
    --------
    >>> scene = surroundings("runs/quickstart/store", 0)  # doctest: +SKIP
    >>> corners, lands = ways(torch.tensor([[0.0, 0.1]]), scene)  # doctest: +SKIP
    """
    rays = Rays.leaving(direction.double(), scene.radio)
    landings, legs = march(rays, scene.walls, scene.radio.user_height)
    corners = rays.place.new_full((len(direction), CORNERS, 3), torch.nan)
    for number, leg in enumerate(legs):
        start = leg.start
        way = torch.where(leg.way.isfinite(), leg.way, STUB)[:, None]
        corners[leg.ray, number] = torch.cat((start.place, start.level[:, None]), 1)
        end = (start.place + start.heading * way, start.level[:, None] - way * start.fall[:, None])
        corners[leg.ray, number + 1] = torch.cat(end, 1)
    corners[..., 2] -= scene.radio.bs_height
    return corners.float(), landings.reached
