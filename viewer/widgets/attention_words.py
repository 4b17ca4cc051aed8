"""The words of the text, each with its share of attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from diffusion_xray.tracer.info import printable

from ..scene import Scene
from ..views.attention_seen import Seen
from .canvas import Canvas, Part, Tone

if TYPE_CHECKING:
    from .attention import AttentionPage

__all__ = ["WordList", "bar", "percent"]

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_LONGEST: Final = 14


class WordList(Canvas, can_focus=True):
    """A line a word."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Word before", id="attention.word_back", show=False, tooltip="Word before"),
        Binding("down,j", "move(1)", "Next word", id="attention.word_on", show=False, tooltip="Next word"),
        Binding("g", "move(-100000)", "First word", id="attention.word_first", show=False, tooltip="First word"),
        Binding("G", "move(100000)", "Last word", id="attention.word_last", show=False, tooltip="Last word"),
        Binding("space", "add", "Add", id="attention.add", tooltip="Add the word to the map, or take it out"),
        Binding("enter", "map", "Map", id="attention.map", show=False, tooltip="From the words to the map"),
    ]

    def __init__(self, page: AttentionPage, *, id: str) -> None:  # noqa: A002 - as the base class has it
        super().__init__(id=id)
        self._page = page
        self._top = 0
        self._cursor = 0

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """What was read, and what is asked for by now."""
        return scene.found if isinstance(scene.found, Seen) else self._page.seen, scene.wish, self.has_focus

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """A heading, then the words."""
        seen = self._page.seen
        if seen is None or not seen.names:
            return []
        shares, of = self._shares(seen)
        rows = max(height - 3, 1)
        cursor = self._cursor_of(seen)
        self._top = min(max(self._top, cursor - rows + 1), cursor, max(len(seen.names) - rows, 0))
        shown = range(self._top, min(self._top + rows, len(seen.names)))
        longest = min(max(cell_len(printable(name)) for name in seen.names), _LONGEST if width > 28 else 11)
        head: Tone = "accent" if self.has_focus else "muted"
        title = " token" if seen.kind == "tokens" else " word"
        lines = [self.spread([(title, head)], [(of, "muted"), " "] if shares is not None else [], width)]
        lines += [self._word(seen, at, shares, longest, width) for at in shown]
        more = len(seen.names) - len(shown)
        hint = "space adds" if seen.kind == "words" else "t turns around"
        further = [f"{more} more"] if more else ["tab: the map"] if width >= 30 and seen.kind == "words" else []
        lines += [self.line()] * (height - len(lines) - 1)
        lines.append(self.line((f" {' · '.join([*further, hint])}", "muted")))
        return lines

    def _word(self, seen: Seen, at: int, shares: NDArray[np.float32] | None, longest: int, width: int) -> Strip:
        wish, name = self._page.wish, seen.names[at]
        here = at == self._cursor_of(seen)
        added = name in wish.added
        label = set_cell_size(_cut(printable(name), longest), longest)
        tone: Tone = (
            "cursor"
            if here and self.has_focus
            else "accent"
            if here or added
            else "muted"
            if seen.special[at]
            else "plain"
        )
        sign = "▸" if here else "+" if added else " "
        parts: list[Part] = [(f"{sign} ", "accent"), (label, tone), " "]
        if shares is None:
            return self.line(*parts)
        share, most = float(shares[at]), float(np.nanmax(shares, initial=0))
        room = max(width - longest - 12, 1)
        filled = bar(share / most if most > 0 else 0, room)
        return self.line(*parts, (filled, "accent" if here or added else "muted"), f" {percent(share):>7}")

    def _shares(self, seen: Seen) -> tuple[NDArray[np.float32] | None, str]:
        """Those to show: of the place under the cursor while that is moved, else of the whole picture."""
        if self._page.query_one("#attention-map").has_focus and seen.maps is not None and seen.kind == "words":
            y, x = seen.query
            return seen.maps[:, y, x], f"share at ({y}, {x})"
        return seen.mass, "share of attention" if self.size.width > 28 else "share"

    def _cursor_of(self, seen: Seen) -> int:
        word = self._page.wish.word
        if word in seen.names:
            return seen.names.index(word)
        return seen.chosen[0] if seen.chosen else 0

    def action_move(self, by: int) -> None:
        """To another word."""
        seen = self._page.seen
        if seen is not None and seen.names:
            self._page.choose(seen.names[min(max(self._cursor_of(seen) + by, 0), len(seen.names) - 1)])

    def action_add(self) -> None:
        """Keep this word in the map while the cursor goes on, or let it go."""
        seen = self._page.seen
        if seen is not None and seen.kind == "words":
            self._page.choose(seen.names[self._cursor_of(seen)], add=True)

    def action_map(self) -> None:
        """To the map."""
        self._page.query_one("#attention-map").focus()

    def on_click(self, event: events.Click) -> None:
        """Choose the word that was hit; with shift add it."""
        seen, at = self._page.seen, self._top + event.y - 1
        if seen is not None and event.y >= 1 and at < min(len(seen.names), self._top + self.size.height - 3):
            self._page.choose(seen.names[at], add=event.shift and seen.kind == "words")

    def on_focus(self) -> None:
        """Show it."""
        self.redraw()

    def on_blur(self) -> None:
        """Show it."""
        self.redraw()


def bar(level: float, columns: int) -> str:
    """A bar in eighths of a cell, `columns` wide with its blanks."""
    eighths = 0 if not np.isfinite(level) else max(round(min(max(level, 0), 1) * columns * 8), level > 0)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).ljust(columns)[:columns]


def percent(share: float) -> str:
    """A share in at most seven characters."""
    if not np.isfinite(share):
        return "–"
    hundredths = 100 * share
    if 0 < hundredths < 0.0005:
        return "<.001 %"
    digits = 0 if hundredths >= 99.95 or hundredths == 0 else 1 if hundredths >= 1 else 2 if hundredths >= 0.1 else 3
    return f"{hundredths:.{digits}f} %"


def _cut(text: str, longest: int) -> str:
    return text if cell_len(text) <= longest else f"{set_cell_size(text, longest - 1)}…"
