"""Modulations against plane waves in NumPy; canonical forms; wrapped maps against plain ones."""

import numpy as np
import pytest
import torch
from synthetic_shifts import (
    DIMS,
    HORIZON,
    PAST,
    SHAPE,
    channels,
    decibel,
    equivariance_error,
    random_visible,
    shifts,
)  # fmt: skip
from synthetic_temporal import complex_normal
from torch import nn

from wavecity.model.equivariance.group import (
    Wrapped,
    canonicalise,
    epsilon,
    lag_one,
    modulate,
    restore,
)
from wavecity.model.equivariance.models import SPACE


class Network(nn.Module):
    """A random network on the real and imaginary parts of all entries, equivariant to nothing."""

    def __init__(self, shape, entries=PAST * 8 * 5, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.shape = shape
        self.layers = nn.Sequential(
            nn.Linear(2 * entries, 32, dtype=dtype), nn.GELU(), nn.Linear(32, 2 * int(np.prod(shape)), dtype=dtype)
        )

    def forward(self, csi, visible):
        values = self.layers(torch.view_as_real(csi).flatten(1).to(self.layers[0].weight.dtype))
        # bfloat16 under autocast.
        whole = values.to(torch.promote_types(values.dtype, torch.float32))
        return torch.view_as_complex(whole.view(len(csi), *self.shape, 2))


# The group


def test_modulation_moves_a_path_in_doppler_delay_and_direction():
    interval, spacing, elements = 0.35e-3, 480e3, 0.5
    t, k, n = np.arange(4)[:, None, None], np.arange(6)[:, None], np.arange(5)

    def path(doppler, delay, cosine):
        return np.exp(2j * np.pi * (doppler * t * interval - delay * k * spacing + elements * cosine * n))

    turns = torch.tensor([[120.0 * interval, -80e-9 * spacing, elements * 0.2]])
    moved = modulate(torch.from_numpy(path(300.0, 50e-9, -0.4))[None], turns, (1, 2, 3))
    np.testing.assert_allclose(moved[0].numpy(), path(420.0, 130e-9, -0.2), atol=1e-6)
    last = modulate(torch.from_numpy(path(300.0, 50e-9, -0.4))[None, 2:], turns, (-3, -2, -1), (2, 0, 0))
    np.testing.assert_allclose(last[0].numpy(), path(420.0, 130e-9, -0.2)[2:], atol=1e-6)


def test_modulations_are_a_group():
    csi, one, two = channels(), shifts(3, 3), shifts(3, 3, seed=5)
    composed, sum_of = modulate(modulate(csi, one, DIMS), two, DIMS), modulate(csi, one + two, DIMS)
    assert decibel(epsilon(composed, sum_of)) < -270
    assert decibel(epsilon(modulate(modulate(csi, one, DIMS), -one, DIMS), csi)) < -270
    assert decibel(epsilon(modulate(csi, one + 7, DIMS), modulate(csi, one, DIMS))) < -270
    assert torch.equal(modulate(csi, torch.zeros(3, 3), DIMS), csi)
    assert modulate(csi.to(torch.complex64), one, DIMS).dtype == torch.complex64


def test_a_forecast_is_the_tail_of_the_whole():
    whole, turns = channels((2, 9, 4, 3)), shifts(2, 3)
    tail = modulate(whole[:, 6:], turns, DIMS, (6, 0, 0))
    assert decibel(epsilon(tail, modulate(whole, turns, DIMS)[:, 6:])) < -270


# The mean shift


def test_lag_one_is_the_double_loop_over_visible_neighbours():
    csi, visible = channels((2, 4, 5)), random_visible((2, 4, 5))
    turns, defined = lag_one(csi.masked_fill(~visible, float("nan")), visible, (1, -1))
    assert defined.all()
    for sample in range(2):
        x, seen = csi[sample].numpy(), visible[sample].numpy()
        sums = np.zeros(2, complex)
        for i in range(4):
            for j in range(5):
                if i + 1 < 4 and seen[i, j] and seen[i + 1, j]:
                    sums[0] += x[i + 1, j] * np.conj(x[i, j])
                if j + 1 < 5 and seen[i, j] and seen[i, j + 1]:
                    sums[1] += x[i, j + 1] * np.conj(x[i, j])
        np.testing.assert_allclose(turns[sample].numpy(), np.angle(sums) / (2 * np.pi), atol=1e-12)


@pytest.mark.parametrize("gain", [1.0, 1e-10, 1e-25])
def test_lag_one_of_a_wave_is_its_turn_at_any_level(gain):
    """Squares of 1e-25 underflow in float32."""
    turns = torch.tensor([[0.31, -0.42, 0.17]], dtype=torch.float64)
    wave = modulate(torch.full((1, 6, 8, 5), gain, dtype=torch.complex64), turns, DIMS)
    found, defined = lag_one(wave, torch.ones_like(wave, dtype=torch.bool), DIMS)
    assert defined.all()
    torch.testing.assert_close(found, turns, atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_vanished_sums_and_combs_count_as_no_shift(dtype):
    noise = np.random.default_rng(3).random(6)
    # Two waves that turn in opposite ways by a quarter: 2, 0, -2, 0; and one that turns by 0.2 along the other axis.
    opposite = torch.from_numpy(np.cos(np.pi / 2 * np.arange(6))[:, None] * np.exp(0.4j * np.pi * np.arange(4)))
    every_other = torch.from_numpy(np.exp(0.2j * np.pi * np.arange(6))[:, None] * np.exp(0.4j * np.pi * np.arange(4)))
    csi = torch.stack((opposite, every_other, every_other * torch.from_numpy(noise)[:, None])).to(dtype)
    visible = torch.ones(3, 6, 4, dtype=torch.bool)
    visible[1, 1::2] = False
    turns, defined = lag_one(csi, visible, (1, 2))
    assert defined.tolist() == [[False, True], [False, True], [True, True]]
    np.testing.assert_allclose(turns.numpy(), [[0, 0.2], [0, 0.2], [0.1, 0.2]], atol=1e-6)
    one_row, no_pairs = lag_one(csi[:, :1], visible[:, :1], (1,))
    assert not no_pairs.any()
    assert not one_row.any()


# The canonical form


def test_the_canonical_form_has_no_shift_phase_or_level():
    csi, visible = channels(), random_visible()
    form = canonicalise(csi, visible, DIMS)
    assert not form.csi[~visible].any()
    left, _ = lag_one(form.csi, visible, DIMS)
    np.testing.assert_allclose(left.numpy(), 0, atol=1e-12)
    for sample in range(3):
        seen = form.csi[sample][visible[sample]].numpy()
        assert np.mean(np.abs(seen) ** 2) == pytest.approx(1)
        assert np.angle(seen.sum()) == pytest.approx(0, abs=1e-9)
    assert decibel(epsilon(restore(form.csi, form, DIMS), csi.masked_fill(~visible, 0))) < -270
    louder = canonicalise(csi, visible, DIMS, rms=0.01)
    torch.testing.assert_close(louder.csi, 0.01 * form.csi)


@pytest.mark.parametrize("size", [None, SHAPE[1:]], ids=["off the grid", "on the grid"])
def test_the_canonical_form_is_that_of_all_modulated_channels(size):
    csi, visible, turns = channels(), random_visible(), shifts(3, 3, size=size)
    factor = torch.tensor([1e-6 + 2e-6j, -3.0, 40j])[:, None, None, None]
    moved = modulate(csi * factor, turns, DIMS).masked_fill(~visible, float("nan"))
    assert decibel(epsilon(canonicalise(moved, visible, DIMS).csi, canonicalise(csi, visible, DIMS).csi)) < -250


def test_what_has_no_sum_or_no_energy_stays_finite():
    # Of lag-1 phase 0 and sum 0: the loudest entry gives the phase.
    balanced = torch.tensor([3j, 1j, -1j, -3j]).to(torch.complex128)
    csi = torch.stack((balanced, torch.zeros(4, dtype=torch.complex128), balanced * 1e-12 * np.exp(0.3j)))
    form = canonicalise(csi, torch.ones(3, 4, dtype=torch.bool), (1,))
    expected = np.array([3, 1, -1, -3]) / np.sqrt(5)
    np.testing.assert_allclose(form.csi.numpy(), [expected, np.zeros(4), expected], atol=1e-9)
    np.testing.assert_allclose(form.factor.numpy()[:2], [np.sqrt(5) * 1j, 1])
    nothing = canonicalise(csi, torch.zeros(3, 4, dtype=torch.bool), (1,))
    assert not nothing.csi.any()
    assert not nothing.defined.any()


# Wrapped maps


GRIDS = pytest.mark.parametrize("size", [None, SHAPE[1:]], ids=["off the grid", "on the grid"])
MAPS = pytest.mark.parametrize(
    ("shape", "origin"), [(SHAPE[1:], 0), ((HORIZON, *SHAPE[2:]), (PAST, 0, 0))], ids=["estimate", "forecast"]
)


def unit(csi):
    """Channels of power 1."""
    return csi / csi.abs().square().flatten(1).mean(1).sqrt().view(-1, *[1] * (csi.ndim - 1))


@GRIDS
@MAPS
def test_a_wrapped_network_is_equivariant_and_a_plain_one_is_not(shape, origin, size):
    csi, visible, turns = unit(channels()), random_visible(), shifts(3, 3, size=size)
    how = {"visible": visible, "turns": turns, "dims": DIMS, "origin": origin}
    plain = Network(shape)
    assert decibel(equivariance_error(Wrapped(plain, DIMS, origin), csi, **how)) < -250
    single = Network(shape, dtype=torch.float32)
    assert decibel(equivariance_error(Wrapped(single, DIMS, origin), csi.to(torch.complex64), **how)) < -100
    assert decibel(equivariance_error(plain, csi, **how)) > -5


@torch.no_grad()
def test_a_wrapped_network_is_homogeneous_and_takes_samples_one_by_one():
    csi, visible = channels(), random_visible()
    wrapped = Wrapped(Network(SHAPE[1:]), DIMS)
    out = wrapped(csi, visible)
    factor = torch.tensor([1e-6 + 2e-6j, -3.0, 40j])[:, None, None, None]
    assert decibel(epsilon(wrapped(factor * csi, visible), factor * out)) < -250
    assert decibel(epsilon(wrapped(csi.masked_fill(~visible, float("nan")), visible), out)) < -250
    alone = torch.cat([wrapped(csi[i : i + 1], visible[i : i + 1]) for i in range(3)])
    assert decibel(epsilon(alone, out)) < -250
    assert decibel(epsilon(wrapped(csi), wrapped(csi, torch.ones_like(visible)))) < -250


def test_along_the_other_axes_a_comb_of_snapshots_is_no_obstacle():
    csi, visible = channels(), torch.ones(SHAPE, dtype=torch.bool)
    visible[:, 1::2] = False
    wrapped, turns = Wrapped(Network(SHAPE[1:]), DIMS), shifts(3, 3)
    along_time = turns * torch.tensor([1, 0, 0])
    assert decibel(equivariance_error(wrapped, csi, visible, turns - along_time, DIMS)) < -250
    assert decibel(equivariance_error(wrapped, csi, visible, along_time, DIMS)) > -10


def test_gradients_of_the_inner_map_are_those_of_finite_differences():
    csi, visible = unit(channels((2, 2, 3), paths=2)), random_visible((2, 2, 3))
    network = Network((2, 3), entries=6)
    wrapped = Wrapped(network, (1, 2))

    def first_layer(weight):
        return torch.func.functional_call(wrapped, {"inner.layers.0.weight": weight}, (csi, visible))

    assert torch.autograd.gradcheck(first_layer, (network.layers[0].weight.detach().requires_grad_(),), fast_mode=True)


def test_mixed_precision_stays_inside():
    """bfloat16 has 8 bits: the plain rounding of it is at -50 dB, but both runs round one and the same input."""
    csi, visible, turns = unit(channels()).to(torch.complex64), random_visible(), shifts(3, 3)
    wrapped = Wrapped(Network(SHAPE[1:], dtype=torch.float32), DIMS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert decibel(equivariance_error(wrapped, csi, visible, turns, DIMS)) < -40
        low = wrapped(csi, visible)
    assert low.dtype == torch.complex64
    rounding = decibel(epsilon(low, wrapped(csi, visible)))
    assert -70 < rounding < -20


def test_the_peak_of_the_spectrum_would_be_exact_on_the_grid_only():
    """Why the canonical form takes the lag-1 phase."""
    csi, network = unit(channels((3, 8, 8))), Network((8, 8), entries=64)

    def by_peak(csi, visible):
        peak = torch.fft.fft2(csi).abs().flatten(1).argmax(1)
        turns = torch.stack((peak // 8, peak % 8), 1) / 8
        return modulate(network(modulate(csi, -turns, SPACE), visible), turns, SPACE)

    visible = torch.ones(3, 8, 8, dtype=torch.bool)
    assert decibel(equivariance_error(by_peak, csi, visible, shifts(3, 2, size=(8, 8)), SPACE)) < -250
    assert decibel(equivariance_error(by_peak, csi, visible, shifts(3, 2), SPACE)) > -10
    assert decibel(equivariance_error(Wrapped(network, SPACE), csi, visible, shifts(3, 2), SPACE)) < -250


# The measure


def test_epsilon_is_the_ratio_of_the_expectations():
    one, two = (
        complex_normal((4, 3, 2)),
        complex_normal((4, 3, 2), seed=1) * torch.tensor([1, 1e-3, 5, 1])[:, None, None],
    )
    error, power = np.abs(one.numpy() - two.numpy()) ** 2, np.abs(two.numpy()) ** 2
    assert float(epsilon(one, two)) == pytest.approx(error.sum() / power.sum(), rel=1e-5)
    weak = [part * 1e-22 for part in (one, two)]
    assert float(epsilon(*weak)) == pytest.approx(error.sum() / power.sum(), rel=1e-4)


def test_the_error_of_a_map_that_ignores_its_input_is_that_of_the_shift():
    """F = 1 everywhere: |1 - exp(j phase)|^2 = 2 - 2 cos(phase)."""
    turns, ones = shifts(2, 2), torch.ones(2, 4, 3, dtype=torch.complex128)
    phase = (
        2 * np.pi * (turns[:, :1, None].numpy() * np.arange(6, 10)[:, None] + turns[:, 1:, None].numpy() * np.arange(3))
    )
    expected = (2 - 2 * np.cos(phase)).mean()
    assert float(epsilon(ones, modulate(ones, turns, (1, 2), (6, 0)))) == pytest.approx(expected)
