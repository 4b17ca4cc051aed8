"""Between two starting noises."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import curves, film, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, predict, require_unet, starting_noise
from ..option_types import Between, Steps

__all__ = ["latent_interpolation"]


@torch.no_grad()
def latent_interpolation(
    lab: Lab,
    *,
    prompt: str = "a red star left of a blue ring on white",
    frames: Annotated[int, Between(2)] = 9,
    steps: Steps = 20,
    guidance: float = 3.0,
    seed: int = 1,
) -> None:
    """From one starting noise to another, straight and on the sphere.

    Two ways from the noise a to the noise b, r from 0 to 1; each point is denoised with the same prompt:

      linear     (1 − r) a + r b
      spherical  (sin((1 − r) θ) a + sin(r θ) b) / sin(θ),  θ the angle between a and b

      Shoemake 1985, Animating Rotation with Quaternion Curves, section 3.3; of latents White 2016, Sampling Generative
      Networks, section 2.1; https://arxiv.org/abs/1609.04468

    Normal noise of d numbers lies close to the sphere of radius sqrt(d), and two of them are nearly at right angles. So
    the middle of the straight way has the norm sqrt(d / 2), which is noise weaker than any that the model was trained
    on; the spherical way stays on the shell.

    What comes of weak noise depends on the model. Compare the two traces, step by step: the norm of the latents, and
    how much contrast is left in the end.

    Args:
        prompt: Of all pictures.
        frames: Pictures on each way.
        steps: Denoising steps.
        guidance: Guidance scale.
        seed: Of the two noises.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    condition, unconditional = encode_prompts(pipe, [prompt] * frames), encode_prompts(pipe, [""] * frames)
    a, b = starting_noise(pipe, 2, lab.generator(seed))
    shares = torch.linspace(0, 1, frames).tolist()
    ways = {
        "linear": torch.stack([(1 - r) * a + r * b for r in shares]),
        "spherical": torch.stack([_spherical(a, b, r) for r in shares]),
    }
    finished: dict[str, Tensor] = {}
    pictures: dict[str, Tensor] = {}

    for way, starts in ways.items():
        pipe.scheduler.set_timesteps(steps)
        latents = starts
        with lab.trace(pipe, way) as tracer:
            for t in lab.progress(pipe.scheduler.timesteps, way):
                prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
                latents = pipe.scheduler.step(prediction, t, latents).prev_sample
            finished[way], pictures[way] = latents, decode(pipe, latents)
            tracer.record_images(pictures[way])

    shell = math.sqrt(a.numel())
    norms = {way: latents.float().flatten(1).norm(dim=1).cpu() for way, latents in ways.items()}
    lab.found("the shell: sqrt(d)", shell)
    for way, lengths in norms.items():
        lab.found(f"{way}: least norm over sqrt(d)", float(lengths.min()) / shell)
    for way, latents in finished.items():
        spread = latents.float().flatten(1).std(1)
        contrast = float(spread[frames // 2] / spread[[0, -1]].mean())
        lab.found(f"{way}: contrast of the final latents in the middle, over that at the ends", contrast)
    titles = [f"r = {r:.2g}" for r in shares]
    lab.figure(
        "pictures",
        picture_grid([list(row) for row in pictures.values()], row_titles=list(pictures), column_titles=titles),
        "Every noise on the way makes a picture of the prompt, on either way: things move and change their size from "
        "one end to the other. Colours are a little fainter in the middle of the straight way.",
    )
    both_ways = [*range(frames), *range(frames - 2, 0, -1)]
    frames_of_film = [[row[place] for row in pictures.values()] for place in both_ways]
    lab.figure("film", film(frames_of_film), "There and back: left the straight way, right the one on the sphere.")
    lines = {way: (shares, lengths) for way, lengths in norms.items()}
    lines |= {"sqrt(d)": (shares, [shell] * frames), "sqrt(d / 2)": (shares, [shell / math.sqrt(2)] * frames)}
    lab.figure(
        "norm",
        curves(lines, x_label="ratio r", y_label="norm of the starting noise"),
        "The straight way leaves the shell on which noise lies, down to sqrt(d / 2); the other stays on it.",
    )


def _spherical(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point at a share of the angle from `a` to `b`; norms are interpolated with it."""
    first, second = a.float().flatten(), b.float().flatten()
    angle = math.acos(float(first @ second / (first.norm() * second.norm())))
    return (math.sin((1 - share) * angle) * a + math.sin(share * angle) * b) / math.sin(angle)
