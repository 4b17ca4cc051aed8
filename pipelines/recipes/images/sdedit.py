"""SDEdit: add noise to a picture, and denoise it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import Object, Scene
from diffusion_xray.tracer.errors import RecipeError

from ..figures import curves, new_figure, picture_grid, pixels
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
from ..option_types import Between, Count, Steps
from .inputs import drawing, open_picture, photograph, picture_size

__all__ = ["sdedit"]

_BALL = Scene((Object("red", "circle", "", 19, 40, 13),), "", "gray")
_STAR = Scene((Object("blue", "star", "", 42, 23, 15),), "", "white")


@torch.no_grad()
def sdedit(
    lab: Lab,
    *,
    picture: Path | None = None,
    prompt: str | None = None,
    i_start: tuple[Annotated[int, Between(0)], ...] = (0, 3, 5, 7, 10, 13, 16, 18, 20),
    steps: Steps = 25,
    guidance: float = 3.0,
    pictures: Count = 4,
    seed: int = 0,
) -> None:
    """SDEdit: a photograph or a sketch, redrawn by way of noise.

    A picture is brought to the noise level of step i_start of the schedule and denoised from there. Its large forms
    outlive the noise, its small ones do not: those the model draws anew.

      x_t = sqrt(ᾱ_t) x + sqrt(1 − ᾱ_t) z          at the timestep t of i_start, and from there step by step
      x_s = sqrt(ᾱ_s) β / (1 − ᾱ_t) x0 + sqrt(α) (1 − ᾱ_s) / (1 − ᾱ_t) x_t + sqrt(β (1 − ᾱ_s) / (1 − ᾱ_t)) z
      with α = ᾱ_t / ᾱ_s, β = 1 − α

      Meng et al. 2021, SDEdit: Guided Image Synthesis and Editing with Stochastic Differential Equations, algorithm 1,
      https://arxiv.org/abs/2108.01073; the steps are those of Ho et al. 2020, Denoising Diffusion Probabilistic Models,
      eq. 6 and 7, https://arxiv.org/abs/2006.11239; the timesteps are the quadratic ones of Song, Meng, Ermon 2021,
      Denoising Diffusion Implicit Models, appendix D.2, https://arxiv.org/abs/2010.02502

    Little noise keeps the picture with all that is foreign to the model; much noise makes it one of the model's own,
    and forgets it. The figures show both, and the numbers: the distance to the input, the root of the mean squared
    difference of pixels; and the surprise of the model, its mean squared error in telling the result from noise.

    The trace holds the runs one after another, from the first i_start to the last. There records.departure is x0 minus
    the input: its standard deviation tells how far a run has strayed.

    Args:
        picture: A picture to use in place of the two; its middle square.
        prompt: What it should become.
        i_start: Steps to begin with; 0 is nothing but noise.
        steps: Steps of the whole schedule.
        guidance: Guidance scale.
        pictures: How many are made of each input with each i_start, for the numbers.
        seed: Of the noise.
    """
    pipe = require_unet(lab.pipeline())
    inputs, prompts = _inputs(picture, prompt, picture_size(pipe))
    if out_of_range := [start for start in i_start if not 0 <= start < steps]:
        raise RecipeError(f"i_start {out_of_range[0]} is no step of {steps}: give 0 to {steps - 1}")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    train_steps = pipe.scheduler.config.num_train_timesteps
    timesteps = [int((train_steps - 1) * (1 - i / steps) ** 2) for i in range(steps)]
    alpha_bars = [*pipe.scheduler.alphas_cumprod[timesteps], pipe.scheduler.final_alpha_cumprod]
    clean = encode_pictures(pipe, inputs).repeat_interleave(pictures, 0)
    results: list[Tensor] = []

    with lab.trace(pipe, capture="statistics") as tracer:
        condition = encode_prompts(pipe, [text for text in prompts for _ in range(pictures)])
        unconditional = encode_prompts(pipe, [""] * len(clean))
        count = itertools.count()
        for start in lab.progress(i_start, "i_start"):
            generator = lab.generator(seed)
            z = _normal(clean, generator)
            latents = alpha_bars[start].sqrt() * clean + (1 - alpha_bars[start]).sqrt() * z
            for t, alpha_bar, alpha_bar_s in zip(
                timesteps[start:], alpha_bars[start:], alpha_bars[start + 1 :], strict=False
            ):
                tracer.step(next(count), timestep=t)
                prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
                _, x0 = noise_and_x0(pipe, prediction, latents, alpha_bar)
                alpha = alpha_bar / alpha_bar_s
                beta = 1 - alpha
                following = (
                    alpha_bar_s.sqrt() * beta / (1 - alpha_bar) * x0
                    + alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar) * latents
                    + (beta * (1 - alpha_bar_s) / (1 - alpha_bar)).sqrt() * _normal(latents, generator)
                )
                tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
                tracer.record("departure", x0 - clean)
                latents = following
            tracer.step(None)
            results.append(decode(pipe, latents))
        tracer.record_images(results[-1])

    made = torch.stack(results).reshape(
        len(i_start), len(inputs), pictures, *inputs.shape[1:]
    )  # (start, input, picture, channel, y, x)
    surprises = [_surprise(pipe, result, condition, lab.generator(seed)) for result in results]
    measures = {
        "distance to the input": (made - inputs[:, None]).square().mean((3, 4, 5)).sqrt(),
        "surprise of the model": torch.stack(surprises).reshape(made.shape[:3]),
    }
    if lab.model is None and picture is None and prompt is None:
        measures["right by the judge (%)"] = 100 * torch.stack([_right(result, pictures) for result in results])
    for place, start in enumerate(i_start):
        for name, values in measures.items():
            bare, _, unit = name.rstrip(")").partition(" (")
            lab.found(f"i_start {start}: {bare}", float(values[place].mean()), unit)
    reconstructed = decode(pipe, clean[::pictures])
    lab.found("autoencoder alone: distance to the input", float((reconstructed - inputs).square().mean().sqrt()))

    names = ("photo-like", "hand-drawn") if picture is None else (picture.name,)
    figure = picture_grid(
        [[*made[:, row, 0], inputs[row]] for row in range(len(inputs))],
        row_titles=[f"{name}\n“{text}”" for name, text in zip(names, prompts, strict=True)],
        column_titles=[*(f"i_start {start}\nt = {timesteps[start]}" for start in i_start), "input"],
    )
    lab.figure(
        "pictures",
        figure,
        "From left to right ever less noise. First the model draws what the prompt says wherever it likes, then where "
        "the input has it, and at last it leaves the input nearly as it is.",
    )
    figure, axes = new_figure(1, len(measures), size=(3.0 * len(measures), 2.7))
    for axis, (name, values) in zip(axes[0], measures.items(), strict=True):
        lines = {names[row]: (i_start, values[:, row].mean(-1)) for row in range(len(inputs))}
        logarithmic = name.startswith("surprise")
        curves(lines, x_label="i_start (to the right: less noise)", y_label=name, logarithmic=logarithmic, axes=axis)
    lab.figure(
        "trade-off",
        figure,
        "Faithful or realistic: with less noise the result is nearer to the input, but it surprises the model more, "
        "and shows less of what the prompt says. Means over several pictures.",
    )


def _inputs(picture: Path | None, prompt: str | None, size: int) -> tuple[Tensor, list[str]]:
    """Pictures (input, 3, size, size) in [0, 1], and what each should become."""
    if picture is None:
        texts = [scene.caption() if prompt is None else prompt for scene in (_BALL, _STAR)]
        return torch.stack([photograph(size), drawing(size)]), texts
    if prompt is None:
        raise RecipeError(f"what should {str(picture)!r} become? give --prompt with --picture")
    return open_picture(picture, size)[None], [prompt]


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like)


def _surprise(pipe: Any, made: Tensor, condition: Condition, generator: torch.Generator) -> Tensor:
    """How badly the model tells each picture from noise: its mean squared error, over a few noise levels.

    These are the terms of the bound on the likelihood that it was trained by (Ho et al. 2020, eq. 14).
    """
    clean = encode_pictures(pipe, made)
    errors = []
    for t in (100, 200, 300, 400):
        alpha_bar = pipe.scheduler.alphas_cumprod[t]
        z = _normal(clean, generator)
        latents = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * z
        noise, _ = noise_and_x0(pipe, predict(pipe, latents, t, condition), latents, alpha_bar)
        errors.append((noise - z).float().square().mean((1, 2, 3)))
    mean: Tensor = torch.stack(errors).mean(0).cpu()
    return mean


def _right(made: Tensor, pictures: int) -> Tensor:
    """Whether the judge finds what the prompt says: 0 or 1, (input, picture)."""
    scenes = [scene for scene in (_BALL, _STAR) for _ in range(pictures)]
    verdicts = [judge(pixels(picture), scene) for picture, scene in zip(made, scenes, strict=True)]
    return torch.tensor([float(verdict.everything) for verdict in verdicts]).reshape(2, pictures)
