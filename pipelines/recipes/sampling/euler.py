"""Euler's method on the probability-flow ODE, the loop written out."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated

import torch
import torch.nn.functional as F
from diffusers import EulerDiscreteScheduler
from torch import Tensor

from ..figures import new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Between

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["euler"]

_PATHS = 40
"""Latent values whose paths are drawn."""

_NEAR = 6.0
"""Noise level from which down they are drawn; above it nothing bends."""


@torch.no_grad()
def euler(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    steps: Annotated[int, Between(2, 1000)] = 25,
    guidance: float = 3.0,
    karras: bool = False,
    seed: int = 0,
) -> None:
    """Euler: straight steps along the probability-flow ODE, in σ.

    With x = x0 + σ ε, noise added and nothing scaled down, denoising is an ordinary differential equation in σ, whose
    direction is the noise itself. A step follows it straight to the next level:

      dx/dσ = (x − D(x; σ)) / σ          x ← x + (σ' − σ) dx/dσ

      Karras, Aittala, Aila, Laine 2022, Elucidating the Design Space of Diffusion-Based Generative Models, eq. 1 and 3;
      algorithm 2 without churn; https://arxiv.org/abs/2206.00364. The same loop is sample_euler of k-diffusion.

    The UNet was trained on x_t = x / sqrt(σ² + 1), which it is therefore given; σ = sqrt((1 − ᾱ) / ᾱ), and D is x0. In
    the browser, sigma falls to zero along the steps, records.unet_input keeps a deviation near 1 while that of the
    latents falls from the largest σ, and records.derivative hardly changes from one step to the next: that is why
    so simple a method is good enough.

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale; compared with diffusers from 1 on, below which it has none.
        karras: Space σ as eq. 5 of the paper has it, close together at the end.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=karras)
    pipe.scheduler.set_timesteps(steps)
    timesteps, sigmas = pipe.scheduler.timesteps, pipe.scheduler.sigmas  # one more σ than t: the last is 0
    start = starting_noise(pipe, 1, lab.generator(seed))
    x = start.float() * pipe.scheduler.init_noise_sigma
    film, path, derivatives = [], [x], []

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
        for step, t in enumerate(lab.progress(timesteps, "euler")):
            sigma, next_sigma = sigmas[step], sigmas[step + 1]
            tracer.step(step, timestep=t, sigma=sigma)
            scaled = (x / (sigma**2 + 1).sqrt()).to(start.dtype)
            prediction = predict(pipe, scaled, t, condition, unconditional=unconditional, guidance=guidance)
            _, denoised = noise_and_x0(pipe, prediction.float(), scaled.float(), 1 / (sigma**2 + 1))
            derivative = (x - denoised) / sigma
            following = x + (next_sigma - sigma) * derivative
            tracer.record_latents(x, model_output=prediction, next_latents=following, x0=denoised)
            tracer.record("unet_input", scaled)
            tracer.record("derivative", derivative)
            film.append((scaled, denoised))
            derivatives.append(derivative)
            x = following
            path.append(x)
        tracer.step(None)
        tracer.record_images(decode(pipe, x))

    if guidance >= 1:  # below, diffusers draws without guidance
        options = {"negative_prompt": "", "guidance_scale": guidance, "output_type": "latent"}
        theirs = pipe(prompt, num_inference_steps=steps, latents=start, **options).images
        lab.found("largest difference to diffusers' latents", float((x - theirs).abs().max()))
    pairs = itertools.pairwise(derivatives)
    turns = torch.stack([F.cosine_similarity(a.flatten(), b.flatten(), dim=0) for a, b in pairs])
    lab.found("cosine of successive directions, smallest", float(turns.min()))
    lab.found("cosine of successive directions, median", float(turns.median()))

    shown = sorted({round(place * (steps - 1) / 7) for place in range(8)})
    figure = picture_grid(
        [[decode(pipe, film[step][row].to(start.dtype))[0] for step in shown] for row in (0, 1)],
        row_titles=["x / sqrt(σ² + 1)", "D(x; σ)"],
        column_titles=[f"σ = {float(sigmas[step]):.3g}" for step in shown],
    )
    lab.figure("film", figure, "What the UNet is given above, and the denoised picture D(x; σ) at which it aims below.")
    lab.figure(
        "paths",
        _paths(torch.stack(path).flatten(1), torch.stack([aim for _, aim in film]).flatten(1), sigmas),
        "Left, the way of some latent values from noise to the picture: nearly straight lines. Right, where each line "
        "would end if it went straight on, which is D(x; σ): it moves while σ is large, too little to be seen on "
        "the left, and stands still below σ = 1.",
    )


def _paths(path: Tensor, aims: Tensor, sigmas: Tensor) -> Figure:
    """Values of x and of D over σ, each coloured by where it ends."""
    figure, axes = new_figure(1, 2, size=(9.2, 3.5))
    chosen = torch.linspace(0, path.shape[1] - 1, _PATHS).round().long()
    ends = path[-1, chosen].argsort().argsort() / (_PATHS - 1)  # ranks: colours in the order of the ends
    near = max(int((sigmas > _NEAR).sum()) - 1, 0)
    for place, rank in zip(chosen.tolist(), ends.tolist(), strict=True):
        style = {"color": (0.1 + 0.75 * rank, 0.35, 0.85 - 0.7 * rank), "linewidth": 1, "markersize": 3}
        axes[0, 0].plot(sigmas[near:], path[near:, place].cpu(), ".-", **style)
        axes[0, 1].plot(sigmas[:-1], aims[:, place].cpu(), ".-", **style)
    axes[0, 0].set(xlabel="σ", ylabel="x", xlim=(0, _NEAR), ylim=(-2 * _NEAR, 2 * _NEAR))
    axes[0, 1].set(xlabel="σ", ylabel="D(x; σ)", xscale="log")
    for axis in axes.flat:
        axis.invert_xaxis()
    return figure
