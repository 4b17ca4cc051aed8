"""A screen above the screen: a frame in the middle, what lies below it dimmed."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.screen import ModalScreen

__all__ = ["Framed"]

Result = TypeVar("Result")


class Framed(ModalScreen[Result], Generic[Result]):
    """A subclass composes a container of the class "framed", and says how wide it is."""

    DEFAULT_CSS = """
    Framed {
        align: center middle;
        background: $background 60%;

        & > .framed {
            max-width: 100%;
            height: auto;
            max-height: 100%;
            border: round $accent;
            border-title-color: $text-accent;
            border-subtitle-color: $foreground 60%;
            background: $surface;
        }
    }
    """
