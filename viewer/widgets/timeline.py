"""Steps from left to right over a whole line, to click and to drag in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from textual import events
from textual.message import Message

from .canvas import Canvas

__all__ = ["Timeline", "tick_distance"]

_DISTANCES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_ROOM: Final = 6
"""Columns of a number below the axis."""


class Timeline(Canvas):
    """Each step has the same share of the width."""

    @dataclass
    class Chosen(Message):
        """A step was clicked, or dragged to."""

        step: int

        def can_replace(self, message: Message) -> bool:
            """Only the last of many counts."""
            return isinstance(message, Timeline.Chosen)

    @property
    def steps(self) -> int:
        """How many steps have a place."""
        raise NotImplementedError

    @property
    def choosable(self) -> int:
        """How many of them, from the first, can be chosen."""
        return self.steps

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begin to drag."""
        self.capture_mouse()
        self._choose(event.x - self.gutter.left)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follow the mouse while it drags."""
        if event.button and self.app.mouse_captured is self:
            self._choose(event.x - self.gutter.left)

    def on_mouse_up(self) -> None:
        """End the drag."""
        self.release_mouse()

    def _choose(self, x: int) -> None:
        if self.is_ready and self.choosable and self.size.width:
            step = min(max(x, 0), self.size.width - 1) * self.steps // self.size.width
            self.post_message(self.Chosen(min(step, self.choosable - 1)))


def tick_distance(steps: int, width: int) -> int:
    """After how many steps the axis has the next number."""
    return next((distance for distance in _DISTANCES if distance * width / steps >= _ROOM), steps)
