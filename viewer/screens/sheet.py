"""Something to read above the screen, scrolled by keys. Textual's own panel is scrolled by the mouse alone."""

from __future__ import annotations

from collections.abc import Iterable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget

__all__ = ["Sheet"]


class Sheet(ModalScreen[None]):
    """A frame around what `body` returns. A subclass says by which keys it is left."""

    AUTO_FOCUS = "VerticalScroll"
    HEADING = ""
    """In the frame, on top."""
    HOW = ""
    """Likewise below: what keys do."""
    DEFAULT_CSS = """
    Sheet {
        align: center middle;
        background: $background 60%;

        & > VerticalScroll {
            width: 116;
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $accent;
            border-title-color: $text-accent;
            border-subtitle-color: $foreground 60%;
            background: $surface;
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
        with VerticalScroll() as frame:
            frame.border_title, frame.border_subtitle = self.HEADING, self.HOW
            yield from self.body()
