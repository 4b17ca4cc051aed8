"""What the networks are built of: attention, and the residual block."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "ResidualBlock"]


class Attention(nn.Module):
    """softmax(Q Kᵀ / √d) V in several heads (Vaswani et al. 2017, Attention Is All You Need, eq. 1).

    Args:
        width: Of the tokens that attend, and of the result.
        heads: Into which the width is split.
        context_width: Of the tokens that are attended to; by default tokens attend to one another.
        bias: Whether Q, K and V have a bias.
        causal: Whether a token sees only itself and those before it.
    """

    def __init__(
        self, width: int, heads: int, *, context_width: int | None = None, bias: bool = True, causal: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(context_width or width, width, bias=bias)
        self.value = nn.Linear(context_width or width, width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Let the tokens x (batch, token, width) attend to those of the context, or to themselves."""
        context = x if context is None else context
        query, key, value = (
            projected.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (batch, head, token, width / heads)
            for projected in (self.query(x), self.key(context), self.value(context))
        )
        found = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        result: Tensor = self.out(found.transpose(1, 2).flatten(2))
        return result


class ResidualBlock(nn.Module):
    """x + f(x), f being two convolutions (He et al. 2016); between them the time is added to every pixel.

    Args:
        width: Channels of x.
        out_width: Channels of the result; where that is another number, x goes through a convolution of one pixel.
        groups: Of the norms (Wu & He 2018).
        time_width: Of the time embedding; None where there is no time.
        epsilon: Of the norms.
    """

    def __init__(
        self, width: int, out_width: int, *, groups: int, time_width: int | None = None, epsilon: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, width, eps=epsilon)
        self.conv_in = nn.Conv2d(width, out_width, 3, padding=1)
        self.time = None if time_width is None else nn.Linear(time_width, out_width)
        self.norm_out = nn.GroupNorm(groups, out_width, eps=epsilon)
        self.conv_out = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.skip = None if width == out_width else nn.Conv2d(width, out_width, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Pictures (batch, width, y, x) and the time embedding (batch, time_width) to (batch, out_width, y, x)."""
        hidden = self.conv_in(F.silu(self.norm_in(x)))
        if self.time is not None and time is not None:
            hidden = hidden + self.time(F.silu(time))[:, :, None, None]
        hidden = self.conv_out(F.silu(self.norm_out(hidden)))
        result: Tensor = (x if self.skip is None else self.skip(x)) + hidden
        return result
