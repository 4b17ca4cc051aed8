"""How the values are spread: at this step, and as it changes over the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from textual.strip import Strip

from diffusion_xray.tracer.histogram import Histogram
from diffusion_xray.tracer.text import number

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
        title = self.line((" over the steps, from top to bottom", "accent"))
        if scene.look.ridge:
            body = self._ridge(scene, [step for step, _ in found], level, rows - 1)
        else:
            body = self._heat(scene, [step for step, _ in found], level, rows - 1)
        middle, start, end = number((low + high) / 2), number(low), number(high)
        room = max(columns - len(start) - len(end), 0)
        return [title, *body, self.line((f"       {start}{middle:─^{room}}{end}", "muted"))]

    def _heat(self, scene: Scene, steps: Sequence[int], level: NDArray[np.float64], rows: int) -> list[Strip]:
        """A row of colours for every step; two to a line where there are many."""
        one_each = len(steps) <= rows or scene.look.shade
        rows = max(min(rows, len(steps) if one_each else -(-len(steps) // 2)), 1)
        cells = heat_map(
            level,
            rows=rows,
            columns=level.shape[1],
            low=0,
            high=float(np.nanmax(level, initial=0.0)),
            colours="inferno",
            keep_aspect=False,
            shade=scene.look.shade,
        )
        shown = [steps[row * len(steps) // rows] for row in range(rows)]
        here = max((row for row in range(rows) if shown[row] <= scene.step), default=0)
        return [
            Strip.join([self._label(shown[row], here=row == here), strip]) for row, strip in enumerate(to_strips(cells))
        ]

    def _ridge(self, scene: Scene, steps: Sequence[int], level: NDArray[np.float64], rows: int) -> list[Strip]:
        """Bars for every step, one above the other; of some steps where there are more than lines."""
        shown = np.unique(np.linspace(0, len(steps) - 1, max(min(len(steps), rows), 1)).round().astype(int)).tolist()
        tall = min(max(rows // len(shown), 1), 3)
        here = max((place for place in shown if steps[place] <= scene.step), default=0)
        lines = []
        for place in shown:
            tone: Tone = "accent" if place == here else "plain"
            for row, glyphs in enumerate(bars(level[place], rows=tall, top=float(np.nanmax(level, initial=0.0)))):
                label = self._label(steps[place], here=place == here) if row == tall - 1 else self.line(" " * 7)
                lines.append(Strip.join([label, self.line(("".join(glyphs), tone))]))
        return lines

    def _label(self, step: int, *, here: bool) -> Strip:
        return self.line((f"{'▶' if here else ' '}{step:>5} ", "accent" if here else "muted"))


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
    bad = [canvas.line((f" and {lost} value{'s' if lost != 1 else ''} not finite", "fault"))] if lost else []
    return [title, *body, axis, *bad]


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
