"""Attention of the multi-modal model: every token attends to all others ("A Multi-Modal Foundational Model for Wireless
Communication and Sensing", arXiv 2602.04016, Appendix A).
"""

import torch.nn.functional as F
from torch import Tensor

from wavecity.model.transformer import Block


class SelfAttentionBlock(Block):
    """Transformer block whose tokens attend to all tokens."""

    def forward(self, tokens: Tensor, last: int | None = None) -> Tensor:
        """(B, N, d) to (B, N, d), or to (B, last, d): only the last tokens' outputs, attending to all."""
        if last is None or last == tokens.shape[1]:
            query, key, value = self.projected(tokens)  # (B, heads, N, c) each
        else:
            query, key, value = self._projected_last(tokens, last)
            tokens = tokens[:, -last:]  # (B, last, d)
        return self.added(tokens, F.scaled_dot_product_attention(query, key, value))

    def _projected_last(self, tokens: Tensor, last: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the last tokens alone, (B, heads, last, c); keys and values of all, (B, heads, N, c)."""
        normed, width = self.norm_1(tokens), tokens.shape[-1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        query = F.linear(normed[:, -last:], weight[:width], bias[:width])  # (B, last, d)
        key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, -1)  # (B, N, d) each
        return self.split_heads(query), self.split_heads(key), self.split_heads(value)

    def first_row(self, tokens: Tensor) -> Tensor:
        """Weights with which the first token attends to all, mean over the heads: (B, N, d) to (B, N)."""
        query, key, _ = self.projected(tokens)
        scores = query[:, :, :1] @ key.transpose(-2, -1) / key.shape[-1] ** 0.5  # (B, heads, 1, N)
        return scores.softmax(-1).mean(1)[:, 0]
