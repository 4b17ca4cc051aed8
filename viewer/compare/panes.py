"""A, B, and their difference, as pictures; or their numbers, where there are no tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from textual.strip import Strip

from diffusion_xray.tracer.info import SiteInfo
from diffusion_xray.tracer.layout import MEASURED
from diffusion_xray.tracer.text import number

from ..planes import Plane, plane_of, value_range
from ..render import colour_bar, heat_map
from ..widgets.canvas import Part, centred, to_strips
from .canvas import PairCanvas
from .draw import difference, difference_range, wiped
from .state import Comparing, Found

__all__ = ["Pane", "Side"]

Side = Literal["A", "B", "difference"]
_PARTS: Final = re.compile(r"""'[^']*'[),]*\s*|"[^"]*"\s*|[^'"\s(=]+[\s(=]*|.""")
"""Pieces of code that stay whole: a quoted name with what closes it, or a word."""
_TOLD: Final = ("mean", "std", "abs_max", "min", "max", "nans", "positive_infs", "negative_infs", "zeros")
_NAMES: Final = {"positive_infs": "+inf", "negative_infs": "−inf", "abs_max": "|x| max", "nans": "NaN"}


class Pane(PairCanvas, can_focus=True):
    """One of the three."""

    DEFAULT_CSS = "Pane { width: 1fr; }"

    def __init__(self, side: Side, *, id: str) -> None:  # noqa: A002 - as every widget calls it
        super().__init__(id=id)
        self._side: Side = side

    def depends_on(self, state: Comparing) -> tuple[object, ...]:
        """What was read, and how to draw it."""
        shared = state.comparison, state.row, state.link, state.found, state.look, state.loading
        return (*shared, state.mode, state.wipe, state.flicker) if self._side == "difference" else shared

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """The picture, or why there is none."""
        state = self.state
        assert state is not None
        if not state.table.pairing.pairs:
            return self._nothing_in_common(state)
        if state.lonely is not None:
            side, site = state.lonely
            return self.explain(
                f"{site.key} fired in {side} alone." if self._side == side else "", f"{site.module_class}"
            )
        found = state.found
        if found is None or state.pair is None:
            return self.explain("loading …" if state.loading else "")
        if found.a is None or found.b is None:
            return self._numbers(state, found, width)
        planes = self._planes(state, found)
        if not planes[0].values.size:
            return self.explain("This tensor holds no values: one of its dimensions is 0.")
        return self._picture(state, planes, width, height)

    def _nothing_in_common(self, state: Comparing) -> list[Strip]:
        if self._side != "difference":
            return []
        pairing = state.table.pairing
        told = [
            "The two traces have no layer in common.",
            f"A has {len(pairing.only_a)} tensors, B {len(pairing.only_b)}, all under other names.",
            "Where B is a port of the model in A, say what its modules are called there:",
        ]
        return self._advise(told, '--names "unet.**=transformer.**"')

    def _advise(self, told: Sequence[str], code: str) -> list[Strip]:
        """Lines that explain, and code broken where no name is."""
        parts = _broken(code, max(self.size.width - 4, 10))
        return [*self.explain(*told), self.line(), *(self.line((f"   {part}", "accent")) for part in parts)]

    def _planes(self, state: Comparing, found: Found) -> tuple[Plane, Plane]:
        assert state.pair is not None and found.a is not None and found.b is not None
        look = replace(state.look, batch=0)  # one entry of the batch was read
        return plane_of(found.a, state.pair.a, look), plane_of(found.b, state.pair.b, look)

    def _picture(self, state: Comparing, planes: tuple[Plane, Plane], width: int, height: int) -> list[Strip]:
        look, (first, second) = state.look, planes
        colours, mode = look.colours, state.mode
        with np.errstate(over="ignore"):
            both = np.concatenate([first.values.ravel(), second.values.ravel()])
        low, high = value_range(both, look)
        values = first.values if self._side == "A" else second.values
        if self._side == "difference":
            if mode in ("signed", "absolute", "relative"):
                values = difference(first.values, second.values, mode)
                low, high = difference_range(values, mode, clipped=look.clipped)
                colours = "coolwarm" if mode == "signed" else "inferno"
            elif mode == "wipe":
                values = wiped(first.values, second.values, state.wipe)
            else:
                values = second.values if state.flicker else first.values
        flat = high == low == 0
        cells = heat_map(
            values,
            rows=max(height - 2, 1),
            columns=max(width - 2, 1),
            low=low,
            high=high if not flat else (1.0 if mode != "signed" or self._side != "difference" else 0.0),
            colours=colours,
            keep_aspect=first.spatial,
            shade=look.shade,
        )
        caption = self.spread(self._caption(state, first), self._batch(state), width)
        return [caption, *centred(to_strips(cells), width), self._scale(low, high, colours, width)]

    def _caption(self, state: Comparing, plane: Plane) -> list[Part]:
        if self._side == "difference":
            return self._verdict(state)
        rows, columns = plane.values.shape
        channel = f" · channel {state.look.channel % plane.channels}/{plane.channels}" if plane.channels > 1 else ""
        return [(f" {rows}×{columns}{channel}", "muted")]

    def _batch(self, state: Comparing) -> list[Part]:
        assert state.pair is not None
        shape = state.pair.a.shape
        if self._side == "difference" or len(shape) < 2 or shape[0] < 2:
            return []
        return [(f"batch {state.look.batch % shape[0]}/{shape[0]} ", "muted")]

    def _verdict(self, state: Comparing) -> list[Part]:
        """The distance of the two tensors at this step."""
        divergence = state.found.divergence if state.found else None
        if divergence is None or math.isnan(divergence.distance.max_abs):
            error = state.found.error if state.found else ""
            return [(f" ? {error}", "fault")] if error else [(" measuring …", "muted")]
        distance = divergence.distance
        if distance.max_abs == 0:
            return [(" equal in every element", "good")]
        where = np.unravel_index(distance.where, divergence.shape) if divergence.shape else ()
        place = ", ".join(str(int(index)) for index in where)
        shown = "∞" if math.isinf(distance.max_abs) else number(distance.max_abs)
        relative = "∞" if math.isinf(distance.relative_l2) else number(distance.relative_l2)
        over = distance.relative_l2 > state.limits(state.row)[divergence.link]
        return [
            (f" rel L2 {relative}", "fault" if over else "muted"),
            (f" · max {shown} at [{place}] · {100 * distance.over:.3g} % over", "muted"),
        ]

    def _scale(self, low: float, high: float, colours: str, width: int) -> Strip:
        assert self.state is not None
        if math.isnan(low):
            return self.line((" no finite value", "fault"))
        if low == high:
            return self.line((f" {number(low)} everywhere", "muted"))
        ends = (number(low), number(high))
        room = min(width - len(ends[0]) - len(ends[1]) - 4, 40)
        bar = to_strips(colour_bar(max(room, 0), colours=colours, shade=self.state.look.shade))
        return Strip.join([self.line((f" {ends[0]} ", "muted")), *bar, self.line((f" {ends[1]}", "muted"))])

    def _numbers(self, state: Comparing, found: Found, width: int) -> list[Strip]:
        """Statistics side by side, and what would have kept the tensors."""
        pair = state.pair
        assert pair is not None
        lines = self._why(state, found)
        if found.statistics is None:
            return lines
        if self._side == "difference" and state.mode != "signed":
            lines += [*self.explain(f"No tensors to draw as {state.mode}: the numbers are A − B.")[1:], self.line()]
        ours, theirs = (dict(zip(MEASURED, map(float, row), strict=True)) for row in found.statistics)
        for name in _TOLD:
            a, b = ours[name], theirs[name]
            if name in ("nans", "positive_infs", "negative_infs", "zeros") and not a and not b:
                continue
            value = {"A": a, "B": b, "difference": a - b}[self._side]
            differs = (
                self._side == "difference"
                and not math.isclose(a, b, rel_tol=1e-6)
                and not (math.isnan(a) and math.isnan(b))
            )
            apart: Part = (f"{number(value):>10}", "fault" if differs else "plain")
            lines.append(self.line((f" {_NAMES.get(name, name):>9}", "muted"), apart))
        if self._side == "difference":
            divergence = found.divergence
            if divergence is not None and not math.isnan(divergence.histogram):
                share = f"{100 * divergence.histogram:.3g} %"
                lines += self.explain(f"At least {share} of the values lie in other bins of the histogram.")
            if divergence is not None and not math.isnan(divergence.distance.relative_l2):
                text = number(divergence.distance.relative_l2)
                lines += self.explain(f"Relative L2 at least {text}: from mean and std, not from tensors.")
        return [line.crop(0, width) for line in lines]

    def _why(self, state: Comparing, found: Found) -> list[Strip]:
        pair = state.pair
        assert pair is not None
        site = {"A": pair.a, "B": pair.b}.get(self._side)
        if self._side == "difference":
            if found.error:
                return self.explain(f"? Not readable: {found.error}")
            if pair.problem:
                return self.explain(pair.problem, "Their statistics differ by:")
            lacking = [f"{s}" for s, side in (("A", pair.a), ("B", pair.b)) if not side.array]
            if lacking:
                text = f"Statistics only, as {' and '.join(lacking)} kept no tensors of this layer. To keep them:"
                return [*self._advise([text], _capture(pair.a if lacking[0] == "A" else pair.b)), self.line()]
            return self.explain("Statistics only: one of the tensors was not kept at this step.")
        assert site is not None
        size = "×".join(map(str, site.shape)) or "scalar"
        return [self.line((f" {size} {site.torch_dtype}", "muted")), self.line()]


def _capture(site: SiteInfo) -> str:
    """The argument of a tracer that keeps the tensors of a layer."""
    return f"capture=Capture(modules={site.name!r}" + (", inputs=True)" if site.port.startswith("input") else ")")


def _broken(code: str, room: int) -> list[str]:
    """Code in lines, none of which begins within a quoted name; one that is wider than a line keeps its end."""
    lines = [""]
    for part in _PARTS.findall(code):
        width = len(part.rstrip())
        if lines[-1] and len(lines[-1]) + width > room:
            lines.append("")
        lines[-1] += part if width <= room else f"…{part[width - room + 1 :]}"
    return [line.rstrip() for line in lines]
