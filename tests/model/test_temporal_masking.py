"""Masks of the temporal pretraining: their share, shape and curriculum; noise and phase noise as measured."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from synthetic_temporal import complex_normal, plane_waves

from wavecity.model.data.noise import add_noise, gaussian
from wavecity.model.multimodal.masking import RankDraws
from wavecity.model.settings.temporal import TemporalMaskingSettings
from wavecity.model.temporal.masking import KINDS, TemporalPlan, draw_hidden, draw_plan, impair

GRID = (12, 10, 6)
RATIOS = (0.3, 0.45, 0.6)


def hidden_of(kind, ratio, batch=40, grid=GRID, seed=0):
    return draw_hidden(TemporalPlan(kind, ratio), grid, batch, np.random.default_rng(seed))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_hides_its_share(kind, ratio):
    hidden = hidden_of(kind, ratio)
    assert hidden.shape == (40, *GRID)
    assert hidden.dtype == bool
    # As near as whole snapshots, bins, or blobs of equal size allow.
    slack = {"random": 1 / 720, "tube": 1 / 60, "comb": 1 / 12, "tail": 1 / 12, "occlusion": 0.5 / 60}[kind]
    np.testing.assert_allclose(hidden.mean((1, 2, 3)), ratio, atol=slack)


@pytest.mark.parametrize("kind", ["random", "tube", "comb", "occlusion"])
def test_samples_have_masks_of_their_own(kind):
    hidden = hidden_of(kind, 0.4)
    assert len({sample.tobytes() for sample in hidden}) > (1 if kind == "comb" else 20)


def test_tubes_are_bins_at_all_times():
    hidden = hidden_of("tube", 0.4)
    assert (hidden == hidden[:, :1]).all()
    assert (hidden[:, 0].sum((1, 2)) == 24).all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_combs_are_whole_snapshots_evenly_spaced(ratio):
    hidden = hidden_of("comb", ratio)
    times = hidden[:, :, 0, 0]
    assert (hidden == times[:, :, None, None]).all()
    for row in times:
        gaps = np.diff(np.flatnonzero(row))
        assert gaps.max() - gaps.min() <= 1
    assert {tuple(np.diff(np.flatnonzero(row))) for row in hidden_of("comb", 0.5)[:, :, 0, 0]} == {(2,) * 5}


def test_tails_are_the_last_snapshots():
    hidden = hidden_of("tail", 1 / 3)
    assert hidden[:, 8:].all()
    assert not hidden[:, :8].any()


@pytest.mark.parametrize("ratio", RATIOS)
def test_occlusions_are_one_blob_of_bins_for_a_while(ratio):
    for sample in hidden_of("occlusion", ratio):
        during = sample.any((1, 2))
        times = np.flatnonzero(during)
        assert len(times) == times[-1] - times[0] + 1
        assert len(times) >= (1 + ratio) / 2 * GRID[0]
        blob = sample[times[0]]
        assert (sample[times] == blob).all()
        assert 0 < blob.mean() < 0.85
        # One piece on the cylinder: wherever it is cut open outside of the blob, or all the way around.
        pieces = [ndimage.label(np.roll(blob, shift, 0))[1] for shift in range(GRID[1])]
        assert min(pieces) == 1


def test_ranks_draw_together_what_one_process_draws():
    for kind in KINDS:
        whole = hidden_of(kind, 0.4, batch=6, seed=3)
        parts = [
            draw_hidden(TemporalPlan(kind, 0.4), GRID, 3, RankDraws(np.random.default_rng(3), rank, 2))
            for rank in (0, 1)
        ]
        np.testing.assert_array_equal(parts[0], whole[::2])
        np.testing.assert_array_equal(parts[1], whole[1::2])
    csi, settings = complex_normal((6, 3, 4, 2)), TemporalMaskingSettings()
    whole = impair(csi, settings, np.random.default_rng(4))
    for rank in (0, 1):
        part = impair(csi[rank::2], settings, RankDraws(np.random.default_rng(4), rank, 2))
        torch.testing.assert_close(part, whole[rank::2])


def test_kinds_enter_one_after_the_other_while_ratios_grow():
    settings = TemporalMaskingSettings()
    rng = np.random.default_rng(0)
    plans = [[draw_plan(settings, epoch, 10, rng) for _ in range(400)] for epoch in range(10)]
    for epoch, drawn in enumerate(plans):
        stage = epoch // 2
        assert {plan.kind for plan in drawn} == set(settings.kinds[: stage + 1])
        share = np.mean([plan.kind == settings.kinds[stage] for plan in drawn])
        assert share == (1 if stage == 0 else pytest.approx(settings.newest, abs=0.1))
        bound = 0.3 + 0.3 * epoch / 9
        ratios = [plan.ratio for plan in drawn]
        assert min(ratios) >= 0.3
        assert max(ratios) <= bound
        assert np.mean(ratios) == pytest.approx((0.3 + bound) / 2, abs=0.02)
    # With fewer epochs than kinds the last epoch has them all.
    for epochs in (1, 3):
        assert {draw_plan(settings, epochs - 1, epochs, rng).kind for _ in range(200)} == set(settings.kinds)


@pytest.mark.parametrize("snr", [0.0, 10.0, 25.0])
def test_noise_has_the_stated_power_and_is_white(snr):
    csi = torch.from_numpy(plane_waves(np.random.default_rng(0), [5.0] * 4, steps=16)[0])
    scaled = csi * torch.tensor([1.0, 10.0, 1e-3, 1.0])[:, None, None, None]
    noise = add_noise(scaled, snr, gaussian(np.random.default_rng(1), scaled.shape)) - scaled
    for sample, disturbed in zip(scaled, noise, strict=True):
        measured = 10 * torch.log10(sample.abs().square().mean() / disturbed.abs().square().mean())
        assert float(measured) == pytest.approx(snr, abs=0.15)
    flat = (noise / noise.abs().square().mean((1, 2, 3), keepdim=True).sqrt()).flatten().numpy()
    assert abs(np.mean(flat)) < 0.02
    assert abs(np.mean(flat * flat)) < 0.02  # real and imaginary part equally strong and independent
    assert abs(np.mean(flat[1:] * flat[:-1].conj())) < 0.02
    assert np.mean(np.abs(flat) ** 4) == pytest.approx(2, abs=0.05)


def test_each_sample_may_have_a_ratio_of_its_own():
    csi = complex_normal((2, 20, 20, 10))
    noise = add_noise(csi, torch.tensor([0.0, 20.0]), gaussian(np.random.default_rng(0), csi.shape)) - csi
    power = noise.abs().square().mean((1, 2, 3)) / csi.abs().square().mean((1, 2, 3))
    np.testing.assert_allclose(10 * np.log10(power.numpy()), [0, -20], atol=0.2)


def test_phase_noise_turns_whole_snapshots():
    settings = TemporalMaskingSettings(impaired=1.0, snr=(200.0, 200.0), phase_noise=5.0)
    csi = complex_normal((50, 20, 4, 3))
    turn = impair(csi, settings, np.random.default_rng(0)) / csi
    angles = turn.angle().numpy()
    np.testing.assert_allclose(angles, np.broadcast_to(angles[..., :1, :1], angles.shape), atol=1e-3)
    np.testing.assert_allclose(turn.abs().numpy(), 1, atol=1e-3)
    assert np.rad2deg(angles[..., 0, 0].std()) == pytest.approx(5, rel=0.1)
    steps = angles[..., 0, 0]
    assert abs(np.mean(steps[:, 1:] * steps[:, :-1])) < 0.1 * steps.var()


def test_only_a_share_is_impaired():
    csi = complex_normal((400, 2, 2, 2))
    disturbed = impair(csi, TemporalMaskingSettings(impaired=0.25), np.random.default_rng(0))
    untouched = (disturbed == csi).flatten(1).all(1).float().mean()
    assert float(untouched) == pytest.approx(0.75, abs=0.07)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"ratio_start 0\.7 must not exceed 0\.6"):
        TemporalMaskingSettings(ratio_start=0.7)
    with pytest.raises(ValueError, match="each kind once"):
        TemporalMaskingSettings(kinds=("tail", "tail"))


def test_impaired_samples_have_noise_of_the_drawn_ratio():
    """Box and Muller's noise, which ranks can share: as strong and as white as NumPy's."""
    csi = complex_normal((30, 20, 20, 10))
    settings = TemporalMaskingSettings(impaired=1.0, snr=(7.0, 7.0), phase_noise=0.0)
    noise = impair(csi, settings, np.random.default_rng(0)) - csi
    power = noise.abs().square().mean((1, 2, 3)) / csi.abs().square().mean((1, 2, 3))
    np.testing.assert_allclose(10 * np.log10(power.numpy()), -7, atol=0.35)
    flat = (noise / noise.abs().square().mean().sqrt()).flatten().numpy()
    assert abs(np.mean(flat)) < 0.01
    assert abs(np.mean(flat * flat)) < 0.01
    assert np.mean(np.abs(flat) ** 4) == pytest.approx(2, abs=0.05)


def test_noise_of_a_known_power_does_not_depend_on_the_channel():
    """A channel that is silent has noise all the same."""
    csi = torch.stack((torch.zeros(6, 5), torch.ones(6, 5))).to(torch.complex64)
    noise = gaussian(np.random.default_rng(0), (2, 6, 5))
    torch.testing.assert_close(add_noise(csi, 20.0, noise, power=4.0) - csi, (0.2 * noise).to(torch.complex64))
    assert not add_noise(csi, 20.0, noise)[0].any()
