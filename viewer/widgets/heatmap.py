"""A tensor as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from diffusion_xray.tracer.text import number

from ..branches import batch_name
from ..export.sheet import Taken
from ..look import Look
from ..planes import PROJECTIONS, Colours, Maps, maps_of, value_range
from ..render import Cells, colour_bar, heat_map, picture
from ..scene import Scene
from ..views.image import ImageWish, Picture
from ..views.image_taken import mosaic_taken, projection_taken
from .canvas import Canvas, Part, beside, centred, to_strips

__all__ = ["HeatmapView"]

_TILE: Final = 12
"""Least columns of a map in the mosaic."""
_MOST_TILES: Final = 256
_ASPECT: Final = (0.25, 4.0)
"""Height by width beyond which a map is drawn as if it were that."""


class HeatmapView(Canvas, can_focus=True):
    """One channel of the chosen tensor, many or all in one, with a colour bar that carries numbers."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "point(-1, 0)", "Up", id="image.up", show=False, tooltip="Pixel above"),
        Binding("down,j", "point(1, 0)", "Down", id="image.down", show=False, tooltip="Pixel below"),
        Binding("left,h", "point(0, -1)", "Left", id="image.left", show=False, tooltip="Pixel to the left"),
        Binding("right,l", "point(0, 1)", "Right", id="image.right", show=False, tooltip="Pixel to the right"),
    ]
    HELP = "Arrows move the pixel whose value is shown; so does the mouse."

    _pixel: tuple[int, int] | None = None
    """Row and column that is pointed at."""
    _box: tuple[int, int, int, int] = (0, 0, 1, 1)
    """Where the picture was drawn: first line, first column, lines, columns."""
    _plane: NDArray[Any] | None = None
    _tiles: tuple[int, int, int] | None = None
    """Of a mosaic that was drawn: the first channel, how many, and how many in a line."""

    def paint(self, width: int, height: int) -> Sequence[Strip]:
        """The picture, a line on what it is, and the colour bar."""
        scene = self.scene
        assert scene is not None and scene.site is not None
        found = scene.found
        self._plane = self._tiles = None
        if not isinstance(found, Picture):
            return self.explain(f"? This tensor cannot be read: {scene.error}" if scene.error else "loading …")
        maps = maps_of(found.tensor, scene.site, scene.look.batch)
        if not maps.values.size:
            return self.explain("This tensor holds no values: one of its dimensions is 0.")
        rows = max(height - 3, 1)
        if isinstance(found.projection, Colours):
            return [*self._colours(scene, found.projection, maps, width, rows)]
        if _wish(scene).mosaic and found.projection is None and len(maps.values) > 1:
            return self._mosaic(scene, maps, width, rows)
        projected = found.projection is not None
        plane = found.projection if projected else maps.values[scene.look.channel % len(maps.values)]
        return self._one(scene, np.asarray(plane, dtype=np.float64), maps, width, rows)

    def taken(self) -> Taken | None:
        """The projection or the mosaic, for whoever exports it; None for one channel."""
        scene = self.scene
        if scene is None or not isinstance(scene.found, Picture):
            return None
        if scene.found.projection is not None:
            return projection_taken(scene, _wish(scene).projection)
        return mosaic_taken(scene, *self._tiles) if self._tiles is not None else None

    def action_walk(self, by: int) -> None:
        """Another channel, or in the mosaic another page of them."""
        if self.scene is not None:
            self.post_message(self.Looked(replace(self.scene.look, channel=self.scene.look.channel + by)))

    def action_batch(self, by: int) -> None:
        """Another batch entry."""
        if self.scene is not None:
            self.post_message(self.Looked(replace(self.scene.look, batch=self.scene.look.batch + by)))
            wish = _wish(self.scene)
            if wish.projection:
                self.post_message(self.Wished(replace(wish, batch=self.scene.look.batch + by)))

    def action_mosaic(self) -> None:
        """Many channels, or one."""
        if self.scene is not None:
            wish = _wish(self.scene)
            self.post_message(
                self.Wished(replace(wish, mosaic=not wish.mosaic or bool(wish.projection), projection=""))
            )

    def action_project(self) -> None:
        """Another way to see all channels in one."""
        if self.scene is not None:
            wish = _wish(self.scene)
            on = PROJECTIONS[(PROJECTIONS.index(wish.projection) + 1) % len(PROJECTIONS)]
            self.post_message(self.Wished(replace(wish, projection=on, batch=self.scene.look.batch)))

    def action_point(self, down: int, across: int) -> None:
        """Point at a neighbouring pixel."""
        if self._plane is not None:
            rows, columns = self._plane.shape
            row, column = self._pixel or (rows // 2, columns // 2)
            self._pixel = min(max(row + down, 0), rows - 1), min(max(column + across, 0), columns - 1)
            self.redraw()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Point at the pixel under the mouse."""
        top, left, lines, columns = self._box
        line, column = event.y - top, event.x - left
        if self._plane is None or not (0 <= line < lines and 0 <= column < columns):
            return
        rows, across = self._plane.shape
        pixel = (2 * line + 1) * rows // (2 * lines), (2 * column + 1) * across // (2 * columns)
        if pixel != self._pixel:
            self._pixel = pixel
            self.redraw()

    def _one(self, scene: Scene, plane: NDArray[np.float64], maps: Maps, width: int, rows: int) -> list[Strip]:
        look, wish = scene.look, _wish(scene)
        low, high = value_range(plane, look)
        cells = _heat_map(plane, look, rows, max(width - 2, 1), (low, high), spatial=maps.spatial)
        strips = centred(to_strips(cells), width)
        lines, columns = cells.shape
        self._plane, self._box = plane, (1, max((width - columns) // 2, 0), lines, columns)
        if self._pixel is not None and self._pixel[0] < plane.shape[0] and self._pixel[1] < plane.shape[1]:
            line, column = self._pixel[0] * lines // plane.shape[0], self._pixel[1] * columns // plane.shape[1]
            at = self._box[1] + column
            mark = self.line(("┼", "cursor"))
            strips[line] = Strip.join([strips[line].crop(0, at), mark, strips[line].crop(at + 1)])
        chosen = wish.title or f"channel {look.channel % len(maps.values)} of {len(maps.values)}"
        what = [f"{plane.shape[0]}×{plane.shape[1]} {maps.caption}", *([chosen] if len(maps.values) > 1 else [])]
        caption = self._caption(scene, maps, what, plane, width)
        return [caption, *strips, self.line(), self._scale(low, high, look, width)]

    def _mosaic(self, scene: Scene, maps: Maps, width: int, rows: int) -> list[Strip]:
        look = scene.look
        height, across = maps.values.shape[1:]
        columns, tile, lines = _tiling(len(maps.values), height / across, width, rows)
        shown = min(max(rows // (lines + 1), 1) * columns, len(maps.values), _MOST_TILES)
        pages = -(-len(maps.values) // shown)
        first = look.channel % pages * shown
        part = np.asarray(maps.values[first : first + shown], dtype=np.float64)
        self._tiles = (first, len(part), min(columns, len(part)))
        low, high = value_range(part, look)
        body: list[Strip] = []
        for start in range(0, len(part), columns):
            row: list[Strip] = []
            for place, plane in enumerate(part[start : start + columns]):
                cells = _heat_map(plane, look, lines, tile, (low, high), spatial=False)
                label = self.line((f" {first + start + place}", "muted"))
                block = [label, *(Strip.join([self.line(" "), strip]) for strip in to_strips(cells))]
                row = beside(row, block, width=place * (tile + 1)) if row else block
            body += row
        what = [f"{height}×{across} {maps.caption}", f"channels {first}–{first + len(part) - 1} of {len(maps.values)}"]
        caption = self._caption(scene, maps, what, part, width)
        body += [self.line()] * (rows - len(body))
        return [caption, *body[:rows], self.line(), self._scale(low, high, look, width)]

    def _colours(self, scene: Scene, colours: Colours, maps: Maps, width: int, rows: int) -> list[Strip]:
        bad = ~np.isfinite(colours.rgb).all(axis=2)
        rgb = (np.nan_to_num(colours.rgb) * 255).round().astype(np.uint8)
        rgb[bad] = (255, 0, 200)
        cells = picture(rgb, rows=rows, columns=max(width - 2, 1), shade=scene.look.shade)
        what = [f"{maps.values.shape[1]}×{maps.values.shape[2]} {maps.caption}", f"{len(maps.values)} channels"]
        caption = self._caption(scene, maps, what, colours.rgb[..., 0], width)
        share = (
            f" red, green and blue hold {colours.share:.0%} of the variance" if colours.share == colours.share else ""
        )
        return [caption, *centred(to_strips(cells), width), self.line(), self.line((share, "muted"))]

    def _caption(self, scene: Scene, maps: Maps, what: list[str], shown: NDArray[Any], width: int) -> Strip:
        assert scene.site is not None
        if maps.batches > 1:
            at = scene.look.batch % maps.batches
            name = batch_name(scene.snapshot, scene.site, at, maps.batches, scene.step)
            what = [*what, f"batch {at}{f' ({name})' if name else ''} of {maps.batches}"]
        bad = int((~np.isfinite(shown)).sum())
        faults: list[Part] = [(f" · {bad} not finite", "fault")] if bad else []
        return self.spread([(" " + " · ".join(what), "muted"), *faults], [], width)

    def _scale(self, low: float, high: float, look: Look, width: int) -> Strip:
        pointed: list[Part] = []
        if self._plane is not None and self._pixel is not None:
            row, column = self._pixel
            if row < self._plane.shape[0] and column < self._plane.shape[1]:
                value = float(self._plane[row, column])
                pointed = [
                    (f"[{row}, {column}] ", "muted"),
                    (f"{value:.7g} ", "plain" if np.isfinite(value) else "fault"),
                ]
        if np.isnan(low):
            return self.spread([(" no finite value", "fault")], pointed, width)
        bar = to_strips(colour_bar(max(min(width - 54, 40), 8), colours=look.colours, shade=look.shade))
        end = self.line(f" {number(high)}")
        left = Strip.join([self.line(f" {number(low):>8} "), *bar, end])
        right = self.line(*pointed)
        gap = max(width - left.cell_length - right.cell_length, 1)
        return Strip.join([left, self.line(" " * gap), right])


def _wish(scene: Scene) -> ImageWish:
    return scene.wish if isinstance(scene.wish, ImageWish) else ImageWish()


def _tiling(tiles: int, aspect: float, width: int, rows: int) -> tuple[int, int, int]:
    """Columns of tiles, and the columns and lines of each: as large as all have room, but not smaller than `_TILE`."""
    aspect = min(max(aspect, _ASPECT[0]), _ASPECT[1])
    most = max((width - 1) // (_TILE + 1), 1)
    for columns in range(1, most + 1):
        tile = max((width - 1) // columns - 1, 1)
        lines = max(round(tile * aspect / 2), 1)
        if rows // (lines + 1) * columns >= tiles:
            break
    return columns, tile, min(lines, max(rows - 1, 1))


def _heat_map(
    plane: NDArray[np.float64], look: Look, rows: int, columns: int, span: tuple[float, float], *, spatial: bool
) -> Cells:
    return heat_map(
        plane,
        rows=rows,
        columns=columns,
        low=span[0],
        high=span[1],
        colours=look.colours,
        keep_aspect=spatial,
        shade=look.shade,
    )
