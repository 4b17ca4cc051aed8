"""Heat over a greyed picture, in cells. Pure: arrays to cells."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .palette import luminance
from .render import Cells, coloured, heat_map, picture, resample, scale

__all__ = ["blended", "fitted", "mark", "overlay"]

_DIM: Final = 0.6
"""How bright the greyed picture is: the colours are to be seen before it."""


def fitted(height: int, width: int, *, rows: int, columns: int) -> tuple[int, int]:
    """Size in pixels, two to a cell's height, at which a grid is drawn: cells of equal size where there is room."""
    factor = min(max(rows, 1) * 2 / max(height, 1), max(columns, 1) / max(width, 1))
    factor = int(factor) if factor >= 2 else factor
    drawn = max(round(height * factor), 2)
    return drawn + drawn % 2, max(round(width * factor), 1)


def overlay(
    heat: NDArray[np.floating],
    below: NDArray[np.uint8] | None,
    *,
    size: tuple[int, int],
    low: float,
    high: float,
    colours: str,
    opacity: float = 0.7,
    shade: bool = False,
) -> Cells:
    """A map over a picture, at a size in pixels as of `fitted`.

    Args:
        heat: Shape (y, x); magenta where it is not finite.
        below: The picture, shape (y, x, 3); None for the heat alone.
        size: Height, an even number, and width.
        low: Value of the first colour.
        high: Value of the last.
        colours: The colour map.
        opacity: 1 hides the picture; below, more of it is seen where there is less heat.
        shade: Characters in place of colours, without the picture.
    """
    height, width = size
    if shade:
        return heat_map(
            heat, rows=height // 2, columns=width, low=low, high=high, keep_aspect=False, shade=True, colours=colours
        )
    rgb = blended(heat, below, size=size, low=low, high=high, colours=colours, opacity=opacity)
    return picture(rgb, rows=height // 2, columns=width)


def blended(
    heat: NDArray[np.floating],
    below: NDArray[np.uint8] | None,
    *,
    size: tuple[int, int],
    low: float,
    high: float,
    colours: str,
    opacity: float,
) -> NDArray[np.uint8]:
    """As `overlay`, in pixels: uint8 (height, width, 3)."""
    height, width = size
    level = scale(resample(heat, height, width), low, high)
    pixels = coloured(level, colours)
    if below is None or opacity >= 1:
        return pixels
    known = np.isfinite(level)[..., None]
    grey = np.nan_to_num(resample(luminance(below) * 255 * _DIM, height, width)[..., None])
    share = np.clip(1 - (1 - opacity) * (1.4 - 1.1 * np.nan_to_num(level)), 0, 1)[..., None]
    return np.where(known, grey * (1 - share) + pixels * share, pixels).round().astype(np.uint8)


def mark(cells: Cells, cell: tuple[int, int], grid: tuple[int, int], sign: str) -> None:
    """Write a sign into the middle of a cell of the grid that `cells` shows, in a colour that stands out."""
    rows, columns = cells.shape
    row, column = (
        min(int((at + 0.5) * drawn / size), drawn - 1)
        for at, size, drawn in zip(cell, grid, (rows, columns), strict=True)
    )
    cells.glyphs[row, column] = sign
    if cells.foreground is not None and cells.background is not None:
        ground = (cells.foreground[row, column].astype(np.int64) + cells.background[row, column]) // 2
        cells.background[row, column] = ground
        cells.foreground[row, column] = 0 if luminance(ground.astype(np.uint8)) > 0.5 else 255
