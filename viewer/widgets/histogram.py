"""How the values are spread: at this step, and as it changes over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from textual.strip import Strip

from diffusion_xray.tracer.histogram import Histogram
from diffusion_xray.tracer.summary import number

from ..render import bars, heat_map
from ..scene import Scene
from ..views.hist import Spread
from .canvas import Canvas, Tone, to_strips

__all__ = ["HistogramView", "histogram_lines"]


class HistogramView(Canvas):
    """Bars of this step above, a row of colours for every step below."""

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """This step above, all steps below."""
        scene = self.scene
        assert scene is not None
        assert scene.site is not None
        found = scene.found or Spread()
        rows = max((height - 4) // 2, 3) if scene.site.stepped else max(height - 4, 3)
        lines = histogram_lines(self, scene, found.histogram, width, rows)
        if not scene.site.stepped or scene.loading:
            return lines
        return [*lines, self.line(), *self._over_steps(scene, found.over_steps, width, height - len(lines) - 2)]

    def _over_steps(self, scene: Scene, found: Sequence[tuple[int, Histogram]], width: int, rows: int) -> list[Strip]:
        if not found or rows < 1:
            return []
        low, high = _bounds([histogram for _, histogram in found], clipped=scene.look.clipped)
        columns = max(width - 8, 1)
        counts = np.array([histogram.linear(columns, low, high) for _, histogram in found])
        highest = counts.max(axis=1, keepdims=True)
        level = counts / np.where(highest > 0, highest, 1)
        level = np.log1p(level * 1000) if scene.look.log else np.sqrt(level)
        level[~(highest > 0).ravel()] = np.nan
        one_each = len(found) <= rows or scene.look.shade
        rows = min(rows, len(found) if one_each else -(-len(found) // 2))
        cells = heat_map(
            level,
            rows=rows,
            columns=columns,
            low=0,
            high=float(np.nanmax(level, initial=0.0)),
            colours="inferno",
            keep_aspect=False,
            shade=scene.look.shade,
        )
        lines = [self.line((" over the steps, from top to bottom", "accent"))]
        shown = [found[row * len(found) // rows][0] for row in range(rows)]
        here = max((row for row in range(rows) if shown[row] <= scene.step), default=0)
        for row, strip in enumerate(to_strips(cells)):
            label = self.line((f"{'▶' if row == here else ' '}{shown[row]:>5} ", "accent" if row == here else "muted"))
            lines.append(Strip.join([label, strip]))
        return lines


def histogram_lines(canvas: Canvas, scene: Scene, histogram: Histogram | None, width: int, rows: int) -> list[Strip]:
    """Bars of the values at the step shown, with a title above and the range below."""
    when = f"step {scene.step}" if scene.site is not None and scene.site.stepped else "its only call"
    title = canvas.line((f" values at {when}", "accent"), (" (log counts)" if scene.look.log else "", "muted"))
    if histogram is None:
        reading = "…" if scene.loading else "no histogram was stored"
        return [title, canvas.line((f" {(scene.error and '?') or reading}", "muted"))]
    low, high = _bounds([histogram], clipped=scene.look.clipped)
    if not np.isfinite(low):
        return [title, canvas.line((" no finite value", "fault"))]
    columns = max(width - 2, 1)
    counts = histogram.linear(columns, low, high)
    grid = bars(np.log1p(counts) if scene.look.log else counts, rows=rows)
    tone: Tone = "muted" if scene.loading else "plain"
    body = [canvas.line((" " + "".join(row), tone)) for row in grid]
    middle = number((low + high) / 2)
    start, end = number(low), number(high)
    room = max(columns - len(start) - len(end), 0)
    axis = canvas.line((f" {start}{middle:─^{room}}{end}", "muted"))
    lost = histogram.not_finite
    return [title, *body, axis, *([canvas.line((f" and {lost} values that are not finite", "fault"))] if lost else [])]


def _bounds(histograms: Sequence[Histogram], *, clipped: bool) -> tuple[float, float]:
    """The range that holds the finite values of all histograms; NaN where there are none."""
    ends = []
    for histogram in histograms:
        _, lower, upper = histogram.finite()
        if lower.size:
            ends.append((histogram.percentile(1), histogram.percentile(99)) if clipped else (lower[0], upper[-1]))
    if not ends:
        return float("nan"), float("nan")
    low, high = min(start for start, _ in ends), max(stop for _, stop in ends)
    return float(low), float(high if high > low else low + max(abs(low) * 0.125, 1e-30))
