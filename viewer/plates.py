"""Attention as pictures: heat over an image, one plate or a table of them, with a legend. Pure: arrays to a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .palette import FAINT, INK, PAPER, colour_map
from .render import scale

__all__ = ["heat_over", "plate", "share", "strip", "table"]

_COLOURS: Final = "inferno"
_PANEL: Final = 420
_CELL: Final = 104
_SMALL: Final = 16
_MARGIN: Final = 24
_GAP: Final = 6
_LINE: Final = 20
_LEAST, _MOST = 0.3, 0.95
"""Opacity of the heat where it is lowest and highest: the image stays to be seen, the colours stay to be read."""

Picture = NDArray[np.uint8]
Plane = NDArray[np.floating]


def heat_over(heat: Plane, picture: Picture | None, *, high: float, size: tuple[int, int]) -> Picture:
    """A heat map over a greyed picture.

    Args:
        heat: Shape (y, x); NaN is left grey.
        picture: Shape (y, x, 3); None for the heat alone.
        high: Value of the brightest colour; 0 has the darkest.
        size: Height and width of the result.

    Returns:
        uint8 (height, width, 3).
    """
    height, width = size
    level = scale(_resized(heat, height, width), 0, high if high > 0 else 1)
    known = np.isfinite(level)[..., None]
    level = np.nan_to_num(level)
    coloured = colour_map(_COLOURS)[(level * 255).round().astype(np.intp)].astype(np.float64)
    if picture is None:
        return np.where(known, coloured, FAINT).astype(np.uint8)
    shown = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    grey = (shown @ [0.2126, 0.7152, 0.0722])[..., None].repeat(3, axis=-1)
    opacity = (_LEAST + (_MOST - _LEAST) * level**0.7)[..., None]
    return np.where(known, grey * (1 - opacity) + coloured * opacity, grey).round().astype(np.uint8)


def plate(heat: Plane, picture: Picture | None, *, title: str, caption: str, doubt: str = "") -> Image.Image:
    """One map beside the picture it belongs to, with a title, a legend, a caption, and why it may be wrong."""
    high = _highest(heat)
    height, width = _fitted((picture if picture is not None else heat).shape[:2], _PANEL)
    panels = [heat_over(heat, picture, high=high, size=(height, width))]
    if picture is not None:
        whole = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
        panels.insert(0, np.asarray(whole, np.uint8))
    total = max(len(panels) * (width + _GAP) - _GAP, 360)
    warning = _wrapped(doubt, total)
    canvas = Image.new("RGB", (total + 2 * _MARGIN, height + 2 * _MARGIN + 106 + len(warning) * _LINE), PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (_MARGIN, _MARGIN - 6), title, size=26, room=total)
    top = _MARGIN + 38
    for at, panel in enumerate(panels):
        canvas.paste(Image.fromarray(panel), (_MARGIN + at * (width + _GAP), top))
    _legend(canvas, draw, (_MARGIN, top + height + 14), width=total, high=high)
    _write(draw, (_MARGIN, top + height + 48), caption, size=15, colour=FAINT, room=total)
    for at, line in enumerate(warning, 1):
        _write(draw, (_MARGIN, top + height + 48 + at * _LINE), line, size=15, room=total)
    return canvas


def table(
    heats: NDArray[np.floating],
    picture: Picture | None,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    caption: str,
    above: tuple[str, Sequence[Picture]] | None = None,
    doubt: str = "",
) -> Image.Image:
    """Maps in rows and columns; the colours of each row go from 0 to its own largest value, written at its end.

    Args:
        heats: Shape (row, column, y, x); a cell of NaN alone stays empty.
        picture: What they lie over.
        rows: Labels, from the top.
        columns: Labels, from the left.
        title: First line.
        caption: Line below them.
        above: A label and pictures of the columns, each of shape (y, x, 3), as a row before the others.
        doubt: Why they may be wrong, in the last lines.
    """
    shape = picture.shape[:2] if picture is not None else heats.shape[2:]
    height, width = _fitted(shape, _CELL)
    font = _font(15)
    labels = rows if above is None else [above[0], *rows]
    left = _MARGIN + min(max((int(font.getlength(label)) for label in labels), default=0), 320) + 12
    top = _MARGIN + 62
    total = left + len(columns) * (width + _GAP) + 62
    bottom = top + len(labels) * (height + _GAP)
    warning = _wrapped(doubt, max(total, 420) - _MARGIN)
    canvas = Image.new("RGB", (max(total, 420) + _MARGIN, bottom + 40 + _MARGIN + len(warning) * _LINE), PAPER)
    draw = ImageDraw.Draw(canvas)
    room = canvas.width - 2 * _MARGIN
    _write(draw, (_MARGIN, _MARGIN - 6), title, size=22, room=room)
    for column, label in enumerate(columns):
        middle = left + column * (width + _GAP) + width // 2
        draw.text((middle, top - 8), _cut(label, font, width), font=_font(13), fill=FAINT, anchor="ms")
    if above is not None:
        draw.text((left - 12, top + height // 2), _cut(above[0], font, 320), font=font, fill=FAINT, anchor="rm")
        for column, seen in enumerate(above[1]):
            cell = Image.fromarray(seen).resize((width, height), Image.Resampling.BICUBIC)
            canvas.paste(cell, (left + column * (width + _GAP), top))
        top += height + _GAP
    for row, label in enumerate(rows):
        y = top + row * (height + _GAP)
        draw.text((left - 12, y + height // 2), _cut(label, font, 320), font=font, fill=INK, anchor="rm")
        high = _highest(heats[row])
        for column in range(len(columns)):
            heat = heats[row, column]
            if np.isfinite(heat).any():
                hot = heat_over(heat, picture, high=high, size=(height, width))
                canvas.paste(Image.fromarray(hot), (left + column * (width + _GAP), y))
        end = left + len(columns) * (width + _GAP) + 4
        draw.text((end, y + height // 2), share(high), font=_font(13), fill=FAINT, anchor="lm")
    _write(draw, (_MARGIN, bottom + 24), caption, size=14, colour=FAINT, room=room)
    for at, line in enumerate(warning, 1):
        _write(draw, (_MARGIN, bottom + 24 + at * _LINE), line, size=15, room=room)
    return canvas


def strip(heats: NDArray[np.floating], picture: Picture | None) -> Picture:
    """One row of a table, shape (column, y, x), without labels and small."""
    shape = picture.shape[:2] if picture is not None else heats.shape[1:]
    size, high = _fitted(shape, _SMALL), _highest(heats)
    gap = np.zeros((size[0], 1, 3), np.uint8)
    cells = [cell for heat in heats for cell in (heat_over(heat, picture, high=high, size=size), gap)]
    return np.concatenate(cells[:-1], axis=1)


def _legend(canvas: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], *, width: int, high: float) -> None:
    """A bar of the colours, from 0 to the largest share."""
    x, y = place
    most, font = share(high), _font(13)
    start, end = x + 26, x + width - int(font.getlength(most)) - 10
    bar = colour_map(_COLOURS)[np.linspace(0, 255, max(end - start, 1)).astype(np.intp)]
    canvas.paste(Image.fromarray(np.repeat(bar[None], 12, axis=0)), (start, y))
    draw.text((x, y + 6), "0 %", font=font, fill=FAINT, anchor="lm")
    draw.text((x + width, y + 6), most, font=font, fill=FAINT, anchor="rm")


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    *,
    size: int,
    room: int,
    colour: tuple[int, int, int] = INK,
) -> None:
    font = _font(size)
    draw.text(place, _cut(text, font, room), font=font, fill=colour)


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of words that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(15).getlength(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def share(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _highest(heat: Plane) -> float:
    finite = heat[np.isfinite(heat)]
    return float(finite.max()) if finite.size else 0.0


def _fitted(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    factor = longest / max(*shape, 1)
    return max(round(shape[0] * factor), 1), max(round(shape[1] * factor), 1)


def _resized(heat: Plane, height: int, width: int) -> NDArray[np.float64]:
    """At another size, smoothly, for the eye; not finite where the nearest value is not."""
    finite = np.isfinite(heat)
    plane = Image.fromarray(np.where(finite, heat, 0).astype(np.float32))
    smooth = np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC), np.float64)
    if finite.all():
        return smooth
    rows, columns = (np.arange(n) * old // n for n, old in zip((height, width), heat.shape, strict=True))
    return np.where(finite[rows][:, columns], smooth, np.nan)
