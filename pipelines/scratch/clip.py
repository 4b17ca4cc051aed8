"""The text encoder of CLIP: a transformer that reads from left to right.

Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision; https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Attention

__all__ = ["TextBlock", "TextEncoder"]


class TextEncoder(nn.Module):
    """Tokens to embeddings, each of which has seen the tokens before it. The defaults are those of Stable Diffusion 1.

    Args:
        vocabulary: Number of different tokens.
        length: Most tokens of a prompt.
        width: Of the embeddings.
        blocks: How many.
        heads: Of their attention.
        feed_width: Of the layer between the two of the feed-forward network.
    """

    def __init__(
        self,
        *,
        vocabulary: int = 49408,
        length: int = 77,
        width: int = 768,
        blocks: int = 12,
        heads: int = 12,
        feed_width: int = 3072,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(TextBlock(width, heads, feed_width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Tokens (batch, token) to embeddings (batch, token, width)."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        x = self.token(input_ids) + self.position(places)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.norm(x)
        return result


class TextBlock(nn.Module):
    """Attention, then a network that sees one token at a time; each adds to what it is given."""

    def __init__(self, width: int, heads: int, feed_width: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=True)
        self.norm_feed = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, feed_width)
        self.feed_out = nn.Linear(feed_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, token, width) to the same."""
        x = x + self.attention(self.norm_attention(x))
        hidden = self.feed_in(self.norm_feed(x))
        hidden = hidden * torch.sigmoid(1.702 * hidden)  # a quick GELU (Hendrycks & Gimpel 2016)
        result: Tensor = x + self.feed_out(hidden)
        return result
