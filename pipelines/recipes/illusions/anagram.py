"""Visual anagram: a picture that shows something else when it is turned over."""

from __future__ import annotations

import textwrap
from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import film, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Count, Steps
from .scores import prompt_errors

__all__ = ["View", "anagram", "turn", "turn_back"]

View = Literal["flip", "rotate-180", "rotate-90"]


@torch.no_grad()
def anagram(
    lab: Lab,
    *,
    prompt: str = "a big yellow star at the center on black",
    turned_prompt: str = "a big yellow triangle at the center on black",
    view: View = "flip",
    pictures: Count = 8,
    steps: Steps = 25,
    guidance: float = 6.0,
    seed: int = 0,
) -> None:
    """Visual anagram: one picture, two things, turned over.

    In each step the UNet is asked twice: what of x_t is noise if it shows `prompt`, and what of the turned x_t is noise
    if that shows `turned_prompt`. The second answer is turned back, and the step is made with the mean of both:

      ε = ½ (ε(x_t, prompt) + v⁻¹ ε(v x_t, turned prompt))        v: the view, a flip or a rotation

      Geng, Park, Owens 2023, Visual Anagrams, section 3; https://arxiv.org/abs/2311.17919

    They use a model of pixels, where a view does to a picture exactly what it says. Noise in latents is still noise
    when it is turned, but turned latents are not quite the latents of the turned picture; how far apart they decode is
    measured.

    All pictures are shown, good or not. To tell how a view reads, it is encoded by itself, made noisy, and the denoiser
    is asked under which prompt it explains it better. Look at records.x0 in the browser: upright and turned are what
    the two answers expect, each seen its own way up; records.disagreement is where they differ.

    Args:
        prompt: What the picture shows.
        turned_prompt: What it shows when it is turned.
        view: How it is turned: upside down as in a mirror on the floor, or counter-clockwise by 180 or 90 degrees.
        pictures: How many to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(steps)
    latents = start = starting_noise(pipe, pictures, lab.generator(seed))
    frames = []

    with lab.trace(pipe) as tracer:
        upright, turned, nothing = (encode_prompts(pipe, [text] * pictures) for text in (prompt, turned_prompt, ""))
        for step, t in enumerate(lab.progress(pipe.scheduler.timesteps, "anagram")):
            tracer.step(step, timestep=t)
            one = predict(pipe, latents, t, upright, unconditional=nothing, guidance=guidance)
            there = predict(pipe, turn(latents, view), t, turned, unconditional=nothing, guidance=guidance)
            other = turn_back(there, view)
            alpha_bar = pipe.scheduler.alphas_cumprod[t]
            tracer.record("x0.upright", noise_and_x0(pipe, one, latents, alpha_bar)[1])
            tracer.record("x0.turned", noise_and_x0(pipe, there, turn(latents, view), alpha_bar)[1])
            tracer.record("disagreement", (one - other).abs())
            made = pipe.scheduler.step((one + other) / 2, t, latents)
            frames.append(made.pred_original_sample)
            latents = made.prev_sample
        tracer.step(None)
        drawn = decode(pipe, latents)
        tracer.record_images(torch.cat([drawn, turn(drawn, view)]))

    called = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "latent"}
    control = decode(pipe, pipe([prompt] * pictures, latents=start, **called).images)
    views = {"upright": drawn, "turned": turn(drawn, view), "turned, control": turn(control, view)}
    leads = {}
    for name, seen in views.items():
        errors = prompt_errors(pipe, seen, [prompt, turned_prompt], lab.generator(seed)).mean(dim=0)
        own, other = errors.T if name == "upright" else errors.T.flip(0)
        leads[name] = other / own
        lab.found(f"{name}: share that reads as its own prompt", float((own < other).float().mean()))
    both = (leads["upright"] > 1) & (leads["turned"] > 1)
    lab.found("share of pictures of which both views do", float(both.float().mean()))
    apart = (decode(pipe, turn(latents, view)) - views["turned"]).square().mean()
    lab.found("turned latents decoded against the picture turned, PSNR", float(-10 * apart.log10()), "dB")

    titles = [f"upright: {prompt}", f"turned: {turned_prompt}", f"turned, but drawn for {prompt} alone"]
    figure = picture_grid(
        [list(seen) for seen in views.values()],
        row_titles=[textwrap.fill(title, 24) for title in titles],
        side=1.25,
    )
    for axis, lead in zip(figure.axes, torch.cat(list(leads.values())).tolist(), strict=True):
        colour = "#1a7f37" if lead > 1 else "#cf222e"
        axis.text(0.5, -0.03, f"{lead:.2f}", transform=axis.transAxes, ha="center", va="top", fontsize=8, color=colour)
    lab.figure(
        "views",
        figure,
        "Each column is one picture, upright and turned. The number says how many times larger the denoising error is "
        "under the other prompt; green where the view reads as it should. A picture of the first prompt alone, below, "
        "does not become the second when it is turned.",
    )
    few = [decode(pipe, x0[:4]) for x0 in frames]
    lab.figure(
        "film",
        film([[torch.cat([picture, turn(picture, view)], dim=-2) for picture in expected] for expected in few]),
        "The first pictures as they are expected from step to step, x0: upright above, turned below.",
    )


def turn(x: Tensor, view: View) -> Tensor:
    """Pictures or latents (..., y, x) as they are seen in a view."""
    return x.flip(-2) if view == "flip" else x.rot90(2 if view == "rotate-180" else 1, dims=(-2, -1))


def turn_back(x: Tensor, view: View) -> Tensor:
    """The inverse of `turn`."""
    return x.flip(-2) if view == "flip" else x.rot90(-2 if view == "rotate-180" else -1, dims=(-2, -1))
