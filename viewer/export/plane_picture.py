"""A plane as a picture to keep: its pixels enlarged, above it where it is from, below it what the colours mean."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.text import number

from ..palette import colour_map
from ..planes import Plane, value_range
from ..render import coloured, resample, scale
from .selection import Selection

__all__ = ["plane_picture"]

_PAPER: Final = (18, 19, 23)
_INK: Final = (232, 232, 228)
_FAINT: Final = (150, 152, 158)
_FAULTY: Final = (255, 110, 210)
_MARGIN: Final = 20
_WANTED: Final = 512
"""Pixels that the longer side should have at least."""
_MOST: Final = 8192
"""Pixels of a side; a longer one is averaged."""
_LEAST_WIDTH: Final = 420
_BAR: Final = 12


def plane_picture(selection: Selection, plane: Plane) -> Image.Image:
    """A plane in the chosen colours, every value a square of the same whole number of pixels, with title and legend."""
    values = plane.values
    if max(values.shape) > _MOST:
        values = resample(values, min(values.shape[0], _MOST), min(values.shape[1], _MOST))
    low, high = value_range(plane.values, selection.look)
    factor = max(_WANTED // max(values.shape), 1)
    pixels = coloured(scale(values, low, high), selection.look.colours).repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = pixels.shape[:2]
    room = max(width, _LEAST_WIDTH)
    canvas = Image.new("RGB", (room + 2 * _MARGIN, height + 2 * _MARGIN + 116), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, _MARGIN - 4, _title(selection), size=20, colour=_INK, room=room)
    _write(draw, _MARGIN + 24, _when(selection), size=14, colour=_FAINT, room=room)
    top = _MARGIN + 52
    canvas.paste(Image.fromarray(pixels), (_MARGIN + (room - width) // 2, top))
    top += height + 14
    _legend(canvas, draw, top, low=low, high=high, colours=selection.look.colours, room=room)
    bad = int((~np.isfinite(plane.values)).sum())
    _write(draw, top + 24, _caption(selection, plane), size=14, colour=_FAINT, room=room - (130 if bad else 0))
    if bad:
        text = f"{bad} not finite"
        draw.text((_MARGIN + room, top + 24), text, font=_font(14), fill=_FAULTY, anchor="ra")
    return canvas


def _title(selection: Selection) -> str:
    site = selection.site
    return f"{selection.layer}  {site.module_class}" if site else selection.snapshot.title


def _when(selection: Selection) -> str:
    snapshot, site = selection.snapshot, selection.site
    parts = [snapshot.title, snapshot.info.pipeline]
    if site is not None and not site.stepped:
        parts.append("outside of the loop")
    elif snapshot.steps:
        timestep, sigma = snapshot.timestep[selection.step], snapshot.sigma[selection.step]
        known = [
            f"{name} {number(value)}" for name, value in (("t", timestep), ("sigma", sigma)) if not math.isnan(value)
        ]
        parts.append(" ".join([f"step {selection.step}", *known]))
    return ", ".join(filter(None, parts))


def _caption(selection: Selection, plane: Plane) -> str:
    look = selection.look
    rows, columns = plane.values.shape
    parts = [f"{rows}x{columns} {plane.caption}".replace("×", "x")]
    if plane.channels > 1:
        parts.append(f"channel {look.channel % plane.channels} of {plane.channels}")
    if plane.batches > 1:
        parts.append(f"batch {look.batch % plane.batches} of {plane.batches}")
    return ", ".join([*parts, look.colours, "p1 to p99" if look.clipped else "min to max"])


def _legend(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, top: int, *, low: float, high: float, colours: str, room: int
) -> None:
    """The colours from the smallest to the largest value, which stand at its ends."""
    if math.isnan(low):
        _write(draw, top, "no finite value", size=14, colour=_FAULTY, room=room)
        return
    font, (first, last) = _font(14), (number(low).replace("−", "-"), number(high))
    start = _MARGIN + int(font.getlength(first)) + 8
    end = _MARGIN + room - int(font.getlength(last)) - 8
    bar = colour_map(colours)[np.linspace(0, 255, max(end - start, 1)).astype(np.intp)]
    canvas.paste(Image.fromarray(np.repeat(bar[None], _BAR, axis=0)), (start, top))
    draw.text((_MARGIN, top + _BAR // 2), first, font=font, fill=_INK, anchor="lm")
    draw.text((_MARGIN + room, top + _BAR // 2), last, font=font, fill=_INK, anchor="rm")


def _write(
    draw: ImageDraw.ImageDraw, top: int, text: str, *, size: int, colour: tuple[int, int, int], room: int
) -> None:
    """A line from the left margin; what does not fit is cut."""
    font, text = _font(size), printable(text)
    if font.getlength(text) > room:
        while text and font.getlength(f"{text}...") > room:
            text = text[: -max(len(text) // 50, 1)]
        text = f"{text}..."
    draw.text((_MARGIN, top), text, font=font, fill=colour)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
