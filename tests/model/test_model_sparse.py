"""Profile `wavecity`: masked CSI by sparse Bayesian learning with a decoded prior."""

import math

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from synthetic import stored, two_path_csi

import wavecity.model.training.pretrain as pretraining
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import visible_antennas
from wavecity.model.data.users import ScenePatches, gather, geometry_of
from wavecity.model.learning.baselines import nmse, omp
from wavecity.model.multimodal import losses
from wavecity.model.multimodal.inference import Predictor
from wavecity.model.multimodal.inputs import loss_terms, prepare
from wavecity.model.multimodal.masking import Mask, Plan, draw_mask
from wavecity.model.multimodal.network import FoundationModel, Inputs
from wavecity.model.multimodal.sparse import SparseRecovery, enlarge, sparse_bayesian
from wavecity.model.results.names import Method, Metric
from wavecity.model.settings.training import EvaluationSettings, ModelSettings, StageMasks
from wavecity.model.tasks.reconstruction import reconstruction
from wavecity.model.training.load import load_model
from wavecity.model.training.pretrain import pretrain

HIDDEN = Plan("all", 2, 0.9, 0.2, hide_location=True)
COLUMNS, ROWS, OVER = 6, 4, 2


@pytest.fixture(scope="module")
def wavecity(tiny):
    """Settings of a run of seconds in profile `wavecity`."""
    fields = {"profile": "wavecity", "recovery_steps": 2, "recovery_oversampling": 2, "recovery_antennas": 400}
    return tiny.model_copy(update={"model": tiny.model.model_copy(update=fields)})


def toy(seed=0, batch=3, shown=11):
    """Visible entries of random small channels at other antennas for each, and a random prior."""
    rng = np.random.default_rng(seed)
    antennas = np.stack([rng.permutation(COLUMNS * ROWS)[:shown] for _ in range(batch)])
    visible = rng.normal(size=(batch, shown)) + 1j * rng.normal(size=(batch, shown))
    prior = rng.normal(size=(batch, OVER * COLUMNS, OVER * ROWS))
    return visible, antennas, prior


def run(recovery, visible, antennas, prior):
    with torch.no_grad():
        return recovery(
            torch.from_numpy(visible).to(torch.complex64), torch.from_numpy(antennas), torch.from_numpy(prior).float()
        ).numpy()


def responses():
    """Array responses of all directions at all antennas, (antennas, directions), entry by entry."""
    matrix = np.empty((COLUMNS * ROWS, OVER * COLUMNS * OVER * ROWS), complex)
    for x in range(COLUMNS):
        for y in range(ROWS):
            for k_x in range(OVER * COLUMNS):
                for k_y in range(OVER * ROWS):
                    phase = 2 * math.pi * (x * k_x / (OVER * COLUMNS) + y * k_y / (OVER * ROWS))
                    matrix[x * ROWS + y, k_x * OVER * ROWS + k_y] = complex(math.cos(phase), math.sin(phase))
    return matrix


def literal(visible, antennas, prior, start, pace, trust, noise):
    """MacKay's iteration and the conditional mean with dense matrices in double precision, one user at a time."""
    every, channels = responses(), []
    for values, index, expected in zip(visible, antennas, prior.reshape(len(prior), -1), strict=True):
        seen, count = every[index], len(index)
        scale = np.sqrt(np.mean(np.abs(values) ** 2))
        h = values / scale
        zero_filled = np.abs(seen.conj().T @ h) ** 2
        power = (zero_filled / zero_filled.mean() + 1e-3) ** start * np.exp(expected)
        for step in range(len(pace) + 1):
            power = power / power.sum()
            covariance = seen @ np.diag(power) @ seen.conj().T + count * noise[step] * np.eye(count)
            inverse = np.linalg.inv(covariance)
            if step < len(pace):
                gain = np.abs(seen.conj().T @ inverse @ h) ** 2
                gain = gain / np.einsum("md,mn,nd->d", seen.conj(), inverse, seen).real
                power = power * (gain + 1e-3) ** pace[step] * np.exp(trust[step] * expected)
        channels.append(scale * (every @ np.diag(power) @ seen.conj().T @ inverse @ h).reshape(COLUMNS, ROWS))
    return np.stack(channels)


def test_without_a_step_it_is_the_conditional_mean_under_the_prior():
    visible, antennas, prior = toy()
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 0)
    recovery.start.data.zero_()
    recovery.noise.data.fill_(math.log(1e-3))
    every = responses()
    for user in range(3):
        power = np.exp(prior[user].ravel()) / np.exp(prior[user]).sum()
        # numpy's own solver on the joint covariance of all antennas.
        covariance = (every * power) @ every.conj().T
        seen = covariance[np.ix_(antennas[user], antennas[user])] + 11 * 1e-3 * np.eye(11)
        expected = covariance[:, antennas[user]] @ np.linalg.solve(seen, visible[user])
        found = run(recovery, visible, antennas, prior)[user].ravel()
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_trained_steps_equal_the_dense_iteration():
    visible, antennas, prior = toy(1)
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 3)
    start, pace, trust, noise = 0.8, [1.0, 0.7, 1.1], [0.0, 0.2, -0.1], [1e-2, 5e-3, 2e-3, 1e-3]
    recovery.start.data.fill_(start)
    recovery.pace.data.copy_(torch.tensor(pace))
    recovery.trust.data.copy_(torch.tensor(trust))
    recovery.noise.data.copy_(torch.tensor(noise).log())
    expected = literal(visible, antennas, prior, start, pace, trust, noise)
    np.testing.assert_allclose(run(recovery, visible, antennas, prior), expected, rtol=2e-3, atol=2e-3)


def test_untrained_with_a_flat_prior_it_is_plain_sparse_bayesian_learning():
    visible, antennas, prior = toy(2)
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 4)
    expected = literal(visible, antennas, 0 * prior, 1, [1] * 4, [0] * 4, [1.5e-6] * 5)
    np.testing.assert_allclose(run(recovery, visible, antennas, 0 * prior), expected, rtol=2e-2, atol=2e-2)


def test_known_noise_is_that_of_the_dense_iteration():
    visible, antennas, prior = toy(4)
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 4)
    # Noise over power of all antennas, in `literal` of each.
    expected = literal(visible, antennas, 0 * prior, 1, [1] * 4, [0] * 4, [0.2 / 11] * 5)
    with torch.no_grad():
        found = recovery(
            torch.from_numpy(visible).to(torch.complex64),
            torch.from_numpy(antennas),
            torch.zeros(prior.shape),
            torch.full((3,), 0.2),
        )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_who_knows_the_noise_recovers_more_of_a_noisy_channel():
    rng = np.random.default_rng(5)
    shown, _ = four_patches()
    truth = torch.from_numpy(1e-6 * two_path_csi(rng.uniform([-90, -190, -14], [90, -10, -13], (20, 3)), rng))
    power = truth.abs().square().mean((1, 2)).double() / 10
    noise = rng.standard_normal((2, 20, 32, 32)) * np.sqrt(power.numpy() / 2)[:, None, None]
    noisy = truth + torch.from_numpy(noise[0] + 1j * noise[1]).to(torch.complex64)
    knowing, ignorant = (
        float(nmse(sparse_bayesian(noisy, shown, known), truth, ~shown).mean()) for known in (power, None)
    )
    assert knowing < 0.7 * ignorant


def four_patches(patches=(3, 22, 41, 60)):
    shown = visible_antennas(torch.tensor(patches), 32, 32, 4)
    return shown, shown.flatten().nonzero()[:, 0]


def test_few_waves_on_the_grid_are_recovered_from_four_patches():
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
    channels = np.zeros((20, 32, 32), complex)
    for channel in channels:
        for gain, angle in zip((1, 0.6, 0.3), rng.uniform(0, 2 * np.pi, 3), strict=True):
            k_x, k_y = rng.integers(0, 128, 2)
            channel += gain * np.exp(1j * (angle + 2 * np.pi * (x * k_x + y * k_y) / 128))
    shown, _ = four_patches()
    truth = torch.from_numpy(channels).to(torch.complex64)
    assert 10 * torch.log10(nmse(sparse_bayesian(truth, shown, steps=20), truth, ~shown).median()) < -30


def test_off_the_grid_it_is_ahead_of_matching_pursuit():
    rng = np.random.default_rng(4)
    position = np.stack((rng.uniform(-95, 95, 40), rng.uniform(-190, -20, 40), np.full(40, -13.5)), -1)
    csi = torch.from_numpy(two_path_csi(position, rng))
    shown, _ = four_patches()
    ours, pursued = (
        float(nmse(estimate, csi, ~shown).mean()) for estimate in (sparse_bayesian(csi, shown), omp(csi, shown, 16)[0])
    )
    assert ours < 0.5 * pursued


@pytest.mark.parametrize("factor", [1e-9, 3.0 * np.exp(2j)])
def test_scale_and_phase_of_the_channel_pass_through(factor):
    visible, antennas, prior = toy(5)
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 3)
    recovery.trust.data.fill_(0.3)
    plain = run(recovery, visible, antennas, prior)
    np.testing.assert_allclose(run(recovery, factor * visible, antennas, prior) / factor, plain, rtol=2e-3, atol=2e-3)


def test_turning_the_world_by_a_direction_turns_the_estimate():
    visible, antennas, prior = toy(6)
    recovery = SparseRecovery(COLUMNS, ROWS, OVER, 3)
    recovery.noise.data.fill_(math.log(1e-4))
    wave = responses()[:, 5 * OVER * ROWS + 3]
    turned = run(recovery, visible * wave[antennas], antennas, np.roll(prior, (5, 3), (1, 2)))
    expected = run(recovery, visible, antennas, prior) * wave.reshape(COLUMNS, ROWS)
    np.testing.assert_allclose(turned, expected, rtol=2e-3, atol=2e-3)


def test_gradients_stay_finite_for_silent_and_for_pure_channels():
    recovery = SparseRecovery(32, 32, 2, 6)
    _, index = four_patches()
    visible = torch.stack((torch.zeros(64), torch.ones(64), torch.arange(64) % 2)).to(torch.complex64)
    prior = torch.zeros(3, 64, 64, requires_grad=True)
    recovery(visible, index.expand(3, -1), prior).abs().square().sum().backward()
    for gradient in (prior.grad, *(parameter.grad for parameter in recovery.parameters())):
        assert torch.isfinite(gradient).all()


def test_enlarging_is_periodic_and_keeps_the_mean():
    maps = torch.randn(2, 1, 6, 4, generator=torch.Generator().manual_seed(0))
    large = enlarge(maps, 3)
    assert large.shape == (2, 1, 18, 12)
    torch.testing.assert_close(enlarge(maps.roll((1, 2), (2, 3)), 3), large.roll((3, 6), (2, 3)))
    torch.testing.assert_close(large.mean((2, 3)), maps.mean((2, 3)))


def batch_of(data, settings, plan=HIDDEN, count=8, csi=None):
    """Inputs of some users; `csi` changes the channels after the mask is drawn."""
    users = gather(data.splits["train"], count)
    scenes = ScenePatches(data.scenes, settings, data.statistics, torch.device("cpu"))
    bs = scenes.bs[users.scene]
    mask = draw_mask(plan, 64, scenes.centres, bs, bs + users.position, scenes.size, np.random.default_rng(0))
    channels = users.csi if csi is None else csi(users.csi, mask)
    prepared = prepare(channels, users.position, users.scene, mask, scenes)
    return prepared, mask, scenes.occupancy(users.scene)


def noise_where_masked(csi, mask):
    changed = csi.clone()
    for user, patches in enumerate(mask.csi_masked.tolist()):
        for patch in patches:
            x, y = 4 * (patch // 8), 4 * (patch % 8)
            changed[user, x : x + 4, y : y + 4] = 1e3 - 5j
    return changed


def predict(model, prepared, mask):
    with torch.no_grad():
        return model(prepared.inputs, mask)


def test_nothing_of_what_is_masked_reaches_any_output(data, wavecity):
    torch.manual_seed(0)
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model)).eval()
    torch.nn.init.normal_(model.prior.head.weight)
    clean, mask, _ = batch_of(data, wavecity)
    spoiled, same_mask, _ = batch_of(data, wavecity, csi=noise_where_masked)
    assert torch.equal(mask.csi_masked, same_mask.csi_masked)
    assert not torch.equal(clean.inputs.csi, spoiled.inputs.csi)
    before, after = predict(model, clean, mask), predict(model, spoiled, mask)
    for name in ("physc", "spectrum", "csi", "occupancy", "location"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_what_is_visible_and_the_prior_do_reach_the_estimate(data, wavecity):
    torch.manual_seed(0)
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model)).eval()
    prepared, mask, _ = batch_of(data, wavecity)
    flat = predict(model, prepared, mask).csi
    torch.nn.init.normal_(model.prior.head.weight)
    informed = predict(model, prepared, mask).csi
    other_scene, _, _ = batch_of(data, wavecity)
    object.__setattr__(other_scene.inputs, "height", prepared.inputs.height.flip(0))
    moved = predict(model, other_scene, mask).csi
    assert ((informed - flat).abs().amax((1, 2)) > 0).all()
    assert (moved - informed).abs().amax() > 0


def test_the_estimate_does_not_depend_on_the_order_of_the_patches(data, wavecity):
    torch.manual_seed(0)
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model)).eval()
    torch.nn.init.normal_(model.prior.head.weight, std=0.1)
    # With the noise of a fresh model, rounding alone would move a few weak entries.
    model.recovery.noise.data.fill_(math.log(1e-4))
    prepared, mask, _ = batch_of(data, wavecity)
    flipped = Mask(
        mask.csi_visible.flip(1),
        mask.csi_masked.flip(1),
        mask.scene_visible,
        mask.scene_masked,
        location_visible=False,
    )
    before, after = predict(model, prepared, mask), predict(model, prepared, flipped)
    torch.testing.assert_close(after.csi, before.csi.flip(1), atol=2e-3, rtol=2e-3)


def test_masked_patches_are_those_of_plain_recovery_before_training(data, wavecity):
    """Patches, scale and order of the antennas: the predictor's grid against the estimator on whole channels."""
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model)).eval()
    predictor = Predictor(model, wavecity, data.statistics, data, 16)
    users = gather(data.splits["test"], 20)
    visible = predictor.visible_patches(0.9, 0)
    shown = visible_antennas(visible, 32, 32, 4)
    plain = sparse_bayesian(users.csi, shown, steps=2, oversampling=2)
    found = predictor.predict(users, visible).csi
    assert float(nmse(found, plain, ~shown).max()) < 1e-4
    assert (found[:, shown] == 0).all()


def test_evaluation_compares_the_model_with_its_untrained_estimator(data, wavecity):
    like_plain = wavecity.model.model_copy(update={"recovery_steps": 10, "recovery_oversampling": 4})
    settings = wavecity.model_copy(update={"model": like_plain})
    model = FoundationModel(like_plain, geometry_of(data, like_plain)).eval()
    evaluation = EvaluationSettings(masks=(0.94,), max_users=12, spectra_shown=1)
    predictor = Predictor(model, settings, data.statistics, data, 16)
    records = reconstruction(predictor, data, evaluation, seed=0).records
    found = {record.method: record.value for record in records if record.metric == Metric.CSI_NMSE}
    assert found[Method.MODEL] == pytest.approx(found[Method.SBL], abs=0.3)
    assert found[Method.MODEL] < found[Method.OMP] - 3


def test_prior_learns_and_all_terms_fall_on_one_repeated_batch(data, wavecity):
    torch.manual_seed(0)
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model))
    prepared, mask, occupied = batch_of(data, wavecity)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    history = []
    for _ in range(60):
        terms = loss_terms(model(prepared.inputs, mask), prepared, mask, occupied, wavecity.losses)
        history.append({name: value.item() for name, value in terms.items()})
        optimiser.zero_grad()
        losses.total(terms, wavecity.losses).backward()
        optimiser.step()
    for name, share in (("csi", 0.5), ("location", 0.5), ("occupancy", 0.9), ("spectrum", 0.9)):
        assert history[-1][name] < share * history[0][name], name


def test_training_leaves_out_the_csi_term_where_many_antennas_are_visible(data, wavecity):
    few = wavecity.model.model_copy(update={"recovery_antennas": 90})
    model = FoundationModel(few, geometry_of(data, few))
    prepared, mask, occupied = batch_of(data, wavecity)
    assert mask.csi_visible.shape[1] * 16 == 96
    assert "csi" not in loss_terms(model(prepared.inputs, mask), prepared, mask, occupied, wavecity.losses)
    assert "csi" in loss_terms(model.eval()(prepared.inputs, mask), prepared, mask, occupied, wavecity.losses)
    whole, everything, occupied = batch_of(data, wavecity, Plan("scene", 2, 0.0, 0.2, hide_location=False))
    assert model(whole.inputs, everything).csi is None


def test_a_step_in_bfloat16(data, wavecity):
    model = FoundationModel(wavecity.model, geometry_of(data, wavecity.model))
    prepared, mask, occupied = batch_of(data, wavecity)
    with torch.autocast("cpu", torch.bfloat16):
        terms = loss_terms(model(prepared.inputs, mask), prepared, mask, occupied, wavecity.losses)
        losses.total(terms, wavecity.losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.prior.head.weight.grad.abs().amax() > 0


class KilledError(Exception):
    pass


class KillAt(Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == 7:
            raise KilledError


def test_resuming_gives_the_weights_of_an_uninterrupted_run(data, wavecity, tmp_path, monkeypatch):
    few = wavecity.model.model_copy(update={"recovery_antennas": 128})
    masks = {"csi_large": (0.9, 0.94), "height_large": (0.1, 0.1)}
    row = StageMasks(csi_moderate=(0.9, 0.9), height_moderate=(0.1, 0.1), **masks)
    masking = wavecity.masking.model_copy(update={"stage_1": row, "stage_2": row})
    changes = {"model": few, "masking": masking, "epochs": 2, "checkpoint_minutes": 1e-7, "validation_users": 4}
    settings = wavecity.model_copy(update=changes)
    make = pretraining.make_trainer

    def killing(*arguments):
        trainer = make(*arguments)
        trainer.callbacks.append(KillAt())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "make_trainer", killing)
        with pytest.raises(KilledError):
            pretrain(stored(data), settings, tmp_path / "killed", seed=3)
    resumed, whole = (
        load_model(pretrain(stored(data), settings, tmp_path / name, seed=3)) for name in ("killed", "whole")
    )
    assert resumed[1].model.profile == "wavecity"
    weights, expected = resumed[0].state_dict(), whole[0].state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not torch.equal(expected["recovery.pace"], torch.ones(2))


def test_the_papers_profile_is_as_it_was():
    """Sums over outputs and gradients of the model before this profile was added, whose weights NumPy draws."""
    settings = ModelSettings(
        width=16, heads=2, encoder_layers=2, decoder_layers=2, height_patch=20, spectrum_channels=4
    )
    model = FoundationModel(settings, Geometry(32, 32, 200, 20))
    rng = np.random.default_rng(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0, 0.1, parameter.shape)))
    inputs = Inputs(*(normal(rng, 3, *shape) for shape in ((64, 32), (1,), (100, 400), (2,))))
    csi, scene = (torch.from_numpy(np.stack([rng.permutation(count) for _ in range(3)])) for count in (64, 100))
    outputs = model(inputs, Mask(csi[:, 40:], csi[:, :40], scene[:, 20:], scene[:, :20], location_visible=False))
    values = [outputs.physc, outputs.spectrum, outputs.csi, outputs.occupancy, outputs.location]
    found = [float(value.detach().double().abs().sum()) for value in values]
    assert found == pytest.approx([5.8757054, 150.2582891, 271.6401356, 14.6397560, 0.6320915], rel=1e-5)
    sum(value.square().mean() for value in values).backward()
    slope = sum(float(p.grad.double().abs().sum()) for p in model.parameters() if p.grad is not None)
    assert slope == pytest.approx(6.8966277, rel=1e-4)


def normal(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape)).float()
