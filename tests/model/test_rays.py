"""Waves of a channel, where they go, and whose they are: against theory and against the ray tracer's own paths."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import wavecity
from wavecity.dataset import InputError
from wavecity.model.data.noise import gaussian
from wavecity.model.rays.consensus import consensus
from wavecity.model.rays.follow import follow
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


def test_waves_that_agree_outvote_a_stronger_one() -> None:
    user = np.array([4.0, -130.0, 1.5])
    wall_images = [[26.0, -130.0, 1.5], [-34.0, -130.0, 1.5]]
    astray = [-8.0, -60.0, 1.5]
    direction = torch.from_numpy(cosines(np.array([astray, *wall_images])))[None]
    length = follow(direction[0], canyon(), RADIO).length
    loss = torch.tensor([-3.9, -6.0, -6.0])
    gain = (10 ** ((RADIO.friis(length) + loss) / 20)).to(torch.complex128)[None]
    covariance = torch.diag_embed(torch.full((1, 3, 2), 1e-8, dtype=torch.float64))
    waves = Waves(direction, torch.ones(1, 3, dtype=torch.bool), gain, covariance, torch.zeros(1))
    found = consensus(waves, CANYON)
    assert found.position[0].numpy() == pytest.approx(user[:2], abs=0.1)
    assert found.usable.all()
    elsewhere = replace(CANYON, box=(-20.0, -100.0, 20.0, 0.0))  # users are nearer than that
    assert consensus(waves, elsewhere).usable.tolist() == [[True, False, False]]
    # A direct path as faint as no direct path is, is none: what is left says where it is, and with nothing left nan.
    fainter = Waves(direction, waves.bounced, gain * torch.tensor([0.1, 1, 1]), covariance, torch.zeros(1))
    assert consensus(fainter, CANYON).usable.tolist() == [[False, True, True]]
    nothing = Waves(direction, waves.bounced, gain * 0, covariance, torch.zeros(1))
    lost = consensus(nothing, CANYON)
    assert lost.position.isnan().all()
    assert lost.agreeing.item() == 0


def test_the_landing_covariance_is_that_of_many_draws() -> None:
    image = np.array([[26.0, -130.0, 1.5]])  # one bounce
    direction = torch.from_numpy(cosines(image))
    covariance = torch.tensor([[4e-8, 1e-8], [1e-8, 1e-8]], dtype=torch.float64)
    gain = 0.5 * (10 ** (RADIO.friis(torch.tensor([131.0])) / 20)).to(torch.complex128)[None]
    one = Waves(direction[None], torch.ones(1, 1, dtype=torch.bool), gain, covariance[None, None], torch.zeros(1))
    stated = consensus(one, CANYON).landing_covariance[0, 0] - 0.25 * torch.eye(2)
    drawn = torch.from_numpy(np.random.default_rng(0).multivariate_normal([0, 0], covariance.numpy(), 4000))
    places = follow(direction + drawn, canyon(), RADIO).position
    assert torch.cov(places.T).numpy() == pytest.approx(stated.numpy(), rel=0.1, abs=0.002)


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
        ({"ground_material": "mud"}, "radio.ground_material 'mud' is none of concrete, brick"),
    ],
)
def test_what_waves_cannot_be_followed_from_is_refused(changes, message) -> None:
    radio = {"ground_material": "concrete", **changes}
    with pytest.raises(InputError, match=message):
        radio_of({"recipe": {"radio": radio, "users": {"height": 1.5}}}, "store")
    with pytest.raises(InputError, match=r"no recipe with radio\.ground_material"):
        radio_of({"recipe": None}, "store")
