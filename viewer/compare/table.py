"""Divergence by layer: a list that draws the rows in sight alone, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from diffusion_xray.tracer.comparison.divergence import Evidence
from diffusion_xray.tracer.text import number

from ..widgets.canvas import Part, Tone
from .canvas import PairCanvas
from .draw import heights, relative
from .state import Comparing, label_of

__all__ = ["DivergenceTable"]

_BARS: Final = 16
_COLUMNS: Final = (("rel L2", 9), ("cos", 9), ("max Δ", 9), ("first", 6))
_NUMBERS: Final = sum(width for _, width in _COLUMNS)


class DivergenceTable(PairCanvas, ScrollView, can_focus=True, inherit_bindings=False):
    """The layers in the order in which their tensors came to be, each with its largest distance over the steps."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", id="compare.up", show=False, tooltip="The layer above"),
        Binding("down,j", "move(1)", "Down", id="compare.down", show=False, tooltip="The layer below"),
        Binding("pageup", "page(-1)", "Page up", id="compare.page_up", show=False),
        Binding("pagedown", "page(1)", "Page down", id="compare.page_down", show=False),
        Binding("g", "move(-10000000)", "First layer", id="compare.top", show=False, tooltip="The first layer"),
        Binding("G", "move(10000000)", "Last layer", id="compare.bottom", show=False, tooltip="The last layer"),
    ]
    HELP = "Layers in execution order. `≥` says: from statistics alone, at least this. `?`: a tensor cannot be read."
    DEFAULT_CSS = """
    DivergenceTable {
        overflow-y: auto;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
    }
    """

    @dataclass
    class Chosen(Message):
        """A layer was chosen."""

        row: int

        def can_replace(self, message: Message) -> bool:
            """Only the last of many counts."""
            return isinstance(message, DivergenceTable.Chosen)

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """The numbers, their order and tolerance, and the layer shown."""
        return state.comparison, state.order, state.revision, state.tolerance, state.row, state.link

    def watch_state(self) -> None:
        """Draw again, and keep the layer shown in sight."""
        before = self._shown
        super().watch_state()
        if self.state is not None and before is not self._shown:
            self._measure()
            if len(before) != len(self._shown) or before[1] is not self._shown[1] or before[4] != self._shown[4]:
                self._show_cursor()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw the rows that came into sight."""
        super().watch_scroll_y(old_value, new_value)
        self.redraw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._measure()
        self.redraw()
        self._show_cursor()

    def on_click(self, event: events.Click) -> None:
        """Choose the row."""
        place = event.y - 1 + round(self.scroll_offset.y)
        if self.state is not None and event.y >= 1 and place < len(self.state.order):
            self.post_message(self.Chosen(int(self.state.order[place])))

    def action_move(self, by: int) -> None:
        """Go some rows up or down."""
        if self.state is not None and len(self.state.order):
            place = min(max(self._place() + by, 0), len(self.state.order) - 1)
            self.post_message(self.Chosen(int(self.state.order[place])))

    def action_page(self, by: int) -> None:
        """Go a page up or down."""
        self.action_move(by * max(self.size.height - 2, 1))

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """A line of titles, and the rows in sight."""
        state = self.state
        assert state is not None
        if not len(state.order):
            return self.explain("Neither trace holds a layer.")
        width = self.scrollable_content_region.width
        name = max(width - _NUMBERS - _BARS - 4, 8)
        titles = "".join(f"{title:>{column}}" for title, column in _COLUMNS)
        over = f"over {state.steps} steps"[:_BARS]
        head = self.line((f"   {'layer':{name}} {over:{_BARS}}{titles}", "muted"))
        top = round(self.scroll_offset.y)
        rows = [int(row) for row in state.order[top : top + max(height - 1, 0)]]
        return [head, *(self._draw(state, row, name, width) for row in rows)]

    def _draw(self, state: Comparing, row: int, name: int, width: int) -> Strip:
        here = row == state.row
        pairs = state.table.pairing.pairs
        parts = self._pair(state, row, name) if row < len(pairs) else self._lonely(state, row, name)
        if not here:
            return self.line(*parts)
        text = "".join(part if isinstance(part, str) else part[0] for part in parts)
        return self.line((f"{'▶' + text[1:]:<{width}}", "cursor"))

    def _lonely(self, state: Comparing, row: int, name: int) -> list[Part]:
        pairing = state.table.pairing
        at = row - len(pairing.pairs)
        side, site = (
            ("A", pairing.only_a[at]) if at < len(pairing.only_a) else ("B", pairing.only_b[at - len(pairing.only_a)])
        )
        return [(f"   {_fitted(site.key, name)} in {side} only", "muted")]

    def _pair(self, state: Comparing, row: int, name: int) -> list[Part]:
        table = state.table
        pair = table.pairing.pairs[row]
        columns = max(len(table.links.pairs), 1) if pair.a.stepped else 1
        values, evidence = table.relative_l2[row, :columns], table.evidence[row, :columns]
        is_over = values > state.limits(row)[:columns]
        over = np.flatnonzero(is_over)
        known = ~np.isnan(values)
        at = int(np.where(known, values, -1.0).argmax()) if columns else 0
        kind = int(evidence[at]) if known.any() else int(evidence.max(initial=0))
        signs, _ = heights(values, _BARS)
        _, largest_over = heights(np.where(is_over, values, np.nan), _BARS)
        tones: list[Tone] = ["muted" if np.isnan(value) else "fault" for value in largest_over]
        label = label_of(pair.a)
        tone: Tone = "plain" if len(over) else "muted"
        parts: list[Part] = [("   ", "fault"), (_fitted(label, name), tone), " "]
        parts += [(sign, sign_tone) for sign, sign_tone in zip(signs, tones, strict=True)]
        parts.append(" " * (_BARS - len(signs)))
        if pair.problem and not known.any():
            return [*parts, (f"{'shapes differ':>{_NUMBERS - 6}}", "accent")]
        cosine, largest_gap = float(table.cosine[row, at]), table.max_abs[row, :columns]
        first = "–" if not len(over) else str(table.links.pairs[over[0]][0]) if pair.a.stepped else "once"
        numbers: Tone = "fault" if len(over) else "muted"
        parts.append((f"{relative(float(values[at]) if known.any() else np.nan, kind):>9}", numbers))
        parts.append((f"{'–' if np.isnan(cosine) else f'{cosine:.5f}':>9}{_most(largest_gap):>9}", tone))
        parts.append((f"{first:>6}", numbers))
        if kind == Evidence.UNREADABLE:
            parts[0] = (" ? ", "fault")
        return parts

    def _place(self) -> int:
        """Where the row shown is in the list."""
        assert self.state is not None
        found = np.flatnonzero(self.state.order == self.state.row)
        return int(found[0]) if found.size else 0

    def _measure(self) -> None:
        if self.state is not None:
            self.virtual_size = Size(self.size.width, len(self.state.order) + 1)

    def _show_cursor(self) -> None:
        if self.state is not None and len(self.state.order) and self.size.height > 1:
            # the line of titles covers the top row, so the region starts one higher
            self.scroll_to_region(Region(0, self._place(), 1, 2), animate=False, force=True)
        self.redraw()


def _most(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return "–"
    return "∞" if np.isinf(known.max()) else number(float(known.max()))


def _fitted(name: str, width: int) -> str:
    """The end of a name: in a list of full names, it is what tells them apart."""
    cut = name if len(name) <= width else f"…{name[len(name) - max(width - 1, 0) :]}"
    return f"{cut:<{width}}"
