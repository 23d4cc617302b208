"""Both backbones as maps from channels to channels: what they are shown, and that the wrapper makes them equivariant."""

import numpy as np
import pytest
import torch
from synthetic_shifts import HORIZON, channels, decibel, equivariance_error, random_visible, shifts
from synthetic_temporal import plane_waves
from torch import nn

from wavecity.dataset import InputError
from wavecity.model.data.geometry import Geometry
from wavecity.model.data.tokens import Statistics
from wavecity.model.equivariance.group import Wrapped, modulate
from wavecity.model.equivariance.models import (
    SPACE,
    TIME_FREQUENCY_SPACE,
    CsiEstimator,
    CsiForecaster,
    draw_visible,
)
from wavecity.model.multimodal.inputs import normalise
from wavecity.model.multimodal.masking import Mask
from wavecity.model.multimodal.network import FoundationModel
from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.settings.training import TrainingSettings
from wavecity.model.temporal.network import TemporalModel

# The multi-modal model

ARRAY = Geometry(columns=16, rows=16, height_cells=200, occupancy_patches=20)
STATISTICS = Statistics(csi_rms=2e-5, csi_rms_db_mean=-97.0, csi_rms_db_std=6.0)


def estimator(normalisation="visible", **model):
    settings = TrainingSettings.model_validate(
        {"model": {"width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "spectrum_channels": 4,
                   "spectrum_size": 16, "recovery_steps": 3, **model},
         "normalisation": normalisation}
    )  # fmt: skip
    torch.manual_seed(0)
    return CsiEstimator(FoundationModel(settings.model, ARRAY), settings, STATISTICS).eval()


def pilots(batch=4, ratio=0.75):
    return draw_visible(batch, ARRAY, 4, ratio, np.random.default_rng(4))


def test_visible_antennas_are_whole_patches_equally_many():
    visible = pilots(5, 0.9)
    cells = visible.numpy().reshape(5, 4, 4, 4, 4).sum((2, 4))
    assert set(np.unique(cells)) == {0, 16}
    assert ((cells > 0).sum((1, 2)) == 2).all()
    assert len({row.tobytes() for row in visible.numpy()}) > 1
    model, csi = estimator(), channels((5, 16, 16))
    assert torch.equal(model(csi, torch.ones_like(visible)), csi)
    for wrong in (random_visible((5, 16, 16)), torch.cat((visible[:4], ~visible[4:]))):
        with pytest.raises(ValueError, match="whole patches, equally many in every sample"):
            model(csi, wrong)


@pytest.mark.parametrize("normalisation", ["visible", "dataset"])
@torch.no_grad()
def test_the_estimator_is_the_model_on_csi_alone(normalisation):
    model, csi, visible = estimator(normalisation), channels((4, 16, 16)).to(torch.complex64), pilots()
    out = model(csi, visible)
    assert torch.equal(out[visible], csi[visible])
    seen = visible.view(4, 4, 4, 4, 4)[:, :, 0, :, 0].flatten(1)
    positions = [part.nonzero()[:, 1].view(4, -1) for part in (seen, ~seen)]
    mask = Mask(*positions, None, None, location_visible=False)
    prepared = normalise(csi, None, torch.zeros(4, 2), mask, model.settings, STATISTICS)
    patches = model.model(prepared.inputs, mask).csi.numpy()
    scale = (
        np.sqrt((np.abs(csi.numpy()) ** 2 * visible.numpy()).sum((1, 2)) / 64)
        if normalisation == "visible"
        else [2e-5] * 4
    )
    for sample in range(4):
        for number, patch in zip(positions[1][sample].tolist(), patches[sample], strict=True):
            x, y = 4 * (number // 4), 4 * (number % 4)
            expected = scale[sample] * (patch[:16] + 1j * patch[16:]).reshape(4, 4)
            np.testing.assert_allclose(out[sample, x : x + 4, y : y + 4].numpy(), expected, rtol=1e-4, atol=1e-10)


def wrap(model):
    """As the task does it: the estimator at its level, the forecaster after eight snapshots."""
    if isinstance(model, CsiEstimator):
        return Wrapped(model, SPACE, rms=model.rms)
    return Wrapped(model, TIME_FREQUENCY_SPACE, (8, 0, 0))


def errors_of_estimator(model, dtype, size=None):
    """Epsilon of hidden antennas in dB: wrapped, plain."""
    csi, visible = channels((4, 16, 16)).to(dtype), pilots()
    args = (csi, visible, shifts(4, 2, size=size), SPACE, 0, ~visible)
    return [decibel(equivariance_error(f, *args)) for f in (wrap(model), model)]


@pytest.mark.parametrize("size", [None, (16, 16)], ids=["off the grid", "on the grid"])
def test_the_wrapped_estimator_is_equivariant(size):
    wrapped, plain = errors_of_estimator(estimator(), torch.complex64, size)
    assert wrapped < -50
    assert plain > -20
    wrapped, plain = errors_of_estimator(estimator().double(), torch.complex128, size)
    assert wrapped < -100
    assert plain > -20
    # A model in float32 between channels in float64.
    assert errors_of_estimator(estimator(), torch.complex128, size)[0] < -100


@pytest.mark.parametrize("size", [None, (16, 16)], ids=["off the grid", "on the grid"])
def test_so_is_the_recovery_of_plane_waves(size):
    model = estimator(profile="wavecity")
    # A prior that says something: with a flat one the recovery is nearly equivariant by itself.
    nn.init.normal_(model.model.prior.head.weight, std=0.5)
    wrapped, plain = errors_of_estimator(model, torch.complex64, size)
    # The recovery's own rounding is gone, for it computes in float64 but in training.
    assert wrapped < -100
    assert plain > -30
    assert errors_of_estimator(model, torch.complex128, size)[0] < -100


def test_the_estimator_trains_within_the_bound_of_the_recovery():
    csi, visible = channels((4, 16, 16)).to(torch.complex64), pilots()
    for profile in ("paper", "wavecity"):
        model = estimator(profile=profile).train()
        out = wrap(model)(csi, visible)
        # Power of one: squares of channels at -100 dB would leave float32.
        loss = ((out - csi) * 1e5).abs().square().mean()
        loss.backward()
        slopes = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(slope.isfinite().all() for slope in slopes)
        assert any(slope.any() for slope in slopes)
    model = estimator(profile="wavecity", recovery_antennas=32).train()
    with pytest.raises(InputError, match=r"model\.recovery_antennas 32: 64 antennas are visible in training; raise it"):
        model(csi, visible)


# The temporal model


def forecaster(trained=True):
    settings = TemporalModelSettings(width=16, layers=2, heads=4, mixing=2, past=2, future=2)
    torch.manual_seed(0)
    model = TemporalModel(settings, (12, 8, 4)).eval()
    if trained:
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or not parameter.any():
                nn.init.normal_(parameter, std=0.3)
    return CsiForecaster(model, HORIZON)


def trajectories(dtype=torch.complex64):
    csi, _ = plane_waves(np.random.default_rng(0), [1.4, 15.0, 5.0], steps=8, subcarriers=16, antennas=8)
    return torch.from_numpy(csi).to(dtype)


def errors_of_forecaster(model, dtype, size=None, visible=None):
    """Epsilon of a forecast in dB: wrapped, plain."""
    csi = trajectories(dtype)
    visible = torch.ones_like(csi, dtype=torch.bool) if visible is None else visible
    args = (csi, visible, shifts(3, 3, size=size), TIME_FREQUENCY_SPACE, (8, 0, 0))
    return [decibel(equivariance_error(f, *args)) for f in (wrap(model), model)]


@pytest.mark.parametrize("size", [None, (8, 16, 8)], ids=["off the grid", "on the grid"])
def test_the_wrapped_forecaster_is_equivariant(size):
    wrapped, plain = errors_of_forecaster(forecaster(), torch.complex64, size)
    assert wrapped < -50
    # Its guesses follow shifts, and what it does in time; its network and its window of delays do not.
    assert plain > -40
    # The model in float32 between channels in float64.
    wrapped, plain = errors_of_forecaster(forecaster(), torch.complex128, size)
    assert wrapped < -100
    assert plain > -40


def test_hidden_snapshots_do_not_hinder():
    visible = torch.ones(3, 8, 16, 8, dtype=torch.bool)
    visible[:, 5] = False
    assert errors_of_forecaster(forecaster(), torch.complex64, visible=visible)[0] < -50
    model, csi = forecaster(), trajectories()
    noisy = csi.masked_fill(~visible, 1e3)
    assert torch.equal(model(noisy, visible), model(csi, visible))
    assert not torch.allclose(model(csi, visible), model(csi), atol=1e-7)
    visible[:, 5, 3:] = True
    with pytest.raises(ValueError, match="visible must be whole snapshots"):
        model(csi, visible)


@torch.no_grad()
def test_an_untrained_forecast_goes_on_with_a_wave():
    """The model starts from the recurrence of its past; off the grid a wave leaves the model's few delays unless wrapped."""
    turns = torch.tensor([[0.03, -3 / 16, 2 / 8], [0.11, -0.4213, 0.1371]], dtype=torch.float64)
    whole = modulate(1e-5 * torch.ones(2, 8 + HORIZON, 16, 8, dtype=torch.complex128), turns, TIME_FREQUENCY_SPACE)
    past, future = whole[:, :8], whole[:, 8:]
    model = forecaster(trained=False)
    errors = [(model(past) - future).abs().square().sum((1, 2, 3)) / future.abs().square().sum((1, 2, 3))]
    errors.append((wrap(model)(past) - future).abs().square().sum((1, 2, 3)) / future.abs().square().sum((1, 2, 3)))
    assert decibel(errors[0][0]) < -60
    assert decibel(errors[0][1]) > -20
    assert decibel(errors[1].max()) < -60


def test_the_wrapped_forecaster_trains():
    csi = trajectories()
    model = forecaster()
    (wrap(model)(csi) * 1e5).abs().square().mean().backward()
    slopes = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(slope.isfinite().all() for slope in slopes)
    assert sum(bool(slope.any()) for slope in slopes) > len(slopes) / 2


@pytest.mark.parametrize("build", [estimator, forecaster])
def test_both_run_in_mixed_precision(build):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if build is estimator:
            wrapped, _ = errors_of_estimator(build(), torch.complex64)
        else:
            wrapped, _ = errors_of_forecaster(build(), torch.complex64)
    assert wrapped < -40
