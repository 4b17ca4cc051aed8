"""The three ways to draw are those of diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from torch import Tensor

from diffusion_xray.pipelines.scratch.configs import make_schedule
from diffusion_xray.pipelines.scratch.sampler import Settings, StableDiffusion, img2img, inpaint, txt2img
from diffusion_xray.pipelines.scratch.weights import load
from diffusion_xray.pipelines.shapes.load import WEIGHTS, load_pipeline
from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE
from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.errors import RecipeError

CLOSE = 1e-5
PROMPT = "a big green star on black"


@pytest.fixture(scope="module")
def pipe() -> Any:
    """The embedded model, as diffusers runs it."""
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def model(pipe: Any) -> StableDiffusion:
    """The embedded model, ours."""
    return load(WEIGHTS, pipe.tokenizer)


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """Something to begin with."""
    return torch.rand(1, 3, 8, 8, generator=seed(1)).repeat_interleave(IMAGE_SIZE // 8, 2).repeat_interleave(8, 3)


def seed(number: int = 0) -> torch.Generator:
    """Random numbers."""
    return torch.Generator().manual_seed(number)


def other(kind: Any, pipe: Any, scheduler: Any = None) -> Any:
    """A pipeline of the same parts."""
    made = kind(**{**pipe.components, "scheduler": scheduler or pipe.scheduler}, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("method", ["ddim", "ddpm"])
def test_txt2img(model: StableDiffusion, pipe: Any, method: Any, guidance: float) -> None:
    """From words: the picture of diffusers, with both samplers, with guidance and without."""
    kind = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[method]
    theirs = other(StableDiffusionPipeline, pipe, kind.from_config(pipe.scheduler.config))
    given = {"generator": seed(), "num_inference_steps": 8, "guidance_scale": guidance, "negative_prompt": "a ring"}
    expected = theirs(PROMPT, output_type="pt", **given).images
    drawn = txt2img(model, PROMPT, seed(), Settings(8, guidance, "a ring", method))
    assert drawn.shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert expected.std() > 0.05
    assert (drawn - expected).abs().max() < CLOSE


@pytest.mark.parametrize("strength", [0.3, 0.55, 1.0])
def test_img2img(model: StableDiffusion, pipe: Any, picture: Tensor, strength: float) -> None:
    """From a picture: that of diffusers, at any strength; the weaker, the closer to the picture."""
    theirs = other(StableDiffusionImg2ImgPipeline, pipe)
    given = {"generator": seed(), "num_inference_steps": 10, "guidance_scale": 3.0, "strength": strength}
    expected = theirs(PROMPT, picture, output_type="pt", **given).images
    drawn = img2img(model, PROMPT, seed(), Settings(10, 3.0), picture=picture, strength=strength)
    assert (drawn - expected).abs().max() < CLOSE


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpaint(model: StableDiffusion, pipe: Any, picture: Tensor, strength: float) -> None:
    """Part of a picture: that of diffusers; what is not masked is the picture as the autoencoder knows it."""
    mask = torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE)
    mask[..., 16:48, :24] = 1
    theirs = other(StableDiffusionInpaintPipeline, pipe)
    given = {"generator": seed(), "num_inference_steps": 10, "guidance_scale": 3.0, "strength": strength}
    expected = theirs(PROMPT, picture, mask, output_type="pt", **given).images
    drawn = inpaint(model, PROMPT, seed(), Settings(10, 3.0), picture=picture, mask=mask, strength=strength)
    assert (drawn - expected).abs().max() < CLOSE
    known = (model.vae.decode(model.vae.encode(2 * picture - 1, seed())) / 2 + 0.5).clamp(0, 1)
    apart = (drawn - known).abs().mean(dim=(0, 1))
    assert 3 * apart[:, 32:].mean() < apart[16:48, :24].mean()


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 7, 30, 1000])
def test_timesteps(pipe: Any, spacing: str, steps: int) -> None:
    """The timesteps visited are those of diffusers, also where they do not divide evenly."""
    config = {**pipe.scheduler.config, "timestep_spacing": spacing}
    theirs = DDIMScheduler.from_config(config)
    theirs.set_timesteps(steps)
    schedule = make_schedule(config)
    assert schedule.timesteps(steps).tolist() == theirs.timesteps.tolist()
    assert torch.equal(schedule.alpha_bars, theirs.alphas_cumprod)


def test_what_cannot_be_done(model: StableDiffusion, picture: Tensor) -> None:
    """Strengths and numbers of steps that leave nothing to do are refused."""
    for strength in (0.0, 1.5, 0.05):
        with pytest.raises(RecipeError, match="strength"):
            img2img(model, PROMPT, seed(), Settings(10), picture=picture, strength=strength)
    with pytest.raises(RecipeError, match="1001 steps"):
        txt2img(model, PROMPT, seed(), Settings(1001))


def test_it_tells_a_tracer(model: StableDiffusion, tmp_path: Path) -> None:
    """A trace has every step with timestep and latents, and the picture; text and decoder are outside of the loop."""
    with Tracer(model.parts, tmp_path / "run.zarr", capture="attention") as tracer:
        drawn = txt2img(model, PROMPT, seed(), Settings(4, 3.0), tracer)
    trace = tracer.trace
    assert trace.timestep.tolist() == [999, 749, 499, 249]
    assert {"latents", "model_output", "next_latents", "x0"} <= set(trace.steps)
    assert [prompt.text for prompt in trace.prompts] == [(PROMPT,), ("",)]
    assert trace.images is not None
    assert torch.equal(torch.tensor(trace.images[0]).movedim(-1, 0), drawn[0])
    assert not trace.site("vae.decoder.last").stepped
    assert trace.site("unet.middle.attention").array
    assert trace.word_map("star", step=3).shape == (8, 8)
