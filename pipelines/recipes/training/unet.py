"""A small UNet in plain PyTorch, to be read: what it is told enters the decoder as a scale and an offset.

::

    x ── enter ──────────────────────────────────┬── leave ── out
           └── down1 ───────────────────┬── up2 ─(×+)
                 └── down2 ───┬── up1 ─(×+)
                        flatten
                           └── unflatten ─(×+)

Each ``┬`` is a skip connection: the encoder's channels are put beside the decoder's. Each ``(×+)`` is a `Modulation`
by time and class.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["UNet", "new_unet"]

_GROUPS = 8
_TOLD = 64
"""Width of the embeddings of time and class."""


class UNet(nn.Module):
    """Predicts a picture from a noisy one: the clean one, or the noise, as it is trained.

    Args:
        size: Height and width of the pictures, divisible by 4.
        width: Channels at full size; twice as many at half of it, four times at a quarter. A multiple of 8.
        timed: It is told how noisy the picture is.
        classes: It is told which of so many classes the picture belongs to; 0 is not at all.
    """

    def __init__(self, size: int, width: int = 16, *, timed: bool = False, classes: int = 0) -> None:
        super().__init__()
        if size % 4:
            raise ValueError(f"size={size}: the picture is halved twice, give a multiple of 4")
        self.embed = nn.ModuleDict()
        if timed:
            self.embed["time"] = TimeEmbedding(_TOLD)
        if classes:  # the last row, all zeros and not trained, is that of no class
            self.embed["class"] = nn.Embedding(classes + 1, _TOLD, padding_idx=classes)
        self.no_class = classes

        self.enter = ConvBlock(1, width)
        self.down1 = ConvBlock(width, 2 * width, stride=2)
        self.down2 = ConvBlock(2 * width, 4 * width, stride=2)
        self.flatten = nn.Conv2d(4 * width, 4 * width, size // 4)
        self.unflatten = nn.ConvTranspose2d(4 * width, 4 * width, size // 4)
        self.modulate1 = Modulation(self.embed, 4 * width)
        self.up1 = UpBlock(8 * width, 2 * width)
        self.modulate2 = Modulation(self.embed, 2 * width)
        self.up2 = UpBlock(4 * width, width)
        self.modulate3 = Modulation(self.embed, width)
        self.leave = ConvBlock(2 * width, width)
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """Predict.

        Args:
            x: Pictures (batch, 1, y, x).
            t: How far each is on the way from picture to noise, (batch,) in [0, 1]; where `timed`.
            label: Class of each, (batch,) int64, or `no_class`; None is no class for all of them.

        Returns:
            As `x`.
        """
        told = {}
        if "time" in self.embed:
            told["time"] = self.embed["time"](t)
        if "class" in self.embed:
            told["class"] = self.embed["class"](x.new_full((len(x),), self.no_class).long() if label is None else label)

        full = self.enter(x)
        half = self.down1(full)
        quarter = self.down2(half)
        code = F.silu(self.flatten(quarter))
        h = self.modulate1(F.silu(self.unflatten(code)), told)
        h = self.modulate2(self.up1(torch.cat([h, quarter], dim=1)), told)
        h = self.modulate3(self.up2(torch.cat([h, half], dim=1)), told)
        drawn: Tensor = self.out(self.leave(torch.cat([h, full], dim=1)))
        return drawn


def new_unet(size: int, width: int = 16, *, timed: bool = False, classes: int = 0, seed: int = 0) -> UNet:
    """A `UNet` whose first weights follow from a seed; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(size, width, timed=timed, classes=classes)


class ConvBlock(nn.Module):
    """Two convolutions, each normalised and bent; the first may halve the picture."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1)
        self.norm1 = nn.GroupNorm(_GROUPS, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, y, x) to (batch, out, y / stride, x / stride)."""
        h = F.silu(self.norm1(self.conv1(x)))
        return F.silu(self.norm2(self.conv2(h)))


class UpBlock(nn.Module):
    """Doubles the picture; then one convolution, normalised and bent."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(channels, out, 2, stride=2)
        self.conv = nn.Conv2d(out, out, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, out)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, y, x) to (batch, out, 2y, 2x)."""
        return F.silu(self.norm(self.conv(self.enlarge(x))))


class TimeEmbedding(nn.Module):
    """A time in [0, 1] as waves of many frequencies (Ho et al. 2020 take them from Vaswani et al. 2017), mixed."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.mix = nn.Linear(features, features)

    def forward(self, t: Tensor) -> Tensor:
        """(batch,) to (batch, features)."""
        angles = t[:, None] * torch.logspace(0, 2, self.features // 2, device=t.device)
        return F.silu(self.mix(torch.cat([angles.sin(), angles.cos()], dim=1)))


class Modulation(nn.Module):
    """Lets what the network is told into the decoder: h becomes (1 + scale) h + offset, channel by channel.

    Perez et al. 2018, FiLM: Visual Reasoning with a General Conditioning Layer, eq. 2, https://arxiv.org/abs/1709.07871;
    time and class have a scale and an offset each, which add up. Without a class, those of the class are zero.
    """

    def __init__(self, embed: nn.ModuleDict, channels: int) -> None:
        super().__init__()
        self.scale = nn.ModuleDict({name: _starts_at_zero(channels, bias=name == "time") for name in embed})
        self.offset = nn.ModuleDict({name: _starts_at_zero(channels, bias=name == "time") for name in embed})

    def forward(self, h: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        """Modulate h (batch, channel, y, x) by embeddings (batch, feature)."""
        scale = sum((self.scale[name](embedding)[:, :, None, None] for name, embedding in told.items()), start=1)
        offset = sum((self.offset[name](embedding)[:, :, None, None] for name, embedding in told.items()), start=0)
        modulated: Tensor = scale * h + offset
        return modulated


def _starts_at_zero(channels: int, *, bias: bool) -> nn.Linear:
    linear = nn.Linear(_TOLD, channels, bias=bias)
    nn.init.zeros_(linear.weight)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
