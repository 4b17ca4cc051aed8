"""Blur, one step of denoising, and many: what each makes of a noisy picture."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from scipy.ndimage import gaussian_filter
from torch import Tensor

from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE, render, sample_scene

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import (
    decode,
    encode_pictures,
    encode_prompts,
    noise_and_x0,
    predict,
    require_unet,
    starting_noise,
)
from ..option_types import Between, Count

__all__ = ["denoising_compared"]

_BLURS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Deviations of the Gaussian kernels that are tried, in pixels of a picture of 64."""


@torch.no_grad()
def denoising_compared(
    lab: Lab,
    *,
    noised: tuple[Annotated[int, Between(1, 999)], ...] = (250, 500, 750),
    pictures: Count = 16,
    stride: Annotated[int, Between(1, 999)] = 10,
    prompt: str = "",
    seed: int = 0,
) -> None:
    """Denoising compared: Gaussian blur, one step, many steps.

    Rendered pictures are noised in latent space,

      x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε

    and restored in three ways: by the Gaussian blur of the noisy picture that turns out best; by ONE call of the UNet,
    whose x0 is E[x0 | x_t]; and by the ancestral steps of DDPM down every `stride`-th timestep (Ho, Jain, Abbeel 2020,
    algorithm 2; https://arxiv.org/abs/2006.11239).

    The mean over all pictures that x_t could come from has the least mean square error there is (Efron 2011, Tweedie's
    Formula and Selection Bias), so one step beats blur, and every other method, in PSNR; where t is large it is a blur
    of many pictures itself. Ancestral steps draw ONE of those pictures. It is independent of the true one given x_t and
    has the same distribution, so its squared error is twice as large,

      E |x̃ − x0|² = 2 E |E[x0 | x_t] − x0|²,    3.01 dB less

    (Blau, Michaeli 2018, The Perception-Distortion Tradeoff; https://arxiv.org/abs/1711.06077), and it is as
    sharp as a real picture at every t. (Coarse strides stay nearer to the mean, and so does what the VAE hides.)
    records.clean, records.noisy and records.one_step are in each trace.

    Args:
        noised: Timesteps to noise pictures to.
        pictures: How many.
        stride: Between the timesteps of the many steps.
        prompt: What the model is told about the pictures; nothing by default.
        seed: Of pictures and noise.
    """
    pipe = require_unet(lab.pipeline())
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    alpha_bars = pipe.scheduler.alphas_cumprod
    size = pipe.unet.config.sample_size * 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    clean = _rendered(pictures, seed, size=size)
    latents = encode_pictures(pipe, clean)
    edges = _sharpness(decode(pipe, latents))  # as steep as the VAE can draw them
    generator = lab.generator(seed)
    ways = ("Gaussian blur", "one step", "many steps")
    psnr: dict[str, list[float]] = {way: [] for way in ways}
    sharpness: dict[str, list[float]] = {way: [] for way in ways}
    ratios, rows, labels = [], [], []

    for start in noised:
        alpha_bar = alpha_bars[start]
        noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * starting_noise(pipe, pictures, generator)
        timesteps = list(range(start, 0, -stride))
        levels = [*(alpha_bars[t] for t in timesteps), torch.tensor(1.0)]
        x = noisy
        with lab.trace(pipe, f"t{start}", capture="statistics") as tracer:
            condition = encode_prompts(pipe, [prompt] * pictures)
            tracer.record("clean", latents)
            tracer.record("noisy", noisy)
            for step, t in enumerate(lab.progress(timesteps, f"t = {start}")):
                tracer.step(step, timestep=t)
                alpha_bar_t, alpha_bar_s = levels[step], levels[step + 1]
                alpha = alpha_bar_t / alpha_bar_s
                sigma = ((1 - alpha_bar_s) / (1 - alpha_bar_t) * (1 - alpha)).sqrt()
                prediction = predict(pipe, x, t, condition)
                noise, x0 = noise_and_x0(pipe, prediction, x, alpha_bar_t)
                if step == 0:
                    one_step = x0
                    tracer.record("one_step", one_step)
                mean = (x - (1 - alpha) / (1 - alpha_bar_t).sqrt() * noise) / alpha.sqrt()
                following = mean + sigma * starting_noise(pipe, pictures, generator)
                tracer.record_latents(x, model_output=prediction, next_latents=following, x0=x0)
                x = following
            tracer.step(None)
            tracer.record_images(decode(pipe, x))

        spoilt = decode(pipe, noisy)
        blurred, width = _best_blur(spoilt, clean)
        restored = dict(zip(ways, (blurred, decode(pipe, one_step), decode(pipe, x)), strict=True))
        for way, found in restored.items():
            psnr[way].append(_psnr(found, clean))
            sharpness[way].append(100 * _sharpness(found) / edges)
            lab.found(f"PSNR at t = {start}, {way}", psnr[way][-1], "dB")
            lab.found(f"sharpness at t = {start}, {way}", sharpness[way][-1], "%")
        ratios.append(float((x - latents).square().mean() / (one_step - latents).square().mean()))
        lab.found(f"squared error of many steps over one, latents, t = {start}", ratios[-1])
        rows.append([clean[0], spoilt[0], *(found[0] for found in restored.values())])
        dB = [_psnr(found[:1], clean[:1]) for found in (spoilt, *restored.values())]
        labels.append(["", *(f"{value:.1f} dB" for value in dB)])
        labels[-1][2] += f", {width:g} px"

    figure = picture_grid(
        rows,
        row_titles=[f"t = {start}" for start in noised],
        column_titles=["clean", "noisy", *ways],
        side=1.5,
    )
    for axis, text in zip(figure.axes, (text for row in labels for text in row), strict=True):
        axis.text(0.5, -0.03, text, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    lab.figure(
        "restored",
        figure,
        "One picture, its PSNR below each attempt. One step is nearest to the truth and, from much noise, blurred; "
        "many steps are sharp and sure of something that need not have been there.",
    )
    figure, axes = new_figure(1, 2, size=(9.0, 3.3))
    lines = {way: (noised, values) for way, values in psnr.items()}
    curves(lines, x_label="noised to t", y_label="PSNR, dB", title="Distance to the truth", axes=axes[0, 0])
    curves(
        {way: (noised, values) for way, values in sharpness.items()},
        x_label="noised to t",
        y_label="steepness of edges, % of clean",
        title="Sharpness",
        axes=axes[0, 1],
    )
    axes[0, 1].axhline(100, color="#8c959f", linestyle=":", linewidth=1)
    for axis in axes.flat:
        axis.set_xticks(noised)
    lab.figure(
        "ways",
        figure,
        f"Over {pictures} pictures: one step is nearest to the truth at every t, and its edges are smeared the "
        "more the larger t is; many draw them as sharp as ever, in places that need not be right.",
    )


def _rendered(count: int, seed: int, *, size: int) -> Tensor:
    """Pictures of the embedded model's world (count, 3, size, size) in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = np.stack([render(sample_scene(rng))[0] for _ in range(count)])
    pictures = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255
    return pictures if size == IMAGE_SIZE else F.interpolate(pictures, size=(size, size), mode="bicubic").clamp(0, 1)


def _best_blur(noisy: Tensor, clean: Tensor) -> tuple[Tensor, float]:
    """The Gaussian blur of all pictures that comes closest to the clean ones, and its deviation in pixels."""
    scale = noisy.shape[-1] / IMAGE_SIZE
    tried = {
        width * scale: torch.from_numpy(gaussian_filter(noisy.numpy(), (0, 0, width * scale, width * scale)))
        for width in _BLURS
    }
    best = max(tried, key=lambda width: _psnr(tried[width], clean))
    return tried[best], best


def _psnr(found: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio over all pixels, dB, for values in [0, 1]."""
    return -10 * math.log10(float((found - clean).square().mean()))


def _sharpness(pictures: Tensor) -> float:
    """How steep edges are: the difference of neighbouring pixels, averaged with itself as the weight.

    An edge that is smeared over twice as many pixels is half as sharp; how many edges there are does not matter.
    """
    steps = torch.cat([pictures.diff(dim=2).flatten(), pictures.diff(dim=3).flatten()])
    return float(steps.square().sum() / steps.abs().sum())
