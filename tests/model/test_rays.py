"""Waves of a channel, where they go, and whose they are: against theory and against the ray tracer's own paths."""

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch

import wavecity
from wavecity.dataset import InputError
from wavecity.model.data.noise import gaussian
from wavecity.model.rays import consensus as agreement
from wavecity.model.rays.consensus import consensus
from wavecity.model.rays.dictionary import Dictionary
from wavecity.model.rays.edges import Curves, Departures, curves, departures, knife_edge
from wavecity.model.rays.follow import Rays, first_wall, follow, march
from wavecity.model.rays.locate import locate
from wavecity.model.rays.radio import SPEED_OF_LIGHT, Radio, permittivity
from wavecity.model.rays.surroundings import Surroundings, radio_of, surroundings
from wavecity.model.rays.walls import Walls
from wavecity.model.rays.waves import Waves, recover

RADIO = Radio(28.5e9, 0.5, 15.0, 1.5, permittivity("concrete", 28.5e9))
EVERY = torch.ones(16, 16, dtype=torch.bool)


def cosines(place: np.ndarray, bs_height: float = 15.0) -> np.ndarray:
    """Direction cosines east and down towards points (N, 3) of a base station above the origin."""
    way = place - [0, 0, bs_height]
    return np.stack((way[:, 0], -way[:, 2]), 1) / np.linalg.norm(way, axis=1, keepdims=True)


def plane(direction: np.ndarray, size: int = 16) -> np.ndarray:
    """Steering vectors (N, x, y) of a centred half-wavelength array."""
    index = np.arange(size) - (size - 1) / 2
    return np.exp(1j * np.pi * (index[:, None] * direction[:, 0, None, None] + index * direction[:, 1, None, None]))


def two_rays(place: np.ndarray, size: int = 16) -> np.ndarray:
    """Channels (N, x, y) of users at (N, 3): the direct ray and the one off the ground, by the image of the user."""
    wavelength = SPEED_OF_LIGHT / 28.5e9
    channel = np.zeros((len(place), size, size), complex)
    for sign in (1.0, -1.0):
        image = place * [1, 1, sign]
        length = np.linalg.norm(image - [0, 0, 15], axis=1)
        gain = wavelength / (4 * np.pi * length) * np.exp(-2j * np.pi * length / wavelength)
        if sign < 0:  # Fresnel for the electric field in the plane of incidence, from the two media's wave impedances
            incidence = np.arccos((15 - image[:, 2]) / length)
            index = np.sqrt(RADIO.permittivity)
            refracted = np.sqrt(1 - (np.sin(incidence) / index) ** 2)
            gain = gain * (index * np.cos(incidence) - refracted) / (index * np.cos(incidence) + refracted)
        channel += gain[:, None, None] * plane(cosines(image), size)
    return channel


def test_a_street_user_is_one_wave_with_its_bounce() -> None:
    place = np.array([[20.0, -60.0, 1.5], [-35.0, -110.0, 1.5], [3.0, -25.0, 1.5], [60.0, -150.0, 1.5]])
    csi = torch.from_numpy(two_rays(place))
    waves = recover(csi, EVERY, torch.zeros(4), RADIO, waves=1)
    assert waves.bounced[:, 0].all()
    assert waves.direction[:, 0].numpy() == pytest.approx(cosines(place), abs=1e-6)
    length = np.linalg.norm(place - [0, 0, 15], axis=1)
    assert waves.gain[:, 0].abs().numpy() == pytest.approx(RADIO.wavelength / (4 * math.pi * length), rel=1e-4)
    assert waves.unexplained.max() < 1e-8
    # One wave without the bounce would be metres off: what a peak of the spectrum shows is a mixture of two.
    assert waves.channel(RADIO, 16, 16).numpy() == pytest.approx(csi.numpy(), abs=1e-4 * csi.abs().max().item())


def test_errors_are_those_of_the_cramer_rao_bound() -> None:
    draws, size = 300, 24  # with fewer antennas or more noise it may lock on to another turn of the bounce's phase
    rng = np.random.default_rng(3)
    place = np.repeat([[25.0, -70.0, 1.5]], draws, 0)
    csi = torch.from_numpy(two_rays(place, size))
    shown = torch.from_numpy(rng.random((size, size)) < 0.5)
    noise = csi.abs().square().mean((1, 2)) * 10**-2.0
    noisy = csi + noise.sqrt()[:, None, None] * gaussian(rng, tuple(csi.shape))
    waves = recover(noisy, shown, noise, RADIO, waves=1)
    error = waves.direction[:, 0].numpy() - cosines(place)

    # The bound from the channel's own derivatives, by differences: unknown are both cosines and a complex gain.
    def signal(values: np.ndarray) -> np.ndarray:
        east, down, real, imaginary = values
        ahead = math.sqrt(1 - east**2 - down**2)
        user = 13.5 / down * np.array([east, -ahead, 0]) + [0, 0, 1.5]
        return ((real + 1j * imaginary) * two_rays(user[None], size) / (RADIO.wavelength / (4 * np.pi * 13.5 / down)))[
            0
        ][shown]

    length = float(np.linalg.norm(place[0] - [0, 0, 15]))
    at = np.array([*cosines(place[:1])[0], RADIO.wavelength / (4 * math.pi * length), 0.0])
    steps = np.array([1e-7, 1e-7, 1e-9, 1e-9])
    # The direct ray's phase by its length is part of the gain: taken out, so that only what an array sees is left.
    columns = []
    for axis in range(4):
        step = np.eye(4)[axis] * steps
        turn = [np.exp(2j * np.pi * 13.5 / (at + sign * step)[1] / RADIO.wavelength) for sign in (1, -1)]
        columns.append((signal(at + step) * turn[0] - signal(at - step) * turn[1]) / (2 * steps[axis]))
    fisher = 2 / float(noise[0]) * np.real(np.conj(columns) @ np.transpose(columns))
    bound = np.linalg.inv(fisher)[:2, :2]
    normed = np.einsum("ni,ij,nj->n", error, np.linalg.inv(bound), error)
    assert normed.mean() == pytest.approx(2.0, rel=0.2)  # chi-squared with two degrees of freedom
    stated = waves.covariance[:, 0].numpy().mean(0)
    assert np.diag(stated) == pytest.approx(np.diag(bound), rel=0.25)


def test_noise_is_not_taken_for_a_third_wave() -> None:
    rng = np.random.default_rng(5)
    place = np.array([[20.0, -60.0, 1.5], [-50.0, -80.0, 1.5]])
    csi = torch.from_numpy(two_rays(place, 32)[:1] + 0.3 * two_rays(place, 32)[1:])
    noise = csi.abs().square().mean((1, 2)) / 100
    noisy = (csi + noise.sqrt()[:, None, None] * gaussian(rng, (12, 32, 32))).to(torch.complex64)
    every = torch.ones(32, 32, dtype=torch.bool)
    waves = recover(noisy, every, noise.expand(12), RADIO)
    assert (waves.found.sum(1) == 2).float().mean() > 0.9
    assert (waves.direction[:, :2] - torch.from_numpy(cosines(place))).abs().median() < 1e-3
    # Alone or among others, and with an empty channel between them.
    alone = recover(noisy[3:4], every, noise, RADIO)
    torch.testing.assert_close(alone.direction[:, :2], waves.direction[3:4, :2], rtol=0, atol=1e-7)
    silent = recover(torch.zeros(2, 32, 32, dtype=torch.complex64), every, torch.zeros(2), RADIO)
    assert not silent.found.any()


def test_the_waves_of_a_channel_are_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(8)
    place = np.array(
        [[20.0, -60.0, 1.5], [-50.0, -80.0, 1.5], [5.0, -40.0, 1.5], [70.0, -120.0, 1.5], [-30.0, -150.0, 1.5]]
    )
    one_by_one = two_rays(place)
    csi = torch.from_numpy(np.stack([one_by_one[:count].sum(0) for count in (1, 2, 5, 3)]))
    noise = csi.abs().square().mean((1, 2)) / 100
    noisy = csi + noise.sqrt()[:, None, None] * gaussian(rng, tuple(csi.shape))
    together = recover(noisy, EVERY, noise, RADIO)
    assert len(set(together.found.sum(1).tolist())) > 1
    for index in range(4):
        alone = recover(noisy[index : index + 1], EVERY, noise[index : index + 1], RADIO)
        torch.testing.assert_close(alone.direction[0], together.direction[index], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("frequency", "bs_height", "user_height"),
    [(28.5e9, 15.0, 8.0), (100e9, 15.0, 1.5), (28.5e9, 50.0, 4.0), (3.5e9, 15.0, 1.5)],
)
def test_other_carriers_and_heights(frequency: float, bs_height: float, user_height: float) -> None:
    radio = Radio(frequency, 0.5, bs_height, user_height, 5.24 - 0.4j)
    down = torch.tensor([0.09, 0.17, 0.31], dtype=torch.float64)
    direction = torch.stack((torch.tensor([0.3, -0.2, 0.05], dtype=torch.float64), down), -1)
    ratio, shrunk, steeper = radio.ground_bounce(down)
    bounced = torch.stack((direction[:, 0] * shrunk, steeper), -1)
    csi = plane(direction.numpy(), 32) + ratio.numpy()[:, None, None] * plane(bounced.numpy(), 32)
    waves = recover(torch.from_numpy(csi), torch.ones(32, 32, dtype=torch.bool), torch.full((3,), 1e-3), radio, waves=1)
    assert waves.direction[:, 0].numpy() == pytest.approx(direction.numpy(), abs=1e-4)


def canyon() -> Walls:
    """Two long buildings of 20 m on both sides of a street that runs north to south, 30 m wide."""
    west = [[-40, -300], [-15, -300], [-15, 5], [-40, 5], [-40, -300]]
    east = [[x + 55, y] for x, y in west]
    return Walls.of_rings([(west, True), (east[::-1], True)], [0.0, 0.0], [20.0, 20.0])


CANYON = Surroundings(canyon(), RADIO, (-20.0, -200.0, 20.0, 0.0))


@pytest.mark.parametrize("bounces", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [1, -1])
def test_mirrored_rays_come_down_at_the_user(bounces: int, side: int) -> None:
    user = np.array([4.0, -130.0, 1.5])
    image = user.copy()  # mirrored at the walls in turn, the last one first
    walls = [15.0 * side * (-1) ** (bounces - 1 - index) for index in range(bounces)]
    for wall in walls:
        image[0] = 2 * wall - image[0]
    landed = follow(torch.from_numpy(cosines(image[None])), canyon(), RADIO)
    assert landed.reached.all()
    assert landed.bounces.tolist() == [bounces]
    assert landed.position[0].numpy() == pytest.approx(user[:2], abs=1e-9)
    assert landed.length.item() == pytest.approx(np.linalg.norm(image - [0, 0, 15]))


def test_a_sixth_bounce_a_roof_and_a_house_are_no_landings() -> None:
    image = np.array([[4.0 - 30 * 7, -130.0, 1.5]])
    assert not follow(torch.from_numpy(cosines(image)), canyon(), RADIO).reached.any()
    low = [[-5, -60], [5, -60], [5, -50], [-5, -50], [-5, -60]]
    walls = Walls.of_rings([(low, True)], [0.0], [6.0])
    behind, on_the_roof, before = [0, -120.0, 1.5], [0, -80.0, 1.5], [0, -40.0, 1.5]
    landed = follow(torch.from_numpy(cosines(np.array([behind, on_the_roof, before]))), walls, RADIO)
    assert landed.reached.tolist() == [True, False, True]
    long = [[-5, -120], [5, -120], [5, -50], [-5, -50], [-5, -120]]
    inside = torch.from_numpy(cosines(np.array([[0, -80.0, 1.5]])))  # over the front wall and down within
    assert not follow(inside, Walls.of_rings([(long, True)], [0.0], [3.0]), RADIO).reached.any()
    assert follow(inside, Walls.of_rings([(long, True)], [2.5], [3.0]), RADIO).reached.all()  # under a canopy


def test_a_courtyard_mirrors_at_its_own_walls() -> None:
    outline = [[-30, -90], [30, -90], [30, -20], [-30, -20], [-30, -90]]
    yard = [[-10, -80], [10, -80], [10, -30], [-10, -30], [-10, -80]]
    walls = Walls.of_rings([(outline, True), (yard, False)], [0.0, 0.0], [9.0, 9.0])
    image = np.array([[0.0, -90.0, 1.5]])  # of (0, -70) in the wall at -80
    landed = follow(torch.from_numpy(cosines(image)), walls, RADIO)
    assert landed.reached.all()
    assert landed.position[0].numpy() == pytest.approx([0, -70], abs=1e-9)


def known(direction: np.ndarray, loss: list[float], sigma: float = 1e-4) -> Waves:
    """One user's waves with known directions (K, 2), and levels over Friis at their landing in dB."""
    towards = torch.from_numpy(direction)[None]
    length = torch.from_numpy(13.5 / np.maximum(direction[:, 1], 0.02))[None]
    gain = (10 ** ((RADIO.friis(length) + torch.tensor(loss)) / 20)).to(torch.complex128)
    single = torch.ones(1, len(direction), 1, dtype=torch.bool)
    covariance = torch.eye(2, dtype=torch.float64).mul(sigma**2).repeat(1, len(direction), 1, 1)
    return Waves(towards, single[..., 0], gain, covariance, torch.zeros(1), towards[:, :, None], 0.0 * single.double())


def test_waves_that_agree_outvote_a_stronger_one() -> None:
    user = np.array([4.0, -130.0])
    direction = cosines(np.array([[-8.0, -60.0, 1.5], [26.0, -130.0, 1.5], [-34.0, -130.0, 1.5]]))
    found = consensus(known(direction, [-3.9, -6.0, -6.0]), CANYON)
    assert found.position[0].numpy() == pytest.approx(user, abs=0.1)
    assert 0.5 < found.agreeing.item() < 1
    elsewhere = replace(CANYON, box=(-20.0, -100.0, 20.0, 0.0))  # users are nearer than that
    assert consensus(known(direction, [-3.9, -6.0, -6.0]), elsewhere).position[0].numpy() == pytest.approx(
        [-8, -60], abs=0.1
    )
    # Alone, it is believed if it is as strong as a direct path is; no path is stronger; and with none, nobody knows.
    assert consensus(known(direction[:1], [0.0]), CANYON).position[0].numpy() == pytest.approx([-8, -60], abs=0.1)
    assert consensus(known(direction[:1], [4.0]), CANYON).position.isnan().all()
    lost = consensus(replace(known(direction, [0.0] * 3), gain=torch.zeros(1, 3, dtype=torch.complex128)), CANYON)
    assert lost.position.isnan().all()
    assert lost.agreeing.item() == 0


def test_the_landing_covariance_is_that_of_many_draws() -> None:
    direction = cosines(np.array([[26.0, -130.0, 1.5]]))  # one bounce
    stated = consensus(known(direction, [-6.0], sigma=1e-4), CANYON).covariance[0] - 0.25 * torch.eye(2)
    drawn = torch.from_numpy(np.random.default_rng(0).normal(0, 1e-4, (4000, 2)))
    places = follow(torch.from_numpy(direction) + drawn, canyon(), RADIO).position
    assert torch.cov(places.T).numpy() == pytest.approx(stated.numpy(), rel=0.1, abs=0.001)


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


@pytest.fixture(scope="module")
def traced(helsinki_store):
    """Paths without diffraction of a real scene, as the ray tracer found them: masks and values (user, path)."""
    paths, data = (wavecity.open_store(str(helsinki_store), group).isel(scene=0).load() for group in ("paths", None))
    gain = np.where((paths.interactions.values & 8).any(-1), 0, paths.gain.values)
    zenith, azimuth = paths.aod_zenith.values.astype(float), paths.aod_azimuth.values.astype(float)
    direction = np.stack((np.sin(zenith) * np.cos(azimuth), -np.cos(zenith)), -1)
    south = np.sin(zenith) * np.sin(azimuth) < 0
    return gain * south, direction, paths, data.user_position.values[:, :2].astype(float)


def test_what_the_tracer_found_comes_down_at_its_user(traced, helsinki_store) -> None:
    gain, direction, paths, position = traced
    scene = surroundings(str(helsinki_store), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.hypot(13.5 * np.sqrt(1 - direction[..., 1] ** 2) / direction[..., 1], 13.5)
    # Those without a bounce off the ground: their length says so.
    user, path = np.nonzero((gain != 0) & (np.abs(length - paths.delay.values * SPEED_OF_LIGHT) < 0.05))
    landed = follow(torch.from_numpy(direction[user, path]), scene.walls, scene.radio)
    assert len(user) > 30
    assert landed.reached.all()
    assert np.linalg.norm(landed.position.numpy() - position[user], axis=1).max() < 0.5
    assert landed.bounces.tolist() == (paths.interactions.values[user, path] > 0).sum(-1).tolist()


def test_users_of_a_real_scene_are_located_from_a_quarter_of_a_noisy_channel(traced, helsinki_store) -> None:
    gain, direction, _, position = traced
    index = np.arange(32) - 15.5
    phase = index[:, None] * direction[..., None, None, 0] + index * direction[..., None, None, 1]
    csi = torch.from_numpy((gain[..., None, None] * np.exp(1j * np.pi * phase)).sum(1))
    heard = csi.abs().amax((1, 2)) > 0
    csi, position = csi[heard], position[heard.numpy()]
    rng = np.random.default_rng(1)
    noise = csi.abs().square().mean((1, 2)) / 10
    noisy = csi + noise.sqrt()[:, None, None] * gaussian(rng, tuple(csi.shape))
    patches = torch.from_numpy(rng.permutation(64) < 16).view(8, 8)
    shown = patches.repeat_interleave(4, 0).repeat_interleave(4, 1)
    found = locate(noisy, shown, surroundings(str(helsinki_store), 0), noise)
    error = np.linalg.norm(found.position.numpy() - position, axis=1)
    assert np.nanmedian(error) < 0.5
    assert np.isnan(error).mean() < 0.1
    assert ((found.agreeing >= 0) & (found.agreeing <= 1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "tr38901"}, "radio.pattern is 'tr38901'; waves can be followed from a panel with 'iso' only"),
        ({"downtilt": 5.0}, "radio.downtilt is 5.0; waves can be followed from a panel with 0.0 only"),
        ({"azimuth": 90.0}, "radio.azimuth is 90.0; waves can be followed from a panel with -90.0 only"),
        ({"ground_material": "mud"}, "radio.ground_material 'mud' is none of concrete, brick"),
    ],
)
def test_what_waves_cannot_be_followed_from_is_refused(changes, message) -> None:
    radio = {"ground_material": "concrete", **changes}
    with pytest.raises(InputError, match=message):
        radio_of({"recipe": {"radio": radio, "users": {"height": 1.5}}}, "store")
    with pytest.raises(InputError, match=r"no recipe with radio\.ground_material"):
        radio_of({"recipe": None}, "store")


@pytest.mark.parametrize(
    ("csi", "shown", "noise", "message"),
    [
        (
            np.ones((8, 8), complex),
            np.ones((8, 8), bool),
            0.0,
            r"csi is torch.complex128 \(8, 8\); give at least one channel",
        ),
        (np.ones((1, 8, 8)), np.ones((8, 8), bool), 0.0, "csi is torch.float64"),
        (np.ones((0, 8, 8), complex), np.ones((8, 8), bool), 0.0, "give at least one channel"),
        (np.ones((1, 8, 8), complex), np.ones((4, 4), bool), 0.0, r"shown is \(4, 4\) with 16 antennas"),
        (np.ones((1, 8, 8), complex), np.zeros((8, 8), bool), 0.0, "with 0 antennas"),
        (np.full((1, 8, 8), np.nan + 0j), np.ones((8, 8), bool), 0.0, "not finite"),
        (np.ones((2, 8, 8), complex), np.ones((8, 8), bool), np.ones(3), r"noise is \(3,\)"),
        (np.ones((1, 8, 8), complex), np.ones((8, 8), bool), np.nan, "noise is"),
    ],
)
def test_what_cannot_be_located_is_refused_in_one_line(csi, shown, noise, message) -> None:
    with pytest.raises(InputError, match=message):
        locate(csi, shown, CANYON, noise)


def test_any_array_will_do_and_silent_users_are_nowhere() -> None:
    csi = two_rays(np.array([[4.0, -60.0, 1.5], [4.0, -60.0, 1.5]]))
    csi[1] = 0
    csi.flags.writeable = False
    found = locate(csi[::-1], np.ones((16, 16), bool), CANYON)
    assert found.position[0].isnan().all()
    assert found.covariance[0].isnan().all()
    assert found.position[1].numpy() == pytest.approx([4, -60], abs=0.2)


def town(seed: int, count: int) -> Walls:
    """So many square houses, turned, of different heights, some on others."""
    rng = np.random.default_rng(seed)
    rings, base, top = [], [], []
    for _ in range(count):
        middle, angle, half = rng.uniform([-100, -200], [100, -10]), rng.uniform(0, math.pi), rng.uniform(2, 9)
        corners = half * math.sqrt(2) * np.exp(1j * (angle + np.pi / 2 * np.arange(5)))
        rings.append((np.stack((corners.real, corners.imag), 1) + middle, True))
        low = rng.choice([0.0, 0.0, 4.0])
        base.append(low)
        top.append(low + rng.uniform(3, 25))
    return Walls.of_rings(rings, base, top)


def test_the_first_wall_is_that_of_shapely() -> None:
    walls, rng = town(0, 60), np.random.default_rng(1)
    angle = torch.from_numpy(rng.uniform(0, 2 * math.pi, 80))
    rays = Rays(
        torch.from_numpy(rng.uniform([-100, -200], [100, 0], (80, 2))),
        torch.stack((angle.cos(), angle.sin()), 1),
        torch.from_numpy(rng.uniform(2, 20, 80)),
        torch.from_numpy(rng.uniform(-0.1, 0.3, 80)),
    )
    way, wall = first_wall(rays, walls)
    segments = shapely.linestrings(torch.stack((walls.start, walls.end), 1).numpy())
    met = 0
    for ray in range(80):
        place, heading = rays.place[ray].numpy(), rays.heading[ray].numpy()
        crossing = shapely.intersection(segments, shapely.LineString([place, place + 1000 * heading]))
        apart = np.array(
            [np.inf if point.is_empty else np.hypot(point.x - place[0], point.y - place[1]) for point in crossing]
        )
        level = rays.level[ray].item() - np.where(np.isinf(apart), 0, apart) * rays.fall[ray].item()
        apart[(level < walls.base.numpy()) | (level > walls.top.numpy())] = np.inf
        assert way[ray].item() == pytest.approx(apart.min(), abs=1e-6)
        if np.isfinite(apart.min()):
            assert wall[ray] == apart.argmin()
            met += 1
    assert 20 < met < 80
    # Only what is nearer than `reach` has to be found.
    reach = torch.where(way.isfinite(), way + 0.01, 5.0)
    torch.testing.assert_close(first_wall(rays, walls, reach)[0], way)


def test_the_likeliest_landings_are_those_of_all_rays(monkeypatch) -> None:
    rng = np.random.default_rng(2)
    scene = Surroundings(town(3, 60), RADIO, (-100.0, -200.0, 100.0, 0.0))
    way = rng.uniform([-0.5, 0.06], [0.5, 0.2], (4, 2))
    waves = replace(known(way, [-30.0, -40.0, -20.0, -35.0], sigma=3e-3))
    monkeypatch.setattr(agreement, "KEPT", 12)
    found = consensus(waves, scene)
    assert found.edges.any()
    assert int(found.log_weight.isfinite().sum(2).max()) == 12
    monkeypatch.setattr(agreement, "KEPT", 10**6)
    every = consensus(waves, scene)
    kept = found.log_weight.shape[2]
    assert every.log_weight.shape[2] > kept
    torch.testing.assert_close(every.log_weight[:, :, :kept], found.log_weight)
    torch.testing.assert_close(every.landings[:, :, :kept], found.landings)


def test_a_place_scores_what_the_mixtures_say() -> None:
    rng = np.random.default_rng(4)
    place = rng.uniform([-50, -150], [50, -20], (1, 3, 6, 2))
    root = rng.normal(0, 2, (1, 3, 6, 2, 2))
    covariance = root @ np.swapaxes(root, -1, -2) + 0.25 * np.eye(2)
    log_weight, weight = rng.normal(-3, 2, (1, 3, 6)), np.array([[1.0, 0.5, 0.2]])
    log_weight[0, 1, 4:] = -np.inf
    place[0, 1, 0] = place[0, 0, 2] + 0.3
    best = (-np.inf, None)
    for wave, at in np.ndindex(3, 6):
        if np.isinf(log_weight[0, wave, at]):
            continue
        score = 0.0
        for other in range(3):
            apart = place[0, wave, at] - place[0, other]
            away = np.einsum("hi,hij,hj->h", apart, np.linalg.inv(covariance[0, other]), apart)
            score += weight[0, other] * np.log(np.exp(log_weight[0, other] - away / 2).sum() + 1 / (100 * 200))
        best = max(best, (score, (wave, at)))
    parts = [torch.from_numpy(part) for part in (place, covariance, log_weight, weight)]
    position, spread, share, over = agreement._agree(*parts, (-50.0, -200.0, 50.0, 0.0))
    # By how much the place is likelier than one about which the waves say nothing.
    assert float(over[0]) == pytest.approx(best[0] - weight.sum() * np.log(1 / (100 * 200)))
    # The average of what agrees with the best, weighted by precision.
    total, pulled, agreeing = np.zeros((2, 2)), np.zeros(2), 0.0
    for other in range(3):
        apart = place[0][best[1]] - place[0, other]
        precision = np.linalg.inv(covariance[0, other])
        away = np.einsum("hi,hij,hj->h", apart, precision, apart)
        near = np.where((away < 9) & np.isfinite(log_weight[0, other]), log_weight[0, other] - away / 2, -np.inf)
        if np.isfinite(near.max()):
            total += precision[near.argmax()]
            pulled += precision[near.argmax()] @ place[0, other, near.argmax()]
            agreeing += weight[0, other]
    assert position[0].numpy() == pytest.approx(np.linalg.solve(total, pulled), abs=1e-8)
    assert spread[0].numpy() == pytest.approx(np.linalg.inv(total), abs=1e-8)
    assert share.item() == pytest.approx(agreeing / 1.7)


@pytest.mark.parametrize("rows", [8, 9])
def test_products_of_waves_with_panels_are_sums_over_antennas(rows: int) -> None:
    rng = np.random.default_rng(6)
    dictionary = Dictionary(torch.from_numpy(rng.random((6, rows)) < 0.6), RADIO)
    panels = rng.normal(size=(2, 3, 6, rows)) + 1j * rng.normal(size=(2, 3, 6, rows))
    x, y = np.arange(6) - 2.5, np.arange(rows) - (rows - 1) / 2
    down = rng.uniform(-0.5, 0.9, (2, 5))
    for count in (1, 5):
        east = rng.uniform(-0.5, 0.5, (2, count))
        found = dictionary._correlate(*(torch.from_numpy(part) for part in (panels, east, down)))
        wave_x = np.exp(-1j * np.pi * x * np.broadcast_to(east, (2, 5))[..., None])
        wave_y = np.exp(-1j * np.pi * y * down[..., None])
        assert found.numpy() == pytest.approx(np.einsum("bpxy,bcx,bcy->bpc", panels, wave_x, wave_y), abs=1e-4)
    direction = torch.from_numpy(rng.uniform([-0.5, 0.1], [0.5, 0.6], (2, 4, 2)))
    bounced = torch.from_numpy(rng.random((2, 4)) < 0.5)
    torch.testing.assert_close(dictionary.pairs(direction, bounced), dictionary.atoms(direction, bounced)[0])


HEIGHTS = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


def open_ground(heights: tuple[float, ...] = ()) -> Surroundings:
    return Surroundings(Walls.of_rings([], [], []), RADIO, (-100, -200, 100, 0), heights)


def test_a_user_whose_height_is_unknown_is_found_at_its_height() -> None:
    """Two rays by the image of a user 1 to 2 m above the ground: a height that is taken for 1.5 m costs metres."""
    place = np.array([[20.0, -60.0, 1.2], [3.0, -25.0, 2.0], [30.0, -45.0, 1.0]])
    csi = torch.from_numpy(two_rays(place))

    def error(scene: Surroundings) -> np.ndarray:
        return np.linalg.norm(locate(csi, EVERY, scene).position.numpy() - place[:, :2], axis=1)

    assert (error(open_ground()) > 0.5).all()
    assert (error(open_ground(HEIGHTS)) < 0.1).all()
    assert locate(csi, EVERY, open_ground(HEIGHTS)).height.tolist() == pytest.approx(place[:, 2])
    assert locate(csi[:1], EVERY, open_ground()).height.tolist() == [1.5]


def test_users_on_floors_are_told_apart() -> None:
    place = np.array([[20.0, -60.0, 1.5], [20.0, -60.0, 4.5], [-35.0, -50.0, 7.5]])
    found = locate(torch.from_numpy(two_rays(place)), EVERY, open_ground((1.5, 4.5, 7.5)))
    assert found.height.tolist() == [1.5, 4.5, 7.5]
    assert found.position.numpy() == pytest.approx(place[:, :2], abs=0.1)


def test_one_height_of_several_is_the_known_one() -> None:
    place = np.array([[20.0, -60.0, 1.5], [-35.0, -90.0, 1.5]])
    csi = torch.from_numpy(two_rays(place))
    one, two = locate(csi, EVERY, open_ground()), locate(csi, EVERY, open_ground((1.5,)))
    for name, value in vars(one).items():
        torch.testing.assert_close(value, vars(two)[name], rtol=0, atol=0)


def test_heights_that_no_user_can_have_are_refused(helsinki_store) -> None:
    with pytest.raises(InputError, match=r"heights: 20 m is not between the ground and the base station at 15 m"):
        surroundings(str(helsinki_store), 0, heights=(1.5, 20.0))
    assert surroundings(str(helsinki_store), 0, heights=(1.0, 2.0)).heights == (1.0, 2.0)
