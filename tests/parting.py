"""Traces of a small network that part from one another where they are told to."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer, TracerWarning, open_trace
from diffusion_xray.tracer.trace import Trace

STEPS = 6


class Block(nn.Module):
    """A residual block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the convolved input."""
        result: Tensor = x + self.act(self.conv(x))
        return result


class Network(nn.Module):
    """Convolutions in, through two blocks, and out."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.ModuleList([Block(channels), Block(channels)])
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the noise."""
        hidden = self.conv_in(x)
        for block in self.blocks:
            hidden = block(hidden)
        result: Tensor = self.conv_out(hidden)
        return result


def record(
    path: Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    fault: tuple[str, int, float] | None = None,
    steps: int = STEPS,
    every: float = 150.0,
    capture: Any = "all",
    component: str = "unet",
    channels: int = 4,
    batch: int = 2,
) -> Trace:
    """Trace a loop; with a `fault`, the output of a module has an amount added from a step on."""
    network = Network(channels).to(dtype).eval()
    x = torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
    now = 0
    if fault is not None:
        name, start, amount = fault
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: output + amount if now >= start else None
        )
    with warnings.catch_warnings():
        if not steps or (fault is not None and not math.isfinite(fault[2])):
            warnings.simplefilter("ignore", TracerWarning)  # of what was asked for
        with torch.no_grad(), Tracer({component: network}, path, capture=capture) as tracer:
            for now in range(steps):
                tracer.step(now, timestep=1000.0 - every * now)
                x = x - 0.1 * network(x)
    return open_trace(path)
