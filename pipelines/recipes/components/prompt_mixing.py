"""Between two prompts."""

from __future__ import annotations

from typing import Annotated

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import curves, picture_grid
from ..lab import Lab
from ..latent_diffusion import Condition, decode, encode_prompts, predict, require_unet, starting_noise
from ..option_types import Between, Steps

__all__ = ["prompt_mixing"]


@torch.no_grad()
def prompt_mixing(
    lab: Lab,
    *,
    prompt: str = "a big red circle at the left on white",
    other: str = "a big blue square at the right on white",
    ratios: Annotated[int, Between(2)] = 9,
    steps: Steps = 20,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Two prompts mixed at a ratio, from one starting noise.

    All that the UNet is told of a prompt is the output e of the text encoder, so prompts can be mixed there, each token
    with the one at its place:

      e(r) = (1 − r) e(prompt) + r e(other),  r from 0 to 1

      That such a way leads through pictures between the two was shown for embeddings of whole sentences by Ramesh et
      al. 2022, Hierarchical Text-Conditional Image Generation with CLIP Latents, section 3.2;
      https://arxiv.org/abs/2204.06125

    All ratios start from the same noise and run as one batch. The way is even, the pictures are not: over a wide range
    the nearer prompt wins outright, and colour, shape and place change in a few ratios in the middle, each at its own.

    In the trace: records.mixed_embedding, and maps of attention at each ratio, one a picture of the batch.

    Args:
        prompt: At ratio 0.
        other: At ratio 1.
        ratios: How many ratios, 0 and 1 among them.
        steps: Denoising steps.
        guidance: Guidance scale.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(steps)
    shares = torch.linspace(0, 1, ratios)
    ends = encode_prompts(pipe, [prompt, other])
    mixed = Condition(_mix(ends.embeddings, shares), {name: _mix(it, shares) for name, it in ends.added.items()})
    unconditional = encode_prompts(pipe, [""] * ratios)
    latents = starting_noise(pipe, 1, lab.generator(seed)).repeat(ratios, 1, 1, 1)

    with lab.trace(pipe) as tracer:
        tracer.record("mixed_embedding", mixed.embeddings)
        for t in lab.progress(pipe.scheduler.timesteps, "prompt mixing"):
            prediction = predict(pipe, latents, t, mixed, unconditional=unconditional, guidance=guidance)
            latents = pipe.scheduler.step(prediction, t, latents).prev_sample
        pictures = decode(pipe, latents)
        tracer.record_images(pictures)

    away = (latents - latents[:1]).flatten(1).norm(dim=1).cpu()
    left = (latents - latents[-1:]).flatten(1).norm(dim=1).cpu()
    place = away / (away + left)  # 0 at the picture of the one, 1 at that of the other
    lab.found("distance of the two pictures' latents", float(away[-1]))
    lab.found("least step of the picture's place with the ratio", float(place.diff().min()))
    lab.found("largest step", float(place.diff().max()))
    lab.found("place at the first ratio after 0", float(place[1]))
    lab.figure(
        "pictures",
        picture_grid([list(pictures)], column_titles=[f"r = {float(share):.2g}" for share in shares]),
        f"From “{prompt}” to “{other}”, the prompts' embeddings mixed: each end holds its ground, and colour, shape "
        "and place change in the middle.",
    )
    lab.figure(
        "place",
        curves(
            {"the pictures": (shares, place), "the embeddings": (shares, shares)},
            x_label="ratio r",
            y_label="place between the two, 0 to 1",
        ),
        "Where a picture's latents lie between those of the two prompts, as the share of the distances to them. The "
        "embeddings go evenly; the pictures stay, and then change over.",
    )


def _mix(ends: Tensor, shares: Tensor) -> Tensor:
    """The first of two, what lies between, and the second, (ratio, ...)."""
    return torch.stack([torch.lerp(ends[0], ends[1], float(share)) for share in shares])
