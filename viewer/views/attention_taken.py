"""What leaves the browser of an attention map: its picture, its numbers, and the code that computes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..export.sheet import Sheet, Taken, Tile
from ..look import Look
from ..planes import value_range
from ..scene import Scene
from .attention_code import code_of
from .attention_seen import Seen, Tiles

if TYPE_CHECKING:
    from ..export.selection import Selection
    from .attention_wish import Wish

__all__ = ["attention_taken"]

_FILES: Final = (".png", ".npy", ".plane.csv")


def attention_taken(
    scene: Scene, wish: Wish, about: str, *, unit: Callable[[float], str], opacity: float
) -> Taken | None:
    """What the attention page shows.

    Args:
        scene: What is on show.
        wish: What is asked for, which may be more than has been read.
        about: Which heads and which entry of the batch, in a few words.
        unit: How shares are written.
        opacity: Of a map over the picture.

    Returns:
        None where the page shows no attention, but what is offered in its place.
    """
    seen = scene.found
    if not isinstance(seen, Seen):
        return _refused("the map is still being read") if seen is None and scene.loading else None
    late = seen.call.stepped and seen.step != scene.step
    if late or replace(seen.wish, round=0) != replace(wish, round=0) or seen.done < seen.total:
        return _refused("the map is still being computed")
    if seen.row is None and seen.map is None and seen.tiles is None:
        return _refused("there is no map here")

    def draw(selection: Selection) -> Sheet:
        if seen.row is not None:
            return Sheet((Tile(seen.row[None]),), _caption(seen, about), header=seen.keys, unit=unit)
        over: dict[str, Any] = {"below": seen.picture, "opacity": opacity}
        if seen.tiles is not None:
            tiles, lines = _tiles(seen.tiles, selection.look, unit)
            if len(lines) > 1:
                note = "a line each layer, a column each head, a range each line"
                return Sheet(
                    tiles, _caption(seen, about), len(seen.tiles.columns), note, lines=lines, unit=unit, **over
                )
            return Sheet(tiles, _caption(seen, about), math.ceil(math.sqrt(len(tiles))), unit=unit, **over)
        assert seen.map is not None
        span = value_range(seen.map, selection.look)
        return Sheet((Tile(seen.map, span),), _caption(seen, about), unit=unit, **over)

    refused = {}
    if seen.row is not None:
        refused[".png"] = "bars are no map; s takes the screen"
    if seen.tiles is not None and len({source.rows.shape for source in seen.sources}) > 1:
        refused[".npy"] = "layers differ in size; z shows those of one"
    return Taken(draw, refused, numbers=True, name=_name(seen), python=code_of(seen))


def _refused(why: str) -> Taken:
    return Taken(refused=dict.fromkeys(_FILES, why), numbers=True, name="attention")


def _what(seen: Seen) -> str:
    """Who looks at what."""
    y, x = seen.query
    if seen.kind == "places":
        return f"who looks at ({y}; {x})" if seen.wish.reverse else f"where ({y}; {x}) looks"
    names = " + ".join(seen.names[at] for at in seen.chosen) or "–"
    if seen.kind == "tokens":
        return f"who looks at {names}" if seen.wish.reverse else f"what {names} looks at"
    return f"attention to {names}"


def _name(seen: Seen) -> str:
    return "-".join(["attention", *(seen.names[at] for at in seen.chosen)])


def _caption(seen: Seen, about: str) -> str:
    size = [] if seen.kind == "tokens" else ["x".join(map(str, seen.grid[-2:]))]
    frame = [f"frame {seen.frame + 1} of {seen.grid[0]}"] if len(seen.grid) == 3 else []
    layers = []
    if seen.scope:
        layers = [f"{'' if seen.tiles is not None else 'mean of '}{len(seen.layers)} layers {seen.scope}"]
    return ", ".join(filter(None, [_what(seen), *layers, about, *frame, *size, seen.doubt]))


def _tiles(tiles: Tiles, look: Look, unit: Callable[[float], str]) -> tuple[tuple[Tile, ...], tuple[str, ...]]:
    """The small maps, and a label for each line of them. Heads of one layer share a range, as on the screen."""
    found, lines = [], []
    for layer, planes in zip(tiles.rows, tiles.maps, strict=True):
        known = [plane for plane in planes if plane is not None]
        span = value_range(np.stack(known), look) if known else (math.nan, math.nan)
        most = unit(float(np.max([plane.max() for plane in known]))) if known else "–"
        lines.append(f"{layer}  up to {most}")
        for head, plane in zip(tiles.columns, planes, strict=True):
            label = f"head {head}" if len(tiles.rows) == 1 else f"{layer} head {head}"
            found.append(Tile(np.zeros((0, 0)) if plane is None else plane, span, label))
    return tuple(found), tuple(lines)
