"""All recipes at a glance: the first figure of each, on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from .page import Entry

__all__ = ["contact_sheet"]

_WIDTH = 1480
_HEIGHT = 150
"""Of a row's figures, in pixels; a full row is made lower until it fits."""
_WIDEST = 4.0
"""Width by height beyond which a figure, a long strip, is made lower than its row."""
_LABEL = 24
_MARGIN = 14


def contact_sheet(entries: Sequence[Entry]) -> bytes:
    """Draw the sheet, in rows that end at the same margin.

    Args:
        entries: In their order; those without a figure are left out.

    Returns:
        A PNG.
    """
    firsts = [
        (entry.listed.name, _picture(entry.outcome.figures[0].file))
        for entry in entries
        if entry.outcome and entry.outcome.figures
    ]
    rows = _rows([_shape(picture) for _, picture in firsts])
    height = sum(row + _LABEL + _MARGIN for _, row in rows)
    sheet = Image.new("RGB", (_WIDTH, height + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    waiting, top = iter(firsts), _MARGIN
    for count, row in rows:
        left = _MARGIN
        for _ in range(count):
            name, picture = next(waiting)
            width = round(_shape(picture) * row)
            draw.text((left, top), name, fill="#24292f", font=font)
            small = picture.resize((width, round(width * picture.height / picture.width)), Image.Resampling.LANCZOS)
            sheet.paste(small, (left, top + _LABEL))
            left += width + _MARGIN
        top += row + _LABEL + _MARGIN
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _rows(shapes: Sequence[float]) -> list[tuple[int, int]]:
    """How many figures each row has, and their height."""
    rows, count, wide = [], 0, 0.0
    for shape in shapes:
        count, wide = count + 1, wide + shape
        room = _WIDTH - (count + 1) * _MARGIN
        if wide * _HEIGHT >= room:
            rows.append((count, int(room / wide)))
            count, wide = 0, 0.0
    return [*rows, (count, _HEIGHT)] if count else rows


def _shape(picture: Image.Image) -> float:
    """Width by height of the room that a figure gets."""
    return min(picture.width / picture.height, _WIDEST)


def _picture(file: object) -> Image.Image:
    """A figure; of a film the frame in the middle."""
    with Image.open(str(file)) as figure:
        figure.seek(getattr(figure, "n_frames", 1) // 2)
        return figure.convert("RGB")
