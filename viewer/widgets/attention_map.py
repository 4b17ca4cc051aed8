"""The map of a word or a place, over the picture; or small maps of heads and layers; or bars of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from diffusion_xray.tracer.info import printable
from diffusion_xray.tracer.text import number

from ..overlay import fitted, mark, overlay
from ..planes import value_range
from ..render import colour_bar
from ..scene import Scene
from ..views.attention_seen import Offer, Seen
from ..views.protocol import Missing
from .attention_lists import offered_rows, paint_bars, paint_offer
from .attention_tiles import TileLayout, paint_tiles
from .attention_title import title_lines
from .attention_words import percent
from .canvas import Canvas, centred, to_strips

if TYPE_CHECKING:
    from .attention import AttentionPage

__all__ = ["AttentionMap"]

_OPACITIES: Final = (70, 100, 40)
"""Per cent."""


class AttentionMap(Canvas, can_focus=True):
    """Right of the words, or the whole page."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Up", id="attention.up", show=False, tooltip="Move the place up"),
        Binding("down,j", "move(1, 0)", "Down", id="attention.down", show=False, tooltip="Move the place down"),
        Binding("left,h", "move(0, -1)", "Left", id="attention.left", show=False, tooltip="Move the place left"),
        Binding("right,l", "move(0, 1)", "Right", id="attention.right", show=False, tooltip="Move the place right"),
        Binding("enter", "enter", "Choose", id="attention.enter", tooltip="Choose the layer or head under the cursor"),
    ]

    def __init__(self, page: AttentionPage, *, id: str) -> None:  # noqa: A002 - as the base class has it
        super().__init__(id=id)
        self._page = page
        self._opacity = 0
        self._frame = (0, 0, 0, 0)
        """Of the picture: column, row, width and height in cells."""
        self._hover: tuple[int, int] | None = None
        self._tile = (0, 0)
        self._tiles: TileLayout | None = None
        self._above = 1
        """Lines above the small maps."""
        self._top = 0
        self.seen: Seen | None = None
        """What was read last; it stays while something else is read."""

    def watch_scene(self) -> None:
        """Draw what is on show now."""
        scene = self.scene
        if scene is not None:
            if isinstance(scene.found, Seen):
                self.seen = scene.found
            elif scene.found is not None or not scene.loading:
                self.seen = None
            self._page.take(scene)
        super().watch_scene()

    def parts_of(self, scene: Scene) -> tuple[object, ...]:
        """What was read and how to draw it; the wish, for the place under the cursor."""
        waiting = scene.loading and self.seen is None
        return self.seen, scene.found, scene.wish, scene.look, scene.error, waiting, scene.site if waiting else None

    @property
    def tile(self) -> tuple[str, int] | None:
        """Layer and head of the small map under the cursor."""
        seen = self.seen
        if seen is None or seen.tiles is None:
            return None
        row, column = self._tile_in(seen)
        return seen.tiles.rows[row], seen.tiles.columns[column]

    @property
    def map_opacity(self) -> float:
        """Of the map over the picture, from 0 to 1."""
        return 1 if self.app.no_color else _OPACITIES[self._opacity] / 100

    def next_opacity(self) -> None:
        """More or less of the picture below."""
        self._opacity = (self._opacity + 1) % len(_OPACITIES)
        self.redraw()

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """What was found, or why there is nothing."""
        scene, seen = self.scene, self.seen
        assert scene is not None
        if isinstance(scene.found, Offer):
            return paint_offer(self, scene.found, self._offered(scene.found), width, height)
        why = self._why_not(scene)
        if why or seen is None:
            return why
        if seen.kind == "tokens":
            self._top = min(self._top, max(len(seen.keys) - max(height - 2, 1), 0))
            return paint_bars(self, seen, self._top, width, height)
        if seen.tiles is not None:
            return self._small(scene, seen, width, height)
        return [] if seen.map is None else self._one(scene, seen, seen.map, width, height)

    def _why_not(self, scene: Scene) -> list[Strip]:
        """Why there is no map; no lines where there is one."""
        seen, found = self.seen, scene.found
        if isinstance(found, Missing):
            return self.explain(found.why, code=found.code)
        if seen is None:
            return self.explain(f"? The attention cannot be read: {scene.error}" if scene.error else "…")
        tiles = seen.tiles is not None and any(plane is not None for row in seen.tiles.maps for plane in row)
        if seen.map is not None or seen.row is not None or tiles:
            return []
        when = f"of step {scene.step}" if seen.call.stepped else "of this layer"
        if seen.unread:
            return self.explain(
                f"? The queries and keys {when} cannot be read: {scene.error}",
                "Its statistics are in the other views, and other steps may be whole.",
            )
        if seen.absent:
            return self.explain(
                f"The queries and keys {when} were not kept: Capture(every=…, steps=…) left them out, or there was no"
                " room for them."
            )
        turned = "This token is not among the keys; t turns around."
        why = turned if seen.kind == "tokens" else "None of these words is in the text of this layer."
        return self.explain("…" if seen.further else why)

    def _one(self, scene: Scene, seen: Seen, plane: NDArray[np.float32], width: int, height: int) -> list[Strip]:
        size = fitted(*plane.shape, rows=max(height - 4, 1), columns=max(width - 2, 1))
        low, high = value_range(plane, scene.look)
        cells = overlay(
            plane,
            seen.picture,
            size=size,
            low=low,
            high=high,
            colours=scene.look.colours,
            opacity=self.map_opacity,
            shade=scene.look.shade,
        )
        grid = (plane.shape[0], plane.shape[1])
        here = self._place(grid)
        if seen.kind == "places" or self.has_focus:
            mark(cells, here, grid, "⊕")
        rows, columns = cells.shape
        title = title_lines(self, seen, width)
        above = max((height - 2 - len(title) - rows) // 2, 0)
        self._frame = ((width - columns) // 2, len(title) + above, columns, rows)
        lines = [*title, *[self.line()] * above, *centred(to_strips(cells), width)]
        return [
            *lines,
            *[self.line()] * (height - 2 - len(lines)),
            self._scale(scene, low, high, width),
            self._value(seen, plane, width),
        ]

    def _scale(self, scene: Scene, low: float, high: float, width: int) -> Strip:
        if np.isnan(low):
            return self.line((" no finite value", "fault"))
        columns = max(min(width - 20, 40), 1)
        strips = to_strips(colour_bar(columns, colours=scene.look.colours, shade=scene.look.shade))
        line = Strip.join([self.line(f"{percent(low):>8} "), *strips, self.line(f" {percent(high)}")])
        return centred([line], width)[0]

    def _value(self, seen: Seen, plane: NDArray[np.float32], width: int) -> Strip:
        grid = (plane.shape[0], plane.shape[1])
        y, x = self._hover if self._hover is not None else self._place(grid)
        y, x = min(y, grid[0] - 1), min(x, grid[1] - 1)
        below = f"overlay {_OPACITIES[self._opacity]} %  O " if seen.picture is not None else "no picture below "
        value = float(plane[y, x])
        exact = f"  p {number(value)}" if width >= 46 else ""
        return self.spread([f" {percent(value)}", (f" at ({y}, {x}){exact}", "muted")], [(below, "muted")], width)

    def _small(self, scene: Scene, seen: Seen, width: int, height: int) -> list[Strip]:
        assert seen.tiles is not None
        row, column = self._tile_in(seen)
        title = title_lines(self, seen, width)
        self._tiles = TileLayout.of(seen, width=width, height=height - 1 - len(title), row=row)
        head = seen.tiles.columns[column]
        lines = paint_tiles(
            self,
            scene,
            seen,
            self._tiles,
            (row, column),
            opacity=self.map_opacity,
        )
        where = f"{printable(seen.tiles.rows[row])}, head {head}" if len(seen.tiles.rows) > 1 else f"head {head}"
        plane = seen.tiles.maps[row][column]
        most = percent(float(np.nanmax(plane, initial=0))) if plane is not None else "–"
        foot = self.spread(
            [f" {where}", (f"  up to {most}", "muted")], [("arrows choose · enter opens ", "muted")], width
        )
        self._above = len(title)
        lines = [*title, *lines][: height - 1]
        return [*lines, *[self.line()] * (height - 1 - len(lines)), foot]

    def _offered(self, offer: Offer) -> int:
        """Which of the layers is chosen."""
        return self._page.wish.item % len(offer.calls)

    def _place(self, grid: tuple[int, int]) -> tuple[int, int]:
        y, x = (min(max(int(at * size), 0), size - 1) for at, size in zip(self._page.wish.place, grid, strict=True))
        return y, x

    def _tile_in(self, seen: Seen) -> tuple[int, int]:
        assert seen.tiles is not None
        return min(self._tile[0], len(seen.tiles.rows) - 1), min(self._tile[1], len(seen.tiles.columns) - 1)

    def action_move(self, down: int, right: int) -> None:
        """Move the place, the small map, or what is offered."""
        scene, seen = self.scene, self.seen
        if scene is not None and isinstance(scene.found, Offer):
            self._page.ask(item=min(max(self._offered(scene.found) + down, 0), len(scene.found.calls) - 1))
        elif seen is None:
            return
        elif seen.kind == "tokens":
            self._top = max(self._top + down, 0)
            self.redraw()
        elif seen.tiles is not None and self._tiles is not None:
            row, column = self._tiles.moved(self._tile_in(seen), down, right)
            self._tile = row, column
            self.redraw()
        elif seen.map is not None:
            y, x = self._place((seen.map.shape[0], seen.map.shape[1]))
            self._look_from(seen.map.shape, y + down, x + right)

    def action_enter(self) -> None:
        """Open what is under the cursor."""
        self._page.action_go()

    def _look_from(self, grid: Sequence[int], y: int, x: int) -> None:
        self._hover = None
        y, x = (min(max(at, 0), size - 1) for at, size in zip((y, x), grid, strict=True))
        self._page.ask(place=((y + 0.5) / grid[0], (x + 0.5) / grid[1]))

    def _hit(self, column: int, row: int) -> tuple[int, int] | None:
        """The cell of the grid below a place of the widget."""
        seen = self.seen
        left, top, width, height = self._frame
        if seen is None or seen.map is None or not (left <= column < left + width and top <= row < top + height):
            return None
        rows, columns = seen.map.shape
        return int((row - top + 0.5) * rows / height), int((column - left + 0.5) * columns / width)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Tell the value under the mouse."""
        hit = self._hit(event.x, event.y) if self.seen is not None and self.seen.tiles is None else None
        if hit != self._hover:
            self._hover = hit
            self.redraw()

    def on_leave(self) -> None:
        """Tell the value under the cursor again."""
        if self._hover is not None:
            self._hover = None
            self.redraw()

    def on_click(self, event: events.Click) -> None:
        """Look from the place that was hit, or open the small map or layer."""
        scene, seen = self.scene, self.seen
        if scene is not None and isinstance(scene.found, Offer):
            rows = offered_rows(scene.found, self._offered(scene.found), self.size.height)
            if 3 <= event.y < 3 + len(rows):
                self._page.ask(item=rows[event.y - 3])
        elif seen is not None and seen.tiles is not None and self._tiles is not None:
            tile = self._tiles.hit(event.x, event.y - self._above)
            if tile is not None:
                self._tile = tile
                self.redraw()
        elif seen is not None and seen.map is not None:
            hit = self._hit(event.x, event.y)
            if hit is not None:
                self._look_from(seen.map.shape, *hit)

    def on_focus(self) -> None:
        """Show it."""
        self._refocus()

    def on_blur(self) -> None:
        """Show it."""
        self._refocus()

    def _refocus(self) -> None:
        self.redraw()
        words = self._page.query_one("#attention-words", Canvas)
        words.redraw()
