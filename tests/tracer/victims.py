"""A run that is made to be killed, what it must have recorded, and a process that starts and kills it.

As a script this waits for orders on its standard input. It imports torch once and forks a victim for every order, so
that a kill costs a fraction of a second. Nothing here may start a thread before a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray  # noqa: F401 — not by every victim at its end
import zarr  # noqa: F401
from torch import Tensor, nn

from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.recording.statistics import warm_up

STEPS = 16
PLANNED = 11
"""What the scheduler says; the steps beyond make the tracer lengthen its arrays in mid-run."""
LATE = 3
"""From this step on a further module fires."""
KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)


class Cast(nn.Module):
    """Returns numbers of one type; only operations whose bits do not depend on the number of threads."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Scale to where every type has several values."""
        return (x.abs() * 40 - 1).clamp(min=0).to(self.dtype)


class Predictor(nn.Module):
    """A denoiser with a module for each type of number, one of which fires twice, and one that fires late."""

    def __init__(self, *kinds: torch.dtype) -> None:
        super().__init__()
        self.casts = nn.ModuleList([Cast(kind) for kind in kinds])
        self.late = Cast(torch.float32)

    def forward(self, sample: Tensor, timestep: float) -> Tensor:
        """Predict something that differs from step to step."""
        for cast in self.casts:
            cast(sample)
        self.casts[0](-sample * 3)
        if timestep <= STEPS - LATE:
            self.late(sample + 1)
        return sample * 0.25 + timestep / 64


class Scheduler:
    """The least that counts as a scheduler."""

    timesteps = torch.arange(STEPS, STEPS - PLANNED, -1.0)
    num_inference_steps = PLANNED

    def step(self, model_output: Tensor, timestep: float, sample: Tensor) -> tuple[Tensor]:
        """Take a step."""
        return (sample - model_output * 0.5,)


def make_parts() -> dict[str, Any]:
    """Two components beside the denoiser: one that fires before the loop, one that fires in every other step."""
    return {
        "encoder": Cast(torch.float64),
        "controlnet": Predictor(torch.float16),
        "unet": Predictor(*KINDS),
        "scheduler": Scheduler(),
    }


def sample_with(parts: dict[str, Any], look: Callable[[str, Tensor], object] = lambda *_: None) -> Tensor:
    """The run; `look` is shown what the scheduler sees."""
    sample = torch.linspace(-1, 1, 96).view(2, 3, 4, 4)
    parts["encoder"](torch.linspace(0, 1, 12).view(3, 4))
    for step in range(STEPS):
        timestep = float(STEPS - step)
        if step % 2 == 0:
            parts["controlnet"](sample + step, timestep)
        output = parts["unet"](sample, timestep)
        look("latents", sample)
        look("model_output", output)
        sample = parts["scheduler"].step(output, timestep, sample)[0]
        look("next_latents", sample)
    return sample


@dataclass
class Reference:
    """What a run of `sample_with` computes, kept in memory by nothing but hooks."""

    inside: dict[tuple[str, str, int], dict[int, Tensor]] = field(default_factory=lambda: defaultdict(dict))
    """By name, port and call within a step: the tensor of each step."""
    outside: dict[str, Tensor] = field(default_factory=dict)
    """By name: what was computed before the loop."""
    result: Tensor = field(default_factory=lambda: torch.zeros(0))


def make_reference() -> Reference:
    """Run without a tracer and remember every output."""
    reference, parts, step = Reference(), make_parts(), 0

    def keep(name: str, port: str, tensor: Tensor) -> None:
        call = 0
        while step in reference.inside[name, port, call]:
            call += 1
        reference.inside[name, port, call][step] = tensor.clone()

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: keep(name, "output", output)

    def look(port: str, tensor: Tensor) -> None:
        nonlocal step
        keep("latents", port, tensor)
        step += port == "next_latents"

    for component in ("controlnet", "unet"):
        for path, module in parts[component].named_modules():
            module.register_forward_hook(hook(f"{component}.{path}" if path else component))
    parts["encoder"].register_forward_hook(
        lambda _, __, output: reference.outside.update(encoder=output.clone()),
    )
    reference.result = sample_with(parts, look)
    return reference


def trace_to(path: Path) -> None:
    """The traced run."""
    parts = make_parts()
    with torch.no_grad(), Tracer(parts, path, capture="all"):
        sample_with(parts)


def serve() -> None:
    """For each line [path, seconds until the kill, or null] answer [exit code, seconds it took]."""
    torch.set_num_threads(1)
    warm_up()
    for line in sys.stdin:
        path, delay = json.loads(line)
        began = time.monotonic()
        victim = os.fork()
        if not victim:
            try:
                trace_to(Path(path))
                os._exit(0)
            except BaseException:  # noqa: BLE001 — a fork must never return into the loop
                traceback.print_exc()
                os._exit(1)
        if delay is not None:
            time.sleep(delay)
            os.kill(victim, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
        print(json.dumps([code, time.monotonic() - began]), flush=True)


if __name__ == "__main__":
    serve()
