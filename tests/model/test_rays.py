"""Where the waves of a channel go, and whose they are: against theory and against the ray tracer's own paths."""

import math
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch
from ray_channels import RADIO, cosines, known, two_rays

import wavecity
from wavecity.dataset import InputError
from wavecity.model.data.noise import gaussian
from wavecity.model.rays import consensus as agreement
from wavecity.model.rays.consensus import consensus
from wavecity.model.rays.follow import Rays, first_wall, follow
from wavecity.model.rays.locate import locate
from wavecity.model.rays.radio import SPEED_OF_LIGHT
from wavecity.model.rays.surroundings import Surroundings, radio_of, surroundings
from wavecity.model.rays.walls import Walls


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
