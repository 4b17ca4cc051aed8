"""Small traces to look at: a denoiser of a few layers, traced without any weights."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Capture, Tracer, TracerWarning, open_trace
from diffusion_xray.tracer.trace import Trace
from diffusion_xray.viewer.app import Browser
from diffusion_xray.viewer.compare.app import CompareApp
from diffusion_xray.viewer.compare.opening import open_comparison
from diffusion_xray.viewer.compare.screen import CompareScreen
from diffusion_xray.viewer.loader import Loader
from diffusion_xray.viewer.opening import find_opening

from ..parting import record as record_parting

STEPS = 6


class Block(nn.Module):
    """A residual block that, told so, divides by zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.SiLU()
        self.breaks_below = -1.0

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        """Add the convolved input, whole or divided by zero."""
        hidden = self.act(self.conv(x))
        result: Tensor = x + hidden / (0.0 if timestep < self.breaks_below else 1.0)
        return result


class Denoiser(nn.Module):
    """Convolutions down, in the middle and up."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, 4, 3, padding=1)
        self.down_blocks = nn.ModuleList([Block(4), Block(4)])
        self.mid_block = Block(4)
        self.conv_out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        """Predict the noise."""
        hidden = self.conv_in(x)
        for block in self.down_blocks:
            hidden = block(hidden, timestep)
        result: Tensor = self.conv_out(self.mid_block(hidden, timestep))
        return result


def record(path: Path, *, capture: Any = "all", breaks_below: float = -1.0, fails_at: int | None = None) -> Trace:
    """Trace six steps of the denoiser; `down_blocks.1` is not finite where the timestep is below `breaks_below`."""
    torch.manual_seed(0)
    denoiser = Denoiser().eval()
    breaking = denoiser.down_blocks[1]
    assert isinstance(breaking, Block)
    breaking.breaks_below = breaks_below
    x = torch.randn(2, 3, 8, 8)
    try:
        with warnings.catch_warnings(), torch.no_grad(), Tracer({"unet": denoiser}, path, capture=capture) as tracer:
            warnings.simplefilter("ignore", TracerWarning)  # faults are what is to be shown
            for step in range(STEPS):
                if step == fails_at:
                    raise RuntimeError("the [red]power[/red] went \x1b[31mout")  # noqa: TRY301
                timestep = 1000.0 - 150 * step
                tracer.step(step, timestep=timestep)
                x = x - 0.1 * denoiser(x, timestep)
    except RuntimeError:
        assert fails_at is not None
    return open_trace(path)


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One trace of each kind, made once; tests that write copy them."""
    folder = tmp_path_factory.mktemp("traces")
    recipes: dict[str, dict[str, Any]] = {
        "normal": {},
        "faulty": {"breaks_below": 500.0},
        "statistics": {"capture": "statistics"},
        "sparse": {"capture": Capture(modules="**", every=2)},
        "failed": {"fails_at": 3},
        "empty": {"fails_at": 0},
    }
    for name, recipe in recipes.items():
        record(folder / f"{name}.zarr", **recipe)
    return {name: folder / f"{name}.zarr" for name in recipes}


@pytest.fixture
def browser(traces: dict[str, Path]) -> Callable[..., Browser]:
    """Make a browser on one of the traces, or on a path."""

    def make(trace: str | Path, *, shade: bool = False, **where: Any) -> Browser:
        loader = Loader(open_trace(traces[trace] if isinstance(trace, str) else trace))
        return Browser(loader, find_opening(loader.snapshot(), **where), shade=shade)

    return make


@pytest.fixture(scope="session")
def parted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Traces that part from "normal" in ways of their own, made once."""
    folder = tmp_path_factory.mktemp("parted")
    late = ("blocks.1.conv", 2, 0.5)
    recipes: dict[str, dict[str, Any]] = {
        "normal": {},
        "same": {},
        "seed": {"seed": 1},
        "late": {"fault": late},
        "broken": {"fault": ("blocks.1.conv", 3, float("nan"))},
        "few": {"steps": 3, "every": 300.0},
        "statistics": {"capture": "statistics", "fault": ("conv_in", 2, 0.5)},
        "wide": {"channels": 6},
        "other": {"component": "other"},
        "empty": {"steps": 0},
    }
    for name, recipe in recipes.items():
        record_parting(folder / f"{name}.zarr", **recipe)
    return {name: folder / f"{name}.zarr" for name in recipes}


@pytest.fixture
def compared(parted: dict[str, Path]) -> Callable[..., CompareApp]:
    """Make a comparison of two of those traces, or of paths."""

    def make(a: str | Path, b: str | Path, *, shade: bool = False, **where: Any) -> CompareApp:
        traces = [open_trace(parted[trace] if isinstance(trace, str) else trace) for trace in (a, b)]
        return CompareApp(CompareScreen(open_comparison(traces[0], traces[1], **where)), shade=shade)

    return make
