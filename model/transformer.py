"""What both backbones are built of: the transformer block, and how weights start.

The block is that of "Attention Is All You Need" (arXiv 1706.03762), normalised before attention and MLP as in "On Layer
Normalization in the Transformer Architecture" (arXiv 2002.04745). Which token attends to which is each backbone's own:
`wavecity.model.multimodal.attention` and `wavecity.model.temporal.attention`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP, each added to its input.

    A backbone's own block says how queries, keys and values become the attended values. The width d is divided into
    heads of c = d / heads; the MLP's hidden layer is `mlp_ratio` times d wide.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def projected(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads: (B, N, d) to three times (B, heads, N, c)."""
        query, key, value = self.query_key_value(self.norm_1(tokens)).chunk(3, -1)  # (B, N, d) each
        return self.split_heads(query), self.split_heads(key), self.split_heads(value)

    def split_heads(self, tokens: Tensor) -> Tensor:
        """(B, N, d) to (B, heads, N, c)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def added(self, tokens: Tensor, attended: Tensor) -> Tensor:
        """Add attended values (B, heads, N, c), then the MLP's output, to tokens (B, N, d)."""
        tokens = tokens + self.project(attended.transpose(1, 2).flatten(2))  # (B, N, d)
        return tokens + self.mlp(self.norm_2(tokens))


def initialise(network: nn.Module, *embeddings: nn.Parameter) -> None:
    """Start linear layers by Glorot's uniform rule with zero biases, and the given embeddings near zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    initialise_embeddings(*embeddings)


def initialise_embeddings(*embeddings: nn.Parameter) -> None:
    """Draw embeddings from a normal distribution of deviation 0.02, cut off at 2."""
    for embedding in embeddings:
        nn.init.trunc_normal_(embedding, std=0.02)


@contextmanager
def seeded_weights(seed: int) -> Iterator[None]:
    """Draw the weights of networks that are built inside from a seed; torch's own random numbers go on unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
