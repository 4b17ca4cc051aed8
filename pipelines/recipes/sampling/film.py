"""A film of the loop: x_t and the picture it expects, side by side."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from PIL import Image, ImageDraw, ImageFont

from ..figures import curves, new_figure, picture_grid
from ..figures import film as frames_of
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, predict, require_unet, starting_noise
from ..option_types import Steps

__all__ = ["film"]

_SIDE = 256
"""Height of a picture in the film, in pixels, where the model's are not larger."""

_STAYS = 8
"""Frames for which the last one stays."""


@torch.no_grad()
def film(
    lab: Lab,
    *,
    prompt: str = "a yellow star above a blue ring on black",
    steps: Steps = 30,
    guidance: float = 3.0,
    scheduler: Literal["ddim", "ddpm"] = "ddim",
    seed: int = 0,
) -> None:
    """Film of x_t and the predicted x0, side by side.

    At every step the prediction says what is noise in x_t and what is picture:

      x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε

      Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, eq. 4; https://arxiv.org/abs/2006.11239

    x0 is the mean of all pictures that x_t could come from: blurred while they are many, sharp when one is left. So x_t
    goes from noise to picture, and x0 from blur to the same picture. The loop calls the scheduler's own step, which the
    tracer records by itself; in the browser play the steps of latents and x0.

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        scheduler: Deterministic steps (ddim), or with fresh noise in each (ddpm).
        seed: Of all noise.
    """
    pipe = require_unet(lab.pipeline())
    kind = {"ddim": DDIMScheduler, "ddpm": DDPMScheduler}[scheduler]
    pipe.scheduler = kind.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    generator = lab.generator(seed)
    latents = starting_noise(pipe, 1, generator)
    shots = []

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
        for t in lab.progress(timesteps, "film"):
            prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
            made = pipe.scheduler.step(prediction, t, latents, generator=generator)
            shots.append((latents, made.pred_original_sample))
            latents = made.prev_sample
        tracer.record_images(decode(pipe, latents))

    final = latents
    alpha_bars = pipe.scheduler.alphas_cumprod[timesteps]
    noise = [float((x - a.sqrt() * final).square().mean().sqrt()) for (x, _), a in zip(shots, alpha_bars, strict=True)]
    away = [float((x0 - final).square().mean().sqrt()) for _, x0 in shots]
    lab.found("noise in x_t at the start", noise[0])
    lab.found("noise in x_t at the last step", noise[-1])
    lab.found("distance of x0 to the final latents at the start", away[0])
    lab.found("distance of x0 to the final latents at the last step", away[-1])

    pairs = [[decode(pipe, x)[0], decode(pipe, x0)[0]] for x, x0 in shots]
    pairs.append([decode(pipe, final)[0]] * 2)
    labels = [*(f"t = {int(t)}" for t in timesteps), "done"]
    frames = frames_of(pairs, scale=max(1, _SIDE // pairs[0][0].shape[-1]))
    titled = [_titled(frame, label) for frame, label in zip(frames, labels, strict=True)]
    lab.figure(
        "film",
        [*titled, *titled[-1:] * _STAYS],
        "Left the latents x_t, decoded as they are; right x0, the picture expected of them. They meet at the end.",
    )
    shown = sorted({round(place * (len(pairs) - 1) / 9) for place in range(10)})
    strip = picture_grid(
        [[pairs[place][row] for place in shown] for row in (0, 1)],
        row_titles=["x_t", "x0"],
        column_titles=[labels[place] for place in shown],
        side=0.95,
    )
    lab.figure("strip", strip, "Ten frames of the film: x_t above, x0 below.")
    figure, axes = new_figure(size=(5.6, 3.3))
    lines = {
        "noise in x_t": (timesteps, noise),
        "sqrt(1 − ᾱ_t)": (timesteps, (1 - alpha_bars).sqrt()),
        "x0 to the final picture": (timesteps, away),
    }
    curves(lines, x_label="t", y_label="root mean square, latents", axes=axes[0, 0])
    axes[0, 0].get_lines()[1].set_linestyle("--")
    axes[0, 0].invert_xaxis()
    lab.figure(
        "distances",
        figure,
        "Noise left in x_t, measured against the final latents and as the schedule plans it, and what x0 still lacks.",
    )


def _titled(frame: Image.Image, label: str) -> Image.Image:
    """A frame with a line of text above its two pictures."""
    height = 22
    titled = Image.new("RGB", (frame.width, frame.height + height), "white")
    titled.paste(frame, (0, height))
    pen, font = ImageDraw.Draw(titled), ImageFont.load_default(14)
    for text, x in (("x_t", 0.25), (label, 0.5), ("x0", 0.75)):
        pen.text((frame.width * x, height / 2), text, fill="#24292f", font=font, anchor="mm")
    return titled
