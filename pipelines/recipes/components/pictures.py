"""Pictures to begin with, and what to look at them and their latents with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from diffusion_xray.pipelines.shapes.world import IMAGE_SIZE, Scene, render, sample_scene
from diffusion_xray.tracer.errors import RecipeError
from diffusion_xray.tracer.preview_fit import PreviewMap, fit_preview

from ..latent_diffusion import encode_pictures

__all__ = [
    "channels_last",
    "coloured",
    "draw_scenes",
    "latent_colours",
    "open_picture",
    "psnr",
    "sample_pictures",
    "side",
]


def side(pipe: Any) -> int:
    """Height and width of the pictures that a pipeline's UNet was trained for, in pixels."""
    return int(pipe.unet.config.sample_size) * int(pipe.vae_scale_factor)


def draw_scenes(scenes: Iterable[Scene], size: int) -> Tensor:
    """Scenes of the shapes world as they truly look, (scene, 3, size, size) in [0, 1]."""
    drawn = torch.from_numpy(np.stack([render(scene)[0] for scene in scenes]))
    pictures = drawn.permute(0, 3, 1, 2).float() / 255
    if size != IMAGE_SIZE:
        pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    return pictures


def open_picture(file: Path, size: int) -> Tensor:
    """The middle of a picture file, (1, 3, size, size) in [0, 1].

    Raises:
        RecipeError: There is no such file, or it is no picture.
    """
    try:
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGB")
            square = ImageOps.fit(upright, (size, size), Image.Resampling.LANCZOS)
    except (OSError, Image.DecompressionBombError) as error:
        raise RecipeError(f"cannot read the picture {str(file)!r}: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255


def sample_pictures(pipe: Any, file: Path | None, *, count: int, seed: int) -> Tensor:
    """The picture in a file, or where none is given `count` scenes of the shapes world; of the model's size."""
    if file is not None:
        return open_picture(file, side(pipe))
    rng = np.random.default_rng(seed)
    return draw_scenes([sample_scene(rng) for _ in range(count)], side(pipe))


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture in dB, 10 log10(1 / mean squared error), for pixels in [0, 1]."""
    return -10 * (pictures - originals).square().flatten(1).mean(1).clamp(min=1e-10).log10()


def latent_colours(pipe: Any) -> PreviewMap:
    """The linear map from a model's latents to colours that fits some scenes of the shapes world best."""
    pictures = sample_pictures(pipe, None, count=8, seed=665)
    return fit_preview(channels_last(encode_pictures(pipe, pictures)), channels_last(pictures))


def channels_last(pictures: Tensor) -> NDArray[np.float64]:
    """Pictures or latents (picture, channel, y, x) as an array (picture, y, x, channel)."""
    return np.asarray(pictures.detach().double().cpu().permute(0, 2, 3, 1).numpy())


def coloured(values: Tensor, scale: str, *, low: float, high: float) -> NDArray[np.float64]:
    """A map (y, x) in the colours of one of matplotlib's scales, (y, x, 3) in [0, 1].

    Args:
        values: Of any range.
        scale: Its name, "RdBu_r" say.
        low: The value of its first colour, which smaller ones have too.
        high: The value of its last colour, likewise.
    """
    import matplotlib as mpl

    place = (values.detach().float().cpu().numpy() - low) / (high - low)
    return np.asarray(mpl.colormaps[scale](place.clip(0, 1)), np.float64)[..., :3]
