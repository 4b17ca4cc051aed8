"""All statistics of one layer, a line a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual import events
from textual.strip import Strip

from diffusion_xray.tracer.layout import STATISTICS
from diffusion_xray.tracer.summary import number

from ..render import FAULT_SIGN
from ..scene import Scene
from .canvas import Canvas, Part
from .step_strip import StepStrip

__all__ = ["StatisticsView"]

_TITLES = {"positive_infs": "+inf", "negative_infs": "−inf", "l2_norm": "norm"}
_COLUMN = 9


class StatisticsView(Canvas):
    """A table that keeps the step shown in sight; as many columns as fit, the chosen statistic first."""

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """Where one is, not what was read there."""
        return scene.snapshot, scene.site, scene.step, scene.look

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """The rows around the step shown."""
        scene = self.scene
        assert scene is not None
        assert scene.site is not None
        rows, faulty = scene.snapshot.rows(scene.site), scene.snapshot.faulty(scene.site)
        first = scene.look.statistic
        names = [first, *(name for name in STATISTICS if name != first)][: max((width - 8) // _COLUMN, 1)]
        head: list[Part] = [("   step ", "muted")]
        head += [(f"{_TITLES.get(name, name):>{_COLUMN}}", "accent" if name == first else "muted") for name in names]
        lines = [self.line(*head)]
        shown = max(height - 1, 1)
        top = self._top(len(rows), shown)
        for step in range(top, min(top + shown, len(rows))):
            values = rows[step, [STATISTICS.index(name) for name in names]]
            label = str(step) if scene.site.stepped else "–"
            text = f" {FAULT_SIGN if faulty[step] else ' '}{label:>5} "
            text += "".join(f"{number(value) if not np.isnan(value) else '–':>{_COLUMN}}" for value in values)
            here = scene.site.stepped and step == scene.step
            lines.append(self.line((f"{text:<{width}}", "cursor" if here else "fault" if faulty[step] else "plain")))
        return lines

    def on_click(self, event: events.Click) -> None:
        """Go to the step of the row."""
        if self.scene is None or self.scene.site is None or not self.scene.site.stepped or event.y < 1:
            return
        step = self._top(self.scene.snapshot.steps, max(self.size.height - 1, 1)) + event.y - 1
        if step < self.scene.snapshot.steps:
            self.post_message(StepStrip.Chosen(step))

    def _top(self, rows: int, shown: int) -> int:
        assert self.scene is not None
        return min(max(self.scene.step - shown // 2, 0), max(rows - shown, 0))
