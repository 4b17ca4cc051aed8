"""Which part of a tensor a picture shows, and in which range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.info import SiteInfo

from .look import Look
from .palette import DIVERGING

__all__ = ["Plane", "plane_of", "value_range"]


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Two dimensions of a tensor."""

    values: NDArray[np.floating]
    caption: str
    channels: int
    """How many planes there are along the axis that `,` and `.` walk; 1 for none."""
    batches: int
    spatial: bool
    """Whether the two dimensions are those of a picture, and keep their proportion."""


def plane_of(tensor: NDArray[Any], site: SiteInfo, look: Look) -> Plane:
    """The part of a tensor that a picture shows: a channel of a feature map, the tokens of a sequence as an image."""
    values: NDArray[np.floating] = np.asarray(tensor, dtype=np.float64)
    batches = values.shape[0] if values.ndim > 1 else 1
    if values.ndim < 2 or not values.size:
        return Plane(values.reshape(1, -1), "all values", 1, 1, spatial=False)
    part = values[look.batch % batches]
    if part.ndim == 1:
        return Plane(part[None], "one row of channels", 1, batches, spatial=False)
    if part.ndim == 2:
        side = math.isqrt(part.shape[0])
        if side < 2 or side * side != part.shape[0] or "text" in site.name:
            return Plane(part, "tokens down, channels across", 1, batches, spatial=False)
        image = part[:, look.channel % part.shape[1]].reshape(side, side)
        return Plane(image, f"tokens as {side}×{side} pixels", part.shape[1], batches, spatial=True)
    maps = part.reshape(-1, *part.shape[-2:])
    caption = "feature map" if part.ndim == 3 else f"{'×'.join(map(str, part.shape[:-2]))} maps"
    return Plane(maps[look.channel % len(maps)], caption, len(maps), batches, spatial=True)


def value_range(values: NDArray[np.floating], look: Look) -> tuple[float, float]:
    """Smallest and largest value to draw; symmetric about zero for a diverging map, NaN where nothing is finite."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return math.nan, math.nan
    low, high = np.percentile(finite, (1, 99)) if look.clipped else (finite.min(), finite.max())
    if look.colours in DIVERGING:
        high = max(abs(low), abs(high))
        low = -high
    return float(low), float(high)
