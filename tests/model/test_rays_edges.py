"""Waves around edges: against the shortest way by search, and the levels of ITU-R P.526."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ray_channels import RADIO, cosines, known

from wavecity.model.rays.consensus import consensus
from wavecity.model.rays.edges import Curves, Departures, curves, departures, knife_edge
from wavecity.model.rays.follow import Rays, march
from wavecity.model.rays.surroundings import Surroundings
from wavecity.model.rays.walls import Walls


def keller(source: np.ndarray, user: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The point of an edge with the shortest way from source to user by it: by search, not by angles."""
    share = np.linspace(0, 1, 2_000_001)[:, None]
    points = start + share * (end - start)
    return points[np.argmin(np.linalg.norm(points - source, axis=1) + np.linalg.norm(points - user, axis=1))]


def around_edges(direction: torch.Tensor, walls: Walls) -> tuple[Departures, Curves]:
    """What of the wave of a direction (1, 2) comes down behind edges."""
    rays = Rays.leaving(direction, RADIO)
    _, legs = march(rays, walls, 1.5)
    spread, every = torch.full((1, 2), 1e-5, dtype=torch.float64), torch.ones(1, dtype=torch.bool)
    leaving = departures(legs, rays.fall, spread, every, walls, RADIO)
    found = curves(leaving, walls, RADIO)
    return leaving.at(found.sample), found


BLOCK = [[5, -80], [45, -80], [45, -40], [5, -40], [5, -80]]


@pytest.mark.parametrize(
    ("height", "start", "end", "user"),
    [
        (20.0, [5, -80, 0], [5, -80, 20], [20, -110, 1.5]),  # around a corner
        (9.0, [5, -80, 9], [45, -80, 9], [25, -100, 1.5]),  # over the roof and down behind it
        (22.0, [5, -40, 22], [45, -40, 22], [15, -30, 1.5]),  # up to the edge of a roof above the base station
    ],
)
def test_the_curve_around_an_edge_leads_to_the_user(height, start, end, user) -> None:
    walls = Walls.of_rings([(BLOCK, True)], [0.0], [height])
    source, user, start, end = (np.array(point, float) for point in ([0, 0, 15], user, start, end))
    point = keller(source, user, start, end)
    direction = torch.from_numpy(cosines(point[None]))
    bent, curve = around_edges(direction, walls)
    apart = np.linalg.norm(curve.position.numpy() - user[:2], axis=1)
    nearest = int(apart.argmin())
    assert apart[nearest] < bent.spacing[nearest]
    way = np.linalg.norm(point - source) + np.linalg.norm(point - user)
    assert bent.length[nearest].item() == pytest.approx(way, abs=bent.spacing[nearest].item())
    assert curve.walls[nearest] == 0
    assert not bent.ray.any()


def test_no_ray_goes_from_an_edge_through_its_own_house() -> None:
    walls = Walls.of_rings([(BLOCK, True)], [0.0], [20.0])
    _, curve = around_edges(torch.from_numpy(cosines(np.array([[5.0, -40.0, 6.0]]))), walls)
    x, y = curve.position.T
    assert len(x) > 10
    assert not ((x > 5) & (x < 45) & (y > -80) & (y < -40)).any()
    # What is behind the house from that corner is reached by none of its rays.
    assert not ((x > 8) & (y < -40)).any()


@pytest.mark.parametrize(("height", "point"), [(20.0, [5, -80, 6.0]), (9.0, [21.0, -80, 9.0])])
def test_neighbours_of_a_curve_are_as_far_apart_as_it_says(height: float, point: list[float]) -> None:
    walls = Walls.of_rings([(BLOCK, True)], [0.0], [height])
    direction = torch.from_numpy(cosines(np.array([point])))
    bent, curve = around_edges(direction, walls)
    apart = (curve.position[1:] - curve.position[:-1]).norm(dim=1)
    between = (bent.spacing[1:] + bent.spacing[:-1]) / 2
    near = (apart < 3 * apart.median()) & (curve.walls[1:] == 0) & (curve.walls[:-1] == 0)
    assert near.sum() > 5
    assert (apart[near] / between[near]).median().item() == pytest.approx(1, abs=0.15)
    if height > 15:  # around the corner: the circle's radius follows the elevation
        elevation = math.asin(direction[0, 1].item()) + 1e-5
        east = direction[0, 0].item() * math.cos(elevation) / math.cos(elevation - 1e-5)
        _, moved = around_edges(torch.tensor([[east, math.sin(elevation)]], dtype=torch.float64), walls)
        step = (moved.position - curve.position).norm(dim=1) / 1e-5
        assert step.numpy() == pytest.approx(bent.blur.numpy(), rel=0.02)


def test_two_edges_say_where_a_user_in_shadow_is() -> None:
    walls = Walls.of_rings([(BLOCK, True)], [0.0], [14.0])
    user = np.array([16.0, -100.0, 1.5])
    source = np.array([0, 0, 15.0])
    points = [
        keller(source, user, np.array([5, -80, 0.0]), np.array([5, -80, 14.0])),
        keller(source, user, np.array([5, -80, 14.0]), np.array([45, -80, 14.0])),
    ]
    ways = [np.linalg.norm(point - source) + np.linalg.norm(point - user) for point in points]
    waves = known(cosines(np.array(points)), [0.0, 0.0])
    level = RADIO.friis(torch.tensor(ways)) - torch.tensor(
        [41.0, 43.0]
    )  # by P.526 for their angles of 25 and 31 degrees
    waves = replace(waves, gain=(10 ** (level / 20)).to(torch.complex128)[None])
    found = consensus(waves, Surroundings(walls, RADIO, (-100.0, -200.0, 100.0, 0.0)))
    assert found.edges[0, 0].any()
    assert np.linalg.norm(found.position[0].numpy() - user[:2]) < 3


def test_levels_behind_a_knife_edge() -> None:
    # ITU-R P.526: 6.0 dB at grazing, and the asymptote 13 + 20 log v of deep shadow.
    one = torch.ones(1, dtype=torch.float64)
    assert knife_edge(0 * one, 50 * one, 50 * one, 0.01).item() == pytest.approx(-6.0, abs=0.05)
    for turned in (0.1, 0.5):
        v = turned * math.sqrt(2 * 50 * 50 / (0.01 * 100))
        expected = -(13 + 20 * math.log10(v))
        assert knife_edge(turned * one, 50 * one, 50 * one, 0.01).item() == pytest.approx(expected, abs=0.3)
