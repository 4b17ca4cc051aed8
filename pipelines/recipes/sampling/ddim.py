"""DDIM, the loop written out."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

from ..figures import picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise

__all__ = ["ddim"]


@torch.no_grad()
def ddim(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    steps: int = 25,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """DDIM: from noise to a picture in n deterministic steps.

    Each step reads the prediction as noise ε and clean latents x0, and goes straight to a lower noise level s < t:

      x_s = sqrt(ᾱ_s) x0 + sqrt(1 − ᾱ_s) ε

      Song, Meng, Ermon 2021, Denoising Diffusion Implicit Models, eq. 12 with σ = 0; https://arxiv.org/abs/2010.02502

    No noise is added on the way: the starting noise alone decides the picture. Look at x0 in the browser: where things
    are is settled within the first steps, what exactly they look like at the end.

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale.
        seed: Of the starting noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    alpha_bars = pipe.scheduler.alphas_cumprod
    stride = len(alpha_bars) // steps
    condition, unconditional = encode_prompts(pipe, prompt), encode_prompts(pipe, "")
    latents = start = starting_noise(pipe, 1, lab.generator(seed))
    film = []

    with lab.trace(pipe) as tracer:
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

    theirs = pipe(
        prompt, num_inference_steps=steps, guidance_scale=guidance, latents=start, output_type="latent"
    ).images
    lab.found("largest difference to diffusers' latents", float((latents - theirs).abs().max()))
    shown = film[:: max(len(film) // 8, 1)]
    figure = picture_grid(
        [[decode(pipe, x)[0] for x, _ in shown], [decode(pipe, x0)[0] for _, x0 in shown]],
        row_titles=["x_t", "x0"],
        column_titles=[f"t = {int(t)}" for t in timesteps[:: max(len(film) // 8, 1)]],
    )
    lab.figure("film", figure, "Decoded latents x_t above, the picture the model expects, x0, below.")
