"""The share of a word at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual import events
from textual.strip import Strip

from diffusion_xray.tracer.info import printable

from ..render import bars
from ..scene import Scene
from ..views.attention_seen import Seen
from .attention_words import percent
from .canvas import Canvas, Tone
from .step_strip import StepStrip

__all__ = ["ShareOverSteps"]

_WIDEST = 6
"""Columns of a step at most."""


class ShareOverSteps(Canvas):
    """Bars from zero, one a step; the one shown stands out. A click goes there."""

    _last: Seen | None = None

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """The shares, and the step."""
        if isinstance(scene.found, Seen):
            self._last = scene.found
        return self._last, scene.step

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """A title, the bars, and where they stand."""
        seen, scene = self._last, self.scene
        assert scene is not None
        if seen is None:
            return []
        word = " + ".join(printable(seen.names[at]) for at in seen.chosen) or "–"
        if seen.over_steps is None:
            why = (
                "with L back at one layer" if seen.scope else "with z or A back at one map" if seen.wish.spread else "…"
            )
            return [self.line((f" {word} over the steps: {why}", "muted"))]
        steps = seen.over_steps
        count, wide = len(steps), max(min(width // max(len(steps), 1), _WIDEST), 1)
        columns = min(count * wide, max(width - 2, 1))
        at = np.arange(columns) * count // columns
        most = float(np.nanmax(steps, initial=0))
        here = float(steps[scene.step]) if scene.step < count else float("nan")
        rows = max(height - 2, 1)
        grid = bars(steps[at], rows=rows, top=most or 1)
        for column, step in enumerate(at.tolist()):
            if wide > 2 and column % wide == wide - 1:
                grid[:, column] = " "
            elif step in seen.broken:
                grid[-1, column] = "?"
            elif np.isnan(steps[step]):
                grid[-1, column] = "·"
        tones: list[Tone] = [
            "accent" if step == scene.step else "fault" if step in seen.broken else "muted" for step in at.tolist()
        ]
        title = self.spread(
            [(" share of ", "muted"), (word, "accent"), (" over the steps", "muted")],
            [f"{percent(here)}", (f" at step {scene.step} · up to {percent(most)} ", "muted")],
            width,
        )
        body = [Strip.join([self.line(" "), self.signs(row, tones)]) for row in grid]
        return [title, *body]

    def on_click(self, event: events.Click) -> None:
        """Go to the step that was hit."""
        steps = self._last.over_steps if self._last is not None else None
        if steps is None or event.y < 1 or event.x < 1:
            return
        wide = max(min(self.size.width // max(len(steps), 1), _WIDEST), 1)
        columns = min(len(steps) * wide, max(self.size.width - 2, 1))
        if event.x - 1 < columns:
            self.post_message(StepStrip.Chosen((event.x - 1) * len(steps) // columns))
