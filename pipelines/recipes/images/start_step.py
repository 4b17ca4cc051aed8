"""Image to image from a step of the schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from diffusers.utils.torch_utils import randn_tensor

from diffusion_xray.tracer.errors import RecipeError

from ..figures import picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, encode_prompts, noise_and_x0, predict, require_unet
from ..option_types import Between, Steps
from .inputs import open_picture, photograph, picture_size

__all__ = ["start_step"]


@torch.no_grad()
def start_step(
    lab: Lab,
    *,
    picture: Path | None = None,
    prompt: str = "a red ring on gray",
    start_step: Annotated[int, Between(0)] = 12,
    steps: Steps = 25,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Image to image: noise a picture to some step, and go on from there.

    The first steps of a schedule settle where things are and how large. Who leaves them out, and begins with a picture
    at the noise level that they would have reached, keeps that of the picture; the rest comes from the prompt.

      x_t = sqrt(ᾱ_t) encoded + sqrt(1 − ᾱ_t) ε          t = timestep of the start step, then DDIM:
      x_s = sqrt(ᾱ_s) x0 + sqrt(1 − ᾱ_s) ε

      Whitaker 2022, Stable Diffusion Deep Dive, https://github.com/fastai/diffusion-nbs; Song, Meng, Ermon 2021,
      Denoising Diffusion Implicit Models, eq. 4 and 12, https://arxiv.org/abs/2010.02502

    The image-to-image pipeline of diffusers asks for a strength in place of the start step, the share of the steps that
    are made: it leaves out steps − int(steps * strength). With the same noise its latents are those of this loop. In
    the browser, the latents of the first step are the noised picture, and x0 beside them what the model sees in it.

    Args:
        picture: A picture to begin with, its middle square; a red ball on a gray table by default.
        prompt: What it should become.
        start_step: The step to begin with; 0 is almost nothing but noise.
        steps: Steps of the whole schedule.
        guidance: Guidance scale; compared with diffusers from 1 on, below which it has none.
        seed: Of the noise.
    """
    pipe = require_unet(lab.pipeline())
    if not 0 <= start_step < steps:
        raise RecipeError(f"start step {start_step} is no step of {steps}: give 0 to {steps - 1}")
    size = picture_size(pipe)
    given = (photograph(size) if picture is None else open_picture(picture, size))[None]
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps[start_step:]
    alpha_bars = pipe.scheduler.alphas_cumprod
    stride = len(alpha_bars) // steps
    film = []

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
        encoded = encode_pictures(pipe, given)
        tracer.record("encoded", encoded)
        noise = randn_tensor(encoded.shape, lab.generator(seed), encoded.device, encoded.dtype)
        alpha_bar = alpha_bars[timesteps[0]]
        latents = alpha_bar.sqrt() * encoded + (1 - alpha_bar).sqrt() * noise
        for step, t in enumerate(lab.progress(timesteps, "start-step"), start_step):
            tracer.step(step, timestep=t)
            s = t - stride
            alpha_bar_s = alpha_bars[s] if s >= 0 else pipe.scheduler.final_alpha_cumprod
            prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
            noise, x0 = noise_and_x0(pipe, prediction, latents, alpha_bars[t])
            following = alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s).sqrt() * noise
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
            film.append((latents, x0))
            latents = following
        tracer.step(None)
        result = decode(pipe, latents)
        tracer.record_images(result)

    kind = StableDiffusionXLImg2ImgPipeline if hasattr(pipe, "text_encoder_2") else StableDiffusionImg2ImgPipeline
    theirs = lab.pipeline(kind)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False)
    strength = min(1.0, (steps - start_step + 0.5) / steps)  # half a step more, or rounding might take one away
    expected = theirs(
        prompt,
        image=encoded,
        strength=strength,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=lab.generator(seed),
        output_type="latent",
    ).images
    lab.found("strength of the same meaning", (steps - start_step) / steps)
    if guidance >= 1:  # below, diffusers draws without guidance
        lab.found("largest difference to diffusers' latents", float((latents - expected).abs().max()))

    every = max(len(film) // 6, 1)
    figure = picture_grid(
        [
            [given[0], *(decode(pipe, x)[0] for x, _ in film[::every]), result[0]],
            [decode(pipe, encoded)[0], *(decode(pipe, x0)[0] for _, x0 in film[::every]), decode(pipe, expected)[0]],
        ],
        row_titles=["x_t", "x0"],
        column_titles=["input", *(f"t = {int(t)}" for t in timesteps[::every]), "result"],
    )
    lab.figure(
        "film",
        figure,
        "Left the picture, and below it what the autoencoder makes of it. In between x_t above and x0 below, from the "
        "start step on. Right the result, and below it that of diffusers' image-to-image pipeline.",
    )
