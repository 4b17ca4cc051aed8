"""How well a map of attention agrees with a mask. Pure: arrays to numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Score", "by_chance", "mask_on_grid", "score"]


@dataclass(frozen=True, slots=True)
class Score:
    """Agreement of a map with a mask, each from 0 to 1."""

    pointing: float
    """Whether the brightest cell of the map touches the mask: the pointing game (Zhang et al. 2016, arXiv:1608.00507),
    whose tolerance is here the cell, as a map cannot tell finer where in it a word looks."""
    pixel: float
    """The same to the pixel: whether the brightest pixel of the enlarged map lies in the mask."""
    iou: float
    """Intersection over union of the mask with as many of the enlarged map's brightest pixels as it has."""


def score(heat: NDArray[np.floating], mask: NDArray[np.bool_]) -> Score:
    """Compare a map with a mask; the first of equally bright places counts.

    Args:
        heat: The map, shape (y, x).
        mask: bool (height, width), a multiple of the map's shape, neither all True nor all False.
    """
    large = np.asarray(
        Image.fromarray(heat.astype(np.float32)).resize(mask.shape[::-1], Image.Resampling.BILINEAR), np.float32
    )
    brightest = np.argsort(-large, axis=None, kind="stable")
    count = int(mask.sum())
    inside = mask.ravel()[brightest]
    hit = _cells(heat.shape, mask).any(axis=(1, 3)).ravel()[int(heat.argmax())]
    return Score(float(hit), float(inside[0]), _iou(float(inside[:count].sum()), count))


def by_chance(grid: tuple[int, ...], mask: NDArray[np.bool_]) -> Score:
    """What a map that is the same everywhere is expected to reach, its brightest places being drawn by lot."""
    touched = float(_cells(grid, mask).any(axis=(1, 3)).mean())
    area, count = float(mask.mean()), int(mask.sum())
    return Score(touched, area, _iou(count * area, count))


def mask_on_grid(grid: tuple[int, ...], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of each cell that a mask covers: what a map of that resolution would be at its best."""
    covered: NDArray[np.float64] = _cells(grid, mask).mean(axis=(1, 3))
    return covered


def _cells(grid: tuple[int, ...], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of each cell, shape (y, pixels, x, pixels)."""
    rows, columns = grid
    return mask.reshape(rows, mask.shape[0] // rows, columns, mask.shape[1] // columns)


def _iou(shared: float, count: int) -> float:
    """Of two sets of `count` pixels."""
    return shared / (2 * count - shared)
