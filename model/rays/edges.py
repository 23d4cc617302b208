"""Where waves that leave an edge come down: curves of landing points, sampled.

A wave that meets a vertical corner or the edge of a flat roof leaves it on Keller's cone: at the angle to the edge with which it
arrived (Keller, J. Opt. Soc. Am. 52, 1962). The cone meets the height of a user in a curve: a circle around a corner, a
hyperbola behind a roof. Walls cut parts of it away and mirror others.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wavecity.model.rays.follow import Leg, Rays, march
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.walls import Walls

# Directions on a cone.
SAMPLES = 72
# An edge counts where a wave passes within so many standard deviations of its direction and this far beyond, m.
NEAR, MARGIN = 3.0, 0.25
# Edges of a wave's leg, walls before the edge and after it: those nearest, at most.
MOST_EDGES, WALLS_BEFORE, WALLS_AFTER = 3, 2, 2
# Corners that turn by less are windings of a round wall, radians.
SHARP = math.radians(15)
# Directions on a cone that fall by less a metre come down too far away.
LEAST_FALL = 0.03


@dataclass(frozen=True)
class Departures:
    """Rays that leave edges, and what is known of their landings before they are followed.

    How far a ray comes does not depend on the walls that mirror it.

    Attributes
    ----------
    ray : int64 (S,)
        By which of the waves' rays.
    rays : Rays
        (S,) on their way.
    length : float64 (S,)
        Of the whole way, m.
    level : float64 (S,)
        Over Friis at that length as far as the edge goes: ITU-R P.526's knife edge, dB.
    before : int64 (S,)
        Walls on the way to the edge.
    spacing : float64 (S,)
        Between neighbours on the curve, m.
    blur : float64 (S,)
        Metres that a landing moves if the wave's elevation moves by a radian.
    mismatch : float64 (S,)
        Between wave and edge, standard deviations.
    """

    ray: Tensor
    rays: Rays
    length: Tensor
    level: Tensor
    before: Tensor
    spacing: Tensor
    blur: Tensor
    mismatch: Tensor

    def at(self, index: Tensor) -> "Departures":
        """Some of them."""
        parts = {name: value[index] for name, value in vars(self).items() if name != "rays"}
        return Departures(rays=self.rays.at(index), **parts)


@dataclass(frozen=True)
class Curves:
    """Sampled landing points of diffracted waves.

    Attributes
    ----------
    sample : int64 (S,)
        Which of the departures.
    position : float64 (S, 2)
        Relative to the base station, m.
    walls : int64 (S,)
        On the way.
    """

    sample: Tensor
    position: Tensor
    walls: Tensor


@dataclass(frozen=True)
class _Meetings:
    """M meetings of a ray with an edge: a corner of `wall` and the one before, or the upper edge of `wall`."""

    ray: Tensor
    wall: Tensor
    corner: Tensor  # bool: a corner, or a roof's edge
    place: Tensor  # (M, 2)
    heading: Tensor  # (M, 2) on arrival
    level: Tensor
    gone: Tensor
    before: Tensor  # walls
    mismatch: Tensor


def departures(legs: list[Leg], fall: Tensor, spread: Tensor, worth: Tensor, walls: Walls, radio: Radio) -> Departures:
    """Rays by which waves leave the edges that they pass closely.

    Parameters
    ----------
    legs : list of Leg
        Of R rays from the base station; see `march`.
    fall : float64 (R,)
        Metres that they lose a metre.
    spread : float64 (R, 2)
        Standard deviation of their direction in azimuth and elevation, radians.
    worth : bool (R,)
        Which of them are looked at.
    walls : Walls
    radio : Radio

    Returns
    -------
    Departures
    """
    if not legs:
        nothing = fall.new_zeros(0)
        whole, flat = nothing.long(), nothing.view(0, 2)
        rays = Rays(flat, flat, nothing, nothing)
        return Departures(whole, rays, nothing, nothing, whole, nothing, nothing, nothing)
    met = [
        _meet(leg.of(worth[leg.ray]), number, fall, spread, walls)
        for number, leg in enumerate(legs[: WALLS_BEFORE + 1])
    ]
    meetings = _Meetings(*(torch.cat([getattr(part, name) for part in met]) for name in _Meetings.__dataclass_fields__))
    return _leave(meetings, fall, walls, radio)


def curves(leaving: Departures, walls: Walls, radio: Radio) -> Curves:
    """Where rays that have left edges come down; those that do not are left out."""
    landed, _ = march(leaving.rays, walls, radio.user_height, WALLS_AFTER)
    sample = landed.reached.nonzero()[:, 0]
    return Curves(sample, landed.position[sample], leaving.before[sample] + landed.bounces[sample])


def _meet(leg: Leg, number: int, fall: Tensor, spread: Tensor, walls: Walls) -> _Meetings:
    """Edges that the rays of one leg pass closely, before the wall at which it ends."""
    start, ray = leg.start, leg.ray
    reach = leg.way + MARGIN
    side, rise = spread[ray, 0, None], spread[ray, 1, None]
    of_corner = sharp_corners(walls).nonzero()[:, 0]
    corner = walls.start[of_corner]

    toward = corner[None] - start.place[:, None]
    along = (toward * start.heading[:, None]).sum(2)
    aside = (toward[..., 0] * start.heading[:, None, 1] - toward[..., 1] * start.heading[:, None, 0]).abs()
    level = start.level[:, None] - along * start.fall[:, None]
    away = leg.gone[:, None] + along
    width = MARGIN + NEAR * side * away
    low, high = walls.base[of_corner] - MARGIN, walls.top[of_corner] + MARGIN
    hits = (along > MARGIN) & (along < reach[:, None]) & (aside < width) & (level > low) & (level < high)
    # A corner's curve is around a ray that comes down; one that rises stays up.
    hits &= start.fall[:, None] > LEAST_FALL
    row, column = _nearest(torch.where(hits, aside / width, torch.inf))
    corners = _Meetings(
        ray[row],
        of_corner[column],
        torch.ones_like(row, dtype=torch.bool),
        corner[column],
        start.heading[row],
        level[row, column],
        away[row, column],
        torch.full_like(row, number),
        NEAR * (aside / width)[row, column],
    )

    run = walls.end - walls.start
    toward = walls.start[None] - start.place[:, None]
    cross = start.heading[:, 0, None] * run[:, 1] - start.heading[:, 1, None] * run[:, 0]
    parallel = cross.abs() < 1e-9
    cross = torch.where(parallel, 1.0, cross)
    along = (toward[..., 0] * run[:, 1] - toward[..., 1] * run[:, 0]) / cross
    share = (toward[..., 0] * start.heading[:, 1, None] - toward[..., 1] * start.heading[:, 0, None]) / cross
    over = (start.level[:, None] - along * start.fall[:, None] - walls.top).abs()
    away = leg.gone[:, None] + along
    width = MARGIN + NEAR * rise * away
    hits = ~parallel & (along > MARGIN) & (along < reach[:, None]) & (share >= 0) & (share <= 1) & (over < width)
    row, column = _nearest(torch.where(hits, over / width, torch.inf))
    roofs = _Meetings(
        ray[row],
        column,
        torch.zeros_like(row, dtype=torch.bool),
        start.place[row] + start.heading[row] * along[row, column, None],
        start.heading[row],
        walls.top[column],
        away[row, column],
        torch.full_like(row, number),
        NEAR * (over / width)[row, column],
    )
    return _Meetings(
        *(torch.cat((getattr(corners, name), getattr(roofs, name))) for name in _Meetings.__dataclass_fields__)
    )


def sharp_corners(walls: Walls) -> Tensor:
    """Which walls begin at a corner that sticks out, bool (W,)."""
    run = walls.end - walls.start
    run = run / run.norm(dim=1, keepdim=True)
    before = run[walls.previous]
    turn = torch.atan2(before[:, 0] * run[:, 1] - before[:, 1] * run[:, 0], (before * run).sum(1))
    return turn > SHARP


def _nearest(mismatch: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the `MOST_EDGES` smallest finite values of each row."""
    value, column = mismatch.topk(min(MOST_EDGES, mismatch.shape[1]), dim=1, largest=False)
    row, place = value.isfinite().nonzero(as_tuple=True)
    return row, column[row, place]


def _leave(met: _Meetings, fall: Tensor, walls: Walls, radio: Radio) -> Departures:
    """Rays on the cones outside the buildings."""
    angle = torch.arange(SAMPLES, dtype=torch.float64, device=fall.device) * (2 * math.pi / SAMPLES)
    slope = fall[met.ray]  # (M,)
    level = 1 / (1 + slope.square()).sqrt()
    arriving = torch.cat((met.heading * level[:, None], (-slope * level)[:, None]), 1)  # (M, 3)
    normal, other = walls.normal[met.wall], walls.normal[walls.previous[met.wall]]
    run = walls.end[met.wall] - walls.start[met.wall]
    run = run / run.norm(dim=1, keepdim=True)
    zero = torch.zeros_like(slope)
    # Around a corner: any heading, the same fall. At a roof: around its edge, of which what falls outwards is kept.
    headings = torch.stack((angle.cos(), angle.sin()), 1).expand(len(slope), -1, -1)
    corner = torch.cat((headings * level[:, None, None], arriving[:, None, 2:].expand(-1, SAMPLES, 1)), 2)
    edge = torch.cat((run, zero[:, None]), 1)
    along = (arriving * edge).sum(1)
    out = torch.cat((normal, zero[:, None]), 1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=fall.device)
    around = angle.cos()[:, None] * out[:, None] + angle.sin()[:, None] * up
    roof = along[:, None, None] * edge[:, None] + (1 - along.square()).clamp_min(0).sqrt()[:, None, None] * around
    leaving = torch.where(met.corner[:, None, None], corner, roof)  # (M, N, 3)
    plan = leaving[..., :2].norm(dim=2)
    falls = -leaving[..., 2] / plan.clamp_min(1e-9)
    facing, facing_other = ((leaving[..., :2] * side[:, None]).sum(2) for side in (normal, other))
    free = torch.where(met.corner[:, None], (facing > 0) | (facing_other > 0), facing > 0)
    of, sample = (free & (falls > LEAST_FALL)).nonzero(as_tuple=True)
    heading = leaving[of, sample, :2] / plan[of, sample, None]
    deflection = (leaving[of, sample] * arriving[of]).sum(1).clamp(-1, 1).acos()
    rays = Rays(met.place[of] + 1e-3 * heading, heading, met.level[of], falls[of, sample])
    return _measured(met, of, angle[sample], deflection, rays, fall, radio)


def _measured(
    met: _Meetings, of: Tensor, angle: Tensor, deflection: Tensor, rays: Rays, fall: Tensor, radio: Radio
) -> Departures:
    """Lengths, levels and spacings of rays that leave meetings `of`, at an angle on the cone, deflected by so much."""
    before = met.gone[of] * (1 + fall[met.ray[of]].square()).sqrt()
    flat = (rays.level - radio.user_height) / rays.fall
    after = flat * (1 + rays.fall.square()).sqrt()
    corner, arriving = met.corner[of], fall[met.ray[of]]
    # A corner's curve is a circle. Of a roof's cone the directions make equal angles around the edge, and the steeper cut the
    # ground closer together.
    sine = angle.sin().abs().clamp_min(1e-6)
    cone = rays.fall / (1 + rays.fall.square()).sqrt() / sine  # sine of half the cone's opening
    apart = torch.where(corner, flat, after * (cone.square() + (angle.cos() / sine).square()).sqrt())
    total = met.gone[of] + flat
    return Departures(
        ray=met.ray[of],
        rays=rays,
        length=before + after,
        level=knife_edge(deflection, before, after, radio.wavelength),
        before=met.before[of],
        spacing=apart * (2 * math.pi / SAMPLES),
        # The circle's radius is what is left of the whole way, which the elevation decides.
        blur=torch.where(corner, total / arriving.clamp_min(LEAST_FALL) * (1 + arriving.square()), total),
        mismatch=met.mismatch[of],
    )


def knife_edge(deflection: Tensor, before: Tensor, after: Tensor, wavelength: float) -> Tensor:
    """Level behind a knife edge over that without it, dB (ITU-R P.526, section 4.1).

    Parameters
    ----------
    deflection : float (S,)
        Angle by which the path turns, radians.
    before, after : float (S,)
        Ways to the edge and from it, m.
    wavelength : float
        m.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> round(knife_edge(0 * one, 50 * one, 50 * one, 0.0105).item(), 1)
    -6.0
    """
    v = deflection * (2 * before * after / (wavelength * (before + after)).clamp_min(1e-9)).sqrt()
    return -(6.9 + 20 * torch.log10(((v - 0.1).square() + 1).sqrt() + v - 0.1))
