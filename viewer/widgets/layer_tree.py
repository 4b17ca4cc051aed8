"""The layers in call order, each with a line of its statistic over the steps and a mark where it is not finite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from diffusion_xray.tracer.text import number

from ..arrangement import Arrangement, Row
from ..faults import fault_text
from ..model import Layer, Snapshot
from ..render import FAULT_SIGN, NARROW_SIGN, sparkline
from ..scene import Scene
from .canvas import Canvas, Part

__all__ = ["LayerTree"]

_SPARK = 8
_VALUE = 6
_OWN = 6
"""Characters of its own that a name keeps at least, when it is cut in the middle."""


class LayerTree(Canvas, ScrollView, can_focus=True, inherit_bindings=False):
    """A tree that draws only the rows in sight, so that its size costs nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", id="tree.up", show=False, tooltip="Choose the layer above"),
        Binding("down,j", "move(1)", "Down", id="tree.down", show=False, tooltip="Choose the layer below"),
        Binding("left,h", "fold", "Fold", id="tree.fold", show=False, tooltip="Fold the layer, or go to its parent"),
        Binding("right,l", "unfold", "Unfold", id="tree.unfold", show=False, tooltip="Show what is inside the layer"),
        Binding("enter", "enter", "Fold or unfold", id="tree.toggle", show=False),
        Binding("pageup", "move(-20)", "Page up", id="tree.page_up", show=False),
        Binding("pagedown", "move(20)", "Page down", id="tree.page_down", show=False),
        Binding("ctrl+u", "move(-10)", "Half a page up", id="tree.half_up", show=False),
        Binding("ctrl+d", "move(10)", "Half a page down", id="tree.half_down", show=False),
        Binding("g", "move(-1000000)", "First layer", id="tree.first", show=False),
        Binding("G", "move(1000000)", "Last layer", id="tree.last", show=False),
    ]
    HELP = (
        "Layers in call order. A mark `✗31` says: not finite from step 31, here or further down; `▲`: a value from "
        "8188 on, an eighth of what float16 can hold, at some step."
    )
    DEFAULT_CSS = "LayerTree { overflow-y: auto; overflow-x: hidden; scrollbar-size-vertical: 1; }"

    arrangement: reactive[Arrangement] = reactive(Arrangement(), init=False, repaint=False)

    @dataclass
    class Highlighted(Message):
        """A layer was chosen."""

        layer: Layer

        def can_replace(self, message: Message) -> bool:
            """Only the last of many counts."""
            return isinstance(message, LayerTree.Highlighted)

    @dataclass
    class Opened(Message):
        """A layer without anything inside was entered."""

        layer: Layer

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - as every widget calls it
        super().__init__(id=id)
        self._unfolded: set[str] = set()
        self._rows: list[Row] = []
        self._kept: dict[tuple[str, int], Strip] = {}
        self._places: dict[str, int] = {}
        self.pins: set[str] = set()
        """Names of the layers that the user wants to find again."""
        self._chosen = ""
        self._filled_from: Snapshot | None = None
        self._sorted_by = self._statistic = ""

    def choose(self, name: str, *, unfold: bool = False) -> None:
        """Put the cursor on a layer, unfolding what it lies in, and with `unfold` itself; nothing is posted."""
        assert self.scene is not None
        self._chosen = name
        above = _above(name) | ({name} if unfold else set())
        if not above <= self._unfolded or not self._rows:
            self._unfolded |= above
            self._fill()
        self._show_cursor()

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """The layers and their statistic; the step shown changes nothing here."""
        return scene.snapshot, scene.look.statistic

    def watch_scene(self) -> None:
        """Draw again; with new layers, list them again."""
        if self.scene is not None and self.scene.look.statistic != self._statistic:
            self._statistic = self.scene.look.statistic
            self._kept.clear()
        super().watch_scene()
        if self.scene is None:
            return
        sorted_by = self.scene.look.statistic if self.arrangement.order != "called" else ""
        if self.scene.snapshot is not self._filled_from or sorted_by != self._sorted_by:
            self._sorted_by = sorted_by
            self._fill()
            self._show_cursor()

    def watch_arrangement(self) -> None:
        """List what is asked for; where the chosen layer is not of it, choose the first."""
        if not self.arrangement.is_list and self.lists(self._chosen):
            self._unfolded |= _above(self._chosen)
        self._fill()
        self.scroll_to(y=0, animate=False)
        if self._rows and self._index() is None:
            self._move_to(0)
        self._show_cursor()

    def choose_first(self) -> None:
        """Go to the top of the list."""
        if self._rows:
            self._move_to(0)

    def paint(self, width: int, height: int) -> list[Strip]:
        """The rows in sight."""
        scene = self.scene
        assert scene is not None
        if not self._rows:
            return self.explain(self.arrangement.why_empty)
        top = round(self.scroll_offset.y)
        return [self._drawn_row(row, width) for row in self._rows[top : top + height]]

    def _drawn_row(self, row: Row, width: int) -> Strip:
        """A row, kept as long as it looks the same: moving the cursor draws two."""
        if row.layer.name == self._chosen:
            return self._draw(row, width)
        key = (row.layer.name, width)
        if key not in self._kept:
            self._kept[key] = self._draw(row, width)
        return self._kept[key]

    def notify_style_update(self) -> None:
        """Draw in the colours of the new theme."""
        super().notify_style_update()
        self._kept.clear()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Draw the rows that came into sight."""
        super().watch_scroll_y(old_value, new_value)
        self.redraw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._measure()
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Choose the row, and fold it where its sign was hit."""
        index = event.y + round(self.scroll_offset.y)
        if 0 <= index < len(self._rows):
            row = self._rows[index]
            self._move_to(index)
            if row.layer.children and event.x <= row.depth * 2 + 1:
                self.action_enter()

    def action_move(self, by: int) -> None:
        """Go some rows up or down."""
        if self._rows:
            self._move_to(min(max((self._index() or 0) + by, 0), len(self._rows) - 1))

    def action_fold(self) -> None:
        """Fold the layer, or go to its parent."""
        index = self._index()
        if index is None or self.arrangement.is_list:
            return
        row = self._rows[index]
        if row.layer.name in self._unfolded and row.layer.children:
            self.action_enter()
            return
        parent = next((at for at in range(index, -1, -1) if self._rows[at].depth < row.depth), None)
        if parent is not None:
            self._move_to(parent)

    def action_unfold(self) -> None:
        """Show what is inside the layer."""
        index = self._index()
        if (
            index is not None
            and self._rows[index].layer.name not in self._unfolded
            and self._rows[index].layer.children
        ):
            self.action_enter()

    def action_enter(self) -> None:
        """Fold or unfold the layer, or open it where nothing is inside."""
        index = self._index()
        if index is None:
            return
        if self.arrangement.is_list or not self._rows[index].layer.children:
            self.post_message(self.Opened(self._rows[index].layer))
            return
        self._unfolded ^= {self._rows[index].layer.name}
        self._fill()

    def _draw(self, row: Row, width: int) -> Strip:
        assert self.scene is not None
        layer = row.layer
        listed = self.arrangement.is_list
        sign = " " if not layer.children or listed else "▾" if layer.name in self._unfolded else "▸"
        label = _short(layer.name, width - _SPARK - _VALUE - 4) if listed else layer.label
        sign = "*" if layer.name in self.pins else sign
        left: list[Part] = [f"{'  ' * row.depth}{sign} ", label if layer.module else (label, "muted")]
        spark, value = self._series(layer)
        if not math.isnan(row.score):
            value = f"Δ{row.score:.2g}" if self.arrangement.order == "changed" else _compact(row.score)
        fault = f"{NARROW_SIGN if layer.narrow and layer.fault is not None else ''}{fault_text(layer.fault)}"
        right: list[Part] = [(sign, "fault" if sign == FAULT_SIGN else "muted") for sign in f"{spark:<{_SPARK}}"]
        if layer.narrow and not fault:
            right += [(NARROW_SIGN, "warning"), (f"{value:>{_VALUE}}", "muted")]
        else:
            right.append((f"{fault or value:>{_VALUE + 1}}", "fault" if fault else "muted"))
        if layer.name == self._chosen:
            return self.spread(_plain(left), _plain(right), width).apply_style(self.tone("cursor"))
        return self.spread(left, right, width)

    def _series(self, layer: Layer) -> tuple[str, str]:
        assert self.scene is not None
        if layer.module is None:
            return "", ""
        snapshot, site = self.scene.snapshot, layer.module.site
        values = snapshot.series(site, self.scene.look.statistic)
        finite = values[np.isfinite(values)]
        value = _compact(float(finite[-1])) if finite.size else "–"
        spark = sparkline(values, snapshot.faulty(site), _SPARK) if site.stepped else ""
        return spark, value

    def _fill(self) -> None:
        if self.scene is None:
            return
        self._filled_from = self.scene.snapshot
        rows = self.arrangement.rows(
            self.scene.snapshot, self.scene.look.statistic, unfolded=self._unfolded, pins=self.pins
        )
        self._rows = list(rows)
        self._places = {row.layer.name: index for index, row in enumerate(self._rows)}
        self._kept.clear()
        self._measure()
        self.redraw()

    def lists(self, name: str) -> bool:
        """Whether a layer is among those listed, or would be if what it lies in were unfolded."""
        layer = self.scene.snapshot.layers.get(name) if self.scene is not None else None
        if self.arrangement.is_list or layer is None:
            return name in self._places
        return not self.arrangement.faults or layer.fault is not None

    def pin(self) -> bool:
        """Pin the chosen layer, or let go of it; false where it is a group that never fired, which no list holds."""
        index = self._index()
        if index is None or self._rows[index].layer.module is None:
            return False
        self.pins ^= {self._chosen}
        self._fill()
        return True

    def _measure(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._rows))

    def _index(self) -> int | None:
        return self._places.get(self._chosen)

    def _move_to(self, index: int) -> None:
        layer = self._rows[index].layer
        if layer.name != self._chosen:
            self._chosen = layer.name
            self.post_message(self.Highlighted(layer))
        self._show_cursor()

    def _show_cursor(self) -> None:
        index = self._index()
        if index is not None:
            self.scroll_to_region(Region(0, index, 1, 1), animate=False, force=True)
        self.redraw()


def _plain(parts: list[Part]) -> list[Part]:
    return [part if isinstance(part, str) else part[0] for part in parts]


def _compact(value: float) -> str:
    """A number in at most six characters, where a digit less makes it fit; no number takes more than seven."""
    text = number(value)
    return text if len(text) <= _VALUE else f"{value:.0e}"


def _above(name: str) -> set[str]:
    """Names of the layers that one lies in."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def _short(name: str, width: int) -> str:
    """A full name in what room there is: of what lies above first letters, of itself both ends; then its end alone."""
    *above, own = name.split(".")
    for at in range(len(above)):
        if len(".".join((*above, own))) <= width:
            break
        above[at] = above[at][:1]
    short = ".".join((*above, own))
    room = len(own) - (len(short) - width)
    if len(short) > width and room > _OWN:
        short = ".".join((*above, f"{own[: room - 4]}…{own[-3:]}"))
    return short if len(short) <= width else f"…{short[len(short) - max(width - 1, 0) :]}"
