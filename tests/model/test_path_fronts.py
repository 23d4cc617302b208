"""What the path model is shown: waves and places of a user, kept in a cache; their ways, for pictures."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from street import FULL, seen

from wavecity.dataset.reader import open_store
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.followed import ways
from wavecity.model.path_model.front import Draw, front
from wavecity.model.path_model.network import channel_of
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.rays.radio import Radio
from wavecity.model.rays.surroundings import Surroundings, surroundings
from wavecity.model.rays.walls import Walls
from wavecity.model.rays.waves import recover

pytestmark = pytest.mark.usefixtures("street_cache")


def test_the_place_of_a_user_in_sight_is_among_those_shown(street_store):
    csi, position = seen(street_store)
    every = torch.ones(8, 8, dtype=torch.bool)
    found = front(csi, every, torch.zeros(len(csi)), surroundings(street_store, 0))
    apart = (found.place - torch.from_numpy(position)[:, None]).norm(dim=2)
    nearest = torch.where(found.usable, apart, torch.inf).amin(1)
    assert float(nearest.median()) < 1.0
    # No two are at one place.
    between = torch.cdist(found.place, found.place) + 1e3 * torch.eye(found.place.shape[1])
    both = found.usable[:, :, None] & found.usable[:, None]
    assert float(between[both].min()) > 0.99
    assert (found.prior.amax(1) == 0).all()


def test_a_user_is_shown_the_same_alone_and_among_others(street_store):
    csi, _ = seen(street_store)
    every, scene = torch.ones(8, 8, dtype=torch.bool), surroundings(street_store, 0)
    together = front(csi, every, torch.zeros(len(csi)), scene)
    alone = front(csi[2:3], every, torch.zeros(1), scene)
    for name, value in vars(alone).items():
        assert torch.allclose(value[0].to(torch.complex128), vars(together)[name][2].to(torch.complex128), atol=1e-4), (
            name
        )


def test_fronts_are_kept_and_made_again_for_other_data_or_code(street_store, tmp_path, monkeypatch):
    cache = FrontCache(street_store, 4, tmp_path)
    cache.fill([0, 1], [FULL])
    before = cache.path(0, FULL).stat().st_mtime_ns
    again = FrontCache(street_store, 4, tmp_path)
    again.fill([0, 1], [FULL])
    assert again.path(0, FULL).stat().st_mtime_ns == before
    # A user without a path has none, others have the waves that `recover` finds.
    users = cache.users(torch.tensor([1, 0, 1]), torch.tensor([8, 2, 2]), FULL)
    assert users.found.any(1).tolist() == [False, True, True]
    csi, _ = seen(street_store, 1)
    every = torch.ones(8, 8, dtype=torch.bool)
    waves = recover(csi, every, torch.zeros(len(csi)), surroundings(street_store, 1).radio)
    assert torch.allclose(users.direction[2], waves.direction[2].float(), atol=1e-6)
    monkeypatch.setattr("wavecity.model.path_model.cache.code", lambda: "of another version")
    assert FrontCache(street_store, 4, tmp_path).folder != cache.folder
    assert FrontCache(street_store, 2, tmp_path).folder != cache.folder
    assert not list(tmp_path.rglob("*.partial"))


def test_a_store_is_opened_once_for_all_its_scenes_and_draws(street_store, tmp_path, monkeypatch):
    opened = []

    def counting(store: str, group: str | None = None) -> object:
        opened.append(group)
        return open_store(store, group)

    monkeypatch.setattr("wavecity.model.path_model.cache.open_store", counting)
    cache = FrontCache(street_store, 4, tmp_path)
    for scene in (0, 1):
        for draw in (FULL, replace(FULL, wrong=Disturbance(azimuth=2.0))):
            cache.seen(scene, draw)
    assert sorted(opened, key=str) == [None, "paths"]


@pytest.mark.system
def test_processes_find_what_one_finds(street_store, tmp_path):
    draws = [replace(FULL, number=number) for number in (1, 2)]
    one, two = FrontCache(street_store, 4, tmp_path / "one"), FrontCache(street_store, 4, tmp_path / "two")
    one.fill(range(4), draws, workers=1)
    two.fill(range(4), draws, workers=2)  # eight files: four a process
    for draw in draws:
        for scene in range(4):
            assert one.path(scene, draw).read_bytes() == two.path(scene, draw).read_bytes()


def test_draws_show_from_three_patches_to_all_and_differ_by_scene():
    shown = torch.stack([Draw(0, number=number).shown(scene, 32, 32, 4) for number in (1, 2) for scene in range(40)])
    counts = shown.sum((1, 2)) // 16
    assert int(counts.min()) >= 3
    assert int(counts.max()) <= 64
    assert len(counts.unique()) > 20
    assert 8 < float(counts.float().median()) < 24  # few as likely as many
    csi = torch.ones(200, 4, 4, dtype=torch.complex64)
    noisy, power = Draw(0, number=1).noisy(csi, 0)
    assert float((noisy - csi).abs().square().mean()) == pytest.approx(float(power.mean()), rel=0.1)
    assert 0.05 < float((power == 0).double().mean()) < 0.2


def test_gated_waves_are_the_recovered_channel(street_store):
    csi, _ = seen(street_store)
    every, scene = torch.ones(8, 8, dtype=torch.bool), surroundings(street_store, 0)
    found = front(csi, every, torch.zeros(len(csi)), scene)
    whole = channel_of(found, found.found.float(), scene.radio)
    waves = recover(csi, every, torch.zeros(len(csi)), scene.radio)
    expected = waves.channel(scene.radio, 8, 8)
    assert float((whole - expected).abs().max() / expected.abs().max()) < 1e-3
    # And that of a mirrored world is the channel with its columns in reverse order.
    mirrored = channel_of(found.mirrored(), found.found.float(), scene.radio)
    assert torch.allclose(mirrored, whole.flip(1), atol=1e-3 * float(whole.abs().max()))
    power = torch.fft.fft2(whole).abs().square()
    other = torch.fft.fft2(whole.flip(1)).abs().square()
    assert torch.allclose(power.flip(-2).roll(1, -2), other, rtol=1e-3, atol=1e-3 * float(power.max()))


def test_a_way_turns_where_the_image_of_the_base_station_says():
    """One wall to the east, by reflecting the base station in it; and a building in whose roof a wave ends."""
    east = [[20, -200], [20, 50], [30, 50], [30, -200], [20, -200]]
    walls = Walls.of_rings([(east, True)], [0.0], [40.0])
    scene = Surroundings(walls, Radio(28.5e9, 0.5, 15.0, 1.5, 5.24 - 0.4j), (-100, -200, 100, 0))
    user, image = np.array([5.0, -80.0, -13.5]), np.array([40.0, 0.0, 0.0])
    bounce = image + (user - image) * (image[0] - 20) / (image[0] - user[0])
    cosines = [bounce / np.linalg.norm(bounce), user / np.linalg.norm(user), np.array([0.0, -1.0, 0.2])]
    direction = torch.tensor(np.array([[to[0], -to[2]] for to in cosines]))
    corners, lands = ways(direction, scene)
    assert lands.tolist() == [True, True, False]
    np.testing.assert_allclose(corners[0, :3], [[0, 0, 0], bounce, user], atol=1e-3)
    assert corners[0, 3:].isnan().all()
    np.testing.assert_allclose(corners[1, :2], [[0, 0, 0], user], atol=1e-3)
    # One that rises and meets nothing: a short piece.
    assert float(corners[2, 1, :2].norm()) == pytest.approx(15.0)
    assert float(corners[2, 1, 2]) == pytest.approx(15 * 0.2, rel=0.05)
    # A shed 2.5 m high that the wave passes 3 m above the ground, and in which it comes down.
    low = [[-30, -70], [30, -70], [30, -60], [-30, -60], [-30, -70]]
    shed = replace(scene, walls=Walls.of_rings([(low, True)], [0.0], [2.5]))
    assert ways(torch.tensor([[0.0, 0.2 / math.sqrt(1.04)]]), shed)[1].tolist() == [False]
