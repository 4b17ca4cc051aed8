"""The pictures of a run that maps of attention lie over: arrays of a trace to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.trace import Trace

if TYPE_CHECKING:
    import xarray

__all__ = ["flat", "picture_of", "previews_of"]


def flat(found: xarray.DataArray) -> NDArray[np.float32]:
    """Maps without frames: of a video the one in the middle."""
    if "frame" in found.dims:
        found = found.isel(frame=found.sizes["frame"] // 2)
    return np.asarray(found.values, np.float32)


def picture_of(trace: Trace, image: int, step: int) -> NDArray[np.uint8] | None:
    """The picture that the call which made a step returned as uint8 (y, x, 3), else the step's preview, else none."""
    pictures = trace.images_of(step)
    if pictures is None or image >= len(pictures):
        pictures = trace.step_array("preview", step) if trace.n_steps else None
    if pictures is None or image >= len(pictures):
        return None
    picture = pictures[image]
    picture = picture[len(picture) // 2] if picture.ndim == 4 else picture
    if picture.dtype != np.uint8:
        picture = (np.nan_to_num(picture.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    colours: NDArray[np.uint8] = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(3, axis=-1)
    return colours


def previews_of(trace: Trace, steps: Sequence[int], image: int) -> list[NDArray[np.uint8]]:
    """What the model took the picture for at each step, uint8 (y, x, 3); none where that was not always recorded."""
    found = [trace.step_array("preview_x0", step) for step in steps]
    seen = [previews[image] for previews in found if previews is not None and image < len(previews)]
    return seen if len(seen) == len(steps) else []
