"""The forward process: how noise is put into a picture's latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler

from diffusion_xray.tracer.errors import RecipeError

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, require_unet
from ..option_types import Count, Timestep
from .pictures import channels_last, latent_colours, sample_pictures

__all__ = ["forward_noise"]


@torch.no_grad()
def forward_noise(
    lab: Lab,
    *,
    picture: Path | None = None,
    timesteps: tuple[Timestep, ...] = (0, 30, 100, 250, 500, 750, 999),
    draws: Count = 512,
    seed: int = 665,
) -> None:
    """The forward process: noise put into latents, at several t.

    Training shows the model clean latents x0 with noise ε ~ N(0, 1) put in, at any t in one step:

      x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε,  ᾱ_t = Π_{s ≤ t} (1 − β_s)

      Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, eq. 4; https://arxiv.org/abs/2006.11239

    So the variance is ᾱ_t Var(x0) + 1 − ᾱ_t, and the signal-to-noise ratio ᾱ_t mean(x0²) / (1 − ᾱ_t). Both are measured
    on what the scheduler's `add_noise` makes of many draws of ε, and laid beside the formula: the variance hardly
    changes, while the ratio falls through orders of magnitude.

    The same ε is shown at each t, so that the picture can be seen to sink in it. In the trace each t is a step: latents
    are x_t, and records.decoded is what the VAE makes of them.

    Args:
        picture: A picture to take; a scene of the shapes world by default.
        timesteps: The t, of the training schedule.
        draws: How often noise is drawn for the measurement.
        seed: Of the scene and the noise.
    """
    pipe = require_unet(lab.pipeline())
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    alpha_bars = scheduler.alphas_cumprod
    if wrong := [t for t in timesteps if not 0 <= t < len(alpha_bars)]:
        raise RecipeError(f"timestep {wrong[0]} is outside of the training schedule, 0 to {len(alpha_bars) - 1}")
    x0 = encode_pictures(pipe, sample_pictures(pipe, picture, count=1, seed=seed))
    generator = lab.generator(seed)
    noise = torch.randn(x0.shape, generator=generator).to(x0)
    many = torch.randn((draws, *x0.shape[1:]), generator=generator).to(x0)
    shown, differences, variances, ratios = [], [], [], []

    with lab.trace(pipe) as tracer:
        for step, t in enumerate(lab.progress(timesteps, "forward noise")):
            alpha_bar = alpha_bars[t]
            tracer.step(step, timestep=t, sigma=float((1 / alpha_bar - 1).sqrt()))
            x_t = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
            decoded = decode(pipe, x_t)
            tracer.record_latents(x_t, x0=x0)
            tracer.record("noise", noise)
            tracer.record("decoded", decoded)
            shown.append((x_t, decoded[0]))
            differences.append(float((scheduler.add_noise(x0, noise, torch.tensor([t])) - x_t).abs().max()))
            samples = scheduler.add_noise(x0, many, torch.full((draws,), t)).double()
            amplitude = (samples * x0).sum() / x0.double().square().sum() / draws  # of x0 in the samples
            variances.append(float(samples.var()))
            ratios.append(float(amplitude**2 * x0.double().square().mean() / (samples - amplitude * x0).var()))

    power, variance = float(x0.double().square().mean()), float(x0.double().var())
    every = alpha_bars.double().numpy()
    at = every[list(timesteps)]
    in_decibels = 10 * np.log10(np.array(ratios) / (at * power / (1 - at)))
    lab.found("largest difference to add_noise", max(differences))
    lab.found("variance, largest relative error", np.abs(variances / (at * variance + 1 - at) - 1).max())
    lab.found("signal-to-noise ratio, largest error", np.abs(in_decibels).max(), "dB")
    for t, ratio in zip(timesteps, ratios, strict=True):
        lab.found(f"signal-to-noise ratio at t = {t}", 10 * np.log10(ratio), "dB")

    colours = latent_colours(pipe)
    lab.figure(
        "pictures",
        picture_grid(
            [[colours(channels_last(x_t))[0] for x_t, _ in shown], [decoded for _, decoded in shown]],
            row_titles=["x_t,\nas colours", "x_t, decoded"],
            column_titles=[f"t = {t}\nᾱ = {share:.2g}" for t, share in zip(timesteps, at, strict=True)],
        ),
        "A picture's latents sink in noise, the same at each t. Decoded, it can hardly be made out where half of the "
        "variance (ᾱ) is signal still.",
    )
    figure, axes = new_figure(1, 2, size=(9.0, 3.4))
    schedule = np.arange(len(every))
    lines = {
        "signal": (schedule, every * variance),
        "noise": (schedule, 1 - every),
        "both": (schedule, every * variance + 1 - every),
    }
    curves(lines, x_label="timestep t", y_label="variance", title="variance of x_t", axes=axes[0, 0])
    lines = {"formula": (schedule, 10 * np.log10(every * power / (1 - every)))}
    curves(lines, x_label="timestep t", y_label="dB", title="signal-to-noise ratio of x_t", axes=axes[0, 1])
    for axis, values in zip(axes[0], (variances, 10 * np.log10(ratios)), strict=True):
        axis.plot(timesteps, values, "o", color="#24292f", label="measured")
        axis.legend(fontsize=8)
    lab.figure(
        "measured",
        figure,
        "What the scheduler's add_noise makes lies on the formula: signal is exchanged for noise, and the ratio of the "
        "two falls by many orders of magnitude, 10 dB each.",
    )
