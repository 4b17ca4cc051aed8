"""A widget that draws lines of cells, repainted only when what it shows changes."""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from diffusion_xray.tracer.info import printable

from ..look import Look
from ..render import Cells
from ..scene import Scene

__all__ = ["Canvas", "Part", "Tone", "beside", "centred", "to_strips"]

Tone = Literal["plain", "muted", "accent", "fault", "warning", "good", "strong", "cursor"]
Part = str | tuple[str, Tone]
"""Text, or text and its tone. Control characters are shown as escapes, markup means nothing."""

_PREFIX = "canvas--"
_MUTED = 0.62


class Canvas(Widget):
    """Draws what `paint` returns. Subclasses draw from `scene` alone, so that a change of it is a repaint."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"{_PREFIX}{tone}" for tone in ("accent", "fault", "warning", "good", "strong", "cursor")
    }
    DEFAULT_CSS = """
    Canvas {
        height: 1fr;
        & > .canvas--accent { color: $text-accent; }
        & > .canvas--fault { color: $text-error; text-style: bold; }
        & > .canvas--warning { color: $text-warning; }
        & > .canvas--good { color: $text-success; }
        & > .canvas--strong { text-style: bold; }
        & > .canvas--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
    }
    """

    scene: reactive[Scene | None] = reactive(None, init=False, repaint=False)

    forgiving = False
    """Whether an error in `paint` is shown in place of a picture: for views of other packages."""

    @dataclass
    class Wished(Message):
        """The widget wants something else to be read for it: what `Request.wish` then is."""

        wish: Hashable

    @dataclass
    class Looked(Message):
        """The widget wants things to be drawn in another way."""

        look: Look

    @dataclass
    class Failed(Message):
        """`paint` raised."""

        error: str

    _painted: list[Strip] | None = None
    _drawn: tuple[object, ...] = ()
    _tones: dict[Tone, Style] | None = None

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """The lines from the top; missing ones are blank, those too long are cut."""
        raise NotImplementedError

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """What of a scene is drawn; the widget repaints only when one of these is another object."""
        return (scene,)

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to draw from yet."""
        return self.scene is not None

    def redraw(self) -> None:
        """Paint again, at the next refresh."""
        self._painted = None
        self.refresh()

    def watch_scene(self) -> None:
        """Draw what is on show now."""
        parts = self.parts_of(self.scene) if self.scene is not None else ()
        if len(parts) != len(self._drawn) or not all(map(_same, parts, self._drawn)):
            self._drawn = parts
            self.redraw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.redraw()

    def notify_style_update(self) -> None:
        """Draw in the colours of the new theme."""
        super().notify_style_update()
        self._painted = self._tones = None

    def render_line(self, y: int) -> Strip:
        """One painted line, made exactly as wide as the widget."""
        width, height = self.scrollable_content_region.size
        if self._painted is None:
            lines = self._lines(width, height) if self.is_ready and width else []
            lines += [Strip([])] * (height - len(lines))
            style = self.rich_style
            self._painted = [strip.adjust_cell_length(width).apply_style(style) for strip in lines]
        return self._painted[y] if y < len(self._painted) else Strip.blank(width, self.rich_style)

    def _lines(self, width: int, height: int) -> list[Strip]:
        try:
            return list(self.paint(width, height))[:height]
        except Exception as error:
            if not self.forgiving:
                raise
            self.post_message(self.Failed(f"{type(error).__name__}: {error}"))
            return self.explain(f"? This view failed: {type(error).__name__}: {error}")[:height]

    def tone(self, tone: Tone) -> Style:
        """The style of a tone in the current theme."""
        if self._tones is None:
            self._tones = {"plain": Style.null()}
        if tone not in self._tones:
            self._tones[tone] = self._find_tone(tone)
        return self._tones[tone]

    def _find_tone(self, tone: Tone) -> Style:
        if tone == "muted":  # halfway to the background, whichever the theme has
            _, _, background, foreground = self.colors
            return Style(color=background.blend(foreground, _MUTED, alpha=1).rich_color)
        return self.get_component_rich_style(f"{_PREFIX}{tone}", partial=True)

    def line(self, *parts: Part) -> Strip:
        """A line of text."""
        return Strip(
            [
                Segment(printable(part), None)
                if isinstance(part, str)
                else Segment(printable(part[0]), self.tone(part[1]))
                for part in parts
            ]
        )

    def spread(self, left: Sequence[Part], right: Sequence[Part], width: int) -> Strip:
        """A line with text at both ends; the left one is cut where they would meet."""
        start, end = self.line(*left), self.line(*right)
        room = max(width - end.cell_length - 1, 0)
        if start.cell_length > room:
            start = Strip.join([start.crop(0, max(room - 1, 0)), Strip([Segment("…")])])
        return Strip.join([start.adjust_cell_length(room), Strip([Segment(" ")]), end])

    def signs(self, glyphs: Iterable[str], tones: Sequence[Tone]) -> Strip:
        """A line of single characters, each in its tone."""
        runs = itertools.groupby(zip(glyphs, tones, strict=True), key=lambda pair: pair[1])
        return Strip([Segment("".join(sign for sign, _ in run), self.tone(tone)) for tone, run in runs])

    def explain(self, *lines: str, code: str = "") -> list[Strip]:
        """Lines that say why there is nothing to see, and the code that would have recorded it."""
        wrapped = [part for line in lines for part in textwrap.wrap(printable(line), max(self.size.width - 2, 10))]
        strips = [self.line(), *(self.line((f" {line}", "muted")) for line in wrapped)]
        return [*strips, self.line(), self.line((f"   {code}", "accent"))] if code else strips


def to_strips(cells: Cells) -> list[Strip]:
    """Coloured cells as lines, neighbours of one colour in one segment."""
    return [_row_strip(cells, row) for row in range(cells.shape[0])]


def beside(left: Sequence[Strip], right: Sequence[Strip], *, width: int) -> list[Strip]:
    """Two blocks of lines next to each other; the left one is `width` cells wide."""
    rows = max(len(left), len(right))
    pad = [Strip([])] * rows
    columns = zip([*left, *pad][:rows], [*right, *pad][:rows], strict=True)
    return [Strip.join([first.adjust_cell_length(width), second]) for first, second in columns]


def centred(strips: Sequence[Strip], width: int) -> list[Strip]:
    """Lines moved to the middle of `width` cells."""
    return [Strip.join([Strip([Segment(" " * max((width - s.cell_length) // 2, 0))]), s]) for s in strips]


def _same(old: object, new: object) -> bool:
    return old is new or (isinstance(old, int | str) and old == new)


def _row_strip(cells: Cells, row: int) -> Strip:
    glyphs = cells.glyphs[row]
    layers = [plane[row].astype(np.int64) for plane in (cells.foreground, cells.background) if plane is not None]
    if not layers:
        return Strip([Segment("".join(glyphs))])
    keys = np.concatenate(layers, axis=1)
    starts = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(axis=1))) if len(keys) else np.zeros(0, int)
    stops = [*starts[1:], len(keys)]
    front, back = cells.foreground is not None, cells.background is not None
    return Strip(
        [
            Segment("".join(glyphs[start:stop]), _style(tuple(keys[start].tolist()), front=front, back=back))
            for start, stop in zip(starts, stops, strict=True)
        ]
    )


@functools.lru_cache(maxsize=65536)
def _style(key: tuple[int, ...], *, front: bool, back: bool) -> Style:
    foreground = Color.from_rgb(*key[:3]) if front else None
    background = Color.from_rgb(*key[-3:]) if back else None
    return Style(color=foreground, bgcolor=background)
