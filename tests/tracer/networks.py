"""Small networks that behave like the real ones in the ways that matter to a tracer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block that fires its activation twice and works in place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add what two convolutions make of x."""
        change: Tensor = self.conv2(self.activation(self.conv1(self.activation(x.clone()))))
        return x + change


class Denoiser(nn.Module):
    """Takes a latent and a timestep, as a UNet does; `broken_from` makes a NaN from that timestep down."""

    def __init__(self, *, broken_from: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.sequence = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Identity())
        self.conv_out = nn.Conv2d(8, 4, 3, padding=1)
        self.never = nn.Linear(2, 2)
        self.broken_from = broken_from

    def forward(self, sample: Tensor, timestep: Tensor | float) -> tuple[Tensor, dict[str, Tensor]]:
        """Predict the noise; also returns a hidden state, nested as real outputs are."""
        hidden = self.conv_in(sample) * (1 + float(timestep) / 1000)
        if self.broken_from is not None and float(timestep) <= self.broken_from:
            hidden = hidden / 0.0 * 0.0
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.sequence(hidden)
        return self.conv_out(hidden), {"hidden": hidden}


def denoise(model: nn.Module, *, steps: int = 4, batch: int = 1) -> Tensor:
    """A hand-written sampling loop over the model; the same seed every time."""
    latents = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for step in range(steps):
            latents = latents - 0.1 * model(latents, 1000.0 - 100 * step)[0]
    return latents
