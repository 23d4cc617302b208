"""What evaluation measures, against slow forms: directions, attention, the terms of eq. 7, the occupancy prior."""

import math

import numpy as np
import pytest
import torch
from synthetic_results import check_spec
from torch import nn

from wavecity.model.data.directions import angle_between, direction_of_bin, strongest_direction
from wavecity.model.data.users import gather, geometry_of
from wavecity.model.multimodal.inference import Predictor, attention_on_scene, physc_attention
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.results.names import Method, Metric
from wavecity.model.results.records import Condition
from wavecity.model.results.rows import frame_of, rows_of
from wavecity.model.settings.training import EvaluationSettings
from wavecity.model.tasks import held_out
from wavecity.model.tasks.reconstruction import SPECS, occupancy_prior, reconstruction
from wavecity.raytrace.arrays import direction, panel_axes, steering


@pytest.fixture(scope="module")
def predictor(data, tiny):
    torch.manual_seed(2)
    model = FoundationModel(tiny.model, geometry_of(data, tiny.model)).eval()
    return Predictor(model, tiny, data.statistics, data, batch_size=7)


def test_directions_are_those_the_ray_tracer_steers_to():
    """A channel of raytrace's steering vector, read back; panel facing south without downtilt."""
    rng = np.random.default_rng(0)
    zenith, azimuth = np.deg2rad(rng.uniform(40, 140, 12)), np.deg2rad(rng.uniform(-150, -30, 12))
    csi = torch.from_numpy(np.asarray(steering(zenith, azimuth, 32, 32, 0.5, -90.0, 0.0))).to(torch.complex64)
    boresight, along_x, along_y = panel_axes(-90.0, 0.0)
    truth = direction(zenith, azimuth) @ np.stack((along_x, along_y, boresight), 1)
    found = strongest_direction(csi, 0.5)
    np.testing.assert_allclose(found.norm(dim=-1), 1, rtol=1e-6)
    errors = angle_between(found, torch.from_numpy(truth).float())
    assert errors.max() < 1.0
    # The plain spectrum's bins are eight times as wide.
    coarse = direction_of_bin(torch.fft.fft2(csi).abs().square(), 0.5)
    assert angle_between(coarse, torch.from_numpy(truth).float()).max() < 6.0


def test_angles_between_directions():
    one = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    other = torch.tensor([[0, 1.0, 0], [0, -1.0, 0], [0, math.sin(1e-3), math.cos(1e-3)]])
    np.testing.assert_allclose(angle_between(one, other), [90, 180, math.degrees(1e-3)], rtol=1e-4)


def test_attention_of_physc_is_the_textbook_s(data, tiny, predictor):
    model = predictor.model
    users = gather(data.splits["test"], 3)
    mask = predictor.mask(users, torch.arange(64), True, 0.0, None)
    inputs = predictor.prepared(users, mask).inputs
    found = physc_attention(model, inputs, mask)
    tokens = model.visible_tokens(inputs, mask)
    for number, block in enumerate(model.encoder):
        reference = nn.MultiheadAttention(tokens.shape[-1], block.heads, batch_first=True)
        with torch.no_grad():
            reference.in_proj_weight.copy_(block.query_key_value.weight)
            reference.in_proj_bias.copy_(block.query_key_value.bias)
            normed = block.norm_1(tokens)
            weights = reference(normed, normed, normed, average_attn_weights=True)[1]
            torch.testing.assert_close(found[number], weights[:, 0], atol=1e-6, rtol=1e-4)
            tokens = block(tokens)
    assert not model.encoder[0]._forward_pre_hooks
    scene = attention_on_scene(model, inputs, mask)
    assert scene.shape == (1, 3, 10, 10)
    # Height patches follow [PHYSC], the CSI and a separator.
    expected = found[0, 1, 66:166] / found[0, 1, 66:166].max()
    torch.testing.assert_close(scene[0, 1].flatten(), expected)


def test_the_prior_is_the_mean_map_of_the_training_scenes(data):
    expected = data.scenes.occupancy[:4].numpy().mean(0)
    np.testing.assert_allclose(occupancy_prior(data).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("form", ["kl", "rmse"])
def test_losses_are_the_equations_on_held_out_users(data, tiny, predictor, form):
    losses = tiny.losses.model_copy(update={"spectrum_form": form})
    predictor = Predictor(
        predictor.model, tiny.model_copy(update={"losses": losses}), data.statistics, data, batch_size=7
    )
    test, train = gather(data.splits["test"], 20), gather(data.splits["train"])
    settings = EvaluationSettings(scene_mask=0.2)
    prior = occupancy_prior(data)
    records = held_out.loss_records(predictor, test, train, prior, settings, seed=1)
    values = {(record.metric, record.method): record.value for record in records}
    assert {metric for metric, _ in values} == {*held_out.LOSSES.values()}
    assert {record.n for record in records} == {20}
    assert values[Metric.CSI_LOSS, Method.ZEROS] == pytest.approx(1)
    assert values[Metric.CSI_LOSS, Method.OMP] < 0.1
    everywhere = train.position.mean(0).numpy()
    slow = np.mean([math.hypot(*(place - everywhere)) for place in test.position.numpy()]) / 100
    assert values[Metric.LOCATION_LOSS, Method.MEAN_TRAINING] == pytest.approx(slow, rel=1e-4)
    # A perfect spectrum would have no loss; the head's raw output of it comes back through the loss's own mapping.
    truth = torch.rand(2, 4, 4) + 0.1
    raw = held_out._raw_spectrum(truth, predictor)
    back = raw.exp() if form == "kl" else torch.nn.functional.softplus(raw)
    torch.testing.assert_close(back, truth)
    assert values[Metric.SPECTRUM_LOSS, Method.ZERO_FILLED] > 0
    occupancy = {method for metric, method in values if metric == Metric.OCCUPANCY_LOSS}
    assert occupancy == {Method.MODEL, Method.NEIGHBOUR_MEAN, Method.OCCUPANCY_PRIOR}


def test_the_prior_s_cross_entropy_cell_by_cell(data, tiny, predictor):
    test, train = gather(data.splits["test"], 5), gather(data.splits["train"])
    prior, settings = occupancy_prior(data), EvaluationSettings(scene_mask=0.2)
    records = held_out.loss_records(predictor, test, train, prior, settings, seed=1)
    wanted = (Metric.OCCUPANCY_LOSS, Method.OCCUPANCY_PRIOR)
    found = next(record.value for record in records if (record.metric, record.method) == wanted)
    mask = predictor.mask(
        test, predictor.visible_patches(0.7, 1), False, 0.2, np.random.default_rng([1, held_out.DECOYS])
    )
    total = []
    for sample, patches in enumerate(mask.scene_masked.tolist()):
        grid = data.scenes.occupancy[test.scene[sample]].numpy()
        for patch in patches:
            row, column = 2 * (patch // 10), 2 * (patch % 10)
            for r in (row, row + 1):
                for c in (column, column + 1):
                    p = min(max(float(prior[r, c]), 0.01), 0.99)
                    total.append(-math.log(p) if grid[r, c] else -math.log(1 - p))
    assert found == pytest.approx(np.mean(total), rel=1e-4)


def test_reconstruction_has_every_metric_beside_simple_ones(predictor, data):
    settings = EvaluationSettings(masks=(0.5, 0.94), max_users=20)
    findings = reconstruction(predictor, data, settings, 0)
    check_spec(SPECS[0], findings)
    rows, facts, arrays = rows_of(frame_of(findings.records)), findings.facts, findings.arrays
    found = {(row.metric, row.condition): row.values for row in rows}
    half, few = (Condition(csi_masked=share) for share in (0.5, 0.94))
    angle = found[Metric.PATH_ANGLE_ERROR, half]
    # Two plane waves, half of the antennas: sparse recovery sees the strongest one where it is.
    assert angle[Method.OMP] < 3
    assert set(angle) == {Method.MODEL_SPECTRUM, Method.MODEL_FILLED_CSI, Method.OMP, Method.LMMSE, Method.ZERO_FILLED}
    assert found[Metric.PATH_ANGLE_ERROR, few][Method.ZERO_FILLED] > angle[Method.ZERO_FILLED]
    occupied = found[Metric.OCCUPANCY_F1, Condition(scene_masked=settings.scene_mask)]
    assert {Method.MODEL, Method.OCCUPANCY_PRIOR, Method.NEIGHBOUR_MEAN, Method.ALL_OCCUPIED} == set(occupied)
    assert {metric for metric, _ in found} > {*held_out.LOSSES.values()}
    for values in found.values():
        assert np.isfinite(list(values.values())).all()
    assert arrays["attention"].shape == (4, 1, 10, 10)
    assert arrays["occupancy_model"].shape == arrays["occupancy_true"].shape == (4, 20, 20)
    masked = ~np.isnan(arrays["occupancy_model"])
    assert (masked.sum((1, 2)) == 20 * 4).all()
    assert facts["test_users"] == 20
