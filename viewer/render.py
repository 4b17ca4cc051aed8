"""Arrays to character cells. Pure: needs no terminal and no framework.

A picture has two pixels to a cell, the upper one in the foreground of "▀" and the lower one in the background. Where
colours are too few for that (`shade`), a cell is one pixel of a ramp of shades.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .palette import FAULT, colour_map, luminance

__all__ = [
    "FAULT_SIGN",
    "NARROW_SIGN",
    "Cells",
    "bars",
    "braille_line",
    "colour_bar",
    "coloured",
    "heat_map",
    "picture",
    "resample",
    "sample_series",
    "scale",
    "sparkline",
]

Glyphs = NDArray[np.str_]
"""Characters of a rectangle of cells, shape (rows, columns), dtype "<U1"."""

FAULT_SIGN: Final = "✗"
NARROW_SIGN: Final = "▲"
_SHADES: Final = np.array(list(" ░▒▓█"))
_EIGHTHS: Final = np.array(list(" ▁▂▃▄▅▆▇█"))
_DOTS: Final = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bit of each dot of a braille character, shape (4 rows, 2 columns)."""


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A rectangle of coloured cells."""

    glyphs: Glyphs
    foreground: NDArray[np.uint8] | None = None
    """Shape (rows, columns, 3); None for the terminal's own colour."""
    background: NDArray[np.uint8] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.glyphs.shape
        return rows, columns


def scale(values: ArrayLike, low: float, high: float) -> NDArray[np.float64]:
    """Values from `low` to `high` as 0 to 1, clipped; what is not finite becomes NaN, and all is 0.5 in no range."""
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    span = float(high) - float(low)
    if not np.isfinite(span) or span <= 0:
        return np.where(finite, 0.5, np.nan)
    with np.errstate(over="ignore"):
        return np.where(finite, np.clip((np.where(finite, numbers, low) - low) / span, 0, 1), np.nan)


def resample(plane: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """A plane at another size: blocks of pixels are averaged, then the nearest is taken.

    Wherever a value is not finite, the pixel it falls on is not finite either: no fault is averaged away or skipped.
    """
    values = np.asarray(plane, dtype=np.float64)
    if not values.size or height < 1 or width < 1:
        return np.full((max(height, 0), max(width, 0)), np.nan)
    down, across = max(values.shape[0] // height, 1), max(values.shape[1] // width, 1)
    if down > 1 or across > 1:
        pad = [(0, -size % step) for size, step in zip(values.shape, (down, across), strict=True)]
        padded = np.pad(values, pad, mode="edge")
        blocks = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across)
        with np.errstate(invalid="ignore", over="ignore"):
            values = blocks.mean(axis=(1, 3))
    sampled = values[_nearest(values.shape[0], height)][:, _nearest(values.shape[1], width)]
    bad_rows, bad_columns = np.nonzero(~np.isfinite(plane))
    sampled[bad_rows * height // plane.shape[0], bad_columns * width // plane.shape[1]] = np.nan
    return sampled


def heat_map(
    plane: NDArray[np.floating],
    *,
    rows: int,
    columns: int,
    low: float,
    high: float,
    colours: str = "viridis",
    keep_aspect: bool = True,
    shade: bool = False,
) -> Cells:
    """A plane as a picture of at most `rows` × `columns` cells; magenta where it is not finite."""
    height, width = _fit(plane.shape[0], plane.shape[1], rows * 2, columns, keep_aspect=keep_aspect)
    if shade:
        return _shaded(scale(resample(plane, height // 2, width), low, high))
    level = scale(resample(plane, height, width), low, high)
    return _half_blocks(coloured(level, colours))


def picture(rgb: NDArray[np.uint8], *, rows: int, columns: int, shade: bool = False) -> Cells:
    """An RGB picture, shape (y, x, 3), in at most `rows` × `columns` cells."""
    height, width = _fit(rgb.shape[0], rgb.shape[1], rows * 2, columns, keep_aspect=True)
    if shade:
        return _shaded(resample(luminance(rgb), height // 2, width))
    channels = [resample(rgb[..., channel].astype(np.float32), height, width) for channel in range(3)]
    return _half_blocks(np.nan_to_num(np.stack(channels, axis=-1)).round().astype(np.uint8))


def colour_bar(columns: int, *, colours: str = "viridis", shade: bool = False) -> Cells:
    """One row with the colours of a map from low to high."""
    level = np.linspace(0, 1, max(columns, 0))[None]
    return _shaded(level) if shade else Cells(np.full(level.shape, "█"), coloured(level, colours))


def bars(values: ArrayLike, *, rows: int, top: float | None = None) -> Glyphs:
    """Upright bars in eighths of a cell, one column a value; anything above zero shows at least one eighth."""
    numbers = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    highest = float(numbers.max(initial=0.0)) if top is None else top
    eighths = numbers / highest * rows * 8 if highest > 0 else np.zeros_like(numbers)
    filled = np.where(numbers > 0, np.maximum(np.round(eighths), 1), 0)
    floor = 8 * np.arange(rows)[::-1, None]
    cells: Glyphs = _EIGHTHS[np.clip(filled[None] - floor, 0, 8).astype(int)]
    return cells


def braille_line(values: ArrayLike, *, rows: int, columns: int, low: float, high: float) -> Glyphs:
    """A curve in braille dots over the full width; a gap where a value is not finite."""
    level = scale(values, low, high)
    dots = np.zeros((rows * 4, columns * 2), dtype=bool)
    if level.size and rows > 0 and columns > 0:
        at = np.linspace(0, level.size - 1, columns * 2)
        left, right = np.floor(at).astype(int), np.ceil(at).astype(int)
        curve = level[left] + (level[right] - level[left]) * (at - left)
        drawn = np.isfinite(curve)
        height = np.where(drawn, (1 - np.nan_to_num(curve)) * (rows * 4 - 1), 0).round().astype(int)
        for column in np.flatnonzero(drawn):
            start = height[column - 1] if column and drawn[column - 1] else height[column]
            first, last = sorted((start, height[column]))
            dots[first : last + 1, column] = True
    bits = (dots.reshape(rows, 4, columns, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    cells: Glyphs = np.array([chr(0x2800 + int(code)) if code else " " for code in bits.ravel()]).reshape(rows, columns)
    return cells


def sample_series(values: NDArray[np.float64], columns: int) -> NDArray[np.float64]:
    """A series at `columns` places: each the mean of its finite part, NaN where there is none."""
    if not values.size:
        return np.full(columns, np.nan)
    starts = np.arange(columns) * values.size // columns  # where steps are fewer than columns, each is repeated
    finite = np.isfinite(values)
    with np.errstate(over="ignore"):
        sums = np.nan_to_num(np.add.reduceat(np.where(finite, values, 0.0), starts))
    counts = np.add.reduceat(finite.astype(np.int64), starts)
    means: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


def sparkline(values: NDArray[np.float64], faults: NDArray[np.bool_], columns: int) -> str:
    """A series in one line of bars from zero (or the smallest), "✗" where a fault lies."""
    columns = min(columns, values.size)
    sampled, faulty = sample_series(values, columns), sample_series(faults.astype(np.float64), columns) > 0
    finite = sampled[np.isfinite(sampled)]
    level = scale(sampled, min(0.0, *finite), max(finite)) if finite.size else sampled
    signs = [
        FAULT_SIGN if bad else " " if np.isnan(height) else _EIGHTHS[1 + round(height * 7)]
        for height, bad in zip(level, faulty, strict=True)
    ]
    return "".join(signs)


def _fit(height: int, width: int, most_height: int, most_width: int, *, keep_aspect: bool) -> tuple[int, int]:
    """Size in pixels to draw at; the height is even and both are at least one cell."""
    most_height, most_width = max(most_height, 2), max(most_width, 1)
    if not keep_aspect or height < 1 or width < 1:
        return most_height, most_width
    factor = min(most_height / height, most_width / width)
    drawn_height = min(max(2 * round(height * factor / 2), 2), most_height)
    return drawn_height, min(max(round(width * factor), 1), most_width)


def _nearest(size: int, wanted: int) -> NDArray[np.intp]:
    return np.minimum(((np.arange(wanted) + 0.5) * size / wanted).astype(np.intp), size - 1)


def coloured(level: NDArray[np.float64], colours: str) -> NDArray[np.uint8]:
    """Levels from 0 to 1 in the colours of a map, shape (..., 3); magenta where they are not finite."""
    table = colour_map(colours)
    finite = np.isfinite(level)
    rgb = table[(np.where(finite, level, 0) * 255).round().astype(np.intp)]
    return np.where(finite[..., None], rgb, np.array(FAULT, dtype=np.uint8)).astype(np.uint8)


def _half_blocks(rgb: NDArray[np.uint8]) -> Cells:
    return Cells(np.full((rgb.shape[0] // 2, rgb.shape[1]), "▀"), rgb[0::2], rgb[1::2])


def _shaded(level: NDArray[np.float64]) -> Cells:
    finite = np.isfinite(level)
    shades = _SHADES[np.minimum(np.where(finite, level, 0) * len(_SHADES), len(_SHADES) - 1).astype(int)]
    return Cells(np.where(finite, shades, FAULT_SIGN))
