"""Sparse spatio-temporal attention (SSTA) of "LWM-Temporal" (arXiv 2603.10024), and the temporal model's block around it.

A token attends to its neighbourhood in angle, delay and time (`wavecity.model.temporal.neighbourhood`), and each head keeps
its top k. The forms are ours where the paper's abstract is silent.

The neighbourhood is one set of offsets for all tokens, so nothing has to be gathered: the keys and values at an offset are
a shifted view of the grid, and memory is that of the scores of some snapshots at a time, never of the neighbours' keys
and values. The backward pass computes the scores again. No compiler is needed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.temporal.neighbourhood import Grid, Group, Neighbourhood
from wavecity.model.transformer import Block

# Scores of one offset that are computed at a time: they and their operands stay in the cache. One snapshot at least.
CHUNK = 2**14
LOG2_E = math.log2(math.e)
# Weights of 2 ** -NOTHING are as good as none.
NOTHING = 100.0

# Samples and snapshots.
Box = tuple[slice, slice]


class TemporalBlock(Block):
    """Transformer block whose tokens attend to their neighbourhood of K offsets, or to all."""

    def __init__(self, settings: TemporalModelSettings, neighbours: int) -> None:
        super().__init__(settings.width, settings.heads, settings.mlp_ratio)
        biased = settings.relative_bias and settings.attention == "sparse"
        self.bias = nn.Parameter(torch.zeros(settings.heads, neighbours)) if biased else None

    def forward(self, tokens: Tensor, near: Neighbourhood | None, top_k: int | None, causal: Tensor | None) -> Tensor:
        """(B, N, d) to (B, N, d); without a neighbourhood dense attention, to what `causal`, bool (N, N), allows."""
        query, key, value = self.projected(tokens)  # (B, heads, N, c) each
        if near is None:
            attended = dense_attention(query, key, value, causal)  # (B, heads, N, c)
        else:
            attended = sparse_attention(query, key, value, near, self.bias, top_k)  # (B, heads, N, c)
        return self.added(tokens, attended)


@torch.compiler.disable
def sparse_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    near: Neighbourhood,
    bias: Tensor | None = None,
    top_k: int | None = None,
    block: int = CHUNK,
) -> Tensor:
    """Softmax attention of every token to its neighbourhood; equals `dense_attention` under `near.mask()`.

    Query, key and value are (B, heads, N, c), N tokens in the order of `near.grid`; computed in float32 at least,
    returned in the type of the query. `bias`, (heads, K), is added to the scores. With `top_k` each head of a token
    attends only to neighbours whose score is at least its k-th best; the choice itself has no gradient. `block` scores
    of one offset are computed at a time: memory is K times as many numbers.
    """
    dtype = torch.promote_types(query.dtype, torch.float32)
    scaled = query.to(dtype) * (LOG2_E / query.shape[-1] ** 0.5)
    grids = [_to_grid(part.to(dtype), near.grid) for part in (scaled, key, value)]
    added = None if bias is None else bias.to(dtype) * LOG2_E
    out: Tensor = _SparseAttention.apply(*grids, added, near, top_k, block)
    batch, heads, tokens, channels = query.shape
    return out.permute(1, 5, 2, 3, 4, 0).reshape(batch, heads, tokens, channels).to(query.dtype)


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    top_k: int | None = None,
) -> Tensor:
    """Softmax attention of every token to all, or to those that `mask` allows: (B, heads, N, c) each.

    `mask` is bool (N, N), a row per query (see `Neighbourhood.mask`); `bias`, (heads, N, N), is added to the scores;
    `top_k` is as in `sparse_attention`.
    """
    if bias is None and top_k is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query / query.shape[-1] ** 0.5) @ key.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.detach().topk(top_k).values[..., -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    return scores.softmax(-1) @ value


def _to_grid(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, heads, N, c) to contiguous (c, B, T, A, D, heads): products run over long rows, sums over c are few additions."""
    batch, heads, _, channels = tokens.shape
    return tokens.reshape(batch, heads, *grid, channels).permute(5, 0, 2, 3, 4, 1).contiguous()


class _SparseAttention(torch.autograd.Function):
    """Attention on grids (c, B, T, A, D, heads); the query is scaled already, for powers of 2 instead of e.

    On a CPU `exp` is up to 30 times slower where it underflows, and `exp2` is not.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor | None,
        near: Neighbourhood,
        top_k: int | None,
        block: int,
    ) -> Tensor:
        work = _Work(near, query, bias, block)
        keys, values = work.pad(key), work.pad(value)
        out = torch.zeros_like(query)
        # What the backward pass needs of the scores: log of their exponentials' sum, and the least that is kept.
        log_sum = query.new_empty(query.shape[1:])
        least = query.new_empty(query.shape[1:]) if top_k is not None and top_k < len(near) else None
        for part in work.parts():
            scores = query.new_empty(len(near), *query[0][part].shape)
            for group in near.groups:
                target, shift = scores[group.numbers], work.shift(part, group)
                if shift is None:
                    target.fill_(-math.inf)
                    continue
                target[:, :, : shift.within.start] = -math.inf
                target[:, :, shift.within.stop :] = -math.inf
                work.score(query, keys, group, shift, target[:, :, shift.within])
            largest = scores.amax(0)
            if least is None or top_k is None:
                weights = scores.sub_(largest).exp2_()
            else:
                least[part] = torch.maximum(_kth_largest(scores, top_k), largest - NOTHING)
                weights = _drop(scores.sub_(least[part])).sub_(largest - least[part]).exp2_()
            total = weights.sum(0)
            log_sum[part] = largest + total.log2()
            for group in near.groups:
                shift = work.shift(part, group)
                if shift is not None:
                    own = weights[group.numbers][:, :, shift.within]
                    _accumulate(out, shift.here, own, work.windows(values, group, shift))
            out[:, *part] /= total
        ctx.near, ctx.block = near, block
        ctx.save_for_backward(query, key, value, bias, out, log_sum, least)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, out, log_sum, least = ctx.saved_tensors
        work = _Work(ctx.near, query, bias, ctx.block)
        gradient = gradients[0].contiguous()
        keys, values = work.pad(key), work.pad(value)
        d_query, d_keys, d_values = torch.zeros_like(query), torch.zeros_like(keys), torch.zeros_like(values)
        d_bias = None if bias is None else torch.zeros_like(bias)
        mean = (gradient * out).sum(0)
        for part, group in product(work.parts(), ctx.near.groups):
            shift = work.shift(part, group)
            if shift is None:
                continue
            here = shift.here
            weights = work.score(query, keys, group, shift)
            if least is None:
                weights.sub_(log_sum[here]).exp2_()
            else:
                _drop(weights.sub_(least[here])).sub_(log_sum[here] - least[here]).exp2_()
            key_windows, value_windows = work.windows(keys, group, shift), work.windows(values, group, shift)
            d_scores = _products(gradient, here, value_windows).sub_(mean[here]).mul_(weights)
            if d_bias is not None:
                d_bias[:, group.numbers] += d_scores.sum((1, 2, 3, 4)).T
            _accumulate(d_query, here, d_scores, key_windows)
            _scatter(work.windows(d_keys, group, shift), d_scores, query, here)
            _scatter(work.windows(d_values, group, shift), weights, gradient, here)
        for slope in (d_query, d_keys) if d_bias is None else (d_query, d_keys, d_bias):
            slope.div_(LOG2_E)
        return d_query, work.crop(d_keys), work.crop(d_values), d_bias, None, None, None


def _drop(scores: Tensor) -> Tensor:
    """Take out what is below 0, in place; what is 0 is the k-th best and stays. Far quicker than a boolean mask."""
    return torch.threshold_(scores, -1e-30, -math.inf)


def _products(query: Tensor, here: Box, windows: Tensor, out: Tensor | None = None) -> Tensor:
    """Sum over the channels of queries and windows, (offsets, ...); always in the same order, for the same numbers."""
    out = query.new_empty(math.prod(windows.shape[1:3]), *windows.shape[3:]) if out is None else out
    grouped = out.unflatten(0, windows.shape[1:3])
    torch.mul(query[0][here], windows[0], out=grouped)
    for channel in range(1, len(query)):
        grouped.addcmul_(query[channel][here], windows[channel])
    return out


def _accumulate(target: Tensor, here: Box, weights: Tensor, windows: Tensor) -> None:
    """Add the weighted windows of all offsets, to all channels."""
    place = target[:, *here]
    for weight, window in zip(weights.unbind(), _each(windows), strict=True):
        place.addcmul_(weight, window)


def _scatter(windows: Tensor, weights: Tensor, source: Tensor, here: Box) -> None:
    """Adjoint of `_accumulate`: add the weighted source to the windows of all offsets."""
    place = source[:, *here]
    for weight, window in zip(weights.unbind(), _each(windows), strict=True):
        window.addcmul_(weight, place)


def _each(windows: Tensor) -> list[Tensor]:
    """Views (c, ni, nj, ...) offset by offset; those of neighbours overlap."""
    return [window for row in windows.unbind(1) for window in row.unbind(1)]


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    """k-th largest along the first axis, (K, ...) to (...)."""
    if scores.device.type != "cpu":
        return scores.topk(k, 0, sorted=False).values.amin(0)
    # Far quicker than torch's selection on a CPU.
    rows = scores.flatten(1).T.contiguous().numpy()
    place = len(scores) - k
    rows.partition(place, axis=1)
    return torch.from_numpy(rows[:, place].copy()).view(scores.shape[1:])


@dataclass(frozen=True)
class _Shift:
    """Queries (samples, snapshots) whose neighbours exist, `here`; these, `there`; the snapshots `within` their part."""

    here: Box
    there: Box
    within: slice


class _Work:
    """Cuts the work into parts, and gives neighbours as views of padded grids.

    Angles are repeated at both ends; beyond the ends of the delay axis lie zeros, whose scores are made -inf.
    """

    def __init__(self, near: Neighbourhood, query: Tensor, bias: Tensor | None, block: int) -> None:
        snapshots, self._angles, self._delays = near.grid
        self._snapshots = snapshots
        _, self._turn, self._drift = np.abs(near.offsets).max(0).tolist()
        self._batch, heads = query.shape[1], query.shape[-1]
        frame = math.prod(query.shape[3:])
        self._samples_at_once = max(block // (frame * snapshots), 1)
        self._snapshots_at_once = min(max(block // frame, 1), snapshots)
        delay = torch.arange(self._delays)[:, None] + torch.tensor([dj for _, _, dj in near.offsets])
        outside = ((delay < 0) | (delay >= self._delays)).T.to(query.device)
        # Added to the scores, (K, 1, 1, 1, D, heads).
        edges = query.new_zeros(len(near), 1, 1, 1, self._delays, heads)
        edges.masked_fill_(outside[:, None, None, None, :, None], -math.inf)
        self._added = edges if bias is None else edges + bias.T[:, None, None, None, None]

    def parts(self) -> Iterator[Box]:
        """Samples and snapshots whose scores are computed at a time."""
        for sample in range(0, self._batch, self._samples_at_once):
            samples = slice(sample, min(sample + self._samples_at_once, self._batch))
            for first in range(0, self._snapshots, self._snapshots_at_once):
                yield samples, slice(first, min(first + self._snapshots_at_once, self._snapshots))

    def shift(self, part: Box, group: Group) -> _Shift | None:
        """Queries of a part for which a group's snapshot exists; None if there are none."""
        samples, times = part
        first, stop = max(times.start, -group.dt), min(times.stop, self._snapshots - group.dt)
        if first >= stop:
            return None
        return _Shift(
            here=(samples, slice(first, stop)),
            there=(samples, slice(first + group.dt, stop + group.dt)),
            within=slice(first - times.start, stop - times.start),
        )

    def windows(self, padded: Tensor, group: Group, shift: _Shift) -> Tensor:
        """The neighbours at all offsets of a group: a view (c, ni, nj, b, t, A, D, heads)."""
        first, low = self._turn + group.di, self._drift + group.dj
        rows = slice(first, first + group.angles - 1 + self._angles)
        columns = slice(low, low + group.delays - 1 + self._delays)
        unfolded = padded[:, *shift.there, rows, columns].unfold(3, self._angles, 1).unfold(4, self._delays, 1)
        return unfolded.permute(0, 3, 4, 1, 2, 6, 7, 5)

    def score(self, query: Tensor, keys: Tensor, group: Group, shift: _Shift, out: Tensor | None = None) -> Tensor:
        """Scores of a group, (offsets, b, t, A, D, heads)."""
        scores = _products(query, shift.here, self.windows(keys, group, shift), out)
        return scores.add_(self._added[group.numbers])

    def pad(self, grid: Tensor) -> Tensor:
        """(c, B, T, A, D, heads) with angles repeated and delays of zeros at both ends."""
        turn, drift = self._turn, self._drift
        around = torch.cat((grid[:, :, :, self._angles - turn :], grid, grid[:, :, :, :turn]), 3) if turn else grid
        return F.pad(around, (0, 0, drift, drift))

    def crop(self, padded: Tensor) -> Tensor:
        """Adjoint of `pad`."""
        turn, drift = self._turn, self._drift
        inner = padded[:, :, :, :, drift : drift + self._delays]
        grid = inner[:, :, :, turn : turn + self._angles].clone()
        if turn:
            grid[:, :, :, -turn:] += inner[:, :, :, :turn]
            grid[:, :, :, :turn] += inner[:, :, :, -turn:]
        return grid
