"""The picture that maps of attention lie over."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.attention.info import AttentionInfo

from ..reader import Reader
from .attention_seen import frame_of

__all__ = ["picture_below"]


def picture_below(
    reader: Reader, call: AttentionInfo, entry: int, step: int, frame: int | None
) -> NDArray[np.uint8] | None:
    """The picture that the model predicts at a step, else what the run returned; shape (y, x, 3).

    Args:
        reader: Reads the trace.
        call: Whose maps lie over it.
        entry: Of the batch of the call: each guidance branch has one for every picture.
        step: Step of the loop.
        frame: Of a video; None for the one in the middle.
    """
    trace = reader.trace
    branches = trace.attentions.branches(call, step)
    image = branches[:entry].count(branches[entry])
    frames = None
    if call.stepped:
        frames = reader.once(("preview_x0", step), lambda: trace.step_array("preview_x0", step))
    if frames is None:
        frames = reader.once(("images",), lambda: trace.images)
    return _rgb(frames, image, frame)


def _rgb(frames: Any, image: int, frame: int | None) -> NDArray[np.uint8] | None:
    """One picture of several as (y, x, 3), or nothing where it has another form."""
    if frames is None or frames.ndim not in (4, 5) or image >= len(frames) or frames.shape[-1] not in (1, 3, 4):
        return None
    picture = frames[image]
    if picture.ndim == 4:
        picture = picture[frame_of(picture.shape[:3], frame)]
    if picture.dtype != np.uint8:
        picture = (np.nan_to_num(picture.astype(np.float32)).clip(0, 1) * 255).round().astype(np.uint8)
    colours: NDArray[np.uint8] = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(3, axis=-1)
    return colours if colours.size else None
