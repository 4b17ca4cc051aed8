"""The pane beside the view, whose edge can be moved."""

from __future__ import annotations

from typing import Final

from textual import events
from textual.containers import Vertical

__all__ = ["Side"]

_LEAST: Final = 24
_VIEW: Final = 40
"""Columns that are left to the view."""
_WIDE: Final = 100
"""From so many columns of the terminal on the pane and the view are side by side."""


class Side(Vertical):
    """Its right edge is dragged, or moved by keys, to make it wider or narrower."""

    _wanted: int | None = None
    _dragged = False

    def widen(self, by: int) -> None:
        """Make it some columns wider, or narrower."""
        self._resize(self.outer_size.width + by)

    def fit(self) -> None:
        """Be as wide as was wanted where the terminal has room for both; else the style sheet says."""
        room = self.app.size.width
        if self._wanted is None or room < _WIDE:
            self.styles.clear_rule("width")
        else:
            self.styles.width = min(self._wanted, room - _VIEW)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Take hold of the edge."""
        if event.x == self.outer_size.width - 1 and self.app.size.width >= _WIDE:
            self._dragged = True
            self.capture_mouse()
            event.stop()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag it."""
        if self._dragged:
            self._resize(event.screen_x + 1)

    def on_mouse_up(self) -> None:
        """Let go of it."""
        self._dragged = False
        self.release_mouse()

    def _resize(self, width: int) -> None:
        self._wanted = min(max(width, _LEAST), max(self.app.size.width - _VIEW, _LEAST))
        self.fit()
