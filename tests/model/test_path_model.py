"""The path model: what it says, how it is trained, kept, exported and evaluated."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
import street
import torch
from lightning.pytorch.callbacks import Callback
from street import FULL, seen

import wavecity
import wavecity.model.training.pretrain as training
from wavecity.dataset import InputError
from wavecity.model.benchmark.encoder import Batch, Frozen
from wavecity.model.benchmark.examples import OurRun
from wavecity.model.data.users import gather, load_data
from wavecity.model.path_model.cache import FrontCache
from wavecity.model.path_model.front import Draw
from wavecity.model.path_model.maps import Sites, centres, evidence
from wavecity.model.path_model.module import Links, links, masked_occupancy, weighted
from wavecity.model.path_model.network import fourier, turned
from wavecity.model.rays.surroundings import surroundings
from wavecity.model.results.records import read_records
from wavecity.model.settings.rays import RaysModelSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.tasks.evaluate import evaluate
from wavecity.model.training.backbones import Rays
from wavecity.model.training.export import compare, export_model
from wavecity.model.training.export_rays import DeployedPathModel
from wavecity.model.training.load import load_rays_model
from wavecity.model.training.run_folder import CHECKPOINT, pretrain_fingerprint

pytestmark = pytest.mark.usefixtures("street_cache")


@pytest.fixture(scope="module")
def settings():
    return street.settings_of()


@pytest.fixture(scope="module")
def finished(street_store, settings, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    training.pretrain(street_store, settings, run, seed=3)
    return run


@pytest.fixture(scope="module")
def backbone(street_store, settings):
    return Rays.load(street_store, settings)


@pytest.fixture(scope="module")
def batch(backbone):
    """The first batch of an epoch."""
    module = backbone.batches(3)
    return next(iter(module.train_dataloader()))


@pytest.fixture
def module(backbone):
    return backbone.module(4, 3, {})


def weights(run):
    return torch.load(run / CHECKPOINT, weights_only=True)["state_dict"]


def permuted(fronts, rng):
    """The same user with its waves and places in another order; the physics' own estimate stays first."""
    waves = torch.from_numpy(rng.permutation(fronts.found.shape[1]))
    places = torch.cat(
        (torch.zeros(1, dtype=torch.long), 1 + torch.from_numpy(rng.permutation(fronts.place.shape[1] - 1)))
    )
    by = {"wave": waves, "found": waves, "direction": waves, "bounced": waves, "gain": waves, "landing": waves}
    by |= dict.fromkeys(("place", "place_features", "usable", "prior"), places)
    return replace(fronts, **{name: getattr(fronts, name)[:, order] for name, order in by.items()}), waves, places


def roused(model):
    """With every weight that starts at zero drawn at random: what starts as the identity must be tested too."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return model


def test_the_order_of_waves_and_places_does_not_matter(module, batch):
    world = module.world(batch, Draw(3, number=1))
    other, waves, places = permuted(world.fronts, np.random.default_rng(0))
    model = roused(module.model)
    one, two = model(world.fronts, world.sites), model(other, world.sites)
    assert torch.allclose(one.physc, two.physc, atol=1e-4)
    assert torch.allclose(one.spectrum, two.spectrum, atol=1e-4)
    assert torch.allclose(one.gate[:, waves], two.gate, atol=1e-5)
    count = len(places)
    assert torch.allclose(one.location.log_weight[:, :count][:, places], two.location.log_weight[:, :count], atol=1e-4)
    assert torch.allclose(one.location.log_weight[:, count:], two.location.log_weight[:, count:], atol=1e-4)


def test_what_is_not_there_does_not_matter(module, batch):
    world = module.world(batch, Draw(3, number=1))
    fronts = world.fronts
    absent, empty = ~fronts.found[..., None], ~fronts.usable[..., None]
    assert absent.any()
    changed = replace(
        fronts,
        wave=torch.where(absent, 5.0, fronts.wave),
        direction=torch.where(absent, 0.3, fronts.direction),
        place_features=torch.where(empty, 5.0, fronts.place_features),
    )
    model = roused(module.model)
    one, two = model(fronts, world.sites), model(changed, world.sites)
    assert torch.allclose(one.physc, two.physc, atol=1e-5)
    assert torch.allclose(one.location.best(), two.location.best())


def test_a_user_without_power_has_an_answer(module, batch):
    """As behind a turned panel: nothing was recovered, and the front end has zeros of it."""
    world = module.world(batch, Draw(3, number=1))
    silent = {}
    for name, value in vars(world.fronts).items():
        silent[name] = value.clone()
        if name != "shown":
            silent[name][0] = 0
    world = replace(world, fronts=replace(world.fronts, **silent))
    terms = module.terms(world, 0.2, (0, False))
    weighted(terms, module.settings).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad.isfinite().all() for p in module.model.parameters() if p.grad is not None)


def test_untrained_it_says_what_physics_says(module, batch):
    world = module.world(batch, Draw(3, number=1))
    outputs = module.model(world.fronts, world.sites)
    assert torch.equal(outputs.location.centre[:, : world.fronts.place.shape[1]], world.fronts.place)
    best = outputs.location.log_weight[:, : world.fronts.place.shape[1]].argmax(1)
    assert (world.fronts.prior.gather(1, best[:, None]) == 0).all()
    assert torch.equal(outputs.spectrum, world.fronts.log_spectrum)


def test_the_summary_carries_place_and_directions(module, batch):
    """Another place that the mixture points at, another code added to what the tokens came to."""
    model = module.model
    world = module.world(batch, Draw(3, number=1))
    with torch.no_grad():
        model.of_place.weight.mul_(100)
        moved = model(replace(world.fronts, place=world.fronts.place + 3.0), world.sites).physc
        still = model(world.fronts, world.sites).physc
    code = fourier(torch.zeros(1, 2), (10.0, 5.0))
    assert code.shape == (1, 8)
    assert float((moved - still).norm(dim=1).min()) > 0.1 * float(still.norm(dim=1).mean())


@pytest.mark.parametrize(
    ("term", "part"),
    [("location", "place_out"), ("spectrum", "spectrum.last"), ("csi", "gate_out"), ("occupancy", "occupancy.fine")],
)
def test_every_objective_trains_its_part(module, batch, term, part):
    roused(module.model)
    loss = module.terms(module.world(batch, Draw(3, number=1)), 0.2, (1, True))[term]
    loss.backward()
    gradient = module.model.get_submodule(part).weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    others = {name for name, value in module.model.named_parameters() if value.grad is not None and value.grad.any()}
    assert any(name.startswith("occupancy") for name in others) == (term == "occupancy")


def test_turned_maps_give_turned_occupancy(module):
    branch = roused(module.model).occupancy
    maps = torch.randn(2, 11, 40, 40, generator=torch.Generator().manual_seed(0))
    found = branch.symmetric(maps)
    for turns, flip in ((1, False), (2, True), (3, False)):
        assert torch.allclose(branch.symmetric(turned(maps, turns, flip)), turned(found, turns, flip), atol=1e-5)
        assert torch.equal(turned(turned(maps, turns, flip), turns, flip, back=True), maps)


def test_what_is_masked_has_no_influence_on_its_prediction(module, batch):
    world = module.world(batch, Draw(3, number=1))
    _, hidden = masked_occupancy(module.model, world, 0.2, 4, None)
    cells = hidden.any(0).repeat_interleave(10, 0).repeat_interleave(10, 1)
    raised = torch.where(cells, world.sites.height + 20, world.sites.height)
    # Of each user what is masked for him: all stand in one scene, whose map is raised where anything is.
    for user in range(4):
        mine = hidden[user].repeat_interleave(10, 0).repeat_interleave(10, 1)
        only = torch.where(mine, raised, world.sites.height)
        one, _ = masked_occupancy(module.model, world, 0.2, 4, None)
        two, _ = masked_occupancy(module.model, replace(world, sites=replace(world.sites, height=only)), 0.2, 4, None)
        assert torch.allclose(one[user], two[user], atol=1e-6)


def test_the_evidence_shows_where_a_reflection_must_have_been(batch, module):
    """By the image of the base station behind a wall 20 m to the east."""
    world = module.world(batch, Draw(3, number=1))
    user, drop = np.array([5.0, -80.0]), 13.5
    image = np.array([40.0, 0.0])
    total = float(np.hypot(*(user - image)))
    bounce = image + (user - image) * (image[0] - 20) / (image[0] - user[0])
    heading = bounce / np.hypot(*bounce)
    down = drop / math.hypot(total, drop)
    flat = math.sqrt(1 - down**2)
    fronts = world.fronts.at(torch.tensor([0]))
    direction = torch.zeros_like(fronts.direction)
    direction[0, 0] = torch.tensor([heading[0] * flat, down])
    found = torch.zeros_like(fronts.found)
    found[0, 0] = True
    sites = Sites(torch.zeros(1, 200, 200), torch.zeros(1, dtype=torch.long), torch.tensor([[0.0, 100.0]]), 200.0)
    fronts = replace(fronts, direction=direction, found=found)
    drawn = evidence(fronts, torch.tensor(user, dtype=torch.float32)[None], sites, 40, drop)
    middle = centres(40, 200.0, torch.device("cpu")) - torch.tensor([0.0, 100.0])
    spot = middle.flatten(0, 1)[drawn[0, 5].argmax()]
    assert np.hypot(*(spot.numpy() - bounce)) < 5 * math.sqrt(2) / 2 + 0.1
    assert float(drawn[0, 3].max()) == 0  # no direct wave


def test_a_run_leaves_what_the_other_models_leave(finished, settings):
    summary = json.loads((finished / "pretrain.json").read_text())
    assert summary["steps"] == 2 * (16 // 4)
    assert summary["settings"]["backbone"] == "rays"
    model, trained_with, card = load_rays_model(finished)
    assert trained_with == settings
    assert not model.training
    assert card["radio"]["user_height"] == 1.5
    curves = (finished / "logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    for name in ("train/location", "train/csi", "validation/spectrum", "validation/occupancy"):
        assert name in curves


class Killed(Exception):
    pass


class KillAt(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


def test_resuming_gives_the_weights_of_an_uninterrupted_run(finished, street_store, settings, tmp_path, monkeypatch):
    often = settings.model_copy(update={"checkpoint_minutes": 1e-7})
    make = training.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt(5))
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(training, "make_trainer", killing)
        with pytest.raises(Killed):
            training.pretrain(street_store, often, tmp_path, seed=3)
    training.pretrain(street_store, often, tmp_path, seed=3)
    one, two = weights(tmp_path), weights(finished)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_ranks_together_train_on_what_one_process_trains_on(module, batch):
    def part(rank):
        users = batch.snapshots
        rows = slice(rank, None, 2)
        shared = users._replace(csi=users.csi[rows], position=users.position[rows], scene=users.scene[rows])
        return Links(shared, batch.scene[rows], batch.user[rows])

    with torch.no_grad():
        whole = module.step_terms(batch, 7)
        parts = [module.step_terms(part(rank), 7) for rank in (0, 1)]
    for name, value in whole.items():
        assert float(torch.stack([terms[name] for terms in parts]).mean()) == pytest.approx(float(value), rel=1e-4)
    assert float(weighted(whole, module.settings)) > 0


def test_workers_do_not_decide_the_weights():
    def of(**rays):
        return pretrain_fingerprint(TrainingSettings.model_validate({"backbone": "rays", "rays": rays}), "v", 0)

    assert of() == of(workers=3)
    assert of() != of(draws=5)
    assert pretrain_fingerprint(TrainingSettings(), "v", 0) == pretrain_fingerprint(
        TrainingSettings.model_validate({"rays": {"draws": 5}}), "v", 0
    )


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(
        ValueError, match=r"training\.rays\.model\.width 30 must be a multiple of training\.rays\.model\.heads 4"
    ):
        RaysModelSettings(width=30)


def test_a_loaded_model_predicts_what_the_training_one_does(finished, street_store, backbone):
    """From channels and the map alone, as a user has them."""
    run = wavecity.load(str(finished))
    csi, _ = seen(street_store)
    data = wavecity.open_store(street_store).isel(scene=0)
    every, scene = np.ones((8, 8), bool), surroundings(street_store, 0)
    outputs = run.predict(csi, every, scene, data.height.values)
    embedded = run.embed(csi.numpy(), every, scene, data.height.values)
    assert embedded == pytest.approx(outputs.physc.numpy())
    cache = FrontCache(street_store, 4)
    cache.fill([0], [FULL])
    served = torch.arange(len(csi))
    bs = torch.tensor([[0.0, 100.0]]).expand(len(csi), -1)
    sites = Sites(torch.from_numpy(data.height.values)[None], torch.zeros(len(csi), dtype=torch.long), bs, 200.0)
    with torch.no_grad():
        expected = run.model(cache.users(torch.zeros_like(served), served, FULL), sites)
    assert torch.allclose(outputs.physc, expected.physc, atol=1e-2)
    assert torch.allclose(outputs.location.best(), expected.location.best(), atol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": np.ones((4, 4), bool)}, r"shown has shape \(4, 4\), expected \(8, 8\)"),
        ({"shown": np.zeros((8, 8), bool)}, "shown has no antenna"),
        ({"height": np.zeros((20, 20))}, r"height has shape \(20, 20\), expected \(200, 200\)"),
        ({"csi": np.ones((2, 8, 8))}, "expected complex numbers"),
    ],
)
def test_what_the_model_does_not_take_is_refused(finished, street_store, changes, message):
    given = {"csi": np.ones((2, 8, 8), complex), "shown": np.ones((8, 8), bool), "scene": surroundings(street_store, 0)}
    given |= {"height": np.zeros((200, 200))} | changes
    with pytest.raises(InputError, match=message):
        wavecity.load(str(finished)).predict(**given)


def test_another_models_run_is_refused_and_another_radio(finished, street_store, settings, tmp_path):
    from wavecity.model.training.load import load_model

    with pytest.raises(InputError, match=r"a rays model; a run with training\.backbone multimodal is needed"):
        load_model(finished)
    scene = surroundings(street_store, 0)
    other = replace(scene, radio=replace(scene.radio, user_height=1.0))
    with pytest.raises(InputError, match="the model was trained with"):
        wavecity.load(str(finished)).predict(
            np.ones((1, 8, 8), complex), np.ones((8, 8), bool), other, np.zeros((200, 200))
        )


def test_what_is_exported_says_what_the_model_says(module, batch):
    """Of the same users, from real tensors alone."""
    world = module.world(batch, Draw(3, number=1))
    model, fronts, sites = roused(module.model).eval(), world.fronts, world.sites
    given = {name: getattr(fronts, name) for name in DeployedPathModel.inputs if hasattr(fronts, name)}
    given |= {"gain": fronts.gain.abs(), "found": fronts.found.float(), "usable": fronts.usable.float()}
    encoder = DeployedPathModel(model, sites.size)
    found = dict(zip(encoder.outputs, encoder(**given, height=sites.height[sites.row], bs=sites.bs), strict=True))
    expected = model(fronts, sites)
    for name, value in (("physc", expected.physc), ("spectrum", expected.spectrum), ("gate", expected.gate)):
        assert torch.allclose(found[name], value, atol=1e-4), name
    assert torch.allclose(found["centre"], expected.location.centre, atol=1e-3)


@pytest.mark.heavy
def test_an_onnx_file_gives_the_models_outputs(finished, tmp_path):
    assert max(export_model(finished, tmp_path / "paths.onnx", 1.0).values()) < 1e-4


@pytest.mark.heavy
def test_a_pt2_file_alone_gives_the_models_outputs(finished, tmp_path):
    differences = export_model(finished, tmp_path / "paths.pt2", 1.0)
    assert set(differences) == {"physc", "log_weight", "centre", "log_scale", "spectrum", "gate"}
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "paths.pt2", extra_files=extra).module()
    facts = json.loads(extra["metadata.json"])
    run = load_rays_model(finished)
    encoder = DeployedPathModel(run.model, run.card["tile_size"])
    example = encoder.example(5)
    assert compare(encoder, program, example)["physc"] < 1e-4
    assert [port["name"] for port in facts["inputs"]] == list(encoder.inputs)
    for port, value in zip(facts["outputs"], encoder(*example), strict=True):
        assert port["shape"] == ["batch", *value.shape[1:]]


def evaluated(settings, **zero_shot):
    own = settings.evaluation.zero_shot.model_copy(update={"patches": 3, "beam_patches": 2, **zero_shot})
    return settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"zero_shot": own})})


def test_the_evaluation_compares_on_the_same_users(finished, street_store, settings):
    result = evaluate(finished, street_store, "zero-shot", evaluated(settings), 3)
    records = read_records(finished / result["table"], "zero-shot")
    assert {record.n for record in records if record.metric.value != "mu_rate"} == {8}
    # All eight make one cluster.
    rates = {record.method.value: record for record in records if record.metric.value == "mu_rate"}
    assert {"model_spectrum_beam", "sbl_beam", "omp_4_beam", "zero_filled_beam", "exhaustive_search"} == set(rates)
    assert {record.n for record in rates.values()} == {1}
    assert set(result["facts"]["users_within_stated_regions"]["all"]) == {"50", "80", "90", "95"}
    assert result["facts"]["test_users"] == 8
    values = {
        (record.metric.value, record.method.value): record.value for record in records if not record.condition.user_kind
    }
    with np.load((finished / result["table"]).with_suffix(".npz")) as arrays:
        for method in ("model", "physics"):
            error = np.linalg.norm(arrays[f"location_{method}"] - arrays["location_true"], axis=1)
            assert values["hidden_location_error", method] == pytest.approx(np.median(error), rel=1e-4)
            assert values["hidden_location_p90", method] == pytest.approx(np.quantile(error, 0.9), rel=1e-4)
    assert values["csi_nmse", "zeros"] == pytest.approx(0, abs=1e-6)
    assert values["csi_nmse", "model"] < -3
    assert 0 <= values["region_held", "model"] <= 100
    assert values["beam_top5", "sbl_beam"] >= values["beam_top1", "sbl_beam"]


def test_masked_csi_is_compared_with_sparse_recovery_where_few_antennas_are_seen(finished, street_store, settings):
    """A few plane waves fill in what is hidden the better the less noise there is; of 64 antennas or fewer SBL is tried."""
    at = {}
    for snr in (10.0, 40.0):
        result = evaluate(finished, street_store, "zero-shot", evaluated(settings, snr=snr), 3)
        at[snr] = {
            record.method.value: record.value
            for record in read_records(finished / result["table"], "zero-shot")
            if record.metric.value == "csi_nmse"
        }
    assert set(at[10.0]) == {"model", "waves", "omp", "zeros", "sbl"}
    assert at[40.0]["sbl"] < at[10.0]["sbl"] < -6
    assert at[40.0]["sbl"] < -20


def test_all_splits_can_be_tested_and_neighbours_stand_elsewhere(finished, street_store, settings):
    every = evaluated(settings, splits=("train", "validation", "test"))
    result = evaluate(finished, street_store, "zero-shot", every, 3, own=(settings, 3))
    assert result["facts"]["test_users"] == 32
    values = {
        record.method.value: record.value
        for record in read_records(finished / result["table"], "zero-shot")
        if record.metric.value == "hidden_location_error" and not record.condition.user_kind
    }
    assert values["knn_training"] > 1  # a user would find himself


def test_a_batch_says_whose_it_is(batch, street_store):
    data = wavecity.open_store(street_store)
    assert isinstance(batch, Links)
    for row, (scene, user) in enumerate(zip(batch.scene.tolist(), batch.user.tolist(), strict=True)):
        assert np.array_equal(batch.snapshots.csi[row].numpy(), data.csi.values[scene, user])
    assert links.__doc__
    assert os.environ["XDG_CACHE_HOME"]


def test_the_benchmark_gives_the_model_the_footprints_the_map_and_each_users_noise(finished, street_store):
    data = load_data(street_store)
    users = gather(data.splits["test"]).at(torch.tensor([0, 3, 5]))
    # Without noise the weakest waves of 8 x 8 antennas are those of rounding, which depends on the others of a batch.
    noise = users.csi.abs().square().mean((1, 2)).double() * torch.tensor([0.03, 0.1, 0.3])
    frozen = Frozen(OurRun(finished), "rays", data, 4)
    shown = frozen.pilots(0.5, 0)
    found = frozen.features(users, shown, noise) * frozen.scale
    model, height, row = wavecity.load(str(finished)), data.scenes.height[3], int(users.scene[0])
    for user in range(3):
        alone = slice(user, user + 1)
        expected = model.embed(users.csi[alone], shown, surroundings(street_store, row), height, float(noise[user]))
        assert torch.allclose(found[alone], expected, atol=1e-4)
    assert Batch(*[None] * 6, store=street_store, scene=row).footprints.total_bounds.tolist() == [-80, 25, -40, 60]


def test_the_evaluation_keeps_the_ways_of_every_users_waves(finished, street_store, settings):
    result = evaluate(finished, street_store, "zero-shot", evaluated(settings), 3)
    with np.load((finished / result["table"]).with_suffix(".npz")) as arrays:
        kept = dict(arrays.items())
    true, corners, gain = kept["location_true"], kept["ray_corners"], kept["ray_gain"]
    assert corners.shape[:2] == gain.shape == kept["ray_lands"].shape
    found = np.isfinite(gain)
    assert found.any(1).all()  # users without a path are not tested
    assert (np.isnan(corners).all((2, 3)) == ~found).all()
    assert not kept["ray_lands"][~found].any()
    assert (corners[found][:, 0] == 0).all()
    # A wave that lands does so at the height of a user; of users in line of sight on open ground, straight.
    ends = corners[:, 0, 1]
    assert np.allclose(ends[kept["ray_lands"][:, 0], 2], -13.5, atol=1e-4)
    apart = np.linalg.norm(ends[:, :2] - true, axis=1)
    assert np.median(apart) < 15
    for name in ("spectrum_model", "occupancy_model"):
        assert len(kept[name]) == len(kept["spectrum_scene"]) == 4
    np.testing.assert_allclose(kept["spectrum_model"].mean((1, 2)), 1, rtol=1e-5)
    assert kept["spectrum_masked"] == pytest.approx(1 / 4)  # three of four patches
