"""The downstream tasks of the multi-modal model, of the path model: what it is shown, heads that start from what it says."""

import math
from dataclasses import replace

import numpy as np
import pytest
import street
import torch
from synthetic_results import check_spec

import wavecity.model.path_model.encoder as encoding
import wavecity.model.training.pretrain as training
from wavecity.dataset import InputError
from wavecity.model.data.users import gather, load_data
from wavecity.model.learning.heads import PlaceCorrection, Standardiser, log_distance
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.encoder import PathEncoder
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.inference import PathPredictor
from wavecity.model.rays.locate import locate
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.report.page import write_report
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import WHOLE, Condition
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks import cross_scene, sites
from wavecity.model.tasks import localization as local
from wavecity.model.tasks.beams import mu_mimo as mu
from wavecity.model.tasks.cross_scene import cross_localization
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.tasks.localization import localization
from wavecity.model.tasks.paths import trained_places
from wavecity.model.tasks.spec import specs_of
from wavecity.model.tasks.zero_shot_location import links_of
from wavecity.model.training.load import load_rays_model

USERS = 31  # of which one is in outage
DRAW = Draw(3, 3, 15.0)
# Heads and networks that stay where they start.
STILL = {"steps": 1, "learning_rates": [1e-12], "finetune_steps": 1, "finetune_rates": [1e-12]}
LABELS, CROSS, RATIOS = (8, 16), (0, 10), (0.5, 1.0)


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(street, "USERS", USERS)
        yield


@pytest.fixture(scope="module")
def store(cache_folder, tmp_path_factory):
    return street.build(str(tmp_path_factory.mktemp("street") / "store"))


@pytest.fixture(scope="module")
def data(store):
    return load_data(store)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training.pretrain(store, street.settings_of(), folder, seed=3)
    return folder


@pytest.fixture(scope="module")
def predictor(data, run):
    model, _, _ = load_rays_model(run)
    return PathPredictor(model, FrontCache(data.name, 4), data.scenes, 8)


@pytest.fixture(scope="module")
def encoder(predictor, data):
    return PathEncoder.of(predictor, data)


def settings_of(**heads: object) -> EvaluationSettings:
    small = {"seeds": 2, "steps": 10, "finetune_steps": 2, "finetune_batch": 4, "learning_rates": [1e-2],
             "finetune_rates": [1e-3], **heads}  # fmt: skip
    return EvaluationSettings.model_validate(
        {
            "heads": small,
            "localization": {"csi": 0.75, "snr": 15.0, "labels": LABELS},
            "cross_scene": {"labels": CROSS, "adapt_rates": [small["learning_rates"][0]]},
            "mu_mimo": {"csi": 0.75, "snr": 15.0, "cluster": 2, "ratios": RATIOS, "hidden": [[], [8]]},
        }
    )


@pytest.fixture(scope="module")
def placed(encoder, data):
    return localization(encoder, data, settings_of(), 3)


@pytest.fixture(scope="module")
def across(encoder, data):
    return cross_localization(encoder, data, settings_of(), 3)


@pytest.fixture(scope="module")
def beams(encoder, data):
    return mu.mu_mimo(encoder, data, settings_of(), 3)


def seen_in_cache(predictor, data):
    """Test users with the noisy channels of the cache's draw, in the order of `links_of`."""
    links, users = links_of(data.splits["test"], 100), gather(data.splits["test"], 100)
    scene = int(links.scene[0])
    noisy, noise, shown = predictor.cache.seen(scene, DRAW)
    return links, replace(users, csi=noisy[links.user], noise=noise[links.user]), shown


def test_what_is_said_of_users_is_what_the_predictor_says_of_the_same_channels(predictor, encoder, data):
    links, users, shown = seen_in_cache(predictor, data)
    visible = encoder.pilots(0.75, DRAW.seed)
    assert torch.equal(encoder.shown(visible), shown)
    said, known = encoder.predict(users, visible), predictor.predict(links, DRAW)
    torch.testing.assert_close(said.physc, known.physc, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encoder.encode(users, visible), said.physc)
    torch.testing.assert_close(said.location, known.location.best(), rtol=1e-3, atol=1e-2)
    # The cache keeps spectra in half precision.
    torch.testing.assert_close(said.spectrum, known.spectrum, rtol=1e-2, atol=1e-2)
    filled = encoder.channels(users, visible)[Method.MODEL_FILLED_CSI]
    assert (filled - known.csi).abs().max() < 1e-4 * known.csi.abs().max()


def test_the_physics_localiser_is_the_one_that_is_asked_alone(encoder, predictor, data):
    """The middle of the tile, which the base station is north of, where no wave comes down."""
    _, users, shown = seen_in_cache(predictor, data)
    found = locate(users.csi, shown, surroundings(data.name, int(users.scene[0])), users.noise).position.numpy()
    nowhere = np.isnan(found).any(1)
    assert 0 < nowhere.sum() < len(users)
    middle = -data.scenes.bs[int(users.scene[0])].numpy()
    assert middle[1] < 0
    place = encoder.physics(users, encoder.pilots(0.75, DRAW.seed))
    np.testing.assert_allclose(place, np.where(nowhere[:, None], middle, found), atol=1e-3)


def test_waves_are_recovered_once_for_a_user_and_what_is_seen(predictor, data, monkeypatch):
    counted = []
    real = encoding.front

    def counting(csi, *others):
        counted.append(len(csi))
        return real(csi, *others)

    monkeypatch.setattr(encoding, "front", counting)
    encoder = PathEncoder.of(predictor, data)
    users, visible = gather(data.splits["train"], 12), encoder.pilots(0.75, 3)
    users = sites.with_noise(users, 15.0, np.random.default_rng(0))
    first = encoder.encode(users, visible)
    other = encoder.untrained(3).encode(users, visible)
    order = torch.tensor([7, 0, 11, 7])
    torch.testing.assert_close(encoder.encode(users.at(order), visible), first[order], rtol=1e-4, atol=1e-4)
    assert sum(counted) == 12
    assert not torch.allclose(first, other, atol=1e-2)
    # Other antennas, other noise: other waves.
    encoder.encode(users, encoder.pilots(0.75, 4))
    encoder.encode(replace(users, noise=2 * users.noise), visible)
    assert sum(counted) == 36


@pytest.mark.system
def test_several_processes_find_the_same(predictor, data, monkeypatch):
    monkeypatch.setattr(encoding, "CHUNK", 2)
    users, visible = gather(data.splits["train"], 8), torch.tensor([0, 2, 3])
    alone = PathEncoder.of(predictor, data).seen(users, visible)
    monkeypatch.setattr(encoding, "FEWEST", 2)
    monkeypatch.setattr(encoding.os, "sched_getaffinity", lambda _: {0, 1})
    together = PathEncoder.of(predictor, data).seen(users, visible)
    for name, values in vars(alone).items():
        torch.testing.assert_close(getattr(together, name), values, rtol=1e-3, atol=1e-3)


def test_without_training_users_levels_are_scaled_by_the_tested_ones(predictor, store):
    data = load_data(store, ("test",))
    assert math.isnan(data.statistics.csi_rms_db_mean)
    found = PathEncoder.of(predictor, data).statistics
    csi = gather(data.splits["test"]).csi.numpy().astype(complex)
    decibel = 10 * np.log10((np.abs(csi) ** 2).mean((1, 2)))
    assert found.csi_rms_db_mean == pytest.approx(decibel.mean())
    assert found.csi_rms_db_std == pytest.approx(decibel.std())


def test_claims_and_figures_find_their_records(placed, across, beams):
    specs = {spec.name: spec for spec in specs_of("rays")}
    for name, found in (("localization", placed), ("cross-localization", across), ("mu-mimo", beams)):
        check_spec(specs[name], found)
    assert {figure.number for name in specs for figure in specs[name].figures} >= {
        "5",
        "6",
        "7",
        "12",
        "13",
        "14",
        "15",
    }


def grid_of(found, metric, condition=WHOLE):
    """By method: the labels and seeds that it was run with."""
    grid = {}
    for record in found.records:
        if record.metric is metric and record.condition == condition:
            grid.setdefault(record.method, set()).add((record.x, record.seed))
    return {method: {cell for cell in cells if not math.isnan(cell[0])} for method, cells in grid.items()}


def test_every_method_is_there_for_every_number_of_labels_and_seed(placed, across, beams):
    every = {(x, seed) for x in LABELS for seed in (0, 1)}
    heads = {Method.PHYSC_MLP, Method.PHYSC_HEAD, Method.RAW_CNN}
    grid = grid_of(placed, Metric.LOCATION_ERROR)
    for method in {*heads, Method.UNTRAINED_MLP, Method.KNN, Method.KNN_LEVEL, Method.MEAN_LABELLED}:
        assert grid.pop(method) == every, method
    for method in (Method.PHYSC_FINE_TUNED, Method.TWIN):
        assert grid.pop(method) == {(16, 0), (16, 1)}
    assert grid == {Method.MODEL_LOCATION_HEAD: set(), Method.PHYSICS: set()}

    grid = grid_of(across, Metric.CROSS_LOCATION_ERROR)
    every = {(x, seed) for x in CROSS for seed in (0, 1)}
    for method in {*heads, Method.PHYSC_FINE_TUNED, Method.TWIN}:
        assert grid.pop(method) == every, method
    for method in (Method.KNN, Method.KNN_LEVEL, Method.MEAN_LABELLED):
        assert grid.pop(method) == every - {(0, 1)}
    assert grid == {Method.MODEL_LOCATION_HEAD: set(), Method.PHYSICS: set()}

    grid = grid_of(beams, Metric.BEAM_TOP5)
    every = {(x, seed) for x in RATIOS for seed in (0, 1)}
    for method in (Method.PHYSC_PROBE, Method.RAW_PROBE, Method.DFT_PROBE, Method.UNTRAINED_PROBE, Method.PHYSC_HEAD):
        assert grid.pop(method) == every, method
    for method in (Method.PHYSC_FINE_TUNED, Method.TWIN):
        assert grid.pop(method) == {(1.0, 0), (1.0, 1)}
    free = (Method.MODEL_SPECTRUM_BEAM, Method.ZERO_FILLED_BEAM, Method.OMP_4_BEAM, Method.OMP_BEAM, Method.SBL_BEAM)
    assert grid == {method: set() for method in free}
    assert set(grid_of(beams, Metric.BEAM_TOP5, Condition(hidden_layers="8", learning_rate=1e-3))) == {
        Method.PHYSC_HEAD,
        Method.RAW_HEAD,
    }


def test_records_have_the_sizes_that_are_stated(placed, across, beams):
    """Thirty users with a path in the only test scene."""
    assert {record.n for record in placed.records if record.metric is Metric.LOCATION_ERROR} == {6}
    assert {record.n for record in across.records} == {15}
    assert {record.n for record in beams.records if record.metric is Metric.BEAM_TOP5} == {30}
    assert {record.n for record in beams.records if record.metric is Metric.MU_RATE} == {15}
    assert (placed.facts["csi_patches_seen"], placed.facts["csi_patches"]) == (3, 4)
    assert across.facts["train_users"] == 60
    drawn = [Method.PHYSC_MLP, Method.RAW_CNN, Method.PHYSC_HEAD]
    for found, count in ((placed, 6), (across, 15)):
        assert found.arrays["layout_methods"].tolist() == drawn
        assert found.arrays["layout_places"].shape == (3, 1, count, 2)
    rates = [record.value for record in beams.records if record.metric is Metric.MU_RATE]
    assert max(rates) <= beams.facts["fully_digital_bound"]


def values_of(found, metric, *methods):
    """Different values of some methods, to a millimetre or a thousandth of a per cent."""
    return {
        round(record.value, 3)
        for record in found.records
        if record.metric is metric and record.method in methods and record.condition == WHOLE
    }


def test_heads_and_networks_say_at_first_what_the_model_says(encoder, data):
    settings, visible = settings_of(**STILL, seeds=1), encoder.pilots(0.75, 3)
    found = localization(encoder, data, settings, 3)
    site = sites.make_site(data, 3, 10_000, 0.2, 15.0, 3)
    error = np.linalg.norm(encoder.predict(site.test, visible).location.numpy() - site.test.position.numpy(), axis=1)
    own = (Method.PHYSC_HEAD, Method.PHYSC_FINE_TUNED, Method.MODEL_LOCATION_HEAD)
    # torch's median is the lower of the two in the middle.
    (value,) = values_of(found, Metric.LOCATION_ERROR, *own)
    assert value == pytest.approx(np.sort(error)[2], rel=1e-3)

    found = cross_localization(encoder, data, settings, 3)
    site = sites.make_site(data, 3, 2000, 0.5, 15.0, 3)
    error = np.linalg.norm(encoder.predict(site.test, visible).location.numpy() - site.test.position.numpy(), axis=1)
    (value,) = values_of(found, Metric.CROSS_LOCATION_ERROR, *own)
    assert value == pytest.approx(np.median(error), rel=1e-3)

    found = mu.mu_mimo(encoder, data, settings, 3)
    own = (Method.PHYSC_HEAD, Method.PHYSC_FINE_TUNED, Method.MODEL_SPECTRUM_BEAM)
    for metric in (Metric.BEAM_TOP1, Metric.BEAM_TOP5):
        (value,) = values_of(found, metric, *own)
        assert value > 100 / 64


def test_networks_learn_the_places_of_the_labelled_users(encoder, data):
    """All of them moved 20 m east: nobody says so but the labels."""
    site, visible = sites.make_site(data, 3, 10_000, 0.2, 15.0, 3), encoder.pilots(0.75, 3)
    moved = replace(site.users, position=site.users.position + torch.tensor([20.0, 0.0]))
    settings = settings_of(seeds=1, finetune_steps=60, finetune_rates=[1e-2]).heads
    weights = {name: value.clone() for name, value in encoder.model.state_dict().items()}

    @torch.no_grad()
    def likelihood(other):
        location = other.outputs(moved.at(site.labelled(20, 0)), visible)[1].location
        return float(location.log_density(moved.position[site.labelled(20, 0)][:, None]).mean())

    before = likelihood(encoder)
    trained = dict(trained_places(encoder, moved, visible, lambda seed: site.labelled(20, seed), settings))
    assert set(trained) == {Method.PHYSC_FINE_TUNED, Method.TWIN}
    assert all(likelihood(encoder.with_model(one.network.model)) > before + 0.5 for one in trained.values())
    # The pretrained model itself stays as it was.
    assert all(torch.equal(value, weights[name]) for name, value in encoder.model.state_dict().items())


def test_without_steps_no_network_is_trained(encoder, data):
    settings = settings_of(finetune_steps=0, seeds=1)
    for task in (localization, cross_localization, mu.mu_mimo):
        methods = {record.method for record in task(encoder, data, settings, 3).records}
        assert not {Method.PHYSC_FINE_TUNED, Method.TWIN} & methods


def test_what_is_impossible_is_said_in_one_line(predictor, data):
    runs = {spec.name: spec.run for spec in specs_of("rays")}
    settings = EvaluationSettings.model_validate({"localization": {"labels": [500]}, "mu_mimo": {"cluster": 40}})
    with pytest.raises(InputError, match=r"localization\.labels asks for 500 labelled users .* has 30 users") as told:
        runs["localization"](predictor, data, settings, 0)
    assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=r"mu_mimo\.cluster is 40, but the largest test scene has 30 users") as told:
        runs["mu-mimo"](predictor, data, settings, 0)
    assert "\n" not in str(told.value)


@pytest.mark.system
def test_the_report_of_a_path_run_has_the_figures_of_the_tasks_that_were_named(run, store):
    settings = street.settings_of().model_copy(update={"evaluation": settings_of()})
    for task in ("localization", "mu-mimo"):
        facts = evaluate(run, store, task, settings, 3)
        assert (facts["task"], facts["seeds"]) == (task, 2)
    page = write_report(run, store).read_text(encoding="utf-8")
    sections = {part.split()[0]: part for part in page.split("<h3>As Figure ")[1:]}
    for number in ("5", "6", "12", "13", "14", "15"):
        assert "<img" in sections[number], number
    assert "<img" not in sections["7"]
    assert "su-mimo" in sections["7"]


def test_a_place_is_corrected_in_units_of_its_spread():
    head, features = PlaceCorrection(4), torch.randn(6, 7)
    assert torch.equal(head(features), features[:, 4:6])
    torch.nn.init.normal_(head.last.weight)
    moved = head(features) - features[:, 4:6]
    assert moved.abs().min() > 0
    wider = torch.cat((features[:, :6], 3 * features[:, 6:]), 1)
    torch.testing.assert_close(head(wider) - features[:, 4:6], 3 * moved, rtol=1e-4, atol=1e-5)


def test_errors_count_by_their_logarithm():
    place, truth = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert float(log_distance(place, truth)) == pytest.approx((math.log(6) + math.log(1)) / 2)


def test_what_the_model_says_is_not_standardised():
    features = torch.from_numpy(np.random.default_rng(0).normal(5, 3, (50, 6)).astype(np.float32))
    found = Standardiser.of(features, 2)(features)
    torch.testing.assert_close(found[:, 4:], features[:, 4:])
    torch.testing.assert_close(
        found[:, :4], (features[:, :4] - features[:, :4].mean(0)) / features[:, :4].std(0, correction=0)
    )


def test_both_models_have_the_same_claims_and_the_path_model_one_more():
    for module in (local, cross_scene, mu):
        multimodal, paths = module.SPECS
        assert paths.claims[: len(multimodal.claims)] == multimodal.claims
        assert len(paths.claims) == len(multimodal.claims) + 1
        assert paths.pictures == multimodal.pictures
        keys = [claim.key for spec in specs_of("rays") for claim in spec.claims]
        assert len(keys) == len(set(keys))
