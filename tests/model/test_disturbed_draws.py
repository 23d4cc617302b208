"""What is wrong on purpose reaches the path model: its channels, its maps, its training and its evaluation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import street
import torch

import wavecity
import wavecity.model.training.pretrain as training
from wavecity.model.data.tokens import squared
from wavecity.model.data.users import load_data
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.path_model.module import training_draw
from wavecity.model.rays.disturb import Disturbance
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition, read_records
from wavecity.model.results.words import condition_of
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.zero_shot_location import links_of, users_of_few_scenes
from wavecity.model.training.backbones import Rays
from wavecity.model.training.load import load_rays_model
from wavecity.model.training.run_folder import pretrain_fingerprint

TEST = 3
# All antennas of 8 x 8, no noise.
CLEAN = Draw(1, 4)
DISTURBED = {"footprints": 2.0, "extra": 1, "bs_position": 0.5, "phase": 5.0, "diffuse": 0.1}


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return street.build(str(tmp_path_factory.mktemp("street") / "store"))


@pytest.fixture(scope="module")
def cache(store):
    return FrontCache(store, 4)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    training.pretrain(store, street.settings_of(), run, seed=3)
    return run


def wrong(**what: object) -> Draw:
    return replace(CLEAN, wrong=Disturbance(**what))


def test_a_wrong_map_is_the_one_that_the_network_sees(cache):
    """The block of 40 m x 35 m and 12 m, and one more of 15 m x 15 m; or none at all."""
    cache.fill([TEST], [wrong(extra=1), wrong(missing=1), wrong(heights=0.3), CLEAN], 1)
    true = wavecity.open_store(cache.store).height.isel(scene=TEST).values
    more = cache.disturbed(TEST, wrong(extra=1)).height.numpy()
    assert ((more > 0) & (true == 0)).sum() == pytest.approx(225, abs=31)
    assert ((more == 0) & (true > 0)).sum() == 0
    assert not cache.disturbed(TEST, wrong(missing=1)).height.any()
    scaled = cache.disturbed(TEST, wrong(heights=0.3)).height.numpy()
    assert (scaled > 0).sum() == (true > 0).sum()
    assert 0.7 * 12 <= scaled.max() <= 1.3 * 12
    assert scaled.max() != pytest.approx(12)
    assert cache.disturbed(TEST, CLEAN) is None
    assert cache.path(TEST, CLEAN) != cache.path(TEST, wrong(missing=1)) != cache.path(TEST, wrong(extra=1))


def test_a_user_in_sight_is_as_far_off_as_the_base_station_is_believed_to_be(cache, finished):
    model, _, _ = load_rays_model(finished)
    data = load_data(cache.store)
    predictor = PathPredictor(model, cache, data.scenes, 8)
    users = links_of(data.splits["test"], 100)
    true, off = (predictor.predict(users, draw).physics for draw in (CLEAN, wrong(bs_position=2.0)))
    shift = cache.disturbed(TEST, wrong(bs_position=2.0)).shift
    assert float(shift.norm()) == pytest.approx(2.0, rel=1e-5)
    located = (true - users.position).norm(dim=1) < 20
    assert located.sum() >= 4
    assert (off - true)[located].median(0).values.tolist() == pytest.approx(shift.tolist(), abs=0.1)


def test_errors_of_antennas_are_the_same_for_all_users_of_a_scene_and_other_ones_elsewhere(cache):
    draw = wrong(phase=5.0, gain=1.0)

    def errors(scene: int) -> np.ndarray:
        clean, seen = cache.seen(scene, CLEAN)[0].numpy(), cache.seen(scene, draw)[0].numpy()
        served = np.abs(clean).max((1, 2)) > 0
        return seen[served] / clean[served]

    here, there = errors(TEST), errors(2)
    assert np.allclose(here, here[:1], rtol=1e-4)
    assert not np.allclose(here[0], there[0], rtol=1e-2)
    assert np.degrees(np.std(np.angle(here[0]))) == pytest.approx(5, rel=0.3)


def test_a_turned_panel_sees_the_paths_of_the_store_turned(cache):
    """A single path in line of sight: its phases along the panel are those of its angle less the panel's."""
    turn = 3.0
    clean, seen = (cache.seen(TEST, draw)[0].numpy() for draw in (CLEAN, wrong(azimuth=turn)))
    position = wavecity.open_store(cache.store).user_position.isel(scene=TEST).values.astype(float)
    served = (np.abs(clean).max((1, 2)) > 0) & (np.abs(seen).max((1, 2)) > 0)
    unit = position / np.linalg.norm(position, axis=1, keepdims=True)
    side = np.array([math.cos(math.radians(turn)), math.sin(math.radians(turn)), 0])
    step = np.angle((seen[served, 1:] * seen[served, :-1].conj()).mean((1, 2)))
    expected = np.pi * unit[served] @ side
    assert np.allclose(np.exp(1j * step), np.exp(1j * expected), atol=1e-3)
    assert served.sum() >= 4


def test_an_unknown_height_is_no_worse_than_a_wrong_one(cache):
    cache.fill([TEST], [wrong(user_heights=(1.5,)), CLEAN], 1)
    one, known = cache.scene(TEST, wrong(user_heights=(1.5,))), cache.scene(TEST, CLEAN)
    for name, value in vars(known).items():
        assert torch.equal(value, getattr(one, name)), name


def test_draws_of_a_training_are_wrong_in_as_many_scenes_as_they_should_be(cache):
    settings = TrainingSettings.model_validate({"rays": {"disturbed_share": 0.7}}).rays
    draw, radio = training_draw(settings, 5, 2), cache.radio
    found = [draw.wrong_in(scene, radio) for scene in range(600)]
    assert np.mean([bool(one.key) for one in found]) == pytest.approx(0.7, abs=0.06)
    assert found[3] == draw.wrong_in(3, radio) != found[4]
    assert training_draw(TrainingSettings().rays, 5, 2) == Draw(5, number=2)


def test_a_training_with_disturbances_looks_at_the_world_as_it_is_believed_to_be(store):
    """Where a user is in the map stays the same, wherever the base station is believed to be."""
    usual = street.settings_of().model_dump()
    wrong = {"disturbed_share": 1.0, "disturbance": {**DISTURBED, "bs_position": 3.0}}
    settings = TrainingSettings.model_validate({**usual, "rays": {**usual["rays"], **wrong}})
    backbone = Rays.load(store, settings)
    batch = next(iter(backbone.batches(3).train_dataloader()))
    module = backbone.module(4, 3, {})
    draw = training_draw(settings.rays, 3, 1)
    FrontCache(store, 4).fill([0, 1], [Draw(3, number=1)], 1)
    disturbed, plain = module.world(batch, draw), module.world(batch, Draw(3, number=1))
    on_map = disturbed.position + disturbed.sites.bs
    assert torch.allclose(on_map, plain.position + plain.sites.bs, atol=1e-4)
    moved = (disturbed.position - plain.position).norm(dim=1)
    assert (moved > 0).all()
    assert (moved <= 3.0 + 1e-4).all()
    # Each user has the map of its scene, with one building more or in another place.
    height = disturbed.sites.height[disturbed.sites.row]
    assert not torch.equal(height, plain.sites.height[plain.sites.row])
    terms = module.step_terms(batch, 7)
    assert all(value.isfinite() for value in terms.values())
    mirrored = disturbed.mirrored()
    assert torch.allclose((mirrored.position + mirrored.sites.bs)[:, 0], -on_map[:, 0], atol=1e-4)
    assert torch.allclose(squared(mirrored.csi).sum((1, 2)), squared(disturbed.csi).sum((1, 2)))


def test_a_training_fills_in_what_the_panel_receives_not_what_it_would_receive_if_it_were_right(store):
    """A panel turned by up to 8°, with errors of its antennas: what users without noise show are parts of the targets."""
    usual = street.settings_of().model_dump()
    wrong = {"disturbed_share": 1.0, "disturbance": {"azimuth": 8.0, "phase": 20.0, "gain": 2.0}}
    settings = TrainingSettings.model_validate({**usual, "rays": {**usual["rays"], **wrong}})
    backbone = Rays.load(store, settings)
    batch = next(iter(backbone.batches(3).train_dataloader()))
    draw, module = training_draw(settings.rays, 3, 1), backbone.module(4, 3, {})
    world = module.world(batch, draw)
    received, right = world.csi * world.level[:, None, None], batch.snapshots.csi
    silent = 0
    for scene, user, own, stored in zip(batch.scene.tolist(), batch.user.tolist(), received, right, strict=True):
        noisy, noise, _ = module.cache.seen(scene, draw)
        if not noise[user]:
            silent += 1
            assert torch.allclose(own, noisy[user].to(own), rtol=1e-4, atol=1e-12)
            assert (own - stored).norm() > 0.1 * stored.norm()
    assert silent


def test_disturbances_decide_the_weights_and_their_absence_does_not():
    def of(**rays: object) -> str:
        return pretrain_fingerprint(TrainingSettings.model_validate({"backbone": "rays", "rays": rays}), "v", 0)

    assert of() == of(disturbed_share=0) != of(disturbed_share=0.5)
    assert of() == of(disturbance={"phase": 1})
    assert of(disturbed_share=0.5) != of(disturbed_share=0.5, disturbance={"phase": 1})


def evaluated(**zero_shot: object) -> TrainingSettings:
    settings = street.settings_of()
    own = settings.evaluation.zero_shot.model_copy(update={"patches": 3, "beam_patches": 2})
    own = type(own).model_validate({**own.model_dump(), **zero_shot})
    return settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"zero_shot": own})})


def test_the_evaluation_says_how_much_worse_each_disturbance_makes_it(finished, store):
    cases = {"a wrong place": {"bs_position": 5.0}, "all antennas": {"patches": 4, "snr": 40.0}}
    result = evaluate(finished, store, "zero-shot", evaluated(disturbed=cases), 3)
    records = read_records(finished / result["table"], "zero-shot")
    values = {
        (record.metric, record.method, record.condition.disturbed): record.value
        for record in records
        if record.condition.user_kind is None and record.condition.region is None
    }
    assert {name for *_, name in values} == {None, "nothing", *cases}
    for metric in (Metric.HIDDEN_LOCATION_ERROR, Metric.HIDDEN_LOCATION_P90):
        for method in (Method.MODEL, Method.PHYSICS, Method.KNN_TRAINING, Method.MEAN_TRAINING):
            # Eight users of one scene: all are disturbed, and with nothing wrong they are where they were.
            assert values[metric, method, "nothing"] == values[metric, method, None]
            # Neighbours know nothing of where the base station is.
            known = method in (Method.KNN_TRAINING, Method.MEAN_TRAINING)
            assert known == (values[metric, method, "a wrong place"] == values[metric, method, None])
    assert result["facts"]["disturbed_users"] == 8
    assert result["facts"]["disturbed"]["a wrong place"] == {"bs_position": 5.0}


def test_regions_are_reported_for_every_kind_of_user_and_stated_share(finished, store):
    result = evaluate(finished, store, "zero-shot", evaluated(confidence=0.6), 3)
    records = read_records(finished / result["table"], "zero-shot")
    held = {
        (record.condition.user_kind, record.condition.region): record.value
        for record in records
        if record.metric is Metric.REGION_HELD
    }
    assert {share for _, share in held} == {0.5, 0.6, 0.8, 0.9, 0.95}
    assert held[None, 0.5] <= held[None, 0.8] <= held[None, 0.95]
    within = result["facts"]["users_within_stated_regions"]
    for kind, group in ((None, "all"), ("line of sight", "line of sight")):
        for share in (0.5, 0.8, 0.9, 0.95):
            assert held[kind, share] == pytest.approx(within[group][f"{100 * share:g}"], abs=0.06)


def test_conditions_read_as_sentences_do():
    where = Condition(csi_masked=0.75, user_kind="reflected", region=0.95, disturbed="footprints 1 m off")
    assert condition_of(Metric.REGION_HELD, where) == (
        "0.75 of the CSI masked, reflected, region of 95 %, wrong: footprints 1 m off"
    )


def test_a_few_whole_scenes_are_disturbed():
    scene = torch.tensor([4] * 5 + [7] * 3 + [9] * 4 + [11] * 6)
    for most, expected in ((18, {4, 7, 9, 11}), (12, {4, 11}), (17, {4, 9, 11}), (3, {4})):
        assert {*scene[users_of_few_scenes(scene, most)].tolist()} == expected
