"""Hybrid image: one thing from afar, another from near."""

from __future__ import annotations

import textwrap
from typing import Annotated

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import curves, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Between, Count, Steps
from .scores import prompt_errors

__all__ = ["hybrid", "low_pass"]


@torch.no_grad()
def hybrid(
    lab: Lab,
    *,
    far_prompt: str = "a red circle left of a blue square on white",
    near_prompt: str = "a blue circle left of a red square on white",
    blur: Annotated[float, Between(0, 1)] = 1 / 16,
    pictures: Count = 6,
    steps: Steps = 25,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Hybrid image: one thing from afar, another from near.

    In each step the UNet is asked for both prompts; the low frequencies of one answer and the high frequencies of the
    other make the step:

      ε = G ε(x_t, far prompt) + (1 − G) ε(x_t, near prompt)        G: a Gaussian blur

      Geng, Park, Owens 2024, Factorized Diffusion, section 3; https://arxiv.org/abs/2404.11615

    With the default prompts colours and places come from the far one and outlines from the near one: blurred, red is
    left of blue; sharp, there is a blue circle and a red square. That the near prompt has them the other way round is
    the part of it that is overruled, and what makes the two contradict.

    To tell how a picture reads, it is made noisy again and the denoiser is asked under which prompt it explains it
    better. Much noise hides what is fine, as distance does, so one curve over the noise shows both; pictures of either
    prompt alone are drawn beside it. Look at records.far and records.near in the browser, the x0 that either answer
    expects, and at the loop's own x0, which has the low frequencies of one and the high ones of the other.

    Args:
        far_prompt: What the picture shows from afar, or blurred.
        near_prompt: What it shows from near.
        blur: Standard deviation of the blur, as a share of the picture's side.
        pictures: How many to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(steps)
    latents = start = starting_noise(pipe, pictures, lab.generator(seed))

    with lab.trace(pipe) as tracer:
        far, near, nothing = (encode_prompts(pipe, [text] * pictures) for text in (far_prompt, near_prompt, ""))
        for step, t in enumerate(lab.progress(pipe.scheduler.timesteps, "hybrid")):
            tracer.step(step, timestep=t)
            coarse = predict(pipe, latents, t, far, unconditional=nothing, guidance=guidance)
            fine = predict(pipe, latents, t, near, unconditional=nothing, guidance=guidance)
            prediction = low_pass(coarse, blur) + fine - low_pass(fine, blur)
            alpha_bar = pipe.scheduler.alphas_cumprod[t]
            tracer.record("far", noise_and_x0(pipe, coarse, latents, alpha_bar)[1])
            tracer.record("near", noise_and_x0(pipe, fine, latents, alpha_bar)[1])
            latents = pipe.scheduler.step(prediction, t, latents).prev_sample
        tracer.step(None)
        drawn = decode(pipe, latents)
        tracer.record_images(drawn)

    called = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "latent"}
    shown = {"the hybrid": drawn}
    for name, prompt in (("the far prompt alone", far_prompt), ("the near prompt alone", near_prompt)):
        shown[name] = decode(pipe, pipe([prompt] * pictures, latents=start, **called).images)

    last = len(pipe.scheduler.alphas_cumprod)
    timesteps = range(last // 20, last, last // 10)
    near_steps, far_steps = slice(0, 3), slice(5, 10)  # of a thousand: below 300, above 500
    leans = {}
    for name, seen in shown.items():
        errors = prompt_errors(pipe, seen, [far_prompt, near_prompt], lab.generator(seed), timesteps=timesteps)
        to_near = (errors[..., 0] / errors[..., 1]).log2()  # above 0 where the near prompt explains the picture better
        leans[name] = to_near.mean(dim=1)
        from_afar, from_near = to_near[far_steps].mean(dim=0) < 0, to_near[near_steps].mean(dim=0) > 0
        lab.found(f"{name}: share that reads as the far prompt from afar", float(from_afar.float().mean()))
        lab.found(f"{name}: share that reads as the near prompt from near", float(from_near.float().mean()))
    blurred = low_pass(drawn, blur)

    figure = picture_grid(
        [list(drawn), list(blurred), [_small(picture) for picture in drawn]],
        row_titles=[
            textwrap.fill(f"near, with the outlines of: {near_prompt}", 24),
            textwrap.fill(f"blurred, which leaves: {far_prompt}", 24),
            "from afar",
        ],
        side=1.3,
    )
    lab.figure("views", figure, "The same pictures sharp, blurred, and as small as from far away.")
    lab.figure(
        "readings",
        curves(
            {name: (list(timesteps), lean) for name, lean in leans.items()},
            x_label="noise added before the denoiser is asked, timestep",
            y_label="error with far prompt : near prompt, log2",
        ),
        "Above 0 the near prompt explains the noisy pictures better, below 0 the far one. Pictures of one prompt alone "
        "stay on their side; the hybrid crosses over as noise hides what is fine.",
    )


def low_pass(x: Tensor, blur: float) -> Tensor:
    """A Gaussian blur of (..., y, x); beyond the border is nothing, and what is inside weighs the more.

    Args:
        x: Pictures or latents.
        blur: Standard deviation, as a share of the width.
    """
    rows, columns = (_blur_matrix(size, blur * x.shape[-1]).to(x) for size in x.shape[-2:])
    return rows @ x @ columns.T


def _blur_matrix(size: int, deviation: float) -> Tensor:
    place = torch.arange(size, dtype=torch.float32)
    return torch.softmax(-((place[:, None] - place) ** 2) / (2 * deviation**2), dim=1)


def _small(picture: Tensor) -> Tensor:
    """At a quarter of its size, on light gray."""
    small = torch.nn.functional.interpolate(picture[None], scale_factor=0.25, mode="area")[0]
    whole = torch.full_like(picture, 0.9)
    top, left = ((large - little) // 2 for large, little in zip(picture.shape[1:], small.shape[1:], strict=True))
    whole[:, top : top + small.shape[1], left : left + small.shape[2]] = small
    return whole
