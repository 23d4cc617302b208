"""scripts/waves_in_time.py and tracked_waves.py: waves of known parameters, the Cramér-Rao bound, and what the tokens keep."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_temporal import make_temporal, plane_waves

from wavecity.model.data.windows import Cutter

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
import tracked_waves
import turned_panels
import waves_in_time

# Cycles per snapshot, antenna and subcarrier, and gain, of three waves.
TURNS = np.array([[0.21, 0.13, 0.020], [-0.11, 0.17, 0.042], [0.33, -0.30, 0.080]])
GAINS = np.array([1, 0.5j, 0.2 + 0.2j])


def literal(turns=TURNS, gains=GAINS, snapshots=24, antennas=16, delays=8, subcarriers=64):
    """The sum of waves in bins of angle and delay, (snapshots, antennas, delays), by sums as they are written."""
    t, x, f = np.arange(snapshots), np.arange(antennas), np.arange(subcarriers)
    csi = np.zeros((snapshots, subcarriers, antennas), complex)
    for (doppler, direction, delay), gain in zip(turns, gains, strict=True):
        turn = doppler * t[:, None, None] - delay * f[:, None] + direction * x
        csi += gain * np.exp(2j * np.pi * turn)
    bins = np.fft.fft(np.fft.ifft(csi, axis=1, norm="ortho"), axis=2, norm="ortho")
    return bins.transpose(0, 2, 1)[..., :delays]


def windows(sigma, copies=1, seed=0):
    """Past (copies, 16, ...) with noise of power sigma^2 and future (8, ...) without."""
    bins = literal()
    rng = np.random.default_rng(seed)
    shape = (copies, 16, *bins.shape[1:])
    noise = sigma / math.sqrt(2) * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    return torch.from_numpy(bins[:16] + noise), torch.from_numpy(bins[16:])


def nmse(predicted, future):
    error = (predicted - future).abs().square().sum((-1, -2)) / future.abs().square().sum((-1, -2))
    return 10 * torch.log10(error)


def test_waves_without_noise_are_found_exactly_and_continued():
    past, future = windows(0)
    found = waves_in_time.recover(past)
    assert found.found.sum() == 3
    order = found.gain[0].abs().argsort(descending=True)[:3]
    np.testing.assert_allclose(found.turns[0, order], TURNS, atol=1e-9)
    # The level of the third is that of the literal sum: |0.2 + 0.2j|.
    np.testing.assert_allclose(found.gain[0, order].abs(), np.abs(GAINS), rtol=1e-6)
    assert nmse(waves_in_time.closed_form(past)[0], future).max() < -100


def test_errors_are_those_of_the_cramer_rao_bound():
    past, future = windows(0.3, copies=40)
    found = waves_in_time.recover(past)
    assert (found.found.sum(1) == 3).all()
    order = found.gain.abs().argsort(dim=1, descending=True)[:, :3]
    turns = found.turns.gather(1, order[..., None].expand(-1, -1, 3)).numpy()
    # Bound by the Jacobian of the literal sum, by differences, all 15 real parameters unknown.
    columns = []
    for wave in range(3):
        for part in range(3):
            step = np.zeros((3, 3))
            step[wave, part] = 1e-6
            columns.append((literal(TURNS + step)[:16] - literal(TURNS - step)[:16]).ravel() / 2e-6)
        columns += [literal(gains=np.eye(3)[wave] * factor)[:16].ravel() for factor in (1, 1j)]
    jacobian = np.stack(columns, 1)
    variance = np.diag(np.linalg.inv(2 / 0.3**2 * (jacobian.conj().T @ jacobian).real))
    bound = np.sqrt(variance.reshape(3, 5)[:, :3])
    ratio = np.sqrt(np.square(turns - TURNS).mean(0)) / bound
    np.testing.assert_allclose(ratio, 1, atol=0.3)
    stated = found.covariance.diagonal(dim1=2, dim2=3).sqrt().gather(1, order[..., None].expand(-1, -1, 3)).mean(0)
    np.testing.assert_allclose(stated, bound, rtol=0.1)
    predicted = nmse(waves_in_time.closed_form(past), future)
    held = nmse(past[:, -1:], future)
    assert predicted.max() < -25 < held.min()


def test_a_forecast_is_the_channel_to_come_of_the_synthetic_users():
    rng = np.random.default_rng(1)
    csi, _ = plane_waves(rng, [1.4, 15.0, 5.0, 15.0], subcarriers=64)
    cut = Cutter(16, 8, 8, True, None).cut(torch.from_numpy(csi), np.random.default_rng(2))
    assert nmse(waves_in_time.closed_form(cut.past), cut.future).max() < -40


def test_a_window_of_silence_has_no_wave_and_a_forecast_of_zero():
    past = torch.zeros(2, 16, 16, 8, dtype=torch.complex64)
    past[1] = windows(0)[0][0].to(torch.complex64)
    assert waves_in_time.recover(past).found.sum(1).tolist()[0] == 0
    forecast = waves_in_time.closed_form(past)
    assert forecast.isfinite().all()
    assert forecast[0].abs().max() == 0


def test_the_slope_of_the_phase_is_the_doppler_of_a_wave_alone():
    bins = literal(TURNS[:1], GAINS[:1])
    found = waves_in_time.by_slope(torch.from_numpy(bins[None, :16]))
    assert found.turns[0, 0, 0] == pytest.approx(0.21, abs=1e-9)
    assert abs(found.turns[0, 0, 1] - 0.13) <= 1 / 4 / 16


def test_the_corrector_starts_as_the_closed_form_and_errors_need_no_forecast():
    past, future = windows(0.3, copies=3)
    future = future.expand(3, *future.shape).to(torch.complex64)
    cut = tracked_waves.Windows(past.to(torch.complex64), future)
    known = tracked_waves.examples(cut)
    model = tracked_waves.Corrector()
    factors = model(known.waves, known.found)
    torch.testing.assert_close(factors, torch.ones_like(factors))
    direct = 10 ** (nmse(waves_in_time.closed_form(cut.past), future) / 10)
    torch.testing.assert_close(known.errors(factors.detach()), direct, rtol=1e-2, atol=1e-6)
    # Levels and phases, both are learned from there.
    known.errors(factors).sum().backward()
    assert (model.head.bias.grad.abs() > 0).all()
    ahead = waves_in_time.Continued(waves_in_time.recover(cut.past), cut.past)
    best = nmse(ahead.forecast(tracked_waves.best_factors(ahead, future)), future)
    assert (best <= nmse(ahead.forecast(), future) + 1e-6).all()


def test_tokens_do_not_change_under_a_modulation_and_forecasts_follow_it():
    past, _ = windows(0.1, copies=2)
    before = tracked_waves.tokens(waves_in_time.recover(past))
    rows = torch.arange(16)
    turning = torch.exp(2j * math.pi * 0.37 * rows)[:, None, None]
    after = tracked_waves.tokens(waves_in_time.recover(past * turning))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    errors = tracked_waves.shift_errors(waves_in_time.closed_form, past, seed=0)
    assert max(errors.values()) < -80
    wrapped = tracked_waves.equivariant([])["closed form, wrapped"]
    direct = waves_in_time.closed_form(past).abs().square().sum()
    assert (wrapped(past) - waves_in_time.closed_form(past)).abs().square().sum() < 1e-6 * direct
    assert max(tracked_waves.shift_errors(wrapped, past, seed=0).values()) < -110


def test_directions_of_a_turned_panel_are_those_of_the_world():
    # South and 30 degrees down, seen by a panel tilted by as much: straight ahead.
    world = turned_panels.to_world(np.array([0.0, 0.0]), 0, 30)
    np.testing.assert_allclose(world, [0, -math.sqrt(3) / 2, -0.5], atol=1e-12)
    # Turned by 90 degrees from south towards east; its x axis points north.
    np.testing.assert_allclose(turned_panels.axes(90, 0)[[2, 0]], [[1, 0, 0], [0, 1, 0]], atol=1e-12)
    # From 13.5 m above, 45 degrees down.
    place = turned_panels.landing(np.array([0.0, -math.sqrt(0.5), -math.sqrt(0.5)]), 13.5)
    np.testing.assert_allclose(place, [0, -13.5], atol=1e-12)


def test_the_tables_have_every_method_and_the_waves_ahead(monkeypatch, capsys):
    data = make_temporal(users=6, subcarriers=64)
    monkeypatch.setattr(tracked_waves, "load_temporal", lambda store, splits: data)
    options = ["--snr", "10", "--seeds", "2", "--steps", "4", "--draws", "1", "--test-users", "2"]
    monkeypatch.setattr(sys, "argv", ["tracked_waves.py", "STORE", *options])
    tracked_waves.main()
    printed = capsys.readouterr().out
    assert "2 walkers, 2 cyclists, 2 vehicles; 10 dB" in printed
    rows = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("| ")]
    mean = {cells[0].strip(): float(cells[1].split("±")[0]) for cells in rows[1 : len(rows) // 2]}
    # Steady waves, as many as there are: only the noise is in the way.
    closed = mean.pop("waves, closed form")
    assert closed < -30
    assert mean.pop("waves as tokens") == pytest.approx(closed, abs=1)
    assert mean.pop("best factors of the waves (bound)") < closed
    assert mean.keys() == {"persistence", "ridge (AR) of each sample", "first guess of the temporal model",
                           "waves, Doppler by phase slope"}  # fmt: skip
    assert closed < min(mean.values())
