"""Why a view has nothing to show, and the code that would have recorded it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.reactive import reactive
from textual.strip import Strip

from ..views.protocol import Missing
from .canvas import Canvas

__all__ = ["Explanation"]


class Explanation(Canvas):
    """Stands in for a view that does not apply."""

    missing: reactive[Missing | None] = reactive(None)

    def watch_missing(self) -> None:
        """Say something else."""
        self.redraw()

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - the lines are few
        """The sentence, then the code."""
        return self.explain(self.missing.why, code=self.missing.code) if self.missing else []
