"""Thumbnails of latents without running the VAE: a linear map from latent channels to RGB, fitted to the run itself.

The final latents and the decoded picture of the same run give thousands of pairs (latent pixel, colour), to which
``rgb = W z + b`` is fitted by least squares. Where no picture came back, or one that shows nothing, the first three
principal components of the last latents that are finite are shown instead, and labelled so.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layout import LATENTS, tensor_spec
from .preview_fit import Pixels, PreviewMap, fit_preview, has_spread, unusable
from .storage.store import StoreWriter
from .trace import Trace

__all__ = ["write_previews"]


def write_previews(trace: Trace, store: StoreWriter) -> dict[str, Any]:
    """Add `preview` (of the latents) and `preview_x0` to a finished trace; returns what to say about them."""
    last = trace.n_steps - 1
    if last < 0 or trace.step_array("next_latents", last) is None:
        return {}
    arrange = functools.partial(_as_images, aspect=_aspect(trace.images_of(last)))
    fitted = _fit(trace, last, arrange)
    if isinstance(fitted, str):
        return {"preview": {"method": "none", "r2": None, "reason": fitted}}
    maps = {len(fitted.weight): fitted}
    for source, name in (("latents", "preview"), ("x0", "preview_x0")):
        arrays = [trace.step_array(source, step) for step in range(trace.n_steps)]
        shown = _of_one_size(_draw([None if array is None else arrange(array) for array in arrays], maps))
        first = next((images for images in shown if images is not None), None)
        if first is None:
            continue
        path = f"{LATENTS}/{name}"
        dims = [f"preview_{dim}" for dim in ("image", "y", "x", "rgb")]
        spec = tensor_spec(path, "uint8", first.shape, dims, steps=trace.n_steps, codec="lz4", attributes={})
        store.add_array(spec)
        for step, images in enumerate(shown):
            if images is not None and images.shape == first.shape:
                store.append(path, (step,), images[None])
    why = {"reason": fitted.reason} if fitted.reason else {}
    return {"preview": {"method": fitted.method, "r2": fitted.r2, **why}}


def _fit(trace: Trace, last: int, arrange: functools.partial[Pixels | None]) -> PreviewMap | str:
    """The map for this run, or why there is none."""
    final = trace.step_array("next_latents", last)
    assert final is not None
    finished = arrange(final)
    if finished is None:
        return f"latents of shape {final.shape} are no picture"
    if has_spread(finished):
        frames = final.shape[1 if _frames_first(final.shape) else 2] if final.ndim == 5 else 1
        pictures, frame, reason = _target(trace.images_of(last), frames)
        chosen = finished if frame is None else arrange(final, frame=frame)
        return fit_preview(finished if chosen is None else chosen, pictures, reason)
    what = "all alike" if np.isfinite(finished).all() else "not finite"
    for step in range(last, -1, -1):
        for source, when in (("next_latents", "after"), ("latents", "before")):
            array = trace.step_array(source, step)
            images = None if array is None else arrange(array)
            if images is not None and has_spread(images):
                return fit_preview(images, None, f"the last latents are {what}; those {when} step {step} are used")
    return f"the latents of every step are {what}"


def _target(pictures: NDArray[Any] | None, frames: int) -> tuple[NDArray[Any] | None, int | None, str]:
    """What the final latents were decoded to, which frame of the latents that is, and why there is nothing.

    Of a video the frame in the middle, or the nearest to it that shows something.
    """
    if pictures is None:
        return None, None, "no picture came back"
    if pictures.shape[-1] != 3:
        return None, None, f"the picture has {pictures.shape[-1]} channels, not three colours"
    if pictures.ndim != 5:
        return pictures, None, ""
    middle = frames // 2
    for frame in sorted(range(frames), key=lambda frame: abs(frame - middle)):
        shown = pictures.shape[1] // 2 if frame == middle else frame * (pictures.shape[1] - 1) // max(frames - 1, 1)
        if not all(unusable(picture) for picture in pictures[:, shown]):
            return pictures[:, shown], frame, ""
    return pictures[:, pictures.shape[1] // 2], middle, ""


def _draw(steps: list[Pixels | None], maps: dict[int, PreviewMap]) -> list[NDArray[np.uint8] | None]:
    """Draw the latents of each step.

    Stages of a cascade may have another number of channels than the final latents; such ones are drawn by their own
    principal components.

    Args:
        steps: (batch, y, x, channel) each.
        maps: By number of channels; those that are missing are added.
    """
    for images in reversed(steps):
        if images is not None and images.shape[-1] not in maps and has_spread(images):
            maps[images.shape[-1]] = fit_preview(images, None, "no picture came back of this stage")
    known = (None if images is None else (images, maps.get(images.shape[-1])) for images in steps)
    return [None if of is None or of[1] is None else of[1](of[0]) for of in known]


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


def _as_images(latents: NDArray[Any], *, aspect: float, frame: int | None = None) -> Pixels | None:
    """Latents of any kind as (batch, y, x, channel): images, a frame of a video (the middle one), packed tokens."""
    latents = np.asarray(np.abs(latents) if np.iscomplexobj(latents) else latents, np.float64)
    if latents.ndim == 5:
        if _frames_first(latents.shape):
            latents = latents.swapaxes(1, 2)
        latents = latents[:, :, latents.shape[2] // 2 if frame is None else frame]
    if latents.ndim == 4:
        return np.moveaxis(latents, 1, -1)
    if latents.ndim == 3:
        tokens = latents.shape[1]
        width = round(math.sqrt(tokens * aspect))
        if width and tokens % width == 0:
            return latents.reshape(len(latents), tokens // width, width, -1)
    return None
