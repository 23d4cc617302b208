"""Heads and networks on few labels of the path model, next to what needs none."""

import math

import numpy as np
import pytest
import street
import torch
from synthetic_results import check_spec

import wavecity.model.training.pretrain as training
from wavecity.dataset import InputError
from wavecity.model.data.users import load_data
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.results.names import Method, Metric
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks.few_labels import SPECS, Correction, direct, few_labels, line_of_sight, location
from wavecity.model.tasks.few_labels_networks import Whole
from wavecity.model.tasks.zero_shot_location import links_of, seen_by
from wavecity.model.training.load import load_rays_model

METRICS = (Metric.FEW_LOCATION_ERROR, Metric.FEW_NLOS_ACCURACY, Metric.FEW_BEAM_TOP1)
LABELS = (10, 14)
DRAW = Draw(3, 3, 20.0)
# Heads that stay where they start, and no networks.
STILL = {"steps": 1, "learning_rates": [1e-12], "finetune_steps": 0}


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(street.build(str(tmp_path_factory.mktemp("street") / "store")))


@pytest.fixture(scope="module")
def predictor(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    training.pretrain(data.name, street.settings_of(), run, seed=3)
    model, _, _ = load_rays_model(run)
    return PathPredictor(model, FrontCache(data.name, 4), data.scenes, 8)


def settings_of(**heads: object) -> EvaluationSettings:
    small = {"seeds": 2, "steps": 10, "finetune_steps": 2, "finetune_batch": 4, "learning_rates": [1e-2],
             "finetune_rates": [1e-3], **heads}  # fmt: skip
    few = {"labels": [*LABELS, 9000], "patches": DRAW.patches, "snr": DRAW.snr}
    return EvaluationSettings.model_validate({"heads": small, "few_labels": few})


@pytest.fixture(scope="module")
def findings(predictor, data):
    return few_labels(predictor, data, settings_of(), DRAW.seed)


def test_every_method_is_measured_with_every_number_of_labels_and_seed(findings):
    check_spec(SPECS[0], findings)
    for metric in METRICS:
        here = [record for record in findings.records if record.metric is metric]
        for method in (Method.PHYSC_PROBE, Method.PHYSC_HEAD, Method.PHYSC_FINE_TUNED, Method.TWIN, Method.KNN):
            found = sorted((record.x, record.seed) for record in here if record.method is method)
            assert found == [(10, 0), (10, 1), (14, 0), (14, 1)], method
        (physics,) = [record for record in here if record.method is Method.PHYSICS]
        assert math.isnan(physics.x)
        assert all(np.isfinite(record.value) and record.n == 8 for record in here)
    assert findings.facts["labels"] == list(LABELS)
    assert findings.facts["labels_left_out"] == [9000]


def test_without_steps_the_head_says_what_the_model_and_the_front_end_say(predictor, data):
    found = few_labels(predictor, data, settings_of(**STILL), DRAW.seed)
    users = links_of(data.splits["test"], 100)
    said = predictor.predict(users, DRAW)
    values = {(record.metric, record.method): record.value for record in found.records if record.x != LABELS[1]}
    for method, place in ((Method.PHYSC_HEAD, said.location.best()), (Method.PHYSICS, said.physics)):
        error = np.linalg.norm(place.numpy() - users.position.numpy(), axis=1)
        # The lower of the two in the middle, as torch has it.
        assert values[Metric.FEW_LOCATION_ERROR, method] == pytest.approx(np.sort(error)[3], rel=1e-5)
    # The best beam by a search over the codebook: a beam's index is that of the transform's inverse.
    beams = (np.abs(np.fft.ifft2(users.csi.numpy())) ** 2).reshape(8, -1).argmax(1)
    power = said.spectrum.numpy()
    predicted = np.roll(power[:, ::-1, ::-1], (1, 1), (1, 2)).reshape(8, -1).argmax(1)
    assert values[Metric.FEW_BEAM_TOP1, Method.PHYSC_HEAD] == pytest.approx(100 * np.mean(beams == predicted))
    assert not {Method.PHYSC_FINE_TUNED, Method.TWIN} & {method for _, method in values}


def test_neighbours_are_those_of_the_labelled_users(predictor, data):
    """By a loop over the tested users."""
    settings = settings_of(**STILL, seeds=1)
    found = few_labels(predictor, data, settings, DRAW.seed)
    (error,) = [
        record.value
        for record in found.records
        if (record.metric, record.method, record.x) == (Metric.FEW_LOCATION_ERROR, Method.KNN, LABELS[0])
    ]
    train, test = links_of(data.splits["train"], 9000), links_of(data.splits["test"], 100)
    order = np.random.default_rng([DRAW.seed, 41, 0]).permutation(len(train))[: LABELS[0]]
    (known, _, shown), (asked, _, _) = seen_by(predictor, train, DRAW), seen_by(predictor, test, DRAW)

    def prints(csi: np.ndarray) -> np.ndarray:
        power = np.abs(np.fft.fft2(np.where(shown.numpy(), csi, 0))).reshape(len(csi), -1)
        return power / np.linalg.norm(power, axis=1, keepdims=True)

    known, asked, places = prints(known.numpy()[order]), prints(asked.numpy()), train.position.numpy()[order]
    errors = []
    for own, truth in zip(asked, test.position.numpy(), strict=True):
        away = np.linalg.norm(known - own, axis=1)
        near = np.argsort(away)[:5]
        weight = 1 / np.maximum(away[near], 1e-6)
        errors.append(np.linalg.norm((places[near] * weight[:, None]).sum(0) / weight.sum() - truth))
    assert error == pytest.approx(np.sort(errors)[3], rel=1e-3)


def test_a_correction_is_at_first_none_and_then_any():
    head, features = Correction(4, 2, 10.0), torch.randn(6, 6)
    assert torch.equal(head(features), features[:, 4:])
    torch.nn.init.ones_(head.last.weight)
    assert not torch.equal(head(features), features[:, 4:])


def test_a_direct_wave_lands_without_a_bounce_at_the_level_of_friis(predictor, data):
    users = links_of(data.splits["test"], 100)
    predictor.cache.fill(users.scene.tolist(), [DRAW])
    fronts = predictor.cache.users(users.scene, users.user, DRAW).at(torch.zeros(6, dtype=torch.int64))
    wave = fronts.wave.clone()
    wave[:, 0, 7], wave[:, 0, 8] = 1.0, 0.0
    wave[:, 0, 10] = torch.tensor([0.0, 2.9, -3.9, 3.1, -4.1, 0.0]) / 20
    wave[5, 0, 8] = 1 / 3
    fronts = type(fronts)(wave, torch.ones_like(fronts.found), *list(vars(fronts).values())[2:])
    assert direct(fronts).tolist() == [True, True, True, False, False, False]


def _shown(whole, users):
    return whole.shown(whole.predictor.cache.users(users.scene, users.user, DRAW), users.scene)


def test_networks_differ_in_nothing_but_their_start(predictor, data):
    """Untouched by any step, the one says what the pretrained model says, and the other something else for each seed."""
    whole = Whole(predictor, settings_of(finetune_steps=0).heads)
    users = links_of(data.splits["train"], 100)
    said = predictor.predict(users, DRAW)
    target = location(predictor, users, users, said, said)
    shown = _shown(whole, users)

    def places(pretrained: bool) -> list[torch.Tensor]:
        trained = whole.trained(pretrained, shown, target.label, lambda _: torch.arange(10), target.whole_loss)
        return [whole.says(one.network, shown, lambda outputs, _: outputs.physc) for one in trained]

    own, other = places(True), places(False)
    assert all(torch.allclose(one, said.physc, atol=1e-4) for one in own)
    assert not torch.allclose(other[0], said.physc, atol=1e-2)
    assert not torch.allclose(other[0], other[1], atol=1e-2)


def test_training_a_network_lowers_its_loss_on_what_is_held_back(predictor, data):
    whole = Whole(predictor, settings_of(finetune_steps=30, seeds=1, finetune_rates=[1e-2]).heads)
    users = links_of(data.splits["train"], 100)
    said = predictor.predict(users, DRAW)
    target, shown = location(predictor, users, users, said, said), _shown(whole, users)
    order = torch.arange(len(users))
    (one,) = whole.trained(False, shown, target.label, lambda _: order, target.whole_loss)
    held_back = shown.at(order[-3:])
    with torch.no_grad():
        outputs, logits = one.network(held_back.fronts, whole.sites(held_back))
    fresh = next(
        iter(
            Whole(predictor, settings_of(finetune_steps=0, seeds=1).heads).trained(
                False, shown, target.label, lambda _: order, target.whole_loss
            )
        )
    ).network
    with torch.no_grad():
        first, other = fresh(held_back.fronts, whole.sites(held_back))
    truth = users.position[order[-3:]]
    assert float(target.whole_loss(outputs, logits, truth)) <= float(target.whole_loss(first, other, truth)) + 1e-4


def test_who_is_in_sight_is_as_the_store_says(data):
    import wavecity

    stored = wavecity.open_store(data.name).isel(scene=3)
    served = ~stored.outage.values
    assert line_of_sight(data.splits["test"], 100).tolist() == stored.los.values[served].tolist()


def test_too_few_labelled_users_are_named(predictor, data):
    settings = EvaluationSettings.model_validate({"few_labels": {"labels": [5000]}})
    with pytest.raises(
        InputError, match=r"few_labels\.labels asks for 5000 labelled users at least, the train split has 16"
    ):
        few_labels(predictor, data, settings, 0)
