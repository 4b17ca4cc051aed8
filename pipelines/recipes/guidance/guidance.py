"""Classifier-free guidance, both branches looked at."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import coloured, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict_both, require_unet, starting_noise
from ..option_types import Between

__all__ = ["guidance"]

_FAR = 0.2
"""RGB distance from the background's colour from which on a pixel of a picture of shapes belongs to an object."""


@torch.no_grad()
def guidance(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    negative_prompt: str = "",
    steps: Annotated[int, Between(2, 1000)] = 25,
    scale: float = 3.0,
    seed: int = 0,
) -> None:
    """Classifier-free guidance: both branches, and where they differ.

    The UNet is asked twice at every step, in one batch: u without and c with the prompt. What the prompt changes is
    taken further than the model itself would:

      ε = u + w (c − u)

      Ho, Salimans 2022, Classifier-Free Diffusion Guidance, eq. 6 (there 1 + w is our w); https://arxiv.org/abs/2207.12598

    The tracer knows the halves of the batch: in the browser every tensor of the UNet has an unconditional and a
    conditional entry. records.difference is c − u and records.difference_map its size at each place: early it is
    everywhere, because the prompt names the background too; later it is on the objects, and on their outlines last.

    Args:
        prompt: What to draw.
        negative_prompt: What stands in the other branch.
        steps: Denoising steps.
        scale: Guidance scale w.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps, alpha_bars = pipe.scheduler.timesteps, pipe.scheduler.alphas_cumprod
    latents = starting_noise(pipe, 1, lab.generator(seed))
    film, maps = [], []

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, negative_prompt)
        for t in lab.progress(timesteps, "guidance"):
            without, conditioned = predict_both(pipe, latents, t, condition, unconditional)
            difference = conditioned - without
            guided = without + scale * difference
            following = pipe.scheduler.step(guided, t, latents).prev_sample
            expected = [
                noise_and_x0(pipe, output, latents, alpha_bars[t])[1] for output in (without, conditioned, guided)
            ]
            maps.append(difference.float().norm(dim=1)[0])  # over channels
            tracer.record("unconditional", without)
            tracer.record("conditional", conditioned)
            tracer.record("difference", difference)
            tracer.record("difference_map", maps[-1])
            tracer.record("x0.unconditional", expected[0])
            tracer.record("x0.conditional", expected[1])
            film.append(expected)
            latents = following
        tracer.record_images(decode(pipe, latents))

    sizes = torch.stack([found.square().mean().sqrt() for found in maps]).cpu()
    lab.found("largest difference of the branches is at t", float(timesteps[int(sizes.argmax())]))
    lab.found("mean difference in the first half of the steps", float(sizes[: steps // 2].mean()))
    lab.found("mean difference in the second half of the steps", float(sizes[steps // 2 :].mean()))
    final = decode(pipe, latents)[0]
    if lab.model is None:
        objects = _objects(final, maps[0].shape)
        inside = [float(found.cpu()[objects].mean() / found.cpu()[~objects].mean()) for found in maps]
        lab.found("difference on objects over that on the background, first step", inside[0])
        late = sum(inside[steps // 2 :]) / len(inside[steps // 2 :])
        lab.found("difference on objects over that on the background, second half", late)

    shown = sorted({round(place * (steps - 1) / 7) for place in range(8)})
    pictures = [[decode(pipe, film[step][row])[0] for step in shown] for row in (0, 1, 2)]
    drawn = [coloured(maps[step], low=0.0) for step in shown]
    figure = picture_grid(
        [pictures[0], pictures[1], drawn, pictures[2]],
        row_titles=["x0 of u:\nno prompt", "x0 of c:\nthe prompt", "|c − u|", f"x0 of\nu + {scale:g} (c − u)"],
        column_titles=[f"t = {int(timesteps[step])}" for step in shown],
    )
    for axis, step in zip(figure.axes[2 * len(shown) :], shown, strict=False):
        text = f"up to {float(maps[step].max()):.2f}"
        axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=7)
    lab.figure(
        "branches",
        figure,
        "What the model expects without and with the prompt at the same x_t, where the two differ (each map on its own "
        "scale), and what guidance makes of it.",
    )


def _objects(picture: Tensor, size: torch.Size) -> Tensor:
    """Latent positions that are on an object rather than on the background, whose colour the corner has."""
    away = (picture - picture[:, :1, :1]).norm(dim=0) > _FAR
    return F.adaptive_avg_pool2d(away.float()[None], (size[0], size[1]))[0] > 0.5
