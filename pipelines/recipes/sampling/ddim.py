"""DDIM, the loop written out."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from ..figures import picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Steps

__all__ = ["ddim"]


@torch.no_grad()
def ddim(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    steps: Steps = 25,
    guidance: float = 3.0,
    seed: int = 0,
    fewer: tuple[Steps, ...] = (1, 2, 4, 8, 16),
) -> None:
    """DDIM: from noise to a picture in n deterministic steps.

    Each step reads the prediction as noise ε and clean latents x0, and goes straight to a lower noise level s < t:

      x_s = sqrt(ᾱ_s) x0 + sqrt(1 − ᾱ_s) ε

      Song, Meng, Ermon 2021, Denoising Diffusion Implicit Models, eq. 12 with σ = 0; https://arxiv.org/abs/2010.02502

    No noise is added on the way: the starting noise alone decides the picture. Look at x0 in the browser: where things
    are is settled within the first steps, what exactly they look like at the end. The second figure draws the same
    noise with other numbers of steps: the same picture, only coarser (section 5.2 of the paper).

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale; compared with diffusers from 1 on, below which it has none.
        seed: Of the starting noise.
        fewer: Numbers of steps to draw the same noise with.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    alpha_bars = pipe.scheduler.alphas_cumprod
    stride = len(alpha_bars) // steps
    latents = start = starting_noise(pipe, 1, lab.generator(seed))
    film = []

    with lab.trace(pipe) as tracer:
        condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
        for step, t in enumerate(lab.progress(timesteps, "ddim")):
            tracer.step(step, timestep=t)
            s = t - stride
            alpha_bar_s = alpha_bars[s] if s >= 0 else pipe.scheduler.final_alpha_cumprod
            prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
            noise, x0 = noise_and_x0(pipe, prediction, latents, alpha_bars[t])
            following = alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s).sqrt() * noise
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
            film.append((latents, x0))
            latents = following
        tracer.step(None)
        tracer.record_images(decode(pipe, latents))

    if guidance >= 1:  # below, diffusers draws without guidance
        options = {"guidance_scale": guidance, "output_type": "latent"}
        theirs = pipe(prompt, num_inference_steps=steps, latents=start, **options).images
        lab.found("largest difference to diffusers' latents", float((latents - theirs).abs().max()))
    quarter, half = (float((film[place][1] - latents).norm() / latents.norm()) for place in (steps // 4, steps // 2))
    lab.found("x0 differs from the final latents after a quarter of the steps", 100 * quarter, "%")
    lab.found("x0 differs from the final latents after half of the steps", 100 * half, "%")

    shown = sorted({round(place * (steps - 1) / 7) for place in range(8)})
    figure = picture_grid(
        [[decode(pipe, film[step][row])[0] for step in shown] for row in (0, 1)],
        row_titles=["x_t, the latents", "x0, expected"],
        column_titles=[f"t = {int(timesteps[step])}" for step in shown],
    )
    lab.figure(
        "film",
        figure,
        "Decoded latents x_t above, the picture the model expects, x0, below. What the picture will be is settled "
        "while x_t is still noise.",
    )
    counts = [*fewer, steps]
    drawn = []
    for count in counts:
        pipe.scheduler.set_timesteps(count)
        x = start
        for t in pipe.scheduler.timesteps:
            prediction = predict(pipe, x, t, condition, unconditional=unconditional, guidance=guidance)
            x = pipe.scheduler.step(prediction, t, x).prev_sample
        drawn.append(x)
    distances = [float((found - drawn[-1]).norm() / drawn[-1].norm()) for found in drawn]
    for count, distance in zip(fewer, distances, strict=False):
        lab.found(f"latents of {count} steps differ from those of {steps}", 100 * distance, "%")
    figure = picture_grid(
        [[decode(pipe, found)[0] for found in drawn]],
        row_titles=["same noise"],
        column_titles=[f"{count} step{'s' if count > 1 else ''}" for count in counts],
    )
    lab.figure("steps", figure, "The same starting noise in fewer steps: a coarser version of the same picture.")
