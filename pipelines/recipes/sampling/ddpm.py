"""DDPM's ancestral sampling, the loop written out."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler

from diffusion_xray.tracer.capture import Capture, Level

from ..figures import picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Count, Steps

__all__ = ["ddpm"]

_MOST = 100
"""Steps up to which queries and keys of words are kept too; of more, the trace has statistics and latents."""


@torch.no_grad()
def ddpm(
    lab: Lab,
    *,
    prompt: str = "a red circle left of a blue square on white",
    steps: Steps = 50,
    guidance: float = 3.0,
    pictures: Count = 3,
    seed: int = 0,
) -> None:
    """DDPM: ancestral sampling, fresh noise at every step.

    Each step removes the noise that is predicted and adds a little new noise z, standard normal but in the last step:

      x_s = 1 / sqrt(α) (x_t − (1 − α) / sqrt(1 − ᾱ_t) ε) + σ z      α = ᾱ_t / ᾱ_s,   σ² = (1 − ᾱ_s) / (1 − ᾱ_t) (1 − α)

      Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, algorithm 2; https://arxiv.org/abs/2006.11239

    The paper takes all 1000 steps, s = t − 1 (--steps 1000). Fewer jump over some, with the α between the levels that
    are left (Nichol & Dhariwal 2021, eq. 19; https://arxiv.org/abs/2102.09672). All pictures of the run begin with the
    SAME noise: they agree at first and part on the way, because z decides too. In the browser compare x0 of the batch's
    pictures step by step; records.z and records.mean are the two parts of a step.

    Args:
        prompt: What to draw.
        steps: Denoising steps.
        guidance: Guidance scale; compared with diffusers from 1 on, below which it has none.
        pictures: How many to draw from the same starting noise.
        seed: Of the starting noise and of z.
    """
    pipe = require_unet(lab.pipeline())
    settings = {"variance_type": "fixed_small", "clip_sample": False, "thresholding": False}
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, **settings)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    levels = torch.cat([pipe.scheduler.alphas_cumprod[timesteps], torch.ones(1)])  # ᾱ of each step, then no noise
    generator = lab.generator(seed)
    latents = start = starting_noise(pipe, 1, generator).repeat(pictures, 1, 1, 1)
    film = []

    words: Level | Capture = Capture(attention="unet.**.attn2") if steps <= _MOST else "statistics"
    with lab.trace(pipe, capture=words) as tracer:
        condition, unconditional = (encode_prompts(pipe, [text] * pictures) for text in (prompt, ""))
        for step, t in enumerate(lab.progress(timesteps, "ddpm")):
            tracer.step(step, timestep=t)
            alpha_bar_t, alpha_bar_s = levels[step], levels[step + 1]
            alpha = alpha_bar_t / alpha_bar_s
            sigma = ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)).sqrt()
            prediction = predict(pipe, latents, t, condition, unconditional=unconditional, guidance=guidance)
            noise, x0 = noise_and_x0(pipe, prediction, latents, alpha_bar_t)
            mean = (latents - (1 - alpha) / (1 - alpha_bar_t).sqrt() * noise) / alpha.sqrt()
            z = torch.randn(latents.shape, generator=generator, dtype=latents.dtype).to(latents.device)
            following = mean + sigma * z
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
            tracer.record("mean", mean)
            tracer.record("z", z)
            film.append((latents, x0))
            latents = following
        tracer.step(None)
        tracer.record_images(decode(pipe, latents))

    if guidance >= 1:  # below, diffusers draws without guidance
        again = lab.generator(seed)
        starting_noise(pipe, 1, again)  # the pipeline then draws the same z
        options = {"negative_prompt": "", "guidance_scale": guidance, "output_type": "latent"}
        options |= {"num_images_per_prompt": pictures, "latents": start, "generator": again}
        theirs = pipe(prompt, num_inference_steps=steps, **options).images
        lab.found("largest difference to diffusers' latents", float((latents - theirs).abs().max()))
    if pictures > 1:
        spread = torch.stack([x0.std(0).mean() for _, x0 in film]).cpu()
        lab.found("deviation of x0 between pictures, first step", float(spread[0]))
        lab.found("deviation of x0 between pictures, last step", float(spread[-1]))

    shown = sorted({round(place * (steps - 1) / 7) for place in range(8)})
    expected = [decode(pipe, film[step][1]) for step in shown]
    figure = picture_grid(
        [[decode(pipe, film[step][0][:1])[0] for step in shown]]
        + [[frame[number] for frame in expected] for number in range(pictures)],
        row_titles=["x_t of the first", *(f"x0 of picture {number + 1}" for number in range(pictures))],
        column_titles=[f"t = {int(timesteps[step])}" for step in shown],
    )
    lab.figure(
        "film",
        figure,
        "All pictures begin with the same noise, and the first column of x0 is the same. The noise z of each step "
        "makes different pictures of the same prompt.",
    )
