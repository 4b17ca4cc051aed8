"""Thumbnails of latents without running the VAE: a linear map from latent channels to RGB, fitted to the run itself.

The final latents and the decoded picture of the same run give thousands of pairs (latent pixel, colour), to which
``rgb = W z + b`` is fitted by least squares. Where no picture came back, the first three principal components of the
final latents are shown instead, and labelled so.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layout import LATENTS, tensor_spec
from .storage.store import StoreWriter
from .trace import Trace

__all__ = ["PreviewMap", "fit_preview", "write_previews"]

Pixels = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """A linear map from latent pixels to RGB."""

    weight: Pixels
    """Shape (channel, 3)."""
    bias: Pixels
    """Shape (3,)."""
    method: str
    """ "linear fit" to the decoded picture, or "principal components"."""
    r2: float | None
    """Share of the colours' variance the fit explains, NaN-free; None for principal components."""

    def __call__(self, latents: Pixels) -> NDArray[np.uint8]:
        """Draw latents (batch, y, x, channel) as uint8 (batch, y, x, 3)."""
        drawn = np.nan_to_num(latents) @ self.weight + self.bias
        return (drawn.clip(0, 1) * 255).round().astype(np.uint8)


def fit_preview(latents: Pixels, pictures: NDArray[Any] | None) -> PreviewMap:
    """Fit the map.

    Args:
        latents: The final latents, (batch, y, x, channel).
        pictures: What they were decoded to, (batch, height, width, 3), uint8 or floats in [0, 1]; None when unknown.
    """
    flat = latents.reshape(-1, latents.shape[-1])
    if pictures is not None:
        colours = _shrink(_unit(pictures), latents.shape[1:3])[: len(latents)].reshape(-1, 3)
        inputs = np.column_stack([flat[: len(colours)], np.ones(len(colours))])
        solution, *_ = np.linalg.lstsq(inputs, colours, rcond=None)
        spread = ((colours - colours.mean(0)) ** 2).sum()
        rest = ((colours - inputs @ solution) ** 2).sum()
        r2 = float(1 - rest / spread) if spread else 1.0
        weight, bias = np.asarray(solution, np.float64)[:-1], np.asarray(solution, np.float64)[-1]
        return PreviewMap(weight, bias, "linear fit", r2)
    centre = flat.mean(0)
    _, _, directions = np.linalg.svd(flat - centre, full_matrices=False)
    weight = np.zeros((flat.shape[1], 3))
    for component, direction in enumerate(directions[:3]):
        values = (flat - centre) @ direction
        low, high = np.percentile(values, [1, 99])
        weight[:, component] = direction / max(high - low, 1e-12)
    return PreviewMap(weight, 0.5 - centre @ weight, "principal components", None)


def write_previews(trace: Trace, store: StoreWriter) -> dict[str, Any]:
    """Add `preview` (of the latents) and `preview_x0` to a finished trace; returns what to say about them."""
    last = len(trace) - 1
    final = trace.step_array("next_latents", last) if last >= 0 else None
    if final is None:
        return {}
    pictures = trace.images
    arrange = functools.partial(_as_images, aspect=_aspect(pictures))
    finished = arrange(final)
    if finished is None or not np.isfinite(finished).any():
        return {}
    if pictures is not None and pictures.ndim == 5:  # a video: its middle frame stands for it
        pictures = pictures[:, pictures.shape[1] // 2]
    if pictures is not None and pictures.shape[-1] != 3:
        pictures = None
    fitted = fit_preview(np.nan_to_num(finished).astype(np.float64), pictures)
    maps = {finished.shape[-1]: fitted}
    for source, name in (("latents", "preview"), ("x0", "preview_x0")):
        arrays = [trace.step_array(source, step) for step in range(len(trace))]
        shown = _of_one_size(_draw([None if array is None else arrange(array) for array in arrays], maps))
        first = next((images for images in shown if images is not None), None)
        if first is None:
            continue
        path = f"{LATENTS}/{name}"
        dims = [f"preview_{dim}" for dim in ("image", "y", "x", "rgb")]
        spec = tensor_spec(path, "uint8", first.shape, dims, steps=len(trace), codec="lz4", attributes={})
        store.add_array(spec)
        for step, images in enumerate(shown):
            if images is not None and images.shape == first.shape:
                store.append(path, (step,), images[None])
    return {"preview": {"method": fitted.method, "r2": fitted.r2}}


def _draw(steps: list[Pixels | None], maps: dict[int, PreviewMap]) -> list[NDArray[np.uint8] | None]:
    """Draw the latents of each step.

    Stages of a cascade may have another number of channels than the final latents; such ones are drawn by their own
    principal components.

    Args:
        steps: (batch, y, x, channel) each.
        maps: By number of channels; those that are missing are added.
    """
    for images in reversed(steps):
        if images is not None and images.shape[-1] not in maps:
            maps[images.shape[-1]] = fit_preview(np.nan_to_num(images), None)
    return [None if images is None else maps[images.shape[-1]](images) for images in steps]


def _of_one_size(steps: list[NDArray[np.uint8] | None]) -> list[NDArray[np.uint8] | None]:
    """Pictures that grow from step to step at the size of the largest, their pixels repeated."""
    sizes = [images.shape[1:3] for images in steps if images is not None]
    height, width = (max(size) for size in zip(*sizes, strict=True)) if sizes else (0, 0)
    found: list[NDArray[np.uint8] | None] = []
    for images in steps:
        if images is None or images.shape[1:3] == (height, width):
            found.append(images)
            continue
        rows, columns = (np.arange(n) * old // n for n, old in zip((height, width), images.shape[1:3], strict=True))
        found.append(images[:, rows][:, :, columns])
    return found


def _frames_first(shape: tuple[int, ...]) -> bool:
    """Whether video latents have their frames before the channels."""
    return shape[1] < shape[2] and shape[1] not in (4, 16, 48, 128)


def _aspect(pictures: NDArray[Any] | None) -> float:
    return 1.0 if pictures is None else pictures.shape[-2] / pictures.shape[-3]


def _as_images(latents: NDArray[Any], *, aspect: float) -> Pixels | None:
    """Latents of any kind as (batch, y, x, channel): images, the middle frame of a video, packed tokens."""
    latents = np.asarray(np.abs(latents) if np.iscomplexobj(latents) else latents, np.float64)
    if latents.ndim == 5:
        if _frames_first(latents.shape):
            latents = latents.swapaxes(1, 2)
        latents = latents[:, :, latents.shape[2] // 2]
    if latents.ndim == 4:
        return np.moveaxis(latents, 1, -1)
    if latents.ndim == 3:
        tokens = latents.shape[1]
        width = round(math.sqrt(tokens * aspect))
        if width and tokens % width == 0:
            return latents.reshape(len(latents), tokens // width, width, -1)
    return None


def _unit(pictures: NDArray[Any]) -> Pixels:
    return pictures / 255.0 if pictures.dtype == np.uint8 else np.asarray(pictures, np.float64)


def _shrink(pictures: Pixels, size: tuple[int, ...]) -> Pixels:
    """Pictures (batch, height, width, 3) averaged over areas to (batch, *size, 3)."""
    for axis, wanted in zip((1, 2), size, strict=True):
        length = pictures.shape[axis]
        edges = np.linspace(0, length, wanted + 1).astype(int).clip(max=length - 1)
        widths = np.diff(np.append(edges[:-1], length)).clip(min=1)
        shape = [1] * pictures.ndim
        shape[axis] = wanted
        pictures = np.add.reduceat(pictures, edges[:-1], axis=axis) / widths.reshape(shape)
    return pictures
