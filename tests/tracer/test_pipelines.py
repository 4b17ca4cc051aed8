"""Real pipelines, traced: the same output to the bit, and a truthful record of the loop."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from diffusion_xray.pipelines.shapes.load import load_pipeline
from diffusion_xray.tracer import Tracer

from ..families import FAMILIES, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

SCHEDULERS = {
    "DDIMScheduler": 25,
    "DDPMScheduler": 25,
    "EulerDiscreteScheduler": 25,
    "EulerAncestralDiscreteScheduler": 25,
    "DPMSolverMultistepScheduler": 25,
    "UniPCMultistepScheduler": 25,
    "PNDMScheduler": 34,
    "LMSDiscreteScheduler": 25,
    "HeunDiscreteScheduler": 49,
}
"""Scheduler and how often it steps in a run of 25 inference steps: Heun evaluates the model
twice in all but the last, PNDM warms up with nine more."""


def everything_patched() -> dict[str, object]:
    """The functions a tracer may replace while it records."""
    found = {f"{kind.__name__}.step": kind.__dict__.get("step") for kind in SchedulerMixin.__subclasses__()}
    found |= {name: vars(getattr(diffusers, name))["__call__"] for name in ("StableDiffusionPipeline", "FluxPipeline")}
    return found


def all_hooks(pipeline: Any) -> list[object]:
    """Every hook registered on a pipeline's modules."""
    parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    modules = [module for part in parts for module in part.modules()]
    return [hook for m in modules for hooks in (m._forward_hooks, m._forward_pre_hooks) for hook in hooks.values()]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_traced_bit_identically(name: str, tmp_path: Path) -> None:
    """Every kind of pipeline returns the same bits traced, and every patch and hook is gone."""
    family = FAMILIES[name]()
    plain, patched = run(family), everything_patched()
    hooks = all_hooks(family.pipeline)  # transformers leaves some of its own
    with Tracer(family.pipeline, tmp_path / "run.zarr") as tracer:
        traced = run(family)
    assert np.array_equal(plain, traced)
    assert everything_patched() == patched
    assert all_hooks(family.pipeline) == hooks
    trace = tracer.trace
    assert trace.info.status == "complete"
    assert not trace.info.tap_failures
    assert trace.n_steps == trace.info.planned_steps == len(family.pipeline.scheduler.timesteps[-trace.n_steps :])
    assert np.array_equal(trace.timestep, family.pipeline.scheduler.timesteps[-trace.n_steps :].double())
    assert {"latents", "model_output", "next_latents", "x0"} <= set(trace.steps)
    assert (np.diff(trace.sigma) <= 0).all()
    assert trace.info.preview


@pytest.mark.parametrize("name", ["sd", "wan", "sd_controlnet", "sd_img2img"])
def test_guidance_and_denoisers_are_told_apart(name: str, tmp_path: Path) -> None:
    """Guidance as halves of a batch or as calls of their own, and several denoisers, are recorded as they happened."""
    family = FAMILIES[name]()
    with Tracer(family.pipeline, tmp_path / "run.zarr") as tracer:
        run(family)
    trace = tracer.trace
    if name == "wan":
        assert trace.info.guidance["transformer"]["calls"] == ["conditional", "unconditional"]
        branches = {site.call: site.branch for site in trace.modules["transformer"].sites if site.port == "output"}
        assert branches == {0: "conditional", 1: "unconditional"}
    else:
        assert trace.info.guidance["unet"]["batch"] == ["unconditional", "conditional"]
    if name == "sd_controlnet":
        assert trace.site("controlnet").stepped
        assert len(trace.modules["unet"].sites) == 1
    if name == "sd_img2img":
        assert trace.site("vae.encoder").stepped is False
        assert trace.stage.tolist() == [0, 1, 0, 1, 0], "Heun: predictor, corrector, ..., and a last first-order step"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_embedded_pipeline_is_traced_bit_identically(name: str, tmp_path: Path) -> None:
    """With each scheduler the picture is the same to the bit, and every step of it is recorded."""
    pipeline = load_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    kind = getattr(diffusers, name)
    options = {"lower_order_final": True} if "DPM" in name else {}
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)

    def draw() -> Any:
        return pipeline(
            "a red circle on white",
            num_inference_steps=25,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images

    plain = draw()
    with Tracer(pipeline, tmp_path / "run.zarr", capture="statistics") as tracer:
        traced = draw()
    assert np.array_equal(plain, traced)
    trace = tracer.trace
    assert trace.n_steps == SCHEDULERS[name]
    steps = trace.steps
    assert np.array_equal(steps["latents"][1:], steps["next_latents"][:-1])
    images = trace.images
    assert images is not None
    assert np.array_equal(images, plain)


def test_a_copied_scheduler_is_followed(tmp_path: Path) -> None:
    """A pipeline that steps a copy of its scheduler is recorded; a foreign pipeline's scheduler is not."""
    family, foreign = FAMILIES["sd"](), FAMILIES["sdxl"]()
    pipeline = family.pipeline
    original = type(pipeline).prepare_extra_step_kwargs

    class Copying(type(pipeline)):  # type: ignore[misc]
        scheduler: Any

        def prepare_extra_step_kwargs(self, *args: Any) -> Any:
            """Called just before the loop."""
            self.scheduler = copy.deepcopy(self.scheduler)
            return original(self, *args)

    pipeline.__class__ = Copying
    with Tracer(pipeline, tmp_path / "run.zarr") as tracer:
        run(foreign)
        run(family)
    assert tracer.trace.n_steps == family.call["num_inference_steps"]


def test_two_calls_make_one_long_trace(tmp_path: Path) -> None:
    """A second call of the pipeline adds its steps after those of the first."""
    family = FAMILIES["sd"]()
    with Tracer(family.pipeline, tmp_path / "run.zarr") as tracer:
        run(family)
        run(family)
    trace = tracer.trace
    assert trace.timestep.tolist() == [667, 334, 1, 667, 334, 1]
    assert len(trace.prompts) == 4


@pytest.mark.filterwarnings("ignore:nothing was recorded")
def test_only_the_traced_instance_is_recorded(tmp_path: Path) -> None:
    """Another pipeline of the same class runs unrecorded beside the traced one."""
    family, other = FAMILIES["sd"](), FAMILIES["sd"]()
    with Tracer(family.pipeline, tmp_path / "run.zarr") as tracer:
        run(other)
    assert tracer.trace.n_steps == 0
    assert not tracer.trace.modules


def test_wrapped_functions_keep_their_signature(tmp_path: Path) -> None:
    """While tracing, `inspect.signature` of a scheduler's step is what pipelines expect of it."""
    family = FAMILIES["sd"]()
    before = inspect.signature(family.pipeline.scheduler.step)
    with Tracer(family.pipeline, tmp_path / "run.zarr"):
        assert inspect.signature(family.pipeline.scheduler.step) == before
        run(family)
