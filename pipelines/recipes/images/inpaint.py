"""Inpainting by a mask at every step."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor

from diffusion_xray.pipelines.shapes.judge import judge
from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE, Object, Scene, render
from diffusion_xray.tracer.capture import Capture
from diffusion_xray.tracer.errors import RecipeError

from ..figures import film, picture_grid, pixels
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, encode_prompts, noise_and_x0, predict, require_unet
from ..option_types import Count, Steps
from .inputs import as_tensor, open_picture, picture_size

__all__ = ["inpaint"]

_CIRCLE = Object("red", "circle", "", 17, 31, 12.0)
_BEFORE = Scene((_CIRCLE, Object("blue", "square", "", 47, 33, 12.0)), "left of", "white")
_AFTER = tuple(
    Scene((_CIRCLE, Object(colour, shape, "", 47, 33, 12.0)), "left of", "white")
    for colour, shape in (("green", "triangle"), ("yellow", "star"), ("purple", "ring"), ("cyan", "circle"))
)
_BOX = (32, 16, 64, 52)
"""What is painted anew of `_BEFORE`: left, top, right, bottom."""


@torch.no_grad()
def inpaint(
    lab: Lab,
    *,
    picture: Path | None = None,
    mask: Path | None = None,
    prompt: tuple[str, ...] = (),
    steps: Steps = 25,
    repeats: Count = 1,
    guidance: float = 3.0,
    pictures: Count = 2,
    seed: int = 0,
) -> None:
    """Inpainting: what is known is put back at every step.

    The model knows nothing of inpainting. Before each step the latents outside of the mask are replaced by those of the
    original with the noise of that step, so that what grows inside must fit to them:

      x_t = m ⊙ (sqrt(ᾱ_t) original + sqrt(1 − ᾱ_t) ε) + (1 − m) ⊙ x_t            m = 1 where the picture is kept
      x_s = sqrt(ᾱ_s) x0 + sqrt(1 − ᾱ_s) ε̂                                        DDIM

      Lugmayr et al. 2022, RePaint: Inpainting using Denoising Diffusion Probabilistic Models, eq. 8,
      https://arxiv.org/abs/2201.09865; replacement is of Song et al. 2021, Score-Based Generative Modeling through
      Stochastic Differential Equations, appendix I.2, https://arxiv.org/abs/2011.13456

    Here ε is one and the same at all steps, as the DDIM path has it. In the trace records.known is the noised original
    and records.difference how far the latents are from it where the picture is kept: 0 in every step. x0 shows
    the new thing forming beside what is kept.

    Args:
        picture: A picture of your own, its middle square; asks for --mask and --prompt.
        mask: White where it is painted anew.
        prompt: What the whole picture shows afterwards; several are made side by side.
        steps: Denoising steps.
        repeats: How often each step is made; further times begin with its noise added again, which lets the new part
            settle (RePaint's resampling).
        guidance: Guidance scale.
        pictures: How many are made for each prompt.
        seed: Of the noise.
    """
    pipe = require_unet(lab.pipeline())
    original, painted = _original(picture, mask, picture_size(pipe))
    if (picture is not None or mask is not None) and not prompt:
        raise RecipeError("what does the whole picture show afterwards? give --prompt with --picture and --mask")
    texts = prompt or tuple(scene.caption() for scene in _AFTER)
    prompts = [text for text in texts for _ in range(pictures)]
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    alpha_bars = [*pipe.scheduler.alphas_cumprod[timesteps], pipe.scheduler.final_alpha_cumprod]
    schedule = [i for i in range(steps) for _ in range(repeats)]
    frames = []

    with lab.trace(pipe, capture=Capture(attention="unet.**.attn2")) as tracer:
        condition, unconditional = encode_prompts(pipe, prompts), encode_prompts(pipe, [""] * len(prompts))
        encoded = encode_pictures(pipe, original[None])
        keep = 1 - F.adaptive_max_pool2d(painted[None], encoded.shape[-2:]).to(encoded)
        generator = lab.generator(seed)
        noise = torch.randn(len(prompts), *encoded.shape[1:], generator=generator).to(encoded)
        tracer.record("original", encoded)
        tracer.record("noise", noise)
        tracer.record("keep", keep)
        latents = noise
        for step, i in enumerate(lab.progress(schedule, "inpaint")):
            t, alpha_bar, alpha_bar_s = timesteps[i], alpha_bars[i], alpha_bars[i + 1]
            tracer.step(step, timestep=t)
            known = alpha_bar.sqrt() * encoded + (1 - alpha_bar).sqrt() * noise
            latents = keep * known + (1 - keep) * latents
            prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
            predicted, x0 = noise_and_x0(pipe, prediction, latents, alpha_bar)
            following = alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s).sqrt() * predicted
            tracer.record("known", known)
            tracer.record("difference", keep * (latents - known))
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
            frames.append((latents[:1], x0[:1]))
            if schedule[step + 1 : step + 2] == [i]:  # once more, from the noise of this step
                alpha = alpha_bar / alpha_bar_s
                z = torch.randn(following.shape, generator=generator).to(following)
                following = alpha.sqrt() * following + (1 - alpha).sqrt() * z
            latents = following
        tracer.step(None)
        latents = keep * encoded + (1 - keep) * latents
        results = decode(pipe, latents)
        tracer.record_images(results)

    kept = F.interpolate(keep, size=original.shape[-2:])[0].cpu().bool().expand_as(original)
    reconstructed = decode(pipe, encoded)
    unmasked = pipe(
        prompts, num_inference_steps=steps, guidance_scale=guidance, latents=noise, output_type="latent"
    ).images
    for name, made in (
        ("of the results", results),
        ("of the autoencoder alone", reconstructed),
        ("without the mask", decode(pipe, unmasked)),
    ):
        error = (made - original)[:, kept].square().mean()
        lab.found(f"kept part: PSNR {name}", float(-10 * error.log10()), "dB")
    if lab.model is None and mask is None and not prompt:
        scenes = [scene for scene in _AFTER for _ in range(pictures)]
        verdicts = [judge(pixels(result), scene) for result, scene in zip(results, scenes, strict=True)]
        lab.found("right by the judge", 100 * sum(verdict.everything for verdict in verdicts) / len(verdicts), "%")

    columns = [results[row * pictures] for row in range(len(texts))]
    figure = picture_grid(
        [
            [original, torch.where(kept, original, 0.75), *columns],
            [reconstructed[0], torch.where(kept, 1.0, 0.0), *((it - original).abs().mean(0) for it in columns)],
        ],
        column_titles=["original", "kept", *(textwrap.fill(text, 18) for text in texts)],
        side=1.3,
    )
    lab.figure(
        "results",
        figure,
        "The same place filled under each prompt; below, the difference to the original: nothing where the picture is "
        "kept but what the autoencoder costs. Below the original what the autoencoder makes of it, beside it the mask.",
    )
    _draw_steps(lab, pipe, frames, [f"t = {int(timesteps[i])}" for i in schedule], texts[0])


def _draw_steps(lab: Lab, pipe: Any, frames: list[tuple[Tensor, Tensor]], titles: list[str], text: str) -> None:
    """The first picture on its way: x_t and x0 of some steps side by side, and of all as a film."""
    pairs = [(decode(pipe, x)[0], decode(pipe, x0)[0]) for x, x0 in frames]
    every = max(len(frames) // 8, 1)
    figure = picture_grid(
        [[x for x, _ in pairs[::every]], [x0 for _, x0 in pairs[::every]]],
        row_titles=["x_t", "x0"],
        column_titles=titles[::every],
    )
    lab.figure("steps", figure, f"“{text}”: x_t with the kept part put back, and below it what the model expects, x0.")
    lab.figure("film", film([*pairs, *[pairs[-1]] * 6]), "The same as a film: x_t on the left, x0 on the right.")


def _original(picture: Path | None, mask: Path | None, size: int) -> tuple[Tensor, Tensor]:
    """The original (3, size, size), and 1 where it is painted anew (1, size, size)."""
    if picture is not None and mask is None:
        raise RecipeError(f"what of {str(picture)!r} is painted anew? give --mask, a picture that is white there")
    original = as_tensor(render(_BEFORE)[0], size) if picture is None else open_picture(picture, size)
    if mask is not None:
        return original, (open_picture(mask, size).mean(0, keepdim=True) > 0.5).float()
    painted = torch.zeros(1, size, size)
    left, top, right, bottom = (edge * size // IMAGE_SIZE for edge in _BOX)
    painted[:, top:bottom, left:right] = 1
    return original, painted
