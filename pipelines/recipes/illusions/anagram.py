"""Visual anagram: a picture that shows something else when it is turned over."""

from __future__ import annotations

import textwrap
from typing import Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import film, picture_grid, pixels
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from .scores import prompt_errors

__all__ = ["anagram"]

View = Literal["flip", "rotate-180", "rotate-90"]


@torch.no_grad()
def anagram(
    lab: Lab,
    *,
    prompt: str = "a big blue star at the center on white",
    turned_prompt: str = "a big blue triangle at the center on white",
    view: View = "flip",
    pictures: int = 8,
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Visual anagram: one picture, two things, turned over.

    In each step the UNet is asked twice: what of x_t is noise if it shows `prompt`, and what of the turned x_t is noise
    if that shows `turned_prompt`. The second answer is turned back, and the step is made with the mean of both:

      ε = ½ (ε(x_t, prompt) + v⁻¹ ε(v x_t, turned prompt))        v: the view, a flip or a rotation

      Geng, Park, Owens 2023, Visual Anagrams, section 3; https://arxiv.org/abs/2311.17919

    They work with a model of pixels, because a view must be linear and leave noise as it is. In latents that holds for
    the noise, but an autoencoder's code of a turned picture is not quite the turned code of the picture; how far the two
    are apart is measured.

    All pictures are shown, whether they are right or not. To tell, each view is encoded again and the denoiser is asked
    which prompt explains it better. Look at records.x0 in the browser: upright and turned are what the two answers
    expect, each seen its own way up; records.disagreement is where they differ, and it fades while they settle.

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
            seen = predict(pipe, _turn(latents, view), t, turned, unconditional=nothing, guidance=guidance)
            other = _turn_back(seen, view)
            alpha_bar = pipe.scheduler.alphas_cumprod[t]
            tracer.record("x0.upright", noise_and_x0(pipe, one, latents, alpha_bar)[1])
            tracer.record("x0.turned", noise_and_x0(pipe, seen, _turn(latents, view), alpha_bar)[1])
            tracer.record("disagreement", (one - other).abs())
            made = pipe.scheduler.step((one + other) / 2, t, latents)
            frames.append(made.pred_original_sample)
            latents = made.prev_sample
        tracer.step(None)
        drawn = decode(pipe, latents)
        tracer.record_images(torch.cat([drawn, _turn(drawn, view)]))

    alone = pipe([prompt] * pictures, num_inference_steps=steps, guidance_scale=guidance, latents=start)
    control = torch.stack([torch.from_numpy(pixels(picture)).movedim(-1, 0) / 255 for picture in alone.images])
    views = {"upright": drawn, "turned": _turn(drawn, view), "turned, control": _turn(control, view)}
    leads = {}
    for name, shown in views.items():
        errors = prompt_errors(pipe, shown, [prompt, turned_prompt], lab.generator(seed)).mean(dim=0)
        own, other = errors.T if name == "upright" else errors.T.flip(0)
        leads[name] = other / own
        lab.found(f"{name}: share that reads as its own prompt", float((own < other).float().mean()))
    both = (leads["upright"] > 1) & (leads["turned"] > 1)
    lab.found("share of pictures of which both views do", float(both.float().mean()))
    lab.found("turned latents decoded against the picture turned", _psnr(decode(pipe, _turn(latents, view)), views["turned"]), "dB")

    titles = [f"upright:\n{prompt}", f"turned:\n{turned_prompt}", f"turned, drawn for\n{prompt}\nalone"]
    figure = picture_grid(
        [list(shown) for shown in views.values()],
        row_titles=[textwrap.fill(title, 24) for title in titles],
        side=1.25,
    )
    for axis, lead in zip(figure.axes, torch.cat(list(leads.values())), strict=True):
        right = lead > 1
        axis.text(0.5, -0.03, f"{lead:.2f}", transform=axis.transAxes, ha="center", va="top", fontsize=8, color="#1a7f37" if right else "#cf222e")
    lab.figure("views", figure, "...")
    shown = [decode(pipe, x0[:4]) for x0 in frames]
    lab.figure(
        "film",
        film([[torch.cat([picture, _turn(picture, view)], dim=-2) for picture in pictures] for pictures in shown]),
        "The picture expected, x0, from step to step: upright above, turned below.",
    )


def _turn(x: Tensor, view: View) -> Tensor:
    return x.flip(-2) if view == "flip" else x.rot90(2 if view == "rotate-180" else 1, dims=(-2, -1))


def _turn_back(x: Tensor, view: View) -> Tensor:
    return x.flip(-2) if view == "flip" else x.rot90(-2 if view == "rotate-180" else -1, dims=(-2, -1))


def _psnr(one: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in [0, 1], dB."""
    return float(-10 * (one - other).square().mean().log10())
