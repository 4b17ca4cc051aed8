"""Makes `golden-v2.zarr`, a trace that this and every future reader must be able to read, as `golden-v1.zarr` is.

It is written once for a version of the format and then never again: a reader is only proven by traces that older
writers left behind. For a new format version, raise the number in `NAME` and keep the old trace beside the new one.

    python tests/data/make_golden.py
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DDIMScheduler

from diffusion_xray.tracer import Capture, Tracer
from diffusion_xray.tracer.layout import ArraySpec
from diffusion_xray.tracer.storage.store import StoreWriter

NAME = "golden-v2.zarr"
STEPS = 2
NETWORKS = Path(__file__).parents[1] / "tracer" / "networks.py"


class SmallStore(StoreWriter):
    """Squeezes the histograms harder than a run can wait for, as this file lives in the repository; has every codec."""

    def add_array(self, spec: ArraySpec) -> None:
        """Create an array as the recorder wants it, a histogram with zstd, tensors of the model with lz4."""
        if spec.path.endswith("/histogram"):
            spec = replace(spec, codec="zstd")
        super().add_array(replace(spec, codec="lz4") if spec.path.startswith("model/") else spec)


def make(path: Path) -> None:
    """Trace two steps of a small denoiser with DDIM, with values recorded by hand before and in the loop."""
    model = runpy.run_path(str(NETWORKS))["Denoiser"]()
    scheduler = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(STEPS)
    latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    capture = Capture(modules=("model.conv_in", "model.blocks.0", "model.blocks.0.activation"))
    parts = {"model": model, "scheduler": scheduler}
    with torch.no_grad(), Tracer(parts, path, capture=capture, store=SmallStore) as tracer:
        tracer.record("start", torch.arange(6.0).view(2, 3))
        for step, timestep in enumerate(scheduler.timesteps):
            noise = model(latents, timestep)[0]
            latents = scheduler.step(noise, timestep, latents).prev_sample
            tracer.record("ramp", torch.arange(4, dtype=torch.float16) * (step + 1))
            tracer.record("odd", torch.tensor([0.0, 1.0, 2.0, float("nan") if step == 1 else 3.0, float("inf")]))
            tracer.record("growing", torch.arange(2.0 + step).expand(2, -1))
            tracer.record("changing", torch.tensor([1.5, -2.5]) if step == 0 else torch.tensor([2**40 + 1, 0]))
            tracer.record("wave", torch.tensor([3 + 4j, 0j, -5 + 12j]) * (step + 1))


if __name__ == "__main__":
    target = Path(__file__).with_name(NAME)
    if target.exists():
        sys.exit(f"{target} exists; readers must go on reading it as it is")
    make(target)
