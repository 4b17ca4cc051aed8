"""More blue: guidance by a loss on the decoded picture."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..figures import curves, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Count, Steps

__all__ = ["more_blue"]


@torch.no_grad()
def more_blue(
    lab: Lab,
    *,
    prompt: str = "a red circle on gray",
    strengths: tuple[float, ...] = (0.0, 400.0, 800.0, 1200.0, 1600.0, 2400.0),
    every: Count = 2,
    steps: Steps = 25,
    guidance: float = 3.0,
    seed: int = 0,
) -> None:
    """Guidance by a loss: the gradient of "more blue" moves the latents.

    The clean latents that the model expects are decoded, and a loss says how far the picture is from being blue. Every
    few steps its gradient with respect to x_t, back through the decoder and the UNet, moves the outcome of the step:

      L = mean |blue(D(x0(x_t))) − 0.9|        x_s ← x_s − strength ᾱ_t ∇L

      Whitaker 2022, Stable Diffusion Deep Dive, and unit 2 of the diffusion course of Hugging Face, where the gradient
      goes through the UNet as well; https://github.com/huggingface/diffusion-models-class

    The weight ᾱ_t is ours: in nearly pure noise the gradient asks for another layout rather than for another colour.
    Nothing is trained, and any loss that can be differentiated would do.

    The batch in the trace is the sweep: one entry for each strength, all from the same noise, the first without any
    guidance. Look at records.gradient, the pull on every latent; at records.picture, what the loss is taken of; and at
    records.loss.

    Args:
        prompt: What to draw; something with little blue in it.
        strengths: How far the gradient moves the latents; 0 is not at all, and what is far depends on the model.
        every: Steps from one move to the next.
        steps: Denoising steps.
        guidance: Guidance scale of the prompt.
        seed: Of the starting noise, the same for every strength.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    alpha_bars = pipe.scheduler.alphas_cumprod
    stride = len(alpha_bars) // steps
    count = len(strengths)
    latents = starting_noise(pipe, 1, lab.generator(seed)).repeat(count, 1, 1, 1)
    strength = torch.tensor(strengths).view(-1, 1, 1, 1).to(latents)
    pulls, losses = [], []

    with lab.trace(pipe) as tracer:
        condition, unconditional = (encode_prompts(pipe, [text] * count) for text in (prompt, ""))
        for step, t in enumerate(lab.progress(timesteps, "more blue")):
            tracer.step(step, timestep=t)
            s = t - stride
            alpha_bar_s = alpha_bars[s] if s >= 0 else pipe.scheduler.final_alpha_cumprod
            guided = step % every == 0
            with torch.set_grad_enabled(guided):
                x = latents.detach().requires_grad_(guided)
                prediction = predict(pipe, x, t, condition, unconditional=unconditional, guidance=guidance)
                noise, x0 = noise_and_x0(pipe, prediction, x, alpha_bars[t])
                picture = pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample / 2 + 0.5
                loss = (picture[:, 2] - 0.9).abs().mean(dim=(1, 2))
            following = alpha_bar_s.sqrt() * x0 + (1 - alpha_bar_s).sqrt() * noise
            if guided:
                (gradient,) = torch.autograd.grad(loss, x, torch.ones_like(loss))
                following = following - strength * alpha_bars[t] * gradient
                tracer.record("gradient", gradient)
                pulls.append((int(t), picture[-1], gradient[-1]))
            tracer.record("picture", picture)
            tracer.record("loss", loss)
            tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
            losses.append(loss.detach().float().cpu())
            latents = following
        tracer.step(None)
        drawn = decode(pipe, latents)
        tracer.record_images(drawn)
    blue = drawn[:, 2].mean(dim=(1, 2))
    for value, mean in zip(strengths, blue, strict=True):
        lab.found(f"mean of the blue channel, strength {value:g}", float(mean))
    sweep = picture_grid(
        [list(drawn), list(drawn[:, 2])],
        row_titles=["picture", "its blue channel"],
        column_titles=[f"strength {value:g}\nblue {mean:.2f}" for value, mean in zip(strengths, blue, strict=True)],
        side=1.35,
    )
    lab.figure(
        "sweep",
        sweep,
        "Guidance from none to strong, from the same noise: the blue channel rises until little of the prompt is left.",
    )
    chosen = pulls[:: -(-len(pulls) // 8)]
    course = picture_grid(
        [[picture.detach() for _, picture, _ in chosen], [_shades(gradient) for _, _, gradient in chosen]],
        row_titles=["picture expected", "gradient, norm\nover channels"],
        column_titles=[f"t = {t}" for t, _, _ in chosen],
        side=1.35,
    )
    lab.figure(
        "gradient",
        course,
        f"What the loss sees at strength {strengths[-1]:g}, and where it pulls, each map on a scale of its own.",
    )
    lines = {
        f"strength {value:g}": (timesteps, course)
        for value, course in zip(strengths, torch.stack(losses, 1), strict=True)
    }
    figure = curves(lines, x_label="timestep", y_label="mean |blue − 0.9| of the picture expected")
    figure.axes[0].invert_xaxis()
    lab.figure("loss", figure, "The loss falls the faster, the stronger the guidance is.")


def _shades(gradient: Tensor) -> Tensor:
    """The norm over channels as a picture, (y, x) in [0, 1]."""
    norm = gradient.float().norm(dim=0)
    shades: Tensor = norm / norm.max()
    return shades
