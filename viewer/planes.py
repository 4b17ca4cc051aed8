"""Which part of a tensor a picture or a table shows, and in which range."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from diffusion_xray.tracer.info import SiteInfo

from .look import Look
from .palette import DIVERGING
from .render import resample

__all__ = ["PROJECTIONS", "Colours", "Maps", "Plane", "Projection", "maps_of", "plane_of", "project", "value_range"]

Projection = Literal["", "mean", "max", "pca"]
PROJECTIONS: Final[tuple[Projection, ...]] = ("", "mean", "max", "pca")

_PCA_SIDE: Final = 64
"""Pixels along each side that principal components are found from; more would change nothing one can see."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """One batch entry of a tensor as a stack of planes."""

    values: NDArray[Any]
    """Shape (map, row, column), in the tensor's own dtype."""
    caption: str
    batches: int
    spatial: bool
    """Whether rows and columns are those of a picture, and keep their proportion."""


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """Two dimensions of a tensor."""

    values: NDArray[np.floating]
    caption: str
    channels: int
    """How many planes there are along the axis that `,` and `.` walk; 1 for none."""
    batches: int
    spatial: bool


@dataclass(frozen=True, slots=True, eq=False)
class Colours:
    """The three strongest principal components of the channels, as red, green and blue."""

    rgb: NDArray[np.float64]
    """Shape (row, column, 3), from 0 to 1; NaN where a channel is not finite."""
    share: float
    """Part of the variance that they hold."""


def maps_of(tensor: NDArray[Any], site: SiteInfo, batch: int) -> Maps:
    """The planes of one batch entry: channels of a feature map, or of a sequence whose tokens are an image."""
    batches = tensor.shape[0] if tensor.ndim > 1 else 1
    if tensor.ndim < 2 or not tensor.size:
        return Maps(tensor.reshape(1, 1, -1), "all values", 1, spatial=False)
    part = tensor[batch % batches]
    if part.ndim == 1:
        return Maps(part[None, None], "one row of channels", batches, spatial=False)
    if part.ndim == 2:
        side = math.isqrt(part.shape[0])
        if side < 2 or side * side != part.shape[0] or "text" in site.name:
            return Maps(part[None], "tokens down, channels across", batches, spatial=False)
        return Maps(part.T.reshape(-1, side, side), f"tokens as {side}×{side} pixels", batches, spatial=True)
    maps = part.reshape(-1, *part.shape[-2:])
    caption = "feature map" if part.ndim == 3 else f"{'×'.join(map(str, part.shape[:-2]))} maps"
    return Maps(maps, caption, batches, spatial=True)


def plane_of(tensor: NDArray[Any], site: SiteInfo, look: Look) -> Plane:
    """The one plane that `look` chooses."""
    maps = maps_of(tensor, site, look.batch)
    values = np.asarray(maps.values[look.channel % len(maps.values)], dtype=np.float64)
    return Plane(values, maps.caption, len(maps.values), maps.batches, maps.spatial)


def project(maps: NDArray[Any], projection: Projection) -> NDArray[np.float64] | Colours:
    """All maps in one: their mean, their largest magnitude, or three principal components.

    Args:
        maps: Shape (map, row, column).
        projection: Which.

    Returns:
        A plane, shape (row, column), not finite wherever one of the maps is not; or colours.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if projection == "mean":
            mean: NDArray[np.float64] = maps.mean(axis=0, dtype=np.float64)
            return mean
        if projection == "max":
            largest: NDArray[np.float64] = np.abs(maps).max(axis=0).astype(np.float64)
            return largest
    return _principal(maps)


def _principal(maps: NDArray[Any]) -> Colours:
    """Principal components over the pixels, found by the eigenvectors of the smaller of the two Gram matrices."""
    rows, columns = (min(size, _PCA_SIDE) for size in maps.shape[1:])
    small = np.stack([resample(plane, rows, columns) for plane in maps]).reshape(len(maps), -1).T
    bad = ~np.isfinite(small.sum(axis=1))
    pixels = np.where(bad[:, None], 0.0, small)
    pixels -= pixels[~bad].mean(axis=0) if (~bad).any() else 0.0
    pixels[bad] = 0.0
    by_pixel = pixels.shape[0] <= pixels.shape[1]
    strength, vectors = np.linalg.eigh(pixels @ pixels.T if by_pixel else pixels.T @ pixels)
    strength, vectors = strength[::-1][:3].clip(min=0), vectors[:, ::-1][:, :3]
    scores = vectors * np.sqrt(strength) if by_pixel else pixels @ vectors
    scores = np.pad(scores, ((0, 0), (0, 3 - scores.shape[1])))
    scores *= np.where(np.abs(scores.max(axis=0)) >= np.abs(scores.min(axis=0)), 1, -1)  # a sign is arbitrary: fix it
    low, high = np.percentile(scores[~bad], (1, 99), axis=0) if (~bad).any() else (np.zeros(3), np.ones(3))
    rgb = np.clip((scores - low) / np.where(high > low, high - low, 1), 0, 1)
    rgb[bad] = np.nan
    total = float(np.square(pixels).sum())
    return Colours(rgb.reshape(rows, columns, 3), float(strength.sum()) / total if total > 0 else math.nan)


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
