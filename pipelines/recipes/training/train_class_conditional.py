"""A UNet that is told the time and the class, drawn from with classifier-free guidance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion_xray.tracer import Trace, Tracer, open_trace
from diffusion_xray.tracer.capture import Capture

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..option_types import Between, Called, Count
from .ddpm import cosine_alpha_bars, draw, noised
from .digits import CLASSES, batches, load_digits, recognised, train_classifier
from .loop import Training
from .unet import UNet, new_unet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["train_class_conditional"]


def train_class_conditional(
    lab: Lab,
    *,
    steps: Count = 600,
    batch: Count = 128,
    rate: Annotated[float, Between(0)] = 1e-2,
    timesteps: Count = 100,
    guidance: float = 2.0,
    dropout: Annotated[float, Between(0, 1)] = 0.1,
    count: Count = 10,
    every: Count = 30,
    mnist: Annotated[Path, Called("DIR")] | None = None,
    seed: int = 0,
) -> None:
    """Train a UNet that is told the digit, and draw digits to order.

    Beside the time t the network is told the class c, but in one case of ten it is not; so one network learns both
    predictions that classifier-free guidance needs:

      loss = |unet(x_t, t, c) − ε|²,   drawn with   ε = unet(x_t, t) + g (unet(x_t, t, c) − unet(x_t, t))

      Ho, Salimans 2022, Classifier-Free Diffusion Guidance, algorithm 1 and eq. 6 with w + 1 = g;
      https://arxiv.org/abs/2207.12598

    A classifier that has seen only true digits then reads what was drawn. Time and class act on the decoder by a scale
    and an offset for each channel, h becomes (1 + scale(t) + scale(c)) h + offset(t) + offset(c); they are drawn from
    the trace.

    Look in sampling.zarr at unet.modulate1.scale.time, .scale.class, .offset.time and .offset.class (those of the class
    are zero in the first half of the batch, which is told none) and at x0; in training.zarr at records.samples along
    the steps, which are those of the training, and at records.gradient.* and records.weight.*. It trains a network of
    its own, whatever --model says.

    Args:
        steps: Of training.
        batch: Pictures in a step.
        rate: Highest learning rate.
        timesteps: Noise levels.
        guidance: Guidance scale g; 1 is none.
        dropout: Share of pictures whose class is not told in training.
        count: Pictures of each digit that are drawn for the classifier.
        every: Trace every so many steps.
        mnist: Folder with MNIST's four files, instead of the small digits that scikit-learn brings.
        seed: Of the first weights, the order of pictures, and the noise.
    """
    digits, held_out = load_digits(mnist, device=lab.device)
    device = digits.pictures.device
    random = lab.generator(seed)
    alpha_bars = cosine_alpha_bars(timesteps).to(device)
    moments = tuple(max(round(steps * share) - 1, 0) for share in (0.01, 0.03, 0.1, 0.3, 1))
    network = new_unet(digits.size, timed=True, classes=CLASSES, seed=seed).to(device)
    training = Training(network, steps=steps, rate=rate, every=every, also=moments)
    modulations = Capture(modules="unet.modulate*.*.*")
    one_each = torch.arange(CLASSES, device=device)
    ordered = one_each.repeat_interleave(count)
    drawn: dict[float, Tensor] = {}

    with lab.trace({"unet": training.traced}, "training", capture=modulations) as tracer:
        for pictures, labels in training.steps(lab, batches(digits, batch, random), tracer):
            x0 = 2 * pictures - 1
            t = torch.randint(timesteps, (len(x0),), generator=random).to(device)
            noise = torch.randn(x0.shape, generator=random).to(device)
            untold = (torch.rand(len(x0), generator=random) < dropout).to(device)
            told = labels.masked_fill(untold, network.no_class)
            x_t = noised(x0, noise, alpha_bars[t])
            predicted = training(x_t, t / timesteps, told)
            training.learn(F.mse_loss(predicted, noise))
            training.record(x_t=x_t, noise=noise, predicted_noise=predicted, told=told)
            if training.step in moments:
                epoch = (training.step + 1) * batch / len(digits)
                drawn[epoch] = _draw(
                    training.average, ordered, alpha_bars, digits.size, lab.generator(seed), guidance=guidance
                )
                training.record(samples=drawn[epoch][::count])

    with lab.trace({"unet": training.average}, "sampling", capture=modulations) as tracer:
        random = lab.generator(seed + 1)
        _draw(training.average, one_each, alpha_bars, digits.size, random, guidance=guidance, tracer=tracer)
    unguided = _draw(training.average, ordered, alpha_bars, digits.size, lab.generator(seed), guidance=1)

    classifier = train_classifier(digits)
    true_ones = recognised(classifier, held_out.pictures, held_out.labels)
    shares = [recognised(classifier, pictures, ordered) for pictures in drawn.values()]
    final = list(drawn.values())[-1]
    lab.found("recognised of true digits held out", 100 * true_ones, "%")
    lab.found("recognised of drawn digits", 100 * shares[-1], "%")
    lab.found("recognised without guidance", 100 * recognised(classifier, unguided, ordered), "%")
    novelty = _nearest(final, digits.pictures) / _nearest(held_out.pictures, digits.pictures)
    lab.found("distance to the nearest training digit, over that of digits held out", novelty)

    figure = picture_grid(
        [list(pictures[::count, 0]) for pictures in drawn.values()],
        row_titles=[f"epoch {epoch:.2g}\n{share:.0%} read" for epoch, share in zip(drawn, shares, strict=True)],
        column_titles=[f"told {label}" for label in range(CLASSES)],
        side=0.75,
    )
    lab.figure(
        "samples",
        figure,
        "One digit of each class drawn as training goes on, each column from the same noise, and the share of all that "
        "were drawn which a classifier of true digits reads as what they were meant to be.",
    )
    figure = picture_grid(
        [list(final[row::count, 0]) for row in range(min(count, 8))],
        column_titles=[f"told {label}" for label in range(CLASSES)],
        side=0.6,
    )
    lab.figure(
        "digits",
        figure,
        f"Drawn to order with guidance {guidance:g}: of {len(ordered)}, {shares[-1]:.1%} are read as they were meant; "
        f"of true digits held out, {true_ones:.1%}.",
    )
    (path,) = (path for path in lab.traces if path.name == "sampling.zarr")
    lab.figure(
        "scale_and_offset",
        _modulations(open_trace(path), timesteps),
        "What time and class do to the channels of the decoder, read from the trace of the drawing. The time turns "
        "channels up and down along the way from noise to picture; each class has a pattern of its own, and no class "
        "is none.",
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
        {"drawn": (list(drawn), shares), "true digits held out": (list(drawn), [true_ones] * len(drawn))},
        x_label="epoch",
        y_label="share that the classifier reads",
        title="What is drawn",
        axes=axes[0, 1],
    )
    axes[0, 1].set_xscale("log")
    lab.figure("curves", figure, "The loss, and the share of drawn digits that are read as they were meant.")


def _draw(
    network: UNet,
    labels: Tensor,
    alpha_bars: Tensor,
    size: int,
    random: torch.Generator,
    *,
    guidance: float,
    tracer: Tracer | None = None,
) -> Tensor:
    """Draw a digit for each label; the batch of the network is told no class in its first half."""
    told = torch.cat([torch.full_like(labels, network.no_class), labels])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        without, conditioned = network(torch.cat([x, x]), torch.cat([t, t]), told).chunk(2)
        guided: Tensor = without + guidance * (conditioned - without)
        return guided

    return draw(predict, alpha_bars, (len(labels), 1, size, size), random, tracer)


def _nearest(pictures: Tensor, known: Tensor) -> float:
    """Mean distance of pictures to the most similar one that is known."""
    return float(torch.cdist(pictures.flatten(1), known.flatten(1)).min(1).values.mean())


def _modulations(trace: Trace, timesteps: int) -> Figure:
    """Scale and offset of every channel in the middle of the decoder, over time and over class."""
    figure, axes = new_figure(2, 2, size=(9.5, 6.0))
    found = {
        (what, of): trace[f"unet.modulate2.{what}.{of}"]["output"].values
        for what in ("scale", "offset")
        for of in ("time", "class")
    }
    for row, what in enumerate(("scale", "offset")):
        over_time = found[what, "time"][:, -1].T  # (channel, step), the same for the whole batch
        over_class = found[what, "class"][0, CLASSES - 1 :].T  # one that is told no class, then the ten
        order = np.argsort(over_time[:, -1] - over_time[:, 0])
        limit = max(np.abs(over_time).max(), np.abs(over_class).max())
        look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "aspect": "auto", "interpolation": "nearest"}
        axes[row, 0].imshow(over_time[order], extent=(timesteps - 0.5, -0.5, len(order), 0), **look)
        drawn = axes[row, 1].imshow(over_class[order], **look)
        axes[row, 0].set(title=f"{what} by the time", xlabel="t, from noise to picture", ylabel="channel")
        axes[row, 1].set(title=f"{what} by the class", xlabel="class")
        axes[row, 1].set_xticks(range(CLASSES + 1), ["none", *map(str, range(CLASSES))])
        figure.colorbar(drawn, ax=axes[row].tolist(), shrink=0.9)
    for axis in axes.flat:
        axis.grid(visible=False)
    return figure
