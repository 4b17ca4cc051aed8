"""What the noise that DDPM adds at every step is for."""

from __future__ import annotations

from typing import Annotated

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_prompts, noise_and_x0, predict, require_unet, starting_noise
from ..option_types import Between, Count

__all__ = ["stabilising_noise"]

_RUNS = {"with z": "#0969da", "without z": "#cf222e"}
"""What they are called, and the colour of each."""

_FLAT = 0.03
"""A picture whose pixels deviate less from their mean than this, of 1, shows nothing."""

_SHOWN = 10


@torch.no_grad()
def stabilising_noise(
    lab: Lab, *, prompt: str = "", pictures: Count = 20, steps: Annotated[int, Between(2, 1000)] = 50, seed: int = 0
) -> None:
    """Stabilising noise: DDPM with and without the noise z it adds back.

    A DDPM step (dxray run ddpm --help) goes to the mean of all x_s that could have led to x_t, and then adds σ z:

      x_s = μ(x_t, x0) + σ z     μ = sqrt(ᾱ_s) (1 − α) / (1 − ᾱ_t) x0 + sqrt(α) (1 − ᾱ_s) / (1 − ᾱ_t) x_t

      Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, eq. 7 and 11; https://arxiv.org/abs/2006.11239

    A mean varies less than what it is the mean of. With z, the variance of x_t is at every t what the model was trained
    on:

      Var(x_t) = ᾱ_t Var(x0) + 1 − ᾱ_t

    Without z each step loses the variance σ². Soon x_t is smooth, the UNet finds nothing in it that noise at this t
    would hide, and its smoothness becomes the picture: nearly always one flat colour. Compare the statistics of the
    latents over the steps in the two traces; records.mean and records.variance have them for each picture.

    Args:
        prompt: What to draw; by default nothing, which leaves most to be decided by the noise.
        pictures: How many.
        steps: Denoising steps.
        seed: Of all noise.
    """
    pipe = require_unet(lab.pipeline())
    settings = {"variance_type": "fixed_small", "clip_sample": False, "thresholding": False}
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, **settings)
    pipe.scheduler.set_timesteps(steps)
    timesteps = pipe.scheduler.timesteps
    levels = torch.cat([pipe.scheduler.alphas_cumprod[timesteps], torch.ones(1)])  # ᾱ of each step, then no noise
    drawn, means, variances = {}, {}, {}

    for run in _RUNS:
        generator = lab.generator(seed)
        latents = starting_noise(pipe, pictures, generator)
        mean_of, variance_of = [_mean(latents)], [_variance(latents)]
        with lab.trace(pipe, run.replace(" ", "-"), capture="statistics") as tracer:
            condition = encode_prompts(pipe, [prompt] * pictures)
            for step, t in enumerate(lab.progress(timesteps, run)):
                tracer.step(step, timestep=t)
                alpha_bar_t, alpha_bar_s = levels[step], levels[step + 1]
                alpha = alpha_bar_t / alpha_bar_s
                sigma = ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)).sqrt()
                prediction = predict(pipe, latents, t, condition)
                _, x0 = noise_and_x0(pipe, prediction, latents, alpha_bar_t)
                of_x0 = alpha_bar_s.sqrt() * (1 - alpha) / (1 - alpha_bar_t)
                of_x_t = alpha.sqrt() * (1 - alpha_bar_s) / (1 - alpha_bar_t)
                following = of_x0 * x0 + of_x_t * latents
                if run == "with z":
                    z = torch.randn(latents.shape, generator=generator, dtype=latents.dtype).to(latents.device)
                    following = following + sigma * z
                tracer.record_latents(latents, model_output=prediction, next_latents=following, x0=x0)
                tracer.record("mean", mean_of[-1])
                tracer.record("variance", variance_of[-1])
                latents = following
                mean_of.append(_mean(latents))
                variance_of.append(_variance(latents))
            tracer.step(None)
            drawn[run] = decode(pipe, latents)
            tracer.record_images(drawn[run])
        means[run], variances[run] = torch.stack(mean_of).cpu(), torch.stack(variance_of).cpu()

    theory = levels * variances["with z"][-1].mean() + 1 - levels
    for run in _RUNS:
        away = (variances[run].mean(1) / theory).log().abs().exp().max()
        flat = (drawn[run].std((2, 3)).mean(1) < _FLAT).float().mean()
        lab.found(f"least variance of x_t on the way, {run}", float(variances[run].mean(1).min()))
        lab.found(f"variance of x_t is off by a factor of at most, {run}", float(away))
        lab.found(f"variance of the final latents, {run}", float(variances[run][-1].mean()))
        wandering = means[run].diff(n=2, dim=0).square().mean().sqrt()  # what is no smooth path
        lab.found(f"wandering of the mean of x_t, {run}", float(wandering))
        lab.found(f"pictures that are flat, {run}", 100 * float(flat), "%")

    figure, axes = new_figure(1, 2, size=(9.4, 3.5))
    places = range(steps + 1)
    lines = {run: (places, variances[run].mean(1)) for run in _RUNS} | {"ᾱ Var(x0) + 1 − ᾱ": (places, theory)}
    curves(lines, x_label="step", y_label="variance within a picture", title="Variance of x_t", axes=axes[0, 0])
    axes[0, 0].get_lines()[-1].set(linestyle="--", color="#24292f")
    axes[0, 0].legend(fontsize=8, frameon=False)
    for run, colour in _RUNS.items():
        low, high = (variances[run].quantile(share, dim=1) for share in (0.1, 0.9))
        axes[0, 0].fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axes[0, 1].plot(places, means[run], color=colour, linewidth=0.7, alpha=0.7)
    axes[0, 1].set(xlabel="step", ylabel="mean of each picture's latents")
    axes[0, 1].set_title("Mean of x_t", fontsize=10)
    lab.figure(
        "collapse",
        figure,
        f"The latents of {pictures} pictures. With z (blue) their variance is that of the training data at every step, "
        "dashed (shaded: the middle 80 % of pictures); without (red) it is lost within ten steps. The means stop "
        "wandering and run together into the few that flat pictures have.",
    )
    rows = [list(drawn[run][:_SHOWN]) for run in _RUNS]
    numbers = [f"{place + 1}" for place in range(len(rows[0]))]
    lab.figure(
        "pictures",
        picture_grid(rows, row_titles=list(_RUNS), column_titles=numbers, side=0.95),
        "The same starting noise with and without z: pictures, and flat colour.",
    )


def _mean(latents: Tensor) -> Tensor:
    """Of all latent values of each picture."""
    return latents.float().mean((1, 2, 3))


def _variance(latents: Tensor) -> Tensor:
    """Of each picture's latents over the places, the mean over channels."""
    return latents.float().var((2, 3)).mean(1)
