"""The denoiser: a UNet that knows the time and reads the text.

Ronneberger et al. 2015, U-Net, https://arxiv.org/abs/1505.04597, in the form of Rombach et al. 2022, High-Resolution
Image Synthesis with Latent Diffusion Models, https://arxiv.org/abs/2112.10752, section 3.3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Attention, ResidualBlock

__all__ = ["DownBlock", "MiddleBlock", "PictureBlock", "TimeEmbedding", "TransformerBlock", "UNet", "UpBlock"]


class UNet(nn.Module):
    """Down to coarse and wide, up again, with a skip from each layer of the way down to one of the way up.

    The defaults are those of Stable Diffusion 1.

    Args:
        channels: Of the latents.
        widths: Channels at each resolution, the finest first; each is half the one before.
        attends: Whether the text is read at each of these resolutions.
        layers: At each resolution on the way down; on the way up there is one more.
        heads: Of every attention.
        text_width: Of the text embeddings.
        groups: Of the norms.
    """

    def __init__(
        self,
        *,
        channels: int = 4,
        widths: Sequence[int] = (320, 640, 1280, 1280),
        attends: Sequence[bool] = (True, True, True, False),
        layers: int = 2,
        heads: int = 8,
        text_width: int = 768,
        groups: int = 32,
    ) -> None:
        super().__init__()
        parts = _Parts(4 * widths[0], text_width, heads, groups)
        levels = list(enumerate(zip(widths, attends, strict=True)))
        coarsest = len(widths) - 1

        self.time = TimeEmbedding(widths[0], parts.time_width)
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        width, skips = widths[0], [widths[0]]
        self.down = nn.ModuleList()
        for level, (out_width, attend) in levels:
            inputs = [out_width if layer else width for layer in range(layers)]
            self.down.append(DownBlock(parts, inputs, out_width, attend=attend, shrink=level < coarsest))
            skips += [out_width] * (layers + (level < coarsest))
            width = out_width
        self.middle = MiddleBlock(parts, width)
        self.up = nn.ModuleList()
        for level, (out_width, attend) in reversed(levels):
            inputs = [(out_width if layer else width) + skips.pop() for layer in range(layers + 1)]
            self.up.append(UpBlock(parts, inputs, out_width, attend=attend, grow=level > 0))
            width = out_width
        self.norm = nn.GroupNorm(groups, width, eps=1e-5)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, latents: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """Predict the noise, or whatever the network was trained to.

        Args:
            latents: x_t (batch, channel, y, x).
            timestep: t, one for the batch.
            context: Embeddings of the text (batch, token, text_width).

        Returns:
            As `latents`.
        """
        time = self.time(timestep.to(latents.device).expand(len(latents)))
        x = self.first(latents)
        skips = [x]
        for down in self.down:
            x, kept = down(x, time, context)
            skips += kept
        x = self.middle(x, time, context)
        for up in self.up:
            x = up(x, skips, time, context)
        prediction: Tensor = self.last(F.silu(self.norm(x)))
        return prediction


@dataclass(frozen=True)
class _Parts:
    """Makes layers, all of the same sizes but for their widths."""

    time_width: int
    text_width: int
    heads: int
    groups: int

    def residual(self, width: int, out_width: int) -> ResidualBlock:
        return ResidualBlock(width, out_width, groups=self.groups, time_width=self.time_width, epsilon=1e-5)

    def attention(self, width: int) -> PictureBlock:
        return PictureBlock(width, self.heads, self.text_width, self.groups)


class TimeEmbedding(nn.Module):
    """The timestep as waves of many lengths (Vaswani et al. 2017, section 3.5), through a small network."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.waves = width // 2
        self.into = nn.Linear(width, out_width)
        self.out = nn.Linear(out_width, out_width)

    def forward(self, timestep: Tensor) -> Tensor:
        """(batch,) to (batch, out_width)."""
        frequencies = torch.exp(-math.log(10000) * torch.arange(self.waves, device=timestep.device) / self.waves)
        angles = timestep[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.into.weight.dtype)
        result: Tensor = self.out(F.silu(self.into(waves)))
        return result


class DownBlock(nn.Module):
    """Layers at one resolution, each a residual block, where text is read with attention; on to half of it."""

    def __init__(self, parts: _Parts, widths: Sequence[int], out_width: int, *, attend: bool, shrink: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(parts.residual(width, out_width) for width in widths)
        self.attentions = nn.ModuleList(parts.attention(out_width) for _ in widths if attend)
        self.shrink = nn.Conv2d(out_width, out_width, 3, stride=2, padding=1) if shrink else None

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(batch, width, y, x) to (batch, out_width, y / 2, x / 2), and what is kept for the way up."""
        kept = []
        for layer, residual in enumerate(self.residuals):
            x = residual(x, time)
            if self.attentions:
                x = self.attentions[layer](x, context)
            kept.append(x)
        if self.shrink is not None:
            x = self.shrink(x)
            kept.append(x)
        return x, kept


class MiddleBlock(nn.Module):
    """The coarsest resolution, between the ways down and up."""

    def __init__(self, parts: _Parts, width: int) -> None:
        super().__init__()
        self.before = parts.residual(width, width)
        self.attention = parts.attention(width)
        self.after = parts.residual(width, width)

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """(batch, width, y, x) to the same."""
        result: Tensor = self.after(self.attention(self.before(x, time), context), time)
        return result


class UpBlock(nn.Module):
    """Layers at one resolution, each of which is given a skip as well; on to twice of it."""

    def __init__(self, parts: _Parts, widths: Sequence[int], out_width: int, *, attend: bool, grow: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(parts.residual(width, out_width) for width in widths)
        self.attentions = nn.ModuleList(parts.attention(out_width) for _ in widths if attend)
        self.grow = nn.Conv2d(out_width, out_width, 3, padding=1) if grow else None

    def forward(self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor) -> Tensor:
        """(batch, width, y, x) to (batch, out_width, 2 · y, 2 · x), each layer with the last of the skips left."""
        for layer, residual in enumerate(self.residuals):
            x = residual(torch.cat([x, skips.pop()], dim=1), time)
            if self.attentions:
                x = self.attentions[layer](x, context)
        return x if self.grow is None else self.grow(F.interpolate(x, scale_factor=2.0))


class PictureBlock(nn.Module):
    """A transformer whose tokens are the pixels."""

    def __init__(self, width: int, heads: int, text_width: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.into = nn.Conv2d(width, width, 1)
        self.transformer = TransformerBlock(width, heads, text_width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(batch, width, y, x) to the same."""
        pixels = self.into(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)
        pixels = self.transformer(pixels, context).transpose(1, 2).reshape(x.shape)
        result: Tensor = self.out(pixels) + x
        return result


class TransformerBlock(nn.Module):
    """Pixels attend to one another, then to the words, then each goes through a gated network (Shazeer 2020, GEGLU)."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads, bias=False)
        self.norm_text = nn.LayerNorm(width)
        self.text_attention = Attention(width, heads, context_width=text_width, bias=False)
        self.norm_feed = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 8 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(batch, pixel, width) to the same."""
        x = x + self.self_attention(self.norm_self(x))
        x = x + self.text_attention(self.norm_text(x), context)
        hidden, gate = self.feed_in(self.norm_feed(x)).chunk(2, dim=-1)
        result: Tensor = x + self.feed_out(hidden * F.gelu(gate))
        return result
