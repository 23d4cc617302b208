"""Sparse spatio-temporal attention: its neighbourhood by brute force, its output by dense attention in NumPy."""

import itertools

import numpy as np
import pytest
import torch

from wavecity.model.temporal.attention import dense_attention, sparse_attention
from wavecity.model.temporal.neighbourhood import neighbourhood


def brute_mask(grid, reach=2, past=4, future=3, causal=False, circular=True):
    """Who attends to whom, by the words of the specification."""
    tokens = list(itertools.product(*map(range, grid)))
    mask = np.zeros((len(tokens), len(tokens)), bool)
    for row, (t, i, j) in enumerate(tokens):
        for column, (s, k, m) in enumerate(tokens):
            step, drift = s - t, abs(k - i)
            if circular:
                drift = min(drift, grid[1] - drift)
            limit = reach if step == 0 else min(reach, abs(step))
            late = 0 if causal else future
            mask[row, column] = -past <= step <= late and drift <= limit and abs(m - j) <= limit
    return mask


def softmax_attention(query, key, value, mask, bias=0.0, top_k=None):
    """NumPy, float64: loops over samples, heads and tokens."""
    out = np.zeros_like(value)
    for b, h, n in np.ndindex(query.shape[:3]):
        scores = key[b, h] @ query[b, h, n] / np.sqrt(query.shape[-1])
        scores = scores + (bias[h, n] if isinstance(bias, np.ndarray) else bias)
        allowed = np.flatnonzero(mask[n])
        if top_k is not None:
            allowed = allowed[np.argsort(-scores[allowed])[:top_k]]
        weights = np.exp(scores[allowed] - scores[allowed].max())
        out[b, h, n] = weights @ value[b, h, allowed] / weights.sum()
    return out


def tensors(near, heads=3, channels=4, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    shape = (batch, heads, near.tokens, channels)
    parts = [normal(*shape).requires_grad_() for _ in range(3)]
    return parts, normal(heads, len(near)).requires_grad_(), normal(*shape)


@pytest.mark.parametrize("grid", [(6, 7, 5), (3, 4, 3), (9, 3, 1), (2, 1, 2), (5, 2, 4)])
@pytest.mark.parametrize("causal", [False, True])
def test_the_neighbourhood_is_that_of_the_specification(grid, causal):
    near = neighbourhood(grid, causal=causal)
    expected = brute_mask(grid, causal=causal)
    np.testing.assert_array_equal(near.mask().numpy(), expected)
    np.testing.assert_array_equal(near.sizes(), expected.sum(1))
    for row, neighbours in enumerate(near.lists):
        listed = neighbours[neighbours >= 0]
        assert sorted(listed) == list(np.flatnonzero(expected[row]))


def test_other_reaches_in_angle_delay_and_time():
    near = neighbourhood((6, 8, 5), reach=1, past=2, future=1)
    np.testing.assert_array_equal(near.mask().numpy(), brute_mask((6, 8, 5), 1, 2, 1))


def mean_size(grid, circular):
    """Mean neighbourhood by counting an axis at a time: an offset applies to so many of an axis' positions."""
    total = 0
    for step in range(-4, 4):
        limit = 2 if step == 0 else min(2, abs(step))
        times = max(grid[0] - abs(step), 0)
        angles = sum(grid[1] if circular else grid[1] - abs(d) for d in range(-limit, limit + 1))
        total += times * angles * sum(grid[2] - abs(d) for d in range(-limit, limit + 1))
    return total / np.prod(grid)


@pytest.mark.parametrize(("grid", "clamped"), [((11, 32, 32), 125), ((16, 8, 8), 107)])
def test_mean_sizes_are_those_of_the_specification(grid, clamped):
    """With clamped angles the specification's figures; with circular ones some more."""
    assert round(mean_size(grid, circular=False)) == clamped
    ours = neighbourhood(grid).sizes().mean()
    assert ours == pytest.approx(mean_size(grid, circular=True))
    assert clamped < ours < 1.2 * clamped


def test_k_is_a_fifth_within_bounds():
    assert len(neighbourhood((16, 16, 16))) == 168
    assert neighbourhood((16, 16, 16)).top_k == 32
    causal = neighbourhood((16, 16, 16), causal=True)
    assert (len(causal), causal.top_k) == (109, 21)
    assert neighbourhood((16, 16, 16), reach=0).top_k == 8


def spread(near, bias):
    """A number for each head and offset, (heads, K), at its place in a dense matrix of scores (heads, N, N)."""
    dense = bias.new_zeros(len(bias), near.tokens, near.tokens + 1)
    index = torch.from_numpy(near.lists) % (near.tokens + 1)
    return dense.scatter(2, index.expand(len(bias), -1, -1), bias[:, None].expand(-1, near.tokens, -1))[..., :-1]


@pytest.mark.parametrize("block", [1, 400, 10**6])
@pytest.mark.parametrize("top_k", [None, 5])
def test_sparse_attention_is_dense_attention_under_the_mask(top_k, block):
    near = neighbourhood((5, 6, 4))
    parts, bias, _ = tensors(near)
    out = sparse_attention(*parts, near, bias, top_k, block)
    arrays = [part.detach().numpy() for part in parts]
    mask = brute_mask(near.grid)
    dense_bias = np.zeros((3, near.tokens, near.tokens))
    for row, neighbours in enumerate(near.lists):
        for number, column in enumerate(neighbours):
            if column >= 0:
                dense_bias[:, row, column] = bias.detach().numpy()[:, number]
    np.testing.assert_allclose(spread(near, bias).detach().numpy(), dense_bias)
    expected = softmax_attention(*arrays, mask, dense_bias, top_k)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(
        dense_attention(*parts, near.mask(), spread(near, bias), top_k).detach().numpy(), expected, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("top_k", [None, 7])
def test_gradients_are_those_of_dense_attention(top_k, causal, dtype):
    near = neighbourhood((6, 5, 3), causal=causal)
    parts, bias, direction = tensors(near)
    inputs = [value.detach().to(dtype).requires_grad_() for value in (*parts, bias)]
    direction = direction.to(dtype)
    sparse = (sparse_attention(*inputs[:3], near, inputs[3], top_k, block=200) * direction).sum()
    dense = (dense_attention(*inputs[:3], near.mask(), spread(near, inputs[3]), top_k) * direction).sum()
    ours, theirs = torch.autograd.grad(sparse, inputs), torch.autograd.grad(dense, inputs)
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5 if dtype == torch.float32 else 1e-12, rtol=1e-5)


def test_gradients_are_those_of_finite_differences():
    near = neighbourhood((3, 4, 2), past=1, future=1)
    parts, bias, _ = tensors(near, heads=2, channels=2, batch=1)
    assert torch.autograd.gradcheck(lambda *inputs: sparse_attention(*inputs[:3], near, inputs[3], 4), (*parts, bias))


def test_without_bias_and_in_half_precision():
    near = neighbourhood((4, 5, 3))
    parts, _, _ = tensors(near)
    expected = softmax_attention(*(part.detach().numpy() for part in parts), brute_mask(near.grid))
    out = sparse_attention(*parts, near)
    np.testing.assert_allclose(out.detach().numpy(), expected, atol=1e-12)
    half = sparse_attention(*(part.bfloat16() for part in parts), near)
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.detach().float().numpy(), expected, atol=0.05)


def test_equal_scores_are_kept_together():
    """All neighbours alike: none can be better than the others, whatever k."""
    near = neighbourhood((3, 5, 3))
    value = tensors(near)[0][2].detach()
    zeros = torch.zeros_like(value)
    torch.testing.assert_close(
        sparse_attention(zeros, zeros, value, near, top_k=2), sparse_attention(zeros, zeros, value, near)
    )


def test_memory_does_not_hold_the_neighbours_keys(monkeypatch):
    """No tensor within has more numbers than the scores of a part and the inputs."""
    near = neighbourhood((12, 8, 8))
    parts, _, _ = tensors(near, heads=2, channels=4, batch=2)
    block = 512
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.untyped_storage().nbytes() // result.element_size())
            return result

    with Watch():
        out = sparse_attention(*parts, near, top_k=8, block=block)
        out.sum().backward()
    gathered = parts[0].numel() * len(near)
    padded = parts[0].numel() * 12 // 8
    assert max(sizes) <= max(len(near) * block, padded)
    assert max(sizes) < gathered / 20
