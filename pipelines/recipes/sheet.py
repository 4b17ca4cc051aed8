"""All recipes at a glance: the first figure of each, on one sheet."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

from .page import Entry

__all__ = ["contact_sheet"]

_COLUMNS = 5
_CELL = (280, 190)
"""Width and height that a figure has room in, in pixels."""
_LABEL = 26
_MARGIN = 14


def contact_sheet(entries: Sequence[Entry]) -> bytes:
    """Draw the sheet.

    Args:
        entries: In their order; those without a figure are left out.

    Returns:
        A PNG.
    """
    firsts = [
        (entry.listed.name, entry.outcome.figures[0]) for entry in entries if entry.outcome and entry.outcome.figures
    ]
    width, height = _CELL[0] + _MARGIN, _CELL[1] + _LABEL + _MARGIN
    rows = -(-max(len(firsts), 1) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width + _MARGIN, rows * height + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for place, (name, shown) in enumerate(firsts):
        left, top = _MARGIN + place % _COLUMNS * width, _MARGIN + place // _COLUMNS * height
        draw.text((left, top), name, fill="#24292f", font=font)
        with Image.open(shown.file) as figure:
            small = ImageOps.contain(figure.convert("RGB"), _CELL, Image.Resampling.LANCZOS)
        sheet.paste(small, (left, top + _LABEL))
    stream = io.BytesIO()
    sheet.save(stream, "PNG", optimize=True)
    return stream.getvalue()
