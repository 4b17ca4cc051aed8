"""Pictures to start from: a photograph and a drawing of things the embedded model knows, or one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from torch import Tensor

from diffusion_xray.tracer.errors import RecipeError

__all__ = ["as_tensor", "drawing", "open_picture", "photograph", "picture_size"]

_OVERSAMPLING = 8
"""The drawing is made that much larger and then shrunk, which smooths its strokes."""


def picture_size(pipe: Any) -> int:
    """Height and width of the pictures that a pipeline was trained for, in pixels."""
    return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)


def as_tensor(picture: Image.Image | NDArray[np.uint8], size: int) -> Tensor:
    """A picture's middle square as a tensor (3, size, size) in [0, 1]."""
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    side = min(picture.size)
    square = ImageOps.fit(picture.convert("RGB"), (side, side)).resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(square, np.float32) / 255).movedim(-1, 0)


def open_picture(path: Path, size: int) -> Tensor:
    """Read a file as a tensor (3, size, size) in [0, 1]: its middle square.

    Raises:
        RecipeError: There is no such file, or Pillow cannot read it.
    """
    try:
        with Image.open(path) as picture:
            return as_tensor(picture, size)
    except UnidentifiedImageError as error:
        raise RecipeError(f"{str(path)!r} is no picture that Pillow can read: give a PNG or JPEG") from error
    except OSError as error:
        raise RecipeError(f"cannot read the picture {str(path)!r}: {error.strerror or error}") from error


def photograph(size: int, *, seed: int = 0) -> Tensor:
    """A red ball on a gray table, lit from the upper left: shading, highlight, soft shadow, grain of table and sensor.

    Returns:
        (3, size, size) in [0, 1].
    """
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    middle_x, middle_y, radius = 0.3, 0.62, 0.2
    light = _unit(np.array([-0.5, -0.6, 0.62]))

    table = 0.53 - 0.16 * (x + y - 1) + 0.035 * _grain(rng, size)
    shadow = np.exp(-(((x - middle_x - 0.12) / 0.24) ** 2 + ((y - middle_y - 0.15) / 0.12) ** 2))
    picture = (table * (1 - 0.5 * shadow))[..., None] * np.array([1.06, 1.0, 0.88])

    across, down = (x - middle_x) / radius, (y - middle_y) / radius
    normal = np.stack([across, down, np.sqrt(np.clip(1 - across**2 - down**2, 0, 1))], axis=-1)
    shade = 0.5 + 0.5 * np.clip(normal @ light, 0, 1)
    highlight = np.clip(normal @ _unit(light + np.array([0, 0, 1])), 0, 1) ** 40
    ball = shade[..., None] * np.array([0.9, 0.2, 0.15]) + 0.12 * highlight[..., None]
    cover = np.clip((1 - np.hypot(across, down)) * radius * size + 0.5, 0, 1)[..., None]
    picture = picture * (1 - cover) + ball * cover

    picture *= (1 - 0.5 * ((x - 0.5) ** 2 + (y - 0.5) ** 2))[..., None]
    picture += 0.02 * rng.standard_normal(picture.shape)
    return torch.from_numpy(picture.clip(0, 1).astype(np.float32)).movedim(-1, 0)


def drawing(size: int, *, seed: int = 0) -> Tensor:
    """A blue star on white paper, drawn with a crayon: an outline gone over twice, filled with uneven strokes.

    Returns:
        (3, size, size) in [0, 1].
    """
    rng = np.random.default_rng(seed)
    side = size * _OVERSAMPLING
    angles = np.arange(10) * np.pi / 5
    lengths = np.where(np.arange(10) % 2, 0.125, 0.27)
    star = np.stack([0.66 + lengths * np.sin(angles), 0.36 - lengths * np.cos(angles)], axis=-1)

    hatching = Image.new("RGB", (side, side), _PAPER)
    for offset in np.arange(-0.1, 1.5, 0.05):
        ends = np.array([[0.2, offset], [1.0, offset - 0.55]]) + rng.normal(0, 0.008, (2, 2))
        _stroke(hatching, ends, rng, width=0.02)
    inside = Image.new("L", (side, side))
    ImageDraw.Draw(inside).polygon([(x, y) for x, y in star * side], fill=255)

    paper = Image.new("RGB", (side, side), _PAPER)
    paper.paste(hatching, mask=inside)
    for _ in range(2):
        _stroke(paper, np.concatenate([star, star[:1]]), rng, width=0.022)
    return as_tensor(paper, size)


_PAPER = (253, 252, 248)
_CRAYON = (40, 80, 225)


def _stroke(picture: Image.Image, corners: NDArray[np.float64], rng: np.random.Generator, *, width: float) -> None:
    """Draw a line through `corners`, in shares of the side, with a hand that is not quite steady."""
    along = np.linspace(0, len(corners) - 1, 12 * len(corners))
    knots = np.linspace(0, len(corners) - 1, 3 * len(corners))
    points = [
        np.interp(along, np.arange(len(corners)), corners[:, axis])
        + np.interp(along, knots, rng.normal(0, 0.008, len(knots)))
        for axis in (0, 1)
    ]
    colour = tuple(int(channel) for channel in np.clip(_CRAYON + rng.normal(0, 14, 3), 0, 255))
    line = [(x * picture.width, y * picture.width) for x, y in zip(*points, strict=True)]
    ImageDraw.Draw(picture).line(line, fill=colour, width=round(width * picture.width), joint="curve")


def _grain(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Smooth noise of several widths, standard deviation about 1."""
    layers = [
        Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32)).resize((size, size), 3)
        for cells in (4, 9, 18, 36)
    ]
    total: NDArray[np.float32] = np.sum([np.asarray(layer) for layer in layers], axis=0) / np.sqrt(len(layers))
    return total


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = vector / np.linalg.norm(vector)
    return unit
