"""Maps as a picture to keep: their pixels enlarged, above them where they are from, below what the colours mean."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.text import number

from ..overlay import blended
from ..palette import FAINT, FAULT, INK, PAPER, colour_map
from ..render import resample
from .selection import Selection
from .sheet import Sheet, Tile

__all__ = ["sheet_picture"]

_FAULTY: Final = (255, 110, 210)
_MARGIN: Final = 20
_WANTED: Final = 512
"""Pixels that the longer side should have at least."""
_MOST: Final = 8192
"""Pixels of a side; a longer one is averaged."""
_LEAST_WIDTH: Final = 420
_TILE: Final = 96
"""Pixels that the longer side of each of several maps should have at least."""
_BAR: Final = 12
_GAP: Final = 4
_LABEL: Final = 20
"""Room for the label of one of several maps, and the gap before it."""
_LINE: Final = 18
_MOST_LINES: Final = 3


def sheet_picture(selection: Selection, sheet: Sheet) -> Image.Image:
    """Maps in the chosen colours, every value a square of the same whole number of pixels, with title and legend."""
    pixels = _pixels(sheet, selection.look.colours)
    height, width = pixels.shape[:2]
    room = max(width, _LEAST_WIDTH)
    bad = sum(int((~np.isfinite(tile.values)).sum()) for tile in sheet.tiles)
    colours = [] if sheet.tiles[0].values.ndim == 3 else [selection.look.colours]
    ranged = [*colours, "p1 to p99" if selection.look.clipped else "min to max"] if colours else []
    over = [f"{sheet.opacity:.0%} over the picture"] if sheet.below is not None and sheet.opacity < 1 else []
    lines = _wrapped(", ".join([sheet.caption, *ranged, *over]), size=14, room=room - (130 if bad else 0))
    canvas = Image.new("RGB", (room + 2 * _MARGIN, height + 2 * _MARGIN + 98 + _LINE * len(lines)), PAPER)
    draw = ImageDraw.Draw(canvas)
    title = _title(selection)
    large = _font(20).getlength(printable(title)) <= room  # the end of a path tells most
    _write(draw, _MARGIN - 4, title, size=20 if large else 14, colour=INK, room=room)
    _write(draw, _MARGIN + 24, _when(selection), size=14, colour=FAINT, room=room)
    top = _MARGIN + 52
    left = _MARGIN + (room - width) // 2
    canvas.paste(Image.fromarray(pixels), (left, top))
    _labels(draw, sheet, top=top, left=left)
    top += height + 14
    if sheet.note:
        _write(draw, top - 2, sheet.note, size=14, colour=FAINT, room=room)
    else:
        _legend(canvas, draw, top, sheet=sheet, colours=selection.look.colours, room=room)
    for at, line in enumerate(lines):
        _write(draw, top + 24 + _LINE * at, line, size=14, colour=FAINT, room=room)
    if bad:
        text = f"{bad} not finite"
        draw.text((_MARGIN + room, top + 24), text, font=_font(14), fill=_FAULTY, anchor="ra")
    return canvas


def _size(sheet: Sheet) -> tuple[int, int]:
    """Height and width of each map, in pixels: of the largest a whole number to a value; a longer side is averaged."""
    rows, columns = (max(tile.values.shape[axis] for tile in sheet.tiles) for axis in (0, 1))
    down = -(-len(sheet.tiles) // sheet.across)
    wanted, most = max(_WANTED // sheet.across, _TILE), max(_MOST // max(sheet.across, down), 1)
    factor = max(wanted // max(rows, columns), 1)
    return min(rows * factor, most), min(columns * factor, most)


def _pixels(sheet: Sheet, colours: str) -> NDArray[np.uint8]:
    """All maps, each below the room of its label where there are several."""
    height, width = _size(sheet)
    if len(sheet.tiles) == 1:
        return _coloured(sheet.tiles[0], sheet, colours, (height, width))
    down = -(-len(sheet.tiles) // sheet.across)
    found = np.empty((down * (height + _LABEL) - _GAP, sheet.across * (width + _GAP) - _GAP, 3), np.uint8)
    found[:] = PAPER
    for at, tile in enumerate(sheet.tiles):
        if not tile.values.size:
            continue  # there is no such head
        y, x = at // sheet.across * (height + _LABEL) + _LABEL - _GAP, at % sheet.across * (width + _GAP)
        found[y : y + height, x : x + width] = _coloured(tile, sheet, colours, (height, width))
    return found


def _coloured(tile: Tile, sheet: Sheet, colours: str, size: tuple[int, int]) -> NDArray[np.uint8]:
    low, high = tile.span
    if tile.values.ndim == 2:
        return blended(tile.values, sheet.below, size=size, low=low, high=high, colours=colours, opacity=sheet.opacity)
    rgb = np.stack([resample(tile.values[..., channel], *size) for channel in range(3)], axis=-1)
    known = np.isfinite(rgb).all(axis=-1, keepdims=True)
    return np.where(known, np.nan_to_num(rgb) * 255, FAULT).round().astype(np.uint8)


def _labels(draw: ImageDraw.ImageDraw, sheet: Sheet, *, top: int, left: int) -> None:
    """Above each of several maps, or above each line of them."""
    height, width = _size(sheet)
    for at, text in enumerate(sheet.lines):
        room = sheet.across * (width + _GAP)
        draw.text((left, top + at * (height + _LABEL)), _cut(text, size=12, room=room), font=_font(12), fill=FAINT)
    if sheet.lines or len(sheet.tiles) == 1:
        return
    for at, tile in enumerate(sheet.tiles):
        y, x = top + at // sheet.across * (height + _LABEL), left + at % sheet.across * (width + _GAP)
        draw.text((x, y), _cut(tile.label, size=12, room=width), font=_font(12), fill=FAINT)


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


def _legend(canvas: Image.Image, draw: ImageDraw.ImageDraw, top: int, *, sheet: Sheet, colours: str, room: int) -> None:
    """The colours from the smallest to the largest value, which stand at its ends."""
    low, high = sheet.tiles[0].span
    if math.isnan(low):
        _write(draw, top, "no finite value", size=14, colour=_FAULTY, room=room)
        return
    font, (first, last) = _font(14), (sheet.unit(end).replace("−", "-") for end in (low, high))
    start = _MARGIN + int(font.getlength(first)) + 8
    end = _MARGIN + room - int(font.getlength(last)) - 8
    bar = colour_map(colours)[np.linspace(0, 255, max(end - start, 1)).astype(np.intp)]
    canvas.paste(Image.fromarray(np.repeat(bar[None], _BAR, axis=0)), (start, top))
    draw.text((_MARGIN, top + _BAR // 2), first, font=font, fill=INK, anchor="lm")
    draw.text((_MARGIN + room, top + _BAR // 2), last, font=font, fill=INK, anchor="rm")


def _write(
    draw: ImageDraw.ImageDraw, top: int, text: str, *, size: int, colour: tuple[int, int, int], room: int
) -> None:
    """A line from the left margin; what does not fit is cut."""
    draw.text((_MARGIN, top), _cut(text, size=size, room=room), font=_font(size), fill=colour)


def _cut(text: str, *, size: int, room: int) -> str:
    font, text = _font(size), printable(text)
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}...") > room:
        text = text[: -max(len(text) // 50, 1)]
    return f"{text}..."


def _wrapped(text: str, *, size: int, room: int) -> list[str]:
    """A list of facts on as many lines as it needs, three at most."""
    font, lines = _font(size), [""]
    for fact in printable(text).split(", "):
        longer = f"{lines[-1]}, {fact}" if lines[-1] else fact
        if font.getlength(f"{longer},") > room and lines[-1] and len(lines) < _MOST_LINES:
            lines[-1] += ","
            lines.append(fact)
        else:
            lines[-1] = longer
    return lines


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
