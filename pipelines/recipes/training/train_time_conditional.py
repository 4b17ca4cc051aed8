"""A denoiser for all noise levels, which is told the time, and what can be drawn with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_xray.tracer.capture import Capture

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..option_types import Between, Called, Count
from .ddpm import cosine_alpha_bars, draw, noised
from .digits import batches, load_digits
from .loop import Training
from .unet import new_unet

__all__ = ["train_time_conditional"]

_DRAWN = 200
_SHOWN = 10


def train_time_conditional(
    lab: Lab,
    *,
    steps: Count = 1000,
    batch: Count = 128,
    rate: Annotated[float, Between(0)] = 1e-2,
    timesteps: Count = 100,
    every: Count = 50,
    mnist: Annotated[Path, Called("DIR")] | None = None,
    seed: int = 0,
) -> None:
    """Train a UNet that is told the time, and draw digits from noise.

    One network for all noise levels, told by t how noisy its picture is. A random t for each picture, the noise ε is
    what it has to find:

      x_t = sqrt(ᾱ_t) x0 + sqrt(1 − ᾱ_t) ε,   loss = |unet(x_t, t) − ε|²

      Ho, Jain, Abbeel 2020, Denoising Diffusion Probabilistic Models, algorithms 1 and 2, eq. 4 and 14;
      https://arxiv.org/abs/2006.11239

    From time to time as many digits are drawn, always from the same noise. How far they are from true ones is told by
    the Fréchet distance between their pixels (as Heusel et al. 2017 between features, https://arxiv.org/abs/1706.08500),

      |m − m'|² + tr(C + C' − 2 sqrt(C C')),

    m and C being mean and covariance. Digits held out, at their distance, are as near as one can wish to come.

    Look in training.zarr at records.samples along the steps, which are those of the training, and at records.weight.*
    and records.gradient.*; in sampling.zarr at x0, and at unet.modulate1.scale.time and its neighbours, by which the
    time acts on the decoder. It trains a network of its own, whatever --model says.

    Args:
        steps: Of training.
        batch: Pictures in a step.
        rate: Highest learning rate.
        timesteps: Noise levels.
        every: Trace every so many steps.
        mnist: Folder with MNIST's four files, instead of the small digits that scikit-learn brings.
        seed: Of the first weights, the order of pictures, and the noise.
    """
    digits, held_out = load_digits(mnist, device=lab.device)
    device = digits.pictures.device
    random = lab.generator(seed)
    alpha_bars = cosine_alpha_bars(timesteps).to(device)
    moments = tuple(max(round(steps * share) - 1, 0) for share in (0.01, 0.03, 0.1, 0.3, 1))
    network = new_unet(digits.size, timed=True, seed=seed).to(device)
    training = Training(network, steps=steps, rate=rate, every=every, also=moments)
    modulations = Capture(modules="unet.modulate*.*.*")
    shape = (_DRAWN, *digits.pictures.shape[1:])
    drawn: dict[float, Tensor] = {}

    with lab.trace({"unet": training.traced}, "training", capture=modulations) as tracer:
        for pictures, _ in training.steps(lab, batches(digits, batch, random), tracer):
            x0 = 2 * pictures - 1
            t = torch.randint(timesteps, (len(x0),), generator=random).to(device)
            noise = torch.randn(x0.shape, generator=random).to(device)
            x_t = noised(x0, noise, alpha_bars[t])
            predicted = training(x_t, t / timesteps)
            training.learn(F.mse_loss(predicted, noise))
            training.record(x_t=x_t, noise=noise, predicted_noise=predicted)
            if training.step in moments:
                epoch = (training.step + 1) * batch / len(digits)
                drawn[epoch] = draw(training.average, alpha_bars, shape, lab.generator(seed))
                training.record(samples=drawn[epoch][:_SHOWN])

    with lab.trace({"unet": training.average}, "sampling", capture=modulations) as tracer:
        draw(training.average, alpha_bars, (_SHOWN, *shape[1:]), lab.generator(seed + 1), tracer)

    distances = [_frechet_distance(pictures, held_out.pictures) for pictures in drawn.values()]
    for epoch, distance in zip(drawn, distances, strict=True):
        lab.found(f"Fréchet distance after epoch {epoch:.2g}", distance)
    wished = _frechet_distance(digits.pictures, held_out.pictures)
    lab.found("Fréchet distance of the training digits", wished)

    figure = picture_grid(
        [list(pictures[:_SHOWN, 0]) for pictures in drawn.values()],
        row_titles=[f"epoch {epoch:.2g}" for epoch in drawn],
        side=0.75,
    )
    lab.figure(
        "samples",
        figure,
        "Digits drawn as training goes on, each column from the same noise: blots first, then strokes, then digits.",
    )
    figure, axes = new_figure(1, 2, size=(9.5, 3.4))
    curves(
        {"each batch": (range(steps), training.losses)},
        x_label="step",
        y_label="mean squared error of ε",
        title="Training",
        logarithmic=True,
        axes=axes[0, 0],
    )
    curves(
        {"drawn": (list(drawn), distances), "training digits": (list(drawn), [wished] * len(drawn))},
        x_label="epoch",
        y_label="Fréchet distance to digits held out",
        title="What is drawn",
        logarithmic=True,
        axes=axes[0, 1],
    )
    axes[0, 1].set_xscale("log")
    lab.figure(
        "curves",
        figure,
        "The loss soon hardly falls any more, while what is drawn goes on to become more like true digits.",
    )


def _frechet_distance(pictures: Tensor, others: Tensor) -> float:
    """Between the pixels of two sets of pictures, larger ones shrunk to 8×8."""
    means, covariances = [], []
    for each in (pictures, others):
        pixels = F.adaptive_avg_pool2d(each, 8).flatten(1).double().cpu()
        means.append(pixels.mean(0))
        covariances.append(pixels.T.cov())
    eigenvalues = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0)
    spread = covariances[0].trace() + covariances[1].trace() - 2 * eigenvalues.sqrt().sum()
    return float((means[0] - means[1]).square().sum() + spread)
