"""The temporal model: nothing of what is hidden or to come gets through, sizes, units, dense and sparse alike."""

import numpy as np
import pytest
import torch
from synthetic_temporal import complex_normal

from wavecity.model.multimodal.network import count_parameters
from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.temporal.extrapolation import extrapolate
from wavecity.model.temporal.network import FALL, TemporalModel

GRID = (7, 6, 4)
SMALL = {"width": 16, "layers": 3, "heads": 4, "mixing": 4, "past": 2, "future": 2}


def make(grid=GRID, seed=0, **settings):
    torch.manual_seed(seed)
    model = TemporalModel(TemporalModelSettings(**{**SMALL, **settings}), grid).eval()
    # Away from where training starts: biases and heads that do something.
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_mask(batch=2, share=0.5, seed=1, grid=GRID):
    return torch.rand((batch, *grid), generator=torch.Generator().manual_seed(seed)) < share


def tail_mask(past=4, batch=2, grid=GRID):
    return (torch.arange(grid[0]) >= past)[None, :, None, None].expand(batch, *grid)


def moving(batch):
    """Samples of two undamped Dopplers each, in all bins."""
    time = torch.arange(GRID[0])[:, None, None]
    slow, fast = complex_normal((2, batch, 1, *GRID[1:]), seed=3)
    return slow * torch.polar(torch.ones(()), 0.2 * time) + 0.5 * fast * torch.polar(torch.ones(()), 1.1 * time)


VARIANTS = [
    {},
    {"attention": "dense"},
    {"top_k": False},
    {"mixing": 0},
    {"steady": False},
    {"patch": (2, 2)},
    {"causal": True},
    {"extrapolation": False},
]


@pytest.mark.parametrize("hidden", [random_mask(), tail_mask()], ids=["random", "tail"])
@pytest.mark.parametrize("settings", VARIANTS)
@torch.no_grad()
def test_nothing_of_what_is_hidden_reaches_the_output(settings, hidden):
    model, tokens = make(**settings), complex_normal((2, *GRID))
    out = model(tokens, hidden)
    assert out.shape == tokens.shape
    assert out.dtype == torch.complex64
    for other in (complex_normal((2, *GRID), seed=5), torch.full_like(tokens, complex(float("nan"), 1e30))):
        assert torch.equal(model(torch.where(hidden, other, tokens), hidden), out)
    seen = torch.where(hidden, tokens, complex_normal((2, *GRID), seed=6))
    assert not torch.allclose(model(seen, hidden), out)


@pytest.mark.parametrize("attention", ["sparse", "dense"])
@pytest.mark.parametrize("mixing", [0, 4])
@torch.no_grad()
def test_a_causal_model_does_not_look_ahead(attention, mixing):
    tokens, hidden = complex_normal((2, *GRID)), random_mask(share=0.3)
    # The scale is that of all that is visible: the same energy in another order.
    changed = tokens.clone()
    changed[:, 4:] = changed[:, 4:].flip(-1)
    flipped = hidden.clone()
    hidden[:, 4:] = flipped[:, 4:] = False
    for causal in (True, False):
        model = make(attention=attention, mixing=mixing, causal=causal)
        one, two = model(tokens, hidden), model(changed, flipped)
        same = torch.allclose(one[:, :4], two[:, :4], atol=1e-6)
        assert same == causal
        assert not torch.allclose(one[:, 4:], two[:, 4:], atol=1e-3)


@torch.no_grad()
def test_without_reach_a_change_stays_within_as_many_steps_as_layers():
    """Sparse attention with drift 1 and no mixing: a token is heard `layers` bins and `layers * past` snapshots away."""
    grid = (9, 11, 8)
    model = make(grid, layers=2, reach=1, past=1, future=1, mixing=0, steady=False)
    tokens, hidden = complex_normal((1, *grid)), torch.zeros((1, *grid), dtype=torch.bool)
    hidden[:, 1] = True
    changed = tokens.clone()
    changed[0, 4, 0, 4] *= 1j  # the sample's power is the same
    moved = (model(changed, hidden) - model(tokens, hidden))[0].abs() > 1e-6
    times, angles, delays = np.nonzero(moved.numpy())
    assert set(times) == {2, 3, 4, 5, 6}
    assert set(angles) == {9, 10, 0, 1, 2}
    assert set(delays) == {2, 3, 4, 5, 6}


@torch.no_grad()
def test_the_unit_does_not_matter():
    model, tokens, hidden = make(), complex_normal((2, *GRID)), random_mask()
    out = model(tokens, hidden)
    scaled = model(tokens * torch.tensor([1e-6, 1e3])[:, None, None, None], hidden)
    torch.testing.assert_close(scaled[0] * 1e6, out[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scaled[1] * 1e-3, out[1], rtol=1e-3, atol=1e-4)
    nothing = model(torch.zeros_like(tokens), hidden)
    assert torch.isfinite(torch.view_as_real(nothing)).all()
    assert nothing.abs().max() < 1e-12
    assert torch.isfinite(torch.view_as_real(model(tokens, torch.ones_like(hidden)))).all()


@torch.no_grad()
def test_mask_tokens_know_their_place():
    """All hidden: the same mask token everywhere, told apart by positions alone."""
    model = make(layers=1, mixing=0)
    hidden = torch.ones((1, *GRID), dtype=torch.bool)
    encoded = model.encode(torch.zeros((1, *GRID, 1), dtype=torch.complex64), hidden)[0]
    for axis in range(3):
        first, second = encoded.select(axis, 1), encoded.select(axis, 2)
        assert (first - second).norm(dim=-1).min() > 1e-3


@torch.no_grad()
def test_forecasts_are_masked_tails_of_any_length():
    model = make()
    past = complex_normal((2, 5, *GRID[1:]))
    for horizon in (1, 4, 9):
        tokens = torch.cat((past, complex_normal((2, horizon, *GRID[1:]), seed=3)), 1)
        hidden = torch.arange(5 + horizon)[None, :, None, None].expand(tokens.shape) >= 5
        torch.testing.assert_close(model.predict_tail(past, horizon), model(tokens, hidden)[:, 5:])
    with pytest.raises(ValueError, match=r"built for \(6, 4\)"):
        model(complex_normal((2, 5, 4, 6)), random_mask(grid=(5, 4, 6)))


@torch.no_grad()
def test_a_patch_is_hidden_whole():
    model, tokens = make(patch=(3, 2)), complex_normal((1, *GRID))
    one = torch.zeros((1, *GRID), dtype=torch.bool)
    one[0, 2, 4, 1] = True
    whole = one.clone()
    whole[0, 2, 3:6, 0:2] = True
    torch.testing.assert_close(model(tokens, one), model(tokens, whole))
    patches = model.patches(tokens)
    np.testing.assert_array_equal(patches[0, 2, 1, 0].numpy(), tokens[0, 2, 3:6, 0:2].reshape(-1).numpy())
    assert torch.equal(model._bins(patches), tokens)


def test_sparse_and_dense_models_are_one_under_the_same_mask():
    """The dense model with the neighbourhood's mask gives the output and gradients of the sparse one."""
    grid = (3, 5, 2)
    reach = {"reach": 4, "past": 2, "future": 2, "top_k": False, "relative_bias": False}
    sparse = make(grid, **reach)
    dense = TemporalModel(changed_settings(sparse.settings, attention="dense"), grid)
    dense.load_state_dict(sparse.state_dict())
    mask = sparse._near(3).mask()
    assert not mask.all()
    tokens, hidden = complex_normal((2, *grid)), random_mask(grid=grid)
    for block in dense.blocks:
        forward = block.forward
        block.forward = lambda states, near, top_k, causal, forward=forward: forward(states, None, None, mask)
    outs = [model(tokens, hidden) for model in (sparse, dense)]
    torch.testing.assert_close(outs[0], outs[1], atol=1e-5, rtol=1e-5)
    for out in outs:
        torch.view_as_real(out).square().sum().backward()
    for (name, one), two in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-4, rtol=1e-3, msg=name)


def changed_settings(settings, **changes):
    return TemporalModelSettings(**{**settings.model_dump(), **changes})


def test_computing_again_in_the_backward_pass_changes_nothing():
    tokens, hidden = complex_normal((2, *GRID)), random_mask()
    gradients = []
    for recompute in (False, True):
        model = make(recompute=recompute)
        model(tokens, hidden).abs().square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_every_weight_has_a_gradient():
    model = make(relative_bias=True)
    model(complex_normal((2, *GRID)), torch.cat((random_mask(1), tail_mask(batch=1)))).abs().square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A key's bias shifts all scores of a query alike.
        assert parameter.grad.abs().max() > 0, name


def test_the_default_has_the_size_of_the_model_card():
    """12 blocks of 12 d^2 + 13 d, and the rest: some 150,000; 168 biases a head and block beside."""
    model = TemporalModel(TemporalModelSettings(), (24, 16, 8))
    blocks = 12 * (12 * 32**2 + 13 * 32)
    biases = 12 * 8 * 168
    rest = 5 * 32 + 32 + 32 + 24 * 32 + 2 * 32 + 32 * 2 + 2 + 2 * (32 * 16 + 16) + 1
    guesses = 12 * 32 + 32 + 32 * 12 + 12
    assert count_parameters(model) == blocks + biases + rest + guesses
    plain = TemporalModel(TemporalModelSettings(relative_bias=False), (24, 16, 8))
    assert 140_000 < count_parameters(plain) < 160_000
    assert model.tokens == 3072


@torch.no_grad()
def test_training_starts_from_interpolation_and_forecasts_from_the_guess():
    model, tokens = TemporalModel(TemporalModelSettings(**SMALL), GRID), moving(2)
    hidden = random_mask()
    hidden[:, :, 1] = True
    out = model(tokens, hidden)
    assert out[:, :, 1].abs().max() == 0
    bare = TemporalModel(TemporalModelSettings(**SMALL | {"mixing": 0}), GRID)
    assert bare(tokens, hidden).abs().max() == 0
    torch.testing.assert_close(model.predict_tail(tokens, 3), extrapolate(tokens, 3).best(), atol=1e-4, rtol=1e-3)
    # Each sample by its own mask: forecasts of other lengths, and one that is none.
    hidden = torch.cat((tail_mask(4, 1), tail_mask(5, 1), random_mask(1)))
    tokens = moving(3)
    out = model(tokens, hidden)
    for row, past in enumerate((4, 5)):
        expected = extrapolate(tokens[row : row + 1, :past], GRID[0] - past).best()
        torch.testing.assert_close(out[row : row + 1, past:], expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(out[2:], model(tokens[2:], hidden[2:]))


@torch.no_grad()
def test_interpolation_follows_one_doppler_and_weighs_by_distance():
    """Where all bins turn alike a hidden entry is found exactly; without the turning it is the mean written out."""
    wave = torch.polar(torch.ones(GRID[0]), 2.4 * torch.arange(GRID[0]))[:, None, None]
    tokens = wave * complex_normal((2, 1, *GRID[1:]))
    hidden = random_mask(share=0.3)
    hidden[:, :2] = hidden[:, -1] = False
    out = TemporalModel(TemporalModelSettings(**SMALL), GRID)(tokens, hidden)
    torch.testing.assert_close(out[hidden], tokens[hidden], atol=1e-4, rtol=1e-3)
    out = TemporalModel(TemporalModelSettings(**SMALL, steady=False), GRID)(tokens, hidden)
    for row, time, angle, delay in torch.nonzero(hidden)[:20].tolist():
        seen = torch.nonzero(~hidden[row, :, angle, delay])[:, 0]
        weight = torch.exp(-FALL * (seen - time).abs())
        mean = (weight * tokens[row, seen, angle, delay]).sum() / weight.sum()
        torch.testing.assert_close(out[row, time, angle, delay], mean)


@torch.no_grad()
def test_what_turns_in_time_gives_what_turns():
    """The whole network follows a mean Doppler, random weights and all; without `steady` it does not."""
    wave = torch.polar(torch.ones(GRID[0]), -1.9 * torch.arange(GRID[0]))[:, None, None]
    tokens, hidden = moving(2), random_mask(share=0.3)
    for steady in (True, False):
        model = make(steady=steady)
        out, turned = model(tokens, hidden), model(tokens * wave, hidden)
        assert torch.allclose(turned, out * wave, atol=1e-3) == steady


def test_gradients_are_finite_where_a_bin_shows_nothing():
    model, tokens = make(), moving(2)
    hidden = random_mask()
    hidden[:, :, 2] = True
    model(tokens, hidden).abs().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert model.mixing.fall.grad != 0


@torch.no_grad()
def test_a_forecast_is_what_its_parts_combine_to():
    model, tokens = make(patch=(2, 2)), complex_normal((2, *GRID))
    encoded, terms, start = model.combined(tokens, 3)
    weights = torch.view_as_complex(model.combine(encoded).unflatten(-1, (-1, 2)))
    expected = start + torch.einsum("btadk,btadkp->btadp", weights, terms)
    torch.testing.assert_close(model.patches(model.predict_tail(tokens, 3)), expected)


def test_heads_must_divide_the_width():
    with pytest.raises(
        ValueError,
        match=r"training\.temporal\.model\.width 30 must be a multiple of training\.temporal\.model\.heads 8",
    ):
        TemporalModelSettings(width=30)
