"""Small maps of attention: every head of a layer, or every head of every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.segment import Segment
from textual.strip import Strip

from diffusion_xray.tracer.info import printable

from ..overlay import fitted, overlay
from ..planes import value_range
from ..scene import Scene
from ..views.attention_seen import Seen
from .attention_words import percent
from .canvas import Canvas, Tone, to_strips

__all__ = ["TileLayout", "paint_tiles"]

_GAP: Final = 2
_WIDEST: Final = 32
_LEAST: Final = 6
"""Columns of a small map."""


@dataclass(frozen=True, slots=True)
class TileLayout:
    """Which small map lies where: lines of them, each below a line of text."""

    lines: tuple[tuple[tuple[int, int], ...], ...]
    """(row, column) of those shown, from the top."""
    width: int
    """Of a map, in cells."""
    height: int
    by_layer: bool

    @property
    def across(self) -> int:
        """Maps side by side."""
        return len(self.lines[0]) if self.lines else 1

    @classmethod
    def of(cls, seen: Seen, *, width: int, height: int, row: int) -> TileLayout:
        """Fit them into a rectangle; where layers do not fit, those about a row."""
        assert seen.tiles is not None
        rows, columns = len(seen.tiles.rows), len(seen.tiles.columns)
        aspect = _aspect(seen)
        if rows > 1:
            wide = min(max((width - 2) // max(columns, 1) - _GAP, _LEAST), _WIDEST)
            tall = min(max(round(wide * aspect / 2), 2), max(height - 1, 1))
            fits = max(height // (tall + 1), 1)
            top = min(max(row - fits // 2, 0), max(rows - fits, 0))
            across = range(min(columns, max((width - 2) // (wide + _GAP), 1)))
            shown = tuple(tuple((at, column) for column in across) for at in range(top, min(top + fits, rows)))
            return cls(shown, wide, tall, by_layer=True)
        best = (0, 1, 1)
        for across_count in range(1, columns + 1):
            down = -(-columns // across_count)
            wide = min((width - 2) // across_count - _GAP, int(2 * (height / down - 1) / aspect))
            best = max(best, (wide, across_count, down))
        wide, across_count, _ = best
        wide = max(wide, 2)
        tall = max(min(round(wide * aspect / 2), height - 1), 1)
        order = [(0, column) for column in range(columns)]
        grouped = tuple(tuple(order[at : at + across_count]) for at in range(0, columns, across_count))
        return cls(grouped, wide, tall, by_layer=False)

    def hit(self, x: int, y: int) -> tuple[int, int] | None:
        """The map at a place."""
        line, at = y // (self.height + 1), (x - 1) // (self.width + _GAP)
        if 0 <= line < len(self.lines) and 0 <= at < len(self.lines[line]):
            return self.lines[line][at]
        return None

    def moved(self, tile: tuple[int, int], down: int, right: int) -> tuple[int, int]:
        """The neighbour of a map."""
        row, column = tile
        if self.by_layer:
            return max(row + down, 0), max(column + right, 0)
        there = column + right + down * self.across
        return row, there if there >= 0 else column


def paint_tiles(
    canvas: Canvas, scene: Scene, seen: Seen, layout: TileLayout, chosen: tuple[int, int], *, opacity: float
) -> list[Strip]:
    """The lines of a layout. Heads of one layer share a range; layers have one of their own each."""
    assert seen.tiles is not None
    lines = []
    for tiles in layout.lines:
        row = tiles[0][0]
        known = [plane for plane in seen.tiles.maps[row] if plane is not None]
        low, high = value_range(np.stack(known), scene.look) if known else (np.nan, np.nan)
        labels: list[Strip] = []
        if layout.by_layer:
            name = printable(_short(seen.tiles.rows)[row])
            most = percent(float(np.nanmax([plane.max() for plane in known]))) if known else "–"
            tone: Tone = "accent" if row == chosen[0] else "muted"
            end = layout.across * (layout.width + _GAP)
            labels = [canvas.spread([(f" {name}", tone)], [(f"up to {most}", "muted")], max(end, 24))]
        else:
            for tile in tiles:
                plane = seen.tiles.maps[tile[0]][tile[1]]
                most = "" if plane is None else f" {percent(float(np.nanmax(plane, initial=0)))}"
                text = f"head {seen.tiles.columns[tile[1]]}"
                tone = "cursor" if tile == chosen else "muted"
                room = layout.width + _GAP
                more = most if len(text) + len(most) < room else ""
                labels.append(canvas.line((text[: room - 1], tone), (more, "muted")).adjust_cell_length(room))
            labels = [Strip.join([canvas.line(" "), *labels])]
        pictures = [
            _tile(
                canvas,
                scene,
                seen,
                seen.tiles.maps[tile[0]][tile[1]],
                layout,
                low,
                high,
                opacity,
                framed=tile == chosen,
            )
            for tile in tiles
        ]
        body = [
            Strip.join(
                [
                    Strip([Segment(" ")]),
                    *(picture[line].adjust_cell_length(layout.width + _GAP) for picture in pictures),
                ]
            )
            for line in range(layout.height)
        ]
        lines += [*labels, *body]
    return lines


def _tile(  # noqa: PLR0917 - private
    canvas: Canvas,
    scene: Scene,
    seen: Seen,
    plane: NDArray[np.float32] | None,
    layout: TileLayout,
    low: float,
    high: float,
    opacity: float,
    *,
    framed: bool,
) -> list[Strip]:
    if plane is None:
        return [canvas.line(("·", "muted"))] + [canvas.line()] * (layout.height - 1)
    height, width = fitted(*plane.shape, rows=layout.height, columns=layout.width)
    height, width = (height, width) if height // 2 <= layout.height else (layout.height * 2, layout.width)
    cells = overlay(
        plane,
        seen.picture,
        size=(height, width),
        low=low,
        high=high,
        colours=scene.look.colours,
        opacity=opacity,
        shade=scene.look.shade,
    )
    strips = to_strips(cells)
    if framed and layout.by_layer:
        edge = canvas.line(("▐", "accent"))
        strips = [Strip.join([strip, edge]) for strip in strips]
    return [*strips, *[canvas.line()] * (layout.height - len(strips))]


def _aspect(seen: Seen) -> float:
    assert seen.tiles is not None
    plane = next((plane for row in seen.tiles.maps for plane in row if plane is not None), None)
    return plane.shape[0] / max(plane.shape[1], 1) if plane is not None else 1


def _short(names: Sequence[str]) -> list[str]:
    """Paths without what all have in common in front."""
    split = [name.split(".") for name in names]
    common = 0
    while len(names) > 1 and all(len(parts) > common + 1 and parts[common] == split[0][common] for parts in split):
        common += 1
    return [".".join(parts[common:]).replace(".transformer_blocks.", ".") for parts in split]
