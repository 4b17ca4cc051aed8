"""The linked steps from left to right, coloured by the relative distance of the layer shown, to scrub in."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from textual.strip import Strip

from diffusion_xray.tracer.text import number

from ..render import FAULT_SIGN, heat_map
from ..widgets.canvas import Part, Tone, to_strips
from ..widgets.timeline import Timeline, tick_distance
from .canvas import PairCanvas
from .draw import level, relative
from .state import Comparing, label_of

__all__ = ["DivergenceStrip"]


class DivergenceStrip(PairCanvas, Timeline):
    """Cells coloured by the distance on a logarithmic scale, an axis, and what is known of the step shown."""

    DEFAULT_CSS = "DivergenceStrip { height: 3; padding: 0 1; }"

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """The numbers of one layer, and where one is."""
        return state.comparison, state.revision, state.tolerance, state.row, state.link, state.look.shade, state.running

    def paint(self, width: int, height: int) -> Sequence[Strip]:  # noqa: ARG002 - its height is fixed
        """Cells, axis and status."""
        state = self.state
        assert state is not None
        if not state.steps:
            return [self.line(("no step of A has a partner in B: = links them in another way", "accent")), self.line()]
        cells = self._cells(state, width)
        return [cells, self._axis(state, width), self.spread(self._where(state), self._progress(state), width)]

    @property
    def steps(self) -> int:
        """Those that are linked."""
        return self.state.steps if self.state is not None else 0

    def _cells(self, state: Comparing, width: int) -> Strip:
        pair = state.pair
        if pair is None:
            return self.line(("one trace alone has this layer", "muted"))
        if not pair.a.stepped:
            text = relative(float(state.table.relative_l2[state.row, 0]), int(state.table.evidence[state.row, 0]))
            return self.line((f"fired outside of the loop, relative L2 {text}", "muted"))
        columns = np.arange(width)
        first = columns * state.steps // width
        last = np.maximum((columns + 1) * state.steps // width, first + 1)
        values = state.table.relative_l2[state.row, : state.steps]
        known = np.where(np.isnan(values), -1.0, values)
        largest = np.array([known[start:stop].max() for start, stop in zip(first, last, strict=True)])
        colours = to_strips(
            heat_map(
                np.nan_to_num(level(np.where(largest < 0, math.nan, largest)))[None],
                rows=1,
                columns=width,
                low=0,
                high=1,
                colours="inferno",
                keep_aspect=False,
                shade=state.look.shade,
            )
        )[0]
        parts = []
        for column, value in enumerate(largest):
            if value < 0:
                parts.append(self.signs(" ", ["muted"]))
            elif value == 0:
                parts.append(self.signs("·", ["muted"]))
            elif math.isinf(value):
                parts.append(self.signs(FAULT_SIGN, ["fault"]))
            else:
                parts.append(colours.crop(column, column + 1))
        return Strip.join(parts).simplify()

    def _axis(self, state: Comparing, width: int) -> Strip:
        links = state.table.links.pairs
        signs, tones = [" "] * width, ["muted"] * width
        every = tick_distance(len(links), width)
        here = f"▲{links[state.link][0]}"
        marks: list[tuple[int, str, Tone]] = []
        over = self._over(state)
        if over and over[0] != state.link:
            marks.append((over[0], f"▲{links[over[0]][0]} first", "fault"))
        marks.append((state.link, here, "accent"))
        marks += [(link, str(links[link][0]), "muted") for link in range(0, len(links), every)]
        taken = [False] * width
        for link, text, tone in sorted(marks, key=lambda mark: ("accent", "fault", "muted").index(mark[2])):
            at = min(-(-link * width // len(links)), max(width - len(text), 0))
            cells = range(at, min(at + len(text), width))
            if any(taken[max(at - 1, 0) : at + len(text) + 1]):
                continue
            for place, sign in zip(cells, text, strict=False):
                signs[place], tones[place], taken[place] = sign, tone, True
        return self.signs(signs, tones)  # type: ignore[arg-type]  # tones of the marks

    @staticmethod
    def _over(state: Comparing) -> list[int]:
        """The steps at which the layer shown is over the tolerance."""
        if state.pair is None or not state.pair.a.stepped:
            return []
        values = state.table.relative_l2[state.row, : state.steps]
        return [int(link) for link in np.flatnonzero(values > state.limits(state.row)[: state.steps])]

    def _where(self, state: Comparing) -> list[Part]:
        trace_a, trace_b = state.comparison.a, state.comparison.b
        links = state.table.links
        step_a, step_b = links.pairs[state.link]
        parts: list[Part] = [(f"step {step_a} ↔ {step_b}" if step_a != step_b else f"step {step_a}", "accent")]
        for sign, ours, theirs in (("t", trace_a.timestep, trace_b.timestep), ("σ", trace_a.sigma, trace_b.sigma)):
            values = [number(float(ours[step_a])), number(float(theirs[step_b]))]
            if values != ["–", "–"]:
                parts.append((f"  {sign}={values[0]}" + (f" ↔ {values[1]}" if values[0] != values[1] else ""), "muted"))
        if links.by != "index":
            parts.append((f"  by {links.by}", "muted"))
        lonely = [f"{len(steps)} in {side} only" for side, steps in (("A", links.only_a), ("B", links.only_b)) if steps]
        if lonely:
            parts.append((f"  steps {', '.join(lonely)}", "accent"))
        first = state.first
        if first is not None:
            when = f"step {first.steps[0]}" if first.steps else "outside of the loop"
            parts.append((f"   first over: {when} {label_of(first.pair.a)}", "fault"))
        return parts

    @staticmethod
    def _progress(state: Comparing) -> list[Part]:
        if state.running and state.total:
            return [(f"comparing {state.done}/{state.total}", "good")]
        return []
