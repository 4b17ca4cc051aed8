"""A canvas that draws from two traces."""

from __future__ import annotations

from textual.reactive import reactive

from ..widgets.canvas import Canvas
from .state import Comparing

__all__ = ["PairCanvas"]


class PairCanvas(Canvas):
    """Draws from `state` alone, and only when something of it that it shows has changed."""

    state: reactive[Comparing | None] = reactive(None, init=False, repaint=False)

    _shown: tuple[object, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to draw from yet."""
        return self.state is not None

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """What of a state is drawn; the widget repaints only when one of these has changed."""
        return (state,)

    def watch_state(self) -> None:
        """Draw what is on show now."""
        if self.state is None:
            return
        shown = self.depends_on(self.state)
        if len(shown) != len(self._shown) or any(
            new is not old and not (isinstance(new, int | float | str | tuple) and new == old)
            for new, old in zip(shown, self._shown, strict=True)
        ):
            self._shown = shown
            self.redraw()
