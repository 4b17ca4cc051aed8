"""Image-to-image translation by a prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import Object, Scene, render
from diffusion_xray.tracer import Tracer
from diffusion_xray.tracer.capture import Capture
from diffusion_xray.tracer.errors import RecipeError

from ..figures import curves, picture_grid, pixels
from ..lab import Lab
from ..latent_diffusion import (
    Condition,
    decode,
    encode_pictures,
    encode_prompts,
    noise_and_x0,
    predict,
    require_unet,
)
from ..option_types import Between, Steps
from .inputs import as_tensor, open_picture, picture_size

__all__ = ["translation"]

_SOURCES = tuple(
    Scene((Object("red", "circle", "", x, y, 12.0),), place, "white")
    for place, x, y in (("left", 15, 32), ("top", 31, 15), ("right", 49, 31), ("bottom", 32, 48))
)
_TARGETS = (("blue", "circle"), ("red", "square"), ("green", "star"))


@torch.no_grad()
def translation(
    lab: Lab,
    *,
    picture: Path | None = None,
    prompt: tuple[str, ...] = (),
    start_step: Annotated[int, Between(0)] = 12,
    steps: Steps = 20,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Translation: a picture of one thing, denoised under another's name.

    A picture is brought to a noise level in the middle of the schedule and denoised from there under a prompt that says
    something else. What the noise has left of it, where something is and how large, is kept; what it has drowned comes
    from the prompt:

      x_t = sqrt(ᾱ_t) x + sqrt(1 − ᾱ_t) ε                                 in the middle, then DDIM:
      x_s = sqrt(ᾱ_s) x0 + sqrt(1 − ᾱ_s) ε̂,   ε̂ = ε̂(x_t) + guidance * (ε̂(x_t, prompt) − ε̂(x_t))

      Meng et al. 2021, SDEdit, section 4.2, https://arxiv.org/abs/2108.01073, under a prompt as in Rombach et al. 2022,
      High-Resolution Image Synthesis with Latent Diffusion Models, https://arxiv.org/abs/2112.10752

    The prompts name a colour and a shape and no place. Where the middle is, the second figure finds out: too early, and
    the place is lost; too late, and the old thing shows through. In the browser look at the maps of the prompt's
    words in the first step: they lie on the old thing.

    Args:
        picture: A picture of your own, its middle square; asks for --prompt.
        prompt: What to make of it; several make a row each.
        start_step: The step to begin with.
        steps: Steps of the whole schedule.
        guidance: Guidance scale.
        seed: Of the noise.
    """
    pipe = require_unet(lab.pipeline())
    if not 0 <= start_step < steps:
        raise RecipeError(f"start step {start_step} is no step of {steps}: give 0 to {steps - 1}")
    sources, prompts = _sources(picture, picture_size(pipe)), _prompts(picture, prompt)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    clean = encode_pictures(pipe, sources).repeat(len(prompts), 1, 1, 1)
    noise = torch.randn(clean.shape, generator=lab.generator(seed)).to(clean)

    with lab.trace(pipe, capture=Capture(attention="unet.**.attn2")) as tracer:
        condition = encode_prompts(pipe, [text for text in prompts for _ in sources])
        unconditional = encode_prompts(pipe, [""] * len(clean))
        noised = pipe.scheduler.add_noise(clean, noise, timesteps[start_step])
        made = _denoise(
            pipe, noised, timesteps[start_step:], condition, unconditional, guidance=guidance, tracer=tracer
        )
        tracer.step(None)
        results = decode(pipe, made)
        tracer.record_images(results)

    rows = results.reshape(len(prompts), *sources.shape)
    figure = picture_grid(
        [list(sources), list(decode(pipe, noised[: len(sources)])), *(list(row) for row in rows)],
        row_titles=["source", f"noised, t = {int(timesteps[start_step])}", *(f"“{text}”" for text in prompts)],
    )
    lab.figure(
        "pictures",
        figure,
        "Above the sources, then all that the model gets to see of them, then what it makes of that under each prompt: "
        "another colour, another shape, or both, in the place of the source.",
    )
    lab.found("distance to the source", float((rows - sources).square().mean().sqrt()))
    if lab.model is not None or picture is not None or prompt:
        return  # nobody to judge it

    kept, obeyed = _judged(results)
    lab.found("position of the source", 100 * float(kept.mean()), "%")
    lab.found("colour and shape of the prompt", 100 * float(obeyed.mean()), "%")
    lab.found("both", 100 * float((kept * obeyed).mean()), "%")
    shares = {}
    for start in lab.progress(range(0, steps, 2), "start steps"):
        noised = pipe.scheduler.add_noise(clean, noise, timesteps[start])
        made = _denoise(pipe, noised, timesteps[start:], condition, unconditional, guidance=guidance)
        shares[int(timesteps[start])] = [100 * float(share.mean()) for share in _judged(decode(pipe, made))]
    lab.found("position of the source, from pure noise", shares[int(timesteps[0])][0], "%")
    positions, prompted = zip(*shares.values(), strict=True)
    figure = curves(
        {
            "position of the source": (list(shares), positions),
            "colour and shape of the prompt": (list(shares), prompted),
        },
        x_label="timestep of the start (to the right: more noise)",
        y_label="share of pictures (%)",
    )
    figure.axes[0].set_ylim(0, 105)
    figure.axes[0].axvline(int(timesteps[start_step]), color="#8c959f", linewidth=1, linestyle=":")
    lab.figure(
        "middle",
        figure,
        "With little noise the pictures do not become what the prompt says, with much they forget where the thing was; "
        "in between there is room for both. Dotted: the start of the pictures and of the trace.",
    )


def _denoise(
    pipe: Any,
    latents: Tensor,
    timesteps: Tensor,
    condition: Condition,
    unconditional: Condition,
    *,
    guidance: float,
    tracer: Tracer | None = None,
) -> Tensor:
    """DDIM over the timesteps that are left."""
    alpha_bars = [*pipe.scheduler.alphas_cumprod[timesteps], pipe.scheduler.final_alpha_cumprod]
    for step, t in enumerate(timesteps):
        if tracer is not None:
            tracer.step(step, timestep=t)
        prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
        noise, x0 = noise_and_x0(pipe, prediction, latents, alpha_bars[step])
        following = alpha_bars[step + 1].sqrt() * x0 + (1 - alpha_bars[step + 1]).sqrt() * noise
        if tracer is not None:
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
        latents = following
    return latents


def _sources(picture: Path | None, size: int) -> Tensor:
    if picture is not None:
        return open_picture(picture, size)[None]
    return torch.stack([as_tensor(render(scene)[0], size) for scene in _SOURCES])


def _prompts(picture: Path | None, prompt: tuple[str, ...]) -> tuple[str, ...]:
    if picture is not None and not prompt:
        raise RecipeError(f"what should {str(picture)!r} become? give --prompt with --picture")
    return prompt or tuple(f"a {colour} {shape} on white" for colour, shape in _TARGETS)


def _judged(results: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the thing, old or new, is where the source has it, and whether it is what the prompt says: 0 or 1."""
    pairs = [(source, colour, shape) for colour, shape in _TARGETS for source in _SOURCES]
    kept, obeyed = [], []
    for picture, (source, colour, shape) in zip(results, pairs, strict=True):
        (thing,) = source.objects
        target = replace(source, objects=(replace(thing, colour=colour, shape=shape),))
        as_source, as_target = judge(pixels(picture), source), judge(pixels(picture), target)
        kept.append(float(as_source.placement or as_target.placement))
        obeyed.append(float(as_target.colour and as_target.shape))
    return torch.tensor(kept), torch.tensor(obeyed)
