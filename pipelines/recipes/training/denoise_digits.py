"""A denoiser for one noise level, and what it does at others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_xray.tracer.capture import Capture

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..option_types import Between, Called, Count
from .digits import batches, load_digits
from .loop import Training
from .unet import new_unet

__all__ = ["denoise_digits"]


def denoise_digits(
    lab: Lab,
    *,
    sigma: Annotated[float, Between(0)] = 0.5,
    sigmas: tuple[Annotated[float, Between(0)], ...] = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0),
    steps: Count = 300,
    batch: Count = 128,
    rate: Annotated[float, Between(0)] = 1e-2,
    every: Count = 15,
    mnist: Annotated[Path, Called("DIR")] | None = None,
    seed: int = 0,
) -> None:
    """Train a denoiser for one noise level, and try it at others.

    A UNet sees digits x with noise of one strength and learns to give back what is below it,

      loss = |unet(x + σ ε) − x|²,   ε ~ N(0, 1),

    whose minimum is the mean of all x that could have led to the noisy picture:

      Vincent, Larochelle, Bengio, Manzagol 2008, Extracting and Composing Robust Features with Denoising Autoencoders;
      https://doi.org/10.1145/1390156.1390294

    It is not told σ. Digits held out, with noise of other strengths, then show that it has learned this level and no
    other: with less noise it smooths what is there, with more it takes noise for strokes. As a measure of what can be
    had at each level serves a second UNet, trained for as long on all of them and told σ, as train-time-conditional
    has it: near the σ of its training the first is ahead, and it falls behind to either side.

    Look in training.zarr at records.gradient.* and records.weight.* along the steps, which are those of the training,
    and at records.denoised beside records.clean; in sigmas.zarr at how the values of unet.flatten, the code of a
    picture, drift with σ. It trains a network of its own, whatever --model says.

    Args:
        sigma: Standard deviation of the noise that is trained with; ink is 1, paper 0.
        sigmas: Standard deviations that it is tried with.
        steps: Of training.
        batch: Pictures in a step.
        rate: Highest learning rate.
        every: Trace every so many steps.
        mnist: Folder with MNIST's four files, instead of the small digits that scikit-learn brings.
        seed: Of the first weights, the order of pictures, and the noise.
    """
    digits, held_out = load_digits(mnist, device=lab.device)
    random = lab.generator(seed)
    training = Training(new_unet(digits.size, seed=seed).to(lab.device), steps=steps, rate=rate, every=every)

    with lab.trace({"unet": training.traced}, "training", capture="statistics") as tracer:
        for clean, _ in training.steps(lab, batches(digits, batch, random), tracer):
            noisy = clean + sigma * _noise_like(clean, random)
            denoised = training(noisy)
            training.learn(F.mse_loss(denoised, clean))
            training.record(noisy=noisy, denoised=denoised, clean=clean)

    told = Training(new_unet(digits.size, timed=True, seed=seed).to(lab.device), steps=steps, rate=rate, every=every)
    for clean, _ in told.steps(lab, batches(digits, batch, random)):
        levels = max(sigmas) * torch.rand(len(clean), generator=random).to(clean.device)
        noisy = clean + levels[:, None, None, None] * _noise_like(clean, random)
        told.learn(F.mse_loss(told(noisy, levels), clean))

    clean = held_out.pictures[:500]
    noise = _noise_like(clean, lab.generator(seed + 1))  # the same for all σ: only its strength differs
    psnr: dict[str, list[float]] = {"noisy": [], "denoised": [], "told": []}
    tried = []
    capture = Capture(modules=("unet.down2", "unet.flatten"))
    with torch.no_grad(), lab.trace({"unet": training.average}, "sigmas", capture=capture) as tracer:
        for step, level in enumerate(sigmas):
            tracer.step(step, sigma=level)
            noisy = clean + level * noise
            denoised = training.average(noisy)
            pictures = {
                "noisy": noisy,
                "denoised": denoised,
                "told": told.average(noisy, noisy.new_full((len(noisy),), level)),
            }
            for name, picture in pictures.items():
                tracer.record(name, picture)
                psnr[name].append(_psnr(picture, clean))
            tried.append(pictures)

    for place, level in enumerate(sigmas):
        lab.found(f"PSNR at sigma {level:g}", psnr["denoised"][place], "dB")
        lab.found(f"behind a network told sigma {level:g}", psnr["told"][place] - psnr["denoised"][place], "dB")

    shown = [int((held_out.labels[:500] == label).nonzero()[0]) for label in (0, 4)]
    rows = {"noisy": "noisy", "denoised": f"trained at {sigma:g}", "told": "told σ"}
    figure = picture_grid(
        [[pictures[name][digit, 0] for pictures in tried] for digit in shown for name in rows],
        row_titles=list(rows.values()) * len(shown),
        column_titles=[f"σ = {level:g}" for level in sigmas],
        side=0.75,
    )
    lab.figure(
        "out_of_distribution",
        figure,
        f"Digits held out, with noise of growing strength; what a denoiser trained at σ = {sigma:g} makes of them; and "
        "one that was trained for all strengths and told which. With no noise the first still smooths, with much it "
        "leaves patches.",
    )
    figure, axes = new_figure(1, 3, size=(11.5, 3.2))
    curves(
        {"each batch": (range(steps), training.losses)},
        x_label="step",
        y_label="mean squared error",
        title="Training",
        logarithmic=True,
        axes=axes[0, 0],
    )
    names = {"denoised": f"trained at σ = {sigma:g}", "told": "trained at all, told σ", "noisy": "noisy picture"}
    curves(
        {names[name]: (sigmas, np.where(np.isfinite(psnr[name]), psnr[name], np.nan)) for name in names},
        x_label="σ of the noise",
        y_label="PSNR, dB",
        title="Digits held out",
        axes=axes[0, 1],
    )
    behind = np.subtract(psnr["told"], psnr["denoised"])
    curves(
        {"behind": (sigmas, behind)},
        x_label="σ of the noise",
        y_label="dB",
        title="Behind the network told σ",
        axes=axes[0, 2],
    )
    for axis in axes[0, 1:]:
        axis.axvline(sigma, color="#8c959f", linestyle=":")
    lab.figure(
        "loss_and_psnr",
        figure,
        "The loss while it learns; and how near it comes to the clean digit at other noise levels, against a network "
        "that was trained for all of them. Near its own level it is ahead; with less noise and with more it falls "
        "behind.",
    )


def _psnr(pictures: Tensor, clean: Tensor) -> float:
    """In decibels; infinite for equal ones."""
    error = float(F.mse_loss(pictures, clean))
    return -10 * math.log10(error) if error else math.inf


def _noise_like(pictures: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(pictures.shape, generator=random).to(pictures.device)
