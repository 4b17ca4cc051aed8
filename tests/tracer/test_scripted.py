"""A TorchScript module within a model costs its own inside, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.capture import Level


class Denoiser(nn.Module):
    """Made of two layers, one of which may be a script."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: nn.Module = nn.Sequential(nn.Linear(2, 2), nn.SiLU())
        self.out = nn.Linear(2, 2)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Predict the noise."""
        result: Tensor = self.out(self.inner(sample)) * timestep
        return result


def traced(module: nn.Module) -> Any:
    """A script by example."""
    return torch.jit.trace(module, torch.ones(1, 2))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("level", ["statistics", "all"])
@pytest.mark.parametrize("script", [traced, torch.jit.script])
@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning", "ignore:.torch.jit.:FutureWarning")
def test_a_script_within_a_module_is_recorded_as_its_caller_sees_it(
    tmp_path: Path, level: Level, script: Callable[[nn.Module], Any]
) -> None:
    """What goes in and out of it is there, its inside is a gap that says so, and no tap fails."""
    model = Denoiser()
    expected = model(torch.ones(1, 2), torch.tensor(3.0))
    kept: Tensor = model.inner(torch.ones(1, 2))
    model.inner = script(model.inner)
    with torch.no_grad(), Tracer({"unet": model}, tmp_path / "run.zarr", capture=level) as tracer:
        for _ in range(2):
            assert torch.equal(model(torch.ones(1, 2), torch.tensor(3.0)), expected)
    trace = tracer.trace
    assert (trace.info.status, trace.info.tap_failures) == ("complete", ())
    assert set(trace.modules) == {"unet", "unet.inner", "unet.out"}
    assert trace.table("unet").column("mean")[0, trace.site("unet.inner").row] == pytest.approx(kept.mean().item())
    (gap,) = trace.info.gaps
    assert gap["site"] == "unet.inner" and "TorchScript" in gap["reason"]


@pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning", "ignore:.torch.jit.:FutureWarning")
def test_a_script_as_the_denoiser_tells_its_timestep(tmp_path: Path) -> None:
    """A component that is TorchScript as a whole is known by the parameters of its own forward."""
    script = torch.jit.trace(Denoiser(), (torch.ones(1, 2), torch.tensor(3.0)))  # type: ignore[no-untyped-call]
    with torch.no_grad(), Tracer({"unet": script}, tmp_path / "run.zarr") as tracer:
        for timestep in (5.0, 3.0):
            script(torch.ones(1, 2), torch.tensor(timestep))
    trace = tracer.trace
    assert trace.info.tap_failures == ()
    assert trace.timestep.tolist() == [5.0, 3.0]
    assert list(trace.modules) == ["unet"]
