"""Noise in front of the encoder and behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from ..figures import curves, new_figure, picture_grid
from ..lab import Lab
from ..latent_diffusion import decode, encode_pictures, require_unet
from ..option_types import Between, Count
from .pictures import psnr, sample_pictures

__all__ = ["noise_in_latents"]


@torch.no_grad()
def noise_in_latents(
    lab: Lab,
    *,
    picture: Path | None = None,
    strengths: tuple[Annotated[float, Between(0)], ...] = (0.1, 0.2, 0.4, 0.7, 1.0, 1.5),
    count: Count = 6,
    seed: int = 665,
) -> None:
    """The same share of noise in a picture and in its latent.

    Noise n of strength r is added to pictures x before they are encoded, and to the latents z of the clean pictures; r
    is its standard deviation in units of that of what it is added to, so that both have the signal-to-noise ratio
    1 / r²:

      in the picture  D(E(x + r std(x) n))
      in the latent   D(z + r std(z) n),  z = E(x)

      The autoencoder is that of Rombach et al. 2022, High-Resolution Image Synthesis with Latent Diffusion Models,
      section 3.1; https://arxiv.org/abs/2112.10752

    The encoder makes few numbers out of many, and grain does not survive that: only a part of the noise arrives in the
    latent. Noise that is put there itself is all signal to the decoder, which draws it: patches of wrong colours with
    clean outlines. It is this noise that latent diffusion removes, and its unit is a patch.

    How coarse an error is, is told by the share of its power that is left once it is averaged over the f × f pixels
    that one cell of the latent stands for: 1 / f² for white noise, 1 for one colour a patch.

    In the trace each strength is a step, with the latents, and both decoded pictures in records.

    Args:
        picture: A picture to take; scenes of the shapes world by default.
        strengths: Standard deviation of the noise over that of the signal.
        count: How many scenes.
        seed: Of the scenes and the noise.
    """
    pipe = require_unet(lab.pipeline())
    pictures = sample_pictures(pipe, picture, count=count, seed=seed)
    clean = encode_pictures(pipe, pictures)
    patch = pictures.shape[-1] // clean.shape[-1]
    generator = lab.generator(seed)
    picture_noise = torch.randn(pictures.shape, generator=generator) * pictures.std()
    latent_noise = torch.randn(clean.shape, generator=generator).to(clean) * clean.std()
    names = ("noisy picture", "noise in the picture, decoded", "noise in the latent, decoded")
    shown, ratios, coarse, arrived = [], [], [], []

    with lab.trace(pipe) as tracer:
        for step, strength in enumerate(lab.progress(strengths, "noise")):
            tracer.step(step, sigma=strength)
            noisy_pictures = pictures + strength * picture_noise
            encoded = encode_pictures(pipe, noisy_pictures)
            noisy_latents = clean + strength * latent_noise
            before, behind = decode(pipe, encoded), decode(pipe, noisy_latents)
            tracer.record_latents(noisy_latents)
            tracer.record("noisy_picture", noisy_pictures)
            tracer.record("latent_of_noisy_picture", encoded)
            tracer.record("noise_in_picture_decoded", before)
            tracer.record("noise_in_latent_decoded", behind)
            results = (noisy_pictures, before, behind)
            shown.append([result[0].clamp(0, 1) for result in results])
            ratios.append([float(psnr(result, pictures).mean()) for result in results])
            coarse.append([_coarseness(result - pictures, patch) for result in results])
            arrived.append(float((encoded - clean).std() / clean.std()))

    for strength, share, (_, in_picture, in_latent) in zip(strengths, arrived, ratios, strict=True):
        lab.found(f"r = {strength:g} in the picture: r that arrives in the latent", share)
        lab.found(f"r = {strength:g} in the picture: PSNR decoded", in_picture, "dB")
        lab.found(f"r = {strength:g} in the latent: PSNR decoded", in_latent, "dB")
    for name, share in zip(names, coarse[-1], strict=True):
        lab.found(f"share of the error in means of patches: {name}", share)

    lab.figure(
        "pictures",
        picture_grid(
            list(zip(*shown, strict=True)),
            row_titles=[name.replace(", ", ",\n") for name in names],
            column_titles=[f"r = {strength:g}" for strength in strengths],
        ),
        "The same signal-to-noise ratio in each column. Grain in the picture is mostly gone once encoded; noise in the "
        "latent is drawn by the decoder, as patches of wrong colours.",
    )
    figure, axes = new_figure(1, 2, size=(9.0, 3.4))
    lines = {name: (strengths, values) for name, values in zip(names, zip(*ratios, strict=True), strict=True)}
    curves(lines, x_label="strength r of the noise", y_label="PSNR, dB", title="what comes out", axes=axes[0, 0])
    axes[0, 1].set_prop_cycle(color=[line.get_color() for line in axes[0, 0].lines[1:]])
    curves(
        {"put into the picture": (strengths, arrived), "put into the latent": (strengths, strengths)},
        x_label="strength r of the noise",
        y_label="noise in the latent",
        title="what the decoder gets",
        axes=axes[0, 1],
    )
    lab.figure(
        "curves",
        figure,
        "The encoder averages noise away: of what is put into the picture, only a part arrives in the latent, and so "
        "the pictures that come out are nearer to the clean ones than those that went in.",
    )


def _coarseness(error: Tensor, patch: int) -> float:
    """The share of an error's power that is left in its means over patches."""
    return float(F.avg_pool2d(error, patch).square().mean() / error.square().mean())
