"""The line at the top: what trace this is, and how it stands."""

from __future__ import annotations

from collections.abc import Sequence

from textual.strip import Strip

from ..render import FAULT_SIGN, NARROW_SIGN
from ..scene import Scene
from .canvas import Canvas, Part

__all__ = ["TraceHeader"]


class TraceHeader(Canvas):
    """Name, pipeline, size and status of the trace."""

    DEFAULT_CSS = "TraceHeader { height: 1; background: $panel; }"

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """The trace alone."""
        return (scene.snapshot,)

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """One line."""
        assert self.scene is not None
        snapshot = self.scene.snapshot
        steps = "1 step" if snapshot.steps == 1 else f"{snapshot.steps} steps"
        facts = " · ".join(filter(None, (snapshot.info.pipeline, steps, f"{snapshot.modules} layers")))
        left: list[Part] = [(" dxray ", "accent"), (f" {snapshot.title} ", "strong"), (f" {facts}", "muted")]
        return [self.spread(left, [*self._status(), *self._faults(), " "], width)]

    def _status(self) -> list[Part]:
        assert self.scene is not None
        snapshot = self.scene.snapshot
        progress = f" {snapshot.steps}/{snapshot.planned_steps}" if snapshot.planned_steps > snapshot.steps else ""
        if snapshot.is_live and snapshot.quiet:
            return [(f"◌ nothing new for {snapshot.quiet / 60:.0f} min{progress}", "accent")]
        if snapshot.is_live:
            return [(f"● LIVE{progress}", "good")]
        if snapshot.status == "complete":
            return [("complete", "muted")]
        return [(f"◼ {snapshot.status}{progress}", "fault")]

    def _faults(self) -> list[Part]:
        assert self.scene is not None
        faults, narrow = len(self.scene.snapshot.faults), len(self.scene.snapshot.narrow)
        parts: list[Part] = [(f"  {FAULT_SIGN} {faults} non-finite", "fault")] if faults else []
        return [*parts, (f"  {NARROW_SIGN} {narrow} large for float16", "warning")] if narrow else parts
