"""A picture between the lines of a command's output."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from .render import Cells, picture

__all__ = ["has_colours", "print_picture"]


def has_colours() -> bool:
    """Whether the standard output can show a picture in its colours."""
    return _console().color_system in ("256", "truecolor")


def print_picture(rgb: NDArray[np.uint8], *, rows: int | None = None) -> None:
    """Print a picture, shape (y, x, 3), in half-blocks, or in shades where there are no colours.

    Args:
        rgb: The picture.
        rows: Most rows of characters; None for as many as the terminal has.
    """
    console = _console()
    most = max(console.height - 6, 12) if rows is None else rows
    cells = picture(rgb, rows=most, columns=max(console.width - 1, 10), shade=not has_colours())
    for row in range(cells.shape[0]):
        console.print(Segments([*_segments(cells, row), Segment.line()]), end="")


def _console() -> Console:
    return Console(highlight=False)


def _segments(cells: Cells, row: int) -> list[Segment]:
    glyphs = [str(glyph) for glyph in cells.glyphs[row]]
    if cells.foreground is None or cells.background is None:
        return [Segment("".join(glyphs))]
    styles = zip(cells.foreground[row].tolist(), cells.background[row].tolist(), strict=True)
    return [
        Segment(glyph, Style(color="rgb({},{},{})".format(*front), bgcolor="rgb({},{},{})".format(*back)))
        for glyph, (front, back) in zip(glyphs, styles, strict=True)
    ]
