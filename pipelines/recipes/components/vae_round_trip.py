"""The autoencoder by itself: in, and out again."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..figures import heat, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, require_unet
from ..option_types import Count
from .pictures import coloured, psnr, sample_pictures

__all__ = ["vae_round_trip"]

_SHOWN = 6
"""Pictures in the figure, at most."""


@torch.no_grad()
def vae_round_trip(lab: Lab, *, picture: Path | None = None, count: Count = 6, seed: int = 665) -> None:
    """VAE round trip: what a latent holds and what is lost.

    Latent diffusion works on what the encoder of an autoencoder makes of a picture x, and its decoder makes a picture
    of the result:

      z = E(x),  x' = D(z),  PSNR = 10 log10(1 / mean((x − x')²)) dB for pixels in [0, 1]

      Rombach, Blattmann, Lorenz, Esser, Ommer 2022, High-Resolution Image Synthesis with Latent Diffusion Models,
      section 3.1; https://arxiv.org/abs/2112.10752

    E gives mean and variance of a distribution; the mean is taken. To compare, the pictures are also shrunk to as many
    numbers as the latent has, and enlarged again. What a channel of the latent holds is told by its correlation with
    what is in the picture at the same place.

    In the figures: the error lies on outlines, and each channel is a small picture of its own kind. In the trace:
    records.latent beside records.picture and records.error, and the blocks of the VAE between them.

    Args:
        picture: A picture to take; scenes of the shapes world by default.
        count: How many scenes.
        seed: Of the scenes.
    """
    pipe = require_unet(lab.pipeline())
    pictures = sample_pictures(pipe, picture, count=count, seed=seed)

    with lab.trace(pipe) as tracer:
        tracer.step(0)
        tracer.record("picture", pictures)
        latents = encode_pictures(pipe, pictures)
        tracer.record_latents(latents)
        tracer.record("latent", latents)
        rebuilt = decode(pipe, latents)
        error = (rebuilt - pictures).abs()
        tracer.record("rebuilt", rebuilt)
        tracer.record("error", error)
        tracer.record_images(rebuilt)

    latents = latents.float().cpu()
    factor = pictures[0].numel() / latents[0].numel()
    side = round((latents[0].numel() / 3) ** 0.5)  # of a small picture of as many numbers
    small = F.interpolate(pictures, (side, side), mode="bicubic", antialias=True)
    enlarged = F.interpolate(small, pictures.shape[-2:], mode="bicubic").clamp(0, 1)
    outlines, wrong = _differences(pictures) > 0.1, error.mean(1)
    lab.found("compression: numbers in a picture for each in its latent", factor)
    lab.found("PSNR of the round trip", float(psnr(rebuilt, pictures).mean()), "dB")
    lab.found("PSNR when shrunk to as many numbers instead", float(psnr(enlarged, pictures).mean()), "dB")
    lab.found("error at outlines, times that elsewhere", float(wrong[outlines].mean() / wrong[~outlines].mean()))
    lab.found("standard deviation of the latents", float(latents.std()))

    channels = range(latents.shape[1])
    rows = [
        [x, x_rebuilt, coloured(x_error.amax(0), "magma", low=0, high=0.25), x_enlarged]
        + [coloured(z[channel], "RdBu_r", low=-2.5, high=2.5) for channel in channels]
        for x, x_rebuilt, x_error, x_enlarged, z in zip(pictures, rebuilt, error, enlarged, latents, strict=True)
    ][:_SHOWN]
    titles = ["picture x", "rebuilt D(E(x))", "error, white ≥ 0.25", f"shrunk to {side}×{side}"]
    titles += [f"channel {channel}" for channel in channels]
    lab.figure(
        "round_trip",
        picture_grid(rows, column_titles=titles),
        f"The latent holds {factor:.0f} times fewer numbers than the picture, and the picture comes back; what is lost "
        "lies on outlines. Shrunk to as many numbers it is blurred. On the right the channels of the latent, red "
        "positive and blue negative: small pictures themselves.",
    )
    contents = _contents(pictures, latents.shape[-1])
    correlation = _correlation(latents.transpose(0, 1).flatten(1), torch.stack(list(contents.values())))
    lab.found("share of the colours that the channels explain linearly", _explained(latents, contents))
    lab.figure(
        "channels",
        heat(
            correlation,
            row_labels=[f"channel {channel}" for channel in channels],
            column_labels=list(contents),
            title="correlation with what the picture shows there",
            low=-1,
            high=1,
            scale="RdBu_r",
        ),
        "How each channel goes with the colours and outlines at its place. No channel is one colour: it takes several "
        "together to tell colours apart.",
    )


def _differences(pictures: Tensor) -> Tensor:
    """The largest difference of a pixel to a neighbour, in any colour, (picture, y, x)."""
    padded = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    middle = padded[..., 1:-1, 1:-1]
    beside = [padded[..., 1:-1, 2:], padded[..., 1:-1, :-2], padded[..., 2:, 1:-1], padded[..., :-2, 1:-1]]
    return torch.stack([(other - middle).abs() for other in beside]).amax((0, 2))


def _contents(pictures: Tensor, size: int) -> dict[str, Tensor]:
    """What the pictures show in each cell of the latents, one number for each cell."""
    red, green, blue = F.adaptive_avg_pool2d(pictures, size).unbind(1)
    outline = F.adaptive_avg_pool2d(_differences(pictures), size)
    shown = {"red": red, "green": green, "blue": blue, "brightness": (red + green + blue) / 3, "outline": outline}
    return {name: values.flatten() for name, values in shown.items()}


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of each row of one with each row of the other."""
    both = torch.corrcoef(torch.cat([first, second]))
    return both[: len(first), len(first) :]


def _explained(latents: Tensor, contents: dict[str, Tensor]) -> float:
    """R² of the best linear map from the channels of a cell to its mean colour."""
    inputs = latents.transpose(0, 1).flatten(1).T
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    colours = torch.stack([contents[name] for name in ("red", "green", "blue")], 1)
    rest = colours - inputs @ torch.linalg.lstsq(inputs, colours).solution
    return float(1 - rest.square().sum() / (colours - colours.mean(0)).square().sum())
