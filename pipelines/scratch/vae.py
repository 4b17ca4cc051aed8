"""The autoencoder: pictures to latents of a fraction of their size, and back.

Kingma & Welling 2014, Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114, in the form of
Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models, https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Attention, ResidualBlock

__all__ = ["VAE", "Decoder", "DecoderBlock", "Encoder", "EncoderBlock", "ImageAttention", "MiddleBlock"]


class VAE(nn.Module):
    """Encoder and decoder. The defaults are those of Stable Diffusion 1.

    Args:
        widths: Channels at each resolution, the finest first; each is half the one before.
        layers: Residual blocks at each resolution; the decoder has one more.
        channels: Of the latents.
        groups: Of the norms.
        scale: What latents are multiplied with, so that their standard deviation is 1.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (128, 256, 512, 512),
        layers: int = 2,
        channels: int = 4,
        groups: int = 32,
        scale: float = 0.18215,
    ) -> None:
        super().__init__()
        self.scale = scale
        self.encoder = Encoder(widths, layers, channels, groups)
        self.to_moments = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.from_latents = nn.Conv2d(channels, channels, 1)
        self.decoder = Decoder(widths, layers, channels, groups)

    def encode(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (batch, 3, height, width) in [−1, 1] to latents (batch, channel, y, x), drawn from q(z|x)."""
        mean, log_variance = self.to_moments(self.encoder(pictures)).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=mean.dtype)
        deviation = torch.exp(0.5 * log_variance.clamp(-30, 20))
        latents: Tensor = self.scale * (mean + deviation * noise.to(mean.device))
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pictures, about in [−1, 1]."""
        pictures: Tensor = self.decoder(self.from_latents(latents / self.scale))
        return pictures


class Encoder(nn.Module):
    """Pictures to mean and log-variance of the latents, before the last convolution."""

    def __init__(self, widths: Sequence[int], layers: int, channels: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            EncoderBlock(width, out_width, layers, groups, shrink=level < len(widths) - 1)
            for level, (width, out_width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.middle = MiddleBlock(widths[-1], groups)
        self.norm = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.last = nn.Conv2d(widths[-1], 2 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width) to (batch, 2 · channels, y, x)."""
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.last(F.silu(self.norm(self.middle(x))))
        return result


class Decoder(nn.Module):
    """Latents to pictures."""

    def __init__(self, widths: Sequence[int], layers: int, channels: int, groups: int) -> None:
        super().__init__()
        widths = widths[::-1]
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.middle = MiddleBlock(widths[0], groups)
        self.blocks = nn.ModuleList(
            DecoderBlock(width, out_width, layers + 1, groups, grow=level < len(widths) - 1)
            for level, (width, out_width) in enumerate(pairwise((widths[0], *widths)))
        )
        self.norm = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, y, x) to (batch, 3, height, width)."""
        x = self.middle(self.first(x))
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.last(F.silu(self.norm(x)))
        return result


class EncoderBlock(nn.Module):
    """Residual blocks at one resolution, and on to half of it."""

    def __init__(self, width: int, out_width: int, layers: int, groups: int, *, shrink: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(
            ResidualBlock(out_width if layer else width, out_width, groups=groups) for layer in range(layers)
        )
        self.shrink = nn.Conv2d(out_width, out_width, 3, stride=2) if shrink else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) to (batch, out_width, y / 2, x / 2)."""
        for residual in self.residuals:
            x = residual(x)
        return x if self.shrink is None else self.shrink(F.pad(x, (0, 1, 0, 1)))


class DecoderBlock(nn.Module):
    """Residual blocks at one resolution, and on to twice of it."""

    def __init__(self, width: int, out_width: int, layers: int, groups: int, *, grow: bool) -> None:
        super().__init__()
        self.residuals = nn.ModuleList(
            ResidualBlock(out_width if layer else width, out_width, groups=groups) for layer in range(layers)
        )
        self.grow = nn.Conv2d(out_width, out_width, 3, padding=1) if grow else None

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) to (batch, out_width, 2 · y, 2 · x)."""
        for residual in self.residuals:
            x = residual(x)
        return x if self.grow is None else self.grow(F.interpolate(x, scale_factor=2.0))


class MiddleBlock(nn.Module):
    """Where every pixel sees every other, at the coarsest resolution."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.before = ResidualBlock(width, width, groups=groups)
        self.attention = ImageAttention(width, groups)
        self.after = ResidualBlock(width, width, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, y, x) to the same."""
        result: Tensor = self.after(self.attention(self.before(x)))
        return result


class ImageAttention(Attention):
    """Pixels that attend to one another, in one head."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, heads=1)
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(batch, width, y, x) to the same."""
        pixels = self.norm(x.flatten(2)).transpose(1, 2)
        return super().forward(pixels, context).transpose(1, 2).reshape(x.shape) + x
