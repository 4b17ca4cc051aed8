"""One layer at one step: its numbers, its statistic over the steps, how its values are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from textual.strip import Strip

from diffusion_xray.tracer.faults import Born, born_text
from diffusion_xray.tracer.histogram import DTYPE_LIMITS, Histogram
from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import item_size
from diffusion_xray.tracer.text import number

from ..model import Snapshot
from ..render import FAULT_SIGN, braille_line, sample_series
from ..scene import Scene
from .canvas import Canvas, Part, Tone
from .histogram import histogram_lines

__all__ = ["Overview"]

_LABEL = 9
"""Columns of a chart's scale."""
_WIDE = 49
"""Columns that three numbers side by side need."""


class Overview(Canvas):
    """Numbers, line and histogram; nothing here needs the tensor."""

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """Numbers, then the line, then the histogram."""
        scene = self.scene
        assert scene is not None
        site = scene.site
        if site is None:
            return self.explain("Nothing has been recorded yet: no layer fired.", *_ending(scene))
        lines = [*self._facts(scene, site, width), self.line()]
        room = height - len(lines)
        chart = min(max(room // 2 - 2, 3), 9)
        if site.stepped and scene.snapshot.steps:
            lines += self._over_steps(scene, site, width, chart)
        elif site.stepped:
            lines += self.explain("No step is complete yet.", *_ending(scene))
        room = max(height - len(lines) - 2, 1)
        return [*lines, *histogram_lines(self, scene, _histogram(scene), width, min(room, 9))]

    def _facts(self, scene: Scene, site: SiteInfo, width: int) -> list[Strip]:
        at = scene.snapshot.at(site, scene.step)
        size = "×".join(map(str, site.shape)) or "scalar"
        kept = "tensor stored" if site.array else "statistics only"
        histogram = _histogram(scene) if not scene.loading else None
        low, high = (histogram.percentile(q) for q in (1, 99)) if histogram else (math.nan, math.nan)
        low, high = max(low, at["min"]), min(high, at["max"])  # a bin reaches beyond the values in it
        bad: list[Part] = []
        for name, column in (("NaN", "nans"), ("+Inf", "positive_infs"), ("−Inf", "negative_infs")):
            count = at[column]
            bad.append((f"{name} {number(count)}  ", "fault" if count > 0 else "muted"))
        zeros = at["zeros"] / at["count"] if at["count"] > 0 else math.nan
        pairs = [("mean", at["mean"]), ("std", at["std"]), ("|x|max", at["abs_max"])]
        pairs += [("min", at["min"]), ("max", at["max"]), ("norm", at["l2_norm"])]
        pairs += [("p1", low), ("p99", high), ("zero", zeros)]
        lines = [
            self.line(f" {size} {site.torch_dtype}", (f"  {_size(site)}  {kept}", "muted")),
            *self._numbers(pairs, 3 if width >= _WIDE else 2),
            self.line(" ", *bad),
            *self._cause(scene, site),
        ]
        headroom = histogram.headroom("float16") if histogram else math.nan
        if math.isfinite(headroom) and headroom < 3:
            limit = number(DTYPE_LIMITS["float16"][0])
            far = f"2^{headroom:.1f} times the largest value" if headroom > 0 else "the largest value is beyond"
            lines.append(self.line((f" float16 ends at {limit}: {far}", "warning")))
        return lines

    def _cause(self, scene: Scene, site: SiteInfo) -> list[Strip]:
        """Where values are not finite: what came right before; of the first fault also where it was born."""
        snapshot, before = scene.snapshot, scene.snapshot.before(site, scene.step)
        if not _is_faulty(snapshot, site, scene.step):
            return []
        first = snapshot.faults[0]
        is_first = first.site == site and first.step in (None, scene.step)
        lines = [self.line((f" born {born_text(first)}", "fault"))] if is_first and first.born != Born.UNKNOWN else []
        if before is None:
            return lines
        step = before.step or 0
        if _is_faulty(snapshot, before.site, step):
            return [*lines, self.line((f" not finite before it either: {before.site.name}", "fault"))]
        extreme, (limit, _) = snapshot.at(before.site, step)["abs_max"], DTYPE_LIMITS["float16"]
        share = f", {extreme / limit:.0%} of float16's largest" if extreme > limit / 1000 else ""
        return [*lines, self.line((f" before it: {before.site.name}  |x|max {number(extreme)}{share}", "fault"))]

    def _numbers(self, pairs: Sequence[tuple[str, float]], columns: int) -> list[Strip]:
        cells: list[list[Part]] = [[(f" {name:<7}", "muted"), f"{number(value):<8}"] for name, value in pairs]
        rows = (cells[start : start + columns] for start in range(0, len(cells), columns))
        return [self.line(*(part for cell in row for part in cell)) for row in rows]

    def _over_steps(self, scene: Scene, site: SiteInfo, width: int, rows: int) -> list[Strip]:
        values = scene.snapshot.series(site, scene.look.statistic)
        faulty = scene.snapshot.faulty(site)
        columns = max(width - _LABEL - 1, 1)
        finite = values[np.isfinite(values)]
        title = self.line((f" {scene.look.statistic} over steps", "accent"))
        if not finite.size:
            return [title, self.line((" no finite value at any step", "muted"))]
        low, high = min(0.0, float(finite.min())), float(finite.max())
        curve = braille_line(values, rows=rows, columns=columns, low=low, high=high)
        tones = _column_tones(scene.step, faulty, columns)
        marks = [FAULT_SIGN if tone == "fault" else "▲" if tone == "accent" else "─" for tone in tones]
        labels = {0: number(high), rows - 1: number(low)}
        body = [
            Strip.join(
                [
                    self.line((f"{labels.get(row, ''):>{_LABEL - 1}}{'┤' if row in labels else '│'}", "muted")),
                    self.signs(curve[row], tones),
                ]
            )
            for row in range(rows)
        ]
        axis = Strip.join([self.line((" " * (_LABEL - 1) + "└", "muted")), self.signs(marks, tones)])
        return [title, *body, axis, self.line()]


def _is_faulty(snapshot: Snapshot, site: SiteInfo, step: int) -> bool:
    faulty = snapshot.faulty(site)
    return bool(len(faulty) and faulty[min(step if site.stepped else 0, len(faulty) - 1)])


def _histogram(scene: Scene) -> Histogram | None:
    return scene.found if isinstance(scene.found, Histogram) else None


def _column_tones(step: int, faulty: NDArray[np.bool_], columns: int) -> list[Tone]:
    bad = sample_series(faulty.astype(np.float64), columns) > 0
    here = round(step / max(len(faulty) - 1, 1) * (columns - 1))
    return ["accent" if at == here else "fault" if bad[at] else "plain" for at in range(columns)]


def _size(site: SiteInfo) -> str:
    size = float(math.prod(site.shape) * item_size(site.torch_dtype))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _ending(scene: Scene) -> list[str]:
    info = scene.snapshot.info
    if info.error:
        return [f"The run ended by {info.error.get('type')}: {info.error.get('message')}"]
    return ["It is still being written; steps appear here as they come."] if scene.snapshot.is_live else []
