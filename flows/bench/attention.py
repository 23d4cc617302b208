"""`wavecity bench attention`: sparse spatio-temporal attention compared with dense attention, on the CPU.

Sides, at equal queries, keys and values, for grids of more and more tokens:

- `sparse` and `sparse_top_k`: `wavecity.model.temporal.attention.sparse_attention`, with all neighbours or the best k
  per head;
- `dense`: PyTorch's fused attention to all tokens, the fastest dense one;
- `masked` and `masked_top_k`: dense attention under the mask of the neighbourhood, whose output must be that of the
  sparse sides.

Time is the median over rounds in which the sides take turns. Memory is the increase of a fresh process's peak by one
forward and backward pass, after a pass on a small grid.

JSON keys: `<figure>_<side>_<tokens>` with figures `seconds_forward`, `seconds_both` (forward and backward) and
`memory_mb`; `speedup_forward`, `speedup_both` and `memory_ratio` of the sparse side over `dense`, at the most tokens,
with `_top_k` for the side with top-k and with `_masked` over the masked dense side of equal output; `difference` and
`difference_gradient`, the largest between sparse and masked dense; `tokens`, `neighbours` (mean per token) and `top_k`,
at the most tokens.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wavecity.dataset.progress import track
from wavecity.flows.bench.measure import apart, environment, median, table_of
from wavecity.flows.bench.memory import peak_memory
from wavecity.flows.console import console
from wavecity.geo.errors import InputError
from wavecity.model.settings.temporal import TemporalModelSettings
from wavecity.model.temporal.attention import dense_attention, sparse_attention
from wavecity.model.temporal.neighbourhood import Grid, Neighbourhood, neighbourhood

SIDES = ("sparse", "sparse_top_k", "dense", "masked", "masked_top_k")
# Snapshots, angles, delays.
GRIDS: tuple[Grid, ...] = ((8, 8, 8), (16, 8, 8), (16, 16, 8), (16, 16, 16), (16, 32, 16), (16, 32, 32))
SMALL: Grid = (4, 4, 4)
SEED = 0
PACKAGES = ("torch", "numpy")


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes
    ----------
    tokens : int
        Largest number of tokens.
    rounds : int
        In which the sides take turns.
    batch : int
        Samples.
    threads : int
        Of torch; 0 for its own choice.
    """

    tokens: int = 4096
    rounds: int = 3
    batch: int = 1
    threads: int = 1


def run(options: Options) -> dict[str, object]:
    """Measure, print the table and return all figures, JSON-ready.

    Raises
    ------
    InputError
        Fewer tokens than the smallest grid has.
    """
    grids = [grid for grid in GRIDS if int(np.prod(grid)) <= options.tokens]
    if not grids:
        msg = f"--tokens {options.tokens}: the smallest grid has {int(np.prod(GRIDS[0]))}"
        raise InputError(msg)
    # Not above: the processes that measure memory start sooner without Lightning.
    from wavecity.model.training.trainer import cpu_threads

    figures: dict[str, float] = {}
    differences = []
    with cpu_threads(options.threads):
        for grid in track(grids, "grids"):
            near = neighbourhood(grid)
            differences.append(check(near, options.batch))
            for side, (forward, both) in times(near, options).items():
                figures[f"seconds_forward_{side}_{near.tokens}"] = forward
                figures[f"seconds_both_{side}_{near.tokens}"] = both
    for grid in track(grids, "memory"):
        for side in SIDES:
            figures[f"memory_mb_{side}_{int(np.prod(grid))}"] = apart(measure_memory, side, grid, options)
    figures |= {
        **ratios(figures, near.tokens),
        "difference": max(output for output, _ in differences),
        "difference_gradient": max(gradient for _, gradient in differences),
        "tokens": near.tokens,
        "neighbours": float(near.sizes().mean()),
        "top_k": near.top_k,
        "batch": options.batch,
        "rounds": options.rounds,
        "threads": options.threads or torch.get_num_threads(),
    }
    print_result(figures, [int(np.prod(grid)) for grid in grids])
    return {**figures, **environment(*PACKAGES)}


def tensors(near: Neighbourhood, batch: int) -> list[Tensor]:
    """Query, key and value, (B, heads, N, c), at the default model's size."""
    settings = TemporalModelSettings()
    generator = torch.Generator().manual_seed(SEED)
    shape = (batch, settings.heads, near.tokens, settings.width // settings.heads)
    return [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]


def attention_of(side: str, near: Neighbourhood) -> Callable[..., Tensor]:
    """Attention of a side as a function of query, key and value."""
    top_k = near.top_k if side.endswith("top_k") else None
    if side.startswith("sparse"):
        return lambda query, key, value: sparse_attention(query, key, value, near, top_k=top_k)
    if side == "dense":
        return dense_attention
    mask = near.mask()
    return lambda query, key, value: dense_attention(query, key, value, mask, top_k=top_k)


def check(near: Neighbourhood, batch: int) -> tuple[float, float]:
    """Largest differences between sparse and masked dense attention: output, and gradient, with and without top-k."""
    worst = [0.0, 0.0]
    for end in ("", "_top_k"):
        found = []
        for side in (f"sparse{end}", f"masked{end}"):
            parts = tensors(near, batch)
            output = attention_of(side, near)(*parts)
            output.square().sum().backward()
            found.append((output.detach(), torch.stack([part.grad for part in parts if part.grad is not None])))
        for number, (ours, theirs) in enumerate(zip(*found, strict=True)):
            worst[number] = max(worst[number], float((ours - theirs).abs().max()))
    return worst[0], worst[1]


def times(near: Neighbourhood, options: Options) -> dict[str, tuple[float, float]]:
    """Median seconds of every side: forward alone, forward and backward."""
    parts = tensors(near, options.batch)
    sides = {side: attention_of(side, near) for side in SIDES}
    seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    for number in range(options.rounds + 1):
        for side in SIDES if number % 2 else reversed(SIDES):
            seconds[side].append((forward_time(sides[side], parts), both_time(sides[side], parts)))
    # The first round warms up.
    return {
        side: (median(forward for forward, _ in values[1:]), median(both for _, both in values[1:]))
        for side, values in seconds.items()
    }


def forward_time(attention: Callable[..., Tensor], parts: list[Tensor]) -> float:
    """Seconds of a forward pass."""
    started = time.perf_counter()
    with torch.no_grad():
        attention(*parts)
    return time.perf_counter() - started


def both_time(attention: Callable[..., Tensor], parts: list[Tensor]) -> float:
    """Seconds of a forward and a backward pass."""
    started = time.perf_counter()
    output = attention(*parts)
    torch.autograd.grad(output, parts, torch.ones_like(output))
    return time.perf_counter() - started


def measure_memory(side: str, grid: Grid, options: Options) -> float:
    """Increase of this process's peak memory in MB after a pass on a small grid; at least 0.1."""
    torch.set_num_threads(options.threads or torch.get_num_threads())
    small = neighbourhood(SMALL)
    both_time(attention_of(side, small), tensors(small, 1))
    near = neighbourhood(grid)
    parts, attention = tensors(near, options.batch), attention_of(side, near)
    before = peak_memory()
    both_time(attention, parts)
    return max(peak_memory() - before, 0.1)


def ratios(result: dict[str, float], tokens: int) -> dict[str, float]:
    """What sparse attention saves at so many tokens."""
    saved = {}
    for end in ("", "_top_k"):
        for name, figure in (
            ("speedup_forward", "seconds_forward"),
            ("speedup_both", "seconds_both"),
            ("memory_ratio", "memory_mb"),
        ):
            ours = result[f"{figure}_sparse{end}_{tokens}"]
            saved[f"{name}{end}"] = result[f"{figure}_dense_{tokens}"] / ours
            saved[f"{name}{end}_masked"] = result[f"{figure}_masked{end}_{tokens}"] / ours
    return saved


def print_result(result: dict[str, float], sizes: list[int]) -> None:
    """Print the table of sides over tokens, and the summary."""
    table = table_of(("tokens", "side"), ("forward ms", "forward + backward ms", "peak MB"))
    for size in sizes:
        for side in SIDES:
            forward, both = result[f"seconds_forward_{side}_{size}"], result[f"seconds_both_{side}_{size}"]
            memory = result[f"memory_mb_{side}_{size}"]
            table.add_row(str(size), side, f"{1e3 * forward:.1f}", f"{1e3 * both:.1f}", f"{memory:.1f}")
    console.print(table)
    for end, title in (("", "all neighbours"), ("_top_k", f"top {result['top_k']}")):
        console.print(
            f"{title}, {result['tokens']} tokens: forward {result[f'speedup_forward{end}']:.1f} times faster than dense, "
            f"with backward {result[f'speedup_both{end}']:.1f}, memory {result[f'memory_ratio{end}']:.1f} times less; than "
            f"masked dense of equal output {result[f'speedup_forward{end}_masked']:.1f}, "
            f"{result[f'speedup_both{end}_masked']:.1f}, {result[f'memory_ratio{end}_masked']:.1f}",
            soft_wrap=True,
        )
    console.print(
        f"{result['neighbours']:.0f} neighbours per token; largest difference from masked dense attention "
        f"{result['difference']:.1e}, of gradients {result['difference_gradient']:.1e}",
        soft_wrap=True,
    )
