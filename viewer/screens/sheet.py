"""Something to read above the screen, scrolled by keys. Textual's own panel is scrolled by the mouse alone."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widget import Widget

from .framed import Framed

__all__ = ["Sheet"]


class Sheet(Framed[None]):
    """A frame around what `body` returns. A subclass says by which keys it is left."""

    AUTO_FOCUS = "VerticalScroll"
    HEADING = ""
    """In the frame, on top."""
    HOW = ""
    """Likewise below: what keys do."""
    DEFAULT_CSS = """
    Sheet {
        & > VerticalScroll {
            width: 116;
            padding: 0 1;
            scrollbar-size-vertical: 1;
        }

        & Static { height: auto; }
    }
    """

    def body(self) -> Iterable[Widget]:
        """What there is to read, from the top."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """The frame and what is in it."""
        with VerticalScroll(classes="framed") as frame:
            frame.border_title, frame.border_subtitle = self.HEADING, self.HOW
            yield from self.body()
