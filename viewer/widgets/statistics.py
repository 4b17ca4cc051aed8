"""All statistics of one layer, a line a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual import events
from textual.strip import Strip

from diffusion_xray.tracer.layout import MEASURED
from diffusion_xray.tracer.text import number

from ..render import FAULT_SIGN
from ..scene import Scene
from .canvas import Canvas, Part
from .step_strip import StepStrip

__all__ = ["StatisticsView"]

_TITLES = {"positive_infs": "+inf", "negative_infs": "−inf", "l2_norm": "norm"}
_COLUMN = 9
_ORDERS = ("step", "largest", "smallest")


class StatisticsView(Canvas):
    """A table that keeps the step shown in sight; as many columns as fit, the chosen statistic first."""

    _order = "step"

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
        names = [first, *(name for name in MEASURED if name != first)][: max((width - 8) // _COLUMN, 1)]
        sign = ("", "▼", "▲")[_ORDERS.index(self._order)]
        head: list[Part] = [("   step ", "muted")]
        head += [
            (
                f"{_TITLES.get(name, name) + (sign if name == first else ''):>{_COLUMN}}",
                "accent" if name == first else "muted",
            )
            for name in names
        ]
        if len(names) < len(MEASURED):
            head.append((" …", "muted"))
        lines = [self.line(*head)]
        for step in self._steps(height):
            values = rows[step, [MEASURED.index(name) for name in names]]
            label = str(step) if scene.site.stepped else "–"
            text = f" {FAULT_SIGN if faulty[step] else ' '}{label:>5} "
            text += "".join(f"{number(value) if not np.isnan(value) else '–':>{_COLUMN}}" for value in values)
            here = scene.site.stepped and step == scene.step
            lines.append(self.line((f"{text:<{width}}", "cursor" if here else "fault" if faulty[step] else "plain")))
        return lines

    def action_sort(self) -> None:
        """Another order of the steps."""
        self._order = _ORDERS[(_ORDERS.index(self._order) + 1) % len(_ORDERS)]
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Go to the step of the row."""
        if self.scene is None or self.scene.site is None or not self.scene.site.stepped:
            return
        steps = self._steps(self.size.height)
        if 1 <= event.y <= len(steps):
            self.post_message(StepStrip.Chosen(steps[event.y - 1]))

    def _steps(self, height: int) -> list[int]:
        """The steps in sight, the one shown among them."""
        scene = self.scene
        assert scene is not None and scene.site is not None
        values = scene.snapshot.series(scene.site, scene.look.statistic)
        steps = list(range(len(values)))
        if self._order != "step":  # what is not finite is last
            lost = np.inf if self._order == "smallest" else -np.inf
            by = np.where(np.isnan(values), lost, values)
            steps = np.argsort(by if self._order == "smallest" else -by, kind="stable").tolist()
        shown = max(height - 1, 1)
        here = steps.index(scene.step) if scene.step in steps else 0
        top = min(max(here - shown // 2, 0), max(len(steps) - shown, 0))
        return steps[top : top + shown]
