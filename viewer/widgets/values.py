"""A table of numbers: two dimensions of a tensor at a time, drawn where it is in sight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from diffusion_xray.tracer.layout import dimension_names

from ..branches import batch_name
from ..scene import Scene
from .canvas import Canvas, Part

__all__ = ["ValuesView", "exact"]

_HEAD: Final = 2
"""Lines above the numbers: where one is, and the columns."""
_ROW: Final = 7
"""Columns of the row numbers."""


class ValuesView(Canvas, ScrollView, can_focus=True, inherit_bindings=False):
    """The last two dimensions down and across; `,` `.` `<` `>` walk the others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", id="values.up", show=False, tooltip="Value above"),
        Binding("down,j", "move(1, 0)", "Down", id="values.down", show=False, tooltip="Value below"),
        Binding("left,h", "move(0, -1)", "Left", id="values.left", show=False, tooltip="Value to the left"),
        Binding("right,l", "move(0, 1)", "Right", id="values.right", show=False, tooltip="Value to the right"),
        Binding("pageup,ctrl+u", "move(-20, 0)", "Page up", id="values.page_up", show=False),
        Binding("pagedown,ctrl+d", "move(20, 0)", "Page down", id="values.page_down", show=False),
        Binding("g", "move(-1000000000, 0)", "First row", id="values.first", show=False),
        Binding("G", "move(1000000000, 0)", "Last row", id="values.last", show=False),
    ]
    HELP = "Arrows move the cursor, whose value is shown in full above."
    DEFAULT_CSS = """
    ValuesView {
        overflow: auto;
        scrollbar-size: 1 1;
        scrollbar-color: $foreground 25%;
        scrollbar-background: $background;
        scrollbar-corner-color: $background;
    }
    """

    _at = (0, 0)
    _extent = (0, 0)

    def watch_scene(self) -> None:
        """Draw what is on show, with the cursor still inside."""
        super().watch_scene()
        self._measure()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._measure()
        self.redraw()

    def watch_scroll_x(self, old_value: float, new_value: float) -> None:
        """Draw the columns that came into sight."""
        super().watch_scroll_x(old_value, new_value)
        self.redraw()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw the rows that came into sight."""
        super().watch_scroll_y(old_value, new_value)
        self.redraw()

    def paint(self, width: int, height: int) -> list[Strip]:
        """Where one is, the columns, the numbers in sight."""
        scene, plane = self.scene, self._plane()
        assert scene is not None
        if plane is None:
            return self.explain(f"? This tensor cannot be read: {scene.error}" if scene.error else "loading …")
        if not plane.size:
            return self.explain("This tensor holds no values: one of its dimensions is 0.")
        cell = _cell(plane)
        top, left = round(self.scroll_offset.y), self._left(cell)
        row, column = self._at
        columns = range(left, min(left + max((width - _ROW) // cell, 1), plane.shape[1]))
        down, across = self._dims(plane)
        corner = f"{down[:1]}╲{across[:1]}"
        head: list[Part] = [(f"{corner:>{_ROW - 1}} ", "muted")]
        head += [(f"{at:>{cell}}", "accent" if at == column else "muted") for at in columns]
        lines = [self._where(scene, plane, width), self.line(*head)]
        for at in range(top, min(top + height - _HEAD, plane.shape[0])):
            parts: list[Part] = [(f"{at:>{_ROW - 1}} ", "accent" if at == row else "muted")]
            for across_at in columns:
                value = plane[at, across_at]
                here = (at, across_at) == self._at
                bad = plane.dtype.kind == "f" and not np.isfinite(value)
                text = f"{exact(value):>{cell}}"
                parts += [" ", (text[1:], "cursor")] if here else [(text, "fault" if bad else "plain")]
            lines.append(self.line(*parts))
        return lines

    def action_move(self, down: int, across: int) -> None:
        """Move the cursor."""
        row, column = self._at
        self._go(row + down, column + across)

    def action_walk(self, by: int) -> None:
        """Another plane of the same batch entry."""
        if self.scene is not None:
            self.post_message(self.Looked(replace(self.scene.look, channel=self.scene.look.channel + by)))

    def action_batch(self, by: int) -> None:
        """Another batch entry."""
        if self.scene is not None:
            self.post_message(self.Looked(replace(self.scene.look, batch=self.scene.look.batch + by)))

    def action_extreme(self) -> None:
        """Go to the first value that is not finite, or to the largest magnitude."""
        plane = self._plane()
        if plane is not None and plane.size:
            numbers = plane.astype(np.float64)
            bad = ~np.isfinite(numbers)
            at = int(np.argmax(bad)) if bad.any() else int(np.argmax(np.abs(numbers)))
            self._go(*divmod(at, plane.shape[1]))

    def on_click(self, event: events.Click) -> None:
        """Put the cursor where the mouse is."""
        plane = self._plane()
        if plane is not None and event.y >= _HEAD and event.x >= _ROW:
            cell = _cell(plane)
            across = self._left(cell) + (event.x - _ROW) // cell
            self._go(event.y - _HEAD + round(self.scroll_offset.y), across)

    def _left(self, cell: int) -> int:
        """The first column drawn: one cut off at the left is left out, so that the last one in sight is whole."""
        return math.ceil(self.scroll_offset.x / cell)

    def _go(self, row: int, column: int) -> None:
        plane = self._plane()
        if plane is None or not plane.size:
            return
        self._at = min(max(row, 0), plane.shape[0] - 1), min(max(column, 0), plane.shape[1] - 1)
        cell = _cell(plane)
        region = Region(self._at[1] * cell, self._at[0], cell + _ROW, 1 + _HEAD)
        self.scroll_to_region(region, animate=False, force=True)
        self.redraw()

    def _measure(self) -> None:
        """As many lines and columns as the plane needs, and the cursor inside."""
        plane = self._plane()
        if plane is None:
            return
        if plane.shape != self._extent:
            self._extent = plane.shape
            self._at = (min(self._at[0], max(plane.shape[0] - 1, 0)), min(self._at[1], max(plane.shape[1] - 1, 0)))
        self.virtual_size = Size(plane.shape[1] * _cell(plane) + _ROW, plane.shape[0] + _HEAD)

    def _tensor(self) -> NDArray[Any] | None:
        found = self.scene.found if self.scene is not None else None
        return found if isinstance(found, np.ndarray) else None

    def _place(self, tensor: NDArray[Any]) -> tuple[int, ...]:
        """Indices of the dimensions that are not shown."""
        assert self.scene is not None
        lead = tensor.shape[:-2]
        if not lead or not tensor.size:
            return ()
        rest = lead[1:]
        inner = np.unravel_index(self.scene.look.channel % max(math.prod(rest), 1), rest) if rest else ()
        return (self.scene.look.batch % lead[0], *map(int, inner))

    def _plane(self) -> NDArray[Any] | None:
        tensor = self._tensor()
        if tensor is None:
            return None
        if tensor.ndim < 2:
            return tensor.reshape(1, -1)
        return tensor[self._place(tensor)] if tensor.size else tensor.reshape(0, 0)

    def _dims(self, plane: NDArray[Any]) -> tuple[str, str]:
        names = self._names()
        return (names[-2] if len(names) > 1 else "", names[-1] if names and plane.size else "")

    def _names(self) -> tuple[str, ...]:
        tensor = self._tensor()
        site = self.scene.site if self.scene is not None else None
        if tensor is None or site is None:
            return ()
        return site.dims if len(site.dims) == tensor.ndim else dimension_names(tensor.ndim)

    def _where(self, scene: Scene, plane: NDArray[Any], width: int) -> Strip:
        """The indices of the cursor, by the names of the dimensions, and its value in full."""
        tensor = self._tensor()
        assert tensor is not None and scene.site is not None
        value = plane[self._at]
        places = [*self._place(tensor), *self._at][-tensor.ndim :] if tensor.ndim else []
        left: list[Part] = []
        for axis, (name, at) in enumerate(zip(self._names(), places, strict=True)):
            branch = batch_name(scene.snapshot, scene.site, at, tensor.shape[0], scene.step) if axis == 0 else ""
            left += [(f" {name} ", "muted"), f"{at}", (f" ({branch})" if branch else "", "muted")]
        bad = plane.dtype.kind == "f" and not np.isfinite(value)
        right: list[Part] = [("= ", "muted"), (exact(value), "fault" if bad else "strong"), " "]
        return self.spread(left, right, width)


def exact(value: Any) -> str:
    """A number as short as possible while it is still told from every other one of its dtype."""
    return str(value).removeprefix("np.")


def _cell(plane: NDArray[Any]) -> int:
    """Columns of a number of this dtype, with one of space."""
    widths = {"float16": 11, "float32": 16, "float64": 25, "bool": 6}
    return widths.get(plane.dtype.name, 4 + plane.dtype.itemsize * 5 // 2)
